"""A table of what a network is made of: shapes, parameters and FLOPs of its parts, from shapes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl.core.cost import flops_by_scope
from jaxdl.nn.light_keys import light_key


@dataclasses.dataclass(frozen=True)
class Part:
    """One row: a module of the network with all that is in it.

    Attributes:
        path: "c2_block0/conv1"; "" for what belongs to no part, such as a pool that the network itself calls.
        kind: the module's class.
        outputs: the shapes that come out of its last call, with the batch.
        parameters: their count; flops: of one forward pass of the whole batch, 2 for a multiply and add.
    """

    path: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    parameters: int
    flops: float


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """What `summarize` found. Print it.

    Attributes:
        kind: the network's class.
        inputs: shapes of x.
        parts: in the order of the calls.
        parameters, statistics: counts of trained numbers and of other variables (running means).
        flops: of one forward pass of the whole batch.
    """

    kind: str
    inputs: tuple[tuple[int, ...], ...]
    parts: tuple[Part, ...]
    parameters: int
    statistics: int
    flops: float

    def __str__(self) -> str:
        rows = [("module", "kind", "output", "parameters", "FLOPs")]
        for part in self.parts:
            name = part.path or "(between them)"
            rows.append((name, part.kind, _shapes(part.outputs), f"{part.parameters:,}", _amount(part.flops)))
        rows.append(("all", self.kind, "", f"{self.parameters:,}", _amount(self.flops)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = []
        for row in rows:
            words = [word.ljust(width) for word, width in zip(row[:3], widths[:3], strict=True)]
            words += [word.rjust(width) for word, width in zip(row[3:], widths[3:], strict=True)]
            lines.append("  ".join(words).rstrip())
        kept = f"; {self.statistics:,} numbers of running statistics" if self.statistics else ""
        return "\n".join([f"x {_shapes(self.inputs)}{kept}", *lines])


def summarize(model: linen.Module, x: Any, *, depth: int = 1, train: bool = False) -> ModelSummary:
    """The parts of a network with their output shapes, parameters and FLOPs. Nothing is run, nothing is allocated.

    >>> import jaxdl
    >>> summary = jaxdl.summarize(jaxdl.create_model("resnet50", num_classes=10), (1, 224, 224, 3))
    >>> summary.parameters, summary.parts[0].path, summary.parts[0].outputs
    (23528522, 'c1_conv', ((1, 112, 112, 64),))

    Args:
        model: a linen module, called `model(x, train=...)`.
        x: a batch, or its shape, then of float32; or a mapping of such, where the model takes one.
        depth: how many levels of modules have rows of their own; what lies deeper counts with them.
        train: as in training.

    Raises:
        ValueError: depth is below 1.
    """
    if depth < 1:
        raise ValueError(f"depth={depth}: the first level of modules is 1")
    batch = _abstract(x)
    seen: dict[tuple[str, ...], tuple[str, tuple[tuple[int, ...], ...]]] = {}

    def watched(call: Any, arguments: Any, options: Any, context: Any) -> Any:
        has_row = context.method_name == "__call__" and 0 < len(context.module.path) <= depth
        if has_row:
            seen.setdefault(context.module.path, ("", ()))  # its place: before the modules that it calls
        outputs = call(*arguments, **options)
        if has_row:
            shapes = tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(outputs) if hasattr(leaf, "shape"))
            seen[context.module.path] = (type(context.module).__name__, shapes)
        return outputs

    key = light_key(jax.random.key(0))
    variables = dict(jax.eval_shape(lambda x: model.init({"params": key}, x, train=train), batch))
    untrained = [name for name in variables if name != "params"]
    with linen.intercept_methods(watched):
        jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=train, rngs={"dropout": key}, mutable=untrained))(
            variables, batch
        )

    counts: dict[tuple[str, ...], int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        place = _owner(tuple(str(getattr(step, "key", step)) for step in path[:-1]), seen, depth)
        counts[place] = counts.get(place, 0) + math.prod(leaf.shape)
    flops: dict[tuple[str, ...], float] = {}
    for scope, amount in flops_by_scope(jaxpr).items():
        # A method of a module opens a scope "module.method" within the module's own.
        place = _owner(tuple(name for name in scope[1:] if "." not in name), seen, depth)
        flops[place] = flops.get(place, 0.0) + amount
    parts = [
        Part("/".join(path), kind, shapes, counts.get(path, 0), flops.get(path, 0.0))
        for path, (kind, shapes) in seen.items()
    ]
    if counts.get((), 0) or flops.get((), 0.0):
        parts.append(Part("", "", (), counts.get((), 0), flops.get((), 0.0)))
    rest = (leaf for name in untrained for leaf in jax.tree.leaves(variables[name]))
    return ModelSummary(
        kind=type(model).__name__,
        inputs=tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(batch)),
        parts=tuple(parts),
        parameters=sum(counts.values()),
        statistics=sum(math.prod(leaf.shape) for leaf in rest),
        flops=sum(flops.values()),
    )


def _owner(path: tuple[str, ...], seen: Mapping[tuple[str, ...], Any], depth: int) -> tuple[str, ...]:
    """The module with a row that the path leads into; () where there is none."""
    for length in range(min(depth, len(path)), 0, -1):
        if path[:length] in seen:
            return path[:length]
    return ()


def _abstract(x: Any) -> Any:
    if isinstance(x, tuple) and all(isinstance(size, int) for size in x):
        return jax.ShapeDtypeStruct(x, jnp.float32)
    if isinstance(x, Mapping):
        return {name: _abstract(value) for name, value in x.items()}
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join("x".join(map(str, shape)) or "()" for shape in shapes)


def _amount(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
