"""Cross-entropy, log loss, Brier, perplexity, calibration: scikit-learn's and torchmetrics' numbers, and policies."""

from __future__ import annotations

import io
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
from scipy.special import log_softmax, softmax
from sklearn import metrics as peer
from sklearn.calibration import calibration_curve

from jaxdl import metrics
from jaxdl.metrics.calibration import CalibrationBins

KEPT = np.load(Path(__file__).parents[1] / "fixtures" / "metrics_classification.npz")
N, C = 64, 4
close = np.testing.assert_allclose


@pytest.mark.smoke
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_match_scikit_learn(weighted: bool) -> None:
    draw = np.random.default_rng(0)
    target = draw.integers(0, C, N)
    logits = draw.normal(0, 3, (N, C)).astype(np.float32)
    chances = softmax(logits.astype(float), axis=1)
    chances[0] = np.eye(C)[(target[0] + 1) % C]  # sure and wrong
    single, flags = chances.astype(np.float32)[:, 1], target == 1
    wide = draw.random(N).astype(np.float32) if weighted else None
    weight: dict[str, Any] = {"weight": wide}
    theirs: dict[str, Any] = {"sample_weight": None if wide is None else wide.astype(float)}
    rounded = chances.astype(np.float32)  # of which the peer takes the floor of float32
    close(metrics.log_loss(rounded, target, **weight), peer.log_loss(target, rounded, **theirs), rtol=1e-6)
    close(metrics.log_loss(single, flags, **weight), peer.log_loss(flags, single, **theirs), rtol=1e-6)
    assert np.isinf(metrics.cross_entropy(rounded, target))
    own = -log_softmax(logits.astype(float), axis=1)
    want = np.average(own[np.arange(N), target], weights=wide)
    close(metrics.cross_entropy(logits, target, from_logits=True, **weight), want, rtol=1e-6)
    close(metrics.perplexity(logits, target, from_logits=True, **weight), np.exp(want), rtol=1e-6)
    smooth = 0.8 * want + 0.2 * np.average(own.mean(1), weights=wide)
    got = metrics.cross_entropy(logits, target, from_logits=True, label_smoothing=0.2, **weight)
    close(got, smooth, rtol=1e-6)
    for halved in (False, True):
        want = peer.brier_score_loss(target, chances, scale_by_half=halved, **theirs)
        close(metrics.brier_score(rounded, target, halved=halved, **weight), want, rtol=1e-6)
    close(metrics.brier_score(single, flags, **weight), peer.brier_score_loss(flags, single, **theirs), rtol=1e-6)
    got = metrics.brier_score(logits, target, from_logits=True)
    close(got, peer.brier_score_loss(target, softmax(logits.astype(float), axis=1)), rtol=1e-6)


def test_losses_of_logits_do_not_saturate() -> None:
    logits, flags = np.float32([200.0, -200.0, 30.0]), [0, 1, 1]
    want = np.mean([200.0, 200.0, np.log1p(np.exp(-30.0))])
    close(metrics.cross_entropy(logits, flags, from_logits=True), want, rtol=1e-6)
    labels = metrics.cross_entropy(np.zeros((2, 3), np.float32), [[0, 1, 1], [0, 0, 1]], from_logits=True)
    close(labels, np.log(2), rtol=1e-6)
    close(metrics.cross_entropy(np.float32([[0.0, 1000.0]]), [0], from_logits=True), 1000.0)


@pytest.mark.smoke
def test_what_torchmetrics_gives() -> None:
    @jax.jit
    def errors(preds: Any, target: Any) -> dict[str, Any]:
        found = {}
        for bins in (10, 15):
            state = CalibrationBins(bins).update(CalibrationBins(bins).init(), preds=preds, target=target)
            for norm in ("l1", "l2", "max"):
                found[f"{norm}_{bins}"] = metrics.CalibrationError(bins, norm).compute(state)  # type: ignore[arg-type]
        return found

    for kind, preds, target in (("classes", "chances", "target"), ("binary", "binary", "flags")):
        for key, error in errors(KEPT[preds], KEPT[target]).items():
            close(error, KEPT[f"calibration_{kind}_{key}"], rtol=5e-6)  # float32 there
    got = metrics.perplexity(KEPT["logits"], KEPT["target"], from_logits=True, ignore_index=2)
    close(got, KEPT["perplexity"], rtol=1e-5)
    close(
        metrics.calibration_error(KEPT["logits"], KEPT["target"], from_logits=True),
        KEPT["calibration_classes_l1_15"],
        rtol=5e-6,
    )


@jax.jit
def _curve_of_ten(preds: Any, target: Any) -> Any:
    counts = CalibrationBins(10)
    return metrics.CalibrationCurve(10).compute(counts.update(counts.init(), preds=preds, target=target))


@given(seed=st.integers(0, 2**31), levels=st.sampled_from([3, 30, 10**6]))
def test_bins_are_those_of_scikit_learn(seed: int, levels: int) -> None:
    """Also where confidences lie on the edges: they belong to the bin below."""
    draw = np.random.default_rng(seed)
    preds, target = draw.integers(0, levels, N) / (levels - 1), draw.integers(0, 2, N)
    found = _curve_of_ten(preds, target)
    # the edges as this library sees them: rounded to float32, as the confidences are
    edges = np.linspace(0, 1, 11).astype(np.float32)
    places = np.searchsorted(edges[1:-1], preds.astype(np.float32))
    close(found["weight"], np.bincount(places, minlength=10))
    if levels > 100:  # where nothing lies on an edge both agree
        accuracy, confidence = calibration_curve(target, preds, n_bins=10)
        full = np.asarray(found["weight"]) > 0
        close(np.asarray(found["accuracy"])[full], accuracy, rtol=1e-6)
        close(np.asarray(found["confidence"])[full], confidence, rtol=1e-5)


def test_equal_masses() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(4, 3, 20_000).astype(np.float32)  # most are above 0.9
    target = draw.random(20_000) < 1 / (1 + np.exp(-logits))
    curve = metrics.calibration_curve(logits, target, bins=8, binning="mass", from_logits=True)
    close(curve["weight"], 2500, rtol=0.02)
    assert float(curve["weight"].sum()) == 20_000
    order = np.argsort(logits, kind="stable")
    chances = 1 / (1 + np.exp(-logits[order].astype(float)))
    close(curve["confidence"], chances.reshape(8, -1).mean(1), rtol=0.01)
    close(curve["accuracy"], target[order].reshape(8, -1).mean(1), atol=0.02)
    error = metrics.calibration_error(logits, target, bins=8, binning="mass", from_logits=True)
    gap = np.abs(chances.reshape(8, -1).mean(1) - target[order].reshape(8, -1).mean(1))
    close(error, gap.mean(), atol=2e-3)
    tied = metrics.calibration_curve(np.full(10, 0.5), np.arange(10) % 2, bins=3, binning="mass")
    assert tied["weight"].tolist() == [0, 10, 0], "equal confidences are not parted"
    ends = metrics.calibration_curve([0.0, 1.0, 0.0, 1.0], [0, 1, 0, 1], bins=2, binning="mass")
    assert ends["confidence"].tolist() == ends["accuracy"].tolist() == [0.0, 1.0]


@pytest.mark.smoke
def test_policies() -> None:
    calls: tuple[Callable[..., Any], ...] = (
        metrics.cross_entropy, metrics.log_loss, metrics.perplexity, metrics.brier_score, metrics.calibration_error,
    )  # fmt: skip
    both = [1.0, 1.0]
    for call in calls:
        assert np.isnan(call([0.2, np.nan], [0, 1], weight=both)), f"{call.__name__}: a NaN score"
        assert np.isnan(call([0.2, 3.0], [0, 1], weight=both)), f"{call.__name__}: a logit without from_logits"
        assert np.isnan(call([0.2, -0.1], [0, 1], weight=both)), call.__name__
        fine = call([0.2, 0.4], [0, 1], weight=[2.0, 0.0])
        assert np.isfinite(fine)
        close(call([0.2, np.nan], [0, 1], weight=[1.0, 0.0]), fine)
        close(call([0.2, 0.7], [0, 7], weight=both), fine, err_msg=f"{call.__name__}: 7 is no label")
        close(call([0.2, 0.7], [0, -1], weight=both, ignore_index=-1), fine)
        assert np.isnan(call([0.2, 0.4], [0, 1], weight=[0.0, 0.0])), f"{call.__name__}: of nothing"
    for metric in (metrics.LogLoss(), metrics.BrierScore(), metrics.CalibrationError()):
        state = metric.update(metric.init(), preds=[0.2, 0.7, 0.1], target=[0, 7, -1], weight=[1.0, 2.0, 4.0])
        assert float(metric.invalid(state)) == 6
    state = metrics.Perplexity(ignore_index=7).statistic.init()
    assert np.isnan(metrics.Perplexity().compute(state))
    assert metrics.Perplexity().statistic == metrics.CrossEntropy().statistic == metrics.LogLoss(floor=0.0).statistic
    half = metrics.brier_score(jnp.array([0.5, 1.0], jnp.bfloat16), [1, 1])
    assert float(half) == 0.125


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.log_loss([[0.1], [0.2]], [0, 1]), "give a distribution over the classes (2, 'classes')"),
        (lambda: metrics.brier_score([0.1, 0.2], [0, 1, 1]), "preds have shape (2,) and target (3,)"),
        (lambda: metrics.log_loss([0.1, 0.2], [0.0, 1.0]), "integer class ids"),
        (lambda: metrics.CrossEntropy(label_smoothing=1.0), "label_smoothing must be a number from 0 to below 1"),
        (lambda: metrics.LogLoss(floor=-1.0), "floor must be a number from 0 to below 1; it is -1.0"),
        (lambda: metrics.CalibrationError(0), "bins must be an integer from 1 to 4096; it is 0"),
        (lambda: metrics.CalibrationError(norm="l3"), "'l1', 'l2' or 'max'; it is 'l3'"),  # type: ignore[arg-type]
        (lambda: metrics.CalibrationCurve(binning="quantile"), "'width' or 'mass'; it is 'quantile'"),  # type: ignore[arg-type]
        (lambda: metrics.calibration_plot([{}], names=["a", "b"]), "1 curves but 2 names: a, b"),
    ],
)
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_plot_of_a_calibration_curve() -> None:
    pytest.importorskip("matplotlib")
    curve = metrics.CalibrationCurve(bins=5)
    state = curve.update(curve.init(), preds=KEPT["binary"], target=KEPT["flags"])
    figure = curve.plot(state, title="held out")
    figure.savefig(io.BytesIO(), dpi=30)
    line = figure.axes[0].lines[1]
    close(line.get_ydata(), np.asarray(curve.compute(state)["accuracy"]))
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["perfect", "model"]
