"""What is shown: lines in a log, a table and one moving line in a terminal, nothing when silent; and how seldom."""

from __future__ import annotations

import errno
import io
import math
import re
from collections.abc import Iterator

import pytest

from jaxdl.tracking import make_progress, progress
from jaxdl.tracking.live import Live
from jaxdl.tracking.progress import Lines, Pace, clock, columns_of, shown


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    moments = Clock()
    monkeypatch.setattr(progress.time, "monotonic", moments.monotonic)
    yield moments


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and counts what is written."""

    writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


EPOCH = {
    "kind": "epoch",
    "epoch": 1,
    "step": 100,
    "validation:loss": 0.5,
    "train:loss": 0.25,
    "validation:accuracy": 0.75,
    "learning_rate": 0.00125,
    "examples_per_second": 12345.6,
    "seconds": 4.06,
}


@pytest.mark.smoke
def test_lines_are_one_an_epoch_and_one_in_ten_seconds(moments: Clock) -> None:
    stream = io.StringIO()
    shown_here = make_progress(1, stream)
    shown_here.start("a title", 1000, 100, 0, ["a line"])
    for step in range(1, 100):
        moments.now += 0.25
        shown_here.step(step, {"train:loss": 1 / step, "learning_rate": 0.00125}, 32)
    shown_here.epoch(EPOCH)
    shown_here.note("saved")
    shown_here.close()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["a title", "  a line"]
    assert [line for line in lines if line.startswith("epoch 1/10  step")] == [
        "epoch 1/10  step 40/1000  loss 0.0250  rate 0.00125  128 examples/s  ETA 4:00",
        "epoch 1/10  step 80/1000  loss 0.0125  rate 0.00125  128 examples/s  ETA 3:50",
        "epoch 1/10  step 100/1000  train:loss 0.2500  validation:loss 0.5000  validation:accuracy 0.7500  "
        "learning_rate 0.00125  12,346 examples/s  4.1 s",
    ]
    assert lines[-1] == "note: saved" and len(lines) == 6


def test_which_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    assert isinstance(make_progress(True, Terminal()), Live)
    assert isinstance(make_progress(2, Terminal()), Lines)
    assert isinstance(make_progress(1, io.StringIO()), Lines)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(1, Terminal()), Lines)
    for verbose in (3, -1, "yes"):
        with pytest.raises(ValueError, match="verbose must be 0"):
            make_progress(verbose)  # type: ignore[arg-type]


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (0, False):
        silent = make_progress(verbose)
        silent.start("a title", 10, 5, 0, ["a line"])
        silent.step(1, {"train:loss": 1.0}, 32)
        silent.epoch(EPOCH)
        silent.note("saved")
        silent.close()
    assert capsys.readouterr() == ("", "")


def test_live_draws_at_most_ten_times_a_second(moments: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    live = make_progress(1, stream)
    live.start("a title", 20_000, 100, 0)
    before = stream.writes
    for step in range(1, 10_001):
        moments.now += 0.001
        live.step(step, {"train:loss": 1.0}, 32)
    drawings = stream.getvalue().count("ETA")
    assert 90 <= drawings <= 101 and stream.writes - before < 1000
    live.close()
    live.close()


def test_live_table_and_line(moments: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    live = make_progress(1, stream)
    live.start("a title", 1000, 100, 0, ["a line"])
    for step in (1, 50, 99):
        moments.now += 10
        live.step(step, {"train:loss": 0.5, "train:accuracy": math.nan}, 3200)
    live.epoch(EPOCH)
    live.epoch(EPOCH | {"epoch": 2, "step": 200, "validation:loss": math.nan})
    live.epoch({"epoch": 3, "step": 300, "train:loss": 0.1})
    live.note("saved")
    live.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "epoch 1/10  step 99/1000" in text and "loss 0.5000" in text and "accuracy nan" in text
    assert "320 examples/s" in text and "ETA" in text
    rows = [line.split() for line in text.splitlines() if re.match(r"\s+(epoch +step|\d+/10)", line)]
    head = "epoch step train loss val loss val accuracy rate examples/s time"
    assert rows[0] == head.split()
    assert rows[1] == ["1/10", "100", "0.2500", "0.5000", "0.7500", "0.00125", "12,346", "4.1", "s"]
    assert rows[2][3] == "nan"
    assert rows[3] == ["epoch", "step", "train", "loss"] and rows[4] == ["3/10", "300", "0.1000"], "a new header"
    assert max(len(line) for line in text.replace("\r", "\n").splitlines()) <= 120


def test_narrow_terminals_lose_columns_not_digits(moments: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    live = make_progress(1, stream)
    live.start("a title", 1000, 100, 0)
    live.epoch(EPOCH)
    live.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    row = next(line for line in text.splitlines() if "1/10" in line)
    assert row.split()[:4] == ["1/10", "0.2500", "0.5000", "0.7500"] and "\N{HORIZONTAL ELLIPSIS}" not in row


def test_pace_leaves_out_compilation_and_the_ends_of_epochs(moments: Clock) -> None:
    pace = Pace(100, 10, 0)
    moments.now += 60  # compiling
    pace.add(1, 32, moments.now)
    assert pace.rate_text == "" and pace.eta_text == ""
    for step in range(2, 11):
        moments.now += 1
        pace.add(step, 32, moments.now)
    assert pace.rate_text == "32" and pace.eta_text == "ETA 1:30" and pace.epoch_text == "1/10"
    pace.epoch_is_done()
    moments.now += 500  # evaluation
    pace.add(11, 32, moments.now)
    moments.now += 1
    pace.add(12, 32, moments.now)
    assert pace.rate_text == "32" and pace.epoch_text == "2/10"
    resumed = Pace(None, 10, 40)
    assert (resumed.step_text, resumed.epoch_text, resumed.eta_text) == ("40", "4", "")


def test_numbers_in_few_characters() -> None:
    assert [shown(v) for v in (0.43124, 1.2e-5, 0.0, 123.456, 1e6, 7, math.nan)] == [
        "0.4312", "1.2e-05", "0.0000", "123.46", "1e+06", "7", "nan",
    ]  # fmt: skip
    assert shown(250.0, "seconds") == "4:10" and shown(9.0, "examples_per_second") == "9"
    assert [clock(v) for v in (7, 750, 11100, 400_000, math.inf)] == ["0:07", "12:30", "3:05:00", "4 d 15 h", "?"]
    assert list(columns_of(EPOCH)) == [
        "train:loss", "validation:loss", "validation:accuracy", "learning_rate", "examples_per_second", "seconds",
    ]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("problem", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space")])
@pytest.mark.parametrize("method", ["write", "flush"])
@pytest.mark.parametrize("display", [Lines, Live])
def test_a_stream_that_cannot_be_written_ends_the_display_and_not_the_training(
    problem: OSError, method: str, display: type[Lines] | type[Live]
) -> None:
    class Broken(Terminal):
        tries = 0

    def fail(self: Broken, *text: str) -> int:
        self.tries += 1
        raise problem

    setattr(Broken, method, fail)
    stream = Broken()
    shown_on = display(stream)
    shown_on.start("a run", 100, 10, 0, ["a line"])
    shown_on.step(1, {"train:loss": 0.5}, 32)
    shown_on.epoch(EPOCH)
    shown_on.note("a note")
    shown_on.close()
    assert stream.tries == 1
