"""Run: what fit returns, what a callback sees, and what a run's folder gives back."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.checkpoint import CorruptCheckpoint, Store
from jaxdl.core.evaluator import Evaluator, Predictor
from jaxdl.core.gradient import gradient_step
from jaxdl.core.state import State
from jaxdl.core.step import Step
from jaxdl.core.task import Task, check_number
from jaxdl.core.transform import average
from jaxdl.data import as_dataset, make_feed
from jaxdl.parallel import Layout, processes
from jaxdl.settings import whole
from jaxdl.tracking import RunFolder


class Run:
    """A training: its history, its last state, and what can be done with it.

    Attributes:
        step: how it learns.
        state: everything it knows; None while the device works on it.
        history: one dict an epoch: "epoch" (from 1), "step", "train:loss", "validation:accuracy", "learning_rate",
            "examples_per_second", "seconds" ...
        metrics: the last value of each metric, and "best": {"metric", "value", "epoch", "step"} where one is followed.
        hyper: the traced numbers in force, name -> float.
        folder: its folder, or None.
        stopped: why training ended: "finished", "early stopping", "max_seconds", "interrupted", "callback", or a
            sentence about a loss that is not finite.
        batch_size: examples per update.
    """

    def __init__(
        self,
        step: Step,
        layout: Layout,
        *,
        batch_size: int,
        hyper: Mapping[str, float],
        folder: RunFolder | None = None,
    ):
        self.step = step
        self.layout = layout
        self.batch_size = batch_size
        self.hyper = {name: float(value) for name, value in hyper.items()}
        self.folder = folder
        self.state: State | None = None
        self.history: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.stopped = ""
        self._changed: dict[str, float] = {}

    def predict(self, data: Any, *, batch_size: int | None = None) -> Any:
        """The task's predictions for every example, NumPy arrays [examples, ...] in the order of the data.

        Args:
            data: what fit takes, or a bare array x. Labels and weights, where present, are not read.
            batch_size: examples at a time; it does not change the result's meaning, only memory and speed.
        """
        # Taken out before they are checked: a test set may well have labels that training has not.
        if isinstance(data, np.ndarray):
            data = (data,)
        elif isinstance(data, tuple | list):
            data = data[:1] if len(data) <= 3 else data
        elif isinstance(data, Mapping):
            data = _inputs(data)
        dataset = as_dataset(data)
        dataset = dataset.replace(columns=_inputs(dataset.columns))
        feed = make_feed(dataset, self._size(batch_size, dataset), shuffle=False)
        return Predictor(self.step, feed, self.layout, self._state())(self._state())

    def evaluate(
        self, data: Any, *, metrics: tuple[Any, ...] | None = None, batch_size: int | None = None
    ) -> dict[str, Any]:
        """{"loss": ..., "accuracy": ...} over data: the weighted mean loss and metrics, each example counted once.

        Args:
            data: what fit takes, with labels; a "weight" column weighs the examples.
            metrics: records of `jaxdl.metrics`; the task's own when None.
            batch_size: examples at a time.
        """
        dataset = as_dataset(data)
        feed = make_feed(dataset, self._size(batch_size, dataset), shuffle=False)
        if metrics is not None and not isinstance(metrics, (tuple, list)):
            raise TypeError(f"metrics={metrics!r}: give a tuple, metrics=(jaxdl.metrics.Accuracy(),), or () for none")
        chosen = self.step.metrics if metrics is None else tuple(metrics)
        return Evaluator(self.step, feed, chosen, self.layout, self._state())(self._state())

    def set_hyper(self, name: str, value: float) -> None:
        """Change a traced number from the next step on; for callbacks.

        Raises:
            ValueError: the state has no such number, it cannot be this one, or training is over.
        """
        if name not in self.hyper:
            raise ValueError(f"the state has no number {name!r}; it has {', '.join(sorted(self.hyper)) or 'none'}")
        number = check_number(name, value)
        if self.state is not None:
            raise ValueError("training is over: set_hyper is for callbacks, while fit runs")
        self.hyper[name] = self._changed[name] = number

    def take_changes_of_first(self) -> None:
        """In several processes: the numbers that callbacks have set in process 0, and no others."""
        self._changed, self.hyper = json.loads(processes.from_first(json.dumps([self._changed, self.hyper])))

    def apply_changes(self, state: State) -> State:
        """The state with the numbers that callbacks have set."""
        if not self._changed:
            return state
        changed = {name: self.layout.put(np.float32(value)) for name, value in self._changed.items()}
        self._changed = {}
        return state.replace(hyper=state.hyper | changed)

    @property
    def variables(self) -> dict[str, Any]:
        """{"params": ..., and the untrained collections}: for `model.apply`, `fit(start=)` and `jaxdl.models.transfer`.

        The averaged parameters where `fit(average=)` kept them, as in `evaluate` and `predict`.
        """
        state = self._state()
        return {"params": state.extra.get("average", state.params), **state.model_state}

    def _size(self, batch_size: int | None, dataset: Any) -> int:
        size = self.batch_size if batch_size is None else whole("batch_size", batch_size)
        return self.layout.rounded(min(size, len(dataset)))

    def _state(self) -> State:
        if self.state is None:
            raise ValueError("the run has no state yet: predict and evaluate work after fit has returned")
        return self.state

    def __repr__(self) -> str:
        shown = {k: round(v, 5) for k, v in self.metrics.items() if isinstance(v, float)}
        place = f", folder={str(self.folder.path)!r}" if self.folder else ""
        return f"Run({self.stopped or 'running'}, epochs={len(self.history)}, metrics={shown}{place})"


def _inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in columns.items() if name not in ("y", "weight")}


def _mismatch(store: Store, step: int | None, wanted: Any, paths: dict[str, str | None]) -> str:
    """Which leaves of the model the checkpoint lacks or has in another shape; empty when that is not what is wrong."""

    def filled(x: Any) -> Any:
        keys = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return x if keys else np.broadcast_to(np.zeros((), x.dtype), x.shape)

    filler = jax.tree.map(filled, wanted)
    different = store.restore(filler, step=step, strict=False, path_map=paths).new
    more = f" and {len(different) - 4} more" if len(different) > 4 else ""
    return ", ".join(f"{path} ({why})" for path, why in list(different.items())[:4]) + more


def load_run(
    folder: str | os.PathLike[str],
    task: Task | Step,
    example: Any,
    *,
    which: str = "best",
    layout: Layout | None = None,
) -> Run:
    """A saved run, for predict and evaluate: the parameters of one of its checkpoints, verified, without the optimizer.

    Args:
        folder: the run's folder.
        task: the same task or Step as in training (the checkpoint holds arrays, not code).
        example: data of the same columns; only shapes are used.
        which: "best" (by the metric that the run followed, else the last), or "last".
        layout: where arrays live.

    Raises:
        FileNotFoundError: no run, or no checkpoint in it.
        ValueError: the checkpoint is of another model: the paths are named.
    """
    if which not in ("best", "last"):
        raise ValueError(f'which={which!r}: choose "best" or "last"')
    place = RunFolder.open(folder)
    config = place.read_json("config.json")
    layout = Layout.single() if layout is None else layout
    step = task if isinstance(task, Step) else gradient_step(task, optax.identity(), precision=config["precision"])
    if config["average"] is not None:
        step = average(step, config["average"])
    dataset = as_dataset(example)
    size = layout.rounded(min(len(dataset), int(config["batch_size"])))
    feed = make_feed(dataset, size, shuffle=False)
    hyper = {name: jnp.float32(value) for name, value in config["hyper"].items()}
    shapes = jax.eval_shape(
        lambda: step.init(jnp.uint32(0), {n: jnp.zeros(x.shape, x.dtype) for n, x in feed.batch.items()}, hyper)
    )
    like = layout.abstract(shapes, layout.state(shapes))
    wanted = {"params": like.params, "model_state": like.model_state}
    if config["average"] is not None:
        wanted["average"] = like.extra["average"]
    paths: dict[str, str | None] = {"average": "extra/average"} if "average" in wanted else {}
    with Store(Path(place.checkpoints), read_only=True) as store:
        number = store.best_step() if which == "best" else None
        try:
            restored = store.restore(wanted, step=number, strict=False, path_map=paths)
        except CorruptCheckpoint:
            raise
        except ValueError as error:
            mismatch = _mismatch(store, number, wanted, paths)
            if not mismatch:
                raise
            raise ValueError(f"the checkpoint in {folder} is of another model: {mismatch}") from error
    surplus = sorted(path for path in restored.left if path.split("/")[0] in ("params", "model_state"))
    if surplus:
        raise ValueError(
            f"the checkpoint in {folder} is of another model: it has {', '.join(surplus[:4])}, which this one lacks"
        )
    for note in restored.notes:
        warnings.warn(note, stacklevel=2)
    tree = restored.tree
    state = State(
        step=layout.put(np.int32(restored.step)),
        params=tree["params"],
        model_state=tree["model_state"],
        opt_state=(),
        hyper=layout.put(hyper),
        seed=layout.put(np.uint32(config["seed"])),
        feed=(),
        extra={"average": tree["average"]} if "average" in tree else {},
    )
    run = Run(step, layout, batch_size=int(config["batch_size"]), hyper=config["hyper"], folder=place)
    run.state = state
    run.history = [{k: v for k, v in record.items() if k != "kind"} for record in place.records("epoch")]
    run.metrics = {k: v for k, v in run.history[-1].items() if ":" in k} if run.history else {}
    status = place.read_json("run.json") if place.has("run.json") else {}
    run.stopped = str(status.get("status", ""))
    if status.get("best"):
        run.metrics["best"] = status["best"]
    return run
