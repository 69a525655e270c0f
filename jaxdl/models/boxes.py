"""Between boxes and the outputs of a detector: coding, matching, hard negatives, suppression. Padded, under jit.

True boxes are padded to one number an image, with label -1; corners (x1, y1, x2, y2) and default boxes (centre x,
centre y, width, height) are in one unit, whichever it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.metrics import box_iou, convert_boxes
from jaxdl.nn.precision import widened

Array = jax.Array

#: What offsets of centres and of logarithms of sizes are divided by (Liu et al., 2016, in their code).
VARIANCES = (0.1, 0.2)
#: A decoded side is at most so many times that of its default box; torchvision's limit.
LARGEST = 1000.0 / 16
_PAIRS = 2**26  # overlaps held at once by the suppression of one batch


class MultiboxLoss(NamedTuple):
    """The loss of each image, all [batch] float32.

    Attributes:
        boxes: smooth L1 of the matched boxes' offsets, summed.
        classes: cross-entropy of the matched boxes and of the hard negatives, summed.
        positives: how many default boxes were matched: what the sum over the batch is divided by.
    """

    boxes: Array
    classes: Array
    positives: Array


class Detections(NamedTuple):
    """The boxes found in each image, best first; label -1, score 0 and box 0 where there are no more.

    Attributes:
        boxes: [batch, detections, 4], corners.
        scores: [batch, detections], probabilities.
        labels: int32 [batch, detections], from 0: the background is no label.
    """

    boxes: Array
    scores: Array
    labels: Array


def encode_boxes(boxes: Array, defaults: Array) -> Array:
    """Corners [..., 4] as offsets from default boxes [..., 4]: what the box head learns.

    ((cx - dx) / dw / 0.1, (cy - dy) / dh / 0.1, log(w / dw) / 0.2, log(h / dh) / 0.2)
    """
    centred = convert_boxes(boxes, "xyxy", "cxcywh")
    near, size = VARIANCES
    centre = (centred[..., :2] - defaults[..., :2]) / defaults[..., 2:] / near
    return jnp.concatenate([centre, jnp.log(centred[..., 2:] / defaults[..., 2:]) / size], axis=-1)


def decode_boxes(offsets: Array, defaults: Array) -> Array:
    """Offsets [..., 4] from default boxes [..., 4] -> corners [..., 4], at least float32: undoes `encode_boxes`.

    A side grows by at most 62.5 times, so that no offset overflows.
    """
    offsets = widened(offsets)
    near, size = VARIANCES
    centre = offsets[..., :2] * near * defaults[..., 2:] + defaults[..., :2]
    sides = jnp.exp(jnp.minimum(offsets[..., 2:] * size, math.log(LARGEST))) * defaults[..., 2:]
    return convert_boxes(jnp.concatenate([centre, sides], axis=-1), "cxcywh", "xyxy")


def match_boxes(defaults: Array, boxes: Array, labels: Array, *, threshold: float = 0.5) -> Array:
    """Which true box each default box stands for, int32 [defaults]; -1 for the background.

    First each true box takes the default box that it overlaps most and that no other took, the pair of the highest IoU
    first (bipartite), so that no true box goes without. Then every other default box takes the true box of highest IoU
    where that reaches the threshold. Of equal overlaps the first counts.

    Args:
        defaults: [defaults, 4], (centre x, centre y, width, height).
        boxes: [boxes, 4], corners.
        labels: [boxes]; negative is padding. A box of no width or height is padding, too.
        threshold: of the IoU.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    real = (labels >= 0) & ~jnp.any(size <= 0, axis=-1)
    count = boxes.shape[0]
    overlap = box_iou(boxes, convert_boxes(defaults, "cxcywh", "xyxy"))
    overlap = jnp.where(real[:, None], overlap, jnp.full_like(overlap, -1.0))
    best = jnp.argmax(overlap, axis=0).astype(jnp.int32)
    matched = jnp.where(jnp.max(overlap, axis=0) < threshold, jnp.full_like(best, -1), best)

    def take(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        free, taken = carry
        place = jnp.argmax(free.reshape(-1)).astype(jnp.int32)
        box, default = place // free.shape[1], place % free.shape[1]
        left = free[box, default] >= 0  # false when only padding is left
        taken = taken.at[default].set(jnp.where(left, box, taken[default]))
        free = free.at[box].set(-1.0).at[:, default].set(-1.0)
        return jnp.where(left, free, jnp.full_like(free, -1.0)), taken

    _, forced = jax.lax.fori_loop(0, count, take, (jnp.nan_to_num(overlap), jnp.full_like(best, -1)))
    return jnp.where(forced >= 0, forced, matched)


def hard_negatives(losses: Array, positive: Array, *, ratio: float = 3.0) -> Array:
    """The default boxes of the background that cost most, `ratio` times as many as positives: bool [..., defaults].

    The rank of each is argsort(argsort): no shape depends on how many are chosen.

    Args:
        losses: [..., defaults], the classification loss of each default box.
        positive: bool [..., defaults], those that are matched.
        ratio: negatives for each positive.
    """
    cost = jnp.where(positive, jnp.full_like(losses, -jnp.inf), losses)
    rank = jnp.argsort(jnp.argsort(-cost, axis=-1), axis=-1)
    wanted = ratio * jnp.sum(positive, axis=-1, keepdims=True, dtype=jnp.float32)
    return (rank.astype(jnp.float32) < wanted) & ~positive


def multibox_loss(
    logits: Array, offsets: Array, defaults: Array, boxes: Array, labels: Array, *, threshold: float = 0.5,
    ratio: float = 3.0,
) -> MultiboxLoss:  # fmt: skip
    """The loss of SSD, in sums for each image; the batch's loss is sum(boxes + classes) / sum(positives).

    An image without true boxes has no positives, hence no hard negatives: it costs nothing.

    Args:
        logits: [batch, defaults, classes], class 0 the background.
        offsets: [batch, defaults, 4].
        defaults: [defaults, 4], (centre x, centre y, width, height).
        boxes: [batch, boxes, 4], corners.
        labels: [batch, boxes] integers from 0 (class label + 1 of the logits); -1 is padding.
        threshold: IoU from which a default box is matched.
        ratio: hard negatives for each positive of an image.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2.
    """
    boxes = widened(boxes)
    match = jax.vmap(lambda b, n: match_boxes(defaults, b, n, threshold=threshold))(boxes, labels)
    positive = match >= 0
    chosen = jnp.maximum(match, 0)
    target = jnp.where(positive, jnp.take_along_axis(labels.astype(jnp.int32), chosen, axis=1) + 1, 0)
    cost = nn.softmax_cross_entropy(logits, target)
    negative = hard_negatives(jax.lax.stop_gradient(cost), positive, ratio=ratio)
    zero = jnp.zeros((), cost.dtype)
    classes = jnp.sum(jnp.where(positive | negative, cost, zero), axis=1)
    # Boxes of the background are encoded as their default boxes: what is left out must be finite for the gradient.
    own = jnp.broadcast_to(convert_boxes(defaults, "cxcywh", "xyxy")[None], offsets.shape)
    true = jnp.where(positive[..., None], jnp.take_along_axis(boxes, chosen[..., None], axis=1), own)
    wanted = encode_boxes(true, jnp.broadcast_to(defaults[None], offsets.shape))
    distance = jnp.sum(nn.huber(offsets, wanted), axis=-1)
    return MultiboxLoss(
        boxes=jnp.sum(jnp.where(positive, distance, jnp.zeros((), distance.dtype)), axis=1),
        classes=classes,
        positives=jnp.sum(positive, axis=1, dtype=jnp.float32),
    )


def suppress(boxes: Array, valid: Array, *, threshold: float = 0.45) -> Array:
    """Greedy non-maximum suppression of boxes in order of their scores: which are kept, bool [boxes].

    A box is kept where no kept box before it overlaps it by more than the threshold. That is the fixed point of
    "kept = valid and not overlapped by a kept better one", reached from all valid ones after as many rounds as the
    longest chain of suppressions has links, each round one product over all pairs.

    Args:
        boxes: [boxes, 4], corners, best score first.
        valid: bool [boxes]; others neither are kept nor suppress.
        threshold: of the IoU.
    """
    before = jnp.triu(jnp.ones((boxes.shape[0],) * 2, jnp.bool_), 1)
    overlapped = (box_iou(boxes, boxes) > threshold) & before & valid[:, None]

    def once(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = carry
        new = valid & ~jnp.any(overlapped & kept[:, None], axis=0)
        return new, jnp.any(new != kept)

    kept, _ = jax.lax.while_loop(lambda carry: carry[1], once, (valid, jnp.bool_(True)))
    return kept


def detect(
    logits: Array, offsets: Array, defaults: Array, *, limits: tuple[float, float], score: float = 0.01,
    overlap: float = 0.45, candidates: int = 400, detections: int = 200,
) -> Detections:  # fmt: skip
    """The boxes that outputs of a detector speak of: decoded, clipped to the image, suppressed by class, best first.

    Args:
        logits: [batch, defaults, classes], class 0 the background.
        offsets: [batch, defaults, 4].
        defaults: [defaults, 4], (centre x, centre y, width, height).
        limits: (height, width) of the image in the unit of the default boxes.
        score: boxes of a class are candidates where its probability is above this.
        overlap: IoU above which the worse of two boxes of a class goes.
        candidates: at most so many boxes of a class, the best, enter suppression.
        detections: at most so many boxes of an image, of all classes.
    """
    probabilities = jax.nn.softmax(widened(logits), axis=-1)[..., 1:]
    classes, places = probabilities.shape[-1], probabilities.shape[1]
    count = min(candidates, places)
    corners = decode_boxes(offsets, jnp.broadcast_to(defaults[None], offsets.shape))
    highest = jnp.asarray((limits[1], limits[0]) * 2, corners.dtype)
    corners = jnp.clip(corners, 0.0, jnp.broadcast_to(highest, corners.shape))

    def one(image: tuple[Array, Array]) -> Detections:
        scores, boxes = image
        best, place = jax.lax.top_k(scores.T, count)  # [classes, candidates]
        chosen = boxes[place]
        kept = jax.vmap(lambda b, v: suppress(b, v, threshold=overlap))(chosen, best > score)
        ranked = jnp.where(kept, best, jnp.full_like(best, -1.0)).reshape(-1)
        final, index = jax.lax.top_k(ranked, min(detections, ranked.shape[0]))
        there = final >= 0
        return Detections(
            boxes=jnp.where(there[:, None], chosen.reshape(-1, 4)[index], jnp.zeros((), boxes.dtype)),
            scores=jnp.where(there, final, jnp.zeros_like(final)),
            labels=jnp.where(there, (index // count).astype(jnp.int32), jnp.int32(-1)),
        )

    at_once = max(1, _PAIRS // (classes * count * count))
    images = jax.lax.map(one, (probabilities, corners), batch_size=min(at_once, logits.shape[0]))
    return images
