"""The words of a command line: before Hydra sees them each NAME=VALUE known and said once, then their values."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from experiments import device as devices
from experiments.compose import load, names
from experiments.errors import UserError
from experiments.settings import nearest, paths

GROUPS = ("figure", "dataset", "model", "scale", "cluster")
HOW = (
    *("device", "jobs", "gpus", "cluster", "threads", "step", "curve", "replicate", "replicates", "results"),
    *("figures", "readings", "checkpoint_seconds"),
)
FOLDERS = ("results", "figures", "data.dir")
DATA = ("data.dir", "data.download", "data.workers", "data.mirrors")
BY_MAKE = ("scale=auto", "device=auto", "jobs=1", "gpus=1", "cluster=local")
"""What the Makefile passes on where nothing was said: ARGS may say otherwise."""
MAKES = {"DATA_DIR": "data.dir"}
"""Variables of the Makefile whose settings are not called as they are in small letters."""
MOST_WORKERS, MOST_REPLICATES = 1024, 100
NEVER = ("format", "dataset.fingerprint")
"""Settings that the program fills in."""
ONE_EACH = ("figure", "curve", "replicate", "scale", "device", "dataset", "model", *paths())
"""What a sweep may have several values of, and a single run one."""


def quoted(word: str) -> str:
    """A word as Hydra takes it: within quotes where its grammar does not know the letters, or reads brackets as a list.

    A folder may be called anything; of other settings brackets and commas mean several values.
    """
    name, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return word
    if name == "curve":  # names: 1e-3 is not 0.001
        parts = [in_quotes(part) if re.fullmatch(r"[\d.eE+-]+", part) else part for part in value.split(",")]
        return f"{name}={','.join(parts)}"
    if name in FOLDERS:
        by_hand = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
        return word if by_hand or value in ("", "null") else f"{name}={in_quotes(value)}"
    plain = value.isascii() or value.startswith(("'", '"', "[", "{")) or "'" in value or "," in value
    return word if plain else f"{name}={in_quotes(value)}"


def in_quotes(text: str) -> str:
    """A text as Hydra's grammar has any text."""
    return QuotedString(text, Quote.single).with_quotes()


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse misspelt words of a command line with the nearest valid ones, before Hydra sees them.

    Values are checked by what they are used for. Hydra's own words (hydra.*, --flags) pass through.
    """
    for word in overrides:
        if word.startswith(("-", "hydra", "+hydra", "~hydra")):
            continue
        if word.startswith(("+", "~")):
            raise UserError(f"'{word}': every setting exists already; change it with NAME=VALUE.")
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"'{word}' is not understood: settings are given as NAME=VALUE, for example figure=fig09.")
        if key in GROUPS:
            for one in value.split(","):
                if one not in names(key):
                    raise UserError(f"There is no {key} '{one}': {nearest(one, names(key))}")
        elif key.startswith("cluster."):
            _check_cluster_option(key, overrides)
        elif inside := [path for path in (*paths(), *DATA) if path.startswith(f"{key}.") and path not in NEVER]:
            raise UserError(f"'{key}' is a group of settings: give one of them, {'=, '.join(inside)}=.")
        elif key in NEVER or key not in (*HOW, *DATA, *paths()):
            choices = {*paths(), *HOW, *DATA, *GROUPS} - {*NEVER}
            if (own := MAKES.get(key, key.lower())) in choices:
                raise UserError(f"{key}= is what make calls it: here it is {own}={value}.")
            if key == "epochs":
                raise UserError(f"epochs={value}: only a figure's file may say epochs; here it is iterations=N.")
            if key == "ARGS":
                raise UserError(f"ARGS= is make's: here settings are words of their own, {value or 'NAME=VALUE'}.")
            raise UserError(f"There is no setting '{key}': {nearest(key, choices)}")


def _check_cluster_option(key: str, overrides: Sequence[str]) -> None:
    options = [f"cluster.{name}" for name in load("cluster", "slurm") if name != "name"]
    if key not in options:
        raise UserError(f"There is no option '{key}': {nearest(key, options)}")
    chosen = next((w.partition("=")[2] for w in reversed(overrides) if w.startswith("cluster=")), "local")
    if "slurm" not in chosen.split(","):
        raise UserError(f"{key} belongs to CLUSTER=slurm (cluster=slurm): add that, or leave {key} out.")


def check_said_once(overrides: Sequence[str]) -> None:
    """Refuse a setting with two values, of which Hydra would take the last in silence: make's SCALE= beside ARGS.

    Raises UserError.
    """
    said = dict[str, str]()
    for word in overrides:
        key, equals, value = word.partition("=")
        if equals and word not in BY_MAKE and said.setdefault(key, value) != value:
            raise UserError(f"{key} is given twice, as {said[key]} and as {value}: leave one of them out.")


def check_no_sweep(overrides: Sequence[str]) -> None:
    """Refuse several values where one is asked for; a list in brackets is one value. Raises UserError."""
    for word in overrides:
        key, _, value = word.partition("=")
        in_brackets = value.startswith("[")
        several = key not in paths() if in_brackets else "," in value and not value.startswith(("{", "'", '"'))
        if several and key in ONE_EACH:
            figure = "" if key == "figure" else "figure=... "
            way = f"python -m experiments.train -m {figure}{key}={value.strip('[]')}"
            raise UserError(f"{word}: one at a time here; several with  {way}")


def check_values(config: DictConfig) -> None:
    """Refuse values of the settings that say how to run, not what. Raises UserError."""
    seconds = config.checkpoint_seconds
    if not (isinstance(seconds, int | float) and seconds >= 0):  # nor NaN
        raise UserError(f"checkpoint_seconds={seconds}: a number from 0 up is expected.")
    if config.step not in devices.STEPS:
        raise UserError(f"step={config.step} is not known: {nearest(str(config.step), devices.STEPS)}")
    for word in ("replicate", "threads", "data.workers"):
        if not isinstance(OmegaConf.select(config, word), int | None):
            raise UserError(f"{word}={OmegaConf.select(config, word)}: a whole number is expected.")
    if config.data.workers is not None and not 0 <= config.data.workers <= MOST_WORKERS:
        raise UserError(
            f"data.workers={config.data.workers}: a whole number from 0 to {MOST_WORKERS:,} is expected, of processes."
        )
    for word in ("results", "figures"):
        if not config[word]:
            raise UserError(f"{word}= is empty: the name of a folder is expected.")
    for word in ("readings", "data.download"):
        if not isinstance(value := OmegaConf.select(config, word), bool):
            raise UserError(f"{word}={value}: true or false is expected.")
    if not OmegaConf.is_list(mirrors := config.data.mirrors):
        raise UserError(f"data.mirrors={mirrors}: a list of addresses is expected, data.mirrors=[{mirrors}].")
    for word in ("jobs", "gpus", "replicates"):
        unset = word == "replicates" and config[word] is None
        if not unset and (type(config[word]) is not int or config[word] < 1):  # true is a whole number, too
            raise UserError(f"{word}={config[word]}: a whole number from 1 up is expected.")
    if (config.replicates or 0) > MOST_REPLICATES:
        raise UserError(f"replicates={config.replicates}: a whole number up to {MOST_REPLICATES} is expected.")
    if config.cluster.name == "slurm" and config.jobs * config.gpus > 1:
        raise UserError("cluster=slurm: every job is one run on one GPU; leave jobs= and gpus= (JOBS, GPUS) out.")
    if config.jobs > 1 and config.gpus > 1:
        raise UserError(
            f"jobs={config.jobs} and gpus={config.gpus}: either several runs at a time or several GPUs for one."
        )
