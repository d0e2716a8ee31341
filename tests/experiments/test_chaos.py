"""A few kills of tests/experiments/chaos.py, and two commands at once on one store."""

import sys

import pytest
from chaos import chaos, end_of, start

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in Linux's /proc")
def test_a_figure_whose_processes_are_killed_ends_with_the_same_bytes(tmp_path):
    assert chaos(tmp_path, kills=4, seed=1, together=2, words=()) >= 1


def test_two_commands_at_once_that_need_the_same_figure(tmp_path):
    """One trains figure 9, the other figures 9 and 10: each of their eight runs is trained once."""
    shared, alone = tmp_path / "shared" / "results", tmp_path / "alone" / "results"
    for folder in (shared, alone):
        folder.mkdir(parents=True)
    both = [start(shared, words) for words in ([], ["figure=fig10"])]
    assert [process.wait() for process in both] == [0, 0], (shared.parent / "log").read_text()
    assert (shared.parent / "log").read_text().count("1,000 iterations in") == 8
    assert start(alone, ["figure=fig10"]).wait() == 0, (alone.parent / "log").read_text()
    assert end_of(shared) == end_of(alone)
