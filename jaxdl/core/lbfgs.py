"""L-BFGS as a Step of its own: the line search is a state machine, so that each measure is one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.core.gradient import STEP_HYPER, gradient_step
from jaxdl.core.state import State
from jaxdl.core.step import Measure, Report, Step, choose
from jaxdl.core.task import Array, Batch, PyTree, Task

#: Armijo's sufficient decrease: f(x + t d) <= f(x) + C1 * t * slope.
C1 = 1e-4

#: After so many cuts in one search the memory is dropped and the search starts along the gradient.
MOST_CUTS = 20


def lbfgs_step(task: Task, *, memory: int = 10) -> Step:
    """Limited-memory BFGS (Nocedal 1980; two-loop recursion) with backtracking line search by quadratic interpolation.

    `state.params` is the last accepted point; `state.extra["lbfgs"]` holds the point that the next measure evaluates,
    the search direction and the last `memory` pairs (s, y). An update either accepts that point (Armijo's condition)
    and turns, or cuts the step and tries again. Pairs without positive curvature are not kept. The reported loss is
    that of the accepted point.

    Each update must see the same examples, or the comparison of two losses means nothing: use it with
    `fit(..., apply="epoch")`, which adds the gradient up over all data, or with one batch of all of them. Dropout and
    other noise must be off.

    Args:
        task: what to learn.
        memory: pairs that are kept; each costs twice the parameters.

    Raises:
        ValueError: memory below 1.
    """
    if memory < 1:
        raise ValueError(f"lbfgs_step(memory={memory}): must be at least 1")
    plain = gradient_step(task, optax.identity())
    assert isinstance(plain.reads, set)
    plain.reads.difference_update(STEP_HYPER)  # penalties and clipping would not agree with the line search

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        state = plain.init(seed, batch, hyper)
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        pairs = jax.tree.map(lambda w: jnp.zeros((memory, *w.shape), w.dtype), state.params)
        search = {
            "point": jax.tree.map(jnp.copy, state.params),
            "direction": zeros,
            "gradient": jax.tree.map(jnp.copy, zeros),
            "loss": jnp.float32(jnp.inf),
            "length": jnp.float32(0),
            "cuts": jnp.int32(0),
            "s": pairs,
            "y": jax.tree.map(jnp.copy, pairs),
            "curvature": jnp.zeros((memory,), jnp.float32),  # s.y of each pair, 0 where there is none
        }
        return state.replace(extra=state.extra | {"lbfgs": search})

    def measure(state: State, batch: Batch) -> Measure:
        return plain.measure(state.replace(params=state.extra["lbfgs"]["point"]), batch)

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        search: dict[str, Any] = state.extra["lbfgs"]
        scale = 1.0 / jnp.where(measured.weight > 0, measured.weight, 1.0)
        loss = measured.total["loss"] * scale
        gradient = jax.tree.map(lambda g: g * scale, measured.total["gradient"])
        started = jnp.isfinite(search["loss"])
        slope = _dot(search["gradient"], search["direction"])
        enough = loss <= search["loss"] + C1 * search["length"] * slope
        accepted = enough | ~started

        # Accepted: remember the pair, turn, and try a step of length 1 (on the first, of length 1 / |g|).
        s = jax.tree.map(lambda p, x: p - x, search["point"], state.params)
        y = jax.tree.map(lambda new, old: new - old, gradient, search["gradient"])
        curvature = _dot(s, y)
        useful = started & (curvature > 1e-10 * jnp.sqrt(_dot(s, s) * _dot(y, y)))
        old_pairs = (search["s"], search["y"], search["curvature"])
        new_pairs = (_push(search["s"], s), _push(search["y"], y), _push(search["curvature"], curvature))
        pairs = choose(useful, new_pairs, old_pairs)
        direction = _two_loops(gradient, *pairs)
        descends = _dot(gradient, direction) < 0
        direction = choose(descends, direction, jax.tree.map(jnp.negative, gradient))
        first = 1.0 / jnp.maximum(jnp.sqrt(_dot(gradient, gradient)), 1.0)
        turned = {
            "direction": direction,
            "gradient": gradient,
            "loss": loss,
            "length": jnp.where((pairs[2] > 0).any() & descends, jnp.float32(1), first),
            "cuts": jnp.int32(0),
            "s": pairs[0],
            "y": pairs[1],
            "curvature": pairs[2],
        }

        # Rejected: the minimum of the parabola through what is known, within [0.1, 0.5] of the last length.
        t = search["length"]
        rise = loss - search["loss"] - t * slope
        parabola = -slope * t * t / (2 * jnp.where(rise > 0, rise, 1.0))
        cut = jnp.clip(jnp.where(jnp.isfinite(parabola) & (rise > 0), parabola, 0.5 * t), 0.1 * t, 0.5 * t)
        stuck = search["cuts"] >= MOST_CUTS
        steepest = jax.tree.map(jnp.negative, search["gradient"])
        shorter = {
            "direction": choose(stuck, steepest, search["direction"]),
            "gradient": search["gradient"],
            "loss": search["loss"],
            "length": jnp.where(stuck, 1.0 / jnp.maximum(jnp.sqrt(_dot(steepest, steepest)), 1.0), cut),
            "cuts": jnp.where(stuck, jnp.int32(0), search["cuts"] + 1),
            "s": search["s"],
            "y": search["y"],
            "curvature": jnp.where(stuck, jnp.zeros_like(search["curvature"]), search["curvature"]),
        }

        params = choose(accepted, search["point"], state.params)
        new = choose(accepted, turned, shorter)
        new["point"] = jax.tree.map(lambda x, d: x + new["length"] * d, params, new["direction"])
        state = state.replace(params=params, model_state=dict(measured.means), extra=state.extra | {"lbfgs": new})
        return state, Report({"loss": new["loss"], "weight": measured.weight}, {})

    return plain._replace(init=init, measure=measure, apply=apply, hyper={}, rate=None)


def _dot(a: PyTree, b: PyTree) -> Array:
    return sum(
        (jnp.vdot(x, y).astype(jnp.float32) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)),
        jnp.float32(0),
    )


def _push(stack: PyTree, newest: PyTree) -> PyTree:
    return jax.tree.map(lambda rows, row: jnp.concatenate([rows[1:], row[None]]), stack, newest)


def _two_loops(gradient: PyTree, s: PyTree, y: PyTree, curvature: Array) -> PyTree:
    """-H * gradient by the two-loop recursion; pairs with curvature 0 are empty and take no part."""
    memory = curvature.shape[0]
    inverse = jnp.where(curvature > 0, 1.0 / jnp.where(curvature > 0, curvature, 1.0), 0.0)
    pick = [(jax.tree.map(lambda x: x[i], s), jax.tree.map(lambda x: x[i], y)) for i in range(memory)]  # noqa: B023
    q, alphas = gradient, [jnp.float32(0)] * memory
    for i in reversed(range(memory)):
        alphas[i] = inverse[i] * _dot(pick[i][0], q)
        q = jax.tree.map(lambda a, b: a - alphas[i] * b, q, pick[i][1])  # noqa: B023
    yy = _dot(pick[-1][1], pick[-1][1])
    scale = jnp.where(curvature[-1] > 0, curvature[-1] / jnp.where(yy > 0, yy, 1.0), 1.0)
    q = jax.tree.map(lambda a: a * scale, q)
    for i in range(memory):
        beta = inverse[i] * _dot(pick[i][1], q)
        q = jax.tree.map(lambda a, b: a + (alphas[i] - beta) * b, q, pick[i][0])  # noqa: B023
    return jax.tree.map(jnp.negative, q)
