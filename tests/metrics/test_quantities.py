"""Sums, variances, extrema and quantiles of a stream against NumPy, and where float32 gives up."""

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


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_and_extrema_match_numpy(offset: float) -> None:
    draw = np.random.default_rng(0)
    values = (draw.normal(size=(200, 3)) + offset).astype(np.float32)
    weight = draw.integers(0, 4, 200)
    wide, times = values.astype(float), np.repeat(values.astype(float), weight, axis=0)
    for ddof in (0.0, 1.0):
        np.testing.assert_allclose(metrics.variance(values, ddof=ddof), wide.var(ddof=ddof), rtol=1e-6)
        np.testing.assert_allclose(
            metrics.variance(values, ddof=ddof, outputs=3, weight=weight), times.var(axis=0, ddof=ddof), rtol=1e-6
        )
        np.testing.assert_allclose(metrics.standard_deviation(values, ddof=ddof), wide.std(ddof=ddof), rtol=1e-6)
    np.testing.assert_allclose(metrics.sum_of(values, weight=weight), times.sum(), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(metrics.mean(values, weight=weight), times.mean(), rtol=1e-6, atol=1e-7)
    assert float(metrics.max_of(values, weight=weight)) == times.max()
    assert float(metrics.min_of(values, weight=weight)) == times.min()


@pytest.mark.smoke
def test_edges() -> None:
    assert float(metrics.sum_of(np.zeros(0))) == 0
    assert np.isnan(metrics.variance([3.0], ddof=1.0)) and float(metrics.variance([3.0])) == 0
    assert float(metrics.variance(np.full(60, 0.1, np.float32))) == 0, "a constant has no variance, not even rounding"
    assert np.isnan(metrics.max_of([1.0], mask=[False])) and np.isnan(metrics.min_of([1.0, np.nan]))
    assert float(metrics.max_of([-np.inf])) == -np.inf, "minus infinity was seen"
    assert float(metrics.max_of([1.0, np.nan], weight=[1.0, 0.0])) == 1
    assert np.isnan(metrics.quantiles([1.0, np.nan])) and np.isnan(metrics.quantiles([1.0], mask=[False]))
    assert float(metrics.quantiles([1.0, np.nan], weight=[2.0, 0.0])) == pytest.approx(1.0, rel=2**-8)
    assert metrics.quantiles([-np.inf, 0.0, np.inf], q=(0.0, 0.5, 1.0)).tolist() == [-np.inf, 0.0, np.inf]


def test_variance_of_ten_thousand_batches_far_from_zero() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(1e4, 1, (10_000, 100)).astype(np.float32)
    metric = metrics.Variance()
    run = jax.jit(lambda x: jax.lax.scan(lambda s, b: (metric.update(s, preds=b), None), metric.init(), x)[0])
    np.testing.assert_allclose(metric.compute(run(values)), values.astype(float).var(), rtol=1e-6)


_quantiles = {
    bits: jax.jit(lambda x, w, metric: (metric.compute(s := metric.update(metric.init(), preds=x, weight=w)),
                                        metric.bounds(s)), static_argnums=2)
    for bits in (3, 7)
}  # fmt: skip
_SHARES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0)


@given(
    seed=st.integers(0, 2**31),
    bits=st.sampled_from([3, 7]),
    kind=st.sampled_from(["normal", "tied", "wide", "tiny"]),
    weighted=st.booleans(),
)
def test_quantiles_lie_within_their_bounds(seed: int, bits: int, kind: str, weighted: bool) -> None:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=N)
    values = {
        "normal": values, "tied": values.round(), "wide": np.sign(values) * 10.0 ** draw.uniform(-30, 30, N),
        "tiny": values * 1e-40,
    }[kind].astype(np.float32)  # fmt: skip
    weight = draw.integers(0, 4, N) if weighted else np.ones(N, int)
    weight[0] = 1
    got, (lower, upper) = _quantiles[bits](values, weight.astype(np.float32), metrics.Quantiles(_SHARES, bits))
    want = np.quantile(np.repeat(values, weight), _SHARES, method="inverted_cdf")
    assert (lower <= want).all() and (want <= upper).all()
    # below 1.2e-38 the processor may call a number 0; its bounds still hold
    np.testing.assert_allclose(got, want, rtol=2.0 ** -(bits + 1), atol=1.2e-38)


def test_quantiles_of_many_batches_are_those_of_one() -> None:
    draw = np.random.default_rng(2)
    values = draw.lognormal(0, 2, (10, 1000)).astype(np.float32)
    metric = metrics.Quantiles((0.5, 0.99), mantissa_bits=10)
    state = metric.init()
    for batch in values:
        state = metric.merge(metric.update(metric.init(), preds=batch), state)
    whole = metric.update(metric.init(), preds=values)
    assert all((x == y).all() for x, y in zip(state, whole, strict=True)), "counts add up exactly, in any order"
    want = np.quantile(values, (0.5, 0.99), method="inverted_cdf")
    np.testing.assert_allclose(metric.compute(state), want, rtol=2.0**-11)
    again = metric.compute(metric.merge(state, sums.zeros(state.hi.shape)))
    np.testing.assert_array_equal(again, metric.compute(state))


@pytest.mark.slow
def test_fifty_million_additions_of_three_tenths() -> None:
    metrics_of = {"sum": metrics.Sum(), "mean": metrics.Mean(), "mse": metrics.MeanSquaredError()}

    @jax.jit
    def run(value: jax.Array) -> dict[str, Any]:
        batch, zeros = jnp.full(1000, value), jnp.zeros(1000, jnp.float32)

        def one(_: Any, states: dict[str, Any]) -> dict[str, Any]:
            return {key: m.update(states[key], preds=batch, target=zeros) for key, m in metrics_of.items()}

        states = jax.lax.fori_loop(0, 50_000, one, {key: m.init() for key, m in metrics_of.items()})
        return {key: m.compute(states[key]) for key, m in metrics_of.items()}

    got = run(jnp.float32(0.3))
    assert float(got["sum"]) == pytest.approx(1.5e7, rel=1e-6)
    assert float(got["mean"]) == pytest.approx(0.3, rel=1e-6)
    assert float(got["mse"]) == pytest.approx(0.09, rel=1e-6)


def test_additions_near_the_limit() -> None:
    """The last thousand of 5e7 additions of 0.3: a plain float32 sum stands still at 8388608."""
    value = float(np.float32(0.3))
    before = value * (5e7 - 1000)
    high = np.float32(before)
    state = sums.Sums(jnp.full(1, high), jnp.full(1, np.float32(before - float(high))))
    state = metrics.Sum().update(state, preds=np.full(1000, 0.3, np.float32))
    np.testing.assert_allclose(sums.exact(state)[0], value * 5e7, rtol=1e-12)
    assert np.float32(2**24) + np.float32(0.3) == np.float32(2**24), "float32 alone would do: this test proves nothing"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.Quantiles(1.5), "shares from 0 to 1; it is 1.5"),
        (lambda: metrics.Quantiles(()), "shares from 0 to 1"),
        (lambda: metrics.Quantiles(0.5, mantissa_bits=15), "from 0 to 14; it is 15"),
        (lambda: metrics.Variance(ddof=-1.0), "0 (population) or 1 (sample)"),
        (lambda: metrics.variance(np.zeros((3, 2)), outputs=3), "(..., 3)"),
        (lambda: metrics.sum_of(np.zeros(2, complex)), "real numbers"),
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_quantiles_at_the_ends_whatever_the_weights() -> None:
    ends = metrics.Quantiles((0.0, 1.0))
    state = ends.update(ends.init(), preds=[1.0, 100.0, 500.0, -7.0], weight=[3e13, 1.0, 0.0, 1e-3])
    lower, upper = ends.bounds(state)
    assert lower[0] <= -7 <= upper[0] and lower[1] <= 100 <= upper[1]
    assert metrics.Quantiles(np.float32(0.5)) == metrics.Quantiles(0.5)  # any number is a share


def test_a_share_that_is_a_hair_too_much_and_more_degrees_of_freedom() -> None:
    assert 0.07 * 100 > 7  # in float64
    assert float(metrics.quantiles(np.arange(1.0, 101.0), q=0.07, mantissa_bits=13)) < 7.01
    assert float(metrics.variance([1.0, 2.0, 3.0, 4.0], ddof=2.0)) == 2.5
