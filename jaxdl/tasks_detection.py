"""The task of detection: boxes and classes by the multibox loss, predictions as the metrics of boxes take them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.task import Array, Batch, Context, Loss, Task, Variables
from jaxdl.models.boxes import detect, multibox_loss
from jaxdl.nn.networks import linen_network
from jaxdl.tasks_network import init_of, run_network

_OPTIONAL = ("crowd", "ignore", "difficult", "area")


def detection(
    model: Any, *, threshold: float = 0.5, negatives: float = 3.0, score: float = 0.01, overlap: float = 0.45,
    candidates: int = 400, detections: int = 200, capacity: int = 100_000,
) -> Task:  # fmt: skip
    """Which objects stand where: smooth L1 of matched boxes and cross-entropy with hard negatives.

    The loss is the sum over all images divided by the number of matched default boxes of the batch, however it is
    split: an image weighs as much as it has positives. A batch without any teaches nothing, and is no NaN. Padding of
    the true boxes changes nothing.

    Args:
        model: such as `ssd300_vgg16`: a linen module, images -> {"logits": [batch, boxes, classes], "offsets": [batch,
            boxes, 4]} with `model.default_boxes()`; class 0 is the background, so num_classes is one more than labels.
        threshold: IoU from which a default box is matched with a true one.
        negatives: hard negatives for each positive of an image.
        score: detections have a probability above this.
        overlap: IoU above which the worse of two detections of a class goes.
        candidates: at most so many detections of a class enter suppression.
        detections: at most so many of an image come out.
        capacity: of the VOC metric of evaluations: how many detections all images of one may have together; with more
            the metric is NaN. 28 bytes each.

    Batch:
        x: images [batch, height, width, channels]. boxes: [batch, G, 4] corners in pixels of x. labels: [batch, G]
        integers from 0; -1 is padding. Where given, "crowd", "ignore", "difficult" and "area" [batch, G] go to the
        metrics; boxes that are a crowd or to be ignored are not learnt.

    Returns:
        A Task; predictions are {"boxes": [batch, detections, 4] in pixels, "scores", "labels": [batch, detections]},
        best first, label -1 where there are no more: what `CocoMAP` and `VocMAP` take as preds.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016.
    """
    from jaxdl.metrics import VocMAP

    for name, value in (("threshold", threshold), ("score", score), ("overlap", overlap)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"detection: {name} is a share from 0 to 1, not {value}")
    if not callable(getattr(model, "default_boxes", None)):
        raise TypeError(
            f"detection takes a model with default_boxes(), such as ssd300_vgg16, not {type(model).__name__}"
        )
    network = linen_network(model)
    shares = np.asarray(model.default_boxes())

    def defaults_of(x: Array) -> Array:
        height, width = x.shape[1:3]
        return jnp.asarray(shares * np.array([width, height, width, height], np.float32))

    def found(outputs: Any, x: Array) -> dict[str, Array]:
        outputs, (height, width) = jax.lax.stop_gradient(outputs), x.shape[1:3]
        return detect(
            outputs["logits"], outputs["offsets"], defaults_of(x), limits=(height, width), score=score, overlap=overlap,
            candidates=candidates, detections=detections,
        )._asdict()  # fmt: skip

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        outputs, state = run_network(network, variables, batch["x"], context)
        target = {"boxes": batch["boxes"], "labels": _checked(batch["boxes"], batch["labels"])}
        target |= {name: batch[name] for name in _OPTIONAL if name in batch}
        labels = target["labels"]
        for name in ("crowd", "ignore"):
            if name in target:
                labels = jnp.where(target[name].astype(jnp.bool_), -1, labels)
        parts = multibox_loss(
            outputs["logits"], outputs["offsets"], defaults_of(batch["x"]), target["boxes"], labels,
            threshold=threshold, ratio=negatives,
        )  # fmt: skip
        value = (parts.boxes + parts.classes) / jnp.maximum(parts.positives, 1.0)
        seen = {"preds": found(outputs, batch["x"]), "target": target, "weight": jnp.ones_like(parts.positives)}
        return Loss(value, parts.positives, seen, state)

    def predict(variables: Variables, batch: Batch) -> dict[str, Array]:
        return found(run_network(network, variables, batch["x"], None)[0], batch["x"])

    metric = VocMAP(num_classes=model.num_classes - 1, capacity=capacity)
    return Task(init_of(network), loss, predict, metrics=(metric,), logical_axes=network.logical_axes)


def _checked(boxes: Array, labels: Array) -> Array:
    """labels as int32.

    Raises:
        TypeError: labels are no integers. ValueError: the shapes do not go together.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"detection: labels must hold integers from 0 (-1 is padding), not {labels.dtype}")
    if labels.ndim != 2 or boxes.shape != (*labels.shape, 4):
        raise ValueError(f"detection: boxes are [batch, G, 4] and labels [batch, G], not {boxes.shape}, {labels.shape}")
    return labels.astype(jnp.int32)
