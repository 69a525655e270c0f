"""Rows of the table of metrics: pixels."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import Row, draw

_draw = draw()
_target = _draw.integers(0, 4, (12, 6, 7)).astype(np.int32)
_target[_draw.random(_target.shape) < 0.1] = 255
_preds = np.where(_draw.random(_target.shape) < 0.6, _target, _draw.integers(-1, 4, _target.shape)).astype(np.int32)
PIXELS = {"preds": _preds, "target": _target}
SCORES = {"preds": _draw.normal(size=(12, 6, 7, 4)).astype(np.float32), "target": _target}
_given = {"num_classes": 4, "ignore_index": 255}

ROWS = [
    Row("pixel accuracy", metrics.PixelAccuracy(**_given), PIXELS, smoke=True),
    Row("mean pixel accuracy", metrics.MeanPixelAccuracy(**_given), PIXELS),
    Row("iou", metrics.IoU(**_given), PIXELS),
    Row("mean iou", metrics.MeanIoU(**_given), PIXELS),
    Row("mean iou over all", metrics.MeanIoU(**_given, average="macro_all", zero_division=0.0), PIXELS, empty=0.0),
    Row("frequency weighted iou", metrics.FrequencyWeightedIoU(**_given), PIXELS),
    Row("dice", metrics.Dice(**_given), PIXELS),
    Row("dice without background", metrics.Dice(**_given, exclude=(0,), average="micro"), PIXELS),
    Row("generalized dice", metrics.GeneralizedDice(**_given), PIXELS),
    Row("mean iou of scores", metrics.MeanIoU(**_given), SCORES),
    Row("boundary f", metrics.BoundaryF(**_given, tolerance=1.0), PIXELS, smoke=True),
]
