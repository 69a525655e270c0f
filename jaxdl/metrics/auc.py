"""The exact area under the ROC curve, in the graph: a padded buffer of scores, sorted as packed integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_weight, same_shape
from jaxdl.metrics.metric import Reduce


class ScoreBuffer(NamedTuple):
    """What an exact curve remembers.

    Attributes:
        key: uint32 [..., capacity], the scores in an order-preserving code.
        weight: float32 [..., capacity], positive for label 1, negative for label 0, 0 where nothing is stored.
        length: int32 [...], how many examples were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a score was NaN or a weight negative or not finite.
        invalid: int32 [...], how many labels were neither 0 nor 1 (left out).
    """

    key: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array
    invalid: jax.Array


@dataclass(frozen=True)
class ROCAUC:
    """The probability that a random positive scores above a random negative; ties count half. Exact.

    AUC = sum over pairs of w_pos * w_neg * ([s_pos > s_neg] + [s_pos = s_neg] / 2) / (W_pos * W_neg)
    (Hanley and McNeil, 1982; Mann and Whitney's U).

    `capacity` is how many examples (of weight above 0) fit. More of them give NaN, never a silent drop; `overflowed`
    tells. preds: scores [...] of any scale (only their float32 order counts), or [..., 2], of which the score is
    preds[..., 1] - preds[..., 0], which orders two logits or two log probabilities as their softmax does. target:
    0 or 1 [...], of any real dtype; other labels are left out and counted in `invalid`. NaN where only one label was
    seen, where a counted score is NaN, and where a weight is negative or not finite.

    The state holds 8 bytes an example, may be the carry of `lax.scan`, and works under vmap. Of 64-bit numbers it needs
    only those inside `compute`, which turns them on for itself: one sort of (score, weight) packed in a uint64.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ROCAUC
    >>> metric = ROCAUC(capacity=100)
    >>> scores, labels = jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([0, 0, 1, 1])
    >>> float(metric.compute(metric.update(metric.init(), preds=scores, target=labels)))
    0.875
    """

    capacity: int
    name: str = "auc"
    reduce: ClassVar[Reduce] = "gather"

    def __post_init__(self) -> None:
        capacity = self.capacity
        if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or not 1 <= capacity < 2**30:
            raise ValueError(
                f"ROCAUC: capacity must be an integer from 1 to 2^30 - 1, the most examples one evaluation counts; "
                f"it is {capacity!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> ScoreBuffer:
        """The empty buffer."""
        return ScoreBuffer(
            key=jnp.zeros((*batch_shape, self.capacity), jnp.uint32),
            weight=jnp.zeros((*batch_shape, self.capacity), jnp.float32),
            length=jnp.zeros(batch_shape, jnp.int32),
            undefined=jnp.zeros(batch_shape, jnp.bool_),
            invalid=jnp.zeros(batch_shape, jnp.int32),
        )

    def update(
        self, state: ScoreBuffer, *, preds: Any, target: Any, weight: Any = None, mask: Any = None
    ) -> ScoreBuffer:
        """Adds scores [...] or [..., 2] with labels [...]."""
        target = as_array(target, f"{self.name}: target")
        scores = self._scores(as_array(preds, f"{self.name}: preds"), target).reshape(-1)
        given = as_weight(target.shape, weight, mask, self.name)
        target = target.reshape(-1)
        weights = jnp.ones(scores.shape, jnp.float32) if given is None else given.reshape(-1)
        positive, negative = target == jnp.ones((), target.dtype), target == jnp.zeros((), target.dtype)
        present = weights != 0
        counted = present & (positive | negative)
        broken = jnp.isnan(scores) | ~(jnp.isfinite(weights) & (weights > 0))
        stored = self._append(state, key=_ordered(scores), weight=jnp.where(positive, weights, -weights), keep=counted)
        wrong = jnp.sum(present & ~counted, dtype=jnp.int32)
        return stored._replace(
            undefined=state.undefined | jnp.any(counted & broken), invalid=_saturating(state.invalid, wrong)
        )

    def _scores(self, preds: jax.Array, target: jax.Array) -> jax.Array:
        if jnp.issubdtype(preds.dtype, jnp.complexfloating) or jnp.issubdtype(target.dtype, jnp.complexfloating):
            raise TypeError(f"{self.name}: scores and labels must be real; they are {preds.dtype} and {target.dtype}")
        preds = preds.astype(jnp.float32)
        if preds.ndim == target.ndim + 1 and preds.shape == (*target.shape, 2):
            return preds[..., 1] - preds[..., 0]
        if preds.ndim == target.ndim + 1 and preds.shape[:-1] == target.shape and preds.shape[-1] > 2:
            raise ValueError(
                f"{self.name}: preds of shape {preds.shape} hold {preds.shape[-1]} classes; this curve is of two "
                "classes: give one class's scores against the rest, preds[..., c] with target == c"
            )
        same_shape(preds, target, self.name)
        return preds

    def _append(self, state: ScoreBuffer, *, key: jax.Array, weight: jax.Array, keep: jax.Array) -> ScoreBuffer:
        """Puts the kept entries [n] behind those stored; what does not fit is dropped and shows in the length."""
        count = jnp.cumsum(keep, dtype=jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            key=state.key.at[place].set(key, mode="drop"),
            weight=state.weight.at[place].set(weight, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: ScoreBuffer, b: ScoreBuffer) -> ScoreBuffer:
        """Both in one; b's examples stand behind a's, which no result shows."""
        append = self._append
        for _ in range(a.length.ndim):
            append = _over_leading(append)
        places = lax.broadcasted_iota(jnp.int32, b.key.shape, b.key.ndim - 1)
        keep = places < jnp.broadcast_to(b.length[..., None], b.key.shape)
        stored = append(a, key=b.key, weight=b.weight, keep=keep)
        # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
        seen = jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1))
        return stored._replace(
            length=seen, undefined=a.undefined | b.undefined, invalid=_saturating(a.invalid, b.invalid)
        )

    def compute(self, state: ScoreBuffer) -> jax.Array:
        """The area, float32 [] in [0, 1]."""
        return jnp.where(self.overflowed(state) | state.undefined, jnp.float32(jnp.nan), _area(state))

    def overflowed(self, state: ScoreBuffer) -> jax.Array:
        """Whether more examples came than `capacity`, bool []: `compute` is then NaN."""
        return state.length > self.capacity

    def invalid(self, state: ScoreBuffer) -> jax.Array:
        """How many labels were neither 0 nor 1, int32 []."""
        return state.invalid


def _ordered(scores: jax.Array) -> jax.Array:
    """float32 as uint32 that sorts the same way; -0.0 becomes +0.0, or the two would not be ties."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    sign = jnp.uint32(0x80000000)
    bits = jnp.where(bits == sign, jnp.zeros_like(bits), bits)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _area(state: ScoreBuffer) -> jax.Array:
    """The area of the stored scores, by one sort; NaN when one of the labels is missing."""
    with jax.enable_x64(True):
        shift = np.uint64(32)
        packed = (state.key.astype(jnp.uint64) << shift) | lax.bitcast_convert_type(state.weight, jnp.uint32).astype(
            jnp.uint64
        )
        packed = lax.sort(packed, dimension=packed.ndim - 1, is_stable=False)
        key = (packed >> shift).astype(jnp.uint32)
        weight = lax.bitcast_convert_type(packed.astype(jnp.uint32), jnp.float32).astype(jnp.float64)
        none = jnp.zeros_like(weight)
        axis = weight.ndim - 1
        positive = lax.cumsum(jnp.maximum(weight, none), axis=axis)
        negative = lax.cumsum(jnp.maximum(-weight, none), axis=axis)
        # the curve has a corner after the last of each group of equal scores; between corners it is straight: half
        last = jnp.concatenate([key[..., 1:] != key[..., :-1], jnp.ones_like(key[..., :1], jnp.bool_)], axis=axis)
        before_positive, before_negative = _corner_before(positive, last), _corner_before(negative, last)
        all_positive, all_negative = positive[..., -1:], negative[..., -1:]
        both = (all_positive > 0) & (all_negative > 0)
        one = jnp.ones_like(all_positive)
        # divided before multiplied: the product of two large totals need not be a number
        rise = (positive - before_positive) / jnp.where(both, all_positive, one)
        below = (negative + before_negative) / jnp.where(both, all_negative, one)
        area = jnp.sum(jnp.where(last, rise * below, none), axis=axis) * np.float64(0.5)
        return jnp.where(both[..., 0], area, jnp.full_like(area, np.nan)).astype(jnp.float32)


def _corner_before(sums: jax.Array, last: jax.Array) -> jax.Array:
    """At each place the rising sum at the corner before it; 0 before the first."""
    corners = lax.cummax(jnp.where(last, sums, jnp.zeros_like(sums)), axis=sums.ndim - 1)
    return jnp.concatenate([jnp.zeros_like(corners[..., :1]), corners[..., :-1]], axis=sums.ndim - 1)


def _saturating(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum of two counts, which stays at 2^31 - 1 instead of turning negative."""
    top = jnp.int32(2**31 - 1)
    return jnp.where(a > top - b, top, a + b)


def _over_leading(append: Any) -> Any:
    mapped = jax.vmap(lambda state, key, weight, keep: append(state, key=key, weight=weight, keep=keep))
    return lambda state, *, key, weight, keep: mapped(state, key, weight, keep)


roc_auc = one_call(ROCAUC, "roc_auc", infer=lambda inputs: {"capacity": max(1, int(np.size(inputs["target"])))})
