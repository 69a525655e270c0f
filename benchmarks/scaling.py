"""Strong and weak scaling over virtual devices and processes, dispatch, saving 500 MB, and what an accelerator adds.

Command: python -m benchmarks.scaling   (--quick: 2 and 8 devices, 2 processes, 7 rounds)

What a machine of few cores can show, and what not: n virtual devices or processes share its cores, so nothing becomes
quicker. Their total CPU time over that of one device on the same work is what spreading costs: collectives, n smaller
products for one large one, and an update that each device repeats. Real devices do this work side by side.

Rows, each group in a process of its own; variants of a group take turns, round by round:
- strong-PRESET-N, weak-PRESET-N: process CPU time of a step on N virtual devices over that on one, the batch the same
  (512), or the same on each device (128; over N times one device). An MLP of 0.3 million parameters, SGD;
- strong-processes-N, weak-processes-N: the same for N processes of one device each, joined by gloo, their CPU time
  added up. Jobs of 1, 2 and 4 take turns;
- dispatch: process CPU time of one blocked step of a small MLP (2,400 parameters, batch 64) on 8 virtual devices, its
  upload included, by peer over jaxdl's "ddp": its "pmap", and hand-written jit, shard_map and pmap; wall time beside;
- large-500MB: wall time until a save of 500 MB returns, until it is on the disk, and of a restore with every check: the
  row of that name of `benchmarks.checkpoint`, which has it over several processes, too;
- bf16, remat, offload-optimizer, offload-activations, scan: on an accelerator only, a GPT; skipped by name elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import checkpoint, measure

DEVICES = (1, 2, 4, 8)
PROCESSES = (1, 2, 4)
SPREAD = tuple(f"{kind}-{preset}-{n}" for kind in ("strong", "weak") for preset in ("ddp", "fsdp") for n in DEVICES[1:])
JOINED = tuple(f"{kind}-processes-{n}" for kind in ("strong", "weak") for n in PROCESSES[1:])
ACCELERATOR = ("bf16", "remat", "offload-optimizer", "offload-activations", "scan")
ROWS = (*SPREAD, *JOINED, "dispatch", "large-500MB", *ACCELERATOR)
QUICK = ("strong-ddp-2", "strong-ddp-8", "weak-ddp-8", "strong-fsdp-8", "strong-processes-2", "dispatch", "large-500MB")
BATCH, PART = 512, 128  # strong: of all devices; weak: of each
STEPS = 4  # a dispatch
GROUPS: Mapping[str, Sequence[str]] = {
    "devices": SPREAD, "processes": JOINED, "dispatch": ("dispatch",), "saving": ("large-500MB",),
    "accelerator": ACCELERATOR,
}  # fmt: skip


def row(name: str, values: Sequence[float], unit: str, *, target: float | None = None, note: str = "") -> measure.Row:
    """Median and interval; less is better."""
    middle, low, high = measure.median_interval(values)
    return measure.Row(
        "scaling", name, None, middle, target, (low, high), unit, at_most=True, pairs=len(values), note=note
    )


def ratios(costs: Sequence[float], one: Sequence[float], share: float = 1.0) -> list[float]:
    """Round by round: the cost over `share` times that of one device."""
    return [cost / (share * alone) for cost, alone in zip(costs, one, strict=True)]


# ---- devices and processes -------------------------------------------------------------------------------------------


def stepper(parallel: Any, devices: Sequence[Any], batch: int, widths: tuple[int, ...] = (512, 512)) -> Any:
    """A function that trains `STEPS` steps of an MLP in one dispatch and waits for them."""
    import jax

    import jaxdl
    from jaxdl.core.plan import RunPlan
    from jaxdl.parallel import Layout

    numbers = np.random.default_rng(0)
    columns = {
        "x": numbers.standard_normal((batch * STEPS, 64), np.float32), "y": numbers.integers(0, 10, batch * STEPS)
    }  # fmt: skip
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=widths))
    program = jaxdl.Program(
        jaxdl.gradient_step(task, jaxdl.optim.sgd(0.01)), jaxdl.data.make_feed(columns, batch),
        layout=Layout.of(parallel, devices), plan=RunPlan("unrolled", STEPS),
    )  # fmt: skip
    held = {"state": program.init(), "step": 0}

    def run() -> None:
        block = program.block(held["step"], STEPS)
        held["state"], packed = program.run(held["state"], block, STEPS, held["step"])
        held["step"] += STEPS
        jax.block_until_ready(packed.rows)

    return run


def spread(names: Sequence[str], rounds: int) -> list[measure.Row]:
    """Strong and weak scaling over virtual devices, in turns with one device."""
    import jax

    from jaxdl.parallel import Parallel

    variants: dict[str, Callable[[], object]] = {}
    kinds = {name.partition("-")[0] for name in names}
    for kind in sorted(kinds):
        variants[f"{kind}-one"] = stepper(Parallel(data=1), jax.devices()[:1], BATCH if kind == "strong" else PART)
    for name in names:
        kind, preset, number = name.split("-")
        n = int(number)
        batch = BATCH if kind == "strong" else n * PART
        variants[name] = stepper(Parallel(preset), jax.devices()[:n], batch)
    costs = measure.interleave(variants, rounds=rounds, warm=2, turns=3)
    found = []
    for name in names:
        kind, _, number = name.split("-")
        share = float(number) if kind == "weak" else 1.0
        one = costs[f"{kind}-one"]
        note = f"{1e3 * measure.median_interval(one)[0] / STEPS:.3g} CPU-ms a step on one device"
        found.append(row(name, ratios(costs[name], one, share), "x", note=note))
    return found


def joined(names: Sequence[str], rounds: int) -> list[measure.Row]:
    """The same over processes: jobs of different sizes take turns, each measures its own steps."""
    wanted = sorted({1, *(int(name.rpartition("-")[2]) for name in names)})
    times = max(1, rounds // 3)
    costs: dict[str, list[float]] = {}
    for _ in range(times):
        for n in wanted:
            for kind, seconds in _job(n).items():
                costs.setdefault(f"{kind}-processes-{n}", []).append(seconds)
    found = []
    for name in names:
        kind, _, number = name.split("-")
        one = costs[f"{kind}-processes-1"]
        note = f"{1e3 * measure.median_interval(one)[0]:.3g} CPU-ms a step in one process"
        share = float(number) if kind == "weak" else 1.0
        found.append(row(name, ratios(costs[name], one, share), "x", note=note))
    return found


def _job(count: int) -> dict[str, float]:
    """One job of `count` processes: kind -> CPU seconds of a step, of all of them."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    surroundings = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.scaling", "--member"]
    started = [
        subprocess.Popen(
            [*command, f"{number}/{count}/{port}"],
            cwd=measure.ROOT,
            env=surroundings,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        answers = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise RuntimeError(f"a job of {count} processes failed: {[process.returncode for process in started]}")
    each = [json.loads(answer.strip().splitlines()[-1]) for answer in answers]
    return {kind: sum(one[kind] for one in each) for kind in each[0]}


def member(number: int, count: int, port: int) -> None:
    """One process of a job: prints its CPU seconds of a step, for both kinds."""
    import jax

    from jaxdl.parallel import Parallel

    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=count, process_id=number)
    found = {}
    for kind, batch in (("strong", BATCH), ("weak", PART * count)):
        costs = measure.interleave({"us": stepper(Parallel("ddp"), jax.devices(), batch)}, rounds=9, warm=2, turns=3)
        found[kind] = measure.median_interval(costs["us"])[0] / STEPS
    print(json.dumps(found), flush=True)


# ---- dispatch --------------------------------------------------------------------------------------------------------


def dispatch(rounds: int) -> list[measure.Row]:
    """One blocked step a call, on 8 virtual devices: what calling costs, for the work is next to nothing."""
    import jax

    import jaxdl
    from benchmarks.peers import sharded
    from jaxdl.core.plan import RunPlan
    from jaxdl.parallel import Layout, Parallel

    numbers = np.random.default_rng(0)
    x, y = numbers.standard_normal((64, 64), np.float32), numbers.integers(0, 10, 64)

    def ours(preset: str) -> Callable[[], object]:
        task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(32,)))
        program = jaxdl.Program(
            jaxdl.gradient_step(task, jaxdl.optim.sgd(0.01)), jaxdl.data.make_feed({"x": x, "y": y}, 64),
            layout=Layout.of(Parallel(preset)), plan=RunPlan("unrolled", 1),
        )  # fmt: skip
        held = {"state": program.init(), "step": 0}

        def run() -> None:
            held["state"], packed = program.run(held["state"], program.block(held["step"], 1), 1, held["step"])
            held["step"] += 1
            jax.block_until_ready(packed.rows)

        return run

    contest = {"jaxdl": ours("ddp"), "jaxdl pmap": ours("pmap"), **sharded.steps(x, y)}
    costs = measure.interleave(contest, rounds=max(rounds, 21), warm=5, turns=5)
    waits = measure.interleave(contest, rounds=max(rounds, 21), warm=0, turns=5, clock=measure.wall_seconds)
    us = {peer: 1e6 * measure.median_interval(costs[peer])[0] for peer in contest}
    wall = {peer: 1e6 * measure.median_interval(waits[peer])[0] for peer in contest}
    note = f"jaxdl ddp {us['jaxdl']:.0f} CPU-us, {wall['jaxdl']:.0f} us of wall time"
    return [
        measure.compare("scaling", "dispatch", peer, costs["jaxdl"], costs[peer],
                        note=f"{us[peer]:.0f} CPU-us, {wall[peer]:.0f} us of wall time; {note}")
        for peer in contest if peer != "jaxdl"
    ]  # fmt: skip


# ---- one process for each group --------------------------------------------------------------------------------------


def _inside(group: str, names: Sequence[str], rounds: int) -> list[measure.Row]:
    if group == "devices":
        return spread(names, rounds)
    if group == "processes":
        return joined(names, rounds)
    if group == "dispatch":
        return dispatch(rounds)
    if group == "saving":
        with tempfile.TemporaryDirectory() as folder:
            return checkpoint.large(Path(folder) / "run", min(rounds, 7))
    from benchmarks import scaling_accelerator

    return scaling_accelerator.rows(names, rounds)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--member", help=argparse.SUPPRESS)


def main() -> None:
    """Print the table and the JSON lines."""
    options = measure.arguments(__doc__, ROWS, more=_more)
    if options.member:
        number, count, port = map(int, options.member.split("/"))
        member(number, count, port)
        return
    names = options.row or (QUICK if options.quick else ROWS)
    rounds = min(options.rounds, 7) if options.quick else options.rounds
    if options.group:
        lines = _inside(options.group, names, rounds)
        options.inside.write_text(json.dumps([dataclasses.asdict(one) for one in lines]))
        return
    found: list[measure.Row] = []
    for group, own in GROUPS.items():
        wanted = [name for name in names if name in own]
        if not wanted:
            continue
        # virtual devices are for the groups that need them: a save's threads would share their pools
        cpu = {"JAX_PLATFORMS": "cpu"} if group in ("devices", "processes", "dispatch") else {}
        if group in ("devices", "dispatch"):
            cpu["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(DEVICES)}"
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "lines.json"
            words = ["--group", group, "--inside", str(results), "--rounds", str(rounds)]
            words += [word for name in wanted for word in ("--row", name)]
            command = [sys.executable, "-m", "benchmarks.scaling", *words]
            done = subprocess.run(command, cwd=measure.ROOT, env=os.environ | cpu, check=False)
            if done.returncode:
                print(f"failed: {group} (exit status {done.returncode}, see above)", file=sys.stderr)
                continue
            found += [measure.line(record) for record in json.loads(results.read_text())]
    measure.report(found, path=options.json)


if __name__ == "__main__":
    main()
