"""Losses per example against NumPy in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
