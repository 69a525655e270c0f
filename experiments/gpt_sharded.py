"""Does a GPT train alike however it is spread over devices?

Command
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python experiments/gpt_sharded.py --data DATA --parallel fsdp
    with any other --parallel: ddp, pmap, zero1, mics, tensor, or axes: fsdp=4,tensor=2 or stage=2,data=4,repeats=2.
    --compare trains on one device beside it and prints the difference.
    In several processes: jaxdl launch -n 4 experiments/gpt_sharded.py --data DATA --parallel fsdp
    What one of 6.6 billion parameters would need: jaxdl plan experiments/gpt_sharded.py --parallel fsdp=64,tensor=8
    --devices 512 --device h100

Cost
    36 to 63 CPU-seconds for 100 steps, compilations and the comparison included (jax 0.10.2, eight virtual devices of a
    CPU, with --data DATA --steps 100 --compare; 200 steps by default).

Result
    3 meshes end at the loss of one device, 2.6969 after 100 steps with seed 0: fsdp is 5.5e-08 from it,
    fsdp=4,tensor=2 3.3e-08, stage=2,data=4,repeats=2 1.9e-08. Without --data all three and two processes
    (jaxdl launch -n 2 --devices-per-process 4) end at 2.3183, at most 4.4e-08 from one.

Data: Karpathy, char-rnn, 2015: 1.1 million characters of Shakespeare's plays, in DATA/tinyshakespeare (where to get it:
see shakespeare_gpt.py). Without --data the network learns to add numbers up, from rows made here, for 60 steps. Later
it learns all at once, and there rounding grows tenfold every ten steps: losses that agree to 5e-7 after 60 of 200 steps
differ by 2e-2 after 160 (with Adam; those of ddp from one device as much as those of fsdp).

On a machine with several accelerators leave XLA_FLAGS out. On a CPU, eight virtual devices share its cores: this shows
that the numbers agree and what each device holds, not that anything is faster.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdl
from jaxdl import optim
from jaxdl.parallel import AXES, Layout, Parallel
from jaxdl.planning import Parts

sys.path.insert(0, str(Path(__file__).resolve().parent))
from shakespeare_gpt import read


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what a device holds, trains, and compares where asked; ends with 0 when the losses agree."""
    jaxdl.join()  # tasks of Slurm, Open MPI or Kubernetes; processes of `jaxdl launch` have joined already
    options = _options(arguments)
    if options.compare and jax.process_count() > 1:
        raise SystemExit("--compare trains on one device beside the mesh: run it in one process")
    steps = options.steps or (60 if options.data is None else 200)
    parallel = asked(options.parallel, options.shard_above)
    rows, alphabet = (sums(), 12) if options.data is None else text(Path(options.data))
    model = jaxdl.create_model(
        "gpt", num_classes=alphabet, width=options.width, depth=options.depth, heads=4, length=rows.shape[1],
        positions="rotary", norm="rms", use_bias=False,
    )  # fmt: skip
    task = jaxdl.tasks.language_model(model)
    optimizer = optim.adamw(3e-3, schedule=optim.warmup_cosine(steps // 10, steps))
    feed = jaxdl.data.make_feed({"x": rows}, options.batch)
    layout = Layout.of(parallel, table=task.logical_axes)
    say(jaxdl.Program(jaxdl.gradient_step(task, optimizer), feed, layout=layout).report(), "\n")

    def trained(parallel: Parallel | None, folder: str | None) -> Any:
        return jaxdl.fit(
            task, {"x": rows}, optimizer=optimizer, steps=steps, batch_size=options.batch, parallel=parallel,
            hyper={"clip_norm": 1.0}, checkpoint=folder, seed=options.seed, verbose=int(folder is not None),
        )  # fmt: skip

    run = trained(parallel, options.output)
    loss = run.history[-1]["train:loss"]
    say(f"loss {loss:.4f} on {jax.device_count()} devices; {time.process_time():.0f} CPU-seconds in all")
    if options.compare:
        alone = trained(None, None).history[-1]["train:loss"]
        say(f"loss {alone:.4f} on one; they differ by {abs(loss - alone):.1e}")
        return int(abs(loss - alone) > 1e-3)
    return 0


def program_parts() -> Parts:
    """A larger GPT, for `jaxdl plan`: nothing of it is made."""
    model = jaxdl.create_model(
        "gpt", num_classes=32_000, width=4096, depth=32, heads=32, length=2048, positions="rotary", norm="rms",
        use_bias=False, unroll=False, remat="full",
    )  # fmt: skip
    return Parts(
        task=jaxdl.tasks.language_model(model), optimizer=optim.adamw(3e-4), example={"x": ((2049,), "int32")},
        batch_size=512, precision="bf16",
    )  # fmt: skip


def say(*words: Any) -> None:
    """Prints, in process 0."""
    if jax.process_index() == 0:
        print(*words)


def asked(text: str, shard_above: int) -> Parallel:
    """ "fsdp" or "fsdp=4,tensor=2" as a Parallel."""
    if "=" not in text:
        return Parallel(text, shard_above=shard_above)
    sizes: dict[str, Any] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in (*AXES, "repeats", "microbatches") or not size.lstrip("-").isdigit():
            raise SystemExit(f"--parallel {text}: {part!r} is no axis=number (axes: {', '.join(AXES)})")
        sizes[name] = int(size)
    return Parallel(shard_above=shard_above, **sizes)


def text(folder: Path) -> tuple[np.ndarray, int]:
    """Rows of 129 characters, and how many different ones there are."""
    words = read(folder / "tinyshakespeare")
    alphabet = {character: number for number, character in enumerate(sorted(set(words)))}
    numbers = np.array([alphabet[character] for character in words], np.int32)
    return numbers[: len(numbers) // 129 * 129].reshape(-1, 129), len(alphabet)


def sums() -> np.ndarray:
    """Rows of 33 tokens: running sums of digits, modulo ten."""
    digits = np.random.default_rng(0).integers(0, 10, (4096, 16))
    rows = np.empty((4096, 33), np.int32)
    rows[:, 0] = 10
    rows[:, 1::2], rows[:, 2::2] = digits, digits.cumsum(1) % 10
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder that holds tinyshakespeare/input.txt; sums of digits without it")
    parser.add_argument("--parallel", default="ddp", help="a preset, or axes: fsdp=4,tensor=2")
    parser.add_argument("--shard-above", type=int, default=1024, help="elements from which a parameter is split")
    parser.add_argument("--steps", type=int, help="200 with --data, 60 without")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="train on one device too, and print the difference")
    parser.add_argument("--output", default="runs/gpt_sharded", help="the run's folder; a run in it is resumed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
