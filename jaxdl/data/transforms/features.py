"""From a table to the features of a model, by the usual recipe: fill, scale, one-hot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxdl.data.labels import Target, encode_labels, encode_weights
from jaxdl.data.schema import Column, check_choice
from jaxdl.data.table import Table, feature_matrix
from jaxdl.data.transforms.encode import OneHot, Standardise, occurring
from jaxdl.data.transforms.impute import Impute
from jaxdl.data.transforms.pipeline import FittedPipeline, Pipeline, load_json, write_json
from jaxdl.data.transforms.records import Transform, learned_column

if TYPE_CHECKING:
    from jaxdl.data.dataset import Dataset

_FORMAT = "jaxdl features"
_VERSION = 1


@dataclass(frozen=True)
class FittedFeatures:
    """How a table becomes x and y: the columns it takes, the fitted pipeline, its features, the classes of the label.

    names: the d features in order. notes: a sentence for each thing that was decided (gaps filled, columns left out).
    """

    inputs: Mapping[str, str]
    pipeline: FittedPipeline
    names: tuple[str, ...]
    label: str | None
    weight: str | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]

    def apply(self, table: Table) -> np.ndarray:
        """x, float32 [n, d]: one row for each row of the table.

        A column that is gone or of another kind raises ValueError.
        """
        columns = {name: learned_column(table, name, kind, "the features") for name, kind in self.inputs.items()}
        made = self.pipeline.apply(Table(columns, table.source), keep_rows=True)
        x = feature_matrix(made, made.names)
        return x.astype(np.float32, copy=False)

    def dataset(self, table: Table) -> Dataset:
        """x, and y and weight where the table has their columns (a table to predict on need not)."""
        from jaxdl.data.dataset import Dataset

        arrays = {"x": self.apply(table)}
        if self.label is not None and self.label in table:
            target: Target = "number" if self.classes is None else "class"
            arrays["y"], _ = encode_labels(table.column(self.label), self.label, table.source, target, self.classes)
        if self.weight is not None and self.weight in table:
            arrays["weight"] = encode_weights(table.column(self.weight), self.weight, table.source)
        return Dataset(arrays, self.classes, table.source)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "inputs": dict(self.inputs),
            "pipeline": self.pipeline.to_dict(),
            "names": list(self.names),
            "label": self.label,
            "weight": self.weight,
            "classes": None if self.classes is None else list(self.classes),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FittedFeatures:
        """The record that `to_dict` wrote."""
        if saved.get("format") != _FORMAT or saved.get("version") != _VERSION:
            raise ValueError(
                f"this is no {_FORMAT} of version {_VERSION}: it says {saved.get('format')!r}, {saved.get('version')!r}"
            )
        return cls(
            dict(saved["inputs"]),
            FittedPipeline.from_dict(saved["pipeline"]),
            tuple(saved["names"]),
            saved["label"],
            saved["weight"],
            None if saved["classes"] is None else tuple(saved["classes"]),
            tuple(saved["notes"]),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the record as JSON, all or nothing."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedFeatures:
        """Reads what `save` wrote; every number comes back exactly."""
        return load_json(path, cls.from_dict)


def tabular_features(
    table: Table,
    *,
    label: str | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    target: Target = "auto",
    unseen: Literal["raise", "ignore"] = "raise",
    max_categories: int = 256,
) -> FittedFeatures:
    """Fits the usual recipe: numbers filled with their median and standardised, text one-hot, booleans 0 and 1.

    features: the columns to take; None takes all but label and weight, and leaves out, with a note, those that can
    carry nothing: constant, all missing, times, and text with more than `max_categories` categories. Flat arrays [n, k]
    pass as they are. The classes of the label are learned here, so that every later table is encoded alike. unseen: see
    OneHot.

    >>> table = Table.from_columns({"age": [20, 40, None], "job": ["cook", "smith", "cook"], "y": ["a", "b", "a"]})
    >>> fitted = tabular_features(table, label="y")
    >>> fitted.names, fitted.classes, fitted.notes
    (('age', 'job=cook', 'job=smith'), ('a', 'b'), ("1 missing values of 'age' filled with the median 30",))
    """
    check_choice("unseen", unseen, ("raise", "ignore"))
    for name in (*(features or ()), *(n for n in (label, weight) if n is not None)):
        table.column(name)
    candidates = list(features) if features is not None else [n for n in table if n not in (label, weight)]
    if label in candidates:
        raise ValueError(f"{table.source}: {label!r} is the label, so it cannot be a feature as well")
    notes = []
    taken: dict[str, Column] = {}
    for name in candidates:
        why = _useless(table.column(name), max_categories)
        if why is None:
            taken[name] = table.column(name)
        elif features is not None:
            raise ValueError(
                f"{table.source}: column {name!r} {why}, so it can be no feature; leave it out of features=[...]"
            )
        else:
            notes.append(f"column {name!r} {why}: left out")
    if not taken:
        raise ValueError(
            f"{table.source}: no column can be a feature ({'; '.join(notes) or 'there is none beside the label'})"
        )
    classes = None
    if label is not None:
        _, classes = encode_labels(table.column(label), label, table.source, target)
    if weight is not None:
        encode_weights(table.column(weight), weight, table.source)
    chosen = Table(taken, table.source)
    numbers = [name for name, column in taken.items() if column.kind == "number"]
    texts = [name for name, column in taken.items() if column.kind == "text"]
    fill = Impute(columns=numbers)
    steps: list[Transform] = [fill, Standardise(columns=numbers)]
    steps.append(OneHot(columns=texts, unseen=unseen, max_categories=max_categories))
    pipeline = Pipeline(steps).fit(chosen)
    made = pipeline.apply(chosen.head(1))
    notes += fill.fit(chosen).notes
    names = []
    for name, column in made.columns.items():
        names += [name] if column.values.ndim == 1 else [f"{name}[{i}]" for i in range(column.values.shape[1])]
    kinds = {name: column.kind for name, column in taken.items()}
    return FittedFeatures(kinds, pipeline, tuple(names), label, weight, classes, tuple(notes))


def _useless(column: Column, max_categories: int) -> str | None:
    """Why a column can be no feature, or None when it can."""
    if column.kind == "time":
        return "holds times"
    if column.kind == "array":
        if column.values.ndim > 2:
            return f"holds arrays of shape {list(column.values.shape[1:])}"
        return "has missing values among its arrays" if column.mask.any() else None
    present = column.values[~column.mask]
    if not len(present):
        return "is all missing"
    if column.kind == "text":
        words = len(occurring(column))
        if words > max_categories:
            return f"has {words:,} categories in {len(present):,} rows"
        return "has the same value everywhere" if words == 1 and not column.mask.any() else None
    if (present == present[0]).all():
        return "has the same value everywhere"
    return None
