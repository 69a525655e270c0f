"""Rows of `benchmarks.scaling` that need an accelerator: half precision, recomputation, offload, scan against loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import measure

LENGTH = 1024


def rows(names: Sequence[str], rounds: int) -> list[measure.Row]:
    """Each named row, or a line that it was skipped."""
    import jax

    if jax.default_backend() == "cpu":
        for name in names:
            print(f"skipped: {name} needs an accelerator", file=sys.stderr)
        return []
    return [one for name in names for one in _row(name, rounds)]


def _program(parallel: Any = None, precision: str = "float32", plan: Any = None, small: bool = False) -> Any:
    """A GPT of 0.16 billion parameters, Adam, 8 texts of 1,024 tokens; or a small one whose dispatch shows."""
    import jax

    import jaxdl
    from jaxdl.core.plan import RunPlan
    from jaxdl.parallel import Layout

    width, depth = (64, 2) if small else (1024, 12)
    length = 64 if small else LENGTH
    model = jaxdl.create_model("gpt", num_classes=8192, width=width, depth=depth, heads=width // 64, length=length)
    task = jaxdl.tasks.language_model(model)
    tokens = np.random.default_rng(0).integers(0, 8192, (64, length + 1)).astype(np.int32)
    step = jaxdl.gradient_step(task, jaxdl.optim.adam(1e-4), precision=precision)
    layout = Layout.of(parallel, jax.devices()[:1], table=task.logical_axes)
    plan = RunPlan("unrolled", 1) if plan is None else plan
    return jaxdl.Program(step, jaxdl.data.make_feed({"x": tokens}, 8), layout=layout, plan=plan)


def _epoch(program: Any) -> Callable[[], None]:
    """All 8 steps of an epoch, then wait."""
    import jax

    held = {"state": program.init(), "step": 0}

    def run() -> None:
        packed = None
        end = held["step"] + program.feed.steps_per_epoch
        while held["step"] < end:
            count = program.steps_in_block(held["step"])
            block = program.block(held["step"], count)
            held["state"], packed = program.run(held["state"], block, count, held["step"])
            held["step"] += count
        jax.block_until_ready(packed.rows if packed is not None else None)

    return run


def _row(name: str, rounds: int) -> list[measure.Row]:
    from jaxdl.core.plan import RunPlan
    from jaxdl.parallel import Parallel

    if name == "scan":
        contest = {mode: _program(plan=RunPlan(mode, 8), small=True) for mode in ("scan", "loop")}
        ours, peer = "scan", "loop"
    elif name == "bf16":
        contest = {"bf16": _program(precision="bf16"), "float32": _program()}
        ours, peer = "bf16", "float32"
    else:
        asked = {
            "remat": Parallel(data=1, remat="full"),
            "offload-optimizer": Parallel(data=1, offload="optimizer"),
            "offload-activations": Parallel(data=1, offload="activations"),
        }[name]
        contest = {name: _program(asked), "plain": _program()}
        ours, peer = name, "plain"
    memory = {label: _device_bytes(program) for label, program in contest.items()}
    costs = measure.interleave(
        {label: _epoch(program) for label, program in contest.items()}, rounds=rounds, warm=2,
        clock=measure.wall_seconds,
    )  # fmt: skip
    note = f"device memory {memory[ours]:.2f} GB, {peer} {memory[peer]:.2f} GB"
    return [measure.compare("scaling", name, peer, costs[ours], costs[peer], note=note)]


def _device_bytes(program: Any) -> float:
    """GB of arguments and temporaries on the device, as XLA's memory analysis of the compiled step says."""
    found = program.compile().memory_analysis()
    return (found.argument_size_in_bytes + found.temp_size_in_bytes) / 1e9
