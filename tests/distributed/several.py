"""Real processes on one machine, joined by jax.distributed over gloo: what tests of several processes run in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_JOIN = """
import sys, jax
number, count, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("127.0.0.1:" + port, num_processes=count, process_id=number, initialization_timeout=120,
                           heartbeat_timeout_seconds=20)
sys.argv = ["script", *sys.argv[4:]]
"""


class Ended(NamedTuple):
    """How one process ended: its exit code (negative: the signal), and what it printed, both streams together."""

    code: int
    text: str


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    script: str,
    count: int,
    folder: Path,
    *,
    devices: int = 2,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> list[subprocess.Popen[bytes]]:
    """Start `count` processes that have joined before the text `script` runs; what they print is in folder/out-N.

    Args:
        devices: virtual CPU devices of each.
        arguments: `sys.argv[1:]` of the script.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_collective_call_terminate_timeout_seconds=300"
    own = dict(os.environ) | {
        "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **(environment or {}),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    started = []
    for number in range(count):
        with open(folder / f"out-{number}", "wb") as out:
            command = [sys.executable, "-c", _JOIN + script, str(number), str(count), port, *arguments]
            started.append(
                subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=own, start_new_session=True)
            )
    return started


def finish(started: Sequence[subprocess.Popen[bytes]], folder: Path, *, timeout: float = 240) -> list[Ended]:
    """Wait for all; those that outlast the others by ten seconds after one has failed, or the time, are killed."""
    end = time.monotonic() + timeout
    try:
        while any(process.poll() is None for process in started) and time.monotonic() < end:
            if any(process.poll() not in (None, 0) for process in started):
                end = min(end, time.monotonic() + 10)
            time.sleep(0.05)
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [(folder / f"out-{number}").read_text(errors="replace") for number in range(len(started))]
    return [Ended(process.returncode, text) for process, text in zip(started, texts, strict=True)]


def run(script: str, count: int, folder: Path, **options: object) -> list[str]:
    """Start, finish, and require that all ended well; what each printed."""
    ended = finish(start(script, count, folder, **options), folder)  # type: ignore[arg-type]
    failed = [f"process {number} ended with {one.code}:\n{one.text[-4000:]}" for number, one in enumerate(ended)
              if one.code]  # fmt: skip
    assert not failed, "\n".join(failed)
    return [one.text for one in ended]
