"""The report's numbers as this package hands them out."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.errors import UserError
from reproduce import reference
from reproduce.axes import limits
from reproduce.series import Curve, moving_mean

# Rows per series that are samples, in legend order: the digitiser's counts less the crossings of the frame it lists.
SAMPLES = {
    "fig01a": [133, 133, 133],
    "fig01b": [395],
    "fig03b": [198, 199],
    "fig06b": [28, 44, 67, 91],
    "fig07a": [34, 49, 25],
    "fig07c": [33, 39, 28, 29],
    "fig09a": [80, 80, 80, 80],
    "fig10b": [39, 39, 39, 39],
    "fig11b": [47, 53, 53, 37],
    "fig12b": [8, 11, 18],
    "fig13a": [36, 47, 47],
    "fig14a": [41, 58],
    "fig14b": [25, 33, 44, 26],
    "fig15a": [22, 20, 20],
    "fig15b": [166, 97, 70],
}


@pytest.mark.parametrize("panel", SAMPLES)
def test_crossings_are_left_out(panel):
    curves = reference.load(panel)
    assert [len(x) for x, _ in curves.values()] == SAMPLES[panel]
    assert tuple(curves) == reference.axes(panel).series


@pytest.mark.parametrize("panel", [p for p in reference.panels() if p not in ("fig02", "fig16a", "fig16b")])
def test_samples_lie_on_one_grid(panel):
    for label, (x, y) in reference.load(panel).items():
        steps = np.diff(x) / np.median(np.diff(x))
        np.testing.assert_allclose(steps, np.round(steps), atol=0.004, err_msg=label)
        assert (np.round(steps) >= 1).all()
        assert np.isfinite(y).all()


def power_at_three_tests(y):
    """The power of a series at a period of three samples, relative to its median over periods of two to ten."""
    bent = np.diff(y, 2)
    frequency, place = np.arange(0.1, 0.5, 0.004), np.arange(len(bent))
    waves = np.exp(-2j * np.pi * frequency[:, None] * place) @ (np.hanning(len(bent)) * bent)
    power = np.abs(waves) ** 2 / (2 - 2 * np.cos(2 * np.pi * frequency)) ** 2  # as before taking differences
    return power[np.abs(frequency - 1 / 3) < 0.02].mean() / np.median(power)


def undone(y):
    """The series of which `y` is the moving mean of three, the ends of two; None where there is more than one."""
    mean = np.clip(1 - np.abs(np.subtract.outer(range(len(y)), range(len(y)))) // 2, 0, 1).astype(float)
    mean /= mean.sum(axis=1, keepdims=True)
    return np.linalg.solve(mean, y) if len(y) % 3 != 2 else None


def test_1a_is_1b_averaged_over_seven_and_counted_from_one():
    """Its test loss less its training loss is 1b; other widths and places leave more."""
    (test, train), (x, error) = (
        (reference.load("fig01a", corrected=False)[name] for name in ("Test loss", "Train loss")),
        reference.load("fig01b")["Generalization error"],
    )
    place, drawn = test[0] / 0.4 * 80_000, test[1] - train[1]

    def left(width, shift):
        mean = moving_mean(Curve("1b", x, error, np.zeros_like(x), 1), width).mean
        inside = (place > 4_000) & (place < 76_000)
        return np.sqrt(np.mean((drawn - np.interp(place + shift, x, mean))[inside] ** 2))

    best = left(7, -200)
    assert best < 0.009
    assert all(left(width, -200) > 1.4 * best for width in (1, 3, 5, 9, 11))
    assert left(7, 0) > 1.4 * best < left(7, -400)


LONG = [p for p in reference.panels() if p != "fig01a" and any(len(x) >= 24 for x, _ in reference.load(p).values())]
"""1a has a sample of every third test only."""


@pytest.mark.parametrize("panel", LONG)
def test_the_noise_tells_which_panels_are_moving_means(panel):
    series = [y for x, y in reference.load(panel).values() if len(x) >= 24]
    power = [power_at_three_tests(np.log(y) if (y > 0).all() else y) for y in series]
    if panel == "fig14a":
        with_one_end = undone(reference.load(panel)["Momentum=0.95 - 0.8"][1])
        assert with_one_end.min() < 0
        return
    mean = np.exp(np.mean(np.log(power)))
    assert mean < 0.2 if panel in reference.SMOOTHED else mean > 0.5


@pytest.mark.parametrize("panel", ["fig03a", "fig04a", "fig07d", "fig08a", "fig10a"])
def test_moving_means_undone_are_tests_up_to_the_ends(panel):
    """They fall from the first test on and do not jump at either end. Undone, a series that is none goes below zero."""
    for y in (y for label, (_, y) in reference.load(panel).items() if "Accuracy" not in label):
        tests = undone(y)
        assert (np.diff(tests[:4]) < 0).all()
        jumps = np.abs(np.diff(np.log(tests), 2))
        assert np.median(jumps[:3]) < 0.25 and np.median(jumps[-3:]) < 0.25
        again = reference.as_drawn(panel, Curve("ours", np.arange(len(y)), tests, np.zeros(len(y)), 1), divide=1)
        np.testing.assert_allclose(again.mean, y, rtol=1e-9)
    for y in (y for _, y in reference.load("fig13c").values()):
        assert undone(y).min() < 0


def test_only_runs_of_the_reports_length_are_averaged_as_its_panels_are():
    curve = Curve("ours", np.arange(4.0), np.array([4.0, 1.0, 1.0, 10.0]), np.zeros(4), 1)
    assert reference.as_drawn("fig09a", curve, divide=1).mean.tolist() == [2.5, 2.0, 4.0, 5.5]
    assert reference.as_drawn("fig09a", curve, divide=10) is curve
    assert reference.as_drawn("fig14b", curve, divide=1) is curve
    twice = moving_mean(moving_mean(curve, 3), 7)
    assert (reference.as_drawn("fig01a", curve, divide=1).mean == twice.mean).all()
    assert "averaged alike" in reference.note("fig09a") and "single tests" in reference.note("fig09a", 10)
    assert "moved" in reference.note("fig09a")


def test_the_sketch_has_no_numbers():
    assert reference.load("fig02") == {} == reference.curves("fig02")
    assert np.isnan(reference.axes("fig02").xlim[0])
    assert reference.axes("fig02").series == ()


def test_corrections():
    drawn, true = reference.load("fig09a", corrected=False), reference.load("fig09a")
    np.testing.assert_allclose(true["WD=1e-3"][0], drawn["WD=1e-3"][0] + 200)
    assert true["WD=1e-3"][0][[0, -1]].tolist() == [200, 16_000]
    last = {label: x[-1] for label, (x, _) in reference.load("fig15b").items()}
    assert list(last.values()) == [16_600, 9_700, 7_000]
    assert reference.axes("fig15b").xlim == (0, 17_500)
    assert reference.axes("fig15b", corrected=False).xlim[1] == 35_000
    assert reference.note("fig15b")
    assert reference.note("fig09a")
    assert reference.note("fig11b") is None
    assert "\n" not in reference.note("fig15b")
    np.testing.assert_array_equal(reference.load("fig10a")["WD=1e-3"], reference.load("fig10a", False)["WD=1e-3"])


@pytest.mark.parametrize(
    ("panel", "label", "name", "best", "drawn"),
    [
        ("fig06a", "TBS=512; CLR=0.08-0.8", "hp_resnet56_1cycle_tbs512_ep95", 0.0105, 0.017),
        ("fig15b", "TBS=1024, CLR=0.1-1.2", "hp_c100resnet56_1cycle_tbs1036_ep145", 0.0085, 0.05),
    ],
)
def test_corrected_samples_match_the_authors_logs(panel, label, name, best, drawn):
    """The oracle of the corrections: mean difference in accuracy to the log of one replicate."""
    log = reference.log(name).dropna(subset="test_accuracy")
    assert name in reference.logs_for(panel)

    def difference(corrected: bool) -> float:
        x, y = reference.load(panel, corrected)[label]
        return float(np.abs(np.interp(x, log["iteration"], log["test_accuracy"]) - y).mean())

    assert difference(True) < best < drawn < difference(False)


LAST_TESTS = {  # panel: tests drawn, iterations between them, length of the run, learning rates
    "fig12b": (19, 200, 3906, 0.08, 0.8),
    "fig13a": (48, 200, 9765, 0.1, 1.0),
    "fig13b": (48, 200, 9765, 0.1, 1.0),
    "fig13c": (48, 200, 9765, 0.1, 4.0),
    "fig13d": (48, 200, 9765, 0.1, 4.0),
    "fig14a": (58, 100, 5859, 0.001, 0.02),
    "fig14b": (58, 100, 5859, 0.01, 0.4),
    "fig15a": (24, 200, 4882, 0.1, 1.0),
}


@pytest.mark.parametrize("panel", LAST_TESTS)
def test_range_tests_drawn_up_to_the_largest_rate_are_put_where_they_were_taken(panel):
    """Test k was taken at iteration k x interval, whose learning rate the schedule says; it is drawn at k / tests."""
    tests, interval, iterations, base, peak = LAST_TESTS[panel]
    for label, (x, _) in reference.load(panel).items():
        drawn = reference.load(panel, corrected=False)[label][0]
        k = (drawn - base) / (peak - base) * tests
        np.testing.assert_allclose(k, np.round(k), atol=0.01, err_msg=label)
        np.testing.assert_allclose(x, base + (peak - base) * np.round(k) * interval / iterations, rtol=1e-3)
    assert reference.axes(panel) == reference.axes(panel, corrected=False)  # the frame stays as printed
    assert f"{tests * interval:,} of {iterations:,}" in reference.note(panel)


def test_range_tests_whose_last_test_has_the_largest_rate_stay_where_they_are_drawn():
    for panel in ("fig04a", "fig07a", "fig07c", "fig10a", "fig10b", "fig11b", "fig12a"):
        assert panel not in reference.CORRECTIONS


def test_3a_starts_at_a_trained_networks_loss():
    x, y = reference.load("fig03a")["LR=0.001"]
    assert x[0] == 200
    assert y[0] < np.log(10) - 0.5


def test_insets_repeat_the_main_curves():
    for panel in ("fig06a", "fig08b", "fig15b"):
        main = reference.load(panel)
        assert list(reference.inset(panel)) == list(main)
        for label, (x, y) in reference.inset(panel).items():
            np.testing.assert_allclose(np.interp(x, *main[label]), y, atol=3e-4, err_msg=f"{panel} {label}")
    assert reference.inset("fig09a") == {}


def test_exits():
    assert {k: v[0].tolist() for k, v in reference.exits("fig11b").items()} == {
        "WD=1e-4": [1.016703],
        "WD=3.2e-4": [0.8252041],
    }
    assert [len(x) for x, _ in reference.exits("fig15a").values()] == [1, 1, 3]
    assert reference.exits("fig09a") == {}


def test_a_curve_that_leaves_the_panel_goes_on_along_its_edge():
    curve = reference.curves("fig13a")["test_loss"]["WD=1e-3"]
    assert curve.x[-1] == pytest.approx(1.0, abs=0.02)
    assert (np.diff(curve.x) > 0).all()
    np.testing.assert_allclose(curve.mean[curve.x > 0.797], reference.axes("fig13a").ylim[1], rtol=1e-3)


def test_quantities():
    kinds = {panel: set(reference.curves(panel)) for panel in reference.panels() if panel != "fig02"}
    assert kinds["fig01a"] == {"test_loss", "train_loss", "test_accuracy"}
    assert kinds["fig01b"] == {"generalization_error"}
    assert kinds["fig07b"] == kinds["fig07d"] == {"test_loss", "test_accuracy"}
    accuracy = {"fig05a", "fig05b", "fig06a", "fig08b", "fig09b", "fig10b", "fig13b", "fig13c", "fig13d"}
    accuracy |= {"fig15b", "fig16a", "fig16b"}
    assert {p for p, k in kinds.items() if k == {"test_accuracy"}} == accuracy
    assert {p for p, k in kinds.items() if k == {"test_loss"}} == kinds.keys() - accuracy - {
        "fig01a", "fig01b", "fig07b", "fig07d",
    }  # fmt: skip


def test_tables_and_logs():
    table1, table2 = reference.table("table1"), reference.table("table2")
    assert len(table1) == 20
    assert len(table2) == 26
    assert table2.set_index("row").at[7, "accuracy_percent"] == 91.9
    assert table1.at[0, "weight_decay"] == "3e-3"  # settings stay as printed
    for panel in reference.PANEL_OF_LOG:
        for name, curve in reference.logs_for(panel).items():
            assert {"iteration", "lr", "test_loss"} <= set(reference.log(name))
            assert curve in reference.axes(panel).series
    assert reference.logs_for("fig09a") == {}
    assert reference.logs_for("fig01a") == {}  # the logs that are kept go to LR 2 in as many iterations


def test_unknown_names_say_what_there_is():
    for call in (reference.load, reference.axes, reference.exits):
        with pytest.raises(UserError, match=r"no panel 'fig17'.*fig01a"):
            call("fig17")
    with pytest.raises(UserError, match="table1 and table2"):
        reference.table("table3")
    with pytest.raises(UserError, match="hp_resnet50_step"):
        reference.log("nothing")


@pytest.mark.parametrize("panel", reference.PANEL_OF_LOG)
def test_a_log_belongs_to_the_curve_of_its_weight_decay(panel):
    """As it records it, or as its name has it (WD-5)."""
    for name, label in reference.PANEL_OF_LOG[panel].items():
        recorded = {f"{wd:g}" for wd in reference.log(name)["weight_decay"].dropna()}
        recorded |= {f"{10.0 ** -int(power):g}" for power in re.findall(r"WD-(\d)", name)}
        said = {f"{float(wd):g}" for wd in re.findall(r"(?:WD|Weight decay)=([\d.e-]+)", label)}
        assert not (recorded and said) or recorded == said


def test_drawing_and_judging_do_not_load_torch():
    code = "import sys, reproduce.command, reproduce.draw, reproduce.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def share_of_a_period(tests, images, start=5, stop=-5):
    """How much of the variance from test to test two harmonics explain of a period in the order of training images.

    images: how many of the 50,000 a test interval of 200 iterations goes through.
    """
    places = np.arange(len(tests))[start:stop]
    smooth = np.array([np.polyval(np.polyfit(np.arange(-5, 6), tests[i - 5 : i + 6], 3), 0) for i in places])
    rest, phase = tests[start:stop] - smooth, 2 * np.pi * images / 50_000 * places
    waves = np.stack([wave(k * phase) for k in (1, 2) for wave in (np.cos, np.sin)], axis=1)
    return 1 - np.var(rest - waves @ np.linalg.lstsq(waves, rest)[0]) / np.var(rest)


def test_the_order_of_training_images_shows_in_figure_3a():
    """Its curves repeat every five tests: the images came in a fixed order, and the total batch was not 512.

    Five test intervals are whole epochs for 400 (100 x 4 GPUs), 100 or 550, not for 512 or for the sizes that the
    author's script gives the replicates of 512. (512's own period, ten tests, would be smoothed away here.)
    """
    for _, drawn in reference.load("fig03a").values():
        tests = np.log(undone(drawn))
        up_to_the_drop = {"start": 30, "stop": 246}
        assert share_of_a_period(tests, 200 * 400, **up_to_the_drop) > 0.6
        for batch in (518, 520, 524, 536, 548):
            assert share_of_a_period(tests, 200 * batch, **up_to_the_drop) < 0.05


def test_figures_4a_and_7_repeat_as_3a_does():
    """7d not as its title's 536 would, and 7b, too short to have its moving mean undone, less as its title's 548."""
    tests = np.log(undone(reference.load("fig04a")["WD=1e-4"][1]))
    assert share_of_a_period(tests, 200 * 400) > 0.35 > 0.1 > share_of_a_period(tests, 200 * 524)
    for _, drawn in reference.load("fig07d").values():
        tests = np.log(undone(drawn))
        assert share_of_a_period(tests, 200 * 400) > 0.2 > 0.05 > share_of_a_period(tests, 200 * 536)
    for _, drawn in reference.load("fig07b").values():
        share = {batch: share_of_a_period(np.log(drawn), 200 * batch) for batch in (400, 512, 548)}
        assert share[400] > 0.65 > 0.55 > share[548] > share[512]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the report's numbers that a test may damage, read afresh."""
    shutil.copytree(reference.ROOT, tmp_path / "paper")
    caches = (reference._checksums, reference._manifest, reference._rows)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(reference, "ROOT", tmp_path / "paper")
    yield tmp_path / "paper"
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("curves/fig09a.csv", lambda: reference.load("fig09a")),
        ("curves/manifest.csv", lambda: reference.axes("fig09a")),
        ("tables/table1.csv", lambda: reference.table("table1")),
        ("logs/sc_lr35Fig1a.csv", lambda: reference.log("sc_lr35Fig1a")),
    ],
)
def test_nothing_is_compared_with_numbers_that_are_not_the_reports(copied, name, read, damage):
    read()
    for cache in (reference._manifest, reference._rows):
        cache.cache_clear()
    content = (copied / name).read_bytes()
    if damage == "missing":
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content[:300] if damage == "cut" else content.replace(b"0.", b"1.", 1))
    with pytest.raises(UserError, match=f"results/paper/{name} is missing, damaged or changed: .*git checkout"):
        read()


def test_every_file_of_numbers_has_a_checksum(copied):
    files = {str(path.relative_to(copied)) for path in copied.rglob("*.csv")}
    assert {path for path in files if "envelope" not in path} == set(reference._checksums())
    (copied / "SHA256SUMS").unlink()
    reference._checksums.cache_clear()
    with pytest.raises(UserError, match="SHA256SUMS is missing or damaged"):
        reference.load("fig09a")
    for damage in (b"0123\n", b"\xff\xfe\n"):
        (copied / "SHA256SUMS").write_bytes(damage)
        with pytest.raises(UserError, match="SHA256SUMS is missing or damaged .*git checkout"):
            reference.load("fig09a")


def test_a_curve_of_the_reports_does_not_lie_on_the_axis():
    """His logarithmic axes end at the lowest sample, where a thin line is not seen."""
    low, high = limits((0.5, 1.5), [], True, 0.501)
    assert low < 0.495 and high == 1.5
    assert limits((0.5, 1.5), [], True, 0.9) == limits((0.5, 1.5), [], False, 0.501) == (0.5, 1.5)


def test_a_single_test_far_above_its_curve_leaves_the_panel():
    level, spike = np.full(50, 2.0), np.append(np.full(49, 2.0), 14.0)
    curve = lambda mean: Curve("a", np.arange(50.0), mean, np.zeros(50), 1)  # noqa: E731
    assert limits((0.8, 1.8), [curve(spike), curve(level)], True)[1] == pytest.approx(2.1)
    high = limits((0.8, 1.8), [curve(7 * level), curve(level)], True)[1]
    assert high == pytest.approx(14.7), "one that is high throughout is shown"
    assert limits((0.8, 14.0), [curve(spike)], True)[1] >= 14, "as far as the report's panel goes"
