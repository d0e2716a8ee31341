"""Which records a training batch holds, whether they lie in memory or are read as they come."""

import numpy as np

from experiments.settings import Settings


class Order:
    """The records of every training batch of a run over n records; nothing here keeps a state that matters.

    As in the author's data layer: batch t holds the records t*T .. (t+1)*T - 1 (modulo n, T = total batch size), so
    batches straddle the epochs' borders; virtual GPU g takes every gpus-th of them and lies in rows
    g*per_gpu .. (g+1)*per_gpu - 1. With dataset.order = "reshuffled" the records of each epoch come in a new order.
    """

    def __init__(self, settings: Settings, n: int):
        self.n, self.total, self.seed = n, settings.batch.total, settings.seed
        self.reshuffled = settings.dataset.order == "reshuffled"
        self.rows = np.arange(self.total).reshape(settings.batch.per_gpu, settings.batch.gpus).T.ravel()
        self._epoch, self._records = -1, np.empty(0, np.int64)

    def place(self, t: int) -> tuple[int, int]:
        """The epoch in which batch t begins, and the position of its first record within it."""
        return divmod(t * self.total, self.n)

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self.reshuffled:
            return np.arange(self.n)
        return np.random.default_rng((self.seed, 1, epoch)).permutation(self.n)

    def two_epochs(self, epoch: int) -> np.ndarray:
        """The records of an epoch, then those of the next, int64 [2 n]: a batch that begins there also ends there."""
        if self._epoch < 0 or (self.reshuffled and epoch != self._epoch):
            self._records = np.concatenate([self._permutation(epoch), self._permutation(epoch + 1)])
            self._epoch = epoch
        return self._records

    def batch(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Record and epoch of every row of batch t, each int64 [total batch]."""
        epoch, start = self.place(t)
        position = start + self.rows
        return self.two_epochs(epoch)[position], epoch + position // self.n
