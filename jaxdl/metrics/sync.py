"""States of several devices into one, exactly, with one collective for all of them.

`gather` sends every leaf of every state, bit for bit, in one all-gather of one packed vector and merges in a fixed
tree: any state, any metric. `as_vector` and `from_vector` write states that are sums as float32 pieces that add without
rounding, so that one all-reduce is enough, which may be the one that carries the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.sums import Sums

AxisName = Hashable | tuple[Hashable, ...]

# What one sum is cut into: integers of 16 bits on these grids add exactly in float32 over up to 256 devices; the last
# piece, below 2^-16, is float32.
_GRIDS = (2.0**32, 2.0**16, 1.0, 2.0**-16)
PIECES = len(_GRIDS) + 1
_NARROW = (jnp.bool_, jnp.uint8, jnp.int8, jnp.uint16, jnp.int16)


def pack(tree: Any) -> jax.Array:
    """Every leaf of a tree as one vector, uint32 [m], bit for bit.

    Raises:
        TypeError: a leaf of 64 bits or of a 16-bit float, which no metric's state has.
    """
    return jnp.concatenate([jnp.zeros((0,), jnp.uint32), *(_bits(leaf).reshape(-1) for leaf in jax.tree.leaves(tree))])


def unpack(vector: jax.Array, like: Any) -> Any:
    """The tree that `pack` wrote: uint32 [..., m] -> leaves [..., *shape], of the dtypes and shapes of `like`."""
    leaves, tree = jax.tree.flatten(like)
    found, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        part = vector[..., start : start + size].reshape(*vector.shape[:-1], *leaf.shape)
        found.append(_from_bits(part, leaf.dtype))
        start += size
    return jax.tree.unflatten(tree, found)


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype in (jnp.float32, jnp.int32, jnp.uint32):
        return lax.bitcast_convert_type(leaf, jnp.uint32)
    if leaf.dtype in _NARROW:
        return leaf.astype(jnp.int32).astype(jnp.uint32)
    raise TypeError(f"a metric's state holds float32, int32, uint32 or narrower integers; a leaf is {leaf.dtype}")


def _from_bits(bits: jax.Array, dtype: Any) -> jax.Array:
    if dtype in (jnp.float32, jnp.int32, jnp.uint32):
        return lax.bitcast_convert_type(bits, dtype)
    return bits.astype(jnp.int32).astype(dtype)


def merge_all(statistics: Sequence[Any], stacked: Sequence[Any]) -> tuple[Any, ...]:
    """One state of each statistic from states stacked on a leading axis, merged pairwise in a fixed tree.

    The order is that of the axis, whatever ran where: the result is the same on every device and in every run.
    """
    return tuple(_merge(statistic, states) for statistic, states in zip(statistics, stacked, strict=True))


def _merge(statistic: Any, states: Any) -> Any:
    count = len(jax.tree.leaves(states)[0])
    while count > 1:
        odd = jax.tree.map(lambda x: x[count - 1 :], states) if count % 2 else None  # noqa: B023
        pairs = [jax.tree.map(lambda x, i=i: x[i : count - count % 2 : 2], states) for i in (0, 1)]  # noqa: B023
        states = statistic.merge(*pairs)
        if odd is not None:
            states = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), states, odd)
        count = count // 2 + count % 2
    return jax.tree.map(lambda x: x[0], states)


def gather(statistics: Sequence[Any], states: Sequence[Any], axis_name: AxisName) -> tuple[Any, ...]:
    """The states of all devices of a mesh axis merged, the same on each of them; one all-gather in all.

    To be called where the axis has a name: inside `jax.shard_map` or `jax.pmap`.
    """
    vector = pack(tuple(states))
    everyone = lax.all_gather(vector, axis_name, to="invarying")  # type: ignore[arg-type]
    everyone = everyone.reshape(-1, vector.shape[0])  # one axis, also where the mesh has several
    return merge_all(statistics, unpack(everyone, tuple(states)))


def as_vector(states: Sequence[Any]) -> jax.Array:
    """States that are sums as float32 [m], which `lax.psum` adds exactly; `from_vector` reads the result.

    A sum becomes five numbers: its integer part below 2^48 in three pieces of 16 bits and 16 bits behind the point, all
    of which add without rounding over up to 256 devices, and a rest below 2^-16, which adds in float32. So counts and
    integer weights are exact, and any other sum is right to 2^-40. Infinities and NaN stay what they are.

    Raises:
        TypeError: a state that is no sum (a buffer, moments, an extremum): use `gather`.
    """
    pieces = [jnp.zeros((0,), jnp.float32)]
    for leaf in jax.tree.leaves(tuple(states), is_leaf=_is_sums):
        if not _is_sums(leaf):
            raise TypeError("only states that are sums can be added by an all-reduce; gather the others")
        pieces.append(_cut(leaf).reshape(-1))
    return jnp.concatenate(pieces)


def from_vector(vector: jax.Array, like: Sequence[Any]) -> tuple[Any, ...]:
    """The states that `as_vector` wrote, after any number of such vectors were added; `like` gives their shapes."""
    leaves, tree = jax.tree.flatten(tuple(like), is_leaf=_is_sums)
    found, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.hi.shape) * PIECES
        found.append(_join(vector[start : start + size].reshape(PIECES, *leaf.hi.shape)))
        start += size
    return jax.tree.unflatten(tree, found)


def _is_sums(x: Any) -> bool:
    return isinstance(x, Sums)


def _cut(value: Sums) -> jax.Array:
    """[pieces, ...]: what hi and lo hold on each grid."""
    finite = jnp.isfinite(value.hi)
    rests = [jnp.where(finite, part, jnp.zeros_like(part)) for part in value]
    pieces = []
    for grid in _GRIDS:
        whole = [jnp.trunc(rest / jnp.float32(grid)) for rest in rests]
        rests = [rest - w * jnp.float32(grid) for rest, w in zip(rests, whole, strict=True)]
        pieces.append(whole[0] + whole[1])
    last = jnp.where(finite, rests[0] + rests[1], value.hi)
    return jnp.stack([*pieces, last])


def _join(pieces: jax.Array) -> Sums:
    result = Sums(pieces[-1], jnp.zeros_like(pieces[-1]))
    for piece, grid in zip(pieces[-2::-1], reversed(_GRIDS), strict=True):
        # a piece has up to 24 bits: times a power of two it is exact
        result = sums.add(result, Sums(piece * jnp.float32(grid), jnp.zeros_like(piece)))
    return result
