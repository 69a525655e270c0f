"""The mesh that a program is being traced for: how models name the axes of their activations without knowing a mesh."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax

#: (array, logical names) -> the array with its sharding; None where nothing is sharded.
_constraint: ContextVar[Callable[[jax.Array, tuple[str | None, ...]], jax.Array] | None] = ContextVar(
    "jaxdl_constraint", default=None
)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Say which logical axis each dimension of an activation is; on a mesh that becomes its sharding.

    Where no mesh is in use (one device, a model called by hand) it is `x` itself, so models say it always.

    Args:
        x: any array.
        names: one per dimension: "batch", "length", "embed", "mlp", "heads", "vocab", "expert" or None ("XLA decides").

    Raises:
        ValueError: there are more or fewer names than dimensions.
    """
    if len(names) != x.ndim:
        raise ValueError(f"constrain names each dimension: {names} are {len(names)} names for an array of {x.shape}")
    apply = _constraint.get()
    return x if apply is None else apply(x, names)


@contextlib.contextmanager
def constraining(apply: Callable[[jax.Array, tuple[str | None, ...]], jax.Array] | None) -> Iterator[None]:
    """Within it, `constrain` calls `apply` (while a program for a mesh is traced)."""
    token = _constraint.set(apply)
    try:
        yield
    finally:
        _constraint.reset(token)
