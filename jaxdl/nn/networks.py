"""A network of any module system as two pure functions: what tasks are built on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxdl.nn.light_keys import light_key

Array = jax.Array
PyTree = Any
Variables = dict[str, Any]
OptionalArray = Array | None
Rate = float | Array | None


class Run(Protocol):
    """(variables, x) -> outputs and the new untrained collections ({} outside training)."""

    def __call__(
        self,
        variables: Variables,
        x: PyTree,
        *,
        train: bool,
        key: OptionalArray,
        mask: OptionalArray,
        dropout: Rate,
    ) -> tuple[PyTree, PyTree]:
        """key, mask ([batch] bool) and dropout (a rate) count in training only; None: the network's own rate."""


class Network(NamedTuple):
    """What a task needs of a network.

    Attributes:
        init: (key, x) -> variables, {"params": ..., and untrained collections}.
        run: see `Run`.
        dropout: the network's own dropout rate where one number rules it, None where no rate can be handed in.
        logical_axes: the model's table for its parameters, ((pattern, logical axes), ...); () where it has none.
    """

    init: Callable[[Array, PyTree], Variables]
    run: Run
    dropout: Rate = None
    logical_axes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()


def linen_network(model: Any) -> Network:
    """A flax.linen module, called `module(x)` with `train=` and `mask=` where its `__call__` takes them.

    An attribute `dropout` is a rate that a traced number may replace; the key is linen's stream "dropout".

    Raises:
        TypeError: it is no linen module; the sentence says what to use instead.
    """
    import flax.linen

    if not isinstance(model, flax.linen.Module):
        raise TypeError(
            f"the model is a {type(model).__name__}, not a flax.linen module: use jaxdl.create_model(...), "
            "tasks.from_nnx for nnx modules, or tasks.from_functions for plain functions"
        )
    takes = inspect.signature(type(model).__call__).parameters
    rate = getattr(model, "dropout", None) if "dropout" in model.__dataclass_fields__ else None

    def init(key: Array, x: PyTree) -> Variables:
        options: dict[str, Any] = {"train": False} if "train" in takes else {}
        return dict(flax.linen.meta.unbox(model.init({"params": light_key(key)}, x, **options)))

    def run(
        variables: Variables, x: PyTree, *, train: bool, key: OptionalArray, mask: OptionalArray, dropout: Rate
    ) -> tuple[PyTree, PyTree]:
        options: dict[str, Any] = {"train": train} if "train" in takes else {}
        if not train:
            return model.apply(variables, x, **options), {}
        module = model if dropout is None else model.clone(dropout=dropout)
        if "mask" in takes:
            options["mask"] = mask
        untrained = [name for name in variables if name != "params"]
        rngs: dict[str, Any] = {"dropout": key}
        if not untrained:
            return module.apply(variables, x, rngs=rngs, **options), {}
        outputs, state = module.apply(variables, x, rngs=rngs, mutable=untrained, **options)
        return outputs, dict(state)

    return Network(init, run, rate, tuple(getattr(model, "logical_axes", ())))


def function_network(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Network:
    """Plain functions: init (key, x) -> params; apply (params, x) -> outputs, by name `train`, `key`, `mask`."""
    takes = inspect.signature(apply).parameters

    def start(key: Array, x: PyTree) -> Variables:
        return {"params": init(key, x)}

    def run(
        variables: Variables, x: PyTree, *, train: bool, key: OptionalArray, mask: OptionalArray, dropout: Rate
    ) -> tuple[PyTree, PyTree]:
        options = {name: value for name, value in (("train", train), ("key", key), ("mask", mask)) if name in takes}
        return apply(variables["params"], x, **options), {}

    return Network(start, run)


def nnx_network(module: Any) -> Network:
    """A flax.nnx module, or a function (rngs) -> module, called `module(x)` with `train=` and `mask=` if it takes them.

    `nnx.Param` becomes "params", `nnx.BatchStat` "batch_stats", everything else but random streams "state"; nested
    dicts with string keys. Streams are seeded at each call from the key. The given module is never changed.

    Raises:
        TypeError: it is neither a module nor a function with an argument called rngs.
    """
    from flax import nnx

    if isinstance(module, nnx.Module):
        abstract = module

        def build(key: Array) -> Any:
            return module
    elif callable(module) and "rngs" in _parameters(module):
        abstract = nnx.eval_shape(lambda: module(rngs=nnx.Rngs(jax.random.key(0))))

        def build(key: Array) -> Any:
            return module(rngs=nnx.Rngs(light_key(key)))
    else:
        raise TypeError(
            f"from_nnx takes an nnx module or a function with an argument called rngs, such as "
            f"lambda rngs: Net(rngs=rngs), not a {type(module).__name__}"
        )
    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat, "streams": nnx.RngState, "state": ...}
    graph, *parts = nnx.split(abstract, *kinds.values())
    template = {name: list(nnx.to_flat_state(part)) for name, part in zip(kinds, parts, strict=True)}
    takes = inspect.signature(type(abstract).__call__).parameters

    def variables_of(live: Any) -> Variables:
        _, *values = nnx.split(live, *kinds.values())
        found = {name: dict(nnx.to_flat_state(part)) for name, part in zip(kinds, values, strict=True)}
        return {
            name: _nested([(path, found[name][path][...]) for path, _ in leaves])
            for name, leaves in template.items()
            if name != "streams" and (leaves or name == "params")
        }

    def init(key: Array, x: PyTree) -> Variables:
        return jax.tree.map(jax.numpy.array, variables_of(build(key)))

    def seeded(key: Array) -> list[tuple[Any, Any]]:
        leaves = []
        for number, (path, variable) in enumerate(template["streams"]):
            if isinstance(variable, nnx.RngKey):
                value = jax.random.fold_in(key, number)
                value = jax.random.split(value, variable.shape) if variable.shape else value
            else:
                value = jax.numpy.zeros(variable.shape, variable.dtype)
            leaves.append((path, variable.replace(value)))
        return leaves

    def run(
        variables: Variables, x: PyTree, *, train: bool, key: OptionalArray, mask: OptionalArray, dropout: Rate
    ) -> tuple[PyTree, PyTree]:
        filled = seeded(jax.random.key(0) if key is None else key)
        for name, leaves in template.items():
            if name != "streams":
                filled += [(path, leaf.replace(_at(variables[name], path))) for path, leaf in leaves]
        live = nnx.merge(graph, nnx.from_flat_state(filled))
        live.train() if train else live.eval()
        options = {name: value for name, value in (("train", train), ("mask", mask)) if name in takes}
        outputs = live(x, **options)
        state = {name: tree for name, tree in variables_of(live).items() if name != "params"} if train else {}
        return outputs, state

    return Network(init, run)


def _parameters(function: Any) -> Any:
    """The arguments of a function, or of a class: nnx hides a module's own behind its metaclass."""
    if isinstance(function, type):
        function = next(vars(kind)["__init__"] for kind in function.__mro__ if "__init__" in vars(kind))
    return inspect.signature(function).parameters


def _nested(leaves: list[tuple[tuple[Any, ...], Array]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves:
        at = tree
        for part in path[:-1]:
            at = at.setdefault(str(part), {})
        at[str(path[-1])] = value
    return tree


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[str(part)]
    return tree
