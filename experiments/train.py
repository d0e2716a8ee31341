"""Train one curve of a figure, or many through Hydra's multirun.

    python -m experiments.train figure=fig09 curve=wd_1e-3 replicate=0
    python -m experiments.train figure=fig09 curve=wd_1e-3 scale=quick solver.weight_decay=5e-4 iterations=800
    python -m experiments.train -m figure=fig09 scale=paper curve=wd_1e-3,wd_1e-2 replicate=0,1,2,3

Any setting of `experiments.settings` may be given; what is not given is the figure's. A finished run is not trained
again, an interrupted one goes on. Runs are trained here, one after the other; with -m and hydra/launcher=slurm as jobs.
"""

import signal

if __name__ == "__main__":  # the other imports take seconds
    from experiments import interrupts

    interrupts.leave_at_once()

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.cli import explain
from experiments.cli import run as run_command
from experiments.compose import (
    ROOT,
    SCALES,
    check_curve,
    check_replicate,
    file_names,
    load,
    register,
    scale_of,
    settings_for,
)
from experiments.console import console as console_of
from experiments.console import say as console_say
from experiments.curves import ONE_MOMENTUM, check_momentum, one_momentum
from experiments.errors import UserError, outside
from experiments.execute import carry_out
from experiments.figures import check_figure
from experiments.files import check_writable
from experiments.overrides import check_no_sweep, check_overrides, check_said_once, in_quotes, quoted
from experiments.session import Session, named_after_file
from experiments.settings import paths
from experiments.words import changes, made_by

MOST_CHECKED = 200  # jobs of a sweep whose settings are looked at before it starts: a second or two


def train_curve(config: DictConfig) -> float:
    """Train what the configuration names, unless it is done. Returns the final test loss, for Hydra's sweepers."""
    console = console_of(stderr=True)
    say = partial(console_say, console)
    session = Session(config, say)
    if config.curve is None:
        raise UserError(f"Which curve? curve=NAME, one of {', '.join(session.figure['curves'])}; several: -m curve=A,B")
    if config.replicate is None:
        config.replicate = 0
    jobs = session.jobs()
    _, replicate, job = jobs[-1]
    settings = job.run.settings
    say(
        f"{session.figure['name']} {job.name}, replicate {replicate}: scale {session.scale} ({session.scale_why}), "
        f"device {session.device}, {settings.iterations:,} iterations of {settings.batch.total} images"
    )
    if session.changed:
        say(f"  changed by hand: {', '.join(changes(session.changed))}")
    if one_momentum(session.figure, str(config.curve), session.overrides):
        say(f"  momentum {ONE_MOMENTUM}")
    missing = [] if job.done() else [one for _, _, one in jobs if not one.done()]
    if missing and (code := carry_out(session, missing, console)):
        raise SystemExit(code)
    summary, _ = job.run.summary(), job.run.metrics()  # both, before anything is said of a run that was damaged
    if not missing:
        say(f"  done before: {job.run.folder}")
    say(f"  test loss {summary['final_test_loss']:.4f}, accuracy {summary['final_test_accuracy']:.4f}")
    say(f"  {job.run.folder / 'metrics.csv'}")
    return summary["final_test_loss"]


def check_place(config: DictConfig, hydra_config: Any) -> None:
    """Refuse jobs= and cluster= where they would change nothing. Raises UserError.

    In a Slurm job Hydra's own configuration is the sweep's, its launcher included.
    """
    figure = hydra_config.runtime.choices["figure"]
    if isinstance(config.jobs, int) and config.jobs > 1:
        raise UserError(
            f"jobs={config.jobs}: experiments.train trains one run at a time; {made_by(figure, f'JOBS={config.jobs}')} "
            f"trains {config.jobs}."
        )
    to_jobs = hydra_config.mode == RunMode.MULTIRUN and hydra_config.launcher._target_.endswith("SlurmLauncher")
    if config.cluster.name == "slurm" and not to_jobs:
        raise UserError(
            f"cluster=slurm alone would train here, not in a job: {made_by(figure, 'CLUSTER=slurm')} submits the "
            f"figure's runs; python -m experiments.train -m cluster=slurm hydra/launcher=slurm figure={figure} "
            "curve=A,B submits a sweep of one's own."
        )


@contextmanager
def checkpoint_before_requeue() -> Iterator[Callable[[], None]]:
    """Where submitit runs this process as a job: write a checkpoint before it queues the job again.

    The warning that the job's time is up (SIGUSR2 or what SUBMITIT_PREEMPT_SIGNAL says) then counts as a SIGTERM,
    which ends training with a checkpoint; the function given here passes it on to submitit, which leaves the process.
    """
    number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"), None)
    theirs = signal.getsignal(number) if number else None
    if number is None or not callable(theirs):  # not a job of submitit's
        yield lambda: None
        return
    idle, warned = signal.getsignal(signal.SIGTERM), False

    def handle(_: int, frame: Any) -> None:
        nonlocal warned
        if signal.getsignal(signal.SIGTERM) is idle:  # no run in hand
            theirs(number, frame)
        warned = True
        signal.raise_signal(signal.SIGTERM)

    signal.signal(number, handle)
    try:
        yield lambda: theirs(number, None) if warned else None
    finally:
        signal.signal(number, theirs)


def check_sweep(words: Sequence[str]) -> None:
    """Refuse what a sweep's last jobs would refuse, before its first one trains. Raises UserError.

    words: the command line, checked already. What only a sweeper spells out (interval) is left to it; of very
    long sweeps the first jobs are looked at.
    """
    _check_globs(words)
    for job in islice(product(*_choices(words)), MOST_CHECKED):
        given = dict(job)
        figure, curve, scale, replicate = (given.get(key) for key in ("figure", "curve", "scale", "replicate"))
        if not figure:
            return
        figure = load("figure", figure)
        check_figure(figure, figure["name"])
        if curve is not None:
            check_curve(figure, str(curve))
        if scale not in SCALES:  # settled by each job's device
            continue
        replicates = given.get("replicates")
        replicates = replicates if isinstance(replicates, int) and replicates >= 1 else None  # else each job says so
        if isinstance(replicate, int):
            check_replicate(scale_of(figure, scale, replicates=replicates), scale, replicate, replicates)
        if curve is not None:
            overrides = _nested(given)
            check_momentum(figure, str(curve), overrides)
            settings_for(
                figure,
                str(curve),
                replicate if isinstance(replicate, int) else 0,
                scale,
                overrides,
                replicates=replicates,
            )


def _check_globs(words: Sequence[str]) -> None:
    """Refuse patterns, which fit names of files only: Hydra makes a sweep of no jobs of curve=glob(wd*).

    Raises UserError.
    """
    parser = OverridesParser.create()
    for word in words:
        try:
            override = None if word.startswith("-") else parser.parse_override(word)
            pattern = isinstance(override.value(), Glob) if override else False
        except HydraException:  # Hydra says it better
            continue
        if override and pattern:
            raise UserError(f"{word}: a pattern is not taken; expected is {override.key_or_group}=A,B.")


def _choices(words: Sequence[str]) -> list[list[tuple[str, Any]]]:
    """For every word of a sweep (name, value) of each of its values."""
    parser, found = OverridesParser.create(), []
    for word in words:
        if word.startswith(("-", "hydra", "+hydra", "~hydra")):
            continue
        try:
            override = parser.parse_override(word)
            values = [override.value()]
            if override.is_sweep_override():
                texts = islice(override.sweep_string_iterator(), MOST_CHECKED)
                values = [parser.parse_override(f"{override.key_or_group}={text}").value() for text in texts]
        except HydraException:  # Hydra says it better, or its sweeper knows more
            continue
        found.append([(override.key_or_group, value) for value in values])
    return found


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the words of a command line, as nested plain values."""
    nested = dict[str, Any]()
    for key, value in given.items():
        if key in ("dataset", "model"):
            nested.setdefault(key, {})["name"] = value
        elif key in paths():
            *groups, last = key.split(".")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
    return nested


def task(config: DictConfig) -> float:
    """`train_curve` for Hydra, which would add lines of its own to an exception."""
    try:
        check_place(config, HydraConfig.get())
        named_after_file(config, HydraConfig.get().runtime.choices["figure"])
        with checkpoint_before_requeue() as hand_on:
            try:
                return train_curve(config)
            except SystemExit:
                hand_on()
                raise
    except UserError as error:
        raise SystemExit(explain(error)) from None
    except OSError as error:
        raise SystemExit(explain(outside(error))) from None


def main() -> int:
    """The command line above. Returns the exit code."""
    words = [file_names(word) for word in sys.argv[1:]]
    sys.argv[1:] = map(quoted, words)  # what Hydra reads
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    check_overrides(words)
    check_said_once([word for word in words if not word.startswith("-")])
    if not (sweep := bool({"-m", "--multirun"} & set(words))):
        check_no_sweep(words)
    if not any(w.startswith("figure=") for w in words) and not any(w.startswith("--") for w in words):
        raise UserError("Which figure? figure=NAME, for example figure=fig09; --help shows more.")
    check_sweep(words)
    if sweep and not any(w.startswith("hydra.sweep.dir=") for w in words):
        results = next((w.partition("=")[2] for w in reversed(words) if w.startswith("results=")), "results")
        folder = ROOT / Path(results.strip("'\"")).expanduser() / "sweeps"
        check_writable(folder, "results")
        flags = [w for w in sys.argv[1:] if w in ("-m", "--multirun")]  # first: argparse takes no words on both sides
        sys.argv[1:] = [*flags, *(w for w in sys.argv[1:] if w not in flags)]
        sys.argv.append(f"hydra.sweep.dir={in_quotes(str(folder / datetime.now().strftime('%Y-%m-%d_%H-%M-%S')))}")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hands us the exception itself instead of printing and exiting with 1
    register()
    try:
        hydra.main(config_path="../conf", config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"The settings cannot be composed: {' '.join(str(error).split())}") from None
    return 0


if __name__ == "__main__":
    run_command(main)
