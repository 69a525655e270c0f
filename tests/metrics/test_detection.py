"""Detection against pycocotools, VOC's rule restated, files of COCO as arrays, and every sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from benchmarks.detection_images import coco_files, detection_images, evaluate_loaded, load
from jaxdl import metrics
from jaxdl.metrics.call import evaluate

CLASSES = 4
IMAGES = 16
# of one shape, so that all comparisons share one program
SHAPE = {"classes": CLASSES, "boxes": 10, "detections": 130}
COCO = metrics.CocoMAP(CLASSES, IMAGES * 130, box_format="xywh")


class _Ignoring(COCOeval):
    """pycocotools forgets the field `ignore` of true boxes; this one keeps it."""

    def _prepare(self) -> None:
        kept = {key: bool(box.get("ignore", 0)) for key, box in self.cocoGt.anns.items()}
        super()._prepare()
        for boxes in self._gts.values():
            for box in boxes:
                box["ignore"] = box["iscrowd"] or kept[box["id"]]


def pycocotools_says(preds: Any, target: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pycocotools.cocoeval.COCOeval", _Ignoring)
        return evaluate_loaded(*load(*coco_files(preds, target, CLASSES)))


def state_of(metric: Any, preds: Any, target: Any, **options: Any) -> Any:
    return metric.update(metric.init(), preds=preds, target=target, **options)


def check_against_pycocotools(preds: Any, target: Any) -> None:
    theirs = pycocotools_says(preds, target)
    state = state_of(COCO, preds, target)
    ours = COCO.curves(state)
    precision = np.nan_to_num(np.asarray(ours.precision).transpose(1, 3, 2, 0), nan=-1)
    np.testing.assert_allclose(precision, theirs.eval["precision"][..., -1], rtol=1e-6, atol=1e-7)
    recall = np.nan_to_num(np.asarray(ours.recall), nan=-1)  # [areas, thresholds, classes, levels]
    np.testing.assert_allclose(recall.transpose(1, 2, 0, 3), theirs.eval["recall"], rtol=1e-6, atol=1e-7)
    values = COCO.compute(state)
    order = ["ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100", "ar_small"]
    stats = [np.nan_to_num(float(values[key]), nan=-1) for key in [*order, "ar_medium", "ar_large"]]
    np.testing.assert_allclose(stats, theirs.stats, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"integers": True, "score_steps": 20, "size": 60},  # IoUs on the thresholds, ties of scores and of IoUs
        {"crowd": 0.3, "ignore": 0.3, "size": 150, "score_steps": 10},
    ],
    ids=["floats", "whole pixels and ties", "crowds and ignored boxes"],
)
def test_coco_equals_pycocotools(options: dict) -> None:
    preds, target = detection_images(IMAGES, **SHAPE, **options, seed=5)
    preds["labels"][:4] = 1  # more than 100 of one class in an image
    target["labels"][target["labels"] == 3] = 2  # a class that is found, but never true
    preds["labels"][9] = -1  # an image without detections
    target["labels"][10] = -1  # one without true boxes
    preds["labels"][11] = target["labels"][11] = -1  # an empty one
    check_against_pycocotools(preds, target)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    integers=st.booleans(),
    size=st.sampled_from([30, 100, 640]),
    score_steps=st.sampled_from([0, 3, 50]),
    crowd=st.sampled_from([0.0, 0.2, 0.9]),
    ignore=st.sampled_from([0.0, 0.4]),
)
def test_coco_equals_pycocotools_on_anything(seed: int, **options: Any) -> None:
    check_against_pycocotools(*detection_images(IMAGES, **SHAPE, **options, seed=seed))


def test_area_is_the_box_own_where_it_is_not_given() -> None:
    preds, target = detection_images(IMAGES, **SHAPE, size=200, seed=2)
    del target["area"]
    ours = COCO.compute(state_of(COCO, preds, target))
    given_area = {**target, "area": target["boxes"][..., 2] * target["boxes"][..., 3]}
    theirs = COCO.compute(state_of(COCO, preds, given_area))
    assert {key: float(x) for key, x in ours.items()} == {key: float(x) for key, x in theirs.items()}
    assert float(ours["ap_small"]) != float(ours["ap"])


def test_notations_of_boxes_give_one_value() -> None:
    preds, target = detection_images(IMAGES, **SHAPE, integers=True, size=100, seed=4)
    values = []
    for kind in ("xywh", "xyxy", "cxcywh"):
        metric = metrics.CocoMAP(CLASSES, IMAGES * 130, box_format=kind)  # type: ignore[arg-type]
        sides = ({**x, "boxes": metrics.convert_boxes(x["boxes"], "xywh", kind)} for x in (preds, target))  # type: ignore[arg-type]
        values.append(float(metric.compute(state_of(metric, *sides))["ap"]))
    assert values[0] == values[1] == values[2] > 0


def test_per_class_and_padding_by_valid() -> None:
    preds, target = detection_images(IMAGES, **SHAPE, size=200, seed=6)
    theirs = pycocotools_says(preds, target)
    hidden = [{**x, "labels": np.maximum(x["labels"], 0), "valid": x["labels"] >= 0} for x in (preds, target)]
    found = COCO.per_class(state_of(COCO, *hidden))
    want = theirs.eval["precision"][..., 0, -1].mean(axis=(0, 1))
    np.testing.assert_allclose(found["ap"], want, rtol=1e-6)
    assert set(found) == set(COCO.compute(COCO.init()))


# ---- by hand ---------------------------------------------------------------------------------------------------------

# one program each for all that follows: 3 places for detections and 2 for true boxes, the rest is padding
HAND, HAND_VOC = metrics.CocoMAP(2, 8), metrics.VocMAP(2, 8)


def found_at(*boxes: tuple) -> dict[str, np.ndarray]:
    """Detections of class 0 in one image, with falling scores."""
    fill = 3 - len(boxes)
    return {
        "boxes": np.array([[*boxes, *[(0, 0, 0, 0)] * fill]], np.float32),
        "scores": np.array([[0.9, 0.6, 0.3]], np.float32),
        "labels": np.array([[0] * len(boxes) + [-1] * fill], np.int32),
    }


def true_at(*boxes: tuple, crowd: bool = False, ignore: bool = False) -> dict[str, np.ndarray]:
    """True boxes of class 0 in one image, the first of which may be a crowd or to be ignored."""
    fill = 2 - len(boxes)
    return {
        "boxes": np.array([[*boxes, *[(0, 0, 0, 0)] * fill]], np.float32),
        "labels": np.array([[0] * len(boxes) + [-1] * fill], np.int32),
        "crowd": np.array([[crowd, False]]),
        "ignore": np.array([[ignore, False]]),
    }


def coco(found: Any, true: Any) -> dict[str, float]:
    return {key: float(x) for key, x in evaluate(HAND, preds=found, target=true).items()}


def voc(found: Any, true: Any) -> float:
    return float(evaluate(HAND_VOC, preds=found, target=true))


A, B = (0, 0, 10, 10), (50, 50, 60, 60)
ONE = true_at(A)


@pytest.mark.smoke
def test_a_crowd_may_be_found_often_and_a_box_once() -> None:
    assert coco(found_at(A, A), ONE)["ap"] == 1.0  # the second is wrong, behind a full recall
    three = found_at(A, A, B)
    assert coco(three, true_at(A, B))["ap"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert coco(three, true_at(A, B, crowd=True))["ap"] == 1.0  # both of the crowd's are ignored
    assert coco(three, true_at(A, B, ignore=True))["ap"] == pytest.approx(0.5)  # an ignored box excuses one
    assert voc(three, true_at(A, B, ignore=True)) == 1.0  # and any number in VOC


def test_an_iou_on_a_threshold_reaches_it() -> None:
    for height in (5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5):
        want = np.mean(10 * height / 100 >= np.linspace(0.5, 0.95, 10))  # in float64, as pycocotools compares
        assert coco(found_at((0, 0, 10, height)), ONE)["ap"] == pytest.approx(want), height


def test_of_equal_overlaps_the_last_box_is_taken() -> None:
    left, right = (0, 0, 10, 10), (10, 0, 20, 10)
    found = found_at((0, 0, 20, 10), (12, 0, 20, 10))
    assert coco(found, true_at(left, right))["ap_50"] == pytest.approx(51 / 101)
    assert coco(found, true_at(right, left))["ap_50"] == 1.0


def test_what_is_undefined_is_nan() -> None:
    found = found_at(A)
    assert all(np.isnan(x) for x in coco(found, true_at()).values()) and np.isnan(voc(found, true_at()))
    values = coco(found, ONE)
    assert np.isnan(values["ap_large"]) and values["ap_small"] == 1.0  # 100 square pixels are small
    assert coco(found_at(), ONE)["ap"] == 0.0
    broken = {**found, "scores": np.full((1, 3), np.nan, np.float32)}
    assert np.isnan(voc(broken, ONE)) and np.isnan(coco(broken, ONE)["ap"])
    assert np.isnan(voc({**found, "boxes": found["boxes"] * np.nan}, ONE))
    assert np.isnan(voc(found, {**ONE, "boxes": ONE["boxes"] * np.nan}))
    assert voc({**broken, "labels": np.full((1, 3), -1)}, ONE) == 0.0  # padding may hold anything
    assert np.isnan(evaluate(HAND_VOC, preds=found, target=ONE, weight=np.array([-1.0])))
    none = {"boxes": np.zeros((1, 0, 4)), "scores": np.zeros((1, 0)), "labels": np.zeros((1, 0), np.int32)}
    assert voc(none, ONE) == 0.0


def test_overflow_and_labels_out_of_range_are_told() -> None:
    # whole programs: operation by operation three configurations cost half as much again
    stated = jax.jit(state_of, static_argnums=0)
    valued = jax.jit(lambda metric, state: metric.compute(state), static_argnums=0)
    small = metrics.VocMAP(2, 2)
    state = stated(small, found_at(A, B, A), ONE)
    assert bool(small.overflowed(state)) and np.isnan(valued(small, state))
    two = stated(small, found_at(A, B), ONE)
    merge = jax.jit(small.merge)
    assert not bool(small.overflowed(merge(two, small.init()))) and bool(small.overflowed(merge(two, two)))
    limited = metrics.CocoMAP(2, 2, max_detections=(1, 2))  # the third is not among the two best
    state = stated(limited, found_at(A, B, A), ONE)
    assert not bool(limited.overflowed(state)) and float(valued(limited, state)["ap"]) == 1.0
    state = stated(HAND_VOC, {**found_at(A, B, A), "labels": np.array([[0, 2, -5]])}, ONE)
    assert float(HAND_VOC.invalid(state)) == 2.0 and float(valued(HAND_VOC, state)) == 1.0


# ---- VOC -------------------------------------------------------------------------------------------------------------


def voc_says(preds: Any, target: Any, label: int, threshold: float, points: bool, extra: float) -> float:
    """The rule of the development kit for one class, in NumPy, a loop over detections."""
    places = np.argwhere(preds["labels"] == label)
    scores = np.array([preds["scores"][i, d] for i, d in places])
    taken: set[tuple[int, int]] = set()
    right, wrong = [], []
    wanted = int(((target["labels"] == label) & ~target["difficult"]).sum())
    for image, place in places[np.argsort(-scores, kind="stable")]:
        x1, y1, x2, y2 = (float(v) for v in preds["boxes"][image, place])
        best, at = -1.0, -1
        for g in np.flatnonzero(target["labels"][image] == label):
            a1, b1, a2, b2 = (float(v) for v in target["boxes"][image, g])
            w, h = min(x2, a2) - max(x1, a1) + extra, min(y2, b2) - max(y1, b1) + extra
            if w > 0 and h > 0:
                area = (x2 - x1 + extra) * (y2 - y1 + extra) + (a2 - a1 + extra) * (b2 - b1 + extra)
                if w * h / (area - w * h) > best:
                    best, at = w * h / (area - w * h), int(g)
        if best >= threshold and target["difficult"][image, at]:
            right.append(0), wrong.append(0)
        else:
            hit = best >= threshold and (int(image), at) not in taken
            right.append(int(hit)), wrong.append(int(not hit))
            if hit:
                taken.add((int(image), at))
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    recall, precision = hits / wanted, hits / np.maximum(hits + misses, 1)
    if points:
        return float(np.mean([max(precision[recall >= t], default=0.0) for t in np.linspace(0, 1, 11)]))
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("inclusive", [False, True])
def test_voc_follows_its_rule(seed: int, inclusive: bool) -> None:
    preds, target = detection_images(IMAGES, **SHAPE, integers=bool(seed), size=120, ignore=0.2, seed=seed)
    preds, target = (
        {**x, "boxes": np.asarray(metrics.convert_boxes(x["boxes"], "xywh", "xyxy"))} for x in (preds, target)
    )
    target = {"boxes": target["boxes"], "labels": target["labels"], "difficult": target["ignore"]}
    for interpolation in ("area", "11point"):
        metric = metrics.VocMAP(CLASSES, IMAGES * 130, interpolation=interpolation, inclusive=inclusive)  # type: ignore[arg-type]
        found = metric.per_class(state_of(metric, preds, target))["ap"]
        for label in range(CLASSES):
            want = voc_says(preds, target, label, 0.5, interpolation == "11point", float(inclusive))
            np.testing.assert_allclose(found[label], want, rtol=1e-6, err_msg=f"{interpolation}, class {label}")


def test_voc_differs_from_coco_in_whom_a_detection_may_take() -> None:
    # the second detection's best box is taken: COCO gives it the other one, VOC calls it wrong
    true, found = true_at(A, (0, 0, 10, 8)), found_at(A, (0, 0, 10, 9.5))
    assert coco(found, true)["ap_50"] == 1.0
    assert voc(found, true) == 0.5


# ---- boxes -----------------------------------------------------------------------------------------------------------


# ---- files -----------------------------------------------------------------------------------------------------------


def test_coco_files_become_arrays(tmp_path: Path) -> None:
    preds, target = detection_images(IMAGES, **SHAPE, size=200, seed=8)
    annotations, results = coco_files(preds, target, CLASSES)
    names = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
    for entry in (*annotations["annotations"], *results):  # ids that are no places
        entry["category_id"] = 90 - 10 * entry["category_id"]
        entry["image_id"] = 1000 - 3 * entry["image_id"]
    annotations["categories"] = [{"id": 90 - 10 * k, "name": name} for k, name in names.items()]
    annotations["images"] = [{"id": 1000 - 3 * i["id"]} for i in annotations["images"]]
    paths = [tmp_path / "annotations.json", tmp_path / "results.json"]
    for path, content in zip(paths, (annotations, results), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    arrays = metrics.coco_arrays(*paths)
    assert arrays.classes == ("fox", "owl", "dog", "cat") and arrays.category_ids == (60, 70, 80, 90)
    assert arrays.image_ids[0] == 955 and len(arrays.image_ids) == IMAGES
    ours = metrics.coco_map(arrays.preds, arrays.target, num_classes=CLASSES, box_format="xywh")
    theirs = evaluate_loaded(*load(annotations, results))
    np.testing.assert_allclose(ours["ap"], theirs.stats[0], rtol=1e-6)
    np.testing.assert_allclose(ours["ar_100"], theirs.stats[8], rtol=1e-6)


IMAGE = {"boxes": [[0, 0, 1, 1]], "labels": [0]}
FILE: dict[str, Any] = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
FOUND = found_at((0, 0, 1, 1))
TWO_IMAGES = {"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 1), int)}
RESULT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.detection_arrays([IMAGE, {**IMAGE, "scores": [1]}]), "image 1 has .*scores.* and image 0"),
        (lambda: metrics.detection_arrays([{"boxes": []}]), "image 0 has no 'labels'"),
        (lambda: metrics.detection_arrays([{**IMAGE, "bbox": 3}]), "image 0 has 'bbox'; known are boxes"),
        (lambda: metrics.detection_arrays([{**IMAGE, "boxes": [[0, 0, 1]]}]), r"boxes of image 0 have shape \(1, 3\)"),
        (lambda: metrics.detection_arrays([{**IMAGE, "labels": [-1]}]), "labels of image 0 must be integers from 0"),
        (lambda: metrics.detection_arrays([IMAGE], boxes=0), "image 0 has 1 boxes, which do not fit into boxes=0"),
        (lambda: metrics.coco_arrays({}, []), "annotations need 'images'"),
        (lambda: metrics.coco_arrays(FILE, {}), "results must be a list"),
        (lambda: metrics.coco_arrays(FILE, [{**RESULT, "image_id": 7}]), "result 0 has image_id 7, .* no such image"),
        (lambda: metrics.coco_arrays(FILE, [{**RESULT, "category_id": 7}]), "category_id 7, .* no such category"),
        (lambda: metrics.coco_arrays(FILE, [{**RESULT, "bbox": [1]}]), r"bbox \[1\]; it must be \[x, y"),
        (lambda: metrics.coco_arrays(FILE, [{**RESULT, "score": None}]), "result 0 has no score"),
        (lambda: metrics.box_iou(np.zeros((2, 3)), np.zeros((2, 4))), r"a have shape \(2, 3\).*4 numbers of a box"),
        (lambda: metrics.box_iou(np.zeros(4), np.zeros((2, 4))), r"\[..., n, 4\] and \[..., m, 4\]"),
        (lambda: metrics.box_iou(np.zeros((1, 4)), np.zeros((2, 4)), elementwise=True), "elementwise boxes have one"),
        (lambda: metrics.box_iou(np.zeros((1, 4)), np.zeros((2, 4)), box_format="yx"), "box_format must be 'xyxy'"),  # type: ignore[arg-type]
        (lambda: metrics.MeanBoxIoU("liou"), "kind must be 'iou'"),  # type: ignore[arg-type]
        (lambda: metrics.mean_box_iou(np.zeros((1, 4)), np.zeros((2, 4))), "must be the same"),
        (lambda: metrics.CocoMAP(0, 5), "num_classes must be an integer from 1"),
        (lambda: metrics.CocoMAP(1, 0), "capacity must be an integer from 1"),
        (lambda: metrics.CocoMAP(1, 5, iou_thresholds=(0.0,)), "IoU thresholds must be"),
        (lambda: metrics.CocoMAP(1, 5, iou_thresholds=np.linspace(0.1, 0.9, 17)), "1 to 16 numbers"),  # type: ignore[arg-type]
        (lambda: metrics.CocoMAP(1, 5, max_detections=(10, 1)), "max_detections must be rising"),
        (lambda: metrics.CocoMAP(1, 5, max_detections=()), "at least one number"),
        (lambda: metrics.VocMAP(1, 5, interpolation="12point"), "'area' or '11point'"),  # type: ignore[arg-type]
        (lambda: metrics.VocMAP(1, 5, box_format="xywh", inclusive=True), "inclusive speaks of corners"),
        (lambda: metrics.coco_map(FOUND, {**ONE, "crowds": 1}), "no 'crowds'; did you mean 'crowd'"),
        (lambda: metrics.CocoMAP(1, 5).update(None, preds=TWO_IMAGES, target=ONE), "preds needs 'scores'"),
        (lambda: metrics.CocoMAP(1, 5).update(None, preds=[ONE], target=ONE), "must be a dictionary of padded arrays"),
        (lambda: metrics.coco_map(FOUND, {**ONE, "boxes": np.zeros((1, 4))}), "must be .images, boxes"),
        (lambda: metrics.coco_map(FOUND, {**ONE, "crowd": np.zeros((1, 3), bool)}), r"'crowd'\] has shape"),
        (lambda: metrics.coco_map(FOUND, {**ONE, "crowd": np.zeros((1, 1))}), "booleans or 0 and 1"),
        (lambda: metrics.coco_map(FOUND, TWO_IMAGES), "preds hold 1 images and target 2"),
        (lambda: metrics.coco_map({**FOUND, "labels": np.zeros((1, 1))}, ONE), "integer class ids"),
        (lambda: jax.jit(metrics.coco_map)(FOUND, ONE), "inside jit the number of classes"),
    ],
)  # fmt: skip
def test_sentences(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations .*nowhere\.json is no file"):
        metrics.coco_arrays(str(tmp_path / "nowhere.json"), [])
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results .*broken\.json is not JSON"):
        metrics.coco_arrays(FILE, broken)


def test_what_is_missing_is_named_also_in_one_call() -> None:
    boxes = [[[0.0, 0.0, 1.0, 1.0]]]
    with pytest.raises(ValueError, match="did you mean 'labels'"):
        metrics.coco_map({"boxes": boxes, "scores": [[0.5]], "labels": [[0]]}, {"boxes": boxes, "label": [[0]]})
    with pytest.raises(TypeError, match="dictionary of padded arrays"):
        metrics.voc_map([1], [2])  # type: ignore[arg-type]
