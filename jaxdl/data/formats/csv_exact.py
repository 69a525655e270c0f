"""The exact CSV reader: Python alone, slower, and it knows the line of every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxdl.data.formats.sniff import Dialect, rows_of
from jaxdl.data.formats.source import BytesLike, decode
from jaxdl.data.schema import SKIPPED_EXAMPLES, Column, Skipped, interpret, text_column
from jaxdl.data.table import Table

_PLAIN = frozenset("0123456789.eE+-")
_DIGITS = frozenset("0123456789-")
_EXPECTED = {
    "number": "a number",
    "boolean": "true or false",
    "time": "a date or time such as 2024-05-31 or 2024-05-31 12:00:00",
}


def read_exact(
    content: BytesLike,
    path: Path,
    dialect: Dialect,
    columns: Sequence[str] | None,
    types: Mapping[str, str],
    missing: Sequence[str],
    on_error: str,
) -> Table:
    """The table of this file, or ValueError naming line, column, value and expectation of the first bad cell or row."""
    header = content[: dialect.header_bytes].decode()
    text = decode(content[:], path, "utf-8")[len(header) :]
    lines, rows, problems = _rows(text, path, dialect, on_error)
    if not rows:
        raise ValueError(_nothing(path, dialect, problems))
    names = list(columns or dialect.names)
    cells = dict(zip(dialect.names, zip(*rows, strict=True), strict=True))
    absent = frozenset(missing)
    result: dict[str, Column] = {}
    bad_rows: dict[int, str] = {}
    for name in names:
        column, bad = _column(cells[name], types.get(name), dialect.decimal, absent)
        if bad is not None:
            for row in np.flatnonzero(bad):
                bad_rows.setdefault(
                    int(row), _sentence(path, lines[row], name, cells[name][row], types.get(name), bad, cells[name])
                )
        result[name] = column
    if bad_rows and on_error == "raise":
        raise ValueError(bad_rows[min(bad_rows)])
    if bad_rows:
        good = [row for row in range(len(rows)) if row not in bad_rows]
        problems += [(lines[row], bad_rows[row]) for row in sorted(bad_rows)]
        if not good:
            raise ValueError(_nothing(path, dialect, problems))
        for name in names:
            kept = [cells[name][row] for row in good]
            result[name], _ = _column(kept, types.get(name), dialect.decimal, absent)
    sentences = [sentence for _, sentence in sorted(problems)]
    return Table(result, path.name, Skipped(len(sentences), tuple(sentences[:SKIPPED_EXAMPLES])))


def _rows(
    text: str, path: Path, dialect: Dialect, on_error: str
) -> tuple[list[int], list[list[str]], list[tuple[int, str]]]:
    """The lines and cells of the well-formed rows, and (line, sentence) of the others."""
    width = len(dialect.names)
    lines: list[int] = []
    rows: list[list[str]] = []
    problems: list[tuple[int, str]] = []
    try:
        for line, cells in rows_of(text, dialect.delimiter, dialect.quote, first_line=dialect.header_lines + 1):
            if len(cells) == width:
                lines.append(line)
                rows.append(cells)
                continue
            start = dialect.delimiter.join(cells)
            sentence = (
                f"{path.name}, line {line}: {len(cells)} cells where {width} were expected "
                f"({', '.join(dialect.names[:6])}"
                f"{', ...' if width > 6 else ''}); the line reads {start[:80]!r}"
            )
            problems.append((line, sentence))
            if on_error == "raise":
                break
    except ValueError as error:
        raise ValueError(f"{path.name}, {error}") from error
    if problems and on_error == "raise":
        raise ValueError(f"{problems[0][1]}. Correct it, or leave such rows out with on_error='skip'")
    return lines, rows, problems


def _column(
    cells: Sequence[str], wanted: str | None, decimal: str, absent: frozenset[str]
) -> tuple[Column, np.ndarray | None]:
    """The column of these cells, and which rows are bad (bool [n]) or None when none is."""
    if wanted in (None, "number"):
        quick = _plain_numbers(cells, decimal, absent)
        if quick is not None:
            return quick, None
    as_text = text_column(cells, absent)
    column, bad = interpret(as_text, wanted, decimal)
    if wanted == "boolean" and column.kind != "boolean":
        assert bad is not None
        return column, np.append(bad, True)[as_text.values]
    return column, None if bad is None or not bad.any() else np.append(bad, False)[as_text.values]


def _plain_numbers(cells: Sequence[str], decimal: str, absent: frozenset[str]) -> Column | None:
    """The short way for a column whose cells hold nothing but plain numbers; None sends it the long way."""
    gone = np.fromiter((cell in absent for cell in cells), bool, len(cells))
    present = [cell for cell in cells if cell not in absent] if gone.any() else cells
    signs = set("".join(present))
    if decimal != ".":
        if "." in signs:
            return None
        present = [cell.replace(decimal, ".") for cell in present]
        signs = {"." if sign == decimal else sign for sign in signs}
    if not present or not signs <= _PLAIN:
        return None
    try:
        if signs <= _DIGITS and not gone.any():
            return Column(_integers(present))
        values = np.full(len(cells), np.nan)
        values[~gone] = [float(cell) for cell in present]
    except ValueError:
        return None
    return Column(values)


def _integers(cells: Sequence[str]) -> np.ndarray:
    """int64, or float64 where one is beyond 64 bits."""
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except OverflowError:
        return np.array([float(cell) for cell in cells], np.float64)


def _sentence(
    path: Path, line: int, name: str, cell: str, wanted: str | None, bad: np.ndarray, cells: Sequence[str]
) -> str:
    if wanted is not None:
        shown = (
            "a missing cell"
            if not cell or (wanted == "boolean" and cell.strip().lower() in ("na", "nan", "null"))
            else repr(cell[:60])
        )
        return (
            f"{path.name}, line {line}, column {name!r}: {shown} is not {_EXPECTED[wanted]}, which "
            f"types={{{name!r}: {wanted!r}}} asks "
            "for. Correct it, add it to missing=, or leave such rows out with on_error='skip'"
        )
    good = len(cells) - int(bad.sum())
    return (
        f"{path.name}, line {line}, column {name!r}: {cell[:60]!r} is not a number, as the other {good:,} cells of "
        "this column are. Correct "
        f"it, say that it means no value (missing=[..., {cell[:60]!r}]), keep the column as text "
        f"(types={{{name!r}: 'text'}}), or leave "
        "such rows out (on_error='skip')"
    )


def _nothing(path: Path, dialect: Dialect, problems: list[tuple[int, str]]) -> str:
    if problems:
        return f"{path.name}: none of its {len(problems):,} rows can be read; the first: {min(problems)[1]}"
    return f"{path.name} has a header ({', '.join(dialect.names[:6])}) but no rows under it"
