"""The confusion matrix: what was true against what was predicted, and all that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Reduce

Normalize = Literal["true", "predicted", "all"]
_NORMALIZE = (None, "true", "predicted", "all")


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts (or weights) of each pair of classes, [classes, classes]: row = true class, column = predicted class.

    preds: class ids int [...], or scores float [..., num_classes], of which the highest wins; target: class ids
    int [...]. A pair with an id outside 0 .. num_classes - 1, or with a NaN score, is left out and counted in
    `invalid`. Counts are exact to 2^46 (`counts` reads them in float64; `compute` rounds to float32).

    normalize: None, or "true" (rows sum to 1: recall on the diagonal), "predicted" (columns sum to 1: precision on
    the diagonal), "all" (the matrix sums to 1). A row, column or matrix without any example is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ConfusionMatrix
    >>> metric = ConfusionMatrix(2)
    >>> state = metric.update(metric.init(), preds=jnp.array([0, 1, 1, 1]), target=jnp.array([0, 0, 1, 1]))
    >>> metric.compute(state).tolist()
    [[1.0, 1.0], [0.0, 2.0]]
    """

    num_classes: int
    normalize: Normalize | None = None
    name: str = "confusion_matrix"
    reduce: ClassVar[Reduce] = "sum"

    def __post_init__(self) -> None:
        count = self.num_classes
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 2 <= count <= 32768:
            raise ValueError(f"ConfusionMatrix: num_classes must be an integer from 2 to 32768; it is {count!r}")
        if self.normalize not in _NORMALIZE:
            raise ValueError(
                f"ConfusionMatrix: normalize must be None, 'true', 'predicted' or 'all'; it is {self.normalize!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: classes * classes cells in rows, and one for what is out of range."""
        return sums.zeros((*batch_shape, self.num_classes * self.num_classes + 1))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds int [...] or float [..., num_classes], target int [...]."""
        target = as_ids(target, f"{self.name}: target")
        predicted, valid = self._predicted(as_array(preds, f"{self.name}: preds"), target)
        classes = self.num_classes
        valid &= (target >= 0) & (target < classes) & (predicted >= 0) & (predicted < classes)
        cells = jnp.where(valid, target * classes + predicted, jnp.full_like(target, classes * classes)).reshape(-1)
        size = classes * classes + 1
        if weight is None:
            keep = None if mask is None else as_mask(target.shape, mask, self.name).reshape(-1)
            return sums.add(state, sums.count_by_cell(cells, keep, size))
        weights = as_weight(target.shape, weight, mask, self.name)
        assert weights is not None
        return sums.add(state, sums.sum_by_cell(cells, weights.reshape(-1), size))

    def _predicted(self, preds: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        everywhere = jnp.ones(target.shape, jnp.bool_)
        if preds.ndim == target.ndim + 1:
            if preds.shape != (*target.shape, self.num_classes):
                raise ValueError(
                    f"{self.name}: preds have shape {preds.shape} and target {target.shape}; scores of "
                    f"{self.num_classes} classes have shape {(*target.shape, self.num_classes)}"
                )
            if jnp.issubdtype(preds.dtype, jnp.floating):
                everywhere = ~jnp.any(jnp.isnan(preds), axis=-1)
            return jnp.argmax(preds, axis=-1).astype(jnp.int32), everywhere
        same_shape(preds, target, self.name)
        return as_ids(preds, f"{self.name}: preds"), everywhere

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [classes, classes], normalised as configured."""
        matrix = self._matrix(state)
        if self.normalize is None:
            return matrix
        axis = {"true": (-1,), "predicted": (-2,), "all": (-2, -1)}[self.normalize]
        return _share(matrix, jnp.broadcast_to(jnp.sum(matrix, axis=axis, keepdims=True), matrix.shape))

    def _matrix(self, state: sums.Sums) -> jax.Array:
        cells = sums.value(sums.pick(state, slice(None, -1)))
        return cells.reshape(*cells.shape[:-1], self.num_classes, self.num_classes)

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The counts in float64 [classes, classes] on the host: exact."""
        cells = sums.exact(state)[..., :-1]
        return cells.reshape(*cells.shape[:-1], self.num_classes, self.num_classes)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was no class or a score was NaN, float32 []."""
        return sums.value(sums.pick(state, -1))

    def per_class(self, state: sums.Sums) -> dict[str, jax.Array]:
        """precision, recall, f1 and support (weight of the true class), float32 [classes] each.

        precision = TP / (TP + FP), recall = TP / (TP + FN), f1 = 2 TP / (2 TP + FP + FN); 0 / 0 is NaN.
        """
        matrix = self._matrix(state)
        right = jnp.diagonal(matrix, axis1=-2, axis2=-1)
        true, predicted = jnp.sum(matrix, axis=-1), jnp.sum(matrix, axis=-2)
        return {
            "precision": _share(right, predicted),
            "recall": _share(right, true),
            "f1": _share(right + right, true + predicted),
            "support": true,
        }

    def table(self, state: sums.Sums, *, classes: Sequence[str] | None = None) -> str:
        """Counts with totals, shares and precision, recall, F1 for each class, as plain text to print."""
        from jaxdl.metrics.show import confusion_table

        return confusion_table(self.counts(state), classes=classes, invalid=float(np.asarray(self.invalid(state))))

    def plot(self, state: sums.Sums, *, classes: Sequence[str] | None = None) -> Any:
        """The matrix as a matplotlib Figure, normalised as configured; ImportError without matplotlib."""
        from jaxdl.metrics.show import confusion_plot

        return confusion_plot(self.counts(state), classes=classes, normalize=self.normalize)


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    empty = whole == 0
    return jnp.where(empty, jnp.full_like(part, jnp.nan), part / jnp.where(empty, jnp.ones_like(whole), whole))
