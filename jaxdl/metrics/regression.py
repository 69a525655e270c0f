"""How far predicted numbers are from the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight, same_shape
from jaxdl.metrics.means import add_mean, compute_mean
from jaxdl.metrics.metric import Reduce


def _errors(preds: Any, target: Any, weight: Any, mask: Any, name: str) -> tuple[jax.Array, jax.Array | None]:
    """preds - target, float32 [...], and the weights of the same shape."""
    preds, target = as_float(preds, f"{name}: preds"), as_float(target, f"{name}: target")
    same_shape(preds, target, name)
    return preds - target, as_weight(target.shape, weight, mask, name)


@dataclass(frozen=True)
class MeanSquaredError:
    """sum(weight * (preds - target)^2) / sum(weight); preds and target of one shape [...], any real dtype.

    Squares are float32, their sum is exact to 1e-14. NaN when nothing was counted, or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_squared_error
    >>> float(mean_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0
    """

    name: str = "mse"
    reduce: ClassVar[Reduce] = "sum"

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: two sums, of weighted squares and of weights."""
        return sums.zeros((*batch_shape, 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch of numbers [...]."""
        errors, weights = _errors(preds, target, weight, mask, self.name)
        return add_mean(state, errors * errors, weights)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean squared error, float32 []."""
        return compute_mean(state)


@dataclass(frozen=True)
class RootMeanSquaredError:
    """sqrt(sum(weight * (preds - target)^2) / sum(weight)); as MeanSquaredError, in the unit of the target.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import root_mean_squared_error
    >>> float(root_mean_squared_error(jnp.array([1.0, 1.0]), jnp.array([4.0, 4.0])))
    3.0
    """

    name: str = "rmse"
    reduce: ClassVar[Reduce] = "sum"

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: two sums, of weighted squares and of weights."""
        return sums.zeros((*batch_shape, 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch of numbers [...]."""
        errors, weights = _errors(preds, target, weight, mask, self.name)
        return add_mean(state, errors * errors, weights)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The root of the mean squared error, float32 []."""
        return jnp.sqrt(compute_mean(state))


@dataclass(frozen=True)
class MeanAbsoluteError:
    """sum(weight * |preds - target|) / sum(weight); preds and target of one shape [...], any real dtype.

    NaN when nothing was counted, or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_absolute_error
    >>> float(mean_absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0
    """

    name: str = "mae"
    reduce: ClassVar[Reduce] = "sum"

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: two sums, of weighted distances and of weights."""
        return sums.zeros((*batch_shape, 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch of numbers [...]."""
        errors, weights = _errors(preds, target, weight, mask, self.name)
        return add_mean(state, jnp.abs(errors), weights)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean absolute error, float32 []."""
        return compute_mean(state)


mean_squared_error = one_call(MeanSquaredError, "mean_squared_error")
root_mean_squared_error = one_call(RootMeanSquaredError, "root_mean_squared_error")
mean_absolute_error = one_call(MeanAbsoluteError, "mean_absolute_error")
