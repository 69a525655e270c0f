"""What the processes of one job tell each other about a save: notices in the folder, which a thread may wait for.

A thread must not call a collective: the main thread is in another one. So each process has a small file in the folder,
made at opening and rewritten in place, which needs no room on a full disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxdl.checkpoint.lock import alive
from jaxdl.checkpoint.sentences import Explained, error_of, reason
from jaxdl.parallel import processes

NOTICE = ".jaxdl-process-"
_SIZE = 1 << 16  # bytes of a notice at least, so that what is told later finds room on a full disk
SEEN_LATE = 10.0  # seconds that a file may take to be seen by others, as on a network file system
_HURRIED = 30.0  # seconds that others are waited for while an error is on its way


class Peers:
    """The processes of a job at one folder. Collective to make, but not to use.

    Args:
        folder: which all of them see.
        prepare: what process 0 does there before the others come.
        undo: what it does when one of them cannot come.
        patience: seconds that one waits for another.

    Raises:
        OSError: the same on every process; process, host and reason are named.
    """

    def __init__(self, folder: Path, prepare: Callable[[], None], undo: Callable[[], None], *, patience: float) -> None:
        self.folder, self.patience = folder, patience
        self.number, self.count = jax.process_index(), jax.process_count()
        self._hurried: float | None = None  # the time from when on nobody is waited for
        self._me: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "space": _pid_space(),
            "folder": str(folder),
        }
        problem: list[Any] = []
        if self.number == 0:
            self.token = self._me["token"] = secrets.token_hex(4)
            try:
                prepare()
                self._create()
            except OSError as error:
                problem = [error.errno, str(error.strerror or error)]
        first = json.loads(processes.from_first(json.dumps([problem, self._me])))
        if first[0]:
            if self.number == 0:
                undo()
            raise error_of(*first[0])
        self.token = self._me["token"] = first[1]["token"]
        if self.number > 0:
            problem = self._come(first[1])
        said = [json.loads(text) for text in processes.gather_texts(json.dumps([problem, self._me]))]
        self._others = [who for _, who in said]
        problems = [(number, what) for number, (what, _) in enumerate(said) if what]
        if problems:
            self.leave()
            if self.number == 0:
                undo()
            number, (code, why) = problems[0]
            raise error_of(code, f"checkpoints cannot be written into {first[1]['folder']}: {self.name(number)} {why}")

    def name(self, number: int) -> str:
        """`process 2 of 4 on host node7`."""
        return f"process {number} of {self.count} on host {self._others[number]['host']}"

    def post(self, record: Mapping[str, Any]) -> None:
        """Rewrite this process's notice."""
        text = json.dumps(record).encode()
        with open(self._path(self.number), "r+b", buffering=0) as file:
            file.write((b"%08x" % zlib.crc32(text) + text).ljust(_SIZE))
            file.truncate(max(len(text) + 8, _SIZE))
            os.fsync(file.fileno())

    def wait_for(self, number: int, record: str, attempt: int, doing: str, *, until: float) -> dict[str, Any]:
        """The notice of another process about this attempt, as soon as it is there.

        Args:
            record: the entry that holds it.
            doing: what it was to do, for the sentence.
            until: the time, of `time.monotonic`, when waiting ends.

        Raises:
            OSError: it has ended, its notice is gone, or it took too long.
        """
        pause, missing_since = 0.01, None
        while True:
            ended = self._ended(number)  # asked before reading: it may tell, and end
            found, there = self._read(number)
            if found.get(record, {}).get("attempt") == attempt:
                return found[record]
            now = time.monotonic()
            missing_since = None if there else missing_since or now
            if missing_since is not None and now - missing_since > min(SEEN_LATE, self.patience):
                raise Explained(
                    None, f"{self._path(number)} is gone, with which {self.name(number)} tells that it has {doing}"
                )
            if ended:
                raise Explained(
                    None, f"{self.name(number)} (pid {self._others[number]['pid']}) ended before it had {doing}"
                )
            if now > until:
                raise Explained(
                    None, f"{self.name(number)} has not {doing} in time (patience={self.patience:g} seconds)"
                )
            if self._hurried is not None and now > self._hurried:
                raise Explained(None, f"{self.name(number)} has not {doing} before this process had to end")
            time.sleep(pause)
            pause = min(1.5 * pause, 0.25)

    def hurry(self) -> None:
        """From now on wait for others at most half a minute: this process ends with an error, they may never come."""
        self._hurried = time.monotonic() + _HURRIED

    def leave(self) -> None:
        """Take down this process's notice; process 0 after the others, which still read what it says."""
        end = time.monotonic() + SEEN_LATE
        if self.number == 0 and hasattr(self, "_others"):
            while any(self._still_there(number) for number in range(1, self.count)) and time.monotonic() < end:
                time.sleep(0.01)
        with contextlib.suppress(OSError):  # the whole folder may be gone; what stays is swept at the next opening
            os.unlink(self._path(self.number))

    def _still_there(self, number: int) -> bool:
        return not self._ended(number) and self._path(number).exists()

    def _ended(self, number: int) -> bool:
        """Whether a process is known to have ended; of those on other hosts, or in other containers, nothing is."""
        who = self._others[number]
        return who["space"] == self._me["space"] != "" and not alive(who["pid"])

    def _come(self, first: Mapping[str, Any]) -> list[Any]:
        """Make this process's notice where process 0 has made its own; what is in the way."""
        end = time.monotonic() + SEEN_LATE
        while self._read(0)[0] == {}:
            if time.monotonic() > end:
                seen = f"does not see in {self.folder} what process 0 on host {first['host']} wrote there"
                return [None, f"{seen}: all need one folder, on a file system that they share"]
            time.sleep(0.05)
        try:
            self._create()
        except OSError as error:
            return [error.errno, f"may not write into {self.folder}: {reason(error)}"]
        return []

    def _create(self) -> None:
        self._path(self.number).write_bytes(b"")
        self.post({"who": self._me})

    def _path(self, number: int) -> Path:
        # With the token: a process that has outlived an earlier job must not write into this one's.
        return self.folder / f"{NOTICE}{self.token}-{number:05d}"

    def _read(self, number: int) -> tuple[dict[str, Any], bool]:
        """The notice of a process of this job, {} while it is being rewritten; and whether the file is there."""
        try:
            raw = self._path(number).read_bytes()
        except OSError:
            return {}, False
        text = raw[8:].rstrip()
        if raw[:8] != b"%08x" % zlib.crc32(text):
            return {}, True
        return json.loads(text), True


def _pid_space() -> str:
    """Within which a pid names a process: this boot of this machine, and this container; "" where that is not told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
