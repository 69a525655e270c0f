"""Forecast metrics against their formulas in NumPy, scikit-learn, numerical integration and torchmetrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn import metrics as peer

from jaxdl import metrics

Q = (0.1, 0.5, 0.9)
FIXTURE = Path(__file__).parent.parent / "fixtures" / "metrics_regression.npz"


def _series() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(forecast [series, steps, quantiles], target [series, steps], weight [series, steps])."""
    draw = np.random.default_rng(0)
    target = draw.normal(20, 6, (12, 8)).round(1).astype(np.float32)
    forecast = target[..., None] + np.array([-5.0, 0.0, 5.0]) + draw.normal(0, 4, (12, 8, 1))
    return forecast.round(1).astype(np.float32), target, draw.random((12, 8)).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_quantile_losses(weighted: bool) -> None:
    forecast, target, weight = _series()
    w = weight if weighted else None
    wide = np.ones(target.shape) if w is None else w.astype(float)
    f, z = forecast.astype(float), target.astype(float)
    loss, share, covered = [], [], []
    for i, q in enumerate(Q):
        pinball = q * np.maximum(z - f[..., i], 0) + (1 - q) * np.maximum(f[..., i] - z, 0)
        loss.append(np.average(pinball, weights=wide))
        share.append(2 * (wide * pinball).sum() / (wide * np.abs(z)).sum())
        covered.append(np.average(z <= f[..., i], weights=wide))
        if w is None:
            want = peer.mean_pinball_loss(z.ravel(), f[..., i].ravel(), alpha=q)
            np.testing.assert_allclose(loss[-1], want)
    for call, want in ((metrics.quantile_loss, loss), (metrics.weighted_quantile_loss, share)):
        np.testing.assert_allclose(call(forecast, target, quantiles=Q, weight=w, average=None), want, rtol=1e-6)
        np.testing.assert_allclose(call(forecast, target, quantiles=Q, weight=w), np.mean(want), rtol=1e-6)
    np.testing.assert_allclose(metrics.quantile_coverage(forecast, target, quantiles=Q, weight=w), covered, rtol=1e-6)
    twice = metrics.quantile_loss(forecast[..., 1:2], target, quantiles=[0.5])
    np.testing.assert_allclose(2 * twice, np.abs(f[..., 1] - z).mean(), rtol=1e-6)


def test_points_beside_the_size_of_the_series_and_beside_a_naive_forecast() -> None:
    forecast, target, _ = _series()
    point, f, z = forecast[..., 1], forecast[..., 1].astype(float), target.astype(float)
    np.testing.assert_allclose(metrics.normalized_deviation(point, target), np.abs(f - z).sum() / z.sum(), rtol=1e-6)
    np.testing.assert_allclose(
        metrics.normalized_rmse(point, target), np.sqrt(np.mean((f - z) ** 2)) / np.abs(z).mean(), rtol=1e-6
    )
    draw = np.random.default_rng(1)
    history = draw.normal(20, 6, (12, 30)).astype(np.float32)
    gaps = np.abs(history[:, 12:].astype(float) - history[:, :-12])
    scale = metrics.seasonal_error(history, season=12)
    np.testing.assert_allclose(scale, gaps.mean(1), rtol=1e-6)
    want = np.mean(np.abs(f - z).mean(1) / gaps.mean(1))  # of each series, then over series
    np.testing.assert_allclose(metrics.mase(point, target, scale=scale), want, rtol=1e-6)
    root = metrics.seasonal_error(history, squared=True)
    squares = (np.diff(history.astype(float), axis=1) ** 2).mean(1)
    np.testing.assert_allclose(root, np.sqrt(squares), rtol=1e-6)
    np.testing.assert_allclose(
        metrics.rmsse(point, target, scale=root), np.sqrt(np.mean((f - z) ** 2 / squares[:, None])), rtol=1e-6
    )


def test_seasonal_error_of_padded_histories() -> None:
    history = np.array([[1.0, 2.0, 4.0, 8.0], [5.0, 5.0, np.nan, np.nan], [7.0, np.nan, np.nan, np.nan]], np.float32)
    got = jax.jit(lambda y: metrics.seasonal_error(y, mask=~np.isnan(history)))(history)
    np.testing.assert_allclose(got, [7 / 3, 0.0, np.nan])
    point, target = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)
    assert np.isnan(metrics.mase(point, target, scale=got)), "a series that never moved has no naive error"
    np.testing.assert_allclose(metrics.mase(point, target, scale=got, weight=got > 0), 3 / 7, rtol=1e-6)


def test_intervals() -> None:
    forecast, target, weight = _series()
    ends, (lower, upper), z = forecast[..., ::2], np.moveaxis(forecast[..., ::2].astype(float), -1, 0), target
    w, level = weight.astype(float), 0.8
    inside = (lower <= z) & (z <= upper)
    assert 0.2 < inside.mean() < 0.99
    np.testing.assert_allclose(
        metrics.interval_coverage(ends, target, weight=weight), np.average(inside, weights=w), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics.interval_width(ends, target, weight=weight), np.average(upper - lower, weights=w), rtol=1e-6
    )
    alpha = 1 - level
    score = upper - lower + 2 / alpha * ((lower - z) * (z < lower) + (z - upper) * (z > upper))
    np.testing.assert_allclose(
        metrics.interval_score(ends, target, level=level, weight=weight), np.average(score, weights=w), rtol=1e-6
    )
    scale = np.linspace(1, 3, 12).astype(np.float32)
    np.testing.assert_allclose(
        metrics.msis(ends, target, scale=scale, level=level), (score / scale.astype(float)[:, None]).mean(), rtol=1e-6
    )
    assert np.isnan(metrics.interval_coverage([[np.nan, 1.0]], [0.5]))


def test_crps_of_a_normal_against_integration() -> None:
    cases = [(0.0, 1.0, 0.3), (5.0, 0.1, 5.4), (1e4, 2.0, 9998.0), (0.0, 10.0, 60.0), (0.0, 1.0, 0.0)]
    for mean, deviation, z in cases:
        normal = stats.norm(mean, deviation)
        low, high = min(z, mean - 12 * deviation), max(z, mean + 12 * deviation)
        want = integrate.quad(lambda x, n=normal: n.cdf(x) ** 2, low, z, epsabs=1e-13)[0]
        want += integrate.quad(lambda x, n=normal: n.sf(x) ** 2, z, high, epsabs=1e-13)[0]
        got = metrics.gaussian_crps(np.float32([[mean, deviation]]), np.float32([z]))
        np.testing.assert_allclose(got, want, rtol=2e-6, err_msg=str((mean, deviation, z)))
    assert float(metrics.gaussian_crps([[1.0, 0.0]], [3.0])) == 2
    assert np.isnan(metrics.gaussian_crps([[1.0, -1.0]], [3.0]))
    far = metrics.gaussian_crps(np.float32([[0.0, 1e-3]]), np.float32([1e6]))
    np.testing.assert_allclose(far, 1e6, rtol=1e-6)


_crps = jax.jit(lambda x, z, mask: [metrics.crps(x, z, mask=mask, fair=fair) for fair in (False, True)])


@given(seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 1e4]), ties=st.booleans(), kept=st.integers(1, 16))
def test_crps_of_samples_against_all_pairs(seed: int, offset: float, ties: bool, kept: int) -> None:
    draw = np.random.default_rng(seed)
    x, z = draw.normal(size=(16, 7)) + offset, draw.normal(size=16) + offset
    x, z = (a.round(int(not ties) * 9).astype(np.float32) for a in (x, z))
    wide, centre = x.astype(float)[:kept], z.astype(float)[:kept]
    away = np.abs(wide - centre[:, None]).mean(1)
    apart = np.abs(wide[:, :, None] - wide[:, None]).sum((1, 2))
    want = [(away - apart / (2 * 49)).mean(), (away - apart / (2 * 42)).mean()]
    np.testing.assert_allclose(_crps(x, z, np.arange(16) < kept), want, rtol=2e-6, atol=1e-7)


def test_values_of_torchmetrics() -> None:
    kept = np.load(FIXTURE)

    @jax.jit  # in one program
    def found(preds: Any, target: Any, samples: Any) -> dict[str, Any]:
        return {
            "smape": metrics.symmetric_mean_absolute_percentage_error(preds, target),
            "rse": metrics.relative_squared_error(preds, target),
            "rrse": metrics.relative_squared_error(preds, target, root=True),
            "crps": metrics.crps(samples, target),
            "log_cosh": metrics.log_cosh(preds, target),
            "tweedie_1.5": metrics.tweedie_deviance(preds, target, power=1.5),
            "tweedie_3": metrics.tweedie_deviance(preds, target, power=3.0),
        }

    for key, value in found(kept["preds"], kept["target"], kept["samples"]).items():
        np.testing.assert_allclose(value, kept[key], rtol=2e-6, err_msg=key)


@pytest.mark.smoke
def test_undefined_is_nan() -> None:
    assert np.isnan(metrics.weighted_quantile_loss(np.ones((2, 1)), np.zeros(2), quantiles=(0.5,)))
    assert np.isnan(metrics.normalized_deviation([1.0], [0.0])) and np.isnan(metrics.normalized_rmse([1.0], [0.0]))
    assert np.isnan(metrics.crps([[1.0, np.nan]], [1.0])) and float(metrics.crps([[4.0]], [1.0])) == 3
    bad = np.float32([[np.nan, 1.0]])
    assert np.isnan(metrics.quantile_coverage(bad, [0.0], quantiles=(0.1, 0.9))).tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.quantile_loss(np.zeros((4, 2)), np.zeros(4)), "the last: (4, 9)"),
        (lambda: metrics.QuantileLoss((0.0, 0.5)), "between 0 and 1; they are (0.0, 0.5)"),
        (lambda: metrics.QuantileLoss(average="sum"), "'mean' or None"),  # type: ignore[arg-type]
        (lambda: metrics.mase(np.zeros((4, 2)), np.zeros((4, 2))), "needs scale="),
        (lambda: metrics.mase(np.zeros((4, 2)), np.zeros((4, 2)), scale=np.ones(3)), "one for each series, (4,)"),
        (lambda: metrics.seasonal_error(np.zeros((4, 12)), season=12), "no two values 12 steps apart"),
        (lambda: metrics.seasonal_error(np.zeros(9), season=0), "positive integer; it is 0"),
        (lambda: metrics.crps(np.zeros(4), np.zeros(4)), "samples have one more axis"),
        (lambda: metrics.crps(np.zeros((4, 1)), np.zeros(4), fair=True), "give at least 2"),
        (lambda: metrics.gaussian_crps(np.zeros((4, 3)), np.zeros(4)), "the last: (4, 2)"),
        (lambda: metrics.IntervalScore(level=90.0), "between 0 and 1, such as 0.9"),
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_gaussian_crps_far_from_a_narrow_forecast() -> None:
    assert np.isclose(metrics.gaussian_crps([[0.0, 1e-30]], [1e10]), 1e10)
    assert np.isclose(metrics.gaussian_crps([[0.0, 1e-20]], [-3e30]), 3e30)


def test_a_hole_in_the_history_takes_both_of_its_steps() -> None:
    history, there = np.array([[1.0, 2.0, 90.0, 5.0, 7.0]]), np.array([[True, True, False, True, True]])
    np.testing.assert_allclose(metrics.seasonal_error(history, mask=there), [1.5])  # 2 - 1 and 7 - 5
