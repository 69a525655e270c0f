"""Labels: a column becomes class numbers with their names, or numbers to regress on, by one written rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxdl.data.schema import Column, check_choice, nearest

Target = Literal["auto", "class", "number"]

# target="auto": an integer column with at most this many different values, each twice on average, names classes.
MOST_INTEGER_CLASSES = 20


def encode_labels(
    column: Column, name: str, source: str, target: Target = "auto", classes: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """y and the names of its classes (None when y is a number).

    target="class": int32 [n]; text and booleans are their own class names, sorted; whole numbers are classes named by
    their digits, in the order of their values. target="number": float32, [n] or, from an array column, [n, k].
    target="auto": class for text and booleans and for integers with at most MOST_INTEGER_CLASSES different values that
    occur twice or more on average; else number. `classes` given: these classes in this order; a label that is none of
    them raises. Raises ValueError, naming the row, for a label that is missing or infinite.
    """
    check_choice("target", target, ("auto", "class", "number"))
    _check_finite(column, name, source, "label")
    if target == "auto":
        target = "class" if classes is not None or _looks_like_classes(column) else "number"
    if target == "number":
        if column.kind in ("text", "time"):
            raise ValueError(f"{source}: the label column {name!r} holds {column.kind}, which is no number to predict")
        return np.asarray(column.values, np.float32), None
    codes, names = _classes_of(column, name, source)
    if classes is None:
        return codes, names
    wanted = {word: number for number, word in enumerate(classes)}
    for code, word in enumerate(names):
        if word not in wanted:
            row = int(np.argmax(codes == code))
            raise ValueError(
                f"{source}: row {row} (counted from 0) has the label {word!r} in column {name!r}, a class that was not "
                f"there when the classes were learned{nearest(word, wanted)}"
            )
    return np.array([wanted[word] for word in names], np.int32)[codes], tuple(classes)


def encode_weights(column: Column, name: str, source: str) -> np.ndarray:
    """float32 [n] sample weights; a missing, infinite or negative one raises ValueError, naming the row."""
    if column.kind not in ("number", "boolean"):
        raise ValueError(f"{source}: the weight column {name!r} holds {column.kind}; weights must be numbers")
    _check_finite(column, name, source, "weight")
    if (column.values < 0).any():
        row = int(np.argmax(column.values < 0))
        raise ValueError(f"{source}: row {row} (counted from 0) has the weight {column.values[row]}; it must be >= 0")
    return np.asarray(column.values, np.float32)


def _check_finite(column: Column, name: str, source: str, role: str) -> None:
    bad = column.mask.copy()
    if column.categories is None and column.values.dtype.kind == "f":
        finite = np.isfinite(column.values)
        bad |= ~(finite if finite.ndim == 1 else finite.reshape(len(finite), -1).all(axis=1))
    if bad.any():
        row = int(bad.argmax())
        value = "missing" if column.mask[row] else str(column.values[row])
        raise ValueError(
            f"{source}: the {role} in column {name!r} is {value} in row {row} (counted from 0), and in "
            f"{int(bad.sum()):,} "
            f"rows in all; every example needs a finite {role}, so fill these or leave the rows out"
        )


def _looks_like_classes(column: Column) -> bool:
    if column.kind in ("text", "boolean"):
        return True
    if column.kind != "number" or column.values.dtype.kind not in "iu":
        return False
    different = len(np.unique(column.values))
    return different <= MOST_INTEGER_CLASSES and 2 * different <= len(column.values)


def _classes_of(column: Column, name: str, source: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if column.categories is not None:
        used, codes = np.unique(column.values, return_inverse=True)
        return codes.astype(np.int32), tuple(column.categories[code] for code in used)
    if column.kind == "boolean":
        return column.values.astype(np.int32), ("false", "true")
    if column.kind != "number":
        raise ValueError(f"{source}: the label column {name!r} holds {column.kind}, which has no classes")
    if column.values.dtype.kind == "f" and (column.values != np.round(column.values)).any():
        row = int(np.argmax(column.values != np.round(column.values)))
        raise ValueError(
            f"{source}: the label column {name!r} has {column.values[row]} in row {row} (counted from 0); classes are "
            "text "
            "or whole numbers, so use target='number' to predict it as a number"
        )
    values, codes = np.unique(column.values, return_inverse=True)
    return codes.astype(np.int32), tuple(str(int(value)) for value in values)
