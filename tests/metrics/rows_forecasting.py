"""Rows of the table of metrics: forecasts."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_target = _draw.normal(10, 3, size=(N, 4)).astype(np.float32)
_Q = (0.1, 0.5, 0.9)
_shift = np.float32([-2, 0, 2])
QUANTILES = {
    "preds": (_target[..., None] + _shift + _draw.normal(size=(N, 4, 1))).astype(np.float32),
    "target": _target,
}
_scale = _draw.uniform(0.5, 2.0, N).astype(np.float32)
POINTS = {"preds": QUANTILES["preds"][..., 1], "target": _target, "scale": _scale}
INTERVALS = {"preds": QUANTILES["preds"][..., ::2], "target": _target}
SCALED = {**INTERVALS, "scale": _scale}
SAMPLES = {"preds": (_target[..., None] + _draw.normal(size=(N, 4, 5))).astype(np.float32), "target": _target}
_normal = np.stack([_target + _draw.normal(size=(N, 4)), _draw.uniform(0.5, 2, (N, 4))], -1).astype(np.float32)
NORMAL = {"preds": _normal, "target": _target}

ROWS = [
    Row("quantile loss", metrics.QuantileLoss(_Q), QUANTILES),
    Row("quantile loss of each", metrics.QuantileLoss(_Q, average=None), QUANTILES),
    Row("weighted quantile loss", metrics.WeightedQuantileLoss(_Q), QUANTILES, smoke=True),
    Row("weighted quantile loss of each", metrics.WeightedQuantileLoss(_Q, average=None), QUANTILES),
    Row("quantile coverage", metrics.QuantileCoverage(_Q), QUANTILES),
    Row("mase", metrics.MASE(), POINTS),
    Row("rmsse", metrics.RMSSE(), POINTS),
    Row("crps", metrics.CRPS(), SAMPLES),
    Row("fair crps", metrics.CRPS(fair=True), SAMPLES),
    Row("gaussian crps", metrics.GaussianCRPS(), NORMAL),
    Row("interval coverage", metrics.IntervalCoverage(), INTERVALS),
    Row("interval width", metrics.IntervalWidth(), INTERVALS),
    Row("interval score", metrics.IntervalScore(0.8), INTERVALS),
    Row("msis", metrics.MSIS(0.8), SCALED),
]
