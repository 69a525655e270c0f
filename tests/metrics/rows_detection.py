"""Rows of the table of metrics: boxes."""

from __future__ import annotations

import numpy as np

from benchmarks.detection_images import detection_images
from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_IMAGES = 12  # one program holds some thirty matchings
_preds, _target = detection_images(_IMAGES, classes=3, boxes=4, detections=6, size=120, crowd=0.1, ignore=0.1, seed=3)
_preds["labels"][0, 0] = 9  # no class: counted in `invalid`
IMAGES = {"preds": _preds, "target": _target}
_draw = draw()
_corner = _draw.random((N, 2, 2)).astype(np.float32)
_true = np.concatenate([_corner, _corner + 0.5], axis=-1)
PAIRS = {"preds": _true + _draw.normal(size=_true.shape, scale=0.05).astype(np.float32), "target": _true}

ROWS = [
    # capacity for what weights of 0 to 3 make of them, twice
    Row("coco map", metrics.CocoMAP(3, 500, iou_thresholds=(0.5, 0.75), box_format="xywh"), IMAGES),
    Row("voc map", metrics.VocMAP(3, 500, box_format="xywh"), IMAGES),
    Row("mean box iou", metrics.MeanBoxIoU(), PAIRS, smoke=True),
    Row("mean box ciou", metrics.MeanBoxIoU("ciou"), PAIRS),
]
