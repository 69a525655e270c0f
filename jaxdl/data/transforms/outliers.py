"""Outliers: clipped to bounds that were learned, or their rows dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxdl.data.schema import Column, check_choice
from jaxdl.data.table import Table
from jaxdl.data.transforms.records import Fitted, chosen, finite_values, learned_column, record

_THRESHOLDS = {"iqr": 1.5, "zscore": 3.0}


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """Clips number columns to learned bounds, or drops the rows beyond them. Missing values stay, and count as inside.

    method: "iqr" [q1 - t (q3 - q1), q3 + t (q3 - q1)] with t = threshold (1.5; Tukey 1977); "zscore" mean -+ t standard
    deviations (3.0); "quantile" the two `quantiles`, linearly interpolated. columns: None is all number columns.
    """

    columns: Sequence[str] | None = None
    method: Literal["iqr", "zscore", "quantile"] = "iqr"
    action: Literal["clip", "drop"] = "clip"
    threshold: float | None = None
    quantiles: tuple[float, float] = (0.01, 0.99)

    def fit(self, table: Table) -> FittedOutliers:
        """Learns the bounds of each column."""
        check_choice("method", self.method, ("iqr", "zscore", "quantile"))
        check_choice("action", self.action, ("clip", "drop"))
        if self.method == "quantile" and self.threshold is not None:
            raise ValueError(
                "Outliers: threshold belongs to method='iqr' and 'zscore'; method='quantile' takes quantiles=(low, "
                "high)"
            )
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"Outliers: threshold is {self.threshold}; it must be greater than 0")
        low, high = self.quantiles
        if not 0 <= low < high <= 1:
            raise ValueError(f"Outliers: quantiles are {self.quantiles}; 0 <= low < high <= 1 must hold")
        names = chosen(table, self.columns, ("number",), "Outliers")
        return FittedOutliers(
            {name: self._bounds(finite_values(table, name, "Outliers")) for name in names}, self.action
        )

    def _bounds(self, values: np.ndarray) -> tuple[float, float]:
        if self.method == "quantile":
            low, high = np.quantile(values, self.quantiles)
            return float(low), float(high)
        threshold = _THRESHOLDS[self.method] if self.threshold is None else self.threshold
        if self.method == "zscore":
            middle, reach = float(values.mean()), threshold * float(values.std())
            return middle - reach, middle + reach
        first, third = np.quantile(values, (0.25, 0.75))
        reach = threshold * float(third - first)
        return float(first) - reach, float(third) + reach


@record("outliers")
@dataclass(frozen=True)
class FittedOutliers(Fitted):
    """The bounds (low, high) of each column and what happens beyond them."""

    bounds: Mapping[str, tuple[float, float]]
    action: str

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        if self.action == "drop" and keep_rows:
            return table
        clipped: dict[str, Column] = {}
        inside = np.ones(len(table), bool)
        for name, (low, high) in self.bounds.items():
            values = learned_column(table, name, "number", "Outliers").values
            beyond = (values < low) | (values > high)
            inside &= ~beyond
            if self.action == "clip" and beyond.any():
                clipped[name] = Column(np.clip(values.astype(np.float64), low, high))
        return table.with_columns(clipped) if self.action == "clip" else table.rows(inside)
