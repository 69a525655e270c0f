"""The confusion matrix: what was true against what was predicted, and all that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

Normalize = Literal["true", "predicted", "all"]
_NORMALIZE = (None, "true", "predicted", "all")


@dataclass(frozen=True)
class PairCounts:
    """How often each pair (true class, predicted class) occurs: the statistic of all metrics of classes.

    preds: class ids int [...], or scores float [..., num_classes], of which the highest wins; target: class ids
    int [...]. A pair with an id outside 0 .. num_classes - 1, or with a NaN score, is left out and counted in
    `invalid`; a target equal to `ignore_index` is left out and not counted. State: `Sums` of num_classes^2 cells, row
    by row (row = true class), and one for the invalid; counts are exact to 2^46.
    """

    num_classes: int
    ignore_index: int | None = None
    name: str = field(default="confusion", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        count = self.num_classes
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 2 <= count <= 32768:
            raise ValueError(f"{self.name}: num_classes must be an integer from 2 to 32768; it is {count!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, self.num_classes * self.num_classes + 1))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds int [...] or float [..., num_classes], target int [...]."""
        cells, keep = self.cells(preds, target, mask)
        weights = None if weight is None else as_weight(keep.shape, weight, None, self.name)
        return sums.add(state, _add_up(cells, keep, weights, self.num_classes * self.num_classes + 1))

    def update_groups(
        self, state: sums.Sums, *, group: jax.Array, groups: int, preds: Any, target: Any, weight: Any = None,
        mask: Any = None,
    ) -> sums.Sums:  # fmt: skip
        """As `update`, for a state of leading shape [groups] and `group`, int32 of target's shape in [0, groups)."""
        cells, keep = self.cells(preds, target, mask)
        weights = None if weight is None else as_weight(keep.shape, weight, None, self.name)
        size = self.num_classes * self.num_classes + 1
        flat = _add_up(cells + group * jnp.int32(size), keep, weights, size * groups)
        return sums.add(state, sums.Sums(flat.hi.reshape(groups, size), flat.lo.reshape(groups, size)))

    def cells(self, preds: Any, target: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
        """The cell of each example, int32 of target's shape (the last one is "invalid"), and whether it counts."""
        target = as_ids(target, f"{self.name}: target")
        predicted, valid = self._predicted(as_array(preds, f"{self.name}: preds"), target)
        classes = self.num_classes
        valid &= (target >= 0) & (target < classes) & (predicted >= 0) & (predicted < classes)
        cells = jnp.where(valid, target * classes + predicted, jnp.full_like(target, classes * classes))
        keep = jnp.ones(target.shape, jnp.bool_) if mask is None else as_mask(target.shape, mask, self.name)
        if self.ignore_index is not None:
            keep &= target != self.ignore_index
        return cells, keep

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

    def matrix(self, state: sums.Sums) -> jax.Array:
        """float32 [..., classes, classes]: row = true class, column = predicted class."""
        cells = sums.value(sums.pick(state, slice(None, -1)))
        return cells.reshape(*cells.shape[:-1], self.num_classes, self.num_classes)

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The matrix in float64 on the host: exact."""
        cells = sums.exact(state)[..., :-1]
        return cells.reshape(*cells.shape[:-1], self.num_classes, self.num_classes)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was no class or a score was NaN, float32 []."""
        return sums.value(sums.pick(state, -1))


def _add_up(cells: jax.Array, keep: jax.Array, weights: jax.Array | None, size: int) -> sums.Sums:
    cells, keep = cells.reshape(-1), keep.reshape(-1)
    if weights is None:
        return sums.count_by_cell(cells, keep, size)
    return sums.sum_by_cell(cells, jnp.where(keep, weights.reshape(-1), jnp.float32(0)), size)


@dataclass(frozen=True)
class ConfusionMatrix(Derived):
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
    ignore_index: int | None = None
    name: str = "confusion_matrix"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks num_classes
        if self.normalize not in _NORMALIZE:
            raise ValueError(
                f"ConfusionMatrix: normalize must be None, 'true', 'predicted' or 'all'; it is {self.normalize!r}"
            )

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs."""
        return PairCounts(self.num_classes, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [classes, classes], normalised as configured."""
        matrix = self.statistic.matrix(state)
        if self.normalize is None:
            return matrix
        axis = {"true": (-1,), "predicted": (-2,), "all": (-2, -1)}[self.normalize]
        return _share(matrix, jnp.broadcast_to(jnp.sum(matrix, axis=axis, keepdims=True), matrix.shape))

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The counts in float64 [classes, classes] on the host: exact."""
        return self.statistic.counts(state)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was no class or a score was NaN, float32 []."""
        return self.statistic.invalid(state)

    def per_class(self, state: sums.Sums) -> dict[str, jax.Array]:
        """precision, recall, f1 and support (weight of the true class), float32 [classes] each.

        precision = TP / (TP + FP), recall = TP / (TP + FN), f1 = 2 TP / (2 TP + FP + FN); 0 / 0 is NaN.
        """
        matrix = self.statistic.matrix(state)
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


def infer_classes(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_classes from the data: the last axis of scores, or one more than the largest id (at least 2).

    Raises:
        ValueError: inside jit, where ids are not known and it must be given.
    """
    preds, target = as_array(inputs["preds"], "preds"), as_ids(inputs["target"], "target")
    if preds.ndim == target.ndim + 1:
        return {"num_classes": int(preds.shape[-1])}
    ids = as_ids(preds, "preds")
    if isinstance(ids, jax.core.Tracer) or isinstance(target, jax.core.Tracer):
        raise ValueError("inside jit the number of classes must be given: num_classes=")
    largest = [int(np.asarray(jnp.max(array))) for array in (ids, target) if array.size]
    return {"num_classes": max([1, *largest]) + 1}


confusion_matrix = one_call(ConfusionMatrix, "confusion_matrix", infer=infer_classes)
