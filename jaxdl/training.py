"""The host's half of a training: it reads reports, keeps the history, evaluates, saves and decides when to stop."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdl.checkpoint import Store
from jaxdl.configuration import environment
from jaxdl.core.evaluator import Evaluator
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.core.step import Report, Step
from jaxdl.interruption import Interruption
from jaxdl.parallel import processes
from jaxdl.parallel.join import beat
from jaxdl.run import Run
from jaxdl.saving import Entry, Saving, restore_state
from jaxdl.settings import Checkpoint, EarlyStopping, best_epoch, direction
from jaxdl.sums import Sums
from jaxdl.tracking.progress import Progress

#: How many "train" records a run's folder gets, about; while the end is far they thin out with the logarithm of time.
TRAIN_RECORDS = 1000


#: What to do about a loss that is not finite, where the data are not to blame.
ADVICE = "try a smaller learning rate, hyper={'clip_norm': 1.0}, or guard=True, which skips such updates"


class Training:
    """One call of fit, once all is built. `on_reports`, `wants_boundary` and `at_boundary` belong to the loop."""

    def __init__(
        self,
        run: Run,
        program: Program,
        *,
        stop: int,
        evaluator: Callable[[State], Evaluator] | None,
        train_metrics: Sequence[Any],
        progress: Progress,
        store: Store | None,
        checkpoint: Checkpoint | None,
        early_stopping: EarlyStopping | None,
        callbacks: Sequence[Callable[[dict[str, Any], Run], Any]],
        deadline: float | None,
        config: dict[str, Any],
        sums: Sums,
        seconds: float,
        first_step: int,
        classes: tuple[str, ...],
        blame: Callable[[bool], str],
        blame_labels: Callable[[], str],
        blame_validation: Callable[[bool], str],
    ):
        self.run, self.program, self.stop, self.progress, self.store = run, program, stop, progress, store
        self.early_stopping, self.callbacks = early_stopping, callbacks
        self.deadline, self.config, self.sums, self.earlier_seconds = deadline, config, sums, seconds
        self.train_metrics = {metric.name: metric for metric in train_metrics}
        self.interruption = Interruption()
        self.extra_results: dict[str, Any] = {}
        self.best_state: State | None = None
        self._make_evaluator = evaluator
        self._evaluator: Evaluator | None = None
        self._not_finite = ""
        self._begun = self._epoch_begun = time.perf_counter()
        self._record_at = 0
        self._compiling = 0.0
        self._blame, self._blame_validation = blame, blame_validation
        self._blame_labels: Callable[[], str] | None = blame_labels
        self._saving = Saving(store, checkpoint, first_step)
        self._votes = processes.Votes(("asked",))
        self.classes = classes
        self.first_step = first_step
        self.follow: str | None = None
        self.follow_mode: str | None = None
        if checkpoint is not None and checkpoint.best is not None:
            self.follow, self.follow_mode = checkpoint.best, checkpoint.mode
        elif early_stopping is not None:
            self.follow, self.follow_mode = early_stopping.metric, early_stopping.mode
        self._rate, self._constant_rate = _host_rate(program.step)

    # ---- what the loop calls --------------------------------------------------------------------------------------

    def on_reports(self, step: int, report: Report) -> None:
        """Add a dispatch's reports up, look for a loss that is not finite, and show progress."""
        self.sums.add(report)
        if (
            self.sums.skipped and self._blame_labels is not None
        ):  # guard skips what is not finite, but not what is wrong
            wrong, self._blame_labels = self._blame_labels(), None
            self._not_finite = f"an update was not finite by step {step}: {wrong}" if wrong else ""
        beat(f"step {step}")
        loss, weight = report.scalars["loss"], report.scalars["weight"]
        last = len(weight) - 1
        if not weight[last]:  # padding, a skipped update, or the epoch's one update is still to come
            counts = np.flatnonzero(weight)
            if not len(counts):
                return
            last = int(counts[-1])
        if not math.isfinite(self.sums.loss) and not self._not_finite:
            first = int(np.flatnonzero((weight != 0) & ~np.isfinite(loss))[0])
            self._not_finite = (
                f"the loss is {loss[first]} at step {step - len(loss) + first}: "
                f"{self._blame(bool(np.isnan(loss[first]))) or ADVICE}"
            )
        newest = float(loss[last])
        self.progress.step(step, {"train:loss": newest}, len(loss) * self.run.batch_size)
        if self.run.folder is not None and step >= self._record_at:
            self._record_at = step + max(1, min(self.stop // TRAIN_RECORDS, step // 50))
            record = {"kind": "train", "step": step, "epoch": step / self.program.feed.steps_per_epoch}
            self._record(record | {"train:loss": newest, "seconds": self.seconds()} | self._extras(step))

    def wants_boundary(self, step: int) -> bool:
        """Whether to pause before the epoch ends: Ctrl-C, a time limit, a broken loss, or a save that is due."""
        asked = self._votes.cast(asked=bool(self._late() or self.interruption.told))["asked"]
        return bool(asked or self._not_finite or self._saving.due_within(step))

    def at_boundary(self, step: int, state: State) -> tuple[State, bool]:
        """Evaluate, keep the history, ask callbacks, save. Returns the state and whether to halt."""
        per_epoch = self.program.feed.steps_per_epoch
        (late,) = processes.any_of(self._late())
        self.interruption.share()
        if self._not_finite:
            self._close_epoch(step, state, evaluate=False)
            self.run.stopped = self._not_finite
            self.note(step, f"stopped: {self._not_finite}")
            return state, True
        ends = step % per_epoch == 0 or step == self.stop or (late and not self.interruption.signal)
        whole = step % per_epoch == 0
        halt = False
        if ends:
            record = self._close_epoch(step, state, evaluate=True)
            if whole:  # a part of an epoch decides nothing: a resume goes on within it, as if it had not ended
                halt = self._decide(record)
                state = self.run.apply_changes(state)
        self.interruption.share()  # told in evaluation or by a callback
        if step == self.stop:
            self.run.stopped = "finished"
        elif self.interruption.signal:
            self.run.stopped, halt = "interrupted", True
        elif late:
            self.run.stopped, halt = "max_seconds", True
        if not self._save(step, state, last=halt or step == self.stop, ends=whole):
            self.run.stopped, halt = self._not_finite, True
            self.note(step, f"stopped, and not saved: {self._not_finite}")
        return state, halt

    # ---- parts ----------------------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Wall seconds of training, those before a resume included."""
        return self.earlier_seconds + time.perf_counter() - self._begun

    def _late(self) -> bool:
        return self.deadline is not None and time.perf_counter() >= self.deadline

    def note(self, step: int, text: str) -> None:
        """Something worth a line of its own, on the screen and in the run's folder."""
        self.progress.note(text)
        if self.run.folder is not None:
            self._record({"kind": "note", "step": step, "text": text})

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around files at the end of a run: a disk that is full costs them, and not the run."""
        try:
            yield
        except OSError as error:
            warnings.warn(f"the run's folder is not complete: {error}", RuntimeWarning, stacklevel=5)

    def _record(self, record: dict[str, Any]) -> None:
        """One line more in the run's folder; a disk that is full does not end the training."""
        assert self.run.folder is not None
        try:
            self.run.folder.append(record)
        except OSError as error:
            self.progress.note(f"not recorded: {error}")

    def _extras(self, step: int) -> dict[str, float]:
        if self._rate is None:
            return {}
        if self._constant_rate:
            return {"learning_rate": float(np.float32(self.run.hyper["learning_rate"]))}
        hyper = {name: np.float32(value) for name, value in self.run.hyper.items()}
        return {"learning_rate": float(self._rate(hyper, np.int32(max(step - 1, 0))))}

    def _close_epoch(self, step: int, state: State, *, evaluate: bool) -> dict[str, Any]:
        """One more entry of the history."""
        sums, per_epoch = self.sums, self.program.feed.steps_per_epoch
        now = time.perf_counter()
        trained = sums.seconds + now - self._epoch_begun
        done = step % per_epoch or per_epoch
        record: dict[str, Any] = {"epoch": -(-step // per_epoch), "step": step}
        if self.program.once_an_epoch and step % per_epoch:
            self.note(step, f"step {step} is within epoch {record['epoch']}, whose one update is still to come")
        else:
            record["train:loss"] = sums.loss / sums.weight if sums.weight else float("nan")
            record |= self._train_metrics()
            record |= {f"train:{name[6:]}": total / sums.weight for name, total in sums.shown.items() if sums.weight}
        record |= self._extras(step)
        if sums.skipped:
            record["train:skipped"] = sums.skipped
            self.note(step, f"epoch {record['epoch']}: {sums.skipped} updates were not finite and were skipped")
        if evaluate and self._make_evaluator is not None:
            beat("evaluating")
            if self._evaluator is None:
                self._evaluator = self._make_evaluator(state)
            for name, value in self._evaluator(state).items():
                if isinstance(value, float):
                    record[f"validation:{name}"] = value
                else:
                    self.extra_results[name] = value
        compiling, self._compiling = self.program.first_call_seconds - self._compiling, self.program.first_call_seconds
        examples = min(done * self.run.batch_size, self.program.feed.examples)
        record["examples_per_second"] = examples / max(trained - compiling, 1e-9)
        record["seconds"] = self.seconds()
        if math.isnan(record.get("validation:loss", 0.0)) and math.isfinite(record.get("train:loss", 0.0)):
            why = self._blame_validation(True) or "the weights of the validation data may all be 0"
            self.note(step, f"the validation loss is nan: {why}")
        self.run.history.append(record)
        self.run.metrics = {name: value for name, value in record.items() if ":" in name}
        self.progress.epoch(record)
        if self.run.folder is not None:
            self._record({"kind": "epoch"} | record)
        if step % per_epoch:
            sums.seconds = trained  # a resume goes on in this epoch
        else:
            self.sums = Sums()
        self._epoch_begun = time.perf_counter()
        return record

    def _train_metrics(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, metric in self.train_metrics.items():
            state = jax.tree_util.tree_map_with_path(
                lambda path, leaf, name=name: self.sums.metrics["/".join((name, *map(_key, path)))].astype(leaf.dtype),
                metric.init(),
            )
            value = metric.compute(state)
            parts = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
            values |= {f"train:{key}": float(part) for key, part in parts.items() if np.ndim(part) == 0}
        return values

    def _decide(self, record: dict[str, Any]) -> bool:
        """Follow the best epoch, ask callbacks, early stopping last."""
        self._follow()
        halt = False
        for callback in self.callbacks:
            if callback(record, self.run) is True:
                self.run.stopped, halt = "callback", True
        if self.callbacks and processes.several():  # each has its own clock: what process 0 changes is changed
            self.run.take_changes_of_first()
            (halt,) = processes.any_of(halt)
            self.run.stopped = "callback" if halt else self.run.stopped
        if self.early_stopping is not None and self.early_stopping.should_stop(self.run.history):
            self.run.stopped, halt = "early stopping", True
        return halt

    def _follow(self) -> None:
        if self.follow is None:
            return
        per_epoch = self.program.feed.steps_per_epoch
        whole = [record for record in self.run.history if record["step"] % per_epoch == 0]
        best = best_epoch(whole, self.follow, self.follow_mode)
        if best is not None:
            entry = whole[best]
            self.run.metrics["best"] = {
                "metric": self.follow, "value": entry[self.follow], "epoch": entry["epoch"], "step": entry["step"],
            }  # fmt: skip

    def already_done(self, step: int) -> bool:
        """Whether a resumed run has nothing left to do; says why in `run.stopped`."""
        if step >= self.stop:
            self.run.stopped = "finished"
        elif self.early_stopping is not None and self.early_stopping.should_stop(self.run.history):
            self.run.stopped = "early stopping"
        return bool(self.run.stopped)

    def follow_best(self) -> None:
        """After a resume: the last metrics, the best epoch so far, and its state when it is to be gone back to."""
        if not self.run.history:
            return
        self.run.metrics = {name: value for name, value in self.run.history[-1].items() if ":" in name}
        self._follow()
        best = self.run.metrics.get("best")
        if best is None or self.early_stopping is None or not self.early_stopping.restore_best:
            return
        if self.store is not None and best["step"] in self.store.steps():
            self.best_state = restore_state(self.store, self.program, step=best["step"]).tree
        else:
            self.note(
                self.first_step, f"epoch {best['epoch']}, the best so far, was not saved: there is no way back to it"
            )

    def final_state(self, state: State) -> State:
        """The last state, or the best epoch's where early stopping goes back to it."""
        best = self.run.metrics.get("best")
        if self.best_state is None or best is None or best["step"] == int(state.step):
            return state
        self.progress.note(f"back to epoch {best['epoch']}, the best by {best['metric']} ({best['value']:.6g})")
        if self._make_evaluator is not None:  # what the report shows is of the state that fit returns
            values = (self._evaluator or self._make_evaluator(self.best_state))(self.best_state)
            self.extra_results |= {name: value for name, value in values.items() if not isinstance(value, float)}
        return self.best_state

    def improved(self) -> bool:
        """Whether the last epoch is the best one so far."""
        return bool(self.run.history) and self.run.metrics.get("best", {}).get("step") == self.run.history[-1]["step"]

    def _save(self, step: int, state: State, *, last: bool, ends: bool) -> bool:
        """Save where a save is due; False when the state is broken, which is never saved."""
        best = ends and self.improved()
        goes_back = best and self.early_stopping is not None and self.early_stopping.restore_best
        due = self._saving.due(step, last=last, ends=ends, best=best)
        waits = best and not due and self._saving.on
        copy = self.program.copy(state) if goes_back or waits else state
        if goes_back:
            self.best_state = copy
        if not due and not waits:
            return True
        beat("saving")
        if not self._saving.sound(state):
            self._not_finite = f"the parameters are not finite after step {step}: {self._blame(False) or ADVICE}"
            return False
        metric = None
        if ends and self.follow is not None:
            metric = -direction(self.follow, self.follow_mode) * float(self.run.history[-1][self.follow])
        self.sums.seconds += time.perf_counter() - self._epoch_begun
        self._epoch_begun = time.perf_counter()
        progress = {
            "history": list(self.run.history),
            "sums": self.sums.as_dict(),
            "seconds": self.seconds(),
            "hyper": dict(self.run.hyper),
            "stopped": self.run.stopped,
        }
        how = self.program.plan.as_dict() | environment(self.program.layout)
        manifest = {"config": self.config, "program": how, "progress": progress}
        entry = Entry(step, copy if waits else state, manifest, metric)
        if due:
            self._saving.save(entry, partial(self.note, step), best=best)
        else:
            self._saving.hold(entry)
        return True

    def finish_saving(self) -> None:
        """Wait for the last save. When it failed, the trained state is worth more than an exception: a warning."""
        if self.store is None:
            return
        try:
            self.store.wait()
        except OSError as error:
            self.note(self.run.history[-1]["step"] if self.run.history else 0, str(error))
            warnings.warn(f"{error}. The run is returned with its state", RuntimeWarning, stacklevel=4)


def _host_rate(step: Step) -> tuple[Callable[..., Any] | None, bool]:
    """The learning rate for the host, compiled, and whether it is the number in `hyper` itself, whatever the step."""
    if step.rate is None:
        return None, False
    rate: Callable[..., Any] = step.rate
    hyper = {name: np.float32(value) for name, value in step.hyper.items()}
    return jax.jit(rate), rate(hyper, np.int32(0)) is hyper.get("learning_rate")


def _key(key: Any) -> str:
    return str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
