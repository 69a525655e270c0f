"""Weights drawn by a rule from their names and shapes, so that a fixture of a large model keeps its logits only.

The script that makes a fixture loads `drawn_state(shapes)` into the peer and stores names, shapes and logits; the test
draws the same numbers again, converts them and compares. numpy's RandomState draws them, whose stream is frozen: a
number depends on the seed, the name and the shape, and on no version, order or neighbour.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def drawn_state(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """One array for each name, float32, with numbers under which no error hides.

    By the last word of the name (torch, keras and flax words alike):

    - running_var, moving_variance, var: uniform in [0.5, 1.5]; running_mean, moving_mean, mean: 0.1 * normal
    - weight, gamma, scale of one dimension: 1 + 0.1 * normal (the scale of a norm)
    - kernel of two or more dimensions: normal * sqrt(2 / product of all but its last dimension) (keras, flax)
    - anything else of two or more dimensions: normal * sqrt(2 / product of all but its first dimension) (torch)
    - num_batches_tracked: 0, int64
    - anything else (biases, tokens, slopes): 0.1 * normal
    """
    return {name: _drawn(name, tuple(shape), seed) for name, shape in shapes.items()}


def drawn_input(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Normal numbers, float32: the input of a fixture."""
    return np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32)


def sample_photos(size: int = 224) -> np.ndarray:
    """A palace and a flower (scikit-learn's sample photos), [2, size, size, 3] float32 in (x - 127) / 128."""
    from sklearn.datasets import load_sample_images

    square = 420
    rows = np.linspace(0, square - 1, size).round().astype(np.int64)
    photos = []
    for photo in load_sample_images().images:
        top, left = ((length - square) // 2 for length in photo.shape[:2])
        photos.append(photo[top : top + square, left : left + square][rows][:, rows])
    return (np.stack(photos).astype(np.float32) - np.float32(127)) / np.float32(128)


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    word = name.replace("/", ".").rsplit(".", 1)[-1].split(":")[0]
    if word == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if word in ("running_var", "moving_variance", "var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    normal = random.standard_normal(shape)
    if len(shape) >= 2 and word not in ("bias", "beta"):
        fan_in = math.prod(shape[:-1] if word.endswith("kernel") else shape[1:])
        return (normal * math.sqrt(2.0 / fan_in)).astype(np.float32)
    if word in ("weight", "gamma", "scale"):
        return (1.0 + 0.1 * normal).astype(np.float32)
    return (0.1 * normal).astype(np.float32)
