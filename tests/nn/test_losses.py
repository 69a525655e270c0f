"""Losses per example against NumPy in float64."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxdl import nn
from jaxdl.nn import absolute_error, huber, sigmoid_cross_entropy, softmax_cross_entropy, squared_error


def _reference(logits, labels, smoothing):
    logits = np.asarray(logits, np.float64)
    log_p = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    target = (1 - smoothing) * np.eye(logits.shape[-1])[labels] + smoothing / logits.shape[-1]
    return -(target * log_p).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_softmax_cross_entropy_equals_numpy(smoothing, shape):
    logits = 5.0 * jax.random.normal(jax.random.key(0), (*shape, 7))
    labels = jax.random.randint(jax.random.key(1), shape, 0, 7)
    value = softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(value, _reference(logits, np.asarray(labels), smoothing), rtol=1e-5, atol=1e-6)
    traced = jax.jit(lambda s: softmax_cross_entropy(logits, labels, label_smoothing=s))(jnp.float32(smoothing))
    np.testing.assert_allclose(traced, value, rtol=1e-6)


def test_softmax_cross_entropy_has_the_gradient_of_the_textbook():
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    labels = jnp.array([0, 4, 2, 2])
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, labels).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - jax.nn.one_hot(labels, 5), atol=1e-6)


def test_softmax_cross_entropy_of_huge_logits_is_finite():
    value = softmax_cross_entropy(jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([0, 1]))
    np.testing.assert_allclose(value, [0.0, 2e4])


def test_softmax_cross_entropy_computes_bfloat16_logits_in_float32():
    logits = jax.random.normal(jax.random.key(0), (8, 100)).astype(jnp.bfloat16)
    labels = jnp.zeros(8, jnp.int32)
    value = softmax_cross_entropy(logits, labels)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, _reference(logits.astype(jnp.float32), np.zeros(8, int), 0.0), rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_outside_the_classes_gives_nan_and_not_a_wrong_number(label):
    value = softmax_cross_entropy(jnp.zeros((2, 3)), jnp.array([label, 1]))
    assert np.isnan(value[0]) and np.isfinite(value[1])


def test_softmax_cross_entropy_refuses_floats_and_other_shapes():
    with pytest.raises(TypeError, match="integer class numbers"):
        softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"labels \(2,\), not \(2, 1\)"):
        softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 1), jnp.int32))


def test_sigmoid_cross_entropy_equals_numpy():
    logits, labels = np.array([-30.0, -1.0, 0.5, 4.0]), np.array([1, 0, 1, 0])
    probability = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(probability) + (1 - labels) * np.log1p(-probability))
    value = sigmoid_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_errors_of_regression():
    predictions, targets = jnp.array([1.0, -2.0, 5.0]), jnp.array([1.5, -2.0, 1.0])
    np.testing.assert_allclose(squared_error(predictions, targets), [0.25, 0.0, 16.0])
    np.testing.assert_allclose(absolute_error(predictions, targets), [0.5, 0.0, 4.0])
    np.testing.assert_allclose(huber(predictions, targets), [0.125, 0.0, 3.5])
    np.testing.assert_allclose(huber(predictions, targets, delta=2.0), [0.125, 0.0, 6.0])


@pytest.mark.parametrize("loss", [squared_error, absolute_error, huber, sigmoid_cross_entropy])
def test_columns_against_rows_are_refused(loss):
    with pytest.raises(ValueError, match="one shape"):
        loss(jnp.zeros((4, 1)), jnp.zeros(4))


@pytest.mark.parametrize("loss", [squared_error, absolute_error, huber])
def test_bfloat16_predictions_against_float32_targets_are_float32(loss):
    assert loss(jnp.zeros(4, jnp.bfloat16), jnp.zeros(4)).dtype == jnp.float32


LOGITS = np.random.default_rng(0).normal(0, 2, (6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0], np.int32)
BINARY = np.array([[0, 1, 1, 0]] * 6, np.int32)


def test_focal_cross_entropy_equals_numpy_and_is_plain_at_gamma_zero() -> None:
    z = LOGITS.astype(np.float64)
    p = np.where(BINARY == 1, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z)))
    share = np.where(BINARY == 1, 0.25, 0.75)
    np.testing.assert_allclose(
        nn.focal_cross_entropy(LOGITS, BINARY, alpha=0.25), -share * (1 - p) ** 2 * np.log(p), rtol=2e-5
    )
    np.testing.assert_allclose(nn.focal_cross_entropy(LOGITS, BINARY, gamma=0.0), sigmoid_cross_entropy(LOGITS, BINARY))
    q = np.exp(-_reference(LOGITS, LABELS, 0.0))
    np.testing.assert_allclose(
        nn.focal_cross_entropy(LOGITS, LABELS, gamma=1.5), -((1 - q) ** 1.5) * np.log(q), rtol=2e-5
    )
    sure = jax.grad(lambda x: nn.focal_cross_entropy(x, jnp.asarray([1]), gamma=0.5).sum())(jnp.asarray([200.0]))
    assert np.isfinite(sure).all()
    with pytest.raises(ValueError, match="alpha is of the two-class form"):
        nn.focal_cross_entropy(LOGITS, LABELS, alpha=0.25)


def test_hinge_of_two_and_of_more_classes() -> None:
    want = np.maximum(0, 1 - np.where(BINARY == 1, 1, -1) * LOGITS)
    np.testing.assert_allclose(nn.hinge(LOGITS, BINARY), want, rtol=1e-6)
    own = LOGITS[np.arange(6), LABELS]
    others = np.where(np.eye(4, dtype=bool)[LABELS], -np.inf, LOGITS).max(1)
    np.testing.assert_allclose(nn.hinge(LOGITS, LABELS), np.maximum(0, 1 + others - own), rtol=1e-6)
    with pytest.raises(TypeError, match="class numbers"):
        nn.hinge(LOGITS, LABELS.astype(np.float32))
    with pytest.raises(ValueError, match="go with labels"):
        nn.hinge(LOGITS, LABELS[:3])


def test_errors_with_a_tube_and_of_quantiles() -> None:
    predictions, targets = jnp.asarray([1.0, -2.0, 5.0]), jnp.asarray([1.5, -2.05, 1.0])
    np.testing.assert_allclose(nn.epsilon_insensitive(predictions, targets), [0.4, 0.0, 3.9], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(nn.quantile_loss(predictions, targets, quantile=0.9), [0.45, 0.005, 0.4], rtol=1e-5)
    levels = jnp.asarray([0.1, 0.9])
    both = nn.quantile_loss(jnp.stack([predictions, predictions], -1), targets, quantile=levels)
    np.testing.assert_allclose(both[:, 1], nn.quantile_loss(predictions, targets, quantile=0.9), rtol=1e-6)
    draws = jnp.asarray(np.random.default_rng(0).normal(size=4001), jnp.float32)
    grid = jnp.linspace(-3, 3, 601)
    cost = jax.vmap(lambda g: nn.quantile_loss(jnp.full_like(draws, g), draws, quantile=0.8).mean())(grid)
    assert abs(float(grid[cost.argmin()]) - np.quantile(draws, 0.8)) < 0.02
    with pytest.raises(ValueError, match="of 2 quantiles go with targets"):
        nn.quantile_loss(predictions, targets, quantile=levels)


def test_poisson_and_kl_divergence_equal_scipy() -> None:
    rates, counts = np.array([0.3, 2.0, 7.5]), np.array([0, 3, 7])
    value = nn.poisson(jnp.log(jnp.asarray(rates, jnp.float32)), jnp.asarray(counts, jnp.int32), full=True)
    np.testing.assert_allclose(value, -stats.poisson.logpmf(counts, rates), rtol=1e-5)
    p, t = special.softmax(LOGITS, 1), np.eye(4)[LABELS] * 0.7 + np.array([0.3, 0, 0, 0])
    np.testing.assert_allclose(
        nn.kl_divergence(jnp.log(jnp.asarray(p)), jnp.asarray(t, jnp.float32)), stats.entropy(t, p, axis=1), rtol=1e-4
    )


def test_losses_of_distances() -> None:
    a, p, n = (np.random.default_rng(i).normal(size=(5, 3)).astype(np.float32) for i in range(3))
    near, far = np.linalg.norm(a - p, axis=1), np.linalg.norm(a - n, axis=1)
    np.testing.assert_allclose(nn.triplet(a, p, n, margin=0.5), np.maximum(0, near - far + 0.5), rtol=1e-5, atol=1e-6)
    squared = nn.triplet(a, p, n, squared=True)
    np.testing.assert_allclose(squared, np.maximum(0, near**2 - far**2 + 1), rtol=1e-5, atol=1e-5)
    same = np.array([1, 0, 1, 0, 0])
    want = np.where(same == 1, near**2, np.maximum(0, 2 - near) ** 2) / 2
    np.testing.assert_allclose(nn.contrastive(a, p, same, margin=2.0), want, rtol=1e-5)
    equal = jax.grad(lambda x: nn.contrastive(x, jnp.asarray(a), jnp.asarray(same)).sum())(jnp.asarray(a))
    assert np.isfinite(equal).all()
    with pytest.raises(ValueError, match="go with `same`"):
        nn.contrastive(a, p, same[:2])


def _ctc_by_enumeration(log_p: np.ndarray, labels: list[int]) -> float:
    frames, classes = log_p.shape
    total = -np.inf
    for path in itertools.product(range(classes), repeat=frames):
        collapsed = [k for k, _ in itertools.groupby(path) if k != 0]
        if collapsed == labels:
            total = np.logaddexp(total, sum(log_p[t, k] for t, k in enumerate(path)))
    return -total


def test_ctc_equals_the_sum_over_all_alignments() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    labels, lengths, frames = np.array([[1, 2, 9], [1, 1, 9], [2, 9, 9]], np.int32), [2, 2, 1], [5, 4, 3]
    value = nn.ctc(logits, labels, logit_lengths=jnp.asarray(frames), label_lengths=jnp.asarray(lengths))
    log_p = special.log_softmax(logits, -1)
    want = [_ctc_by_enumeration(log_p[i, : frames[i]], list(labels[i, : lengths[i]])) for i in range(3)]
    np.testing.assert_allclose(value, want, rtol=1e-4)
    with pytest.raises(ValueError, match=r"logit_lengths are \[batch\]"):
        nn.ctc(logits, labels, logit_lengths=jnp.asarray([5]))
    with pytest.raises(ValueError, match=r"ctc takes logits \[batch, frames, classes\]"):
        nn.ctc(logits[0], labels)


def _every_loss() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    pair = (LOGITS, LOGITS[::-1].copy())
    return {
        "softmax_cross_entropy": (softmax_cross_entropy, (LOGITS, LABELS)),
        "sigmoid_cross_entropy": (sigmoid_cross_entropy, (LOGITS, BINARY)),
        "focal_cross_entropy": (nn.focal_cross_entropy, (LOGITS, LABELS)),
        "hinge": (nn.hinge, (LOGITS, LABELS)),
        "squared_error": (squared_error, pair),
        "absolute_error": (absolute_error, pair),
        "huber": (huber, pair),
        "epsilon_insensitive": (nn.epsilon_insensitive, pair),
        "quantile_loss": (nn.quantile_loss, pair),
        "poisson": (nn.poisson, (LOGITS, BINARY)),
        "kl_divergence": (nn.kl_divergence, (special.log_softmax(LOGITS, 1), special.softmax(pair[1], 1))),
        "triplet": (nn.triplet, (*pair, LOGITS + 1)),
        "contrastive": (nn.contrastive, (*pair, LABELS)),
        "ctc": (nn.ctc, (LOGITS[:, None].repeat(4, 1), np.ones((6, 2), np.int32))),
    }


@pytest.mark.parametrize("name", list(_every_loss()))
def test_weights_multiply_and_zero_hides_nan(name: str) -> None:
    loss, inputs = _every_loss()[name]
    weight = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 3.0], np.float32)
    plain = np.asarray(loss(*inputs))
    wide = weight.reshape(6, *(1,) * (plain.ndim - 1))
    spoiled = inputs[0].copy()
    spoiled[[1, 4]] = np.nan
    np.testing.assert_allclose(loss(spoiled, *inputs[1:], weight=weight), plain * wide, rtol=1e-6)
    gradient = jax.grad(lambda x: loss(x, *inputs[1:], weight=weight).sum())(jnp.asarray(inputs[0]))
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[[1, 4]].any()
    assert loss(jnp.asarray(inputs[0], jnp.bfloat16), *inputs[1:]).dtype == jnp.float32
    with pytest.raises(ValueError, match="from the left"):
        loss(*inputs, weight=weight[:4])


def test_sigmoid_smoothing_moves_the_target() -> None:
    value = sigmoid_cross_entropy(LOGITS, BINARY, label_smoothing=0.2)
    soft = BINARY * 0.8 + 0.1
    np.testing.assert_allclose(value, sigmoid_cross_entropy(LOGITS, soft.astype(np.float32)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.int16])
def test_labels_of_few_bits_name_classes_of_many(dtype):
    """300 classes do not fit into 8 bits; the labels here do."""
    scores = jax.random.normal(jax.random.key(0), (3, 300))
    labels = jnp.array([5, 100, 43], jnp.int32)
    for loss in (softmax_cross_entropy, nn.hinge, nn.focal_cross_entropy):
        np.testing.assert_array_equal(loss(scores, labels.astype(dtype)), loss(scores, labels))
    frames, written = jax.random.normal(jax.random.key(1), (2, 4, 300)), jnp.array([[3, 7], [44, 1]], jnp.int32)
    np.testing.assert_array_equal(nn.ctc(frames, written.astype(dtype)), nn.ctc(frames, written))


def test_kl_divergence_of_what_never_happens_is_nothing():
    """0 log 0 = 0 on both sides; what happens though it was called impossible is infinitely surprising."""
    log_p, targets = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]]), jnp.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(nn.kl_divergence(log_p, targets), [0.0, np.inf])
    slope = jax.grad(lambda log_p: nn.kl_divergence(log_p, targets)[0])(log_p)
    np.testing.assert_array_equal(slope, [[-1.0, 0.0], [0.0, 0.0]])
