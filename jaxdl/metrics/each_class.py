"""Curves of more than two classes and of many labels: one against the rest, one against one, label by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.auc import ROCAUC
from jaxdl.metrics.call import one_call
from jaxdl.metrics.corners import Sorted
from jaxdl.metrics.inputs import as_array, as_ids, as_weight
from jaxdl.metrics.metric import Derived, Reduce, told
from jaxdl.metrics.of_scores import Scores
from jaxdl.metrics.scores import Exact, ScoreBuffer

Average = Literal["macro", "macro_all", "weighted"]


@dataclass(frozen=True)
class EachClass:
    """One state of the statistic `of` for each class (against the rest) or each label; the leading axis of every leaf.

    preds [..., count]; target class ids int [...], or, with labels=True, 0 or 1 [..., count]. `weight` and `mask`
    broadcast from the left over [...] or, with labels=True, over [..., count].
    """

    of: Any
    count: int
    labels: bool = False
    name: str = field(default="scores", compare=False)

    def __post_init__(self) -> None:
        least, what = (1, "num_labels") if self.labels else (2, "num_classes")
        if isinstance(self.count, bool) or not isinstance(self.count, int | np.integer) or self.count < least:
            raise ValueError(f"{self.name}: {what} must be an integer of at least {least}; it is {self.count!r}")

    @property
    def reduce(self) -> Reduce:
        """As the statistic's own."""
        return self.of.reduce

    @property
    def inputs(self) -> tuple[str, ...]:
        """The statistic's own."""
        return self.of.inputs

    def init(self, batch_shape: tuple[int, ...] = ()) -> Any:
        """Empty states."""
        return self.of.init((*batch_shape, self.count))

    def update(self, state: Any, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Any:
        """Adds a batch."""
        preds, target = as_array(preds, f"{self.name}: preds"), as_array(target, f"{self.name}: target")
        wanted = target.shape if self.labels else (*target.shape, self.count)
        if preds.shape != wanted or preds.shape[-1:] != (self.count,):
            shape = "(..., labels)" if self.labels else "ids (...) and preds (..., classes)"
            raise ValueError(
                f"{self.name}: preds have shape {preds.shape} and target {target.shape}; with {self.count} "
                f"{'labels both are' if self.labels else 'classes target holds'} {shape}"
            )
        weights = as_weight(target.shape, weight, mask, self.name)
        if self.labels:
            truth = jnp.moveaxis(target, -1, 0)
            weights = None if weights is None else jnp.moveaxis(weights, -1, 0)
        else:
            ids = as_ids(target, f"{self.name}: target")
            known = (ids >= 0) & (ids < self.count)
            classes = jnp.arange(self.count, dtype=jnp.int32).reshape(-1, *(1,) * ids.ndim)
            wide = (self.count, *ids.shape)
            own = jnp.broadcast_to(ids[None], wide) == jnp.broadcast_to(classes, wide)
            truth = jnp.where(jnp.broadcast_to(known[None], wide), own.astype(jnp.int32), jnp.int32(2))

        def one(state: Any, preds: jax.Array, target: jax.Array, weight: jax.Array | None) -> Any:
            return self.of.update(state, preds=preds, target=target, weight=weight)

        across = None if weights is None or not self.labels else 0
        return jax.vmap(one, in_axes=(0, 0, 0, across))(state, jnp.moveaxis(preds, -1, 0), truth, weights)

    def merge(self, a: Any, b: Any) -> Any:
        """Both in one."""
        return self.of.merge(a, b)

    def invalid(self, state: Any) -> jax.Array:
        """What was left out because its target was no class; of labels, all of them together."""
        each = jax.vmap(self.of.invalid)(state)
        return jnp.sum(each, dtype=each.dtype) if self.labels else each[0]

    def overflowed(self, state: Any) -> jax.Array:
        """Whether more examples came than any capacity, bool []."""
        return jnp.any(jax.vmap(partial(told, self.of, "overflowed"))(state))


@dataclass(frozen=True)
class OneVsRest(Derived):
    """A metric over scores of two labels, for each class against all others; averaged as `average` says.

    metric: any of this module's over scores: OneVsRest(AveragePrecision(scores=Histogram()), num_classes=10). Equal
    statistics share one state. preds [..., classes], target ids int [...]; ids out of range are left out and counted in
    `invalid`.

    average: None, one value a class [classes] (a mapping or a curve gets a leading axis); "macro", the mean over the
    classes whose value is defined; "macro_all", over all, NaN when one is not; "weighted", by the weight of each class.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ROCAUC, OneVsRest
    >>> metric = OneVsRest(ROCAUC(capacity=100), num_classes=3, average=None)
    >>> scores = jnp.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.3, 0.4, 0.3]])
    >>> metric.compute(metric.update(metric.init(), preds=scores, target=jnp.array([0, 1, 2, 2]))).tolist()
    [1.0, 1.0, 0.875]
    """

    metric: Any
    num_classes: int
    average: Average | None = "macro"
    name: str = ""

    def __post_init__(self) -> None:
        _check_average("OneVsRest", self.average)
        if not self.name:
            object.__setattr__(self, "name", f"{self.metric.name}_one_vs_rest")
        _ = self.statistic

    @property
    def statistic(self) -> EachClass:
        """The scores of each class."""
        return EachClass(self.metric.statistic, self.num_classes, name=self.name)

    def compute(self, state: Any) -> Any:
        """float32 [], or one value a class."""
        return _averaged(self.metric, state, self.average)


@dataclass(frozen=True)
class PerLabel(Derived):
    """A metric over scores of two labels, for each of many labels that may hold at once; averaged as `average` says.

    preds [..., labels], target 0 or 1 [..., labels]; weight and mask [...] or [..., labels]. The rest as `OneVsRest`.
    (The "micro" average is the metric itself: it takes preds and target of any shape.)

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import AveragePrecision, PerLabel
    >>> metric = PerLabel(AveragePrecision(capacity=100), num_labels=2, average=None)
    >>> scores, labels = jnp.array([[0.9, 0.2], [0.4, 0.7], [0.6, 0.1]]), jnp.array([[1, 0], [1, 1], [0, 0]])
    >>> [round(x, 4) for x in metric.compute(metric.update(metric.init(), preds=scores, target=labels)).tolist()]
    [0.8333, 1.0]
    """

    metric: Any
    num_labels: int
    average: Average | None = "macro"
    name: str = ""

    def __post_init__(self) -> None:
        _check_average("PerLabel", self.average)
        if not self.name:
            object.__setattr__(self, "name", f"{self.metric.name}_per_label")
        _ = self.statistic

    @property
    def statistic(self) -> EachClass:
        """The scores of each label."""
        return EachClass(self.metric.statistic, self.num_labels, labels=True, name=self.name)

    def compute(self, state: Any) -> Any:
        """float32 [], or one value a label."""
        return _averaged(self.metric, state, self.average)


@dataclass(frozen=True)
class OneVsOneAUC(Derived):
    """The area under the ROC curve between every two classes: insensitive to how frequent the classes are.

    A(a|b) is the area of the score of class a among the examples of a (positive) and b (negative); the mean over all
    ordered pairs is Hand and Till's M (2001). preds [..., classes], target ids int [...]. Exact, with `capacity`
    examples; it shares its state with OneVsRest(ROCAUC(capacity)).

    average: "macro", over pairs of which both classes came; "macro_all", over all; "weighted", by the share of examples
    in the pair; None, the matrix [classes, classes] of A(a|b), NaN on the diagonal.

    >>> from jaxdl.metrics import one_vs_one_auc
    >>> scores = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.3, 0.4, 0.3]]
    >>> round(float(one_vs_one_auc(scores, [0, 1, 2, 2])), 4)
    0.9583
    """

    num_classes: int
    capacity: int
    average: Average | None = "macro"
    name: str = "auc_one_vs_one"

    def __post_init__(self) -> None:
        _check_average("OneVsOneAUC", self.average)
        _ = self.statistic

    @property
    def statistic(self) -> EachClass:
        """The scores of each class."""
        return EachClass(Exact(self.capacity, name=self.name), self.num_classes, name=self.name)

    def compute(self, state: ScoreBuffer) -> jax.Array:
        """float32 [], or [classes, classes]."""
        area = ROCAUC(capacity=self.capacity)
        classes = jnp.arange(self.num_classes, dtype=jnp.int32)
        # every class has stored the same examples in the same order
        own = jnp.argmax(state.weight > 0, axis=0).astype(jnp.int32)
        weight = jnp.abs(state.weight[0])
        undefined = jnp.any(state.undefined) | self.overflowed(state)

        def against(number: jax.Array, key: jax.Array) -> jax.Array:
            with jax.enable_x64(True):
                places = jnp.arange(self.capacity, dtype=jnp.uint32).astype(jnp.uint64)
                packed = lax.sort(((~key).astype(jnp.uint64) << np.uint64(32)) | places, is_stable=False)
                key, order = (packed >> np.uint64(32)).astype(jnp.uint32), packed.astype(jnp.uint32).astype(jnp.int32)
            label, mass = own[order], weight[order]
            none = jnp.zeros_like(mass)

            def pair(other: jax.Array) -> jax.Array:
                positive, negative = jnp.where(label == number, mass, none), jnp.where(label == other, mass, none)
                return area.of_sorted(Sorted(key, none, positive, negative, undefined))

            return jnp.where(classes == number, jnp.full(classes.shape, jnp.nan, jnp.float32), jax.vmap(pair)(classes))

        matrix = jax.vmap(against)(classes, state.key)
        if self.average is None:
            return matrix
        support = jax.vmap(self.statistic.of.support)(state)
        share = support[:, None] + jnp.broadcast_to(support[None], matrix.shape)
        pairs = ~jnp.eye(self.num_classes, dtype=jnp.bool_)
        return jnp.where(undefined, jnp.float32(jnp.nan), _mean(matrix, share, pairs, self.average))


def _averaged(metric: Any, state: Any, average: Average | None) -> Any:
    values = jax.vmap(metric.compute)(state)
    if average is None:
        return values
    if not isinstance(values, jax.Array):
        raise ValueError(f"{metric.name}: a curve or a threshold has no average over classes; give average=None")
    support = jax.vmap(metric.statistic.support)(state)
    mean = _mean(values, support, jnp.ones(values.shape, jnp.bool_), average)
    # a class that never came has no value and is left out; one with a broken score must not be
    broken = jnp.any(jax.vmap(metric.statistic.undefined)(state))
    return jnp.where(broken, jnp.full_like(mean, jnp.nan), mean)


def _mean(values: jax.Array, weight: jax.Array, among: jax.Array, average: Average) -> jax.Array:
    """The mean of values [...] among those meant; NaN when none is defined."""
    if average != "macro_all":
        among &= ~jnp.isnan(values)
    factor = weight if average == "weighted" else jnp.ones_like(values)
    factor = jnp.where(among, factor, jnp.zeros_like(factor))
    whole = jnp.sum(factor)
    none = whole == 0
    total = jnp.sum(jnp.where(among, values, jnp.zeros_like(values)) * factor)
    mean = total / jnp.where(none, jnp.ones_like(whole), whole)
    return jnp.where(none, jnp.full_like(mean, jnp.nan), mean)


def _check_average(kind: str, average: Any) -> None:
    if average is not None and average not in get_args(Average):
        raise ValueError(f"{kind}: average must be None, {', '.join(map(repr, get_args(Average)))}; it is {average!r}")


def _one_vs_rest_auc(
    num_classes: int, capacity: int | None = None, scores: Scores | None = None, average: Average | None = "macro"
) -> OneVsRest:
    """The area under the ROC curve of each class against the rest: preds [..., classes], target ids int [...]."""
    return OneVsRest(ROCAUC(None if scores else capacity, scores), num_classes, average)


def _per_label_auc(
    num_labels: int, capacity: int | None = None, scores: Scores | None = None, average: Average | None = "macro"
) -> PerLabel:
    """The area under the ROC curve of each label: preds and target [..., labels]."""
    return PerLabel(ROCAUC(None if scores else capacity, scores), num_labels, average)


def _infer(axis: str, inputs: Mapping[str, Any]) -> dict[str, int]:
    shape = np.shape(inputs["preds"])
    if not shape:
        raise ValueError("preds must be scores [..., classes]; they are one number")
    return {axis: int(shape[-1]), "capacity": max(1, int(np.prod(shape[:-1])))}


def _infer_classes(inputs: Mapping[str, Any]) -> dict[str, int]:
    return _infer("num_classes", inputs)


def _infer_labels(inputs: Mapping[str, Any]) -> dict[str, int]:
    return _infer("num_labels", inputs)


_ROOM = ("capacity", "scores")
one_vs_rest_auc = one_call(_one_vs_rest_auc, "one_vs_rest_auc", infer=_infer_classes, either=_ROOM)
one_vs_one_auc = one_call(OneVsOneAUC, "one_vs_one_auc", infer=_infer_classes)
per_label_auc = one_call(_per_label_auc, "per_label_auc", infer=_infer_labels, either=_ROOM)
