"""What a metric is: a frozen record of four pure functions over a state of fixed dtypes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp

State = Any
Reduce = Literal["sum", "gather", "moments"]


class Statistic(Protocol):
    """What examples are summed up in: `init`, `update` and `merge` over a state, without a value of its own.

    A statistic is a frozen, hashable record. Two that are equal keep one state in a `Collection`; so a field that
    changes nothing in the state (the `name` that error messages begin with) does not take part in the comparison:
    `name: str = field(default="confusion", compare=False)`.
    """

    reduce: ClassVar[Reduce]
    #: The names of the arrays that `update` reads, beside weight and mask.
    inputs: ClassVar[tuple[str, ...]]

    def init(self, batch_shape: tuple[int, ...] = ()) -> State: ...

    def update(self, state: State, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> State: ...

    def merge(self, a: State, b: State) -> State: ...


class Metric(Protocol):
    """The contract of everything in jaxdl.metrics.

    The configuration lives on the metric, which is hashable and static under jit; the state is a pytree of arrays whose
    shapes and dtypes never change, so that it can be the carry of `lax.scan`. Every function may run eagerly, in jit,
    in scan and under vmap.

    `reduce` says how states of several devices come together. "sum": every leaf is a `Sums`, so that adding leaf by
    leaf is right (to float32), and gathering and merging exact. "gather": only gather and `merge` are right.
    "moments": as "gather", for states that are centred moments.
    """

    @property
    def reduce(self) -> Reduce: ...

    @property
    def name(self) -> str: ...

    def init(self, batch_shape: tuple[int, ...] = ()) -> State:
        """The empty state, identity of `merge`; `batch_shape` adds leading axes for vmap (trials, folds)."""
        ...

    def update(self, state: State, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> State:
        """The state with one more batch in it. `weight` and `mask` broadcast from the left over target's shape."""
        ...

    def merge(self, a: State, b: State) -> State:
        """Both states in one; associative and commutative."""
        ...

    def compute(self, state: State) -> jax.Array | dict[str, jax.Array]:
        """The value; NaN where it is undefined."""
        ...


class Derived:
    """A metric that is a function of a statistic: a subclass gives `statistic`, `name` and `compute`.

    All metrics whose statistics are equal share one state in a `Collection`.
    """

    @property
    def statistic(self) -> Any:
        """The `Statistic` that this metric is computed from."""
        raise NotImplementedError

    @property
    def reduce(self) -> Reduce:
        """How states of several devices come together; see `Metric`."""
        return self.statistic.reduce

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arrays that `update` reads, beside weight and mask."""
        return self.statistic.inputs

    def init(self, batch_shape: tuple[int, ...] = ()) -> State:
        """The empty state of the statistic."""
        return self.statistic.init(batch_shape)

    def update(
        self, state: State, *, preds: Any = None, target: Any = None, weight: Any = None, mask: Any = None,
        **inputs: Any,
    ) -> State:  # fmt: skip
        """The state with one more batch in it; see the statistic for shapes."""
        return self.statistic.update(state, preds=preds, target=target, weight=weight, mask=mask, **inputs)

    def merge(self, a: State, b: State) -> State:
        """Both in one."""
        return self.statistic.merge(a, b)

    def invalid(self, state: State) -> jax.Array:
        """How much was left out because an id was out of range; 0 where the statistic leaves nothing out."""
        return told(self.statistic, "invalid", state)

    def overflowed(self, state: State) -> jax.Array:
        """Whether more came than the capacity holds, bool []: the value is then NaN. False without a capacity."""
        return told(self.statistic, "overflowed", state)


def statistic_of(metric: Any) -> Any:
    """What a metric's state belongs to: its statistic, or itself."""
    return getattr(metric, "statistic", metric)


def told(statistic: Any, what: Literal["invalid", "overflowed"], state: State) -> jax.Array:
    """What a statistic says of a state; 0, or False, of one that leaves nothing out, or that cannot overflow."""
    if hasattr(statistic, what):
        return getattr(statistic, what)(state)
    return jnp.zeros((), jnp.float32 if what == "invalid" else jnp.bool_)


def inputs_of(metric: Any) -> tuple[str, ...]:
    """The names of the arrays that a metric's `update` reads, beside weight and mask."""
    return tuple(getattr(statistic_of(metric), "inputs", ("preds", "target")))
