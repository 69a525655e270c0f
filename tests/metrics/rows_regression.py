"""Rows of the table of metrics: predicted numbers."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_numbers = _draw.normal(size=(N, 2)).astype(np.float32)
NUMBERS = {"preds": (_numbers + _draw.normal(size=(N, 2))).astype(np.float32), "target": _numbers}
# of mean 1e4 and deviation 1: what a sum of squares loses
_far = (_draw.normal(size=(N, 2)) + 1e4).astype(np.float32)
FAR = {"preds": (_far + _draw.normal(size=(N, 2))).astype(np.float32), "target": _far}
_amounts = _draw.gamma(2.0, size=(2, N)).astype(np.float32) + np.float32(0.1)
AMOUNTS = {"preds": _amounts[0], "target": _amounts[1]}
_ties = _draw.normal(size=(N, 2)).round(1).astype(np.float32)
TIED = {"preds": _ties[:, 0], "target": (_ties[:, 0] + _ties[:, 1]).round(1).astype(np.float32)}
_CAPACITY = 4 * N

ROWS = [
    Row("mse", metrics.MeanSquaredError(), NUMBERS, smoke=True),
    Row("rmse", metrics.RootMeanSquaredError(), NUMBERS),
    Row("mae", metrics.MeanAbsoluteError(), NUMBERS),
    Row("nd", metrics.NormalizedDeviation(), NUMBERS),
    Row("nrmse", metrics.NormalizedRMSE(), NUMBERS),
    Row("mae of outputs", metrics.MeanAbsoluteError(outputs=2, multioutput="raw_values"), NUMBERS),
    Row("rmse of outputs", metrics.RootMeanSquaredError(outputs=2), NUMBERS),
    Row("r2", metrics.R2(), FAR, smoke=True),
    Row("adjusted r2", metrics.AdjustedR2(features=2), FAR),
    Row("explained variance", metrics.ExplainedVariance(), FAR),
    Row("relative squared error", metrics.RelativeSquaredError(), FAR),
    Row("pearson", metrics.Pearson(outputs=2, multioutput="raw_values"), FAR),
    Row("concordance", metrics.Concordance(outputs=2), FAR),
    Row("spearman", metrics.Spearman(capacity=_CAPACITY), TIED, smoke=True),
    Row("kendall", metrics.Kendall(capacity=_CAPACITY), TIED),
    Row("median absolute error", metrics.MedianAbsoluteError(capacity=_CAPACITY), TIED),
    Row("relative absolute error", metrics.RelativeAbsoluteError(capacity=_CAPACITY), TIED),
    Row("max error", metrics.MaxError(), AMOUNTS),
    Row("mape", metrics.MeanAbsolutePercentageError(), AMOUNTS),
    Row("smape", metrics.SymmetricMeanAbsolutePercentageError(), AMOUNTS),
    Row("rmsle", metrics.RootMeanSquaredLogError(), AMOUNTS),
    Row("msle", metrics.MeanSquaredLogError(), AMOUNTS),
    Row("huber", metrics.HuberLoss(), AMOUNTS),
    Row("log cosh", metrics.LogCosh(), AMOUNTS),
    Row("pinball", metrics.PinballLoss(0.2), AMOUNTS),
    Row("tweedie", metrics.TweedieDeviance(1.5), AMOUNTS),
    Row("poisson", metrics.PoissonDeviance(), AMOUNTS),
    Row("gamma", metrics.GammaDeviance(), AMOUNTS),
]
