"""Curves, their areas and operating points against scikit-learn and scipy, bounds, edges, and every sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn import metrics as peer

from jaxdl import metrics

N = 64
EXACT = metrics.Exact(N)
NUMBERS: dict[str, Any] = {
    "auc": metrics.ROCAUC(scores=EXACT),
    "partial": metrics.ROCAUC(scores=EXACT, max_fpr=0.3),
    "average_precision": metrics.AveragePrecision(scores=EXACT),
    "pr_auc": metrics.PRAUC(scores=EXACT),
    "ks": metrics.KolmogorovSmirnov(scores=EXACT),
    "eer": metrics.EqualErrorRate(scores=EXACT),
    "f2": metrics.BestThreshold(scores=EXACT, beta=2.0),
    "precision at 0.6": metrics.PrecisionAtRecall(0.6, scores=EXACT),
    "recall at 0.6": metrics.RecallAtPrecision(0.6, scores=EXACT),
}
CURVES = {"roc": metrics.ROCCurve(scores=EXACT), "pr": metrics.PrecisionRecallCurve(scores=EXACT)}


@jax.jit
def _exact(preds: Any, target: Any, weight: Any, mask: Any) -> Any:
    state = EXACT.update(EXACT.init(), preds=preds, target=target, weight=weight, mask=mask)
    return {name: metric.compute(state) for name, metric in {**NUMBERS, **CURVES}.items()}


def _expected(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, float]:
    p, w = p.astype(float), w.astype(float)
    fpr, tpr, _ = peer.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    precision, recall, _ = peer.precision_recall_curve(y, p, sample_weight=w)
    place = int(np.argmax(fpr + tpr > 1))  # the error rates are equal on the line to this point
    step = (1 - fpr[place - 1] - tpr[place - 1]) / (fpr[place] + tpr[place] - fpr[place - 1] - tpr[place - 1])
    f2 = 5 * precision * recall / np.maximum(4 * precision + recall, 1e-300)
    real = slice(0, -1)  # scikit-learn's last point has no threshold
    return {
        "auc": peer.roc_auc_score(y, p, sample_weight=w),
        "partial": peer.roc_auc_score(y, p, sample_weight=w, max_fpr=0.3),
        "average_precision": peer.average_precision_score(y, p, sample_weight=w),
        "pr_auc": peer.auc(recall, precision),
        "ks": np.abs(tpr - fpr).max(),
        "eer": fpr[place - 1] + step * (fpr[place] - fpr[place - 1]),
        "f2": f2[real].max(),
        "precision at 0.6": precision[real][recall[real] >= 0.6].max(),
        "recall at 0.6": recall[precision >= 0.6].max(),
    }


def _draw(seed: int, levels: int, scale: float, weights: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    preds = ((draw.integers(0, levels, N) - levels // 2) * scale).astype(np.float32)
    preds[draw.random(N) < 0.1] = draw.choice(np.float32([0.0, -0.0]))
    target = draw.integers(0, 2, N)
    target[0], target[1] = 0, 1
    weight = {"none": np.ones(N), "integers": draw.integers(1, 9, N), "skewed": 10.0 ** draw.uniform(-6, 6, N)}[weights]
    return preds, target, weight.astype(np.float32)


@given(
    seed=st.integers(0, 2**31),
    kept=st.integers(2, N),
    levels=st.sampled_from([1, 2, 5, 1000]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    weights=st.sampled_from(["none", "integers", "skewed"]),
)
def test_exact_numbers_match_scikit_learn(seed: int, kept: int, levels: int, scale: float, weights: str) -> None:
    preds, target, weight = _draw(seed, levels, scale, weights)
    got = _exact(preds, target, weight, np.arange(N) < kept)
    p, y, w = preds[:kept], target[:kept], weight[:kept]
    for name, want in _expected(p, y, w).items():
        if weights != "none" and name.endswith("0.6"):
            continue  # a rate that rounds to 0.6 may lie on either side
        value = got[name]["value"] if isinstance(got[name], dict) else got[name]
        np.testing.assert_allclose(value, want, rtol=3e-6, atol=2e-7, err_msg=name)
    roc = metrics.trim(got["roc"])
    fpr, tpr, thresholds = peer.roc_curve(y, p.astype(float), sample_weight=w.astype(float), drop_intermediate=False)
    np.testing.assert_allclose(roc.fpr, fpr, rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(roc.tpr, tpr, rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(roc.thresholds[1:], thresholds[1:].astype(np.float32))
    pr = metrics.trim(got["pr"])
    found = peer.precision_recall_curve(y, p.astype(float), sample_weight=w.astype(float))
    np.testing.assert_allclose(pr.precision, found[0][::-1], rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(pr.recall, found[1][::-1], rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(pr.thresholds[1:], found[2][::-1].astype(np.float32))
    # what a threshold promises it keeps
    cut = float(got["f2"]["threshold"])
    quality = peer.fbeta_score(y, p >= cut, beta=2, sample_weight=w.astype(float))
    np.testing.assert_allclose(got["f2"]["value"], quality, rtol=1e-6)


def test_ks_matches_scipy() -> None:
    preds, target, _ = _draw(3, 20, 1.0, "none")
    want = ks_2samp(preds[target == 1], preds[target == 0]).statistic
    np.testing.assert_allclose(metrics.kolmogorov_smirnov(preds, target), want, rtol=1e-6)


def test_operating_points_match_torchmetrics() -> None:
    kept = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics_curves.json").read_text())
    kinds = {"precision_at_recall": metrics.PrecisionAtRecall, "recall_at_precision": metrics.RecallAtPrecision}
    rates = list(kept["random"]["precision_at_recall"])

    @jax.jit
    def read(preds: Any, target: Any) -> Any:
        state = EXACT.update(EXACT.init(), preds=preds, target=target)
        numbers = {kind: NUMBERS[kind].compute(state) for kind in ("auc", "average_precision")}
        points = {f"{k} {r}": kinds[k](float(r), scores=EXACT).compute(state) for k in kinds for r in rates}
        return numbers, points

    for name, data in kept.items():
        numbers, points = read(np.float32(data["preds"]), np.int32(data["target"]))
        for kind, value in numbers.items():
            np.testing.assert_allclose(value, data[kind], rtol=1e-6)
        for key, found in points.items():
            kind, rate = key.split()
            value, threshold = data[kind][rate]
            np.testing.assert_allclose(found["value"], value, rtol=1e-6, err_msg=f"{name}, {key}")
            if value > 0:
                np.testing.assert_allclose(found["threshold"], threshold, rtol=1e-6, err_msg=f"{name}, {key}")
            else:  # where nothing is precise enough torchmetrics has no threshold
                assert np.isinf(found["threshold"])


def _binned(bins: Any) -> Any:
    names = {
        "auc": metrics.ROCAUC(scores=bins),
        "partial": metrics.ROCAUC(scores=bins, max_fpr=0.3),
        "average_precision": metrics.AveragePrecision(scores=bins),
        "pr_auc": metrics.PRAUC(scores=bins),
        "ks": metrics.KolmogorovSmirnov(scores=bins),
        "eer": metrics.EqualErrorRate(scores=bins),
        "f2": metrics.BestThreshold(scores=bins, beta=2.0),
        "precision at 0.6": metrics.PrecisionAtRecall(0.6, scores=bins),
        "recall at 0.6": metrics.RecallAtPrecision(0.6, scores=bins),
    }

    @jax.jit
    def run(preds: Any, target: Any, weight: Any) -> Any:
        state = bins.update(bins.init(), preds=preds, target=target, weight=weight)
        return {name: metric.bounded(state) for name, metric in names.items()}

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
    wanted = _expected(preds, target, weight)
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
        wanted, found = _expected(preds, target, ones), _few_bins[True](preds, target, ones)
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


@pytest.mark.smoke
def test_edges() -> None:
    def found(preds: Any, target: Any, *, weight: Any = None) -> Any:
        fill = N - len(preds)  # one shape, one compilation
        weight = [*(weight or [1.0] * len(preds)), *[0.0] * fill]
        preds, target = [*preds, *[np.nan] * fill], [*target, *[0] * fill]
        return _exact(np.float32(preds), np.int32(target), np.float32(weight), np.ones(N, bool))

    def auc(preds: Any, target: Any, *, weight: Any = None) -> float:
        return float(found(preds, target, weight=weight)["auc"])

    assert auc([0.0, -0.0], [0, 1]) == 0.5, "-0.0 and 0.0 are a tie"
    assert auc([1e-45, 0.0], [1, 0]) == 1.0, "a subnormal score is above 0"
    assert auc([np.inf, -np.inf, 0.0], [1, 0, 0]) == 1.0
    assert np.isnan(auc([0.1, np.nan], [0, 1]))
    assert auc([0.1, 0.2, np.nan], [0, 1, 1], weight=[1, 1, 0]) == 1.0
    assert np.isnan(auc([0.1, 0.2], [0, 1], weight=[1.0, -1.0]))
    assert np.isnan(auc([0.1, 0.2], [0, 1], weight=[1.0, np.inf]))
    assert auc([0.1, 0.2, 0.3], [0, 1, 0], weight=[3e38, 3e38, 1e38]) == 0.75, "the sums need not be numbers of float32"
    assert auc([0.1, 0.2, 0.3], [0, 1, 0], weight=[3e-36, 3e-36, 1e-36]) == 0.75
    for target in ([1, 1], [0, 0], []):
        values = found([0.1, 0.2][: len(target)], target)
        for name in ("auc", "partial", "ks", "eer"):
            assert np.isnan(values[name]), f"{name} of one label"
        assert np.isnan(values["roc"].fpr).all()
        assert np.isnan(values["average_precision"]) == (1 not in target)
        assert np.isnan(values["f2"]["value"]) == np.isnan(values["f2"]["threshold"]) == (1 not in target)
    assert np.isnan(metrics.roc_auc(np.zeros(0), np.zeros(0)))
    assert float(metrics.roc_auc(np.float32([[3, 1], [0, 9]]), np.array([False, True]))) == 1.0
    metric = metrics.ROCAUC(capacity=3)
    state = metric.update(metric.init(), preds=[0.1, 0.9, 0.5, 0.7], target=[0.0, 1.0, 2.0, -1.0])
    assert int(metric.invalid(state)) == 2 and float(metric.compute(state)) == 1.0
    state = metric.update(state, preds=[0.3], target=[1], weight=[0.0])
    assert int(state.length) == 2, "weight 0 takes no place"


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


def test_overflow_is_nan_and_says_so() -> None:
    metric = metrics.ROCAUC(capacity=4)
    half = metric.update(metric.init(), preds=[0.1, 0.9, 0.4], target=[0, 1, 1])
    assert not metric.overflowed(half) and float(metric.compute(half)) == 1.0
    twice = metric.merge(half, half)
    more = metric.update(half, preds=[0.1, 0.2], target=[0, 1])
    for state in (twice, more, metric.merge(metric.init(), more), metric.merge(more, metric.init())):
        assert metric.overflowed(state) and np.isnan(metric.compute(state))
    assert int(metric.merge(twice, twice).length) == 5, "the length saturates"


def test_weights_beyond_float32() -> None:
    """2^24 + 1 positives of weight 1 could not be counted in float32; here the totals are in float64."""
    metric = metrics.ROCAUC(capacity=8)
    big = float(2**24)
    preds, target = [0.0, 1.0, 2.0, 1.5], [1, 1, 0, 1]
    state = metric.update(metric.init(), preds=preds, target=target, weight=[big, 1.0, 1.0, big])
    state = metric.update(state, preds=[0.5], target=[0], weight=[big])
    wins = big * (big + 1)  # of negatives of weight big at 0.5: beaten by 1.0 and 1.5
    np.testing.assert_allclose(metric.compute(state), wins / ((2 * big + 1) * (big + 1)), rtol=1e-7)


@pytest.mark.parametrize("weights", ["none", "integers", "uniform"])
def test_large_and_crowded(weights: str) -> None:
    """Running sums in blocks: many blocks, all scores equal, and one positive at the very end."""
    draw = np.random.default_rng(4)
    n = 100_003
    weight = {"none": None, "integers": draw.integers(1, 5, n), "uniform": draw.random(n)}[weights]
    weight = None if weight is None else weight.astype(np.float32)
    target = draw.integers(0, 2, n).astype(np.int32)
    last = np.zeros(n, np.int32)
    last[-1] = 1
    for preds, labels in (
        (draw.normal(target, 1.0).astype(np.float32), target),
        (np.zeros(n, np.float32), target),
        (np.arange(n, 0, -1).astype(np.float32), last),
    ):
        want = peer.roc_auc_score(labels, preds, sample_weight=weight)
        np.testing.assert_allclose(metrics.roc_auc(preds, labels, weight=weight), want, rtol=1e-6, atol=1e-9)
        want = peer.average_precision_score(labels, preds, sample_weight=weight)
        np.testing.assert_allclose(metrics.average_precision(preds, labels, weight=weight), want, rtol=1e-6)


def test_one_sort_serves_all_metrics_and_resamples() -> None:
    collection = metrics.Collection({name: metric for name, metric in NUMBERS.items()})
    preds, target, _ = _draw(5, 1000, 1.0, "none")

    def both(key: Any) -> Any:
        state = collection.update(collection.init(), preds=preds, target=target)
        return collection.compute(state), metrics.bootstrap(NUMBERS["auc"], key, 50, preds=preds, target=target)

    text = jax.jit(lambda: both(jax.random.key(0))[0]).lower().compile().as_text()
    assert len(re.findall(r" sort\(", text)) == 1
    values, resamples = jax.jit(both)(jax.random.key(0))
    assert float(values["auc"]) == float(metrics.roc_auc(preds, target)) and np.std(resamples) > 0.01
    # in sorted order, zero weights inside and ties among them
    times = np.random.default_rng(1).integers(0, 3, N).astype(np.float32)
    tied = preds.round(-2)
    ordered = EXACT.sort(EXACT.update(EXACT.init(), preds=tied, target=target))
    drawn = ordered._replace(positive=ordered.positive * times, negative=ordered.negative * times)
    read = jax.jit(lambda drawn: {name: metric.of_sorted(drawn) for name, metric in NUMBERS.items()})(drawn)
    labels = (np.asarray(ordered.positive) > 0).astype(int)
    scores = np.asarray(ordered.score)
    for name, want in _expected(scores, labels, times).items():
        value = read[name]
        value = value["value"] if isinstance(value, dict) else value
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_classes_match_scikit_learn(weighted: bool) -> None:
    draw = np.random.default_rng(6)
    target = draw.integers(0, 4, N)
    preds = draw.normal(size=(N, 4)).round(1) + np.eye(4)[target]
    preds = (np.exp(preds) / np.exp(preds).sum(1, keepdims=True)).astype(np.float32)
    exact = preds.astype(float) / preds.astype(float).sum(1, keepdims=True)
    weight = draw.random(N).astype(np.float32) if weighted else None
    for average in ("macro", "weighted"):
        want = peer.roc_auc_score(target, exact, multi_class="ovr", average=average, sample_weight=weight)
        got = metrics.one_vs_rest_auc(preds, target, average=average, weight=weight)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        if not weighted:
            want = peer.roc_auc_score(target, exact, multi_class="ovo", average=average)
            np.testing.assert_allclose(metrics.one_vs_one_auc(preds, target, average=average), want, rtol=1e-6)
    labels = (draw.random((N, 4)) < 0.4).astype(np.int32)
    want = peer.roc_auc_score(labels, preds, average=None, sample_weight=weight)
    np.testing.assert_allclose(metrics.per_label_auc(preds, labels, average=None, weight=weight), want, rtol=1e-6)


def test_classes_that_are_absent_or_out_of_range() -> None:
    preds = np.float32([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.3, 0.4, 0.3]])
    pair = metrics.OneVsRest(metrics.ROCAUC(capacity=9), 3)
    one = metrics.OneVsOneAUC(3, capacity=9)
    assert pair.statistic == one.statistic, "they share a state"
    update = jax.jit(pair.update)
    state = update(pair.init(), preds=preds, target=np.array([0, 1, 5, 0]))
    assert int(pair.invalid(state)) == 1 and not pair.overflowed(state)
    kinds = (None, "macro", "macro_all")
    read = jax.jit(lambda s: [[replace(m, average=kind).compute(s) for kind in kinds] for m in (pair, one)])
    (each, macro, whole), (matrix, pairs, all_pairs) = read(state)
    assert np.isnan(each[2]) and float(macro) == float(each[:2].mean()) and np.isnan(whole)
    matrix = np.asarray(matrix)
    assert np.isnan(matrix.diagonal()).all() and np.isfinite(matrix[[0, 1], [1, 0]]).all()
    assert float(pairs) == matrix[[0, 1], [1, 0]].mean() and np.isnan(all_pairs)
    for _ in range(2):
        state = update(state, preds=preds, target=np.array([0, 1, 2, 0]))
    assert pair.overflowed(state) and all(np.isnan(kind).all() for values in read(state) for kind in values)


def test_no_gradient_and_half_precision() -> None:
    target = jnp.array([0, 1, 1])

    def loss(x: jax.Array, scores: Any) -> jax.Array:
        return jnp.sum(x) + metrics.roc_auc(x, target, scores=scores)

    for scores in (metrics.Exact(3), metrics.Histogram(from_logits=True)):
        gradient = jax.grad(loss)(jnp.array([0.1, 0.5, 0.3]), scores)
        np.testing.assert_array_equal(gradient, np.ones(3))
    assert float(metrics.roc_auc(jnp.array([0.0, 1.0], jnp.bfloat16), jnp.array([0, 1]))) == 1.0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.roc_auc(np.zeros((4, 3)), np.zeros(4, int)), "two classes"),
        (lambda: metrics.roc_auc(np.zeros(4), np.zeros(5, int)), "they must be the same"),
        (lambda: metrics.roc_auc(np.zeros(4, complex), np.zeros(4, int)), "must be real"),
        (lambda: metrics.ROCAUC(capacity=0), "1 to 2^30 - 1"),
        (lambda: metrics.ROCAUC(), "neither was given"),
        (lambda: metrics.ROCAUC(3, metrics.Histogram()), "both was given"),
        (lambda: metrics.ROCAUC(scores=4096), "Exact(capacity), Histogram() or Bits16(); it is 4096"),  # type: ignore[arg-type]
        (lambda: metrics.ROCAUC(3, max_fpr=0.0), "above 0 and at most 1"),
        (lambda: metrics.BestThreshold(3, beta=0.0), "above 0 and finite"),
        (lambda: metrics.PrecisionAtRecall(1.5, capacity=3), "between 0 and 1; it is 1.5"),
        (lambda: metrics.RecallAtPrecision(-0.5, capacity=3), "between 0 and 1; it is -0.5"),
        (lambda: metrics.Histogram(bins=3), "even number from 2"),
        (lambda: metrics.Histogram(limit=0.0), "above 0 and at most 80"),
        (lambda: metrics.Histogram(bins=2**20, limit=1.0), "no narrower than 2^-15"),
        (lambda: metrics.Bits16("float32"), "'bfloat16' or 'float16'"),  # type: ignore[arg-type]
        (lambda: metrics.roc_auc(np.zeros(4), np.zeros(4, int), scores=metrics.Bits16()), "must be bfloat16"),
        (lambda: metrics.roc_auc(np.zeros(4, int), np.zeros(4, int), scores=metrics.Histogram()), "float scores"),
        (lambda: metrics.one_vs_rest_auc(np.zeros((4, 3)), np.zeros((4, 3), int)), "(..., classes)"),
        (lambda: metrics.per_label_auc(np.zeros((4, 3)), np.zeros((4, 2), int)), "(..., labels)"),
        (lambda: metrics.one_vs_rest_auc(np.zeros((4, 3)), np.zeros(4)), "integer class ids"),
        (lambda: metrics.OneVsRest(metrics.ROCAUC(3), 1), "at least 2"),
        (lambda: metrics.PerLabel(metrics.ROCAUC(3), 0), "at least 1"),
        (lambda: metrics.OneVsOneAUC(3, 3, average="micro"), "'macro_all', 'weighted'; it is 'micro'"),  # type: ignore[arg-type]
        (lambda: _average_of_curves(), "give average=None"),
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def _average_of_curves() -> Any:
    metric = metrics.OneVsRest(metrics.ROCCurve(3), 2)
    return metric.compute(metric.init())


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    preds, target, _ = _draw(7, 1000, 1.0, "none")
    state = EXACT.update(EXACT.init(), preds=preds, target=target)
    figure = CURVES["roc"].plot(state, label="first")
    axes = figure.axes[0]
    area = float(metrics.roc_auc(preds, target))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"first (area {area:.4f})"]
    assert axes.get_xlabel() == "false positive rate" and len(axes.lines) == 2
    assert CURVES["roc"].plot(state, axes=axes) is figure and len(axes.lines) == 4
    figure = CURVES["pr"].plot(state)
    empty = [CURVES[name].plot(EXACT.init()).axes[0].get_legend().get_texts()[0].get_text() for name in ("roc", "pr")]
    assert empty == ["(area nan)", "(average precision nan)"]
    average = float(metrics.average_precision(preds, target))
    assert f"{average:.4f}" in figure.axes[0].get_legend().get_texts()[0].get_text()


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


@pytest.mark.parametrize("scores", [None, metrics.Histogram()])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_a_nan_score_of_one_class_makes_the_mean_nan(average: Any, scores: Any) -> None:
    """A class that never came is left out of the mean; one that broke is not."""
    preds = np.float32([[0.6, 0.3, 0.1], [0.2, 0.5, np.nan], [0.5, 0.1, 0.4], [0.3, 0.4, 0.3]])
    ids, labels = np.array([0, 1, 0, 1]), np.int32([[1, 0, 0], [0, 1, 1], [1, 0, 1], [0, 1, 0]])
    fine = np.array([1.0, 0.0, 1.0, 1.0], np.float32)
    for call, target in ((metrics.one_vs_rest_auc, ids), (metrics.per_label_auc, labels)):
        assert np.isnan(call(preds, target, average=average, scores=scores))
        assert np.isfinite(call(preds, target, average=average, scores=scores, weight=fine))
    each = metrics.per_label_auc(preds, labels, average=None, scores=scores)
    assert np.isfinite(each[:2]).all() and np.isnan(each[2])


def test_what_one_call_finds_out_itself() -> None:
    draw = np.random.default_rng(8)
    preds, ids = draw.random((N, 3)).astype(np.float32), draw.integers(0, 3, N)
    assert float(metrics.one_vs_rest_auc(preds, ids, num_classes=3)) == float(metrics.one_vs_rest_auc(preds, ids))
    labels = (preds > 0.5).astype(int)
    assert float(metrics.per_label_auc(preds, labels, num_labels=3)) == 1.0
    with pytest.raises(TypeError, match=re.escape("precision_at_recall() needs recall=")):
        metrics.precision_at_recall(preds[:, 0], labels[:, 0])


def test_what_merged_states_and_those_of_labels_tell() -> None:
    metric = metrics.ROCAUC(capacity=8)
    fine = metric.update(metric.init(), preds=[0.1, 0.9, 0.5], target=[0, 1, 2])
    broken = metric.update(metric.init(), preds=[np.nan, 0.5], target=[1, 3])
    for state in (metric.merge(fine, broken), metric.merge(broken, fine)):
        assert np.isnan(metric.compute(state)) and int(metric.invalid(state)) == 2
    labels = metrics.PerLabel(metric, 2)
    state = labels.update(labels.init(), preds=[[0.1, 0.2], [0.3, 0.4]], target=[[5, 0], [0, 7]])
    assert int(labels.invalid(state)) == 2
    half = jnp.array([0.1, 0.9, 0.5], jnp.bfloat16)
    for scores in (metrics.Exact(3), metrics.Histogram(), metrics.Bits16()):
        state = scores.update(scores.init(), preds=half, target=[0, 1, 0], weight=[1.0, 4.0, 2.0])
        assert float(scores.support(state)) == 4.0
