"""The run store: nothing half-written, nothing lost, one trainer a run."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import SUMMARY

from experiments import store
from experiments.errors import UserError
from experiments.files import ABANDONED, write_atomically
from experiments.store import Job, Run, _unpacked


@pytest.fixture
def run(tmp_path, tiny):
    return Run(tmp_path, tiny)


def checkpointed(run: Run, *values: int) -> Run:
    run.folder.mkdir(parents=True)
    for value in values:
        run.save_checkpoint({"iteration": value, "net": {"w": torch.full((3,), float(value))}})
    return run


def test_checkpoint_round_trip_keeps_the_one_before(run):
    state, said = checkpointed(run, 1, 2).load_checkpoint()
    assert state is not None
    assert state["iteration"] == 2
    assert torch.equal(state["net"]["w"], torch.full((3,), 2.0))
    assert said == []
    assert sorted(p.name for p in run.folder.iterdir()) == ["checkpoint", "checkpoint.previous"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_used(run, damage):
    checkpointed(run, 1, 2)
    path = run.folder / "checkpoint"
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    path.write_bytes({"truncate": raw[: len(raw) // 2], "flip": raw, "empty": b""}[damage])
    state, said = run.load_checkpoint()
    assert state is not None
    assert state["iteration"] == 1
    assert "checkpoint" in said[0]
    assert "damaged" in said[0]
    assert said[1:] == [f"Run {run.hash} goes on from checkpoint.previous."]
    for now, before in ((3, 1), (4, 3)):  # the one that was whole stays until the next one stands
        run.save_checkpoint({"iteration": now})
        kept = [_unpacked(run.folder / name, run.hash) for name in ("checkpoint", "checkpoint.previous")]
        assert [one and one["iteration"] for one in kept] == [now, before]


def test_both_damaged_starts_from_the_beginning_and_says_so(run):
    checkpointed(run, 1, 2)
    for name in ("checkpoint", "checkpoint.previous"):
        (run.folder / name).write_bytes(b"nonsense")
    state, said = run.load_checkpoint()
    assert state is None
    assert "from the beginning" in said[-1]


def test_a_folder_where_a_checkpoint_belongs_is_said(run):
    """Never deleted: somebody may have put it there, and what is in it is theirs."""
    (run.folder / "checkpoint").mkdir(parents=True)
    with pytest.raises(UserError, match="checkpoint is a folder, where a file belongs: move it away"):
        run.load_checkpoint()
    with pytest.raises(UserError, match="move it away"):
        run.save_checkpoint({"iteration": 1})
    assert (run.folder / "checkpoint").is_dir()
    run.drop_checkpoints()
    assert [p.name for p in run.folder.iterdir()] == ["checkpoint"], "and no half of one beside it"


def test_a_folder_where_a_summary_belongs_is_said(run):
    """Else the run would be trained again, to an end that cannot be written."""
    (run.folder / "summary.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"summary\.json is a folder, where a file belongs: move it away"):
        run.done()


def test_a_crash_between_the_two_renames_leaves_a_checkpoint(run):
    checkpointed(run, 1, 2)
    os.replace(run.folder / "checkpoint", run.folder / "checkpoint.previous")
    state, _ = run.load_checkpoint()
    assert state is not None
    assert state["iteration"] == 2
    assert run.started()


def test_nothing_unpickled_but_tensors_and_plain_values(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    run.folder.mkdir(parents=True)
    run.save_checkpoint({"iteration": Evil()})
    state, said = run.load_checkpoint()
    assert state is None and "is not used" in said[0]
    assert not (tmp_path / "executed").exists()


def test_another_runs_files_are_not_taken_for_its_own(run, tmp_path, tiny):
    """They are whole, so that a checksum alone would let them pass."""
    other = checkpointed(Run(tmp_path, replace(tiny, seed=1)), 1)
    other.save_snapshot(1, {"iteration": 1})
    checkpointed(run, 2)
    for name in ("checkpoint", "snapshot-1"):
        shutil.copy(other.folder / name, run.folder / name)
    state, said = run.load_checkpoint()
    assert state is None and "another run's" in said[0]
    with pytest.raises(UserError, match="of another run: delete it and run the same command again"):
        store.load_snapshot(tmp_path, run.hash, 1)
    for one in (run, other):
        one.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    assert run.summary()["hash"] == run.hash
    shutil.copy(other.folder / "summary.json", run.folder)
    with pytest.raises(UserError, match="damaged or changed"):
        run.summary()


def test_checkpoints_that_do_not_say_whose_they_are_still_count(run):
    """Those that older versions wrote."""
    run.folder.mkdir(parents=True)
    run.save_checkpoint({"iteration": 3})
    raw = io.BytesIO()
    torch.save({"iteration": 3}, raw)
    (run.folder / "checkpoint").write_bytes(hashlib.sha256(raw.getvalue()).digest() + raw.getvalue())
    assert run.load_checkpoint() == ({"iteration": 3}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("parameters", "abc"), ("parameters", float("nan")), ("diverged_at", "x"), ("seconds", "1"), ("iterations", True)],
)
def test_a_summary_of_other_types_is_damaged(run, name, value):
    """Else it would be written into what all figures share."""
    run.folder.mkdir(parents=True)
    run.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    path = run.folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match="damaged or changed"):
        run.summary()


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "environment.json", "settings.yaml", "checkpoint"])
def test_what_cannot_be_read_is_not_called_damaged(run, monkeypatch, name):
    """A user would delete a good run for a file server that was away."""
    run.begin({"device": "a CPU"})
    run.finish([{"iteration": 2, "test_loss": 1.5}], SUMMARY)
    run.save_checkpoint({"iteration": 2})
    read = Path.read_bytes

    def refused(path):
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UserError, match="cannot be read") as caught:
        run.metrics(), run.summary(), run.environment(), run.keep_settings(), run.load_checkpoint()
    assert "delete" not in str(caught.value)


def test_a_folder_deleted_while_its_run_trains_is_not_made_anew(run, tmp_path, tiny):
    with run.claim() as mine:
        assert mine
        shutil.rmtree(run.folder)
        with pytest.raises(UserError, match="was deleted while its run was trained"):
            run.save_checkpoint({"iteration": 1})
        assert not run.folder.exists()
        other = Run(tmp_path, tiny)  # whoever begins anew makes a claim of the same name
        with other.claim() as theirs:
            assert theirs
            with pytest.raises(UserError, match="was deleted while its run was trained"):
                run.save_checkpoint({"iteration": 1})
            assert not other.started()


def test_want_of_memory_is_no_damage(run, monkeypatch):
    """A good checkpoint would be thrown away for it."""

    def full(*_, **__):
        raise MemoryError

    checkpointed(run, 1)
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        run.load_checkpoint()


def test_an_owner_that_lost_its_claim_writes_over_nothing(run):
    run.begin({"device": "the new owner's"})
    kept = {path: path.read_bytes() for path in run.folder.iterdir()}

    def lost():
        raise UserError("taken over")

    with pytest.raises(UserError, match="taken over"):
        write_atomically(run.folder / "environment.json", "{}", lost)
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == kept


def test_half_written_files_of_killed_processes_are_cleared(run):
    """Beside any file once they are old, since a younger one may be somebody's; in a run's folder by its new owner."""
    run.begin({"device": "a CPU"})
    old, young = (run.folder / f".environment.json.{name}" for name in ("old", "young"))
    for left in (old, young):
        left.write_text("half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    run.begin({"device": "a CPU"})
    assert (old.exists(), young.exists()) == (False, True)
    with run.claim() as mine:
        assert mine
        assert not young.exists()


def test_a_job_is_done_when_its_snapshots_are_there_too(run):
    run.folder.mkdir(parents=True)
    run.finish([{"iteration": 0}], SUMMARY)
    job = Job("a", run, (4, 9))
    assert Job("a", run).done() and not job.done()
    assert job.ends() == 9, "as far as its states are wanted"
    run.save_snapshot(9, {"iteration": 9})
    assert job.ends() == 4
    run.save_snapshot(4, {"iteration": 4})
    assert job.done()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, tiny):
    (tmp_path / "runs").write_text("a file where a folder is needed")
    with pytest.raises(UserError, match="Cannot write"), Run(tmp_path, tiny).claim():
        pass


def _hold(folder, settings, ready):
    with Run(folder, settings).claim() as mine:
        ready.put(mine)
        time.sleep(60)


def test_a_claim_is_exclusive_and_dies_with_its_process(tmp_path, tiny):
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    other = context.Process(target=_hold, args=(tmp_path, tiny, ready))
    other.start()
    try:
        assert ready.get(timeout=60) is True
        run = Run(tmp_path, tiny)
        with run.claim() as mine:
            assert mine is False
            assert run.owner().startswith(f"process {other.pid} on ")
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        with run.claim(timeout=10) as mine:
            assert mine is True
    finally:
        other.kill()


def test_finish_marks_done_last_and_drops_checkpoints(run):
    checkpointed(run, 1)
    assert not run.done()
    run.finish([{"iteration": 0, "lr": 0.005, "train_loss": 2.3}], SUMMARY)
    assert run.done()
    assert not run.started()
    assert run.metrics()["train_loss"].tolist() == [2.3]
    assert run.metrics()["test_loss"].isna().all()


def test_numbers_survive_the_disk_to_the_last_digit(run):
    """So that collecting a run again writes the same bytes: older pandas read a third of all floats one digit off."""
    values = np.random.default_rng(0).standard_normal(2000) * 10.0 ** np.arange(-8, 2).repeat(200)
    rows = [{"iteration": i, "test_loss": float(value)} for i, value in enumerate(values)]
    run.folder.mkdir(parents=True)
    run.finish(rows, SUMMARY)
    assert (run.metrics()["test_loss"].to_numpy() == values).all()


def test_the_record_keeps_what_a_run_began_with_and_names_every_other_once(run):
    one, two, three = ({"device": f"a CPU, {n} threads", "torch": "2"} for n in (1, 2, 3))
    run.begin(one)
    before = (run.folder / "environment.json").read_bytes()
    run.begin(run.went_on(one))
    assert (run.folder / "environment.json").read_bytes() == before
    for next_one in (two, one, three, two):
        run.begin(run.went_on(next_one))
    assert run.environment() == one | {"later": [two, three]}
    (run.folder / "environment.json").write_text("{")
    assert run.went_on(two) == two


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "cut"),
        ("metrics.csv", ""),
        ("summary.json", "junk"),
        ("summary.json", "[" * 100_000),
        ("environment.json", "[1]"),
        ("environment.json", '{"later": 5}'),
    ],
)
def test_a_finished_run_that_was_damaged_is_named_and_not_used(run, name, content):
    run.begin({"device": "a CPU"})
    run.finish([{"iteration": 2, "test_loss": 1.5}, {"iteration": 4, "test_loss": 1.25}], SUMMARY)
    assert run.metrics()["test_loss"].tolist() == [1.5, 1.25] and run.summary()["parameters"] == 3
    path = run.folder / name
    path.write_text(path.read_text()[:-5] if content == "cut" else content)
    with pytest.raises(UserError) as caught:
        run.metrics(), run.summary(), run.environment()
    assert str(path) in str(caught.value) and f"delete the folder {run.folder}" in str(caught.value)
