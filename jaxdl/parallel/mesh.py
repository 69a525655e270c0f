"""What the user asks for: how many devices each kind of parallelism gets."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

#: Slow network first; every axis is always present, size 1 where it is not used.
AXES = ("replica", "stage", "data", "fsdp", "expert", "context", "tensor")

#: The order of the axes in the mesh itself, in which regions that are split by hand lie in each other (the pipeline in
#: the island of data copies). Since jax 0.12 XLA ends the process where an inner axis stands before an outer one.
NESTED = ("replica", "data", "stage", "fsdp", "expert", "context", "tensor")

#: The axes that split a batch between devices, in the order in which they split it.
BATCH_AXES = ("replica", "data", "fsdp", "expert")

COMPRESSIONS = ("bf16", "int8")

CONTEXT_STRATEGIES = ("ring", "all_gather")
OFFLOADS = ("activations", "optimizer", "activations+optimizer")

PRESETS = {
    "ddp": "the batch is split, everything else is whole on each device",
    "pmap": "ddp by jax.pmap, for those who need it: the same numbers",
    "zero1": "ddp whose optimizer state is split (ZeRO-1)",
    "fsdp": "batch, parameters, gradients and optimizer state are split (ZeRO-3)",
    "mics": "fsdp inside groups of devices, ddp between them",
    "mics+zero1": "mics whose optimizer state is split over all devices",
    "tensor": "the matrices themselves are split, as the model's own table says",
}


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a training is spread over devices: `Parallel(fsdp=4, tensor=2)`, or a preset, `Parallel("mics", group=4)`.

    The axes multiply to the number of devices; one may be -1, "the rest". Without any axis, the preset takes them all;
    beside a preset that leaves it room, an axis may be named too: `Parallel("fsdp", tensor=2)`.

    Attributes:
        preset: one of `PRESETS`, or None.
        replica: whole copies of the model between slow links; gradients cross them once an update.
        stage: pipeline stages.
        data: copies of the parameters, each with its part of the batch.
        fsdp: parts of parameters, gradients and optimizer state, gathered when they are used; each has its part of the
            batch, too.
        expert: parts of the experts of a mixture.
        context: parts of a sequence.
        tensor: parts of each matrix.
        group: devices of a group of `mics`. None: the devices of one process, or on one process the largest divisor of
            their number up to half of them.
        zero1: split the optimizer state over "data" and "replica", too.
        context_strategy: how a query meets keys of other parts of a sequence: "ring" (keys and values go round, by
            shard_map; no device holds all of them) or "all_gather" (they are gathered in each layer, by a constraint).
        repeats: chunks of layers that a pipeline stage holds, one after the other (the interleaved schedule).
        microbatches: parts of a batch in a pipeline; None: as many as stages.
        remat: what the backward pass computes again instead of keeping it, where the model stacks its layers by
            `nn.Stack`: "full", "dots", "dots_no_batch" or "names:...", see `nn.Stack`. None: as the model says.
        offload: what waits in the host's pinned memory while it is not used: "optimizer" (the arrays of its state, but
            in the update), "activations" (what a model's `nn.Stack` keeps for the backward pass), or
            "activations+optimizer". None: nothing.
        compress: what gradients cross data and replica axes as: None (float32), "bf16", or, where nothing else is
            split, "int8" with error feedback.
        rules: ((pattern, axes), ...): a pattern, as `re.fullmatch` takes it, on a parameter's path "dense/kernel", and
            one mesh axis (or a tuple of them, or None) for each of its dimensions. They are final and
            precede the model's own table.
        shard_above: parameters of fewer elements stay whole on each device, unless a table names them.

    Raises:
        ValueError: an unknown preset, compression or offload, a size that is no positive number or -1, two sizes of -1.
    """

    preset: str | None = None
    _: dataclasses.KW_ONLY
    replica: int | None = None
    stage: int | None = None
    data: int | None = None
    fsdp: int | None = None
    expert: int | None = None
    context: int | None = None
    tensor: int | None = None
    group: int | None = None
    zero1: bool = False
    context_strategy: str = "ring"
    repeats: int = 1
    microbatches: int | None = None
    remat: str | None = None
    offload: str | None = None
    compress: str | None = None
    rules: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    shard_above: int = 2**16

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            near = difflib.get_close_matches(str(self.preset), PRESETS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"parallel={self.preset!r} is no preset{hint} (they are {', '.join(PRESETS)})")
        if self.compress is not None and self.compress not in COMPRESSIONS:
            raise ValueError(f"compress={self.compress!r}: choose None, {' or '.join(map(repr, COMPRESSIONS))}")
        if self.context_strategy not in CONTEXT_STRATEGIES:
            known = " or ".join(map(repr, CONTEXT_STRATEGIES))
            raise ValueError(f"context_strategy={self.context_strategy!r}: choose {known}")
        if self.context_strategy != "ring" and self.context in (None, 1):
            raise ValueError("context_strategy= is for sequences that are split: "
                             f"Parallel(context=..., context_strategy={self.context_strategy!r})")  # fmt: skip
        if self.offload is not None and self.offload not in OFFLOADS:
            near = difflib.get_close_matches(str(self.offload), OFFLOADS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"offload={self.offload!r}{hint} (it is None, {' or '.join(map(repr, OFFLOADS))})")
        if self.offload is not None and self.by_pmap:
            raise ValueError(f'pmap keeps everything on its devices: take "ddp" with offload={self.offload!r}')
        if self.by_pmap:
            self._require_data_only()
        for name in (*AXES, "group"):
            size = getattr(self, name)
            if size is None:
                continue
            if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and (size != -1 or name == "group")):
                raise ValueError(f"Parallel({name}={size!r}): give a number of devices, or -1 for the rest")
        rest = [name for name in AXES if getattr(self, name) == -1]
        if len(rest) > 1:
            raise ValueError(f"Parallel({', '.join(f'{name}=-1' for name in rest)}): only one axis can be the rest")
        for name in ("repeats", "microbatches"):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ValueError(f"Parallel({name}={number!r}): give a whole number of at least 1")
            if number not in (None, 1) and self.stage in (None, 1):
                raise ValueError(f"{name}= is for a pipeline: Parallel(stage=..., {name}={number})")
        if self.group is not None and not (self.preset or "").startswith("mics"):
            raise ValueError("group= is the size of a group of mics: Parallel('mics', group=...)")
        for rule in self.rules:
            if len(rule) != 2 or not isinstance(rule[0], str):
                raise ValueError(f"Parallel(rules=...): a rule is (pattern, axes), not {rule!r}")
            try:
                re.compile(rule[0])
            except re.error as mistake:
                raise ValueError(f"rule {rule[0]!r} is no regular expression: {mistake}") from None
            seen: set[str] = set()
            for part in rule[1]:
                for axis in part if isinstance(part, tuple) else (part,):
                    if axis in seen:
                        raise ValueError(f"rule {rule[0]!r} names {axis} twice: it can split one dimension only")
                    seen |= {axis} - {None}
                    if axis is not None and axis not in AXES:
                        near = difflib.get_close_matches(str(axis), AXES, n=1)
                        hint = f"; did you mean {near[0]!r}?" if near else ""
                        raise ValueError(f"rule {rule[0]!r}: no axis is called {axis!r}{hint} ({', '.join(AXES)})")

    def _require_data_only(self) -> None:
        """pmap has one axis, and everything but the batch is whole on each device of it."""
        others = [name for name in AXES if name != "data" and getattr(self, name) not in (None, 1)]
        others += [name for name in ("zero1", "rules") if getattr(self, name)]
        if others:
            raise ValueError(
                f'Parallel("pmap", {", ".join(f"{name}=..." for name in others)}): pmap splits the batch and nothing '
                'else; take "ddp" in its place, or leave the rest out'
            )

    @property
    def splits_optimizer(self) -> bool:
        """Whether the optimizer's state is split over "data" and "replica", too."""
        return self.zero1 or self.preset in ("zero1", "mics+zero1")

    @property
    def offloads_optimizer(self) -> bool:
        """Whether the optimizer's state lives in the host's memory."""
        return "optimizer" in (self.offload or "")

    @property
    def offloads_activations(self) -> bool:
        """Whether what layers keep for the backward pass waits in the host's memory."""
        return "activations" in (self.offload or "")

    @property
    def by_pmap(self) -> bool:
        """Whether `jax.pmap` runs the program."""
        return self.preset == "pmap"

    def sizes(self, devices: Sequence[jax.Device]) -> dict[str, int]:
        """The size of each of `AXES` on these devices.

        Raises:
            ValueError: the sizes do not multiply to the number of devices; the nearest that do are named.
        """
        count = len(devices)
        given = {name: getattr(self, name) for name in AXES if getattr(self, name) is not None}
        preset = self.preset or ""
        if preset in ("ddp", "pmap", "zero1"):
            given = {"data": -1} | given
        elif preset == "fsdp":
            given = {"fsdp": -1} | given
        elif preset == "tensor":
            given = {"tensor": -1} | given
        elif preset.startswith("mics"):
            others = math.prod(size for name, size in given.items() if name not in ("replica", "fsdp") and size > 0)
            given = {"fsdp": self.group or _group(devices, others), "replica": -1} | given
        elif not given and count > 1:
            raise ValueError(
                f"{_shown({})} names no axis for the {count} devices: say Parallel('fsdp') or Parallel(data=-1)"
            )
        rest = [name for name, size in given.items() if size == -1]
        if len(rest) > 1:  # a preset's own axis gives way to the one that the user left open
            own = [name for name in rest if getattr(self, name) is None]
            given |= dict.fromkeys(own, 1)
            rest = [name for name in rest if name not in own]
        fixed = math.prod(size for size in given.values() if size > 0)
        if rest:
            if count % fixed:
                raise ValueError(
                    f"{_shown(given)}: the given sizes multiply to {fixed}, which does not divide the {count} devices; "
                    f"{_advice(given, count)}"
                )
            given[rest[0]] = count // fixed
        elif fixed != count:
            raise ValueError(
                f"{_shown(given)}: the sizes multiply to {fixed}, but there are {count} devices; "
                f"{_advice(given, count)}, or leave one axis open with -1"
            )
        return {name: given.get(name, 1) for name in AXES}

    def mesh(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over these devices (all of them when None), with all of `AXES`: laid out in that order, so that what
        stands first crosses the slow network, and named in the order of `NESTED`."""
        devices = jax.devices() if devices is None else list(devices)
        sizes = self.sizes(devices)
        auto = (AxisType.Auto,) * len(AXES)
        laid = jax.make_mesh(tuple(sizes.values()), AXES, axis_types=auto, devices=devices).devices
        return Mesh(laid.transpose([AXES.index(axis) for axis in NESTED]), NESTED, axis_types=auto)

    def as_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values: for a run's folder and its report."""
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in fields}
        return {name: value for name, value in values.items() if value != fields[name]}


def mesh_here(mesh: Mesh) -> Any:
    """The mesh as it is where this is traced: inside a shard_map some of its axes are manual already."""
    here = jax.sharding.get_abstract_mesh()
    return mesh if here.empty else here


def as_parallel(value: Any) -> Parallel | None:
    """What fit takes: None (one device), a preset's name, or a `Parallel`.

    Raises:
        TypeError: it is something else.
    """
    if value is None or isinstance(value, Parallel):
        return value
    if isinstance(value, str):
        return Parallel(value)
    raise TypeError(f"parallel={value!r}: give a preset ({', '.join(PRESETS)}) or jaxdl.Parallel(...)")


def _group(devices: Sequence[jax.Device], others: int) -> int:
    """Devices of one group of mics: those of a process, or of one process the largest divisor up to half."""
    by_process = Counter(device.process_index for device in devices)
    count = max(1, len(devices) // others)
    if len(by_process) > 1:
        return max(1, min(by_process.values()) // others)
    return max((size for size in range(1, count // 2 + 1) if count % size == 0), default=1)


def _shown(sizes: dict[str, int]) -> str:
    return "Parallel(" + ", ".join(f"{name}={size}" for name, size in sizes.items()) + ")"


def _advice(given: dict[str, int], count: int) -> str:
    """The nearest valid choice: one size changed so that all multiply to the number of devices."""
    best: tuple[float, str, int] | None = None
    for name, size in given.items():
        if size < 1:
            continue
        others = math.prod(s for other, s in given.items() if other != name and s > 0)
        if count % others:
            continue
        open_axis = any(s == -1 for s in given.values())
        choices = [d for d in range(1, count // others + 1) if (count // others) % d == 0] if open_axis else [
            count // others
        ]  # fmt: skip
        near = min(choices, key=lambda choice: abs(math.log(choice / size)))
        distance = abs(math.log(near / size))
        if best is None or distance < best[0]:
            best = (distance, name, near)
    if best is None:
        divisors = ", ".join(str(d) for d in range(1, count + 1) if count % d == 0)
        return f"choose sizes out of the divisors of {count} ({divisors})"
    return f"{best[1]}={best[2]} would do"
