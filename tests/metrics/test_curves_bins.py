"""Areas and operating points of scores in bins: their bounds against scikit-learn, their edges, and 16 bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from jaxdl import metrics
from tests.metrics.curve_values import expected, numbers

N = 64
EXACT = metrics.Exact(N)


def _binned(bins: Any) -> Any:
    @jax.jit
    def run(preds: Any, target: Any, weight: Any) -> Any:
        state = bins.update(bins.init(), preds=preds, target=target, weight=weight)
        return {name: metric.bounded(state) for name, metric in numbers(bins).items()}

    return run


_few_bins = {logits: _binned(metrics.Histogram(bins=10, limit=4.0, from_logits=logits)) for logits in (False, True)}


@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.1, 1.0, 6.0]),
    logits=st.booleans(),
    whole=st.booleans(),
    skill=st.sampled_from([-2.0, 0.0, 1.0]),
)
def test_the_exact_value_lies_within_the_bounds(
    seed: int, spread: float, logits: bool, whole: bool, skill: float
) -> None:
    draw = np.random.default_rng(seed)
    target = draw.integers(0, 2, N)
    target[0], target[1] = 0, 1
    x = draw.normal(skill * target, spread).astype(np.float32)
    preds = x if logits else (1 / (1 + np.exp(-x))).astype(np.float32)
    weight = (np.ones(N) if whole else draw.uniform(0.1, 2, N)).astype(np.float32)
    wanted = expected(preds, target, weight)
    for name, found in _few_bins[logits](preds, target, weight).items():
        low, value, high = (float(found[key]) for key in ("low", "value", "high"))
        assert low - 1e-6 <= value <= high + 1e-6, name
        assert low - 1e-6 <= wanted[name] <= high + 1e-6, f"{name}: {wanted[name]} not in {low} .. {high}"
    area = _few_bins[logits](preds, target, weight)["auc"]
    np.testing.assert_allclose(area["high"] - area["value"], area["value"] - area["low"], rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_are_no_wider_than_what_a_bin_can_hide(seed: int) -> None:
    """In each bin all positives above all negatives, or below: the exact values are then the ends."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, 2, N)
    target[0], target[1] = 0, 1
    middle = (np.minimum(draw.integers(-5, 5, N) + target * draw.integers(0, 2, N), 4) + 0.5) * 0.8
    ones = np.ones(N, np.float32)
    ends = {
        "high": {"auc", "partial", "average_precision", "ks", "f2", "precision at 0.6", "recall at 0.6", "eer"},
        "low": {"auc", "partial", "pr_auc", "f2", "precision at 0.6", "recall at 0.6", "eer"},
    }
    for end, names in ends.items():
        sign = 1 if end == "high" else -1
        preds = (middle + sign * np.where(target == 1, 0.2, -0.2)).astype(np.float32)
        wanted, found = expected(preds, target, ones), _few_bins[True](preds, target, ones)
        for name in names:
            key = {"high": "low", "low": "high"}[end] if name == "eer" else end
            np.testing.assert_allclose(found[name][key], wanted[name], rtol=2e-6, err_msg=f"{name} {key}")


@pytest.mark.parametrize("shift", [-9.0, -6.0, 0.0, 9.0])
def test_crowded_scores_keep_their_area_in_bins_even_in_the_logit(shift: float) -> None:
    """Bins even in the probability report 0.50 for 0.76 when clicks are one in ten thousand."""
    draw = np.random.default_rng(0)
    logits = draw.normal(shift, 1.5, 200_000)
    target = (draw.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    preds = (1 / (1 + np.exp(-logits))).astype(np.float32)
    want = peer.roc_auc_score(target, preds)
    metric = metrics.ROCAUC(scores=metrics.Histogram())
    found = jax.jit(lambda p, y: metric.bounded(metric.update(metric.init(), preds=p, target=y)))(preds, target)
    assert abs(float(found["value"]) - want) < 5e-4
    assert float(found["low"]) <= want <= float(found["high"]) < float(found["low"]) + 3e-3
    flat = peer.roc_auc_score(target, np.floor(preds * 200))
    assert shift in (-6.0, 0.0) or abs(flat - want) > 0.1, "even bins would do: this test proves nothing"


def test_bins_rise_with_the_score_and_edges_are_thresholds() -> None:
    one = np.float32(1)
    bits = np.arange(0, one.view(np.int32) + 1, 9973, dtype=np.int32).view(np.float32)
    near = np.concatenate([bits, one - bits[bits < 0.01]])
    preds = np.sort(np.concatenate([near, np.float32([0, 1, 0.5])]))
    for histogram in (metrics.Histogram(), metrics.Histogram(bins=200, limit=5.0)):
        place = np.asarray(histogram._bin(jnp.asarray(preds)))
        assert place.min() == 0 and place.max() == histogram.bins - 1 and (np.diff(place) >= 0).all()
        edges = histogram.edges()
        assert (np.diff(edges) >= 0).all()
        # the lowest score of a bin is its edge: all in it are at least that, all below are less
        assert (preds >= edges[place]).all()
        above = np.minimum(place + 1, histogram.bins - 1)
        assert (preds < edges[above])[place < histogram.bins - 1].all()
    logits = metrics.Histogram(from_logits=True)
    below = np.nextafter(logits.edges()[1:], np.float32(-99))
    below[np.abs(below) < 1e-30] = -1e-30  # numbers that are not normal count as 0
    x = np.sort(np.concatenate([logits.edges(), below, [np.inf]])).astype(np.float32)
    place = np.asarray(logits._bin(jnp.asarray(x)))
    np.testing.assert_array_equal(place, np.searchsorted(logits.edges(), x, side="right") - 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_exact(dtype: str) -> None:
    draw = np.random.default_rng(2)
    target = draw.integers(0, 2, 3000).astype(np.int32)
    preds = (draw.normal(size=3000) * 10.0 ** draw.integers(-6, 4, 3000) * (target * 2 - 0.5)).astype(jnp.dtype(dtype))
    preds[:4] = np.array([0.0, -0.0, np.inf, -np.inf]).astype(preds.dtype)
    weight = draw.integers(0, 4, 3000).astype(np.float32)
    wide = np.clip(preds.astype(np.float32), -3e38, 3e38)
    bits = metrics.Bits16(dtype)  # type: ignore[arg-type]
    state = jax.jit(bits.update)(bits.init(), preds=preds, target=target, weight=weight)
    state = bits.merge(state, state)
    area, point = metrics.ROCAUC(scores=bits), metrics.BestThreshold(scores=bits)
    read = jax.jit(lambda state: (area.compute(state), point.compute(state)))
    got, best = read(state)
    np.testing.assert_allclose(got, peer.roc_auc_score(target, wide, sample_weight=weight), rtol=1e-7)
    cut = preds.astype(np.float32) >= float(best["threshold"])
    np.testing.assert_allclose(best["value"], peer.f1_score(target, cut, sample_weight=weight), rtol=1e-6)
    broken = bits.update(state, preds=np.array([np.nan]).astype(preds.dtype), target=np.array([1]))
    assert np.isnan(read(broken)[0])


def test_edges_of_a_histogram() -> None:
    metric = metrics.ROCAUC(scores=metrics.Histogram())
    update, compute = jax.jit(metric.update), jax.jit(metric.compute)

    def auc(preds: Any, target: Any, weight: Any = (1, 1, 1)) -> float:
        arrays = (np.float32(preds), np.int32(target), np.float32(weight))
        return float(compute(update(metric.init(), **dict(zip(("preds", "target", "weight"), arrays, strict=True)))))

    assert auc([0.0, 1.0, 0.5], [0, 1, 1]) == 1.0
    assert np.isnan(auc([0.2, 1.5, 0.1], [0, 1, 1])), "a logit is no probability"
    assert auc([0.2, 1.5, 0.1], [0, 1, 1], [1, 0, 1]) == 0.0, "absent"
    assert np.isnan(auc([0.2, np.nan, 0.1], [0, 1, 1])) and np.isnan(auc([0.2, 0.3, 0.1], [1, 1, 1]))
    assert np.isnan(auc([0.2, 0.3, 0.1], [0, 1, 1], [1, -1, 1]))
    assert np.isnan(auc([0.2, 0.3, 0.1], [0, 1, 1], [1, np.inf, 1]))
    assert np.isnan(auc([0.2, 0.3, 0.1], [0, 1, 1], [1, np.nan, 1]))
    state = metric.update(metric.init(), preds=[0.2, 0.3, 0.4], target=[0, 1, 7], weight=[1.0, 1.0, 3.0])
    assert float(metric.invalid(state)) == 3 and float(metric.compute(state)) == 1.0
    assert not metric.overflowed(state)
    two = metrics.roc_auc(np.float32([[2, 1], [-3, 9]]), [0, 1], scores=metrics.Histogram(from_logits=True))
    assert float(two) == 1.0
    # 2^33 of each label: far beyond int32 and float32
    many = metric.update(metric.init(), preds=[0.2, 0.3, 0.3], target=[0, 1, 0], weight=[2.0**33, 2.0**33, 2.0**33])
    assert float(metric.compute(metric.merge(many, many))) == 0.75


def test_all_of_49_positives_are_a_recall_of_1() -> None:
    """Compiled, a division by one number is a product with its inverse, and 49 * (1 / 49) is below 1."""
    target = np.repeat([1, 0], [49, 15])
    preds = np.linspace(1, 0, N).astype(np.float32)
    for scores in (EXACT, metrics.Histogram()):
        found = metrics.precision_at_recall(preds, target, recall=1.0, scores=scores)
        assert float(found["value"]) == 1.0 and 0.2 < float(found["threshold"]) <= preds[48]
    metric = metrics.PrecisionAtRecall(1.0, scores=metrics.Histogram())
    found = metric.bounded(metric.update(metric.init(), preds=preds, target=target))
    assert float(found["low"]) == float(found["high"]) == 1.0


def test_without_negatives_the_area_has_no_room() -> None:
    metric = metrics.PRAUC(scores=metrics.Histogram(bins=4))
    found = metric.bounded(metric.update(metric.init(), preds=[0.9, 0.8, 0.1], target=[1, 1, 0]))
    assert [float(found[key]) for key in ("value", "low", "high")] == [1.0, 1.0, 1.0]
