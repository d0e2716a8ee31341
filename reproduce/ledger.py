"""results/summary/runs.csv: one line for every run behind the committed figures, with what it took."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.errors import UserError, unreadable
from experiments.files import write_atomically
from experiments.locks import locked
from experiments.session import Session
from experiments.store import Job

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
WHOLE = ("replicate", "seed", "iterations", "total_batch", "parameters")
MEASURED = COLUMNS[COLUMNS.index("wall_seconds") :]
"""Numbers, empty where not known."""
TIMES = ("wall_seconds", "images_per_second")


def read(results: Path) -> pd.DataFrame:
    """The lines of runs.csv, every value as the text that stands there; none without the file.

    Raises UserError where it is damaged or cannot be read.
    """
    path = results / "summary" / "runs.csv"
    try:
        if not path.is_file():
            return pd.DataFrame(columns=list(COLUMNS), dtype=str)
        return _checked(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is damaged ({str(error).rstrip('.')}): bring it back from git; where that has none, delete "
            "it: each figure that is collected then writes its own lines again."
        ) from None


def _checked(content: str) -> pd.DataFrame:
    """The lines of a whole file. Raises ValueError, or OverflowError for a number of more than 64 bits."""
    lines = _texts(content)
    if lost := [name for name in COLUMNS if name not in lines]:
        raise ValueError(f"it lacks the columns {', '.join(lost)}")
    if not content.endswith("\n"):
        raise ValueError("its last line is cut off")
    lines[list(WHOLE)].astype(int)
    for name in MEASURED:
        pd.to_numeric(lines[name][lines[name] != ""])
    return lines


def times(results: Path) -> pd.DataFrame:
    """What each run took: its hash, wall_seconds and images_per_second, NaN where not known. Raises as `read`."""
    lines = read(results)[["hash", *TIMES]].drop_duplicates("hash")
    return lines.assign(**{name: pd.to_numeric(lines[name]) for name in TIMES})


def _texts(content: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)


def _text(lines: Sequence[Mapping[str, object]]) -> str:
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"diverged_at": float}).to_csv(index=False)


def check(session: Session, jobs: Sequence[tuple[str, int, Job]]) -> None:
    """Refuse finished runs of which `record` would write what `read` takes for damage. Raises UserError."""
    for curve, replicate, job in jobs:
        try:
            _checked(_text([_line(session, curve, replicate, job)]))
        except (ValueError, OverflowError, TypeError, KeyError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"summary.json or environment.json in {job.run.folder} is damaged or changed ({why}): delete that "
                "folder and train its run again; other runs are kept."
            ) from None


def record(session: Session, jobs: Sequence[tuple[str, int, Job]]) -> None:
    """Put a figure's runs at a scale in place of what the file had of them; other lines stay.

    A run that was repeated and gave the same keeps the times of the line that is there: what is committed does not
    change where nothing but they would. Raises UserError as `check`, and where it is damaged or cannot be written.
    """
    path = session.results / "summary" / "runs.csv"
    check(session, jobs)
    new = _texts(_text([_line(session, *job) for job in jobs]))
    with locked(session.results / "cache" / "runs.lock", f"writes {path}", session.say):
        old = read(session.results)
        others = (old["figure"] != session.figure["name"]) | (old["scale"] != session.scale)
        rest = [name for name in COLUMNS if name not in TIMES]
        same = new[rest].merge(old.drop_duplicates(rest), on=rest, how="left").set_axis(new.index)
        new[list(TIMES)] = same[list(TIMES)].fillna(new[list(TIMES)])
        new = pd.concat([old[others], new], ignore_index=True)
        new = new.sort_values(
            ["figure", "scale", "curve", "replicate"],
            key=lambda column: column.astype(int) if column.name == "replicate" else column,
            kind="stable",
        )
        write_atomically(path, new.to_csv(index=False, lineterminator="\n"))


def _line(session: Session, curve: str, replicate: int, job: Job) -> dict[str, object]:
    settings, summary, environment = job.run.settings, job.run.summary(), job.run.environment()
    environments = [environment, *environment.get("later", [])]
    return {
        "figure": session.figure["name"],
        "scale": session.scale,
        "curve": curve,
        "replicate": replicate,
        "hash": job.run.hash,
        "seed": settings.seed,
        "data": environment["data"],
        "precision": settings.precision,
        **{name: "; ".join(dict.fromkeys(one[name] for one in environments)) for name in ("device", "torch")},
        "iterations": settings.iterations,
        "total_batch": settings.batch.total,
        "parameters": summary["parameters"],
        "wall_seconds": summary["seconds"],
        **{name: summary[name] for name in ("images_per_second", *MEASURED[2:])},
    }
