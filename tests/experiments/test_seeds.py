"""What another seed changes: were it not so, replicates would be alike and their spread too small."""

from dataclasses import replace

import torch
from small_runs import CPU

from experiments.batches import Batches, TestSet
from experiments.trainer import Trainer


def test_flips_order_and_dropout_follow_the_seed(tiny, shapes):
    dataset = replace(tiny.dataset, mirror=True, order="reshuffled", tests="author")
    model = replace(tiny.model, name="densenet40", depth=1, width=4)
    both = [replace(tiny, dataset=dataset, seed=seed, model=model) for seed in (0, 1)]
    data = shapes(both[0])
    a, b = (Batches(settings, data, CPU) for settings in both)
    assert not torch.equal(torch.cat([a.flips(t) for t in range(9)]), torch.cat([b.flips(t) for t in range(9)]))
    assert sorted(a.order.two_epochs(0)) == sorted(b.order.two_epochs(0))
    assert (a.order.two_epochs(0) != b.order.two_epochs(0)).any()
    dropped = []
    for settings in both:
        made = Trainer(settings, data, CPU)
        made.seed_dropout(3)
        dropout = next(layer for layer in made.net.modules() if isinstance(layer, torch.nn.Dropout))
        dropped.append(dropout(torch.ones(6, 4, 8, 8)))
    assert not torch.equal(*dropped)


def test_flips_of_the_authors_tests_follow_seed_and_number_and_no_piece(tiny, shapes):
    dataset = replace(tiny.dataset, tests="author", test_images=30)
    model = replace(tiny.model, name="resnet56")

    def seen(seed, number, piece):
        settings = replace(tiny, dataset=dataset, model=model, seed=seed)
        tests = TestSet(settings, shapes(tiny), torch.zeros(1, 3, 1, 1))
        tests.count, tests.piece = 30, piece  # every test takes the same images
        return torch.cat([images for images, _ in tests.test(number)])

    assert torch.equal(seen(0, 0, 30), seen(0, 0, 7))
    assert not torch.equal(seen(0, 0, 30), seen(0, 1, 30))
    assert not torch.equal(seen(0, 0, 30), seen(1, 0, 30))
