"""One run writes into one folder: an exclusive lock that a dead process cannot keep."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path

NAME = ".jaxdl-lock"


class FolderLock:
    """The exclusive right to write into a folder, held until `release` or the end of the process.

    The kernel's lock on the file decides, so that a killed run leaves nothing that needs cleaning; the file's text
    (pid, host) only tells who. Where a forked worker outlives its killed parent and still holds the file, the dead pid
    gives it up.

    Raises:
        OSError: another run writes there; pid, host and time are named. PermissionError: the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        for _ in range(10):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise OSError(
                        error.errno, f"{folder} is on a file system without locks ({error.strerror})"
                    ) from error
                self._give_up_or_take_over(folder)
                continue
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # whoever held it removed the file meanwhile: lock the new one
        else:
            raise OSError(errno.EAGAIN, f"{self.path} changes hands all the time: several runs want one folder")
        self._descriptor = descriptor
        self._let_go = weakref.finalize(self, os.close, descriptor)  # a store that is dropped unclosed locks nobody out
        self._let_go.atexit = False  # the store's own end comes after these
        os.ftruncate(descriptor, 0)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Let the next run write."""
        with contextlib.suppress(FileNotFoundError):  # the whole folder may have been removed meanwhile
            if self._is_current(self._descriptor):
                os.unlink(self.path)
        self._let_go()

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            return False

    def _give_up_or_take_over(self, folder: Path) -> None:
        try:
            with open(self.path) as file:
                text, held = file.read(), os.fstat(file.fileno()).st_ino
                owner = json.loads(text) if text else {}  # empty: held, but not yet signed
        except FileNotFoundError:
            return  # released just now
        if owner.get("host") == socket.gethostname() and not alive(owner["pid"]):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == held:
                    os.unlink(self.path)
            return
        who = "process {pid} on {host} since {since}".format(**owner) if owner else "another process"
        raise OSError(
            errno.EBUSY,
            f"another run writes checkpoints into {folder}: {who}. Choose another folder, or end that run first; "
            "to read only, open Store(folder, read_only=True)",
        )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
