"""`jaxdl launch`: the processes of a job on one host, watched and started again.

The supervisor touches no device and talks to no process: it starts them, reads what they say of their progress
(`jaxdl.parallel.join.beat`), and looks at how they end. Within a process nothing could do this: when one of them dies,
jax aborts the others from C++, and no exception handler runs.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxdl.parallel.join import COORDINATOR, JOINED, PROCESS, PROCESSES, PROGRESS
from jaxdl.parallel.launch_child import Child, Screen
from jaxdl.parallel.launch_devices import shares
from jaxdl.parallel.launch_guard import Asked, Warden, held_port, listening, progress_folder, warden
from jaxdl.parallel.launch_verdict import (
    HUNG,
    INTERRUPTED,
    KILLED,
    PREEMPTED,
    UNHEALTHY,
    Budget,
    Ending,
    in_words,
    kind_of,
    root_cause,
)

_POLL = 0.05  # seconds between two looks at the processes
_SETTLE = 0.3  # seconds after a failure was seen in which its cause may still show
_DUMP = 1.0  # seconds that a hung process has to say where it stands


@dataclass(frozen=True)
class Job:
    """What to run, in how many processes, and when to lose patience.

    Attributes:
        command: what each process runs: ("script.py", "--epochs", "3") or ("-m", "module", ...).
        processes: how many.
        devices_per_process: virtual CPU devices of each process; None: as the environment says.
        restarts: how many restarts without progress between them.
        hang_seconds: after the first step, so long (or ten times the longest time between two beats so far) without
            a beat is a hang; 0: never.
        startup_seconds: before the first step, and after "finished", so long without a beat is a hang; 0: never.
        health: whether each process checks its devices before the script begins.
        health_seconds: the longest that this may take; 0: no limit.
        heartbeat_seconds: a process that jax has not heard of for so long counts as dead.
        grace_seconds: between SIGTERM, passed on to the processes, and SIGKILL.
        survivor_seconds: the same for those that are left when one has failed.
        pause_seconds: before the second restart without progress; then twice as long each time.
        logs: a folder that keeps all output of each process; None: none.
        show: whose output is shown: "all", "first" or "none".
        quiet: say nothing but why the job ended badly.
        worker: what runs `command` in a process, before it the options of `jaxdl.parallel.worker`.
    """

    command: tuple[str, ...]
    processes: int
    devices_per_process: int | None = None
    restarts: int = 3
    hang_seconds: float = 600.0
    startup_seconds: float = 1800.0
    health: bool = True
    health_seconds: float = 120.0
    heartbeat_seconds: int = 30
    grace_seconds: float = 30.0
    survivor_seconds: float = 3.0
    pause_seconds: float = 1.0
    logs: Path | None = None
    show: str = "all"
    quiet: bool = False
    worker: tuple[str, ...] = (sys.executable, "-m", "jaxdl.parallel.worker")


class Outcome(NamedTuple):
    """How one start of all processes ended: the class, an exit code (negative: a signal), the furthest step, and what
    there is to tell of it."""

    kind: str
    code: int
    step: int
    story: Sequence[str] = ()


def supervise(job: Job) -> int:
    """Run the job until it is done, stopped or beyond help; the exit code, as docs/launch.md lists them.

    Raises:
        ValueError: the devices of this machine cannot be shared out so; no process is started.
    """
    screen = Screen(show=job.show, quiet=job.quiet)
    budget = Budget(job.restarts, job.pause_seconds)
    environments = shares(job.processes, job.devices_per_process)
    if job.logs is not None:
        job.logs.mkdir(parents=True, exist_ok=True)
    with listening() as asked, progress_folder() as folder, warden(folder) as watching:
        while True:
            start = _Start(job, budget.made, environments, folder, screen, watching, asked)
            outcome = start.run()
            verdict = budget.judge(outcome.kind, outcome.code, outcome.step)
            ends = asked.signal or verdict.exit_code is not None
            for sentence in outcome.story:
                screen.say(sentence, important=bool(ends))
            if asked.signal:
                return outcome.code if outcome.kind in ("stopped", "done") else _code_when_asked(asked.signal)
            if verdict.exit_code == 0:
                screen.say(f"done{f', after {_times(budget.made)}' if budget.made else ''}")
                return 0
            screen.say(verdict.why, important=verdict.exit_code is not None)
            if verdict.exit_code is not None:
                return verdict.exit_code
            end = time.monotonic() + verdict.pause
            while time.monotonic() < end and not asked.signal:
                time.sleep(_POLL)
            if asked.signal:  # between two starts
                return _code_when_asked(asked.signal)


class _Start:
    """One start of all processes, from a fresh port to the end of the last one."""

    def __init__(self, job: Job, number: int, environments: Sequence[Mapping[str, str]], folder: Path, screen: Screen,
                 watching: Warden, asked: Asked):  # fmt: skip
        self._job, self._number, self._environments = job, number, environments
        self._folder, self._screen, self._warden, self._asked = folder, screen, watching, asked
        self._children: list[Child] = []

    def run(self) -> Outcome:
        """Start all, watch them to their end, and leave nobody behind."""
        with held_port() as port:
            try:
                for number in range(self._job.processes):
                    self._children.append(self._child(number, port))
                    self._warden.watch(self._children[-1].pid)
                several = f"{len(self._children)} processes" if len(self._children) > 1 else "1 process"
                pids = ", ".join(str(child.pid) for child in self._children)
                self._screen.say(f"{several} of {_name(self._job.command)} started ({_plural('pid', pids)} {pids})")
                return self._watch()
            finally:
                for child in self._children:
                    child.finish()
                    self._warden.forget(child.pid)

    def _child(self, number: int, port: int) -> Child:
        job, progress = self._job, self._folder / f"{self._number}-{number}"
        own = {
            COORDINATOR: f"127.0.0.1:{port}", PROCESSES: str(job.processes), PROCESS: str(number),
            PROGRESS: str(progress), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        options = [f"--heartbeat-seconds={job.heartbeat_seconds}"] + ([] if job.health else ["--no-health"])
        log = None if job.logs is None else job.logs / f"start-{self._number + 1}-process-{number}.log"
        environment = dict(self._environments[number]) | own
        environment.pop(JOINED, None)  # of a process that has started this job
        return Child(number, [*job.worker, *options, *job.command], environment, progress, self._screen, log)

    def _watch(self) -> Outcome:
        while True:
            for child in self._children:
                child.look()
            if self._asked.signal:
                return self._stop()
            if all(child.code == 0 for child in self._children):
                return self._outcome("done", 0)
            if any(child.code or child.says("failed") for child in self._children):
                return self._after_failure()
            if any(self._hangs(child) for child in self._children):
                return self._after_hang()
            time.sleep(_POLL)

    def _outcome(self, kind: str, code: int, story: Sequence[str] = ()) -> Outcome:
        return Outcome(kind, code, max(child.step for child in self._children), story)

    # ---- a failure --------------------------------------------------------------------------------------------------

    def _after_failure(self) -> Outcome:
        """Find the one that failed first, tell of it, and end the others."""
        self._wait(_SETTLE)
        cause = root_cause(self._endings())
        if cause.follows and any(child.code is None for child in self._children):
            return self._after_hang(unheard=True)
        kind, words = kind_of(cause.code), cause.code != -signal.SIGKILL
        child = self._children[cause.process]
        if kind == "preempted":  # the others stop at the same step, and may still be saving
            self._wait(self._job.grace_seconds)
        else:
            for other in self._children:
                if other is not child or words:  # its last words are told below
                    other.mute()
            self._wait(_SETTLE, only=child)  # after an exception it may have more to print
        self._end_others()
        child.finish()
        lines = child.last_lines(words=words) if kind != "preempted" else []
        return self._outcome(kind, cause.code, [_told(child, in_words(cause.code) + _at(child), lines)])

    def _endings(self) -> list[Ending]:
        return [ending for child in self._children if (ending := child.ending()) is not None]

    def _end_others(self) -> None:
        """SIGTERM to who is left, and SIGKILL soon after: jax may have them waiting for the one that failed."""
        for child in self._children:
            child.send(signal.SIGTERM)
        self._wait(self._job.survivor_seconds)
        for child in self._children:
            child.kill()

    def _wait(self, seconds: float, only: Child | None = None) -> None:
        """Look at the processes until they have ended, at most so long; less where somebody insists on an end."""
        end = time.monotonic() + seconds
        waited_for = self._children if only is None else [only]
        while time.monotonic() < end and not self._asked.insists:
            for child in self._children:
                child.look()
            if all(child.code is not None for child in waited_for):
                return
            time.sleep(_POLL)

    # ---- a hang -----------------------------------------------------------------------------------------------------

    def _hangs(self, child: Child) -> bool:
        running = [each for each in self._children if each.code is None]
        if child.ended_script() and not all(each.ended_script() for each in running):
            return False  # it waits for the others, as long as they take
        return child.code is None and 0 < self._patience(child) < child.quiet_for()

    def _patience(self, child: Child) -> float:
        """How long this process may be quiet where it stands; 0: for ever."""
        job = self._job
        if child.says("health"):
            return job.health_seconds
        if child.step < 0 or child.says("finished"):
            return job.startup_seconds
        return max(job.hang_seconds, 10 * child.longest) if job.hang_seconds else 0.0

    def _after_hang(self, *, unheard: bool = False) -> Outcome:
        """Name who hangs, ask it where, and kill all.

        Args:
            unheard: jax itself found it, and has ended others: it sent no heartbeat.
        """
        running = [child for child in self._children if child.code is None]
        stopped = [child for child in running if child.stopped()]
        ended = [child for child in running if child.ended_script()]
        culprits = stopped or _behind([child for child in running if child not in ended] or running)
        for child in self._children:
            child.mute()
        health = any(child.says("health") and self._hangs(child) for child in running)
        story = []
        for child in culprits:  # the worker has asked Python to print where it stands on this signal
            child.send(signal.SIGQUIT)
            what = "is stopped (SIGSTOP)" if child in stopped else "hangs"
            limit = f"no heartbeat for {self._job.heartbeat_seconds} s" if unheard else self._limit(child)
            said = f"the last that it said was {child.beat.what!r}" if child.beat else "it never said a word"
            story.append(f"{what}: {said}, {child.quiet_for():.0f} s ago ({limit})")
        self._wait(_DUMP)
        for child in self._children:
            child.kill()
        for child in culprits:
            child.finish()
        told = [_told(child, what, child.last_lines()) for child, what in zip(culprits, story, strict=True)]
        if 0 < len(ended) < len(running):
            who = ", ".join(str(child.number) for child in ended)
            told.append(f"{_plural('process', who, 'es')} {who} had come to the end of the script: is it waited for?")
        elif len(culprits) == len(running) > 1:
            told.append("none is behind the others: perhaps they wait for each other")
        return self._outcome("unhealthy" if health else "hung", UNHEALTHY if health else HUNG, told)

    def _limit(self, child: Child) -> str:
        seconds = f"{self._patience(child):.3g}"
        if child.says("health"):
            return f"--health-seconds {seconds}"
        if child.step < 0 or child.says("finished"):
            return f"--startup-seconds {seconds}"
        if self._patience(child) > self._job.hang_seconds:
            return f"ten times its longest silence before, {seconds} s"
        return f"--hang-seconds {seconds}"

    # ---- being asked to stop ----------------------------------------------------------------------------------------

    def _stop(self) -> Outcome:
        """Pass the signal on, give all the time to save, and kill who outlasts it."""
        number = self._asked.signal
        name = signal.Signals(number).name
        self._screen.say(
            f"{name}: passed on to the processes, which have {self._job.grace_seconds:g} s to save and end"
        )
        for child in self._children:
            child.send(number)
        self._wait(self._job.grace_seconds)
        late = [child for child in self._children if child.code is None]
        for child in late:
            child.kill()
        if late:
            who = ", ".join(str(child.number) for child in late)
            story = (
                f"{_plural('process', who, 'es')} {who} did not end in time and got SIGKILL: what was not saved is lost"
            )
            return self._outcome("stopped", INTERRUPTED if number == signal.SIGINT else KILLED, [story])
        failed = [ending for ending in self._endings() if kind_of(ending.code) not in ("done", "preempted")]
        if failed and number != signal.SIGINT:
            cause = root_cause(failed)
            child = self._children[cause.process]
            child.finish()
            code = 128 - cause.code if cause.code < 0 else cause.code
            return self._outcome("stopped", code, [_told(child, in_words(cause.code) + _at(child), child.last_lines())])
        if number != signal.SIGINT and all(child.code == 0 for child in self._children):
            return self._outcome("stopped", 0)
        saved = number != signal.SIGINT and all(child.code in (0, PREEMPTED) for child in self._children)
        self._screen.say(f"all have ended{', and saved' if saved else ''}")
        return self._outcome("stopped", _code_when_asked(number))


def _code_when_asked(number: int) -> int:
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


def _behind(running: Sequence[Child]) -> list[Child]:
    """Those that have come least far: the others wait for them."""

    def place(child: Child) -> tuple[bool, int]:
        return (child.beat is not None, child.step)

    least = min(place(child) for child in running)
    return [child for child in running if place(child) == least]


def _told(child: Child, what: str, lines: Sequence[str]) -> str:
    """A sentence about a process, and under it what it printed."""
    quoted = "".join(f"\n  [{child.number}] {line}" for line in lines)
    return f"process {child.number} {what}{'; its last lines:' if lines else ''}{quoted}"


def _at(child: Child) -> str:
    if child.step >= 0:
        return f" after step {child.step}"
    return " before its first step"


def _name(command: Sequence[str]) -> str:
    return command[1] if command[0] == "-m" and len(command) > 1 else Path(command[0]).name


def _plural(noun: str, listed: str, ending: str = "s") -> str:
    return noun + ending if "," in listed else noun


def _times(count: int) -> str:
    return f"{count} restart{'s' if count > 1 else ''}"
