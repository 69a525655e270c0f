"""Values against scikit-learn, exactness where float32 gives up, and every sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import metrics
from jaxdl.metrics import sums

N = 64


@pytest.mark.smoke
def test_counts_of_a_mean_are_exact_past_2_to_the_32() -> None:
    mean = metrics.Mean()
    full = sums.Sums(jnp.array([0.0, 2.0**40], jnp.float32), jnp.array([0.0, 0.0], jnp.float32))
    counted = mean.update(full, preds=jnp.ones(3, jnp.float32))
    assert sums.exact(counted)[1] == 2**40 + 3


def test_fifty_million_additions_of_three_tenths() -> None:
    metric = metrics.Mean()

    @jax.jit
    def run(value: jax.Array) -> sums.Sums:
        batch = jnp.full(1000, value)
        return jax.lax.fori_loop(0, 50_000, lambda _, s: metric.update(s, preds=batch), metric.init())

    state = run(jnp.float32(0.3))
    assert sums.exact(state)[1] == 5e7
    np.testing.assert_allclose(sums.exact(state)[0], 5e7 * float(np.float32(0.3)), rtol=1e-12)
    assert float(metric.compute(state)) == pytest.approx(0.3, rel=1e-6)


@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0, 10, 30]))
def test_weighted_cells_match_float64(seed: int, spread: int) -> None:
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 5, N).astype(np.int32)
    weight = (draw.normal(size=N) * 10.0 ** draw.uniform(-spread, spread, N)).astype(np.float32)
    want, size = np.zeros(5), np.zeros(5)
    np.add.at(want, cells, weight.astype(float))
    np.add.at(size, cells, np.abs(weight.astype(float)))
    got = sums.exact(_sum_by_cell(cells, weight))
    np.testing.assert_array_less(np.abs(got - want), 1e-7 * size + 1e-9 * np.abs(weight).max() / 2**30 + 1e-37)


_sum_by_cell = jax.jit(lambda cells, weight: sums.sum_by_cell(cells, weight, 5))


def test_broken_weights_show_in_their_cell_only() -> None:
    weight = np.float32([1, np.nan, 2, np.inf, 3])
    got = np.asarray(sums.value(sums.sum_by_cell(np.arange(5, dtype=np.int32), weight, 5)))
    np.testing.assert_array_equal(got, weight)
    assert float(metrics.mean([np.inf, 1.0])) == np.inf, "an infinite loss is infinite, not NaN"
    assert np.isnan(metrics.mean([np.inf, -np.inf]))


@pytest.mark.smoke
def test_undefined_is_nan() -> None:
    assert np.isnan(metrics.mean([1.0], mask=[False]))
    assert np.isnan(metrics.mean_squared_error([np.nan], [1.0]))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.mean_squared_error(np.zeros((4, 1)), np.zeros(4)), "preds[..., 0]"),
        (lambda: metrics.mean_squared_error(np.zeros(4, complex), np.zeros(4)), "real numbers"),
        (lambda: metrics.mean([1.0, 2.0], weight=[1.0, 2.0, 3.0]), "weight has shape (3,)"),
        (lambda: metrics.mean([1.0, 2.0], mask=[0.5, 1.0]), "mask must be booleans"),
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_metrics_pass_no_gradient_and_accept_half_precision() -> None:
    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(x) + metrics.mean_squared_error(x, jnp.zeros_like(x))

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(3, jnp.float32)), np.ones(3))
    assert float(metrics.mean(jnp.ones(4100, jnp.bfloat16))) == 1.0
