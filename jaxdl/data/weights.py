"""Weights of examples: what each counts in the mean that is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.data.dataset import Dataset


def weighted(dataset: Dataset, *, sample_weight: Any = None, class_weight: Any = None) -> Dataset:
    """The data with sample and class weights multiplied into the column "weight".

    Args:
        dataset: with integer labels "y" where class weights are given.
        sample_weight: [examples], at least 0.
        class_weight: label -> weight (others count 1), weights in the order of the labels, or "balanced":
            examples / (classes * count of the class), the mean weight then is 1.

    Raises:
        ValueError: lengths that differ, labels that the data do not have, weights below 0.
    """
    if sample_weight is None and class_weight is None:
        return dataset
    weight = np.asarray(dataset["weight"] if "weight" in dataset else np.ones(len(dataset)), np.float32)
    if sample_weight is not None:
        given = np.asarray(sample_weight, np.float32)
        if given.shape != (len(dataset),):
            raise ValueError(f"sample_weight has shape {list(given.shape)}, the data have {len(dataset)} examples")
        weight = weight * given
    if class_weight is not None:
        weight = weight * _class_weights(dataset, class_weight)
    return dataset.replace(columns=dict(dataset.columns) | {"weight": weight})


def _class_weights(dataset: Dataset, class_weight: Any) -> np.ndarray:
    labels = np.asarray(dataset["y"])
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"class_weight needs integer labels y [examples]; these are {labels.dtype} {list(labels.shape)}: for "
            "tokens or pixels give class_weight to the task"
        )
    values, counts = np.unique(labels, return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f'class_weight={class_weight!r}: give a mapping label -> weight, or "balanced"')
        table = {int(v): len(labels) / (len(values) * c) for v, c in zip(values, counts, strict=True)}
    elif isinstance(class_weight, Mapping):
        table = {_label(label, dataset): float(weight) for label, weight in class_weight.items()}
    else:
        table = dict(enumerate(float(weight) for weight in class_weight))
    unknown = sorted(set(table) - {int(v) for v in values})
    if unknown and isinstance(class_weight, Mapping):
        raise ValueError(f"class_weight has the label {unknown[0]}, which the data do not; they have {values.tolist()}")
    if any(not weight >= 0 for weight in table.values()):
        raise ValueError(f"class_weight={table}: weights must be at least 0")
    return np.array([table.get(int(v), 1.0) for v in values], np.float32)[np.searchsorted(values, labels)]


def _label(key: Any, dataset: Dataset) -> int:
    """A key of the mapping as the number in y."""
    if isinstance(key, (int, np.integer, np.bool_)) or (isinstance(key, float) and key.is_integer()):
        return int(key)
    names = dataset.classes or ()
    hint = f"; {key!r} is the label {names.index(key)}" if key in names else ""
    raise ValueError(f"class_weight has the key {key!r}: the keys are the whole numbers in y{hint}")
