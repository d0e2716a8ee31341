"""Several commands at once on one figure's summary, and summaries that must stay as they are."""

import errno
import threading
from pathlib import Path

import pandas as pd
import pytest
from made_summaries import made

from experiments import locks
from experiments.errors import UserError
from experiments.session import Session, composed
from reproduce import collect, command
from reproduce import summary as summaries


def test_who_collects_fewer_runs_waits_and_then_replaces_nothing(session, console, words, monkeypatch):
    command.run(console, session)
    for end in summaries.ENDS:
        summaries.place(session.results, "fig09", session.variant, end).unlink()
    runs, real = session.jobs(), summaries.collect
    begun, waiting, refused = threading.Event(), threading.Event(), []

    def slow(session, own, others):
        begun.set()
        waiting.wait(20)
        return real(session, own, others)

    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    monkeypatch.setattr(summaries, "collect", slow)
    monkeypatch.setattr(collect, "draw", lambda *_: 0)
    fewer = Session(composed(words), say=lambda _: waiting.set())

    def collect_fewer():
        try:
            collect.collect(console, fewer, runs[:1])
        except UserError as error:
            refused.append(str(error))

    more = threading.Thread(target=collect.collect, args=(console, session, runs))
    more.start()
    assert begun.wait(60)
    other = threading.Thread(target=collect_fewer)
    other.start()
    more.join()
    other.join()
    assert waiting.is_set() and "holds 4 runs, and 3 of them are not among the 1 run" in refused[0]
    assert summaries.read(session.results, "fig09", session.variant).rows["hash"].nunique() == 4


@pytest.mark.parametrize("written", [".csv", ".json"])
def test_a_summary_that_is_just_written_is_read_again(tmp_path, monkeypatch, written):
    made(tmp_path, "fig09", "quick", replicates=1)
    paths = {end: summaries.place(tmp_path, "fig09", "quick", end) for end in summaries.ENDS}
    new = {end: path.read_bytes() for end, path in paths.items()}
    if written == ".csv":
        pd.read_csv(paths[".csv"]).assign(lr=2).to_csv(paths[".csv"], index=False)
    else:
        paths[".json"].unlink()
    slept = []

    def meanwhile(seconds):
        slept.append(seconds)
        paths[written].write_bytes(new[written])

    monkeypatch.setattr(summaries.time, "sleep", meanwhile)
    assert summaries.read(tmp_path, "fig09", "quick").facts["replicates"] == 1
    assert slept == [summaries.AGAIN]


@pytest.mark.parametrize("content", ["5", "null", '["rows_sha256"]'])
def test_facts_that_are_no_object_are_damaged(tmp_path, content):
    made(tmp_path, "fig09", "quick")
    summaries.place(tmp_path, "fig09", "quick", ".json").write_text(content)
    with pytest.raises(summaries.Damaged, match="no object"):
        summaries.read(tmp_path, "fig09", "quick")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_summary_that_cannot_be_read_is_not_set_aside(session, monkeypatch, number):
    session.results.mkdir()
    made(session.results, "fig09", session.variant)

    def refused(path):
        raise OSError(number, "Refused", str(path))

    with monkeypatch.context() as context:
        context.setattr(Path, "read_bytes", refused)
        with pytest.raises(UserError, match=r"\.csv cannot be read \(refused\): correct its permissions") as caught:
            collect._keep_what_is_more(session, [], [])
    assert "delete" not in str(caught.value)
    assert summaries.exists(session.results, "fig09", session.variant)
