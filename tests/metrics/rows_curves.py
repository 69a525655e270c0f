"""Rows of the table of metrics: curves over scores."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_scores = _draw.normal(size=(N, 2)).round(1).astype(np.float32)  # rounded: with ties
_labels = _draw.integers(0, 2, N).astype(np.int32)
SCORES = {"preds": _scores[:, 0], "target": _labels}
LOGITS = {"preds": _scores, "target": _labels}

ROWS = [
    Row("auc", metrics.ROCAUC(capacity=4 * N), SCORES, smoke=True),
    Row("auc of two logits", metrics.ROCAUC(capacity=4 * N), LOGITS),
]
