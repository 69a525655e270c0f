"""What a checkpoint costs: how long a save blocks, its CPU time in all, and the rates of crc32 and fingerprint.

Command: python -m benchmarks.checkpoint --core 0   (--quick: two sizes, no peers, under a minute)

Rows:
- block-10MB: wall time until save returns, 12 leaves of 10 MB in all; the one before is written already. Beside it the
  CPU time of the calling thread, which is what is left of it on a machine that does nothing else;
- cpu-10MB, cpu-30MB, cpu-50MB, cpu-400-leaves: process CPU seconds of a whole save, its thread included: copy, Orbax,
  flush, crc32, fingerprint, manifest. At 10 s between saves, 0.5 is 5 % of one core;
- orbax-30MB: the same against Orbax alone, waited for, as it comes (zstd) and uncompressed as here; it checks nothing;
- restore-30MB: process CPU seconds of a restore, every check included;
- large-500MB: 50 float32 leaves of 500 MB in all, on one process: wall time until save returns, until it is on disk,
  and of a restore; beside it a copy of the same bytes in memory, into new pages and into those of the copy before;
- processes-2, processes-4: the same 500 MB over so many processes of this machine, one device each, joined over gloo;
- crc-256MB: the rate of crc32_of_file on a file in the page cache;
- fingerprint: its rate over 128 MB; on an accelerator that of the compiled program, on the CPU of both ways.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure

SAVES = {"cpu-10MB": (10, 12), "cpu-30MB": (30, 12), "cpu-50MB": (50, 40), "cpu-400-leaves": (10, 400)}
PROCESSES = {"processes-2": 2, "processes-4": 4}
ROWS = ("block-10MB", *SAVES, "orbax-30MB", "restore-30MB", "large-500MB", *PROCESSES, "crc-256MB", "fingerprint")
QUICK = ("block-10MB", "cpu-10MB", "cpu-30MB", "crc-256MB", "fingerprint")


def tree_of(megabytes: int, leaves: int) -> dict[str, Any]:
    """So many float32 leaves of equal size on the default device."""
    import jax

    random = np.random.default_rng(0)
    size = megabytes * 1_000_000 // (4 * leaves)
    tree = {f"leaf{i}": jax.device_put(random.standard_normal(size, np.float32)) for i in range(leaves)}
    return jax.block_until_ready(tree)


def row(
    name: str, values: list[float], unit: str, target: float | None, *, at_most: bool, note: str = ""
) -> measure.Row:
    """Median and interval of repeated measurements."""
    middle, low, high = measure.median_interval(values)
    return measure.Row(
        "checkpoint", name, None, middle, target, (low, high), unit, at_most=at_most, pairs=len(values), note=note
    )


def blocking(folder: Path, rounds: int) -> list[measure.Row]:
    """Milliseconds until a save of 10 MB returns, and those of them that the calling thread computes."""
    from jaxdl.checkpoint import Store

    tree = tree_of(10, 12)
    times, own = [], []
    with Store(folder) as store:
        for step in range(rounds + 1):
            begin, computed = time.perf_counter(), time.thread_time()
            store.save(step, tree, manifest={})
            times.append(1e3 * (time.perf_counter() - begin))
            own.append(1e3 * (time.thread_time() - computed))
            store.wait()
    return [
        row("block-10MB", times[1:], "ms", 50, at_most=True, note=f"the first, imports beside it: {times[0]:.0f} ms"),
        row("block-10MB CPU", own[1:], "ms", None, at_most=True, note=f"the first: {own[0]:.0f} ms"),
    ]


def saving(folder: Path, tree: dict[str, Any]) -> Callable[[], None]:
    """One whole save a call."""
    from jaxdl.checkpoint import Store

    store, steps = Store(folder), itertools.count()
    return lambda: store.save(next(steps), tree, manifest={}, wait=True)


def orbax_alone(folder: Path, tree: dict[str, Any], *, compressed: bool) -> Callable[[], None]:
    """What Orbax's own asynchronous checkpointer does for the same tree, three kept."""
    import shutil

    import orbax.checkpoint as ocp

    checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(use_compression=compressed))
    steps = itertools.count()
    folder.mkdir()

    def run() -> None:
        step = next(steps)
        checkpointer.save(folder / str(step), args=ocp.args.PyTreeSave(tree))
        checkpointer.wait_until_finished()
        shutil.rmtree(folder / str(step - 3), ignore_errors=True)

    return run


def against_orbax(folder: Path, rounds: int) -> list[measure.Row]:
    """CPU time of Orbax alone over ours."""
    tree = tree_of(30, 12)
    costs = measure.interleave(
        {
            "jaxdl": saving(folder / "jaxdl", tree),
            "orbax": orbax_alone(folder / "orbax", tree, compressed=True),
            "orbax uncompressed": orbax_alone(folder / "plain", tree, compressed=False),
        },
        rounds=rounds,
    )
    return [
        measure.compare("checkpoint", "orbax-30MB", peer, costs["jaxdl"], costs[peer])
        for peer in ("orbax", "orbax uncompressed")
    ]


def restoring(folder: Path, rounds: int) -> measure.Row:
    """CPU seconds of a restore with all its checks."""
    from jaxdl.checkpoint import Store

    tree = tree_of(30, 12)
    with Store(folder) as store:
        store.save(0, tree, manifest={}, wait=True)
        costs = measure.interleave({"restore": lambda: store.restore(tree)}, rounds=rounds)["restore"]
    return row("restore-30MB", costs, "s", None, at_most=True)


def large_times(folder: Path, tree: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds that each save blocks, takes in all, and that each restore takes; the first of each comes first."""
    import jax

    from jaxdl.checkpoint import Store

    times: dict[str, list[float]] = {"block": [], "save": [], "restore": []}
    with Store(folder, keep=1) as store:
        for step in range(rounds + 1):
            begin = time.perf_counter()
            store.save(step, tree, manifest={})
            times["block"].append(time.perf_counter() - begin)
            store.wait()
            times["save"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            jax.block_until_ready(store.restore(tree).tree)
            times["restore"].append(time.perf_counter() - begin)
    return times


def large_rows(name: str, times: dict[str, list[float]]) -> list[measure.Row]:
    """The rows of one way to save 500 MB; the first save is beside the others, it also takes the memory."""
    first = {what: f"the first: {1e3 * values[0]:.0f} ms" for what, values in times.items()}
    block = [1e3 * value for value in times["block"][1:]]
    return [
        row(f"{name} blocks", block, "ms", 100, at_most=True, note=first["block"]),
        row(f"{name} save", times["save"][1:], "s", None, at_most=True, note=first["save"]),
        row(f"{name} restore", times["restore"][1:], "s", None, at_most=True, note=first["restore"]),
    ]


def large(folder: Path, rounds: int) -> list[measure.Row]:
    """500 MB on one process, and what copying them costs."""
    tree = tree_of(500, 50)
    rows = large_rows("large-500MB", large_times(folder, tree, rounds))
    room = {name: np.array(leaf, copy=True) for name, leaf in tree.items()}
    costs = measure.interleave(
        {
            "new memory": lambda: [np.array(leaf, copy=True) for leaf in tree.values()],
            "memory of before": lambda: [np.copyto(room[name], np.asarray(leaf)) for name, leaf in tree.items()],
        },
        rounds=rounds,
        clock=measure.wall_seconds,
    )
    for name, values in costs.items():
        rows.append(row(f"copy-500MB {name}", [1e3 * value for value in values], "ms", None, at_most=True))
    return rows


JOIN = """
import os
os.sched_setaffinity(0, range(os.cpu_count()))
import sys, jax
from pathlib import Path
number, count, port, folder, rounds = *map(int, sys.argv[1:4]), Path(sys.argv[4]), int(sys.argv[5])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=count, process_id=number)
from benchmarks.checkpoint import in_one_of_several
in_one_of_several(folder, rounds)
"""


def in_one_of_several(folder: Path, rounds: int) -> None:
    """What each process does: 500 MB over all devices, every leaf in as many rows; process 0 prints."""
    import jax

    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    host = np.random.default_rng(0).standard_normal(2_500_000, np.float32)
    tree = {f"leaf{i}": jax.make_array_from_callback(host.shape, sharding, lambda at: host[at]) for i in range(50)}
    times = large_times(folder, tree, rounds)
    if jax.process_index() == 0:
        print(json.dumps(times), flush=True)


def large_on_processes(name: str, folder: Path, rounds: int) -> list[measure.Row]:
    """500 MB over several processes, on all cores; the times are process 0's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, str(number), str(PROCESSES[name]), str(port), str(folder), str(rounds)],
            env=environment, stdout=subprocess.PIPE, text=True, cwd=measure.ROOT,
        )
        for number in range(PROCESSES[name])
    ]  # fmt: skip
    said = [process.communicate(timeout=1200)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{name}: a process failed")
    return large_rows(name, json.loads(said[0].strip().splitlines()[-1]))


def crc(folder: Path, rounds: int) -> measure.Row:
    """GB/s of crc32_of_file."""
    from jaxdl.checkpoint import crc32_of_file

    path, size = folder / "file", 256_000_000
    path.write_bytes(np.random.default_rng(0).bytes(size))
    costs = measure.interleave({"crc": lambda: crc32_of_file(path)}, rounds=rounds)["crc"]
    return row("crc-256MB", [size / 1e9 / cost for cost in costs], "GB/s", 1.0, at_most=False)


def marking(rounds: int) -> list[measure.Row]:
    """GB/s of the fingerprint over 128 MB: of NumPy on the host, and of the compiled program where the tree lies."""
    import jax

    from jaxdl.checkpoint.fingerprint import device_sums, host_sum

    tree = tree_of(128, 8)
    size = sum(leaf.nbytes for leaf in tree.values()) / 1e9
    host = [np.array(leaf, copy=True) for leaf in tree.values()]
    leaves = list(tree.values())
    begin = time.process_time()
    jax.block_until_ready(device_sums(leaves))
    compiling = time.process_time() - begin
    costs = measure.interleave(
        {
            "host": lambda: [host_sum(leaf) for leaf in host],
            "device": lambda: jax.block_until_ready(device_sums(leaves)),
        },
        rounds=rounds,
        clock=measure.cpu_seconds if jax.default_backend() == "cpu" else measure.wall_seconds,
    )
    note = f"compiling 8 leaves took {compiling:.2f} CPU-s"
    return [
        row("fingerprint NumPy", [size / cost for cost in costs["host"]], "GB/s", None, at_most=False),
        row("fingerprint compiled", [size / cost for cost in costs["device"]], "GB/s", None, at_most=False, note=note),
    ]


def main() -> None:
    """Measure and print."""
    options = measure.arguments(__doc__, ROWS)
    measure.pin(options.core)
    rounds = min(options.rounds, 7) if options.quick else options.rounds
    out: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.row or (QUICK if options.quick else ROWS):
            folder = Path(temporary) / name
            folder.mkdir()
            if name == "block-10MB":
                out += blocking(folder, rounds)
            elif name in SAVES:
                work = {"save": saving(folder, tree_of(*SAVES[name]))}
                costs = measure.interleave(work, rounds=rounds)["save"]
                note = f"{100 * measure.median_interval(costs)[0] / 10:.1f} % of a core at a save each 10 s"
                out.append(row(name, costs, "s", 0.5, at_most=True, note=note))
            elif name == "orbax-30MB":
                out += against_orbax(folder, rounds)
            elif name == "restore-30MB":
                out.append(restoring(folder, rounds))
            elif name == "large-500MB":
                out += large(folder, min(rounds, 7))
            elif name in PROCESSES:
                out += large_on_processes(name, folder, min(rounds, 7))
            elif name == "crc-256MB":
                out.append(crc(folder, rounds))
            else:
                out += marking(rounds)
    measure.report(out, path=options.json)


if __name__ == "__main__":
    main()
