"""fit: a task, data and an optimizer in; a trained Run out. It wires the rooms below together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdl.arguments import (
    check_feed,
    check_length,
    check_mappings,
    check_numbers,
    check_records,
    check_weights,
    is_feed,
)
from jaxdl.blame import blame, blame_labels, labels_of
from jaxdl.checkpoint import Restored, Store
from jaxdl.configuration import configuration, environment
from jaxdl.core.evaluator import Evaluator
from jaxdl.core.loop import train
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.core.step import Step
from jaxdl.core.summary import largest_batch_size
from jaxdl.core.task import Task
from jaxdl.core.tune import tune
from jaxdl.data import Dataset, as_dataset, make_feed
from jaxdl.data.weights import weighted as examples_weighted
from jaxdl.inputs import (
    all_count,
    compare_columns,
    compose,
    confusion,
    power_below,
    require_weight,
    size_of,
    warn_of_leaks,
)
from jaxdl.parallel import Layout, Parallel, as_parallel, processes
from jaxdl.parallel.join import beat
from jaxdl.resume import resume, saved_configuration
from jaxdl.run import Run
from jaxdl.settings import Checkpoint, EarlyStopping, ProgramOptions
from jaxdl.sums import Sums
from jaxdl.together import memory_of_all, open_folder, require_alike, require_together
from jaxdl.tracking import make_progress
from jaxdl.training import Training

Callback = Callable[[dict[str, Any], Run], Any]


def fit(
    task: Task | Step,
    data: Any,
    *,
    validation: Any = None,
    optimizer: Any = None,
    epochs: int | None = None,
    steps: int | None = None,
    max_seconds: float | None = None,
    batch_size: int | str = 32,
    eval_batch_size: int | None = None,
    metrics: Sequence[Any] | None = None,
    train_metrics: Sequence[Any] = (),
    hyper: Mapping[str, float] | None = None,
    seed: int = 0,
    precision: str = "float32",
    accumulate: int = 1,
    average: float | None = None,
    guard: bool = False,
    apply: str = "batch",
    parallel: str | Parallel | None = None,
    start: Mapping[str, Any] | None = None,
    class_weight: Mapping[int, float] | Sequence[float] | str | None = None,
    sample_weight: Any = None,
    shuffle: bool = True,
    feed: str = "auto",
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    program: ProgramOptions | None = None,
    verbose: int = 1,
) -> Run:
    """Train a task on data, as one compiled program, and return the Run.

    >>> import jaxdl
    >>> train, test = jaxdl.data.load("digits")
    >>> task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10))
    >>> run = jaxdl.fit(task, train, validation=test, epochs=5, verbose=0)
    >>> run.metrics["validation:accuracy"] > 0.85
    True

    Args:
        task: what to learn, or a whole Step (`jaxdl.lbfgs_step(task)`, k-means ...).
        data: a Dataset, (x, y), a mapping of columns, or a feed. A column "weight" weighs the examples.
        validation: data of the same columns, evaluated at the end of each epoch; each example counts once.
        optimizer: of `jaxdl.optim`, or a finished optax transformation; `jaxdl.optim.adam()` when None.
        epochs, steps, max_seconds: how long; the first that is reached ends the training. max_seconds counts from this
            call, in wall time.
        batch_size: examples per update, or "auto": the largest that fits the memory, by XLA's own analysis.
        eval_batch_size: examples at a time in evaluation; the batch size when None.
        metrics: of the validation data; the task's own when None.
        train_metrics: of the training batches as they are learnt from ("train:accuracy").
        hyper: traced numbers by name: the optimizer's, the task's ("dropout", "label_smoothing"), and "l1", "l2",
            "clip_norm", "clip_value". A name that nothing reads is refused.
        seed: of initial parameters, order of the data, dropout.
        precision: "float32", or "bf16" with float32 master weights, loss and metrics.
        accumulate: microbatches that a batch is measured in.
        average: decay of an exponential moving average of the parameters, which evaluate and predict then use.
        guard: skip and count updates that are not finite, instead of stopping. Labels that the model has no class for
            end the training all the same.
        apply: "batch", or "epoch": one update an epoch, from the sum over it.
        parallel: how the training is spread over devices: "ddp", "pmap", "zero1", "fsdp", "mics", "tensor", or
            `jaxdl.Parallel(...)`; one device when None. The numbers are the same on every mesh. In several processes
            (`jaxdl launch`, `jaxdl.join`) all make the same call; process 0 prints and writes.
        start: {"params": ...} to begin with instead of the task's own initial values.
        class_weight: label -> weight, or "balanced": examples / (classes * count of the class). It multiplies the
            examples' weights in training only.
        sample_weight: [examples], likewise.
        shuffle: another order each epoch.
        feed: "resident" (data on the device), "streamed" (host gathers), or "auto".
        checkpoint: a folder, or `Checkpoint(...)`. The same call on the same folder resumes; another configuration is
            refused and the difference named.
        early_stopping: stop by a metric of the history.
        callbacks: (record of the epoch, run) -> True to stop; after each whole epoch. `run.set_hyper` changes a traced
            number.
        program: how to run, where the rule's choice is not wanted.
        verbose: 0 nothing, 1 live in a terminal and plain lines elsewhere, 2 plain lines.

    Returns:
        The Run, also when Ctrl-C ended it (`run.stopped == "interrupted"`).

    Raises:
        ValueError, TypeError: a setting or data that cannot be; the sentence says which and what would be right.
        SystemExit: after SIGTERM, with code 143, once the state is saved.
    """
    begun = time.perf_counter()
    check_length(epochs=epochs, steps=steps, max_seconds=max_seconds)
    check_numbers(
        batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, accumulate=accumulate, average=average,
        verbose=verbose, guard=guard, shuffle=shuffle,
    )  # fmt: skip
    check_mappings(hyper=hyper, start=start)
    check_weights(sample_weight=sample_weight, class_weight=class_weight)
    check_records(
        checkpoint=checkpoint, early_stopping=early_stopping, program=program, callbacks=callbacks,
        validation=validation, metrics=metrics, train_metrics=train_metrics,
    )  # fmt: skip
    if is_feed(data):
        check_feed(
            data, batch_size=batch_size, sample_weight=sample_weight is not None,
            class_weight=class_weight is not None, shuffle=not shuffle, feed=feed != "auto",
        )  # fmt: skip
    saving = Checkpoint(os.fspath(checkpoint)) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    options = ProgramOptions() if program is None else program

    step = compose(
        task, optimizer, precision=precision, accumulate=accumulate, average=average, guard=guard,
        train_metrics=tuple(train_metrics),
    )  # fmt: skip
    if validation is not None and step.evaluate is None:
        raise ValueError("this step has no evaluate function: it can be trained, but not on validation= data")
    spread = as_parallel(parallel)
    require_together(spread, options)
    layout = Layout.of(spread, table=step.logical_axes)
    weighted = (
        data
        if is_feed(data)
        else examples_weighted(as_dataset(data), sample_weight=sample_weight, class_weight=class_weight)
    )
    require_weight(weighted)

    def build(plan: RunPlan | None = None, size: int | None = None) -> Program:
        source: Any = weighted
        if isinstance(weighted, Dataset):
            source = make_feed(
                weighted, size_of(batch_size if size is None else size, weighted, layout), shuffle=shuffle, kind=feed
            )
        return Program(
            step, source, layout=layout, hyper=hyper, seed=seed, apply=apply, plan=plan, start=start,
            all_count=all_count(source),
        )  # fmt: skip

    before = saved_configuration(saving)
    if batch_size == "auto" and before is not None:
        batch_size = int(before["batch_size"])  # a resume keeps to what fitted then
    if batch_size == "auto":
        if not isinstance(weighted, Dataset):
            raise ValueError('batch_size="auto" needs data that fit can cut; a feed has its own batch size')
        batch_size = largest_batch_size(
            lambda size: build(None, size), int(0.8 * memory_of_all(layout)), most=power_below(len(weighted)),
            least=layout.batch_unit,
        )  # fmt: skip
    built = build()
    chosen = None if options.tune and before is not None else _chosen_plan(options, built, build)
    if chosen is not None:
        built.plan = chosen
    per_epoch = built.feed.steps_per_epoch
    stop = min(per_epoch * epochs if epochs is not None else 2**31 - 1, steps if steps is not None else 2**31 - 1)
    config = configuration(
        built, data=weighted, validation=validation, seed=seed, precision=precision, accumulate=accumulate,
        average=average, guard=guard, apply=apply, shuffle=shuffle, optimizer=optimizer, start=start,
        fingerprints=saving is not None or processes.several(),
    )  # fmt: skip
    chosen_metrics = step.metrics if metrics is None else tuple(metrics)
    config |= {"epochs": epochs, "steps": steps, "metrics": [metric.name for metric in chosen_metrics]}
    require_alike(config | {"checkpoint": saving, "early_stopping": early_stopping, "max_seconds": max_seconds})

    held_out = None if validation is None else as_dataset(validation)
    if held_out is not None:
        compare_columns(built, held_out)
        if processes.first():
            warn_of_leaks(getattr(weighted, "dataset", weighted), held_out)

    # Whatever can be refused has been: from here on there is a folder.
    progress = make_progress(verbose if processes.first() else 0)
    store = folder = None
    if saving is not None:
        folder = open_folder(saving.folder)
        store = Store(folder.checkpoints, keep=saving.keep)
    try:
        run = Run(step, layout, batch_size=built.feed.batch_size, hyper=built.hyper, folder=folder)
        restored = None
        if store is not None and folder is not None and saving is not None:
            restored = resume(built, store, folder, config, saving, options)
            processes.wait_for_all()  # what they have read is written anew
            folder.write_json("config.json", config)
            folder.write_json("program.json", built.plan.as_dict() | environment(layout))
        training = _training(
            run, built, restored, store=store, checkpoint=saving, stop=stop, held_out=held_out,
            eval_batch_size=eval_batch_size, metrics=chosen_metrics, train_metrics=train_metrics, progress=progress,
            early_stopping=early_stopping, callbacks=callbacks, config=config,
            blame=partial(blame, weighted, partial(labels_of, built)),
            blame_labels=partial(blame_labels, weighted, partial(labels_of, built)),
            blame_validation=partial(blame, held_out, partial(labels_of, built)),
            deadline=None if max_seconds is None else begun + max_seconds,
        )  # fmt: skip
        return _train(run, built, training, restored, epochs, verbose)
    finally:
        progress.close()
        if store is not None:
            store.close()
        if folder is not None:
            folder.close()


# ---- parts ------------------------------------------------------------------------------------------------


def _training(
    run: Run,
    program: Program,
    restored: Restored | None,
    *,
    stop: int,
    held_out: Dataset | None,
    eval_batch_size: int | None,
    metrics: tuple[Any, ...],
    **settings: Any,
) -> Training:
    evaluator: Callable[[State], Evaluator] | None = None
    if held_out is not None:
        size = min(program.feed.batch_size if eval_batch_size is None else eval_batch_size, len(held_out))
        size = run.layout.rounded(size)
        extra = confusion(held_out, metrics) if run.folder is not None else ()

        def evaluator(state: State) -> Evaluator:
            return Evaluator(
                program.step, make_feed(held_out, size, shuffle=False), (*metrics, *extra), run.layout, state
            )

    progress = {} if restored is None else restored.manifest["configuration"]["progress"]
    sums = Sums(progress.get("sums"))
    run.history = list(progress.get("history", []))
    ended = run.history[-1]["step"] if run.history else 0
    within = restored is not None and restored.step == ended and ended % program.feed.steps_per_epoch > 0
    if restored is not None and within and restored.step < stop:
        # It had ended within an epoch, which now goes on: that epoch gets its entry at its end.
        run.history.pop()
        assert run.folder is not None
        run.folder.rewind(restored.step - 1)
    run.hyper |= {name: value for name, value in progress.get("hyper", {}).items() if name in run.hyper}
    return Training(
        run, program, stop=stop, evaluator=evaluator, sums=sums,
        seconds=float(progress.get("seconds", 0.0)), classes=() if held_out is None else held_out.classes or (),
        first_step=0 if restored is None else int(restored.tree.step), **settings,
    )  # fmt: skip


def _train(
    run: Run, program: Program, training: Training, restored: Restored | None, epochs: int | None, verbose: int
) -> Run:
    """Run the loop, then put everything in its place."""
    progress, folder = training.progress, run.folder
    state = program.init() if restored is None else restored.tree
    first = 0 if restored is None else int(state.step)
    total = None if training.stop == 2**31 - 1 else training.stop
    if verbose:
        progress.start(_title(program), total, program.feed.steps_per_epoch, first, _lines(program, epochs))
    if restored is not None:
        training.follow_best()
        for note in (*restored.notes, f"resumed at step {first}"):
            training.note(first, note)
    if folder is not None:
        folder.set_status("running", step=first)
    status = "failed"
    beat("compiling")
    try:
        if not training.already_done(first):
            with training.interruption():
                state = train(
                    program, state, stop=training.stop, on_reports=training.on_reports,
                    wants_boundary=training.wants_boundary, at_boundary=training.at_boundary,
                )  # fmt: skip
            training.interruption.share()  # told while the last boundary was passed
        run.state = training.final_state(state)
        training.finish_saving()
        stopped = training.interruption.signal is not None
        status = "interrupted" if stopped else "finished" if run.stopped == "finished" else "stopped"
    finally:
        if folder is not None:
            best = run.metrics.get("best")
            last = run.history[-1] if run.history else {}
            with training.writing():
                folder.set_status(
                    status, epochs=len(run.history), step=last.get("step", first), seconds=training.seconds(),
                    stopped=run.stopped, metrics=run.metrics, **({"best": best} if best else {}),
                )  # fmt: skip
    if folder is not None and processes.first():
        with training.writing():
            _report(run, training)
    beat("finished")
    if training.interruption.signal == signal.SIGTERM:
        progress.close()
        raise SystemExit(143)
    return run


def _report(run: Run, training: Training) -> None:
    from jaxdl.report import write_report

    assert run.folder is not None
    results: dict[str, Any] = {"metrics": {k: v for k, v in run.metrics.items() if k != "best"}}
    if "best" in run.metrics:
        results["best"] = run.metrics["best"]
    if not training.extra_results and run.folder.has("results.json"):  # nothing was left to train
        results = run.folder.read_json("results.json") | results
    results |= training.extra_results
    if training.classes:
        results["classes"] = list(training.classes)
    run.folder.write_json("results.json", results)
    run.folder.close()
    write_report(run.folder.path)


def _chosen_plan(
    options: ProgramOptions, program: Program, build: Callable[[RunPlan | None], Program]
) -> RunPlan | None:
    if options.tune:
        return tune(build)
    if options.mode is None and options.steps_per_dispatch is None:
        return None
    own = program.plan
    k = options.steps_per_dispatch or own.steps_per_dispatch
    return RunPlan(options.mode or own.mode, min(k, program.feed.steps_per_epoch))


def _title(program: Program) -> str:
    count = sum(int(np.prod(x.shape, dtype=np.int64)) for x in jax.tree.leaves(program.abstract_state.params))
    feed = program.feed
    return f"{count:,} parameters, {feed.examples:,} examples in {feed.steps_per_epoch:,} batches of {feed.batch_size}"


def _lines(program: Program, epochs: int | None) -> list[str]:
    layout = program.layout
    lines = [f"{layout.device.device_kind}, jax {jax.__version__}; {program.plan}"]
    if layout.mesh.size > 1:
        mesh = " x ".join(f"{axis}={size}" for axis, size in layout.sizes.items() if size > 1)
        notes = layout.notes(program.abstract_state.params)
        whole = f"; {len(notes)} parameters stay whole (Program.report() names them)" if notes else ""
        lines.append(f"{layout.mesh.size} devices: {mesh}{whole}")
    return lines
