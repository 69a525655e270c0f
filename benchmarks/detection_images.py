"""Made images of boxes and detections, as padded arrays and as what pycocotools reads: for tests and benchmarks."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def detection_images(
    count: int,
    *,
    classes: int = 20,
    boxes: int = 16,
    detections: int = 50,
    size: int = 640,
    integers: bool = False,
    score_steps: int = 0,
    crowd: float = 0.05,
    ignore: float = 0.0,
    seed: int = 0,
) -> tuple[Arrays, Arrays]:
    """preds and target of `CocoMAP(num_classes=classes, box_format="xywh")`, for `count` images.

    Each image has 0 to `boxes` true boxes, of log-normal sizes, and 0 to `detections` detections: true boxes moved by
    noise of several strengths, some of them doubled or given another class, and boxes at random. `integers` puts all on
    whole pixels, which makes IoUs that equal thresholds; `score_steps` rounds scores, which makes ties; `crowd` and
    `ignore` are shares of true boxes.
    """
    draw = np.random.default_rng(seed)
    true_count = draw.integers(0, boxes + 1, count)
    found_count = draw.integers(0, detections + 1, count)
    exists = np.arange(boxes)[None] < true_count[:, None]
    true = _random_boxes(draw, (count, boxes), size)
    labels = np.where(exists, draw.integers(0, classes, (count, boxes)), -1).astype(np.int32)

    # most detections start from a true box of their image, the others from anywhere
    source = draw.integers(0, np.maximum(true_count, 1)[:, None], (count, detections))
    noise = draw.choice([0.02, 0.1, 0.4], (count, detections, 1)) * draw.normal(size=(count, detections, 4))
    found = np.take_along_axis(true, source[..., None], axis=1)
    found = found + noise * found[..., [2, 3, 2, 3]] * 0.5
    near = (draw.random((count, detections)) < 0.6) & (true_count > 0)[:, None]
    found = np.where(near[..., None], found, _random_boxes(draw, (count, detections), size))
    found[..., 2:] = np.maximum(found[..., 2:], 1)
    same = near & (draw.random((count, detections)) < 0.9)
    found_labels = np.where(
        same, np.take_along_axis(labels, source, axis=1), draw.integers(0, classes, (count, detections))
    )
    scores = 1 / (1 + np.exp(-draw.normal(size=(count, detections)) - 1.5 * same))
    if score_steps:
        scores = np.round(scores * score_steps) / score_steps
    if integers:
        true, found = np.round(true), np.maximum(np.round(found), [0, 0, 1, 1])
    inside = np.arange(detections)[None] < found_count[:, None]
    preds = {
        "boxes": found.astype(np.float32),
        "scores": scores.astype(np.float32),
        "labels": np.where(inside, found_labels, -1).astype(np.int32),
    }
    target = {
        "boxes": true.astype(np.float32),
        "labels": labels,
        "crowd": exists & (draw.random((count, boxes)) < crowd),
        "area": (true[..., 2] * true[..., 3] * draw.uniform(0.5, 1, (count, boxes))).astype(np.float32),
    }
    if ignore:
        target["ignore"] = exists & (draw.random((count, boxes)) < ignore)
    return preds, target


def _random_boxes(draw: np.random.Generator, shape: tuple[int, ...], size: int) -> np.ndarray:
    sides = np.clip(np.exp(draw.normal(4.0, 1.0, (*shape, 2))), 2, size * 0.9)
    corner = draw.random((*shape, 2)) * (size - sides)
    return np.concatenate([corner, sides], axis=-1)


def coco_files(preds: Arrays, target: Arrays, classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same boxes (x, y, width, height) as COCO's annotations and results."""
    annotations: list[dict[str, Any]] = []
    for image, place in np.argwhere(target["labels"] >= 0):
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(image),
                "category_id": int(target["labels"][image, place]),
                "bbox": [float(x) for x in target["boxes"][image, place]],
                "area": float(target["area"][image, place]),
                "iscrowd": int(target["crowd"][image, place]),
                **({"ignore": int(target["ignore"][image, place])} if "ignore" in target else {}),
            }
        )
    results = [
        {
            "image_id": int(image),
            "category_id": int(preds["labels"][image, place]),
            "bbox": [float(x) for x in preds["boxes"][image, place]],
            "score": float(preds["scores"][image, place]),
        }
        for image, place in np.argwhere(preds["labels"] >= 0)
    ]
    images = [{"id": i} for i in range(len(preds["labels"]))]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(classes)],
    }, results


def pycocotools_evaluate(annotations: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """pycocotools' evaluation object after evaluate and accumulate; `stats` holds the twelve numbers. Quiet.

    Reading the files is not part of `evaluate_loaded`, which is what to time.
    """
    return evaluate_loaded(*load(annotations, results))


def load(annotations: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Any, Any]:
    """pycocotools' two tables."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        return truth, truth.loadRes(results)


def evaluate_loaded(truth: Any, found: Any) -> Any:
    """pycocotools' evaluation of its tables."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
