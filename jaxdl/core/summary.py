"""What a program is, before its first step: parameters, FLOPs, bytes, compile time; and a batch size that fits."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import numpy as np

from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.trials import one_of
from jaxdl.parallel.layout import HOST_MEMORY


@dataclasses.dataclass(frozen=True)
class ProgramReport:
    """One program's size. Print it.

    Attributes:
        modules: (path of the module, parameters, bytes), in the tree's order.
        parameters: their count.
        state_bytes: parameters, optimizer state and all else that is carried from step to step; on each device.
        host_bytes: of the optimizer's state, what waits in the host's memory for each device (`Parallel(offload=)`).
        data_bytes: columns that stay on each device.
        flops_per_step: floating-point operations of one update, counted from its jaxpr.
        temporary_bytes: what the compiled program needs beside its arguments, as XLA's memory analysis says.
        device_bytes: state, data, one block and temporaries together, on each device.
        compile_seconds: CPU seconds spent tracing and compiling the block, or loading it from the compile cache.
        plan: how steps are run.
        device: kind of the device.
        mesh: axis -> size, of those above 1; {} on one device.
        notes: parameters that stay whole although the mesh has an axis to split them, and why.
    """

    modules: tuple[tuple[str, int, int], ...]
    parameters: int
    state_bytes: int
    data_bytes: int
    flops_per_step: float
    temporary_bytes: int
    device_bytes: int
    compile_seconds: float
    plan: RunPlan
    device: str
    mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    host_bytes: int = 0

    def __str__(self) -> str:
        width = max([len(path) for path, _, _ in self.modules] + [10])
        lines = [f"{'module':<{width}}  {'parameters':>14}  {'bytes':>10}"]
        lines += [f"{path:<{width}}  {count:>14,}  {size_text(size):>10}" for path, count, size in self.modules]
        lines += [
            f"{'all':<{width}}  {self.parameters:>14,}  {size_text(sum(m[2] for m in self.modules)):>10}",
            f"a step: {self.flops_per_step:.3g} FLOPs; run as {self.plan}",
            f"device memory ({self.device}): {size_text(self.device_bytes)} = state {size_text(self.state_bytes)} + "
            f"data {size_text(self.data_bytes)} + temporaries {size_text(self.temporary_bytes)} + one block",
            f"compiled in {self.compile_seconds:.2f} CPU-seconds",
        ]
        if self.host_bytes:
            lines.append(f"host memory: {size_text(self.host_bytes)} of the optimizer's state, moved twice a step")
        if self.mesh:
            lines.append(f"on each device of {' x '.join(f'{axis}={size}' for axis, size in self.mesh.items())}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def size_text(count: float) -> str:
    """Bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves (arrays or their shapes)."""
    return sum(int(np.prod(x.shape, dtype=np.int64)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def bytes_on_device(tree: Any, *, host: bool = False) -> int:
    """Bytes that one device holds of these arrays or shapes, by their shardings; all of those that have none.

    With `host` those that wait for it in the host's memory instead, which are not on the device.
    """

    def held(x: Any) -> int:
        sharding = getattr(x, "sharding", None)
        if (getattr(sharding, "memory_kind", None) == HOST_MEMORY) != host:
            return 0
        shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
        return int(np.prod(shape, dtype=np.int64)) * np.dtype(x.dtype).itemsize

    return sum(held(x) for x in jax.tree.leaves(tree))


def program_report(program: Program) -> ProgramReport:
    """Compile the program, if it is not yet, and say what it is. Nothing is run."""
    state = program.abstract_state
    modules: dict[str, tuple[int, int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
        name = "/".join(names[:-1]) or (names[0] if names else "params")
        count, size = modules.get(name, (0, 0))
        modules[name] = (count + int(np.prod(leaf.shape, dtype=np.int64)), size + tree_bytes(leaf))
    memory = program.compile().memory_analysis()
    layout, batch_size = program.layout, program.feed.batch_size
    block = program.feed.block(program.seed, 0, program.steps_in_block(0))
    block = layout.abstract(block, layout.block(block, batch_size))
    temporary = int(memory.temp_size_in_bytes) if memory is not None else 0
    state_bytes, data_bytes = bytes_on_device(state), tree_bytes(program.feed.data)
    return ProgramReport(
        modules=tuple((name, count, size) for name, (count, size) in modules.items()),
        parameters=sum(count for count, _ in modules.values()),
        state_bytes=state_bytes,
        data_bytes=data_bytes,
        flops_per_step=program.cost.flops,
        temporary_bytes=temporary,
        device_bytes=state_bytes + data_bytes + temporary + bytes_on_device(block),
        compile_seconds=program.compile_seconds,
        plan=program.plan,
        device=layout.device.device_kind,
        mesh={axis: size for axis, size in layout.sizes.items() if size > 1},
        notes=layout.notes(one_of(state.params, program.step)),
        host_bytes=bytes_on_device(state, host=True),
    )


def device_memory(device: jax.Device) -> int:
    """Bytes that a program may use: the device's limit, or on a CPU `available_memory`."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return available_memory()


def available_memory(root: str | os.PathLike[str] = "/") -> int:
    """Bytes of main memory that can still be had; `root` is where proc and sys lie.

    MemAvailable of /proc/meminfo (free pages where a system has no such file), and no more than the limit less the use
    of the process's control group and of each one above it, version 2 or 1. Page cache that is not in use counts as
    available there too.
    """
    proc, groups = Path(root, "proc"), Path(root, "sys/fs/cgroup")
    found = _number_after("MemAvailable:", _text(proc / "meminfo"))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if found is None else found * 1024
    bounds = [free]
    for line in _text(proc / "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if controllers == "":
            top, limit, used = groups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Inside a container the path may be the host's, which is not mounted: its own group then is the top.
        inside = PurePosixPath(place.lstrip("/"))
        for group in (top / inside, *(top / above for above in inside.parents)):
            most, now = _text(group / limit).strip(), _text(group / used).strip()
            if most.isdigit() and now.isdigit():
                stat = _text(group / "memory.stat")
                below = _number_after("total_inactive_file", stat)  # version 1 counts the groups below apart
                cache = (_number_after("inactive_file", stat) or 0) if below is None else below
                bounds.append(max(0, int(most) - max(0, int(now) - cache)))
    return min(bounds)


def _text(path: Path) -> str:
    """What the file holds; nothing where the system has no such file or does not show it."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _number_after(name: str, text: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return int(words[1])
    return None


def largest_batch_size(
    build: Callable[[int], Program], limit: int, *, start: int = 32, most: int = 1 << 16, least: int = 1
) -> int:
    """The largest power of two times `least`, up to `most`, whose compiled program fits in `limit` bytes a device.

    Found from XLA's memory analysis of each candidate, compiled and never run, instead of by crashing.

    Args:
        build: batch size -> Program.
        limit: bytes, for example `0.9 * device_memory(device)`.
        start: where the search begins.
        least: the smallest batch: as many examples as devices share it.

    Raises:
        MemoryError: not even `least` examples fit.
    """

    def fits(size: int) -> bool:
        return program_report(build(size)).device_bytes <= limit

    size = least
    while size * 2 <= min(start, most):
        size *= 2
    if not fits(size):
        while size > least:
            size //= 2
            if fits(size):
                return size
        needed = program_report(build(least)).device_bytes
        raise MemoryError(
            f"batch size {least} needs {size_text(needed)}, more than the {size_text(limit)} there are: "
            "use a smaller model, feed='streamed', or precision='bf16'"
        )
    while size * 2 <= most and fits(size * 2):
        size *= 2
    return size
