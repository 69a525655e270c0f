"""The trial axis: N trainings of one step at once, each with its own state and numbers, all on the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.state import State
from jaxdl.core.step import Array, Evaluation, Measure, Report, Step, require_step
from jaxdl.core.task import Batch, PyTree, check_number

#: Where the trial axis is in a State, for `jax.vmap`: first in every leaf, but for `step`, which all share.
TRIAL_AXES = State(None, 0, 0, 0, 0, 0, 0, 0)  # type: ignore[arg-type]


def trials(step: Step, count: int) -> Step:
    """The Step of `count` trials at once: `jax.vmap` of all that the step does, over states and hyper, data shared.

    Each leaf of the state gets a leading axis [trials], but for `state.step`, one number for all: batches, their order
    and the schedules' clock are common. Each trial has its own seed (initial values, dropout), its own numbers in
    hyper and its own decisions: a trial whose measure is not finite does not touch the others, and `guard` skips and
    counts for each. Reports have one number a trial, [trials]. A trial equals its run alone to float32's rounding, for
    a batched product may add in another order.

    It goes last: trials(guard(accumulate(step, 4)), 16). The program has the size of one trial's; states, activations
    and what a step computes are `count` times those of one, the batch is held once.

    `init` takes a seed [] (all trials begin alike) or [trials], and numbers [] or [trials] in hyper. `Program` hands
    them on: Program(trials(step, 3), feed, hyper={"learning_rate": [0.1, 0.2, 0.3]}, seeds=[0, 1, 2]).

    Raises:
        ValueError: count below 1; a step that has a trial axis already.
        TypeError: no Step, or a count that is no whole number.
    """
    require_step(step, "trials")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise TypeError(f"trials(step, {count!r}): give a whole number")
    if count < 1:
        raise ValueError(f"trials(step, {count}): there must be at least 1")
    count = int(count)

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        numbers = {name: along(value, count, f"hyper {name!r}") for name, value in hyper.items()}
        start = jax.vmap(step.init, in_axes=(0, None, 0), out_axes=TRIAL_AXES)
        return start(along(seed, count, "seed"), batch, numbers)

    def measure(state: State, batch: Batch) -> Measure:
        return jax.vmap(step.measure, in_axes=(TRIAL_AXES, None))(state, batch)

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        def one(state: State, measured: Measure) -> tuple[State, Report]:
            new, report = step.apply(state, measured)
            return new.replace(step=state.step), report  # a choice between two states makes one step a trial of it

        return jax.vmap(one, in_axes=(TRIAL_AXES, 0), out_axes=(TRIAL_AXES, 0))(state, measured)

    def evaluate(state: State, batch: Batch) -> Evaluation:
        assert step.evaluate is not None
        return jax.vmap(step.evaluate, in_axes=(TRIAL_AXES, None))(state, batch)

    def predict(state: State, batch: Batch) -> PyTree:
        assert step.predict is not None
        return jax.vmap(step.predict, in_axes=(TRIAL_AXES, None))(state, batch)

    def renew(state: State) -> State:
        assert step.renew is not None
        return jax.vmap(step.renew, in_axes=(TRIAL_AXES,), out_axes=TRIAL_AXES)(state)

    def rate(hyper: Mapping[str, Array], number: Array) -> Array:
        assert step.rate is not None
        return jax.vmap(step.rate, in_axes=(0, None))(hyper, number)

    return step._replace(
        init=init,
        measure=measure,
        apply=apply,
        evaluate=evaluate if step.evaluate else None,
        predict=predict if step.predict else None,
        renew=renew if step.renew else None,
        rate=rate if step.rate else None,
        trials=count,
        single=step,
    )


def along(value: Any, count: int, name: str) -> Any:
    """A number for each trial, [trials], from one for all or one for each.

    Raises:
        ValueError: it is neither; `name` says what it is.
    """
    shape = np.shape(value)
    if shape not in ((), (count,)):
        raise ValueError(f"{name} has shape {list(shape)}: give one number for all trials, or {count}, one for each")
    return (jnp if isinstance(value, jax.Array) else np).broadcast_to(value, (count,))


def starting_numbers(step: Step, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The step's own numbers and the caller's as a State begins with them: float32, [] or [trials], checked.

    Raises:
        TypeError, ValueError: as `check_number`; as many numbers as there are no trials.
    """
    given = {**step.hyper, **hyper}
    if not step.trials:
        return {name: np.float32(check_number(name, value)) for name, value in given.items()}
    spread = {name: along(value, step.trials, f"hyper {name!r}") for name, value in given.items()}
    return {name: np.array([check_number(name, x) for x in values], np.float32) for name, values in spread.items()}


def starting_seeds(step: Step, seed: int, seeds: Sequence[int] | None) -> Any:
    """The seeds that states begin with: `seed` itself, or one of `seeds` for each trial; uint32.

    Raises:
        ValueError: seeds for a step without trials, or not one for each.
    """
    if seeds is None:
        return np.uint32(seed)
    if not step.trials:
        raise ValueError("seeds= are those of trials(step, count), and this step is one training: give seed=")
    return along(np.asarray(seeds, np.uint32), step.trials, "seeds=")


def one_of(tree: PyTree, step: Step) -> PyTree:
    """The shapes of one trial's part of a tree [trials, ...]; the tree itself where the step has no trials."""
    if not step.trials:
        return tree
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)
