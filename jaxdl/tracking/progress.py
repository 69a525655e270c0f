"""What the user sees while a run trains: a live line and a growing table in a terminal, plain lines in a log.

It is called once per dispatch and must cost next to nothing: a terminal is drawn at most ten times a second, a log gets
one line an epoch and at most one in ten seconds between; every other call only adds two numbers.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

DRAW_SECONDS = 0.1
LINE_SECONDS = 10.0


class Progress(Protocol):
    """What fit calls. `start` once, `step` after each dispatch, `epoch` after each epoch, `close` at the end."""

    def start(
        self, title: str, total_steps: int | None, steps_per_epoch: int, start_step: int, lines: Sequence[str] = ()
    ) -> None:
        """The run begins (or goes on) at `start_step`; `lines` are shown under the title. None: no end is known."""
        ...

    def step(self, step: int, scalars: Mapping[str, float], examples: int) -> None:
        """`step` steps are done; `scalars` are the newest ("train:loss", "train:accuracy"); `examples` is how many
        were processed since the last call."""
        ...

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done: {"epoch", "step", "train:loss", "validation:accuracy", ..., "seconds"}."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...

    def close(self) -> None:
        """Nothing more comes; may be called twice."""
        ...


def make_progress(verbose: bool | int, stream: IO[str] | None = None) -> Progress:
    """The display for `verbose`: 0 nothing; 1 live in a terminal and plain lines elsewhere; 2 plain lines everywhere.

    Args:
        verbose: 0 or False, 1 or True, 2.
        stream: where to write; the standard output when None.

    Raises:
        ValueError: another number.
    """
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 0 (silent), 1 (live in a terminal) or 2 (plain lines); it is {verbose!r}")
    stream = sys.stdout if stream is None else stream
    if not verbose:
        return Silent()
    if verbose == 1 and stream.isatty() and os.environ.get("TERM") != "dumb":
        from jaxdl.tracking.live import Live

        return Live(stream)
    return Lines(stream)


class Silent:
    """Shows nothing."""

    def start(
        self, title: str, total_steps: int | None, steps_per_epoch: int, start_step: int, lines: Sequence[str] = ()
    ) -> None:
        """Nothing."""

    def step(self, step: int, scalars: Mapping[str, float], examples: int) -> None:
        """Nothing."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Tolerant:
    """A stream that is silent after its first OSError: a reader such as `head` has left, or the disk is full, and
    training goes on without being watched. All but `write` and `flush` is the stream's own."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """Writes, while that is possible."""
        if not self._broken:
            try:
                self._stream.write(text)
            except OSError:
                self._broken = True
        return len(text)

    def flush(self) -> None:
        """Flushes, while that is possible."""
        if not self._broken:
            try:
                self._stream.flush()
            except OSError:
                self._broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Lines:
    """Plain lines for a log: one an epoch, and inside an epoch at most one in ten seconds."""

    def __init__(self, stream: IO[str]):
        self._stream = Tolerant(stream)
        self._pace = Pace(None, 1, 0)
        self._next = 0.0

    def start(
        self, title: str, total_steps: int | None, steps_per_epoch: int, start_step: int, lines: Sequence[str] = ()
    ) -> None:
        """Writes the title and `lines`."""
        self._pace = Pace(total_steps, steps_per_epoch, start_step)
        self._next = time.monotonic() + LINE_SECONDS
        self._write(title, *(f"  {line}" for line in lines))

    def step(self, step: int, scalars: Mapping[str, float], examples: int) -> None:
        """Counts; writes a line when the last one is ten seconds old."""
        now = time.monotonic()
        self._pace.add(step, examples, now)
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        pace = self._pace
        parts = [
            f"epoch {pace.epoch_text}",
            f"step {pace.step_text}",
            *(f"{short(k)} {shown(v, k)}" for k, v in scalars.items()),
        ]
        parts += [f"{pace.rate_text} examples/s"] if pace.rate_text else []
        parts += [pace.eta_text] if pace.eta_text else []
        self._write("  ".join(parts))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Writes the epoch's line."""
        self._next = time.monotonic() + LINE_SECONDS
        self._pace.epoch_is_done(record.get("examples_per_second"))
        parts = [f"epoch {self._pace.of_epochs(record.get('epoch'))}"]
        if "step" in record:
            parts.append(f"step {self._pace.of_steps(record['step'])}")
        for key, value in columns_of(record).items():
            text = shown(value, key)
            parts.append({"examples_per_second": f"{text} examples/s", "seconds": text}.get(key, f"{key} {text}"))
        self._write("  ".join(parts))

    def note(self, text: str) -> None:
        """Writes the note."""
        self._write(f"note: {text}")

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, *lines: str) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()


class Pace:
    """Counts steps and examples against time; the first call after a start, which compiles, is left out of rates."""

    def __init__(self, total_steps: int | None, steps_per_epoch: int, start_step: int):
        self.total = total_steps
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.step = start_step
        self.started = time.monotonic()
        self._since: float | None = None  # of the present window: the moment, steps and examples
        self._steps = 0
        self._examples = 0
        self._rates: tuple[float, float] | None = None  # steps and examples a second, smoothed
        self._per_step = 1.0  # examples

    def add(self, step: int, examples: int, now: float) -> None:
        """Counts a dispatch; a window of at least half a second is folded into the smoothed rates."""
        done, self.step = step - self.step, step
        self._per_step = examples / max(done, 1)
        if self._since is None:
            self._since = now
            return
        self._steps += done
        self._examples += examples
        seconds = now - self._since
        if (seconds < 0.5 and self._rates is not None) or seconds <= 0:
            return
        new = self._steps / seconds, self._examples / seconds
        old = self._rates
        self._rates = new if old is None else (0.7 * old[0] + 0.3 * new[0], 0.7 * old[1] + 0.3 * new[1])
        self._since, self._steps, self._examples = now, 0, 0

    def epoch_is_done(self, examples_per_second: float | None = None) -> None:
        """Leaves what an epoch's end costs (evaluation, saving) out of the rate of training, which is then the epoch's
        own: epochs of one dispatch have no window between two."""
        if examples_per_second:
            self._rates = examples_per_second / self._per_step, examples_per_second
        self._since, self._steps, self._examples = None, 0, 0

    @property
    def step_text(self) -> str:
        """Such as "120/4500"."""
        return self.of_steps(self.step)

    @property
    def epoch_text(self) -> str:
        """The epoch in work, from 1, such as "3/20"."""
        return self.of_epochs(math.ceil(self.step / self.steps_per_epoch) or 1)

    @property
    def rate_text(self) -> str:
        """Examples a second, such as "12,345"; empty while unknown."""
        return "" if self._rates is None or self._rates[1] <= 0 else rate(self._rates[1])

    @property
    def eta_text(self) -> str:
        """Such as "ETA 1:05"; empty while unknown."""
        if self.total is None or self._rates is None or self._rates[0] <= 0:
            return ""
        return f"ETA {clock((self.total - self.step) / self._rates[0])}"

    def of_steps(self, step: int) -> str:
        """A step with the total behind it."""
        return str(step) if self.total is None else f"{step}/{self.total}"

    def of_epochs(self, epoch: Any) -> str:
        """An epoch with the number of epochs behind it."""
        return str(epoch) if self.total is None else f"{epoch}/{math.ceil(self.total / self.steps_per_epoch)}"


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader wants of an epoch's record, training before validation, then rate and time."""
    values = {key: value for key, value in record.items() if ":" in key and isinstance(value, int | float)}
    order = {"train": 0, "validation": 1}
    columns = {key: values[key] for key in sorted(values, key=lambda key: order.get(key.split(":")[0], 2))}
    return columns | {key: record[key] for key in ("learning_rate", *_UNITS) if record.get(key) is not None}


_UNITS = ("examples_per_second", "seconds")


def shown(value: Any, key: str = "") -> str:
    """The number of `key` in a few characters: 0.4312, 1.2e-05, a rate as 12,345, a duration as 4.1 s."""
    value = float(value) if not isinstance(value, int) or key in _UNITS else value
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if key == "examples_per_second":
        return rate(value)
    if key == "seconds":
        return f"{value:.1f} s" if value < 100 else clock(value)
    if key == "learning_rate" or (value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5)):
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.2f}"


def rate(value: float) -> str:
    """Examples a second with three digits or thousands."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def clock(seconds: float) -> str:
    """0:07, 12:30, 3:05:00 or 2 d 4 h."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole >= 100 * 3600:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def short(key: str) -> str:
    """A training metric by its own name: "train:loss" -> "loss", "learning_rate" -> "rate"."""
    name = key.removeprefix("train:")
    return {"learning_rate": "rate", "gradient_norm": "gradient"}.get(name, name)
