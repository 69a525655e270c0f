"""What metrics of ranking are computed from: sums over queries of what each query's order gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_array, as_float, as_mask, as_weight, same_shape, weighted
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.ranking_order import (
    Ranked,
    Ties,
    best_first,
    places,
    ranked,
    tied_mean,
    tied_sum,
    without_relevant,
)

Gain = Literal["linear", "exponential"]
Empty = Literal["nan", "skip", "zero", "one"]

_GAINS = ("queries", "without_gain", "dcg", "ndcg")
_HITS = (
    "queries", "without_relevant", "without_irrelevant", "reciprocal_rank", "average_precision", "precision",
    "adaptive_precision", "recall", "hit", "r_precision", "fall_out",
)  # fmt: skip


@dataclass(frozen=True)
class GainSums:
    """DCG and NDCG summed over queries: the statistic of metrics of graded relevance.

    preds: scores [queries, documents]; target: relevances of the same shape. `mask` is [queries] or [queries,
    documents]: where it is False there is no document, so lists of different lengths are padded; a query without any
    document is absent. `weight` is one for each query, [queries].

    ties: "average" gives what is expected when documents of equal score stand in any order with the same probability,
    in closed form (McSherry and Najork, 2008); "first" leaves them in the order in which they are given.
    """

    k: int | None = None
    gain: Gain = "linear"
    ties: Ties = "average"
    name: str = field(default="ranking", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _check(self.name, self.k, self.ties)
        if self.gain not in ("linear", "exponential"):
            raise ValueError(f"{self.name}: gain must be 'linear' or 'exponential'; it is {self.gain!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: one sum for each of the names above."""
        return sums.zeros((*batch_shape, len(_GAINS)))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds queries: scores and relevances [queries, documents]."""
        scores, relevance, present, counted = _queries(self.name, preds, target, weight, mask)
        # 64 bits for the packed sort and the sums along the documents; nothing of them leaves this block
        with jax.enable_x64(True):
            order = ranked(scores, relevance, present, self.ties)
            inside = _within(order, self.k)
            dcg = _discounted(tied_mean(_gains(order.relevance, self.gain), order, self.ties), inside)
            best = _discounted(_gains(best_first(relevance, present), self.gain), inside)
            # of negative gains the ratio means nothing
            broken = order.undefined | jnp.any(order.relevance < 0, axis=-1)
            ndcg = _or_nan(_share(dcg, best), broken)
            rows = [(best == 0) & ~broken, _or_nan(dcg, order.undefined), ndcg]
            rows = [row.astype(jnp.float32) for row in rows]
        return _added(state, rows, counted)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def mean(self, state: sums.Sums, what: str, empty: Empty) -> jax.Array:
        """The mean of one of the sums over queries, float32 []; `empty` is what a query without any gain gives."""
        return _mean(state, _GAINS.index(what), _GAINS.index("without_gain"), empty)

    def empty_queries(self, state: sums.Sums) -> jax.Array:
        """The weight of queries without any gain, float32 []."""
        return sums.value(sums.pick(state, _GAINS.index("without_gain")))


@dataclass(frozen=True)
class HitSums:
    """Everything that counts relevant documents among the k best, summed over queries: one sort serves all of it.

    Shapes, weights and `ties` as in `GainSums`; a document is relevant where target > 0.
    """

    k: int | None = None
    ties: Ties = "average"
    name: str = field(default="ranking", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _check(self.name, self.k, self.ties)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: one sum for each of the names above."""
        return sums.zeros((*batch_shape, len(_HITS)))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds queries: scores and relevances [queries, documents]."""
        scores, relevance, present, counted = _queries(self.name, preds, target, weight, mask)
        with jax.enable_x64(True):
            order = ranked(scores, relevance, present, self.ties)
            rows = [row.astype(jnp.float32) for row in _hits(order, self.k, self.ties)]
        return _added(state, rows, counted)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def mean(self, state: sums.Sums, what: str, empty: Empty) -> jax.Array:
        """The mean of one of the sums over queries, float32 []; `empty` is what a query gives that has none to find."""
        without = "without_irrelevant" if what == "fall_out" else "without_relevant"
        return _mean(state, _HITS.index(what), _HITS.index(without), empty)

    def empty_queries(self, state: sums.Sums) -> jax.Array:
        """The weight of queries without a relevant document, float32 []."""
        return sums.value(sums.pick(state, _HITS.index("without_relevant")))


def check_empty(name: str, empty: str) -> None:
    """Refuses an `empty` that is none of the four."""
    if empty not in ("nan", "skip", "zero", "one"):
        raise ValueError(f"{name}: empty must be 'nan', 'skip', 'zero' or 'one'; it is {empty!r}")


def _check(name: str, k: Any, ties: Any) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
        raise ValueError(f"{name}: k must be a positive integer or None; it is {k!r}")
    if ties not in ("average", "first"):
        raise ValueError(f"{name}: ties must be 'average' or 'first'; it is {ties!r}")


def _queries(
    name: str, preds: Any, target: Any, weight: Any, mask: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(scores, relevances, where a document is, the weight of each query)."""
    scores, relevance = as_float(preds, f"{name}: preds"), as_float(target, f"{name}: target")
    same_shape(scores, relevance, name)
    if scores.ndim < 2 or scores.shape[-1] == 0:
        raise ValueError(
            f"{name}: preds have shape {scores.shape}; they must be [queries, documents]. One query alone is "
            "preds[None], target[None]; rows with a query id go through pad_queries"
        )
    queries = scores.shape[:-1]
    if weight is not None and as_array(weight, f"{name}: weight").ndim > len(queries):
        raise ValueError(
            f"{name}: weight has shape {jnp.shape(weight)}; a weight belongs to a query: {queries}. To leave "
            "documents out give mask="
        )
    given = as_weight(queries, weight, None, name)
    present = jnp.ones(scores.shape, jnp.bool_) if mask is None else as_mask(scores.shape, mask, name)
    ones = jnp.ones(queries, jnp.float32) if given is None else given
    return scores, relevance, present, jnp.where(jnp.any(present, axis=-1), ones, jnp.zeros_like(ones))


def _hits(order: Ranked, k: int | None, ties: Ties) -> list[jax.Array]:
    """The rows of `_HITS` but the first, [queries] each."""
    inside, at = _within(order, k), places(order)
    relevant = (order.present & (order.relevance > 0)).astype(jnp.float64)
    count = jnp.sum(relevant, axis=-1)
    documents = jnp.sum(order.present, axis=-1, dtype=jnp.int32).astype(jnp.float64)
    others = documents - count
    place = (at + jnp.int32(1)).astype(jnp.float64)
    above, run = tied_sum(relevant, order)
    length = (order.end - order.start + jnp.int32(1)).astype(jnp.float64)
    expected = run / length  # of a relevant document at this place
    found = jnp.sum(expected * inside, axis=-1)
    none = without_relevant(order)
    first = jnp.concatenate([jnp.ones_like(none[..., :1]), none[..., :-1]], axis=-1) - none
    # a relevant document has (run - 1) others, spread evenly over the other places of its run
    one = jnp.ones_like(run)
    spread = (at - order.start).astype(jnp.float64) * (run - one) / jnp.maximum(length - one, one)
    precise = jnp.sum(expected * (above + one + spread) / place * inside, axis=-1)
    # padding stands behind the documents: the k best of a shorter list are the whole list
    asked = documents if k is None else jnp.full_like(documents, k)
    last = none.shape[-1] if k is None else min(k, none.shape[-1])
    values = [
        jnp.sum(first / place * inside, axis=-1),
        _share(precise, count if k is None else jnp.minimum(count, asked)),
        _share(found, asked),
        _share(found, jnp.minimum(asked, documents)),
        _share(found, count),
        jnp.ones_like(count) - none[..., last - 1],
        _share(jnp.sum(expected * _within(order, count), axis=-1), count),
        _share(jnp.sum((jnp.ones_like(expected) - expected) * inside * order.present.astype(jnp.float64), -1), others),
    ]
    lacking = [(count == 0) & ~order.undefined, (others == 0) & ~order.undefined]
    return lacking + [_or_nan(value, order.undefined) for value in values]


def _within(order: Ranked, k: int | jax.Array | None) -> jax.Array:
    """1.0 at the first k places, 0.0 behind them, float64 [queries, documents]; k may differ by query, float64."""
    at = places(order).astype(jnp.float64)
    if k is None:
        return jnp.ones_like(at)
    limit = jnp.full_like(at, k) if isinstance(k, int | np.integer) else jnp.broadcast_to(k[..., None], at.shape)
    return (at < limit).astype(jnp.float64)


def _gains(relevance: jax.Array, gain: Gain) -> jax.Array:
    return relevance if gain == "linear" else jnp.exp2(relevance) - jnp.ones_like(relevance)


def _discounted(gains: jax.Array, inside: jax.Array) -> jax.Array:
    """The sum of gain / log2(place + 1), places from 1."""
    discount = jnp.float64(1) / jnp.log2(jnp.arange(2, gains.shape[-1] + 2, dtype=jnp.float64))
    return jnp.sum(gains * inside * jnp.broadcast_to(discount, gains.shape), axis=-1)


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    return part / jnp.where(whole == 0, jnp.ones_like(whole), whole)


def _or_nan(value: jax.Array, broken: jax.Array) -> jax.Array:
    return jnp.where(broken, jnp.full_like(value, jnp.nan), value)


def _added(state: sums.Sums, rows: list[jax.Array], counted: jax.Array) -> sums.Sums:
    products = [weighted(row, counted)[0] for row in rows]
    return sums.add(state, sums.total(jnp.stack([counted.reshape(-1), *products])))


def _mean(state: sums.Sums, what: int, without: int, empty: Empty) -> jax.Array:
    total, lacking, found = sums.pick(state, 0), sums.pick(state, without), sums.pick(state, what)
    if empty == "skip":
        return sums.ratio(found, sums.add(total, sums.Sums(-lacking.hi, -lacking.lo)))
    if empty == "one":
        found = sums.add(found, lacking)
    mean = sums.ratio(found, total)
    return jnp.where(sums.value(lacking) > 0, jnp.full_like(mean, jnp.nan), mean) if empty == "nan" else mean
