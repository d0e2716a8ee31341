"""Figure 9 in runs of a second, for the tests of planning, running and drawing it."""

import pytest
from rich.console import Console
from small_runs import TINY

from experiments.session import Session, composed


@pytest.fixture
def words(tmp_path):
    return ["figure=fig09", *TINY, f"results={tmp_path}/results", f"figures={tmp_path}/figures"]


@pytest.fixture
def session(words):
    return Session(composed(words), say=lambda _: None)


@pytest.fixture
def console():
    return Console(record=True, width=200, force_terminal=False)
