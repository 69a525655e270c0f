"""Any metric, sliced by a group index: by country, by facet, by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_ids, as_mask, as_texts, as_weight
from jaxdl.metrics.metric import Derived, Reduce, inputs_of, statistic_of, told


class Grouped(NamedTuple):
    """The state of a sliced statistic.

    Attributes:
        of: the statistic's state, with a leading axis [groups].
        invalid: the weight of the examples whose group id is out of range.
    """

    of: Any
    invalid: sums.Sums


@dataclass(frozen=True)
class GroupedStatistic:
    """One state of the statistic `of` for each of `groups` groups; `update` also reads `group`, int [examples]."""

    of: Any
    groups: int
    name: str = field(default="by", compare=False)

    @property
    def reduce(self) -> Reduce:
        """As the statistic's own."""
        return self.of.reduce

    @property
    def inputs(self) -> tuple[str, ...]:
        """The statistic's own, and "group"."""
        return (*inputs_of(self.of), "group")

    def init(self, batch_shape: tuple[int, ...] = ()) -> Grouped:
        """Empty states."""
        return Grouped(self.of.init((*batch_shape, self.groups)), sums.zeros(batch_shape))

    def update(
        self, state: Grouped, *, group: Any, preds: Any = None, target: Any = None, weight: Any = None,
        mask: Any = None, **inputs: Any,
    ) -> Grouped:  # fmt: skip
        """Adds a batch: `group` int [examples] in [0, groups); the rest as the statistic's own."""
        group = as_ids(group, f"{self.name}: group")
        valid = (group >= 0) & (group < self.groups)
        given = {"preds": preds, "target": target, **inputs}
        _check_examples(group, given, self.name)

        def one(state: Any, number: jax.Array) -> Any:
            return self.of.update(state, **given, weight=weight, mask=_both(mask, group == number, self.name))

        numbers = jnp.arange(self.groups, dtype=jnp.int32)
        absent = jnp.where(valid, jnp.zeros_like(group, jnp.float32), _of_example(weight, mask, group, self.name))
        return Grouped(jax.vmap(one)(state.of, numbers), sums.add(state.invalid, sums.total(absent.reshape(-1))))

    def merge(self, a: Grouped, b: Grouped) -> Grouped:
        """Both in one."""
        return Grouped(self.of.merge(a.of, b.of), sums.add(a.invalid, b.invalid))

    def invalid(self, state: Grouped) -> jax.Array:
        """The weight whose group is out of range, and what the statistic itself left out, float32 []."""
        each = jax.vmap(partial(told, self.of, "invalid"))(state.of)
        return sums.value(state.invalid) + jnp.sum(each).astype(jnp.float32)

    def overflowed(self, state: Grouped) -> jax.Array:
        """Whether any group holds more than its capacity, bool []."""
        return jnp.any(jax.vmap(partial(told, self.of, "overflowed"))(state.of))


def _both(mask: Any, own: jax.Array, name: str) -> jax.Array:
    """`mask` where the example is in the group; the group's axes are the first ones of the mask."""
    if mask is None:
        return own
    mask = jnp.asarray(mask)
    shape = mask.shape if mask.ndim >= own.ndim else own.shape
    return as_mask(shape, mask, name) & as_mask(shape, own, name)


def _of_example(weight: Any, mask: Any, group: jax.Array, name: str) -> jax.Array:
    """The weight of each example, float32 of the group's shape; the largest of its parts where they have their own."""
    shape = max((group.shape, *(np.shape(x) for x in (weight, mask) if x is not None)), key=len)
    if shape[: group.ndim] != group.shape:
        raise ValueError(
            f"{name}: weight or mask has shape {shape} and group {group.shape}; the axes of group must come first"
        )
    result = as_weight(shape, weight, mask, name)
    if result is None:
        return jnp.ones(group.shape, jnp.float32)
    return jnp.max(result, axis=tuple(range(group.ndim, result.ndim)), initial=0)


def _check_examples(group: jax.Array, given: dict[str, Any], name: str) -> None:
    for key, value in given.items():
        shape = np.shape(next(iter(jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, list))), group))
        if not group.ndim or shape[:1] != group.shape[:1]:
            raise ValueError(
                f"{name}: group has shape {group.shape} and {key} {shape}; give a group id for each example"
            )


@dataclass(frozen=True)
class By(Derived):
    """A metric for each group of examples; made by `by`.

    `compute` gives what the metric gives, with a leading axis [groups], in the order of the group ids.
    """

    metric: Any
    groups: int
    names: tuple[str, ...] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise ValueError(f"by: groups must be a positive number of groups, or their names; it is {self.groups!r}")
        if not self.name:
            object.__setattr__(self, "name", f"{self.metric.name}_by_group")

    @property
    def statistic(self) -> GroupedStatistic:
        """One state of the metric's statistic a group."""
        return GroupedStatistic(statistic_of(self.metric), self.groups, name=self.name)

    def compute(self, state: Grouped) -> Any:
        """The value of each group: [groups, ...]; {name: value} when the groups have names."""
        values = jax.vmap(self.metric.compute)(state.of)
        if self.names is None:
            return values
        return {key: jax.tree.map(lambda x, i=i: x[i], values) for i, key in enumerate(self.names)}


def by(metric: Any, groups: int | Sequence[str], *, name: str = "") -> By:
    """`metric` for each group of examples: `update` then also takes `group`, int [examples] in [0, groups).

    An id outside the groups is left out and counted in `invalid`. Strings become ids by `group_ids`.

    Args:
        metric: any metric.
        groups: how many groups there are, or their names in the order of their ids.
        name: what the result is called; "accuracy_by_group" by default.

    Raises:
        ValueError: no groups, or two of one name.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Accuracy, by
    >>> metric = by(Accuracy(), ["day", "night"])
    >>> state = metric.update(metric.init(), preds=jnp.array([1, 0, 1]), target=jnp.array([1, 1, 1]),
    ...                       group=jnp.array([0, 0, 1]))
    >>> {name: float(value) for name, value in metric.compute(state).items()}
    {'day': 0.5, 'night': 1.0}
    """
    if "group" in inputs_of(metric):
        raise ValueError(
            f"by: {metric.name} is sliced by group already; give one index of both, such as a * groups + b"
        )
    if isinstance(groups, int | np.integer):
        return By(metric, int(groups) if not isinstance(groups, bool) else groups, name=name)
    if isinstance(groups, str):
        raise ValueError(
            f"by: groups must be a number of groups, or a list of their names; it is the string {groups!r}"
        )
    names = tuple(str(group) for group in groups)
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"by: groups need different names, at least one; they are {list(names)}")
    return By(metric, len(names), names, name)


def group_ids(values: Any, groups: Sequence[str]) -> Any:
    """Strings (or any labels) as int32 ids into `groups`, on the host; what is not among them becomes -1.

    Labels are compared as text, whole floats as integers: 3 and 3.0 are the same group.
    """
    places = {name: i for i, name in enumerate(as_texts(list(groups)).tolist())}
    flat = as_texts(values).astype(str)
    kinds, inverse = np.unique(flat, return_inverse=True)
    ids = np.array([places.get(str(kind), -1) for kind in kinds], np.int32)
    return ids[inverse].reshape(flat.shape)
