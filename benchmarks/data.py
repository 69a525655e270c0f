"""Feeds in examples a second, against PyTorch and grain; memory of a streamed map; the rate of find_leaks.

Command: taskset -c 0 python -m benchmarks.data   (--quick: the two feeds and their two nearest peers, about a minute)

Rows, each with what one round does:
- resident: an epoch of 16,384 rows of 784 floats, batch 128, shuffled: one compiled scan that gathers on the device;
- streamed: the same rows, gathered by the host in blocks of 16 batches, each put on the device and scanned over;
- records: 2,048 images of 32x32x3 bytes, batch 128, each cropped and flipped on its own, without worker processes;
- memory: the most that arrays hold at any moment of streaming a 400 MB memory map (pages of the file do not count);
- leaks: find_leaks of 40,000 rows of 784 floats against 4,000.

Every batch is made whole and summed, by jaxdl behind an optimization barrier: XLA would else sum without gathering.
Peers get their best case: torch index is `x[permutation[i : i + 128]]`, the DataLoader has no workers to talk to.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure

ROWS = ("resident", "streamed", "records", "memory", "leaks")
QUICK = ("resident", "streamed", "memory")
NEAREST = ("torch index", "torch DataLoader")
BATCH = 128
Work = dict[str, Callable[[], object]]


def columns(rows: int) -> dict[str, np.ndarray]:
    """784 floats and a label an example."""
    rng = np.random.default_rng(0)
    return {"x": rng.random((rows, 784), np.float32), "y": rng.integers(0, 10, rows).astype(np.int32)}


def feed_epoch(feed: Any, block: int) -> Callable[[], object]:
    """One epoch of a feed: blocks of `block` batches, each consumed by one compiled scan."""
    import jax
    import jax.numpy as jnp

    def consume(data: Any, items: Any) -> Any:
        def step(total: Any, item: Any) -> Any:
            batch = jax.lax.optimization_barrier(feed.take(data, item))
            return total + sum(jnp.sum(array.astype(jnp.float32)) for array in batch.values()), None

        return jax.lax.scan(step, jnp.float32(0), items)[0]

    consume, data = jax.jit(consume), jax.device_put(feed.data)
    epochs = iter(range(10**9))

    def run() -> None:
        first, totals = next(epochs) * feed.steps_per_epoch, []
        for step in range(0, feed.steps_per_epoch, block):
            items = feed.block(0, first + step, min(block, feed.steps_per_epoch - step))
            totals.append(consume(data, jax.device_put(items)))
        jax.block_until_ready(totals)

    return run


def torch_peers(data: dict[str, np.ndarray]) -> Work:
    """A tensor that is indexed, and a DataLoader over a TensorDataset."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)

    def index() -> None:
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            x[rows].sum(), y[rows].sum()

    def load() -> None:
        for images, labels in loader:
            images.sum(), labels.sum()

    return {"torch index": index, "torch DataLoader": load}


def grain_per_record(data: dict[str, np.ndarray]) -> Work:
    """grain's own pipeline: shuffle, look each record up, batch."""
    import grain

    class Rows:
        def __len__(self) -> int:
            return len(data["x"])

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"x": data["x"][row], "y": data["y"][row]}

    made = grain.MapDataset.source(Rows()).shuffle(seed=0).batch(BATCH)

    def run() -> None:
        for i in range(len(made)):
            batch = made[i]
            batch["x"].sum(), batch["y"].sum()

    return {"grain per record": run}


def resident(names: tuple[str, ...]) -> tuple[int, Work]:
    """The resident feed and its peers."""
    from jaxdl.data import Resident

    data = columns(16_384)
    return 16_384, {"jaxdl": feed_epoch(Resident(data, BATCH), 10**6), **array_peers(data, names)}


def streamed(names: tuple[str, ...]) -> tuple[int, Work]:
    """The streamed feed and its peers."""
    from jaxdl.data import Streamed

    data = columns(16_384)
    return 16_384, {"jaxdl": feed_epoch(Streamed(data, BATCH), 16), **array_peers(data, names)}


def array_peers(data: dict[str, np.ndarray], names: tuple[str, ...]) -> Work:
    """The peers of the array feeds that are installed and asked for."""
    work: Work = {}
    if present("torch", "torch"):
        work |= torch_peers(data)
    if "grain per record" in names and present("grain", "grain per record"):
        work |= grain_per_record(data)
    return {name: each for name, each in work.items() if name in names}


def records(names: tuple[str, ...]) -> tuple[int, Work]:
    """Crop and flip, image by image."""
    from jaxdl.data import GrainFeed, random_crop, random_flip

    images = np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)

    def augmented(record: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": random_flip(random_crop(record["x"], rng, size=(32, 32), padding=4), rng)}

    feed, epochs = GrainFeed({"x": images}, BATCH, transform=augmented), iter(range(10**9))

    def ours() -> None:
        first = next(epochs) * feed.steps_per_epoch
        for step in range(feed.steps_per_epoch):
            feed.block(0, first + step, 1)["x"].sum()

    work: Work = {"jaxdl": ours}
    if present("torch", "torch DataLoader"):
        import torch
        from torch.utils.data import DataLoader, Dataset

        class Augmented(Dataset):
            rng = np.random.default_rng(0)

            def __len__(self) -> int:
                return len(images)

            def __getitem__(self, row: int) -> Any:
                return torch.from_numpy(np.ascontiguousarray(augmented({"x": images[row]}, self.rng)["x"]))

        loader = DataLoader(Augmented(), batch_size=BATCH, shuffle=True)
        work["torch DataLoader"] = lambda: [batch.sum() for batch in loader]
    if present("grain", "grain random_map"):
        import grain

        made = grain.MapDataset.source(images).shuffle(seed=0)
        made = made.random_map(lambda image, rng: augmented({"x": image}, rng)["x"], seed=0).batch(BATCH)
        work["grain random_map"] = lambda: [made[i].sum() for i in range(len(made))]
    return len(images), {name: each for name, each in work.items() if name == "jaxdl" or name in names}


MEMORY = """
import sys
import tracemalloc
import numpy as np
from jaxdl.data import make_feed

feed = make_feed((np.load(sys.argv[1], mmap_mode="r"),), 128)
tracemalloc.start()
for step in range(0, feed.steps_per_epoch, 16):
    feed.block(0, step, min(16, feed.steps_per_epoch - step))
print(tracemalloc.get_traced_memory()[1] / 1e6)
"""


def memory(folder: Path) -> list[measure.Row]:
    """The most MB of arrays at any moment of an epoch over 400 MB on disk, in blocks of 6.3 MB."""
    import subprocess

    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.uint8, (130_208, 3072))
    x[:] = 7
    x.flush()
    command = [sys.executable, "-c", MEMORY, str(folder / "x.npy")]
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=True)
    return [
        measure.Row("data", "memory", None, float(done.stdout), 40.0, unit="MB", at_most=True, note="400 MB on disk")
    ]


def leaks(rounds: int) -> list[measure.Row]:
    """Rows hashed and compared, in GB/s of both sides together."""
    from jaxdl.data import find_leaks

    a, b = columns(40_000)["x"], columns(44_000)["x"][40_000:]
    seconds = measure.interleave({"jaxdl": lambda: find_leaks((a,), (b,))}, rounds=rounds)["jaxdl"]
    middle, low, high = measure.median_interval([(a.nbytes + b.nbytes) / 1e9 / each for each in seconds])
    return [measure.Row("data", "leaks", None, middle, None, (low, high), unit="GB/s", pairs=len(seconds))]


def present(module: str, name: str) -> bool:
    """Whether a peer is installed; if not, says that it is skipped."""
    if measure.available(module):
        return True
    print(f"skipped {name}: {module} is not installed", file=sys.stderr)
    return False


def compared(row: str, examples: int, work: Work, rounds: int) -> list[measure.Row]:
    """One line a peer, with both rates."""
    if len(work) < 2:
        return []
    costs = measure.interleave(work, rounds=rounds)
    rate = {name: examples / measure.median_interval(each)[0] for name, each in costs.items()}
    return [
        measure.compare(
            "data",
            row,
            peer,
            costs["jaxdl"],
            costs[peer],
            target=1.0,
            note=f"{rate['jaxdl']:,.0f} against {rate[peer]:,.0f} examples/s",
        )
        for peer in work
        if peer != "jaxdl"
    ]


def main() -> None:
    """Measure and print."""
    options = measure.arguments(__doc__, ROWS)
    measure.pin(options.core)
    chosen = options.row or (QUICK if options.quick else ROWS)
    names = NEAREST if options.quick else (*NEAREST, "grain per record", "grain random_map")
    out: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for row in chosen:
            if row in ("resident", "streamed", "records"):
                out += compared(
                    row, *{"resident": resident, "streamed": streamed, "records": records}[row](names), options.rounds
                )
            else:
                out += memory(folder) if row == "memory" else leaks(options.rounds)
    measure.report(out, path=options.json)


if __name__ == "__main__":
    main()
