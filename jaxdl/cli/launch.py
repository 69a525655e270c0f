"""`jaxdl launch`: a script in several processes of this host, or as this process of a cluster's job."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdl.cli.commands import Launch


def split(words: Sequence[str], options: type[Any]) -> tuple[list[str], tuple[str, ...]]:
    """The words for `jaxdl launch` itself, and the script or `-m module` with the words that are its own."""
    flags = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options) if field.type == "bool"}
    own: list[str] = []
    rest = list(words)
    while rest:
        if rest[0] == "-m" or not rest[0].startswith("-"):
            return own, tuple(rest)
        own.append(rest.pop(0))
        whole = "=" in own[-1] or own[-1] in flags | {"-h", "--help"}
        if rest and not whole:
            own.append(rest.pop(0))
    return own, ()


def launch(options: Launch) -> int:
    """Supervise the processes, or, in a job of a cluster, become this one of it."""
    from jaxdl.parallel.join import surroundings
    from jaxdl.parallel.launch import Job, supervise

    command = options.command
    if not command or command == ("-m",):
        raise ValueError("which script? For example: jaxdl launch -n 4 train.py --epochs 3")
    if command[0] != "-m" and not Path(command[0]).is_file():
        raise ValueError(f"there is no script {command[0]}")
    found = surroundings()
    if found is not None:
        return _become(options, found.by)
    for name in ("processes", "devices_per_process"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number}: give a number of at least 1")
    for name in ("restarts", "hang_seconds", "startup_seconds", "health_seconds", "grace"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: give a number of at least 0")
    return supervise(
        Job(
            command,
            options.processes or 1,
            devices_per_process=options.devices_per_process,
            restarts=options.restarts,
            hang_seconds=options.hang_seconds,
            startup_seconds=options.startup_seconds,
            health=not options.no_health,
            health_seconds=options.health_seconds,
            grace_seconds=options.grace,
            logs=None if options.logs is None else Path(options.logs),
            show=options.show,
            quiet=options.quiet,
        )
    )


def _become(options: Launch, by: str) -> int:
    """In a job that another has started: no supervisor, but the script itself, in this very process."""
    if options.processes is not None:
        way = ": leave out -n, and each of its processes runs the script once"
        if by == "Kubernetes":
            way += "; for several processes in the one pod of a job: env -u JOB_COMPLETION_INDEX jaxdl launch -n ..."
        raise ValueError(f"-n {options.processes}: this is a process of a job of {by} already{way}")
    for field in dataclasses.fields(options):
        if field.name not in ("command", "no_health") and getattr(options, field.name) != field.default:
            raise ValueError(
                f"--{field.name.replace('_', '-')}: in a job of {by}, that job watches over its processes, and "
                "there is no supervisor here"
            )
    words = [sys.executable, "-m", "jaxdl.parallel.worker", *(["--no-health"] if options.no_health else [])]
    sys.stdout.flush()
    os.execv(sys.executable, [*words, *options.command])
