"""What a figure's file may say: checked before anything is composed, so that a slip costs a sentence, not a run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import inf, isfinite
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.curves import DESCRIBED, SUFFIX, own_curves, quantities
from experiments.errors import UserError
from experiments.figure_keys import CURVE, EXAMPLES, FIGURE, PANEL, SCALE, SCALES, check, check_settings, fits, known
from experiments.settings import INITS, nearest
from experiments.store import COLUMNS
from experiments.words import of_the_report, written

XS = ("iteration", "lr", "momentum", "parameters")
LONGEST_NAME = 80
YS = (*(name for name in COLUMNS if name not in XS), "generalization_error", "test_error", "train_error")


def check_figure(figure: Mapping[str, Any], name: str) -> None:
    """Raises UserError that names the file, the place in it and what may stand there."""
    file = f"conf/figure/{name}.yaml"
    check_figure_name(name)
    for text in _texts(figure):
        if "${" in text:  # OmegaConf would fill in variables of the environment, which results would then carry
            raise UserError(f"{file}: {written(text)}: write what it stands for; ${{...}} is not filled in there.")
    check(figure, FIGURE, f"{file}: a figure")
    if "kind" in figure and figure["kind"] != "table":
        raise UserError(
            f"{file}: kind is {written(figure['kind'])}; a figure of curves has none, a table has  kind: table."
        )
    if "title" not in figure:
        raise UserError(f"{file}: title is missing; add  title: What the figure shows.")
    check_settings(_mapping(figure.get("base"), f"{file}: base"), f"{file}: base")
    curves = _mapping(figure.get("curves"), f"{file}: curves")
    panels = {} if figure.get("kind") == "table" else _mapping(figure.get("panels"), f"{file}: panels")
    for one in (*curves, *panels):
        if not isinstance(one, str):
            kind = "curve" if one in curves else "panel"
            raise UserError(f"{file}: a {kind} is called {one!r}; a text is expected, as  wd_1e-4:, or in quotes.")
    for curve, what in curves.items():
        if not re.fullmatch(r"\w[\w.+-]*", curve) or len(curve) > LONGEST_NAME or curve.lower() == "null":
            raise UserError(
                f"{file}: a curve is called {written(curve)}; curve=NAME takes letters, digits, '.', '_', '+' and '-', "
                f"a letter or digit first, at most {LONGEST_NAME} of them, and null for all curves: what the drawing "
                "calls it is its label."
            )
        _check_curve(what, f"{file}: curve {curve}")
        if "x_of" in what and not panels:
            raise UserError(f"{file}: curve {curve} has x_of, but a table has no axis to draw it over: leave it out.")
    for check_one in (_check_reading, _check_start):  # each curve by itself is sound
        for curve in curves:
            check_one(curves, curve, f"{file}: curve {curve}")
    for scale, how in _at_scales(figure, f"{file}: scales"):
        _check_scale(how, f"{file}: scale {scale}")
    for panel, what in panels.items():
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
        raise UserError(f"{place} is {written(value)}; README's example of a figure's file has names with values.")
    if not value:
        raise UserError(f"{place} is missing or empty; README has an example of a figure's file.")
    return value


def _check_curve(what: Any, place: str) -> None:
    check(_mapping(what, place), CURVE, place)
    if "label" not in what:
        raise UserError(f"{place} has no label; add  {EXAMPLES['label']}.")
    _check_above_0(what, place)
    check_settings(what.get("set") or {}, place)
    for scale, changes in _at_scales(what, f"{place} at its scales"):
        at, how = f"{place} at scale {scale}", changes.pop("how", {})
        check({"how": how}, {"how": dict}, at)
        _check_scale(how, at)
        check_settings(changes, at)


def _at_scales(what: Mapping[str, Any], place: str) -> list[tuple[str, dict[str, Any]]]:
    """What a figure or a curve of it changes at each scale that it names."""
    scales = what.get("scales") or {}
    check(scales, dict.fromkeys(SCALES, dict | None), place)
    return [(scale, dict(changes or {})) for scale, changes in scales.items()]


def _check_scale(how: Mapping[str, Any], place: str) -> None:
    check(how, SCALE, place)
    for key in ("divide", "batch_divide", "tests", "replicates"):
        if how.get(key) is not None and how[key] < 1:
            raise UserError(f"{place} has {key}: {how[key]}; a whole number from 1 up is expected.")
    known(how.get("inits", ()), INITS, f"{place} in inits")
    check_settings(how.get("settings") or {}, place)


def _check_above_0(what: Mapping[str, Any], place: str) -> None:
    if not 0 < what.get("x_scale", 1) < inf:
        raise UserError(f"{place} has x_scale: {what['x_scale']}; a number above 0 is expected.")


def _check_panel(curves: Mapping[str, Any], panel: str, what: Any, place: str) -> None:
    check(_mapping(what, place), PANEL, place)
    for axis, choices in (("x", XS), ("y", YS)):
        if axis not in what:
            raise UserError(f"{place} has no {axis}; add one of {', '.join(choices)}.")
    known([what["x"]], XS, f"{place} on its x axis")
    known(quantities(what) or [""], YS, f"{place} on its y axis")
    known(what.get("curves", ()), tuple(curves), place)
    if what.get("curves") == []:
        raise UserError(f"{place} has curves: []; name some, or leave it out for all.")
    known(names := what.get("labels", {}), tuple(curves), f"{place} in its labels")
    shown = what.get("curves") or own_curves(curves)
    called = [names.get(name, curves[name]["label"]) for name in shown]
    if twice := next((label for label in called if called.count(label) > 1), None):
        raise UserError(
            f"{place} has two curves called '{twice}'; give each a label of its own, in the curve or in the panel's "
            "labels."
        )
    _check_above_0(what, place)
    _check_published(what, shown, place)
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
        raise UserError(f"{place} has published: {written(published)}; curves with points are expected.")
    if published and (isinstance(panel["y"], list) or panel["x"] == "parameters"):
        raise UserError(f"{place} has published points: it needs a single y, and an x other than parameters.")
    for curve, points in published.items():
        if curve not in shown:
            raise UserError(f"{place} has published points of '{curve}': {nearest(str(curve), shown)}")
        numbers = isinstance(points, list) and all(
            isinstance(point, list) and len(point) == 2 and all(fits(n, float) and isfinite(n) for n in point)
            for point in points
        )
        if not numbers or not points:
            raise UserError(
                f"{place} has published: {{{curve}: {written(points)}}}; a list of [x, y] is expected, of finite "
                "numbers."
            )
        loss = str(panel["y"]).endswith("loss")
        share = str(panel["y"]).endswith(("accuracy", "test_error", "train_error"))
        if odd := [y for _, y in points if (loss and y <= 0) or (share and not 0 <= y <= 1)]:
            what = "a loss above 0" if loss else "a share from 0 to 1, not percent,"
            raise UserError(f"{place} has a published {panel['y']} of {odd[0]}; {what} is expected.")


def _start(curves: Mapping[str, Any], curve: str) -> Any:
    """What a curve starts from; a reading as what it is a reading of, unless it says otherwise: null for nothing."""
    what = curves[curve]
    of = what.get("like", what.get("instead_of"))
    return what.get("from") if "from" in what or of is None else _start(curves, of)


def _check_start(curves: Mapping[str, Any], curve: str, place: str) -> None:
    """A curve may start from the state of another one that starts by itself."""
    if (start := _start(curves, curve)) is None:
        return
    if not (fits(start, dict[str, str | int]) and type(at := start.get("iteration")) is int and at >= 1):
        raise UserError(f"{place} has from: {written(start)}; expected is  from: {{curve: NAME, iteration: 1800}}.")
    if start.get("curve") not in curves or (start["curve"] == curve and "from" in curves[curve]):
        raise UserError(f"{place} starts from '{start.get('curve')}', which is no other curve of it.")
    theirs = _start(curves, start["curve"])
    if isinstance(theirs, Mapping) and theirs.get("curve") == start["curve"] and "from" not in curves[start["curve"]]:
        raise UserError(
            f"{place} starts from '{start['curve']}', a reading, which would start as its own curve does, from itself: "
            "add  from: null  there."
        )
    if theirs is not None:
        raise UserError(f"{place} starts from '{start['curve']}', which starts from another curve itself.")


def _check_reading(curves: Mapping[str, Any], curve: str, place: str) -> None:
    what = curves[curve]
    for key in ("instead_of", "like", "x_of"):
        if key in what and what[key] not in curves:
            raise UserError(f"{place} has {key}: '{what[key]}', which is no curve of it.")
    if what.get("x_of") == curve:
        raise UserError(f"{place} has x_of: '{curve}', itself: another curve is expected, whose x it is drawn over.")
    if "x_of" in curves.get(what.get("x_of"), {}):
        raise UserError(f"{place} has x_of: '{what['x_of']}', which has another curve's x itself: name that one.")
    if "like" in what and "instead_of" not in what:
        raise UserError(f"{place} is like '{what['like']}': that is for another reading; add  instead_of:.")
    if "like" in what and list(curves).index(what["like"]) >= list(curves).index(curve):
        raise UserError(f"{place} is like '{what['like']}', which has to stand before it.")
    if "instead_of" in curves.get(what.get("instead_of"), {}):
        raise UserError(
            f"{place} stands instead of '{what['instead_of']}', itself another reading: name the one curve."
        )
    if curve.endswith(SUFFIX) and "like" not in what and curve.removesuffix(SUFFIX) in curves:
        raise UserError(f"{place} has a name that is kept for its curve with {DESCRIBED}: choose another.")
