"""Ctrl-C and SIGTERM while a training runs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from jaxdl.parallel import processes


class Interruption:
    """Ctrl-C and SIGTERM, remembered until the loop asks. A second Ctrl-C is Python's own.

    Attributes:
        told: the signal that this process was sent, whenever that was.
        signal: the one that counts, the same in all processes: it changes in `share` only.
    """

    def __init__(self) -> None:
        self.told: int | None = None
        self.signal: int | None = None

    def _remember(self, number: int, frame: Any) -> None:
        self.told = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def share(self) -> None:
        """What one of several processes was told holds for all; SIGTERM, which ends the program, before Ctrl-C."""
        terminated, interrupted = processes.any_of(self.told == signal.SIGTERM, self.told == signal.SIGINT)
        if terminated or interrupted:
            self.signal = signal.SIGTERM if terminated else signal.SIGINT

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Listen while training; signals reach the main thread only, so elsewhere nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # None: it was not set by Python, and cannot be set back by it
                    signal.signal(number, handler)
