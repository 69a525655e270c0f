"""Labels that do not exclude each other: what each is predicted as, and rows that are right as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import Outcomes, PairCounts, add_up, check_threshold, infer_classes
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

# The cells of a label: 2 * target + predicted, then "neither 0 nor 1", then "a NaN score".
INVALID, BROKEN, _CELLS = 4, 5, 6


@dataclass(frozen=True)
class LabelCounts:
    """True and false positives and negatives of each label: the statistic of all metrics of many labels.

    preds: 0 or 1 (int or bool) [..., num_labels], or scores float [..., num_labels], where a label is predicted if its
    score > threshold (0.5 for probabilities, 0.0 for logits); target: 0 or 1 [..., num_labels]. `weight` and `mask`
    broadcast from the left: one for each example, or one for each label of it. What is neither 0 nor 1 is left out and
    counted in `invalid`; a NaN score makes its label NaN; a target equal to `ignore_index` is left out. State: `Sums`
    [6 * num_labels]; counts are exact to 2^46.
    """

    num_labels: int
    threshold: float = 0.5
    ignore_index: int | None = None
    name: str = field(default="labels", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        count = self.num_labels
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{self.name}: num_labels must be a positive integer; it is {count!r}")
        check_threshold(self.threshold, self.name)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, _CELLS * self.num_labels))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds and target [..., num_labels]."""
        cells, keep = self.cells(preds, target, mask)
        weights = None if weight is None else as_weight(keep.shape, weight, None, self.name)
        labels = jnp.arange(self.num_labels, dtype=jnp.int32) * jnp.int32(_CELLS)
        places = cells + jnp.broadcast_to(labels, cells.shape)
        everything = mask is None and self.ignore_index is None
        return sums.add(state, add_up(places, None if everything else keep, weights, _CELLS * self.num_labels))

    def cells(self, preds: Any, target: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
        """The cell of each label, int32 in 0 .. 5 of target's shape, and whether it counts, bool."""
        target = as_ids(target, f"{self.name}: target")
        preds = as_array(preds, f"{self.name}: preds")
        same_shape(preds, target, self.name)
        if target.ndim == 0 or target.shape[-1] != self.num_labels:
            raise ValueError(
                f"{self.name}: target has shape {target.shape}; with num_labels={self.num_labels} it is "
                f"[..., {self.num_labels}]"
            )
        keep = jnp.ones(target.shape, jnp.bool_) if mask is None else as_mask(target.shape, mask, self.name)
        if self.ignore_index is not None:
            keep &= target != self.ignore_index
        broken = None
        if jnp.issubdtype(preds.dtype, jnp.floating):
            broken = jnp.isnan(preds)
            predicted = (preds.astype(jnp.float32) > jnp.float32(self.threshold)).astype(jnp.int32)
        else:
            predicted = as_ids(preds, f"{self.name}: preds")
        # of two ids both are 0 or 1 exactly if no higher bit is set in either; negative ids have the sign bit
        valid = ((target | predicted) & jnp.int32(~1)) == 0
        cells = jnp.where(valid, 2 * target + predicted, jnp.full_like(target, INVALID))
        return cells if broken is None else jnp.where(valid & broken, jnp.full_like(cells, BROKEN), cells), keep

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def outcomes(self, state: sums.Sums) -> Outcomes:
        """Each label's outcomes, float64 [num_labels] each: call it inside `with jax.enable_x64(True)`."""
        tn, fp, fn, tp = (spoiled(sums.wide(state), kind) for kind in range(4))
        return Outcomes(tp, fp, fn, tn)

    def right(self, state: sums.Sums) -> tuple[jax.Array, jax.Array]:
        """The weight of labels that are right and of all, float64 []: call it inside `with jax.enable_x64(True)`."""
        outcomes = self.outcomes(state)
        right = jnp.sum(outcomes.tp + outcomes.tn)
        return right, right + jnp.sum(outcomes.fp + outcomes.fn)

    def counts(self, state: sums.Sums) -> np.ndarray:
        """float64 [num_labels, 2, 2] on the host, exact: of each label, [true, predicted]."""
        cells = sums.exact(state).reshape(*state.hi.shape[:-1], self.num_labels, _CELLS)[..., :4]
        return cells.reshape(*cells.shape[:-1], 2, 2)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of labels left out because they were neither 0 nor 1 or a score was NaN, float32 []."""
        lost = [sums.pick(state, slice(kind, None, _CELLS)) for kind in (INVALID, BROKEN)]
        return jnp.sum(sums.value(sums.add(*lost)), axis=-1)


def spoiled(cells: jax.Array, kind: int) -> jax.Array:
    """One kind of outcome of all labels from cells [..., 6 * labels]; NaN for a label with a NaN score."""
    own, broken = cells[..., kind::_CELLS], cells[..., BROKEN::_CELLS]
    return jnp.where(broken != 0, jnp.full_like(own, jnp.nan), own)


def counts_of(
    num_classes: int | None, num_labels: int | None, threshold: float | None, ignore_index: int | None, name: str
) -> PairCounts | LabelCounts:
    """The statistic of a metric of classes (`num_classes`) or of labels (`num_labels`); exactly one must be given."""
    if (num_classes is None) == (num_labels is None):
        given = "neither is" if num_classes is None else "both are"
        raise ValueError(
            f"{name}: give num_classes= where one class excludes the others (2 for binary), or num_labels= where "
            f"several labels may hold at once; {given} given"
        )
    if num_classes is not None:
        return PairCounts(num_classes, ignore_index, threshold, name=name)
    return LabelCounts(int(num_labels or 0), 0.5 if threshold is None else threshold, ignore_index, name=name)


def infer_labels(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_labels from the data: the last axis of the target."""
    shape = as_array(inputs["target"], "target").shape
    return {"num_labels": int(shape[-1]) if shape else 0}


@dataclass(frozen=True)
class MultilabelConfusionMatrix(Derived):
    """Counts (or weights) of each label's outcomes, [num_labels, 2, 2]: row = true 0 or 1, column = predicted 0 or 1.

    preds, target, `threshold`, `ignore_index`: see `LabelCounts`. normalize: None, or "true" (the rows of each label
    sum to 1), "predicted" (its columns), "all" (its four numbers); 0 / 0 is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import multilabel_confusion_matrix
    >>> target = jnp.array([[1, 0], [1, 1], [0, 0]])
    >>> multilabel_confusion_matrix(jnp.array([[0.9, 0.2], [0.1, 0.7], [0.2, 0.8]]), target)[0].tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """

    num_labels: int
    threshold: float = 0.5
    ignore_index: int | None = None
    normalize: Literal["true", "predicted", "all"] | None = None
    name: str = "multilabel_confusion_matrix"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks num_labels and threshold
        if self.normalize not in (None, "true", "predicted", "all"):
            raise ValueError(
                f"{self.name}: normalize must be None, 'true', 'predicted' or 'all'; it is {self.normalize!r}"
            )

    @property
    def statistic(self) -> LabelCounts:
        """The outcomes of each label."""
        return LabelCounts(self.num_labels, self.threshold, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [num_labels, 2, 2], normalised as configured."""
        cells = jnp.stack([spoiled(sums.value(state), kind) for kind in range(4)], axis=-1)
        matrix = cells.reshape(*cells.shape[:-1], 2, 2)
        if self.normalize is None:
            return matrix
        axis = {"true": (-1,), "predicted": (-2,), "all": (-2, -1)}[self.normalize]
        whole = jnp.broadcast_to(jnp.sum(matrix, axis=axis, keepdims=True), matrix.shape)
        empty = whole == 0
        return jnp.where(empty, jnp.full_like(matrix, jnp.nan), matrix / jnp.where(empty, jnp.ones_like(whole), whole))

    def counts(self, state: sums.Sums) -> np.ndarray:
        """The counts in float64 on the host: exact."""
        return self.statistic.counts(state)


@dataclass(frozen=True)
class ExactMatch:
    """The share of rows that are right as a whole (subset accuracy): sum(weight * all right) / sum(weight).

    `num_labels=L`: preds 0 or 1, or scores with `threshold`, [..., L], target 0 or 1 [..., L]; a row is its labels.
    `num_classes=C`: preds ids [..., T], or scores [..., T, C], target ids [..., T]; a row is its T places (the tokens
    of a sequence, the pixels of a line). `weight` and `mask` are those of rows. Places whose target is `ignore_index`
    are not looked at, and a row of nothing else is left out. A row with an invalid id is left out and counted in
    `invalid`; a NaN score makes the result NaN; NaN when nothing was counted.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import exact_match
    >>> float(exact_match(jnp.array([[1, 0], [1, 1]]), jnp.array([[1, 0], [0, 1]]), num_labels=2))
    0.5
    """

    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = "exact_match"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _ = self._pairs  # checks the configuration

    @property
    def _pairs(self) -> Any:
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: three sums, of the weight that is right, that counts, and that is not valid."""
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch; shapes as the class says."""
        cells, looked_at = self._pairs.cells(preds, target, None)
        if cells.ndim < 2:
            raise ValueError(
                f"{self.name}: target has shape {cells.shape}; rows of it are compared: give [rows, places]"
            )
        if self.num_labels is not None:
            right, outside, broken = (cells == 0) | (cells == 3), cells == INVALID, cells == BROKEN
        else:
            classes = int(self.num_classes or 0)
            right = cells % jnp.int32(classes + 1) == 0  # the diagonal
            outside, broken = cells == classes * classes, cells == classes * classes + 1
        shape = cells.shape[:-1]
        given = as_weight(shape, weight, mask, self.name)
        given = jnp.ones(shape, jnp.float32) if given is None else given
        none = jnp.zeros_like(given)
        given = jnp.where(jnp.any(looked_at, axis=-1), given, none)
        lost = jnp.where(jnp.any(outside & looked_at, axis=-1), given, none)
        counted = given - lost
        hit = jnp.where(jnp.all(right | ~looked_at, axis=-1), counted, none)
        spoil = jnp.any(broken & looked_at, axis=-1) & (counted != 0)
        hit = jnp.where(spoil, jnp.full_like(hit, jnp.nan), hit)
        return sums.add(state, sums.total(jnp.stack([part.reshape(-1) for part in (hit, counted, lost)])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The share, float32 []."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of rows left out because an id was out of range, float32 []."""
        return sums.value(sums.pick(state, 2))


multilabel_confusion_matrix = one_call(MultilabelConfusionMatrix, "multilabel_confusion_matrix", infer=infer_labels)
exact_match = one_call(ExactMatch, "exact_match", infer=infer_classes, either=("num_classes", "num_labels"))
