"""What all transforms share: a setting is fitted to a table, and the fitted record is applied, saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from jaxdl.data.schema import Column, nearest, sorted_categories
from jaxdl.data.table import Table


class Fitted(ABC):
    """A fitted transform: a frozen record of what it learned, made of numbers and text only."""

    transform: ClassVar[str]

    @abstractmethod
    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        """The transformed table.

        Keep_rows=True leaves out whatever would drop rows, so that predictions stay beside their rows.
        """

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON takes it; `fitted_from_dict` gives back an equal one."""
        return {"transform": self.transform, **{item.name: _plain(getattr(self, item.name)) for item in fields(self)}}  # type: ignore[arg-type]


class Transform(Protocol):
    """The setting of a transform, not yet fitted."""

    def fit(self, table: Table) -> Fitted: ...


FittedType = TypeVar("FittedType", bound=type[Fitted])
_KNOWN: dict[str, type[Fitted]] = {}


def record(name: str) -> Callable[[FittedType], FittedType]:
    """Names a fitted record in files, so that it can be loaded again."""

    def named(cls: FittedType) -> FittedType:
        cls.transform = name
        _KNOWN[name] = cls
        return cls

    return named


def fitted_from_dict(saved: Mapping[str, Any]) -> Fitted:
    """The fitted transform that `to_dict` wrote.

    Raises ValueError for an unknown name or for missing or surplus entries.
    """
    name = saved.get("transform")
    if name not in _KNOWN:
        raise ValueError(f"{name!r} is no transform that this version knows{nearest(name, _KNOWN)}")
    cls = _KNOWN[name]
    wanted = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    given = set(saved) - {"transform"}
    if wanted != given:
        raise ValueError(f"the saved {name} has the entries {sorted(given)}, but {sorted(wanted)} are needed")
    return cls(**{key: _frozen(saved[key]) for key in wanted})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def chosen(table: Table, columns: Sequence[str] | None, kinds: Sequence[str], what: str) -> list[str]:
    """The columns to work on: those named, each of which must be of one of `kinds`, or all of these kinds."""
    if isinstance(columns, str):
        raise TypeError(f"{what}: columns is the single text {columns!r}; pass a list, [{columns!r}]")
    if columns is None:
        return [name for name in table if table.column(name).kind in kinds]
    for name in columns:
        if name not in table:
            raise ValueError(f"{what}: {table.source} has no column {name!r}{nearest(name, table)}")
        kind = table.column(name).kind
        if kind not in kinds:
            raise ValueError(
                f"{what}: column {name!r} of {table.source} holds {kind}, but {' or '.join(kinds)} is needed"
            )
    return list(columns)


def learned_column(table: Table, name: str, kind: str, what: str) -> Column:
    """A column that a fitted transform needs again; one that is gone or has changed its kind raises ValueError."""
    if name not in table:
        raise ValueError(
            f"{what} learned from a column {name!r}, which {table.source} does not have{nearest(name, table)}"
        )
    column = table.column(name)
    if kind == "text" and column.kind == "boolean":
        return sorted_categories(column.values.astype(np.int32), ("false", "true"))
    if column.kind != kind:
        example = f", such as {column.shown(0)!r}" if len(table) else ""
        raise ValueError(
            f"{what} learned from {kind} in column {name!r}, but {table.source} has {column.kind} there{example}; "
            f"declare it when reading: types={{{name!r}: {kind!r}}}"
        )
    return column


def finite_values(table: Table, name: str, what: str) -> np.ndarray:
    """The present values of a number column as float64; raises ValueError when there is none or one is infinite."""
    column = table.column(name)
    values = column.values[~column.mask].astype(np.float64)
    if not len(values):
        raise ValueError(f"{what}: all values of column {name!r} of {table.source} are missing; leave the column out")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(np.isinf(column.values))[0])
        raise ValueError(
            f"{what}: column {name!r} of {table.source} is infinite in row {row} (counted from 0); clip or drop it "
            "first"
        )
    return values
