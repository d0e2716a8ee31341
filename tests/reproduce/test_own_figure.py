"""README's example of a figure of one's own is trained and drawn."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from experiments import compose
from experiments.errors import UserError
from experiments.session import Session, composed
from experiments.train import check_sweep
from reproduce import command

ROOT = Path(__file__).resolve().parents[2]


def test_readmes_example_runs(tmp_path):
    example = re.search(r"```yaml\n(title: Two momenta.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    path = compose.CONF / "figure" / "mine.yaml"
    assert not path.exists()
    path.write_text(example[1])
    try:
        small = ["dataset.size=8", "dataset.train_images=60", "dataset.test_images=20", "batch.per_gpu=2"]
        where = [f"results={tmp_path}/results", f"figures={tmp_path}/figures", "threads=1", "device=cpu"]
        words = ["figure=mine", "scale=smoke", *small, "iterations=20", "test_interval=5", "lr.stepsize=8", *where]
        console = Console(record=True, width=200)
        assert command.run(console, Session(composed(words), say=lambda _: None)) == 0
        assert compose.load("figure", "mine")["name"] == "mine"
        check_sweep(["-m", "figure=mine", "scale=smoke", "curve=low,high", "replicate=0"])
        with pytest.raises(UserError, match="leave curve= and replicate= out"):
            command.several(console, "collect", ["mine"], [*words[1:], "curve=low"])
    finally:
        path.unlink()
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".png", ".pdf"}
    assert "momentum 0.95" in console.export_text()
