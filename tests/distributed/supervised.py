"""Jobs of `jaxdl launch` whose processes import nothing heavy: a test says in a few lines what each of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jaxdl.parallel.launch import Job

ROOT = Path(__file__).resolve().parents[2]

# What the lines of a test find: beat(text), number (of the process), start (0 is the first), and these modules. It
# writes what jaxdl.parallel.join.beat writes, which would import jax.
_WORKER = """
import mmap, os, signal, subprocess, sys, time, zlib
number = int(os.environ["JAXDL_PROCESS"])
path = os.environ["JAXDL_PROGRESS"]
start = int(os.path.basename(path).split("-")[0])
step = "-1"
def beat(what):
    global step
    step = what[5:] if what.startswith("step ") else step
    text = f"{time.time():.3f} {step} {what}".encode().ljust(502)
    with open(path, "wb") as file:
        file.write(b"%08x %s\\n" % (zlib.crc32(text), text))
exec(compile(open(sys.argv[-1]).read(), "script.py", "exec"))
"""


def job(folder: Path, lines: str, processes: int = 2, **options: Any) -> Job:
    """A job whose processes run `lines`, with limits of a second or so."""
    (folder / "worker.py").write_text(_WORKER)
    (folder / "script.py").write_text(lines)
    quick: dict[str, Any] = {"survivor_seconds": 0.5, "pause_seconds": 0.05, "grace_seconds": 20.0}
    worker = (sys.executable, "-I", "-S", str(folder / "worker.py"))
    return Job((str(folder / "script.py"),), processes, worker=worker, **quick | options)


def start(folder: Path, wanted: Job) -> subprocess.Popen[str]:
    """A supervisor of the job, as a process of its own that signals can be sent to."""
    code = (
        "from pathlib import Path\n"
        "from jaxdl.parallel.launch import Job, supervise\n"
        f"code = supervise({wanted!r})\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized(), 'the supervisor has touched a device'\n"
        "raise SystemExit(code)"
    ).replace("PosixPath(", "Path(")
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    with open(folder / "out", "w") as out:
        return subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=subprocess.STDOUT, env=environment)


def wait_for(path: Path, seconds: float = 60.0) -> str:
    """The text of a file, once there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path.name} was not written within {seconds} s")


def alive(pid: int) -> bool:
    """Whether the process runs: neither gone nor a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether all have ended, at most so much later; those that have not are killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.02)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left
