"""Transforms of tables: a setting is fitted to a table; the fitted record is applied and saved with the model."""

from __future__ import annotations

from jaxdl.data.transforms.encode import FittedOneHot, FittedScale, MinMax, OneHot, Standardise
from jaxdl.data.transforms.features import FittedFeatures, tabular_features
from jaxdl.data.transforms.impute import FittedImpute, Impute
from jaxdl.data.transforms.outliers import FittedOutliers, Outliers
from jaxdl.data.transforms.pipeline import FittedPipeline, Pipeline
from jaxdl.data.transforms.records import Fitted, Transform, fitted_from_dict
from jaxdl.data.transforms.rows import Deduplicate, FittedDeduplicate, FittedJoin, Join, join

__all__ = [
    "Deduplicate",
    "Fitted",
    "FittedDeduplicate",
    "FittedFeatures",
    "FittedImpute",
    "FittedJoin",
    "FittedOneHot",
    "FittedOutliers",
    "FittedPipeline",
    "FittedScale",
    "Impute",
    "Join",
    "MinMax",
    "OneHot",
    "Outliers",
    "Pipeline",
    "Standardise",
    "Transform",
    "fitted_from_dict",
    "join",
    "tabular_features",
]
