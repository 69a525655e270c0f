"""What goes in: the step of a task and its settings; how training data, validation data and feed fit together."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from jaxdl import optim
from jaxdl.core.gradient import gradient_step
from jaxdl.core.program import Program
from jaxdl.core.step import Step, require_step
from jaxdl.core.task import Task
from jaxdl.core.transform import accumulate as accumulated
from jaxdl.core.transform import average as averaged
from jaxdl.core.transform import guard as guarded
from jaxdl.data import Dataset, find_leaks
from jaxdl.parallel import Layout

#: Class matrices larger than this are not kept for the report.
REPORT_CLASSES = 100


def compose(
    task: Task | Step,
    optimizer: Any,
    *,
    precision: str = "float32",
    accumulate: int = 1,
    average: float | None = None,
    guard: bool = False,
    train_metrics: tuple[Any, ...] = (),
) -> Step:
    """The Step of a task and the transformations around it: accumulate acts on measure, average and guard on apply."""
    if isinstance(task, Step):
        require_step(task, "fit")
        given = {
            "optimizer": optimizer is not None,
            "precision": precision != "float32",
            "train_metrics": train_metrics,
        }
        for name, value in given.items():
            if value:
                raise ValueError(f"{name}= belongs to a Task; this is a Step, which is complete: build it with {name}")
        step = task
    elif isinstance(task, Task):
        step = gradient_step(
            task, optim.adam() if optimizer is None else optimizer, precision=precision, metrics=train_metrics
        )
    else:
        raise TypeError(
            f"fit learns a Task or a Step, not a {type(task).__name__}: for a model, jaxdl.tasks.classification(model)"
        )
    step = accumulated(step, accumulate)
    if average is not None:
        step = averaged(step, average)
    return guarded(step) if guard else step


def all_count(feed: Any) -> bool:
    """Whether each example of a feed over a Dataset weighs more than 0."""
    dataset = getattr(feed, "dataset", None)
    if not isinstance(dataset, Dataset):
        return False
    return "weight" not in dataset or bool(np.min(dataset["weight"]) > 0)


def require_weight(data: Any) -> None:
    """A sentence where no example of a Dataset counts."""
    if isinstance(data, Dataset) and "weight" in data and not np.any(data["weight"]):
        raise ValueError("every example weighs 0: there is nothing to learn from")


def size_of(batch_size: int | str, dataset: Dataset, layout: Layout) -> int:
    """Examples a batch: no more than there are, but for what fills it up to a number that divides over the devices."""
    size = layout.rounded(32) if isinstance(batch_size, str) else int(batch_size)
    return size if size <= len(dataset) else layout.rounded(len(dataset))


def power_below(count: int) -> int:
    """The largest power of two that is at most `count`."""
    return 1 << (count.bit_length() - 1)


def compare_columns(program: Program, validation: Dataset) -> None:
    """Validation examples must look like training examples."""
    for name, column in program.batch.items():
        if name == "weight":
            continue
        if name not in validation:
            raise ValueError(
                f"validation lacks the column {name!r} of the training data; it has {sorted(validation.columns)}"
            )
        if validation[name].shape[1:] != column.shape[1:]:
            raise ValueError(
                f"an example's {name!r} has shape {list(validation[name].shape[1:])} in validation and "
                f"{list(column.shape[1:])} in training: both must be the same"
            )


def warn_of_leaks(data: Any, validation: Dataset) -> None:
    """Warn where validation repeats training rows; a look of at most a second."""
    if isinstance(data, Dataset) and set(data.columns) & set(validation.columns) - {"y", "weight"}:
        found = find_leaks(data.replace(name="training data"), validation, max_seconds=1.0)
        if found:
            warnings.warn(
                f"validation repeats training rows, so its score is too good (a: training, b: validation): {found}",
                stacklevel=3,
            )


def confusion(held_out: Dataset, metrics: tuple[Any, ...]) -> tuple[Any, ...]:
    """The confusion matrix that the report shows, where the task is a classification of not too many classes."""
    from jaxdl.metrics import Accuracy, ConfusionMatrix

    if not any(isinstance(m, Accuracy) for m in metrics) or any(isinstance(m, ConfusionMatrix) for m in metrics):
        return ()
    if held_out.classes is None or not 2 <= len(held_out.classes) <= REPORT_CLASSES:
        return ()
    return (ConfusionMatrix(len(held_out.classes)),)
