"""The table of all metrics: each `rows_<family>.py` beside this file gives rows, and each goes through every law.

A row is a metric and the data that it is tried on. Rows of one statistic and one data set are checked in one program.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

N = 60


@dataclass(frozen=True)
class Row:
    """A metric and the inputs of `update`, NumPy arrays or trees of them, with one leading axis of examples.

    Attributes:
        label: unique name of the row.
        metric: the record under test.
        inputs: {"preds": ..., "target": ..., and what else `update` reads}; no weight, no mask. Rows that give the same
            dictionary object and have equal statistics share one program.
        skip: law -> why it does not hold for this metric.
        tolerance: relative, between the two sides of a law.
        empty: the value of an empty state where it is not NaN.
        smoke: part of the few rows that the second Python runs.
    """

    label: str
    metric: Any
    inputs: Mapping[str, Any]
    skip: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 2e-6
    empty: float = float("nan")
    smoke: bool = False


def families() -> dict[str, list[Row]]:
    """Every row by its family, in the order of the files."""
    names = [path.stem for path in sorted(Path(__file__).parent.glob("rows_*.py"))]
    found = {name: importlib.import_module(f"tests.metrics.{name}").ROWS for name in names}
    labels = [row.label for table in found.values() for row in table]
    assert len(set(labels)) == len(labels), "two rows of one label"
    return found


def rows() -> list[Row]:
    """Every row of every family."""
    return [row for table in families().values() for row in table]


def draw() -> np.random.Generator:
    """The random numbers of a family's data."""
    return np.random.default_rng(7)
