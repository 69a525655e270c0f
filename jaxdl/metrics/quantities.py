"""What one column of numbers is like: its sum, variance, standard deviation, smallest and largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.lanes import weighted_sums
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.moments import Moments, MomentState


@dataclass(frozen=True)
class Sum:
    """The weighted sum of `preds`: sum(weight * preds), two-float, so that 5e7 additions of 0.3 lose nothing.

    preds is [...] of any real dtype; `target` is not read. 0 when nothing was counted; NaN when a counted value is.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import sum_of
    >>> float(sum_of(jnp.array([1.0, 2.0, 6.0]), weight=jnp.array([1.0, 1.0, 0.5])))
    6.0
    """

    name: str = "sum"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 1))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds values [...]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        found = weighted_sums(lambda x: [x], (values,), as_weight(values.shape, weight, mask, self.name))
        return sums.add(state, sums.Sums(found.hi[:1, 0], found.lo[:1, 0]))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The sum, float32 []; `sums.exact(state)` has all its digits."""
        return sums.value(sums.pick(state, 0))


def _variance(state: MomentState, ddof: float, outputs: int | None) -> jax.Array:
    free = sums.value(state.weight) - jnp.float32(ddof)
    some = free > 0
    spread = sums.value(state.product)[..., 0, :] / jnp.where(some, free, jnp.ones_like(free))
    values = jnp.where(some, spread, jnp.full_like(spread, jnp.nan))
    return values[..., 0] if outputs is None else values


def _check_ddof(ddof: float, name: str) -> None:
    if not ddof >= 0:
        raise ValueError(f"{name}: ddof must not be negative; it is {ddof!r}. Give 0 (population) or 1 (sample)")


@dataclass(frozen=True)
class Variance(Derived):
    """The weighted variance of `preds`: sum w (x - mean)^2 / (sum w - ddof), merged by Chan's formula.

    ddof 0 is the variance of the population, 1 the unbiased estimate from a sample in which weight k counts as k
    examples. preds is [...] of any real dtype; outputs=k: the last axis of [..., k] holds k columns, and so has the
    value. NaN where sum w <= ddof.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import variance
    >>> float(variance(jnp.array([10001.0, 10002.0, 10003.0]), ddof=1.0))
    1.0
    """

    ddof: float = 0.0
    outputs: int | None = None
    name: str = "variance"

    def __post_init__(self) -> None:
        _check_ddof(self.ddof, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Weight, mean and centred squares."""
        return Moments("values", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs]."""
        return _variance(state, self.ddof, self.outputs)


@dataclass(frozen=True)
class StandardDeviation(Derived):
    """The root of `Variance`, whose state it shares, in the unit of the values.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import standard_deviation
    >>> float(standard_deviation(jnp.array([1.0, 3.0, 5.0]), ddof=1.0))
    2.0
    """

    ddof: float = 0.0
    outputs: int | None = None
    name: str = "standard_deviation"

    def __post_init__(self) -> None:
        _check_ddof(self.ddof, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Weight, mean and centred squares."""
        return Moments("values", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs]."""
        return jnp.sqrt(_variance(state, self.ddof, self.outputs))


class Extremum(NamedTuple):
    """The largest number so far.

    Attributes:
        value: float32 [...], -inf when there was none.
        seen: bool [...], whether there was one.
    """

    value: jax.Array
    seen: jax.Array


def no_extremum(batch_shape: tuple[int, ...]) -> Extremum:
    """The empty state."""
    return Extremum(jnp.full(batch_shape, -jnp.inf, jnp.float32), jnp.zeros(batch_shape, jnp.bool_))


def largest(values: jax.Array, weight: jax.Array | None) -> Extremum:
    """The largest of float32 [...] whose weight is not 0; NaN when one of them is."""
    if weight is None:
        return Extremum(jnp.max(values, initial=-jnp.inf), jnp.asarray(values.size > 0))
    present = weight != 0
    held = jnp.where(present, values, jnp.full_like(values, -jnp.inf))
    return Extremum(jnp.max(held, initial=-jnp.inf), jnp.any(present))


def larger(a: Extremum, b: Extremum) -> Extremum:
    """Both in one."""
    return Extremum(jnp.maximum(a.value, b.value), a.seen | b.seen)


def extremum(state: Extremum) -> jax.Array:
    """The number, or NaN when there was none."""
    return jnp.where(state.seen, state.value, jnp.full_like(state.value, jnp.nan))


@dataclass(frozen=True)
class Max:
    """The largest of `preds` [...] among examples of weight above 0; NaN when there is none, or when one is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import max_of
    >>> float(max_of(jnp.array([2.0, 7.0, 3.0]), mask=jnp.array([True, False, True])))
    3.0
    """

    name: str = "max"
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def init(self, batch_shape: tuple[int, ...] = ()) -> Extremum:
        """The empty state."""
        return no_extremum(batch_shape)

    def update(
        self, state: Extremum, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> Extremum:
        """Adds values [...]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        return larger(state, largest(values, as_weight(values.shape, weight, mask, self.name)))

    def merge(self, a: Extremum, b: Extremum) -> Extremum:
        """Both in one."""
        return larger(a, b)

    def compute(self, state: Extremum) -> jax.Array:
        """float32 []."""
        return extremum(state)


@dataclass(frozen=True)
class Min:
    """The smallest of `preds` [...] among examples of weight above 0; NaN when there is none, or when one is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import min_of
    >>> float(min_of(jnp.array([2.0, 7.0, 3.0]), mask=jnp.array([True, False, True])))
    2.0
    """

    name: str = "min"
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def init(self, batch_shape: tuple[int, ...] = ()) -> Extremum:
        """The empty state."""
        return no_extremum(batch_shape)

    def update(
        self, state: Extremum, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> Extremum:
        """Adds values [...]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        return larger(state, largest(-values, as_weight(values.shape, weight, mask, self.name)))

    def merge(self, a: Extremum, b: Extremum) -> Extremum:
        """Both in one."""
        return larger(a, b)

    def compute(self, state: Extremum) -> jax.Array:
        """float32 []."""
        return -extremum(state)


sum_of = one_call(Sum, "sum_of")
variance = one_call(Variance, "variance")
standard_deviation = one_call(StandardDeviation, "standard_deviation")
max_of = one_call(Max, "max_of")
min_of = one_call(Min, "min_of")
