"""One process of `jaxdl launch`: its output, its last beat, its end."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from jaxdl.parallel.join import SCRIPT_ENDED, Beat, read_beat
from jaxdl.parallel.launch_verdict import Ending

_KEPT = 200  # lines of each process that are kept in memory
_SHOWN = 25  # of them shown when it failed

_FULL = 10_000  # lines of each process that wait to be shown, at most

# Lines are shown so many seconds late, and those that look like trouble later: when one process fails, the others print
# what it did to them before the failure itself can be seen, and native code that gives up takes its time. Those lines
# need not be shown.
_DELAY, _DELAY_TROUBLE = 0.4, 3.0
_TROUBLE = re.compile(r"Traceback \(most recent|Fatal Python error|[EFW]\d{4} \d\d:|terminate called|\*\*\* Check")
_LAST_WORDS = re.compile(r"(Traceback|Stack) \(most recent|Fatal Python error|F\d{4} \d\d:|terminate called")

# What jax says from C++ in a process that it ends because of another one.
_FOLLOWS = "the JAX distributed service detected fatal errors"

# gloo's own announcement, of which each group of devices brings one a process, at times in two parts.
_NOISE = re.compile(r".*is connected to \d+ peer ranks\. Expected number of connected|\[Gloo\] Rank $")


class Screen:
    """What a person sees: lines of the processes, each after its number, and sentences of the supervisor."""

    def __init__(self, *, show: str = "all", quiet: bool = False):
        self._show, self._quiet = show, quiet
        self._lock = threading.Lock()

    def shows(self, process: int) -> bool:
        """Whether lines of this process are shown."""
        return self._show == "all" or (self._show == "first" and process == 0)

    def line(self, process: int, line: str, *, error: bool) -> None:
        """A line that a process printed."""
        if self.shows(process):
            with self._lock:
                _print(f"[{process}] {line}" if self._show == "all" else line, sys.stderr if error else sys.stdout)

    def say(self, sentence: str, *, important: bool = False) -> None:
        """A sentence of the supervisor; where it is to be quiet, only an important one."""
        if important or not self._quiet:
            with self._lock:
                _print(f"jaxdl launch: {sentence}", sys.stderr)


class Child:
    """One process, in a session and process group of its own.

    Attributes:
        number: its number, from 0.
        pid: of the process, and of its group.
        code: its exit code once it has ended; negative: the signal.
        beat: what it said last.
        heard: when this was noticed, `time.monotonic()`; at first, when it was started.
        longest: seconds, the longest time between two beats since the first step.
        step: the furthest step that it spoke of; -1: none.
    """

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str], progress: Path,
                 screen: Screen, log: Path | None):  # fmt: skip
        self.number = number
        self.code: int | None = None
        self.beat: Beat | None = None
        self.heard = time.monotonic()
        self.longest = 0.0
        self.step = -1
        self._progress, self._screen = progress, screen
        self._lines: deque[tuple[str, bool]] = deque(maxlen=_KEPT)  # and whether it came over stderr
        self._waiting: deque[tuple[float, str, bool]] = deque()  # lines that are not shown yet
        self._muted = False
        self._log = log.open("ab") if log is not None else None
        self._process = subprocess.Popen(
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._pumps = [
            threading.Thread(target=self._pump, args=(self._process.stdout, False), daemon=True),
            threading.Thread(target=self._pump, args=(self._process.stderr, True), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()

    def look(self) -> None:
        """Notice a new beat, and the end of the process; what it left in its group ends with it. Show its lines."""
        self._show(time.monotonic())
        beat = read_beat(self._progress)
        if beat is not None and beat != self.beat:
            now = time.monotonic()
            if self.step >= 0:
                self.longest = max(self.longest, now - self.heard)
            self.beat, self.heard = beat, now
            self.step = max(self.step, beat.step)
        if self.code is None and self._has_ended():
            self.kill()  # while the ended process still holds the number of the group
            self.code = self._process.wait()

    def mute(self) -> None:
        """Show none of its lines from where trouble begins: they follow from a failure that is told of elsewhere."""
        troubled = set()
        while self._waiting:
            _, line, error = self._waiting.popleft()
            if _TROUBLE.match(line):
                troubled.add(error)
            if error not in troubled:
                self._screen.line(self.number, line, error=error)
        self._muted = True

    def says(self, word: str) -> bool:
        """Whether its last beat begins with this word."""
        return self.beat is not None and self.beat.what.partition(" ")[0] == word

    def ended_script(self) -> bool:
        """Whether its script has come to its end, where Python waits for the other processes."""
        return self.beat is not None and self.beat.what == SCRIPT_ENDED

    def ending(self) -> Ending | None:
        """How it ended, or is ending after an exception; None while it goes on."""
        code, failed_at = self.code, None
        if self.beat is not None and self.says("failed"):
            code, failed_at = int(self.beat.what.split()[1]) if self.code is None else self.code, self.beat.time
        if code is None:
            return None
        follows = code == -signal.SIGABRT and any(_FOLLOWS in line for line, _ in list(self._lines))
        return Ending(self.number, code, failed_at, follows)

    def quiet_for(self) -> float:
        """Seconds since its last beat."""
        return time.monotonic() - self.heard

    def stopped(self) -> bool:
        """Whether it was stopped, as by SIGSTOP; known on Linux only."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
        except (OSError, IndexError):
            return False

    def send(self, number: int) -> None:
        """A signal to the process itself."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to all of its group."""
        if self.code is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:  # what macOS says of a group whose processes have all ended
                return

    def finish(self) -> None:
        """Kill what still runs, reap it, and read its output to the end."""
        self.kill()
        if self.code is None:
            self.code = self._process.wait()
        for pump in self._pumps:
            self._show(math.inf)
            pump.join(timeout=2)
        self._show(math.inf)
        if self._log is not None:
            self._log.close()

    def last_lines(self, *, words: bool = True) -> list[str]:
        """The last traceback, or last words of native code, that it printed; without any, its last lines if they are
        not on the screen already.

        Args:
            words: False where the process had no time for words, and an older traceback means nothing.
        """
        lines = list(self._lines)
        begins = [at for at, (line, _) in enumerate(lines) if _LAST_WORDS.match(line)]
        if begins and words:
            error = lines[begins[-1]][1]
            found = [line for line, by_error in lines[begins[-1] :] if by_error == error]
            return found if len(found) <= 2 * _SHOWN else [*found[:_SHOWN], "...", *found[-_SHOWN:]]
        return [] if self._screen.shows(self.number) else [line for line, _ in lines[-_SHOWN:]]

    def _has_ended(self) -> bool:
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def _pump(self, stream: IO[bytes], error: bool) -> None:
        for raw in stream:
            if self._log is not None and not self._log.closed:
                self._log.write(raw)
                self._log.flush()
            line = raw.decode(errors="replace").rstrip("\r\n")
            if _NOISE.match(line):
                continue
            self._lines.append((line, error))
            if not self._muted:
                while len(self._waiting) > _FULL:  # who reads our output is slow: so are we
                    time.sleep(_DELAY / 10)
                self._waiting.append((time.monotonic(), line, error))
        stream.close()

    def _show(self, now: float) -> None:
        while self._waiting:
            since, line, error = self._waiting[0]
            if now - since < (_DELAY_TROUBLE if _TROUBLE.match(line) else _DELAY):
                return
            self._waiting.popleft()
            self._screen.line(self.number, line, error=error)


def _print(line: str, stream: IO[str]) -> None:
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:  # the reader, such as head, has had enough; the job goes on
        return
