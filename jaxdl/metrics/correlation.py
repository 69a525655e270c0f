"""How two variables move together: Pearson, concordance, Spearman, Kendall; and two errors that need every pair."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.moments import Moments, MomentState
from jaxdl.metrics.pairs import Order, PairBuffer, Pairs, capacity_of, sorted_order
from jaxdl.metrics.regression import Multioutput, check_multioutput, over_outputs


@dataclass(frozen=True)
class Pearson(Derived):
    """The linear correlation, from -1 to 1: covariance / (deviation of preds * deviation of target).

    preds and target of one shape, any real dtype. outputs=None: every number of [...] is an example; outputs=k: the
    last axis of [..., k] holds k outputs, each with its own value (multioutput="uniform_average" or "raw_values").
    NaN where one of them is constant. Moments are merged by Chan's formula.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import pearson
    >>> round(float(pearson(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 3.0, 2.0]))), 6)
    0.327327
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "pearson"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of both, and their covariance."""
        return Moments("pairs", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        products = sums.value(state.product)
        left, right = products[..., 0, :], products[..., 1, :]
        flat = (left == 0) | (right == 0)
        one = jnp.ones_like(left)
        # two roots: the product of two large sums of squares need not be a number
        scale = jnp.sqrt(jnp.where(flat, one, left)) * jnp.sqrt(jnp.where(flat, one, right))
        values = jnp.clip(products[..., 2, :] / scale, -1.0, 1.0)
        return over_outputs(jnp.where(flat, jnp.full_like(values, jnp.nan), values), self.outputs, self.multioutput)


@dataclass(frozen=True)
class Concordance(Derived):
    """Lin's concordance (1989): 2 cov / (var preds + var target + (mean preds - mean target)^2), from -1 to 1.

    As Pearson, but only predictions equal to the target reach 1. Shapes and outputs as in `Pearson`; NaN where both
    are the same constant.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import concordance
    >>> round(float(concordance(jnp.array([2.0, 3.0, 4.0]), jnp.array([1.0, 2.0, 3.0]))), 6)
    0.571429
    """

    outputs: int | None = None
    multioutput: Multioutput = "uniform_average"
    name: str = "concordance"

    def __post_init__(self) -> None:
        check_multioutput(self.multioutput, self.name)
        _ = self.statistic  # checks outputs

    @property
    def statistic(self) -> Moments:
        """Moments of both, and their covariance."""
        return Moments("pairs", self.outputs, name=self.name)

    def compute(self, state: MomentState) -> jax.Array:
        """float32 [], or [outputs] with multioutput="raw_values"."""
        products, means = sums.value(state.product), state.mean
        target = sums.Sums(-means.hi[..., 1, :], -means.lo[..., 1, :])
        apart = sums.value(sums.add(sums.Sums(means.hi[..., 0, :], means.lo[..., 0, :]), target))
        below = products[..., 0, :] + products[..., 1, :] + sums.value(state.weight) * apart * apart
        flat = below == 0
        values = (products[..., 2, :] + products[..., 2, :]) / jnp.where(flat, jnp.ones_like(below), below)
        return over_outputs(jnp.where(flat, jnp.full_like(values, jnp.nan), values), self.outputs, self.multioutput)


@dataclass(frozen=True)
class Spearman(Derived):
    """The correlation of ranks, from -1 to 1; ties have the mean of their ranks. Exact, for up to `capacity` pairs.

    preds and target of one shape [...]; every number is an example. An integer weight k counts as k equal examples;
    other weights share out ranks in the same way. NaN where one of them is constant, where a number is NaN, and when
    more pairs came than fit (`overflowed`).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import spearman
    >>> float(spearman(jnp.array([1.0, 2.0, 40.0]), jnp.array([1.0, 3.0, 2.0])))
    0.5
    """

    capacity: int
    name: str = "spearman"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks capacity

    @property
    def statistic(self) -> Pairs:
        """The pairs."""
        return Pairs(self.capacity, name=self.name)

    def compute(self, state: PairBuffer) -> jax.Array:
        """float32 []."""
        with jax.enable_x64(True):
            weight = state.weight.astype(jnp.float64)
            left, right = _centred_ranks(state.preds, weight), _centred_ranks(state.target, weight)
            spread = jnp.sqrt(jnp.sum(weight * left * left)) * jnp.sqrt(jnp.sum(weight * right * right))
            flat = _constant(state.preds, weight) | _constant(state.target, weight)
            value = jnp.sum(weight * left * right) / jnp.where(flat, jnp.ones_like(spread), spread)
            value = jnp.where(flat, jnp.full_like(value, np.nan), jnp.clip(value, -1.0, 1.0)).astype(jnp.float32)
        return self.statistic.checked(state, value)


@dataclass(frozen=True)
class Kendall(Derived):
    """Kendall's tau-b: concordant less discordant pairs of examples, over those that are not tied. Exact.

    tau = (C - D) / sqrt((P - T_preds) (P - T_target)) with P all pairs of examples and T those tied in one variable
    (Kendall, 1945); a pair of examples of weights v and w counts v * w. Discordant pairs are counted level by level of
    the bits of the target's rank, in O(n log n) (Knight, 1966, by a radix instead of a merge sort).

    Shapes, weights, capacity and policy as in `Spearman`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import kendall
    >>> round(float(kendall(jnp.array([1.0, 2.0, 40.0]), jnp.array([1.0, 3.0, 2.0]))), 6)
    0.333333
    """

    capacity: int
    name: str = "kendall"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks capacity

    @property
    def statistic(self) -> Pairs:
        """The pairs."""
        return Pairs(self.capacity, name=self.name)

    def compute(self, state: PairBuffer) -> jax.Array:
        """float32 []."""
        with jax.enable_x64(True):
            # absent pairs have weight 0 and disturb nothing
            weight = state.weight.astype(jnp.float64)
            right = sorted_order(state.target)
            left = sorted_order(jnp.take(state.preds, right.place))
            # by preds, and where those are tied by target, so that no tied pair looks discordant
            rank, ordered = jnp.take(right.tie, left.place), jnp.take(jnp.take(weight, right.place), left.place)
            whole = jnp.sum(weight)
            squares = whole * whole
            tied_left = _tied(left.tie, ordered)
            tied_right = _tied(right.tie, jnp.take(weight, right.place))
            same = (left.tie[1:] == left.tie[:-1]) & (rank[1:] == rank[:-1])
            groups = jnp.cumsum(jnp.concatenate([jnp.zeros((1,), jnp.bool_), ~same]), dtype=jnp.int32)
            untied = (squares - tied_left - tied_right + _tied(groups, ordered)) * np.float64(0.5)
            surplus = untied - np.float64(2) * _inversions(rank, ordered)
            below = jnp.sqrt(squares - tied_left) * jnp.sqrt(squares - tied_right) * np.float64(0.5)
            flat = _constant(state.preds, weight) | _constant(state.target, weight)
            value = surplus / jnp.where(flat, jnp.ones_like(below), below)
            value = jnp.where(flat, jnp.full_like(value, np.nan), jnp.clip(value, -1.0, 1.0)).astype(jnp.float32)
        return self.statistic.checked(state, value)


@dataclass(frozen=True)
class MedianAbsoluteError(Derived):
    """The median of |preds - target|, which a few wild errors cannot move. Exact, for up to `capacity` pairs.

    Half the weight lies on each side; where that falls between two errors, their mean. Shapes, weights and capacity as
    in `Spearman`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import median_absolute_error
    >>> float(median_absolute_error(jnp.array([1.0, 2.0, 90.0]), jnp.array([0.0, 0.0, 0.0])))
    2.0
    """

    capacity: int
    name: str = "median_absolute_error"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks capacity

    @property
    def statistic(self) -> Pairs:
        """The pairs."""
        return Pairs(self.capacity, name=self.name)

    def compute(self, state: PairBuffer) -> jax.Array:
        """float32 []."""
        size = jnp.abs(state.preds - state.target)
        with jax.enable_x64(True):
            order = sorted_order(size)
            below = lax.cumsum(jnp.take(state.weight, order.place).astype(jnp.float64))
            half = below[-1] * np.float64(0.5)
            lower, upper = jnp.sum(below < half, dtype=jnp.int32), jnp.sum(below <= half, dtype=jnp.int32)
            last = jnp.int32(self.capacity - 1)
            ends = [jnp.take(size, order.place[jnp.minimum(place, last)]) for place in (lower, upper)]
            value = (ends[0].astype(jnp.float64) + ends[1].astype(jnp.float64)) * np.float64(0.5)
            value = jnp.where(below[-1] > 0, value, jnp.full_like(value, np.nan)).astype(jnp.float32)
        return self.statistic.checked(state, value)


@dataclass(frozen=True)
class RelativeAbsoluteError(Derived):
    """sum w |preds - target| / sum w |target - mean target|: 1 is as good as the target's mean. Exact.

    The mean is that of all targets, known only at the end; so every pair is kept, up to `capacity`. Shapes, weights and
    capacity as in `Spearman`; NaN where the target is constant.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import relative_absolute_error
    >>> float(relative_absolute_error(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0])))
    0.5
    """

    capacity: int
    name: str = "relative_absolute_error"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks capacity

    @property
    def statistic(self) -> Pairs:
        """The pairs."""
        return Pairs(self.capacity, name=self.name)

    def compute(self, state: PairBuffer) -> jax.Array:
        """float32 []."""
        with jax.enable_x64(True):
            weight, target = state.weight.astype(jnp.float64), state.target.astype(jnp.float64)
            whole = jnp.sum(weight)
            mean = jnp.sum(weight * target) / jnp.where(whole > 0, whole, jnp.ones_like(whole))
            below = jnp.sum(weight * jnp.abs(target - mean))
            flat = _constant(state.target, weight)
            above = jnp.sum(weight * jnp.abs(state.preds.astype(jnp.float64) - target))
            value = above / jnp.where(flat, jnp.ones_like(below), below)
            value = jnp.where(flat, jnp.full_like(value, np.nan), value).astype(jnp.float32)
        return self.statistic.checked(state, value)


def _constant(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Whether all numbers of weight above 0 are equal, or there are none."""
    present = weight > 0
    low = jnp.min(jnp.where(present, values, jnp.full_like(values, np.inf)))
    high = jnp.max(jnp.where(present, values, jnp.full_like(values, -np.inf)))
    return ~(low < high)


def _centred_ranks(values: jax.Array, weight: jax.Array) -> jax.Array:
    """The rank of each number, the mean one among ties, less the mean of all ranks; float64 [n]."""
    order: Order = sorted_order(values)
    groups = jnp.zeros_like(weight).at[order.tie].add(jnp.take(weight, order.place), mode="promise_in_bounds")
    middle = lax.cumsum(groups) - groups * np.float64(0.5)
    ranks = jnp.zeros_like(weight).at[order.place].set(jnp.take(middle, order.tie), mode="promise_in_bounds")
    # with weight k as k copies the ranks run from 1 to W, and their mean is (W + 1) / 2; here all are 1/2 lower
    return ranks - jnp.sum(weight) * np.float64(0.5)


def _tied(groups: jax.Array, weight: jax.Array) -> jax.Array:
    """The sum over groups of (weight of the group)^2."""
    whole = jnp.zeros_like(weight).at[groups].add(weight, mode="promise_in_bounds")
    return jnp.sum(whole * whole)


def _inversions(rank: jax.Array, weight: jax.Array) -> jax.Array:
    """Sum of weight_i * weight_j over i < j with rank_i > rank_j; rank int32 [n] below n, weight float64 [n].

    From the highest bit down: numbers that agree in all higher bits stand together, in their first order; among them an
    inversion shows in this bit where a 1 stands before a 0. Then each such group is parted by the bit, zeros first.
    """
    size = rank.shape[0]
    bits = max(1, (size - 1).bit_length())
    counts = jnp.zeros((2**bits,), jnp.int32).at[rank].add(jnp.ones_like(rank), mode="promise_in_bounds")
    below = jnp.concatenate([jnp.zeros((1,), jnp.int32), lax.cumsum(counts)])
    places = lax.iota(jnp.int32, size)

    def level(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        rank, weight, found = carry
        bit = jnp.int32(bits - 1) - i.astype(jnp.int32)
        high = (rank >> (bit + 1)) << (bit + 1)
        one = (rank >> bit) & 1 == 1
        heavy = jnp.where(one, weight, jnp.zeros_like(weight))
        before = lax.cumsum(heavy) - heavy
        start = jnp.take(below, high)
        ahead = before - jnp.take(before, start)
        found = found + jnp.sum(jnp.where(one, jnp.zeros_like(weight), weight * ahead))
        zeros = (~one).astype(jnp.int32)
        zero = lax.cumsum(zeros) - zeros
        zero = zero - jnp.take(zero, start)
        middle = jnp.take(below, high + (jnp.int32(1) << bit))
        place = jnp.where(one, middle + (places - start - zero), start + zero)
        return (
            jnp.zeros_like(rank).at[place].set(rank, mode="promise_in_bounds"),
            jnp.zeros_like(weight).at[place].set(weight, mode="promise_in_bounds"),
            found,
        )

    # with many ties the highest bits are 0 everywhere
    first = jnp.int32(bits) - (jnp.int32(32) - lax.clz(jnp.max(rank)))
    return lax.fori_loop(first, jnp.int32(bits), level, (rank, weight, jnp.zeros((), jnp.float64)))[2]


pearson = one_call(Pearson, "pearson")
concordance = one_call(Concordance, "concordance")
spearman = one_call(Spearman, "spearman", infer=capacity_of)
kendall = one_call(Kendall, "kendall", infer=capacity_of)
median_absolute_error = one_call(MedianAbsoluteError, "median_absolute_error", infer=capacity_of)
relative_absolute_error = one_call(RelativeAbsoluteError, "relative_absolute_error", infer=capacity_of)
