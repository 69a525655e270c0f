"""What runs in each process of `jaxdl launch`: join the others, check the devices, and then be the user's script.

python -m jaxdl.parallel.worker [--no-health] [--heartbeat-seconds=N] SCRIPT|-m MODULE [ARGUMENT ...]
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from jaxdl.parallel.health import check
from jaxdl.parallel.join import PROCESS, PROCESSES, PROGRESS, SCRIPT_ENDED, beat, join, read_beat, surroundings
from jaxdl.parallel.launch_verdict import UNHEALTHY


def main(words: Sequence[str]) -> None:
    """Join, check and run; ends the process with exit code 69 where a device does not work."""
    words, health, heartbeat = list(words), True, 30
    while words and words[0].startswith("--"):
        option, _, value = words.pop(0).partition("=")
        if option == "--no-health":
            health = False
        elif option == "--heartbeat-seconds":
            heartbeat = int(value)
        else:
            raise ValueError(f"jaxdl.parallel.worker knows no option {option}")
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a crash in native code shows where Python stood
    faulthandler.register(signal.SIGQUIT, all_threads=False)  # and so does a process that hangs, when it is asked
    found = surroundings()
    if found is not None:
        beat(f"joining the other processes ({found.by})")
    join(heartbeat_seconds=heartbeat)
    if health:
        beat("health check of the devices")
        problems = check(say=lambda what: beat(f"health check: {what}"))
        if problems:
            for problem in problems:
                print(problem, file=sys.stderr)
            beat(f"failed {UNHEALTHY} by a device")
            _leave_at_once(UNHEALTHY)
    beat("script begins")
    run(words)
    script_ended()


def run(words: Sequence[str]) -> None:
    """Run ("script.py", arguments...) or ("-m", "module", arguments...) as __main__, as python itself would; but for
    `sys.argv[0]`, which is the script's whole path.

    An exception is printed as python prints it, without the frames of this file, and ends the process with code 1;
    Ctrl-C with 130.
    """
    module = words[0] == "-m"
    sys.argv = list(words[1:] if module else words)
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            script = Path(words[0]).resolve()
            if not sys.flags.safe_path:
                sys.path[0] = str(script.parent)
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if code not in (0, 128 + signal.SIGTERM):
            # Before Python waits, at its end, for the other processes to come to theirs.
            beat(f"failed {code} by SystemExit")
        elif code == 0:
            script_ended()
        raise
    except (Exception, KeyboardInterrupt) as error:
        error.__traceback__ = _within(error.__traceback__)
        sys.stdout.flush()
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        beat(f"failed {code} by {type(error).__name__}")
        sys.exit(code)


def script_ended() -> None:
    """Say so, and wait for the scripts of the other processes, where a supervisor watches over all: at Python's end jax
    waits for them too, but aborts all processes after five minutes."""
    beat(SCRIPT_ENDED)
    if PROGRESS not in os.environ:
        return
    own = Path(os.environ[PROGRESS])
    start = own.name.partition("-")[0]
    for number in range(int(os.environ.get(PROCESSES, "1"))):
        other = own.with_name(f"{start}-{number}")
        while number != int(os.environ.get(PROCESS, "0")) and (
            (said := read_beat(other)) is None or said.what != SCRIPT_ENDED
        ):
            time.sleep(0.05)


def _within(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that is the script's."""
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    return trace


def _leave_at_once(code: int) -> None:
    """End without waiting for the other processes, as jax does at Python's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
