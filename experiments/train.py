"""Train one curve of a figure, or many through Hydra's multirun.

    python -m experiments.train figure=fig09 curve=wd_1e-3 replicate=0
    python -m experiments.train figure=fig09 curve=wd_1e-3 scale=quick solver.weight_decay=5e-4 iterations=800
    python -m experiments.train -m figure=fig09 curve=wd_1e-3,wd_1e-2 replicate=0,1,2,3

Any setting of `experiments.settings` may be given; what is not given is the figure's. A finished run is not trained
again, an interrupted one goes on.
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from experiments.cli import explain
from experiments.cli import run as run_command
from experiments.compose import register
from experiments.errors import UserError
from experiments.execute import execute
from experiments.session import Session, check_overrides, named_after_file


def train_curve(config: DictConfig) -> float:
    """Train what the configuration names, unless it is done. Returns the final test loss, for Hydra's sweepers."""
    console = Console(stderr=True)
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)  # noqa: E731
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
    missing = [job for _, _, job in jobs if not job.done()]
    if missing:
        name, seconds = session.figure["name"], config.checkpoint_seconds
        code = execute(missing, session.data, session.device, console, name, seconds, config.step)
        if code:
            raise SystemExit(code)
    else:
        say(f"  done before: {job.run.folder}")
    summary = job.run.summary()
    say(f"  test loss {summary['final_test_loss']:.4f}, accuracy {summary['final_test_accuracy']:.4f}")
    say(f"  {job.run.folder / 'metrics.csv'}")
    return summary["final_test_loss"]


def task(config: DictConfig) -> float:
    """`train_curve` for Hydra, which would add lines of its own to an exception."""
    named_after_file(config, HydraConfig.get().runtime.choices["figure"])
    try:
        return train_curve(config)
    except UserError as error:
        raise SystemExit(explain(error)) from None


def main() -> int:
    """The command line above. Returns the exit code."""
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    check_overrides(words)
    if not any(w.startswith("figure=") for w in words) and not any(w.startswith("--") for w in words):
        raise UserError("Which figure? figure=NAME, for example figure=fig09; --help shows more.")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hands us the exception itself instead of printing and exiting with 1
    register()
    try:
        hydra.main(config_path="../conf", config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"The settings cannot be composed: {' '.join(str(error).split())}") from None
    return 0


if __name__ == "__main__":
    run_command(main)
