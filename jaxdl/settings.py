"""Groups of settings that belong together: how to save, when to stop, how to run."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

_SMALLER = (
    "loss",
    "error",
    "mse",
    "mae",
    "rmse",
    "mean_squared_error",
    "mean_absolute_error",
    "perplexity",
    "deviance",
)
_LARGER = ("accuracy", "auc", "precision", "recall", "f1", "r2", "iou", "score", "bleu", "dice", "ndcg")


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, or a sentence."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) >= 0:
        raise ValueError(f"{name}={value!r}: give a number of at least 0")
    return float(value)


def direction(metric: str, mode: str | None) -> int:
    """1 when a larger value of the metric is better, -1 when a smaller one is.

    Args:
        metric: a name of the history, "validation:loss".
        mode: "min", "max", or None: by the name, where it is one of the field's usual ones.

    Raises:
        ValueError: another mode; a name that does not say which way is better.
    """
    if mode is not None:
        if mode not in ("min", "max"):
            raise ValueError(f'mode={mode!r}: choose "min" or "max"')
        return 1 if mode == "max" else -1
    if not isinstance(metric, str):
        raise TypeError(f'metric={metric!r}: a metric is followed by its name, such as "validation:loss"')
    name = metric.rpartition(":")[2].lower()
    if any(name.endswith(ending) for ending in _SMALLER):
        return -1
    if any(ending in name for ending in _LARGER):
        return 1
    raise ValueError(f'whether a larger {metric!r} is better cannot be told from its name: give mode="min" or "max"')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and when a run is saved; `checkpoint="folder"` is `Checkpoint("folder")`.

    Attributes:
        folder: the run's folder, text or a path; `~` is the home folder. Calling the same fit again on it resumes;
            another configuration is refused.
        every: None saves at the end of an epoch, the first one included, never more often than every 10 s of training,
            and at the end; "epoch" saves at the end of every epoch; a number saves after so many steps (at the next
            dispatch) and at the end.
        keep: how many of the newest checkpoints stay.
        best: a metric of the history such as "validation:accuracy": epochs that improve it are always saved, and the
            best one is never deleted.
        mode: "min" or "max" for `best`, where its name does not say.
        allow: names of the configuration that may differ on a resume, for example ("batch_size", "data").
    """

    folder: str
    every: int | str | None = None
    keep: int = 3
    best: str | None = None
    mode: str | None = None
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        number = isinstance(self.every, int) and not isinstance(self.every, bool) and self.every >= 1
        if self.every is not None and self.every != "epoch" and not number:
            raise ValueError(
                f'Checkpoint(every={self.every!r}): give None, "epoch", or a number of steps of at least 1'
            )
        if not isinstance(self.folder, (str, os.PathLike)):
            raise TypeError(f"Checkpoint(folder={self.folder!r}): give the path of a folder")
        object.__setattr__(self, "folder", os.path.expanduser(os.fspath(self.folder)))
        whole("Checkpoint keep", self.keep)
        if isinstance(self.allow, str) or not all(isinstance(name, str) for name in self.allow):
            raise TypeError(f"Checkpoint(allow={self.allow!r}): give a tuple of names, such as ('batch_size',)")
        if self.best is not None:
            direction(self.best, self.mode)


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for `patience` epochs.

    Attributes:
        metric: a name of the history.
        mode: "min" or "max", where the name does not say.
        patience: epochs without improvement that are waited for.
        min_delta: an improvement is larger than this.
        restore_best: go back to the state of the best epoch when training ends, however it ends. With a checkpoint it
            is on disk too, saved when the next save is due (`Checkpoint(best=)` saves each improvement at once).
    """

    metric: str = "validation:loss"
    mode: str | None = None
    patience: int = 5
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        direction(self.metric, self.mode)
        whole("EarlyStopping patience", self.patience)
        _number("EarlyStopping min_delta", self.min_delta)

    def should_stop(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the last `patience` epochs brought no improvement: a function of the history, so that a resumed run
        stops where the uninterrupted one does."""
        best = best_epoch(history, self.metric, self.mode, self.min_delta)
        return best is not None and len(history) - 1 - best >= self.patience


@dataclasses.dataclass(frozen=True)
class ProgramOptions:
    """How the program is run, where the rule's own choice is not wanted.

    Attributes:
        mode: "scan", "loop", "unrolled", or None for the rule's.
        steps_per_dispatch: K, or None for the rule's.
        tune: measure the variants on throw-away states (some seconds, and a compile each), take the quickest, and
            remember it for this program, device and jax version.
    """

    mode: str | None = None
    steps_per_dispatch: int | None = None
    tune: bool = False

    def __post_init__(self) -> None:
        if self.steps_per_dispatch is not None:
            whole("ProgramOptions steps_per_dispatch", self.steps_per_dispatch)
        if self.mode not in (None, "scan", "loop", "unrolled"):
            raise ValueError(f'ProgramOptions mode={self.mode!r}: choose "scan", "loop" or "unrolled"')
        if not isinstance(self.tune, bool):
            raise TypeError(f"ProgramOptions tune={self.tune!r}: give True or False")
        if self.tune and (self.mode is not None or self.steps_per_dispatch is not None):
            raise ValueError("ProgramOptions(tune=True) chooses mode and steps_per_dispatch itself: leave them out")


@dataclasses.dataclass(frozen=True)
class ReduceOnPlateau:
    """A callback that multiplies the learning rate when a metric stops improving.

    After `patience` epochs without improvement hyper["learning_rate"] is multiplied by `factor`, down to `least`; the
    count starts anew after each cut. A function of the history and of the rate it started with, so it resumes exactly.

    Attributes:
        metric, mode, patience, min_delta: as in EarlyStopping.
        factor: below 1.
        least: the learning rate is never lower.
    """

    metric: str = "validation:loss"
    mode: str | None = None
    factor: float = 0.5
    patience: int = 3
    min_delta: float = 0.0
    least: float = 0.0

    def __post_init__(self) -> None:
        direction(self.metric, self.mode)
        if not 0 < _number("ReduceOnPlateau factor", self.factor) < 1:
            raise ValueError(f"ReduceOnPlateau factor={self.factor}: must be between 0 and 1")
        whole("ReduceOnPlateau patience", self.patience)
        _number("ReduceOnPlateau min_delta", self.min_delta)
        _number("ReduceOnPlateau least", self.least)

    def __call__(self, record: Mapping[str, Any], run: Any) -> None:
        """Called by fit after each epoch."""
        if "learning_rate" not in run.hyper:
            raise ValueError(
                "ReduceOnPlateau changes hyper['learning_rate'], which a finished optax transformation does not read: "
                "use an optimizer of jaxdl.optim"
            )
        if self._cuts(run.history) > self._cuts(run.history[:-1]):
            run.set_hyper("learning_rate", max(float(run.hyper["learning_rate"]) * self.factor, self.least))

    def _cuts(self, history: Sequence[Mapping[str, Any]]) -> int:
        sign = direction(self.metric, self.mode)
        best, waited, cuts = -math.inf, 0, 0
        for record in history:
            value = sign * _value(record, self.metric)
            if value > best + self.min_delta:
                best, waited = value, 0
            else:
                waited += 1
            if waited >= self.patience:
                cuts, waited = cuts + 1, 0
        return cuts


def best_epoch(
    history: Sequence[Mapping[str, Any]], metric: str, mode: str | None, min_delta: float = 0.0
) -> int | None:
    """The index of the best epoch so far, the earliest of equals; None when no value is a number.

    Raises:
        ValueError: the history has no such metric; its names are listed.
    """
    sign = direction(metric, mode)
    best, where = -math.inf, None
    for index, record in enumerate(history):
        value = sign * _value(record, metric)
        if value > best + (min_delta if where is not None else 0.0):
            best, where = value, index
    return where


def _value(record: Mapping[str, Any], metric: str) -> float:
    if metric not in record:
        names = ", ".join(name for name in record if ":" in name)
        hint = "" if metric.startswith("train:") else "; validation:... needs validation= data"
        raise ValueError(f"the history has no {metric!r}; it has {names}{hint}")
    return float(record[metric])
