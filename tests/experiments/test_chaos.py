"""A few kills of tests/experiments/chaos.py, and two figures at once on one store."""

import sys

import pytest
from chaos import chaos, end_of, start

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in Linux's /proc")
def test_a_figure_whose_processes_are_killed_ends_with_the_same_bytes(tmp_path):
    assert chaos(tmp_path, kills=4, seed=1, together=2, words=()) >= 1


SAME_SCHEDULE = ["lr.policy=constant", "lr.base=0.005", "lr.peak=null", "momentum.policy=constant"]
SAME_SCHEDULE += ["momentum.base=0.9", "momentum.peak=null"]


def test_two_figures_at_once_that_need_the_same_runs(tmp_path):
    """Figures 9 and 10 differ in their schedules only: with one schedule each of four runs is trained once for both."""
    shared, alone = tmp_path / "shared" / "results", tmp_path / "alone" / "results"
    for folder in (shared, alone):
        folder.mkdir(parents=True)
    both = [start(shared, [f"figure={figure}", *SAME_SCHEDULE]) for figure in ("fig09", "fig10")]
    assert [process.wait() for process in both] == [0, 0], (shared.parent / "log").read_text()
    assert (shared.parent / "log").read_text().count("1,000 iterations in") == 4
    for figure in ("fig09", "fig10"):
        assert start(alone, [f"figure={figure}", *SAME_SCHEDULE]).wait() == 0, (alone.parent / "log").read_text()
    assert end_of(shared) == end_of(alone)
    assert len(list((shared / "runs").iterdir())) == 4
