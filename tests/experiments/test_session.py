"""What one command knows of its data: looked for once, and the same when they are trained on."""

from dataclasses import replace

import numpy as np
import pytest
from small_runs import FIGURE_9, SMALL, SUMMARY

from experiments import data as datasets
from experiments.data_sets import DataSets
from experiments.errors import UserError
from experiments.overrides import quoted
from experiments.session import Session, composed
from experiments.store import Run


def test_the_data_are_looked_at_once_a_command(tmp_path, monkeypatch):
    """Also where results cannot be written and no file remembers the fingerprint."""
    (tmp_path / "cache").touch()
    asked, found = [], datasets.fingerprint
    monkeypatch.setattr(datasets, "fingerprint", lambda *a, **k: asked.append(a) or found(*a, **k))
    session = Session(composed([*FIGURE_9, f"results={tmp_path}"]), say=lambda _: None)
    assert len(session.jobs()) == 4 and len(asked) == 1
    other = replace(session.settings("wd_1e-3", 0), dataset=replace(session.settings("wd_1e-3", 0).dataset, seed=1))
    assert (
        session.data_sets.fingerprint(other) != session.data_sets.fingerprint(session.settings("wd_1e-3", 0))
        and len(asked) == 2
    )


def test_other_data_than_were_planned_for_are_not_trained_on(tmp_path):
    session = Session(composed([*FIGURE_9, f"results={tmp_path}"]), say=lambda _: None)
    settings = session.run("wd_1e-3", 0).settings
    before = replace(settings, dataset=replace(settings.dataset, fingerprint="0" * 16))
    with pytest.raises(UserError, match="The data set shapes has changed since this command began"):
        session.data_sets.load(before)
    assert session.data_sets.load(settings).fingerprint == settings.dataset.fingerprint


def test_data_are_those_of_the_run_that_asks(tmp_path, monkeypatch):
    """Fewer training images are the set's first."""
    session = Session(composed([*FIGURE_9, f"results={tmp_path}"]), say=lambda _: None)
    settings = session.settings("wd_1e-3", 0)
    fewer = replace(settings, dataset=replace(settings.dataset, train_images=20))
    many, few = session.data_sets.load(settings), session.data_sets.load(fewer)
    assert (len(many.train), len(few.train)) == (64, 20)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: many)  # as a published set is: whole
    few = DataSets(None, mirrors=[], download=False, workers=None, cache=tmp_path, say=print).load(fewer)
    assert np.array_equal(few.train.images, many.train.images[:20])
    assert np.array_equal(few.train.labels, many.train.labels[:20])


@pytest.mark.parametrize(
    ("iterations", "kept", "of_a_finished_run"),
    [(400, (200,), (200,)), (201, (200,), ()), (200, (), ()), (100, (), ())],
)
def test_no_snapshot_is_asked_for_at_or_beyond_the_end_of_a_run(iterations, kept, of_a_finished_run, tmp_path):
    """Figure 12's curves start from another one's state, here after 200 iterations, which the user may have cut off."""
    lengths = [f"iterations={iterations}", "test_interval=20", f"results={tmp_path}"]
    session = Session(composed(["figure=fig12", *SMALL, *lengths, "curve=wd_1e-3_range"]), say=lambda _: None)
    at = session.figure["curves"]["wd_3e-3"]["from"]["iteration"] // session.how["divide"]
    assert at == 200
    ((_, _, job),) = session.jobs()
    assert job.snapshots == kept
    job.run.folder.mkdir(parents=True)
    job.run.finish([{"iteration": 20, "test_loss": 1.0, "test_accuracy": 0.5}], SUMMARY)
    assert session.jobs()[0][2].snapshots == of_a_finished_run, "with 201 no test is due after 200: nothing can go on"


OTHER = {
    "instead_of": "res_wd_3e-4",
    "label": "WD=2e-4",
    "from": {"curve": "res_wd_1e-4", "iteration": 1800},
    "set": {"model": "resnet56", "solver": {"weight_decay": 2e-4}},
    "scales": {"smoke": {"model": {"depth": 1, "width": 8}}},
}
"""A reading of one of figure 12's curves."""


def test_what_a_reading_starts_from_is_no_reading(tmp_path, monkeypatch):
    """A reading that goes on from the snapshot of one of the figure's own curves, whose run comes first."""
    session = Session(composed(["figure=fig12", *SMALL, f"results={tmp_path}"]), say=lambda _: None)
    session.figure["curves"]["other"] = OTHER
    assert "res_wd_1e-4" in {curve for curve, _, _ in session.jobs(session.readings())}
    monkeypatch.setattr(Run, "done", lambda _: True)
    found = {curve for curve, _, _ in session.finished_readings()}
    assert "other" in found and found <= set(session.readings())


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        *((said, "größe/r") for said in ("größe/r", "'größe/r'", '"größe/r"')),
        *((folder, folder) for folder in ("it's/r", "a~b", "~/r", "a b", "a,b", "[a]", "a'", "a\\'b", "x=y", "1e-3")),
    ],
)
def test_a_folder_may_have_other_letters(said, folder):
    """Hydra's grammar knows them within quotes only, which a shell and make take for theirs."""
    assert composed([*FIGURE_9, f"results={said}"]).results == folder


def test_a_folder_may_lie_in_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    session = Session(composed([*FIGURE_9, "results=~/r", "figures=~/f", "data.dir=~/d"]), say=lambda _: None)
    assert [session.results, session.figures, session.data_dir] == [tmp_path / name for name in "rfd"]


def test_a_curve_may_be_called_as_a_number():
    """Hydra would make 0.001 of it."""
    assert composed([*FIGURE_9, "curve=1e-3"]).curve == "1e-3"
    assert quoted("curve=1e-3,2,low") == "curve='1e-3','2',low"


@pytest.mark.parametrize("word", ["format=2", "dataset.fingerprint=0123"])
def test_what_the_program_fills_in_is_no_setting(word):
    with pytest.raises(UserError, match="There is no setting"):
        composed([*FIGURE_9, word])
    assert composed([*FIGURE_9, "curve=null"]).curve is None


def test_one_mirror_is_a_list_too():
    """A text would be taken letter by letter."""
    with pytest.raises(UserError, match=r"a list of addresses is expected, data.mirrors=\[https://x\]"):
        Session(composed([*FIGURE_9, "data.mirrors=https://x"]), say=lambda _: None)
    Session(composed([*FIGURE_9, "data.mirrors=[https://x]"]), say=lambda _: None)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("checkpoint_seconds=nan", "a number from 0 up"),
        ("checkpoint_seconds=-1", "a number from 0 up"),
        ("data.workers=-2", "a whole number from 0 to 1,024"),
        *((f"replicates={n}", "a whole number from 1 up") for n in ("0", "1.5", "many")),
        ("replicates=101", "a whole number up to 100"),
        ("data.workers=5000", "a whole number from 0 to 1,024"),
    ],
)
def test_numbers_that_cannot_be_are_refused(word, says):
    with pytest.raises(UserError, match=f"{word}: {says} is expected"):
        Session(composed([*FIGURE_9, word]))


def test_no_state_is_kept_for_readings_that_nobody_asked_for(tmp_path, monkeypatch):
    """Figure 12's own curves are done, as after a restore: nothing is trained again for its other readings."""
    words = ["figure=fig12", *SMALL, f"results={tmp_path}"]
    own = Session(composed(words), say=lambda _: None)
    trained = {own.run(curve, 0).hash for curve in own.own_curves()}
    monkeypatch.setattr(Run, "done", lambda run: run.hash in trained)
    asked = Session(composed([*words, "readings=true"]), say=lambda _: None)
    for session in (own, asked):
        session.figure["curves"]["other"] = OTHER
    assert [job.snapshots for curve, _, job in own.jobs() if curve == "res_wd_1e-4"] == [()]
    assert [job.snapshots for curve, _, job in asked.jobs() if curve == "res_wd_1e-4"] == [(180,)]
    assert [job.snapshots for curve, _, job in own.jobs(["wd_1e-3_short"])] == [(100,)], "a reading's are for readings"
    assert all(job.done() for _, _, job in own.jobs()), "nor a reading trained up to where own curves started"
