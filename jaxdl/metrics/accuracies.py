"""Accuracy: the share of examples whose predicted class is the true one, or among the k best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import PairCounts, divide
from jaxdl.metrics.inputs import as_array, as_ids, as_weight, same_shape
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.multilabel import LabelCounts, counts_of

_CORRECT, _COUNTED, _INVALID = 0, 1, 2


@dataclass(frozen=True)
class Accuracy:
    """sum(weight * hit) / sum(weight), where hit is 1 if the true class is among the `top_k` highest scores.

    preds: scores or logits float [..., classes] (the highest wins; among equal scores the lowest class id, as argmax),
    or class ids int [...]. target: class ids int [...]. A score that is NaN makes the result NaN; a target outside the
    classes (such as -1) is left out and counted in `invalid`. NaN when nothing was counted.

    So far nothing has to be configured, and the state is three sums. With `num_classes=C` (and `threshold` for one
    score an example, C = 2) the accuracy is read off the state of `PairCounts`, which a `Collection` shares among all
    metrics of these classes; with `num_labels=L` off that of `LabelCounts`: preds and target [..., L], and the share of
    single labels that are right (that of whole rows is `ExactMatch`). `ignore_index` needs one of both.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Accuracy
    >>> metric = Accuracy()
    >>> scores = jnp.array([[2.0, 1.0], [0.0, 3.0], [4.0, 0.0], [5.0, 1.0]])
    >>> float(metric.compute(metric.update(metric.init(), preds=scores, target=jnp.array([0, 1, 1, 0]))))
    0.75
    """

    top_k: int = 1
    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = ""
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1:
            raise ValueError(f"Accuracy: top_k must be a positive integer; it is {self.top_k!r}")
        if not self.name:
            object.__setattr__(self, "name", "accuracy" if self.top_k == 1 else f"top_{self.top_k}_accuracy")
        if self._counts is not None and self.top_k != 1:
            raise ValueError(f"{self.name}: top_k={self.top_k} is not read off counts; leave num_classes out")

    @property
    def _counts(self) -> PairCounts | LabelCounts | None:
        """The shared statistic, where classes or labels are configured."""
        if all(x is None for x in (self.num_classes, self.num_labels, self.threshold, self.ignore_index)):
            return None
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    @property
    def statistic(self) -> Any:
        """What the state belongs to: the counts of classes or labels where they are configured, or this metric."""
        return self._counts or self

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: three sums, of the weight that is right, that counts, and that is out of range."""
        if self._counts is not None:
            return self._counts.init(batch_shape)
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds [..., classes] or int [...], target int [...]."""
        if self._counts is not None:
            return self._counts.update(state, preds=preds, target=target, weight=weight, mask=mask)
        target = as_ids(target, f"{self.name}: target")
        hit, valid = self._hits(as_array(preds, f"{self.name}: preds"), target)
        weight = as_weight(target.shape, weight, mask, self.name)
        ones = jnp.ones(target.shape, jnp.float32) if weight is None else weight
        none = jnp.zeros_like(ones)
        counted = jnp.where(valid, ones, none)
        right = jnp.where(counted == 0, none, hit * counted)
        parts = jnp.stack([right.reshape(-1), counted.reshape(-1), jnp.where(valid, none, ones).reshape(-1)])
        return sums.add(state, sums.total(parts))

    def _hits(self, preds: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(1.0 hit, 0.0 miss or NaN; target in range), both of target's shape."""
        if preds.ndim == target.ndim + 1 and preds.shape[:-1] == target.shape:
            classes = preds.shape[-1]
            if classes < max(2, self.top_k):
                raise ValueError(
                    f"{self.name}: preds of shape {preds.shape} hold scores for {classes} classes; "
                    f"at least {max(2, self.top_k)} are needed"
                    + (". For one logit per example give ids: preds[..., 0] > 0" if classes == 1 else "")
                )
            valid = (target >= 0) & (target < classes)
            if self.top_k == 1:
                hit = (jnp.argmax(preds, axis=-1).astype(jnp.int32) == target).astype(jnp.float32)
            else:
                safe = jnp.where(valid, target, jnp.zeros_like(target))[..., None]
                own = jnp.take_along_axis(preds, safe, axis=-1)
                earlier = jnp.broadcast_to(jnp.arange(classes, dtype=jnp.int32), preds.shape) < safe
                before = (preds > own) | ((preds == own) & earlier)
                hit = (jnp.sum(before, axis=-1, dtype=jnp.int32) < self.top_k).astype(jnp.float32)
            if jnp.issubdtype(preds.dtype, jnp.floating):
                hit = jnp.where(jnp.any(jnp.isnan(preds), axis=-1), jnp.full_like(hit, jnp.nan), hit)
            return hit, valid
        if self.top_k != 1:
            raise ValueError(
                f"{self.name}: top_k={self.top_k} needs scores [..., classes]; preds have shape {preds.shape} "
                f"and target {target.shape}"
            )
        if preds.ndim != target.ndim:
            raise ValueError(
                f"{self.name}: preds have shape {preds.shape} and target {target.shape}; give scores "
                f"{(*target.shape, 'classes')} or class ids {target.shape}"
            )
        same_shape(preds, target, self.name)
        return (as_ids(preds, f"{self.name}: preds") == target).astype(jnp.float32), target >= 0

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The accuracy, float32 [] in [0, 1]."""
        if self._counts is not None:
            with jax.enable_x64(True):
                right, whole = self._counts.right(state)
                return divide(right, whole, math.nan).astype(jnp.float32)
        return sums.ratio(sums.pick(state, _CORRECT), sums.pick(state, _COUNTED))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples whose target was no class, float32 []."""
        if self._counts is not None:
            return self._counts.invalid(state)
        return sums.value(sums.pick(state, _INVALID))


accuracy = one_call(Accuracy, "accuracy")
