"""A checksum of arrays where they lie: on the device, and the same number on every mesh."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint.leaves import host_copy, named_leaves, on_host
from jaxdl.checkpoint.shards import Block, own_blocks, spread, whole_block
from jaxdl.parallel import processes

PyTree = Any
_WORD = 1 << 32
_BLOCK = 1 << 15
_WEIGHTS = 2 * np.arange(_BLOCK, dtype=np.uint32) + np.uint32(1)


class Fingerprint(NamedTuple):
    """Checksums in [0, 2^32): of the whole tree and of each leaf by path."""

    whole: int
    leaves: dict[str, int]


class PendingFingerprint(NamedTuple):
    """A fingerprint under way; `collect` finishes it.

    Attributes:
        host: the blocks in host memory that this process answers for, by path.
        devices: paths, and their sums on the devices.
        spread: the paths in `host` of which other processes hold blocks too.
    """

    host: Mapping[str, Sequence[Block]]
    devices: tuple[tuple[tuple[str, ...], jax.Array], ...]
    spread: tuple[str, ...]

    def own(self) -> dict[str, int]:
        """The sums of the blocks in host memory, of this process alone; those of all processes add to the leaf's."""
        sums = {}
        for path, blocks in self.host.items():
            arrays = ((x if isinstance(x, np.ndarray) else host_copy(x), start, shape) for start, x, shape in blocks)
            sums[path] = sum(host_sum(*array) for array in arrays) % _WORD
        return sums

    def on_devices(self) -> dict[str, int]:
        """The sums of whole leaves that the devices made, one download for each set of devices."""
        return {
            path: value
            for paths, values in self.devices
            for path, value in zip(paths, jax.device_get(values).tolist(), strict=True)
        }

    def collect(self) -> Fingerprint:
        """The whole fingerprint. Collective where a leaf in host memory lies in several processes."""
        sums = self.own()
        if self.spread:
            added = processes.sums(np.array([sums[path] for path in self.spread], np.uint32))
            sums.update(zip(self.spread, added.tolist(), strict=True))
        sums.update(self.on_devices())
        return Fingerprint(combine(sums), sums)


def fingerprint(tree: PyTree) -> Fingerprint:
    """A checksum of every bit of a tree, independent of mesh and sharding.

    For a leaf of words w_i in row-major order, f = sum_i w_i (2 i + 1) mod 2^32. A word is an element's bits, widened
    to 32; 8-byte elements are two words, low half first. Odd weights make every flip of a single bit change the sum,
    and wrap-around addition has no order, so that any split over devices gives the same number. Whole: sum over leaves
    of (f + 1) (2 crc32(path) + 1) mod 2^32.

    Leaves on accelerators are summed there, by one compiled program a tree structure. Leaves in host memory, which CPU
    devices share, are summed by NumPy: compiling the program for 30 leaves took 0.8 CPU-seconds there, summing 30 MB
    takes 0.02 (benchmarks/checkpoint.py). Of leaves that lie in several processes each sums what it holds, and the sums
    are added: all of them must then call this. A leaf that lies in this process alone is summed as it is here.

    Args:
        tree: leaves of 1, 2, 4 or 8 bytes an element, bool, complex, also 2- and 4-bit ones, any shape, zero size too.
    """
    return start_fingerprint(named_leaves(tree)).collect()


def start_fingerprint(
    named: Mapping[str, Any], copies: Mapping[str, Sequence[Block]] | None = None
) -> PendingFingerprint:
    """Dispatch the devices' part without waiting for it; those leaves may then be donated, the ones on the host not.

    Args:
        copies: what to sum instead of the leaves in host memory: those then may be donated too.
    """
    host = {path: leaf for path, leaf in named.items() if on_host(leaf)}
    groups: dict[Any, tuple[list[str], list[Any]]] = {}
    for path, leaf in named.items():
        if path in host:
            continue
        # jit refuses leaves that are committed to different sets of devices, so each set is a program.
        paths, leaves = groups.setdefault(frozenset(leaf.devices()), ([], []))
        paths.append(path)
        leaves.append(leaf)
    devices = tuple((tuple(paths), device_sums(leaves)) for paths, leaves in groups.values())
    shared = {path: leaf for path, leaf in host.items() if spread(leaf)}
    if copies is None:
        own = own_blocks(shared)
        copies = {path: own[path] if path in own else [whole_block(leaf)] for path, leaf in host.items()}
    return PendingFingerprint({path: copies[path] for path in host}, devices, tuple(shared))


def combine(leaves: Mapping[str, int]) -> int:
    """The fingerprint of a whole tree from those of its leaves by path."""
    return sum((value + 1) * (2 * zlib.crc32(path.encode()) + 1) for path, value in leaves.items()) % _WORD


@jax.jit
def device_sums(leaves: list[jax.Array]) -> jax.Array:
    """[leaves] uint32: the sum of each leaf, computed where it lies, one all-reduce each where it is sharded."""
    return jnp.stack([_sum(leaf) for leaf in leaves])


def host_sum(x: np.ndarray, start: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None) -> int:
    """The sum of one leaf in host memory, in blocks that stay in the cache; or of the part of it that is here.

    With o the place of the first of neighbours: sum_i w_i (2 (o + i) + 1) = sum_i w_i (2 i + 1) + 2 o sum_i w_i.

    Args:
        x: the leaf, or a block of it.
        start: where in the leaf the block begins.
        shape: of the leaf.
    """
    bits = _bits(x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1)
    words = flat.view(np.uint32) if bits >= 32 else flat.view(np.uint8 if x.dtype.itemsize == 1 else np.uint16)
    if not words.size:
        return 0
    places, run = _runs(x.shape, start or (0,) * x.ndim, shape or x.shape, words.size // x.size)
    at_once = max(1, _BLOCK // run)
    total = 0
    for first in range(0, len(places), at_once):
        rows = words[first * run : (first + at_once) * run].reshape(-1, run)
        for begin in range(0, run, _BLOCK):
            block = rows[:, begin : begin + _BLOCK].astype(np.uint32, copy=False)
            if bits < 8:
                block = block & np.uint32((1 << bits) - 1)
            offsets = places[first : first + at_once] + np.uint32(begin % _WORD)
            if len(offsets) == 1:
                total += int(np.sum(block[0] * _WEIGHTS[: block.shape[1]], dtype=np.uint32))
                total += 2 * int(offsets[0]) * int(np.sum(block, dtype=np.uint32))
            else:
                weights = _WEIGHTS[: block.shape[1]] + np.uint32(2) * offsets[:, None]
                total += int(np.sum(block * weights, dtype=np.uint32))
    return total % _WORD


def _runs(block: tuple[int, ...], start: tuple[int, ...], shape: tuple[int, ...], words: int) -> tuple[np.ndarray, int]:
    """Where a block's runs of neighbouring words begin in its leaf, modulo 2^32, and how long each is."""
    axis = len(block)
    while axis > 0 and block[axis - 1] == shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)  # of this axis a part is here, of those behind it all
    stride = words
    strides = []
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    strides.reverse()
    places = np.zeros((), np.uint64)
    for begin, size, step in zip(start[:axis], block[:axis], strides[:axis], strict=True):
        places = places[..., None] + (np.arange(begin, begin + size, dtype=np.uint64) * np.uint64(step))
    if block:
        places = places + np.uint64(start[axis] * strides[axis])
    return places.reshape(-1).astype(np.uint32), math.prod(block[axis:]) * words


def _sum(x: jax.Array) -> jax.Array:
    if x.size == 0:
        return jnp.zeros((), jnp.uint32)
    words = _words(x)
    # The index is built axis by axis, not by ravel: ravelling a sharded array would gather it.
    index = jnp.zeros((), jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % _WORD)
        stride *= words.shape[axis]
    return jnp.sum(words * (index * np.uint32(2) + np.uint32(1)), dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """The bits of an array as uint32; elements of 8 bytes get a last axis of 2, complex ones another before it."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return _words(jnp.stack([x.real, x.imag], axis=-1))
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    bits = _bits(x.dtype)
    if bits >= 32:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    unsigned = {2: jnp.uint2, 4: jnp.uint4, 8: jnp.uint8, 16: jnp.uint16}[bits]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _bits(dtype: Any) -> int:
    """Bits of an element; NumPy's item size says 8 for 2- and 4-bit dtypes."""
    if dtype == np.bool_ or jnp.issubdtype(dtype, jnp.complexfloating):
        return 8 * np.dtype(dtype).itemsize
    return (jnp.iinfo if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo)(dtype).bits
