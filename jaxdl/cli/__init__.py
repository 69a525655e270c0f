"""The command line: `jaxdl train | evaluate | predict | resume | plan | launch | runs | cache`.

A command is a frozen dataclass of options in `commands.py`, read by tyro, and a function that does it. Exit codes: 0
done, 1 something was wrong with the data, the run or the machine (one sentence on the standard error says what), 2
the command line was not understood.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

# What data, files and settings that a person got wrong raise; anything else is a fault of jaxdl and keeps its
# traceback.
_MISTAKES = (ValueError, TypeError, KeyError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` without the program's name, by default the process's own.

    With JAXDL_TRACEBACK=1 in the environment, a mistake shows where in the code it was found.
    """
    try:
        import tyro  # noqa: F401
    except ImportError:
        return _complain("the command line needs tyro: pip install tyro (it comes with pip install jaxdl)")
    from jaxdl.cli.commands import parse

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            code = parse(words)()
        sys.stdout.flush()
        return code
    except SystemExit as leave:  # tyro has printed the help, or what it did not understand
        return leave.code if isinstance(leave.code, int) else 2
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted")
    except _MISTAKES as mistake:
        if os.environ.get("JAXDL_TRACEBACK") == "1":
            raise
        # str() of a KeyError is the repr of its sentence.
        sentence = mistake.args[0] if isinstance(mistake, KeyError) and mistake.args else mistake
        return _complain(str(sentence) or type(mistake).__name__)


def _complain(sentence: str) -> int:
    print(f"jaxdl: {sentence}", file=sys.stderr)
    return 1


def _note(message: Warning | str, *place: object, **more: object) -> None:
    """A warning as a person wants it: without the place in the code that gave it."""
    print(f"jaxdl: note: {message}", file=sys.stderr)
