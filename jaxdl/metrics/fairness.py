"""Counts by facet: the statistics of bias measures, which compare a group of people with the rest.

A facet is a group id of each example. With two facets 1 is the disadvantaged group d and 0 the advantaged group a; with
more of them each value in its turn is d and all the others together are a.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.confusion import PairCounts, add_up
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight
from jaxdl.metrics.metric import Reduce, State

Divide = Literal["clarify", "nan"]
#: The fields that a function reads off the data, when the caller gives none of them.
COUNTS = ("num_classes", "num_facets", "num_strata")


@dataclass(frozen=True)
class FacetLabels:
    """How often each label occurs in each facet of each stratum: the statistic of measures that need no predictions.

    target: class ids int [...]; facet: ids int [...] in 0 .. num_facets - 1, or bool; stratum: ids int [...] in
    0 .. num_strata - 1, read when num_strata is above 1. facet and stratum broadcast from the left over target's shape.
    An example with any id out of range is left out and counted in `invalid`. State: `Sums` of
    num_strata * num_facets * num_classes cells, and two as in `FacetConfusion`; counts are exact to 2^46.
    """

    num_classes: int = 2
    num_facets: int = 2
    num_strata: int = 1
    name: str = field(default="facet_labels", compare=False)
    reduce: ClassVar[Reduce] = "sum"

    def __post_init__(self) -> None:
        _check_counts(self)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `update` reads beside weight and mask."""
        return ("target", "facet", *(("stratum",) if self.num_strata > 1 else ()))

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_strata, num_facets, num_classes)."""
        return (self.num_strata, self.num_facets, self.num_classes)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, int(np.prod(self.shape)) + 2))

    def update(
        self, state: sums.Sums, *, target: Any, facet: Any, stratum: Any = None, preds: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> sums.Sums:  # fmt: skip
        """Adds a batch: target, facet and stratum int [...]; `preds` is not read."""
        labels = as_ids(target, f"{self.name}: target")
        valid = (labels >= 0) & (labels < self.num_classes)
        return _add(self, state, jnp.where(valid, labels, jnp.int32(self.num_classes)), facet, stratum, weight, mask)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def table(self, state: sums.Sums) -> jax.Array:
        """The counts, float32 [num_strata, num_facets, num_classes]."""
        return _table(self, sums.value(state))

    def wide(self, state: sums.Sums) -> jax.Array:
        """As `table`, but float64 and exact: call it inside `with jax.enable_x64(True)`."""
        return _table(self, sums.wide(state))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was out of range, float32 []."""
        return _invalid(state)


@dataclass(frozen=True)
class FacetConfusion:
    """The confusion matrix of each facet of each stratum: the statistic of measures of predictions.

    preds: class ids int [...], or scores float [..., num_classes], of which the highest wins, or, for two classes and
    with `threshold`, scores of class 1 float [...], which is predicted where score > threshold. target: class ids
    int [...]; facet and stratum as in `FacetLabels`. An example with any id out of range is left out and counted in
    `invalid`; a NaN score makes `table` and what follows from it NaN. State: `Sums` of
    num_strata * num_facets * num_classes^2 cells (the row of a matrix is the true class), and one each for ids out of
    range and for NaN scores; counts are exact to 2^46.
    """

    num_classes: int = 2
    num_facets: int = 2
    num_strata: int = 1
    threshold: float | None = None
    name: str = field(default="facet_confusion", compare=False)
    reduce: ClassVar[Reduce] = "sum"

    def __post_init__(self) -> None:
        _check_counts(self)
        PairCounts(self.num_classes, threshold=self.threshold, name=self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `update` reads beside weight and mask."""
        return ("preds", "target", "facet", *(("stratum",) if self.num_strata > 1 else ()))

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_strata, num_facets, num_classes, num_classes)."""
        return (self.num_strata, self.num_facets, self.num_classes, self.num_classes)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, int(np.prod(self.shape)) + 2))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any, facet: Any, stratum: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> sums.Sums:  # fmt: skip
        """Adds a batch: preds int [...] or float [..., num_classes]; target, facet and stratum int [...]."""
        if preds is None:
            raise TypeError(f"{self.name} compares predictions with labels: give preds=")
        cells, _ = PairCounts(self.num_classes, threshold=self.threshold, name=self.name).cells(preds, target, None)
        return _add(self, state, cells, facet, stratum, weight, mask)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def table(self, state: sums.Sums) -> jax.Array:
        """The counts, float32 [num_strata, num_facets, true class, predicted class]."""
        return _table(self, sums.value(state))

    def wide(self, state: sums.Sums) -> jax.Array:
        """As `table`, but float64 and exact: call it inside `with jax.enable_x64(True)`."""
        return _table(self, sums.wide(state))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was out of range or a score NaN, float32 []."""
        return _invalid(state)


@dataclass(frozen=True)
class FacetMeasure:
    """A bias measure: a number of the counts by facet, for each facet value against the rest.

    A subclass gives `name`, `_measure(table)` (traced with 64-bit numbers on) and, when it needs no predictions,
    `_labels_only = True`. Measures whose num_facets, num_classes and num_strata are equal share one state in a
    `Collection`.

    num_facets: how many facet values there are. With 2 the value is float32 [], of facet 1 (d) against 0 (a); with more
    it is float32 [num_facets], where entry g takes facet g as d and all others as a.
    positive: the class, or classes, that are the wished outcome; the others are the negative outcome.
    divide: what a zero denominator gives. "clarify" (SageMaker Clarify's rule): 0 / 0 = 0, x / 0 = +-inf, and a
    difference of two equal infinities = 0. "nan": NaN. In both, NaN where facet a or facet d has no example.
    threshold: as in `FacetConfusion`, for scores of two classes.
    """

    num_facets: int = 2
    num_classes: int = 2
    num_strata: int = 1
    positive: int | tuple[int, ...] = 1
    divide: Divide = "clarify"
    threshold: float | None = None
    name: str = "facet"
    #: What the function of a measure takes; `statistic.inputs` are those that `update` reads.
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "facet", "stratum")
    _labels_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the counts and the threshold
        if self._labels_only and self.threshold is not None:
            raise ValueError(f"{self.name} reads no predictions; leave threshold= out")
        positive = as_positive(self.positive, self.num_classes, self.name)
        object.__setattr__(self, "positive", positive if len(positive) > 1 else positive[0])
        if self.divide not in ("clarify", "nan"):
            raise ValueError(f"{self.name}: divide must be 'clarify' or 'nan'; it is {self.divide!r}")

    @property
    def statistic(self) -> FacetLabels | FacetConfusion:
        """The counts by facet."""
        if self._labels_only:
            return FacetLabels(self.num_classes, self.num_facets, self.num_strata, name=self.name)
        return FacetConfusion(self.num_classes, self.num_facets, self.num_strata, self.threshold, name=self.name)

    def compute(self, state: State) -> jax.Array:
        """The measure, float32 [] (two facets) or [num_facets]."""
        with jax.enable_x64(True):
            value = self._measure(self.statistic.wide(state))
            value = value[0] if value.ndim and self.num_facets == 2 else value
            return value.astype(jnp.float32)

    def _measure(self, table: jax.Array) -> jax.Array:
        raise NotImplementedError


class Quadrants(NamedTuple):
    """A binary confusion matrix of each facet value, float [groups] each."""

    tp: jax.Array
    fp: jax.Array
    fn: jax.Array
    tn: jax.Array


def against_rest(table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(a, d), [groups, ...] each, of counts [facets, ...]: the rest, and the facet value itself.

    Two facets are one group (facet 1 against 0). The rest is added up, not subtracted from the total: nothing stays 0.
    """
    facets = table.shape[0]
    if facets == 2:
        return table[:1], table[1:]
    others = (1 - np.eye(facets)).reshape(facets, facets, *[1] * (table.ndim - 1)) > 0
    return jnp.sum(jnp.where(jnp.asarray(others), table[None], jnp.zeros_like(table)[None]), axis=1), table


def quadrants(table: jax.Array, positive: int | tuple[int, ...]) -> tuple[Quadrants, Quadrants]:
    """(a, d) of confusion counts [strata, facets, classes, classes], summed over strata."""
    binary = collapse(collapse(jnp.sum(table, axis=0), positive, axis=-1), positive, axis=-2)
    return tuple(Quadrants(x[:, 1, 1], x[:, 0, 1], x[:, 1, 0], x[:, 0, 0]) for x in against_rest(binary))  # type: ignore[return-value]


def collapse(table: jax.Array, positive: int | tuple[int, ...], axis: int = -1) -> jax.Array:
    """The classes of one axis as two: 0 what is not positive, 1 what is."""
    chosen = np.zeros(table.shape[axis], bool)
    chosen[np.atleast_1d(positive)] = True
    parts = [jnp.sum(jnp.take(table, np.flatnonzero(which), axis=axis), axis=axis) for which in (~chosen, chosen)]
    return jnp.stack(parts, axis=axis)


def quotient(above: jax.Array, below: jax.Array, divide: Divide) -> jax.Array:
    """above / below, of what is not negative; a zero denominator as `divide` says."""
    zero = below == 0
    safe = above / jnp.where(zero, jnp.ones_like(below), below)
    if divide == "nan":
        return jnp.where(zero, jnp.full_like(safe, jnp.nan), safe)
    return jnp.where(zero, jnp.where(above == 0, jnp.zeros_like(safe), jnp.full_like(safe, jnp.inf)), safe)


def difference(x: jax.Array, y: jax.Array) -> jax.Array:
    """x - y; equal infinities differ by 0."""
    return jnp.where(x == y, jnp.zeros_like(x), x - y)


def where_both(value: jax.Array, a: jax.Array, d: jax.Array) -> jax.Array:
    """NaN where one of the two facets holds nothing."""
    return jnp.where((a > 0) & (d > 0), value, jnp.full_like(value, jnp.nan))


def as_positive(positive: Any, num_classes: int, name: str) -> tuple[int, ...]:
    """The positive classes as a sorted tuple; some class must remain negative."""
    given = positive if isinstance(positive, tuple | list | set | frozenset) else (positive,)
    whole = all(isinstance(c, int | np.integer) for c in given)
    classes = tuple(sorted({int(c) for c in given})) if whole else ()
    if not whole or not classes or classes[0] < 0 or classes[-1] >= num_classes or len(classes) == num_classes:
        raise ValueError(
            f"{name}: positive must be one or more of the class ids 0 .. {num_classes - 1}, but not all; "
            f"it is {positive!r}"
        )
    return classes


def infer_facets(inputs: Any) -> dict[str, int]:
    """num_classes, num_facets and num_strata from the data: one more than the largest id (at least 2, 2 and 1)."""
    found = {}
    for field_name, keys, least in (
        ("num_classes", ("preds", "target"), 2), ("num_facets", ("facet",), 2), ("num_strata", ("stratum",), 1),
    ):  # fmt: skip
        size = least
        for key in [key for key in keys if inputs.get(key) is not None]:
            array = as_array(inputs[key], key)
            if key == "preds" and array.ndim == as_array(inputs["target"], "target").ndim + 1:
                size = max(size, array.shape[-1])
                continue
            if key == "preds" and jnp.issubdtype(array.dtype, jnp.floating):
                continue  # scores of two classes, if a threshold is given; `update` refuses them otherwise
            ids = as_ids(array, key)
            if isinstance(ids, jax.core.Tracer):
                raise ValueError(f"inside jit the number of ids must be given: {field_name}=")
            size = max(size, int(np.max(np.asarray(ids), initial=-1)) + 1)
        found[field_name] = size
    return found


def _check_counts(record: Any) -> None:
    for what, least in (("num_classes", 2), ("num_facets", 2), ("num_strata", 1)):
        count = getattr(record, what)
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not least <= count <= 65536:
            raise ValueError(f"{record.name}: {what} must be an integer from {least} to 65536; it is {count!r}")
    if record.num_classes**2 * record.num_facets * record.num_strata > 2**28:
        raise ValueError(f"{record.name}: more than 2^28 cells of facets, strata and classes do not fit one state")


def _table(statistic: Any, cells: jax.Array) -> jax.Array:
    table = cells[..., :-2].reshape(*cells.shape[:-1], *statistic.shape)
    broken = cells[..., -1].reshape(*cells.shape[:-1], *[1] * len(statistic.shape)) != 0
    return jnp.where(jnp.broadcast_to(broken, table.shape), jnp.full_like(table, jnp.nan), table)


def _invalid(state: sums.Sums) -> jax.Array:
    return sums.value(sums.add(sums.pick(state, -2), sums.pick(state, -1)))


def _add(
    statistic: Any, state: sums.Sums, inner: jax.Array, facet: Any, stratum: Any, weight: Any, mask: Any
) -> sums.Sums:
    """Adds examples whose cell within their facet is `inner`; what exceeds the cells is 0 invalid, 1 a NaN score."""
    name, shape = statistic.name, inner.shape
    size = int(np.prod(statistic.shape))
    block = size // (statistic.num_strata * statistic.num_facets)
    group = ids_from_left(facet, shape, f"{name}: facet")
    valid = (group >= 0) & (group < statistic.num_facets)
    if statistic.num_strata > 1:
        if stratum is None:
            raise TypeError(f"{name} has {statistic.num_strata} strata: give stratum=, int ids of shape {shape}")
        level = ids_from_left(stratum, shape, f"{name}: stratum")
        valid &= (level >= 0) & (level < statistic.num_strata)
        group = level * jnp.int32(statistic.num_facets) + group
    inside = inner < block
    cells = jnp.where(inside, group * jnp.int32(block) + inner, inner + jnp.int32(size - block))
    cells = jnp.where(valid, cells, jnp.full(shape, size, jnp.int32))
    keep = jnp.ones(shape, jnp.bool_) if mask is None else as_mask(shape, mask, name)
    weights = None if weight is None else as_weight(shape, weight, None, name)
    return sums.add(state, add_up(cells, keep, weights, size + 2))


def ids_from_left(value: Any, shape: tuple[int, ...], what: str) -> jax.Array:
    ids = as_ids(value, what)
    if ids.shape != shape[: ids.ndim] or not ids.ndim:
        raise ValueError(
            f"{what} has shape {ids.shape}, which does not match target's {shape} from the left; "
            f"give {shape[:1]} (one id for each example) or {shape}"
        )
    return jnp.broadcast_to(ids.reshape(ids.shape + (1,) * (len(shape) - ids.ndim)), shape)
