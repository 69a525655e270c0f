"""How good a forecast of points is: errors beside the size of the series, or beside a naive forecast of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_mask, as_weight
from jaxdl.metrics.lanes import weighted_sums
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.regression import Errors, errors


@dataclass(frozen=True)
class NormalizedDeviation(Derived):
    """ND = sum w |preds - target| / sum w |target|: the weighted absolute percentage error of all series together.

    preds and target of one shape [...]. NaN where all targets are 0. Shares its state with the mean absolute error.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import normalized_deviation
    >>> float(normalized_deviation(jnp.array([1.0, 4.0]), jnp.array([2.0, 2.0])))
    0.75
    """

    name: str = "nd"

    @property
    def statistic(self) -> Errors:
        """Sums of errors."""
        return Errors(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        absolute, size = (sums.Sums(state.hi[..., i, 0], state.lo[..., i, 0]) for i in (0, 2))
        return sums.ratio(absolute, size)


@dataclass(frozen=True)
class NormalizedRMSE(Derived):
    """NRMSE = sqrt(mean (preds - target)^2) / mean |target|, over all series together.

    preds and target of one shape [...]. NaN where all targets are 0. Shares its state with the mean squared error.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import normalized_rmse
    >>> float(normalized_rmse(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])))
    0.5
    """

    name: str = "nrmse"

    @property
    def statistic(self) -> Errors:
        """Sums of errors."""
        return Errors(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        _, squared, size = self.statistic.means(state)
        empty = size == 0
        value = jnp.sqrt(squared) / jnp.where(empty, jnp.ones_like(size), size)
        return jnp.where(empty, jnp.full_like(value, jnp.nan), value)[..., 0]


def over_scale(values: jax.Array, scale: jax.Array) -> jax.Array:
    """values / scale; NaN where the scale is not above 0."""
    fits = scale > 0
    return jnp.where(fits, values / jnp.where(fits, scale, jnp.ones_like(scale)), jnp.full_like(values, jnp.nan))


def as_scale(scale: Any, shape: tuple[int, ...], name: str) -> jax.Array:
    """The scale as float32 of target's shape; it broadcasts from the left: [series] over [series, steps]."""
    array = as_float(scale, f"{name}: scale")
    if array.shape != shape[: array.ndim]:
        raise ValueError(
            f"{name}: scale has shape {array.shape}, which does not match target's {shape} from the left; give one for "
            f"each series, {shape[:1]}, as seasonal_error(history, season=...) does"
        )
    return jnp.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)


@dataclass(frozen=True)
class ScaledErrors:
    """Sums of |e| / scale, (e / scale)^2 and 1 with e = preds - target: the statistic of MASE and RMSSE.

    preds and target of one shape, [series, steps] or [...]; scale, an input of `update`, broadcasts from the left:
    [series]. Where a scale of weight above 0 is not above 0, values are NaN: a series that was constant has no naive
    error; leave it out by weight=scale > 0.
    """

    name: str = field(default="scaled_errors", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "scale")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state, Sums [3]."""
        return sums.zeros((*batch_shape, 3))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any, scale: Any, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds forecasts and targets [...] with the scale of each series."""
        _, target, error = errors(preds, target, self.name)
        ratio = over_scale(jnp.abs(error), as_scale(scale, target.shape, self.name))
        weights = as_weight(target.shape, weight, mask, self.name)
        found = weighted_sums(lambda x: [x, x * x], (ratio,), weights)
        return sums.add(state, sums.Sums(found.hi[:, 0], found.lo[:, 0]))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)


@dataclass(frozen=True)
class MASE(Derived):
    """The mean absolute scaled error: mean(|preds - target| / scale); below 1 beats the naive forecast on its history.

    scale: the mean absolute error of the seasonal naive forecast over the history of the series,
    `seasonal_error(history, season=12)` (Hyndman and Koehler, 2006). preds, target: [series, steps]; scale: [series].
    Every step of every series counts the same; with horizons of different lengths weigh steps by 1 / length to count
    series the same, as GluonTS does.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mase, seasonal_error
    >>> scale = seasonal_error(jnp.array([[1.0, 3.0, 1.0, 3.0]]), season=1)
    >>> float(mase(jnp.array([[2.0, 4.0]]), jnp.array([[1.0, 3.0]]), scale=scale))
    0.5
    """

    name: str = "mase"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "scale")  # type: ignore[assignment,misc]

    @property
    def statistic(self) -> ScaledErrors:
        """Sums of scaled errors."""
        return ScaledErrors(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 2))


@dataclass(frozen=True)
class RMSSE(Derived):
    """The root mean squared scaled error: sqrt(mean((preds - target)^2 / scale^2)), as in the M5 competition.

    scale: the root mean squared error of the naive forecast, `seasonal_error(history, season=1, squared=True)`. Shapes
    as in MASE, whose state it shares where the scales are the same.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import rmsse
    >>> float(rmsse(jnp.array([[2.0, 4.0]]), jnp.array([[1.0, 3.0]]), scale=jnp.array([2.0])))
    0.5
    """

    name: str = "rmsse"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "scale")  # type: ignore[assignment,misc]

    @property
    def statistic(self) -> ScaledErrors:
        """Sums of scaled errors."""
        return ScaledErrors(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        return jnp.sqrt(sums.ratio(sums.pick(state, 1), sums.pick(state, 2)))


def seasonal_error(history: Any, *, season: int = 1, mask: Any = None, squared: bool = False) -> jax.Array:
    """The error of the seasonal naive forecast over a history: mean |y[t] - y[t - season]|, the scale of MASE.

    history: [..., steps], any real dtype; the value is float32 [...], one for each series. mask: bool of history's
    shape, False where a series has no value (padding); a step counts where both of its values are there. squared=True:
    the root of the mean square, the scale of RMSSE. NaN where no step counts. Runs eagerly or under jit.

    Raises:
        ValueError: when the history has no more steps than a season.
    """
    values = as_float(history, "seasonal_error: history")
    if isinstance(season, bool) or not isinstance(season, int) or season < 1:
        raise ValueError(f"seasonal_error: season must be a positive integer; it is {season!r}")
    if values.ndim == 0 or values.shape[-1] <= season:
        raise ValueError(
            f"seasonal_error: a history of shape {values.shape} has no two values {season} steps apart; give more than "
            f"{season} steps along the last axis, or season=1"
        )
    gaps = jnp.abs(values[..., season:] - values[..., :-season])
    gaps = gaps * gaps if squared else gaps
    if mask is None:
        present = jnp.ones(gaps.shape, jnp.bool_)
    else:
        given = as_mask(values.shape, mask, "seasonal_error")
        present = given[..., season:] & given[..., :-season]
    gaps = jnp.where(present, gaps, jnp.zeros_like(gaps))
    mean = sums.ratio(sums.total(gaps), sums.total(present.astype(jnp.float32)))
    return jnp.sqrt(mean) if squared else mean


normalized_deviation = one_call(NormalizedDeviation, "normalized_deviation")
normalized_rmse = one_call(NormalizedRMSE, "normalized_rmse")
mase = one_call(MASE, "mase")
rmsse = one_call(RMSSE, "rmsse")
