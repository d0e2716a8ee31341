"""``shapes``: a procedural image set, for runs without any download.

An image shows one textured figure over correlated noise, partly hidden by a disc. Its class is the combination of
outline and texture, so neither alone decides; position, size, rotation, colours, contrast and the hiding disc are
drawn anew for each image. Pixels have CIFAR-10's overall mean (about 120), standard deviation (about 60) and falling
spectrum, on purpose: the report's nets run on them with the report's hyper-parameters.

The pixels are a function of the settings only. Everything is computed with operations that IEEE 754 defines to the last
bit (no sine, no matrix product, no normal deviates), so another CPU draws the same images; and image i depends on
nothing but (seed, split, i), so a smaller set is the beginning of a larger one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.data.imageset import Split
from experiments.errors import UserError

BLOCK = 128  # images drawn from one random stream: large enough to vectorise, small enough for the cache


@dataclass(frozen=True)
class ShapesSpec:
    """Settings of a ``shapes`` image set; raises UserError where a value is out of range.

    ``size`` is height and width in pixels; ``train`` and ``test`` are numbers of images; ``label_noise`` is the share
    of training labels replaced by another class (test labels are always right); ``noise`` scales the background's
    standard deviation; ``occlusion`` is the probability that a disc hides a part of the image; ``colour_cue`` says how
    far the colours of ground and figure lean towards those typical of the class.

    Without a colour cue the 3-layer net stays for 1,000 iterations on the plateau where its tiny initial weights put
    it, since nothing linear tells the classes apart; with 0.5 even a weight decay of 1e-2 leaves it. The defaults at
    size 16, with total batch size 64 and 1,050 iterations, order the weight decays by final test loss as figure 9 does:
    1.60 for 3.2e-3, 1.71 for 1.8e-3, 1.98 for 1e-3, 2.26 for 1e-2 (mean of network seeds 0 to 2). The three smaller
    ones keep their order with seed 3, but there 1e-2 leaves the plateau and ends at 1.78, below 1e-3.
    """

    size: int = 32
    channels: int = 3
    classes: int = 10
    train: int = 1500
    test: int = 2000
    seed: int = 0
    label_noise: float = 0.1
    noise: float = 1.0
    occlusion: float = 0.5
    colour_cue: float = 0.4

    def __post_init__(self) -> None:
        """Check every field's type and range."""
        limits = {
            "size": (8, 256),
            "channels": (1, 16),
            "classes": (2, len(OUTLINES) * len(TEXTURES)),
            "train": (1, 1_000_000),
            "test": (1, 1_000_000),
            "seed": (0, 2**32 - 1),
            "label_noise": (0.0, 0.9),
            "noise": (0.0, 4.0),
            "occlusion": (0.0, 1.0),
            "colour_cue": (0.0, 2.0),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            whole = isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                raise UserError(f"shapes.{field} is {value!r}, expected {kind} from {low} to {high}.")
            if not low <= value <= high:
                raise UserError(f"shapes.{field} is {value}, expected {low} to {high}.")


def draw_shapes(spec: ShapesSpec) -> tuple[Split, Split]:
    """The training and the test split; the two come from different streams of the same seed."""
    return _draw_split(spec, 0, spec.train, spec.label_noise), _draw_split(spec, 1, spec.test, 0.0)


def _draw_split(spec: ShapesSpec, stream: int, count: int, label_noise: float) -> Split:
    images = np.empty((count, spec.size, spec.size, spec.channels), np.uint8)
    labels = np.empty(count, np.int64)
    for start in range(0, count, BLOCK):
        # The last block is drawn whole and cut, so that count does not change any image.
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([spec.seed, stream, start // BLOCK])))
        block_images, block_labels = _draw_block(spec, rng)
        stop = min(start + BLOCK, count)
        images[start:stop] = block_images[: stop - start]
        labels[start:stop] = _noisy_labels(block_labels, label_noise, spec.classes, rng)[: stop - start]
    return Split(images, labels)


def _noisy_labels(labels: np.ndarray, share: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    """``labels`` with about ``share`` of them moved to another class. Drawn last: no pixel depends on it."""
    flip, other = rng.random((2, BLOCK))
    wrong = (labels + 1 + (other * (classes - 1)).astype(np.int64)) % classes
    return np.where(flip < share, wrong, labels)


def _draw_block(spec: ShapesSpec, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """BLOCK images uint8 [BLOCK, H, W, C] and their true classes [BLOCK]."""
    u = rng.random((22, BLOCK, 1, 1), dtype=np.float32)
    labels = (u[0, :, 0, 0] * np.float32(spec.classes)).astype(np.int64)
    axis = ((np.arange(spec.size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / spec.size)) - np.float32(1)
    x, y = axis[None, None, :], axis[None, :, None]

    scale = _between(u[1], 0.45, 0.75)
    room = np.float32(0.9) - np.float32(0.8) * scale
    p, q = _rotated(x - room * _signed(u[2]), y - room * _signed(u[3]), u[4], u[5])
    p, q = p / scale, q / scale
    inside = _coverage(_by_class(OUTLINES, _outline_of(labels, spec.classes), p, q) * scale, spec.size)

    period = _between(u[6], 0.42, 0.6)
    s, t = _rotated(x, y, u[7], u[8])
    s, t = s / period + u[9], t / period + u[10]
    texture = _by_class(TEXTURES, _texture_of(labels, spec.classes), s, t)

    radius = _between(u[11], 0.2, 0.5)
    dx, dy = x - _signed(u[12]), y - _signed(u[13])
    hidden = _coverage(np.sqrt(dx * dx + dy * dy) - radius, spec.size)
    hidden = hidden * (u[14] < np.float32(spec.occlusion))

    noise = _value_noise(rng, spec.size, ((2, 24.0), (4, 22.0), (8, 15.0), (16, 9.0))) * np.float32(spec.noise)
    side = np.where(u[15] < 0.5, np.float32(-1), np.float32(1))  # figure darker or lighter than the ground
    ground = _between(u[16], 90, 150) - side * np.float32(25)
    figure = ground + side * _between(u[17], 40, 95) + texture * _between(u[18], 35, 65)
    grey = noise + ground + inside * (figure - ground - np.float32(0.5) * noise)
    disc = _between(u[19], 20, 235) + np.float32(0.5) * noise
    grey = grey + hidden * (disc - grey)

    # A colour cast for the ground, for the figure and for the disc; the first two lean towards the class's own.
    images = np.empty((BLOCK, spec.size, spec.size, spec.channels), np.uint8)
    gain, offset = _between(u[20], 0.65, 1.55), np.float32(120) + np.float32(48) * _signed(u[21])
    casts = _signed(rng.random((3, spec.channels, BLOCK, 1, 1), dtype=np.float32)) * np.float32(28)
    casts[:2] += np.float32(28 * spec.colour_cue) * _typical_colours(spec)[:, :, labels, None, None]
    for channel in range(spec.channels):
        ground_cast, figure_cast, disc_cast = casts[:, channel]
        cast = ground_cast + inside * (figure_cast - ground_cast)
        cast = cast + hidden * (disc_cast - cast)
        grain = _signed(rng.random(grey.shape, dtype=np.float32)) * np.float32(9)
        value = (grey + cast + grain - np.float32(120)) * gain + offset
        images[..., channel] = (np.clip(value, 0, 255) + np.float32(0.5)).astype(np.uint8)
    return images, labels


def _typical_colours(spec: ShapesSpec) -> np.ndarray:
    """Casts from -1 to 1 of ground and figure, float32 [2, channels, classes]; the classes evenly spread in each."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([spec.seed, 2])))
    levels = np.linspace(-1, 1, spec.classes, dtype=np.float32)
    return levels[np.argsort(rng.random((2, spec.channels, spec.classes)), axis=-1)]


# ------------------------------------------------------------------------------------------- outlines and textures

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _wave(a: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between -1 and 1."""
    return np.float32(4) * np.abs(a - np.floor(a + np.float32(0.5))) - np.float32(1)


def _length(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.sqrt(p * p + q * q)


def _triangle(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(p) * np.float32(0.875) + q * np.float32(0.5), -q) - np.float32(0.55)


def _cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    p, q = np.abs(p), np.abs(q)
    return np.minimum(
        np.maximum(p - np.float32(1), q - np.float32(0.32)), np.maximum(q - np.float32(1), p - np.float32(0.32))
    )


def _crescent(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.maximum(_length(p, q) - np.float32(1), np.float32(0.75) - _length(p - np.float32(0.5), q))


# Functions of the figure's own coordinates (its radius is about 1), negative inside; about a distance.
OUTLINES: tuple[Field, ...] = (
    lambda p, q: _length(p, q) - np.float32(0.85),
    _cross,
    _triangle,
    lambda p, q: np.abs(_length(p, q) - np.float32(0.72)) - np.float32(0.24),
    lambda p, q: np.maximum(np.abs(p) - np.float32(1), np.abs(q) - np.float32(0.4)),
    lambda p, q: np.maximum(np.abs(p), np.abs(q)) - np.float32(0.75),
    _crescent,
    lambda p, q: np.maximum(_length(p, q) - np.float32(1), -q),
    lambda p, q: _length(np.abs(p) - np.float32(0.55), q) - np.float32(0.45),
    lambda p, q: np.maximum(np.maximum(np.abs(p), np.abs(q)) - np.float32(0.8), np.minimum(p, q)),
)

# Functions of coordinates in periods, from -1 to 1.
TEXTURES: tuple[Field, ...] = (
    lambda s, t: _wave(s) + np.float32(0) * t,
    lambda s, t: np.float32(0) * (s + t),
    lambda s, t: np.clip(np.float32(4) * _wave(s) * _wave(t), -1, 1),
    lambda s, t: np.float32(2) * np.maximum(_wave(s), 0) * np.maximum(_wave(t), 0) - np.float32(0.5),
    lambda s, t: _wave(np.float32(2) * s) + np.float32(0) * t,
    lambda s, t: _wave(s + np.float32(0.5) * _wave(t)),
    lambda s, t: np.maximum(_wave(s), _wave(t)),
    lambda s, t: _wave(_length(s, t)),
    lambda s, t: _wave(np.float32(0.4) * s) + np.float32(0) * t,
    lambda s, t: np.clip(np.float32(3) * _wave(np.floor(t) * np.float32(0.5) + s), -1, 1),
)


def _side(classes: int) -> int:
    """The smallest square of outlines x textures that holds ``classes`` combinations."""
    return next(n for n in range(2, len(OUTLINES) + 1) if n * n >= classes)


def _outline_of(labels: np.ndarray, classes: int) -> np.ndarray:
    return labels % _side(classes)


def _texture_of(labels: np.ndarray, classes: int) -> np.ndarray:
    # Shifted by one for each row of the square: all pairs differ, and neighbours in one differ in the other.
    return (labels + labels // _side(classes)) % _side(classes)


def _by_class(fields: tuple[Field, ...], chosen: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """fields[chosen[i]] of image i's coordinates, float32 [BLOCK, H, W]."""
    result = np.empty(np.broadcast_shapes(a.shape, b.shape), np.float32)
    for k in np.unique(chosen):
        rows = np.flatnonzero(chosen == k)
        result[rows] = fields[k](a[rows], b[rows])
    return result


# -------------------------------------------------------------------------------------------------------- helpers


def _between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.float32(low) + u * np.float32(high - low)


def _signed(u: np.ndarray) -> np.ndarray:
    return np.float32(2) * u - np.float32(1)


def _rotated(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates turned by a random angle, without sine: t = tan(angle/2) covers half a turn, v the rest."""
    t = _signed(u)
    norm = np.float32(1) + t * t
    cos = (np.float32(1) - t * t) / norm * np.where(v < 0.5, np.float32(-1), np.float32(1))
    sin = np.float32(2) * t / norm
    return cos * x + sin * y, cos * y - sin * x


def _coverage(distance: np.ndarray, size: int) -> np.ndarray:
    """Share of a pixel inside, from its signed distance in units of half the image (smooth over one pixel)."""
    return np.clip(np.float32(0.5) - distance * np.float32(size / 2), 0, 1)


def _value_noise(rng: np.random.Generator, size: int, octaves: tuple[tuple[int, float], ...]) -> np.ndarray:
    """Sum of smoothly interpolated random grids, float32 [BLOCK, size, size]; (cells, amplitude) for each octave."""
    total = np.zeros((BLOCK, size, size), np.float32)
    for cells, amplitude in octaves:
        grid = _signed(rng.random((BLOCK, cells + 1, cells + 1), dtype=np.float32)) * np.float32(amplitude * 1.75)
        at = np.arange(size, dtype=np.float32) * np.float32(cells / size)
        low = at.astype(np.int64)
        weight = at - low.astype(np.float32)
        rows = grid[:, low] + (grid[:, low + 1] - grid[:, low]) * weight[:, None]
        total += rows[:, :, low] + (rows[:, :, low + 1] - rows[:, :, low]) * weight
    return total
