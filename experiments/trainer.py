"""A network with its batches, tests and optimizer: what the loop over iterations (`experiments.training`) drives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import models
from experiments.batches import Batches, TestSet
from experiments.data import ImageFolders, ImageSet
from experiments.distributed import ALONE, Share
from experiments.divergence import LOSS_CEILING
from experiments.optimizer import CaffeSGD, grad_norm
from experiments.settings import Settings
from experiments.step import How, InPlace, Recorded, choose, network
from experiments.streams import StreamBatches, StreamTests


def sample_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Caffe's softmax loss per sample, float32 [N]: never above `LOSS_CEILING`, which also stands for NaN."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return losses.nan_to_num(nan=LOSS_CEILING).clamp(max=LOSS_CEILING)


def passes_in_pieces(settings: Settings, gpus: int) -> bool:
    """Whether a CPU passes a process's virtual GPUs one after the other.

    That takes a quarter of the memory; at a total batch of 512 it is 11 % quicker for resnet-56, no slower for the
    3-layer network (ratio 1.00 in either precision), but 8 % (fp32) and 15 % (bf16) slower for LeNet.
    """
    return gpus * settings.batch.per_gpu > 128 and settings.model.name != "lenet"


class Trainer:
    """A network with its batches, tests and optimizer on one device.

    settings: validated; data: as the settings say; device: where to train; how: one of `experiments.device.STEPS`;
    share: the part of the virtual GPUs that this process hosts, in equal parts (`experiments.distributed`). `step` and
    `test` then wait for the other ranks.
    """

    def __init__(
        self,
        settings: Settings,
        data: ImageSet | ImageFolders,
        device: torch.device,
        how: str | How = "auto",
        share: Share = ALONE,
    ):
        self.settings, self.device, self.share = settings, device, share
        self.gpus = settings.batch.gpus // share.ranks
        self.how = how if isinstance(how, How) else choose(how, settings, device)
        self.net, self.forward = network(settings, device, self.how, self, self.gpus)  # channels_last already
        self.batches: Batches | StreamBatches
        self.tests: TestSet | StreamTests
        if isinstance(data, ImageFolders):
            self.batches = StreamBatches(settings, data, device, share)
            self.tests = StreamTests(settings, data, device, share)
        else:
            self.batches = Batches(settings, data, device, share)
            self.tests = TestSet(settings, data, self.batches.mean, share)
        self.lr, self.momentum = settings.lr_array(), settings.momentum_array()
        cycled = settings.solver.type != "nesterov_unmodified"
        momentum = self.momentum if cycled else np.full_like(self.momentum, settings.momentum.base)
        self.optimizer = CaffeSGD(
            models.multipliers(self.net),
            lr=torch.from_numpy(self.lr).float().to(device),
            momentum=torch.from_numpy(momentum).float().to(device),
            weight_decay=settings.solver.weight_decay,
            nesterov=settings.solver.type != "sgd",
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
        self.one_gpu_at_a_time = device.type == "cpu" and passes_in_pieces(settings, self.gpus)
        self.drops = any(isinstance(layer, models.Dropout) for layer in self.net.modules())
        # A compiled network draws from PyTorch's default generator, the only one that torch.compile knows.
        self.dropout = [] if self.how.compiled else models.dropout_generators(self.net, device, self.gpus)
        self.follow = models.defer_statistics(self.net)
        self.dead = False
        """Every weight is NaN and stays so: `step` and `test` give what the network would, without running it."""
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

        self._made = made
        self._passes = Recorded(passes, self.net.buffers, self.device, generators=self.dropout)
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
        pieces = self.gpus if self.one_gpu_at_a_time else 1
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
        self.follow()
        return torch.cat(logits), torch.cat(losses)

    def step(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Iteration t up to, not including, the update. Returns logits, losses of the samples and labels.

        They and the gradients may be overwritten by the next step.
        """
        if self.dead:
            _, labels = self.batches(t)
            for w in self.optimizer.weights:
                w.grad = w.detach()
            logits = self._no_number(labels)
            return logits, logits[:, 0], labels
        self.seed_dropout(t)
        if self._passes is not None:
            self._made.point(t)
            logits, losses, labels = self._passes()
        else:
            images, labels = self.batches(t)
            self.optimizer.zero_grad()
            logits, losses = self.forward_backward(images, labels)
        self.share.average([w.grad for w in self.optimizer.weights])
        return logits, losses, labels

    def seed_dropout(self, t: int) -> None:
        """What virtual GPU g drops in iteration t follows from (seed, t, g): no state, however GPUs are spread."""
        if not self.drops:
            return
        gpus = self.settings.batch.gpus
        mine = np.random.SeedSequence((self.settings.seed, 5, t)).generate_state(gpus, np.uint64)[self.share.part(gpus)]
        if not self.dropout:
            torch.manual_seed(int(mine[0]))
        for generator, seed in zip(self.dropout, mine.tolist(), strict=False):
            generator.manual_seed(seed)

    def prepare(self) -> None:
        """Record the update, after the first `step`, where CUDA graphs do it."""
        if self._passes is not None and not self.dead:
            self._update.prepare()

    def update(self) -> None:
        """The optimizer's step with the gradients of the last `step`."""
        if self.dead:
            return
        if self._passes is not None:
            self._update()
        else:
            self.optimizer.step()

    @torch.no_grad()
    def test(self, number: int = 0) -> tuple[float, float]:
        """Mean loss and accuracy of test number 0, 1, ..., with the running statistics of virtual GPU 0."""
        self.net.eval()
        self.share.from_lead([b for b in self.net.buffers() if b.is_floating_point()])
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        for images, labels in self.tests.test(number):
            with self.autocast:
                logits = self._no_number(labels) if self.dead else self.net(images)
            loss += sample_losses(logits, labels).sum(dtype=torch.float64)
            right += (logits.argmax(1) == labels).sum()
        total, correct = self.share.sum(torch.stack([loss, right.double()])).tolist()
        return total / self.tests.count, correct / self.tests.count

    def _no_number(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.full((len(labels), self.settings.dataset.classes), torch.nan, device=labels.device)

    def has_died(self) -> bool:
        """Whether every weight is NaN. Waits for the device."""
        return bool(torch.stack([w.isnan().all() for w in self.optimizer.weights]).all())

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
