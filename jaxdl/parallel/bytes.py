"""What a layout costs, by formula: bytes that a device holds, exact, and bytes that it sends in a step.

What is held follows from the layout's own rules. What is sent follows the ring algorithms of `hlo.Collective.sent` and
is counted as XLA writes it: each formula is held against compiled programs by the tests and by benchmarks/plan.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType

from jaxdl.parallel.layout import HOST_MEMORY, Layout
from jaxdl.parallel.mesh import AXES, BATCH_AXES, Parallel
from jaxdl.parallel.pipeline import Schedule
from jaxdl.parallel.rules import Table

PyTree = Any

#: (kind of collective, mesh axes) -> bytes that one device sends in a step.
Sent = dict[tuple[str, tuple[str, ...]], float]


class Held(NamedTuple):
    """Bytes on one device.

    Attributes:
        parameters: of the model.
        gradients: of one update, where the optimizer's state lives; they live only within the step.
        optimizer: state of the optimizer.
        other: all else that is carried from step to step: batch statistics, averages, counters.
        host: of the optimizer's state, those that wait in the host's memory (`Parallel(offload="optimizer")`); they are
            not in `optimizer`, and pass through the device in each update.
    """

    parameters: int
    gradients: int
    optimizer: int
    other: int
    host: int = 0

    @property
    def state(self) -> int:
        """What is on the device from step to step: all but the gradients."""
        return self.parameters + self.optimizer + self.other


def layout_of(parallel: Parallel, devices: int, table: Table = ()) -> Layout:
    """The layout over so many devices that are not at hand: its rules and shardings can be asked, nothing is compiled.

    Raises:
        ValueError: the sizes do not multiply to the number of devices.
    """
    sizes = parallel.sizes(one_process(devices))
    mesh = AbstractMesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return Layout(mesh, parallel, tuple(table), planned=True)  # type: ignore[arg-type]


class _Place(NamedTuple):
    process_index: int


def one_process(devices: int) -> list[Any]:
    """Stand-ins for the devices of one process, for `Parallel.sizes`."""
    return [_Place(0)] * devices


def held(layout: Layout, state: PyTree) -> Held:
    """Bytes of a State on one device.

    Args:
        layout: of `layout_of`, or one over devices.
        state: a `jaxdl.core.state.State` of arrays or shapes.
    """
    shardings = layout.state(state)
    total = _bytes(state, shardings)
    parameters = _bytes(state.params, shardings.params)
    optimizer = _bytes(state.opt_state, shardings.opt_state)
    host = _bytes(state.opt_state, shardings.opt_state, HOST_MEMORY)
    gradients = 0
    for path, leaf in _paths(state.params):
        spec, _ = layout.rules.optimizer(path, tuple(leaf.shape))
        gradients += _size(leaf) // _parts(layout.sizes, spec)
    return Held(parameters, gradients, optimizer - host, total - parameters - optimizer, host)


def sent_for_parameters(
    layout: Layout, params: PyTree, *, uses: Mapping[str, int] | None = None, scatter: bool = True
) -> Sent:
    """Bytes sent in a step for parameters and their gradients: ddp, zero1, fsdp, mics, with tensor and with context.

    For a parameter of b bytes (after what tensor and stage split), f parts over "fsdp" and n devices of a data axis:

    - data or replica: an all-reduce of its part of the gradient, 2 (b / f) (n - 1) / n;
    - where its optimizer state is split over that axis (zero1): a reduce-scatter and an all-gather, half of that each;
    - fsdp: a gather each in the forward and in the backward pass and a reduce-scatter, b (f - 1) / f each. A parameter
      that stays whole is all-reduced over fsdp as over any data axis;
    - context: an all-reduce, for parameters are whole there.

    Args:
        layout: where things live.
        params: arrays or shapes.
        uses: path -> how often the model uses it, where that is more than once: XLA reduces the gradient of each use
            by itself.
        scatter: that the compiler makes reduce-scatters, as those of GPU and TPU do. XLA:CPU writes an all-reduce and
            a slice: twice the bytes.
    """
    sizes, found = layout.sizes, Sent()

    def add(kind: str, axes: tuple[str, ...], amount: float) -> None:
        if amount:
            found[kind, axes] = found.get((kind, axes), 0.0) + amount

    def reduce(axes: tuple[str, ...], b: float, split: bool) -> None:
        n = math.prod(sizes[axis] for axis in axes)
        if split and scatter:
            add("reduce-scatter", axes, b * (n - 1) / n)
        else:
            add("all-reduce", axes, 2 * b * (n - 1) / n)

    # the island of mics, and of data beside fsdp: fsdp inside, then one sum over the copies
    by_hand = sizes["replica"] > 1 or (sizes["data"] > 1 and sizes["fsdp"] > 1)
    for path, leaf in _paths(params):
        shape = tuple(leaf.shape)
        spec, moments = layout.rules.parameter(path, shape)[0], layout.rules.optimizer(path, shape)[0]
        own = {axis for axis in _split(spec)}
        later = {axis for axis in _split(moments)} - own
        whole = _size(leaf) / math.prod(sizes[axis] for axis in own - {"fsdp", "expert"})
        times = (uses or {}).get(path, 1)
        part = whole / math.prod(sizes[axis] for axis in own & {"fsdp"})
        inside = tuple(axis for axis in BATCH_AXES if sizes[axis] > 1 and axis not in ("replica", "data"))
        across = tuple(axis for axis in ("replica", "data") if sizes[axis] > 1)
        if "fsdp" in own:
            n = sizes["fsdp"]
            add("all-gather", ("fsdp",), (1 + times) * whole * (n - 1) / n)
            reduce(("fsdp",), times * whole, True)
        elif inside and (by_hand or not across):
            reduce(inside, times * whole, False)
        if across and inside and "fsdp" not in own and not by_hand:
            reduce(tuple(axis for axis in BATCH_AXES if sizes[axis] > 1), times * whole, False)
        elif across:
            reduce(across, (1 if by_hand else times) * part, bool(later))
        if sizes["context"] > 1:  # whole there, and each device saw its part of the sequence
            reduce(("context",), times * part, False)
        if later:
            axes = tuple(axis for axis in across if axis in later)
            n = math.prod(sizes[axis] for axis in axes)
            add("all-gather", axes, part * (n - 1) / n)
    return found


def sent_for_tensor(layers: int, activation: int, size: int, *, products: int = 4, remat: bool = False) -> Sent:
    """Bytes of tensor parallelism in the layers of a Transformer: all-reduces of activations.

    Forward one after attention and one after the MLP; backward one for each product whose input is whole: `products` of
    them, 4 with kernels of their own for queries, keys, values and the MLP, 5 with swiglu. XLA adds up after reducing.

    Args:
        layers: of the model.
        activation: bytes of [batch, length, width] on one device.
        size: of the axis.
        products: kernels in a layer that are split by their columns.
        remat: the forward pass runs once more.
    """
    count = 2 * (2 if remat else 1) + products
    return {("all-reduce", ("tensor",)): 2 * layers * count * activation * (size - 1) / size}


def sent_for_context(layers: int, keys: int, size: int, *, remat: bool = False) -> Sent:
    """Bytes of ring attention: keys and values travel `size` turns forward, and their gradients backward.

    Args:
        layers: of the model.
        keys: bytes of one device's keys and values together (grouped heads counted once).
        size: of the axis.
        remat: the forward pass runs once more.
    """
    rounds = (2 if remat else 1) + 1
    return {("collective-permute", ("context",)): float(layers * size * keys * rounds)}


def sent_for_pipeline(schedule: Schedule, activation: int) -> Sent:
    """Bytes of a pipeline: each tick hands one microbatch on, and its gradient comes back.

    Args:
        schedule: of the pipeline.
        activation: bytes of one microbatch on one device.
    """
    return {("collective-permute", ("stage",)): 2.0 * schedule.ticks * activation}


def _bytes(tree: PyTree, shardings: PyTree, memory: str | None = None) -> int:
    """Bytes of a device's part of all leaves, or of those in one kind of memory."""
    return sum(
        math.prod(sharding.shard_shape(tuple(leaf.shape))) * _item(leaf)
        for leaf, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
        if memory is None or sharding.memory_kind == memory
    )


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape) * _item(leaf)


def _item(leaf: Any) -> int:
    return np.dtype(leaf.dtype).itemsize


def _split(spec: Any) -> list[str]:
    return [axis for part in spec if part is not None for axis in ((part,) if isinstance(part, str) else part)]


def _parts(sizes: Mapping[str, int], spec: Any) -> int:
    return math.prod(sizes[axis] for axis in _split(spec))


def _paths(tree: PyTree) -> list[tuple[str, Any]]:
    def name(key: Any) -> str:
        return str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))

    return [("/".join(map(name, path)), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
