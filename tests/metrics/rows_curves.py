"""Rows of the table of metrics: curves over scores."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_scores = _draw.normal(size=(N, 2)).round(1).astype(np.float32)  # rounded: with ties
_labels = _draw.integers(0, 2, N).astype(np.int32)
SCORES = {"preds": _scores[:, 0], "target": _labels}
PROBABILITIES = {"preds": (1 / (1 + np.exp(-_scores[:, 0]))).astype(np.float32), "target": _labels}
SIXTEEN = {"preds": _scores[:, 0].astype(jnp.bfloat16), "target": np.where(_draw.random(N) < 0.1, 2, _labels)}
CLASSES = {
    "preds": _draw.random((N, 3)).round(1).astype(np.float32),
    "target": _draw.integers(0, 3, N).astype(np.int32),
}
LABELS = {"preds": CLASSES["preds"], "target": _draw.integers(0, 2, (N, 3)).astype(np.int32)}

_room = 4 * N
_bins = metrics.Histogram(bins=64)

ROWS = [
    Row("auc", metrics.ROCAUC(capacity=_room), SCORES, smoke=True),
    Row("auc up to a rate", metrics.ROCAUC(capacity=_room, max_fpr=0.3), SCORES),
    Row("average precision", metrics.AveragePrecision(capacity=_room), SCORES),
    Row("pr auc", metrics.PRAUC(capacity=_room), SCORES),
    Row("ks", metrics.KolmogorovSmirnov(capacity=_room), SCORES),
    Row("eer", metrics.EqualErrorRate(capacity=_room), SCORES),
    Row("best threshold", metrics.BestThreshold(capacity=_room, beta=2.0), SCORES),
    Row("precision at recall", metrics.PrecisionAtRecall(0.7, capacity=_room), SCORES),
    Row("recall at precision", metrics.RecallAtPrecision(0.5, capacity=_room), SCORES),
    Row("roc curve", metrics.ROCCurve(capacity=_room), SCORES),
    Row("precision and recall", metrics.PrecisionRecallCurve(capacity=_room), SCORES),
    Row("auc in bins", metrics.ROCAUC(scores=_bins), PROBABILITIES, smoke=True),
    Row("average precision in bins", metrics.AveragePrecision(scores=_bins), PROBABILITIES),
    Row("ks in bins", metrics.KolmogorovSmirnov(scores=_bins), PROBABILITIES),
    Row("roc curve in bins", metrics.ROCCurve(scores=_bins), PROBABILITIES),
    Row("auc of 16 bits", metrics.ROCAUC(scores=metrics.Bits16()), SIXTEEN),
    Row("auc of each class", metrics.OneVsRest(metrics.ROCAUC(capacity=_room), 3, average=None), CLASSES),
    Row("auc one against the rest", metrics.OneVsRest(metrics.ROCAUC(capacity=_room), 3, "weighted"), CLASSES),
    Row("auc one against one", metrics.OneVsOneAUC(3, capacity=_room), CLASSES),
    Row("auc of each label", metrics.PerLabel(metrics.ROCAUC(scores=_bins), 3), LABELS),
]
