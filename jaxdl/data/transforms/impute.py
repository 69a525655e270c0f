"""Filling missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jaxdl.data.schema import Column, check_choice, text_column
from jaxdl.data.table import Table
from jaxdl.data.transforms.records import Fitted, chosen, finite_values, learned_column, record


@dataclass(frozen=True, kw_only=True)
class Impute:
    """Fills missing values with the column's mean, median or mode, or with a constant.

    columns: None takes all number columns for mean and median, number and text columns for mode, and for a constant
    those of the kind of `value`. All chosen columns are learned, also those without a gap now. indicator=True adds a
    boolean column `<name> missing` for each. The mode of a tie is the smallest value.
    """

    columns: Sequence[str] | None = None
    strategy: Literal["mean", "median", "mode", "constant"] = "median"
    value: float | str | None = None
    indicator: bool = False

    def fit(self, table: Table) -> FittedImpute:
        """Learns the fills. Raises ValueError for a column that is all missing, or of the wrong kind."""
        check_choice("strategy", self.strategy, ("mean", "median", "mode", "constant"))
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError(
                f"Impute: strategy={self.strategy!r} with value={self.value!r}; a value belongs to strategy='constant'"
            )
        kinds = {"mean": ("number",), "median": ("number",), "mode": ("number", "text")}.get(
            self.strategy, ("text",) if isinstance(self.value, str) else ("number",)
        )
        fills: dict[str, float | str] = {}
        gaps: dict[str, int] = {}
        for name in chosen(table, self.columns, kinds, "Impute"):
            fills[name] = self._fill(table, name)
            gaps[name] = table.column(name).missing
        return FittedImpute(fills, self.strategy, self.indicator, gaps)

    def _fill(self, table: Table, name: str) -> float | str:
        if self.value is not None:
            return self.value if isinstance(self.value, str) else float(self.value)
        column = table.column(name)
        if column.categories is not None:
            present = column.values[column.values >= 0]
            if not len(present):
                raise ValueError(
                    f"Impute: all values of column {name!r} of {table.source} are missing; leave the column out"
                )
            return column.categories[int(np.bincount(present).argmax())]
        values = finite_values(table, name, "Impute")
        if self.strategy == "mode":
            different, counts = np.unique(values, return_counts=True)
            return float(different[counts.argmax()])
        return float(np.mean(values) if self.strategy == "mean" else np.median(values))


@record("impute")
@dataclass(frozen=True)
class FittedImpute(Fitted):
    """The fill of each column, and how many gaps each had when it was learned."""

    fills: Mapping[str, float | str]
    strategy: str
    indicator: bool
    gaps: Mapping[str, int] = field(default_factory=dict)

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        filled: dict[str, Column] = {}
        for name, fill in self.fills.items():
            column = learned_column(table, name, "text" if isinstance(fill, str) else "number", "Impute")
            if self.indicator:
                filled[f"{name} missing"] = Column(column.mask)
            if isinstance(fill, str):
                words = column.decoded()
                filled[name] = text_column(np.where(column.mask, fill, words).tolist()) if column.missing else column
            elif column.missing:
                filled[name] = Column(np.where(column.mask, column.values.dtype.type(fill), column.values))
        return table.with_columns(filled)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each column that had gaps."""
        shown = {name: fill if isinstance(fill, str) else f"{fill:.6g}" for name, fill in self.fills.items()}
        return tuple(
            f"{count:,} missing values of {name!r} filled with the {self.strategy} {shown[name]}"
            for name, count in self.gaps.items()
            if count
        )
