"""Which records make up a batch, of data in memory and of data read as training goes on."""

from dataclasses import replace

import numpy as np
import pytest
from small_runs import CPU

from experiments.batches import Batches
from experiments.order import Order


@pytest.mark.parametrize("order", ["fixed", "reshuffled"])
def test_gpu_g_takes_every_nth_of_consecutive_records(tiny, order):
    settings = replace(tiny, dataset=replace(tiny.dataset, order=order))
    ours, dealt = Order(settings, 50), np.full((3, 50), -1)
    for t in (*range(25), 3, 20):  # 3 epochs, and back
        records, epochs = ours.batch(t)
        for gpu in range(2):
            for i in range(3):
                place, row = t * 6 + i * 2 + gpu, gpu * 3 + i
                assert epochs[row] == place // 50
                assert dealt[place // 50, place % 50] in (-1, records[row])
                dealt[place // 50, place % 50] = records[row]
    assert all(sorted(epoch) == list(range(50)) for epoch in dealt.tolist())
    assert (dealt == np.arange(50)).all(axis=1).tolist() == [order == "fixed"] * 3
    assert (dealt[0] == dealt[1]).all() == (order == "fixed")


def test_order_is_that_of_data_in_memory(tiny, shapes):
    settings = replace(tiny, dataset=replace(tiny.dataset, order="reshuffled"))
    resident, ours = Batches(settings, shapes(settings), CPU), Order(settings, 50)
    for t in (0, 8, 9, 40, 3):
        assert ours.batch(t)[0].tolist() == resident.indices(t).tolist()


def test_epochs_of_a_batch_that_straddles_their_border(tiny):
    ours = Order(tiny, 50)
    records, epochs = ours.batch(8)  # records 48, 49, 0, 1, 2, 3 over 2 GPUs
    assert records.tolist() == [48, 0, 2, 49, 1, 3]
    assert epochs.tolist() == [0, 1, 1, 0, 1, 1]
    assert (ours.place(25), ours.batch(25)[1].tolist()) == ((3, 0), [3] * 6)
