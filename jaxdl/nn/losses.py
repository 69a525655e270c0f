"""Losses per example: float32 (float64 for float64 inputs) whatever the precision of the network.

Nothing is averaged here: a Task hands the numbers on with their weights, and the step divides by the weights' sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdl.nn.precision import widened

Array = jax.Array


def softmax_cross_entropy(logits: Array, labels: Array, *, label_smoothing: float | Array = 0.0) -> Array:
    """Minus the log-probability of the label under softmax(logits).

        (1 - s) * -log p[label] + s * mean over classes of -log p,    s = label_smoothing

    No gather, and so no scatter in the gradient: comparing with a counter fuses, and on CPU it is the quicker one.

    Args:
        logits: [..., classes].
        labels: [...] integers in [0, classes). A label outside gives NaN, since any number would be a wrong one.
        label_smoothing: in [0, 1); a Python number or a traced scalar.

    Returns:
        [...], at least float32.

    Raises:
        TypeError: labels are no integers.
        ValueError: the shapes disagree.

    Source: Szegedy et al., "Rethinking the Inception Architecture", 2016, for the smoothing.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"softmax_cross_entropy takes integer class numbers, not labels of dtype {labels.dtype}")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"softmax_cross_entropy: logits {logits.shape} go with labels {logits.shape[:-1]}, not {labels.shape}"
        )
    logits, classes = widened(logits), logits.shape[-1]
    at_label = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1) == labels[..., None]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.sum(jnp.where(at_label, logits, jnp.zeros((), logits.dtype)), axis=-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        smoothing = jnp.asarray(label_smoothing, dtype=logits.dtype)
        chosen = (1.0 - smoothing) * chosen + smoothing * jnp.mean(logits, axis=-1)
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known, normaliser - chosen, jnp.full((), jnp.nan, logits.dtype))


def sigmoid_cross_entropy(logits: Array, labels: Array) -> Array:
    """Minus the log-probability of a yes (1) or no (0) under sigmoid(logits).

        max(z, 0) - z * y + log(1 + exp(-|z|)),    exact for large |z|

    Args:
        logits: [...].
        labels: [...] integers, bools or floats in [0, 1].

    Returns:
        [...], at least float32.
    """
    _same_shape("sigmoid_cross_entropy", logits, labels)
    logits = widened(logits)
    return jax.nn.softplus(logits) - logits * labels.astype(logits.dtype)


def squared_error(predictions: Array, targets: Array) -> Array:
    """(prediction - target)^2, without a half. Both [...]; returns [...], at least float32."""
    difference = _difference("squared_error", predictions, targets)
    return difference * difference


def absolute_error(predictions: Array, targets: Array) -> Array:
    """|prediction - target|. Both [...]; returns [...], at least float32. The gradient at 0 is 0."""
    return jnp.abs(_difference("absolute_error", predictions, targets))


def huber(predictions: Array, targets: Array, *, delta: float | Array = 1.0) -> Array:
    """Half the squared error up to an error of delta, linear beyond it.

        e^2 / 2 where |e| <= delta, else delta * (|e| - delta / 2)

    Args:
        predictions: [...].
        targets: [...].
        delta: positive; a Python number or a traced scalar.

    Returns:
        [...], at least float32.

    Source: Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    size = jnp.abs(_difference("huber", predictions, targets))
    limit = jnp.asarray(delta, dtype=size.dtype)
    inner = jnp.minimum(size, limit)
    return inner * (size - 0.5 * inner)


def _difference(name: str, predictions: Array, targets: Array) -> Array:
    _same_shape(name, predictions, targets)
    predictions = widened(predictions)
    return predictions - targets.astype(predictions.dtype)


def _same_shape(name: str, predictions: Array, targets: Array) -> None:
    if predictions.shape != targets.shape:
        raise ValueError(f"{name}: predictions {predictions.shape} and targets {targets.shape} must have one shape")
