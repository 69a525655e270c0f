"""Transformations: each takes a Step and returns one. `accumulate` acts on measure; `guard` and `average` on apply."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxdl.core.cost import cost_of, slow_in_loops
from jaxdl.core.state import State
from jaxdl.core.step import Array, Evaluation, Measure, Report, Step, add, choose, require_step, zeros
from jaxdl.core.task import Batch, PyTree
from jaxdl.parallel import constrain_rows, on_a_mesh


def accumulate(step: Step, parts: int) -> Step:
    """Measure a batch in `parts` microbatches, one after the other: the same sum with a part of the memory.

    The batch is padded with weight 0 to a multiple of `parts`. Exact for tasks whose examples do not depend on each
    other; batch norm normalises per part, and dropout draws anew in each part (`batch["part"]` numbers them). A
    recurrent carry in the state is split with its rows. On a mesh each part takes every n-th row instead of n in a row,
    so that no device has to send its rows to another.
    Convolutions on a CPU are unrolled, since they are about 4 times slower inside a compiled loop there; all else is
    one scan.

    Raises:
        ValueError: parts < 1; a step whose examples must stay together (`whole_batch`).
        TypeError: a Task where a Step is wanted.
    """
    require_step(step, "accumulate")
    if isinstance(parts, bool) or not isinstance(parts, numbers.Integral) or parts < 1:
        raise ValueError(f"accumulate={parts}: the number of microbatches must be a whole number of at least 1")
    parts = int(parts)
    if parts == 1:
        return step
    if step.whole_batch:
        raise ValueError(
            f"accumulate={parts} would split a batch whose examples depend on each other (whole_batch=True): "
            "use accumulate=1 and a smaller batch_size"
        )

    def cut(x: Array) -> Array:
        rows = x.shape[0]
        surplus = -rows % parts
        # Padding repeats row 0, which is real content, so that no arithmetic meets values that never occur.
        if surplus:
            x = jnp.concatenate([x, jnp.broadcast_to(x[:1], (surplus, *x.shape[1:]))])
        if on_a_mesh():
            return x.reshape((rows + surplus) // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(parts, (rows + surplus) // parts, *x.shape[1:])

    def joined(x: Array, rows: int) -> Array:
        if on_a_mesh():
            x = x.reshape(parts, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        return x[:rows]

    def split(batch: Batch) -> dict[str, Array]:
        numbers = jnp.int32(batch.get("part", 0)) * jnp.int32(parts) + jnp.arange(parts, dtype=jnp.int32)
        rows = batch["weight"].shape[0]
        surplus = -rows % parts
        cuts = {name: cut(value) for name, value in batch.items() if name != "part"}
        if surplus:
            live = (jnp.arange(rows + surplus) < rows).astype(jnp.float32)
            cuts["weight"] = cuts["weight"] * cut(live)
        return constrain_rows(cuts, 1) | {"part": numbers}

    def measure(state: State, batch: Batch) -> Measure:
        batches = split(batch)
        part = {name: value[0] for name, value in batches.items()}
        measure_part = jax.jit(step.measure)
        carries = jax.tree.map(cut, _carry(state))

        def with_carry(number: int) -> State:
            carry = jax.tree.map(lambda x: x[number], carries)
            return state.replace(model_state={**state.model_state, **carry}) if carry else state

        traced = measure_part.trace(with_carry(0), part)
        if not traced.out_info.rows and not slow_in_loops(cost_of(traced.jaxpr)):
            start = zeros(traced.out_info)
            return jax.lax.scan(lambda sums, part: (add(sums, measure_part(state, part)), None), start, batches)[0]
        total = measure_part(with_carry(0), part)
        for number in range(1, parts):
            part = {name: value[number] for name, value in batches.items()}
            total = add(total, measure_part(with_carry(number), part))
        real = batch["weight"].shape[0]
        return total._replace(rows=jax.tree.map(lambda x: joined(x, real), total.rows))

    return step._replace(measure=measure, parts=step.parts * parts)


def _carry(state: State) -> dict[str, PyTree]:
    """What follows the examples of a batch and is split with them: {"carry": ...}, or nothing."""
    collections = state.model_state
    return {"carry": collections["carry"]} if isinstance(collections, Mapping) and "carry" in collections else {}


def guard(step: Step) -> Step:
    """Skip updates whose measure is not finite, and count them.

    A skipped batch leaves parameters, optimizer and batch statistics as they were; `state.extra["guard"]` is the count,
    [] int32, and each report has "skipped", 0 or 1. A skipped report has weight 0, so that it does not enter the
    epoch's mean loss.

    Raises:
        TypeError: a Task where a Step is wanted.
    """
    require_step(step, "guard")

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        state = step.init(seed, batch, hyper)
        return state.replace(extra=state.extra | {"guard": jnp.int32(0)})

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        def floats(tree: PyTree) -> list[Array]:
            return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]

        sound = [jnp.isfinite(x).all() for x in floats((measured.total, measured.weight))]
        # A model's statistics may rightly start at infinity (a running minimum), never at nan.
        sound += [~jnp.isnan(x).any() for x in floats((measured.means, measured.rows))]
        finite = jnp.stack(sound).all()
        # The sums are cleaned before they are used: a select after the update would still let NaN into an average.
        clean = choose(finite, measured, jax.tree.map(jnp.zeros_like, measured))
        new, report = step.apply(state, clean)
        skipped = jnp.where(finite, 0, 1).astype(jnp.int32)
        old = state.extra["guard"]
        new = choose(finite, new.replace(extra=new.extra | {"guard": old}), state)
        scalars = report.scalars | {"skipped": skipped.astype(jnp.float32)}
        return new.replace(extra=new.extra | {"guard": old + skipped}), Report(scalars, report.sums)

    return step._replace(init=init, apply=apply)


def average(step: Step, decay: float = 0.999) -> Step:
    """Keep an exponential moving average of the parameters, used by evaluate and predict; both copies are saved.

    average <- average + (1 - d) * (params - average) after each update, float32, with
    d = min(decay, (1 + t) / (10 + t)) after t updates, so that a short run is not held at its first parameters. It
    stands in `state.extra["average"]`, and t in `state.extra["average_updates"]`.

    Raises:
        ValueError: decay outside [0, 1).
        TypeError: a Task where a Step is wanted.
    """
    require_step(step, "average")
    if not 0 <= decay < 1:
        raise ValueError(f"average={decay}: the decay must be in [0, 1), for example 0.999")

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        state = step.init(seed, batch, hyper)
        copy = jax.tree.map(jnp.copy, state.params)
        return state.replace(extra=state.extra | {"average": copy, "average_updates": jnp.int32(0)})

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        new, report = step.apply(state, measured)
        t = state.extra["average_updates"].astype(jnp.float32)
        share = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
        # Subtracting 0.0 leaves every float as it is, bit for bit; adding it would turn -0.0 into 0.0.
        moved = jax.tree.map(lambda a, p: a - (a - p) * share.astype(a.dtype), state.extra["average"], new.params)
        updates = state.extra["average_updates"] + 1
        return new.replace(extra=new.extra | {"average": moved, "average_updates": updates}), report

    def averaged(state: State) -> State:
        return state.replace(params=state.extra["average"])

    def evaluate(state: State, batch: Batch) -> Evaluation:
        assert step.evaluate is not None
        return step.evaluate(averaged(state), batch)

    def predict(state: State, batch: Batch) -> PyTree:
        assert step.predict is not None
        return step.predict(averaged(state), batch)

    return step._replace(
        init=init,
        apply=apply,
        evaluate=evaluate if step.evaluate else None,
        predict=predict if step.predict else None,
    )
