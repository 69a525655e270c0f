"""How much of the target's variance the predictions explain: R2, adjusted R2, explained variance, relative error."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.moments import Moments, MomentState
from jaxdl.metrics.regression import Multioutput, check_multioutput, over_outputs

_NAN = float("nan")


def _product(state: MomentState, index: int) -> sums.Sums:
    """One of the sums of products, Sums [..., outputs]."""
    return sums.Sums(state.product.hi[..., index, :], state.product.lo[..., index, :])


def _squares(state: MomentState) -> tuple[sums.Sums, sums.Sums]:
    """The target's centred squares and the squared errors; an infinite error leaves no value, as NaN does."""
    spread, squares = _product(state, 0), _product(state, 1)
    defined = jnp.isfinite(squares.hi)
    return spread, sums.Sums(jnp.where(defined, squares.hi, jnp.full_like(squares.hi, jnp.nan)), squares.lo)


def _explained(unexplained: sums.Sums, spread: sums.Sums, undefined: float) -> jax.Array:
    """1 - unexplained / spread, subtracted in two floats: near 0 a float32 quotient would lose digits."""
    left = sums.value(sums.add(spread, sums.Sums(-unexplained.hi, -unexplained.lo)))
    return _over(left, sums.value(spread), undefined)


def _over(above: jax.Array, spread: jax.Array, undefined: float) -> jax.Array:
    flat = spread == 0
    return jnp.where(flat, jnp.full_like(spread, undefined), above / jnp.where(flat, jnp.ones_like(spread), spread))


def _together(values: jax.Array, spread: jax.Array, outputs: int | None, multioutput: Multioutput) -> jax.Array:
    if outputs is not None and multioutput == "variance_weighted":
        # an output whose target is constant explains nothing and has no share
        held = jnp.where(spread == 0, jnp.zeros_like(values), values * spread)
        total = jnp.sum(spread, axis=-1)
        empty = total == 0
        mean = jnp.sum(held, axis=-1) / jnp.where(empty, jnp.ones_like(total), total)
        return jnp.where(empty, jnp.mean(values, axis=-1), mean)
    return over_outputs(values, outputs, multioutput)


@dataclass(frozen=True)
class R2(Derived):
    """The coefficient of determination: 1 - sum w (preds - target)^2 / sum w (target - mean target)^2.

    1 is perfect, 0 as good as the target's mean, below 0 worse. preds and target of one shape, any real dtype.
    outputs=None: every number of [...] is an example of one output (scikit-learn takes columns apart: outputs=k).
    outputs=k: the last axis of [..., k] holds k outputs, each with its own R2; multioutput puts them together:
    "uniform_average", "raw_values" ([k]) or "variance_weighted".

    A constant target has no variance to explain: NaN, or `zero_division`. Moments merge by Chan's formula: a target
    of mean 1e4 and deviation 1 loses no digits.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import r2
    >>> round(float(r2(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0]))), 6)
    0.5
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    zero_division: float = _NAN
    name: str = "r2"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name, variance=True)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of the target, and squared errors."""
        return Moments("squared_errors", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        spread, squares = _squares(state)
        values = _explained(squares, spread, self.zero_division)
        return _together(values, sums.value(spread), self.outputs, self.multioutput)


@dataclass(frozen=True)
class AdjustedR2(Derived):
    """R2 less what `features` regressors explain by chance: 1 - (1 - R2) (n - 1) / (n - features - 1).

    n is the total weight (weight k counts as k examples). NaN where n <= features + 1. Shapes and outputs as in `R2`
    (Theil, 1961).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import adjusted_r2
    >>> target = jnp.array([1.0, 2.0, 3.0, 4.0])
    >>> round(float(adjusted_r2(target + jnp.array([1.0, 0.0, 0.0, 0.0]), target, features=1)), 6)
    0.7
    """

    features: int
    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    zero_division: float = _NAN
    name: str = "adjusted_r2"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name, variance=True)
        if isinstance(self.features, bool) or not isinstance(self.features, int | np.integer) or self.features < 0:
            raise ValueError(f"{self.name}: features must be an integer of at least 0; it is {self.features!r}")
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of the target, and squared errors."""
        return Moments("squared_errors", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        spread, squares = _squares(state)
        values = _explained(squares, spread, self.zero_division)
        count = sums.value(state.weight)
        free = count - jnp.float32(int(self.features) + 1)
        enough = free > 0
        factor = (count - jnp.float32(1)) / jnp.where(enough, free, jnp.ones_like(free))
        adjusted = jnp.float32(1) - (jnp.float32(1) - values) * factor
        adjusted = jnp.where(enough, adjusted, jnp.full_like(adjusted, jnp.nan))
        return _together(adjusted, sums.value(spread), self.outputs, self.multioutput)


@dataclass(frozen=True)
class ExplainedVariance(Derived):
    """1 - variance(target - preds) / variance(target): as R2, but a constant offset of the predictions is forgiven.

    Shapes, outputs and policy as in `R2`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import explained_variance
    >>> float(explained_variance(jnp.array([11.0, 12.0, 13.0]), jnp.array([1.0, 2.0, 3.0])))
    1.0
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    zero_division: float = _NAN
    name: str = "explained_variance"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name, variance=True)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of the target and of the error."""
        return Moments("errors", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        spread, residual = _product(state, 0), _product(state, 1)
        values = _explained(residual, spread, self.zero_division)
        return _together(values, sums.value(spread), self.outputs, self.multioutput)


@dataclass(frozen=True)
class RelativeSquaredError(Derived):
    """sum w (preds - target)^2 / sum w (target - mean target)^2 = 1 - R2; its root with root=True.

    0 is perfect, 1 as good as the target's mean. Shapes and outputs as in `R2`; NaN where the target is constant.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import relative_squared_error
    >>> round(float(relative_squared_error(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0]))), 6)
    0.5
    """

    root: bool = False
    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "relative_squared_error"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name, variance=True)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of the target, and squared errors."""
        return Moments("squared_errors", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        spread, squares = _squares(state)
        # not 1 - R2, which is 0 to seven digits long before the error is
        values = _over(sums.value(squares), sums.value(spread), _NAN)
        values = jnp.sqrt(values) if self.root else values
        return _together(values, sums.value(spread), self.outputs, self.multioutput)


r2 = one_call(R2, "r2")
adjusted_r2 = one_call(AdjustedR2, "adjusted_r2")
explained_variance = one_call(ExplainedVariance, "explained_variance")
relative_squared_error = one_call(RelativeSquaredError, "relative_squared_error")
