"""fit in several processes: what must be the same in all of them, and who writes the run's folder."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import jax

from jaxdl.core.summary import device_memory
from jaxdl.parallel import Layout, Parallel, processes
from jaxdl.settings import ProgramOptions
from jaxdl.tracking import RunFolder


def require_together(parallel: Parallel | None, options: ProgramOptions) -> None:
    """A sentence where several processes are asked for what only one can do.

    Raises:
        ValueError: no mesh over the processes; pmap; variants to be measured, of which each process would take another.
    """
    if not processes.several():
        return
    here = f"this is one of {jax.process_count()} processes"
    if parallel is None:
        raise ValueError(
            f'{here}, and parallel=None would train a model of its own in each: say parallel="ddp", "fsdp", ...'
        )
    if parallel.by_pmap:
        raise ValueError(f'{here}, and parallel="pmap" works in one: "ddp" does the same')
    if options.tune:
        raise ValueError(
            f"{here}, and ProgramOptions(tune=True) measures in one: give mode= and steps_per_dispatch= instead"
        )


def require_alike(config: Mapping[str, Any]) -> None:
    """A sentence where processes were called with different settings or data: their steps would not be one step.

    Args:
        config: of this process, by name; what it names is compared, by checksum.

    Raises:
        ValueError: on all processes; the first names that differ, and where.
    """
    if not processes.several():
        return
    own = {name: zlib.crc32(json.dumps(value, sort_keys=True, default=str).encode()) for name, value in config.items()}
    others = [json.loads(text) for text in processes.gather_texts(json.dumps(own))]
    for number, other in enumerate(others):
        names = sorted(name for name in own.keys() | other.keys() if others[0].get(name) != other.get(name))
        if names:
            raise ValueError(
                f"process {number} differs from process 0 in {', '.join(names[:6])}: all processes "
                "must make the same call of fit, on the same data"
            )


def memory_of_all(layout: Layout) -> int:
    """Bytes of memory of a device: the least over processes."""
    return min(int(text) for text in processes.gather_texts(str(device_memory(layout.device))))


def open_folder(path: str | os.PathLike[str]) -> RunFolder:
    """The folder of a run, made by process 0, which writes it; other processes read it.

    Raises:
        ValueError: of several processes one does not see the folder that process 0 made, or process 0 cannot make it.
        OSError: one process cannot make it; as `RunFolder.create`.
    """
    if not processes.several():
        return RunFolder.create(path)
    problem, folder = "", None
    if processes.first():
        try:
            folder = RunFolder.create(path)
        except OSError as error:
            problem = str(error)
    processes.raise_together(problem)
    if folder is None:
        seen = RunFolder.watch(path)
        if not seen.path.is_dir():
            problem = f"{os.uname().nodename} does not see the folder {seen.path} that process 0 made: several "
            problem += "processes need one file system that all of them share"
        folder = seen
    processes.raise_together(problem)
    return folder
