"""The rows of tables 1 and 2 against the settings that the report prints for them."""

from dataclasses import replace

import pytest

from experiments.compose import load, settings_for
from experiments.curves import described
from experiments.settings import Momentum
from reproduce import reference

NETWORKS = {
    "3-layer": "cifar3",
    "wide resnet": "wide32",
    "densenet": "densenet40",
    "resnet-56": "resnet56",
    "LeNet": "lenet",
}
IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000}
FILES_SAY = {
    **{("table2", row): {"momentum": "0.90-0.80"} for row in (11, 12, 13, 14)},  # the log of row 11
    **{("table2", row): {"lr": "0.1"} for row in (21, 22, 23)},  # the job list
}
"""Where the author's files contradict the print: they are run."""
PRINTED = {(name, int(line["row"])): dict(line) for name in ("table1", "table2") for _, line in
           reference.table(name).iterrows()}  # fmt: skip


def ends(text) -> tuple[float, float]:
    """Where a printed range begins and ends: "0.1-4.0", or "0.1" twice."""
    first, _, last = str(text).partition("-")
    return float(first), float(last or first)


@pytest.mark.parametrize(("name", "row"), PRINTED)
def test_a_row_is_the_reports(name, row):
    table, line = load("figure", name), PRINTED[name, row] | FILES_SAY.get((name, row), {})
    (curve,) = [c for c, w in table["curves"].items() if w["row"] == row and "instead_of" not in w]
    run = settings_for(table, curve, 3, "paper")
    reading = described(curve)
    told = settings_for(table, reading if reading in table["curves"] else curve, 3, "paper")
    images, batch = IMAGES[line["dataset"]], int(line["tbs"])
    assert (told.model.name, told.dataset.name) == (NETWORKS[line["architecture"]], line["dataset"])
    assert told.batch.total == batch and told.iterations == int(line["epochs"]) * images // batch
    assert told.solver.weight_decay == float(line["weight_decay"])
    lr, momentum = told.lr_array(), told.momentum_array()
    base, peak = ends(line["lr"])
    assert (lr[0], lr.max()) == (base, pytest.approx(peak, rel=2e-3))
    start, farthest = ends(line["momentum"])
    assert momentum[0] == start and max(momentum, key=lambda m: abs(m - start)) == pytest.approx(farthest, abs=2e-4)
    if base != peak:
        epochs = line["lr_stepsize_epochs"] if name == "table1" else line["stepsize_epochs"]
        assert told.lr.stepsize == int(epochs) * images // batch
        assert told.momentum.stepsize in (None, told.lr.stepsize)
    assert run == (replace(told, momentum=Momentum(base=start)) if start != farthest else told)
