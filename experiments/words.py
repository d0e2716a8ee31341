"""Settings, figures, durations and counts as the user reads or types them."""

import json
import re
from collections.abc import Mapping
from typing import Any

_OF_THE_REPORT = re.compile(r"fig(?:0[1-9]|1[0-6])b?|table[12]")


def changes(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested settings as the command line takes them: solver.weight_decay=0.001."""
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += changes(value, f"{prefix}{key}.")
        else:
            plain = json.dumps(value) if value is None or isinstance(value, bool) else value  # null, true, false
            found.append(f"{prefix}{key}={plain}")
    return found


def written(value: Any, most: int = 80) -> str:
    """A value of a figure's file for a sentence: as it is written there, the end of a long one left out."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def spoken(figure: str) -> str:
    """ "Figure 9" for fig09, "Table 1" for table1; one that is not the report's as it is called."""
    if not of_the_report(figure):
        return figure
    return re.sub(r"^(fig|table)0?", lambda kind: {"fig": "Figure ", "table": "Table "}[kind[1]], figure)


def of_the_report(figure: str) -> bool:
    """Whether a figure or table is one of the report's, by its name."""
    return _OF_THE_REPORT.fullmatch(figure) is not None


def target(figure: str) -> str:
    """What Make calls a figure: fig9 for fig09."""
    return re.sub(r"^fig0", "fig", figure)


def made_by(figure: str, word: str) -> str:
    """The command for a figure with one of Make's words: "make fig9 JOBS=2"."""
    return f"make {target(figure)} {word}"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h", "254 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds > 72 * 3600:
        return f"{seconds / 86400:,.0f} days"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(n: int, noun: str) -> str:
    """ "1 replicate", "4 replicates"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def panel_number(panel: str) -> str:
    """ "9a" for fig09a."""
    return panel.removeprefix("fig").lstrip("0")
