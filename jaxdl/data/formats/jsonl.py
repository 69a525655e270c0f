"""JSON Lines: one object a line; nested objects become columns with dotted names."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdl.data.formats.source import decode, read_utf8
from jaxdl.data.schema import SKIPPED_EXAMPLES, Column, Skipped, check_choice, nearest, text_column
from jaxdl.data.table import Table


def read_jsonl(
    path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, on_error: Literal["raise", "skip"] = "raise"
) -> Table:
    """A table of one JSON object a line. A key that a line lacks, and null, are missing.

    The first value of a column says what it holds: a number, a bool, text, or a list of numbers (all lists of a column
    equally long). A line that differs, or is no JSON object, raises ValueError with its number, or is skipped and
    counted.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    found = Path(path)
    text = decode(read_utf8(found)[:], found, "utf-8")
    kinds: dict[str, tuple[str, int]] = {}
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = _flat(_parsed(line), "")
            _check_kinds(record, kinds, number)
        except ValueError as error:
            problems.append(f"{found.name}, line {number}: {error}")
            if on_error == "raise":
                raise ValueError(problems[0]) from error
            continue
        records.append(record)
    if not records:
        raise ValueError(problems[0] if problems else f"{found.name} holds no rows: all its lines are blank")
    for name in columns or ():
        if name not in kinds:
            raise ValueError(f"{found.name} has no column {name!r}{nearest(name, kinds)}")
    table = {
        name: _column([record.get(name) for record in records], kinds[name][0], name, found.name)
        for name in (columns or dict.fromkeys(key for record in records for key in record))
    }
    return Table(table, found.name, Skipped(len(problems), tuple(problems[:SKIPPED_EXAMPLES])))


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON ({error.msg} at column {error.colno}): {line[:60]!r}") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object such as {{'age': 31}} was expected, not {line[:60]!r}")
    return record


def _flat(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        parts = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        if doubled := flat.keys() & parts.keys():
            raise ValueError(f"the name {sorted(doubled)[0]!r} stands there twice, once as a nested object")
        flat.update(parts)
    return flat


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "text"
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    ):
        return f"list of {len(value)} numbers"
    raise ValueError(f"{json.dumps(value)[:60]} can be no column: numbers, text, true/false and lists of numbers can")


def _check_kinds(record: dict[str, Any], kinds: dict[str, tuple[str, int]], number: int) -> None:
    """Learns what new columns hold; raises where a known column holds something else. A bad line teaches nothing."""
    new: dict[str, tuple[str, int]] = {}
    for name, value in record.items():
        if value is None:
            continue
        try:
            kind = _kind(value)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from error
        known, since = kinds.get(name, (kind, number))
        if known != kind:
            raise ValueError(
                f"column {name!r} is {json.dumps(value)[:60]} ({kind}), but line {since} has a {known} there"
            )
        new[name] = (known, since)
    kinds.update(new)


def _column(cells: list[Any], kind: str, name: str, source: str) -> Column:
    present = [cell for cell in cells if cell is not None]
    if kind == "text":
        return text_column(cells)
    if kind == "bool":
        if len(present) == len(cells):
            return Column(np.array(cells, bool))
        return text_column([None if cell is None else str(cell).lower() for cell in cells])
    if kind == "number":
        whole = len(present) == len(cells) and all(isinstance(cell, int) and abs(cell) < 2**63 for cell in cells)
        return Column(
            np.array(cells, np.int64) if whole else np.array([np.nan if c is None else float(c) for c in cells])
        )
    if len(present) < len(cells):
        row = next(i for i, cell in enumerate(cells) if cell is None)
        raise ValueError(f"{source}: column {name!r} has no list in row {row} (counted from 0), but lists in others")
    return Column(np.array(cells, np.int64 if all(isinstance(v, int) for cell in cells for v in cell) else np.float64))
