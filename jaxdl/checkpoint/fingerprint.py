"""A checksum of arrays where they lie: on the device, and the same number on every mesh."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint.leaves import host_copy, named_leaves, on_host

PyTree = Any
_WORD = 1 << 32
_BLOCK = 1 << 15
_WEIGHTS = 2 * np.arange(_BLOCK, dtype=np.uint32) + np.uint32(1)


class Fingerprint(NamedTuple):
    """Checksums in [0, 2^32): of the whole tree and of each leaf by path."""

    whole: int
    leaves: dict[str, int]


class PendingFingerprint(NamedTuple):
    """A fingerprint under way; `collect` finishes it."""

    host: dict[str, Any]
    devices: tuple[tuple[tuple[str, ...], jax.Array], ...]

    def collect(self) -> Fingerprint:
        """Sum the leaves in host memory and read the devices' sums, one download for each set of devices."""
        sums = {path: host_sum(x if isinstance(x, np.ndarray) else host_copy(x)) for path, x in self.host.items()}
        for paths, values in self.devices:
            sums.update(zip(paths, jax.device_get(values).tolist(), strict=True))
        return Fingerprint(combine(sums), sums)


def fingerprint(tree: PyTree) -> Fingerprint:
    """A checksum of every bit of a tree, independent of mesh and sharding.

    For a leaf of words w_i in row-major order, f = sum_i w_i (2 i + 1) mod 2^32. A word is an element's bits, widened
    to 32; 8-byte elements are two words, low half first. Odd weights make every flip of a single bit change the sum,
    and wrap-around addition has no order, so that any split over devices gives the same number. Whole: sum over leaves
    of (f + 1) (2 crc32(path) + 1) mod 2^32.

    Leaves on accelerators are summed there, by one compiled program a tree structure. Leaves in host memory, which CPU
    devices share, are summed by NumPy: compiling the program for 30 leaves took 0.8 CPU-seconds there, summing 30 MB
    takes 0.02 (benchmarks/checkpoint.py).

    Args:
        tree: leaves of 1, 2, 4 or 8 bytes an element, bool, complex, also 2- and 4-bit ones, any shape, zero size too.
    """
    return start_fingerprint(named_leaves(tree)).collect()


def start_fingerprint(named: Mapping[str, Any]) -> PendingFingerprint:
    """Dispatch the devices' part without waiting for it; those leaves may then be donated, the ones on the host not."""
    host = {path: leaf for path, leaf in named.items() if on_host(leaf)}
    groups: dict[Any, tuple[list[str], list[Any]]] = {}
    for path, leaf in named.items():
        if path in host:
            continue
        # jit refuses leaves that are committed to different sets of devices, so each set is a program.
        paths, leaves = groups.setdefault(frozenset(leaf.devices()), ([], []))
        paths.append(path)
        leaves.append(leaf)
    return PendingFingerprint(host, tuple((tuple(paths), device_sums(leaves)) for paths, leaves in groups.values()))


def combine(leaves: Mapping[str, int]) -> int:
    """The fingerprint of a whole tree from those of its leaves by path."""
    return sum((value + 1) * (2 * zlib.crc32(path.encode()) + 1) for path, value in leaves.items()) % _WORD


@jax.jit
def device_sums(leaves: list[jax.Array]) -> jax.Array:
    """[leaves] uint32: the sum of each leaf, computed where it lies, one all-reduce each where it is sharded."""
    return jnp.stack([_sum(leaf) for leaf in leaves])


def host_sum(x: np.ndarray) -> int:
    """The sum of one leaf in host memory, in blocks that stay in the cache.

    With o the start of a block: sum_i w_i (2 (o + i) + 1) = sum_i w_i (2 i + 1) + 2 o sum_i w_i.
    """
    bits = _bits(x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1)
    words = flat.view(np.uint32) if bits >= 32 else flat.view(np.uint8 if x.dtype.itemsize == 1 else np.uint16)
    total = 0
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK].astype(np.uint32, copy=False)
        if bits < 8:
            block = block & np.uint32((1 << bits) - 1)
        weighted = int(np.sum(block * _WEIGHTS[: block.size], dtype=np.uint32))
        total += weighted + 2 * start * int(np.sum(block, dtype=np.uint32))
    return total % _WORD


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
