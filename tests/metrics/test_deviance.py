"""Deviances against scikit-learn: near the target, far from it, at its powers, and out of their domain."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

from jaxdl import metrics


@pytest.mark.parametrize("near", [1.0, 1e-2, 1e-4])
def test_deviances_match_scikit_learn_also_close_to_the_target(near: float) -> None:
    draw = np.random.default_rng(5)
    target = draw.gamma(2.0, 3.0, 400).astype(np.float32)
    preds = (target * np.exp(near * draw.normal(size=400))).astype(np.float32)
    weight = draw.random(400).astype(np.float32)
    p, t, w = preds.astype(float), target.astype(float), weight.astype(float)
    for power in (-0.5, 0, 1, 1.5, 1.9, 2, 2.5, 3):
        share = (t - p) / p
        want = peer.mean_tweedie_deviance(t, p, power=power, sample_weight=w)
        if near < 1e-3 and power != 0:  # the closed form cancels in float64 too: its leading terms do not
            want = np.average(p ** (2 - power) * (share**2 - power / 3 * share**3), weights=w)
        got = metrics.tweedie_deviance(preds, target, power=power, weight=weight)
        np.testing.assert_allclose(got, want, rtol=3e-6, err_msg=f"power {power}")
    counts = draw.poisson(1.0, 400).astype(np.float32)
    np.testing.assert_allclose(
        metrics.poisson_deviance(preds, counts), peer.mean_poisson_deviance(counts.astype(float), p), rtol=1e-6
    )
    np.testing.assert_allclose(metrics.gamma_deviance(preds, target), metrics.tweedie_deviance(preds, target, power=2))
    amounts = np.where(counts == 0, 0, target)
    np.testing.assert_allclose(
        metrics.tweedie_deviance(preds, amounts, power=1.5),
        peer.mean_tweedie_deviance(amounts.astype(float), p, power=1.5),
        rtol=1e-6,
    )


def test_deviances_outside_of_their_domain_are_nan() -> None:
    for power, pred, target in ((1, 0.0, 1.0), (1, 1.0, -1.0), (2, 1.0, 0.0), (1.5, -1.0, 1.0), (3, 1.0, 0.0)):
        assert np.isnan(metrics.tweedie_deviance([pred, 1.0], [target, 1.0], power=power)), (power, pred, target)
        assert float(metrics.tweedie_deviance([pred, 1.0], [target, 1.0], power=power, weight=[0.0, 1.0])) == 0
    assert float(metrics.tweedie_deviance([-1.0], [2.0], power=0)) == 9
    assert float(metrics.poisson_deviance([1.0], [0.0])) == 2


@pytest.mark.parametrize("power", [1.0, 1.001, 1.5, 1.999, 2.0, 3.0])
def test_deviances_far_from_the_target_and_of_powers_near_one_and_two(power: float) -> None:
    draw = np.random.default_rng(5)
    target = draw.gamma(1.0, 1.0, 200).astype(np.float32)
    for spread in (0.5, 8.0):  # predictions off by a factor of 1e-9 still have a deviance
        preds = (target * np.exp(draw.normal(0, spread, 200))).astype(np.float32)
        p, t, q = preds.astype(np.longdouble), target.astype(np.longdouble), np.longdouble(power)
        if power == 1:
            want = 2 * (t * np.log(t / p) - t + p)
        elif power == 2:
            want = 2 * (np.log(p / t) + t / p - 1)
        else:
            want = 2 * (t ** (2 - q) / ((1 - q) * (2 - q)) - t * p ** (1 - q) / (1 - q) + p ** (2 - q) / (2 - q))
        np.testing.assert_allclose(metrics.tweedie_deviance(preds, target, power=power), want.mean(), rtol=3e-6)
    assert np.isclose(metrics.poisson_deviance([1e-8], [1.0]), 2 * (8 * np.log(10) - 1))
    with pytest.raises(ValueError, match="no distribution"):
        metrics.TweedieDeviance(power=float("nan"))
