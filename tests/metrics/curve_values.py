"""The numbers that are read off one curve, and what scikit-learn says that they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics as peer

from jaxdl import metrics


def numbers(scores: Any) -> dict[str, Any]:
    """A metric for each number, all of the same remembered scores."""
    return {
        "auc": metrics.ROCAUC(scores=scores),
        "partial": metrics.ROCAUC(scores=scores, max_fpr=0.3),
        "average_precision": metrics.AveragePrecision(scores=scores),
        "pr_auc": metrics.PRAUC(scores=scores),
        "ks": metrics.KolmogorovSmirnov(scores=scores),
        "eer": metrics.EqualErrorRate(scores=scores),
        "f2": metrics.BestThreshold(scores=scores, beta=2.0),
        "precision at 0.6": metrics.PrecisionAtRecall(0.6, scores=scores),
        "recall at 0.6": metrics.RecallAtPrecision(0.6, scores=scores),
    }


def expected(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """What scikit-learn gives for `numbers`, of scores, labels and weights [n]."""
    p, w = p.astype(float), w.astype(float)
    fpr, tpr, _ = peer.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    precision, recall, _ = peer.precision_recall_curve(y, p, sample_weight=w)
    place = int(np.argmax(fpr + tpr > 1))  # the error rates are equal on the line to this point
    step = (1 - fpr[place - 1] - tpr[place - 1]) / (fpr[place] + tpr[place] - fpr[place - 1] - tpr[place - 1])
    f2 = 5 * precision * recall / np.maximum(4 * precision + recall, 1e-300)
    real = slice(0, -1)  # scikit-learn's last point has no threshold
    return {
        "auc": peer.roc_auc_score(y, p, sample_weight=w),
        "partial": peer.roc_auc_score(y, p, sample_weight=w, max_fpr=0.3),
        "average_precision": peer.average_precision_score(y, p, sample_weight=w),
        "pr_auc": peer.auc(recall, precision),
        "ks": np.abs(tpr - fpr).max(),
        "eer": fpr[place - 1] + step * (fpr[place] - fpr[place - 1]),
        "f2": f2[real].max(),
        "precision at 0.6": precision[real][recall[real] >= 0.6].max(),
        "recall at 0.6": recall[precision >= 0.6].max(),
    }
