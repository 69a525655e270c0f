"""What `jaxdl.fit` costs against hand-written JAX, PyTorch, Keras and Lightning on the same training.

The same network, Adam, data, batch size, number of steps and float32 for every peer; one epoch of each in turn, in one
process on one pinned core. A ratio is the peer's cost over jaxdl's: above 1, jaxdl is cheaper. The first epoch of each
(tracing, compiling, first touches) is not counted; `--part first-step` measures that apart, in fresh processes.

    python -m benchmarks.overhead                        all rows, all peers, 21 rounds
    python -m benchmarks.overhead --quick                one size a network, the two nearest peers
    python -m benchmarks.overhead --row mlp-32 --peer torch
    python -m benchmarks.overhead --part wall            wall time on two cores
    python -m benchmarks.overhead --part first-step      CPU seconds from the call of fit to its first step
    python -m benchmarks.overhead --part checkpoint      asynchronous saves while the GPT trains
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Row as Line

ROW_NAMES = (
    *("mlp-32", "mlp-128", "mlp-1024", "logreg-32", "logreg-128", "logreg-1024", "convnet-32", "convnet-128"),
    *("convnet-1024", "lstm-32", "lstm-128", "lstm-1024", "gpt-8", "gpt-32"),
)
PEERS = ("hand-written", "torch", "keras", "lightning")
PARTS = ("cpu", "wall", "first-step", "checkpoint")
TRIALS = 5  # rounds in which the variants of one peer compete before the best of them is measured
TURN_SECONDS = 0.05
SAVE_SECONDS = 10.0
FRESH = 5  # processes for a cost that a warm process cannot show
FIRST_STEP_TARGET = 0.5  # CPU seconds, the MLP, warm cache


def main() -> None:
    options = measure.arguments(__doc__, ROW_NAMES, peers=PEERS, more=_more)
    if options.inside is not None:
        _inside(options)
        return
    lines: list[Line] = []
    for part in options.part or (("cpu", "first-step") if options.quick else PARTS):
        lines += first_step(options) if part == "first-step" else _apart(options, part)
    measure.report(lines, path=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (may be repeated)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)


def _rows(options: argparse.Namespace) -> list[str]:
    from benchmarks import networks

    return options.row or [name for name, row in networks.ROWS.items() if row.quick or not options.quick]


def _apart(options: argparse.Namespace, part: str) -> list[Line]:
    """One process for each row: cores are counted at import, and a row's memory does not burden the next."""
    names = ["gpt-8"] if part == "checkpoint" else _rows(options)
    lines: list[Line] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "lines.json"
            words = ["--inside", str(results), "--part", part, "--row", name]
            words += ["--rounds", str(options.rounds), "--core", str(options.core)]
            words += [word for peer in options.peer or () for word in ("--peer", peer)]
            words += ["--quick"] if options.quick else []
            done = subprocess.run([sys.executable, "-m", "benchmarks.overhead", *words], cwd=measure.ROOT, check=False)
            if done.returncode:
                print(f"failed: {part} {name} (exit status {done.returncode}, see above)", file=sys.stderr)
                continue
            found = [measure.line(record) for record in json.loads(results.read_text())]
        lines += found
        measure.report(found, stream=sys.stderr, table_only=True)
    return lines


def _inside(options: argparse.Namespace) -> None:
    (part,), (name,) = options.part, options.row
    measure.pin(None if part == "wall" else options.core)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if measure.available("torch"):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    from jaxdl.core.allocator import keep_freed_memory

    keep_freed_memory()  # fit does so; this way every peer has it from its first allocation on
    if part == "checkpoint":
        lines = checkpoint_row(name, options.rounds)
    else:
        chosen = options.peer or (("hand-written", "torch") if options.quick else PEERS)
        clock = measure.wall_seconds if part == "wall" else measure.cpu_seconds
        lines = compare_row(name, chosen, options.rounds, clock)
    options.inside.write_text(json.dumps([dataclasses.asdict(each) for each in lines]))


# ---- steady state ----------------------------------------------------------------------------------------------------


def compare_row(
    name: str, peers: Sequence[str], rounds: int, clock: Callable[[Callable[[], object]], float]
) -> list[Line]:
    """jaxdl and its peers on one row, interleaved."""
    from benchmarks import networks
    from benchmarks.peers import ours

    row = networks.ROWS[name]
    warm = 2
    variants: dict[str, Callable[[], object]] = {}
    family: dict[str, list[str]] = {}
    modules = {"hand-written": "hand", "torch": "pytorch"}
    for peer in (p for p in peers if p in modules):
        found = _peer(modules[peer])
        if found is not None:
            made = found.epochs(row)
            variants |= made
            family[peer] = list(made)
    # The variants compete first; only the best of each peer goes into the table.
    tried = measure.interleave(variants, rounds=TRIALS, warm=warm, clock=clock)
    best = {peer: measure.best_of(tried, names) for peer, names in family.items()}
    each = {peer: statistics.median(tried[winner]) for peer, winner in best.items()}
    turns = {peer: max(1, min(8, round(TURN_SECONDS / seconds))) for peer, seconds in each.items()}
    # jaxdl and Keras cost about what hand-written JAX does; Lightning is never quick.
    turns["jaxdl"] = turns["keras"] = max(turns.values(), default=1)
    total = (warm + rounds) * turns["jaxdl"]

    contest: dict[str, Callable[[], object]] = dict(ours.epochs(row, total))
    contest |= {peer: variants[winner] for peer, winner in best.items()}
    for peer, module in (("keras", "keras_jax"), ("lightning", "lightning_loader")):
        if peer in peers and (peer == "keras" or row.model == "mlp"):
            found = _peer(module)
            if found is not None:
                contest |= found.epochs(row, (warm + rounds) * turns.get(peer, 1))
    for peer, run in contest.items():
        if isinstance(run, measure.Paced):
            run.stride = turns.get(peer, 1)
    costs = measure.interleave(contest, rounds=rounds, warm=warm, turns=turns, clock=clock)
    for run in contest.values():
        if isinstance(run, measure.Paced):
            run.finish()
    ours_ms = 1e3 * statistics.median(costs["jaxdl"]) / row.steps
    lines = []
    for peer in (p for p in contest if p != "jaxdl"):
        note = f"{ours_ms:.3g} ms a step" + (f"; best: {best[peer]}" if peer in best else "")
        on_cpu = clock is measure.cpu_seconds
        target = row.targets.get(peer) if on_cpu else None
        benchmark = "overhead" if on_cpu else "overhead-wall"
        lines.append(measure.compare(benchmark, name, peer, costs["jaxdl"], costs[peer], target=target, note=note))
    return lines


def _peer(module: str) -> Any:
    needs = {
        "hand": ("optax",),
        "pytorch": ("torch",),
        "keras_jax": ("keras",),
        "lightning_loader": ("lightning", "torch"),
    }
    missing = [name for name in needs[module] if not measure.available(name)]
    if missing:
        print(f"skipped: {module} needs {' and '.join(missing)}, not installed", file=sys.stderr)
        return None
    return importlib.import_module(f"benchmarks.peers.{module}")


# ---- apart -----------------------------------------------------------------------------------------------------------


def checkpoint_row(name: str, rounds: int) -> list[Line]:
    """The same fit with an asynchronous save every 10 CPU seconds of training and without any, in turns of one save."""
    from benchmarks import networks
    from benchmarks.peers import ours
    from jaxdl import Checkpoint

    row = networks.ROWS[name]
    trial = ours.epochs(row, 2 + TRIALS)
    cost = statistics.median(measure.interleave(trial, rounds=TRIALS, warm=2)["jaxdl"])
    turns = max(1, round(SAVE_SECONDS / cost))  # epochs between two saves
    total = 2 + rounds * turns
    with tempfile.TemporaryDirectory() as folder:
        saving = Checkpoint(str(Path(folder) / "run"), every=turns * row.steps, keep=2)
        contest: dict[str, measure.Paced] = {
            "plain": ours.epochs(row, total)["jaxdl"],
            "saving": ours.epochs(row, total, checkpoint=saving)["jaxdl"],
        }
        costs = measure.interleave(contest, rounds=rounds, warm=2, turns=turns)
        for run in contest.values():
            run.finish()
    ratios = [b / a for a, b in zip(costs["plain"], costs["saving"], strict=True)]
    value, low, high = measure.median_interval(ratios)
    note = f"a save every {turns * row.steps} steps, {turns * statistics.median(costs['plain']):.3g} CPU s"
    return [
        Line(
            "overhead", f"{name}-checkpoint", None, value, 1.05, (low, high), "x", at_most=True, pairs=rounds, note=note
        )
    ]


def first_step(options: argparse.Namespace) -> list[Line]:
    """CPU seconds from the call of fit to its first step, imports done, in fresh processes on one core."""
    names = options.row or (["mlp-32"] if options.quick else ["mlp-32", "logreg-32", "convnet-32", "lstm-32", "gpt-8"])
    needs = {"jaxdl": "jax", "torch": "torch", "keras": "keras"}
    lines = []
    for name in names:
        for peer in (p for p in needs if measure.available(needs[p]) and (p == "jaxdl" or not options.quick)):
            with tempfile.TemporaryDirectory() as cache:
                surroundings = {"JAXDL_CACHE": cache, "JAX_PLATFORMS": "cpu"}

                def once() -> float:
                    words = ("benchmarks.first_step", peer, name)  # noqa: B023
                    return float(measure.in_fresh_process(*words, core=options.core, environment=surroundings))  # noqa: B023

                cold = once()
                value, low, high = measure.median_interval([once() for _ in range(FRESH)])
            target = FIRST_STEP_TARGET if (peer, name) == ("jaxdl", "mlp-32") else None
            note = f"warm cache; cold {cold:.2f} s" if peer == "jaxdl" else f"first process {cold:.2f} s"
            lines.append(
                Line("first-step", name, peer, value, target, (low, high), "s", at_most=True, pairs=FRESH, note=note)
            )
    return lines


if __name__ == "__main__":
    main()
