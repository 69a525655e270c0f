"""Time peers against each other so that a loaded machine does not decide the answer.

One process, one pinned core, peers interleaved: in every round each peer does the same work once, in a rotated order,
and its cost is process CPU time. A ratio is the median over rounds of (the peer's cost / our cost in the same round),
so a slow spell of the machine falls on both sides of a pair. Its 95 % interval comes from order statistics of the same
ratios (no assumption about their distribution).

Use, in this order (the core must be pinned before JAX or PyTorch count the cores)::

    from benchmarks import measure

    options = measure.arguments(__doc__, rows=("mlp-32", "mlp-128"))      # --quick, --row NAME, --rounds N, --core N
    measure.pin(options.core)
    import jax                                                            # only now

    costs = measure.interleave({"jaxdl": run_ours, "torch": run_torch}, rounds=options.rounds)
    rows = [measure.compare("overhead", "mlp-32", "torch", costs["jaxdl"], costs["torch"], target=5.0)]
    measure.report(rows)                                                  # a table, then one JSON line a row
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 21
RESOLUTION = 0.03


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    `value` is a ratio (the peer's cost over ours: more is better) unless `unit` says otherwise ("s", "ms", "GB/s");
    then `peer` may be None and `at_most` tells which side of the target is good.
    """

    benchmark: str
    row: str
    peer: str | None
    value: float
    target: float | None = None
    interval: tuple[float, float] | None = None
    unit: str = "ratio"
    at_most: bool = False
    pairs: int | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """One of "met", "missed", "unresolved" (the interval is wider than 3 % and holds the target) or ""."""
        if self.target is None:
            return ""
        if self.interval is not None:
            low, high = self.interval
            if low < self.target < high and (high - low) > RESOLUTION * self.value:
                return "unresolved"
        good = self.value <= self.target if self.at_most else self.value >= self.target
        return "met" if good else "missed"

    def record(self) -> dict[str, object]:
        """The JSON line: names as every benchmark of the project writes them."""
        out: dict[str, object] = {"benchmark": self.benchmark, "row": self.row}
        if self.peer is not None:
            out["peer"] = self.peer
        out["ratio" if self.unit == "ratio" else "value"] = significant(self.value)
        if self.unit != "ratio":
            out["unit"] = self.unit
        if self.target is not None:
            out["target"] = self.target
            out["verdict"] = self.verdict
        if self.at_most:
            out["better"] = "less"
        if self.interval is not None:
            out["interval"] = [significant(self.interval[0]), significant(self.interval[1])]
        if self.pairs is not None:
            out["pairs"] = self.pairs
        if self.note:
            out["note"] = self.note
        return out | versions()


def significant(value: float, digits: int = 4) -> float:
    """`value` rounded to so many significant digits, for a line that people read."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def versions() -> dict[str, str]:
    """Device, jaxdl and jax, as they stand in every JSON line."""
    device = "cpu"
    if "jax" in sys.modules:
        import jax

        device = "cpu" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    return {"device": device, "jaxdl": _version("jaxdl"), "jax": _version("jax")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        import tomllib

        project = ROOT / "pyproject.toml"
        if package == "jaxdl" and project.exists():
            return str(tomllib.loads(project.read_text())["project"].get("version", "source"))
        return "absent"


def arguments(
    description: str | None,
    rows: Sequence[str],
    *,
    peers: Sequence[str] = (),
    more: Callable[[argparse.ArgumentParser], object] | None = None,
) -> argparse.Namespace:
    """The command line of a benchmark: `quick`, `row` (list of names), `peer` (list), `rounds`, `core`."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="one size a model and the two nearest peers; about 5 minutes"
    )
    parser.add_argument(
        "--row", action="append", choices=rows, metavar="NAME", help=f"only this row: {', '.join(rows)}"
    )
    if peers:
        parser.add_argument("--peer", action="append", choices=peers, help="only this peer (may be repeated)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds a row (default {ROUNDS})")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to pin")
    parser.add_argument("--json", type=Path, help="append the JSON lines to this file too")
    if more is not None:
        more(parser)
    return parser.parse_args()


def pin(core: int | None) -> None:
    """Keep this process on one core (None: leave it free). Call it before importing JAX, PyTorch or NumPy users.

    Thread pools are sized when a library is imported, so a later call would leave two threads taking turns on one core.
    """
    if core is None:
        return
    late = [name for name in ("jax", "torch") if name in sys.modules]
    if late:
        raise RuntimeError(
            f"pin(core) must come before the import of {' and '.join(late)}: their threads are counted then"
        )
    os.sched_setaffinity(0, {core})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def available(*modules: str) -> bool:
    """True when every module can be imported; a missing peer is skipped by name, not a failure."""
    return all(find_spec(module) is not None for module in modules)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Process CPU time (all threads) of one call; `work` must wait for its own results (block_until_ready)."""
    begin = time.process_time()
    work()
    return time.process_time() - begin - getattr(work, "settling", (0.0, 0.0))[0]


def wall_seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, for the tables that are about waiting (two cores, blocking saves)."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin - getattr(work, "settling", (0.0, 0.0))[1]


def interleave(
    peers: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    warm: int = 1,
    turns: int | Mapping[str, int] = 1,
    clock: Callable[[Callable[[], object]], float] = cpu_seconds,
) -> dict[str, list[float]]:
    """Seconds a call of each peer, one per round; round r of every peer ran next to round r of the others.

    The order rotates, so that no peer always runs behind the same neighbour (a neighbour leaves caches and clocks in
    its own state). `warm` calls of each come first and are not counted: tracing, compiling and first touches. A round
    has `turns` calls of each (one number, or one by name), so that short work lasts long enough to be timed.
    """
    names = list(peers)
    for _ in range(warm):
        for name in names:
            peers[name]()
    costs: dict[str, list[float]] = {name: [] for name in names}
    for r in range(rounds):
        turn = r % len(names)
        for name in names[turn:] + names[:turn]:
            wanted = turns if isinstance(turns, int) else turns.get(name, 1)
            stride = getattr(peers[name], "stride", 1)
            calls = max(1, wanted // stride)
            costs[name].append(sum(clock(peers[name]) for _ in range(calls)) / (calls * stride))
    return costs


class Paced:
    """Somebody else's fit, advanced by `stride` epochs a call, so that it can take turns with other peers.

    `train` gets a function that it has to call at the end of every epoch (from the callback of its framework). It runs
    in its own thread and is parked there between calls; the cost of an epoch is then all that the framework does for
    it: feeding, dispatch, reading, history, callbacks. The first call holds tracing, compiling and the first epoch: a
    warm-up.

    Parking costs: two threads hand over to each other, and the core goes idle until `settle` is content, which leaves
    it with cold caches. A stride of several epochs keeps that out of epochs of a few milliseconds.
    """

    def __init__(self, train: Callable[[Callable[[], None]], object]):
        self.stride = 1
        self._epochs = 0
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._over = False
        self.settling = (0.0, 0.0)
        self._thread = threading.Thread(target=self._run, args=(train,), daemon=True)

    def _run(self, train: Callable[[Callable[[], None]], object]) -> None:
        self._go.acquire()
        try:
            train(self._epoch_end)
        except BaseException as error:  # carried over to the thread that waits in __call__
            self._error = error
        self._over = True
        self._parked.release()

    def _epoch_end(self) -> None:
        self._epochs += 1
        if self._epochs % self.stride:
            return
        self._parked.release()
        self._go.acquire()

    def __call__(self) -> None:
        """Train `stride` more epochs and wait until nothing of them runs any more."""
        if self._thread.ident is None:
            self._thread.start()
        if self._over:
            raise RuntimeError("this training is over: give it as many epochs as rounds and warm-ups")
        self._go.release()
        self._parked.acquire()
        if self._error is not None:
            raise self._error
        self.settling = settle()

    def finish(self) -> None:
        """Let the training run to its end."""
        while self._thread.ident is not None and not self._over:
            self()


def settle(polls: int = 2) -> tuple[float, float]:
    """Wait until no other thread of this process wants a core, `polls` times in a row.

    A framework that dispatches ahead may still be computing when its epoch's callback runs; without this the peer that
    comes next would pay for it. A thread that is ready but waits for the core counts as running (state R).

    Returns:
        What looking cost: CPU seconds in all, and wall seconds since the first quiet poll. Clocks take it off.
    """
    mine, begin = threading.get_native_id(), time.thread_time()
    quiet, since = 0, time.perf_counter()
    while True:
        busy = False
        for task in os.listdir("/proc/self/task"):
            if int(task) == mine:
                continue
            try:
                with open(f"/proc/self/task/{task}/stat") as file:
                    busy = busy or file.read().rpartition(")")[2].split(None, 1)[0] in "RD"
            except (FileNotFoundError, ProcessLookupError):  # a thread that just ended
                continue
        if busy:
            quiet, since = 0, time.perf_counter()
        else:
            quiet += 1
            if quiet == polls:
                return time.thread_time() - begin, time.perf_counter() - since
        time.sleep(0.0005)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval: order statistics k and n+1-k with P(Binomial(n, 1/2) < k) <= 2.5 %.

    With 21 values these are the 6th and the 16th; with fewer than 6 no such pair exists and the extremes are returned.
    """
    ordered = sorted(values)
    n = len(ordered)
    tail, k = 0.0, 0
    while k < n and tail + math.comb(n, k) / 2**n <= (1 - confidence) / 2:
        tail += math.comb(n, k) / 2**n
        k += 1
    low = max(k - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def compare(
    benchmark: str,
    row: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None = None,
    note: str = "",
) -> Row:
    """The row for one peer from interleaved costs: ratio = the peer's cost / ours, above 1 when we are cheaper."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    value, low, high = median_interval(ratios)
    return Row(benchmark, row, peer, value, target, (low, high), pairs=len(ratios), note=note)


def best_of(costs: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """The name with the smallest median cost (the best hand-written variant is the one to beat)."""
    return min((name for name in names if name in costs), key=lambda name: statistics.median(costs[name]))


def in_fresh_process(
    module: str, *words: str, core: int | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run `python -m module words...` from the project's root and return its last line of output.

    For costs that a warm process cannot show: imports, tracing, compile caches.
    """
    command = [sys.executable, "-m", module, *words]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def line(record: Mapping[str, Any]) -> Row:
    """A row that came from another process (`dataclasses.asdict` through JSON)."""
    interval = record["interval"]
    return Row(**{**record, "interval": None if interval is None else (interval[0], interval[1])})


def report(
    rows: Sequence[Row], *, path: Path | None = None, stream: TextIO | None = None, table_only: bool = False
) -> None:
    """Print the table, then one JSON line a row; append the lines to `path` when given."""
    out = stream or sys.stdout
    lines = [("row", "peer", "value", "95 % interval", "target", "verdict", "note")]
    for r in rows:
        unit = "" if r.unit == "ratio" else f" {r.unit}"
        sign = "<=" if r.at_most else ">="
        lines.append(
            (
                r.row,
                r.peer or "",
                f"{significant(r.value, 3)}{unit}",
                "" if r.interval is None else f"{significant(r.interval[0], 3)} .. {significant(r.interval[1], 3)}",
                "" if r.target is None else f"{sign} {r.target}",
                r.verdict,
                r.note,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=out)
    if table_only:
        return
    for r in rows:
        print(json.dumps(r.record()), file=out)
    if path is not None:
        with path.open("a") as file:
            file.writelines(json.dumps(r.record()) + "\n" for r in rows)
