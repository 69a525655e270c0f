"""What an end of processes means: which one was the cause, whether to start again, and the exit code of the job."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import NamedTuple

USAGE, UNHEALTHY, HUNG, INTERRUPTED, KILLED, PREEMPTED = 2, 69, 124, 130, 137, 143

_LONGEST_PAUSE = 60.0  # seconds before a restart


class Ending(NamedTuple):
    """How one process ended.

    Attributes:
        process: its number.
        code: its exit code; negative: the signal that ended it.
        failed_at: when it said itself that it fails (`time.time()`), if it did.
        follows: whether jax ended it because of another process.
    """

    process: int
    code: int
    failed_at: float | None = None
    follows: bool = False


def root_cause(endings: Sequence[Ending]) -> Ending:
    """The one that ended first for a reason of its own, of those that were found ended together.

    A process that a signal took comes first: its peers see a closed connection and raise, or are aborted by jax from
    C++. Then those that raised, in the order in which they did.
    """

    def order(ending: Ending) -> tuple[int, float]:
        if ending.follows:
            return (5, 0.0)
        if ending.code < 0 and ending.code != -signal.SIGTERM:
            return (1 if ending.code == -signal.SIGABRT else 0, 0.0)
        if ending.failed_at is not None:
            return (2, ending.failed_at)
        return (4 if ending.code == -signal.SIGTERM else 3, 0.0)

    return min((ending for ending in endings if ending.code), key=order)


def in_words(code: int) -> str:
    """How a process ended, to be read after its name: "was killed by SIGKILL (out of memory?)"."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hints: dict[int, str] = {
            signal.SIGKILL: " (out of memory? the kernel's log, dmesg, would say so)",
            signal.SIGSEGV: " (a crash in native code)",
            signal.SIGBUS: " (a crash in native code, or a full /dev/shm)",
            signal.SIGABRT: " (native code gave up; its last lines say why)",
        }
        return f"was ended by {name}{hints.get(-code, '')}"
    known = {
        0: "ended well",
        1: "ended with an exception (exit code 1)",
        USAGE: "ended with exit code 2 (its command line was not understood)",
        UNHEALTHY: "found a device that does not work (exit code 69)",
        PREEMPTED: "was preempted: it saved and left (exit code 143)",
    }
    return known.get(code, f"ended with exit code {code}")


def kind_of(code: int) -> str:
    """What class an exit code belongs to: done, preempted, usage, unhealthy, exception or signal."""
    if code in (PREEMPTED, -signal.SIGTERM):
        return "preempted"
    if code < 0:
        return "signal"
    return {0: "done", USAGE: "usage", UNHEALTHY: "unhealthy"}.get(code, "exception")


class Verdict(NamedTuple):
    """What follows: an exit code when the job is over, or None and a pause in seconds before it starts again."""

    exit_code: int | None
    why: str
    pause: float = 0.0


class Budget:
    """How often a job may start again; the count begins anew once it has come further than before.

    Args:
        restarts: how many restarts without progress between them.
        pause: seconds before the second restart without progress; then twice as long each time, up to a minute.
    """

    def __init__(self, restarts: int, pause: float = 1.0):
        self.made = 0
        self._restarts, self._pause = restarts, pause
        self._furthest = self._furthest_at_restart = -1
        self._failures = self._preemptions = 0

    def judge(self, kind: str, code: int, step: int) -> Verdict:
        """What follows an end of a kind (`kind_of`, or "hung") with an exit code, at a step (-1: before any)."""
        self._furthest = max(self._furthest, step)
        exit_code = {"hung": HUNG}.get(kind, 128 - code if code < 0 else code)
        if kind == "done":
            return Verdict(0, "")
        if kind == "usage":
            return Verdict(exit_code, "not restarted: it would not be understood the next time, either")
        if kind == "unhealthy":
            return Verdict(exit_code, "not restarted: take the device, or the machine, out of the job")
        if kind == "exception" and self._furthest < 0:
            return Verdict(exit_code, "not restarted: no step was done yet, it would fail in the same way")
        if self._furthest > self._furthest_at_restart:
            self._failures = self._preemptions = 0
        without_progress = self._failures + self._preemptions
        if kind == "preempted":
            self._preemptions += 1
            used, label = self._preemptions, f"restart after preemption {self._preemptions}"
        else:
            self._failures += 1
            used, label = self._failures, f"restart {self._failures} of {self._restarts}"
        if used > self._restarts:
            if not self._restarts:
                return Verdict(exit_code, "not restarted (--restarts 0)")
            return Verdict(exit_code, f"given up: {self._restarts} restarts brought it no step further")
        self.made += 1
        self._furthest_at_restart = self._furthest
        pause = min(_LONGEST_PAUSE, self._pause * 2 ** (without_progress - 1)) if without_progress else 0.0
        start = "from the newest checkpoint" if self._furthest >= 0 else "from the beginning"
        return Verdict(None, f"{label}, {start}{f', in {pause:g} s' if pause else ''}", pause)
