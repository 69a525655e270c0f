"""From bytes and operations to seconds, and to whether a training fits: by the figures of a chip, as assumptions."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax

from jaxdl.core.state import State
from jaxdl.core.summary import size_text
from jaxdl.parallel import AXES, Layout, Parallel
from jaxdl.parallel.bytes import Held, Sent, held, layout_of, sent_for_parameters, sent_for_tensor
from jaxdl.parallel.pipeline import Schedule
from jaxdl.parallel.rules import MESH_AXES
from jaxdl.planning.chips import Chip
from jaxdl.planning.parts import Parts

#: The part of a chip's memory that a training can have.
USABLE = 0.9


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a step would take on a chip, if each part ran at its peak: no step is quicker, and real ones are slower.

    Attributes:
        compute: seconds of products at the chip's peak.
        memory: seconds of reading and writing state, gradients and activations once.
        bubble: the share of turns in which a pipeline waits; 0 without one.
        links: mesh axes -> seconds of what is sent along them.
    """

    compute: float
    memory: float
    bubble: float
    links: dict[tuple[str, ...], float]

    @property
    def alone(self) -> float:
        """Seconds without sending."""
        return max(self.compute, self.memory) / (1 - self.bubble)

    @property
    def least(self) -> float:
        """Seconds where sending hides behind computing wholly."""
        return max(self.alone, sum(self.links.values()))

    @property
    def most(self) -> float:
        """Seconds where nothing hides."""
        return self.alone + sum(self.links.values())


def bubble_of(parallel: Parallel) -> float:
    """The share of turns in which a stage waits; 0 without a pipeline."""
    stages = parallel.stage or 1
    return Schedule(stages, parallel.repeats, parallel.microbatches or stages).bubble if stages > 1 else 0.0


def estimate(
    parts: Parts, parallel: Parallel, chip: Chip, flops: float, memory: Held, activations: float, sent: Sent
) -> Estimate:
    """The roofline of one step.

    Args:
        parallel: of `resolved`.
        flops: of the whole step on all devices.
        memory: bytes on one device.
        activations: bytes on one device.
        sent: bytes that a device sends.
    """
    sizes = {axis: getattr(parallel, axis) for axis in AXES}
    peak = chip.flops if parts.precision == "bf16" else chip.flops32
    links: dict[tuple[str, ...], float] = {}
    for (_, axes), amount in sent.items():
        first = min((AXES.index(axis) for axis in axes), default=0)
        span = math.prod(sizes[axis] for axis in AXES[first:])
        links[axes] = links.get(axes, 0.0) + amount / chip.link(span)
    compute = flops / math.prod(sizes.values()) / peak
    moved = 2 * (memory.state + memory.gradients + activations)
    return Estimate(compute, moved / chip.bandwidth, bubble_of(parallel), links)


def on_accelerators(sent: Sent, layout: Layout, params: Any, uses: dict[str, int]) -> Sent:
    """What XLA:CPU's program sends, with an all-reduce whose result is sliced counted as GPU and TPU do it."""
    found = dict(sent)
    for (kind, axes), amount in sent_for_parameters(layout, params, uses=uses).items():
        if kind == "reduce-scatter" and ("all-reduce", axes) in found:
            found["all-reduce", axes] = max(0.0, found["all-reduce", axes] - 2 * amount)
            found[kind, axes] = found.get((kind, axes), 0.0) + amount
    return {key: amount for key, amount in found.items() if amount >= 1}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to spread a training, by formula alone.

    Attributes:
        text: as `--parallel` takes it.
        memory, activations: bytes on one device; None where it does not go.
        estimate: of its seconds.
        fits: into `USABLE` of the chip's memory.
        note: a sentence: why it does not go, or what was not counted.
    """

    text: str
    memory: Held | None
    activations: float
    estimate: Estimate | None
    fits: bool
    note: str = ""


def choice(
    text: str, parts: Parts, parallel: Parallel, chip: Chip, state: State, flops: float, uses: dict[str, int],
    activations: float,
) -> Choice:  # fmt: skip
    """What this way would need and take; parallel is of `resolved`, activations are bytes on one device."""
    table = tuple(parts.task.logical_axes)
    devices = math.prod(getattr(parallel, axis) for axis in AXES)
    layout = layout_of(parallel, devices, table)
    layout.require_batch(parts.batch_size)
    memory = held(layout, state)
    sent = sent_for_parameters(layout, state.params, uses=uses)
    note, size = "", layout.sizes["tensor"]
    if size > 1:
        layers = layers_of(parts, state.params)
        if layers is None:
            note = "all-reduces of activations over tensor not counted: no stack of Transformer layers was found"
        else:
            rows = parts.batch_size // layout.batch_shards * math.prod(parts.example["x"][0])
            activation = rows * layers.width * (2 if parts.precision == "bf16" else 4)
            sent |= sent_for_tensor(layers.number, activation, size, products=layers.products)
    undivided = sum("divide" in one for one in layout.notes(state.params))
    if undivided:
        note = f"{undivided} parameters do not divide and stay whole" + (f"; {note}" if note else "")
    seconds = estimate(parts, parallel, chip, flops, memory, activations, sent)
    fits = memory.state + memory.gradients + activations <= USABLE * chip.memory
    return Choice(text, memory, activations, seconds, fits, note)


class Layers(NamedTuple):
    """A stack of Transformer layers, as a model's table and its parameters show it.

    Attributes:
        number: of layers.
        width: features between them.
        products: kernels of a layer that are split by their columns.
    """

    number: int
    width: int
    products: int


def layers_of(parts: Parts, params: Any) -> Layers | None:
    """The stack that tensor parallelism splits; None where the model reads no integers or has no such stack."""
    if not parts.example.get("x", ((), ""))[1].startswith(("int", "uint")):
        return None
    found: list[tuple[int, ...]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        names: tuple[str | None, ...] = next(
            (names for pattern, names in parts.task.logical_axes if re.fullmatch(pattern, name)), ()
        )
        if len(names) == 3 and names[:2] == ("layers", "embed") and MESH_AXES.get(names[2] or "") == ("tensor",):
            found.append(tuple(leaf.shape))
    return Layers(found[0][0], found[0][1], len(found)) if found else None


def seconds_text(seconds: float) -> str:
    """Seconds for people: 12 ms."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def assumptions(chip: Chip) -> str:
    """The figures of a chip, in words."""
    return (
        f"assumed, not measured: {chip.name}, {chip.flops / 1e12:.4g} TFLOP/s in bfloat16 and "
        f"{chip.flops32 / 1e12:.4g} in float32, {size_text(chip.memory)} at {size_text(chip.bandwidth)}/s; links "
        f"{size_text(chip.inside)}/s within {chip.node} devices and {size_text(chip.outside)}/s beyond ({chip.source})"
    )
