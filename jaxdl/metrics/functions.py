"""Every metric as one call, for data that is already at hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.accuracy import Accuracy
from jaxdl.metrics.auc import ROCAUC
from jaxdl.metrics.confusion import ConfusionMatrix, Normalize
from jaxdl.metrics.inputs import as_array, as_ids
from jaxdl.metrics.means import Mean
from jaxdl.metrics.metric import Metric
from jaxdl.metrics.regression import MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError


def accuracy(preds: Any, target: Any, *, top_k: int = 1, weight: Any = None, mask: Any = None) -> jax.Array:
    """The share of right classes; see `Accuracy`. float32 []."""
    return _value(Accuracy(top_k=top_k), preds, target, weight, mask)


def mean(values: Any, *, weight: Any = None, mask: Any = None) -> jax.Array:
    """The weighted mean of `values` [...]; see `Mean`. float32 []."""
    return _value(Mean(), values, None, weight, mask)


def confusion_matrix(
    preds: Any,
    target: Any,
    *,
    num_classes: int | None = None,
    normalize: Normalize | None = None,
    weight: Any = None,
    mask: Any = None,
) -> jax.Array:
    """float32 [classes, classes], row = true class; see `ConfusionMatrix`.

    Without `num_classes` it is the last axis of scores, or one more than the largest id (at least 2), which cannot be
    known inside jit: there it must be given.
    """
    if num_classes is None:
        num_classes = _classes(as_array(preds, "confusion_matrix: preds"), as_ids(target, "confusion_matrix: target"))
    return _value(ConfusionMatrix(num_classes, normalize=normalize), preds, target, weight, mask)


def roc_auc(preds: Any, target: Any, *, weight: Any = None, mask: Any = None) -> jax.Array:
    """The exact area under the ROC curve of scores [...] or [..., 2]; see `ROCAUC`. float32 []."""
    count = as_array(target, "roc_auc: target").size
    return _value(ROCAUC(capacity=max(1, count)), preds, target, weight, mask)


def mean_squared_error(preds: Any, target: Any, *, weight: Any = None, mask: Any = None) -> jax.Array:
    """The mean squared difference; see `MeanSquaredError`. float32 []."""
    return _value(MeanSquaredError(), preds, target, weight, mask)


def root_mean_squared_error(preds: Any, target: Any, *, weight: Any = None, mask: Any = None) -> jax.Array:
    """The root of the mean squared difference; see `RootMeanSquaredError`. float32 []."""
    return _value(RootMeanSquaredError(), preds, target, weight, mask)


def mean_absolute_error(preds: Any, target: Any, *, weight: Any = None, mask: Any = None) -> jax.Array:
    """The mean absolute difference; see `MeanAbsoluteError`. float32 []."""
    return _value(MeanAbsoluteError(), preds, target, weight, mask)


@partial(jax.jit, static_argnums=0)
def _compiled(metric: Metric, preds: Any, target: Any, weight: Any, mask: Any) -> Any:
    return metric.compute(metric.update(metric.init(), preds=preds, target=target, weight=weight, mask=mask))


def _value(metric: Metric, preds: Any, target: Any, weight: Any, mask: Any) -> Any:
    arguments = {"preds": preds, "target": target, "weight": weight, "mask": mask}
    arrays = [None if v is None else as_array(v, f"{metric.name}: {k}") for k, v in arguments.items()]
    return _compiled(metric, *arrays)


def _classes(preds: jax.Array, target: jax.Array) -> int:
    if preds.ndim == target.ndim + 1:
        return int(preds.shape[-1])
    ids = as_ids(preds, "confusion_matrix: preds")
    if isinstance(ids, jax.core.Tracer) or isinstance(target, jax.core.Tracer):
        raise ValueError("confusion_matrix: inside jit the number of classes must be given: num_classes=")
    largest = [int(np.asarray(jnp.max(array))) for array in (ids, target) if array.size]
    return max([1, *largest]) + 1
