"""Closed forms of bytes against compiled programs, from 8 to 2,048 virtual devices.

Command: python -m benchmarks.plan   (--quick: 8 and 64 devices; all sizes took 11 minutes on two busy cores)

The model is a GPT of 0.8 billion parameters (width 2,048, 16 layers in a loop, tied vectors), Adam, float32, one text
of 129 tokens on each device that splits the batch. Each row compiles the real step in a process of its own, with that
many virtual devices and without weights:
- held-PRESET-DEVICES: bytes of state and batch on one device by the layout's rules, against the arguments of the
  compiled program; percent apart, at most 5;
- sent-PRESET-DEVICES: bytes that a device sends in a step, all collectives together, by the formulas of
  jaxdl/parallel/bytes.py, against those read from the program's text with its loops' trip counts; percent apart, at
  most 10. XLA:CPU has no reduce-scatter for a partitioned program, so both sides count its all-reduce and slice here.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from benchmarks import measure

DEVICES = (8, 64, 512, 2048)
PRESETS = {
    "ddp": "ddp", "zero1": "zero1", "fsdp": "fsdp", "mics": "mics,group=4", "mics-zero1": "mics+zero1,group=4",
    "fsdp-tensor": "fsdp=-1,tensor=4", "data-fsdp": "data=2,fsdp=-1",
}  # fmt: skip
ROWS = tuple(f"{preset}-{count}" for count in DEVICES for preset in PRESETS)
LENGTH = 129


def program_parts() -> Any:
    """The training whose plan is compiled; `compile_elsewhere` reads it from this file."""
    import jaxdl
    from jaxdl.planning import Parts

    model = jaxdl.create_model("gpt", num_classes=8192, width=2048, depth=16, heads=16, length=256, unroll=False)
    task = jaxdl.tasks.language_model(model)
    return Parts(task=task, optimizer=jaxdl.optim.adam(), example={"x": ((LENGTH,), "int32")}, batch_size=8)


def rows_of(name: str) -> list[measure.Row]:
    """Both rows of one preset on so many devices."""
    import dataclasses

    from jaxdl.parallel.bytes import held, layout_of, sent_for_parameters, sent_for_tensor
    from jaxdl.planning import parallel_from, resolved, shapes_of
    from jaxdl.planning.compiled import batch_bytes, compile_elsewhere
    from jaxdl.planning.estimate import layers_of

    preset, _, number = name.rpartition("-")
    devices = int(number)
    parts = program_parts()
    parallel = resolved(parallel_from(PRESETS[preset]), devices, 8)
    layout = layout_of(parallel, devices, tuple(parts.task.logical_axes))
    parts = dataclasses.replace(parts, batch_size=layout.batch_shards)
    compiled = compile_elsewhere(Path(__file__), parallel, devices, parts.batch_size)
    state, _, uses = shapes_of(parts)
    holds = held(layout, state).state + batch_bytes(parts, layout.batch_shards)
    sends = sum(sent_for_parameters(layout, state.params, uses=uses, scatter=False).values())
    layers, size = layers_of(parts, state.params), layout.sizes["tensor"]
    if size > 1 and layers is not None:
        activation = (LENGTH - 1) * layers.width * 4
        sends += sum(sent_for_tensor(layers.number, activation, size, products=layers.products).values())
    total = sum(compiled.sent.values())
    return [
        row(f"held-{name}", holds, compiled.arguments, 5.0, compiled.seconds),
        row(f"sent-{name}", sends, total, 10.0, compiled.seconds),
    ]


def row(name: str, formula: float, compiled: float, target: float, seconds: float) -> measure.Row:
    """How far apart the two are, in percent of what was compiled."""
    apart = 100 * abs(formula - compiled) / compiled if compiled else math.inf
    note = f"{formula / 1e6:.4g} MB by formula, {compiled / 1e6:.4g} MB compiled in {seconds:.1f} s"
    return measure.Row("plan", name, None, apart, target, unit="%", at_most=True, note=note)


def main() -> None:
    """Print the table and the JSON lines."""
    options = measure.arguments(__doc__, ROWS)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    wanted = options.row or [name for name in ROWS if not options.quick or int(name.rpartition("-")[2]) <= 64]
    measure.report([one for name in wanted for one in rows_of(name)], path=options.json)


if __name__ == "__main__":
    main()
