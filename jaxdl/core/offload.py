"""State that lives in the host's memory: on the device for an update only, moved both ways inside the program."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from jaxdl.core.island import on_mesh
from jaxdl.core.state import State
from jaxdl.core.step import Array, Step
from jaxdl.core.task import Batch
from jaxdl.parallel import BATCH_AXES, Layout, tracing
from jaxdl.parallel.layout import HOST_MEMORY


def require_host_memory(layout: Layout) -> None:
    """A sentence where `Parallel(offload=)` cannot do what it says on these devices.

    A planned layout is not asked: nothing runs on its devices.

    Raises:
        ValueError: devices without pinned host memory; activations on a CPU, where XLA ignores the moves.
    """
    asked = layout.parallel
    if asked is None or asked.offload is None or layout.planned:
        return
    device = layout.device
    kinds = {memory.kind for memory in device.addressable_memories()}
    if HOST_MEMORY not in kinds:
        raise ValueError(
            f"offload={asked.offload!r} needs pinned host memory, which {device.device_kind} ({device.platform}) does "
            f"not have (its memories are {', '.join(sorted(kinds))}): leave offload= out"
        )
    if asked.offloads_activations and device.platform == "cpu":
        raise ValueError(
            f"offload={asked.offload!r}: a CPU device has no memory apart from the host's, and offload of activations "
            "would silently do nothing here; on a GPU or TPU it works. Leave it out here, or take remat="
        )


def fetched(state: State, shardings: State) -> State:
    """The state with all of it on the device; in the graph."""

    def fetch(x: Array, sharding: NamedSharding) -> Array:
        return jax.device_put(x, sharding.with_memory_kind("device")) if _on_host(sharding) else x

    return jax.tree.map(fetch, state, shardings)


def placed(state: State, shardings: State) -> State:
    """The state where it lives between updates; in the graph."""

    def place(x: Array, sharding: NamedSharding) -> Array:
        if _on_host(sharding):
            return jax.device_put(x, sharding)
        return x if sharding.mesh.size == 1 else jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(place, state, shardings)


def activation_bytes(step: Step, state: State, batch: Batch, layout: Layout) -> int:
    """Bytes that a device sends to the host in a forward pass, and takes back in the backward pass; by tracing.

    An estimate where a mesh splits activations along more than batch and sequence (what layers name may be split over
    "tensor", too).

    Args:
        step: as it is without a mesh.
        state, batch: shapes.
        layout: whose `Parallel(offload=)` decides; 0 where it says nothing of activations.
    """
    if layout.parallel is None or not layout.parallel.offloads_activations:
        return 0
    with tracing(layout.tracing()):
        jaxpr = jax.make_jaxpr(on_mesh(step, layout).measure)(state, dict(batch))

    def count(inner: Any, manual: frozenset[str]) -> int:
        found = 0
        for equation in getattr(inner, "jaxpr", inner).eqns:
            if equation.primitive.name == "device_put":
                parts = math.prod(layout.sizes[axis] for axis in (*BATCH_AXES, "context") if axis not in manual)
                sent = [out.aval for out in equation.outvars if out.aval.memory_space == jax.memory.Space.Host]
                found += sum(aval.size * aval.dtype.itemsize for aval in sent) // parts
            by_hand = manual | frozenset(equation.params.get("newly_manual_axes", ()))
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            for value in equation.params.values():
                for one in value if isinstance(value, tuple | list) else (value,):
                    if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                        found += times * count(one, by_hand)
        return found

    return count(jaxpr, frozenset())


def _on_host(sharding: NamedSharding) -> bool:
    return sharding.memory_kind == HOST_MEMORY
