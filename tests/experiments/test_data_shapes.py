"""The procedural image set: a function of its settings, CIFAR-like, learnable, and hard."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.imageset import digest
from experiments.data.shapes import BLOCK, OUTLINES, TEXTURES, ShapesSpec, _outline_of, _texture_of, draw_shapes
from experiments.errors import UserError

PINNED = "bcf8088407814992"  # of the pixels and labels below; results of all runs on shapes change with it


def test_pinned_pixels():
    assert digest(*draw_shapes(ShapesSpec(size=16, train=200, test=100))) == PINNED


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(8, 40),
    channels=st.integers(1, 4),
    classes=st.integers(2, 100),
    small=st.integers(1, 2 * BLOCK),
    more=st.integers(1, 2 * BLOCK),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_smaller_set_is_the_beginning_of_a_larger_one(size, channels, classes, small, more, seed):
    spec = ShapesSpec(size=size, channels=channels, classes=classes, train=small, test=3, seed=seed)
    train, test = draw_shapes(spec)
    large, same = draw_shapes(replace(spec, train=small + more))
    assert train.images.shape == (small, size, size, channels) and train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64 and 0 <= train.labels.min() <= train.labels.max() < classes
    np.testing.assert_array_equal(large.images[:small], train.images)
    np.testing.assert_array_equal(large.labels[:small], train.labels)
    np.testing.assert_array_equal(same.images, test.images)


def test_another_seed_and_the_other_split_are_other_images():
    train, test = draw_shapes(ShapesSpec(train=BLOCK, test=BLOCK))
    other, _ = draw_shapes(ShapesSpec(train=BLOCK, test=BLOCK, seed=1))
    pixels = {image.tobytes() for split in (train, test, other) for image in split.images}
    assert len(pixels) == 3 * BLOCK


def test_label_noise_is_in_the_training_labels_only():
    clean_train, clean_test = draw_shapes(ShapesSpec(size=8, train=5000, test=500, label_noise=0.0))
    train, test = draw_shapes(ShapesSpec(size=8, train=5000, test=500, label_noise=0.2))
    np.testing.assert_array_equal(train.images, clean_train.images)
    np.testing.assert_array_equal(test.labels, clean_test.labels)
    moved = train.labels != clean_train.labels
    assert abs(moved.mean() - 0.2) < 4 * (0.2 * 0.8 / 5000) ** 0.5
    by_distance = np.bincount((train.labels - clean_train.labels)[moved] % 10, minlength=10)
    assert by_distance[0] == 0 and by_distance[1:].min() > 0.6 * moved.sum() / 9


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10, 16, 17, 50, 99, 100])
def test_every_class_is_its_own_outline_and_texture(classes):
    labels = np.arange(classes)
    pairs = set(zip(_outline_of(labels, classes), _texture_of(labels, classes), strict=True))
    assert len(pairs) == classes
    assert max(o for o, _ in pairs) < len(OUTLINES) and max(t for _, t in pairs) < len(TEXTURES)


def test_classes_come_equally_often():
    labels = draw_shapes(ShapesSpec(size=8, train=10_000, test=1, label_noise=0.0))[0].labels
    assert abs(np.bincount(labels) - 1000).max() < 4 * 30


@pytest.mark.parametrize("size", [16, 32])
def test_mean_and_standard_deviation_are_those_of_cifar10(size):
    images = draw_shapes(ShapesSpec(size=size, train=2000, test=1))[0].images
    assert 115 < images.mean() < 125 and 54 < images.std() < 66
    assert ((images == 0) | (images == 255)).mean() < 0.06


def test_spectrum_falls_as_that_of_natural_images():
    """CIFAR-10's power falls about as 1/f^2.6 from 1 to 12 cycles per image; white noise would not fall at all."""
    grey = draw_shapes(ShapesSpec(train=1000, test=1))[0].images.mean(-1)
    power = (np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2).mean(0)
    k = np.fft.fftfreq(32) * 32
    ring = np.hypot(k[:, None], k).round()
    f = np.arange(1, 13)
    slope = np.polyfit(np.log(f), np.log([power[ring == i].mean() for i in f]), 1)[0]
    assert -3.3 < slope < -2.0


def test_a_linear_classifier_is_above_chance_and_far_from_perfect():
    """Ridge regression on the pixels finds something to start from, and leaves most of it to better methods."""
    train, test = draw_shapes(ShapesSpec(size=16, train=3000, test=1000, label_noise=0.0))
    x, z = (split.images.reshape(len(split), -1) / 128.0 - 1 for split in (train, test))
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) + 100 * np.eye(x.shape[1])
    weights = np.linalg.solve(covariance, (x - mean).T @ np.eye(10)[train.labels])
    accuracy = np.mean(((z - mean) @ weights).argmax(1) == test.labels)
    assert 0.15 < accuracy < 0.45


def test_colour_cue_zero_makes_colours_the_same_for_all_classes():
    """Mean colours of classes differ with the cue, and by no more than chance without."""

    def spread(cue):
        train, _ = draw_shapes(ShapesSpec(size=8, train=5000, test=1, colour_cue=cue, label_noise=0))
        colour = train.images.mean((1, 2))
        means = np.stack([colour[train.labels == c].mean(0) for c in range(10)])
        return (means.std(0) / (colour.std(0) / 500**0.5)).max()

    assert spread(0.0) < 2 < 3 < spread(0.4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 7}, "shapes.size is 7, expected 8 to 256"),
        ({"channels": 0}, "shapes.channels is 0"),
        ({"classes": 101}, "shapes.classes is 101, expected 2 to 100"),
        ({"classes": 1}, "shapes.classes is 1"),
        ({"train": 0}, "shapes.train is 0"),
        ({"test": -1}, "shapes.test is -1"),
        ({"seed": 2**32}, "shapes.seed"),
        ({"label_noise": 1.0}, "shapes.label_noise is 1.0, expected 0.0 to 0.9"),
        ({"noise": float("nan")}, "shapes.noise is nan"),
        ({"occlusion": 1.1}, "shapes.occlusion"),
        ({"colour_cue": -0.1}, "shapes.colour_cue"),
        ({"train": 10.0}, "shapes.train is 10.0, expected a whole number from 1"),
        ({"size": True}, "shapes.size is True"),
        ({"label_noise": "0.1"}, "shapes.label_noise is '0.1', expected a number"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(UserError) as caught:
        ShapesSpec(**setting)
    assert message in str(caught.value)
