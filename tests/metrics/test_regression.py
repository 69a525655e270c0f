"""Errors and R2 against scikit-learn, how moments and sums hold far from zero, and every sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as peer

from jaxdl import metrics
from jaxdl.metrics import sums
from jaxdl.metrics.moments import Moments


def _wide(x: np.ndarray | None) -> np.ndarray | None:
    return None if x is None else x.astype(np.float64)


def _data(kind: str, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(preds, target) [n, 2] and weights [n] with zeros."""
    draw = np.random.default_rng(3)
    target = draw.normal(size=(n, 2))
    preds = target + draw.normal(0, 0.5, (n, 2))
    if kind == "tied":
        target, preds = target.round(), preds.round()
    elif kind == "far":
        target, preds = target + 1e4, preds + 1e4
    elif kind == "biased":
        preds = preds + 100.0
    elif kind == "tiny":
        target, preds = target * 1e-12, preds * 1e-12
    elif kind == "huge":
        target, preds = target * 1e12, preds * 1e12
    elif kind == "skewed":
        target, preds = np.exp(3 * target), np.exp(3 * preds)
    weight = draw.random(n) * (draw.random(n) < 0.8)
    return preds.astype(np.float32), target.astype(np.float32), weight.astype(np.float32)


KINDS = ("random", "tied", "far", "biased", "tiny", "huge", "skewed")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_and_r2_match_scikit_learn(kind: str, weighted: bool) -> None:
    preds, target, weight = _data(kind)
    w = weight if weighted else None
    p, t = preds.astype(float), target.astype(float)
    for ours, theirs in (
        (metrics.mean_absolute_error, peer.mean_absolute_error),
        (metrics.mean_squared_error, peer.mean_squared_error),
        (metrics.root_mean_squared_error, peer.root_mean_squared_error),
        (metrics.r2, peer.r2_score),
        (metrics.explained_variance, peer.explained_variance_score),
    ):
        for multioutput in ("raw_values", "uniform_average"):
            got = ours(preds, target, outputs=2, multioutput=multioutput, weight=w)
            want = theirs(t, p, multioutput=multioutput, sample_weight=_wide(w))
            np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"{ours.__name__} {multioutput}")
    for ours, theirs in ((metrics.r2, peer.r2_score), (metrics.explained_variance, peer.explained_variance_score)):
        got = ours(preds, target, outputs=2, multioutput="variance_weighted", weight=w)
        want = theirs(t, p, multioutput="variance_weighted", sample_weight=_wide(w))
        np.testing.assert_allclose(got, want, rtol=1e-6)
    # without outputs every number is an example of one output
    flat = None if w is None else np.repeat(w, 2)
    np.testing.assert_allclose(
        metrics.r2(preds, target, weight=w), peer.r2_score(t.ravel(), p.ravel(), sample_weight=_wide(flat)), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics.root_mean_squared_error(preds, target, weight=w),
        peer.root_mean_squared_error(t.ravel(), p.ravel(), sample_weight=_wide(flat)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("kind", ["random", "tied", "far", "skewed"])
def test_single_errors_match_scikit_learn(kind: str) -> None:
    preds, target, weight = _data(kind)
    preds, target = preds[:, 0], target[:, 0]
    p, t, w = preds.astype(float), target.astype(float), weight.astype(float)
    some = np.abs(target) > 0.5
    np.testing.assert_allclose(
        metrics.mean_absolute_percentage_error(preds, target, weight=weight, mask=some),
        peer.mean_absolute_percentage_error(t[some], p[some], sample_weight=w[some]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        metrics.median_absolute_error(preds, target, weight=weight),
        peer.median_absolute_error(t, p, sample_weight=w),
        rtol=1e-6,
    )
    np.testing.assert_allclose(metrics.max_error(preds, target), peer.max_error(t, p), rtol=1e-6)
    for q in (0.1, 0.5, 0.95):
        want = peer.mean_pinball_loss(t, p, alpha=q, sample_weight=w)
        np.testing.assert_allclose(metrics.pinball_loss(preds, target, quantile=q, weight=weight), want, rtol=1e-6)
    error = np.abs(p - t)
    huber = np.where(error <= 0.7, error**2 / 2, 0.7 * (error - 0.35))
    np.testing.assert_allclose(
        metrics.huber_loss(preds, target, delta=0.7, weight=weight), np.average(huber, weights=w), rtol=1e-6
    )
    cosh = error + np.log1p(np.exp(-2 * error)) - np.log(2)
    np.testing.assert_allclose(
        metrics.log_cosh(preds, target, weight=weight), np.average(cosh, weights=w), rtol=1e-6, atol=1e-9
    )
    above = np.average(error, weights=w) / np.average(np.abs(t - np.average(t, weights=w)), weights=w)
    np.testing.assert_allclose(metrics.relative_absolute_error(preds, target, weight=weight), above, rtol=1e-6)
    share = np.average((p - t) ** 2, weights=w) / np.average((t - np.average(t, weights=w)) ** 2, weights=w)
    np.testing.assert_allclose(metrics.relative_squared_error(preds, target, weight=weight), share, rtol=1e-6)
    np.testing.assert_allclose(
        metrics.relative_squared_error(preds, target, weight=weight, root=True), share**0.5, rtol=1e-6
    )
    r2 = peer.r2_score(t, p)
    np.testing.assert_allclose(
        metrics.adjusted_r2(preds, target, features=3), 1 - (1 - r2) * (len(t) - 1) / (len(t) - 4), rtol=1e-6
    )
    bad = metrics.adjusted_r2(preds[:4], target[:4], features=3)
    assert np.isnan(bad), "as many features as examples leave nothing to adjust"


def test_logarithmic_and_symmetric_errors() -> None:
    preds, target, weight = _data("skewed")
    p, t = preds.astype(float), target.astype(float)
    np.testing.assert_allclose(
        metrics.mean_squared_log_error(preds, target, weight=weight),
        np.average(((np.log1p(p) - np.log1p(t)) ** 2).mean(1), weights=weight.astype(float)),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        metrics.root_mean_squared_log_error(preds, target), peer.mean_squared_log_error(t, p) ** 0.5, rtol=1e-6
    )
    close = (target * np.float32(1 + 1e-4)).astype(np.float32)
    np.testing.assert_allclose(
        metrics.mean_squared_log_error(close, target), peer.mean_squared_log_error(t, close.astype(float)), rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics.symmetric_mean_absolute_percentage_error(preds, target),
        np.mean(2 * np.abs(p - t) / (np.abs(p) + np.abs(t))),
        rtol=1e-6,
    )
    smape = metrics.symmetric_mean_absolute_percentage_error
    assert np.isnan(smape([0.0, 1.0], [0.0, 1.0])) and float(smape([0.0, 1.0], [0.0, 3.0], zero_division=0.0)) == 0.5
    assert np.isnan(metrics.mean_squared_log_error([1.0], [-2.0]))
    mape = metrics.mean_absolute_percentage_error
    assert float(mape([1.0], [0.0])) == np.inf and np.isnan(mape([0.0], [0.0]))
    assert float(mape([1.0], [0.0], epsilon=0.5)) == 2


@pytest.mark.smoke
def test_r2_far_from_zero_keeps_its_digits() -> None:
    """Targets of mean 1e4 and deviation 1: one-pass sums of squares in float32 give 0.970 for 0.751."""
    draw = np.random.default_rng(0)
    target = draw.normal(1e4, 1, 100_000).astype(np.float32)
    preds = (target + draw.normal(0, 0.4989, 100_000)).astype(np.float32)
    want = peer.r2_score(target.astype(float), preds.astype(float))
    assert 0.74 < want < 0.76
    metric = metrics.R2()
    state = metric.init()
    for part in np.array_split(np.arange(100_000), 10):
        state = metric.update(state, preds=preds[part], target=target[part])
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)
    naive = 1 - np.sum((preds - target) ** 2) / (np.sum(target**2) - 100_000 * np.mean(target) ** 2)
    assert abs(naive - want) > 0.01, "float32 alone would do: this test proves nothing"


def test_moments_of_large_batches_in_any_order() -> None:
    """The rough mean of a large batch is that of a sample; what is far from it must not show in the result."""
    draw, size = np.random.default_rng(4), 20_000
    metric = metrics.Variance()
    variance = jax.jit(lambda x: metric.compute(metric.update(metric.init(), preds=x)))
    few, outlier = np.full(size, 1e4), np.full(size, 1e4)
    few[:150] += draw.normal(size=150)
    outlier[123] = 1e6
    orders = [np.sort(draw.normal(1e4, 1, size)), few, outlier, 1e4 + (np.arange(size) >= 10_000)]
    orders += [1e4 + (np.arange(size) % period == 0) for period in (7, 16, 19, 20, 256)]
    for values in (order.astype(np.float32) for order in orders):
        np.testing.assert_allclose(variance(values), np.var(values.astype(float)), rtol=1e-6)
    for constant in draw.normal(size=50) * 10.0 ** draw.integers(-8, 8, 50):
        assert variance(np.full(size, constant, np.float32)) == 0


@pytest.mark.slow
def test_ten_million_samples_agree_with_float64() -> None:
    draw = np.random.default_rng(0)
    target = draw.normal(1e4, 1, 10_000_000).astype(np.float32)
    preds = (target + draw.normal(0, 0.5, target.size)).astype(np.float32)
    want = peer.r2_score(target.astype(float), preds.astype(float))
    np.testing.assert_allclose(metrics.r2(preds, target), want, rtol=1e-6)
    metric = metrics.R2()

    def one(state: Any, batch: Any) -> tuple[Any, None]:
        return metric.update(state, preds=batch[0], target=batch[1]), None

    batches = (preds.reshape(10_000, 1000), target.reshape(10_000, 1000))
    state = jax.jit(lambda b: jax.lax.scan(one, metric.init(), b)[0])(batches)
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)


def test_a_long_unwieldy_batch_is_cut_without_loss() -> None:
    """Blocks, rows and a rest: 70,001 examples of two outputs, the last of them large."""
    draw = np.random.default_rng(4)
    target = draw.normal(50, 1, (70_001, 2)).astype(np.float32)
    preds = (target + draw.normal(size=target.shape)).astype(np.float32)
    target[-1], weight = 1000.0, draw.random(70_001).astype(np.float32)
    for w in (None, weight):
        got = metrics.r2(preds, target, outputs=2, multioutput="raw_values", weight=w)
        want = peer.r2_score(
            target.astype(float), preds.astype(float), multioutput="raw_values", sample_weight=_wide(w)
        )
        # one example holds all the variance: the float32 square of its error rounds by 6e-8
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1.5e-7)
        got = metrics.mean_squared_error(preds, target, outputs=2, multioutput="raw_values", weight=w)
        want = np.average((preds.astype(float) - target) ** 2, axis=0, weights=_wide(w))
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.smoke
def test_constants_are_undefined() -> None:
    target = np.full(60, 0.1, np.float32)  # whose float32 mean is not 0.1
    preds = np.linspace(0, 1, 60).astype(np.float32)
    for call in (metrics.r2, metrics.explained_variance, metrics.relative_squared_error, metrics.pearson,
                 metrics.spearman, metrics.kendall, metrics.relative_absolute_error):  # fmt: skip
        assert np.isnan(call(preds, target)), call.__name__
    assert np.isnan(metrics.pearson(target, preds)) and np.isnan(metrics.concordance(target, target))
    assert float(metrics.r2(preds, target, zero_division=0.0)) == 0
    assert float(metrics.explained_variance(target + np.float32(3), preds * 0 + 1, zero_division=-1.0)) == -1
    two = np.stack([preds, target], 1)
    assert np.isnan(metrics.r2(two, two, outputs=2, multioutput="raw_values")).tolist() == [False, True]
    assert float(metrics.r2(two, two, outputs=2, multioutput="variance_weighted", zero_division=0.0)) == 1


def test_nothing_nan_and_overflow() -> None:
    for call in (metrics.r2, metrics.pearson, metrics.mean_squared_error, metrics.kendall, metrics.max_error):
        assert np.isnan(call([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], mask=[False] * 3)), call.__name__
        assert np.isnan(call([1.0, np.nan, 4.0], [1.0, 2.0, 3.0])), call.__name__
        assert np.isfinite(call([1.0, np.nan, 4.0], [1.0, 2.0, 3.0], weight=[1.0, 0.0, 1.0])), call.__name__
    assert np.isnan(metrics.r2(np.zeros(0), np.zeros(0)))
    metric = metrics.Spearman(capacity=4)
    half = metric.update(metric.init(), preds=[1.0, 2.0, 3.0], target=[1.0, 3.0, 2.0], weight=[1.0, 2.0, 1.0])
    assert not metric.overflowed(half) and np.isfinite(metric.compute(half))
    twice = metric.merge(half, half)
    more = metric.update(half, preds=[1.0, 2.0], target=[1.0, 2.0])
    for state in (twice, more, metric.merge(metric.init(), more), metric.merge(more, metric.init())):
        assert metric.overflowed(state) and np.isnan(metric.compute(state))
    assert np.isnan(metrics.spearman([1.0, 2.0], [1.0, 2.0], weight=[1.0, -1.0]))


def test_metrics_of_one_statistic_share_a_state() -> None:
    errors = [metrics.MeanAbsoluteError(), metrics.RootMeanSquaredError(), metrics.NormalizedDeviation()]
    assert len({metric.statistic for metric in errors}) == 1
    moments = [metrics.R2(), metrics.AdjustedR2(2), metrics.RelativeSquaredError()]
    assert {metric.statistic for metric in moments} == {Moments("squared_errors")}
    ranks = [metrics.Spearman(9), metrics.Kendall(9), metrics.MedianAbsoluteError(9), metrics.RelativeAbsoluteError(9)]
    assert len({metric.statistic for metric in ranks}) == 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.mean_squared_error(np.zeros((4, 1)), np.zeros(4)), "preds[..., 0]"),
        (lambda: metrics.mean_squared_error(np.zeros(4, complex), np.zeros(4)), "real numbers"),
        (lambda: metrics.r2(np.zeros((4, 3)), np.zeros((4, 3)), outputs=2), "they are (..., 2)"),
        (lambda: metrics.R2(outputs=0), "positive integer; it is 0"),
        (lambda: metrics.R2(multioutput="raw"), "variance_weighted; it is 'raw'"),  # type: ignore[arg-type]
        (lambda: metrics.Pearson(multioutput="variance_weighted"), "it is 'variance_weighted'"),
        (lambda: metrics.AdjustedR2(features=-1), "at least 0; it is -1"),
        (lambda: metrics.TweedieDeviance(0.5), "between 0 and 1; it is 0.5"),
        (lambda: metrics.HuberLoss(0.0), "above 0; it is 0.0"),
        (lambda: metrics.PinballLoss(1.0), "between 0 and 1; it is 1.0"),
        (lambda: metrics.MeanAbsolutePercentageError(-1.0), "must not be negative"),
        (lambda: metrics.Kendall(capacity=0), "1 to 2^30 - 1"),
        (lambda: Moments("all"), "'values', 'errors', 'squared_errors', 'pairs'; it is 'all'"),  # type: ignore[arg-type]
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_additions_of_three_tenths_near_the_limit() -> None:
    """A mean squared error of 5e7 examples, of which the last thousand are added here."""
    metric = metrics.MeanSquaredError()
    value = float(np.float32(0.3) * np.float32(0.3))
    start = np.array([0.0, value * 4.9999e7, 0.0, 4.9999e7])[:, None]
    high = start.astype(np.float32)
    state = sums.Sums(jnp.asarray(high), jnp.asarray((start - high).astype(np.float32)))
    state = metric.update(state, preds=np.full(1000, 0.3, np.float32), target=np.zeros(1000, np.float32))
    assert sums.exact(state)[3, 0] == 5e7
    np.testing.assert_allclose(sums.exact(state)[1, 0], value * 5e7, rtol=1e-9)


def test_variance_of_huge_weights() -> None:
    draw = np.random.default_rng(6)
    x, weight = draw.normal(1e4, 1, 500).astype(np.float32), np.exp(draw.normal(55, 3, 500)).astype(np.float32)
    wide, w = x.astype(float), weight.astype(float)
    mean = np.average(wide, weights=w)
    np.testing.assert_allclose(metrics.variance(x, weight=weight), np.average((wide - mean) ** 2, weights=w), rtol=1e-5)


def test_integers_beyond_32_bits_are_refused_not_wrapped() -> None:
    for call in (
        lambda: metrics.mean_absolute_error(np.array([2**40]), np.array([0])),
        lambda: metrics.sum_of([2**40]),
        lambda: metrics.Sum().update(metrics.Sum().init(), preds=np.array([-(2**33)])),
        lambda: metrics.adjusted_rand_index(np.array([2**33, 0]), np.array([0, 1])),
    ):
        with pytest.raises(ValueError, match="do not fit in 32 bits"):
            call()
    assert float(metrics.sum_of(np.array([2**30, -(2**31)]))) == -(2**30)
    assert float(metrics.sum_of(np.array([2**32 - 1], np.uint64))) == 2**32


@pytest.mark.parametrize("decades", [(-31, -19), (-12, 0), (5, 17)])
def test_weights_of_any_scale_and_spread(decades: tuple[int, int]) -> None:
    for seed in range(3):
        draw = np.random.default_rng(seed)
        target = draw.normal(1e6, 1, 7).astype(np.float32)
        preds = (target + draw.normal(0, 1, 7)).astype(np.float32)
        weight = (10 ** draw.uniform(*decades, 7)).astype(np.float32)
        wide = [x.astype(np.float64) for x in (target, preds, weight)]
        want = peer.r2_score(wide[0], wide[1], sample_weight=wide[2])
        np.testing.assert_allclose(metrics.r2(preds, target, weight=weight), want, rtol=3e-6)
