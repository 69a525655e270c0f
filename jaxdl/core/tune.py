"""Measure how a program runs best, on request, and remember it by program, device and jax version."""

from __future__ import annotations

import json
import os
import pathlib
import re
import tempfile
import time
import zlib
from collections.abc import Callable

import jax

from jaxdl.core import compile_cache
from jaxdl.core.packing import read
from jaxdl.core.plan import RunPlan, even
from jaxdl.core.program import Program

#: Seconds of training that each variant is measured for, three times in turn.
MEASURE_SECONDS = 0.3


def program_key(program: Program) -> str:
    """A name for (what is computed, how often, where): crc32 of the update's jaxpr, steps, device kind, jax version."""
    text = re.sub(r"0x[0-9a-f]+", "", program.jaxpr_text)
    kind = program.layout.device.device_kind
    return f"{zlib.crc32(text.encode()):08x}-{program.feed.steps_per_epoch}-{kind}-{os.cpu_count()}-{jax.__version__}"


def candidates(program: Program) -> list[RunPlan]:
    """The rule's own choice first, then the other modes and a shorter and a longer K."""
    own, steps = program.plan, program.feed.steps_per_epoch
    ks = sorted({even(steps, max(1, k)) for k in (own.steps_per_dispatch // 4, own.steps_per_dispatch * 4)})
    plans = [own, *(RunPlan("scan", k) for k in ks), RunPlan("loop", even(steps, own.steps_per_dispatch))]
    plans += [RunPlan("scan", own.steps_per_dispatch), RunPlan("unrolled", min(8, steps))]
    unique = {(plan.mode, plan.steps_per_dispatch): plan for plan in reversed(plans)}
    return list(reversed(unique.values()))


def tune(build: Callable[[RunPlan | None], Program], *, folder: pathlib.Path | None = None) -> RunPlan:
    """The quickest plan for a program: looked up, or measured on throw-away states and recorded.

    Args:
        build: plan -> Program (None: the rule's own plan).
        folder: where winners are kept, tuned.json; beside the compile cache by default.
    """
    program = build(None)
    path = (folder or compile_cache.default_folder().parent) / "tuned.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    key = program_key(program)
    if key in known:
        return RunPlan(known[key]["mode"], known[key]["steps_per_dispatch"], "measured before on this device")
    seconds: dict[int, list[float]] = {}
    contenders = [(plan, build(plan)) for plan in candidates(program)]
    for _ in range(3):
        for number, (_, contender) in enumerate(contenders):
            seconds.setdefault(number, []).append(_seconds_per_step(contender))
    best = min(seconds, key=lambda number: sorted(seconds[number])[1])
    plan = contenders[best][0]
    ratio = sorted(seconds[0])[1] / sorted(seconds[best])[1]
    winner = RunPlan(plan.mode, plan.steps_per_dispatch, f"measured: {ratio:.2f} times the rule's speed")
    known[key] = winner.as_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(known, file, indent=1)
    os.replace(file.name, path)
    return winner


def _seconds_per_step(program: Program) -> float:
    """Wall seconds a step over about `MEASURE_SECONDS`, from the start of an epoch, on a state of its own."""
    state = program.init()
    per_epoch = program.feed.steps_per_epoch
    step = timed = 0
    begun = 0.0
    while True:
        count = program.steps_in_block(step)
        state, packed = program.run(state, program.block(step, count), count, step)
        read(packed)
        step += count
        if timed == 0 and not begun and (step >= per_epoch or count == program.plan.steps_per_dispatch):
            begun, timed = time.perf_counter(), step  # the first block compiles and warms up
        elif begun and time.perf_counter() - begun > MEASURE_SECONDS:
            return (time.perf_counter() - begun) / (step - timed)
