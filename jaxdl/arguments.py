"""What fit is asked for, checked before anything is built: each value that cannot be gets a sentence."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.settings import Checkpoint, EarlyStopping, ProgramOptions


def is_feed(data: Any) -> bool:
    """Whether data are a feed already, which draws its own batches."""
    return hasattr(data, "take") and hasattr(data, "block") and hasattr(data, "steps_per_epoch")


def check_length(*, epochs: Any, steps: Any, max_seconds: Any) -> None:
    """How long to train: at least one of the three, each above 0."""
    if epochs is None and steps is None and max_seconds is None:
        raise ValueError("how long to train? Give epochs=, steps= or max_seconds=")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None:
            _whole(name, value)
    if max_seconds is not None and not (_is_number(max_seconds) and max_seconds > 0):
        raise _wrong("max_seconds", max_seconds, "a number above 0")


def check_numbers(
    *, batch_size: Any, eval_batch_size: Any, seed: Any, accumulate: Any, average: Any, verbose: Any, **flags: Any
) -> None:
    """Sizes, counts and switches (`flags`)."""
    if isinstance(batch_size, str):
        if batch_size != "auto":
            raise ValueError(f'batch_size={batch_size!r}: give a number, or "auto"')
    else:
        _whole("batch_size", batch_size)
    if eval_batch_size is not None:
        _whole("eval_batch_size", eval_batch_size)
    _whole("seed", seed, least=0, most=2**32 - 1)
    _whole("accumulate", accumulate)
    if average is not None and not _is_number(average):
        raise _wrong("average", average, "a decay in [0, 1), for example 0.999, or None")
    if verbose not in (0, 1, 2):
        raise _wrong("verbose", verbose, "0 (silent), 1 (live in a terminal) or 2 (plain lines)")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise _wrong(name, value, "True or False")


def check_records(
    *, checkpoint: Any, early_stopping: Any, program: Any, callbacks: Any, validation: Any, **metrics: Any
) -> None:
    """Groups of settings, and what comes in sequences. Whatever follows validation data needs them."""
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike, Checkpoint)):
        raise _wrong("checkpoint", checkpoint, "a folder, or jaxdl.Checkpoint(folder, ...)")
    for name, value, kind in (("early_stopping", early_stopping, EarlyStopping), ("program", program, ProgramOptions)):
        if value is not None and not isinstance(value, kind):
            raise _wrong(name, value, f"jaxdl.{kind.__name__}(...)")
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str) or not all(map(callable, callbacks)):
        raise _wrong("callbacks", callbacks, "a sequence of functions (record, run)")
    for name, value in metrics.items():
        if value is not None:
            check_metrics(name, value)
    best = checkpoint.best if isinstance(checkpoint, Checkpoint) else None
    followed = {"Checkpoint(best=...)": best, "EarlyStopping(metric=...)": early_stopping and early_stopping.metric}
    for name, metric in followed.items():
        if metric is not None and metric.startswith("validation:") and validation is None:
            raise ValueError(f"{name} follows {metric!r}, which needs validation= data")
    if early_stopping is not None and early_stopping.restore_best and best not in (None, early_stopping.metric):
        raise ValueError(
            f"Checkpoint(best={best!r}) keeps one epoch and EarlyStopping({early_stopping.metric!r}) goes back to "
            "another: follow the same metric in both, or give EarlyStopping(restore_best=False)"
        )


def check_metrics(name: str, value: Any) -> None:
    """A sequence of metrics, and not one metric or its name."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _wrong(name, value, f"a sequence, {name}=(jaxdl.metrics.Accuracy(),), or () for none")
    for metric in value:
        if not all(hasattr(metric, part) for part in ("name", "init", "update", "compute")):
            raise ValueError(f"{name} holds {metric!r}: give metrics such as jaxdl.metrics.Accuracy()")


def check_feed(feed: Any, /, *, batch_size: Any, **given: bool) -> None:
    """A feed draws its own batches: what would be ignored is refused. `given`: argument -> whether it was given."""
    if batch_size not in (32, feed.batch_size):
        raise ValueError(
            f"batch_size={batch_size}, but the data are a feed, which draws batches of {feed.batch_size}: give "
            "the feed another size"
        )
    for name, was_given in given.items():
        if was_given:
            raise ValueError(f"{name}= shapes batches, and the data are a feed, which draws its own: give it there")


def check_mappings(*, hyper: Any, start: Any) -> None:
    """What goes by name: traced numbers, and collections to start from."""
    examples = {"hyper": 'numbers by name, {"learning_rate": 1e-3}', "start": 'collections by name, {"params": ...}'}
    for name, value in (("hyper", hyper), ("start", start)):
        if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
            raise _wrong(name, value, examples[name])


def check_weights(*, sample_weight: Any, class_weight: Any) -> None:
    """Weights of examples and classes; their values are looked at with the data."""
    if sample_weight is not None and np.asarray(sample_weight).dtype.kind not in "iufb":
        raise _wrong("sample_weight", sample_weight, "one number an example")
    if class_weight is not None and not isinstance(class_weight, (Mapping, Sequence, np.ndarray)):
        raise _wrong(
            "class_weight", class_weight, 'weights by label, weights in the order of the labels, or "balanced"'
        )


def _whole(name: str, value: Any, *, least: int = 1, most: int | None = None) -> None:
    wanted = f"a whole number of at least {least}" + (f" and at most {most}" if most is not None else "")
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise _wrong(name, value, wanted)
    if int(value) < least or (most is not None and int(value) > most):
        raise ValueError(f"{name}={value}: must be {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)


def _wrong(name: str, value: Any, wanted: str) -> ValueError | TypeError:
    kind = ValueError if isinstance(value, (int, float)) and not isinstance(value, bool) else TypeError
    return kind(f"{name}={value!r}: give {wanted}")
