"""Transforms of rows: duplicates dropped, two tables joined on keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxdl.data.schema import Column, check_choice, sorted_categories, text_column
from jaxdl.data.table import Table
from jaxdl.data.transforms.records import Fitted, chosen, record

_ANY = ("number", "boolean", "text", "time", "array")
_KEY = ("number", "boolean", "text", "time")


def group_ids(table: Table, names: Sequence[str]) -> np.ndarray:
    """int64 [n]: two rows have the same number when they are equal in all these columns (missing equals missing)."""
    ids = np.zeros(len(table), np.int64)
    for name in names:
        values = table.column(name).values
        if values.ndim > 1:
            rows = np.ascontiguousarray(values).reshape(len(values), -1)
            values = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        different, codes = np.unique(values, return_inverse=True)
        # Numbered afresh after each column, so that the product stays below rows squared.
        ids = np.unique(ids * len(different) + codes, return_inverse=True)[1]
    return ids


@dataclass(frozen=True, kw_only=True)
class Deduplicate:
    """Drops rows that equal an earlier (keep="first") or later (keep="last") one in `columns` (None: all).

    The order stays.
    """

    columns: Sequence[str] | None = None
    keep: Literal["first", "last"] = "first"

    def fit(self, table: Table) -> FittedDeduplicate:
        """Notes which columns to compare; duplicates are looked for anew in each table it is applied to."""
        check_choice("keep", self.keep, ("first", "last"))
        return FittedDeduplicate(tuple(chosen(table, self.columns, _ANY, "Deduplicate")), self.keep)


@record("deduplicate")
@dataclass(frozen=True)
class FittedDeduplicate(Fitted):
    """The columns to compare. Those that a table lacks, such as the label when predicting, raise ValueError."""

    columns: tuple[str, ...]
    keep: str

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        if keep_rows:
            return table
        ids = group_ids(table, chosen(table, self.columns, _ANY, "Deduplicate"))
        if self.keep == "first":
            kept = np.unique(ids, return_index=True)[1]
        else:
            kept = len(ids) - 1 - np.unique(ids[::-1], return_index=True)[1]
        return table.rows(np.sort(kept))


def join(
    left: Table,
    right: Table,
    *,
    on: str | Sequence[str],
    how: Literal["left", "inner"] = "left",
    many: bool = False,
    suffix: str = "_right",
) -> Table:
    """The rows of `left` beside those of `right` whose keys `on` are equal, in the order of `left`, then `right`.

    how="left" keeps rows without a match, the right columns missing there; "inner" drops them. Missing keys match
    nothing. A key that occurs more than once in `right` would multiply rows: it raises ValueError unless many=True. A
    right column whose name is taken gets the suffix.
    """
    check_choice("how", how, ("left", "inner"))
    keys = [on] if isinstance(on, str) else list(on)
    if not keys:
        raise ValueError("join: on= names no key column")
    for table in (left, right):
        chosen(table, keys, _KEY, "join")
    both = group_ids(Table.concat([left.select(keys), right.select(keys)]), keys)
    ours, theirs = both[: len(left)], both[len(left) :]
    present = ~np.any([right.column(key).mask for key in keys], axis=0)
    order = np.flatnonzero(present)[np.argsort(theirs[present], kind="stable")]
    sorted_ids = theirs[order]
    if not many and (sorted_ids[1:] == sorted_ids[:-1]).any():
        row = int(order[1:][sorted_ids[1:] == sorted_ids[:-1]][0])
        key = ", ".join(f"{name}={right.column(name).shown(row)}" for name in keys)
        raise ValueError(
            f"join: the key {key} occurs more than once in {right.source}, which would multiply the rows of "
            f"{left.source}; drop the "
            "duplicates (Deduplicate), or pass many=True"
        )
    start = np.searchsorted(sorted_ids, ours, "left")
    counts = np.searchsorted(sorted_ids, ours, "right") - start
    times = np.maximum(counts, 1) if how == "left" else counts
    rows = np.repeat(np.arange(len(left)), times)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    matched = counts[rows] > 0
    at = np.where(matched, start[rows] + nth, 0)
    partners = np.where(matched, order[at] if len(order) else 0, -1)
    joined = dict(left.rows(rows).columns)
    for name in right.names:
        if name in keys:
            continue
        new = f"{name}{suffix}" if name in joined else name
        if new in joined:
            raise ValueError(
                f"join: both tables have a column {name!r}, and {new!r} is taken as well; choose another suffix="
            )
        joined[new] = _with_gaps(right.column(name), partners, name, right.source)
    return Table(joined, left.source, left.skipped)


def _with_gaps(column: Column, rows: np.ndarray, name: str, source: str) -> Column:
    """The column at `rows`, missing where the row is -1."""
    gone = rows < 0
    if not gone.any():
        return column.take(rows)
    if column.kind == "array":
        raise ValueError(
            f"join: {int(gone.sum()):,} rows have no match in {source}, and its array column {name!r} cannot be "
            "missing; use how='inner'"
        )
    if column.kind == "boolean":
        column = sorted_categories(column.values.astype(np.int32), ("false", "true"))
    values = column.values
    if column.kind == "number" and values.dtype.kind != "f":
        values = values.astype(np.float64)
    absent: Any = -1 if column.kind == "text" else np.datetime64("NaT", "us") if column.kind == "time" else np.nan
    taken = np.full(len(rows), absent, values.dtype)
    taken[~gone] = values[rows[~gone]]
    return Column(taken, column.categories)


@dataclass(frozen=True, kw_only=True)
class Join:
    """`join` as a transform: the right table is saved with the record, so it is for small look-up tables."""

    right: Table
    on: str | Sequence[str]
    how: Literal["left", "inner"] = "left"
    suffix: str = "_right"

    def fit(self, table: Table) -> FittedJoin:
        """Keeps the right table; its keys must be unique. Array columns cannot be kept and raise ValueError."""
        keys = (self.on,) if isinstance(self.on, str) else tuple(self.on)
        columns = {name: _saved(self.right.column(name), name) for name in self.right.names}
        check_choice("how", self.how, ("left", "inner"))
        fitted = FittedJoin(columns, keys, self.how, self.suffix, self.right.source)
        fitted.apply(table.head(0))
        return fitted


@record("join")
@dataclass(frozen=True)
class FittedJoin(Fitted):
    """The right table, column by column as (dtype, values), and how to join it."""

    columns: Mapping[str, tuple[str, tuple[Any, ...]]]
    on: tuple[str, ...]
    how: str
    suffix: str
    source: str

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        right = Table.from_columns({name: _loaded(*saved) for name, saved in self.columns.items()}, source=self.source)
        how: Literal["left", "inner"] = "inner" if self.how == "inner" and not keep_rows else "left"
        return join(table, right, on=self.on, how=how, suffix=self.suffix)


def _saved(column: Column, name: str) -> tuple[str, tuple[Any, ...]]:
    if column.kind == "array":
        raise ValueError(f"Join: the array column {name!r} cannot be kept in a transform; use the function join")
    if column.kind == "time":
        return "time", tuple(
            None if gone else str(value) for gone, value in zip(column.mask, column.values, strict=True)
        )
    values = tuple(None if gone else value for gone, value in zip(column.mask, column.decoded().tolist(), strict=True))
    return "text" if column.kind == "text" else str(column.values.dtype), values


def _loaded(dtype: str, values: tuple[Any, ...]) -> Any:
    if dtype == "text":
        return text_column(values)
    if dtype == "time":
        return np.array(["NaT" if value is None else value for value in values], "datetime64[us]")
    return np.array([np.nan if value is None else value for value in values], dtype)
