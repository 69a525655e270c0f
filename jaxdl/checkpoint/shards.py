"""A leaf in blocks: where they lie in it, and which process answers for which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax

from jaxdl.checkpoint.leaves import host_copy, on_host

Region = tuple[tuple[int, int], ...]  # (start, stop) of every axis


class Block(NamedTuple):
    """A block of a leaf.

    Attributes:
        start: where in the leaf it begins.
        data: its values, on the host or a device.
        shape: of the whole leaf.
    """

    start: tuple[int, ...]
    data: Any
    shape: tuple[int, ...]


def spread(leaf: Any) -> bool:
    """Whether a leaf lies, or with its sharding will lie, on devices of other processes too."""
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and not sharding.is_fully_addressable


def region_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> Region:
    """A shard's index in plain numbers."""
    bounds = (each.indices(size) for each, size in zip(index, shape, strict=True))
    return tuple((start, stop) for start, stop, _ in bounds)


def whole(shape: tuple[int, ...]) -> Region:
    """The region of all of a leaf."""
    return tuple((0, size) for size in shape)


def whole_block(leaf: Any) -> Block:
    """A leaf as the one block of itself."""
    return Block((0,) * leaf.ndim, leaf, tuple(leaf.shape))


def own_blocks(named: Mapping[str, Any]) -> dict[str, list[Block]]:
    """The blocks of each leaf that this process answers for: every block is one process's, about equal bytes each.

    Leaves that do not lie in several processes (NumPy arrays, arrays on this process's devices) are expected to be the
    same everywhere, and are process 0's.
    """
    me = jax.process_index()
    plan = _owners(tuple((tuple(x.shape), x.dtype.itemsize, x.sharding if spread(x) else None) for x in named.values()))
    mine: dict[str, list[Block]] = {}
    for (path, leaf), owners in zip(named.items(), plan, strict=True):
        shape = tuple(leaf.shape)
        if not spread(leaf):
            mine[path] = [whole_block(leaf)] if me == 0 else []
            continue
        shards = {region_of(shard.index, shape): shard.data for shard in leaf.addressable_shards}
        mine[path] = [
            Block(tuple(start for start, _ in region), shards[region], shape)
            for region, owner in owners.items()
            if owner == me
        ]
    return mine


def copied(named: Mapping[str, Any], room: Mapping[str, Sequence[Block]]) -> dict[str, list[Block]]:
    """The blocks that this process answers for in host memory of their own, so that training may go on.

    Args:
        room: what an earlier call returned and nobody needs any more. Memory that is there already takes a copy twice
            as fast: 500 MB in 0.08 against 0.2 s, two x86 cores.
    """
    mine = own_blocks(named)
    for blocks in mine.values():
        for block in blocks:
            if not on_host(block.data):
                block.data.copy_to_host_async()
    memory = {(path, block.start): block.data for path, blocks in room.items() for block in blocks}
    return {
        path: [Block(start, host_copy(data, memory.get((path, start))), shape) for start, data, shape in blocks]
        for path, blocks in mine.items()
    }


@lru_cache(maxsize=8)
def _owners(leaves: tuple[tuple[tuple[int, ...], int, Any], ...]) -> tuple[dict[Region, int], ...]:
    """For each (shape, item size, sharding): who answers for which region. The same on every process, without asking.

    A region that several processes hold goes to the one that has the fewest bytes so far, so that a state which is
    whole everywhere is still written by all.
    """
    load = [0] * jax.process_count()
    plan = []
    for shape, itemsize, sharding in leaves:
        holders: dict[Region, set[int]] = {}
        if sharding is None:
            holders[whole(shape)] = {0}
        else:
            for device, index in sharding.devices_indices_map(shape).items():
                holders.setdefault(region_of(index, shape), set()).add(device.process_index)
        owners = {}
        for region in sorted(holders):
            owner = min(holders[region], key=lambda number: (load[number], number))
            load[owner] += itemsize * math.prod(stop - start for start, stop in region)
            owners[region] = owner
        plan.append(owners)
    return tuple(plan)
