"""Columns of equal length: what fit, evaluate and predict take."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

RESERVED = {"part": "the number of a microbatch"}
WHOLE_BYTES = 2**30  # up to here a fingerprint reads every byte
SAMPLED_ROWS = 4096
BLOCK_BYTES = 2**24  # a memory map is checked and hashed in pieces of this size


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named columns of examples, checked once.

    Args:
        columns: arrays by name with an equal first dimension, one entry an example: "x", "y", optionally "weight"
            ([n], zero or more) and any other. Memory maps stay on disk. Nested lists are made into arrays.
        classes: the names of the integer labels in "y", in the order of their numbers.
        name: what messages call these data.

    Raises:
        TypeError: a column is no array of numbers (objects, text, dates).
        ValueError: there is no column or no example, lengths differ, "y" or "weight" holds NaN or infinity (the row is
            named), or labels do not fit `classes`.
    """

    columns: Mapping[str, np.ndarray]
    classes: tuple[str, ...] | None = None
    name: str = "data"

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping):
            raise TypeError(f"columns must be a mapping of arrays by name, not {type(self.columns).__name__}")
        columns = {name: _as_column(self.name, name, value) for name, value in self.columns.items()}
        if not columns:
            raise ValueError(f"{self.name} has no columns: give at least 'x'")
        _check_lengths(self.name, columns)
        if "y" in columns:
            _check_finite(self.name, "y", columns["y"])
        if "weight" in columns:
            _check_weight(self.name, columns["weight"])
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(str(each) for each in self.classes))
            _check_labels(self.name, columns.get("y"), self.classes)
        object.__setattr__(self, "columns", MappingProxyType(columns))

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise KeyError(f"{self.name} has no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.columns.items())
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Dataset({self.name!r}, {len(self)} examples: {shapes}{classes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (dict(self.columns), self.classes, self.name)

    def select(self, indices: Any) -> Dataset:
        """The examples at these indices (integers, a boolean mask of length n, or a slice), in this order."""
        if isinstance(indices, slice):
            return self.replace(columns={name: array[indices] for name, array in self.columns.items()})
        rows = np.asarray(indices)
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                raise ValueError(f"a mask over {self.name} needs shape [{len(self)}], it has {list(rows.shape)}")
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
            raise TypeError(
                f"indices into {self.name} must be a vector of integers, not {rows.dtype}{list(rows.shape)}"
            )
        rows = rows.astype(np.int64, copy=False)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            wrong = rows.min() if rows.min() < 0 else rows.max()
            raise IndexError(f"index {wrong} is outside {self.name}, which has examples 0 to {len(self) - 1}")
        return self.replace(columns={name: np.take(array, rows, axis=0) for name, array in self.columns.items()})

    def replace(
        self,
        *,
        columns: Mapping[str, Any] | None = None,
        classes: tuple[str, ...] | None = None,
        name: str | None = None,
    ) -> Dataset:
        """A copy with other columns, classes or name; what is None stays."""
        return Dataset(
            self.columns if columns is None else columns,
            self.classes if classes is None else classes,
            self.name if name is None else name,
        )

    def fingerprint(self) -> str:
        """A hex digest of names, shapes, dtypes, classes and content; equal data have equal ones on every machine.

        Content enters as the crc32 of each column's bytes (little-endian, row by row). Above 1 GiB only a fixed, evenly
        spaced sample of 4,096 rows and the last row is read, and the digest says so: it starts with "sampled-".
        """
        sampled = sum(array.nbytes for array in self.columns.values()) > WHOLE_BYTES
        digest = hashlib.sha256(repr(self.classes).encode())
        for name in sorted(self.columns):
            array = self.columns[name]
            if sampled:
                step = max(1, len(array) // SAMPLED_ROWS)
                crc = _crc(np.concatenate([array[::step], array[-1:]]))
            else:
                crc = _crc(array)
            digest.update(repr((name, array.shape, array.dtype.newbyteorder("<").str, crc)).encode())
        return ("sampled-" if sampled else "") + digest.hexdigest()[:32]


def as_dataset(data: Any, *, name: str = "data") -> Dataset:
    """A Dataset from what people have at hand: a Dataset, {"x": ..., "y": ...}, (x,), (x, y) or (x, y, weight).

    Raises:
        TypeError: for anything else; tables (pandas, polars, Arrow) are pointed to `jaxdl.data.Table`.
    """
    if isinstance(data, Dataset):
        return data
    if hasattr(data, "__arrow_c_stream__"):
        raise TypeError(
            f"{name} is a table ({type(data).__module__}.{type(data).__name__}), whose columns have to become numbers "
            "first: jaxdl.data.Table(...) takes it, and its dataset(label=...) gives what fit takes"
        )
    if isinstance(data, Mapping):
        return Dataset(data, name=name)
    if isinstance(data, tuple | list) and 1 <= len(data) <= 3 and all(hasattr(each, "shape") for each in data):
        return Dataset(dict(zip(("x", "y", "weight"), data, strict=False)), name=name)
    if hasattr(data, "shape"):
        raise TypeError(f"{name} is one array: write ({name},) for inputs alone or ({name}, y) for inputs and labels")
    raise TypeError(
        f"{name} is {type(data).__name__}; give a jaxdl.data.Dataset, a mapping such as {{'x': x, 'y': y}}, or a tuple "
        "of arrays (x,), (x, y) or (x, y, weight)"
    )


def blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) pieces of a column, each about 16 MB, so that a memory map never comes in whole."""
    rows = max(1, BLOCK_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _as_column(data: str, name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"{data} has a column called {name!r}: names are text")
    if name in RESERVED:
        raise ValueError(f"{data} has a column {name!r}: that name is kept for {RESERVED[name]}, choose another")
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as problem:
        raise ValueError(f"column {name!r} of {data} does not make an array: {problem}") from problem
    if array.ndim == 0:
        raise ValueError(f"column {name!r} of {data} is the single value {array}; one entry an example is needed")
    if array.dtype.kind == "O":
        kinds = sorted({type(each).__name__ for each in array.ravel()[:100]})
        raise TypeError(
            f"column {name!r} of {data} has dtype object (it holds {', '.join(kinds)}): make it one array of numbers, "
            "with np.stack for rows of equal length"
        )
    if array.dtype.kind in "US":
        raise TypeError(
            f"column {name!r} of {data} holds text (dtype {array.dtype}): give class numbers and the names as classes, "
            "as in classes, y = np.unique(y, return_inverse=True)"
        )
    if array.dtype.kind in "Mm":
        raise TypeError(f"column {name!r} of {data} holds dates ({array.dtype}): make them numbers first")
    if array.dtype.names is not None:
        raise TypeError(f"column {name!r} of {data} has fields {array.dtype.names}: give each as its own column")
    return array


def _check_lengths(data: str, columns: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"the columns of {data} differ in their number of examples: {listed}")
    if next(iter(lengths.values())) == 0:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in columns.items())
        raise ValueError(f"{data} holds no examples: {shapes}")


def _check_finite(data: str, name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "fc":
        return
    for start, rows in blocks(array):
        good = np.isfinite(rows)
        if not good.all():
            where = np.argwhere(~good)[0]
            spot = "" if len(where) == 1 else f", position {tuple(int(i) for i in where[1:])}"
            raise ValueError(
                f"column {name!r} of {data} is {rows[tuple(where)]} in row {start + int(where[0])}{spot} (rows count "
                "from 0): every value must be finite; drop or mend such rows"
            )


def _check_weight(data: str, weight: np.ndarray) -> None:
    if weight.ndim != 1:
        raise ValueError(f"'weight' of {data} has shape {list(weight.shape)}: one number an example is needed")
    _check_finite(data, "weight", weight)
    if weight.min() < 0:
        row = int(np.argmax(np.asarray(weight) < 0))
        raise ValueError(f"'weight' of {data} is {weight[row]} in row {row}: weights are zero or more")


def _check_labels(data: str, y: np.ndarray | None, classes: tuple[str, ...]) -> None:
    if len(set(classes)) != len(classes):
        twice = next(each for each in classes if classes.count(each) > 1)
        raise ValueError(f"the classes of {data} name {twice!r} twice")
    if y is None:
        return
    if y.dtype.kind == "f":
        whole = all(bool((rows == np.floor(rows)).all()) for _, rows in blocks(y))
        hint = "they are whole numbers, so y.astype('int32') is right" if whole else "they are not whole numbers"
        raise TypeError(f"'y' of {data} is {y.dtype} but classes are given, so it must hold class numbers: {hint}")
    # Segmentation maps mark ignored pixels with numbers outside the classes; one label an example has no such use.
    if y.ndim == 1 and y.dtype.kind in "iu":
        for start, rows in blocks(y):
            outside = (rows < 0) | (rows >= len(classes))
            if outside.any():
                row = int(np.argmax(outside))
                raise ValueError(
                    f"'y' of {data} is {rows[row]} in row {start + row}, but there are {len(classes)} classes, "
                    f"numbered 0 to {len(classes) - 1}"
                )


def _crc(array: np.ndarray) -> int:
    crc = 0
    for _, rows in blocks(array):
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        crc = zlib.crc32(little.reshape(-1).view(np.uint8).data, crc)
    return crc
