"""From lists of boxes, or COCO's files, to the padded arrays that detection metrics take. On the host, NumPy only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
_FILL = {"labels": -1}
_DTYPES = {"boxes": np.float32, "scores": np.float32, "area": np.float32, "labels": np.int32}
_FLAGS = ("crowd", "ignore", "difficult")


class CocoArrays(NamedTuple):
    """COCO's files as arrays.

    Attributes:
        preds, target: what `CocoMAP(num_classes=len(classes), box_format="xywh")` takes, images in order of image_ids.
        classes: the names of the labels 0, 1 ..., in order of category ids.
        image_ids: rising.
        category_ids: those of the labels, rising.
    """

    preds: Arrays
    target: Arrays
    classes: tuple[str, ...]
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]


def detection_arrays(
    images: Sequence[Mapping[str, Any]], *, boxes: int | None = None, name: str = "detection_arrays"
) -> Arrays:
    """Padded arrays from one dictionary for each image: {"boxes": [n, 4], "labels": [n], "scores": [n], ...}.

    All images must have the same keys: boxes and labels, and any of scores, area, crowd, ignore and difficult. Images
    may have no boxes. `boxes` is how many places each image gets (as many as the fullest image needs, where it is not
    given); give it where several batches must have one shape. Padding has label -1.

    Raises:
        ValueError: naming the image and what does not fit.

    >>> from jaxdl.metrics import detection_arrays
    >>> images = [{"boxes": [[0, 0, 5, 5], [1, 1, 3, 3]], "labels": [2, 0]}, {"boxes": [], "labels": []}]
    >>> target = detection_arrays(images)
    >>> target["boxes"].shape, target["labels"].tolist()
    ((2, 2, 4), [[2, 0], [-1, -1]])
    """
    keys = list(images[0]) if images else ["boxes", "labels"]
    known = (*_DTYPES, *_FLAGS)
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ValueError(f"{name}: image 0 has {unknown[0]!r}; known are {', '.join(known)}")
    for key in ("boxes", "labels"):
        if key not in keys:
            raise ValueError(f"{name}: image 0 has no {key!r}; it has {keys}")
    rows: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for number, image in enumerate(images):
        if set(image) != set(keys):
            raise ValueError(f"{name}: image {number} has {sorted(image)} and image 0 has {sorted(keys)}")
        count = len(np.asarray(image["labels"]).reshape(-1))
        for key in keys:
            array = np.asarray(image[key])
            shape = (count, 4) if key == "boxes" else (count,)
            if count == 0 and array.size == 0:
                array = array.reshape(shape)
            if array.shape != shape:
                raise ValueError(
                    f"{name}: {key} of image {number} have shape {array.shape}; {shape} would match labels"
                )
            if key == "labels" and array.size and (array.dtype.kind not in "iu" or array.min() < 0):
                raise ValueError(f"{name}: labels of image {number} must be integers from 0; they are {array.tolist()}")
            rows[key].append(array)
    fullest = max([len(x) for x in rows["labels"]], default=0)
    places = max(1, fullest) if boxes is None else boxes
    if fullest > places:
        number = [len(x) for x in rows["labels"]].index(fullest)
        raise ValueError(f"{name}: image {number} has {fullest} boxes, which do not fit into boxes={places}")
    padded: Arrays = {}
    for key in keys:
        tail = (4,) if key == "boxes" else ()
        padded[key] = np.full((len(images), places, *tail), _FILL.get(key, 0), _DTYPES.get(key, np.bool_))
        for number, row in enumerate(rows[key]):
            padded[key][number, : len(row)] = row
    return padded


def coco_arrays(annotations: Any, results: Any) -> CocoArrays:
    """Padded arrays from COCO's annotations and results: paths of JSON files, or what was read from them.

    annotations: {"images": [{"id"}], "categories": [{"id", "name"}], "annotations": [{"image_id", "category_id",
    "bbox": [x, y, width, height], "area", "iscrowd"}]}; results: [{"image_id", "category_id", "bbox", "score"}]. Boxes
    stay [x, y, width, height]: `box_format="xywh"`. Images are in order of id, as pycocotools ranks equal scores.

    Raises:
        ValueError: naming the entry: an image or category that the annotations do not list, a box that is not 4
            numbers, a missing key.

    >>> from jaxdl.metrics import coco_arrays, coco_map
    >>> truth = {"images": [{"id": 7}], "categories": [{"id": 18, "name": "dog"}],
    ...          "annotations": [{"image_id": 7, "category_id": 18, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}]}
    >>> arrays = coco_arrays(truth, [{"image_id": 7, "category_id": 18, "bbox": [0, 0, 4, 4], "score": 0.5}])
    >>> values = coco_map(arrays.preds, arrays.target, num_classes=len(arrays.classes), box_format="xywh")
    >>> float(values["ap"])
    1.0
    """
    truth, found = _read(annotations, "annotations"), _read(results, "results")
    for key in ("images", "categories", "annotations"):
        if not isinstance(truth, Mapping) or key not in truth:
            raise ValueError(f"coco_arrays: annotations need {key!r}, a list; is this a COCO annotation file?")
    if isinstance(found, Mapping):
        raise ValueError("coco_arrays: results must be a list of detections; they are a dictionary")
    image_ids = tuple(sorted({image["id"] for image in truth["images"]}))
    categories = {category["id"]: category.get("name", str(category["id"])) for category in truth["categories"]}
    category_ids = tuple(sorted(categories))
    place = {image: i for i, image in enumerate(image_ids)}
    label = {category: i for i, category in enumerate(category_ids)}

    def by_image(entries: Sequence[Mapping[str, Any]], what: str, keys: tuple[str, ...]) -> list[dict[str, list]]:
        images: list[dict[str, list]] = [{"boxes": [], "labels": [], **{key: [] for key in keys}} for _ in image_ids]
        for number, entry in enumerate(entries):
            where = f"coco_arrays: {what} {number}"
            for key, table, kind in (("image_id", place, "image"), ("category_id", label, "category")):
                if entry.get(key) not in table:
                    raise ValueError(f"{where} has {key} {entry.get(key)!r}, and the annotations list no such {kind}")
            box = entry.get("bbox", ())
            if np.shape(box) != (4,):
                raise ValueError(f"{where} has bbox {box!r}; it must be [x, y, width, height]")
            values = {
                "boxes": box,
                "labels": label[entry["category_id"]],
                "scores": entry.get("score"),
                "crowd": bool(entry.get("iscrowd", 0)),
                "area": entry.get("area", box[2] * box[3]),
            }
            if "scores" in keys and values["scores"] is None:
                raise ValueError(f"{where} has no score")
            for key, rows in images[place[entry["image_id"]]].items():
                rows.append(values[key])
        return images

    preds = detection_arrays(by_image(found, "result", ("scores",)), name="coco_arrays: results")
    target = detection_arrays(by_image(truth["annotations"], "annotation", ("crowd", "area")), name="coco_arrays")
    return CocoArrays(preds, target, tuple(categories[i] for i in category_ids), image_ids, category_ids)


def _read(source: Any, what: str) -> Any:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"coco_arrays: {what} {path} is no file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"coco_arrays: {what} {path} is not JSON: {error}") from error
