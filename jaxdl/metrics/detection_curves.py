"""Precision and recall from the records of a detection metric: one sort, then all thresholds and areas."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.detection_records import HALF, DetectionRecords, stable_order


class Curves(NamedTuple):
    """What is read off the ranked detections; NaN for classes without boxes to be found.

    Attributes:
        precision: float32 [areas, thresholds, classes, points], the highest precision at a recall of at least
            i / (points - 1); without points [areas, thresholds, classes, 1], the area under that envelope.
        recall: float32 [areas, thresholds, classes, levels], of at most max_detections[level] of an image.
    """

    precision: jax.Array
    recall: jax.Array


class _Ranked(NamedTuple):
    """Records by class, and within a class by score, downwards; [capacity], absent ones last with class K."""

    label: jax.Array
    level: jax.Array
    outcome: jax.Array
    weight: jax.Array


@partial(jax.jit, static_argnames=("classes", "thresholds", "levels", "points", "guard"))
def curves(
    state: DetectionRecords, *, classes: int, thresholds: int, levels: int, points: int | None, guard: float
) -> Curves:
    """Precision and recall at each threshold and area; `guard` is added to what precision is divided by."""
    with jax.enable_x64(True):
        ranked = _rank(state, classes, levels)
        cells = sums.pick(state.truths, slice(None, -1))
        truths = (cells.hi.astype(jnp.float64) + cells.lo.astype(jnp.float64)).reshape(classes, -1)
        starts = jnp.searchsorted(ranked.label, jnp.arange(classes, dtype=jnp.int32), side="left")
        lane = partial(_lane, ranked=ranked, starts=starts, levels=levels, points=points, guard=guard)

        def area(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            outcome, wanted = given
            return lax.map(lambda bit: lane(outcome, wanted, bit), jnp.arange(thresholds, dtype=jnp.uint32))

        found = lax.map(area, (ranked.outcome, truths.T))
        return Curves(*(x.astype(jnp.float32) for x in found))


def _rank(state: DetectionRecords, classes: int, levels: int) -> _Ranked:
    """Sorts the records: by score, then, keeping that order, by class."""
    capacity = state.key.shape[-1]
    there = jnp.arange(capacity, dtype=jnp.int32) < state.length
    first = stable_order(state.key)
    label = jnp.where(there, state.place // levels, jnp.int32(classes))[first]
    second = stable_order(~label.astype(jnp.uint32))
    order = first[second]
    weight = jnp.where(there, state.weight, jnp.float32(0))[order].astype(jnp.float64)
    return _Ranked(label[second], (state.place % levels)[order], state.outcome[:, order], weight)


def _lane(
    outcome: jax.Array,
    wanted: jax.Array,
    bit: jax.Array,
    *,
    ranked: _Ranked,
    starts: jax.Array,
    levels: int,
    points: int | None,
    guard: float,
) -> tuple[jax.Array, jax.Array]:
    """One area and threshold: precision [classes, points or 1] and recall [classes, levels], float64."""
    classes = starts.shape[0]
    one, none = jnp.uint32(1), jnp.zeros_like(ranked.weight)
    is_right = ((outcome >> bit) & one) != 0
    right = jnp.where(is_right, ranked.weight, none)
    wrong = jnp.where(((outcome >> (bit + jnp.uint32(HALF))) & one) != 0, ranked.weight, none)
    label = jnp.minimum(ranked.label, classes - 1)

    def within(values: jax.Array) -> jax.Array:
        """Running sums that begin anew with each class."""
        running = jnp.concatenate([jnp.zeros_like(values[:1]), lax.cumsum(values)])
        return running[1:] - running[starts][label]

    hits, misses = within(right), within(wrong)
    divisor = jnp.where(wanted > 0, wanted, 1.0)
    # between two right detections precision only falls: its envelope needs no others
    precision = jnp.where(is_right, hits / jnp.where(is_right, hits + misses + guard, 1.0), none)
    counted = is_right & (ranked.label < classes)
    if points is None:
        # classes in front are lifted above those behind, which so do not reach into them
        lift = 2.0 * (classes - label).astype(jnp.float64)
        envelope = lax.cummax(lift + precision, reverse=True) - lift
        area = _by_cell(right * envelope, jnp.where(counted, label, classes), classes)
        found = (area / divisor)[:, None]
    else:
        whole = divisor[label]
        # weights that are no integers may add up to a hair less than all
        recall = jnp.where(hits >= whole * (1 - 1e-12), 1.0, hits / whole)
        cell = jnp.where(counted, label * points + _last_reached(recall, points), classes * points)
        best = jnp.zeros((classes * points + 1,), jnp.float64).at[cell].max(precision, mode="promise_in_bounds")
        found = lax.cummax(best[:-1].reshape(classes, points), axis=1, reverse=True)
    cell = jnp.where(counted, label * levels + ranked.level, classes * levels)
    reached = lax.cumsum(_by_cell(right, cell, classes * levels).reshape(classes, levels), axis=1)
    some = (wanted > 0)[:, None]
    return jnp.where(some, found, jnp.nan), jnp.where(some, reached / divisor[:, None], jnp.nan)


def _last_reached(recall: jax.Array, points: int) -> jax.Array:
    """The last of the evenly spaced points in [0, 1] that a recall has reached, exactly: int32."""
    grid = jnp.asarray(np.linspace(0.0, 1.0, points))
    near = jnp.clip((recall * (points - 1)).astype(jnp.int32), 0, points - 1)
    above = jnp.minimum(near + 1, points - 1)
    return jnp.where(grid[above] <= recall, above, jnp.where(grid[near] <= recall, near, near - 1))


def _by_cell(values: jax.Array, cell: jax.Array, size: int) -> jax.Array:
    return jnp.zeros((size + 1,), jnp.float64).at[cell].add(values, mode="promise_in_bounds")[:-1]
