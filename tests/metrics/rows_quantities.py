"""Rows of the table of metrics: what one column of numbers is like."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_numbers = (draw().normal(size=(N, 2)) + 1e4).astype(np.float32)
VALUES = {"preds": _numbers - np.float32(1e4)}
FAR = {"preds": _numbers}
COLUMN = {"preds": _numbers[:, 0] - np.float32(1e4)}

ROWS = [
    Row("mean", metrics.Mean(), VALUES, smoke=True),
    Row("sum", metrics.Sum(), VALUES, empty=0.0),
    Row("variance", metrics.Variance(ddof=1.0), FAR),
    Row("standard deviation", metrics.StandardDeviation(), FAR),
    Row("max", metrics.Max(), VALUES),
    Row("min", metrics.Min(), VALUES),
    Row("quantiles", metrics.Quantiles((0.0, 0.1, 0.5, 1.0), mantissa_bits=3), COLUMN),
]
