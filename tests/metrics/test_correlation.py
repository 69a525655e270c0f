"""Correlations against SciPy, and Kendall with fractional weights by hand."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxdl import metrics

N = 64


_correlations = jax.jit(
    lambda p, t, w, mask: [
        f(p, t, weight=w, mask=mask) for f in (metrics.pearson, metrics.spearman, metrics.kendall, metrics.concordance)
    ]
)


@given(
    seed=st.integers(0, 2**31),
    kept=st.integers(8, N),
    levels=st.sampled_from([3, 10, 10_000]),
    offset=st.sampled_from([0.0, 1e4]),
    weights=st.sampled_from(["none", "integers"]),
)
def test_correlations_match_scipy(seed: int, kept: int, levels: int, offset: float, weights: str) -> None:
    draw = np.random.default_rng(seed)
    target = draw.integers(0, levels, N) / levels * 4
    preds = (target + draw.integers(0, levels, N) / levels * 4) + offset
    preds, target = preds.astype(np.float32), target.astype(np.float32)
    preds[:2], target[:2] = [offset, offset + 1], [0, 1]
    times = draw.integers(0, 4, N) if weights == "integers" else np.ones(N, int)
    times[:2] = 1
    got = _correlations(preds, target, times.astype(np.float32), np.arange(N) < kept)
    p, t = (np.repeat(x[:kept], times[:kept]).astype(float) for x in (preds, target))
    cov = np.cov(p, t, ddof=0)
    want = [
        stats.pearsonr(p, t)[0],
        stats.spearmanr(p, t)[0],
        stats.kendalltau(p, t)[0],
        2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (p.mean() - t.mean()) ** 2),
    ]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=3e-7)


def test_kendall_in_long_and_with_fractional_weights() -> None:
    draw = np.random.default_rng(2)
    x = draw.normal(size=3000).astype(np.float32)
    y = (x + draw.normal(size=3000)).astype(np.float32)
    np.testing.assert_allclose(metrics.kendall(x, y), stats.kendalltau(x, y)[0], rtol=1e-6)
    np.testing.assert_allclose(metrics.kendall(x, x), 1.0)
    np.testing.assert_allclose(metrics.kendall(x, -x), -1.0)
    x, y, w = x[:200].round(1), y[:200].round(1), draw.random(200).astype(np.float32).astype(float)
    sign = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    pair = w[:, None] * w
    below = ((x[:, None] != x) * pair).sum() * ((y[:, None] != y) * pair).sum()
    got = metrics.kendall(x, y, weight=w.astype(np.float32))
    np.testing.assert_allclose(got, (sign * pair).sum() / below**0.5, rtol=1e-6)
