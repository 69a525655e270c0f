"""Exact curves, areas and operating points against scikit-learn and scipy, edges, and every sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
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
from tests.metrics.curve_values import expected, numbers

N = 64
EXACT = metrics.Exact(N)
NUMBERS = numbers(EXACT)
CURVES = {"roc": metrics.ROCCurve(scores=EXACT), "pr": metrics.PrecisionRecallCurve(scores=EXACT)}


@jax.jit
def _exact(preds: Any, target: Any, weight: Any, mask: Any) -> Any:
    state = EXACT.update(EXACT.init(), preds=preds, target=target, weight=weight, mask=mask)
    return {name: metric.compute(state) for name, metric in {**NUMBERS, **CURVES}.items()}


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
    for name, want in expected(p, y, w).items():
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
    for name, want in expected(scores, labels, times).items():
        value = read[name]
        value = value["value"] if isinstance(value, dict) else value
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-7, err_msg=name)


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
