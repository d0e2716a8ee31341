"""The curves of a figure as its file has them: their own settings, other readings of them, momentum as described.

A figure here is a mapping that `experiments.figures.check_figure` has passed.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from experiments.errors import UserError
from experiments.schedules import MOMENTUM_POLICIES

DESCRIBED = "momentum as described"
SUFFIX = "_described"
ONE_MOMENTUM = (
    "stays at its first value where the report has it rise or fall, as in the author's runs, which probably recorded a "
    "schedule that they did not apply; ARGS=solver.type=nesterov applies it"
)


def own_curves(curves: Mapping[str, Any]) -> list[str]:
    """The names of the curves that are drawn as the figure's own."""
    return [name for name, what in curves.items() if "instead_of" not in what]


def other_readings(curves: Mapping[str, Any]) -> list[str]:
    """The names of the curves that are another reading of one of those."""
    return [name for name, what in curves.items() if "instead_of" in what]


def told_apart(labels: Mapping[str, str]) -> dict[str, str]:
    """What each curve is called by its label, with its name where another's label is the same (panels 13a and 13b)."""
    often = Counter(labels.values())
    return {curve: label if often[label] == 1 else f"{label} ({curve})" for curve, label in labels.items()}


def quantities(panel: Mapping[str, Any]) -> list[str]:
    """What a panel's file puts on its y axis: one quantity, or several."""
    return [panel["y"]] if isinstance(panel["y"], str) else list(panel["y"])


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
    """Whether a curve is trained with the first value of its schedule of momentum, by its file or the user's word."""
    solver = (overrides.get("solver") or {}).get("type", "nesterov_unmodified")
    policy = (overrides.get("momentum") or {}).get("policy")
    return solver == "nesterov_unmodified" and policy != "constant" and momentum_is_recorded_only(figure, curve)


def check_momentum(figure: Mapping[str, Any], curve: str | None, overrides: Mapping[str, Any]) -> None:
    """Refuse a schedule of momentum by the user's word that nothing would apply, to one curve or all of a figure.

    Raises UserError.
    """
    given, solver = overrides.get("momentum") or {}, (overrides.get("solver") or {}).get("type")
    asked = [key for key in ("policy", "peak", "stepsize") if given.get(key) not in (None, "constant")]
    if not asked or given.get("policy", "constant") not in MOMENTUM_POLICIES:  # what is misspelt is said elsewhere
        return
    curves = list(figure["curves"]) if curve is None else [c for c in figure["curves"] if c == curve]
    solvers = {solver or _solver(figure, one) for one in curves}
    if "nesterov_unmodified" in solvers:
        raise UserError(
            f"momentum.{asked[0]}={given[asked[0]]} would change nothing: in {figure['name']} momentum stays at its "
            "first value, momentum.base. Add solver.type=nesterov, which applies a schedule; with curve=NAME where "
            "not all curves have one."
        )


def _solver(figure: Mapping[str, Any], curve: str) -> str | None:
    return next((c["solver"]["type"] for c in reversed(sets(figure, curve)) if "type" in (c.get("solver") or {})), None)


def records_momentum(figure: Mapping[str, Any], curve: str) -> bool:
    """Whether a panel shows the curve over the momentum that its solver records (figure 7b)."""
    of = figure["curves"][curve].get("instead_of", curve)
    panels = {} if figure.get("kind") == "table" else figure.get("panels", {})
    return any(what["x"] == "momentum" and of in what.get("curves", figure["curves"]) for what in panels.values())


def described(curve: str) -> str:
    """The name of the reading of a curve in which its schedule of momentum is applied."""
    return f"{curve}{SUFFIX}"


def with_readings(figure: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A checked figure with what its file leaves out: what other readings share with their curves, and described ones.

    Every curve whose momentum is recorded only gets a reading CURVE_described, in which it is applied, as the report
    describes it; not where the user's own words (overrides) say what the solver or the policy of momentum is.
    """
    curves = dict(figure["curves"])
    for curve in sorted(curves, key=lambda c: "instead_of" in curves[c]):  # readings start from what is complete
        what = curves[curve]
        if of := curves.get(what.get("like", what.get("instead_of"))):
            keys = ("row", "scales", "from") + (("x_of", "x_scale") if "like" in what else ())
            curves[curve] = {key: of[key] for key in keys if key in of} | what
    figure = {**figure, "curves": curves}
    said = overrides or {}
    if "type" in (said.get("solver") or {}) or "policy" in (said.get("momentum") or {}):
        return figure
    for curve, what in list(curves.items()):
        if described(curve) not in curves and momentum_is_recorded_only(figure, curve):
            curves[described(curve)] = {
                **{key: what[key] for key in ("row", "scales", "from", "x_of", "x_scale") if key in what},
                "instead_of": what.get("instead_of", curve),
                "like": curve,
                "label": f"{what['label']}, {DESCRIBED}",
                "set": {"solver": {"type": "nesterov"}},
            }
    return figure
