"""A table: named columns of numbers, text, times or images, read once and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl.data.labels import Target, encode_labels, encode_weights
from jaxdl.data.schema import Column, Field, Skipped, nearest, text_column

if TYPE_CHECKING:
    from jaxdl.data.dataset import Dataset

_SHOWN_COLUMNS = 8
_SHOWN_CATEGORIES = 4


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Named columns of equal length.

    `table["age"]` is a NumPy array (text as an object array of str, None where missing); `table.column("age")` also has
    the kind, the categories and the mask of missing values. `skipped` counts the rows that a reader left out, with a
    sentence for the first few.

    >>> table = Table.from_columns({"age": [31, 45, 27], "job": ["cook", "smith", None]})
    >>> table.schema[1]
    Field(name='job', kind='text', dtype='int32', categories=('cook', 'smith'), missing=1)
    """

    columns: Mapping[str, Column]
    source: str = "table"
    skipped: Skipped = field(default_factory=Skipped)

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError(f"{self.source} has no columns")
        lengths = {name: len(column.values) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            first, other = next(iter(lengths)), next(n for n in lengths if lengths[n] != next(iter(lengths.values())))
            raise ValueError(
                f"{self.source}: column {other!r} has {lengths[other]} rows, but {first!r} has {lengths[first]}; "
                "all columns of a table must be equally long"
            )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, source: str = "table") -> Table:
        """A table of arrays or lists: numbers, bools, str (None is missing), datetime64, or arrays `[n, ...]`.

        Arrays are kept without a copy, except object and str arrays, which become codes.
        """
        return cls({str(name): column_from(values, str(name), source) for name, values in columns.items()}, source)

    @classmethod
    def from_arrow(cls, frame: Any, *, source: str | None = None) -> Table:
        """A table of anything with `__arrow_c_stream__`: pandas, polars, pyarrow. Needs pyarrow."""
        from jaxdl.data.formats.arrow import columns_from_arrow

        source = source or f"{type(frame).__module__.split('.')[0]} {type(frame).__name__}"
        return cls(columns_from_arrow(frame, source), source)

    @classmethod
    def concat(cls, tables: Iterable[Table], *, source: str | None = None) -> Table:
        """The rows of several tables of the same columns, one after the other.

        Text columns share the union of the categories.
        """
        parts = list(tables)
        if not parts:
            raise ValueError("there is no table to join into one: the list is empty")
        first = parts[0]
        for part in parts[1:]:
            if set(part.names) != set(first.names):
                differing = sorted(set(part.names) ^ set(first.names))
                raise ValueError(f"{part.source} and {first.source} have different columns: {differing} in one only")
        columns = {name: _stacked(name, [(part.source, part.column(name)) for part in parts]) for name in first.names}
        skipped = parts[0].skipped
        for part in parts[1:]:
            skipped = skipped + part.skipped
        return cls(columns, source or first.source, skipped)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self.column(name).decoded()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self.columns)

    @property
    def schema(self) -> tuple[Field, ...]:
        """Name, kind, dtype, categories and count of missing values of every column."""
        return tuple(
            Field(name, column.kind, str(column.values.dtype), column.categories, column.missing)
            for name, column in self.columns.items()
        )

    def column(self, name: str) -> Column:
        """One column with its kind and categories; an unknown name raises KeyError with the nearest known one."""
        if name not in self.columns:
            raise KeyError(f"{self.source} has no column {name!r}{nearest(name, self.columns)}")
        return self.columns[name]

    def select(self, names: Sequence[str]) -> Table:
        """The table of these columns only, in this order."""
        return replace(self, columns={name: self.column(name) for name in names})

    def drop(self, names: str | Sequence[str]) -> Table:
        """The table without these columns."""
        gone = {names} if isinstance(names, str) else set(names)
        for name in gone:
            self.column(name)
        return replace(self, columns={name: column for name, column in self.columns.items() if name not in gone})

    def rename(self, names: Mapping[str, str]) -> Table:
        """The table with columns called anew, `{old: new}`; two columns of one name raise ValueError."""
        for name in names:
            self.column(name)
        renamed = [names.get(name, name) for name in self.columns]
        if doubled := sorted({name for name in renamed if renamed.count(name) > 1}):
            raise ValueError(f"{self.source}: renaming gives more than one column the name {doubled[0]!r}")
        return replace(self, columns=dict(zip(renamed, self.columns.values(), strict=True)))

    def with_columns(self, columns: Mapping[str, Any]) -> Table:
        """The table with columns added or put in the place of those of the same name."""
        added = {name: column_from(values, name, self.source) for name, values in columns.items()}
        return replace(self, columns={**self.columns, **added})

    def rows(self, indices: Any) -> Table:
        """The rows at `indices` (integers [m], a bool mask [n] or a slice), in that order."""
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.dtype.kind == "b" and len(indices) != len(self):
                raise ValueError(f"{self.source}: a mask of {len(indices)} rows for a table of {len(self)}")
            if indices.size == 0:
                indices = indices.astype(np.int64)
        return replace(self, columns={name: column.take(indices) for name, column in self.columns.items()})

    def head(self, count: int = 5) -> Table:
        """The first rows."""
        return self.rows(slice(0, count))

    def equals(self, other: Table) -> bool:
        """True when names, kinds, dtypes and values are equal (missing equals missing, text is compared as text)."""
        if self.names != other.names or len(self) != len(other):
            return False
        for name, mine in self.columns.items():
            theirs = other.columns[name]
            a, b = mine.decoded(), theirs.decoded()
            if (mine.kind, a.dtype, a.shape) != (theirs.kind, b.dtype, b.shape):
                return False
            if not (np.array_equal(a, b, equal_nan=True) if a.dtype.kind in "fM" else np.array_equal(a, b)):
                return False
        return True

    def to_dataset(
        self,
        label: str | None = None,
        *,
        weight: str | None = None,
        features: Sequence[str] | None = None,
        target: Target = "auto",
        classes: Sequence[str] | None = None,
        missing: str = "raise",
    ) -> Dataset:
        """The arrays to train on: `x`, with `label=` also `y`, with `weight=` also `weight`.

        x: float32 `[n, d]` of the number, boolean and flat array columns in order; a lone array column (images `[n, h,
        w, c]`) is passed on as it is, memory maps included. Text or a missing value among them raises: see
        `tabular_features` (`missing="keep"` leaves NaN). y: see `labels.encode_labels` for the rule of `target`;
        `classes` fixes the classes and their order, as a model learned them.
        """
        from jaxdl.data.dataset import Dataset

        used = [name for name in (label, weight) if name is not None]
        chosen = list(features) if features is not None else [name for name in self.columns if name not in used]
        arrays = {"x": feature_matrix(self, chosen, missing=missing)}
        names: tuple[str, ...] | None = None
        if label is not None:
            arrays["y"], names = encode_labels(self.column(label), label, self.source, target, classes)
        if weight is not None:
            arrays["weight"] = encode_weights(self.column(weight), weight, self.source)
        return Dataset(arrays, names, self.source)

    def summary(self) -> str:
        """One line a column: name, kind, dtype, missing and what its values are."""
        lines: list[tuple[str, ...]] = [("column", "kind", "dtype", "missing", "values")]
        for name, column in self.columns.items():
            lines.append((name, column.kind, str(column.values.dtype), f"{column.missing:,}", _described(column)))
        return f"{self._title()}\n{_aligned(lines)}"

    def __repr__(self) -> str:
        shown = list(self.columns)[:_SHOWN_COLUMNS]
        lines = [tuple(shown)]
        for row in range(min(5, len(self))):
            lines.append(tuple(self.columns[name].shown(row) for name in shown))
        more = len(self.columns) - len(shown)
        note = f"\n... and {more} more column{'s' if more > 1 else ''}: .summary() lists all" if more else ""
        return f"{self._title()}\n{_aligned(lines)}{note}"

    def _title(self) -> str:
        left_out = f", {self.skipped.count:,} bad rows left out" if self.skipped.count else ""
        return f"{self.source}: {len(self):,} rows, {len(self.columns)} columns{left_out}"


def column_from(values: Any, name: str, source: str = "table") -> Column:
    """A column of an array or a list; see `Table.from_columns`."""
    if isinstance(values, Column):
        return values
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.ndim == 0:
        raise TypeError(f"{source}: column {name!r} is a single value; a column needs one value for each row")
    if array.dtype.kind in "biu" or (array.dtype.kind == "f" and array.dtype.itemsize <= 8):
        return Column(array)
    if array.dtype.kind == "M":
        return Column(array.astype("datetime64[us]"))
    if array.ndim > 1 or array.dtype.kind not in "OUT":
        raise TypeError(
            f"{source}: column {name!r} has dtype {array.dtype} and shape {list(array.shape)}; "
            "a column holds numbers, bools, str or datetime64"
        )
    # Lists such as [1, None] or ["a", None] come as objects, and NumPy would have turned ["a", 1] into text: read from
    # the original.
    cells = list(values) if not isinstance(values, np.ndarray) else array.tolist()
    present = [cell for cell in cells if cell is not None and not (isinstance(cell, float) and np.isnan(cell))]
    if not present and cells:
        return Column(np.full(len(cells), np.nan))
    if all(isinstance(cell, str) for cell in present):
        return text_column([cell if isinstance(cell, str) else None for cell in cells])
    if all(isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool) for cell in present):
        return Column(np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64))
    odd = {type(cell).__name__ for cell in present}
    raise TypeError(
        f"{source}: column {name!r} holds values of {', '.join(sorted(odd))} together; all must be numbers, or all str"
    )


def feature_matrix(table: Table, names: Sequence[str], *, missing: str = "raise") -> np.ndarray:
    """float32 `[n, d]` of these columns side by side; a lone array column is returned untouched.

    Text raises ValueError.
    """
    if missing not in ("raise", "keep"):
        raise ValueError(f"missing is {missing!r}, which is unknown{nearest(missing, ('raise', 'keep'))}")
    if not names:
        raise ValueError(f"{table.source}: no feature columns are left to learn from")
    columns = [table.column(name) for name in names]
    if len(columns) == 1 and columns[0].kind == "array":
        return columns[0].values
    for name, column in zip(names, columns, strict=True):
        if column.kind in ("text", "time") or column.values.ndim > 2:
            what = (
                f"is an array of shape {list(column.values.shape)}"
                if column.kind == "array"
                else f"holds {column.kind}"
            )
            raise ValueError(
                f"{table.source}: the feature column {name!r} {what}, and a model needs numbers: encode it "
                "(tabular_features(table, label=...) or OneHot), or leave it out with features=[...] or table.drop(...)"
            )
        if missing == "raise" and column.mask.any():
            raise ValueError(
                f"{table.source}: column {name!r} has {column.missing:,} missing values, the first in row "
                f"{int(column.mask.argmax())} (counted from 0): fill them with Impute or tabular_features(table, "
                "label=...), or pass missing='keep' for a model that accepts NaN"
            )
    widths = [1 if column.values.ndim == 1 else column.values.shape[1] for column in columns]
    matrix = np.empty((len(table), sum(widths)), np.float32)
    start = 0
    for column, width in zip(columns, widths, strict=True):
        matrix[:, start : start + width] = column.values.reshape(len(table), width)
        start += width
    return matrix


def _stacked(name: str, parts: list[tuple[str, Column]]) -> Column:
    kinds = {column.kind: source for source, column in parts}
    if len(kinds) > 1:
        said = " and ".join(f"{kind} in {source}" for kind, source in kinds.items())
        raise ValueError(f"column {name!r} holds {said}; declare it in both, as in types={{{name!r}: 'text'}}")
    columns = [column for _, column in parts]
    if columns[0].categories is None:
        shapes = {column.values.shape[1:] for column in columns}
        if len(shapes) > 1:
            raise ValueError(f"column {name!r} holds arrays of different shapes: {sorted(map(list, shapes))}")
        return Column(np.concatenate([column.values for column in columns]))
    words = sorted({word for column in columns for word in column.categories or ()})
    rank = {word: code for code, word in enumerate(words)}
    moved = []
    for column in columns:
        codes = np.array([*(rank[word] for word in column.categories or ()), -1], np.int32)
        moved.append(codes[column.values])
    return Column(np.concatenate(moved), tuple(words))


def _described(column: Column) -> str:
    if column.categories is not None:
        words = [word if len(word) <= 20 else word[:17] + "..." for word in column.categories[:_SHOWN_CATEGORIES]]
        more = ", ..." if len(column.categories) > _SHOWN_CATEGORIES else ""
        return f"{len(column.categories):,} categories: {', '.join(words)}{more}".replace("\n", "\\n")
    if column.kind == "array":
        return f"shape {list(column.values.shape[1:])}"
    present = column.values[~column.mask]
    if not len(present):
        return "all missing"
    if column.kind == "boolean":
        return f"{int(present.sum()):,} true"
    if column.kind == "time":
        return f"{present.min()} to {present.max()}"
    with np.errstate(invalid="ignore"):
        return f"{present.min():.6g} to {present.max():.6g}, mean {present.mean():.6g}"


def _aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
