"""One-hot columns for text, scaled columns for numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jaxdl.data.schema import Column, check_choice, nearest
from jaxdl.data.table import Table
from jaxdl.data.transforms.records import Fitted, chosen, finite_values, learned_column, record

MISSING_CATEGORY = "(missing)"


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """Replaces each text column by uint8 columns of 0 and 1, one a category, sorted: `job=cook`, `job=smith` ...

    Gaps get a column of their own, `job=(missing)`, where there were any at fit. unseen: a category that was not there
    at fit raises ValueError, or with "ignore" gives zeros throughout. More than `max_categories` raises: such a column
    is free text or an identifier.
    """

    columns: Sequence[str] | None = None
    unseen: Literal["raise", "ignore"] = "raise"
    max_categories: int = 256

    def fit(self, table: Table) -> FittedOneHot:
        """Learns the categories that occur."""
        check_choice("unseen", self.unseen, ("raise", "ignore"))
        categories: dict[str, tuple[str, ...]] = {}
        for name in chosen(table, self.columns, ("text",), "OneHot"):
            column = table.column(name)
            words = occurring(column)
            if len(words) > self.max_categories:
                raise ValueError(
                    f"OneHot: column {name!r} of {table.source} has {len(words):,} categories in {len(table):,} rows, "
                    "more than "
                    f"max_categories={self.max_categories}: leave it out if it is free text or an identifier, or raise "
                    "the limit"
                )
            if column.missing and MISSING_CATEGORY in words:
                raise ValueError(
                    f"OneHot: column {name!r} has gaps and a category called {MISSING_CATEGORY!r}; fill the gaps first"
                )
            categories[name] = (*words, MISSING_CATEGORY) if column.missing else words
        return FittedOneHot(categories, self.unseen)


def occurring(column: Column) -> tuple[str, ...]:
    """The categories of a text column that some row has."""
    assert column.categories is not None
    return tuple(column.categories[code] for code in np.unique(column.values[column.values >= 0]))


@record("one_hot")
@dataclass(frozen=True)
class FittedOneHot(Fitted):
    """The categories of each column."""

    categories: Mapping[str, tuple[str, ...]]
    unseen: str

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        columns: dict[str, Column] = {}
        for name, column in table.columns.items():
            if name not in self.categories:
                columns[name] = column
        for name, words in self.categories.items():
            codes = self._codes(table, name, words)
            for code, word in enumerate(words):
                if f"{name}={word}" in columns:
                    raise ValueError(f"OneHot: {table.source} already has a column {name}={word}; rename it")
                columns[f"{name}={word}"] = Column((codes == code).astype(np.uint8))
        return replace(table, columns=columns)

    def _codes(self, table: Table, name: str, words: tuple[str, ...]) -> np.ndarray:
        """The position of each row's category in `words`, -1 for one to ignore."""
        column = learned_column(table, name, "text", "OneHot")
        rank = {word: code for code, word in enumerate(words)}
        known = np.array(
            [*(rank.get(word, -1) for word in column.categories or ()), rank.get(MISSING_CATEGORY, -1)], np.int32
        )
        codes = known[column.values]
        if self.unseen == "raise" and (codes < 0).any():
            row = int(np.argmax(codes < 0))
            word = column.shown(row)
            what = (
                f"the category {word!r}, which was not there"
                if column.values[row] >= 0
                else "no value, and none was missing"
            )
            raise ValueError(
                f"{table.source}: row {row} (counted from 0), column {name!r} has {what} when OneHot was fitted"
                f"{nearest(word, words)}; correct it, or fit with unseen='ignore' to give it zeros"
            )
        return codes


@dataclass(frozen=True, kw_only=True)
class Standardise:
    """(value - mean) / standard deviation (of the population), float32; a constant column becomes 0.

    None: all number columns.
    """

    columns: Sequence[str] | None = None

    def fit(self, table: Table) -> FittedScale:
        """Learns mean and deviation of each column, in float64, gaps left out."""
        scales = {}
        for name in chosen(table, self.columns, ("number",), "Standardise"):
            values = finite_values(table, name, "Standardise")
            scales[name] = (float(values.mean()), _divisor(values, float(values.std())))
        return FittedScale(scales)


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """(value - min) / (max - min), float32, in [0, 1] on the table it was fitted to; a constant column becomes 0.

    None: all number columns.
    """

    columns: Sequence[str] | None = None

    def fit(self, table: Table) -> FittedScale:
        """Learns the range of each column, gaps left out."""
        scales = {}
        for name in chosen(table, self.columns, ("number",), "MinMax"):
            values = finite_values(table, name, "MinMax")
            scales[name] = (float(values.min()), _divisor(values, float(values.max() - values.min())))
        return FittedScale(scales)


def _divisor(values: np.ndarray, spread: float) -> float:
    # The deviation of a constant such as 0.1 comes out as 1e-17, not 0: what decides is whether the values differ.
    return spread if spread > 0 and values.min() < values.max() else 1.0


@record("scale")
@dataclass(frozen=True)
class FittedScale(Fitted):
    """(shift, divisor) of each column."""

    scales: Mapping[str, tuple[float, float]]

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        scaled = {}
        for name, (shift, divisor) in self.scales.items():
            values = learned_column(table, name, "number", "the scale").values
            scaled[name] = Column(((values - shift) / divisor).astype(np.float32))
        return table.with_columns(scaled)
