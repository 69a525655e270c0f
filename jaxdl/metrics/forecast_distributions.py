"""How good a forecast of a distribution is: the CRPS of samples and of a normal, and what intervals cover."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.forecast_points import as_scale, over_scale
from jaxdl.metrics.forecasting import with_axis
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.lanes import weighted_sums
from jaxdl.metrics.means import MeanOf
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.scores import order_of, score_of


@dataclass(frozen=True)
class CRPS(MeanOf):
    """The mean continuous ranked probability score of forecast samples: E|X - z| - E|X - X'| / 2; 0 is perfect.

    preds: samples [..., samples] of X; target: z [...]; in the unit of the target. With m samples the second term is
    sum over i, j of |x_i - x_j| / (2 m^2), the score of the empirical distribution (Gneiting and Raftery, 2007), or
    with fair=True / (2 m (m - 1)), which does not depend on m in the mean (Ferro, 2014) and needs two samples. One
    sample: the mean absolute error. Samples are sorted: O(m log m), and nothing of [samples, samples] is made.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import crps
    >>> float(crps(jnp.array([[1.0, 3.0]]), jnp.array([2.0])))
    0.5
    >>> float(crps(jnp.array([[1.0, 3.0]]), jnp.array([2.0]), fair=True))
    0.0
    """

    fair: bool = False
    name: str = "crps"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target = as_float(preds, f"{self.name}: preds"), as_float(target, f"{self.name}: target")
        if preds.shape[:-1] != target.shape or preds.ndim != target.ndim + 1:
            raise ValueError(
                f"{self.name}: preds have shape {preds.shape} and target {target.shape}; samples have one more axis, "
                f"the last: {(*target.shape, 'samples')}"
            )
        count = preds.shape[-1]
        if count < 1 + self.fair:
            raise ValueError(f"{self.name}: {count} samples are too few; give at least {1 + self.fair}")
        apart = preds - target[..., None]  # centred on the target: the two terms are of the size of the score
        ordered = score_of(lax.sort(order_of(apart), dimension=apart.ndim - 1, is_stable=False))
        # the sum of |x_i - x_j| over all pairs: the i-th smallest is added i times and taken off m - 1 - i times
        times = np.arange(1 - count, count, 2, dtype=np.float32)
        pairs = count * (count - 1) if self.fair else count * count
        share = (times / np.float32(pairs)).reshape((1,) * target.ndim + (count,))
        spread = jnp.sum(ordered * jnp.broadcast_to(share, ordered.shape), axis=-1)
        value = jnp.mean(jnp.abs(apart), axis=-1) - spread
        return jnp.where(jnp.any(jnp.isnan(apart), axis=-1), jnp.full_like(value, jnp.nan), value), None


@dataclass(frozen=True)
class GaussianCRPS(MeanOf):
    """The mean CRPS of normal forecasts: s (u (2 Phi(u) - 1) + 2 phi(u) - 1 / sqrt(pi)) with u = (z - m) / s.

    preds: [..., 2], mean m and standard deviation s (not its logarithm, not the variance); target: z [...]. s = 0 gives
    |z - m|, s below 0 NaN (Gneiting and Raftery, 2007).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import gaussian_crps
    >>> round(float(gaussian_crps(jnp.array([[0.0, 1.0]]), jnp.array([0.0]))), 6)
    0.233695
    """

    name: str = "gaussian_crps"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target = with_axis(preds, target, 2, self.name)
        apart, deviation = jnp.abs(target - preds[..., 0]), preds[..., 1]
        point = deviation == 0
        scale = jnp.where(point, jnp.ones_like(deviation), deviation)
        unit = apart / scale
        density = jnp.exp(jnp.float32(-0.5) * unit * unit) * np.float32(np.sqrt(2 / np.pi))
        # |z - m| outside of the product with s: far from a narrow forecast their quotient is no number of float32
        near = scale * (density - np.float32(1 / np.sqrt(np.pi)))
        value = apart * lax.erf(unit * np.float32(np.sqrt(0.5))) + near
        value = jnp.where(point, apart, value)
        return jnp.where(deviation < 0, jnp.full_like(value, jnp.nan), value), None


@dataclass(frozen=True)
class Intervals:
    """Sums over prediction intervals of what they cover, how wide they are and what they miss by.

    preds: [..., 2], lower and upper end; target: [...]. scaled=True: widths and misses are divided by scale, an input
    of `update` that broadcasts from the left ([series]). State: Sums [4]: covered, width, missed, weight. An interval
    whose ends are NaN makes all values NaN; one whose lower end is above the upper covers nothing.
    """

    scaled: bool = False
    name: str = field(default="intervals", compare=False)
    reduce: ClassVar[Reduce] = "sum"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `update` reads."""
        return ("preds", "target", "scale") if self.scaled else ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 4))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any, scale: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds intervals [..., 2] and targets [...]."""
        preds, target = with_axis(preds, target, 2, self.name)
        lower, upper = preds[..., 0], preds[..., 1]
        width, missed = upper - lower, jnp.maximum(lower - target, jnp.float32(0))
        missed = missed + jnp.maximum(target - upper, jnp.float32(0))
        covered = ((lower <= target) & (target <= upper)).astype(jnp.float32)
        covered = jnp.where(jnp.isnan(width) | jnp.isnan(target), jnp.full_like(covered, jnp.nan), covered)
        if self.scaled:
            size = as_scale(scale, target.shape, self.name)
            width, missed = over_scale(width, size), over_scale(missed, size)
        weights = as_weight(target.shape, weight, mask, self.name)
        found = weighted_sums(lambda *values: list(values), (covered, width, missed), weights)
        return sums.add(state, sums.Sums(found.hi[:, 0], found.lo[:, 0]))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def means(self, state: sums.Sums) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The share covered, the mean width and the mean miss, float32 [] each."""
        covered, width, missed = (sums.ratio(sums.pick(state, i), sums.pick(state, 3)) for i in range(3))
        return covered, width, missed


@dataclass(frozen=True)
class IntervalCoverage(Derived):
    """The share of targets inside their prediction interval, ends included; 0.9 for a calibrated one of 90 %.

    preds: [..., 2], lower and upper end; target: [...].

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import interval_coverage
    >>> float(interval_coverage(jnp.array([[0.0, 2.0], [0.0, 1.0]]), jnp.array([2.0, 3.0])))
    0.5
    """

    name: str = "interval_coverage"

    @property
    def statistic(self) -> Intervals:
        """Sums over intervals."""
        return Intervals(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        return self.statistic.means(state)[0]


@dataclass(frozen=True)
class IntervalWidth(Derived):
    """The mean width of prediction intervals: how sharp they are. preds: [..., 2], lower and upper end; target: [...].

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import interval_width
    >>> float(interval_width(jnp.array([[0.0, 2.0], [0.0, 1.0]]), jnp.array([2.0, 3.0])))
    1.5
    """

    name: str = "interval_width"

    @property
    def statistic(self) -> Intervals:
        """Sums over intervals."""
        return Intervals(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        return self.statistic.means(state)[1]


def _check_level(level: float, name: str) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name}: level must be between 0 and 1, such as 0.9; it is {level!r}")


@dataclass(frozen=True)
class IntervalScore(Derived):
    """The mean of width + 2 / (1 - level) * (how far the target is outside): proper, smaller is better.

    preds: [..., 2], lower and upper end of the central interval of `level`; target: [...] (Winkler, 1972).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import interval_score
    >>> round(float(interval_score(jnp.array([[0.0, 2.0], [0.0, 1.0]]), jnp.array([2.0, 3.0]), level=0.5)), 6)
    5.5
    """

    level: float
    name: str = "interval_score"

    def __post_init__(self) -> None:
        _check_level(self.level, self.name)

    @property
    def statistic(self) -> Intervals:
        """Sums over intervals."""
        return Intervals(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        _, width, missed = self.statistic.means(state)
        return width + missed * jnp.float32(2 / (1 - self.level))


@dataclass(frozen=True)
class MSIS(Derived):
    """The mean scaled interval score of the M4 competition: IntervalScore with each series divided by its scale.

    preds: [series, steps, 2]; target: [series, steps]; scale, an input: [series], as of `seasonal_error`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import msis
    >>> float(msis(jnp.array([[0.0, 2.0], [0.0, 1.0]]), jnp.array([2.0, 3.0]), scale=jnp.array([2.0, 2.0]), level=0.5))
    2.75
    """

    level: float
    name: str = "msis"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "scale")  # type: ignore[assignment,misc]

    def __post_init__(self) -> None:
        _check_level(self.level, self.name)

    @property
    def statistic(self) -> Intervals:
        """Sums over scaled intervals."""
        return Intervals(scaled=True, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        _, width, missed = self.statistic.means(state)
        return width + missed * jnp.float32(2 / (1 - self.level))


crps = one_call(CRPS, "crps")
gaussian_crps = one_call(GaussianCRPS, "gaussian_crps")
interval_coverage = one_call(IntervalCoverage, "interval_coverage")
interval_width = one_call(IntervalWidth, "interval_width")
interval_score = one_call(IntervalScore, "interval_score")
msis = one_call(MSIS, "msis")
