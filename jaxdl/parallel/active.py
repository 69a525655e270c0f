"""The mesh that a program is being traced for: how models name the axes of their activations without knowing a mesh."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdl.parallel.pipeline import Schedule

Names = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Tracing:
    """What a model may know of the mesh while a program for it is traced.

    Attributes:
        constrain: (array, logical names) -> the array with its sharding.
        gathered: an array -> the same, whole on each device.
        gradient: a tree shaped like the parameters -> the same, each leaf where its optimizer state lives.
        mesh: the whole mesh; None where there is none.
        pipeline: how layers run over "stage"; None where that axis has size 1.
        context: how many devices share a sequence.
        remat: what layers compute again, by name; None: as the model says.
        used: which of "stage", "context", "expert", "remat" and "offload" a model has acted on; what was asked for and
            is not in it at the end did nothing, and is refused.
        reduce_axes: mesh axes that split the batch by hand here (inside pmap): statistics of a batch are averaged over
            them. () where XLA does it, or where the batch is split on purpose (accumulation).
        offload: whether what layers keep for the backward pass waits in the host's memory.
        ring: whether keys and values go round between the devices of a sequence; else they are gathered.
    """

    constrain: Callable[[jax.Array, Names], jax.Array]
    gathered: Callable[[jax.Array], jax.Array] = lambda x: x
    gradient: Callable[[Any], Any] = lambda tree: tree
    mesh: Mesh | None = None
    pipeline: Schedule | None = None
    context: int = 1
    remat: str | None = None
    used: set[str] = dataclasses.field(default_factory=set)
    reduce_axes: tuple[str, ...] = ()
    offload: bool = False
    ring: bool = True


_tracing: ContextVar[Tracing | None] = ContextVar("jaxdl_tracing", default=None)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Say which logical axis each dimension of an activation is; on a mesh that becomes its sharding.

    Where no mesh is in use (one device, a model called by hand) it is `x` itself, so models say it always.

    Args:
        x: any array.
        names: one per dimension: "batch", "length", "keys" (a length that is whole on each device), "embed", "mlp",
            "heads", "vocab", "expert" or None ("XLA decides").

    Raises:
        ValueError: there are more or fewer names than dimensions.
    """
    if len(names) != x.ndim:
        raise ValueError(f"constrain names each dimension: {names} are {len(names)} names for an array of {x.shape}")
    now = _tracing.get()
    return x if now is None else now.constrain(x, names)


def gathered(x: jax.Array) -> jax.Array:
    """x, whole on each device while it is used; itself where nothing is split."""
    now = _tracing.get()
    return x if now is None else now.gathered(x)


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


def current() -> Tracing | None:
    """What a model may know of the mesh that it is traced for; None outside."""
    return _tracing.get()


def on_a_mesh() -> bool:
    """Whether a program for several devices is being traced."""
    now = _tracing.get()
    return now is not None and (now.mesh is None or now.mesh.size > 1)


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
