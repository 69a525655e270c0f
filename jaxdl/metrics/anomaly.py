"""Metrics of anomaly detection in series: ranges of flagged points against ranges of true anomalies.

All take flags [series, time], 1 or True where a point is (predicted to be) anomalous; `mask` [series] or [series, time]
says where a point is, and an absent point ends a range. `weight` is one for each series. The NAB score, which looks at
scores and at how early they come, is in `nab`. Areas of curves over anomaly scores are `roc_auc` and
`average_precision` of the flattened scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

Bias = Literal["flat", "front", "middle", "back"]
Cardinality = Literal["reciprocal", "one"]
_BIASES = ("flat", "front", "middle", "back")


@dataclass(frozen=True)
class RangeScores:
    """Recall summed over true ranges and precision summed over predicted ranges: the statistic of the range metrics.

    preds, target: flags [series, time], booleans or integers 0 and 1; other integers leave the series out and are
    counted in `invalid`. A range is an unbroken run of flags. State: `Sums` of recalls, true ranges, precisions,
    predicted ranges, and the weight of invalid series.
    """

    alpha: float = 0.0
    bias: Bias = "flat"
    precision_bias: Bias = "flat"
    cardinality: Cardinality = "reciprocal"
    name: str = field(default="ranges", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"{self.name}: alpha, the reward for existence, must be from 0 to 1; it is {self.alpha!r}")
        for what in ("bias", "precision_bias"):
            if getattr(self, what) not in _BIASES:
                raise ValueError(
                    f"{self.name}: {what} must be one of {', '.join(_BIASES)}; it is {getattr(self, what)!r}"
                )
        if self.cardinality not in ("reciprocal", "one"):
            raise ValueError(f"{self.name}: cardinality must be 'reciprocal' or 'one'; it is {self.cardinality!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 5))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds series of flags [series, time]."""
        predicted, true, weights, lost = flags_of_series(self.name, preds, target, weight, mask)
        with jax.enable_x64(True):
            recall, ranges = _rewards(true, predicted, self.alpha, self.bias, self.cardinality)
            precision, found = _rewards(predicted, true, 0.0, self.precision_bias, self.cardinality)
            parts = [part.astype(jnp.float32) for part in (recall, ranges, precision, found)]
        rows = jnp.stack([*(part * weights for part in parts), lost])
        return sums.add(state, sums.total(rows))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of series left out because a flag was neither 0 nor 1, float32 []."""
        return sums.value(sums.pick(state, 4))

    def recall(self, state: sums.Sums) -> jax.Array:
        """The mean over true ranges, NaN without any."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))

    def precision(self, state: sums.Sums) -> jax.Array:
        """The mean over predicted ranges, NaN without any."""
        return sums.ratio(sums.pick(state, 2), sums.pick(state, 3))


@dataclass(frozen=True)
class RangeRecall(Derived):
    """How well true anomalous ranges were found: the mean over true ranges R of

    alpha * [some point of R is flagged] + (1 - alpha) * cardinality factor * share of R that is flagged

    (Tatbul, Lee, Zdonik, Alam and Gottschlich, 2018). bias says which points of a range weigh more in the share: "flat"
    all alike; "front" n, n - 1, ..., 1 (early detection); "back" 1, ..., n; "middle" 1, 2, ..., 2, 1. The cardinality
    factor punishes a range found in x > 1 pieces: "reciprocal" 1 / x, "one" 1. NaN without true ranges. Shapes: the
    head of this file and `RangeScores`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import range_recall
    >>> true, found = jnp.array([[0, 1, 1, 1, 1, 0]]), jnp.array([[0, 1, 1, 0, 0, 0]])
    >>> float(range_recall(found, true)), float(range_recall(found, true, bias="front"))
    (0.5, 0.699999988079071)
    """

    alpha: float = 0.0
    bias: Bias = "flat"
    precision_bias: Bias = "flat"
    cardinality: Cardinality = "reciprocal"
    name: str = "range_recall"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the fields

    @property
    def statistic(self) -> RangeScores:
        """The sums over ranges."""
        return RangeScores(self.alpha, self.bias, self.precision_bias, self.cardinality, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        return self.statistic.recall(state)


@dataclass(frozen=True)
class RangePrecision(Derived):
    """How much of the flagged ranges is anomalous: the mean over flagged ranges P of cardinality factor * share of P.

    (Tatbul et al., 2018: existence earns nothing here.) `precision_bias` weighs the points of a flagged range as `bias`
    does those of a true one in `RangeRecall`; the other fields are those of the shared statistic. NaN without flagged
    ranges.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import range_precision
    >>> true, found = jnp.array([[0, 1, 1, 1, 1, 0]]), jnp.array([[1, 1, 0, 0, 1, 0]])
    >>> float(range_precision(found, true))
    0.75
    """

    alpha: float = 0.0
    bias: Bias = "flat"
    precision_bias: Bias = "flat"
    cardinality: Cardinality = "reciprocal"
    name: str = "range_precision"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the fields

    @property
    def statistic(self) -> RangeScores:
        """The sums over ranges."""
        return RangeScores(self.alpha, self.bias, self.precision_bias, self.cardinality, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        return self.statistic.precision(state)


@dataclass(frozen=True)
class RangeF(Derived):
    """F-beta of range precision and range recall: (1 + beta^2) P R / (beta^2 P + R); 0 where both are 0.

    Fields as in `RangeRecall` and `RangePrecision`. NaN without true or without flagged ranges.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import range_f
    >>> true, found = jnp.array([[0, 1, 1, 1, 1, 0]]), jnp.array([[0, 1, 1, 0, 0, 0]])
    >>> round(float(range_f(found, true)), 4)
    0.6667
    """

    alpha: float = 0.0
    bias: Bias = "flat"
    precision_bias: Bias = "flat"
    cardinality: Cardinality = "reciprocal"
    beta: float = 1.0
    name: str = "range_f"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the other fields
        _check_beta(self.name, self.beta)

    @property
    def statistic(self) -> RangeScores:
        """The sums over ranges."""
        return RangeScores(self.alpha, self.bias, self.precision_bias, self.cardinality, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        precision, recall = self.statistic.precision(state), self.statistic.recall(state)
        square = self.beta**2
        below = square * precision + recall
        value = (1 + square) * precision * recall / jnp.where(below == 0, jnp.ones_like(below), below)
        return jnp.where(below == 0, jnp.zeros_like(value), value)


@dataclass(frozen=True)
class PointAdjustedF(Derived):
    """F-beta over points after each true range counts as wholly found once more than a `share` of it is flagged.

    With share=0 this is the point-adjusted F1 of Xu et al. (2018), widely reported because it is high: one lucky flag
    in a long range counts as all its points, so that random flags score well (Kim et al., 2022). `share` is their
    remedy, PA%K with K = 100 * share; share=1 adjusts nothing. Prefer `RangeF`; use this to compare with published
    figures. NaN without true and flagged points. Shapes: the head of this file.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import point_adjusted_f
    >>> true, found = jnp.array([[0, 1, 1, 1, 1, 0]]), jnp.array([[0, 0, 0, 1, 0, 0]])
    >>> float(point_adjusted_f(found, true)), float(point_adjusted_f(found, true, share=0.5))
    (1.0, 0.4000000059604645)
    """

    share: float = 0.0
    beta: float = 1.0
    name: str = "point_adjusted_f"

    def __post_init__(self) -> None:
        _check_beta(self.name, self.beta)
        _ = self.statistic  # checks the share

    @property
    def statistic(self) -> AdjustedPoints:
        """The counts of points."""
        return AdjustedPoints(self.share, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        right, false, missed = (sums.value(sums.pick(state, k)) for k in range(3))
        square = self.beta**2
        above, rest = (1 + square) * right, square * missed + false
        below = above + rest
        empty = below == 0
        return jnp.where(empty, jnp.full_like(below, jnp.nan), above / jnp.where(empty, jnp.ones_like(below), below))


@dataclass(frozen=True)
class AdjustedPoints:
    """Points found, falsely flagged and missed after adjustment: the statistic of `PointAdjustedF`.

    Shapes as in `RangeScores`. State: `Sums` of the three and the weight of invalid series.
    """

    share: float = 0.0
    name: str = field(default="ranges", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"{self.name}: share must be from 0 to 1; it is {self.share!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 4))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds series of flags [series, time]."""
        predicted, true, weights, lost = flags_of_series(self.name, preds, target, weight, mask)
        with jax.enable_x64(True):
            start, end = _ends(true)
            hits = _over_run((predicted & true).astype(jnp.float64), start, end)
            length = (end - start + jnp.int32(1)).astype(jnp.float64)
            found = predicted | (true & (hits > length * self.share))
        counts = [jnp.sum(x, axis=-1, dtype=jnp.int32) for x in (found & true, found & ~true, true & ~found)]
        return sums.add(state, sums.total(jnp.stack([*(x.astype(jnp.float32) * weights for x in counts), lost])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of series left out because a flag was neither 0 nor 1, float32 []."""
        return sums.value(sums.pick(state, 3))


def flags_of_series(
    name: str, preds: Any, target: Any, weight: Any, mask: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(predicted and true flags, bool [series, time]; the weight of each series; the weight of invalid ones)."""
    predicted, true = as_ids(preds, f"{name}: preds"), as_ids(target, f"{name}: target")
    same_shape(predicted, true, name)
    present, weights = points_of_series(name, predicted.shape, weight, mask)
    right = (predicted >= 0) & (predicted <= 1) & (true >= 0) & (true <= 1)
    valid = jnp.all(right | ~present, axis=-1)
    lost = jnp.where(valid, jnp.zeros_like(weights), weights)
    return (predicted == 1) & present, (true == 1) & present, weights - lost, lost


def points_of_series(name: str, shape: tuple[int, ...], weight: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """(where a point is, bool [series, time]; the weight of each series, float32 [series])."""
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(
            f"{name}: preds have shape {shape}; they must be [series, time]. One series alone is preds[None]"
        )
    if weight is not None and as_array(weight, f"{name}: weight").ndim > 1:
        raise ValueError(
            f"{name}: weight has shape {jnp.shape(weight)}; a weight belongs to a series: {shape[:1]}. To leave points "
            "out give mask="
        )
    given = as_weight(shape[:1], weight, None, name)
    present = jnp.ones(shape, jnp.bool_) if mask is None else as_mask(shape, mask, name)
    weights = jnp.ones(shape[:1], jnp.float32) if given is None else given
    return present, jnp.where(jnp.any(present, axis=-1), weights, jnp.zeros_like(weights))


def _ends(flags: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the run of equal flags that each point belongs to begins and ends, int32 [series, time] each."""
    time = flags.shape[-1]
    at = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), flags.shape)
    edge, changes = jnp.ones_like(flags[..., :1]), flags[..., 1:] != flags[..., :-1]
    first, last = (jnp.concatenate(parts, axis=-1) for parts in ([edge, changes], [changes, edge]))
    axis = flags.ndim - 1
    start = lax.cummax(jnp.where(first, at, jnp.zeros_like(at)), axis=axis)
    return start, lax.cummin(jnp.where(last, at, jnp.full_like(at, time)), axis=axis, reverse=True)


def _over_run(values: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """The sum of float64 values over each point's run."""
    upto = lax.cumsum(values, axis=values.ndim - 1)
    before = jnp.take_along_axis(upto, jnp.maximum(start - 1, jnp.int32(0)), axis=-1)
    return jnp.take_along_axis(upto, end, axis=-1) - jnp.where(start > 0, before, jnp.zeros_like(before))


def _rewards(
    ranges: jax.Array, others: jax.Array, alpha: float, bias: Bias, cardinality: Cardinality
) -> tuple[jax.Array, jax.Array]:
    """(the sum of rewards of a series' ranges against the other ranges, the number of ranges), float64 [series]."""
    start, end = _ends(ranges)
    at = jnp.broadcast_to(jnp.arange(ranges.shape[-1], dtype=jnp.int32), ranges.shape)
    back, front = at - start + jnp.int32(1), end - at + jnp.int32(1)
    importance = {"flat": jnp.ones_like(at), "front": front, "back": back, "middle": jnp.minimum(back, front)}[bias]
    both = ranges & others
    importance = importance.astype(jnp.float64)
    overlap = _over_run(jnp.where(both, importance, jnp.zeros_like(importance)), start, end)
    share = overlap / _over_run(importance, start, end)
    begins = both & ~jnp.concatenate([jnp.zeros_like(both[..., :1]), both[..., :-1]], axis=-1)
    pieces = _over_run(begins.astype(jnp.float64), start, end)
    one = jnp.ones_like(share)
    factor = one / jnp.maximum(pieces, one) if cardinality == "reciprocal" else one
    reward = alpha * (pieces > 0).astype(jnp.float64) + (1 - alpha) * factor * share
    closes = ranges & (at == end)
    return jnp.sum(jnp.where(closes, reward, jnp.zeros_like(reward)), axis=-1), jnp.sum(
        closes.astype(jnp.float64), axis=-1
    )


def _check_beta(name: str, beta: float) -> None:
    if not beta >= 0:
        raise ValueError(f"{name}: beta must be at least 0; it is {beta!r}")


range_recall = one_call(RangeRecall, "range_recall")
range_precision = one_call(RangePrecision, "range_precision")
range_f = one_call(RangeF, "range_f")
point_adjusted_f = one_call(PointAdjustedF, "point_adjusted_f")
