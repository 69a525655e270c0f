"""Dropout of numbers, channels and branches: shares, means, and that traced rates are harmless."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import Dropout, SpatialDropout, StochasticDepth


def _drop(rate, x, train=True, kind=Dropout):
    return kind(rate).apply({}, x, train=train, rngs={"dropout": jax.random.key(3)})


@pytest.mark.parametrize("kind", [Dropout, SpatialDropout, StochasticDepth])
def test_the_share_is_zeroed_and_the_mean_is_kept(kind):
    x = jnp.ones((2000, 2, 2, 5))
    y = np.asarray(_drop(0.3, x, kind=kind))
    assert abs((y == 0).mean() - 0.3) < 0.03
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)


def test_spatial_dropout_drops_whole_channels_of_single_examples():
    y = np.asarray(_drop(0.5, jnp.ones((50, 3, 4, 8)), kind=SpatialDropout))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    per_channel = (y[:, 0, 0] == 0).mean(axis=0)
    assert (per_channel > 0).all() and (per_channel < 1).all()
    assert 0 < (y[0, 0, 0] == 0).sum() < 8


def test_stochastic_depth_drops_whole_examples():
    y = np.asarray(_drop(0.5, jnp.ones((50, 3, 4)), kind=StochasticDepth))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert 0 < (y[:, 0, 0] == 0).sum() < 50


@pytest.mark.parametrize("kind", [Dropout, SpatialDropout, StochasticDepth])
def test_a_traced_rate_equals_the_static_one(kind):
    x = jnp.ones((8, 4, 16))
    traced = jax.jit(lambda rate, x: _drop(rate, x, kind=kind))(jnp.float32(0.3), x)
    np.testing.assert_array_equal(traced, _drop(0.3, x, kind=kind))
    assert np.asarray(traced == 0).any()


def test_a_python_rate_near_one_is_taken_as_it_is():
    y = np.asarray(_drop(0.998, jnp.ones(50_000)))
    np.testing.assert_allclose(y[y != 0], 500, rtol=1e-4)


@pytest.mark.parametrize("kind", [Dropout, SpatialDropout, StochasticDepth])
def test_python_zero_and_evaluation_are_the_identity_and_need_no_key(kind):
    x = jnp.ones((2, 3))
    assert kind(0.0).apply({}, x, train=True) is x
    assert kind(0.5).apply({}, x, train=False) is x


def test_a_traced_rate_of_one_has_finite_gradients():
    gradient = jax.grad(lambda x: _drop(jnp.float32(1.0), x).sum())(jnp.ones((4, 4)))
    assert np.isfinite(gradient).all()


def test_dropout_keeps_bfloat16():
    assert _drop(0.5, jnp.ones((4, 4), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("kind", [Dropout, SpatialDropout, StochasticDepth])
def test_a_rate_outside_its_range_is_refused(kind, rate):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        _drop(rate, jnp.ones((2, 2)), kind=kind)
