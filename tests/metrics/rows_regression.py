"""Rows of the table of metrics: numbers."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_numbers = _draw.normal(size=(N, 2)).astype(np.float32)
NUMBERS = {"preds": (_numbers + _draw.normal(size=(N, 2))).astype(np.float32), "target": _numbers}
VALUES = {"preds": NUMBERS["preds"]}

ROWS = [
    Row("mean", metrics.Mean(), VALUES, smoke=True),
    Row("mse", metrics.MeanSquaredError(), NUMBERS),
    Row("rmse", metrics.RootMeanSquaredError(), NUMBERS),
    Row("mae", metrics.MeanAbsoluteError(), NUMBERS),
]
