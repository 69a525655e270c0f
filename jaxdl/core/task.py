"""What to learn: a Task is three pure functions, a Loss is a weighted sum over examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
Key = jax.Array
Batch = Mapping[str, Any]  # columns by name, each [batch, ...]; reserved: "weight" [batch] float32 and "part" [] int32
Variables = dict[str, Any]  # {"params": {...}, and untrained collections such as "batch_stats": {...}}


#: name -> what a traced number of that name may be: rates and factors from 0 on, limits above 0, shares below 1.
_FROM_ZERO = ("learning_rate", "weight_decay", "momentum", "l1", "l2", "eps")
_ABOVE_ZERO = ("clip_norm", "clip_value")
_SHARES = ("dropout", "label_smoothing", "b1", "b2", "decay")


def check_number(name: str, value: Any) -> float:
    """A number for `hyper`, finite and in the range that its name implies.

    Raises:
        TypeError: it is no number. ValueError: it is not finite or out of range.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"hyper {name!r} is {value!r}: give a number") from error
    if not math.isfinite(number):
        raise ValueError(f"hyper {name!r} is {number}: give a finite number")
    for names, fits, wanted in (
        (_FROM_ZERO, number >= 0, "at least 0"),
        (_ABOVE_ZERO, number > 0, "above 0"),
        (_SHARES, 0 <= number < 1, "in [0, 1)"),
    ):
        if name in names and not fits:
            raise ValueError(f"hyper {name!r} is {number:g}: must be {wanted}")
    return number


class Loss(NamedTuple):
    """One number per example (or token, pixel, box) and what it weighs; the mean is sum(value * weight) / sum(weight).

    Attributes:
        value: [batch, ...] float32.
        weight: the same shape, float32: 1 for what counts, 0 for padding tokens or ignored pixels; None when all
            elements of an example count like the example. The example's own weight (sample weight, zero for padding
            rows) is multiplied in by the step: a task cannot forget it.
        outputs: what metrics read as `preds` (the target is `batch["y"]`), or a mapping with the keys "preds" and
            "target" where the target is something else; a key "weight" ([batch, ...]) says what metrics weigh by where
            that is not what the loss weighs by.
        model_state: the untrained collections after this batch ({} when there are none), such as
            {"batch_stats": ...}; rows that follow their examples (recurrent carries) stand under "carry".
        extra: scalar terms that are no sum over examples (a prior's KL, an expert-balance loss), each already times its
            own factor; they are added to the mean.
        shown: scalar numbers that are not learned from but worth seeing (the share of tokens that experts dropped):
            the history of fit has their mean over an epoch as "train:<name>".
    """

    value: Array
    weight: Array | None
    outputs: PyTree
    model_state: PyTree
    extra: Mapping[str, Array] = {}
    shown: Mapping[str, Array] = {}


class Hyper(Mapping[str, Array]):
    """The traced numbers of a state, read by name; it remembers which names were asked for.

    A number that nobody reads would be a setting that does nothing: after the first trace the step compares what was
    asked for with what the user set, and names the difference.
    """

    def __init__(self, values: Mapping[str, Array], asked: set[str] | None = None):
        self._values = values
        self.asked: set[str] = set() if asked is None else asked

    def __getitem__(self, name: str) -> Array:
        self.asked.add(name)
        if name not in self._values:
            raise KeyError(f"hyper has no number called {name!r}; it has {sorted(self._values)}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self.asked.add(name)
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        """The number called `name`, or the task's own static value when the user did not set it."""
        self.asked.add(name)
        return self._values.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Context(NamedTuple):
    """What a loss may know beside variables and batch. There are no globals.

    Attributes:
        train: True in training, False in evaluation and prediction (a Python bool: static).
        keys: name -> key, drawn from (seed, name, step, part); in evaluation it must not be used.
        step: [] int32, batches drawn so far.
        hyper: traced numbers by name: `hyper.get("dropout", 0.1)`.
        weight: [batch] float32, the examples' weights; 0 marks rows that only fill the batch up. Batch norm takes
            `weight > 0` as its mask. All ones where no row counts at all, so that a masked mean never is 0 / 0.
    """

    train: bool
    keys: Callable[[str], Key]
    step: Array
    hyper: Hyper
    weight: Array


class Task(NamedTuple):
    """What to learn; all that a model has to provide.

    Attributes:
        init: (key, batch) -> variables, {"params": ..., "batch_stats": ...}: plain nested dicts of float32 arrays.
        loss: (variables, batch, context) -> Loss.
        predict: (variables, batch) -> outputs, what `run.predict` returns (for a classifier: probabilities).
        metrics: the field's usual metrics for this task; every evaluation also reports the loss.
        whole_batch: True for losses that couple examples (contrastive); such a batch is never split.
        logical_axes: what each dimension of a parameter is, ((pattern on its path, logical axes), ...): the table of
            tensor parallelism. Models of jaxdl have it.
    """

    init: Callable[[Key, Batch], Variables]
    loss: Callable[[Variables, Batch, Context], Loss]
    predict: Callable[[Variables, Batch], PyTree]
    metrics: tuple[Any, ...] = ()
    whole_batch: bool = False
    logical_axes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
