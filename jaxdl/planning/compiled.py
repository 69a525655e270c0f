"""The real Program, compiled for a mesh without weights or data, and what its text and memory analysis say."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core.offload import activation_bytes
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.parallel import Layout, Parallel
from jaxdl.parallel.bytes import Sent
from jaxdl.parallel.hlo import collectives
from jaxdl.planning.parts import Parts, ShapesOnly, parts_of

#: XLA's flags of a compilation whose program is read and never run.
CHEAP = ("--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What one compiled step says of itself; bytes are those of one device.

    Attributes:
        devices: it was compiled for.
        batch_size: of the whole step.
        arguments: bytes of state and batch: exact.
        temporary: bytes that XLA:CPU would need beside them.
        flops: of one step on all devices.
        sent: (kind, mesh axes) -> bytes that a device sends in a step, trip counts of loops included.
        runs: the same keys -> how often in a step.
        seconds: of tracing and compiling.
        host: bytes of activations that a GPU or TPU keeps in the host's memory; XLA:CPU has them in `temporary`.
    """

    devices: int
    batch_size: int
    arguments: int
    temporary: int
    flops: float
    sent: Sent
    runs: dict[tuple[str, tuple[str, ...]], int]
    seconds: float
    host: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [[kind, list(axes), amount, self.runs[kind, axes]] for (kind, axes), amount in self.sent.items()]
        return dataclasses.asdict(self) | {"sent": rows, "runs": None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Compiled:
        """What `as_json` gave."""
        sent = {(kind, tuple(axes)): amount for kind, axes, amount, _ in values["sent"]}
        runs = {(kind, tuple(axes)): count for kind, axes, _, count in values["sent"]}
        return cls(**(values | {"sent": sent, "runs": runs}))


def abstract_program(parts: Parts, layout: Layout, batch_size: int | None = None) -> Program:
    """The Program that fit would run, one step a dispatch, with shapes in place of all arrays."""
    feed = ShapesOnly(parts.example, batch_size or parts.batch_size)
    planned = dataclasses.replace(layout, planned=True)
    return Program(parts.step, feed, layout=planned, plan=RunPlan("unrolled", 1, "planned"))


def compile_here(parts: Parts, parallel: Parallel | None, batch_size: int | None = None) -> Compiled:
    """Compile for the devices of this process (or one of them, with None); nothing is allocated on them.

    Raises:
        ValueError: sizes, batch or layers that do not divide; an axis that the model does not know.
    """
    begun = time.perf_counter()
    layout = Layout.of(parallel, table=tuple(parts.task.logical_axes))
    program = abstract_program(parts, layout, batch_size)
    compiled = program.compile()
    memory = compiled.memory_analysis()
    sent, runs = Sent(), Counter[tuple[str, tuple[str, ...]]]()
    for one in collectives(compiled.as_text(), layout.sizes):
        sent[one.kind, one.axes] = sent.get((one.kind, one.axes), 0.0) + one.sent
        runs[one.kind, one.axes] += one.times
    return Compiled(
        layout.mesh.size, program.feed.batch_size, int(memory.argument_size_in_bytes), int(memory.temp_size_in_bytes),
        program.cost.flops, sent, dict(runs), time.perf_counter() - begun,
        activation_bytes(parts.step, program.abstract_state, program.batch, layout),
    )  # fmt: skip


def shapes_of(parts: Parts) -> tuple[State, float, dict[str, int]]:
    """The state's shapes, the FLOPs of a whole step, and the parameters that are used more than once; by tracing."""
    program = abstract_program(parts, Layout.single())
    return program.abstract_state, program.cost.flops, _uses(parts, program)


def _uses(parts: Parts, program: Program) -> dict[str, int]:
    """Path -> uses: the gradients of a parameter's uses are added up, which shows as additions of its shape."""
    state = program.abstract_state
    jaxpr = jax.make_jaxpr(parts.step.measure)(state, dict(program.batch))
    sums: Counter[tuple[int, ...]] = Counter()

    def walk(inner: Any) -> None:
        for equation in getattr(inner, "jaxpr", inner).eqns:
            if equation.primitive.name == "add_any":
                sums[tuple(equation.outvars[0].aval.shape)] += 1
            for value in equation.params.values():
                for one in value if isinstance(value, tuple | list) else (value,):
                    if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                        walk(one)

    walk(jaxpr)
    stacked = [pattern for pattern, names in parts.task.logical_axes if names and names[0] == "layers"]
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        more = sums.pop(tuple(leaf.shape), 0) if len(leaf.shape) > 1 else 0
        if more and not any(re.fullmatch(pattern, name) for pattern in stacked):
            found[name] = 1 + more
    return found


def compile_elsewhere(script: str | Path, parallel: Parallel | None, devices: int, batch_size: int) -> Compiled:
    """The same in a process of its own with so many virtual CPU devices, for the number is fixed when jax starts.

    Raises:
        ValueError: what that process said was wrong.
        RuntimeError: it ended without an answer; the end of what it printed is in the message.
    """
    asked = None if parallel is None else parallel.as_dict()
    request = {"script": str(script), "parallel": asked, "batch_size": batch_size}
    flags = (os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}", *CHEAP)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags).strip()}
    done = subprocess.run(
        [sys.executable, "-c", "from jaxdl.planning.compiled import answer; answer()", json.dumps(request)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith(_ANSWER):
            found = json.loads(line.removeprefix(_ANSWER))
            if "mistake" in found:
                raise ValueError(found["mistake"])
            return Compiled.from_json(found)
    raise RuntimeError(f"compiling for {devices} devices ended with code {done.returncode}: {done.stderr[-2000:]}")


_ANSWER = "jaxdl-plan: "


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def answer() -> None:
    """The other process: read the request of `compile_elsewhere` and print one line of JSON."""
    request = json.loads(sys.argv[1])
    asked = request["parallel"]
    try:
        parallel = None if asked is None else Parallel(**{name: _tupled(value) for name, value in asked.items()})
        found = compile_here(parts_of(request["script"]), parallel, request["batch_size"]).as_json()
    except ValueError as mistake:
        found = {"mistake": str(mistake)}
    print(_ANSWER + json.dumps(found, default=float), flush=True)


def batch_bytes(parts: Parts, shards: int) -> int:
    """Bytes of a device's part of the batch, weights included."""
    columns = [*parts.example.values(), ((), "float32")]
    return parts.batch_size // shards * sum(math.prod(s) * np.dtype(d).itemsize for s, d in columns)
