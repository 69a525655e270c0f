"""Statistics of scores in constant memory: bins even in the logit, and the 65,536 values of a 16-bit score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.corners import Sorted, scaled
from jaxdl.metrics.in_turn import in_turn
from jaxdl.metrics.inputs import as_array
from jaxdl.metrics.labels import Labelled, labelled, two_columns
from jaxdl.metrics.metric import Reduce

_SIXTEEN = 1 << 16


@dataclass(frozen=True)
class Histogram:
    """Counts scores in bins that are even in the logit, `bins` of them over [-limit, limit]: constant memory.

    Bins even in the probability fail where scores crowd at an end: 200 of them report an area of 0.50 for 0.76 when
    clicks are one in ten thousand. preds: probabilities [...] in [0, 1], or, with from_logits=True, logits [...] of
    any size; [..., 2] are the probabilities or logits of two classes. Scores beyond the limits fall in the outermost
    bins, whose ties the bound covers. Scores of one bin count as ties; what that may have changed is what
    `metric.bounded(state)` gives as low and high. A probability outside [0, 1] or a NaN makes the result NaN.
    target: 0 or 1 [...]; other labels are left out and counted in `invalid`.

    State: `Sums` [2 * bins + 2]: negatives, positives, what is undefined, what is invalid; counts exact to 2^46.
    """

    bins: int = 4096
    limit: float = 16.0
    from_logits: bool = False
    name: str = field(default="scores", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        bins = self.bins
        if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or not 2 <= bins <= 2**20 or bins % 2:
            raise ValueError(f"{self.name}: bins must be an even number from 2 to 2^20; it is {bins!r}")
        if not 0 < float(self.limit) <= 80 or bins > 2**16 * self.limit:
            raise ValueError(
                f"{self.name}: limit, the largest logit that has a bin of its own, must be above 0 and at most 80, and "
                f"a bin no narrower than 2^-15, which float32 cannot tell apart; it is {self.limit!r} for {bins} bins"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty histogram."""
        return sums.zeros((*batch_shape, 2 * self.bins + 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds scores [...] or [..., 2] with labels [...]."""
        preds, target = as_array(preds, f"{self.name}: preds"), as_array(target, f"{self.name}: target")
        if jnp.issubdtype(preds.dtype, jnp.integer) or preds.dtype == jnp.bool_:
            raise TypeError(
                f"{self.name}: preds must be float scores; they are {preds.dtype}. Give probabilities, or logits with "
                "from_logits=True"
            )
        if not jnp.issubdtype(preds.dtype, jnp.complexfloating):
            preds = preds.astype(jnp.float32)
        if two_columns(preds, target):
            preds = preds[..., 1] - preds[..., 0] if self.from_logits else preds[..., 1]
        batch = labelled(preds, target, weight, mask, self.name)
        scores = batch.scores
        # a comparison with NaN is false
        valid = ~jnp.isnan(scores) if self.from_logits else (scores >= 0) & (scores <= 1)
        return _count(state, batch, self._bin(scores), valid, self.bins)

    def _bin(self, scores: jax.Array) -> jax.Array:
        """The bin of each score, int32 rising with it; never out of order, even by a rounding."""
        half, scale = self.bins // 2, jnp.float32(self.bins / (2 * self.limit))
        if self.from_logits:
            place = jnp.clip(jnp.floor(scores * scale), -half, half - 1)
            return jnp.where(jnp.isnan(place), jnp.zeros_like(place), place).astype(jnp.int32) + half
        # of p and 1 - p the smaller one has all its digits; the edge nearest to its logit is at most one bin off, and a
        # look at that edge decides, since a computed logarithm need not rise with its argument
        small = jnp.minimum(scores, jnp.float32(1) - scores)
        small = jnp.where(small >= 0, small, jnp.zeros_like(small))
        logit = jnp.log(small / (jnp.float32(1) - small))
        edge = jnp.clip(jnp.round(logit * scale), -half, 0).astype(jnp.int32) + half
        edges = jnp.asarray(self._small_edges())
        below = (small < edges.at[edge].get(mode="promise_in_bounds")).astype(jnp.int32)
        place = jnp.clip(edge - below, 0, half - 1)
        return jnp.where(scores < 0.5, place, self.bins - 1 - place)

    def _small_edges(self) -> np.ndarray:
        """The lower edges of the bins of probabilities up to 1/2, float32 [bins / 2 + 1]."""
        half = self.bins // 2
        edges = 1 / (1 + np.exp(self.limit - np.arange(half + 1) * (2 * self.limit / self.bins)))
        edges[0] = 0.0
        return edges.astype(np.float32)

    def edges(self) -> np.ndarray:
        """The lowest score of each bin, float32 [bins], rising."""
        half = self.bins // 2
        if self.from_logits:
            scale = np.float32(self.bins / (2 * self.limit))
            edges = (np.arange(-half, half) / scale).astype(np.float32)
            edges[0] = -np.inf
            return edges
        small = self._small_edges()
        # the upper bins hold p with small[j] <= 1 - p < small[j + 1]: the lowest p is the next above 1 - small[j + 1]
        border = 1 - small[:0:-1].astype(np.float64)
        upper = border.astype(np.float32)
        upper = np.where(upper.astype(np.float64) <= border, np.nextafter(upper, np.float32(2)), upper)
        upper[0] = 0.5
        return np.concatenate([small[:-1], upper]).astype(np.float32)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def cells(self, state: sums.Sums) -> Sorted:
        """The bins from the highest to the lowest."""
        return _cells(state, self.bins, self.edges())

    def support(self, state: sums.Sums) -> jax.Array:
        """The weight of label 1, float32 []."""
        positive = sums.pick(state, slice(self.bins, 2 * self.bins))
        return sums.value(sums.add(sums.total(positive.hi), sums.total(positive.lo)))

    def undefined(self, state: sums.Sums) -> jax.Array:
        """Whether all values are NaN, bool []: a score or a weight was not one that can be counted."""
        return sums.value(sums.pick(state, -2)) != 0

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of labels that were neither 0 nor 1, float32 []."""
        return sums.value(sums.pick(state, -1))


@dataclass(frozen=True)
class Bits16:
    """Counts each of the 65,536 values of a 16-bit score: exact, in constant memory, mergeable.

    preds: scores [...] of `dtype`, "bfloat16" or "float16", of any scale. float32 scores are refused, since rounding
    them makes ties: cast them yourself where that is meant. target: 0 or 1 [...]; other labels are left out and counted
    in `invalid`. A NaN makes the result NaN. State: `Sums` [131,074], 1 MB; counts exact to 2^46.
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    name: str = field(default="scores", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float16"):
            raise ValueError(f"{self.name}: dtype must be 'bfloat16' or 'float16'; it is {self.dtype!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty counts."""
        return sums.zeros((*batch_shape, 2 * _SIXTEEN + 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds scores [...] with labels [...]."""
        preds, target = as_array(preds, f"{self.name}: preds"), as_array(target, f"{self.name}: target")
        if preds.dtype != jnp.dtype(self.dtype):
            raise TypeError(
                f"{self.name}: preds must be {self.dtype}; they are {preds.dtype}. Cast them with "
                f".astype({self.dtype!r}) if scores that then agree may count as ties, or use Exact or Histogram"
            )
        batch = labelled(preds, target, weight, mask, self.name)
        bits = lax.bitcast_convert_type(batch.scores, jnp.uint16).astype(jnp.int32)
        bits = jnp.where(bits == 0x8000, jnp.zeros_like(bits), bits)  # -0.0 is 0.0
        place = jnp.where(bits >= 0x8000, 0xFFFF - bits, bits + 0x8000)
        return _count(state, batch, place, ~jnp.isnan(batch.scores), _SIXTEEN)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def cells(self, state: sums.Sums) -> Sorted:
        """The values from the highest to the lowest."""
        order = np.arange(_SIXTEEN)
        bits = np.where(order >= 0x8000, order - 0x8000, 0xFFFF - order).astype(np.uint16)
        return _cells(state, _SIXTEEN, bits.view(jnp.dtype(self.dtype)).astype(np.float32))

    def support(self, state: sums.Sums) -> jax.Array:
        """The weight of label 1, float32 []."""
        positive = sums.pick(state, slice(_SIXTEEN, 2 * _SIXTEEN))
        return sums.value(sums.add(sums.total(positive.hi), sums.total(positive.lo)))

    def undefined(self, state: sums.Sums) -> jax.Array:
        """Whether all values are NaN, bool []: a score or a weight was not one that can be counted."""
        return sums.value(sums.pick(state, -2)) != 0

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of labels that were neither 0 nor 1, float32 []."""
        return sums.value(sums.pick(state, -1))


def _count(state: sums.Sums, batch: Labelled, place: jax.Array, valid: jax.Array, size: int) -> sums.Sums:
    """Adds a batch; `place` int32 [n] in [0, size)."""
    if batch.broken is not None:
        valid &= ~batch.broken
    cell = jnp.where(batch.positive, place + size, place)
    cell = jnp.where(valid, cell, jnp.full_like(cell, 2 * size))
    cell = jnp.where(batch.wrong, jnp.full_like(cell, 2 * size + 1), cell)
    if batch.present is None:
        return sums.add(state, in_turn(lambda cell: sums.count_by_cell(cell, None, 2 * size + 2))(cell))
    if batch.weight is None:
        counted = in_turn(lambda cell, keep: sums.count_by_cell(cell, keep, 2 * size + 2))
        return sums.add(state, counted(cell, batch.present))
    # where the weight is broken, what counts is that it was there
    weight = jnp.where(jnp.isfinite(batch.weight), batch.weight, jnp.ones_like(batch.weight))
    weight = jnp.where(batch.present, weight, jnp.zeros_like(weight))
    return sums.add(state, sums.sum_by_cell(cell, jnp.where(valid, weight, jnp.abs(weight)), 2 * size + 2))


def _cells(state: sums.Sums, size: int, edges: np.ndarray) -> Sorted:
    weight = sums.value(state)
    positive, negative = scaled(weight[size : 2 * size][::-1], weight[:size][::-1])
    undefined = weight[2 * size] != 0
    key = jnp.arange(size, dtype=jnp.uint32)
    return Sorted(key, jnp.asarray(edges[::-1].copy()), positive, negative, undefined)
