"""Where a claim's words become numbers: each limit and each window, from just inside and from just outside."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reproduce import reference
from reproduce.claims import CLAIMS, judge
from reproduce.claims.comparisons import each_below, less
from reproduce.claims.numbers import Number, PanelData, argmin, diverges, final
from reproduce.series import Curve

Points = Sequence[tuple[float, float]]


def line(label: str, points: Points, samples: int = 401) -> Curve:
    """Straight lines through points (x, y), tested at equal distances."""
    places, heights = np.array(points, dtype=float).T
    x = np.linspace(places[0], places[-1], samples)
    mean = np.interp(x, places, heights)
    return Curve(label, x, mean, np.zeros_like(mean), 1)


def panel(**quantities: dict[str, Points]) -> dict[str, dict[str, Curve]]:
    return {q: {label: line(label, points) for label, points in of.items()} for q, of in quantities.items()}


def status(id: str, data: dict[str, dict[str, Curve]] | pd.DataFrame) -> str:
    return judge([id], {CLAIMS[id].panel: data}, "paper")[0].status


def early_overfitting(bottom=0.02, rise=1.25, train_end=0.4, accuracy_end=0.82):
    """Panel 1a: F01.1 looks at it as far as LR 0.06."""
    loss = [(0.004, 1.5), (bottom, 1.0), (0.055, rise), (0.06, rise), (0.4, 0.9)]
    train = [(0.004, 1.5), (bottom, 0.6), (0.06, train_end), (0.4, 0.3)]
    accuracy = [(0.004, 0.5), (bottom, 0.8), (0.06, accuracy_end), (0.4, 0.9)]
    series = {"test_loss": loss, "train_loss": train, "test_accuracy": accuracy}
    return {quantity: {"run": line("run", points, 4001)} for quantity, points in series.items()}


def generalisation(place=15_000.0, last=0.6):
    return panel(generalization_error={"run": [(0, 0.1), (place, 1), (70_000, last), (80_000, last)]})


def figure_4a(place=0.002, at_8=1.4, jump=0.005):
    """WD=1e-4 and WD=1e-2 by their lowest places, their rise and the jump; WD=4e-3 below both."""
    return panel(
        test_loss={
            "WD=1e-4": [(0, 2), (place, 1), (0.0079, 1.1), (0.008, at_8), (0.0081, 1.1), (0.01, 1.1)],
            "WD=4e-3": [(0, 2), (0.004, 0.7), (0.01, 0.7)],
            "WD=1e-2": [(0, 2), (0.003, 1), (jump, 1.1), (jump + 1e-9, 2), (0.01, 2)],
        }
    )


def figure_4b(last=2.4, end=1.9):
    cycle, constant = "CLR=0.05-1, WD=1e-7, CM=0.95-0.85", "LR=0.1, WD=1e-4, Mom=0.9"
    return panel(
        test_loss={
            cycle: [(0, 6), (9_000, 4), (100_000, 2), (190_000, last), (210_000, last)],
            constant: [(0, 6), (157_500, 2), (210_000, end)],
        }
    )


def figure_5b(first=0.92, tiny=0.9, large=0.1):
    ends = {"0.0001": first, "0.00001": 0.9, "0.000001": tiny, "0.001": large}
    return panel(test_accuracy={f"Weight decay={wd}": [(0, 0.05), (9_000, y), (10_000, y)] for wd, y in ends.items()})


def figure_7a(jump=0.01, later=0.015):
    jumps = {"Mom=0.99": jump, "Mom=0.9": later}
    return panel(test_loss={m: [(0.002, 1), (x, 1), (x + 1e-9, 2), (0.02, 2)] for m, x in jumps.items()})


def figure_7c(lowest=0.5, first=1.0, last=1.2):
    """At LR 0.004 the curves have the losses first, 1.1 and last, not beside it; then falling momentum is lowest."""
    at_4 = {"CM=0.97-0.7": first, "Mom=0.9": 1.1, "CM=0.8-1": last, "CM=0.95-0.8": 1.1}
    least = {"CM=0.97-0.7": lowest, "Mom=0.9": 0.6, "CM=0.8-1": 0.7, "CM=0.95-0.8": 0.6}
    beside = {c: [(0.002, 1.5), (0.0039, 1.5), (0.004, y), (0.0041, 1.5)] for c, y in at_4.items()}
    return panel(test_loss={c: [*points, (0.018, least[c]), (0.02, least[c])] for c, points in beside.items()})


def figure_7d(accuracy=0.82, loss=0.5):
    constant, cycle = "Momentum=0.9; LR=0.007", "CM=0.97-0.7; CLR=0.001-0.007, step=10k"
    return panel(
        test_accuracy={constant: [(0, 0.82), (20_000, 0.82)], cycle: [(0, accuracy), (20_000, accuracy)]},
        test_loss={constant: [(0, 0.5), (20_000, 0.5)], cycle: [(0, loss), (20_000, loss)]},
    )


def figure_9a(lowest=3_000.0, at_7=0.8):
    """WD=1e-3 is lowest at ``lowest`` and has the loss ``at_7`` at iteration 7,000, not beside it."""
    last = {"3.2e-3": 0.5, "1.8e-3": 0.55, "1e-2": 0.7}
    curves = {f"WD={wd}": [(0, 1.5), (12_000, y), (16_000, y)] for wd, y in last.items()}
    hill = [(0, 1.5), (lowest - 200, 1), (lowest, 0.7), (lowest + 200, 1), (6_800, 1)]
    return panel(test_loss=curves | {"WD=1e-3": [*hill, (7_000, at_7), (7_200, 1), (12_000, 0.6), (16_000, 0.6)]})


def densenet_4(tiny=0.84):
    heights = {"1e-4": 0.3, "1e-6": 0.8, "1e-7": tiny}
    return panel(test_accuracy={f"WD={wd}": [(0.1, y), (4, y)] for wd, y in heights.items()})


def mnist_14a(jump=0.0145):
    calm, jumps = [(0.001, 0.05), (0.02, 0.05)], [(0.001, 1), (jump, 1), (jump + 1e-9, 2), (0.021, 2)]
    return panel(test_loss={"Momentum=0.9": jumps, "Momentum=0.95 - 0.8": calm})


def cifar100_15b(smallest=0.685, largest=0.676):
    ends = {"TBS=256, CLR=0.05-.5": smallest, "TBS=512, CLR=0.09-.9": 0.68, "TBS=1024, CLR=0.1-1.2": largest}
    return panel(test_accuracy={label: [(0, y), (17_000, y)] for label, y in ends.items()})


def imagenet_16a(first=0.7, second=0.7):
    ends = {"Original; LR=0.1, WD=1e-4": 0.69, "1cycle LR=0.1-1, WD=3e-6": first, "1cycle LR=0.1-1, WD=1e-5": second}
    return panel(test_accuracy={label: [(0, 0.1), (1_200_000, y), (1_350_000, y)] for label, y in ends.items()})


# A claim, its data, and what is changed of them: each change by itself leaves it held, or makes it fail.
EDGES = {
    "F01.1": (
        early_overfitting,
        [{}, {"bottom": 0.0295}, {"rise": 1.21}, {"train_end": 0.59}, {"accuracy_end": 0.801}],
        [{"bottom": 0.0305}, {"rise": 1.19}, {"train_end": 0.61}, {"accuracy_end": 0.799}],
    ),
    "F01.3": (
        generalisation,
        [{}, {"place": 19_800}, {"last": 0.69}],
        [{"place": 20_400}, {"last": 0.71}],
    ),
    "F04.1": (
        figure_4a,
        [{}, {"place": 0.00152}, {"place": 0.00398}, {"at_8": 1.31}],
        [{"place": 0.00145}, {"place": 0.00405}, {"at_8": 1.29}],
    ),
    "F04.3": (figure_4a, [{}, {"jump": 0.00401}, {"jump": 0.00645}], [{"jump": 0.0039}, {"jump": 0.0066}]),
    "F04.4": (figure_4b, [{}, {"last": 2.22}, {"end": 1.99}], [{"last": 2.19}, {"end": 2.01}]),
    "F05.2": (figure_5b, [{}, {"large": 0.199}], [{"large": 0.201}]),
    "F05.3": (figure_5b, [{}, {"tiny": 0.851}, {"first": 0.901}], [{"tiny": 0.849}, {"first": 0.899}]),
    "F07.2": (
        figure_7a,
        [{}, {"jump": 0.00901}, {"jump": 0.01245}, {"later": 0.0101}],
        [{"jump": 0.0089}, {"jump": 0.0126}, {"later": 0.0098}],
    ),
    "F07.4": (
        figure_7c,
        [{}, {"lowest": 0.59}, {"first": 1.09}, {"last": 1.11}],
        [{"lowest": 0.61}, {"first": 1.11}, {"last": 1.09}],
    ),
    "F07.6": (
        figure_7d,
        [{}, {"accuracy": 0.8249}, {"accuracy": 0.8151}, {"loss": 0.3}],
        [{"accuracy": 0.8251}, {"accuracy": 0.8149}, {"loss": 0.501}],
    ),
    "F09.1": (figure_9a, [{}, {"lowest": 3_960}, {"at_7": 0.71}], [{"lowest": 4_300}, {"at_7": 0.69}]),
    "F13.3": (densenet_4, [{}, {"tiny": 0.849}, {"tiny": 0.751}], [{"tiny": 0.851}, {"tiny": 0.749}]),
    "F14.1": (mnist_14a, [{}, {"jump": 0.0199}], [{"jump": 0.0202}]),
    "F15.2": (
        cifar100_15b,
        [{}, {"smallest": 0.6701}, {"largest": 0.6899, "smallest": 0.68}],
        [{"smallest": 0.6699}, {"largest": 0.6901, "smallest": 0.68}, {"smallest": 0.686}],
    ),
    "F16.1": (imagenet_16a, [{}, {"first": 0.6}, {"second": 0.6}], [{"first": 0.689, "second": 0.689}]),
}
CASES = [
    pytest.param(id, make, change, expected, id=f"{id}-{expected}-{' '.join(f'{k}={v:g}' for k, v in change.items())}")
    for id, (make, held, failed) in EDGES.items()
    for changes, expected in ((held, "held"), (failed, "failed"))
    for change in changes
]


@pytest.mark.parametrize("id, make, change, expected", CASES)
def test_the_limits_of_a_claim(id: str, make: Callable[..., dict], change: dict[str, float], expected: str):
    assert status(id, make(**change)) == expected


WINDOWS = {  # claims on a stretch of the axis: where it lies
    "F03.1": (25_000, 50_000), "F10.3": (0.005, 0.008), "F11.2": (0.5, 0.8), "F12.1": (0.007, 0.01),
    "F12.2": (0.56, 0.8), "F13.1": (0.4, 1.0), "F13.2": (0.4, 1.0), "F13.3": (2.0, 4.0), "F13.4": (1.0, 4.0),
    "F14.2": (0.05, 0.15), "F15.1": (0.5, 0.85),
}  # fmt: skip


@pytest.mark.parametrize("id", WINDOWS)
def test_a_claim_looks_at_its_stretch_of_the_axis_and_nowhere_else(id):
    """A test moves a number of the claim if and only if it lies in there."""
    low, high = WINDOWS[id]
    drawn = reference.curves(CLAIMS[id].panel)
    end = high + 0.3 * (high - low)
    flat = {q: {label: line(label, [(0, 1), (end, 1)], 131) for label in series} for q, series in drawn.items()}
    x = next(iter(next(iter(flat.values())).values())).x

    def numbers(i: int) -> dict[str, float]:
        """Of the claim, with test i of every curve raised."""
        raised = 1 + 0.01 * (np.arange(len(x)) == i)
        data = {q: {label: replace(c, mean=raised) for label, c in series.items()} for q, series in flat.items()}
        return judge([id], {CLAIMS[id].panel: data}, "paper")[0].numbers

    undisturbed = numbers(-1)
    assert undisturbed
    seen = {i for i in range(len(x)) if numbers(i) != undisturbed}
    inside = {i for i in range(len(x)) if low - 1e-9 * high <= x[i] <= high + 1e-9 * high}
    if id == "F03.1":  # the middle of a slope has no weight
        seen.add(round(float(np.mean(list(inside)))))
    assert seen == inside


BETTER = {  # every one of these rows is more accurate than every one of those
    "T1.1": (range(11, 16), range(16, 21)),  # learning rates that cycle, and constant ones
    "T2.1": ((7,), range(1, 5)),
    "T2.2": ((14,), (10,)),
    "T2.3": ((17,), (15, 16)),
    "T2.4": (range(24, 27), range(21, 24)),
}


@pytest.mark.parametrize("id", BETTER)
def test_each_row_that_a_claim_names_counts(id):
    """Held whatever the other rows say; one worse row among the better ones, or a better one among the worse, fails."""
    better, worse = BETTER[id]
    table = reference.table(CLAIMS[id].panel).assign(replicates=4, accuracy_std=0.1)
    for others in (0.0, 100.0):
        accuracy = dict.fromkeys(table["row"], others) | dict.fromkeys(better, 92.0) | dict.fromkeys(worse, 90.0)
        for change, expected in (
            [({}, "held")] + [({n: 89.0}, "failed") for n in better] + [({n: 93.0}, "failed") for n in worse]
        ):
            changed = table.assign(accuracy_percent=table["row"].map(accuracy | change))
            assert status(id, changed) == expected, change


@pytest.mark.parametrize("pair", [(11, 12), (13, 14), (14, 15), (16, 17), (18, 19), (19, 20)])
def test_each_order_within_resnet_56_counts_in_table_1(pair):
    """Neighbouring rows, in the claimed order before they are exchanged."""
    table = reference.table("table1").assign(replicates=4, accuracy_std=0.1)
    policy = (92.0, 88.0, 90.0, 91.0, 92.0)  # falling, rising, 0.85, 0.90 and 0.95
    order = {first + i: accuracy for first in (1, 6, 11, 16) for i, accuracy in enumerate(policy)}
    assert status("T1.2", table.assign(accuracy_percent=table["row"].map(order))) == "held"
    a, b = pair
    turned = order | {a: order[b], b: order[a]}
    assert status("T1.2", table.assign(accuracy_percent=table["row"].map(turned))) == "failed"


@pytest.mark.parametrize("until, place", [(0.59, 0.7), (0.605, 0.5)])
def test_diverged_is_what_stays_up_for_a_tenth_of_the_run(until, place):
    """The loss is up from 0.5 to ``until``, and from 0.7 for good."""
    x = np.linspace(0, 1, 1001)
    loss = np.where(((x > 0.4995) & (x < until)) | (x > 0.6995), 2.0, 1.0) - 0.1 * (np.arange(1001) == 300)
    run = Curve("run", x, loss, np.zeros_like(x), 1)
    assert diverges(PanelData("panel", {"test_loss": {"run": run}}), "run").value == pytest.approx(place)


def test_of_several_pairs_the_one_that_fails_by_most_is_told():
    low = [Number("a", 1.0), Number("b", 3.0)]
    high = [Number("c", 2.0), Number("d", 0.5)]
    assert each_below(low, high).numbers == {"b": 3.0, "d": 0.5}
    assert each_below(low[:1], [Number("e", 5.0), Number("c", 2.0)]).numbers == {"a": 1.0, "c": 2.0}


def test_a_curve_that_lacks_a_seventh_of_the_reports_is_missing():
    x = np.linspace(0, 0.85, 86)
    panel = PanelData("p", {"test_loss": {"a": Curve("a", x, x + 1, 0 * x, 1)}}, {"test_loss": {"a": (0.0, 1.0)}})
    assert "covers" in final(panel, "a").missing


def test_a_minimums_place_is_as_uncertain_as_its_flatter_side():
    x, mean = np.arange(8.0), np.array([2.0, 1.1, 1.1, 1.1, 1.0, 1.1, 2.0, 2.0])
    panel = PanelData("p", {"test_loss": {"a": Curve("a", x, mean, np.full(8, 0.2), 2)}})
    assert argmin(panel, "a").std == 3


@pytest.mark.parametrize(
    ("first", "second", "std", "said"),
    [
        (0.72304, 0.737944, 0.01476, "a = 0.723 < b = 0.7379 (d = 0.0148)"),  # d = 0.015 would say the opposite
        (0.72304, 0.737744, 0.01476, "a = 0.723 is within d of b = 0.7377 (d = 0.015)"),
        (0.7, 0.8, 0.01476, "a = 0.7 < b = 0.8 (d = 0.015)"),
        (0.7998, 0.7, 0.0996, "a = 0.7998 > b = 0.7 (d = 0.0996)"),
    ],
)
def test_the_noise_that_is_printed_decides_as_the_noise_does(first, second, std, said):
    assert less(Number("a", first, std, 2), Number("b", second, std, 2)).text == said
