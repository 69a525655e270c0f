"""The confusion matrix: what was true against what was predicted, and all that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

Normalize = Literal["true", "predicted", "all"]
# Examples counted at a time: measured, 1.0 to 1.2 ns an example where all at once take 1.1 to 1.7.
_BLOCK = 20_480
_NORMALIZE = (None, "true", "predicted", "all")


class Outcomes(NamedTuple):
    """True and false positives and negatives of each class or label, [classes] each."""

    tp: jax.Array
    fp: jax.Array
    fn: jax.Array
    tn: jax.Array


def check_threshold(threshold: float | None, name: str) -> None:
    """Refuses a threshold that no score can be compared with."""
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or math.isnan(threshold):
        raise ValueError(f"{name}: threshold must be a number or None; it is {threshold!r}")


def divide(above: jax.Array, below: jax.Array, zero_division: float) -> jax.Array:
    """above / below in float64; `zero_division` where both are 0 (NaN stays NaN)."""
    empty = below == 0
    other = jnp.full_like(above, zero_division)
    return jnp.where(empty, other, above / jnp.where(empty, jnp.ones_like(below), below))


@dataclass(frozen=True)
class PairCounts:
    """How often each pair (true class, predicted class) occurs: the statistic of all metrics of classes.

    preds: class ids int [...], or scores float [..., num_classes], of which the highest wins (among equal ones the
    lowest id), or, for two classes and with `threshold`, the score of class 1, float [...]: class 1 is predicted where
    score > threshold. target: class ids int [...]. A pair with an id outside 0 .. num_classes - 1, or with a NaN score,
    is left out and counted in `invalid`, and NaN scores make `matrix` and what follows from it NaN; a target equal to
    `ignore_index` is left out and not counted. State: `Sums` of num_classes^2 cells, row by row (row = true class), and
    one each for ids out of range and for NaN scores; counts are exact to 2^46.
    """

    num_classes: int
    ignore_index: int | None = None
    threshold: float | None = None
    name: str = field(default="confusion", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        count = self.num_classes
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 2 <= count <= 32768:
            raise ValueError(f"{self.name}: num_classes must be an integer from 2 to 32768; it is {count!r}")
        ignored = self.ignore_index
        if ignored is not None and (isinstance(ignored, bool) or not isinstance(ignored, int | np.integer)):
            raise ValueError(
                f"{self.name}: ignore_index must be one integer id, such as 255; it is {ignored!r}. "
                "mask= leaves out any set of examples"
            )
        check_threshold(self.threshold, self.name)
        if self.threshold is not None and count != 2:
            raise ValueError(
                f"{self.name}: threshold={self.threshold!r} splits one score in two, but num_classes is {count}; "
                "leave it out (the highest score wins), or give num_labels= for labels that do not exclude each other"
            )

    @property
    def size(self) -> int:
        """How many sums the state holds."""
        return self.num_classes * self.num_classes + 2

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, self.size))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds int [...] or float [..., num_classes], target int [...]."""
        many = np.size(target) >= 2 * _BLOCK and self.size > sums.FEW_CELLS
        if many and weight is None and mask is None and np.shape(preds) == np.shape(target):
            ids = as_ids(preds, f"{self.name}: preds"), as_ids(target, f"{self.name}: target")
            return sums.add(state, sums.from_counts(self._counted(*(x.reshape(-1) for x in ids))))
        cells, keep = self.cells(preds, target, mask)
        weights = None if weight is None else as_weight(keep.shape, weight, None, self.name)
        everything = mask is None and self.ignore_index is None  # then there is nothing to choose, which is faster
        return sums.add(state, add_up(cells, None if everything else keep, weights, self.size))

    def _counted(self, preds: jax.Array, target: jax.Array) -> jax.Array:
        """The counts of many examples, int32 [size], block by block: the cells of all would not fit in the cache."""

        def block(start: int | jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
            first, second = (jax.lax.dynamic_slice_in_dim(x, start, length) for x in (preds, target))
            return self.cells(first, second, None)

        def one(i: jax.Array, counts: jax.Array) -> jax.Array:
            cells, keep = block(i * _BLOCK, _BLOCK)
            if self.ignore_index is not None:
                cells = jnp.where(keep, cells, jnp.full_like(cells, self.size))
            return counts.at[cells].add(jnp.int32(1), mode="promise_in_bounds")

        blocks, rest = divmod(target.size, _BLOCK)
        cells, keep = block(blocks * _BLOCK, rest)
        # started from what is left over, not from zeros, so that the carry has its type under vmap and shard_map
        begin = jnp.zeros((self.size + 1,), jnp.int32).at[cells].add(keep.astype(jnp.int32), mode="promise_in_bounds")
        return jax.lax.fori_loop(0, blocks, one, begin)[: self.size]

    def update_groups(
        self, state: sums.Sums, *, group: jax.Array, groups: int, preds: Any, target: Any, weight: Any = None,
        mask: Any = None,
    ) -> sums.Sums:  # fmt: skip
        """As `update`, for a state of leading shape [groups] and `group`, int32 of target's shape in [0, groups)."""
        cells, keep = self.cells(preds, target, mask)
        weights = None if weight is None else as_weight(keep.shape, weight, None, self.name)
        flat = add_up(cells + group * jnp.int32(self.size), keep, weights, self.size * groups)
        return sums.add(state, sums.Sums(flat.hi.reshape(groups, self.size), flat.lo.reshape(groups, self.size)))

    def cells(self, preds: Any, target: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
        """The cell of each example, int32 of target's shape, and whether it counts, bool.

        Cell num_classes^2 is "an id out of range", the one after it "a NaN score".
        """
        target = as_ids(target, f"{self.name}: target")
        predicted, broken = self._predicted(as_array(preds, f"{self.name}: preds"), target)
        classes = self.num_classes
        # as unsigned numbers the negative ones are large: one comparison each
        limit = jnp.uint32(classes)
        valid = (target.astype(jnp.uint32) < limit) & (predicted.astype(jnp.uint32) < limit)
        cells = jnp.where(valid, target * classes + predicted, jnp.full_like(target, classes * classes))
        if broken is not None:
            cells = jnp.where(valid & broken, jnp.full_like(cells, classes * classes + 1), cells)
        keep = jnp.ones(target.shape, jnp.bool_) if mask is None else as_mask(target.shape, mask, self.name)
        if self.ignore_index is not None:
            keep &= target != self.ignore_index
        return cells, keep

    def _predicted(self, preds: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The predicted ids, and where scores were NaN."""
        scores = jnp.issubdtype(preds.dtype, jnp.floating)
        if preds.ndim == target.ndim + 1:
            if preds.shape != (*target.shape, self.num_classes):
                raise ValueError(
                    f"{self.name}: preds have shape {preds.shape} and target {target.shape}; scores of "
                    f"{self.num_classes} classes have shape {(*target.shape, self.num_classes)}"
                )
            if self.threshold is not None:
                raise ValueError(
                    f"{self.name}: threshold={self.threshold!r} reads one score for each example, but preds have shape "
                    f"{preds.shape}; give preds[..., 1], or leave the threshold out: the highest score wins"
                )
            broken = jnp.any(jnp.isnan(preds), axis=-1) if scores else None
            return jnp.argmax(preds, axis=-1).astype(jnp.int32), broken
        same_shape(preds, target, self.name)
        if scores and self.threshold is not None:
            return (preds.astype(jnp.float32) > jnp.float32(self.threshold)).astype(jnp.int32), jnp.isnan(preds)
        if scores and self.num_classes == 2:
            raise TypeError(
                f"{self.name}: preds are scores of shape {preds.shape}, one for each example; give threshold=0.5 for "
                "probabilities of class 1 (0.0 for logits)"
            )
        return as_ids(preds, f"{self.name}: preds"), None

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def matrix(self, state: sums.Sums) -> jax.Array:
        """float32 [..., classes, classes]: row = true class, column = predicted class; NaN after a NaN score."""
        return self._square(sums.value(state), spoil=True)

    def wide(self, state: sums.Sums) -> jax.Array:
        """As `matrix`, but float64 and exact: call it inside `with jax.enable_x64(True)`."""
        return self._square(sums.wide(state), spoil=True)

    def outcomes(self, state: sums.Sums) -> Outcomes:
        """Each class against the rest, float64 [classes] each: call it inside `with jax.enable_x64(True)`."""
        matrix = self.wide(state)
        eye = jnp.eye(self.num_classes, dtype=jnp.bool_)
        # off the diagonal alone, so that what is empty is exactly 0 with any weights
        wrong = jnp.where(eye, jnp.zeros_like(matrix), matrix)
        tp, fp, fn = jnp.diagonal(matrix), jnp.sum(wrong, axis=0), jnp.sum(wrong, axis=1)
        whole = jnp.sum(matrix)
        tn = whole - (tp + fp + fn)
        # less than 2^-50 of the whole is rounding: counts are whole numbers below 2^46
        return Outcomes(tp, fp, fn, jnp.where(tn < whole * np.float64(2**-50), jnp.zeros_like(tn), tn))

    def right(self, state: sums.Sums) -> tuple[jax.Array, jax.Array]:
        """The weight that is right and all weight, float64 []: call it inside `with jax.enable_x64(True)`."""
        outcomes = self.outcomes(state)
        right = jnp.sum(outcomes.tp)
        return right, right + jnp.sum(outcomes.fp)  # every wrong pair is a false positive of one class

    def plain(self, state: sums.Sums) -> jax.Array:
        """As `matrix`, with what has a NaN score left out."""
        return self._square(sums.value(state), spoil=False)

    def _square(self, cells: jax.Array, *, spoil: bool) -> jax.Array:
        square = cells[..., :-2].reshape(*cells.shape[:-1], self.num_classes, self.num_classes)
        if not spoil:
            return square
        broken = jnp.broadcast_to(cells[..., -1][..., None, None] != 0, square.shape)
        return jnp.where(broken, jnp.full_like(square, jnp.nan), square)

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The matrix in float64 on the host: exact, with what has a NaN score left out."""
        cells = sums.exact(state)[..., :-2]
        return cells.reshape(*cells.shape[:-1], self.num_classes, self.num_classes)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was no class or a score was NaN, float32 []."""
        return sums.value(sums.add(sums.pick(state, -2), sums.pick(state, -1)))


def add_up(cells: jax.Array, keep: jax.Array | None, weights: jax.Array | None, size: int) -> sums.Sums:
    """Counts (or weights) in each of `size` cells, of those to `keep`: arrays of any one shape -> Sums [size]."""
    cells, keep = cells.reshape(-1), None if keep is None else keep.reshape(-1)
    if weights is None:
        return sums.count_by_cell(cells, keep, size)
    flat = weights.reshape(-1)
    return sums.sum_by_cell(cells, flat if keep is None else jnp.where(keep, flat, jnp.zeros_like(flat)), size)


@dataclass(frozen=True)
class ConfusionMatrix(Derived):
    """Counts (or weights) of each pair of classes, [classes, classes]: row = true class, column = predicted class.

    preds: class ids int [...], or scores float [..., num_classes], of which the highest wins, or with `threshold` the
    score of class 1 of two, float [...]; target: class ids int [...]. A pair with an id outside 0 .. num_classes - 1,
    or with a NaN score, is left out and counted in `invalid`; what equals `ignore_index` is left out. Counts are exact
    to 2^46 (`counts` reads them in float64; `compute` rounds to float32).

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
    threshold: float | None = None
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
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [classes, classes], normalised as configured."""
        matrix = self.statistic.plain(state)
        if self.normalize is None:
            return matrix
        axis = {"true": (-1,), "predicted": (-2,), "all": (-2, -1)}[self.normalize]
        return _share(matrix, jnp.broadcast_to(jnp.sum(matrix, axis=axis, keepdims=True), matrix.shape))

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The counts in float64 [classes, classes] on the host: exact."""
        return self.statistic.counts(state)

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
    """num_classes from the data: the last axis of scores, 2 for one score an example with a threshold, or one more than
    the largest id that is not ignored (at least 2).

    Raises:
        ValueError: inside jit, where ids are not known and it must be given.
        TypeError: for scores of target's shape, which may be those of one class or of many labels.
    """
    preds, target = as_array(inputs["preds"], "preds"), as_ids(inputs["target"], "target")
    if preds.ndim == target.ndim + 1:
        if preds.shape[-1] == 1:
            raise ValueError(
                f"preds of shape {preds.shape} hold one number for each example, target is {target.shape}; drop the "
                "last axis: preds[..., 0]"
            )
        return {"num_classes": int(preds.shape[-1])}
    if jnp.issubdtype(preds.dtype, jnp.floating) and preds.shape == target.shape and preds.size:
        if preds.ndim == 1 and inputs.get("threshold") is not None:
            return {"num_classes": 2}
        raise TypeError(
            f"preds are scores of target's shape, {preds.shape}; give num_classes=2, threshold=0.5 for probabilities "
            "of class 1 (0.0 for logits), num_labels= for labels that do not exclude each other, or ids: preds > 0.5"
        )
    ids = as_ids(preds, "preds")
    if isinstance(ids, jax.core.Tracer) or isinstance(target, jax.core.Tracer):
        raise ValueError("inside jit the number of classes must be given: num_classes=")
    seen = target != inputs["ignore_index"] if inputs.get("ignore_index") is not None else None
    if seen is not None and ids.shape == target.shape:
        ids, target = (jnp.where(seen, array, jnp.zeros_like(array)) for array in (ids, target))
    largest = [int(np.asarray(jnp.max(array))) for array in (ids, target) if array.size]
    return {"num_classes": max([1, *largest]) + 1}


confusion_matrix = one_call(ConfusionMatrix, "confusion_matrix", infer=infer_classes)
