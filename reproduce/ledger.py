"""results/summary/runs.csv: one line for every run behind the committed figures, with what it took."""

from collections.abc import Sequence

import pandas as pd
from filelock import FileLock

from experiments.session import Session
from experiments.store import Job, write_atomically

COLUMNS = (
    "figure",
    "scale",
    "curve",
    "replicate",
    "hash",
    "seed",
    "data",
    "precision",
    "device",
    "torch",
    "iterations",
    "total_batch",
    "parameters",
    "wall_seconds",
    "images_per_second",
    "final_test_loss",
    "final_test_accuracy",
    "diverged_at",
)


def record(session: Session, jobs: Sequence[tuple[str, int, Job]]) -> None:
    """Put a figure's runs at a scale in place of what the file had of them; other lines stay.

    Raises UserError where it cannot be written.
    """
    path = session.results / "summary" / "runs.csv"
    new = pd.DataFrame([_line(session, *job) for job in jobs], columns=list(COLUMNS))
    lock = session.results / "cache" / "runs.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if path.is_file():
            old = pd.read_csv(path, dtype={"hash": str, "curve": str})
            others = (old["figure"] != session.figure["name"]) | (old["scale"] != session.scale)
            new = pd.concat([part for part in (old[others], new) if len(part)], ignore_index=True)
        new = new.sort_values(["figure", "scale", "curve", "replicate"], kind="stable")
        write_atomically(path, new.to_csv(index=False, lineterminator="\n"))


def _line(session: Session, curve: str, replicate: int, job: Job) -> tuple:
    settings, summary, environment = job.run.settings, job.run.summary(), job.run.environment()
    environments = [environment, *environment.get("later", [])]
    return (
        session.figure["name"],
        session.scale,
        curve,
        replicate,
        job.run.hash,
        settings.seed,
        environment["data"],
        settings.precision,
        *("; ".join(dict.fromkeys(one[name] for one in environments)) for name in ("device", "torch")),
        settings.iterations,
        settings.batch.total,
        summary["parameters"],
        summary["seconds"],
        summary["images_per_second"],
        summary["final_test_loss"],
        summary["final_test_accuracy"],
        summary["diverged_at"],
    )
