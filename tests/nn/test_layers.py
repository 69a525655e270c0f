"""Dropout, max pooling and batch norm: what they compute, and that padding and traced rates are harmless."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import BatchNorm, Dropout, max_pool


def _drop(rate, x, train=True):
    return Dropout(rate).apply({}, x, train=train, rngs={"dropout": jax.random.key(3)})


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = jnp.ones((200, 100))
    y = np.asarray(_drop(0.3, x))
    assert abs((y == 0).mean() - 0.3) < 0.01
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)


def test_dropout_at_a_traced_rate_equals_the_static_one():
    x = jnp.ones((8, 16))
    traced = jax.jit(_drop)(jnp.float32(0.3), x)
    np.testing.assert_array_equal(traced, _drop(0.3, x))
    assert np.asarray(traced == 0).any()


def test_dropout_of_python_zero_needs_no_key():
    x = jnp.ones((2, 3))
    assert Dropout(0.0).apply({}, x, train=True) is x


def test_dropout_outside_training_is_the_identity_and_needs_no_key():
    x = jnp.ones((2, 3))
    assert Dropout(0.5).apply({}, x, train=False) is x


def test_dropout_at_a_traced_rate_of_one_has_finite_gradients():
    gradient = jax.grad(lambda x: _drop(jnp.float32(1.0), x).sum())(jnp.ones((4, 4)))
    assert np.isfinite(gradient).all()


def test_dropout_keeps_bfloat16():
    assert _drop(0.5, jnp.ones((4, 4), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_dropout_refuses_a_rate_outside_its_range(rate):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        _drop(rate, jnp.ones((2, 2)))


@pytest.mark.parametrize(
    ("space", "window"), [((4, 6), (2, 2)), ((5, 7), (2, 2)), ((9,), (3,)), ((4, 4, 2), (2, 2, 2))]
)
def test_max_pool_equals_flax_in_value_and_gradient(space, window):
    x = jax.random.normal(jax.random.key(0), (2, *space, 3))

    def pools(pool):
        weight = jnp.arange(pool(x).size, dtype=jnp.float32).reshape(pool(x).shape)
        return pool(x), jax.grad(lambda x: jnp.sum(pool(x) * weight))(x)

    ours = pools(lambda x: max_pool(x, window))
    flax_s = pools(lambda x: flax.linen.max_pool(x, window, strides=window))
    np.testing.assert_array_equal(ours[0], flax_s[0])
    np.testing.assert_allclose(ours[1], flax_s[1], rtol=1e-6)


def test_max_pool_refuses_a_window_that_does_not_fit():
    with pytest.raises(ValueError, match="fewer pools"):
        max_pool(jnp.ones((1, 1, 4, 2)), (2, 2))
    with pytest.raises(ValueError, match="window of 2 lengths"):
        max_pool(jnp.ones((1, 4, 4, 2)), (2,))


def _norm(x, mask=None, train=True, statistics=None):
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x, train=False)
    if statistics is not None:
        variables = {**variables, "batch_stats": statistics}
    return module.apply(variables, x, train=train, mask=mask, mutable=["batch_stats"])


def test_batch_norm_equals_flax():
    x = 3.0 * jax.random.normal(jax.random.key(1), (6, 4, 4, 5)) + 2.0
    theirs = flax.linen.BatchNorm(use_running_average=False, momentum=0.9)
    expected, expected_state = theirs.apply(theirs.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    y, state = _norm(x)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)


def test_batch_norm_with_padding_rows_equals_the_batch_without_them():
    x = jax.random.normal(jax.random.key(1), (8, 3, 5)) * 4.0
    padded = x.at[5:].set(1e4)
    mask = jnp.arange(8) < 5
    y, state = _norm(padded, mask)
    expected, expected_state = _norm(x[:5])
    np.testing.assert_allclose(y[:5], expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)


def test_batch_norm_of_nothing_but_padding_stays_finite_and_keeps_its_statistics():
    statistics = {"mean": jnp.full(5, 2.0), "var": jnp.full(5, 3.0)}
    y, state = _norm(jnp.ones((4, 5)), jnp.zeros(4, jnp.bool_), statistics=statistics)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], statistics)


def test_batch_norm_uses_running_averages_outside_training_and_leaves_them():
    statistics = {"mean": jnp.full(5, 2.0), "var": jnp.full(5, 4.0)}
    y, state = _norm(jnp.full((4, 5), 6.0), train=False, statistics=statistics)
    np.testing.assert_allclose(y, 2.0, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], statistics)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    x = (100.0 + jax.random.normal(jax.random.key(1), (512, 2))).astype(jnp.bfloat16)
    y, state = _norm(x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * exact.var(axis=0), rtol=1e-5)


def test_batch_norm_refuses_a_mask_of_another_shape():
    with pytest.raises(ValueError, match="mask of batch norm"):
        _norm(jnp.ones((4, 5)), jnp.ones((4, 5), jnp.bool_))
