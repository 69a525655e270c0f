"""Rows of the table of metrics: rankings."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import Row, draw

_draw = draw()
_scores = _draw.normal(size=(24, 7)).round(0).astype(np.float32)  # rounded: with ties
_relevance = np.maximum(_draw.integers(-1, 4, size=(24, 7)), 0).astype(np.float32)
_relevance[:, 0], _relevance[:, 1] = 0, 1  # every query has a relevant and an irrelevant document
QUERIES = {"preds": _scores, "target": _relevance}

ROWS = [
    Row("ndcg", metrics.NDCG(), QUERIES, smoke=True),
    Row("dcg", metrics.DCG(), QUERIES),
    Row("mrr at 3", metrics.MeanReciprocalRank(k=3), QUERIES),
    Row("retrieval map at 3", metrics.RetrievalMAP(k=3), QUERIES),
    Row("precision at 3", metrics.PrecisionAtK(k=3), QUERIES),
    Row("recall at 3", metrics.RecallAtK(k=3), QUERIES),
    Row("hit rate at 3", metrics.HitRate(k=3), QUERIES),
    Row("r-precision", metrics.RPrecision(), QUERIES),
    Row("fall-out at 3", metrics.FallOut(k=3), QUERIES),
]
