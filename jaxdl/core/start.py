"""A training that begins with given values instead of the task's own."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxdl.core.state import State
from jaxdl.core.task import PyTree


def replace_start(state: State, start: Mapping[str, PyTree]) -> State:
    """Put the caller's variables into a fresh state, leaf by leaf, refusing what does not fit."""
    given = dict(start)
    have = {"params": state.params, **state.model_state}
    for name, tree in given.items():
        if name not in have:
            raise ValueError(f"start has a collection {name!r}; the model has {sorted(have)}")
        old, new = jax.tree_util.tree_flatten_with_path(have[name])[0], jax.tree_util.tree_flatten_with_path(tree)[0]
        paths_old, paths_new = (
            {jax.tree_util.keystr(p): x for p, x in old},
            {jax.tree_util.keystr(p): x for p, x in new},
        )
        if set(paths_old) != set(paths_new):
            odd = sorted(set(paths_old) ^ set(paths_new))[0]
            raise ValueError(f"start[{name!r}] and the model differ at {odd}: both must have the same leaves")
        for path, leaf in paths_new.items():
            if leaf.shape != paths_old[path].shape:
                raise ValueError(
                    f"start[{name!r}]{path} has shape {list(leaf.shape)}, the model's has {list(paths_old[path].shape)}"
                )
        # A copy that XLA must make; adding 0.0 to it would turn -0.0 into 0.0.
        have[name] = jax.tree.map(lambda n, o: jnp.array(n, o.dtype, copy=True), tree, have[name])
    params = have.pop("params")
    # A moving average begins at the first parameters, which are these.
    averages = {"average": jax.tree.map(jnp.copy, params)} if "average" in state.extra else {}
    return state.replace(params=params, model_state=have, extra=state.extra | averages)
