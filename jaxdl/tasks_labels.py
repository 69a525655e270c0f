"""What tasks with class labels share: cross-entropy with auxiliary heads, labels that do not count, class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.core.task import Array, Context, Loss, PyTree
from jaxdl.nn.precision import widened


def masked_loss(
    outputs: PyTree,
    labels: Array,
    counted: Array | None,
    smoothing: float | Array,
    state: PyTree,
    aux_weight: float = 0.0,
) -> Loss:
    """Cross-entropy where `counted` (None: everywhere), weight 0 and a harmless label elsewhere."""
    safe = labels if counted is None else jnp.where(counted, labels, jnp.zeros_like(labels))
    logits, value = cross_entropy(outputs, safe, smoothing, aux_weight)
    weight = None if counted is None else counted.astype(jnp.float32)
    return Loss(value, weight, {"preds": widened(logits), "target": safe}, state)


def cross_entropy(outputs: PyTree, labels: Array, smoothing: float | Array, aux_weight: float) -> tuple[Array, Array]:
    """The logits, and softmax cross-entropy per label; each auxiliary head's, times its weight, is added.

    outputs: logits, or {"logits", "aux1", ...}, which models with auxiliary heads return in training.
    """
    heads = dict(outputs) if isinstance(outputs, Mapping) else {"logits": outputs}
    if "logits" not in heads or not all(name == "logits" or name.startswith("aux") for name in heads):
        raise ValueError(f"a model that returns a mapping returns 'logits', 'aux1', ..., not {', '.join(heads)}")
    logits = heads.pop("logits")
    check_classes(logits, labels.shape)
    value = nn.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    for aux in heads.values():
        check_classes(aux, labels.shape)
        value = value + aux_weight * nn.softmax_cross_entropy(aux, labels, label_smoothing=smoothing)
    return logits, value


def smoothing_of(context: Context, static: float) -> float | Array:
    """The label smoothing of this step: in training `hyper`'s or the task's own, in evaluation none."""
    return context.hyper.get("label_smoothing", static) if context.train else 0.0


def class_numbers(labels: Array, task: str, column: str = "y") -> Array:
    """labels as int32; a TypeError that names the column where they are no integers."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{task}: {column} must hold integers (class or token numbers), not {labels.dtype}")
    return labels.astype(jnp.int32)


def check_classes(logits: Array, shape: tuple[int, ...]) -> None:
    """Refuse logits that are not [*shape of the labels, two classes or more]."""
    if logits.shape[:-1] != shape or logits.shape[-1] < 2:
        raise ValueError(
            f"the model's logits are {logits.shape}, but labels {shape} need {(*shape, 'classes')} with two or more "
            "classes: check num_classes and the model's output shape"
        )


def check_fraction(name: str, value: float) -> None:
    """Refuse what is no share below 1."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} lies in [0, 1), not {value}")


def check_factor(name: str, value: float) -> None:
    """Refuse what is not finite or below 0."""
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a finite number from 0 on, not {value}")


def class_weights_of(weights: Sequence[float] | Mapping[int, float], classes: int) -> Array:
    """[classes] float32: 1 for a class that a mapping does not name; a weight for a class that is none is refused."""
    table = np.ones(classes, np.float32)
    pairs = list(weights.items() if isinstance(weights, Mapping) else enumerate(weights))
    if not isinstance(weights, Mapping) and len(pairs) != classes:
        raise ValueError(f"class_weight has {len(pairs)} numbers for the {classes} classes of the model")
    for label, weight in pairs:
        if not (isinstance(label, (int, np.integer)) and 0 <= label < classes):
            raise ValueError(f"class_weight names class {label!r}; the model's classes are 0 to {classes - 1}")
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"class_weight of class {label} is {weight}; a weight is finite and not negative")
        table[label] = weight
    return jnp.asarray(table)
