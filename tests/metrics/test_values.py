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
from sklearn import metrics as peer

from jaxdl import metrics
from jaxdl.metrics import sums

N = 64


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_matches_scikit_learn(weighted: bool) -> None:
    draw = np.random.default_rng(1)
    target = draw.normal(1e4, 1, (300, 2)).astype(np.float32)
    preds = (target + draw.normal(0, 3, (300, 2))).astype(np.float32)
    weight = draw.random(300).astype(np.float32) if weighted else None
    squared = peer.mean_squared_error(target.astype(float), preds.astype(float), sample_weight=weight)
    absolute = peer.mean_absolute_error(target.astype(float), preds.astype(float), sample_weight=weight)
    np.testing.assert_allclose(metrics.mean_squared_error(preds, target, weight=weight), squared, rtol=1e-6)
    np.testing.assert_allclose(metrics.root_mean_squared_error(preds, target, weight=weight), squared**0.5, rtol=1e-6)
    np.testing.assert_allclose(metrics.mean_absolute_error(preds, target, weight=weight), absolute, rtol=1e-6)
    np.testing.assert_allclose(metrics.mean(preds, weight=weight), np.average(preds.mean(1), weights=weight), rtol=1e-6)


_auc = jax.jit(lambda preds, target, weight, mask: metrics.roc_auc(preds, target, weight=weight, mask=mask))


@given(
    seed=st.integers(0, 2**31),
    kept=st.integers(2, N),
    levels=st.sampled_from([2, 5, 1000]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    weights=st.sampled_from(["none", "integers", "skewed"]),
)
def test_auc_matches_scikit_learn(seed: int, kept: int, levels: int, scale: float, weights: str) -> None:
    draw = np.random.default_rng(seed)
    scores = ((draw.integers(0, levels, N) - levels // 2) * scale).astype(np.float32)
    scores[draw.random(N) < 0.1] = draw.choice(np.float32([np.inf, -np.inf, 0.0, -0.0]))
    target = draw.integers(0, 2, N)
    target[0], target[1] = 0, 1
    weight = {"none": np.ones(N), "integers": draw.integers(1, 9, N), "skewed": 10.0 ** draw.uniform(-6, 6, N)}[weights]
    weight = weight.astype(np.float32)
    got = _auc(scores, target, weight, np.arange(N) < kept)
    finite = np.clip(scores[:kept], -3e38, 3e38)  # the peer refuses infinities
    want = peer.roc_auc_score(target[:kept], finite.astype(float), sample_weight=weight[:kept].astype(float))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)


@pytest.mark.smoke
def test_auc_edges() -> None:
    def auc(preds: Any, target: Any, *, weight: Any = None) -> float:
        fill = 4 - len(preds)  # one shape, one compilation
        weight = [*(weight or [1.0] * len(preds)), *[0.0] * fill]
        preds, target = [*preds, *[np.nan] * fill], [*target, *[0] * fill]
        return float(_auc(np.float32(preds), np.int32(target), np.float32(weight), np.ones(4, bool)))

    assert auc([0.0, -0.0], [0, 1]) == 0.5, "-0.0 and 0.0 are a tie"
    assert auc([1e-45, 0.0], [1, 0]) == 1.0, "a subnormal score is above 0"
    assert auc([np.inf, -np.inf, 0.0], [1, 0, 0]) == 1.0
    assert np.isnan(auc([0.1, np.nan], [0, 1]))
    assert auc([0.1, 0.2, np.nan], [0, 1, 1], weight=[1, 1, 0]) == 1.0
    assert np.isnan(auc([0.1, 0.2], [1, 1])), "one label only"
    assert np.isnan(auc([0.1, 0.2], [0, 1], weight=[1.0, -1.0]))
    assert np.isnan(auc([0.1, 0.2], [0, 1], weight=[1.0, np.inf]))
    assert np.isnan(auc([], [])), "nothing was counted"
    assert np.isnan(metrics.roc_auc(np.zeros(0), np.zeros(0)))
    assert float(metrics.roc_auc(np.float32([[3, 1], [0, 9]]), np.array([False, True]))) == 1.0
    metric = metrics.ROCAUC(capacity=3)
    state = metric.update(metric.init(), preds=[0.1, 0.9, 0.5, 0.7], target=[0.0, 1.0, 2.0, -1.0])
    assert int(metric.invalid(state)) == 2 and float(metric.compute(state)) == 1.0
    state = metric.update(state, preds=[0.3], target=[1], weight=[0.0])
    assert int(state.length) == 2, "weight 0 takes no place"


def test_auc_that_overflows_is_nan_and_says_so() -> None:
    metric = metrics.ROCAUC(capacity=4)
    half = metric.update(metric.init(), preds=[0.1, 0.9, 0.4], target=[0, 1, 1])
    assert not metric.overflowed(half) and float(metric.compute(half)) == 1.0
    twice = metric.merge(half, half)
    more = metric.update(half, preds=[0.1, 0.2], target=[0, 1])
    for state in (twice, more, metric.merge(metric.init(), more), metric.merge(more, metric.init())):
        assert metric.overflowed(state) and np.isnan(metric.compute(state))
    assert int(metric.merge(twice, twice).length) == 5, "the length saturates"


def test_auc_counts_beyond_float32() -> None:
    """2^24 + 1 positives of weight 1 could not be counted in float32; here the totals are in float64."""
    metric = metrics.ROCAUC(capacity=8)
    big = float(2**24)
    preds, target = [0.0, 1.0, 2.0, 1.5], [1, 1, 0, 1]
    state = metric.update(metric.init(), preds=preds, target=target, weight=[big, 1.0, 1.0, big])
    state = metric.update(state, preds=[0.5], target=[0], weight=[big])
    wins = big * (big + 1)  # of negatives of weight big at 0.5: beaten by 1.0 and 1.5
    np.testing.assert_allclose(metric.compute(state), wins / ((2 * big + 1) * (big + 1)), rtol=1e-7)


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
        (lambda: metrics.roc_auc(np.zeros((4, 3)), np.zeros(4, int)), "two classes"),
        (lambda: metrics.ROCAUC(capacity=0), "1 to 2^30 - 1"),
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
    assert float(metrics.roc_auc(jnp.array([0.0, 1.0], jnp.bfloat16), jnp.array([0, 1]))) == 1.0
