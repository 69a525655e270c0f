"""The libsvm format: `label[:weight] [qid:n] index:value index:value ...`, one example a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from jaxdl.data.formats.source import decode, read_utf8
from jaxdl.data.schema import SKIPPED_EXAMPLES, Column, Skipped, check_choice, number_of
from jaxdl.data.table import Table

_DENSE_BYTES = 4 << 30


def read_libsvm(
    path: str | os.PathLike[str],
    *,
    features: int | None = None,
    first_index: Literal[0, 1] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Table:
    """A table with `label` (integers where all are whole), `x` float32 `[n, d]`, and `weight` and `qid` where found.

    features: d; None takes the largest index seen, so give it where a validation file may lack the last features.
    first_index: whether indices count from 0 or 1; None means 0 when an index 0 occurs, else 1. x is dense: beyond 4
    GiB it raises ValueError.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    found = Path(path)
    text = decode(read_utf8(found)[:], found, "utf-8")
    labels: list[float] = []
    weights: list[float] = []
    queries: list[int] = []
    starts, indices, values = [0], [], []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            label, weight, query, at, what = _example(words)
        except ValueError as error:
            problems.append(f"{found.name}, line {number}: {error}")
            if on_error == "raise":
                raise ValueError(problems[0]) from error
            continue
        labels.append(label)
        weights.append(weight)
        queries.append(query)
        indices.extend(at)
        values.extend(what)
        starts.append(len(indices))
    if not labels:
        raise ValueError(problems[0] if problems else f"{found.name} holds no examples: all its lines are blank")
    column = np.array(indices, np.int64)
    first = first_index if first_index is not None else int(not (column == 0).any())
    column -= first
    if len(column) and column.min() < 0:
        raise ValueError(f"{found.name} has the feature index 0, but first_index=1 says that they count from 1")
    width = features if features is not None else int(column.max()) + 1 if len(column) else 0
    if width == 0:
        raise ValueError(f"{found.name} has labels but no feature index:value at all")
    if len(column) and column.max() >= width:
        raise ValueError(
            f"{found.name} has the feature index {column.max() + first}, but features={width} allows "
            f"{width - 1 + first} at most"
        )
    if 4 * width * len(labels) > _DENSE_BYTES:
        raise ValueError(
            f"{found.name}: {len(labels):,} examples of {width:,} features are {4e-9 * width * len(labels):.1f} GB as "
            "float32, more than the "
            "4 GiB that this reader makes dense; hash or select the features first"
        )
    x = np.zeros((len(labels), width), np.float32)
    x[np.repeat(np.arange(len(labels)), np.diff(starts)), column] = values
    y = np.array(labels)
    whole = bool((y == np.round(y)).all()) and float(np.abs(y).max()) < 2**53
    columns = {"label": Column(y.astype(np.int64) if whole else y), "x": Column(x)}
    if any(weight != 1.0 for weight in weights):
        columns["weight"] = Column(np.array(weights))
    if any(query >= 0 for query in queries):
        columns["qid"] = Column(np.array(queries, np.int64))
    return Table(columns, found.name, Skipped(len(problems), tuple(problems[:SKIPPED_EXAMPLES])))


def _example(words: list[str]) -> tuple[float, float, int, list[int], list[float]]:
    """label, weight (1 where none), query (-1 where none), indices, values."""
    label, _, weight = words[0].partition(":")
    query = -1
    at: list[int] = []
    what: list[float] = []
    for word in words[1:]:
        index, colon, value = word.partition(":")
        if not colon:
            raise ValueError(f"{word!r} is no index:value")
        if index == "qid":
            query = int(_number(value, "the query number"))
            continue
        if not (index.isascii() and index.isdigit()):
            raise ValueError(f"the feature index {index!r} of {word!r} is no whole number >= 0")
        if at and int(index) == at[-1]:
            raise ValueError(f"the feature index {index} stands there twice")
        at.append(int(index))
        what.append(_number(value, f"the value of feature {index}"))
    return _number(label, "the label"), _number(weight, "the weight") if weight else 1.0, query, at, what


def _number(text: str, what: str) -> float:
    number = number_of(text)
    if number is None or (what == "the label" and not np.isfinite(number)):
        raise ValueError(f"{what} is {text!r}, which is no {'finite ' if number is not None else ''}number")
    return float(number)
