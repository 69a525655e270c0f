"""Rows of the table of metrics: what is made of other metrics."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_group = _draw.integers(-1, 3, N).astype(np.int32)  # -1: no group
_ids = _draw.integers(0, 2, N).astype(np.int32)
_scores = _draw.normal(size=(N, 2)).round(1).astype(np.float32)
GROUPED = {"preds": _scores, "target": _ids, "group": _group}
SCORES = {"preds": _scores, "target": _ids}

ROWS = [
    Row("confusion by group", metrics.by(metrics.ConfusionMatrix(2), 3), GROUPED, empty=0.0),
    Row("auc by group", metrics.by(metrics.ROCAUC(capacity=4 * N), ["a", "b", "c"]), GROUPED),
    Row("accuracy by group", metrics.by(metrics.Accuracy(), 3), GROUPED),
    Row(
        "collection",
        metrics.Collection([metrics.ROCAUC(capacity=4 * N), metrics.Accuracy(), metrics.ConfusionMatrix(2)]),
        SCORES,
    ),
]
