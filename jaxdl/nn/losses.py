"""Losses per example: float32 (float64 for float64 inputs) whatever the precision of the network.

Nothing is averaged here: a Task hands the numbers on with their weights, and the step divides by the weights' sum.
Every loss takes `weight`, which broadcasts from the left over the values and multiplies them; where it is 0 the value
is 0, whatever stands there, NaN included.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.nn.largest import largest
from jaxdl.nn.precision import widened

Array = jax.Array


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float | Array = 0.0, weight: Array | None = None
) -> Array:
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
    logits, labels, classes = widened(logits), _counting(labels), logits.shape[-1]
    at_label = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1) == labels[..., None]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.sum(jnp.where(at_label, logits, jnp.zeros((), logits.dtype)), axis=-1)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        smoothing = jnp.asarray(label_smoothing, dtype=logits.dtype)
        chosen = (1.0 - smoothing) * chosen + smoothing * jnp.mean(logits, axis=-1)
    known = (labels >= 0) & (labels < classes)
    return weighted(jnp.where(known, normaliser - chosen, jnp.full((), jnp.nan, logits.dtype)), weight)


def sigmoid_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float | Array = 0.0, weight: Array | None = None
) -> Array:
    """Minus the log-probability of a yes (1) or no (0) under sigmoid(logits).

        max(z, 0) - z * y + log(1 + exp(-|z|)),    exact for large |z|

    Args:
        logits: [...].
        labels: [...] integers, bools or floats in [0, 1].
        label_smoothing: s in [0, 1): the target is (1 - s) * y + s / 2.

    Returns:
        [...], at least float32.
    """
    _same_shape("sigmoid_cross_entropy", logits, labels)
    logits = widened(logits)
    return weighted(jax.nn.softplus(logits) - logits * _smoothed(labels.astype(logits.dtype), label_smoothing), weight)


def focal_cross_entropy(
    logits: Array, labels: Array, *, gamma: float | Array = 2.0, alpha: float | None = None, weight: Array | None = None
) -> Array:
    """Cross-entropy in which examples that are already right count little.

        -alpha_t * (1 - p_t)^gamma * log p_t,    p_t the probability of what is true

    Args:
        logits: [...] with labels [...] of 0 and 1 (sigmoid), or [..., classes] with class numbers [...] (softmax).
        labels: [...] integers.
        gamma: at least 0; 0 is the plain cross-entropy.
        alpha: of the sigmoid form: the weight of label 1, whose label 0 has 1 - alpha. None weighs both with 1.

    Returns:
        [...], at least float32.

    Raises:
        TypeError: labels are no integers.
        ValueError: the shapes disagree, or alpha is given with classes.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"focal_cross_entropy takes integer labels, not labels of dtype {labels.dtype}")
    if logits.shape == labels.shape:
        plain = sigmoid_cross_entropy(logits, labels)
        if alpha is not None:
            share = jnp.where(labels == 1, jnp.asarray(alpha, plain.dtype), jnp.asarray(1.0 - alpha, plain.dtype))
            return weighted(share * _focal(plain, gamma), weight)
    else:
        if alpha is not None:
            raise ValueError("focal_cross_entropy: alpha is of the two-class form; weigh classes with weight=")
        plain = softmax_cross_entropy(logits, labels)
    return weighted(_focal(plain, gamma), weight)


def _focal(plain: Array, gamma: float | Array) -> Array:
    """plain * (1 - exp(-plain))^gamma; -expm1 keeps the factor right where p_t is nearly 1, and its gradient finite."""
    miss = jnp.maximum(-jnp.expm1(-plain), jnp.finfo(plain.dtype).tiny)
    return plain * miss ** jnp.asarray(gamma, plain.dtype)


def hinge(scores: Array, labels: Array, *, margin: float = 1.0, weight: Array | None = None) -> Array:
    """How far a score falls short of its margin.

    Two classes, scores [...] and labels [...] of 0 and 1: max(0, margin - (2 y - 1) * score).
    More classes, scores [..., classes] and class numbers [...]: max(0, margin + best other score - score of the label)
    (Crammer and Singer, 2001).

    Raises:
        TypeError: labels are no integers or booleans.
        ValueError: the shapes disagree.
    """
    if not (jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype == jnp.bool_):
        raise TypeError(f"hinge takes labels 0 and 1 or class numbers, not labels of dtype {labels.dtype}")
    scores = widened(scores)
    if scores.shape == labels.shape:
        sign = jnp.where(labels.astype(jnp.bool_), 1.0, -1.0).astype(scores.dtype)
        return weighted(jax.nn.relu(margin - sign * scores), weight)
    if labels.shape != scores.shape[:-1]:
        raise ValueError(
            f"hinge: scores {scores.shape} go with labels {scores.shape} or {scores.shape[:-1]}, not {labels.shape}"
        )
    labels = _counting(labels)
    at_label = jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1) == labels[..., None]
    own = jnp.sum(jnp.where(at_label, scores, jnp.zeros((), scores.dtype)), axis=-1)
    other = largest(jnp.where(at_label, jnp.full((), -jnp.inf, scores.dtype), scores), -1)
    return weighted(jax.nn.relu(margin + other - own), weight)


def squared_error(predictions: Array, targets: Array, *, weight: Array | None = None) -> Array:
    """(prediction - target)^2, without a half. Both [...]; returns [...], at least float32."""
    difference = _difference("squared_error", predictions, targets)
    return weighted(difference * difference, weight)


def absolute_error(predictions: Array, targets: Array, *, weight: Array | None = None) -> Array:
    """|prediction - target|. Both [...]; returns [...], at least float32. The gradient at 0 is 0."""
    return weighted(jnp.abs(_difference("absolute_error", predictions, targets)), weight)


def huber(predictions: Array, targets: Array, *, delta: float | Array = 1.0, weight: Array | None = None) -> Array:
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
    return weighted(inner * (size - 0.5 * inner), weight)


def epsilon_insensitive(
    predictions: Array, targets: Array, *, epsilon: float | Array = 0.1, weight: Array | None = None
) -> Array:
    """max(0, |prediction - target| - epsilon): errors within the tube cost nothing. Both [...]; returns [...].

    Source: Drucker et al., "Support Vector Regression Machines", 1997.
    """
    size = jnp.abs(_difference("epsilon_insensitive", predictions, targets))
    return weighted(jax.nn.relu(size - jnp.asarray(epsilon, size.dtype)), weight)


def quantile_loss(
    predictions: Array, targets: Array, *, quantile: float | Array = 0.5, weight: Array | None = None
) -> Array:
    """The pinball loss, whose least mean is at the quantile: with e = target - prediction, max(q e, (q - 1) e).

    Args:
        predictions: [...]; or [..., quantiles] with targets [...] and `quantile` [quantiles], all learned at once.
        targets: [...].
        quantile: in (0, 1); a number, or [quantiles].

    Returns:
        The shape of the predictions, at least float32.

    Source: Koenker and Bassett, "Regression Quantiles", 1978.
    """
    levels = jnp.asarray(quantile, widened(predictions).dtype)
    if levels.ndim:
        if predictions.shape != (*targets.shape, *levels.shape):
            raise ValueError(
                f"quantile_loss: predictions {predictions.shape} of {levels.size} quantiles go with targets "
                f"{predictions.shape[:-1]}, not {targets.shape}"
            )
        targets = jnp.broadcast_to(targets[..., None], predictions.shape)
        levels = jnp.broadcast_to(levels, predictions.shape)
    error = -_difference("quantile_loss", predictions, targets)
    return weighted(jnp.maximum(levels * error, (levels - 1.0) * error), weight)


def poisson(log_rates: Array, counts: Array, *, full: bool = False, weight: Array | None = None) -> Array:
    """Minus the log-likelihood of counts under a Poisson rate, whose logarithm the network gives: exp(z) - y z.

    Args:
        log_rates: [...], the logarithm of the rate.
        counts: [...], at least 0.
        full: adds log(y!), which no parameter changes.
    """
    _same_shape("poisson", log_rates, counts)
    log_rates = widened(log_rates)
    counts = counts.astype(log_rates.dtype)
    value = jnp.exp(log_rates) - counts * log_rates
    return weighted(value + jax.lax.lgamma(counts + 1.0) if full else value, weight)


def kl_divergence(log_probabilities: Array, targets: Array, *, weight: Array | None = None) -> Array:
    """sum over classes of t (log t - log p), where 0 log 0 = 0.

    Args:
        log_probabilities: [..., classes], such as log_softmax(logits).
        targets: [..., classes], probabilities.

    Returns:
        [...], at least float32.
    """
    _same_shape("kl_divergence", log_probabilities, targets)
    log_p = widened(log_probabilities)
    targets = targets.astype(log_p.dtype)
    cross = targets * jnp.where(targets == 0, jnp.zeros_like(log_p), log_p)
    return weighted(jnp.sum(jax.scipy.special.xlogy(targets, targets) - cross, axis=-1), weight)


def triplet(
    anchors: Array, positives: Array, negatives: Array, *, margin: float = 1.0, squared: bool = False,
    weight: Array | None = None,
) -> Array:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), with d the Euclidean distance or its square.

    Args:
        anchors, positives, negatives: [..., features].

    Returns:
        [...], at least float32.

    Source: Schroff, Kalenichenko, Philbin, "FaceNet", 2015 (squared distances, margin 0.2).
    """
    near, far = _distance(anchors, positives, squared, "triplet"), _distance(anchors, negatives, squared, "triplet")
    return weighted(jax.nn.relu(near - far + margin), weight)


def contrastive(left: Array, right: Array, same: Array, *, margin: float = 1.0, weight: Array | None = None) -> Array:
    """Pulls pairs of one kind together and pushes others a margin apart: y d^2 / 2 + (1 - y) max(0, margin - d)^2 / 2.

    Args:
        left, right: [..., features].
        same: [...], 1 or True where the pair is of one kind.

    Returns:
        [...], at least float32.

    Source: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006.
    """
    distance = _distance(left, right, False, "contrastive")
    if same.shape != distance.shape:
        raise ValueError(f"contrastive: pairs {left.shape} go with `same` {distance.shape}, not {same.shape}")
    apart = jax.nn.relu(margin - distance)
    squared = jnp.where(same.astype(jnp.bool_), _distance(left, right, True, "contrastive"), apart * apart)
    return weighted(0.5 * squared, weight)


def ctc(
    logits: Array, labels: Array, *, logit_lengths: Array | None = None, label_lengths: Array | None = None,
    blank: int = 0, weight: Array | None = None,
) -> Array:  # fmt: skip
    """Minus the log-probability of a label sequence, summed over all its alignments with the frames.

    Args:
        logits: [batch, frames, classes].
        labels: [batch, labels] class numbers; what is beyond `label_lengths` is not read.
        logit_lengths, label_lengths: [batch] integers; all frames and all labels when None.
        blank: the class that stands for "nothing new".

    Returns:
        [batch], at least float32. A label sequence that the frames cannot hold gives a very large number.

    Raises:
        ValueError: the shapes disagree.

    Source: Graves et al., "Connectionist Temporal Classification", 2006; computed by optax.
    """
    if logits.ndim != 3 or labels.ndim != 2 or logits.shape[0] != labels.shape[0]:
        raise ValueError(
            "ctc takes logits [batch, frames, classes] and labels [batch, labels], "
            f"not {logits.shape} and {labels.shape}"
        )
    logits = widened(logits)
    paddings = [
        _beyond(lengths, shape, logits.dtype, f"ctc: {name}")
        for lengths, shape, name in (
            (logit_lengths, logits.shape[:2], "logit_lengths"), (label_lengths, labels.shape, "label_lengths"),
        )
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        value = optax.ctc_loss(logits, paddings[0], _counting(labels), paddings[1], blank_id=blank)
    return weighted(value, weight)


def weighted(values: Array, weight: Array | None) -> Array:
    """values * weight, the weight broadcast from the left; 0 where the weight is 0, even where the value is NaN.

    Raises:
        ValueError: the weight's shape is no beginning of the values'.
    """
    if weight is None:
        return values
    weight = jnp.asarray(weight)
    if weight.shape != values.shape[: weight.ndim]:
        raise ValueError(f"a weight {weight.shape} does not match losses {values.shape} from the left")
    wide = jnp.broadcast_to(weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim)), values.shape)
    wide = wide.astype(values.dtype)
    zero = jnp.zeros((), values.dtype)
    return jnp.where(wide == 0, zero, jnp.where(wide == 0, zero, values) * wide)


def _counting(labels: Array) -> Array:
    """Labels in a type that can count the classes: 8 bits would begin anew after 255."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def _smoothed(targets: Array, smoothing: float | Array) -> Array:
    if isinstance(smoothing, (int, float)) and smoothing == 0:
        return targets
    share = jnp.asarray(smoothing, targets.dtype)
    return (1.0 - share) * targets + 0.5 * share


def _distance(left: Array, right: Array, squared: bool, name: str) -> Array:
    """Euclidean over the last axis; the gradient of the root at 0 is 0, not NaN."""
    difference = _difference(name, left, right)
    square = jnp.sum(difference * difference, axis=-1)
    if squared:
        return square
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, jnp.ones_like(square))), jnp.zeros_like(square))


def _beyond(lengths: Array | None, shape: tuple[int, ...], dtype: Any, what: str) -> Array:
    """1 where a place is beyond its row's length, [batch, places]."""
    if lengths is None:
        return jnp.zeros(shape, dtype)
    if lengths.shape != shape[:1]:
        raise ValueError(f"{what} are [batch], here {shape[:1]}, not {lengths.shape}")
    places = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return (places >= lengths.astype(jnp.int32)[:, None]).astype(dtype)


def _difference(name: str, predictions: Array, targets: Array) -> Array:
    _same_shape(name, predictions, targets)
    predictions = widened(predictions)
    return predictions - targets.astype(predictions.dtype)


def _same_shape(name: str, predictions: Array, targets: Array) -> None:
    if predictions.shape != targets.shape:
        raise ValueError(f"{name}: predictions {predictions.shape} and targets {targets.shape} must have one shape")
