"""How every task runs its network: the inputs' dtype, the key and rate of dropout, the mask of padding rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdl.core.task import Array, Batch, Context, Key, PyTree, Variables
from jaxdl.nn.networks import Network


def _identity(x: Array) -> Array:
    return x


def init_of(network: Network, readable: Callable[[Array], Array] = _identity) -> Callable[[Key, Batch], Variables]:
    """A task's `init`: (key, batch) -> variables. readable: what the network reads of `batch["x"]`."""
    return lambda key, batch: network.init(key, scaled(readable(batch["x"]), {}))


def run_network(network: Network, variables: Variables, x: PyTree, context: Context | None) -> tuple[PyTree, PyTree]:
    """The network's outputs and new state; without a context it predicts."""
    x = scaled(x, variables["params"])
    if context is None or not context.train:
        return network.run(variables, x, train=False, key=None, mask=None, dropout=None)
    dropout = None if network.dropout is None else context.hyper.get("dropout", network.dropout)
    key = context.keys("dropout")
    return network.run(variables, x, train=True, key=key, mask=context.weight > 0, dropout=dropout)


def scaled(x: PyTree, params: PyTree) -> PyTree:
    """uint8 -> [0, 1] in the dtype of the parameters; everything else as it is."""
    floats = [leaf.dtype for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    dtype = floats[0] if floats else jnp.float32

    def leaf_of(leaf: Array) -> Array:
        return (leaf.astype(jnp.float32) / 255.0).astype(dtype) if leaf.dtype == jnp.uint8 else leaf

    return jax.tree.map(leaf_of, x)
