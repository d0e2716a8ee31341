"""The words of a command line for runs of about a second, which tests share."""

SMALL = [
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "dataset.size=8",
    "dataset.train_images=64",
    "dataset.test_images=40",
    "batch.per_gpu=4",
]
"""Of any figure, on made images of 8x8."""

FIGURE_9 = ["figure=fig09", *SMALL, "checkpoint_seconds=0"]

BENCHMARK = [
    "device=cpu",
    "networks=cifar3",
    "batches=8",
    "repeats=1",
    "seconds=0.05",
    "threads=1",
    "variants=bare,trainer,plain",
]
"""Of `experiments.benchmark`."""
