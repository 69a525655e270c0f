"""Rows of the table of metrics: classes."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_ids = _draw.integers(0, 4, N).astype(np.int32)
_scores = _draw.normal(size=(N, 4)).round(1).astype(np.float32)  # rounded: with ties
SCORES = {"preds": _scores, "target": _ids}
IDS = {"preds": np.roll(_ids, 7), "target": np.where(_ids == 3, -1, _ids).astype(np.int32)}

ROWS = [
    Row("accuracy", metrics.Accuracy(), SCORES, smoke=True),
    Row("accuracy of ids", metrics.Accuracy(), IDS),
    Row("top-2 accuracy", metrics.Accuracy(top_k=2), SCORES),
    Row("confusion", metrics.ConfusionMatrix(4), SCORES, empty=0.0, smoke=True),
    Row("confusion by true", metrics.ConfusionMatrix(4, normalize="true"), SCORES),
    Row("confusion by predicted", metrics.ConfusionMatrix(4, normalize="predicted"), SCORES),
    Row("confusion by all", metrics.ConfusionMatrix(4, normalize="all"), SCORES),
    Row("confusion of ids", metrics.ConfusionMatrix(3), IDS, empty=0.0),
]
