"""How good a forecast of quantiles is, over series and time steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.lanes import weighted_sums
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.regression import pinball

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def _row(state: sums.Sums, place: int | slice) -> sums.Sums:
    return sums.Sums(state.hi[..., place], state.lo[..., place])


def _flat(found: sums.Sums) -> sums.Sums:
    """Sums [terms, 1] -> [terms]."""
    return sums.Sums(found.hi[:, 0], found.lo[:, 0])


def _ratios(above: sums.Sums, below: sums.Sums) -> jax.Array:
    """above [k] / below [] in float32 [k]."""
    top, bottom = sums.value(above), sums.value(below)[..., None]
    return jnp.where(
        bottom == 0, jnp.full_like(top, jnp.nan), top / jnp.where(bottom == 0, jnp.ones_like(bottom), bottom)
    )


@dataclass(frozen=True)
class QuantileSums:
    """Sums of pinball losses, and of how often the target is not above the forecast, for each quantile.

    preds: [..., quantiles], in the order of `quantiles`; target: [...], any real dtype. State: Sums
    [2 * quantiles + 2]: losses, covered weights, sum of |target|, sum of weights. A forecast that is NaN makes all
    values NaN. Quantiles that cross are taken as they are.
    """

    quantiles: tuple[float, ...] = DECILES
    name: str = field(default="quantile_sums", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(float(q) for q in self.quantiles))
        if not self.quantiles or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"{self.name}: quantiles must be between 0 and 1; they are {self.quantiles!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 2 * len(self.quantiles) + 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds forecasts [..., quantiles] of targets [...]; weight and mask broadcast from the left over target."""
        preds, target = with_axis(preds, target, len(self.quantiles), self.name)
        weights = as_weight(target.shape, weight, mask, self.name)
        columns = tuple(preds[..., i] for i in range(len(self.quantiles)))

        def terms(target: jax.Array, *columns: jax.Array) -> list[jax.Array]:
            losses = [pinball(target - c, jnp.float32(q)) for c, q in zip(columns, self.quantiles, strict=True)]
            # a NaN forecast must not look like one that was not reached
            covered = [jnp.where(jnp.isnan(target - c), target - c, (target <= c).astype(jnp.float32)) for c in columns]
            return [*losses, *covered, jnp.abs(target)]

        return sums.add(state, _flat(weighted_sums(terms, (target, *columns), weights)))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def losses(self, state: sums.Sums) -> sums.Sums:
        """Sums of the losses [quantiles]."""
        return _row(state, slice(None, len(self.quantiles)))

    def covered(self, state: sums.Sums) -> sums.Sums:
        """Sums of the weights that were covered [quantiles]."""
        return _row(state, slice(len(self.quantiles), 2 * len(self.quantiles)))


def with_axis(preds: Any, target: Any, size: int, name: str) -> tuple[jax.Array, jax.Array]:
    preds, target = as_float(preds, f"{name}: preds"), as_float(target, f"{name}: target")
    if preds.shape != (*target.shape, size):
        raise ValueError(
            f"{name}: preds have shape {preds.shape} and target {target.shape}; forecasts have one more axis, the "
            f"last: {(*target.shape, size)}"
        )
    return preds, target


Average = Literal["mean"]


def _averaged(values: jax.Array, average: Average | None) -> jax.Array:
    return values if average is None else jnp.mean(values, axis=-1)


def _check_average(average: str | None, name: str) -> None:
    if average not in (None, "mean"):
        raise ValueError(f"{name}: average must be 'mean' or None (one value for each quantile); it is {average!r}")


@dataclass(frozen=True)
class QuantileLoss(Derived):
    """The mean pinball loss of forecast quantiles: q (z - f) where z is above f, else (1 - q) (f - z).

    preds: f [..., quantiles]; target: z [...]. average="mean": over quantiles, []; None: one for each, [quantiles].
    Twice the mean over dense quantiles is the CRPS.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import quantile_loss
    >>> forecast = jnp.array([[0.0, 1.0, 3.0], [0.0, 2.0, 4.0]])
    >>> quantile_loss(forecast, jnp.array([2.0, 2.0]), quantiles=(0.25, 0.5, 0.75), average=None).tolist()
    [0.5, 0.25, 0.375]
    """

    quantiles: tuple[float, ...] = DECILES
    average: Average | None = "mean"
    name: str = "quantile_loss"

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", self.statistic.quantiles)
        _check_average(self.average, self.name)

    @property
    def statistic(self) -> QuantileSums:
        """Sums for each quantile."""
        return QuantileSums(self.quantiles, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [], or [quantiles] with average=None."""
        return _averaged(_ratios(self.statistic.losses(state), _row(state, -1)), self.average)


@dataclass(frozen=True)
class WeightedQuantileLoss(Derived):
    """wQL[q] = 2 sum (q max(z - f, 0) + (1 - q) max(f - z, 0)) / sum |z|: DeepAR's wQuantileLoss, and their mean.

    Sums run over all series and steps (and carry the weights). preds: f [..., quantiles]; target: z [...].
    average="mean": mean_wQuantileLoss, []; None: wQuantileLoss of each, [quantiles]. NaN where all targets are 0.
    Shares its state with QuantileLoss and QuantileCoverage of the same quantiles.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import weighted_quantile_loss
    >>> forecast = jnp.array([[0.0, 1.0, 3.0], [0.0, 2.0, 4.0]])
    >>> float(weighted_quantile_loss(forecast, jnp.array([2.0, 2.0]), quantiles=(0.25, 0.5, 0.75)))
    0.375
    """

    quantiles: tuple[float, ...] = DECILES
    average: Average | None = "mean"
    name: str = "weighted_quantile_loss"

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", self.statistic.quantiles)
        _check_average(self.average, self.name)

    @property
    def statistic(self) -> QuantileSums:
        """Sums for each quantile."""
        return QuantileSums(self.quantiles, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [], or [quantiles] with average=None."""
        values = _ratios(self.statistic.losses(state), _row(state, -2))
        return _averaged(values + values, self.average)


@dataclass(frozen=True)
class QuantileCoverage(Derived):
    """The share of targets that are not above the forecast quantile: q itself for a calibrated forecast.

    preds: [..., quantiles]; target: [...]. Value: [quantiles].

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import quantile_coverage
    >>> forecast = jnp.array([[0.0, 1.0, 3.0], [0.0, 2.0, 4.0]])
    >>> quantile_coverage(forecast, jnp.array([2.0, 2.0]), quantiles=(0.25, 0.5, 0.75)).tolist()
    [0.0, 0.5, 1.0]
    """

    quantiles: tuple[float, ...] = DECILES
    name: str = "quantile_coverage"

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", self.statistic.quantiles)

    @property
    def statistic(self) -> QuantileSums:
        """Sums for each quantile."""
        return QuantileSums(self.quantiles, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [quantiles]."""
        return _ratios(self.statistic.covered(state), _row(state, -1))


quantile_loss = one_call(QuantileLoss, "quantile_loss")
weighted_quantile_loss = one_call(WeightedQuantileLoss, "weighted_quantile_loss")
quantile_coverage = one_call(QuantileCoverage, "quantile_coverage")
