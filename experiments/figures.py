"""What a figure's file may say: checked before anything is composed, so that a slip costs a sentence, not a run."""

from collections.abc import Mapping
from typing import Any

from experiments.errors import UserError
from experiments.settings import nearest
from experiments.store import COLUMNS

KEYS = ("name", "title", "kind", "base", "curves", "panels", "scales", "claims", "logs", "assumptions")
CURVE_KEYS = ("label", "set", "scales", "from", "row", "instead_of", "x_scale")
PANEL_KEYS = ("x", "y", "curves", "labels")
XS = ("iteration", "lr", "momentum", "parameters")
YS = (*(name for name in COLUMNS if name not in XS), "generalization_error", "test_error", "train_error")


def check_figure(figure: Mapping[str, Any], name: str) -> None:
    """Raises UserError that names the file, the place in it and what may stand there."""
    file = f"conf/figure/{name}.yaml"

    def mapping(value: Any, place: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not value:
            raise UserError(f"{file}: {place} is missing or empty; README has an example of a figure's file.")
        return value

    def known(words: Any, choices: tuple[str, ...], place: str) -> None:
        for word in words:
            if word not in choices:
                raise UserError(f"{file}: {place} cannot have '{word}': {nearest(str(word), choices)}")

    known(figure, KEYS, "a figure")
    if not isinstance(figure.get("title"), str):
        raise UserError(f"{file}: title is missing; add  title: What the figure shows.")
    mapping(figure.get("base"), "base")
    curves = mapping(figure.get("curves"), "curves")
    for curve, what in curves.items():
        known(mapping(what, f"curve {curve}"), CURVE_KEYS, f"curve {curve}")
        if "label" not in what:
            raise UserError(f"{file}: curve {curve} has no label; add  label: its name in the legend.")
        if (start := what.get("from")) and start.get("curve") not in curves:
            raise UserError(f"{file}: curve {curve} starts from '{start.get('curve')}', which is no curve of it.")
        if "instead_of" in what and what["instead_of"] not in curves:
            raise UserError(f"{file}: curve {curve} stands instead of '{what['instead_of']}', which is no curve of it.")
    if figure.get("kind") == "table":
        return
    for panel, what in mapping(figure.get("panels"), "panels").items():
        known(mapping(what, f"panel {panel}"), PANEL_KEYS, f"panel {panel}")
        known([what.get("x")], XS, f"panel {panel} on its x axis")
        y = what.get("y")
        known(y if isinstance(y, list) else [y], YS, f"panel {panel} on its y axis")
        known(what.get("curves", ()), tuple(curves), f"panel {panel}")
