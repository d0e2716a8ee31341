"""What one command knows of its data: looked for once, and the same when they are trained on."""

from dataclasses import replace

import pytest

from experiments import data as datasets
from experiments.errors import UserError
from experiments.session import Session, composed
from tests.small_runs import FIGURE_9


def test_the_data_are_looked_at_once_a_command(tmp_path, monkeypatch):
    """Also where results cannot be written and no file remembers the fingerprint."""
    (tmp_path / "file").touch()
    asked, found = [], datasets.fingerprint
    monkeypatch.setattr(datasets, "fingerprint", lambda *a, **k: asked.append(a) or found(*a, **k))
    session = Session(composed([*FIGURE_9, f"results={tmp_path}/file/results"]), say=lambda _: None)
    assert len(session.jobs()) == 4 and len(asked) == 1
    other = replace(session.settings("wd_1e-3", 0), dataset=replace(session.settings("wd_1e-3", 0).dataset, seed=1))
    assert session.fingerprint(other) != session.fingerprint(session.settings("wd_1e-3", 0)) and len(asked) == 2


def test_other_data_than_were_planned_for_are_not_trained_on(tmp_path):
    session = Session(composed([*FIGURE_9, f"results={tmp_path}"]), say=lambda _: None)
    settings = session.run("wd_1e-3", 0).settings
    before = replace(settings, dataset=replace(settings.dataset, fingerprint="0" * 16))
    with pytest.raises(UserError, match="The data set shapes has changed since this command began"):
        session.data(before)
    assert session.data(settings).fingerprint == settings.dataset.fingerprint
