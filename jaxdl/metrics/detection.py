"""Mean average precision of detected boxes, as COCO and as VOC count it, on padded arrays in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.boxes import BoxFormat
from jaxdl.metrics.call import one_call
from jaxdl.metrics.detection_curves import Curves, curves
from jaxdl.metrics.detection_records import DetectionRecords
from jaxdl.metrics.detection_statistic import DetectionOutcomes
from jaxdl.metrics.metric import Derived

#: The limits between small, medium and large, in square pixels, and what counts as no limit; both ends belong to it.
COCO_AREAS = {"all": (0.0, 1e10), "small": (0.0, 1024.0), "medium": (1024.0, 9216.0), "large": (9216.0, 1e10)}
COCO_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
_POINTS = 101
_EPSILON = float(np.spacing(1))  # pycocotools adds it to what precision is divided by


@dataclass(frozen=True)
class CocoMAP(Derived):
    """Mean average precision and recall of detected boxes: the twelve numbers of COCO, equal to those of pycocotools.

    preds: {"boxes": [images, D, 4], "scores": [images, D], "labels": [images, D]}; target: {"boxes": [images, G, 4],
    "labels": [images, G]}, and where wanted "crowd" (a region of many objects: overlap is measured over the
    detection's area, it may be found many times), "ignore" ([images, G]: found or not, it does not count) and "area"
    ([images, G]; else the box's own). Padding has label -1, or is False in "valid". Boxes are float32 in `box_format`
    ("xyxy", "xywh" as in COCO's files, "cxcywh"). `detection_arrays` and `coco_arrays` make such arrays.

    In each image and class, detections, best score first and at most max_detections[-1] of them, each take the free
    true box of highest IoU that reaches the threshold. Per class, threshold and range of areas, AP is the mean over the
    recalls 0, 0.01 ... 1 of the highest precision at that recall or above; AR the recall of at most max_detections[m]
    detections of a class in an image. The values are means over thresholds and over the classes that have boxes to be
    found. Equal scores rank in order of arrival.

    compute gives float32 [] each: ap, ap_50 and ap_75 (where these are among the thresholds), ap_small (area up to
    32^2), ap_medium (to 96^2), ap_large, ar_1, ar_10, ar_100 (one for each of max_detections), ar_small, ar_medium,
    ar_large. NaN where no class has boxes to be found, where a score or box is NaN, and when more than `capacity`
    detections came (`overflowed`), which is the sum over images of those within the last of max_detections.

    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import coco_map
    >>> found = {"boxes": jnp.array([[[0.0, 0, 10, 10], [20.0, 20, 30, 30]]]), "scores": jnp.array([[0.9, 0.8]]),
    ...          "labels": jnp.array([[0, 0]])}
    >>> true = {"boxes": jnp.array([[[0.0, 0, 10, 8]]]), "labels": jnp.array([[0]])}
    >>> values = coco_map(found, true)
    >>> round(float(values["ap"]), 6), float(values["ap_75"]), round(float(values["ar_1"]), 6)
    (0.7, 1.0, 0.7)
    """

    num_classes: int
    capacity: int
    iou_thresholds: tuple[float, ...] = COCO_THRESHOLDS
    max_detections: tuple[int, ...] = (1, 10, 100)
    box_format: BoxFormat = "xyxy"
    name: str = "coco_map"

    def __post_init__(self) -> None:
        object.__setattr__(self, "iou_thresholds", tuple(float(t) for t in self.iou_thresholds))
        object.__setattr__(self, "max_detections", tuple(self.max_detections))
        if not self.max_detections:
            raise ValueError(f"{self.name}: max_detections must name at least one number of detections, such as (100,)")
        _ = self.statistic  # checks the fields

    @property
    def statistic(self) -> DetectionOutcomes:
        """The record of every detection."""
        return DetectionOutcomes(
            self.num_classes,
            self.capacity,
            self.iou_thresholds,
            areas=tuple(COCO_AREAS.values()),
            max_detections=self.max_detections,
            box_format=self.box_format,
            name=self.name,
        )

    def curves(self, state: DetectionRecords) -> Curves:
        """Precision [areas, thresholds, classes, 101] and recall [areas, thresholds, classes, max_detections].

        Areas are all, small, medium, large; NaN for classes without boxes to be found.
        """
        found = curves(
            state,
            classes=self.num_classes,
            thresholds=len(self.iou_thresholds),
            levels=len(self.max_detections),
            points=_POINTS,
            guard=_EPSILON,
        )
        return jax.tree.map(lambda x: _unless(self.statistic.undefined(state), x), found)

    def compute(self, state: DetectionRecords) -> dict[str, jax.Array]:
        """The means over classes, float32 [] each."""
        return {key: _mean(value) for key, value in self._parts(state).items()}

    def per_class(self, state: DetectionRecords) -> dict[str, jax.Array]:
        """The same for each class, float32 [classes]; NaN for classes without boxes to be found."""
        return {key: _mean(value, (0, 2)) for key, value in self._parts(state).items()}

    def _parts(self, state: DetectionRecords) -> dict[str, jax.Array]:
        """What each value is the mean of, [thresholds, classes, points]."""
        precision, recall = self.curves(state)
        names = list(COCO_AREAS)
        found = {"ap": precision[0]}
        for percent in (50, 75):
            near = [i for i, t in enumerate(self.iou_thresholds) if abs(t - percent / 100) < 1e-9]
            if near:
                found[f"ap_{percent}"] = precision[0, near[0] : near[0] + 1]
        found |= {f"ap_{names[i]}": precision[i] for i in (1, 2, 3)}
        found |= {f"ar_{count}": recall[0, ..., m : m + 1] for m, count in enumerate(self.max_detections)}
        return found | {f"ar_{names[i]}": recall[i, ..., -1:] for i in (1, 2, 3)}


@dataclass(frozen=True)
class VocMAP(Derived):
    """Mean average precision of detected boxes as the PASCAL VOC challenge counts it, at one IoU threshold.

    preds and target as for `CocoMAP`; "difficult" (or "ignore") marks true boxes that count neither when found nor when
    missed. Each detection, best score first, belongs to the true box of its class with the highest IoU: it is right
    where that reaches the threshold and the box was not found before, and wrong otherwise.

    interpolation: "area" (VOC 2010 and later), the area under the highest precision at each recall or above;
    "11point" (VOC 2007), the mean of that precision at the recalls 0, 0.1 ... 1. The value is the mean over the classes
    that have boxes to be found, float32 []. inclusive: corners are pixels that belong to the box, as in VOC's own code,
    so that sides are x2 - x1 + 1 long. Equal scores rank in order of arrival. NaN and `capacity` as for `CocoMAP`, but
    that all detections are kept.

    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import voc_map
    >>> found = {"boxes": jnp.array([[[20.0, 20, 30, 30], [0.0, 0, 10, 10]]]), "scores": jnp.array([[0.9, 0.8]]),
    ...          "labels": jnp.array([[0, 0]])}
    >>> true = {"boxes": jnp.array([[[0.0, 0, 10, 8]]]), "labels": jnp.array([[0]])}
    >>> float(voc_map(found, true))
    0.5
    """

    num_classes: int
    capacity: int
    iou_threshold: float = 0.5
    interpolation: Literal["area", "11point"] = "area"
    box_format: BoxFormat = "xyxy"
    inclusive: bool = False
    name: str = "voc_map"

    def __post_init__(self) -> None:
        if self.interpolation not in ("area", "11point"):
            raise ValueError(f"{self.name}: interpolation must be 'area' or '11point'; it is {self.interpolation!r}")
        if self.inclusive and self.box_format != "xyxy":
            raise ValueError(f"{self.name}: inclusive speaks of corners, and box_format is {self.box_format!r}")
        _ = self.statistic  # checks the fields

    @property
    def statistic(self) -> DetectionOutcomes:
        """The record of every detection."""
        return DetectionOutcomes(
            self.num_classes,
            self.capacity,
            (float(self.iou_threshold),),
            rule="voc",
            box_format=self.box_format,
            inclusive=self.inclusive,
            name=self.name,
        )

    def compute(self, state: DetectionRecords) -> jax.Array:
        """The mean over classes, float32 []."""
        return _mean(self.per_class(state)["ap"])

    def per_class(self, state: DetectionRecords) -> dict[str, jax.Array]:
        """ap and recall (of all detections) of each class, float32 [classes]; NaN without boxes to be found."""
        points = 11 if self.interpolation == "11point" else None
        found = curves(state, classes=self.num_classes, thresholds=1, levels=1, points=points, guard=0.0)
        undefined = self.statistic.undefined(state)
        ap, recall = (_mean(_unless(undefined, x[0, 0]), (1,)) for x in found)
        return {"ap": ap, "recall": recall}


def _unless(undefined: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.where(undefined, jnp.full_like(values, jnp.nan), values)


def _mean(values: jax.Array, axis: tuple[int, ...] | None = None) -> jax.Array:
    """The mean of what is not NaN, summed in float64; NaN where there is nothing. float32."""
    with jax.enable_x64(True):
        wide = values.astype(jnp.float64)
        there = ~jnp.isnan(wide)
        count = jnp.sum(there, axis=axis, dtype=jnp.int32)
        total = jnp.sum(jnp.where(there, wide, 0.0), axis=axis)
        mean = total / jnp.maximum(count, 1).astype(jnp.float64)
        return jnp.where(count > 0, mean, jnp.nan).astype(jnp.float32)


def _infer(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_classes and capacity from the data: one more than the largest label, and all places of preds."""
    fields: dict[str, int] = {}
    sides: list[Any] = [inputs.get(side) for side in ("preds", "target")]
    if not all(isinstance(side, Mapping) and "labels" in side for side in sides):
        return {"num_classes": 1, "capacity": 1}  # `update` says what is wrong with them
    labels = [side["labels"] for side in sides]
    if any(isinstance(x, jax.core.Tracer) for x in labels):
        raise ValueError("inside jit the number of classes and the capacity must be given: num_classes=, capacity=")
    arrays = [np.asarray(x) for x in labels]
    fields["num_classes"] = max([0, *(int(x.max()) for x in arrays if x.size)]) + 1
    fields["capacity"] = max(1, arrays[0].size)
    return fields


coco_map = one_call(CocoMAP, "coco_map", infer=_infer)
voc_map = one_call(VocMAP, "voc_map", infer=_infer)
