"""Tokens to their experts and back: places with static shapes, and an all-to-all where devices share the experts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxdl.parallel.active import current
from jaxdl.parallel.mesh import BATCH_AXES

Array = jax.Array
PyTree = Any
RunExperts = Callable[[PyTree, Array], Array]


def dispatch(
    run: RunExperts, params: PyTree, x: Array, choice: Array, gates: Array, *, count: int, factor: float | None
) -> tuple[Array, Array]:
    """The sum of gate * expert(x) over the experts that each token has chosen.

    Each expert has `capacity` places. First choices of all tokens are served before second ones, and among them the
    earlier token (of the earlier row) first; who finds no place gets nothing from that expert.

    On a mesh each device serves its own tokens: the places of an expert are split evenly between the devices that split
    batch (and sequence), so capacity is of a device's tokens, and who is dropped depends on the mesh; where nobody is,
    the numbers are those of one device. Over the axis "expert" each device has count / size experts: its tokens'
    places go to them by one all-to-all and come back by another. Matrices stay split over "tensor" as XLA has them;
    parts over "fsdp" are gathered here, where they are used.

    Args:
        run: (params, [experts, places, features]) -> [experts, places, width], each expert by itself.
        params: [count, ...] each leaf.
        x: [batch, length, features].
        choice: [batch, length, k] int32, the experts of each token; `count` for a token that takes no place.
        gates: [batch, length, k] float32.
        count: how many experts there are.
        factor: places, as a multiple of what even routing needs, see `capacity`; None: nobody is dropped.

    Returns:
        [batch, length, width] in the dtype of x; [batch, length, k] bool, whether the choice was served.

    Raises:
        ValueError: the experts do not divide over the axis "expert".

    Source: Lepikhin et al., "GShard", 2020; Fedus et al., "Switch Transformers", 2021.
    """
    now = current()
    serve = partial(_serve, run, count=count, factor=factor)
    if now is None or now.mesh is None:
        return serve(params, x, choice, gates)
    mesh: Any = now.mesh
    if count % mesh.shape["expert"]:
        near = [size for size in range(1, count + 1) if count % size == 0]
        raise ValueError(
            f"{count} experts do not divide over expert={mesh.shape['expert']}: choose "
            f"one of {', '.join(map(str, near))}"
        )
    now.used.add("expert")
    ambient = jax.sharding.get_abstract_mesh()  # inside another shard_map its axes are taken already
    taken = set() if ambient.empty else set(ambient.manual_axes)
    rows = tuple(axis for axis in BATCH_AXES if mesh.shape[axis] > 1 and axis not in taken)
    spread = ("context",) if mesh.shape["context"] > 1 and "context" not in taken else ()
    if x.shape[1] % mesh.shape["context"]:
        spread = ()
    if not rows or x.shape[0] % math.prod(mesh.shape[axis] for axis in rows):
        return serve(params, x, choice, gates)  # a few rows by hand: XLA splits what it can
    devices = mesh.shape["expert"] if "expert" in rows else 1
    tokens = PartitionSpec(rows, spread or None)
    own = PartitionSpec("expert") if devices > 1 else PartitionSpec()

    def mine(params: PyTree, x: Array, choice: Array, gates: Array) -> tuple[Array, Array]:
        return serve(jax.tree.map(lambda leaf: leaf.astype(x.dtype), params), x, choice, gates, devices=devices)

    spread_out = jax.shard_map(
        mine, mesh=ambient if taken else mesh, in_specs=(own, tokens, tokens, tokens),
        out_specs=(tokens, tokens), axis_names={*rows, *spread}, check_vma=False,
    )  # fmt: skip
    # Gradients of parameters are added up over devices here, which half precision is not for.
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype.itemsize < 4 else leaf, params)
    return spread_out(wide, x, choice, gates)


def capacity(tokens: int, k: int, count: int, factor: float | None) -> int:
    """Places of one expert: ceil(factor * k * tokens / count), and never more than there are tokens.

    None: as many as there are tokens, which is what nobody being dropped can need.
    """
    return tokens if factor is None else min(tokens, math.ceil(factor * k * tokens / count))


def places(choice: Array, count: int, each: int) -> Array:
    """Where each choice is served: expert * each + place, or count * each where it is not.

    Args:
        choice: [tokens, k] int32; `count` for none.
        count: how many experts there are; each: places of an expert.

    Returns:
        [tokens, k] int32.
    """
    tokens, k = choice.shape
    queue = choice.T.reshape(-1)  # all first choices, then all second ones
    asked = (queue[:, None] == jnp.arange(count, dtype=jnp.int32)[None]).astype(jnp.int32)
    before = jnp.sum(asked * (jnp.cumsum(asked, axis=0) - asked), axis=1)
    served = (queue < count) & (before < each)
    return jnp.where(served, queue * each + before, count * each).reshape(k, tokens).T


def _serve(
    run: RunExperts,
    params: PyTree,
    x: Array,
    choice: Array,
    gates: Array,
    *,
    count: int,
    factor: float | None,
    devices: int = 1,
) -> tuple[Array, Array]:
    """The tokens of one device, by the experts of all `devices` along "expert"."""
    k, features = choice.shape[-1], x.shape[-1]
    tokens = x.reshape(-1, features)
    each = capacity(len(tokens), k, count, factor)
    place = places(choice.reshape(-1, k), count, each)
    numbers = jnp.broadcast_to(jnp.arange(len(tokens), dtype=jnp.int32)[:, None], place.shape)
    holder = jnp.full((count * each,), len(tokens), jnp.int32).at[place].set(numbers, mode="drop")
    sent = tokens.at[holder].get(mode="fill", fill_value=0).reshape(count, each, features)
    if devices > 1:
        sent = jax.lax.all_to_all(sent, "expert", 0, 1, tiled=True)  # [my experts, places of all devices, features]
    back = run(params, sent)
    if devices > 1:
        back = jax.lax.all_to_all(back, "expert", 1, 0, tiled=True)
    picked = back.reshape(count * each, -1).at[place].get(mode="fill", fill_value=0)
    y = jnp.sum(picked.astype(jnp.float32) * gates.reshape(-1, k)[..., None], axis=1).astype(x.dtype)
    return y.reshape(*x.shape[:-1], -1), (place < count * each).reshape(choice.shape)
