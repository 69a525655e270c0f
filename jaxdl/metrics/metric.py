"""What a metric is: a frozen record of four pure functions over a state of fixed dtypes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import jax

State = Any
Reduce = Literal["sum", "gather", "moments"]


class Metric(Protocol):
    """The contract of everything in jaxdl.metrics.

    The configuration lives on the metric, which is hashable and static under jit; the state is a pytree of arrays whose
    shapes and dtypes never change, so that it can be the carry of `lax.scan`. Every function may run eagerly, in jit,
    in scan and under vmap.

    `reduce` says how states of several devices come together. "sum": all-reduce the leaves (adding leaf by leaf is
    right, to float32), or gather and `merge` to be exact. "gather": only gather and `merge` are right. "moments":
    as "gather", for states that are centred moments.
    """

    reduce: ClassVar[Reduce]

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
