"""How a delimited text file is written: delimiter, quote, decimal mark, header and names, told from its first lines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxdl.data.schema import number_of

SAMPLE_BYTES = 1 << 18
_SAMPLE_ROWS = 200

# On a tie the earlier one wins: commas are common inside the cells of files with another delimiter, hardly the other
# way round.
DELIMITERS = ("\t", ";", "|", ",")


class Dialect(NamedTuple):
    """How the cells of a file are told apart, and where its data starts."""

    delimiter: str
    quote: str
    decimal: str
    names: tuple[str, ...]
    header_lines: int  # physical lines before the first row of data
    header_bytes: int  # the same in bytes of UTF-8
    text_columns: frozenset[int]  # columns in which the sample has a cell that is no number


class Row(NamedTuple):
    """The cells of a row, and the physical line on which it starts (counted from 1)."""

    line: int
    cells: list[str]


def rows_of(text: str, delimiter: str, quote: str, *, first_line: int = 1) -> Iterator[Row]:
    """The rows of a text, blank lines left out. Raises ValueError for a quote that is opened and never closed."""
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        yield from io.StringIO(text, newline="")
        ended = True

    reader = csv.reader(lines(), delimiter=delimiter, quotechar=quote, doublequote=True)
    line = first_line
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"line {line}: the text is no CSV ({error})") from error
        if ended:
            raise ValueError(
                f"line {line}: a {quote} opens a quoted cell that is never closed, up to the end of the file"
            )
        if cells:
            yield Row(line, cells)
        line = first_line + reader.line_num


def sniff(
    content: bytes,
    whole: bool,
    *,
    delimiter: str | None,
    quote: str | None,
    decimal: str | None,
    header: bool | None,
    names: Sequence[str] | None,
    missing: Iterable[str],
    likely: str | None = None,
) -> Dialect:
    """The dialect of a sample.

    What is given (not None) is taken as it is; `likely` is the delimiter that the file's name suggests.
    """
    text = content.decode("utf-8", "replace")
    if not whole:
        text = text[: text.rfind("\n") + 1] or text
    quote = quote or _quote(text)
    delimiter = delimiter or _delimiter(text, quote, likely)
    sample = _sample(text, delimiter, quote)
    if not sample:
        raise ValueError("the file holds no rows: all its lines are blank")
    if decimal is None:
        decimal = "," if delimiter != "," and _decimal_comma(sample) else "."
    absent = frozenset(missing)
    if header is None:
        header = _has_header(sample, decimal, absent)
    header_lines = header_bytes = 0
    if header:
        lines = io.StringIO(text, newline="")
        header_lines = _lines_of_first_row(text, delimiter, quote)
        header_bytes = sum(len(next(lines).encode()) for _ in range(header_lines))
    first = sample[0].cells
    rows = sample[1:] if header else sample
    if names is None:
        names = (
            [cell.strip() or f"column_{i}" for i, cell in enumerate(first)]
            if header
            else [f"column_{i}" for i in range(len(first))]
        )
    textual = _text_columns([row.cells for row in rows], decimal, frozenset(missing))
    return Dialect(delimiter, quote, decimal, tuple(names), header_lines, header_bytes, textual)


def other_delimiter(text: str, quote: str, given: str) -> tuple[str, int] | None:
    """A delimiter that gives many columns where `given` gave one, and how many; None when there is none."""
    found = _delimiter(text, quote, None)
    sample = _sample(text, found, quote)
    count = len(sample[0].cells) if sample else 1
    return (found, count) if found != given and count > 1 else None


def _text_columns(rows: list[list[str]], decimal: str, absent: frozenset[str]) -> frozenset[int]:
    """The columns with a cell that is no number. A hint, so a cell that float takes counts as one, which is quicker."""
    textual: set[int] = set()
    for cells in rows:
        for i, cell in enumerate(cells):
            if i in textual or cell in absent:
                continue
            try:
                float(cell)
            except ValueError:
                if number_of(cell, decimal) is None:
                    textual.add(i)
    return frozenset(textual)


def _sample(text: str, delimiter: str, quote: str, limit: int = _SAMPLE_ROWS) -> list[Row]:
    found: list[Row] = []
    try:
        for row in rows_of(text, delimiter, quote):
            found.append(row)
            if len(found) == limit:
                break
    except ValueError:
        # A sample may end inside a quoted cell; the reader of the whole file says what is wrong where something is.
        return found
    return found


def _lines_of_first_row(text: str, delimiter: str, quote: str) -> int:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)
    while not next(reader):
        pass
    return reader.line_num


def _quote(text: str) -> str:
    """' only when cells are wrapped in it, at least twice, and none is in double quotes."""
    edge = r"[,;|\t]"
    wrapped = re.compile(rf"(?:^|{edge})'[^'\n]*'(?=\r?$|{edge})", re.MULTILINE)
    doubled = re.search(rf'(?:^|{edge})"', text, re.MULTILINE)
    return "'" if not doubled and len(wrapped.findall(text)) >= 2 else '"'


def _delimiter(text: str, quote: str, likely: str | None) -> str:
    """The delimiter under which most rows have the same number of cells, more than one."""
    best, best_score = likely or ",", 0.6
    for candidate in ([likely] if likely else []) + [d for d in DELIMITERS if d != likely]:
        sample = _sample(text, candidate, quote)
        counts = Counter(len(row.cells) for row in sample)
        if not counts:
            continue
        usual, times = max(counts.items(), key=lambda item: (item[1], item[0]))
        score = times / len(sample)
        if usual > 1 and score > best_score:
            best, best_score = candidate, score
    return best


def _decimal_comma(sample: list[Row]) -> bool:
    """True when some cell is like 1,5 and none like 1.5."""
    comma = re.compile(r"\s*-?\d+,\d+\s*")
    point = re.compile(r"\s*-?\d+\.\d+\s*")
    cells = [cell for row in sample for cell in row.cells]
    return any(comma.fullmatch(cell) for cell in cells) and not any(point.fullmatch(cell) for cell in cells)


def _has_header(sample: list[Row], decimal: str, absent: frozenset[str]) -> bool:
    """True when no cell of the first row is a number, and either numbers stand below it or its cells look like names.

    Where all columns are text, the first row is a header when its cells are short, all different, and none occurs again
    in its column.
    """
    first, below = sample[0].cells, sample[1:]
    if any(number_of(cell, decimal) is not None for cell in first) or sum(not cell.strip() for cell in first) > 1:
        return False
    if any(number_of(cell, decimal) is not None for row in below for cell in row.cells if cell not in absent):
        return True
    if len(set(first)) < len(first) or any(len(cell) > 64 or "\n" in cell for cell in first):
        return False
    return not any(cell == row.cells[i] for row in below for i, cell in enumerate(first) if i < len(row.cells))
