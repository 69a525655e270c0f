"""How to learn: a Step has two halves, `measure` (a weighted sum over examples) and `apply` (a decision from the sum).

Sums add over microbatches, devices, processes, folds and streams, in any split, with the same answer (the summation
form of Chu et al., "Map-Reduce for Machine Learning on Multicore", 2006). Gradients are one such sum; the counts of
k-means, the expected counts of LDA and a covariance are others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.state import State
from jaxdl.core.task import Array, Batch, PyTree, Task


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Alike:
    """Static knowledge about a measure: True when its weight is 0 only if the batch's own weights all are, because no
    task weights (masked tokens, ignored pixels) took part. A program that also knows its feed can then leave out the
    selection of the old state, which costs up to 18 % of a small step."""

    value: bool = False


class Measure(NamedTuple):
    """What one batch, or any part of one, has to say.

    Attributes:
        total: added between parts: gradient sums, loss sums, counts.
        weight: [] float32, added: what the totals are divided by.
        means: averaged between parts by weight (batch statistics). Integer leaves take the larger one.
        rows: concatenated between parts along the first axis (recurrent carries).
        alike: see `Alike`; no array.
    """

    total: PyTree
    weight: Array
    means: PyTree = ()
    rows: PyTree = ()
    alike: Alike = Alike()


class Report(NamedTuple):
    """What the host may see of one update.

    Attributes:
        scalars: name -> [] float32; always "loss" (a mean) and "weight" (what it was a mean over).
        sums: name -> pytree that adds over updates: states of training metrics.
    """

    scalars: dict[str, Array]
    sums: dict[str, PyTree]


class Evaluation(NamedTuple):
    """One batch looked at without learning.

    Attributes:
        loss: [] float32, sum of value * weight.
        weight: [] float32, sum of the weights.
        preds: what metrics read.
        target: what they compare with.
        weights: [batch, ...] float32, per example, token or pixel.
    """

    loss: Array
    weight: Array
    preds: PyTree
    target: PyTree
    weights: Array


class Step(NamedTuple):
    """How to learn.

    Attributes:
        init: (seed [] uint32, first batch, hyper) -> State.
        measure: (state, batch) -> Measure. Additive: the measures of any split of a batch add up to the batch's.
        apply: (state, measure) -> (state, report). Divides by weight, then decides. `update` keeps the old state where
            the weight is 0, and counts the step: apply does neither.
        evaluate: (state, batch) -> Evaluation, or None for a step that has no loss to evaluate.
        predict: (state, batch) -> outputs, or None.
        metrics: the metrics that an evaluation computes when the caller names none.
        hyper: name -> default of every traced number that the step reads whatever the task.
        reads: names that task and step have asked for so far; it is complete after the first trace.
        whole_batch: True when a batch must not be split.
        rate: (hyper, step) -> learning rate, or None where there is none to show.
        parts: microbatches that `measure` splits a batch into.
        renew: state -> the state whose optimizer begins at these parameters, for a training that starts from given
            ones; None where nothing else depends on them.
        logical_axes: the model's table for its parameters, ((pattern, logical axes), ...), which `Parallel` reads.
        trials: how many trainings this step runs at once, see `jaxdl.trials`; 0 for a step that is one.
        single: the step of one of them; None without trials.
    """

    init: Callable[[Array, Batch, Mapping[str, Array]], State]
    measure: Callable[[State, Batch], Measure]
    apply: Callable[[State, Measure], tuple[State, Report]]
    evaluate: Callable[[State, Batch], Evaluation] | None = None
    predict: Callable[[State, Batch], PyTree] | None = None
    metrics: tuple[Any, ...] = ()
    hyper: Mapping[str, float] = {}
    reads: frozenset[str] | set[str] = frozenset()
    whole_batch: bool = False
    rate: Callable[[Mapping[str, Array], Array], Array] | None = None
    parts: int = 1
    renew: Callable[[State], State] | None = None
    logical_axes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    trials: int = 0
    single: Step | None = None


def require_step(step: Any, taker: str, *, trials: bool = False) -> None:
    """A sentence where something else is given than the Step that `taker` takes.

    Args:
        trials: that it takes steps of many trials, too.

    Raises:
        TypeError: it is a Task, or no Step at all.
        ValueError: it is a step of many trials, and `taker` takes one training.
    """
    if isinstance(step, Task):
        raise TypeError(f"{taker} takes a Step, not a Task: jaxdl.gradient_step(task, optimizer) makes one of it")
    if not isinstance(step, Step):
        raise TypeError(f"{taker} takes a Step, not a {type(step).__name__}")
    if step.trials and not trials:
        raise ValueError(
            f"{taker} takes the Step of one training, and this one has {step.trials} trials: trials(step, count) goes "
            "last, over all other transformations, and jaxdl.Program runs it"
        )


def columns_of(metric: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The columns of a batch that a metric reads beside the predictions and their target (`by` reads "group").

    Raises:
        ValueError: the batch lacks one; it is named, with those that are there.
    """
    statistic = getattr(metric, "statistic", metric)
    names = [key for key in getattr(statistic, "inputs", ()) if key not in ("preds", "target")]
    for key in names:
        if key not in batch:
            raise ValueError(
                f"the metric {metric.name!r} reads the column {key!r}, which the data lack; "
                f"they have {', '.join(batch)}"
            )
    return {key: batch[key] for key in names}


def add(a: Measure, b: Measure) -> Measure:
    """The measure of two disjoint sets of examples together. A weight [trials] is that of each trial."""
    weight = a.weight + b.weight
    share = b.weight / jnp.where(weight > 0, weight, 1)

    def mean(x: Array, y: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.maximum(x, y)
        return x + (y - x) * _beside(share, x).astype(x.dtype)

    return Measure(
        total=jax.tree.map(jnp.add, a.total, b.total),
        weight=weight,
        means=jax.tree.map(mean, a.means, b.means),
        rows=jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a.rows, b.rows),
        alike=Alike(a.alike.value and b.alike.value),
    )


def zeros(measure: PyTree) -> Measure:
    """The measure of no examples, shaped like another (arrays or ShapeDtypeStructs)."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), measure)


def choose(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the condition holds, else `old`, leaf by leaf (trees of the same structure).

    Args:
        condition: [] bool, or [trials], one for each trial of leaves [trials, ...].
    """
    return jax.tree.map(lambda n, o: jnp.where(_beside(condition, n), n, o), new, old)


def _beside(value: Array, leaf: Array) -> Array:
    """A number for all, or one a trial shaped to meet leaves [trials, ...]."""
    return value if value.ndim == 0 else value.reshape(value.shape + (1,) * (leaf.ndim - value.ndim))


def update(step: Step, state: State, batch: Batch, *, sure: bool = False) -> tuple[State, Report]:
    """One update, apply . measure: what every program repeats. Weight 0 changes nothing but the count of batches.

    Args:
        sure: that no batch of the feed is without weight; then, if the task weighs all elements alike, the old state
            need not be selected.
    """
    measured = step.measure(state, batch)
    new, report = step.apply(state, measured)
    if not (sure and measured.alike.value):
        new = choose(measured.weight > 0, new, state)
    return new.replace(step=state.step + 1), report
