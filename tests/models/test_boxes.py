"""Coding, matching, hard negatives, the multibox loss and suppression, each against plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import boxes as padded
from jaxdl.models.default_boxes import boxes_per_place, default_boxes, linear_scales

DEFAULTS = default_boxes([(6, 6), (3, 3), (1, 1)], (96, 96), aspect_ratios=[(2,), (2, 3), ()], scales=linear_scales(3))


def corners(defaults: np.ndarray) -> np.ndarray:
    return np.concatenate([defaults[:, :2] - defaults[:, 2:] / 2, defaults[:, :2] + defaults[:, 2:] / 2], 1)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / union


def matched(defaults: np.ndarray, boxes: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """By loops: pairs in order of IoU, then the threshold."""
    table = np.array([[iou(box, default) for default in corners(defaults)] for box in boxes])
    match = np.full(len(defaults), -1)
    for place in range(len(defaults)):
        best = int(table[:, place].argmax())
        if table[best, place] >= threshold:
            match[place] = best
    free = table.copy()
    for _ in boxes:
        box, place = np.unravel_index(free.argmax(), free.shape)
        match[place] = box
        free[box], free[:, place] = -1, -1
    return match


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    start, size = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))
    return np.concatenate([start, start + size], 1).astype(np.float32)


def pad(boxes: np.ndarray, places: int) -> tuple[jax.Array, jax.Array]:
    labels = np.full(places, -1, np.int32)
    labels[: len(boxes)] = np.arange(len(boxes)) % 2
    filled = np.zeros((places, 4), np.float32)
    filled[: len(boxes)] = boxes
    return jnp.asarray(filled), jnp.asarray(labels)


def test_default_boxes_stand_where_the_paper_puts_them():
    boxes = default_boxes([(2, 1)], (100, 50), aspect_ratios=[(4,)], scales=(0.2, 0.8), steps=[40])
    assert boxes.shape == (8, 4) and boxes_per_place([(4,)]) == (4,)
    np.testing.assert_allclose(boxes[4, :2], [20 / 50, 60 / 100], rtol=1e-6)
    np.testing.assert_allclose(boxes[:4, 2:], [[0.2, 0.2], [0.4, 0.4], [0.4, 0.1], [0.1, 0.4]], rtol=1e-6)
    assert default_boxes([(1, 1)], (8, 8), aspect_ratios=[(9,)], scales=(0.5, 3)).max() == 1.0
    np.testing.assert_allclose(linear_scales(4), (0.15, 0.4, 0.65, 0.9, 1.0))
    with pytest.raises(ValueError, match="2 sets of aspect ratios, 3 scales and 2 steps"):
        default_boxes([(2, 2), (1, 1)], (8, 8), aspect_ratios=[(2,), ()], scales=(0.1, 0.2))


def test_coding_is_undone_and_has_the_variances_of_the_paper():
    defaults = jnp.asarray(DEFAULTS[:7])
    boxes = jnp.asarray(random_boxes(np.random.default_rng(0), 7))
    offsets = padded.encode_boxes(boxes, defaults)
    np.testing.assert_allclose(padded.decode_boxes(offsets, defaults), boxes, atol=1e-6)
    one = padded.encode_boxes(jnp.array([[0.1, 0.2, 0.5, 0.4]]), jnp.array([[0.25, 0.3, 0.2, 0.2]]))
    np.testing.assert_allclose(one, [[0.05 / 0.2 / 0.1, 0.0, np.log(2) / 0.2, 0.0]], atol=1e-5)
    huge = padded.decode_boxes(jnp.full((1, 4), 1e4, jnp.float32), defaults[:1])
    assert np.isfinite(huge).all()
    np.testing.assert_allclose(huge[0, 2] - huge[0, 0], 62.5 * DEFAULTS[0, 2], rtol=1e-4)
    np.testing.assert_allclose(padded.encode_boxes(boxes * 96, defaults * 96), offsets, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_matching_is_that_of_the_loops_whatever_the_padding(count):
    match = jax.jit(padded.match_boxes)
    for seed in range(8):
        boxes = random_boxes(np.random.default_rng(seed), count)
        expected = matched(DEFAULTS, boxes)
        assert set(range(count)) <= set(expected.tolist()), "every true box has a default box"
        for places in (count, 12):
            np.testing.assert_array_equal(match(jnp.asarray(DEFAULTS), *pad(boxes, places)), expected)


def test_two_boxes_with_one_best_default_box_have_one_each_and_empty_boxes_have_none():
    same = np.array([[0.1, 0.1, 0.3, 0.32], [0.1, 0.1, 0.3, 0.31]], np.float32)
    find = jax.jit(padded.match_boxes)
    match = np.asarray(find(jnp.asarray(DEFAULTS), *pad(same, 3)))
    assert {0, 1} <= set(match.tolist())
    flat = np.array([[0.4, 0.4, 0.4, 0.9]], np.float32)
    assert (np.asarray(find(jnp.asarray(DEFAULTS), *pad(flat, 3))) == -1).all()


def test_hard_negatives_are_the_dearest_three_for_each_positive():
    rng = np.random.default_rng(0)
    losses, positive = rng.uniform(size=(4, 30)).astype(np.float32), rng.uniform(size=(4, 30)) < 0.1
    positive[1] = False
    positive[2] = np.arange(30) < 12  # 36 are wanted, 18 are left
    chosen = np.asarray(padded.hard_negatives(jnp.asarray(losses), jnp.asarray(positive)))
    for row in range(4):
        left = np.flatnonzero(~positive[row])
        wanted = left[np.argsort(-losses[row, left])][: 3 * positive[row].sum()]
        assert set(np.flatnonzero(chosen[row])) == set(wanted)
    assert not chosen[1].any() and chosen[2].sum() == 18


def outputs(rng: np.random.Generator, batch: int, classes: int = 3) -> tuple[jax.Array, jax.Array]:
    count = len(DEFAULTS)
    logits = rng.normal(size=(batch, count, classes)).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(rng.normal(size=(batch, count, 4)).astype(np.float32))


def test_the_loss_is_that_of_the_loops():
    rng = np.random.default_rng(1)
    true = random_boxes(rng, 3)
    logits, offsets = outputs(rng, 1)
    boxes, labels = pad(true, 5)
    given = jax.jit(padded.multibox_loss)(logits, offsets, jnp.asarray(DEFAULTS), boxes[None], labels[None])
    match = matched(DEFAULTS, true)
    log_p = np.asarray(jax.nn.log_softmax(logits[0]))
    target = np.array([0 if m < 0 else m % 2 + 1 for m in match])
    cost = -log_p[np.arange(len(match)), target]
    wanted = np.asarray(padded.encode_boxes(jnp.asarray(true[np.maximum(match, 0)]), jnp.asarray(DEFAULTS)))
    error = np.abs(np.asarray(offsets[0]) - wanted)
    smooth = np.where(error < 1, error**2 / 2, error - 0.5).sum(1)
    negatives = np.sort(cost[match < 0])[::-1][: 3 * (match >= 0).sum()]
    np.testing.assert_allclose(given.boxes[0], smooth[match >= 0].sum(), rtol=1e-5)
    np.testing.assert_allclose(given.classes[0], cost[match >= 0].sum() + negatives.sum(), rtol=1e-5)
    assert int(given.positives[0]) == (match >= 0).sum()


def test_the_loss_does_not_see_padding_and_no_boxes_cost_nothing():
    rng = np.random.default_rng(2)
    logits, offsets = outputs(rng, 2)
    few, many = (jax.tree.map(lambda *xs: jnp.stack(xs), pad(random_boxes(np.random.default_rng(5), 2), places),
                              pad(random_boxes(rng, 0), places)) for places in (2, 9))  # fmt: skip
    many = (many[0].at[0, 2:].set(jnp.array([0.1, 0.1, 0.9, 0.9])), many[1])  # what padding holds does not matter

    def total(logits, offsets, boxes, labels):
        parts = padded.multibox_loss(logits, offsets, jnp.asarray(DEFAULTS), boxes, labels)
        return jnp.sum(parts.boxes + parts.classes), parts

    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (one, parts), gradient = step(logits, offsets, *few)
    (other, _), other_gradient = step(logits, offsets, *many)
    np.testing.assert_allclose(one, other, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, other_gradient)
    assert parts.positives[1] == parts.boxes[1] == parts.classes[1] == 0
    assert all(np.isfinite(g).all() and not g[1].any() and g[0].any() for g in gradient)


def suppressed(boxes: np.ndarray, valid: np.ndarray, threshold: float) -> np.ndarray:
    keep: list[int] = []
    for place in range(len(boxes)):
        if valid[place] and all(iou(boxes[k], boxes[place]) <= threshold for k in keep):
            keep.append(place)
    return np.isin(np.arange(len(boxes)), keep)


def test_suppression_is_that_of_the_loop():
    suppress = jax.jit(padded.suppress)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        boxes, valid = random_boxes(rng, 40), rng.uniform(size=40) < 0.8
        expected = suppressed(boxes, valid, 0.45)
        assert 0 < expected.sum() < valid.sum()
        np.testing.assert_array_equal(suppress(jnp.asarray(boxes), jnp.asarray(valid)), expected)
    # a chain, each link overlapping the next: every other one is kept
    chain = np.array([[0.02 * k, 0, 0.02 * k + 0.05, 1] for k in range(12)], np.float32)
    kept = suppress(jnp.asarray(chain), jnp.ones(12, bool), threshold=0.4)
    np.testing.assert_array_equal(kept, np.arange(12) % 2 == 0)


def test_detections_are_those_of_the_loops():
    rng = np.random.default_rng(3)
    logits, offsets = outputs(rng, 3)
    logits = logits * 2
    found = jax.jit(lambda a, b: padded.detect(a, b, jnp.asarray(DEFAULTS), limits=(1, 1), candidates=25, detections=30,
                                               score=0.3))(logits, offsets)  # fmt: skip
    assert found.boxes.shape == (3, 30, 4) and found.labels.dtype == jnp.int32
    scores = np.asarray(jax.nn.softmax(logits, -1))
    boxes = np.clip(np.asarray(padded.decode_boxes(offsets, jnp.asarray(DEFAULTS)[None])), 0, 1)
    for image in range(3):
        rows = []
        for label in range(2):
            order = np.argsort(-scores[image, :, label + 1], kind="stable")[:25]
            values = scores[image, order, label + 1]
            keep = suppressed(boxes[image, order], values > 0.3, 0.45)
            rows += [(value, label, *box) for value, box in zip(values[keep], boxes[image, order][keep], strict=True)]
        rows = sorted(rows, key=lambda row: -row[0])[:30]
        count = len(rows)
        assert count > 5
        np.testing.assert_allclose(found.scores[image, :count], [row[0] for row in rows], rtol=1e-6)
        np.testing.assert_array_equal(found.labels[image, :count], [row[1] for row in rows])
        np.testing.assert_allclose(found.boxes[image, :count], [row[2:] for row in rows], atol=1e-6)
        assert (np.asarray(found.labels[image, count:]) == -1).all() and not np.asarray(
            found.boxes[image, count:]
        ).any()
