"""The shared trainer: one loop for every network, figure and table.

Order within an iteration t, as in the author's solver: test (if due), forward and backward, display, update with
lr[t] and momentum[t]. Rows of metrics.csv are taken where tests are due; their train columns are one batch of
virtual GPU 0 before that iteration's update.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

import models
from experiments.batches import Batches, TestSet
from experiments.data import ImageFolders, ImageSet
from experiments.optimizer import CaffeSGD, grad_norm
from experiments.settings import Settings
from experiments.step import How, InPlace, Recorded, choose, generators_of, network
from experiments.store import Run, load_snapshot
from experiments.streams import StreamBatches, StreamTests

LOSS_CEILING = 87.33654475
"""-ln of the smallest normal float32: what Caffe reports for a sample whose probability is zero or not a number."""


@dataclass
class Progress:
    """Where a run is: handed to the caller once per iteration. metrics is the newest row, None before the first."""

    iteration: int
    iterations: int
    lr: float
    metrics: dict[str, Any] | None


class Stopped(Exception):
    """The caller asked to stop; the checkpoint is written."""


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

    settings: validated; data: as the settings say; device: where to train; how: one of `experiments.device.STEPS`.
    """

    def __init__(
        self, settings: Settings, data: ImageSet | ImageFolders, device: torch.device, how: str | How = "auto"
    ):
        self.settings, self.device = settings, device
        self.how = how if isinstance(how, How) else choose(how, settings, device)
        self.net, self.forward = network(settings, device, self.how, self)  # channels_last already
        self.batches: Batches | StreamBatches
        self.tests: TestSet | StreamTests
        if isinstance(data, ImageFolders):
            self.batches, self.tests = StreamBatches(settings, data, device), StreamTests(settings, data, device)
        else:
            self.batches = Batches(settings, data, device)
            self.tests = TestSet(settings, data, self.batches.mean)
        self.lr, self.momentum = settings.lr_array(), settings.momentum_array()
        self.optimizer = CaffeSGD(
            models.multipliers(self.net),
            lr=torch.from_numpy(self.lr).float().to(device),
            momentum=torch.from_numpy(self.momentum).float().to(device),
            weight_decay=settings.solver.weight_decay,
            nesterov=settings.solver.type == "nesterov",
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
        # On a CPU a virtual GPU at a time takes a quarter of the memory and no longer (`device.keep_memory`).
        self.one_gpu_at_a_time = device.type == "cpu" and settings.batch.total > 128
        torch.manual_seed(settings.seed)  # dropout
        self._passes: Recorded | None = None
        if self.how.captured:
            self._record()

    def _record(self) -> None:
        """Let CUDA graphs do the passes and the update, from the first of each on."""
        made = self.batches if isinstance(self.batches, Batches) else InPlace(self.batches)
        optimizer = self.optimizer

        def passes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            images, labels = made.batch()
            optimizer.zero_grad()
            return *self.forward_backward(images, labels), labels

        generators = generators_of(self.net, self.device)
        self._made = made
        self._passes = Recorded(passes, self.net.buffers, self.device, generators=generators)
        # Once only: the schedule may end after this iteration.
        changed = [*optimizer.weights, *optimizer.velocity, optimizer.iteration]
        self._update = Recorded(optimizer.step, lambda: changed, self.device, warm=1)

    def feed(self, batches: Callable[[int], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Train on what batches(t) gives instead of the data. Before the first step."""
        self.batches = batches  # type: ignore[assignment]
        if self.how.captured:
            self._record()

    def forward_backward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the loss averaged over the total batch. Returns logits and the losses of the samples.

        With one_gpu_at_a_time the virtual GPUs pass one after the other and their gradients add up: the same step.
        """
        self.net.train()
        pieces = self.settings.batch.gpus if self.one_gpu_at_a_time else 1
        logits, losses = [], []
        for gpu, (x, y) in enumerate(zip(images.chunk(pieces), labels.chunk(pieces), strict=True)):
            if pieces > 1:
                models.select_gpu(self.net, gpu)
            with self.autocast:
                out = self.forward(x)
            loss = F.cross_entropy(out.float(), y, reduction="none")
            (loss.sum() / len(labels)).backward()
            logits.append(out.detach())
            losses.append(loss.detach())
        return torch.cat(logits), torch.cat(losses)

    def step(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Iteration t up to, not including, the update. Returns logits, losses of the samples and labels.

        They and the gradients may be overwritten by the next step.
        """
        if self._passes is not None:
            self._made.point(t)
            return self._passes()
        images, labels = self.batches(t)
        self.optimizer.zero_grad()
        logits, losses = self.forward_backward(images, labels)
        return logits, losses, labels

    def update(self) -> None:
        """The optimizer's step with the gradients of the last `step`."""
        if self._passes is not None:
            self._update()
        else:
            self.optimizer.step()

    @torch.no_grad()
    def test(self, number: int = 0) -> tuple[float, float]:
        """Mean loss and accuracy of test number 0, 1, ..., with running BatchNorm statistics."""
        self.net.eval()
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        for images, labels in self.tests.test(number):
            with self.autocast:
                logits = self.net(images)
            loss += sample_losses(logits, labels).sum(dtype=torch.float64)
            right += (logits.argmax(1) == labels).sum()
        return loss.item() / self.tests.count, right.item() / self.tests.count

    def train_metrics(self, logits: torch.Tensor, losses: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Loss and accuracy of virtual GPU 0's batch, and the norm of the averaged gradient before weight decay."""
        n = self.settings.batch.per_gpu
        capped = losses[:n].nan_to_num(nan=LOSS_CEILING).clamp(max=LOSS_CEILING)
        right = (logits[:n].argmax(1) == labels[:n]).float().mean()
        norm = grad_norm(self.net.parameters())
        loss, accuracy, norm = torch.stack([capped.mean(), right, norm.float()]).tolist()
        return {"train_loss": loss, "train_accuracy": accuracy, "grad_norm": norm}

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; batches follow from the settings."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


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
    how: str = "auto",
) -> dict[str, Any]:
    """Train a run to its end, from its newest whole checkpoint if it has one, and leave it finished in the store.

    The caller holds the run's claim. progress is called after every iteration, say with sentences for the user; where
    stop() turns true, a checkpoint is written and Stopped raised. snapshots: numbers of updates after which the state
    is kept for other runs. how: one of `experiments.device.STEPS`. Returns the summary.
    """
    settings = run.settings
    saved, remarks = run.load_checkpoint()
    for remark in remarks:
        say(remark)
    if saved and any(i < saved["iteration"] and not run.snapshot(i).is_file() for i in snapshots):
        saved = None  # it began without being asked for snapshots and is past one of them
    trainer = Trainer(settings, data, device, how)
    rows: list[dict[str, Any]] = []
    first, seconds = settings.start.iteration, 0.0
    if saved is None and settings.start.run:
        trainer.load_state(load_snapshot(run.folder.parents[1], settings.start.run, first))
    if saved is not None:
        trainer.load_state(saved)
        rows, first, seconds = saved["rows"], saved["iteration"], saved["seconds"]
    run.begin(environment or {})

    began = last_saved = time.monotonic()
    total, interval = settings.iterations, settings.test_interval

    def save(t: int) -> None:
        elapsed = seconds + time.monotonic() - began
        run.save_checkpoint(trainer.state() | {"rows": rows, "iteration": t, "seconds": elapsed})

    for t in range(first, total + 1):
        if t in snapshots and not run.snapshot(t).is_file():
            run.save_snapshot(t, trainer.state())
        row: dict[str, Any] | None = None
        if t % interval == 0:
            row = {"iteration": t, "lr": float(trainer.lr[t]), "momentum": float(trainer.momentum[t])}
            if t > settings.start.iteration:
                row["test_loss"], row["test_accuracy"] = trainer.test(t // interval - 1)
        if t < total:
            logits, losses, labels = trainer.step(t)
            if row is not None:
                row |= trainer.train_metrics(logits, losses, labels)
            trainer.update()
        if row is not None:
            rows.append(row)
        progress(Progress(t, total, float(trainer.lr[t]), rows[-1] if rows else None))
        if t < total:
            if stop():
                save(t + 1)
                raise Stopped
            if row is not None and time.monotonic() - last_saved >= checkpoint_seconds:
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
    run.finish(rows, summary)
    return summary
