"""Rows of the table of metrics: classes, labels, probabilities."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_ids = _draw.integers(0, 4, N).astype(np.int32)
_scores = _draw.normal(size=(N, 4)).round(1).astype(np.float32)  # rounded: with ties
_chances = _draw.dirichlet(np.ones(4), N).astype(np.float32)
SCORES = {"preds": _scores, "target": _ids}
IDS = {"preds": np.roll(_ids, 7), "target": np.where(_ids == 3, -1, _ids).astype(np.int32)}
BINARY = {"preds": _chances[:, :2].sum(1), "target": (_ids < 2).astype(np.int32)}
CHANCES = {"preds": _chances, "target": IDS["target"]}
LABELS = {"preds": _draw.random((N, 3)).astype(np.float32), "target": _draw.integers(0, 2, (N, 3)).astype(np.int32)}
PLACES = {"preds": np.stack([IDS["target"], _ids], 1), "target": np.stack([IDS["target"], IDS["preds"]], 1)}

ROWS = [
    Row("accuracy", metrics.Accuracy(), SCORES, smoke=True),
    Row("accuracy of ids", metrics.Accuracy(), IDS),
    Row("top-2 accuracy", metrics.Accuracy(top_k=2), SCORES),
    Row("confusion", metrics.ConfusionMatrix(4), SCORES, empty=0.0, smoke=True),
    Row("confusion by true", metrics.ConfusionMatrix(4, normalize="true"), SCORES),
    Row("confusion by predicted", metrics.ConfusionMatrix(4, normalize="predicted"), SCORES),
    Row("confusion by all", metrics.ConfusionMatrix(4, normalize="all"), SCORES),
    Row("accuracy of classes", metrics.Accuracy(num_classes=4), SCORES),
    Row("precision", metrics.Precision(4), SCORES),
    Row("recall, weighted", metrics.Recall(4, average="weighted"), SCORES),
    Row("f1 of each class", metrics.F1(4, average=None), SCORES),
    Row("specificity", metrics.Specificity(4, average="macro_all"), SCORES),
    Row("negative predictive value", metrics.NegativePredictiveValue(4, average="micro"), SCORES),
    Row("jaccard", metrics.Jaccard(4), SCORES),
    Row("matthews", metrics.MatthewsCorrelation(4), SCORES),
    Row("kappa", metrics.CohenKappa(4, "quadratic"), SCORES),
    Row("balanced accuracy", metrics.BalancedAccuracy(4, adjusted=True), SCORES),
    Row("geometric mean", metrics.GeometricMean(4), SCORES),
    Row("harmonic mean", metrics.HarmonicMean(4), SCORES),
    Row("confusion of ids", metrics.ConfusionMatrix(3, ignore_index=2), IDS, empty=0.0),
    Row("hamming of ids", metrics.HammingLoss(3, ignore_index=2), IDS),
    Row("f_beta, binary", metrics.FBeta(2, average="binary", threshold=0.5, beta=2.0), BINARY, smoke=True),
    Row("false positive rate", metrics.FalsePositiveRate(2, average="binary", threshold=0.5), BINARY),
    Row("false negative rate", metrics.FalseNegativeRate(2, average="binary", threshold=0.5), BINARY),
    Row("false discovery rate", metrics.FalseDiscoveryRate(2, average="binary", threshold=0.5), BINARY),
    Row("true positive rate", metrics.TruePositiveRate(2, average="binary", threshold=0.5), BINARY),
    Row("labels", metrics.MultilabelConfusionMatrix(3), LABELS, empty=0.0),
    Row("labels by true", metrics.MultilabelConfusionMatrix(3, normalize="true"), LABELS),
    Row("f1 of labels", metrics.F1(num_labels=3), LABELS),
    Row("f1 of rows of labels", metrics.F1(num_labels=3, average="samples"), LABELS),
    Row("accuracy of labels", metrics.Accuracy(num_labels=3), LABELS),
    Row("matthews of labels", metrics.MatthewsCorrelation(num_labels=3), LABELS),
    Row("report of labels", metrics.ClassificationReport(num_labels=3), LABELS),
    Row("exact match", metrics.ExactMatch(num_labels=3, ignore_index=-1), LABELS),
    Row("exact match of places", metrics.ExactMatch(num_classes=3), PLACES),
    Row("cross-entropy", metrics.CrossEntropy(from_logits=True, ignore_index=3), SCORES),
    Row("perplexity", metrics.Perplexity(from_logits=True, ignore_index=3), SCORES),
    Row("smoothed cross-entropy", metrics.CrossEntropy(label_smoothing=0.1), CHANCES),
    Row("log loss", metrics.LogLoss(), BINARY),
    Row("brier", metrics.BrierScore(), CHANCES),
    Row("calibration error", metrics.CalibrationError(5), CHANCES),
    Row("squared calibration error", metrics.CalibrationError(5, "l2"), CHANCES),
    Row("largest calibration error", metrics.CalibrationError(5, "max"), CHANCES),
    Row("calibration curve", metrics.CalibrationCurve(5), CHANCES),
    Row("calibration by mass", metrics.CalibrationError(3, binning="mass"), BINARY),
]
