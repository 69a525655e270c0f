"""Which detection finds which true box: greedy matching by score, of all images at once, as COCO and VOC define it.

Each detection, best score first, takes a true box. This is a scan over detections whose steps do all images together.
What differs between IoU thresholds is kept in the bits of a word, so that a step costs one comparison of a detection
with the true boxes of its image, and as many rounds as some detection has true boxes that overlap it enough.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics.boxes import BoxFormat
from jaxdl.metrics.detection_records import HALF, order_key, stable_order


class Corners(NamedTuple):
    """Boxes as float64 [...] each: two corners, and the area."""

    left: jax.Array
    top: jax.Array
    right: jax.Array
    bottom: jax.Array
    area: jax.Array


class Found(NamedTuple):
    """Detections [images, D]: scores float32, boxes float32 [images, D, 4], labels int32, -1 where absent."""

    scores: jax.Array
    boxes: jax.Array
    labels: jax.Array


class Truths(NamedTuple):
    """True boxes [images, G]: boxes float32 [images, G, 4], labels int32, -1 where absent.

    crowd: bool, overlaps are over the detection's area, and it may be found many times; ignored: bool
    [images, G, areas], what finds it counts neither as right nor as wrong.
    """

    boxes: jax.Array
    labels: jax.Array
    crowd: jax.Array
    ignored: jax.Array


class Outcomes(NamedTuple):
    """Detections in order of score within each image, [D, images].

    key: uint32, the scores' code; label: int32, -1 where absent; rank: int32 within its class and image, from 0;
    outcome: uint32 [D, images, areas], right at threshold t in bit t, wrong in bit 16 + t.
    """

    key: jax.Array
    label: jax.Array
    rank: jax.Array
    outcome: jax.Array


def corners(boxes: jax.Array, box_format: BoxFormat, inclusive: bool) -> Corners:
    """float32 [..., 4] as corners and areas in float64 (which must be turned on)."""
    first, second, third, fourth = (boxes[..., i].astype(jnp.float64) for i in range(4))
    if box_format == "xyxy":
        one = 1.0 if inclusive else 0.0
        right, bottom = third + one, fourth + one
        return Corners(first, second, right, bottom, (right - first) * (bottom - second))
    if box_format == "cxcywh":
        first, second = first - third * 0.5, second - fourth * 0.5
    return Corners(first, second, first + third, second + fourth, third * fourth)


def outside_of(
    boxes: jax.Array, areas: tuple[tuple[float, float], ...], box_format: BoxFormat, inclusive: bool
) -> jax.Array:
    """Whether boxes [..., 4] are smaller or larger than each range of areas: bool [..., areas]."""
    with jax.enable_x64(True):
        return beyond(corners(boxes, box_format, inclusive).area, areas)


def beyond(size: jax.Array, areas: tuple[tuple[float, float], ...]) -> jax.Array:
    """Whether sizes [...] lie outside of each range: bool [..., ranges]."""
    with jax.enable_x64(True):
        low, high = (jnp.asarray(x, jnp.float64).reshape(*[1] * size.ndim, -1) for x in zip(*areas, strict=True))
        return (size.astype(jnp.float64)[..., None] < low) | (size.astype(jnp.float64)[..., None] > high)


@partial(jax.jit, static_argnames=("thresholds", "areas", "limit", "rule", "box_format", "inclusive"))
def match(
    found: Found,
    truths: Truths,
    *,
    thresholds: tuple[float, ...],
    areas: tuple[tuple[float, float], ...],
    limit: int | None,
    rule: str,
    box_format: BoxFormat,
    inclusive: bool,
) -> Outcomes:
    """Matches the detections of each image, at most `limit` of a class, with its true boxes; see the module."""
    with jax.enable_x64(True):
        present = found.labels >= 0
        key = order_key(found.scores)
        order = stable_order(jnp.where(present, jnp.maximum(key, jnp.uint32(1)), jnp.uint32(0)))

        # [D, images], in order of score
        key, labels = (jnp.take_along_axis(x, order, axis=1).T for x in (key, found.labels))
        sorted_boxes = jnp.take_along_axis(found.boxes, order[..., None], axis=1)
        boxes = corners(jnp.swapaxes(sorted_boxes, 0, 1), box_format, inclusive)
        outside = beyond(boxes.area, areas)
        true = corners(jnp.swapaxes(truths.boxes, 0, 1), box_format, inclusive)
        true_labels, crowd = truths.labels.T, truths.crowd.T
        places = jnp.arange(labels.shape[0], dtype=jnp.int32)
        take = _take_coco if rule == "coco" else _take_voc

        def step(matched: jax.Array, detection: tuple) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            box, label, place, outside = detection
            rank = jnp.sum((labels == label[None]) & (places < place)[:, None], axis=0, dtype=jnp.int32)
            able = label >= 0 if limit is None else (label >= 0) & (rank < limit)
            iou = jnp.where((true_labels == label[None]) & able[None], _overlap(box, true, crowd), -1.0)
            matched, right, wrong = take(iou, matched, crowd, truths.ignored, thresholds)
            every = jnp.uint32((1 << len(thresholds)) - 1)
            wrong = wrong & jnp.where(outside, jnp.uint32(0), every)
            return matched, (rank, right | (wrong << jnp.uint32(HALF)))

        # zeros made from the data vary over a mesh as what is added to them does
        matched = jnp.where(truths.ignored, jnp.uint32(0), jnp.uint32(0))
        _, (rank, outcome) = lax.scan(step, matched, (boxes, labels, places, outside))
        return Outcomes(key, labels, rank, outcome)


def _overlap(box: Corners, true: Corners, crowd: jax.Array) -> jax.Array:
    """The IoU of one detection an image with all true boxes there, float64 [G, images]; 0 where nothing is shared."""
    box = jax.tree.map(lambda x: x[None], box)
    width = jnp.minimum(box.right, true.right) - jnp.maximum(box.left, true.left)
    height = jnp.minimum(box.bottom, true.bottom) - jnp.maximum(box.top, true.top)
    shared = width * height
    whole = jnp.where(crowd, box.area, box.area + true.area - shared)
    some = (width > 0) & (height > 0)
    return jnp.where(some, shared / jnp.where(some, whole, 1.0), 0.0)


def _reached(iou: jax.Array, thresholds: tuple[float, ...]) -> jax.Array:
    """Which thresholds an IoU [...] reaches, as bits: uint32 [...]."""
    high_enough = iou[..., None] >= jnp.asarray(thresholds, iou.dtype).reshape(*[1] * iou.ndim, -1)
    bits = jnp.asarray([1 << i for i in range(len(thresholds))], jnp.uint32).reshape(*[1] * iou.ndim, -1)
    return jnp.sum(jnp.where(high_enough, bits, jnp.uint32(0)), axis=-1, dtype=jnp.uint32)


def _take_coco(
    iou: jax.Array, matched: jax.Array, crowd: jax.Array, ignored: jax.Array, thresholds: tuple[float, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """COCO: the free true box of highest IoU, the last of equal ones; one to be found goes before one to be ignored.

    iou: [G, images]; matched: uint32 [images, G, areas]. Returns matched, and which thresholds are right and wrong,
    uint32 [images, areas].
    """
    # pycocotools lets an IoU of 1 that was rounded down reach a threshold of 1
    thresholds = tuple(min(t, 1 - 1e-10) for t in thresholds)
    lowest = min(thresholds)
    row = lax.broadcasted_iota(jnp.int32, iou.shape, 0)
    image = jnp.arange(iou.shape[1], dtype=jnp.int32)

    def sweep(carry: tuple, ignore: jax.Array) -> tuple[tuple, jax.Array]:
        def more(carry: tuple) -> jax.Array:
            return jnp.any(carry[1] >= lowest)

        def visit(carry: tuple) -> tuple:
            left, best, matched, taken = carry
            at = jnp.max(jnp.where(left == best[None], row, -1), axis=0)
            left = jnp.where(row == at[None], -1.0, left)
            here = matched[image, at]
            free = ~jnp.where(crowd[at, image][:, None], jnp.zeros_like(here), here)
            wanted = ignored[image, at] == ignore
            new = jnp.where(wanted, _reached(best, thresholds)[:, None] & free & ~taken, jnp.uint32(0))
            return left, jnp.max(left, axis=0), matched.at[image, at].set(here | new), taken | new

        matched, taken = lax.while_loop(more, visit, (iou, jnp.max(iou, axis=0), *carry))[2:]
        return (matched, taken), taken

    # first those to be found, then those to be ignored
    (matched, _), (right, taken) = lax.scan(sweep, (matched, matched[:, 0] & jnp.uint32(0)), jnp.asarray([False, True]))
    return matched, right, ~taken


def _take_voc(
    iou: jax.Array, matched: jax.Array, crowd: jax.Array, ignored: jax.Array, thresholds: tuple[float, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """VOC: the true box of highest IoU, found already or not; a second detection of it is wrong. As `_take_coco`."""
    image = jnp.arange(iou.shape[1], dtype=jnp.int32)
    best = jnp.max(iou, axis=0)
    row = lax.broadcasted_iota(jnp.int32, iou.shape, 0)
    at = jnp.min(jnp.where(iou == best[None], row, iou.shape[0] - 1), axis=0)
    reached = _reached(best, thresholds)[:, None]
    here = matched[image, at]
    right = jnp.where(ignored[image, at], jnp.uint32(0), reached & ~here)
    excused = jnp.where(ignored[image, at], reached, jnp.uint32(0))
    return matched.at[image, at].set(here | right), right, ~right & ~excused
