"""Segmentation against scikit-learn and torchmetrics' kept values, outlines against scipy, and every sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as peer

from jaxdl import metrics

CLASSES = 6  # class 5 is in neither map, class 4 is only predicted
KEPT = Path(__file__).parent.parent / "fixtures" / "metrics_segmentation.npz"


def maps(seed: int, ignored: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """preds and target [8, 12, 10] with classes 0 to 3, some 4 in preds, and 255 to be ignored."""
    draw = np.random.default_rng(seed)
    target = draw.choice(4, (8, 12, 10), p=[0.7, 0.2, 0.08, 0.02])
    preds = np.where(draw.random(target.shape) < 0.7, target, draw.integers(0, 5, target.shape))
    return preds.astype(np.int32), np.where(draw.random(target.shape) < ignored, 255, target).astype(np.int32)


def check_against_scikit_learn(preds: np.ndarray, target: np.ndarray, weight: np.ndarray | None) -> None:
    given = {"num_classes": CLASSES, "ignore_index": 255, "weight": weight}
    there = target != 255
    p, t = preds[there], target[there]
    w = None if weight is None else np.broadcast_to(weight[:, None, None], target.shape)[there].astype(float)
    present = np.union1d(p, t)

    def jaccard(average: Any, labels: Any = None) -> Any:
        return peer.jaccard_score(t, p, average=average, labels=labels, sample_weight=w, zero_division=0)

    def close(got: Any, want: Any, what: str) -> None:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7, err_msg=what)

    close(metrics.pixel_accuracy(preds, target, **given), peer.accuracy_score(t, p, sample_weight=w), "accuracy")
    recall = peer.recall_score(t, p, average="macro", labels=np.unique(t), sample_weight=w, zero_division=0)
    close(metrics.mean_pixel_accuracy(preds, target, **given), recall, "mean accuracy")
    each = np.full(CLASSES, np.nan)
    each[present] = jaccard(None, present)
    close(metrics.iou(preds, target, **given), each, "iou")
    close(metrics.mean_iou(preds, target, **given), jaccard("macro"), "mean iou")
    every = metrics.mean_iou(preds, target, **given, average="macro_all", zero_division=0.0)
    close(every, jaccard("macro", np.arange(CLASSES)), "mean iou over all classes")
    close(metrics.frequency_weighted_iou(preds, target, **given), jaccard("weighted"), "frequency weighted")
    for average in ("micro", "macro", "weighted"):
        want = peer.f1_score(t, p, average=average, sample_weight=w, zero_division=0)
        close(metrics.dice(preds, target, **given, average=average), want, f"dice {average}")
    rest = [c for c in present if c != 0]
    want = peer.f1_score(t, p, average="macro", labels=rest, sample_weight=w, zero_division=0)
    close(metrics.dice(preds, target, **given, exclude=(0,)), want, "dice without background")


@pytest.mark.smoke
@pytest.mark.parametrize("weighted", [False, True])
def test_pixels_match_scikit_learn(weighted: bool) -> None:
    preds, target = maps(0)
    weight = np.random.default_rng(1).random(len(preds)).astype(np.float32) if weighted else None
    check_against_scikit_learn(preds, target, weight)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.99]))
def test_pixels_match_scikit_learn_on_anything(seed: int, ignored: float) -> None:
    check_against_scikit_learn(*maps(seed, ignored), None)


def test_values_match_those_kept_of_torchmetrics() -> None:
    kept = np.load(KEPT)
    for i, (preds, target) in enumerate(zip(kept["preds"], kept["target"], strict=True)):
        both = {"preds": preds, "target": target, "num_classes": 4}
        np.testing.assert_allclose(metrics.iou(**both), kept["iou"][i], rtol=1e-6)
        np.testing.assert_allclose(metrics.mean_iou(**both), kept["mean_iou"][i], rtol=1e-6)
        for average in ("micro", "macro", "weighted", None):
            want = kept[f"dice_{'none' if average is None else average}"][i]
            np.testing.assert_allclose(metrics.dice(**both, average=average), want, rtol=1e-6)
        for theirs, ours in (("square", "square"), ("simple", "simple"), ("linear", "uniform")):
            got = metrics.generalized_dice(**both, weighting=ours)
            np.testing.assert_allclose(got, kept[f"generalized_{theirs}"][i], rtol=1e-6)


def test_scores_threshold_and_what_is_undefined() -> None:
    draw = np.random.default_rng(3)
    target = draw.integers(0, 2, (4, 5, 5)).astype(np.int32)
    scores = draw.normal(size=(4, 5, 5, 2)).astype(np.float32)
    want = peer.jaccard_score(target.reshape(-1), scores.argmax(-1).reshape(-1), average="macro")
    np.testing.assert_allclose(metrics.mean_iou(scores, target), want, rtol=1e-6)
    one = metrics.mean_iou(scores[..., 1] - scores[..., 0], target, num_classes=2, threshold=0.0)
    np.testing.assert_allclose(one, want, rtol=1e-6)
    spoilt = scores.copy()
    spoilt[0, 0, 0] = np.nan
    assert np.isnan(metrics.mean_iou(spoilt, target)) and np.isnan(metrics.generalized_dice(spoilt, target))
    kept = np.arange(4) > 0
    assert np.isfinite(metrics.mean_iou(spoilt, target, mask=kept))
    void = np.full((1, 2, 2), 255)
    nothing = {"preds": np.zeros((1, 2, 2), np.int32), "target": void, "num_classes": 2, "ignore_index": 255}
    for function in (metrics.pixel_accuracy, metrics.mean_iou, metrics.dice, metrics.generalized_dice):
        assert np.isnan(function(**nothing)) and float(function(**nothing, zero_division=0.25)) == 0.25
    metric = metrics.MeanIoU(2)
    state = metric.update(metric.init(), preds=np.array([[0, 7]]), target=np.array([[0, 1]]))
    assert float(metric.invalid(state)) == 1.0 and float(metric.compute(state)) == 1.0
    # a class that is never true has no weight in generalized Dice
    got = metrics.generalized_dice(np.array([0, 0, 2]), np.array([0, 0, 0]), num_classes=3)
    np.testing.assert_allclose(got, 0.8, rtol=1e-6)


# ---- outlines --------------------------------------------------------------------------------------------------------


def outline(labels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Kept pixels with a kept neighbour of another label, by a loop over the four directions."""
    found = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and keep[y, x] and keep[v, u]:
                    found[y, x] |= labels[y, x] != labels[v, u]
    return found


def boundary_says(preds: np.ndarray, target: np.ndarray, keep: np.ndarray, classes: int, tolerance: float) -> Any:
    """The score of one image, and (F, precision, recall) of each class, by scipy's exact distance transform."""
    lines = [outline(x, keep) for x in (preds, target)]
    rows = []
    for c in range(classes):
        p, t = (line & (x == c) for line, x in zip(lines, (preds, target), strict=True))
        shares = []
        for one, other in ((p, t), (t, p)):
            far = ndimage.distance_transform_edt(~other) if other.any() else np.full(other.shape, np.inf)
            shares.append((far[one] <= tolerance + 1e-9).mean() if one.any() else np.nan)
        precision, recall = shares
        both = np.nan_to_num(precision) + np.nan_to_num(recall)
        f = 2 * np.nan_to_num(precision) * np.nan_to_num(recall) / both if both else 0.0
        rows.append((f if p.any() or t.any() else np.nan, precision, recall))
    f = np.array([row[0] for row in rows])
    return (np.nanmean(f) if np.isfinite(f).any() else np.nan), np.array(rows)


def blobs(seed: int, classes: int, shape: tuple[int, int, int] = (4, 24, 30)) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(draw.normal(size=(*shape, classes)), (0, 2, 2, 0))
    moved = fields + 0.5 * ndimage.gaussian_filter(draw.normal(size=fields.shape), (0, 1, 1, 0))
    target = fields.argmax(-1).astype(np.int32)
    target[draw.random(shape) < 0.03] = 255
    return moved.argmax(-1).astype(np.int32), target


@pytest.mark.parametrize(
    ("classes", "tolerance"), [(4, 0.0), (4, 1.0), (4, 1.5), (4, 3.0), (4, None), (40, 2.3)], ids=str
)
def test_boundary_matches_exact_distances(classes: int, tolerance: float | None) -> None:
    preds, target = blobs(int(10 * (tolerance or 7)), classes)
    target[3], preds[3] = 1, 1  # an image without outlines
    reach = 0.0075 * np.hypot(24, 30) if tolerance is None else tolerance
    wants = [boundary_says(p, t, t != 255, classes, reach) for p, t in zip(preds, target, strict=True)]
    metric = metrics.BoundaryF(classes, tolerance=tolerance, ignore_index=255)
    state = metric.update(metric.init(), preds=preds, target=target)
    np.testing.assert_allclose(metric.compute(state), np.nanmean([w[0] for w in wants]), rtol=1e-6)
    each = np.ma.masked_invalid(np.stack([w[1] for w in wants])).mean(axis=0).filled(np.nan)
    found = metric.per_class(state)
    for i, part in enumerate(("f", "precision", "recall")):
        np.testing.assert_allclose(found[part], each[:, i], rtol=1e-6, err_msg=part)
    weight = np.array([1.0, 0.0, 2.5, 1.0], np.float32)
    state = metric.update(metric.init(), preds=preds, target=target, weight=weight)
    want = np.average([wants[0][0], wants[2][0]], weights=[1.0, 2.5])
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)


def test_boundary_leaves_out_what_it_is_told_to() -> None:
    preds, target = blobs(5, 4)
    keep = np.random.default_rng(0).random(target.shape) < 0.8
    want = metrics.boundary_f(preds, np.where(keep, target, 255), num_classes=4, tolerance=1, ignore_index=255)
    got = metrics.boundary_f(preds, target, num_classes=4, tolerance=1, ignore_index=255, mask=keep)
    assert float(got) == float(want) != 0.0
    metric = metrics.BoundaryF(4, tolerance=1.0)  # 255 and -1 are then no classes
    odd = np.where(keep, preds, -1)
    state = metric.update(metric.init(), preds=odd, target=target)
    assert float(metric.invalid(state)) == ((odd < 0) | (target == 255)).sum()
    lost = np.where(odd < 0, 255, target)
    want = metrics.boundary_f(preds, lost, num_classes=4, tolerance=1, ignore_index=255)
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)


def test_boundary_of_scores_and_what_is_undefined() -> None:
    draw = np.random.default_rng(2)
    scores, target = draw.normal(size=(2, 6, 6, 3)).astype(np.float32), draw.integers(0, 3, (2, 6, 6))
    metric = metrics.BoundaryF(3, tolerance=1)
    ids = metrics.boundary_f(scores.argmax(-1), target, num_classes=3, tolerance=1)
    assert float(metrics.boundary_f(scores, target, tolerance=1)) == float(ids) > 0
    scores[0, 2, 2, 1] = np.nan
    state = metric.update(metric.init(), preds=scores, target=target)
    assert np.isnan(metric.compute(state)) and float(metric.invalid(state)) == 1.0
    assert np.isfinite(metrics.boundary_f(scores, target, tolerance=1, mask=np.array([False, True])))
    flat = np.zeros((1, 5, 5), np.int32)
    assert np.isnan(metrics.boundary_f(flat, flat, num_classes=2))
    half = flat.copy()
    half[:, 2:] = 1
    assert float(metrics.boundary_f(half, flat, num_classes=2)) == 0.0  # an outline on one side only
    assert float(metrics.boundary_f(half, half, num_classes=2)) == 1.0


MAP = np.zeros((1, 2, 2), np.int32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.MeanIoU(1), "num_classes must be an integer from 2"),
        (lambda: metrics.MeanIoU(3, average="micro"), "average must be one of .'macro', 'macro_all'"),  # type: ignore[arg-type]
        (lambda: metrics.IoU(3, average="mean"), "average must be one of .None, 'macro'"),  # type: ignore[arg-type]
        (lambda: metrics.Dice(3, exclude=(3,)), r"exclude must name some, not all, of the classes 0 to 2"),
        (lambda: metrics.Dice(2, exclude=(0, 1)), "exclude must name some, not all"),
        (lambda: metrics.Dice(2, zero_division="warn"), "zero_division must be a number"),  # type: ignore[arg-type]
        (lambda: metrics.GeneralizedDice(2, weighting="linear"), "weighting must be one of .'square'"),  # type: ignore[arg-type]
        (lambda: metrics.mean_iou(np.zeros((1, 2, 2, 3)), MAP, num_classes=2), "scores of 2 classes have shape"),
        (lambda: metrics.mean_iou(MAP[0], MAP, num_classes=2), "must be the same"),
        (lambda: metrics.boundary_f(MAP[0], MAP[0], num_classes=2), r"must be \[batch, height, width\]"),
        (lambda: metrics.boundary_f(np.zeros((1, 2, 2, 3)), MAP, num_classes=2), "scores of 2 classes have shape"),
        (lambda: metrics.boundary_f(MAP.astype(float), MAP, num_classes=2), "must be integer class ids"),
        (lambda: metrics.BoundaryF(1), "num_classes must be an integer from 2 to 4096"),
        (lambda: metrics.BoundaryF(2, tolerance=-1), "tolerance must be a distance in pixels"),
        (lambda: metrics.boundary_f(MAP, MAP, num_classes=2, weight=np.ones((1, 2, 2))), "weight has shape"),
    ],
)  # fmt: skip
def test_sentences(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
