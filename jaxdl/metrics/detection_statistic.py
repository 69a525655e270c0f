"""The statistic of the detection metrics: batches of padded boxes in, one record for each detection out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import detection_records as records
from jaxdl.metrics import sums
from jaxdl.metrics.boxes import BoxFormat, check_format
from jaxdl.metrics.detection_match import Found, Truths, beyond, match, outside_of
from jaxdl.metrics.inputs import as_array, as_float, as_ids, as_weight
from jaxdl.metrics.metric import Reduce

EVERYWHERE = (-float("inf"), float("inf"))
_PREDS = ("boxes", "scores", "labels", "valid")
_TARGET = ("boxes", "labels", "valid", "crowd", "ignore", "difficult", "area")


@dataclass(frozen=True)
class DetectionOutcomes:
    """Whether each detection is right, wrong or ignored, at each IoU threshold and for each range of areas.

    preds: {"boxes": [images, D, 4], "scores": [images, D], "labels": [images, D]}; target: {"boxes": [images, G, 4],
    "labels": [images, G]} and, where wanted, "crowd", "ignore" or "difficult" (bool or 0/1 [images, G]) and "area"
    (float [images, G]; the box's own where it is not given). Padding has label -1, or is False in "valid". Labels are
    ids from 0 to num_classes - 1; others are left out and counted in `invalid`.

    weight and mask: [images]. State: `DetectionRecords` of `capacity` detections.
    """

    num_classes: int
    capacity: int
    iou_thresholds: tuple[float, ...]
    areas: tuple[tuple[float, float], ...] = (EVERYWHERE,)
    max_detections: tuple[int, ...] = ()
    rule: Literal["coco", "voc"] = "coco"
    box_format: BoxFormat = "xyxy"
    inclusive: bool = False
    name: str = field(default="detection", compare=False)
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        check_format(self.box_format, self.name)
        for what, value, low, high in (
            ("num_classes", self.num_classes, 1, 2**16),
            ("capacity", self.capacity, 1, 2**30 - 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
                raise ValueError(f"{self.name}: {what} must be an integer from {low} to {high}; it is {value!r}")
        if not 1 <= len(self.iou_thresholds) <= records.HALF or not all(0 < t <= 1 for t in self.iou_thresholds):
            raise ValueError(
                f"{self.name}: IoU thresholds must be 1 to {records.HALF} numbers above 0 and at most 1; they are "
                f"{self.iou_thresholds}"
            )
        counts = self.max_detections
        if any(not isinstance(m, int | np.integer) or m < 1 for m in counts) or sorted(set(counts)) != list(counts):
            raise ValueError(f"{self.name}: max_detections must be rising integers above 0; they are {counts}")

    @property
    def levels(self) -> int:
        """How many limits on the number of detections are told apart."""
        return max(1, len(self.max_detections))

    def init(self, batch_shape: tuple[int, ...] = ()) -> records.DetectionRecords:
        """The empty state."""
        return records.empty(batch_shape, self.capacity, len(self.areas), self.num_classes)

    def update(
        self,
        state: records.DetectionRecords,
        *,
        preds: Mapping[str, Any],
        target: Mapping[str, Any],
        weight: Any = None,
        mask: Any = None,
    ) -> records.DetectionRecords:
        """Adds a batch of images."""
        preds, target = self._boxes(preds, "preds", _PREDS), self._boxes(target, "target", _TARGET)
        images = preds["labels"].shape[0]
        if target["labels"].shape[0] != images:
            raise ValueError(
                f"{self.name}: preds hold {images} images and target {target['labels'].shape[0]}; an image without "
                "true boxes has labels of -1 only"
            )
        given = as_weight((images,), weight, mask, self.name)
        weights = jnp.ones((images,), jnp.float32) if given is None else given
        if images == 0:
            return state
        seen = (weights != 0)[:, None]
        label, true_label = (jnp.where(seen, x["labels"], jnp.full_like(x["labels"], -1)) for x in (preds, target))
        found = Found(preds["scores"], preds["boxes"], self._valid(label))
        crowd = self._flag(target, "crowd")
        ignored = crowd | self._flag(target, "ignore") | self._flag(target, "difficult")
        outside = self._outside(target)
        truths = Truths(target["boxes"], self._valid(true_label), crowd, ignored[..., None] | outside)
        result = match(
            found,
            truths,
            thresholds=self.iou_thresholds,
            areas=self.areas,
            limit=self.max_detections[-1] if self.max_detections else None,
            rule=self.rule,
            box_format=self.box_format,
            inclusive=self.inclusive,
        )
        level = sum(((result.rank >= m).astype(jnp.int32) for m in self.max_detections), jnp.zeros_like(result.rank))
        keep = (result.label >= 0) & ((level < self.levels) if self.max_detections else True)
        entries = records.Entries(
            key=result.key,
            place=result.label * self.levels + level,
            outcome=jnp.moveaxis(result.outcome, -1, 0),
            weight=jnp.broadcast_to(weights[None], result.key.shape),
        )
        # by image, as they came: scores that are equal in two images are ranked in order of the images
        flat = jax.tree.map(lambda x: jnp.swapaxes(x, -1, -2).reshape(*x.shape[:-2], -1), entries)
        broken = ~(jnp.isfinite(weights) & (weights >= 0))
        for boxes, labels in ((found.boxes, found.labels), (truths.boxes, truths.labels)):
            broken |= jnp.any((labels >= 0) & jnp.any(jnp.isnan(boxes), axis=-1), axis=1)
        broken |= jnp.any((found.labels >= 0) & jnp.isnan(found.scores), axis=1)
        state = records.append(state, flat, keep.T.reshape(-1))
        return state._replace(
            undefined=state.undefined | jnp.any(broken & (weights != 0)),
            truths=sums.add(state.truths, self._count(label, true_label, truths, weights)),
        )

    def merge(self, a: records.DetectionRecords, b: records.DetectionRecords) -> records.DetectionRecords:
        """Both in one, b's images behind a's."""
        return records.merge(a, b)

    def overflowed(self, state: records.DetectionRecords) -> jax.Array:
        """Whether more detections came than `capacity`, bool []."""
        return state.length > self.capacity

    def undefined(self, state: records.DetectionRecords) -> jax.Array:
        """Whether the values are NaN for the data's sake: overflow, or a NaN score or box, or a bad weight; bool []."""
        return self.overflowed(state) | state.undefined

    def invalid(self, state: records.DetectionRecords) -> jax.Array:
        """The weight of detections and true boxes left out because their label is no class, float32 []."""
        return sums.value(sums.pick(state.truths, -1))

    def _boxes(self, given: Any, side: str, known: tuple[str, ...]) -> dict[str, jax.Array]:
        """The arrays of preds or target, checked; labels with -1 where "valid" is False."""
        what = f"{self.name}: {side}"
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{what} must be a dictionary of padded arrays with boxes, labels"
                f"{' and scores' if side == 'preds' else ''}; it is a {type(given).__name__}. "
                "detection_arrays makes them from lists of images"
            )
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                raise ValueError(f"{what} has no {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"{known}"))
        for key in known[: 3 if side == "preds" else 2]:
            if key not in given:
                raise ValueError(f"{what} needs {key!r}; it has {sorted(given)}")
        boxes = as_float(given["boxes"], f"{what}['boxes']")
        if boxes.ndim != 3 or boxes.shape[-1] != 4:
            raise ValueError(f"{what}['boxes'] have shape {boxes.shape}; they must be [images, boxes, 4], padded")
        labels = as_ids(given["labels"], f"{what}['labels']")
        arrays = {"boxes": boxes, "labels": labels}
        for key in known:
            if key not in arrays and given.get(key) is not None:
                array = as_array(given[key], f"{what}[{key!r}]")
                if key in ("scores", "area"):
                    array = as_float(array, f"{what}[{key!r}]")
                elif jnp.issubdtype(array.dtype, jnp.inexact):
                    raise TypeError(f"{what}[{key!r}] must be booleans or 0 and 1; it is {array.dtype}")
                arrays[key] = array
        for key, array in arrays.items():
            if key != "boxes" and array.shape != boxes.shape[:2]:
                raise ValueError(
                    f"{what}[{key!r}] has shape {array.shape}; boxes of shape {boxes.shape} need {boxes.shape[:2]}"
                )
        if boxes.shape[1] == 0:  # so that every image has a place to point at
            arrays = {
                key: jnp.pad(
                    x, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2), constant_values=-1 if key == "labels" else 0
                )
                for key, x in arrays.items()
            }
        if "valid" in arrays:
            valid = arrays.pop("valid").astype(jnp.bool_)
            arrays["labels"] = jnp.where(valid, arrays["labels"], jnp.full_like(arrays["labels"], -1))
        return arrays

    def _valid(self, labels: jax.Array) -> jax.Array:
        """Labels, -1 where they are no class."""
        return jnp.where((labels >= 0) & (labels < self.num_classes), labels, jnp.full_like(labels, -1))

    def _flag(self, target: dict[str, jax.Array], key: str) -> jax.Array:
        given = target.get(key)
        return jnp.zeros(target["labels"].shape, jnp.bool_) if given is None else given.astype(jnp.bool_)

    def _outside(self, target: dict[str, jax.Array]) -> jax.Array:
        """Whether each true box is outside of each range of areas, bool [images, G, areas]."""
        if "area" in target:
            return beyond(target["area"], self.areas)
        return outside_of(target["boxes"], self.areas, self.box_format, self.inclusive)

    def _count(self, label: jax.Array, true_label: jax.Array, truths: Truths, weights: jax.Array) -> sums.Sums:
        """The weight of the boxes to be found in each class and area, and of the labels that are no class."""
        areas, size = len(self.areas), self.num_classes * len(self.areas) + 1
        cell = truths.labels[..., None] * areas + jnp.arange(areas, dtype=jnp.int32)[None, None]
        wanted = (truths.labels >= 0)[..., None] & ~truths.ignored
        parts = [(jnp.where(wanted, cell, jnp.full_like(cell, size - 1)), wanted)]
        for labels in (label, true_label):
            wrong = (labels < -1) | (labels >= self.num_classes)
            parts.append((jnp.full_like(labels, size - 1), wrong))
        cells = jnp.concatenate([cells.reshape(-1) for cells, _ in parts])
        counted = [
            jnp.where(keep, weights.reshape(-1, *[1] * (keep.ndim - 1)), jnp.float32(0)).reshape(-1)
            for _, keep in parts
        ]
        return sums.sum_by_cell(cells, jnp.concatenate(counted), size)
