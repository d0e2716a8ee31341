"""Where runs live: one folder a run, named by the hash of its settings.

    results/runs/<hash>/settings.yaml      what was run
                        environment.json   the device, libraries and data it began with, and others it went on with
                        metrics.csv        one row per test interval
                        summary.json       the end; its presence says that the run is finished
                        checkpoint         while unfinished: where to go on (and checkpoint.previous)
                        snapshot-<n>       the state after n iterations, where another run starts from it
                        claim.1, claim.2   who is training it now (`experiments.ownership`)

Every file is written beside its place and renamed, so that a reader never sees half of one.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from experiments.errors import UserError
from experiments.files import explained, read, sealed, there, unsealed, write_atomically
from experiments.ownership import Claims
from experiments.settings import Settings

if TYPE_CHECKING:  # takes a second, and most processes need none
    import pandas as pd

COLUMNS = (
    "iteration",
    "lr",
    "momentum",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "grad_norm",
)
SUMMARY = {
    "hash": (str,),
    "iterations": (int,),
    "parameters": (int,),
    "final_test_loss": (float, int, None),
    "final_test_accuracy": (float, int, None),
    "diverged_at": (int, None),
    "seconds": (float, int, None),
    "images_per_second": (float, int, None),
}
"""What every finished run's summary holds, and of which types; null is what nobody measured or wrote down."""


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """metrics.csv: a header and one row per test; floats in their shortest exact form, empty where not measured."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")


def _packed(state: Mapping[str, Any], run: str) -> bytes:
    """Tensors and plain values as bytes, with the hash of their run, sealed."""
    import torch

    buffer = io.BytesIO()
    torch.save({**state, "run": run}, buffer)
    return sealed(buffer.getvalue())


def _unpacked(path: Path, run: str) -> dict[str, Any] | None:
    """What `_packed` wrote for this run, on the CPU; None where the file is damaged or another run's."""
    import torch

    if (content := unsealed(read(path))) is None:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError):  # whole, but nothing that `_packed` wrote; want of memory is no damage
        return None
    return state if isinstance(state, dict) and state.pop("run", run) == run else None  # older ones do not say


def load_snapshot(results: Path, run: str, iteration: int) -> dict[str, Any]:
    """The state of a run (by its hash) after so many updates. Raises UserError where it is missing or damaged."""
    path = results / "runs" / run / f"snapshot-{iteration}"
    state = _unpacked(path, run) if there(path) else None
    if state is None:
        wrong, do = ("damaged or of another run", "delete it and run") if there(path) else ("missing", "run")
        raise UserError(
            f"{path}, which this run starts from, is {wrong}: {do} the same command again, which trains its run up to "
            "there once more (a finished one keeps its results)."
        )
    return state


def _is(value: object, types: tuple[type | None, ...]) -> bool:
    """Whether a value of a JSON file is of one of these types and, if a number, finite; true and false are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return None in types if value is None else type(value) in types


class Run:
    """The folder of one run: what is known of it, and the only way to change it."""

    def __init__(self, results: Path, settings: Settings):
        self.settings = settings
        self.hash = settings.hash()
        self.folder = results / "runs" / self.hash
        self._claims = Claims(self.folder)
        self._damaged_checkpoint = False

    def done(self) -> bool:
        return there(self.folder / "summary.json")

    def started(self) -> bool:
        return there(self.folder / "checkpoint") or there(self.folder / "checkpoint.previous")

    def iterations_done(self) -> int:
        """How far an unfinished run has come, for estimates: 0 where nothing usable is kept."""
        saved, _ = self.load_checkpoint() if self.started() else (None, [])
        return saved["iteration"] if saved else 0

    def metrics(self) -> "pd.DataFrame":
        """The rows of a finished run. Raises UserError where they are not those that were written at its end."""
        import pandas as pd

        path, written = self.folder / "metrics.csv", self.summary().get("metrics_sha256")
        content = read(path)
        if not content or written not in (None, hashlib.sha256(content).hexdigest()):  # older runs kept no digest
            raise self._damaged(path)
        return pd.read_csv(io.BytesIO(content))

    def summary(self) -> dict[str, Any]:
        """What `experiments.training.train` gave back at its end. Raises UserError where it is damaged or another's."""
        found = self._json("summary.json")
        if not all(_is(found.get(name, ""), types) for name, types in SUMMARY.items()) or found["hash"] != self.hash:
            raise self._damaged(self.folder / "summary.json")
        return found

    def environment(self) -> dict[str, Any]:
        """What it began with; "later" lists the others that it went on with, each once."""
        found = self._json("environment.json")
        later = found.get("later", [])
        if not isinstance(later, list) or not all(isinstance(one, dict) for one in later):
            raise self._damaged(self.folder / "environment.json")
        return found

    def went_on(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """What an unfinished run's record says once it goes on with `environment`."""
        try:
            first = self.environment()
        except UserError:  # the run can go on without it; what it began with is lost
            return dict(environment)
        later = [*first.pop("later", [])]
        later += [dict(environment)] if environment not in (first, *later) else []
        return first | ({"later": later} if later else {})

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            return dict(json.loads(read(path)))
        except (ValueError, TypeError, RecursionError):
            raise self._damaged(path) from None

    def _damaged(self, path: Path) -> UserError:
        return UserError(
            f"{path} is damaged or changed: delete the folder {self.folder}, and train its run again as before "
            "(make FIGURE, experiments.train; other runs are kept), or bring it back from the committed results "
            "(make restore-FIGURE) if it is one of theirs."
        )

    @contextlib.contextmanager
    def claim(self, timeout: float = 0) -> Iterator[bool]:
        """True inside for the one process on any machine that may train this run, False where another does.

        Inside, whatever this object writes is checked against a takeover: see `Claims.check`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            until = time.monotonic() + timeout
            while not (mine := self._claims.take()) and time.monotonic() < until:
                time.sleep(0.2)
        except OSError as error:
            raise explained(error, self.folder) from error
        if not mine:
            yield False
            return
        try:
            for half_written in self.folder.glob(".*"):  # by an owner that was killed
                with contextlib.suppress(OSError):  # on NFS also files that someone still has open
                    half_written.unlink()
            yield True
        finally:
            self._claims.release()

    def owner(self) -> str:
        """Who trains it, in words."""
        return self._claims.owner()

    def _write(self, name: str, content: bytes | str) -> None:
        write_atomically(self.folder / name, content, self._claims.check)

    def begin(self, environment: Mapping[str, Any]) -> None:
        self._write("settings.yaml", self._settings())
        self._write("environment.json", json.dumps(dict(environment), indent=1) + "\n")

    def keep_settings(self) -> None:
        """Write settings.yaml anew where it is lost or changed: the run's own name says what it was."""
        path, said = self.folder / "settings.yaml", self._settings()
        if read(path) != said.encode():
            write_atomically(path, said)

    def _settings(self) -> str:
        return yaml.safe_dump(asdict(self.settings), sort_keys=False)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep `state` (tensors and plain values); the checkpoint before it, if whole, stays as checkpoint.previous."""
        current, new = self.folder / "checkpoint", self.folder / "checkpoint.new"
        self._write(new.name, _packed(state, self.hash))
        try:
            if self._damaged_checkpoint:  # the one before it is all there is until the new one stands
                self._damaged_checkpoint = False
            elif current.is_file():
                os.replace(current, self.folder / "checkpoint.previous")
            os.replace(new, current)
        except OSError as error:
            raise explained(error, current) from error

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The run's newest whole checkpoint, or None, and a sentence for each that was passed over."""
        said: list[str] = []
        for name in ("checkpoint", "checkpoint.previous"):
            path = self.folder / name
            if not there(path):
                continue
            if (state := _unpacked(path, self.hash)) is not None:
                return state, [*said, f"Run {self.hash} goes on from {name}."] if said else said
            said.append(f"{name} of run {self.hash} is damaged (wrong checksum) or another run's, and is not used.")
            self._damaged_checkpoint |= name == "checkpoint"
        if said:
            said.append(f"Run {self.hash} starts from the beginning.")
        return None, said

    def snapshot(self, iteration: int) -> Path:
        """Where the state after so many updates is kept for runs that start from it."""
        return self.folder / f"snapshot-{iteration}"

    def save_snapshot(self, iteration: int, state: Mapping[str, Any]) -> None:
        self._write(self.snapshot(iteration).name, _packed(state, self.hash))

    def finish(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Write the metrics, then the summary that marks the run finished, then drop the checkpoints."""
        self._finish(rows_to_csv(rows), summary)

    def restore(self, environment: Mapping[str, Any], metrics: str, summary: Mapping[str, Any]) -> None:
        """Finish the run with what is known of its training elsewhere, in place of what has been trained of it here.

        metrics: the text of metrics.csv; environment, summary: as `begin` and `finish` take them.
        """
        self.begin(environment)
        self._finish(metrics, summary)

    def _finish(self, metrics: str, summary: Mapping[str, Any]) -> None:
        whose = {"hash": self.hash, "metrics_sha256": hashlib.sha256(metrics.encode()).hexdigest()}
        self._write("metrics.csv", metrics)
        self._write("summary.json", json.dumps({**summary, **whose}, indent=1) + "\n")
        self.drop_checkpoints()

    def drop_checkpoints(self) -> None:
        for name in ("checkpoint", "checkpoint.previous", "checkpoint.new"):
            if (self.folder / name).is_file():  # a folder of that name is somebody's
                (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """A run and what it is called in its figure, for example "WD=1e-3, replicate 0"."""

    name: str
    run: Run
    snapshots: tuple[int, ...] = ()
    """Iterations whose states other runs start from; of one that is finished or not wanted itself, only those that a
    run to be trained starts from."""
    whole: bool = True
    """Whether it is wanted itself; else it is trained up to the last of these states, for the sake of those."""

    def iterations_done(self) -> int:
        """How many of the iterations up to `ends` need not be trained, for estimates: less what it has to do again."""
        done, start = self.run.iterations_done(), self.run.settings.start.iteration
        again = max((i for i in self._lacking() if i < done), default=start)
        return min(done, self.ends()) - (again - start)

    def done(self) -> bool:
        return (self.run.done() or not self.whole) and not self._lacking()

    def ends(self) -> int:
        """The iteration after which training stops: that of the last state that is wanted where nothing else is."""
        return max(self._lacking(), default=0) if self.run.done() or not self.whole else self.run.settings.iterations

    def _lacking(self) -> list[int]:
        return [i for i in self.snapshots if not self.run.snapshot(i).is_file()]
