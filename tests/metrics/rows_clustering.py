"""Rows of the table of metrics: clusterings."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_classes = _draw.integers(0, 3, N).astype(np.int32)
_clusters = np.where(_draw.random(N) < 0.4, _draw.integers(0, 5, N), _classes).astype(np.int32) - 1  # -1: no cluster
_points = (_draw.normal(size=(N, 2)) + 50 + 2 * _classes[:, None]).astype(np.float32)
LABELS = {"preds": _clusters, "target": _classes}
POINTS = {"preds": _clusters[:24], "points": _points[:24]}
_few = {"num_clusters": 4, "features": 2, "capacity": 72}

ROWS = [
    Row("rand index", metrics.RandIndex(3, 4), LABELS),
    Row("adjusted rand index", metrics.AdjustedRandIndex(3, 4), LABELS, smoke=True),
    Row("fowlkes-mallows", metrics.FowlkesMallows(3, 4), LABELS),
    Row("mutual information", metrics.MutualInformation(3, 4), LABELS),
    Row("normalised mutual information", metrics.NormalizedMutualInformation(3, 4, average="geometric"), LABELS),
    Row("adjusted mutual information", metrics.AdjustedMutualInformation(3, 4), LABELS),
    Row("homogeneity", metrics.Homogeneity(3, 4), LABELS),
    Row("completeness", metrics.Completeness(3, 4), LABELS),
    Row("v-measure", metrics.VMeasure(3, 4, beta=2.0), LABELS),
    Row("silhouette", metrics.Silhouette(**_few), POINTS),
    Row("davies-bouldin", metrics.DaviesBouldin(**_few), POINTS),
    Row("within-cluster sum of squares", metrics.WithinClusterSumOfSquares(4, 2), POINTS),
    Row("calinski-harabasz", metrics.CalinskiHarabasz(4, 2), POINTS),
]
