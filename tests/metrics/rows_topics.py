"""Rows of the table of metrics: topics."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import Row, draw

_draw = draw()
_ids = np.minimum(_draw.geometric(0.12, (36, 12)) - 2, 20).astype(np.int32)  # -1 is padding
DOCUMENTS = {"preds": _ids}
COUNTS = {"preds": np.stack([np.bincount(row[row >= 0], minlength=21) for row in _ids]).astype(np.float32)}
TOPICS = {"preds": _draw.integers(-1, 15, (36, 5)).astype(np.int32)}
LIKELIHOODS = {
    "preds": (-_draw.random(36) * 300).astype(np.float32),
    "target": _draw.integers(1, 60, 36).astype(np.float32),
}
_topics = [[0, 1, 4], [2, 3, 6]]

ROWS = [
    Row("umass coherence", metrics.UMassCoherence(_topics), DOCUMENTS, smoke=True),
    Row("npmi coherence", metrics.NPMICoherence(_topics), DOCUMENTS),
    Row("npmi coherence of counts", metrics.NPMICoherence(_topics, documents="counts"), COUNTS),
    Row("topic diversity", metrics.TopicDiversity(14), TOPICS),
    Row("per-word log likelihood", metrics.PerWordLogLikelihood(), LIKELIHOODS),
    Row("topic perplexity", metrics.TopicPerplexity(), LIKELIHOODS),
]
