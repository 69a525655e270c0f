"""Metrics: one pure, mergeable record each, and one function each; jax and numpy only."""

from __future__ import annotations

from jaxdl.metrics.accuracy import Accuracy, accuracy
from jaxdl.metrics.auc import ROCAUC, roc_auc
from jaxdl.metrics.collection import Collection
from jaxdl.metrics.confusion import ConfusionMatrix, confusion_matrix
from jaxdl.metrics.groups import By, by, group_ids
from jaxdl.metrics.means import Mean, mean
from jaxdl.metrics.metric import Metric
from jaxdl.metrics.regression import (
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
    mean_absolute_error,
    mean_squared_error,
    root_mean_squared_error,
)
from jaxdl.metrics.resample import Interval, bootstrap, confidence_interval
from jaxdl.metrics.show import confusion_plot, confusion_table

__all__ = [
    "ROCAUC",
    "Accuracy",
    "By",
    "Collection",
    "ConfusionMatrix",
    "Interval",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "RootMeanSquaredError",
    "accuracy",
    "bootstrap",
    "by",
    "confidence_interval",
    "confusion_matrix",
    "confusion_plot",
    "confusion_table",
    "group_ids",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "roc_auc",
    "root_mean_squared_error",
]
