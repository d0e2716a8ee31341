"""From a figure's file, a curve, a replicate and a scale to the settings of one run."""

import copy
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from experiments.curves import records_momentum, sets, with_readings
from experiments.errors import UserError, unreadable
from experiments.figure_keys import EXAMPLES, SCALES
from experiments.figures import check_figure
from experiments.schedules import iterations_from_epochs
from experiments.settings import Dataset, Model, Momentum, Settings, from_dict, nearest, paths
from experiments.words import of_the_report

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
UNSET = "???"


def register() -> None:
    """Make every setting known to Hydra, unset, so that the command line can give it and misspellings are refused."""

    def unset(names: list[str]) -> DictConfig:
        tree = OmegaConf.create({})
        for name in names:
            OmegaConf.update(tree, name, UNSET)
        return tree

    own = [p for p in paths() if not p.startswith(("dataset.", "model.")) and p != "format"]
    store = ConfigStore.instance()
    store.store(name="settings", node=unset(own))
    store.store(group="dataset", name="as_figure", node=unset(paths(Dataset)))
    store.store(group="model", name="as_figure", node=unset(paths(Model)))


@cache
def _load(path: Path) -> dict[str, Any]:
    where = f"conf/{path.parent.name}/{path.name}"
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except RecursionError:
        raise UserError(f"{where} cannot be read: it is nested too deep.") from None
    except KeyValidationError as error:
        place = error.full_key or "it"
        raise UserError(f"{where}: a name in {place} is null; a text is expected, or 'null' in quotes.") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:  # ValueError: no UTF-8, 5,000 digits
        if isinstance(error, OSError) and error.errno:  # OmegaConf's own has none
            raise unreadable(path, error) from None
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{where} is no file of names with values; README has an example of a figure's file.")
    return {str(key): value for key, value in values.items() if key != "defaults"}


def names(group: str) -> list[str]:
    """The files of a group of conf/, for example all figures: the report's before others."""
    folder = CONF / group  # not its glob, which finds nothing where it may not look
    files = [path.stem for path in folder.iterdir() if path.suffix == ".yaml"]
    return sorted(files, key=lambda name: (not of_the_report(name), name))


def file_names(word: str) -> str:
    """A word of the command line with figures called as their files are: figure=fig9,fig3b is figure=fig09,fig03b."""
    return re.sub(r"(?<=[=,])fig(\d)(?!\d)", r"fig0\1", word) if word.startswith("figure=") else word


def load(group: str, name: str) -> dict[str, Any]:
    """One file of conf/ as plain values, a figure's with all its readings.

    Raises UserError with the nearest names where there is none.
    """
    if name not in names(group):
        raise UserError(f"There is no {group} '{name}': {nearest(name, names(group))}")
    values = copy.deepcopy(_load(CONF / group / f"{name}.yaml"))
    if group == "figure":
        values["name"] = name  # a figure's results are filed under its file's name, whatever a copied `name:` says
        with suppress(UserError):  # said by whoever checks it; a list of all figures goes on
            check_figure(values, name)
            return with_readings(values)
    return values


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Lay `new` over `into`. A data set or a network given by name brings its own file first."""
    for key, value in new.items():
        if key in ("dataset", "model"):
            value = {"name": value} if isinstance(value, str) else dict(value)
            if "name" in value:
                into[key] = load(key, value["name"])
            into.setdefault(key, {}).update(value)
        elif isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _epochs_to_iterations(s: dict[str, Any]) -> None:
    """Replace `epochs` and `stepsize_epochs` by iterations as the author's x4.sh does: nominal batch, whole numbers.

    Raises ValueError for numbers that do not count.
    """
    of = s["dataset"]["train_images"], s["batch"]["per_gpu"], s["batch"]["gpus"]
    if (epochs := s.pop("epochs", None)) is not None:
        s["iterations"] = iterations_from_epochs(epochs, *of)
    for part in ("lr", "momentum"):
        if "stepsize_epochs" in s.get(part, {}):
            epochs = s[part].pop("stepsize_epochs")
            s[part]["stepsize"] = None if epochs is None else iterations_from_epochs(epochs, *of)


def _shrink(s: dict[str, Any], divide: int, batch_divide: int, tests: int | None) -> None:
    """Divide the run's length and every step size alike; divide the batch; test evenly so many times."""
    if divide == 1 and batch_divide == 1 and tests is None:
        return
    s["iterations"] = max(1, s["iterations"] // divide)
    if s.get("schedule_length") is not None:
        s["schedule_length"] = max(s["iterations"], s["schedule_length"] // divide)
    for part, key in (("lr", "stepsize"), ("momentum", "stepsize")):
        if s.get(part, {}).get(key) is not None:
            s[part][key] = _divided(s[part][key], divide)
    for key in ("stepvalues", "drops"):
        if s["lr"].get(key) is not None:
            s["lr"][key] = [v // divide for v in s["lr"][key]]
    s["batch"]["per_gpu"] = _divided(s["batch"]["per_gpu"], batch_divide)
    s["test_interval"] = max(1, s["iterations"] // tests if tests else s["test_interval"] // divide)


def _divided(number: int, by: int) -> int:
    """At least 1; zero and negative numbers as they are, so that they are refused at every scale."""
    return max(1, number // by) if number > 0 else number


def at_scale(what: Mapping[str, Any], scale: str) -> Mapping[str, Any]:
    """What a figure's file, or a curve of it, changes at a scale."""
    return (what.get("scales") or {}).get(scale) or {}


def scale_of(
    figure: Mapping[str, Any], scale: str, curve: str | None = None, replicates: int | None = None
) -> dict[str, Any]:
    """The scale's file with what this figure changes in it, and for a row of a table the row (its `how`).

    replicates: the user's own number of them; those beyond the scale's begin again with its batch_offsets and inits.
    """
    if scale not in SCALES:
        raise UserError(f"There is no scale '{scale}': {nearest(scale, SCALES)}")
    merged = load("scale", scale)
    own = dict(at_scale(figure, scale))
    _merge(merged["settings"], own.pop("settings", None) or {})
    merged.update(own)
    if curve is not None:
        length = at_scale(figure["curves"][curve], scale).get("how", {})
        if length and figure.get("kind") != "table":
            raise UserError(
                f"{figure['name']}, {curve}: only a table's rows may have a `how`; curves share one x axis."
            )
        merged.update(length)
    for key in ("batch_offsets", "inits"):
        if len(merged[key]) < merged["replicates"]:
            raise UserError(
                f"conf/figure/{figure['name']}.yaml: scale {scale} has {merged['replicates']} replicates and {key} for "
                f"{len(merged[key])}; give  {key}: [...]  one for each."
            )
    return merged if replicates is None else merged | {"replicates": replicates}


def check_curve(figure: Mapping[str, Any], curve: str) -> None:
    """Raises UserError with the nearest names where the figure has no such curve."""
    if curve not in figure["curves"]:
        raise UserError(f"{figure['name']} has no curve '{curve}': {nearest(curve, figure['curves'])}")


def check_replicate(how: Mapping[str, Any], scale: str, replicate: int, replicates: int | None = None) -> None:
    """Raises UserError where the scale, as `scale_of` gives it for so many replicates, has no such replicate."""
    if not 0 <= replicate < how["replicates"]:
        only = how["replicates"] == 1
        has = "the one replicate 0" if only else f"replicates 0 to {how['replicates'] - 1}"
        if replicates is not None:
            raise UserError(f"replicate={replicate}: replicates={replicates} means {has}.")
        raise UserError(f"replicate={replicate}: scale {scale} has {has}. More of them: replicates=N.")


def settings_for(
    figure: Mapping[str, Any],
    curve: str,
    replicate: int,
    scale: str,
    overrides: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    replicates: int | None = None,
) -> Settings:
    """The settings of one run: figure, then curve, then scale, then replicate, then the user's own.

    figure: as `check_figure` lets it pass. replicate: 0 to the scale's number less one. overrides: nested plain values
    that win over all. precision: what the device would use where neither the figure nor the user says. replicates: as
    `scale_of` takes it. Raises UserError for unknown names and impossible settings.
    """
    curves = figure["curves"]
    check_curve(figure, curve)
    how = scale_of(figure, scale, curve, replicates)
    check_replicate(how, scale, replicate, replicates)
    s: dict[str, Any] = {"precision": precision}
    where = f"conf/figure/{figure['name']}.yaml, curve {curve}"
    for changes in sets(figure, curve):
        try:
            _merge(s, changes)
        except UserError as error:  # a data set or a network that there is not
            raise UserError(f"{where}: {error}") from None
    _check_parts(s, where)
    try:
        _epochs_to_iterations(s)
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from None
    if "iterations" not in s:
        raise UserError(f"{where}: nothing says how long a run is: give iterations or epochs, in base or in set.")
    s.setdefault("test_interval", Settings.test_interval)
    for key in ("iterations", "test_interval"):
        if s[key] < 1:
            raise UserError(f"{where}: {key}={s[key]}: a whole number from 1 up is expected.")
    if how["divide"] > s["iterations"]:
        raise UserError(
            f"{where}: scale {scale} divides {s['iterations']} iterations by {how['divide']}, which "
            "leaves nothing to train: lower divide there."
        )
    _shrink(s, how["divide"], how["batch_divide"], how["tests"])
    _merge(s, how["settings"])
    _merge(s, {k: v for k, v in at_scale(curves[curve], scale).items() if k != "how"})
    s["batch"]["per_gpu"] += how["batch_offsets"][replicate % len(how["batch_offsets"])]
    s["model"]["init"] = how["inits"][replicate % len(how["inits"])]
    s["seed"] = replicate
    _merge(s, overrides or {})
    if "seed" in (overrides or {}) and isinstance(s["seed"], int):
        s["seed"] += replicate  # else all replicates would be one run
    try:
        settings = from_dict(s)
    except UserError as error:
        said = str(error)
        if said.startswith("batch.") and (divide := how["batch_divide"]) > 1:
            said += f" Scale {scale} divides the file's by {divide}."
        raise error if overrides else UserError(f"{where}: {said}") from None
    if "init" in ((overrides or {}).get("model") or {}):
        _check_init(settings.model)
    return settings if records_momentum(figure, curve) else _with_one_momentum(settings)


def _check_init(model: Model) -> None:
    """Refuse the user's choice of initial weights where the network has none. Raises UserError."""
    import models  # brings PyTorch, which a list of figures does without

    if not models.chooses_init(model.name):
        raise UserError(
            f"model.init={model.init} would change nothing: each layer of {model.name} starts from a distribution of "
            "its own, as in the author's files. seed=N draws other weights."
        )


def _check_parts(s: Mapping[str, Any], where: str) -> None:
    """What epochs, scales and replicates are computed with has to be there. Raises UserError."""
    for name in ("dataset.name", "model.name", "batch.per_gpu", "batch.gpus", "lr.policy"):
        part, _, key = name.partition(".")
        if key not in s.get(part, {}):
            lacking = name if s.get(part) else part
            raise UserError(f"{where}: the settings have no {lacking}; add  {EXAMPLES[part]}  to the figure's base.")


def _with_one_momentum(settings: Settings) -> Settings:
    """What a run is whose solver records a schedule of momentum without applying it: one of constant momentum.

    So it is the run of the curve whose momentum is constant by name, and is trained once for both (figures 6 and 8b,
    half of table 1).
    """
    if settings.solver.type != "nesterov_unmodified":
        return settings
    solver = replace(settings.solver, type="nesterov")
    return replace(settings, solver=solver, momentum=Momentum(base=settings.momentum.base))


def given(config: DictConfig) -> dict[str, Any]:
    """What the user set of the settings: the nodes of the composed configuration that are not unset."""

    def prune(node: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in node.items():
            if isinstance(value, dict):
                if inner := prune(value):
                    kept[key] = inner
            elif value != UNSET:
                kept[key] = value
        return kept

    tops = {p.split(".")[0] for p in paths()}
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    return prune({k: v for k, v in plain.items() if k in tops})
