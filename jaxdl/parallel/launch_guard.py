"""What the supervisor of `jaxdl launch` holds while a job runs: its signals, a port, a folder, and a warden."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path


class Asked:
    """Signals that the supervisor got: what to pass on, and whether somebody insists."""

    def __init__(self) -> None:
        self.signal = 0
        self.insists = False

    def hear(self, number: int, frame: object) -> None:
        self.insists = self.signal != 0
        self.signal = self.signal or number


@contextlib.contextmanager
def listening() -> Iterator[Asked]:
    """SIGTERM, SIGINT and SIGHUP, heard instead of obeyed; in the main thread only, which alone gets them."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.hear) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def progress_folder() -> Iterator[Path]:
    """Where the processes write their progress."""
    folder = Path(tempfile.mkdtemp(prefix="jaxdl-launch-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port for the coordinator, held so that nobody else is given it; jax binds it beside us (SO_REUSEPORT)."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


_WARDEN = """
import os, shutil, signal, sys
groups = set()
for line in sys.stdin:
    number = int(line)
    (groups.add if number > 0 else groups.discard)(abs(number))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
if groups:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Warden:
    """A small process that outlives a supervisor that was killed, and kills what it watched over."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process

    def watch(self, group: int) -> None:
        self._tell(group)

    def forget(self, group: int) -> None:
        self._tell(-group)

    def _tell(self, number: int) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{number}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # somebody killed the warden: the job goes on without
            return


@contextlib.contextmanager
def warden(folder: Path) -> Iterator[Warden]:
    command = [sys.executable, "-I", "-S", "-c", _WARDEN, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield Warden(process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
