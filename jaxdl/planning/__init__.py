"""A training planned for devices that are not at hand: bytes, what is sent, and an estimate of its seconds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from jaxdl.core.summary import size_text
from jaxdl.parallel import AXES, Parallel
from jaxdl.parallel.bytes import Held, Sent, held, layout_of, sent_for_parameters
from jaxdl.planning.chips import CHIPS, Chip, chip_named
from jaxdl.planning.compiled import Compiled, batch_bytes, compile_elsewhere, compile_here, shapes_of
from jaxdl.planning.estimate import (
    USABLE,
    Choice,
    Estimate,
    assumptions,
    choice,
    estimate,
    on_accelerators,
    seconds_text,
)
from jaxdl.planning.parts import Parts, parallel_from, parts_of, resolved, shrunk

__all__ = [
    "CHIPS", "Chip", "Choice", "Compiled", "Parts", "Plan", "chip_named", "compile_here", "parallel_from", "parts_of",
    "plan", "rank", "ranking_text", "shapes_of",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """One training on one mesh. Print it.

    Attributes:
        parallel: a size for each axis.
        memory: bytes on one device, by the layout's rules: exact.
        batch: bytes of a device's part of the batch.
        activations: bytes on one device: an estimate, what XLA:CPU's program needs beside its arguments, without the
            gradients.
        sent: (kind, mesh axes) -> bytes that a device sends in a step on GPUs and TPUs.
        compiled: what the compiled step said; for fewer devices where `cut` is above 1.
        cut: how many times fewer devices it was compiled for.
        seconds: the roofline.
        chip: whose figures were assumed.
        notes: parameters that stay whole, and why.
        host_activations: bytes on the host for each device, beside `memory.host`: an estimate, by tracing.
    """

    parallel: Parallel
    memory: Held
    batch: int
    activations: float
    sent: Sent
    compiled: Compiled
    cut: int
    seconds: Estimate
    chip: Chip
    notes: tuple[str, ...]
    host_activations: int = 0

    @property
    def devices(self) -> int:
        """All of them."""
        return math.prod(getattr(self.parallel, axis) for axis in AXES)

    @property
    def fits(self) -> bool:
        """Whether state, gradients, batch and activations fit the usable part of the chip's memory."""
        return self.total <= USABLE * self.chip.memory

    @property
    def total(self) -> float:
        """Bytes on one device."""
        return self.memory.state + self.memory.gradients + self.batch + self.activations

    def __str__(self) -> str:
        axes = " x ".join(f"{a}={n}" for a in AXES if (n := getattr(self.parallel, a)) > 1) or "one device"
        memory = self.memory
        lines = [
            f"{self.devices} devices: {axes}; batch {self.compiled.batch_size * self.cut}",
            "on each device:",
            f"  parameters       {size_text(memory.parameters):>10}",
            f"  gradients        {size_text(memory.gradients):>10}",
            f"  optimizer state  {size_text(memory.optimizer):>10}",
            f"  batch and rest   {size_text(self.batch + memory.other):>10}",
            f"  activations      {size_text(self.activations):>10}  (an estimate: temporaries of XLA:CPU's program, "
            "less the gradients)",
            f"  all              {size_text(self.total):>10}  {'fits' if self.fits else 'does not fit'} "
            f"{USABLE:.0%} of the {size_text(self.chip.memory)} of {self.chip.name}",
        ]
        if memory.host or self.host_activations:
            lines += [
                "on the host for each device, each step there and back (not in the seconds below):",
                f"  optimizer state  {size_text(memory.host):>10}  (passes through the device leaf by leaf, where "
                "activations were)",
                f"  activations      {size_text(self.host_activations):>10}",
            ]
        lines.append("sent by each device in a step:")
        for (kind, axes_of), amount in sorted(self.sent.items(), key=lambda item: -item[1]):
            times = self.compiled.runs.get((kind, axes_of))
            often = f"  {times} times" if times else ""
            lines.append(f"  {kind:<18} {' x '.join(axes_of) or 'mixed':<14} {size_text(amount):>10}{often}")
        if not self.sent:
            lines.append("  nothing")
        if any(kind == "reduce-scatter" for kind, _ in self.sent):
            lines.append("  (XLA:CPU's all-reduce and slice is counted as the reduce-scatter of GPUs and TPUs)")
        if self.seconds.bubble:
            lines.append(f"pipeline bubble: {self.seconds.bubble:.1%} of the turns")
        links = ", ".join(f"{' x '.join(a) or 'mixed'} {seconds_text(s)}" for a, s in self.seconds.links.items())
        lines += [
            f"roofline of a step: {seconds_text(self.seconds.least)} to {seconds_text(self.seconds.most)} = products "
            f"{seconds_text(self.seconds.compute)}, memory {seconds_text(self.seconds.memory)}, links: "
            f"{links or 'none'}",
            assumptions(self.chip),
            f"compiled for {self.compiled.devices} virtual devices in {self.compiled.seconds:.1f} s"
            + (f"; what crosses replica, data and fsdp at {self.devices} by formula" if self.cut > 1 else ""),
        ]
        return "\n".join([*lines, *(f"whole: {note}" for note in self.notes)])


def plan(
    script: str | Path, parallel: str | Parallel, devices: int, *, chip: str = "h100", batch_size: int | None = None
) -> Plan:
    """Compile the script's step for a mesh of so many virtual devices and say what it needs.

    Above 2,048 devices the step is compiled with smaller data axes and the same batch on each device, and what crosses
    those axes follows from the closed forms of `jaxdl.parallel.bytes`.

    Args:
        script: a file that defines `program_parts()`, which returns `Parts`.
        parallel: as `--parallel` takes it, or a `Parallel`.
        devices: how many.
        chip: one of `CHIPS`.
        batch_size: of the whole step, instead of the script's.

    Raises:
        ValueError: sizes, batch or layers that do not divide, an axis that the model does not know, an unknown chip.
    """
    figures = chip_named(chip)
    parts = _with_batch(parts_of(script), batch_size)
    asked = resolved(parallel_from(parallel) if isinstance(parallel, str) else parallel, devices, figures.node)
    table = tuple(parts.task.logical_axes)
    layout = layout_of(asked, devices, table)
    layout.require_batch(parts.batch_size)
    state, flops, uses = shapes_of(parts)
    small, cut = shrunk(asked)
    compiled = compile_elsewhere(script, small, devices // cut, parts.batch_size // cut)
    memory = held(layout, state)
    small_layout = layout_of(small, devices // cut, table)
    gradients = held(small_layout, state).gradients
    activations = float(max(0, compiled.temporary - gradients - compiled.host))
    sent = on_accelerators(compiled.sent, small_layout, state.params, uses)
    if cut > 1:
        sent = _grown(sent, sent_for_parameters(small_layout, state.params, uses=uses),
                      sent_for_parameters(layout, state.params, uses=uses))  # fmt: skip
    flops = flops if cut > 1 else max(flops, compiled.flops)  # recomputation shows in the compiled step only
    seconds = estimate(parts, asked, figures, flops, memory, activations, sent)
    batch = batch_bytes(parts, layout.batch_shards)
    return Plan(
        asked, memory, batch, activations, sent, compiled, cut, seconds, figures, layout.notes(state.params),
        compiled.host,
    )  # fmt: skip


def rank(script: str | Path, devices: int, *, chip: str = "h100", batch_size: int | None = None) -> tuple[Choice, ...]:
    """The presets by what they need and take, those that fit first, the quickest of them at the top.

    One step is compiled, for one device with its part of the batch: its temporaries are the estimate of activations for
    all. The rest is formulas.
    """
    figures = chip_named(chip)
    parts = _with_batch(parts_of(script), batch_size)
    state, flops, uses = shapes_of(parts)
    own = max(1, parts.batch_size // devices)
    alone = compile_elsewhere(script, None, 1, own)
    gradients = held(layout_of(Parallel(data=1), 1), state).gradients
    activations = max(0, alone.temporary - gradients) * parts.batch_size / devices / own
    candidates = ["ddp", "zero1", "fsdp", "mics", "mics+zero1"]
    if parts.task.logical_axes:
        candidates += [f"fsdp,tensor={figures.node}"] if devices > figures.node <= 64 else []
        candidates += ["tensor"]
    found: list[Choice] = []
    for text in candidates:
        try:
            asked = resolved(parallel_from(text), devices, figures.node)
            found.append(choice(text, parts, asked, figures, state, flops, uses, activations))
        except ValueError as mistake:
            found.append(Choice(text, None, 0.0, None, False, str(mistake)))

    def order(one: Choice) -> tuple[bool, bool, float]:
        return not one.fits, "not counted" in one.note, one.estimate.most if one.estimate else math.inf

    return tuple(sorted(found, key=order))


def ranking_text(choices: tuple[Choice, ...], devices: int, chip: str) -> str:
    """The table of `rank`, and what it assumed."""
    lines = [
        f"{'--parallel':<16} {'parameters':>10} {'gradients':>10} {'optimizer':>10} {'all':>10}  fits  seconds a step"
    ]
    for one in choices:
        if one.memory is None or one.estimate is None:
            lines.append(f"{one.text:<16} does not go: {one.note}")
            continue
        m = one.memory
        sizes = [
            size_text(x) for x in (m.parameters, m.gradients, m.optimizer, m.state + m.gradients + one.activations)
        ]
        seconds = f"{seconds_text(one.estimate.least)} to {seconds_text(one.estimate.most)}"
        row = f"{one.text:<16} " + " ".join(f"{size:>10}" for size in sizes)
        lines.append(f"{row}  {'yes' if one.fits else 'no':<4}  {seconds}" + (f"  ({one.note})" if one.note else ""))
    activations = next((one.activations for one in choices if one.memory is not None), 0.0)
    lines.append(f"on each of {devices} devices; all = state, gradients and {size_text(activations)} of activations, "
                 "an estimate: temporaries of XLA:CPU's program for a device's part of the batch")  # fmt: skip
    return "\n".join([*lines, assumptions(chip_named(chip))])


def _with_batch(parts: Parts, batch_size: int | None) -> Parts:
    return parts if batch_size is None else dataclasses.replace(parts, batch_size=batch_size)


def _grown(sent: Sent, here: Sent, there: Sent) -> Sent:
    """What was compiled for fewer devices, with the formulas' part replaced by that of all devices."""
    keys = dict.fromkeys((*sent, *there))
    return {key: max(0.0, sent.get(key, 0.0) - here.get(key, 0.0)) + there.get(key, 0.0) for key in keys}
