"""What a column of a table is: its values, its kind, what is missing, and how text becomes numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["number", "boolean", "text", "time", "array"]
KINDS: tuple[str, ...] = ("number", "boolean", "text", "time")

# Cells that stand for "no value" in text formats. "None", "unknown" and "?" are left alone: they are often real
# categories.
MISSING: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")

TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")

# A column of which at least this part is numbers was meant to be numbers: the rest are bad cells, not a reason to read
# it as text.
MOSTLY_NUMBERS = 0.95

_INTEGER = re.compile(r"-?\d+", re.ASCII)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"([+-]?)(nan|inf|infinity)(?:\(\w*\))?", re.ASCII | re.IGNORECASE)
_INT64 = (-(2**63), 2**63 - 1)


def number_of(cell: str, decimal: str = ".") -> int | float | None:
    """The number that a cell of text spells, or None when it spells none.

    Integers are `-?[0-9]+` or `0x` with hexadecimal digits, within 64 bits; all else that Python's float accepts is a
    float (without underscores; `nan` and `inf` in any case). Spaces and tabs around the number do not count.
    """
    cell = cell.strip(" \t")
    if _INTEGER.fullmatch(cell):
        number = int(cell)
        return number if _INT64[0] <= number <= _INT64[1] else float(cell)
    if decimal != ".":
        if "." in cell:
            return None
        cell = cell.replace(decimal, ".")
    if _FLOAT.fullmatch(cell):
        return float(cell)
    if special := _SPECIAL.fullmatch(cell):
        return float(special[1] + special[2])
    if _HEX.fullmatch(cell):
        number = int(cell, 16)
        return number - 2**64 if number > _INT64[1] else number
    return None


def boolean_of(cell: str) -> bool | None:
    """The truth value of a cell in a column that the caller declared boolean; None when it has none."""
    word = cell.strip().lower()
    return True if word in ("true", "1", "yes") else False if word in ("false", "0", "no") else None


def nearest(name: object, known: Iterable[object]) -> str:
    """The end of a sentence about an unknown name: "; did you mean 'age'?" or what there is to choose from."""
    names = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(repr(item) for item in names[:12])
    return f"; there are: {shown}{', ...' if len(names) > 12 else ''}" if names else "; there are none"


def check_choice(what: str, value: object, choices: Sequence[str]) -> None:
    """Raises ValueError with the nearest choice when `value` is none of `choices`."""
    if value not in choices:
        raise ValueError(f"{what} is {value!r}, which is unknown{nearest(value, choices)}")


class Field(NamedTuple):
    """One line of a table's schema."""

    name: str
    kind: Kind
    dtype: str
    categories: tuple[str, ...] | None
    missing: int


@dataclass(frozen=True)
class Skipped:
    """Rows that a reader left out under on_error="skip": how many, and a sentence for the first few."""

    count: int = 0
    examples: tuple[str, ...] = ()

    def __add__(self, other: Skipped) -> Skipped:
        return Skipped(self.count + other.count, (self.examples + other.examples)[:SKIPPED_EXAMPLES])


SKIPPED_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one column.

    - number: integers (nothing missing) or floats (NaN is missing);
    - boolean: bool (nothing missing);
    - text: int32 codes into `categories`, which are sorted; -1 is missing;
    - time: datetime64 (NaT is missing);
    - array: numbers with two or more dimensions, such as images `[n, h, w, c]`; may be a memory map.
    """

    values: np.ndarray
    categories: tuple[str, ...] | None = None

    @property
    def kind(self) -> Kind:
        if self.categories is not None:
            return "text"
        if self.values.ndim > 1:
            return "array"
        if self.values.dtype.kind == "b":
            return "boolean"
        return "time" if self.values.dtype.kind == "M" else "number"

    @cached_property
    def mask(self) -> np.ndarray:
        """True where the value is missing, [n]."""
        if self.categories is not None:
            return self.values < 0
        if self.values.dtype.kind == "f":
            absent = np.isnan(self.values)
            return absent if absent.ndim == 1 else absent.reshape(len(absent), -1).any(axis=1)
        if self.values.dtype.kind == "M":
            return np.isnat(self.values)
        return np.zeros(len(self.values), bool)

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return int(self.mask.sum())

    def take(self, indices: np.ndarray) -> Column:
        """The rows at `indices`; categories stay as they are, so codes keep their meaning."""
        return Column(self.values[indices], self.categories)

    def decoded(self) -> np.ndarray:
        """The values as a user reads them: text as an object array of str, None where missing; all others as stored."""
        if self.categories is None:
            return self.values
        words = np.empty(len(self.categories) + 1, object)
        words[:-1] = self.categories
        return words[self.values]

    def shown(self, row: int) -> str:
        """One value as a short piece of text."""
        if self.categories is not None:
            code = int(self.values[row])
            word = "" if code < 0 else self.categories[code].replace("\n", "\\n")
            return word if len(word) <= 24 else word[:21] + "..."
        if self.values.ndim > 1:
            return f"{self.values.dtype}{list(self.values.shape[1:])}"
        value = self.values[row]
        if self.values.dtype.kind == "f":
            return "" if np.isnan(value) else f"{value:.6g}"
        return "" if self.values.dtype.kind == "M" and np.isnat(value) else str(value)


def text_column(cells: Sequence[str | None], missing: Iterable[str] = ()) -> Column:
    """Text as sorted categories and int32 codes; None and the cells in `missing` become -1."""
    first_seen: dict[str | None, int] = {}
    codes = np.fromiter((first_seen.setdefault(cell, len(first_seen)) for cell in cells), np.int32, len(cells))
    absent = {None, *missing}
    words = sorted(word for word in first_seen if word is not None and word not in absent)
    rank: dict[str | None, int] = {word: position for position, word in enumerate(words)}
    return Column(
        np.fromiter((rank.get(word, -1) for word in first_seen), np.int32, len(first_seen))[codes], tuple(words)
    )


def sorted_categories(codes: np.ndarray, words: Sequence[str]) -> Column:
    """A text column from codes into words in any order; words that no row has are left out."""
    used = np.zeros(len(words), bool)
    used[codes[codes >= 0]] = True
    order = sorted((int(i) for i in np.flatnonzero(used)), key=words.__getitem__)
    rank = np.full(len(words) + 1, -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Column(rank[codes], tuple(words[i] for i in order))


def gathered(numbers: Sequence[int | float], codes: np.ndarray) -> Column:
    """A number column from the number of each category: integers when all are and nothing is missing, else float64."""
    if all(isinstance(number, int) for number in numbers) and not (codes < 0).any():
        return Column(np.array(numbers, np.int64)[codes])
    return Column(np.array([*numbers, np.nan], np.float64)[codes])


def interpret(column: Column, wanted: str | None, decimal: str = ".") -> tuple[Column, np.ndarray | None]:
    """Reads a text column by the rule that every text reader shares.

    Returns the column of its final kind, and which categories are bad cells (bool [categories]) or None when none is.
    Undeclared (`wanted=None`): numbers when all cells are; with MOSTLY_NUMBERS of the rows the others are bad cells;
    booleans when all cells are true or false; else text. Booleans with missing cells stay text, as there is no third
    truth value.
    """
    words = column.categories or ()
    if wanted == "text":
        return column, None
    if wanted == "boolean":
        truths = [boolean_of(word) for word in words]
        bad = np.array([truth is None for truth in truths], bool)
        if bad.any() or column.missing:
            return column, bad
        return Column(np.array(truths, bool)[column.values]), None
    if wanted == "time":
        times, bad = _times(words)
        return (
            (column, bad) if bad.any() else (Column(np.append(times, np.datetime64("NaT", "us"))[column.values]), None)
        )
    if words and wanted is None and all(word in TRUE or word in FALSE for word in words):
        if column.missing:
            folded = np.array([int(word in TRUE) for word in words], np.int32)
            return sorted_categories(np.append(folded, np.int32(-1))[column.values], ("false", "true")), None
        return Column(np.array([word in TRUE for word in words])[column.values]), None
    numbers = [number_of(word, decimal) for word in words]
    bad = np.array([number is None for number in numbers], bool)
    if not bad.any():
        return gathered([number for number in numbers if number is not None], column.values), None
    present = column.values[column.values >= 0]
    numeric = 1.0 - np.count_nonzero(bad[present]) / len(present)
    return column, bad if wanted == "number" or numeric >= MOSTLY_NUMBERS else None


def _times(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    times = np.full(len(words), np.datetime64("NaT", "us"), "datetime64[us]")
    bad = np.zeros(len(words), bool)
    for position, word in enumerate(words):
        try:
            times[position] = np.datetime64(word.strip().removesuffix("Z"), "us")
        except ValueError:
            bad[position] = True
    return times, bad


def check_types(types: Mapping[str, str] | None, names: Sequence[str], where: str) -> None:
    """Raises when `types` names an unknown column or kind."""
    for name, kind in (types or {}).items():
        if name not in names:
            raise ValueError(f"types= names the column {name!r}, which {where} does not have{nearest(name, names)}")
        check_choice(f"the type of column {name!r}", kind, KINDS)
