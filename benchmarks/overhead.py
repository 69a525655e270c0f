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
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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


def main() -> None:
    options = measure.arguments(__doc__, ROW_NAMES, peers=PEERS, more=_more)
    parts = options.part or (("cpu",) if options.quick else PARTS)
    if options.inside:
        _inside(options, parts[0])
        return
    lines: list[Line] = []
    for part in parts:  # each in a process of its own: cores are counted when libraries are imported
        if part == "first-step":
            lines += first_step(options)
        else:
            lines += _apart(options, part)
    measure.report(lines, path=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (may be repeated)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)


# ---- steady state ------------------------------------------------------------------------------------------------------


def compare_row(
    name: str, peers: Sequence[str], rounds: int, clock: Callable[[Callable[[], object]], float]
) -> list[Line]:
    """jaxdl and its peers on one row, interleaved."""
    from benchmarks import networks
    from benchmarks.peers import ours

    row = networks.ROWS[name]
    warm, total = 2, 2 + TRIALS + 1
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
    shortest = min((statistics.median(costs) for costs in tried.values()), default=TURN_SECONDS)
    turns = max(1, min(8, round(TURN_SECONDS / shortest)))
    total = warm + rounds * turns

    contest: dict[str, Callable[[], object]] = dict(ours.epochs(row, total))
    contest |= {peer: variants[winner] for peer, winner in best.items()}
    for peer, module in (("keras", "keras_jax"), ("lightning", "lightning_loader")):
        if peer in peers and (peer == "keras" or row.model == "mlp"):
            found = _peer(module)
            if found is not None:
                contest |= found.epochs(row, total)
    costs = measure.interleave(contest, rounds=rounds, warm=warm, turns=turns, clock=clock)
    for run in contest.values():
        if isinstance(run, measure.Paced):
            run.finish()
    ours_ms = 1e3 * statistics.median(costs["jaxdl"]) / (turns * row.steps)
    lines = []
    for peer in (p for p in contest if p != "jaxdl"):
        note = f"{ours_ms:.3g} ms a step" + (f"; best: {best[peer]}" if peer in best else "")
        target = row.targets.get(peer) if clock is measure.cpu_seconds else None
        lines.append(
            measure.compare("overhead", name, peer, costs["jaxdl"], costs[peer], target=target, note=note)
        )
    return lines


def _peer(module: str):  # noqa: ANN202 (a module)
    needs = {"hand": ("optax",), "pytorch": ("torch",), "keras_jax": ("keras",), "lightning_loader": ("lightning", "torch")}
    missing = [name for name in needs[module] if not measure.available(name)]
    if missing:
        print(f"skipped: {module} needs {' and '.join(missing)}, not installed", file=sys.stderr)
        return None
    return importlib.import_module(f"benchmarks.peers.{module}")
