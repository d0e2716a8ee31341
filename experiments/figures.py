"""What a figure's file may say: checked before anything is composed, so that a slip costs a sentence, not a run."""

from collections.abc import Mapping
from typing import Any

from experiments.errors import UserError
from experiments.settings import nearest
from experiments.store import COLUMNS

KEYS = ("name", "title", "kind", "base", "curves", "panels", "scales", "claims", "logs", "assumptions")
CURVE_KEYS = ("label", "set", "scales", "from", "row", "instead_of", "like", "x_scale")
DESCRIBED = "momentum as described"
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
        for key in ("instead_of", "like"):
            if key in what and what[key] not in curves:
                raise UserError(f"{file}: curve {curve} has {key}: '{what[key]}', which is no curve of it.")
        if "like" in what and list(curves).index(what["like"]) >= list(curves).index(curve):
            raise UserError(f"{file}: curve {curve} is like '{what['like']}', which has to stand before it.")
        if "instead_of" in curves.get(what.get("instead_of"), {}):
            raise UserError(
                f"{file}: curve {curve} stands instead of '{what['instead_of']}', itself another reading: name the "
                f"curve that both could replace, and add  like: {what['instead_of']}  to start from its settings."
            )
    if figure.get("kind") == "table":
        return
    for panel, what in mapping(figure.get("panels"), "panels").items():
        known(mapping(what, f"panel {panel}"), PANEL_KEYS, f"panel {panel}")
        known([what.get("x")], XS, f"panel {panel} on its x axis")
        y = what.get("y")
        known(y if isinstance(y, list) else [y], YS, f"panel {panel} on its y axis")
        known(what.get("curves", ()), tuple(curves), f"panel {panel}")


def sets(figure: Mapping[str, Any], curve: str) -> list[Mapping[str, Any]]:
    """What a curve's settings are laid together from, the first first: the figure's base, then its own differences.

    Another reading (`instead_of`) differs from the curve that it stands for, or from the reading that `like` names.
    """
    what = figure["curves"][curve]
    of = what.get("like", what.get("instead_of"))
    before = [figure["base"]] if of is None else sets(figure, of)
    return [*before, what.get("set") or {}]


def momentum_is_recorded_only(figure: Mapping[str, Any], curve: str) -> bool:
    """Whether a curve's file gives it a schedule of momentum which its solver records and does not apply."""
    solver, momentum = dict[str, Any](), dict[str, Any]()
    for changes in sets(figure, curve):
        solver |= changes.get("solver") or {}
        momentum |= changes.get("momentum") or {}
    return solver.get("type") == "nesterov_unmodified" and momentum.get("policy", "constant") != "constant"


def one_momentum(figure: Mapping[str, Any], curve: str, overrides: Mapping[str, Any]) -> bool:
    """Whether a curve is trained with the first value of its schedule of momentum, and nobody asked for another way."""
    return "type" not in (overrides.get("solver") or {}) and momentum_is_recorded_only(figure, curve)


def records_momentum(figure: Mapping[str, Any], curve: str) -> bool:
    """Whether a panel shows the curve over the momentum that its solver records (figure 7b)."""
    of = figure["curves"][curve].get("instead_of", curve)
    return any(
        what["x"] == "momentum" and of in what.get("curves", figure["curves"])
        for what in figure.get("panels", {}).values()
    )


def with_readings(figure: dict[str, Any]) -> dict[str, Any]:
    """A checked figure with what its file leaves out: what other readings share with their curves, and described ones.

    Every curve whose momentum is recorded only gets a reading CURVE_described, in which it is applied, as the report
    describes it.
    """
    curves = dict(figure["curves"])
    for curve, what in curves.items():
        if of := curves.get(what.get("like", what.get("instead_of"))):
            curves[curve] = {key: of[key] for key in ("row", "scales", "from") if key in of} | what
    figure = {**figure, "curves": curves}
    for curve, what in list(curves.items()):
        if momentum_is_recorded_only(figure, curve):
            curves[f"{curve}_described"] = {
                **{key: what[key] for key in ("row", "scales", "from", "x_scale") if key in what},
                "instead_of": what.get("instead_of", curve),
                "like": curve,
                "label": f"{what['label']}, {DESCRIBED}",
                "set": {"solver": {"type": "nesterov"}},
            }
    return figure
