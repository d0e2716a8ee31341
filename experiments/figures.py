"""What a figure's file may say: checked before anything is composed, so that a slip costs a sentence, not a run."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.schedules import MOMENTUM_POLICIES
from experiments.settings import INITS, Settings, nearest
from experiments.store import COLUMNS
from experiments.words import of_the_report

KEYS = ("name", "title", "kind", "base", "curves", "panels", "scales", "claims", "logs", "assumptions")
CURVE_KEYS = ("label", "set", "scales", "from", "row", "instead_of", "like", "x_scale")
SCALES = ("paper", "quick", "smoke")
SCALE_KEYS = (
    *("title", "divide", "batch_divide", "tests", "replicates", "batch_offsets", "inits", "settings"),
    *("cannot_show", "cannot_judge"),
)
DESCRIBED = "momentum as described"
SUFFIX = "_described"
ONE_MOMENTUM = (
    "stays at its first value where the report has it rise or fall, as in the author's runs, which probably recorded a "
    "schedule that they did not apply; ARGS=solver.type=nesterov applies it"
)
SETTINGS = (*(f.name for f in fields(Settings) if f.name not in ("seed", "start", "format")), "epochs")
"""What a figure's file may set. A replicate's number is its seed, `from` names what a curve starts from."""
EXAMPLES = {
    "dataset": "dataset: cifar10",
    "model": "model: cifar3",
    "lr": "lr: {policy: constant, base: 0.01}",
    "momentum": "momentum: {base: 0.9}",
    "solver": "solver: {type: nesterov, weight_decay: 1.0e-4}",
    "batch": "batch: {per_gpu: 128, gpus: 4}",
}
PANEL_KEYS = ("title", "x", "x_scale", "y", "curves", "labels", "published")
XS = ("iteration", "lr", "momentum", "parameters")
YS = (*(name for name in COLUMNS if name not in XS), "generalization_error", "test_error", "train_error")


def check_figure(figure: Mapping[str, Any], name: str) -> None:
    """Raises UserError that names the file, the place in it and what may stand there."""
    file = f"conf/figure/{name}.yaml"
    check_figure_name(name)
    _known(figure, KEYS, f"{file}: a figure")
    for text in _texts(figure):
        if "${" in text:  # OmegaConf would fill in variables of the environment, which results would then carry
            raise UserError(f"{file}: {text!r}: write what it stands for; ${{...}} is not filled in there.")
    if "kind" in figure and figure["kind"] != "table":
        raise UserError(f"{file}: kind is {figure['kind']!r}; a figure of curves has none, a table has  kind: table.")
    if not isinstance(figure.get("title"), str):
        found = f"is {figure['title']!r}" if "title" in figure else "is missing"
        raise UserError(f"{file}: title {found}; a text is expected, as  title: What the figure shows.")
    _check_settings(_mapping(figure.get("base"), f"{file}: base"), f"{file}: base")
    curves = _mapping(figure.get("curves"), f"{file}: curves")
    for curve, what in curves.items():
        if not isinstance(curve, str):
            raise UserError(f"{file}: a curve is called {curve!r}; a text is expected, as  wd_1e-4:, or in quotes.")
        _check_curve(curves, curve, what, f"{file}: curve {curve}")
    _known(figure.get("scales") or {}, SCALES, f"{file}: scales")
    for scale, how in (figure.get("scales") or {}).items():
        _check_scale(how or {}, f"{file}: scale {scale}")
    if figure.get("kind") == "table":
        return
    for panel, what in _mapping(figure.get("panels"), f"{file}: panels").items():
        _check_panel(curves, panel, what, f"{file}: panel {panel}")
        if not of_the_report(name):
            _check_name(panel, what, f"{file}: panel {panel}")


def check_figure_name(name: str) -> None:
    """Refuse names that the command line reads as something else, or under which other drawings lie.

    Raises UserError.
    """
    file = f"conf/figure/{name}.yaml"
    if re.fullmatch(r"fig\d[a-z]?", name):
        raise UserError(f"{file}: {name} means the report's {name.replace('fig', 'fig0')}; call the file otherwise.")
    if not re.fullmatch(r"[^\W\d_][\w.-]*", name) or name.lower() in ("null", "true", "false", "nan", "inf"):
        raise UserError(
            f"{file}: a figure's name begins with a letter, goes on with letters, digits, '.', '_' and '-', and is no "
            "word for a value, as null; call the file otherwise, for example wd_0.01.yaml."
        )
    if scale := next((scale for scale in SCALES if name.endswith(f"-{scale}")), None):
        raise UserError(
            f"{file}: drawings of scale {scale} may be called {name}.png; call the file otherwise, without -{scale}."
        )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a figure's file, names among them."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part)


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if value and not isinstance(value, Mapping):
        raise UserError(f"{place} is {value!r}; README's example of a figure's file has names with values.")
    if not value:
        raise UserError(f"{place} is missing or empty; README has an example of a figure's file.")
    return value


def _known(words: Iterable[Any], choices: tuple[str, ...], place: str) -> None:
    for word in words:
        if word not in choices:
            raise UserError(f"{place} cannot have '{word}': {nearest(str(word), choices)}")


def _check_settings(value: Mapping[str, Any], place: str) -> None:
    if "seed" in value:
        raise UserError(
            f"{place} has a seed, but a replicate's number is its seed: leave it out, and give seed=N on the command "
            "line for another."
        )
    if isinstance(value.get("model"), Mapping) and "init" in value["model"]:
        raise UserError(
            f"{place} has model: init, but a scale says how each replicate's weights begin: leave it out, and add  "
            f"scales: {{paper: {{replicates: 1, batch_offsets: [0], inits: [{value['model']['init']}]}}}}"
        )
    _known(value, SETTINGS, place)
    for key in ("dataset", "model"):
        if key in value and not (isinstance(value[key], str | Mapping) and value[key]):
            raise UserError(f"{place} has {key}: {value[key]}; a name is expected, as  {EXAMPLES[key]}.")
    for key in ("lr", "momentum", "solver", "batch"):
        if not isinstance(value.get(key, {}), Mapping):
            raise UserError(f"{place} has {key}: {value[key]}; settings are expected, as  {EXAMPLES[key]}.")


def _check_curve(curves: Mapping[str, Any], curve: str, what: Any, place: str) -> None:
    _known(_mapping(what, place), CURVE_KEYS, place)
    if not isinstance(what.get("label"), str):
        found = f"has label: {what['label']!r}" if "label" in what else "has no label"
        raise UserError(f"{place} {found}; a text is expected, as  label: 'WD=1e-4'.")
    if not isinstance(changes := what.get("set") or {}, Mapping):
        raise UserError(f"{place} has set: {changes}; settings are expected, as  set: {{iterations: 9}}.")
    _check_settings(changes, place)
    _known(what.get("scales") or {}, SCALES, f"{place} at its scales")
    _check_start(curves, curve, place)
    _check_reading(curves, curve, place)


def _check_scale(how: Mapping[str, Any], place: str) -> None:
    _known(how, SCALE_KEYS, place)
    for key in ("divide", "batch_divide", "tests", "replicates"):
        if how.get(key) is not None and not (isinstance(how[key], int) and how[key] >= 1):
            raise UserError(f"{place} has {key}: {how[key]}; a whole number from 1 up is expected.")
    for key, kind in (("batch_offsets", list), ("inits", list), ("settings", Mapping), ("cannot_judge", Mapping)):
        if (given := how.get(key)) and not isinstance(given, kind):
            form = "a list, one for each replicate, is" if kind is list else "names with values are"
            raise UserError(f"{place} has {key}: {given}; {form} expected.")
    if not all(isinstance(offset, int) for offset in how.get("batch_offsets") or ()):
        raise UserError(f"{place} has batch_offsets: {how['batch_offsets']}; whole numbers are expected.")
    _known(how.get("inits") or (), INITS, f"{place} in inits")


def _check_panel(curves: Mapping[str, Any], panel: str, what: Any, place: str) -> None:
    _known(_mapping(what, place), PANEL_KEYS, place)
    for axis, choices in (("x", XS), ("y", YS)):
        if axis not in what:
            raise UserError(f"{place} has no {axis}; add one of {', '.join(choices)}.")
    _known([what["x"]], XS, f"{place} on its x axis")
    _known(what["y"] if isinstance(what["y"], list) else [what["y"]], YS, f"{place} on its y axis")
    _known(what.get("curves") or (), tuple(curves), place)
    if "curves" in what and not what["curves"]:
        raise UserError(f"{place} has curves: {what['curves']}; name some, or leave it out for all.")
    if not isinstance(names := what.get("labels") or {}, Mapping):
        raise UserError(f"{place} has labels: {names}; curves with names are expected.")
    _known(names, tuple(curves), f"{place} in its labels")
    shown = what.get("curves") or [name for name, curve in curves.items() if "instead_of" not in curve]
    called = [names.get(name, curves[name]["label"]) for name in shown]
    if twice := next((label for label in called if called.count(label) > 1), None):
        raise UserError(
            f"{place} has two curves called '{twice}'; give each a label of its own, in the curve or in the panel's "
            "labels."
        )
    if not (isinstance(scale := what.get("x_scale", 1), int | float) and scale > 0):
        raise UserError(f"{place} has x_scale: {scale}; a number above 0 is expected.")
    _check_published(what, shown, place)
    if not isinstance(what.get("title", ""), str):
        raise UserError(f"{place} has title: {what['title']}; a text is expected.")
    if (own := {"title", "published"} & set(what)) and re.fullmatch(r"fig\d\d[a-z]?", panel):
        raise UserError(
            f"{place} is the report's, whose own title and curves are drawn there: leave out "
            f"{' and '.join(sorted(own))}, or give the panel another name."
        )


@cache
def _report_panels(figure: str) -> Mapping[str, Any]:
    """The panels of a figure of the report by its file; none where there is no such file."""
    path = Path(__file__).parents[1] / "conf" / "figure" / f"{figure}.yaml"
    if not (of_the_report(figure) and path.is_file()):
        return {}
    values = OmegaConf.to_container(OmegaConf.load(path))
    return values.get("panels") or {} if isinstance(values, dict) else {}


def _check_name(panel: str, what: Mapping[str, Any], place: str) -> None:
    """A panel of one's own that is called as one of the report's is drawn over that one: it needs the same axes."""
    if not re.fullmatch(r"fig\d+[a-z]?", panel, re.IGNORECASE):
        return
    theirs = _report_panels(panel[:-1]).get(panel) or _report_panels(panel).get(panel)
    if theirs is None:
        raise UserError(
            f"{place}: the report has no panel of that name (they are called as fig09a); to draw over none, call it "
            "otherwise."
        )
    for axis in ("x", "y"):
        if what[axis] != theirs[axis]:
            raise UserError(
                f"{place} is drawn over the report's, which has {axis}: {theirs[axis]}, not {what[axis]}; for other "
                "axes give it another name."
            )


def _check_published(panel: Mapping[str, Any], shown: Sequence[str], place: str) -> None:
    """Points that others have published belong to curves of a panel that shows one quantity."""
    if not isinstance(published := panel.get("published") or {}, Mapping):
        raise UserError(f"{place} has published: {published}; curves with points are expected.")
    if published and (isinstance(panel["y"], list) or panel["x"] == "parameters"):
        raise UserError(f"{place} has published points: it needs a single y, and an x other than parameters.")
    for curve, points in published.items():
        if curve not in shown:
            raise UserError(f"{place} has published points of '{curve}': {nearest(str(curve), shown)}")
        numbers = isinstance(points, list) and all(
            isinstance(point, list) and len(point) == 2 and all(type(n) in (int, float) and isfinite(n) for n in point)
            for point in points
        )
        if not numbers or not points:
            raise UserError(f"{place} has published: {{{curve}: {points}}}; a list of [x, y] is expected.")
        loss = str(panel["y"]).endswith("loss")
        share = str(panel["y"]).endswith(("accuracy", "test_error", "train_error"))
        if odd := [y for _, y in points if (loss and y <= 0) or (share and not 0 <= y <= 1)]:
            what = "a loss above 0" if loss else "a share from 0 to 1, not percent,"
            raise UserError(f"{place} has a published {panel['y']} of {odd[0]}; {what} is expected.")


def _check_start(curves: Mapping[str, Any], curve: str, place: str) -> None:
    """A curve may start from the state of another one that starts by itself."""
    if (start := curves[curve].get("from")) is None:
        return
    if not (isinstance(start, Mapping) and isinstance(at := start.get("iteration"), int) and at >= 1):
        raise UserError(f"{place} has from: {start}; expected is  from: {{curve: NAME, iteration: 1800}}.")
    if start.get("curve") not in curves or start["curve"] == curve:
        raise UserError(f"{place} starts from '{start.get('curve')}', which is no other curve of it.")
    if "from" in (curves[start["curve"]] or {}):
        raise UserError(f"{place} starts from '{start['curve']}', which starts from another curve itself.")


def quantities(panel: Mapping[str, Any]) -> list[str]:
    """What a panel's file puts on its y axis: one quantity, or several."""
    return [panel["y"]] if isinstance(panel["y"], str) else list(panel["y"])


def _check_reading(curves: Mapping[str, Any], curve: str, place: str) -> None:
    what = curves[curve]
    for key in ("instead_of", "like"):
        if key in what and not (isinstance(what[key], str) and what[key] in curves):
            raise UserError(f"{place} has {key}: '{what[key]}', which is no curve of it.")
    if "like" in what and "instead_of" not in what:
        raise UserError(f"{place} is like '{what['like']}': that is for another reading; add  instead_of:.")
    if "like" in what and list(curves).index(what["like"]) >= list(curves).index(curve):
        raise UserError(f"{place} is like '{what['like']}', which has to stand before it.")
    if "instead_of" in (curves.get(what.get("instead_of")) or {}):
        raise UserError(
            f"{place} stands instead of '{what['instead_of']}', itself another reading: name the one curve."
        )
    if curve.endswith(SUFFIX) and "like" not in what and curve.removesuffix(SUFFIX) in curves:
        raise UserError(f"{place} has a name that is kept for its curve with {DESCRIBED}: choose another.")


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
            keys = ("row", "scales", "from") + (("x_scale",) if "like" in what else ())
            curves[curve] = {key: of[key] for key in keys if key in of} | what
    figure = {**figure, "curves": curves}
    said = overrides or {}
    if "type" in (said.get("solver") or {}) or "policy" in (said.get("momentum") or {}):
        return figure
    for curve, what in list(curves.items()):
        if described(curve) not in curves and momentum_is_recorded_only(figure, curve):
            curves[described(curve)] = {
                **{key: what[key] for key in ("row", "scales", "from", "x_scale") if key in what},
                "instead_of": what.get("instead_of", curve),
                "like": curve,
                "label": f"{what['label']}, {DESCRIBED}",
                "set": {"solver": {"type": "nesterov"}},
            }
    return figure
