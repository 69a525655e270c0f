"""Boxes: their three notations, how much two of them overlap (IoU, GIoU, DIoU, CIoU), and the mean of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, same_shape
from jaxdl.metrics.means import MeanOf

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
Overlap = Literal["iou", "giou", "diou", "ciou"]
FORMATS = get_args(BoxFormat)


def check_format(box_format: str, name: str) -> None:
    """Refuses a notation of boxes that is none of the three."""
    if box_format not in FORMATS:
        raise ValueError(
            f"{name}: box_format must be 'xyxy' (two corners), 'xywh' (corner and size) or 'cxcywh' (centre and "
            f"size); it is {box_format!r}"
        )


def convert_boxes(boxes: Any, source: BoxFormat, to: BoxFormat) -> jax.Array:
    """Boxes [..., 4] in another notation: "xyxy" two corners, "xywh" corner and size, "cxcywh" centre and size.

    x grows to the right and y downwards; the first corner is the upper left one. Floating numbers keep their dtype,
    others become float32; gradients pass.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import convert_boxes
    >>> convert_boxes(jnp.array([10.0, 20.0, 30.0, 40.0]), "xywh", "xyxy").tolist()
    [10.0, 20.0, 40.0, 60.0]
    """
    check_format(source, "convert_boxes")
    check_format(to, "convert_boxes")
    array = _boxes(boxes, "convert_boxes: boxes")
    if source == to:
        return array
    first, second = array[..., :2], array[..., 2:]
    half = jnp.asarray(0.5, array.dtype)
    if source == "xyxy":
        corner, size = first, second - first
    else:
        corner, size = (first, second) if source == "xywh" else (first - second * half, second)
    if to == "xyxy":
        parts = (corner, corner + size if source != "xyxy" else second)
    else:
        parts = (corner, size) if to == "xywh" else (corner + size * half, size)
    return jnp.concatenate(parts, axis=-1)


def box_iou(a: Any, b: Any, *, elementwise: bool = False, box_format: BoxFormat = "xyxy") -> jax.Array:
    """Intersection over union of boxes: [..., n, 4] and [..., m, 4] -> [..., n, m].

    IoU = |A and B| / |A or B|, in [0, 1]. With `elementwise`, a and b have one shape [..., 4] and the result is [...].
    NaN where both boxes are empty (0 / 0). Gradients pass; float32 unless both are of another floating dtype.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import box_iou
    >>> box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[0.0, 1.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])).tolist()
    [[0.5, 0.0]]
    """
    return _overlap("iou", a, b, elementwise, box_format)


def box_giou(a: Any, b: Any, *, elementwise: bool = False, box_format: BoxFormat = "xyxy") -> jax.Array:
    """Generalized IoU: IoU - |C without (A or B)| / |C|, with C the smallest box around both; in [-1, 1].

    Shapes as `box_iou`. NaN where C is empty. Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019.
    """
    return _overlap("giou", a, b, elementwise, box_format)


def box_diou(a: Any, b: Any, *, elementwise: bool = False, box_format: BoxFormat = "xyxy") -> jax.Array:
    """Distance IoU: IoU - d^2 / c^2, d between the centres, c the diagonal of the smallest box around both.

    Shapes as `box_iou`; in [-1, 1]. Zheng et al., "Distance-IoU Loss", AAAI 2020.
    """
    return _overlap("diou", a, b, elementwise, box_format)


def box_ciou(a: Any, b: Any, *, elementwise: bool = False, box_format: BoxFormat = "xyxy") -> jax.Array:
    """Complete IoU: DIoU - alpha * v, which compares shapes, too.

    v = 4 / pi^2 * (atan(w_b / h_b) - atan(w_a / h_a))^2, alpha = v / (1 - IoU + v), and 0 where v is 0; alpha carries
    no gradient, as its authors define. Shapes as `box_iou`. Zheng et al., "Distance-IoU Loss", AAAI 2020.
    """
    return _overlap("ciou", a, b, elementwise, box_format)


def _boxes(boxes: Any, what: str) -> jax.Array:
    array = jnp.asarray(boxes)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{what} must be real numbers; they are {array.dtype}")
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"{what} have shape {array.shape}; the last axis holds the 4 numbers of a box: [..., 4]")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)


def _overlap(kind: Overlap, a: Any, b: Any, elementwise: bool, box_format: BoxFormat) -> jax.Array:
    name = f"box_{kind}"
    check_format(box_format, name)
    first, second = _boxes(a, f"{name}: a"), _boxes(b, f"{name}: b")
    if first.dtype != second.dtype:
        first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    if elementwise:
        if first.shape != second.shape:
            raise ValueError(
                f"{name}: elementwise boxes have one shape; a has {first.shape} and b {second.shape}. "
                "All pairs of [n, 4] and [m, 4] come without elementwise"
            )
    else:
        if first.ndim < 2 or second.ndim < 2 or first.shape[:-2] != second.shape[:-2]:
            raise ValueError(
                f"{name}: boxes have shapes [..., n, 4] and [..., m, 4] with the same leading axes; a has "
                f"{first.shape} and b {second.shape}"
            )
        shape = (*first.shape[:-1], second.shape[-2], 4)
        first = jnp.broadcast_to(first[..., :, None, :], shape)
        second = jnp.broadcast_to(second[..., None, :, :], shape)
    return _values(kind, convert_boxes(first, box_format, "xyxy"), convert_boxes(second, box_format, "xyxy"))


def _values(kind: Overlap, a: jax.Array, b: jax.Array) -> jax.Array:
    """The overlap of boxes xyxy of one shape [..., 4]."""
    zero = jnp.zeros((), a.dtype)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    inner = jnp.maximum(jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), zero)
    shared = inner[..., 0] * inner[..., 1]
    union = size_a[..., 0] * size_a[..., 1] + size_b[..., 0] * size_b[..., 1] - shared
    iou = _ratio(shared, union)
    if kind == "iou":
        return iou
    around = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        hull = around[..., 0] * around[..., 1]
        return iou - _ratio(hull - union, hull)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) * jnp.asarray(0.5, a.dtype)
    diou = iou - _ratio(jnp.sum(apart * apart, axis=-1), jnp.sum(around * around, axis=-1))
    if kind == "diou":
        return diou
    turn = _shape_angle(size_b) - _shape_angle(size_a)
    shape = jnp.asarray(4 / np.pi**2, a.dtype) * turn * turn
    alpha = jnp.where(shape == 0, zero, _ratio(shape, jnp.ones((), a.dtype) - iou + shape))
    return diou - jax.lax.stop_gradient(alpha) * shape


def _shape_angle(size: jax.Array) -> jax.Array:
    """atan(width / height); 0 for a box that is a point, with a gradient that is a number."""
    width, height = size[..., 0], size[..., 1]
    point = (width == 0) & (height == 0)
    return jnp.arctan2(width, jnp.where(point, jnp.ones_like(height), height))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole; NaN where whole is 0, with a gradient of 0 there instead of NaN."""
    empty = whole == 0
    return jnp.where(empty, jnp.full_like(part, jnp.nan), part / jnp.where(empty, jnp.ones_like(whole), whole))


@dataclass(frozen=True)
class MeanBoxIoU(MeanOf):
    """The mean overlap of each predicted box with its own true box: localisation, where boxes come in pairs.

    preds and target: boxes [..., 4] of one shape, in `box_format`; weight and mask broadcast over [...]. kind: "iou",
    "giou", "diou" or "ciou", see `box_iou` and its sisters. NaN when nothing was counted, or when two boxes are empty.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_box_iou
    >>> float(mean_box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[0.0, 0.0, 2.0, 4.0]])))
    0.5
    """

    kind: Overlap = "iou"
    box_format: BoxFormat = "xyxy"
    name: str = "mean_box_iou"

    def __post_init__(self) -> None:
        check_format(self.box_format, self.name)
        if self.kind not in get_args(Overlap):
            raise ValueError(f"{self.name}: kind must be 'iou', 'giou', 'diou' or 'ciou'; it is {self.kind!r}")

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        predicted, true = as_float(preds, f"{self.name}: preds"), as_float(target, f"{self.name}: target")
        same_shape(predicted, true, self.name)
        return _overlap(self.kind, predicted, true, True, self.box_format), None


mean_box_iou = one_call(MeanBoxIoU, "mean_box_iou")
