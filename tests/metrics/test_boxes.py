"""Overlaps of boxes from their papers, their gradients and the notations of boxes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from jaxdl.metrics.boxes import _values


def overlaps(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """IoU, GIoU, DIoU and CIoU of two boxes, from the papers' formulas in float64."""
    a, b = a.astype(float), b.astype(float)
    area = lambda x: (x[2] - x[0]) * (x[3] - x[1])  # noqa: E731
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = area(a) + area(b) - shared
    iou = shared / union
    hull = np.array([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    between = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diou = iou - between / ((hull[2] - hull[0]) ** 2 + (hull[3] - hull[1]) ** 2)
    angle = [np.arctan((x[2] - x[0]) / (x[3] - x[1])) for x in (a, b)]
    v = 4 / np.pi**2 * (angle[1] - angle[0]) ** 2
    alpha = v / (1 - iou + v) if v else 0.0
    return {"iou": iou, "giou": iou - (area(hull) - union) / area(hull), "diou": diou, "ciou": diou - alpha * v}


def test_overlaps_follow_their_papers() -> None:
    draw = np.random.default_rng(0)
    corner = draw.random((2, 12, 2)) * 3
    boxes = np.concatenate([corner, corner + 0.1 + 2 * draw.random((2, 12, 2))], axis=-1).astype(np.float32)
    a, b = boxes[0], boxes[1]
    b[0] = a[0]  # equal boxes
    sized = [metrics.convert_boxes(x, "xyxy", "cxcywh") for x in (a, b)]

    @partial(jax.jit, static_argnums=0)
    def found(kind: str) -> Any:
        function = getattr(metrics, f"box_{kind}")
        return (
            function(a, b),
            function(a, b, elementwise=True),
            function(*sized, box_format="cxcywh"),
            metrics.mean_box_iou(a, b, kind=kind, weight=np.arange(12)),
            jax.grad(lambda x: jnp.sum(_values(kind, x, jnp.asarray(b))))(jnp.asarray(a)),
        )

    for kind in ("iou", "giou", "diou", "ciou"):
        want = np.array([[overlaps(x, y)[kind] for y in b] for x in a])
        table, pairs, of_sizes, mean, slopes = found(kind)
        np.testing.assert_allclose(table, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pairs, np.diag(want), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(of_sizes, want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mean, np.average(np.diag(want), weights=np.arange(12)), rtol=1e-5)
        assert bool(jnp.all(jnp.isfinite(slopes)))
    assert metrics.box_iou(np.stack([a, b]), np.stack([b, a])[:, :3]).shape == (2, 12, 3)
    assert np.isnan(metrics.box_iou(np.zeros((1, 4)), np.zeros((1, 4)))).all()


def test_alpha_of_ciou_carries_no_gradient() -> None:
    a, b = jnp.array([[0.0, 0.0, 2.0, 1.0]]), jnp.array([[0.0, 0.0, 1.0, 2.0]])
    v = lambda x: 4 / np.pi**2 * (jnp.arctan(jnp.float32(0.5)) - jnp.arctan2(x[0, 2] - x[0, 0], x[0, 3] - x[0, 1])) ** 2  # noqa: E731
    iou = 1 / 3
    alpha = float(v(a)) / (1 - iou + float(v(a)))
    total = jax.jit(jax.grad(lambda x: metrics.box_ciou(x, b, elementwise=True)[0]))(a)
    apart = jax.jit(jax.grad(lambda x: metrics.box_diou(x, b, elementwise=True)[0] - alpha * v(x)))(a)
    np.testing.assert_allclose(total, apart, rtol=1e-5, atol=1e-6)


def test_notations_of_boxes_turn_into_each_other() -> None:
    box = np.array([10, 20, 40, 60], np.int32)
    kinds = {"xyxy": [10, 20, 40, 60], "xywh": [10, 20, 30, 40], "cxcywh": [25, 40, 30, 40]}
    for source, values in kinds.items():
        for to, want in kinds.items():
            assert metrics.convert_boxes(np.array(values), source, to).tolist() == want  # type: ignore[arg-type]
    assert metrics.convert_boxes(box, "xyxy", "xywh").dtype == jnp.float32
    assert metrics.convert_boxes(jnp.zeros(4, jnp.bfloat16), "xyxy", "xywh").dtype == jnp.bfloat16


def test_ciou_of_a_point_has_a_gradient() -> None:
    point, true = jnp.array([[0.5, 0.5, 0.5, 0.5]]), jnp.array([[0.0, 0.0, 1.0, 1.0]])
    slope = jax.jit(jax.grad(lambda box: jnp.sum(metrics.box_ciou(box, true))))(point)
    assert bool(jnp.all(jnp.isfinite(slope)))
