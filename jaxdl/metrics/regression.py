"""How far predicted numbers are from the true ones: absolute, squared, robust, of a quantile, the largest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight, same_shape
from jaxdl.metrics.lanes import weighted_sums
from jaxdl.metrics.means import MeanOf
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.moments import check_last_axis, check_outputs
from jaxdl.metrics.quantities import Extremum, extremum, larger, largest, no_extremum

Multioutput = Literal["uniform_average", "raw_values", "variance_weighted"]


@dataclass(frozen=True)
class Errors:
    """Sums of |e|, e^2, |target| and 1 with e = preds - target: the statistic of MAE, MSE, RMSE, ND and NRMSE.

    preds and target of one shape [...], any real dtype. outputs: None, and every number of [...] is an example; or k,
    and the last axis of [..., k] holds k outputs with sums of their own. Squares are float32, their sums two-float.
    """

    outputs: int | None = None
    name: str = field(default="errors", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        check_outputs(self.outputs, self.name)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state, Sums [4, outputs]."""
        return sums.zeros((*batch_shape, 4, self.outputs or 1))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch of numbers [...], or [..., outputs]."""
        preds, target = as_float(preds, f"{self.name}: preds"), as_float(target, f"{self.name}: target")
        same_shape(preds, target, self.name)
        outputs = check_last_axis(target.shape, self.outputs, self.name)
        weights = as_weight(target.shape, weight, mask, self.name)
        return sums.add(state, weighted_sums(_error_terms, (preds, target), weights, outputs))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def means(self, state: sums.Sums) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Mean |e|, mean e^2 and mean |target|, float32 [outputs] each; NaN when nothing was counted."""
        count = sums.Sums(state.hi[..., 3, :], state.lo[..., 3, :])
        absolute, squared, size = (
            sums.ratio(sums.Sums(state.hi[..., i, :], state.lo[..., i, :]), count) for i in range(3)
        )
        return absolute, squared, size


def _error_terms(preds: jax.Array, target: jax.Array) -> list[jax.Array]:
    error = preds - target
    return [jnp.abs(error), error * error, jnp.abs(target)]


def over_outputs(values: jax.Array, outputs: int | None, multioutput: Multioutput) -> jax.Array:
    """Values [outputs] as asked: their mean [], or one for each output."""
    if outputs is None:
        return values[..., 0]
    return values if multioutput == "raw_values" else jnp.mean(values, axis=-1)


def check_multioutput(given: str, name: str, *, variance: bool = False) -> None:
    """Refuses a way of putting outputs together that is not known."""
    known = ("uniform_average", "raw_values", *(("variance_weighted",) if variance else ()))
    if given not in known:
        raise ValueError(f"{name}: multioutput must be one of {', '.join(known)}; it is {given!r}")


@dataclass(frozen=True)
class MeanAbsoluteError(Derived):
    """The mean distance: sum(weight * |preds - target|) / sum(weight).

    preds and target of one shape, any real dtype. outputs=None: every number of [...] is an example. outputs=k: the
    last axis of [..., k] holds k outputs; the value is the mean over them, or with multioutput="raw_values" one each.
    NaN when nothing was counted, or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_absolute_error
    >>> float(mean_absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "mae"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Errors:
        """Sums of errors, which MAE, MSE, RMSE, ND and NRMSE share."""
        return Errors(self.outputs, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        return over_outputs(self.statistic.means(state)[0], self.outputs, self.multioutput)


@dataclass(frozen=True)
class MeanSquaredError(Derived):
    """The mean squared distance: sum(weight * (preds - target)^2) / sum(weight).

    Shapes and outputs as in MeanAbsoluteError. Squares are float32, their sum is two-float. NaN when nothing was
    counted, or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_squared_error
    >>> float(mean_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "mse"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Errors:
        """Sums of errors, which MAE, MSE, RMSE, ND and NRMSE share."""
        return Errors(self.outputs, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        return over_outputs(self.statistic.means(state)[1], self.outputs, self.multioutput)


@dataclass(frozen=True)
class RootMeanSquaredError(Derived):
    """The root of the mean squared distance, in the unit of the target.

    sqrt(sum(weight * (preds - target)^2) / sum(weight)). Shapes as in MeanAbsoluteError. With outputs=k it is the mean
    of k roots, as scikit-learn's; with outputs=None one root over all numbers.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import root_mean_squared_error
    >>> float(root_mean_squared_error(jnp.array([1.0, 1.0]), jnp.array([4.0, 4.0])))
    3.0
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "rmse"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Errors:
        """Sums of errors, which MAE, MSE, RMSE, ND and NRMSE share."""
        return Errors(self.outputs, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        return over_outputs(jnp.sqrt(self.statistic.means(state)[1]), self.outputs, self.multioutput)


def errors(preds: Any, target: Any, name: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """preds, target and preds - target as float32 of one shape."""
    preds, target = as_float(preds, f"{name}: preds"), as_float(target, f"{name}: target")
    same_shape(preds, target, name)
    return preds, target, preds - target


def positive(value: float, what: str) -> None:
    """Refuses a parameter that must be above 0."""
    if not value > 0:
        raise ValueError(f"{what} must be above 0; it is {value!r}")


@dataclass(frozen=True)
class HuberLoss(MeanOf):
    """The mean of e^2 / 2 where |e| <= delta, and of delta (|e| - delta / 2) beyond it (Huber, 1964).

    preds and target of one shape [...]; e = preds - target.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import huber_loss
    >>> float(huber_loss(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0]), delta=1.0))
    1.3125
    """

    delta: float = 1.0
    name: str = "huber"

    def __post_init__(self) -> None:
        positive(self.delta, f"{self.name}: delta")

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        size, delta = jnp.abs(errors(preds, target, self.name)[2]), jnp.float32(self.delta)
        half = jnp.float32(0.5)
        return jnp.where(size <= delta, half * size * size, delta * (size - half * delta)), None


@dataclass(frozen=True)
class LogCosh(MeanOf):
    """The mean of log(cosh(preds - target)): as e^2 / 2 near 0 and |e| - log 2 far from it.

    preds and target of one shape [...].
    """

    name: str = "log_cosh"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        size = jnp.abs(errors(preds, target, self.name)[2])
        # cosh(e) - 1 = 2 sinh(e / 2)^2 keeps small errors; exp(-2|e|) cannot overflow for large ones
        half = jnp.sinh(jnp.minimum(size, jnp.float32(1)) * jnp.float32(0.5))
        near = jnp.log1p(jnp.float32(2) * half * half)
        far = size + jnp.log1p(jnp.exp(jnp.float32(-2) * size)) - jnp.log(jnp.float32(2))
        return jnp.where(size < jnp.float32(1), near, far), None


def pinball(error: jax.Array, quantile: jax.Array) -> jax.Array:
    """max(q * e, (q - 1) * e) with e = target - preds."""
    return jnp.maximum(quantile * error, (quantile - jnp.float32(1)) * error)


@dataclass(frozen=True)
class PinballLoss(MeanOf):
    """The mean loss of a predicted quantile: q (target - preds) above it, (1 - q) (preds - target) below.

    preds and target of one shape [...]; 0 < quantile < 1; at 0.5 it is half the mean absolute error (Koenker and
    Bassett, 1978). For several quantiles at once, preds [..., quantiles]: `QuantileLoss`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import pinball_loss
    >>> float(pinball_loss(jnp.array([0.0, 0.0]), jnp.array([1.0, -1.0]), quantile=0.75))
    0.5
    """

    quantile: float = 0.5
    name: str = "pinball"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"{self.name}: quantile must be between 0 and 1; it is {self.quantile!r}")

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        return pinball(-errors(preds, target, self.name)[2], jnp.float32(self.quantile)), None


@dataclass(frozen=True)
class MaxError:
    """The largest |preds - target| among examples of weight above 0.

    preds and target of one shape [...]. NaN when nothing was counted, or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import max_error
    >>> float(max_error(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])))
    3.0
    """

    name: str = "max_error"
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> Extremum:
        """The empty state."""
        return no_extremum(batch_shape)

    def update(self, state: Extremum, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Extremum:
        """Adds a batch of numbers [...]."""
        size = jnp.abs(errors(preds, target, self.name)[2])
        return larger(state, largest(size, as_weight(size.shape, weight, mask, self.name)))

    def merge(self, a: Extremum, b: Extremum) -> Extremum:
        """Both in one."""
        return larger(a, b)

    def compute(self, state: Extremum) -> jax.Array:
        """float32 []."""
        return extremum(state)


mean_absolute_error = one_call(MeanAbsoluteError, "mean_absolute_error")
mean_squared_error = one_call(MeanSquaredError, "mean_squared_error")
root_mean_squared_error = one_call(RootMeanSquaredError, "root_mean_squared_error")
huber_loss = one_call(HuberLoss, "huber_loss")
log_cosh = one_call(LogCosh, "log_cosh")
pinball_loss = one_call(PinballLoss, "pinball_loss")
max_error = one_call(MaxError, "max_error")
