"""Random changes of an image and its boxes, for transforms: records with x, boxes and labels, as `read_voc` gives them.

    def transform(record, rng):
        record = random_flip_boxes(random_box_crop(random_expand(record, rng), rng), rng)
        return {**record, "x": photometric_distortion(record["x"], rng)}

x is [height, width, 3] and keeps its shape; boxes are [G, 4] corners in pixels, labels [G] with -1 for padding. The
columns difficult, crowd, ignore and area [G] follow their boxes, an area in proportion to what is left of its box; no
other column is changed. Each function draws from `rng` alone.

Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2 and 3.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.data.formats.source import missing_extra

Record = dict[str, Any]
_ATTEMPTS = 50
#: Least overlap of a crop with one of its boxes; None: any crop, 1: the whole image.
OVERLAPS = (1.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)


def random_flip_boxes(record: Mapping[str, Any], rng: np.random.Generator, *, probability: float = 0.5) -> Record:
    """The image with its boxes, with this probability mirrored left to right."""
    boxes, labels = _checked(record)
    if rng.random() >= probability:
        return dict(record)
    width = record["x"].shape[1]
    mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1).astype(boxes.dtype)
    return {**record, "x": record["x"][:, ::-1], "boxes": np.where((labels >= 0)[:, None], mirrored, boxes)}


def random_expand(
    record: Mapping[str, Any], rng: np.random.Generator, *, most: float = 4.0, probability: float = 0.5
) -> Record:
    """With this probability the image shrunk to a random place of a canvas of its mean colour: small objects.

    Args:
        most: the canvas is up to so many times as high and wide.
    """
    boxes, labels = _checked(record)
    drawn, factor, place = rng.random(), rng.uniform(1.0, most), rng.random(2)
    if drawn >= probability:
        return dict(record)
    image = record["x"]
    height, width = image.shape[:2]
    inner = max(1, round(height / factor)), max(1, round(width / factor))
    top, left = round(place[0] * (height - inner[0])), round(place[1] * (width - inner[1]))
    mean = image.mean((0, 1))
    canvas = np.empty_like(image)
    canvas[:] = np.rint(mean) if image.dtype == np.uint8 else mean
    canvas[top : top + inner[0], left : left + inner[1]] = _resized(image, inner)
    scale = np.array([inner[1] / width, inner[0] / height] * 2, boxes.dtype)
    moved = boxes * scale + np.array([left, top, left, top], boxes.dtype)
    changed = {**record, "x": canvas, "boxes": np.where((labels >= 0)[:, None], moved, boxes)}
    return _with_areas(changed, labels >= 0, scale[0] * scale[1])


def random_box_crop(
    record: Mapping[str, Any], rng: np.random.Generator, *, overlaps: Sequence[float | None] = OVERLAPS
) -> Record:
    """A window of the image, resized to the image's shape, that overlaps one of the boxes enough.

    One of `overlaps` is drawn: 1 keeps the image; a number asks for a window that overlaps at least one box by this
    IoU; None takes any. Windows have sides of 0.3 to 1 of the image's and a ratio of the two of 0.5 to 2. Boxes whose
    centre lies in the window stay, cut at its edge; the others become padding. After 50 windows that do not fit
    another of `overlaps` is drawn. A record without boxes is cropped, too.
    """
    boxes, labels = _checked(record)
    height, width = record["x"].shape[:2]
    real = labels >= 0
    for _ in range(len(overlaps)):
        least = overlaps[int(rng.integers(len(overlaps)))]
        if least == 1.0:
            return dict(record)
        for _ in range(_ATTEMPTS):
            high, wide = rng.uniform(0.3, 1.0, 2)
            if not 0.5 <= (wide * width) / (high * height) <= 2.0:
                continue
            top, left = rng.uniform(0, 1 - high) * height, rng.uniform(0, 1 - wide) * width
            window = np.rint([left, top, left + wide * width, top + high * height])
            stays = real & _centred(boxes, window)
            if real.any() and not (stays.any() and (least is None or _overlap(boxes[real], window).max() >= least)):
                continue
            return _cropped(record, window.astype(np.int64), stays)
    return dict(record)


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours as another camera and light would show them: [height, width, 3], uint8 or float from 0 to 1.

    Each with probability a half: brightness by up to 32 / 255, contrast by 0.5 to 1.5, saturation by 0.5 to 1.5, hue
    by up to 18 degrees; contrast comes before or after the other two. Clipped to the range of the dtype.
    """
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"photometric_distortion takes a colour image [height, width, 3], not {list(image.shape)}")
    top = np.float32(255 if image.dtype == np.uint8 else 1)
    out = image.astype(np.float32) / top
    chances, early = rng.random(4) < 0.5, rng.random() < 0.5
    brightness, contrast, saturation = rng.uniform(-32 / 255, 32 / 255), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)
    hue = np.deg2rad(rng.uniform(-18, 18))
    if chances[0]:
        out = out + np.float32(brightness)
    if chances[1] and early:
        out = out * np.float32(contrast)
    if chances[2] or chances[3]:
        length, angle = saturation if chances[2] else 1.0, hue if chances[3] else 0.0
        cos, sin = length * np.cos(angle), length * np.sin(angle)
        change = _FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
        out = out @ change.T.astype(np.float32)
    if chances[1] and not early:
        out = out * np.float32(contrast)
    out = np.clip(out, 0, 1) * top
    return (np.rint(out) if image.dtype == np.uint8 else out).astype(image.dtype)


# The colour space of NTSC: luma, and two axes of colour whose angle is the hue and whose length the saturation.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def _cropped(record: Mapping[str, Any], window: np.ndarray, stays: np.ndarray) -> Record:
    """The window in the image's shape; boxes that stay come first, the rest is padding."""
    left, top, right, bottom = window
    image, boxes = record["x"], record["boxes"]
    scale = np.array([image.shape[1] / (right - left), image.shape[0] / (bottom - top)] * 2, boxes.dtype)
    cut = np.clip(boxes, window[[0, 1, 0, 1]], window[[2, 3, 2, 3]]) - window[[0, 1, 0, 1]]
    order = np.argsort(~stays, kind="stable")
    there = stays[order]
    changed = {
        "x": _resized(image[top:bottom, left:right], image.shape[:2]),
        "boxes": np.where(there[:, None], (cut * scale)[order], 0).astype(boxes.dtype),
        "labels": np.where(there, record["labels"][order], -1).astype(record["labels"].dtype),
    }
    for name, value in record.items():
        if name in ("difficult", "crowd", "ignore", "area"):
            changed[name] = np.where(there, value[order], 0).astype(value.dtype)
    left_over = _sizes(cut)[order] / np.maximum(_sizes(boxes)[order], np.finfo(np.float32).tiny)
    return _with_areas({**record, **changed}, there, left_over * scale[0] * scale[1])


def _sizes(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _with_areas(record: Record, real: np.ndarray, factor: np.ndarray) -> Record:
    """The record with its areas, where it has any, times the factor."""
    if "area" not in record:
        return record
    area = record["area"]
    return {**record, "area": np.where(real, area * factor, area).astype(area.dtype)}


def _centred(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > window[:2]) & (centres < window[2:])).all(1)


def _overlap(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """IoU of each box with the window."""
    inner = np.clip(np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2]), 0, None).prod(1)
    return inner / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (window[2:] - window[:2]).prod() - inner)


def _resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear, [*shape, 3], in the image's dtype."""
    try:
        import PIL.Image
    except ImportError as error:
        raise missing_extra("resizing images", "pillow") from error
    size, how = (shape[1], shape[0]), PIL.Image.Resampling.BILINEAR
    if image.dtype == np.uint8:
        return np.asarray(PIL.Image.fromarray(image).resize(size, how))
    planes = [PIL.Image.fromarray(image[..., c].astype(np.float32)).resize(size, how) for c in range(image.shape[-1])]
    return np.stack([np.asarray(plane) for plane in planes], -1).astype(image.dtype)


def _checked(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """boxes and labels.

    Raises:
        ValueError: a record without them, or of other shapes.
    """
    for name in ("x", "boxes", "labels"):
        if name not in record:
            raise ValueError(f"a record with boxes has x, boxes and labels; this one has {', '.join(record)}")
    boxes, labels = record["boxes"], record["labels"]
    if boxes.ndim != 2 or boxes.shape != (len(labels), 4):
        raise ValueError(f"boxes are [G, 4] and labels [G], not {list(boxes.shape)} and {list(labels.shape)}")
    return boxes, labels
