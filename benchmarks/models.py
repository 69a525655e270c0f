"""What a training step of jaxdl's models costs against the same networks in PyTorch.

The same network, Adam at 1e-3, batch size and number of steps; jaxdl through `fit`, PyTorch eager with tensor indexing
in its quickest form. One epoch of each in turn, in one process on one pinned core; a ratio is PyTorch's CPU time over
jaxdl's. On an accelerator: wall time in bfloat16, and PyTorch compiled as well.

    python -m benchmarks.models                          ResNet-18, LSTM, GPT and U-Net on the CPU
    python -m benchmarks.models --quick                  the LSTM and the GPT
    python -m benchmarks.models --row resnet18-32
    python -m benchmarks.models --row gpt2-124m --row resnet50-224       on an accelerator
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Row as Line

TRIALS = 3  # rounds in which PyTorch's forms compete before the best of them is measured
TURN_SECONDS = 0.3
WARM = 2
CLASSES = 10

#: Dense bfloat16 FLOPs a second, by the start of the device's name (the makers' data sheets).
PEAKS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12}


@dataclass(frozen=True)
class Row:
    """One network and the batches that it is trained on.

    Attributes:
        model: its name in `create_model`; options: what it is made with.
        peer: its name and sizes in peers/torch_models.py.
        shape: of one example; tokens where it has one length.
        batch_size, steps: of an epoch.
        target: the least ratio to PyTorch; on an accelerator also `utilisation`, the least share of the peak.
        accelerator: the row needs one.
    """

    model: str
    options: dict[str, Any]
    peer: tuple[str, tuple[int, ...]]
    shape: tuple[int, ...]
    batch_size: int
    steps: int
    target: float
    quick: bool = False
    accelerator: bool = False
    utilisation: float | None = None


ROWS = {
    "resnet18-32": Row(
        "resnet18", {"num_classes": CLASSES, "stem": "cifar"}, ("resnet18", (64, CLASSES)), (32, 32, 3), 32, 2, 1.0
    ),
    "lstm-32": Row(
        "lstm_classifier", {"num_classes": CLASSES}, ("lstm", (64, 128, CLASSES)), (64, 64), 32, 8, 0.9, quick=True
    ),
    "gpt-8": Row(
        "gpt",
        {"num_classes": 256, "width": 128, "depth": 4, "heads": 4, "length": 128},
        ("gpt", (256, 128, 4, 4, 128)),
        (128,),
        8,
        8,
        0.8,
        quick=True,
    ),
    "unet-64": Row("unet", {"num_classes": CLASSES, "width": 16}, ("unet", (16, 4, CLASSES)), (64, 64, 3), 8, 4, 1.0),
    "gpt2-124m": Row(
        "gpt2",
        {"num_classes": 50_304, "implementation": "cudnn"},
        ("gpt", (50_304, 768, 12, 12, 1024)),
        (1024,),
        32,
        20,
        1.0,
        accelerator=True,
        utilisation=0.40,
    ),
    "resnet50-224": Row(
        "resnet50", {"num_classes": 1000}, ("resnet50", (64, 1000)), (224, 224, 3), 256, 20, 1.0, accelerator=True
    ),
}


def main() -> None:
    options = measure.arguments(__doc__, tuple(ROWS), more=_more)
    if options.inside is not None:
        _inside(options)
        return
    device = measure.in_fresh_process("benchmarks.models", "--where", "--row", "gpt-8")
    names = options.row or [
        name
        for name, row in ROWS.items()
        if row.accelerator == (device != "cpu") and (row.quick or row.accelerator or not options.quick)
    ]
    lines: list[Line] = []
    for name in names:
        if ROWS[name].accelerator and device == "cpu":
            print(f"not run: {name} is a row for an accelerator, and jax sees none here", file=sys.stderr)
            continue
        lines += _apart(name, options)
    measure.report(lines, path=options.json)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--where", action=_Where, nargs=0, help=argparse.SUPPRESS)


class _Where(argparse.Action):
    """Print which kind of device jax uses, in a process of its own: here no library may be imported yet."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        import jax

        print(jax.default_backend())
        parser.exit()


def _apart(name: str, options: argparse.Namespace) -> list[Line]:
    """One process for each row: cores are counted at import, and a row's memory does not burden the next."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "lines.json"
        words = ["--inside", str(results), "--row", name, "--rounds", str(options.rounds), "--core", str(options.core)]
        done = subprocess.run([sys.executable, "-m", "benchmarks.models", *words], cwd=measure.ROOT, check=False)
        if done.returncode:
            print(f"failed: {name} (exit status {done.returncode}, see above)", file=sys.stderr)
            return []
        found = [measure.line(record) for record in json.loads(results.read_text())]
    measure.report(found, stream=sys.stderr, table_only=True)
    return found


def _inside(options: argparse.Namespace) -> None:
    (name,) = options.row
    row = ROWS[name]
    if row.accelerator:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two libraries share the memory
    else:
        measure.pin(options.core)
    if measure.available("torch"):
        import torch

        if not row.accelerator:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
    if not row.accelerator:
        from jaxdl.core.allocator import keep_freed_memory

        keep_freed_memory()  # fit does so; this way every peer has it from its first allocation on
    lines = compare_row(name, row, options.rounds)
    options.inside.write_text(json.dumps([dataclasses.asdict(each) for each in lines]))


def columns(row: Row) -> tuple[Any, Any]:
    """x and y of an epoch, drawn from a fixed seed."""
    import numpy as np

    rng, n = np.random.default_rng(0), row.batch_size * row.steps
    classes = row.options["num_classes"]
    if len(row.shape) == 1:
        tokens = rng.integers(0, classes, (n, row.shape[0] + 1)).astype(np.int32)
        return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])
    pixels = row.shape[:2] if row.peer[0] == "unet" else ()
    x = rng.standard_normal((n, *row.shape), np.float32)
    return x, rng.integers(0, classes, (n, *pixels)).astype(np.int32)


def jaxdl_epochs(row: Row, total: int, data: tuple[Any, Any]) -> measure.Paced:
    """One call of fit over `total` epochs, parked at the end of each turn."""
    import jaxdl

    model = jaxdl.create_model(row.model, **row.options)
    make = {"gpt": jaxdl.tasks.language_model, "unet": jaxdl.tasks.segmentation}
    task = make.get(row.peer[0], jaxdl.tasks.classification)(model)

    def train(epoch_end: Callable[[], None]) -> None:
        def stop(record: dict[str, Any], run: Any) -> None:
            epoch_end()

        jaxdl.fit(
            task,
            {"x": data[0], "y": data[1]},
            optimizer=jaxdl.optim.adam(1e-3),
            epochs=total,
            batch_size=row.batch_size,
            precision="bf16" if row.accelerator else "float32",
            callbacks=(stop,),
            verbose=0,
        )

    return measure.Paced(train)


def compare_row(name: str, row: Row, rounds: int) -> list[Line]:
    """jaxdl and PyTorch on one row, interleaved."""
    data = columns(row)
    clock = measure.wall_seconds if row.accelerator else measure.cpu_seconds
    forms: dict[str, Callable[[], object]] = {}
    if measure.available("torch"):
        from benchmarks.peers import torch_models

        forms = torch_models.epochs(*row.peer, *data, row.batch_size, on_device=row.accelerator)
    else:
        print("skipped: torch is not installed", file=sys.stderr)
    tried = measure.interleave(forms, rounds=TRIALS, warm=WARM, clock=clock)
    best = measure.best_of(tried, list(forms)) if forms else None
    turns = max(1, min(8, round(TURN_SECONDS / statistics.median(tried[best])))) if best else 1
    ours = jaxdl_epochs(row, (WARM + rounds) * turns, data)
    contest: dict[str, Callable[[], object]] = {"jaxdl": ours}
    if best is not None:
        contest["torch"] = forms[best]
    ours.stride = turns
    costs = measure.interleave(contest, rounds=rounds, warm=WARM, turns=turns, clock=clock)
    ours.finish()
    seconds = statistics.median(costs["jaxdl"]) / row.steps
    lines = _rates(name, row, seconds) if row.accelerator else []
    if best is not None:
        note = f"{1e3 * seconds:.4g} ms a step; best: {best}"
        lines.append(
            measure.compare("models", name, "torch", costs["jaxdl"], costs["torch"], target=row.target, note=note)
        )
    return lines


def _rates(name: str, row: Row, seconds: float) -> list[Line]:
    """Examples or tokens a second, and for the GPT the share of the device's peak: (6 N + 12 L d T) FLOPs a token."""
    import jax

    if len(row.shape) > 1:
        return [Line("models", name, None, row.batch_size / seconds, unit="images/s")]
    length, (vocabulary, width, depth, _, _) = row.shape[0], row.peer[1]
    tokens = row.batch_size * length / seconds
    lines = [Line("models", name, None, tokens, unit="tokens/s")]
    parameters = vocabulary * width + length * width + depth * (12 * width**2 + 13 * width) + 2 * width
    kind = jax.devices()[0].device_kind
    peak = next((peak for start, peak in PEAKS.items() if kind.startswith(start)), None)
    if peak is None:
        print(f"no share of the peak: that of {kind!r} is not in PEAKS", file=sys.stderr)
        return lines
    share = tokens * (6 * parameters + 12 * depth * width * length) / peak
    return [*lines, Line("models", f"{name}-mfu", None, share, row.utilisation, unit="of peak")]


if __name__ == "__main__":
    main()
