"""The mesh that a program is being traced for: how models name the axes of their activations without knowing a mesh."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

Names = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Tracing:
    """What a model may know of the mesh while a program for it is traced.

    Attributes:
        constrain: (array, logical names) -> the array with its sharding.
        gradient: a tree shaped like the parameters -> the same, each leaf where its optimizer state lives.
        reduce_axes: mesh axes that split the batch by hand here (inside pmap): statistics of a batch are averaged over
            them. () where XLA does it, or where the batch is split on purpose (accumulation).
    """

    constrain: Callable[[jax.Array, Names], jax.Array]
    gradient: Callable[[Any], Any] = lambda tree: tree
    reduce_axes: tuple[str, ...] = ()


_tracing: ContextVar[Tracing | None] = ContextVar("jaxdl_tracing", default=None)


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
    now = _tracing.get()
    return x if now is None else now.constrain(x, names)


def constrain_rows(tree: Any, axis: int = 0) -> Any:
    """Split every leaf along its rows, axis 0 or (microbatches before it) axis 1, as the batch is."""
    if _tracing.get() is None:
        return tree
    return jax.tree.map(
        lambda x: constrain(x, *[None] * axis, "batch", *[None] * (x.ndim - axis - 1)) if x.ndim > axis else x, tree
    )


def constrain_gradient(tree: Any) -> Any:
    """A gradient, leaf by leaf where the optimizer's state of its parameter lives; itself on one device."""
    now = _tracing.get()
    return tree if now is None else now.gradient(tree)


def on_a_mesh() -> bool:
    """Whether a program for several devices is being traced."""
    return _tracing.get() is not None


def reduce_axes() -> tuple[str, ...]:
    """The axes over which statistics of a batch have to be averaged by hand; () nearly always."""
    now = _tracing.get()
    return () if now is None else now.reduce_axes


@contextlib.contextmanager
def reducing_over(axes: str | tuple[str, ...]) -> Iterator[None]:
    """Within it, `reduce_axes` are these: for a function of one's own inside `jax.shard_map`, `jax.pmap` or vmap."""
    now = _tracing.get()
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    with tracing(dataclasses.replace(now or Tracing(lambda x, names: x), reduce_axes=axes)):
        yield


@contextlib.contextmanager
def tracing(now: Tracing | None) -> Iterator[None]:
    """Within it, models see `now`: around everything that traces a model for a mesh."""
    token = _tracing.set(now)
    try:
        yield
    finally:
        _tracing.reset(token)
