"""Metrics: one pure, mergeable record each, and one function each; jax and numpy only."""

from __future__ import annotations

from jaxdl.metrics.accuracy import Accuracy, accuracy
from jaxdl.metrics.auc import ROCAUC, roc_auc
from jaxdl.metrics.collection import Collection
from jaxdl.metrics.confusion import ConfusionMatrix, confusion_matrix
from jaxdl.metrics.groups import By, by, group_ids
from jaxdl.metrics.means import Mean, mean
from jaxdl.metrics.metric import Metric
from jaxdl.metrics.queries import PaddedQueries, pad_queries
from jaxdl.metrics.ranking import (
    DCG,
    NDCG,
    FallOut,
    HitRate,
    MeanReciprocalRank,
    PrecisionAtK,
    RecallAtK,
    RetrievalMAP,
    RPrecision,
    dcg,
    fall_out,
    hit_rate,
    mean_reciprocal_rank,
    ndcg,
    precision_at_k,
    r_precision,
    recall_at_k,
    retrieval_map,
)
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
    "DCG",
    "NDCG",
    "ROCAUC",
    "Accuracy",
    "By",
    "Collection",
    "ConfusionMatrix",
    "FallOut",
    "HitRate",
    "Interval",
    "Mean",
    "MeanAbsoluteError",
    "MeanReciprocalRank",
    "MeanSquaredError",
    "Metric",
    "PaddedQueries",
    "PrecisionAtK",
    "RPrecision",
    "RecallAtK",
    "RetrievalMAP",
    "RootMeanSquaredError",
    "accuracy",
    "bootstrap",
    "by",
    "confidence_interval",
    "confusion_matrix",
    "confusion_plot",
    "confusion_table",
    "dcg",
    "fall_out",
    "group_ids",
    "hit_rate",
    "mean",
    "mean_absolute_error",
    "mean_reciprocal_rank",
    "mean_squared_error",
    "ndcg",
    "pad_queries",
    "precision_at_k",
    "r_precision",
    "recall_at_k",
    "retrieval_map",
    "roc_auc",
    "root_mean_squared_error",
]
