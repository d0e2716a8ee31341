"""Settings: what is refused and how it is said, what the hash depends on, the report's arithmetic."""

from dataclasses import asdict, replace

import pytest

from experiments.compose import SCALES, load, names, scale_of, settings_for
from experiments.curves import described
from experiments.errors import UserError
from experiments.settings import from_dict, paths

FIG09 = load("figure", "fig09")


def fig09(scale="paper", replicate=0, curve="wd_1e-3", **overrides):
    return settings_for(FIG09, curve, replicate, scale, overrides)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("figure", names("figure"))
def test_every_run_of_every_figure_composes(figure, scale):
    spec = load("figure", figure)
    hashes = {
        (curve, replicate): settings_for(spec, curve, replicate, scale).hash()
        for curve in spec["curves"]
        for replicate in range(scale_of(spec, scale)["replicates"])
    }
    curves = spec["curves"]
    alike = {curve for curve in curves if described(curve) in curves}  # their schedules of momentum are not applied
    for found in set(hashes.values()):
        sharing = [curve for (curve, _), one in hashes.items() if one == found]
        own = [curve for curve in sharing if "instead_of" not in curves[curve]]
        assert len([curve for curve in own if curve not in alike]) <= 1, (
            "two curves of one figure have the same settings"
        )
        assert len(own) <= 1 or figure == "table1"
        assert len([curve for curve in sharing if curve not in [*own, *alike]]) <= 1, (
            "two readings have the same settings"
        )
    for (curve, replicate), found in hashes.items():  # another reading may be a further curve's run
        assert found != hashes.get((curves[curve].get("instead_of"), replicate))


def test_replicates_beyond_the_scales_begin_again_with_other_seeds():
    runs = [settings_for(FIG09, "wd_1e-3", replicate, "paper", replicates=6) for replicate in range(6)]
    assert [run.batch.per_gpu for run in runs] == [131, 130, 129, 128, 131, 130]
    assert [run.model.init for run in runs] == ["xavier", "msra"] * 3
    assert [run.seed for run in runs] == list(range(6))
    assert runs[:4] == [fig09(replicate=replicate) for replicate in range(4)]
    with pytest.raises(UserError, match="replicate=1: replicates=1 means the one replicate 0"):
        settings_for(FIG09, "wd_1e-3", 1, "paper", replicates=1)


def test_figure_9_is_the_reports():
    runs = [fig09(replicate=r) for r in range(4)]
    assert [r.batch.per_gpu for r in runs] == [131, 130, 129, 128]
    assert [r.model.init for r in runs] == ["xavier", "msra", "xavier", "msra"]
    assert len({r.seed for r in runs}) == 4
    run = runs[3]
    assert run.batch.total == 512
    assert (run.iterations, run.test_interval) == (16000, 200)
    assert not run.dataset.mirror
    assert run.dataset.order == "fixed"
    assert run.solver.type == "nesterov"
    lr = run.lr_array()
    # x4.sh: drops by 0.316 at 1/2, 3/4, 7/8 and twice at 15/16 of the run
    assert [round(lr[t] / 0.005, 6) for t in (7999, 8000, 12000, 14000, 15000, 15001)] == [
        pytest.approx(0.316**n, abs=1e-6) for n in (0, 1, 2, 3, 4, 5)
    ]
    assert set(run.momentum_array()) == {0.95}
    assert {fig09(curve=c).solver.weight_decay for c in FIG09["curves"]} == {1e-3, 1.8e-3, 3.2e-3, 1e-2}


def test_quick_divides_the_schedule_and_nothing_else():
    paper, quick = fig09(replicate=3), fig09("quick")
    divide = scale_of(FIG09, "quick")["divide"]
    assert quick.iterations * divide == paper.iterations
    assert list(quick.lr_array()[:-2]) == pytest.approx(
        list(paper.lr_array()[: -1 - divide : divide])[: len(quick.lr_array()) - 2]
    )
    assert (quick.model.name, quick.solver, quick.dataset.name) == (paper.model.name, paper.solver, "cifar10")


def test_hash_depends_on_every_setting_and_on_nothing_else():
    base = fig09("smoke")
    assert base.hash() == fig09("smoke").hash() == from_dict(asdict(base)).hash()
    changed = [
        {"seed": 1},
        {"iterations": 2000, "test_interval": 50},
        {"solver": {"weight_decay": 2e-3}},
        {"dataset": {"fingerprint": "0123"}},
        {"dataset": {"mirror": True}},
        {"precision": "bf16"},
        {"model": {"width": 16}},
        {"model": {"test_statistics": "running"}},
    ]
    hashes = {fig09("smoke", **change).hash() for change in changed}
    assert len(hashes) == len(changed)
    assert base.hash() not in hashes


def test_runs_keep_the_names_they_had_before_a_setting_was_added():
    """results/summary/runs.csv names figure 7's momentum 0.9 so, from before model.test_statistics."""
    data = {"dataset": {"fingerprint": "73567fbbd21f7553"}}
    run = settings_for(load("figure", "fig07"), "mom_0.9", 0, "paper", data)
    assert run.model.test_statistics is None
    assert run.hash() == "ce0fe83f750d"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"solver": {"weight_decay": -1e-3}}, ["solver.weight_decay=-0.001", "0 up"]),
        ({"solver": {"weight_decay": float("nan")}}, ["solver.weight_decay=nan"]),
        ({"solver": {"type": "nestrov"}}, ["solver.type=nestrov", "'nesterov'"]),
        ({"batch": {"per_gpu": 50000}}, ["200000 images", "larger than the training set of 50000"]),
        ({"batch": {"per_gpu": 0}}, ["batch.per_gpu=0"]),
        ({"iterations": 0}, ["iterations=0"]),
        ({"solver": {"weight_decay": 10**400}}, ["solver.weight_decay: a number that 64 bits can hold"]),
        ({"iterations": "many"}, ["iterations=many: a whole number"]),
        ({"test_interval": 20000}, ["test_interval=20000", "nothing would be measured"]),
        ({"start": {"iteration": 100}}, ["start.run=(none) and start.iteration=100", "from: {curve:"]),
        ({"start": {"run": "0123456789ab"}}, ["start.run=0123456789ab and start.iteration=0"]),
        (
            {"test_interval": 300, "start": {"run": "0123456789ab", "iteration": 15900}},
            ["after iteration 15900", "nothing would be measured"],
        ),
        ({"lr": {"base": -0.1}}, ["learning rate schedule"]),
        ({"lr": {"policy": "1cycle", "peak": 0.1, "stepsize": 20000}}, ["stepsize 20000", "16000"]),
        ({"lr": {"policy": "1cycl"}}, ["lr.policy=1cycl", "'1cycle'"]),
        ({"momentum": {"base": 1.5}}, ["momentum schedule", "1.5"]),
        ({"solver": {"wight_decay": 1}}, ["'solver.wight_decay'", "'solver.weight_decay'"]),
        ({"dataset": {"name": "cifr10"}}, ["cifr10", "'cifar10'"]),
        ({"precision": "fp8"}, ["precision=fp8"]),
        ({"schedule_length": 10**12}, ["schedule_length=1000000000000", "to 100,000,000"]),
        ({"model": {"bn_fraction": float("nan")}}, ["model.bn_fraction=nan", "0 to 1"]),
        ({"model": {"width": 10**6}}, ["model.width=1000000", "1 to 4,096"]),
        ({"model": {"init": "msra"}}, ["model.init=msra would change nothing", "cifar3", "seed=N"]),
    ],
)
def test_impossible_settings_are_refused_in_words(change, words):
    with pytest.raises(UserError) as refusal:
        fig09(**change)
    for word in words:
        assert word in str(refusal.value)


def test_initial_weights_can_be_chosen_where_the_network_leaves_them_open():
    assert fig09(model={"name": "resnet56", "init": "xavier"}).model.init == "xavier"


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: load("figure", "fig99"), "fig09"),
        (lambda: fig09("smok"), "smoke"),
        (lambda: fig09(curve="wd_1e3"), "wd_1e-3"),
        (lambda: fig09("smoke", replicate=1), "the one replicate 0"),
        (lambda: fig09("paper", replicate=4), "replicates 0 to 3"),
    ],
)
def test_unknown_names_come_with_the_nearest(call, nearest):
    with pytest.raises(UserError, match=nearest):
        call()


def test_a_number_is_no_name_of_a_network_or_data_set():
    for group in ("model", "dataset"):
        with pytest.raises(UserError, match=f"There is no {group} '5'"):
            fig09(**{group: {"name": 5}})


def test_a_number_is_no_list():
    with pytest.raises(UserError, match=r"lr\.stepvalues: a list of whole numbers is expected, as \[5000,8000\]"):
        fig09(lr={"stepvalues": 5})


def test_a_range_test_ends_at_its_peak():
    run = fig09(lr={"policy": "range", "base": 0.001, "peak": 0.01}, momentum={"policy": "linear", "peak": 0.8})
    assert (run.lr_array()[0], run.lr_array()[-1]) == (0.001, 0.01)
    assert run.momentum_array()[-1] == 0.8
    assert len(run.lr_array()) == len(run.momentum_array()) == run.iterations + 1


def test_a_run_may_be_the_beginning_of_a_longer_schedule():
    lr = {"policy": "1cycle", "base": 0.05, "peak": 1.0, "stepsize": 12000}
    whole = fig09(lr=lr, iterations=32000, schedule_length=None)
    part = fig09(lr=lr, schedule_length=32000)
    assert list(part.lr_array()) == list(whole.lr_array()[:16001])
    assert len(part.momentum_array()) == 16001
    with pytest.raises(UserError, match="schedule_length=9"):
        fig09(schedule_length=9)


def test_paths_name_every_setting():
    assert {"iterations", "solver.weight_decay", "batch.gpus", "dataset.order", "momentum.stepsize"} <= set(paths())


def test_the_last_row_of_a_range_test_with_drops_has_all_of_them(tiny):
    lr = replace(tiny.lr, policy="range", base=0.0, peak=1.0, drops=[8, 16], drop_gamma=0.1)
    assert replace(tiny, lr=lr).lr_array()[-1] == pytest.approx(0.01)
