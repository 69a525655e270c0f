"""A stack of equal blocks: one block's parameters with a leading axis of layers, and one loop over it.

    params["blocks"]["attention"]["query"]["kernel"]: [layers, width, heads * size]

The tree does not know how the layers are run: `run_layers` is the only place that does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as linen
import jax
from jax.ad_checkpoint import checkpoint_name, checkpoint_policies

from jaxdl.parallel import current
from jaxdl.parallel.layout import HOST_MEMORY
from jaxdl.parallel.pipeline import pipeline

Array = jax.Array
PyTree = Any
ApplyOne = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]

#: What the input of each layer is called when it is offloaded.
LAYER_INPUT = "layer_input"

REMAT = ("none", "full", "dots", "dots_no_batch", "names:NAME,...")


def run_layers(
    apply_one: ApplyOne,
    stacked_params: PyTree,
    x: PyTree,
    per_layer: PyTree = None,
    batched: PyTree = None,
    *,
    remat: str = "none",
    unroll: bool = False,
) -> tuple[PyTree, PyTree]:
    """x through all layers, one after the other.

    Args:
        apply_one: (params of one layer, x, per_layer of that layer, batched) -> (x of the same shapes, what the layer
            gives out beside it).
        stacked_params: [layers, ...] each leaf.
        x: activations; leading axis batch.
        per_layer: [layers, ...] each leaf: keys, caches, rates. In a pipeline the leaf called "key" differs between
            microbatches, too.
        batched: what every layer reads and none changes (padding masks, an encoder's memory); leading axis batch.
        remat: what the backward pass computes again, see `remat_policy`; `Parallel(remat=)` overrides it. What it keeps
            goes to the host where `Parallel(offload=)` says so, see `offload_policy`.
        unroll: one program text for each layer instead of a loop.

    Returns:
        (x, what the layers gave out, [layers, ...] each leaf).

    Raises:
        ValueError: layers that give something out, in a pipeline (`Parallel(stage=)`).
    """
    now = current()
    if now is not None and now.remat is not None:
        remat = now.remat
        now.used.add("remat")
    offload = now is not None and now.offload
    if now is not None and offload:
        now.used.add("offload")

    def body(x: PyTree, layer: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        return one(layer[0], x, layer[1], batched)

    layers = jax.tree.leaves(stacked_params)[0].shape[0]
    # In a loop XLA cannot merge the second forward pass with the first anyway; unrolled, it must be kept from it.
    one = rematerialised(apply_one, remat, prevent_cse=unroll, offload=offload)
    if now is None or now.pipeline is None or now.mesh is None:
        return jax.lax.scan(body, x, (stacked_params, per_layer), length=layers, unroll=layers if unroll else 1)
    now.used.add("stage")
    given: list[PyTree] = []

    def chunk(params: PyTree, x: PyTree, per_layer: PyTree, batched: PyTree, number: Array) -> PyTree:
        if isinstance(per_layer, Mapping) and per_layer.get("key") is not None:
            per_layer = {**per_layer, "key": jax.vmap(jax.random.fold_in, (0, None))(per_layer["key"], number)}
        x, more = jax.lax.scan(lambda x, layer: one(layer[0], x, layer[1], batched), x, (params, per_layer))
        given.extend(jax.tree.leaves(more))
        return x

    x = pipeline(chunk, stacked_params, x, per_layer, batched, now.mesh, now.pipeline)
    if given:
        raise ValueError(
            "in a pipeline layers hand on x and nothing else, neither caches, nor captured intermediates, nor the "
            "balance of experts: take stage=1"
        )
    return x, (None, {})


def rematerialised(function: ApplyOne, remat: str, *, prevent_cse: bool = True, offload: bool = False) -> ApplyOne:
    """The layer, whose backward pass computes again what the policy called `remat` does not keep.

    With `offload` what is kept waits in the host's memory: `offload_policy`.
    """
    if offload:

        def named(params: PyTree, x: PyTree, *others: PyTree) -> tuple[PyTree, PyTree]:
            return function(params, jax.tree.map(lambda leaf: checkpoint_name(leaf, LAYER_INPUT), x), *others)

        return jax.checkpoint(named, policy=offload_policy(remat), prevent_cse=prevent_cse)
    if remat == "none":
        return function
    return jax.checkpoint(function, policy=remat_policy(remat), prevent_cse=prevent_cse)


def remat_policy(remat: str) -> Callable[..., Any]:
    """What is kept between the forward and the backward pass, by name (everything else is computed again):

    - "full": the inputs of each layer only
    - "dots": and the results of matrix products
    - "dots_no_batch": and those of products with weights (not attention's, whose both sides have a batch)
    - "names:attention_out,mlp_out": and the values so called (`jax.ad_checkpoint.checkpoint_name`)

    "none" (keep everything) is no policy: see `rematerialised`.

    Raises:
        ValueError: an unknown name; the nearest is suggested.
    """
    if remat.startswith("names:"):
        return checkpoint_policies.save_only_these_names(*_names(remat))
    policies = {
        "full": checkpoint_policies.nothing_saveable,
        "dots": checkpoint_policies.dots_saveable,
        "dots_no_batch": checkpoint_policies.dots_with_no_batch_dims_saveable,
    }
    if remat not in policies:
        near = difflib.get_close_matches(str(remat), [*policies, "none"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no remat policy is called {remat!r}{hint} (it is one of {', '.join(REMAT)})")
    return policies[remat]


def offload_policy(remat: str) -> Callable[..., Any]:
    """What waits in the host's pinned memory between the forward and the backward pass; nothing else is kept.

    - "none" and "full": the input of each layer
    - "dots_no_batch": and the results of products with weights
    - "names:attention_out,mlp_out": and the values so called

    Raises:
        ValueError: "dots", whose products of attention are larger than all else together; an unknown name.
    """
    if remat == "dots":
        raise ValueError(
            'remat="dots" keeps the products of attention, [batch, heads, length, length], which are too large for the '
            'way to the host: take "full", "dots_no_batch" or "names:..." with offload='
        )
    named = [LAYER_INPUT, *(_names(remat) if remat.startswith("names:") else ())]
    if not remat.startswith("names:") and remat != "none":
        remat_policy(remat)  # its sentence for an unknown name
    by_name = checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=named, offload_src="device",
        offload_dst=HOST_MEMORY,
    )  # fmt: skip
    if remat != "dots_no_batch":
        return by_name
    products = checkpoint_policies.offload_dot_with_no_batch_dims("device", HOST_MEMORY)
    return lambda prim, *args, **params: (by_name if prim.name == "name" else products)(prim, *args, **params)


def _names(remat: str) -> list[str]:
    names = [name.strip() for name in remat.removeprefix("names:").split(",") if name.strip()]
    if not names:
        raise ValueError("remat 'names:' says which values to keep: names:attention_out,mlp_out")
    return names


class Stack(linen.Module):
    """`layers` blocks of one kind, one after the other; each starts from weights of its own.

    The block is a module called block(x, train=..., **batched, **per_layer) that returns x of the same shape, or
    (x, more). It has parameters and no other variables. In training each layer draws its dropout from a key of its own.
    What blocks sow (`jaxdl.nn.tap`) comes out with a leading axis of layers, and a perturbation handed in has one:
    intermediates/blocks/attention_out: ([layers, ...],).

    Attributes:
        block: an unbound module.
        layers: how many.
        remat: what the backward pass computes again, by name: see `remat_policy`.
        unroll: one program text for each layer instead of a loop: same numbers, longer to compile. None: where the
            backend is a CPU and there are at most 8 layers, since a CPU runs it faster (figures: docs/nn_attention.md).
    """

    block: linen.Module
    layers: int
    remat: str = "none"
    unroll: bool | None = None

    @linen.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        batched: Mapping[str, PyTree] | None = None,
        per_layer: Mapping[str, PyTree] | None = None,
    ) -> Any:
        """x through all blocks.

        Args:
            x: [batch, ...].
            batched: keyword arguments of every block whose leading axis is the batch.
            per_layer: keyword arguments of each block, [layers, ...] each leaf.

        Returns:
            x; where the blocks return (x, more): (x, more [layers, ...]).
        """
        block = self.block.clone(parent=None, name=None)
        shared = dict(batched or {})
        own = dict(per_layer or {})
        if self.is_initializing():
            self._start(block, x, shared, own)
            return x  # blocks keep the shape; running them would only cost time
        collected = [name for name in ("intermediates",) if self.is_mutable_collection(name)]
        extras = {
            "own": own,
            "key": jax.random.split(self.make_rng("dropout"), self.layers) if self.has_rng("dropout") else None,
            "perturbations": self.variables.get("perturbations"),
        }

        def apply_one(params: PyTree, x: Array, extras: PyTree, shared: PyTree) -> tuple[Array, PyTree]:
            variables = {"params": params}
            if extras["perturbations"] is not None:
                variables["perturbations"] = extras["perturbations"]
            rngs = None if extras["key"] is None else {"dropout": extras["key"]}
            result = block.apply(
                variables, x, train=train, rngs=rngs, mutable=collected or False, **shared, **extras["own"]
            )
            y, sown = result if collected else (result, {})
            y, more = y if isinstance(y, tuple) else (y, None)
            return y, (more, dict(sown))

        unroll = self.unroll
        if unroll is None:
            unroll = jax.default_backend() == "cpu" and self.layers <= 8
        x, (more, sown) = run_layers(
            apply_one, self.variables["params"], x, extras, shared, remat=self.remat, unroll=unroll
        )
        for collection, tree in sown.items():
            for name, value in tree.items():
                self.put_variable(collection, name, value)
        return x if more is None else (x, more)

    def each(self, method: str, *arguments: PyTree) -> PyTree:
        """A method of the block, called by every layer with the same arguments: [layers, ...] each leaf."""
        block = self.block.clone(parent=None, name=None)
        return jax.vmap(lambda params: block.apply({"params": params}, *arguments, method=method))(
            self.variables["params"]
        )

    def _start(self, block: linen.Module, x: Array, shared: dict[str, PyTree], own: dict[str, PyTree]) -> None:
        """Parameters [layers, ...], each layer's drawn from a key of its own."""
        first = jax.tree.map(lambda leaf: leaf[0], own)

        def one(key: Array) -> PyTree:
            variables = block.init({"params": key}, x, train=False, **shared, **first)
            others = [name for name in variables if name != "params"]
            if others:
                raise ValueError(f"the blocks of a Stack have parameters only; {type(block).__name__} has {others[0]}")
            return linen.meta.unbox(variables["params"])

        params = jax.vmap(one)(jax.random.split(self.make_rng("params"), self.layers))
        for name, tree in params.items():
            self.put_variable("params", name, tree)
