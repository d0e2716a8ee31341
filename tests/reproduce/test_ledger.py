"""runs.csv keeps one line a run, and other figures' lines."""

import errno
import fcntl
import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.session import Session, composed
from experiments.training import train
from reproduce import ledger


def trained(tmp_path, curve):
    words = ["figure=fig09", "scale=smoke", "device=cpu", "threads=1", f"results={tmp_path}", f"curve={curve}"]
    small = ["dataset.size=8", "dataset.train_images=40", "dataset.test_images=20", "batch.per_gpu=2"]
    session = Session(composed([*words, *small, "iterations=4", "test_interval=2"]), say=lambda _: None)
    jobs = session.jobs()
    for _, _, job in jobs:
        with job.run.claim():
            train(
                job.run,
                session.data_sets.load(job.run.settings),
                session.device,
                environment={"data": "shapes", "device": "cpu", "torch": "2"},
            )
    return session, jobs


def test_a_figure_replaces_its_own_lines_only(tmp_path):
    session, jobs = trained(tmp_path, "wd_1e-3")
    ledger.record(session, jobs)
    path = tmp_path / "summary" / "runs.csv"
    first = pd.read_csv(path)
    assert tuple(first.columns) == ledger.COLUMNS
    assert first["hash"].tolist() == [jobs[0][2].run.hash]

    other = first.assign(figure="fig10")
    pd.concat([first, other]).to_csv(path, index=False)
    ledger.record(session, jobs)
    assert pd.read_csv(path)["figure"].tolist() == ["fig09", "fig10"]
    before = path.read_bytes()
    ledger.record(session, jobs)
    assert path.read_bytes() == before

    lines = pd.read_csv(path)
    lines.assign(wall_seconds=123.5, images_per_second=7.5).to_csv(path, index=False)
    ledger.record(session, jobs)  # the same outcome: the times that are committed stay
    assert pd.read_csv(path)["wall_seconds"].tolist() == [123.5, 123.5]
    lines.assign(wall_seconds=123.5, final_test_loss=0.5).to_csv(path, index=False)
    ledger.record(session, jobs)  # another outcome
    assert pd.read_csv(path)["wall_seconds"][0] == lines["wall_seconds"][0] != 123.5


def test_a_line_names_every_device_of_its_run(tmp_path):
    session, jobs = trained(tmp_path, "wd_1e-3")
    run = jobs[0][2].run
    with run.claim():
        run.begin(run.went_on({"data": "shapes", "device": "gpu", "torch": "2"}))
    ledger.record(session, jobs)
    (line,) = pd.read_csv(tmp_path / "summary" / "runs.csv").to_dict("records")
    assert (line["device"], line["torch"]) == ("cpu; gpu", 2)


def test_where_there_are_no_locks_the_lines_are_written_all_the_same(tmp_path, monkeypatch):
    session, jobs = trained(tmp_path, "wd_1e-3")
    session.say = (said := []).append

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as context:
        context.setattr(fcntl, "flock", flock)
        ledger.record(session, jobs)
    assert len(ledger.read(tmp_path)) == 1
    assert said[0].startswith(f"{tmp_path / 'cache' / 'runs.lock'} cannot be locked (no locks available)")


def test_a_damaged_run_does_not_get_into_it(tmp_path):
    session, jobs = trained(tmp_path, "wd_1e-3")
    ledger.record(session, jobs)
    path = tmp_path / "summary" / "runs.csv"
    before, run = path.read_bytes(), jobs[0][2].run
    whole = run.summary()
    for name, value in (("parameters", "abc"), ("parameters", 2**70), ("seconds", [1]), ("diverged_at", "soon")):
        (run.folder / "summary.json").write_text(json.dumps(whole | {name: value}))
        with pytest.raises(UserError, match=f"{run.folder}.* is damaged or changed.*delete th"):
            ledger.record(session, jobs)
        assert path.read_bytes() == before


def test_a_number_too_large_is_damage_and_a_refusal_to_read_is_not(tmp_path, monkeypatch):
    session, jobs = trained(tmp_path, "wd_1e-3")
    ledger.record(session, jobs)
    path = tmp_path / "summary" / "runs.csv"

    def refused(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as context:
        context.setattr(Path, "read_text", refused)
        with pytest.raises(UserError, match=r"runs.csv cannot be read \(input/output error\)") as caught:
            ledger.read(tmp_path)
    assert "delete" not in str(caught.value)
    pd.read_csv(path, dtype=str).assign(parameters=str(2**70)).to_csv(path, index=False)
    with pytest.raises(UserError, match="runs.csv is damaged"):
        ledger.read(tmp_path)
