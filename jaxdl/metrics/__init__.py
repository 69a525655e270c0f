"""Metrics: one pure, mergeable record each; jax and numpy only."""

from __future__ import annotations

from jaxdl.metrics.accuracy import Accuracy
from jaxdl.metrics.confusion import ConfusionMatrix
from jaxdl.metrics.means import Mean
from jaxdl.metrics.metric import Metric

__all__ = ["Accuracy", "ConfusionMatrix", "Mean", "Metric"]
