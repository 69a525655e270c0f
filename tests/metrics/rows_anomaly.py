"""Rows of the table of metrics: anomalies in series."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import Row, draw

_draw = draw()
_windows = np.repeat(_draw.integers(0, 3, (12, 6)), 4, axis=1).astype(np.int32)
_windows[:, 4:8], _windows[:, 20:] = 1, 0
_scores = (_draw.random((12, 24)) + 0.3 * (_windows > 0)).round(1).astype(np.float32)  # rounded: with ties
FLAGS = {"preds": (_scores > 0.7).astype(np.int32), "target": (_windows > 0).astype(np.int32)}
SCORES = {"preds": _scores, "target": _windows}
_options = {"alpha": 0.3, "bias": "front", "precision_bias": "middle"}

ROWS = [
    Row("point-adjusted f", metrics.PointAdjustedF(share=0.2), FLAGS, smoke=True),
    Row("range recall", metrics.RangeRecall(**_options), FLAGS),
    Row("range precision", metrics.RangePrecision(**_options), FLAGS),
    Row("range f", metrics.RangeF(**_options, beta=2.0), FLAGS),
    Row("nab score", metrics.NABScore(capacity=1000), SCORES),
    Row("nab score at a threshold", metrics.NABScoreAt(threshold=0.7, probation=0.0), SCORES),
]
