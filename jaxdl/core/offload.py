"""State that lives in the host's memory: on the device for an update only, moved both ways inside the program."""

from __future__ import annotations

import jax
from jax.sharding import NamedSharding

from jaxdl.core.state import State
from jaxdl.core.step import Array
from jaxdl.parallel import Layout
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


def _on_host(sharding: NamedSharding) -> bool:
    return sharding.memory_kind == HOST_MEMORY
