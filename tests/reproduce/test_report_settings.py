"""The figures' files against a table typed from the report, its author's job list and his logs, not from the files."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from author_logs import HALF_SPACING, INDEX, half_digit
from figure_files import FIGURES, nominal, spec

from experiments.compose import scale_of, settings_for
from experiments.settings import Momentum, Settings
from reproduce import reference
from reproduce.claims import CLAIMS
from reproduce.series import pick, x_scale

# One line a curve: panel | label | network | data | iterations | batch x GPUs | learning rate: first, largest (at),
# last | momentum: first, farthest from it | weight decay | iterations between tests. The batch is that of the last
# replicate, the nominal one. Drops by 0.316 end at 0.316^4 = 0.009971 (7d) and 0.316^5 = 0.003151 (9) of the start.
# Panel 14a prints a tenth of its learning rates.
TABLE = """
fig01a | Test loss                     | resnet56-v1 | cifar10  | 80000 | 125 x 8 | 0 0.4 (80000) 0.4 | 0.9 0.9 | 1e-4 | 200
fig03a | LR=0.0055                     | cifar3   | cifar10  | 60000 | 100 x 4 | 0.0055 0.0055 (0) 5.5e-5 | 0.9 0.9 | 4e-3 | 200
fig03a | LR=0.001                      | cifar3   | cifar10  | 60000 | 100 x 4 | 0.001 0.001 (0) 1e-5 | 0.9 0.9 | 4e-3 | 200
fig03b | Resnet-50                     | resnet50 | imagenet | 100000 | 32 x 4 | 0.1 0.1 (0) 0.0780749 | 0.9 0.9 | 1e-4 | 500
fig03b | Inception-Resnet-v2 | inception-resnet-v2 | imagenet | 100000 | 28 x 4 | 0.1 0.1 (0) 0.0780749 | 0.9 0.9 | 1e-4 | 500
fig04a | WD=1e-4                       | cifar3   | cifar10  | 20000 | 100 x 4 | 0 0.01 (20000) 0.01 | 0.9 0.9 | 1e-4 | 200
fig04a | WD=4e-3                       | cifar3   | cifar10  | 20000 | 100 x 4 | 0 0.01 (20000) 0.01 | 0.9 0.9 | 4e-3 | 200
fig04a | WD=1e-2                       | cifar3   | cifar10  | 20000 | 100 x 4 | 0 0.01 (20000) 0.01 | 0.9 0.9 | 1e-2 | 200
fig04b | CLR=0.05-1, WD=1e-7, CM=0.95-0.85 | resnet50 | imagenet | 210000 | 32 x 4 | 0.05 0.503409 (210000) 0.503409 | 0.95 0.902273 | 1e-7 | 500
fig04b | LR=0.1, WD=1e-4, Mom=0.9      | resnet50 | imagenet | 210000 | 32 x 4 | 0.1 0.1 (0) 0.0538615 | 0.9 0.9 | 1e-4 | 500
fig05a | LR=0.35                       | resnet56-v1 | cifar10 | 80000 | 125 x 8 | 0.35 0.35 (0) 0.0035 | 0.9 0.9 | 1e-4 | 100
fig05a | CLR=0.1-3                     | resnet56-v1 | cifar10 | 10000 | 125 x 8 | 0.1 3 (5000) 0.10058 | 0.9 0.9 | 1e-4 | 100
fig05b | Weight decay=0.001            | resnet56-v1 | cifar10 | 10000 | 125 x 8 | 0.1 3 (5000) 0.10058 | 0.9 0.9 | 1e-3 | 100
fig05b | Weight decay=0.0001           | resnet56-v1 | cifar10 | 10000 | 125 x 8 | 0.1 3 (5000) 0.10058 | 0.9 0.9 | 1e-4 | 100
fig05b | Weight decay=0.00001          | resnet56-v1 | cifar10 | 10000 | 125 x 8 | 0.1 3 (5000) 0.10058 | 0.9 0.9 | 1e-5 | 100
fig05b | Weight decay=0.000001         | resnet56-v1 | cifar10 | 10000 | 125 x 8 | 0.1 3 (5000) 0.10058 | 0.9 0.9 | 1e-6 | 100
fig06a | TBS=1024; CLR=0.1-1           | resnet56 | cifar10 | 5859 | 256 x 4 | 0.1 1 (2490) 1e-4 | 0.95 0.95 | 1e-4 | 200
fig06a | TBS=512; CLR=0.08-0.8         | resnet56 | cifar10 | 9277 | 128 x 4 | 0.08 0.8 (4003) 8e-5 | 0.95 0.95 | 1e-4 | 200
fig06a | TBS=256; CLR=0.06-0.6         | resnet56 | cifar10 | 13671 | 64 x 4 | 0.06 0.6 (6054) 6e-5 | 0.95 0.95 | 1e-4 | 200
fig06a | TBS=128; CLR=0.04-0.4         | resnet56 | cifar10 | 18750 | 32 x 4 | 0.04 0.4 (8203) 4e-5 | 0.95 0.95 | 1e-4 | 200
fig06b | TBS=1024; CLR=0.1-1           | resnet56 | cifar10 | 5859 | 256 x 4 | 0.1 1 (2490) 1e-4 | 0.95 0.95 | 1e-4 | 200
fig06b | TBS=512; CLR=0.08-0.8         | resnet56 | cifar10 | 9277 | 128 x 4 | 0.08 0.8 (4003) 8e-5 | 0.95 0.95 | 1e-4 | 200
fig06b | TBS=256; CLR=0.06-0.6         | resnet56 | cifar10 | 13671 | 64 x 4 | 0.06 0.6 (6054) 6e-5 | 0.95 0.95 | 1e-4 | 200
fig06b | TBS=128; CLR=0.04-0.4         | resnet56 | cifar10 | 18750 | 32 x 4 | 0.04 0.4 (8203) 4e-5 | 0.95 0.95 | 1e-4 | 200
fig07a | Mom=0.9                       | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.9 0.9 | 4e-3 | 200
fig07a | Mom=0.7                       | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.7 0.7 | 4e-3 | 200
fig07a | Mom=0.99                      | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.99 0.99 | 4e-3 | 200
fig07b | Loss                          | cifar3 | cifar10 | 10000 | 100 x 4 | 0.01 0.01 (0) 0.01 | 0.7 1 | 4e-3 | 200
fig07c | Mom=0.9                       | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.9 0.9 | 4e-3 | 200
fig07c | CM=0.8-1                      | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.8 1 | 4e-3 | 200
fig07c | CM=0.95-0.8                   | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.95 0.8 | 4e-3 | 200
fig07c | CM=0.97-0.7                   | cifar3 | cifar10 | 10000 | 100 x 4 | 0.002 0.02 (10000) 0.02 | 0.97 0.7 | 4e-3 | 200
fig07d | Momentum=0.9; LR=0.007        | cifar3 | cifar10 | 20000 | 100 x 4 | 0.007 0.007 (0) 6.9799e-5 | 0.9 0.9 | 4e-3 | 200
fig07d | CM=0.97-0.7; CLR=0.001-0.007, step=10k | cifar3 | cifar10 | 20000 | 100 x 4 | 0.001 0.0069994 (9999) 9.9772e-6 | 0.97 0.7 | 4e-3 | 200
fig08a | Momentum=0.9                  | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 1 (9000) 1e-4 | 0.9 0.9 | 5e-5 | 200
fig08a | CM range=0.85-0.95            | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 1 (9000) 1e-4 | 0.85 0.95 | 5e-5 | 200
fig08a | CM range=0.95-0.85            | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 1 (9000) 1e-4 | 0.95 0.85 | 5e-5 | 200
fig08b | TBS=1024; CLR=0.1-1           | resnet56 | cifar10 | 5859 | 256 x 4 | 0.1 1 (2490) 1e-4 | 0.95 0.85 | 1e-4 | 200
fig08b | TBS=512; CLR=0.08-0.8         | resnet56 | cifar10 | 9277 | 128 x 4 | 0.08 0.8 (4003) 8e-5 | 0.95 0.85 | 1e-4 | 200
fig08b | TBS=256; CLR=0.06-0.6         | resnet56 | cifar10 | 13671 | 64 x 4 | 0.06 0.6 (6054) 6e-5 | 0.95 0.85 | 1e-4 | 200
fig08b | TBS=128; CLR=0.04-0.4         | resnet56 | cifar10 | 18750 | 32 x 4 | 0.04 0.4 (8203) 4e-5 | 0.95 0.85 | 1e-4 | 200
fig09a | WD=1e-3                       | cifar3 | cifar10 | 16000 | 128 x 4 | 0.005 0.005 (0) 1.57545e-5 | 0.95 0.95 | 1e-3 | 200
fig09a | WD=3.2e-3                     | cifar3 | cifar10 | 16000 | 128 x 4 | 0.005 0.005 (0) 1.57545e-5 | 0.95 0.95 | 3.2e-3 | 200
fig09a | WD=1e-2                       | cifar3 | cifar10 | 16000 | 128 x 4 | 0.005 0.005 (0) 1.57545e-5 | 0.95 0.95 | 1e-2 | 200
fig09a | WD=1.8e-3                     | cifar3 | cifar10 | 16000 | 128 x 4 | 0.005 0.005 (0) 1.57545e-5 | 0.95 0.95 | 1.8e-3 | 200
fig10a | WD=1e-3                       | cifar3 | cifar10 | 8000 | 128 x 4 | 0.001 0.01 (8000) 0.01 | 0.98 0.8 | 1e-3 | 200
fig10a | WD=3.2e-3                     | cifar3 | cifar10 | 8000 | 128 x 4 | 0.001 0.01 (8000) 0.01 | 0.98 0.8 | 3.2e-3 | 200
fig10a | WD=1e-2                       | cifar3 | cifar10 | 8000 | 128 x 4 | 0.001 0.01 (8000) 0.01 | 0.98 0.8 | 1e-2 | 200
fig10a | WD=1.8e-3                     | cifar3 | cifar10 | 8000 | 128 x 4 | 0.001 0.01 (8000) 0.01 | 0.98 0.8 | 1.8e-3 | 200
fig11a | WD=1e-4                       | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 0.1 (0) 0.1 | 0.95 0.95 | 1e-4 | 200
fig11a | WD=5.6e-4                     | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 0.1 (0) 0.1 | 0.95 0.95 | 5.6e-4 | 200
fig11a | WD=3.2e-4                     | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 0.1 (0) 0.1 | 0.95 0.95 | 3.2e-4 | 200
fig11a | WD=1e-3                       | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 0.1 (0) 0.1 | 0.95 0.95 | 1e-3 | 200
fig11b | WD=1e-4                       | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 2 (20000) 2 | 0.97 0.8 | 1e-4 | 200
fig11b | WD=1e-5                       | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 2 (20000) 2 | 0.97 0.8 | 1e-5 | 200
fig11b | WD=1e-6                       | resnet56 | cifar10 | 20000 | 256 x 4 | 0.1 2 (20000) 2 | 0.97 0.8 | 1e-6 | 200
fig11b | WD=3.2e-4                     | resnet56 | cifar10 | 10000 | 256 x 4 | 0.1 1 (10000) 1 | 0.97 0.8 | 3.2e-4 | 200
fig12a | WD=1e-2                       | cifar3 | cifar10 | 8000 | 128 x 4 | 0.005 0.005 (0) 0.005 | 0.95 0.95 | 1e-2 | 400
fig12a | WD=3e-3                       | cifar3 | cifar10 | 8000 | 128 x 4 | 0.005 0.005 (0) 0.005 | 0.95 0.95 | 3e-3 | 400
fig12a | WD=1e-3                       | cifar3 | cifar10 | 8000 | 128 x 4 | 0.005 0.005 (0) 0.005 | 0.95 0.95 | 1e-3 | 400
fig12b | WD=1e-3                       | resnet56 | cifar10 | 3906 | 128 x 4 | 0.08 0.8 (3906) 0.8 | 0.95 0.95 | 1e-3 | 200
fig12b | WD=3e-4                       | resnet56 | cifar10 | 3906 | 128 x 4 | 0.08 0.8 (3906) 0.8 | 0.95 0.95 | 3e-4 | 200
fig12b | WD=1e-4                       | resnet56 | cifar10 | 3906 | 128 x 4 | 0.08 0.8 (3906) 0.8 | 0.95 0.95 | 1e-4 | 200
fig13a | WD=1e-3                       | wide32 | cifar10 | 9765 | 128 x 4 | 0.1 1 (9765) 1 | 0.95 0.85 | 1e-3 | 200
fig13a | WD=1e-4                       | wide32 | cifar10 | 9765 | 128 x 4 | 0.1 1 (9765) 1 | 0.95 0.85 | 1e-4 | 200
fig13a | WD=1e-5                       | wide32 | cifar10 | 9765 | 128 x 4 | 0.1 1 (9765) 1 | 0.95 0.85 | 1e-5 | 200
fig13b | CM=0.9-0.85                   | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 1 (9765) 1 | 0.9 0.85 | 1e-5 | 200
fig13b | CM=0.95-0.85                  | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 1 (9765) 1 | 0.95 0.85 | 1e-5 | 200
fig13b | CM=0.97-0.85                  | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 1 (9765) 1 | 0.97 0.85 | 1e-4 | 200
fig13c | WD=1e-4                       | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 4 (9765) 4 | 0.95 0.85 | 1e-4 | 200
fig13c | WD=1e-6                       | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 4 (9765) 4 | 0.9 0.85 | 1e-6 | 200
fig13c | WD=1e-7                       | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 4 (9765) 4 | 0.9 0.85 | 1e-7 | 200
fig13d | TBS=256                       | densenet40 | cifar10 | 9765 | 64 x 4 | 0.1 4 (9765) 4 | 0.9 0.85 | 1e-6 | 200
fig13d | TBS=512                       | densenet40 | cifar10 | 9765 | 128 x 4 | 0.1 4 (9765) 4 | 0.9 0.85 | 1e-6 | 200
fig14a | Momentum=0.9                  | lenet | mnist | 5859 | 128 x 4 | 0.01 0.2 (5859) 0.2 | 0.9 0.9 | 5e-4 | 100
fig14a | Momentum=0.95 - 0.8           | lenet | mnist | 5859 | 128 x 4 | 0.01 0.2 (5859) 0.2 | 0.95 0.8 | 5e-4 | 100
fig14b | WD=1e-4                       | lenet | mnist | 5859 | 128 x 4 | 0.01 0.4 (5859) 0.4 | 0.95 0.8 | 1e-4 | 100
fig14b | WD=5e-4                       | lenet | mnist | 5859 | 128 x 4 | 0.01 0.4 (5859) 0.4 | 0.95 0.8 | 5e-4 | 100
fig14b | WD=1e-3                       | lenet | mnist | 5859 | 128 x 4 | 0.01 0.4 (5859) 0.4 | 0.95 0.8 | 1e-3 | 100
fig14b | WD=3e-3                       | lenet | mnist | 5859 | 128 x 4 | 0.01 0.4 (5859) 0.4 | 0.95 0.8 | 3e-3 | 100
fig15a | WD=1e-4                       | resnet56 | cifar100 | 4882 | 128 x 4 | 0.1 1 (4882) 1 | 0.95 0.85 | 1e-4 | 200
fig15a | WD=1e-5                       | resnet56 | cifar100 | 4882 | 128 x 4 | 0.1 1 (4882) 1 | 0.95 0.85 | 1e-5 | 200
fig15a | WD=3e-4                       | resnet56 | cifar100 | 4882 | 128 x 4 | 0.1 1 (4882) 1 | 0.95 0.85 | 3e-4 | 200
fig15b | TBS=256, CLR=0.05-.5          | resnet56 | cifar100 | 16601 | 64 x 4 | 0.05 0.5 (8007) 5e-5 | 0.95 0.85 | 1e-4 | 100
fig15b | TBS=512, CLR=0.09-.9          | resnet56 | cifar100 | 9765 | 128 x 4 | 0.09 0.9 (4394) 9e-5 | 0.95 0.85 | 1e-4 | 100
fig15b | TBS=1024, CLR=0.1-1.2         | resnet56 | cifar100 | 7080 | 256 x 4 | 0.1 1.2 (3417) 1e-4 | 0.95 0.85 | 1e-4 | 100
fig16a | Original; LR=0.1, WD=1e-4     | resnet50 | imagenet | 1337500 | 32 x 4 | 0.1 0.1 (0) 0.00168437 | 0.9 0.9 | 1e-4 | 500
fig16a | 1cycle LR=0.1-1, WD=1e-5      | resnet50 | imagenet | 200000 | 32 x 4 | 0.05 1 (95000) 5e-5 | 0.95 0.85 | 1e-5 | 500
fig16a | 1cycle LR=0.1-1, WD=3e-6      | resnet50 | imagenet | 200000 | 32 x 4 | 0.05 1 (95000) 5e-5 | 0.95 0.85 | 3e-6 | 500
fig16b | Original; LR=0.1, WD=1e-4     | inception-resnet-v2 | imagenet | 1090000 | 28 x 4 | 0.1 0.1 (0) 0.00353919 | 0.9 0.9 | 1e-4 | 500
fig16b | 1cycle LR=0.1-1, WD=3e-6      | inception-resnet-v2 | imagenet | 220000 | 28 x 4 | 0.05 1 (108000) 5e-5 | 0.95 0.92963 | 3e-6 | 500
fig16b | 1cycle LR=0.1-1, WD=1e-6      | inception-resnet-v2 | imagenet | 220000 | 28 x 4 | 0.05 1 (108000) 5e-5 | 0.95 0.92963 | 1e-6 | 500
"""  # noqa: E501


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    panel: str
    label: str
    network: str
    data: str
    iterations: int
    per_gpu: int
    gpus: int
    lr: tuple[float, float, int, float]
    momentum: tuple[float, float]
    weight_decay: float
    test_interval: int


def parse(line: str) -> Row:
    panel, label, network, data, iterations, batch, lr, momentum, wd, interval = (w.strip() for w in line.split("|"))
    per_gpu, gpus = batch.split(" x ")
    first, largest, at, last = lr.replace("(", "").replace(")", "").split()
    start, farthest = momentum.split()
    rates = float(first), float(largest), int(at), float(last)
    return Row(
        panel, label, network, data, int(iterations), int(per_gpu), int(gpus), rates, (float(start), float(farthest)),
        float(wd), int(interval),
    )  # fmt: skip


ROWS = [parse(line) for line in TABLE.strip().splitlines()]
IDS = [f"{row.panel} {row.label}" for row in ROWS]


@cache
def panels() -> dict[str, str]:
    """Panel -> the figure whose file has it."""
    return {panel: figure for figure in FIGURES for panel in spec(figure)["panels"]}


def labels(panel: str) -> dict[str, str]:
    """Label -> curve, for the curves of a panel."""
    figure = spec(panels()[panel])
    what = figure["panels"][panel]
    own = {c: w["label"] for c, w in figure["curves"].items() if "instead_of" not in w} | what.get("labels", {})
    return {own[c]: c for c in what.get("curves", own)}


def curve_of(panel: str, label: str) -> str:
    """The curve that a panel shows under a label; a panel of a single curve needs none."""
    shown = labels(panel)
    return next(iter(shown.values())) if len(shown) == 1 else shown[label]


def described(figure: str, curve: str, scale: str = "paper") -> Settings:
    """The same with its momentum as the report describes it and the author's solver printed it."""
    reading = f"{curve}_described"
    return nominal(figure, reading if reading in spec(figure)["curves"] else curve, scale)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_curve_is_the_reports(row: Row) -> None:
    run = described(panels()[row.panel], curve_of(row.panel, row.label))
    assert (run.model.name, run.dataset.name) == (row.network, row.data)
    assert (run.iterations, run.test_interval) == (row.iterations, row.test_interval)
    assert (run.batch.per_gpu, run.batch.gpus) == (row.per_gpu, row.gpus)
    assert run.solver.weight_decay == row.weight_decay
    assert (run.model.depth, run.model.width, run.model.border) == (None, None, None)
    lr, momentum = run.lr_array(), run.momentum_array()
    first, largest, at, last = row.lr
    assert lr[[0, at, -1]] == pytest.approx([first, largest, last], rel=1e-5)
    assert lr.max() == lr[at]
    start, farthest = row.momentum
    assert momentum[0] == start
    turns = np.argmax(np.abs(momentum - start))
    assert momentum[turns] == pytest.approx(farthest, rel=1e-5)
    if row.network != "inception-resnet-v2" and farthest != start and at > 0:  # its runs had a typo in the step size
        assert abs(turns - at) <= 1, "momentum turns where the learning rate does"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_what_runs_is_what_is_described_with_its_first_momentum(row: Row) -> None:
    """Nesterov's update in Caffe knows one momentum: the author's schedules of it were recorded only."""
    figure, curve = panels()[row.panel], curve_of(row.panel, row.label)
    run, told = nominal(figure, curve), described(figure, curve)
    start, farthest = row.momentum
    assert (f"{curve}_described" in spec(figure)["curves"]) == (start != farthest)
    assert told.solver.type == ("sgd" if row.network == "resnet56-v1" else "nesterov")
    if row.panel == "fig07b":  # drawn over the momentum that was recorded
        assert run == replace(told, solver=replace(told.solver, type="nesterov_unmodified"))
    else:
        assert run == replace(told, momentum=Momentum(base=start))


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_data_are_those_of_the_network(row: Row) -> None:
    run = nominal(panels()[row.panel], curve_of(row.panel, row.label))
    assert run.dataset.mirror == (row.network not in ("cifar3", "lenet"))
    assert run.dataset.subtract_mean == (row.network != "lenet")
    if row.network == "resnet56-v1":
        assert run.model.bn_fraction == (0.999 if row.lr[0] == 0.35 else 0.95)
        assert run.model.test_statistics == ("batch" if row.panel.startswith("fig01") else None)
    else:
        assert run.model.bn_fraction is run.model.test_statistics is None


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_range_tests_run_in_fp32_where_they_may_diverge(row: Row) -> None:
    figure = panels()[row.panel]
    run = settings_for(spec(figure), curve_of(row.panel, row.label), 0, "paper", precision="bf16")
    over_lr = spec(figure)["panels"][row.panel]["x"] == "lr"
    assert run.precision == ("fp32" if over_lr else "bf16")


def test_14a_is_drawn_at_a_tenth_of_its_learning_rates() -> None:
    """So that its axis is the printed one, on which its readings with the printed learning rates lie as they are."""
    figure = spec("fig14")
    for curve in figure["panels"]["fig14a"]["curves"]:
        run, printed = nominal("fig14", curve), f"{curve}_printed"
        scale = x_scale(figure["panels"]["fig14a"], 1)
        assert scale * run.lr_array()[[0, -1]] == pytest.approx([0.001, 0.02])
        scale = x_scale(figure["panels"]["fig14a"], 1, figure["curves"][printed])
        assert scale * nominal("fig14", printed).lr_array()[[0, -1]] == pytest.approx([0.001, 0.02])
    assert all(x_scale(spec(f)["panels"][p], 1) == 1 for p, f in panels().items() if p != "fig14a")


def test_7d_drops_at_the_places_of_the_panel() -> None:
    for curve in ("Momentum=0.9; LR=0.007", "CM=0.97-0.7; CLR=0.001-0.007, step=10k"):
        lr = nominal("fig07", curve_of("fig07d", curve)).lr_array()
        fell = [t for t in range(1, 20000) if lr[t] < 0.4 * lr[t - 1]]
        assert fell == [10000, 15000, 17500, 19000]


def test_the_table_has_every_curve_of_every_panel() -> None:
    shown = {(panel, label) for panel in panels() for label in labels(panel) if panel != "fig02"}
    twice = {"fig01b": "fig01a", "fig09b": "fig09a", "fig10b": "fig10a"}  # the same runs, another quantity
    assert {(p, c) for p, label in shown for c in [curve_of(p, label)]} == {
        (p, curve_of(row.panel, row.label))
        for row in ROWS
        for p in [row.panel, *(b for b in twice if twice[b] == row.panel)]
    }


@pytest.mark.parametrize("panel", sorted(panels()))
def test_a_panel_has_the_reports_series(panel: str) -> None:
    what = spec(panels()[panel])["panels"][panel]
    report = reference.curves(panel)
    if not report:
        assert panel == "fig02"
        return
    quantities = [what["y"]] if isinstance(what["y"], str) else what["y"]
    assert set(quantities) == set(report)
    for quantity, series in report.items():
        wanted = set(series)
        ours = labels(panel)
        if len(ours) == len(wanted) == 1:
            continue
        found = [pick(series, label) for label in ours]
        assert None not in found
        assert {curve.label for curve in found if curve} == wanted
        assert quantity == reference.quantity(panel, next(iter(wanted)))


def test_every_panel_and_every_claim_belongs_to_a_figure() -> None:
    assert set(panels()) == set(reference.panels())
    for figure in FIGURES:
        about = [c.id for c in CLAIMS.values() if c.panel in spec(figure)["panels"]]
        assert spec(figure)["claims"] == about


@pytest.mark.parametrize("figure", FIGURES)
def test_replicates_are_those_of_the_authors_script(figure: str) -> None:
    runs = nominal(figure, next(iter(spec(figure)["curves"])))
    count = scale_of(spec(figure), "paper")["replicates"]
    every = [settings_for(spec(figure), next(iter(spec(figure)["curves"])), r, "paper") for r in range(count)]
    made = [(s.batch.per_gpu - runs.batch.per_gpu, s.model.init) for s in every]
    if runs.dataset.name == "imagenet":
        assert made == [(0, "xavier")]
    elif runs.model.name == "resnet56-v1":
        assert made == [(0, "msra")] * 4
    elif figure in ("fig03", "fig04", "fig07"):  # their curves repeat with the order of the images
        assert made == [(0, "xavier"), (0, "msra")] * 2
    else:
        assert made == [(3, "xavier"), (2, "msra"), (1, "xavier"), (0, "msra")]
    assert len({s.seed for s in every}) == count
    same = [replace(s, seed=0, batch=runs.batch, model=runs.model) for s in every]
    assert all(s == replace(runs, seed=0) for s in same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("fig05", "fig05a", "CLR=0.1-3"), ("fig05", "fig05b", "Weight decay=0.0001")),
        (("fig07", "fig07a", "Mom=0.9"), ("fig07", "fig07c", "Mom=0.9")),
        (("fig13", "fig13c", "WD=1e-6"), ("fig13", "fig13d", "TBS=256")),
    ],
)
def test_a_run_in_two_panels_is_one_curve(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert curve_of(*one[1:]) == curve_of(*other[1:])


@pytest.mark.parametrize(
    ("figure", "panel", "label", "row"),
    [
        ("fig06", "fig06a", "TBS=512; CLR=0.08-0.8", "row_15"),
        ("fig08", "fig08b", "TBS=512; CLR=0.08-0.8", "row_11"),
        ("fig06", "fig06a", "TBS=512; CLR=0.08-0.8", "row_11"),  # its cyclical momentum was recorded only
    ],
)
def test_a_run_in_a_figure_and_in_table_1_is_trained_once(figure: str, panel: str, label: str, row: str) -> None:
    for replicate in range(4):
        drawn = settings_for(spec(figure), curve_of(panel, label), replicate, "paper")
        assert drawn.hash() == settings_for(spec("table1"), row, replicate, "paper").hash()


# ------------------------------------------------------------------------------------------------ the author's logs

LOGGED = [
    ("fig05a", "CLR=0.1-3", "sc_clr3SS5kFig1a"),
    ("fig05a", "LR=0.35", "sc_lr35Fig1a"),
    ("fig05b", "Weight decay=0.001", "sc_clr3SS5kWD-3Fig11"),
    ("fig05b", "Weight decay=0.00001", "sc_clr3SS5kWD-5Fig11"),
    ("fig05b", "Weight decay=0.000001", "sc_clr3SS5kWD-6Fig11"),
    ("fig06a", "TBS=512; CLR=0.08-0.8", "hp_resnet56_1cycle_tbs512_ep95"),
    ("fig15b", "TBS=1024, CLR=0.1-1.2", "hp_c100resnet56_1cycle_tbs1036_ep145"),
    ("fig03b", "Resnet-50", "hp_resnet50_step_wd1e-4"),
    ("fig03b", "Inception-Resnet-v2", "hp_inresv2_step_wd1e-4_r1"),
    ("fig04b", "LR=0.1, WD=1e-4, Mom=0.9", "hp_resnet50_step_wd1e-4"),
    ("fig16a", "Original; LR=0.1, WD=1e-4", "hp_resnet50_step_wd1e-4"),
    ("fig16a", "1cycle LR=0.1-1, WD=3e-6", "hp_resnet50_1cycle_wd3e-6"),
    ("fig16b", "Original; LR=0.1, WD=1e-4", "hp_inresv2_step_wd1e-4_r1"),
    ("fig16b", "1cycle LR=0.1-1, WD=3e-6", "hp_inresv2_1cycle_wd3e-6_r1"),
    ("fig16b", "1cycle LR=0.1-1, WD=1e-6", "hp_inresv2_1cycle_wd1e-6_r2"),
]


@pytest.mark.parametrize(("panel", "label", "name"), LOGGED)
def test_a_logged_run_has_the_logs_learning_rate_and_momentum(panel: str, label: str, name: str) -> None:
    """At every iteration that was printed, to print precision and float32's half spacing at the largest rate."""
    run, logged = described(panels()[panel], curve_of(panel, label)), INDEX.loc[name]
    log = reference.log(name)
    ran = log[log.lr.notna() & (log.iteration < run.iterations)]
    assert len(ran) >= 40
    lr, momentum = run.lr_array()[ran.iteration], run.momentum_array()[ran.iteration]
    assert np.all(np.abs(lr - ran.lr) <= half_digit(ran.lr.to_numpy()) + HALF_SPACING * lr.max())
    if name.startswith("hp_"):  # the solver of lnsmith54/super-convergence printed no momentum
        assert np.all(np.abs(momentum - ran.momentum) <= 0.5e-6 + HALF_SPACING)
    else:
        assert set(momentum) == {logged.momentum}
    assert run.solver.weight_decay == logged.weight_decay
    assert run.solver.type == logged.solver_type.lower()
    assert run.batch.gpus == logged.gpus
    assert logged.batch_per_gpu - run.batch.per_gpu in (0, 3)  # one log is replicate 0's
    assert run.test_interval == logged.display_interval
    if run.dataset.name != "imagenet":
        assert run.iterations == logged.max_iter
