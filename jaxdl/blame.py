"""Why a loss is not finite: a number that is none, or a label that no class of the model has, by row and place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.core.program import Program
from jaxdl.data import Dataset

#: Rows that are looked through at a time.
ROWS = 1 << 14
#: Labels that are looked through at a time.
LABELS = 1 << 22


class Labels(NamedTuple):
    """What a task's labels may be.

    Attributes:
        column: that holds them.
        classes: they are 0 to classes - 1.
        ignored: other values that do not count; None: any below 0 may be such.
    """

    column: str
    classes: int
    ignored: tuple[int, ...] | None = ()


def labels_of(program: Program) -> Labels | None:
    """What the labels of a program's task may be, as its metrics know it; None where it has none.

    A segmentation and a detection say it; for the accuracy of classes and tokens it is the width of what it reads. What
    pads a sequence may lie below 0; what does not count in an image whose metrics do not say it is not known.
    """
    from jaxdl.metrics import Accuracy, MeanIoU, VocMAP

    step = program.step
    for metric in step.metrics:
        if isinstance(metric, VocMAP):
            return Labels("labels", metric.num_classes, (-1,))
        if isinstance(metric, MeanIoU):
            ignored = metric.ignore_index
            return Labels("y", metric.num_classes, () if ignored is None else (ignored,))
    if step.evaluate is None or not any(isinstance(metric, Accuracy) for metric in step.metrics):
        return None
    item = jax.tree.map(lambda x: x[0], program.feed.block(program.seed, 0, 1))
    seen = jax.eval_shape(
        lambda state, data: step.evaluate(state, program.feed.take(data, item)),  # type: ignore[misc]
        program.abstract_state,
        program.feed.data,
    )
    classes = int(seen.preds.shape[-1])
    return {2: Labels("y", classes), 3: Labels("y", classes, None)}.get(seen.preds.ndim)


def blame(data: Any, labels: Callable[[], Labels | None], nan: bool) -> str:
    """Why a loss may be nan or inf, as far as the data say: a value that is not finite, a label that no model has.

    Args:
        data: what is trained on or validated with.
        labels: what the task's labels may be, where it has labels.
        nan: that the loss is nan, which labels can make of it, and not inf.

    Returns:
        A sentence, or "" when nothing is found.
    """
    dataset = getattr(data, "dataset", data)
    if not isinstance(dataset, Dataset):
        return ""
    for name, column in dataset.columns.items():
        if column.dtype.kind == "f":
            for first in range(0, len(column), ROWS):
                rows = np.asarray(column[first : first + ROWS])
                bad = ~np.isfinite(rows.reshape(len(rows), -1)).all(1)
                if bad.any():
                    return f"column {name!r} holds nan or inf in row {first + int(np.argmax(bad))} (rows count from 0)"
    return blame_labels(data, labels) if nan else ""


def blame_labels(data: Any, labels: Callable[[], Labels | None]) -> str:
    """A sentence about a label that the model has no class for, or "" where there is none. Arguments as in `blame`."""
    dataset = getattr(data, "dataset", data)
    known = labels() if isinstance(dataset, Dataset) else None
    column = None if known is None else dataset.columns.get(known.column)
    if known is None or column is None or column.dtype.kind not in "iu":
        return ""
    step = max(1, LABELS // max(1, math.prod(column.shape[1:])))
    for first in range(0, len(column), step):
        rows = np.asarray(column[first : first + step])
        wrong = rows >= known.classes if known.ignored is None else (rows < 0) | (rows >= known.classes)
        wrong &= ~np.isin(rows, known.ignored or ())
        if wrong.any():
            row, *place = (int(number) for number in np.argwhere(wrong)[0])
            where = f"row {first + row}" + (f" at {tuple(place) if len(place) > 1 else place[0]}" if place else "")
            allowed = f"classes 0 to {known.classes - 1}"
            if known.ignored:
                allowed += f" ({', '.join(map(str, known.ignored))} does not count)"
            return f"{known.column} holds {rows[(row, *place)]} in {where}, and the model has {allowed}"
    return ""
