"""The live display of a terminal: finished epochs are printed as rows of a table, one line below them moves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live as Region
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxdl.tracking.progress import DRAW_SECONDS, Pace, Tolerant, clock, columns_of, short, shown

_ALIASES = {"validation": "val", "examples_per_second": "examples/s", "learning_rate": "rate", "seconds": "time"}
_FIRST_TO_GO = ("learning_rate", "examples_per_second", "step", "seconds")  # where the terminal is narrow
_BAR = 24


class Live:
    """Rows of epochs that stay in the scrollback, and one line redrawn at most ten times a second."""

    def __init__(self, stream: IO[str]):
        # rich would end the process when the reader of the stream has left
        self._console = Console(file=cast("IO[str]", Tolerant(stream)), highlight=False, soft_wrap=False)
        self._region: Region | None = None
        self._pace = Pace(None, 1, 0)
        self._scalars: Mapping[str, float] = {}
        self._next = 0.0
        self._seen: Set[str] = frozenset()  # the columns of the last row
        self._widths: dict[str, int] = {}  # of those that fit the terminal
        self._lowest = float("inf")

    def start(
        self, title: str, total_steps: int | None, steps_per_epoch: int, start_step: int, lines: Sequence[str] = ()
    ) -> None:
        """Prints the title and `lines`, and shows the line."""
        self._pace = Pace(total_steps, steps_per_epoch, start_step)
        self._console.print(Text(title, style="bold"))
        for line in lines:
            self._console.print(Text(f"  {line}", style="dim"))
        # drawn by hand: a thread that redraws would compete with the training for the interpreter
        self._region = Region(
            Text("compiling ...", style="dim"), console=self._console, auto_refresh=False, transient=True
        )
        self._region.start(refresh=True)

    def step(self, step: int, scalars: Mapping[str, float], examples: int) -> None:
        """Counts, and redraws when the last drawing is a tenth of a second old."""
        now = time.monotonic()
        self._pace.add(step, examples, now)
        self._scalars = scalars
        if now >= self._next and self._region is not None:
            self._region.update(self._line(now), refresh=True)
            self._next = time.monotonic() + DRAW_SECONDS

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Prints the epoch's row; a header stands above the first one and wherever the columns change."""
        self._pace.epoch_is_done(record.get("examples_per_second"))
        cells = {"epoch": self._pace.of_epochs(record.get("epoch", ""))}
        if "step" in record:
            cells["step"] = str(record["step"])
        columns = columns_of(record)
        cells |= {key: shown(value, key) for key, value in columns.items()}
        if cells.keys() != self._seen:
            self._header(cells)
        row = Text()
        loss = columns.get("validation:loss", columns.get("train:loss"))
        best = loss is not None and loss < self._lowest
        for key in self._widths:
            text = cells[key]
            bad = text in ("nan", "inf", "-inf")
            is_loss = key == ("validation:loss" if "validation:loss" in columns else "train:loss")
            style = "bold red" if bad else "bold green" if is_loss and best else "cyan" if key == "epoch" else ""
            row.append("  " * bool(row) + text.rjust(self._widths[key]), style=style)
        if best and loss is not None:
            self._lowest = loss
        self._console.print(row, no_wrap=True, overflow="ellipsis")

    def note(self, text: str) -> None:
        """Prints the note above the line."""
        self._console.print(Text.assemble(("note: ", "yellow"), text))

    def close(self) -> None:
        """Takes the line away; the rows stay."""
        if self._region is not None:
            self._region.stop()
            self._region = None

    def _header(self, cells: Mapping[str, str]) -> None:
        names = {key: _title(key) for key in cells}
        wide = {"epoch": 7, "step": 7, "seconds": 7, "examples_per_second": 10}
        self._seen = frozenset(cells)
        widths = {key: max(len(names[key]), len(cells[key]), wide.get(key, 6)) for key in cells}
        for key in _FIRST_TO_GO:
            if sum(widths.values()) + 2 * (len(widths) - 1) > self._console.width:
                widths.pop(key, None)
        self._widths = widths
        line = "  ".join(names[key].rjust(width) for key, width in self._widths.items())
        self._console.print(Text(line, style="bold underline"), no_wrap=True, overflow="ellipsis")

    def _line(self, now: float) -> Table:
        pace = self._pace
        pieces = [Text(f"epoch {pace.epoch_text}", style="cyan"), Text(f"step {pace.step_text}")]
        tail = [Text(text, style="magenta") for text in (pace.eta_text,) if text]
        tail.append(Text(clock(now - pace.started), style="dim"))
        middle = []
        for key, value in self._scalars.items():
            text = shown(value, key)
            middle.append(
                Text.assemble(
                    (f"{short(key)} ", "dim"), (text, "bold red" if text in ("nan", "inf", "-inf") else "bold")
                )
            )
        if pace.rate_text:
            middle.insert(1, Text(f"{pace.rate_text} examples/s", style="green"))
        room = self._console.width - sum(len(piece) + 2 for piece in pieces + tail)
        bar = min(_BAR, max(0, room - sum(len(piece) + 2 for piece in middle[:2]) - 2)) if pace.total else 0
        room -= bar + 2 if bar >= 6 else 0
        kept = []
        for piece in middle:  # the most important come first; what does not fit is left out
            if len(piece) + 2 > room:
                break
            room -= len(piece) + 2
            kept.append(piece)
        grid = Table.grid(padding=(0, 2, 0, 0))
        parts: list[Any] = [*pieces]
        if bar >= 6 and pace.total:
            parts.append(ProgressBar(total=pace.total, completed=pace.step, width=bar))
        parts += [*kept, *tail]
        for _ in parts:
            grid.add_column(no_wrap=True)
        grid.add_row(*parts)
        return grid


def _title(key: str) -> str:
    prefix, _, name = key.rpartition(":")
    if not prefix:
        return _ALIASES.get(key, key)
    return f"{_ALIASES.get(prefix, prefix)} {name}"
