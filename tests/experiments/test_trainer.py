"""The trainer: resumable to the byte, measured as the author measured, divergence recorded."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from small_runs import CPU

import models
from experiments import step, trainer, training
from experiments.divergence import LOSS_CEILING, divergence
from experiments.errors import UserError
from experiments.progress import Stopped
from experiments.settings import Start
from experiments.step import How
from experiments.store import COLUMNS, Run
from experiments.trainer import Trainer
from experiments.training import train


def metrics_bytes(run: Run) -> bytes:
    return (run.folder / "metrics.csv").read_bytes()


@pytest.fixture
def undisturbed(tmp_path, tiny, shapes):
    settings = replace(tiny, dataset=replace(tiny.dataset, mirror=True, order="reshuffled"))
    run = Run(tmp_path / "undisturbed", settings)
    with run.claim():
        train(run, shapes(settings), CPU)
    return run


def test_rows_are_taken_at_every_test_interval(undisturbed):
    rows = undisturbed.metrics()
    assert tuple(rows.columns) == COLUMNS
    assert rows["iteration"].tolist() == [0, 6, 12, 18, 24]
    assert rows["test_loss"].notna().tolist() == [False, True, True, True, True]  # none at 0, as in the author's runs
    assert rows["train_loss"].notna().tolist() == [True, True, True, True, False]
    assert undisturbed.summary()["diverged_at"] is None


@pytest.mark.parametrize("stops", [[0], [5], [6], [11, 12, 13], [23]])
def test_a_run_that_was_stopped_writes_the_same_bytes(tmp_path, undisturbed, shapes, stops):
    settings = undisturbed.settings
    run = Run(tmp_path / "stopped", settings)
    for stop in stops:
        at = []
        with run.claim(), pytest.raises(Stopped):
            train(
                run,
                shapes(settings),
                CPU,
                progress=lambda p, at=at: at.append(p.iteration),
                stop=lambda at=at, s=stop: at[-1] >= s,
            )
        assert run.started()
        assert not run.done()
        torch.manual_seed(999)  # what another program would do between
    with run.claim():
        train(run, shapes(settings), CPU)
    assert metrics_bytes(run) == metrics_bytes(undisturbed)


def test_a_killed_run_goes_on_from_between_its_tests(tmp_path, undisturbed, shapes):
    """One interval between tests may be minutes of work."""

    def die(p):
        if p.iteration == 9:
            raise RuntimeError("killed")

    run = Run(tmp_path / "killed", undisturbed.settings)
    with run.claim(), pytest.raises(RuntimeError, match="killed"):
        train(run, shapes(run.settings), CPU, progress=die, checkpoint_seconds=0)
    assert run.load_checkpoint()[0]["iteration"] == 9
    with run.claim():
        train(run, shapes(run.settings), CPU)
    assert metrics_bytes(run) == metrics_bytes(undisturbed)


def test_slow_checkpoints_become_rarer(tmp_path, undisturbed, shapes, monkeypatch):
    """At most a twentieth of a run's time goes into them, however large the state and slow the disk."""
    now, saves = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def save(self, state):
        saves.append(state["iteration"])
        now[0] += cost

    def second(_):
        now[0] += 1.0

    monkeypatch.setattr(Run, "save_checkpoint", save)
    for cost, expected in ((0.0, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]), (0.5, [2, 12, 22])):
        run = Run(tmp_path / str(cost), undisturbed.settings)
        saves.clear()
        with run.claim():
            train(run, shapes(run.settings), CPU, progress=second, checkpoint_seconds=2.0)
        assert saves == expected


def test_a_way_to_run_steps_that_fails_gives_way_to_a_simpler_one(tmp_path, undisturbed, shapes, monkeypatch):
    """Also where a run goes on from a checkpoint: the second trainer begins in the same state."""
    settings, run, at, said = undisturbed.settings, Run(tmp_path / "simpler", undisturbed.settings), [], []
    with run.claim(), pytest.raises(Stopped):
        train(run, shapes(settings), CPU, progress=at.append, stop=lambda: at[-1].iteration >= 8)

    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nnor a second line")

    monkeypatch.setattr(step, "BACKEND", broken)
    monkeypatch.setattr(trainer, "choose", lambda *_: How(compiled=True))
    with run.claim():
        train(run, shapes(settings), CPU, say=said.append)
    assert metrics_bytes(run) == metrics_bytes(undisturbed)
    (sentence,) = said
    assert sentence.startswith("step=compile fails here (")
    assert "no compiler here): the run goes on with step=eager" in sentence


def test_an_update_that_cannot_be_recorded_gives_way_too(tmp_path, undisturbed, shapes, monkeypatch):
    run, said = Run(tmp_path / "update", undisturbed.settings), []

    def prepare(self):
        if self.how.compiled:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step, "BACKEND", "eager")
    monkeypatch.setattr(Trainer, "prepare", prepare)
    monkeypatch.setattr(trainer, "choose", lambda *_: How(compiled=True))
    with run.claim():
        train(run, shapes(run.settings), CPU, say=said.append)
    assert metrics_bytes(run) == metrics_bytes(undisturbed)
    assert "the run goes on with step=eager" in said[0]


@pytest.mark.parametrize(("how", "error"), [("compile", RuntimeError), ("auto", torch.OutOfMemoryError)])
def test_what_was_asked_for_or_memory_gives_way_to_nothing(tmp_path, tiny, shapes, monkeypatch, how, error):
    def fail(self, t):
        raise error("full")

    monkeypatch.setattr(Trainer, "step", fail)
    monkeypatch.setattr(trainer, "choose", lambda *_: How(compiled=True))
    run = Run(tmp_path, tiny)
    with run.claim(), pytest.raises(error, match="full"):
        train(run, shapes(tiny), CPU, how=how)


def test_a_damaged_checkpoint_costs_time_but_not_the_result(tmp_path, undisturbed, shapes):
    settings = undisturbed.settings
    run = Run(tmp_path / "damaged", settings)
    for limit in (8, 16):
        count = []
        with run.claim(), pytest.raises(Stopped):
            train(run, shapes(settings), CPU, progress=count.append, stop=lambda c=count, n=limit: c[-1].iteration >= n)
    raw = (run.folder / "checkpoint").read_bytes()
    (run.folder / "checkpoint").write_bytes(raw[:-100])
    said = []
    with run.claim():
        train(run, shapes(settings), CPU, say=said.append)
    assert any("damaged" in line for line in said)
    assert metrics_bytes(run) == metrics_bytes(undisturbed)


def test_the_first_row_is_one_batch_of_gpu_0_before_any_update(undisturbed, shapes):
    settings = undisturbed.settings
    trainer = Trainer(settings, shapes(settings), CPU)
    images, labels = trainer.batches(0)
    n = settings.batch.per_gpu
    logits = trainer.net(images)
    row = undisturbed.metrics().iloc[0]
    assert row["train_loss"] == pytest.approx(F.cross_entropy(logits[:n], labels[:n]).item(), rel=1e-5)
    F.cross_entropy(logits, labels).backward()
    norm = torch.stack([p.grad.norm() for p in trainer.net.parameters()]).norm().item()
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert row["train_loss"] == pytest.approx(2.3026, abs=0.01), "ln 10 with the report's gaussian fillers"


def test_the_gradient_is_the_mean_over_virtual_gpus(tiny, shapes):
    trainer = Trainer(tiny, shapes(tiny), CPU)
    images, labels = trainer.batches(0)
    trainer.forward_backward(images, labels)
    whole = [p.grad.clone() for p in trainer.net.parameters()]
    trainer.optimizer.zero_grad()
    n, gpus = tiny.batch.per_gpu, tiny.batch.gpus
    for g in range(gpus):
        part = slice(g * n, (g + 1) * n)
        (F.cross_entropy(trainer.net(images[part]), labels[part]) / gpus).backward()
    for a, p in zip(whole, trainer.net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("network", "depth", "width"), [("cifar3", None, None), ("resnet56", 1, None), ("densenet40", 2, 4)]
)
def test_one_virtual_gpu_at_a_time_is_the_same_run(tiny, shapes, network, depth, width):
    """Dropout included: a virtual GPU drops the same in either."""
    model = replace(tiny.model, name=network, depth=depth, width=width)
    settings = replace(tiny, model=model, batch=replace(tiny.batch, gpus=4), lr=replace(tiny.lr, base=0.01))
    nets = []
    for at_a_time in (False, True):
        trainer = Trainer(settings, shapes(settings), CPU)
        trainer.one_gpu_at_a_time = at_a_time
        for t in range(10):
            trainer.step(t)
            trainer.optimizer.step()
        nets.append(trainer.net.state_dict())
    for name, value in nets[0].items():
        torch.testing.assert_close(value, nets[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_changes_with_the_iteration_and_the_virtual_gpu_and_with_nothing_else(tiny, shapes):
    settings = replace(tiny, model=replace(tiny.model, name="densenet40", depth=1, width=4))
    trainer = Trainer(settings, shapes(settings), CPU)
    (layer, *_) = (m for m in trainer.net.modules() if isinstance(m, torch.nn.Dropout))
    ones = torch.ones(6, 4, 8, 8)

    def dropped(t, draws=1):
        trainer.seed_dropout(t)
        return [layer(ones) for _ in range(draws)]

    first, second = dropped(3, draws=2)
    assert set(first.unique().tolist()) == {0.0, 1.25}
    assert 0.75 < (first > 0).float().mean() < 0.85
    assert not torch.equal(first, second)
    assert not torch.equal(first[:3], first[3:]), "two virtual GPUs"
    assert not torch.equal(first, dropped(4)[0])
    torch.manual_seed(999)
    assert torch.equal(first, dropped(3)[0])
    models.select_gpu(trainer.net, 1)
    assert torch.equal(layer.eval()(ones), ones)
    layer.train()
    trainer.seed_dropout(3)
    assert torch.equal(layer(ones[3:]), first[3:])


def test_the_test_is_the_mean_over_all_test_images(tiny, shapes):
    data = shapes(tiny)
    trainer = Trainer(tiny, data, CPU)
    trainer.tests.piece = 7
    loss, accuracy = trainer.test()
    images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() - trainer.batches.mean
    with torch.no_grad():
        logits = trainer.net.eval()(images)
    labels = torch.from_numpy(data.test.labels)
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_divergence_is_recorded_and_not_a_crash(tmp_path, tiny, shapes):
    settings = replace(tiny, lr=replace(tiny.lr, base=1e6))
    run, said = Run(tmp_path, settings), []
    with run.claim():
        summary = train(run, shapes(settings), CPU, say=said.append)
    assert summary["diverged_at"] == 6
    assert "diverged by iteration 6" in said[0]
    rows = run.metrics()
    assert rows["iteration"].tolist() == [0, 6, 12, 18, 24]
    assert rows["test_loss"].dropna().tolist() == pytest.approx([LOSS_CEILING] * 4)
    assert pd.api.types.is_float_dtype(rows["test_accuracy"])


def test_a_network_that_recovers_has_not_diverged():
    losses = [LOSS_CEILING, 1.0, LOSS_CEILING, LOSS_CEILING]
    rows = [{"iteration": 0}, *({"iteration": i, "test_loss": loss} for i, loss in enumerate(losses, 1))]
    assert divergence(rows) == 3
    assert divergence(rows[:3]) is None
    assert divergence(rows[:1]) is None


def test_the_unmodified_solver_records_a_momentum_that_it_does_not_apply(tmp_path, tiny, shapes):
    def rows_of(name, kind, **momentum):
        solver = replace(tiny.solver, type=kind)
        settings = replace(tiny, solver=solver, momentum=replace(tiny.momentum, **momentum))
        run = Run(tmp_path / name, settings)
        with run.claim():
            train(run, shapes(settings), CPU)
        return run.metrics()

    falling = {"policy": "linear", "base": 0.95, "peak": 0.8}
    applied, recorded = rows_of("a", "nesterov", **falling), rows_of("b", "nesterov_unmodified", **falling)
    constant = rows_of("c", "nesterov", policy="constant", base=0.95, peak=None)
    assert recorded["momentum"].tolist() == applied["momentum"].tolist() != constant["momentum"].tolist()
    assert recorded.drop(columns="momentum").equals(constant.drop(columns="momentum"))
    assert not recorded["test_loss"].equals(applied["test_loss"])


def test_it_learns(tmp_path, tiny, shapes):
    dataset = replace(tiny.dataset, size=16, train_images=200)
    batch = replace(tiny.batch, per_gpu=16)
    settings = replace(tiny, dataset=dataset, batch=batch, iterations=300, test_interval=100)
    run = Run(tmp_path, settings)
    with run.claim():
        train(run, shapes(settings), CPU)
    rows = run.metrics()
    assert rows["train_loss"].dropna().iloc[-1] < 1.5, "200 images should be half learnt after 48 epochs"
    assert rows["test_accuracy"].iloc[-1] > 0.15, "chance is 0.1"


def test_bf16_trains_close_to_fp32(tmp_path, tiny, shapes):
    losses = []
    for precision in ("fp32", "bf16"):
        run = Run(tmp_path, replace(tiny, precision=precision))
        with run.claim():
            losses.append(train(run, shapes(tiny), CPU)["final_test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_a_seed_fixes_the_weights_and_a_replicates_own_differ(tiny, shapes):
    first, again = (Trainer(tiny, shapes(tiny), CPU).net.state_dict() for _ in range(2))
    other = Trainer(replace(tiny, seed=1), shapes(tiny), CPU).net.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_child_goes_on_where_the_snapshot_was_taken(tmp_path, undisturbed, shapes):
    """With the parent's own settings a child must repeat the parent's later rows to the bit."""
    settings = undisturbed.settings
    parent = Run(tmp_path, settings)
    with parent.claim():
        train(parent, shapes(settings), CPU, snapshots=(12,))
    assert metrics_bytes(parent) == metrics_bytes(undisturbed), "taking a snapshot must change nothing"
    child = Run(tmp_path, replace(settings, start=Start(parent.hash, 12)))
    assert child.hash != parent.hash
    with child.claim():
        train(child, shapes(settings), CPU)
    mine, theirs = child.metrics(), parent.metrics()
    assert mine["iteration"].tolist() == [12, 18, 24]
    summary = child.summary()
    trained = summary["images_per_second"] * summary["seconds"]
    assert trained == pytest.approx(12 * settings.batch.total, rel=0.2), "the parent's images are not the child's"
    later = theirs[theirs["iteration"] > 12].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine.iloc[1:].reset_index(drop=True), later)
    other = Run(tmp_path, replace(child.settings, solver=replace(settings.solver, weight_decay=1e-2)))
    with other.claim():
        train(other, shapes(settings), CPU)
    assert other.metrics()["test_loss"].iloc[-1] != mine["test_loss"].iloc[-1]


def test_a_run_that_is_past_a_snapshot_it_never_took_starts_anew(tmp_path, undisturbed, shapes):
    settings, at = undisturbed.settings, []
    run = Run(tmp_path, settings)
    with run.claim(), pytest.raises(Stopped):
        train(run, shapes(settings), CPU, progress=at.append, stop=lambda: at[-1].iteration >= 13)
    assert run.started() and not run.snapshot(12).exists()
    with run.claim():
        train(run, shapes(settings), CPU, snapshots=(12,))
    assert run.snapshot(12).is_file()
    assert metrics_bytes(run) == metrics_bytes(undisturbed)


def test_a_finished_run_is_trained_again_only_up_to_the_snapshot_it_lacks(tmp_path, undisturbed, shapes):
    """In two goes here, the first ended by a signal; what was finished stays, and the state is that of its training."""
    settings, at = undisturbed.settings, []
    whole, run = (Run(tmp_path / name, settings) for name in ("whole", "finished"))
    with whole.claim():
        train(whole, shapes(settings), CPU, snapshots=(12,))
    with run.claim():
        train(run, shapes(settings), CPU)
        before = {p: p.read_bytes() for p in run.folder.iterdir() if p.suffix in (".json", ".csv", ".yaml")}
        with pytest.raises(Stopped):
            train(run, shapes(settings), CPU, snapshots=(12,), progress=at.append, stop=lambda: len(at) == 8)
        assert run.started() and run.done() and not run.snapshot(12).exists()
        train(run, shapes(settings), CPU, snapshots=(12,), progress=at.append)
    assert [p.iteration for p in at] == list(range(13))
    assert run.snapshot(12).read_bytes() == whole.snapshot(12).read_bytes()
    assert {p: p.read_bytes() for p in before} == before and not run.started()


def test_a_missing_snapshot_is_one_sentence(tmp_path, tiny, shapes):
    orphan = Run(tmp_path, replace(tiny, start=Start("0123456789ab", 6)))
    with orphan.claim(), pytest.raises(UserError, match="snapshot-6, which this run starts from, is missing"):
        train(orphan, shapes(tiny), CPU)
