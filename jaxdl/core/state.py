"""Everything that training knows, in one record. Nothing mutable lives elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The whole of a training: a function of (seed, step), saved and restored as one pytree.

    Attributes:
        step: [] int32, batches drawn so far; it addresses data, keys, schedules and checkpoints.
        params: what is trained, float32.
        model_state: untrained collections of the model (batch statistics, recurrent carries).
        opt_state: the optimizer's own state.
        hyper: name -> [] float32, every number that a trial may vary.
        seed: [] uint32.
        feed: what the feed carries between batches; () for tables and images.
        extra: one named entry per transformation ("average", "guard", "pending" ...).
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    hyper: dict[str, jax.Array]
    seed: jax.Array
    feed: PyTree
    extra: dict[str, PyTree]

    def replace(self, **changes: Any) -> State:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
