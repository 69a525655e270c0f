"""Labels that a model has no class for are named by value and place, whatever kind of task they belong to."""

from __future__ import annotations

import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl.blame import Labels, blame, blame_labels
from jaxdl.data import Dataset


class Pixels(nn.Module):
    """Logits of three classes for each pixel."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        return nn.Dense(self.num_classes)(x)


class Boxes(nn.Module):
    """Four boxes, the quarters of an image, of two classes and the background."""

    num_classes: int = 3

    def default_boxes(self) -> np.ndarray:
        return np.array([[x, y, 0.5, 0.5] for y in (0.25, 0.75) for x in (0.25, 0.75)], np.float32)

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        mean = jnp.mean(x, axis=(1, 2))
        return {
            "logits": nn.Dense(4 * self.num_classes)(mean).reshape(-1, 4, self.num_classes),
            "offsets": nn.Dense(16)(mean).reshape(-1, 4, 4),
        }


def _fitted(task: jaxdl.Task, columns: dict[str, np.ndarray]) -> str:
    return jaxdl.fit(task, Dataset(columns), epochs=1, batch_size=8, verbose=0).stopped


@pytest.mark.parametrize(
    ("ignored", "value", "sentence"),
    [
        (255, 3, r"y holds 3 in row 5 at \(1, 2\), and the model has classes 0 to 2 \(255 does not count\)"),
        (None, 255, r"y holds 255 in row 5 at \(1, 2\), and the model has classes 0 to 2$"),
    ],
)
def test_a_pixel_without_a_class_is_named(ignored, value, sentence):
    y = np.random.default_rng(0).integers(0, 3, (8, 4, 6)).astype(np.uint8)
    y[0, 0, 0] = 0 if ignored is None else ignored
    y[5, 1, 2] = value
    x = np.ones((8, 4, 6, 3), np.float32)
    stopped = _fitted(jaxdl.tasks.segmentation(Pixels(), ignore_index=ignored), {"x": x, "y": y})
    assert re.match(f"the loss is nan .*{sentence}", stopped), stopped


def test_a_box_without_a_class_is_named():
    boxes = np.tile(np.float32([0, 0, 4, 4]), (8, 2, 1))
    labels = np.stack([np.zeros(8), np.full(8, -1)], 1).astype(np.int32)
    labels[6, 1] = 2
    columns = {"x": np.ones((8, 8, 8, 3), np.float32), "boxes": boxes, "labels": labels}
    stopped = _fitted(jaxdl.tasks.detection(Boxes(), candidates=4, detections=4, capacity=100), columns)
    wanted = "labels holds 2 in row 6 at 1, and the model has classes 0 to 1 (-1 does not count)"
    assert stopped.startswith("the loss is nan") and wanted in stopped, stopped


def test_labels_are_looked_through_in_parts_and_only_where_they_are_known(monkeypatch):
    monkeypatch.setattr("jaxdl.blame.LABELS", 8)
    y = np.zeros((9, 2, 2), np.int32)
    y[7, 0, 1] = -3
    data = Dataset({"y": y})
    for ignored, found in (((), True), ((255, -3), False), (None, False)):
        sentence = blame_labels(data, lambda ignored=ignored: Labels("y", 3, ignored))
        assert bool(sentence) == found
        assert not found or sentence == "y holds -3 in row 7 at (0, 1), and the model has classes 0 to 2"
    assert blame_labels(data, lambda: None) == "" and blame_labels(object(), lambda: Labels("y", 3)) == ""
    assert blame_labels(data, lambda: Labels("z", 3)) == ""
    assert blame(data, lambda: Labels("y", 3), nan=False) == ""
