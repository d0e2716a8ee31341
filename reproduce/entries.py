"""What the report has, figure by figure, and what lies beside its results: the times of runs, and our notes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.compose import load, names
from experiments.errors import UserError
from experiments.figures import check_figure
from experiments.words import target
from reproduce import reference
from reproduce.claims import CLAIMS

TABLES = ("table1", "table2")


@dataclass(frozen=True)
class Entry:
    """A figure or table of the report: our file about it (None where there is none yet) and the panels it draws."""

    name: str
    label: str
    panels: list[str]
    figure: Mapping[str, Any] | None

    @property
    def claims(self) -> list[str]:
        """The claims that the report draws from these panels."""
        return [c.id for c in CLAIMS.values() if c.panel in self.panels]

    @property
    def title(self) -> str:
        if self.figure:
            return self.figure["title"]
        return next((reference.axes(p).title for p in self.panels if p not in TABLES), "")

    @property
    def target(self) -> str:
        """The command that makes it."""
        return f"make {target(self.name)}"


def _as_it_comes(problem: str) -> None:
    raise UserError(problem)


def entries(broken: Callable[[str], None] = _as_it_comes) -> list[Entry]:
    """Everything the report has, in its order, then figures that only conf/figure has.

    broken: told of files that cannot be read, which are then left out. Raises UserError without it.
    """
    files = dict[str, dict[str, Any]]()
    for name in names("figure"):
        try:
            figure = load("figure", name)
            check_figure(figure, name)
        except UserError as error:
            broken(str(error))
            continue
        files[name] = figure
    owner: dict[str, str] = {}
    for name in sorted(files, key=lambda n: not re.fullmatch(r"fig\d\d[a-z]?", n)):  # before copies by other names
        for panel in files[name].get("panels", {}):
            owner.setdefault(panel, name)
    panels: dict[str, list[str]] = {}
    for panel in reference.panels():
        panels.setdefault(owner.get(panel, panel[:5]), []).append(panel)
    panels.update({table: [table] for table in TABLES})
    for name in files:
        panels.setdefault(name, [])
    return [Entry(name, _label(name, of), of, files.get(name)) for name, of in panels.items()]


def _label(name: str, panels: list[str]) -> str:
    """ "Figure 9"; "Figure 3a" where the entry has not all of a figure's panels; "Table 1"; else its name."""
    if name in TABLES:
        return f"Table {name.removeprefix('table')}"
    if not panels:
        return name
    stem = panels[0][:5]
    whole = panels == [p for p in reference.panels() if p.startswith(stem)]
    letters = "" if whole else ", ".join(p[5:] for p in panels)
    return f"Figure {int(stem[3:])}{letters}"


def read_notes(results: Path) -> dict[str, str]:
    """results/notes.yaml: what we make of each figure; empty where there is none. Raises UserError for other shapes."""
    path = results / "notes.yaml"
    try:
        notes = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({error}): a text for each figure is expected.") from None
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise UserError(f"{path}: a text for each figure is expected, for example  fig09: The order is the report's.")
    return {str(name): text for name, text in notes.items()}
