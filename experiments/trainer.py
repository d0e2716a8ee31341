"""The shared trainer: one loop for every network, figure and table.

Order within an iteration t, as in the author's solver: test (if due), forward and backward, display, update with
lr[t] and momentum[t]. Rows of metrics.csv are taken where tests are due; their train columns are one batch of
virtual GPU 0 before that iteration's update.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import models
from experiments.batches import Batches, TestSet
from experiments.data import ImageFolders, ImageSet
from experiments.distributed import ALONE, Share
from experiments.errors import UserError
from experiments.optimizer import CaffeSGD, grad_norm
from experiments.progress import Progress, Stopped
from experiments.settings import Settings
from experiments.store import Run, load_snapshot
from experiments.streams import StreamBatches, StreamTests

LOSS_CEILING = 87.33654475
"""-ln of the smallest normal float32: what Caffe reports for a sample whose probability is zero or not a number."""


def sample_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Caffe's softmax loss per sample, float32 [N]: never above `LOSS_CEILING`, which also stands for NaN."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return losses.nan_to_num(nan=LOSS_CEILING).clamp(max=LOSS_CEILING)


def divergence(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The iteration from which every test has Caffe's loss of a diverged network to the end, None where none has."""
    at = None
    for row in reversed(rows):
        loss = row.get("test_loss")
        if loss is None:
            continue
        if loss < LOSS_CEILING - 1e-3:
            break
        at = row["iteration"]
    return at


class Trainer:
    """A network with its batches, tests and optimizer on one device.

    settings: validated; data: as the settings say; device: where to train; share: the part of the virtual GPUs that
    this process hosts, in equal parts (`experiments.distributed`). `step` and `test` then wait for the other ranks.
    """

    def __init__(self, settings: Settings, data: ImageSet | ImageFolders, device: torch.device, share: Share = ALONE):
        self.settings, self.device, self.share = settings, device, share
        self.gpus = settings.batch.gpus // share.ranks
        d, m = settings.dataset, settings.model
        try:
            net = models.build(
                m.name,
                classes=d.classes,
                channels=d.channels,
                size=d.size,
                gpus=self.gpus,
                init=m.init,
                seed=settings.seed,
                depth=m.depth,
                width=m.width,
                bn_fraction=m.bn_fraction,
                border=m.border,
            )
        except ValueError as error:
            raise UserError(f"The network cannot be built: {error}.") from None
        self.net = net.to(device)  # channels_last already
        self.batches: Batches | StreamBatches
        self.tests: TestSet | StreamTests
        if isinstance(data, ImageFolders):
            self.batches = StreamBatches(settings, data, device, share)
            self.tests = StreamTests(settings, data, device, share)
        else:
            self.batches = Batches(settings, data, device, share)
            self.tests = TestSet(settings, data, self.batches.mean, share)
        self.lr, self.momentum = settings.lr_array(), settings.momentum_array()
        self.optimizer = CaffeSGD(
            models.multipliers(self.net),
            lr=torch.from_numpy(self.lr).float().to(device),
            momentum=torch.from_numpy(self.momentum).float().to(device),
            weight_decay=settings.solver.weight_decay,
            nesterov=settings.solver.type == "nesterov",
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
        # On a CPU 128 images stay in cache where 512 do not; below that the calls cost more than the cache gives.
        self.one_gpu_at_a_time = device.type == "cpu" and self.gpus * settings.batch.per_gpu > 128
        self.dropout = models.dropout_generators(self.net, device, self.gpus)

    def forward_backward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the loss averaged over the total batch. Returns logits and the losses of the samples.

        With one_gpu_at_a_time the virtual GPUs pass one after the other and their gradients add up: the same step.
        """
        self.net.train()
        pieces = self.gpus if self.one_gpu_at_a_time else 1
        logits, losses = [], []
        for gpu, (x, y) in enumerate(zip(images.chunk(pieces), labels.chunk(pieces), strict=True)):
            if pieces > 1:
                models.select_gpu(self.net, gpu)
            with self.autocast:
                out = self.net(x)
            loss = F.cross_entropy(out.float(), y, reduction="none")
            (loss.sum() / len(labels)).backward()
            logits.append(out.detach())
            losses.append(loss.detach())
        return torch.cat(logits), torch.cat(losses)

    def step(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Iteration t up to, not including, the update. Returns logits, losses of the samples and labels."""
        images, labels = self.batches(t)
        self.seed_dropout(t)
        self.optimizer.zero_grad()
        logits, losses = self.forward_backward(images, labels)
        self.share.average([w.grad for w in self.optimizer.weights])
        return logits, losses, labels

    def seed_dropout(self, t: int) -> None:
        """What virtual GPU g drops in iteration t follows from (seed, t, g): no state, however GPUs are spread."""
        if self.dropout:
            gpus = self.settings.batch.gpus
            seeds = np.random.SeedSequence((self.settings.seed, 5, t)).generate_state(gpus, np.uint64)
            for generator, seed in zip(self.dropout, seeds[self.share.part(gpus)].tolist(), strict=True):
                generator.manual_seed(seed)

    @torch.no_grad()
    def test(self, number: int = 0) -> tuple[float, float]:
        """Mean loss and accuracy of test number 0, 1, ..., with the running statistics of virtual GPU 0."""
        self.net.eval()
        self.share.from_lead([b for b in self.net.buffers() if b.is_floating_point()])
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        for images, labels in self.tests.test(number):
            with self.autocast:
                logits = self.net(images)
            loss += sample_losses(logits, labels).sum(dtype=torch.float64)
            right += (logits.argmax(1) == labels).sum()
        total, correct = self.share.sum(torch.stack([loss, right.double()])).tolist()
        return total / self.tests.count, correct / self.tests.count

    def train_metrics(self, logits: torch.Tensor, losses: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Loss and accuracy of virtual GPU 0's batch, and the norm of the averaged gradient before weight decay."""
        n = self.settings.batch.per_gpu
        capped = losses[:n].nan_to_num(nan=LOSS_CEILING).clamp(max=LOSS_CEILING)
        right = (logits[:n].argmax(1) == labels[:n]).float().mean()
        norm = grad_norm(self.net.parameters())
        loss, accuracy, norm = torch.stack([capped.mean(), right, norm.float()]).tolist()
        return {"train_loss": loss, "train_accuracy": accuracy, "grad_norm": norm}

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; batches and dropout follow from the settings."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(
    run: Run,
    data: ImageSet | ImageFolders,
    device: torch.device,
    *,
    environment: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 20.0,
    snapshots: Collection[int] = (),
    share: Share = ALONE,
) -> dict[str, Any]:
    """Train a run to its end, from its newest whole checkpoint if it has one, and leave it finished in the store.

    The caller holds the run's claim. progress is called after every iteration, say with sentences for the user; where
    stop() turns true, a checkpoint is written and Stopped raised. snapshots: numbers of updates after which the state
    is kept for other runs. share: this process's part; all ranks call with the same arguments, and with a stop that
    answers all alike at the same iteration; only rank 0 writes. Returns the summary, whose numbers are rank 0's.
    """
    settings = run.settings
    saved, remarks = run.load_checkpoint()
    for remark in remarks:
        say(remark)
    if saved and any(i < saved["iteration"] and not run.snapshot(i).is_file() for i in snapshots):
        saved = None  # it began without being asked for snapshots and is past one of them
    trainer = Trainer(settings, data, device, share)
    rows: list[dict[str, Any]] = []
    first, seconds = settings.start.iteration, 0.0
    if saved is None and settings.start.run:
        trainer.load_state(load_snapshot(run.folder.parents[1], settings.start.run, first))
    if saved is not None:
        trainer.load_state(saved)
        rows, first, seconds = saved["rows"], saved["iteration"], saved["seconds"]
    if share.leads:
        run.begin(environment or {})
    share.meet(first)

    began = last_saved = time.monotonic()
    total, interval = settings.iterations, settings.test_interval

    def save(t: int) -> None:
        elapsed = seconds + time.monotonic() - began
        run.save_checkpoint(trainer.state() | {"rows": rows, "iteration": t, "seconds": elapsed})

    for t in range(first, total + 1):
        if share.leads and t in snapshots and not run.snapshot(t).is_file():
            run.save_snapshot(t, trainer.state())
        row: dict[str, Any] | None = None
        if t % interval == 0:
            row = {"iteration": t, "lr": float(trainer.lr[t]), "momentum": float(trainer.momentum[t])}
            if t > settings.start.iteration:
                row["test_loss"], row["test_accuracy"] = trainer.test(t // interval - 1)
        if t < total:
            logits, losses, labels = trainer.step(t)
            if row is not None and share.leads:
                row |= trainer.train_metrics(logits, losses, labels)
            trainer.optimizer.step()
        if row is not None:
            rows.append(row)
        progress(Progress(t, total, float(trainer.lr[t]), rows[-1] if rows else None))
        if t < total:
            if stop():
                if share.leads:
                    save(t + 1)
                raise Stopped
            if share.leads and row is not None and time.monotonic() - last_saved >= checkpoint_seconds:
                save(t + 1)
                last_saved = time.monotonic()

    seconds += time.monotonic() - began
    last, diverged_at = rows[-1], divergence(rows)
    if diverged_at is not None:
        say(f"Run {run.hash} has diverged by iteration {diverged_at}: that is its result.")
    summary = {
        "hash": run.hash,
        "iterations": total,
        "parameters": sum(p.numel() for p in trainer.net.parameters()),
        "final_test_loss": last.get("test_loss"),
        "final_test_accuracy": last.get("test_accuracy"),
        "diverged_at": diverged_at,
        "seconds": round(seconds, 3),
        "images_per_second": round(total * settings.batch.total / seconds, 1),
    }
    if share.leads:
        run.finish(rows, summary)
    return summary
