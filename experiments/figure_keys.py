"""The names that a figure's file may have, each with the type of its value, and the sentence for anything else.

The types are Python's own. OmegaConf's structured configs, which type a run's settings in the end, do not serve here:
`from` can be no field of a dataclass, a number passes as a text and a text as a number, and a merge takes 10 ms of
processor time, of which a list of all figures would need hundreds more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from experiments.errors import UserError
from experiments.settings import EXPECTED, Settings, nearest
from experiments.words import written

SCALES = ("paper", "quick", "smoke")
FIGURE = {
    "name": Any,  # Any: said where it is read
    "title": str,
    "kind": Any,
    "base": Any,
    "curves": Any,
    "panels": Any,
    "scales": dict | None,
    "claims": list[str] | None,
    "logs": dict[int, str] | None,
    "assumptions": list[str] | None,
    "foot": list[str] | None,
}
CURVE = {
    "label": str,
    "set": dict | None,
    "scales": dict | None,
    "from": Any,
    "row": int,
    "instead_of": str,
    "like": str,
    "x_of": str,
    "x_scale": float,
}
PANEL = {
    "title": str,
    "x": str,
    "x_scale": float,
    "y": str | list[str],
    "curves": list[str],
    "labels": dict[str, str],
    "published": Any,
}
SCALE = {
    "title": str,
    "divide": int,
    "batch_divide": int,
    "tests": int | None,
    "replicates": int,
    "batch_offsets": list[int],
    "inits": list[str],
    "settings": dict | None,
    "cannot_show": list[str],
    "cannot_judge": dict[str, str],
}
GROUPS: dict[str, Any] = {f.name: f.type for f in fields(Settings) if is_dataclass(f.type) and f.name != "start"}
SETTINGS = {
    **{f.name: f.type for f in fields(Settings) if f.name not in ("seed", "start", "format")},
    **dict.fromkeys(GROUPS, dict),
    **{"dataset": str | dict, "model": str | dict, "epochs": int | None},
}
"""What a figure's file may set. A replicate's number is its seed, `from` names what a curve starts from."""
IN_GROUPS = {
    **{f"{group}.{f.name}": f.type for group, of in GROUPS.items() for f in fields(of)},
    **dict.fromkeys(("lr.stepsize_epochs", "momentum.stepsize_epochs"), int | None),
}
CALLED: dict[Any, str] = {
    int: EXPECTED["Integer"],
    float: EXPECTED["Float"],
    bool: EXPECTED["Boolean"],
    str: "a text",
    dict: "a group of settings",
    list[int]: "a list of whole numbers",
    list[str]: "a list of texts",
    dict[str, str]: "a group of names and texts",
    dict[int, str]: "a group of numbers and texts",
    NoneType: "null",
}
EXAMPLES = {
    "dataset": "dataset: cifar10",
    "model": "model: cifar3",
    "lr": "lr: {policy: constant, base: 0.01}",
    "momentum": "momentum: {base: 0.9}",
    "solver": "solver: {type: nesterov, weight_decay: 1.0e-4}",
    "batch": "batch: {per_gpu: 128, gpus: 4}",
    "lr.stepvalues": "stepvalues: [5000, 8000]",
    "lr.drops": "drops: [5000, 8000]",
    "label": "label: 'WD=1e-4'",
    "set": "set: {iterations: 9}",
    "claims": "claims: [F09.1, F09.2], or  claims: []  for a figure of one's own",
}


def known(words: Iterable[Any], choices: Iterable[str], place: str) -> None:
    """Raises UserError with the nearest choices for a word that is none of them."""
    choices = tuple(choices)
    for word in words:
        if word not in choices:
            raise UserError(f"{place} cannot have '{word}': {nearest(str(word), choices)}")


def _too_large(value: Any) -> bool:
    return type(value) is int and abs(value) >= 2**63


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, as `list[int] | None`. A whole number is a number; true and false are none, nor is
    what no number of 64 bits can hold."""
    of, inside = get_origin(kind) or kind, get_args(kind)
    if of is UnionType:
        return any(fits(value, one) for one in inside)
    if _too_large(value):
        return of is Any
    if of is Any or (of is float and type(value) is int):
        return True
    if type(value) is not of or not inside:
        return type(value) is of
    if of is list:
        return all(fits(one, inside[0]) for one in value)
    return all(fits(key, inside[0]) and fits(one, inside[1]) for key, one in value.items())


def check(what: Mapping[Any, Any], kinds: Mapping[str, Any], place: str) -> None:
    """Raises UserError for a name that is not among `kinds`, and for a value of another type."""
    known(what, kinds, place)
    for key, given in what.items():
        if not fits(given, kind := kinds[key]):
            called = " or ".join(CALLED[one] for one in (get_args(kind) if isinstance(kind, UnionType) else [kind]))
            if any(map(_too_large, given if isinstance(given, list) else [given])):
                called = "a number that 64 bits can hold"
            example = f", as  {EXAMPLES[key]}" if key in EXAMPLES else ""
            raise UserError(f"{place} has {key}: {written(given)}; {called} is expected{example}.")


def check_settings(value: Mapping[str, Any], place: str) -> None:
    """Raises UserError for what a figure's file may not set at a place. What of it can be trained is seen later."""
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
    check(value, SETTINGS, place)
    inside = {group: value[group] for group in GROUPS if isinstance(value.get(group), Mapping)}
    check({f"{group}.{key}": given for group, of in inside.items() for key, given in of.items()}, IN_GROUPS, place)
