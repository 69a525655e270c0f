"""Functions that vmap runs one after the other on a CPU, where what one of them touches stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays (or trees of them), whose vmap is a loop on a CPU and the usual vmap elsewhere.

    A histogram of 256 models at once is written all over memory, and costs five times as much as one after the other.
    """

    @jax.custom_batching.custom_vmap
    def single(*args: Any) -> Any:
        return function(*args)

    @single.def_vmap
    def rule(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(args)
        batched = jax.tree.leaves(list(in_batched))
        many = [leaf for leaf, flag in zip(leaves, batched, strict=True) if flag]
        fixed = [leaf for leaf, flag in zip(leaves, batched, strict=True) if not flag]

        def rebuilt(moving: list[jax.Array], resting: list[jax.Array]) -> Any:
            sources = {True: iter(moving), False: iter(resting)}
            return jax.tree.unflatten(tree, [next(sources[flag]) for flag in batched])

        def loop(many: list[jax.Array], fixed: list[jax.Array]) -> Any:
            return lax.map(lambda moving: single(*rebuilt(moving, fixed)), many)

        def wide(many: list[jax.Array], fixed: list[jax.Array]) -> Any:
            return jax.vmap(lambda moving: function(*rebuilt(moving, fixed)))(many)

        result = lax.platform_dependent(many, fixed, cpu=loop, default=wide)
        return result, jax.tree.map(lambda _: True, result)

    return single
