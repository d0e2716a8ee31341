"""Figures 3b, 4b and 16 at scale quick, as their files have them, on a folder of JPEGs that is much too small."""

import pytest

from experiments.errors import UserError
from experiments.session import Session, composed
from reproduce import command
from reproduce import summary as summaries

FOLDER = [
    "dataset.classes=3",
    "dataset.train_images=24",
    "dataset.test_images=20",
    "dataset.size=75",
    "batch.per_gpu=2",
    "batch.gpus=2",
    "data.workers=0",
    "threads=1",
    "device=cpu",
]
SHORT = ["iterations=4", "test_interval=2"]
ONE_CYCLE = [*SHORT, "curve=inception_wd_1e-6", "lr.stepsize=2"]
CASES = {
    "fig03b": (SHORT, "Resnet-50", "Inception-Resnet-v2"),
    "fig04b": (SHORT, "LR=0.1, WD=1e-4, Mom=0.9", "CLR=0.05-1, WD=1e-7, CM=0.95-0.85"),
    "fig16": (ONE_CYCLE, "1cycle LR=0.1-1, WD=1e-6"),
}


def opened(figure, folder, *words):
    words = [f"figure={figure}", "scale=quick", f"data.dir={folder}", f"results={folder}/results", *words]
    return Session(composed([*words, f"figures={folder}/figures"]), say=lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("figure", CASES)
def test_quick_runs_on_a_folder_of_images(jpegs, console, figure):
    short, *labels = CASES[figure]
    folder = jpegs()
    asked = opened(figure, folder, *FOLDER, *short)
    assert command.run(console, asked) == 0
    said = console.export_text()
    for label in labels:
        assert f"{label}: 4 iterations in" in said
    if len(labels) == 2:  # all the figure's curves: it is drawn
        facts = summaries.read(asked.results, figure, asked.variant).facts
        assert facts["data"] == ["ImageNet (folder, 24 images)"]
        assert [p.suffix for p in sorted((folder / "figures").iterdir())] == [".pdf", ".png"]


def test_all_that_a_folder_lacks_is_said_at_once(jpegs, console):
    with pytest.raises(UserError) as caught:
        command.run(console, opened("fig04b", jpegs(), "threads=1", "device=cpu", "dataset.size=64", *SHORT))
    message = str(caught.value)
    assert "hold 3 classes, 24 train images, 21 test images" in message
    assert "ask for 1,000 classes, 1,281,167 train images" in message
    assert "dataset.classes=3 dataset.train_images=24 dataset.test_images=21" in message
