"""Metrics of classes and labels: scikit-learn's numbers, torchmetrics' where it has none, policies, sentences."""

from __future__ import annotations

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
from sklearn import metrics as peer

from jaxdl import metrics
from jaxdl.metrics import sums
from jaxdl.metrics.confusion import PairCounts

KEPT = np.load(Path(__file__).parents[1] / "fixtures" / "metrics_classification.npz")
N, C = 64, 5
close = np.testing.assert_allclose


def _data(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true ids of five classes, of which some never occur."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, C, N)
    preds = np.where(draw.random(N) < 0.6, target, draw.integers(0, C, N))
    if kind == "skewed":
        target, preds = np.where(draw.random(N) < 0.9, 0, target), np.where(draw.random(N) < 0.9, 0, preds)
    if kind == "a class is never true":
        target = np.where(target == 3, 1, target)
    if kind == "a class is never predicted":
        preds = np.where(preds == 2, 1, preds)
    if kind == "a class never occurs":
        target, preds = np.where(target == 4, 0, target), np.where(preds == 4, 1, preds)
    if kind == "one class":
        target = np.full(N, 2)
    return preds, target


KINDS = [
    "random", "skewed", "a class is never true", "a class is never predicted", "a class never occurs", "one class",
]  # fmt: skip
WEIGHTS = {
    "none": None,
    "random": np.random.default_rng(3).random(N).astype(np.float32),
    "spread": (10.0 ** np.random.default_rng(4).uniform(-6, 6, N)).astype(np.float32),
}
RATES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "precision": (metrics.Precision, peer.precision_score),
    "recall": (metrics.Recall, peer.recall_score),
    "f1": (metrics.F1, peer.f1_score),
    "f2": (lambda **fields: metrics.FBeta(**fields, beta=2.0), lambda *a, **k: peer.fbeta_score(*a, beta=2.0, **k)),
    "jaccard": (metrics.Jaccard, peer.jaccard_score),
}


@jax.jit
def _counted(preds: jax.Array, target: jax.Array, weight: jax.Array | None) -> sums.Sums:
    counts = PairCounts(C)
    return counts.update(counts.init(), preds=preds, target=target, weight=weight)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_rates_match_scikit_learn(kind: str, weights: str) -> None:
    preds, target = _data(kind)
    weight = WEIGHTS[weights]
    state = _counted(preds, target, weight)
    wide = None if weight is None else weight.astype(float)
    for name, (metric, theirs) in RATES.items():
        for zero in (0.0, 1.0, np.nan):
            same: dict[str, Any] = {"sample_weight": wide, "zero_division": zero}
            if name == "jaccard" and np.isnan(zero):
                continue  # the peer refuses it there
            for average, given_labels in (
                ("macro", None),
                ("weighted", None),
                ("micro", None),
                ("macro_all", range(C)),
            ):
                mode = average.removesuffix("_all")
                want = theirs(target, preds, average=mode, labels=given_labels, **same)
                got = metric(num_classes=C, average=average, zero_division=zero).compute(state)
                close(got, want, rtol=1e-6, err_msg=f"{name} {average} {zero}")
            want = theirs(target, preds, average=None, labels=range(C), **same)
            close(metric(num_classes=C, average=None, zero_division=zero).compute(state), want, rtol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_agreement_matches_scikit_learn(kind: str, weights: str) -> None:
    preds, target = _data(kind, 1)
    weight = WEIGHTS[weights]
    state = _counted(preds, target, weight)
    wide = None if weight is None else weight.astype(float)
    want = peer.matthews_corrcoef(target, preds, sample_weight=wide)
    close(metrics.MatthewsCorrelation(C, zero_division=0.0).compute(state), want, rtol=1e-6, atol=1e-7)
    for distance, theirs in (("equal", None), ("linear", "linear"), ("quadratic", "quadratic")):
        want = peer.cohen_kappa_score(target, preds, weights=theirs, labels=range(C), sample_weight=wide)
        close(metrics.CohenKappa(C, distance).compute(state), want, rtol=1e-6, atol=1e-7)  # type: ignore[arg-type]
    close(metrics.HammingLoss(C).compute(state), peer.hamming_loss(target, preds, sample_weight=wide), rtol=1e-6)
    right = peer.accuracy_score(target, preds, sample_weight=wide)
    close(metrics.Accuracy(num_classes=C).compute(state), right, rtol=1e-6)
    recalls = peer.recall_score(target, preds, average=None, labels=np.unique(target), sample_weight=wide)
    close(metrics.BalancedAccuracy(C).compute(state), recalls.mean(), rtol=1e-6)
    if len(recalls) > 1:
        with np.errstate(divide="ignore"):
            close(metrics.HarmonicMean(C).compute(state), len(recalls) / (1 / recalls).sum(), rtol=1e-6)
        adjusted = peer.balanced_accuracy_score(target, preds, sample_weight=wide, adjusted=True)
        close(metrics.BalancedAccuracy(C, adjusted=True).compute(state), adjusted, rtol=1e-6, atol=1e-7)
    close(metrics.GeometricMean(C).compute(state), recalls.prod() ** (1 / len(recalls)), rtol=1e-6)


@pytest.mark.smoke
def test_binary_rates_of_scores() -> None:
    draw = np.random.default_rng(2)
    target = draw.integers(0, 2, N)
    chances = np.float32(draw.random(N).round(1))  # some are the threshold itself, which is not above it
    preds = (chances > np.float32(0.3)).astype(int)
    (tn, fp), (fn, tp) = peer.confusion_matrix(target, preds)
    fields: dict[str, Any] = {"num_classes": 2, "average": "binary", "threshold": 0.3}
    for metric, want in (
        (metrics.precision, tp / (tp + fp)), (metrics.recall, tp / (tp + fn)), (metrics.specificity, tn / (tn + fp)),
        (metrics.negative_predictive_value, tn / (tn + fn)), (metrics.true_positive_rate, tp / (tp + fn)),
        (metrics.false_positive_rate, fp / (fp + tn)), (metrics.false_negative_rate, fn / (fn + tp)),
        (metrics.false_discovery_rate, fp / (fp + tp)), (metrics.f1, 2 * tp / (2 * tp + fp + fn)),
    ):  # fmt: skip
        close(metric(chances, target, **fields), want, rtol=1e-6)
    negative = metrics.f1(preds, target, num_classes=2, average="binary", pos_label=0)
    close(negative, peer.f1_score(target, preds, pos_label=0), rtol=1e-6)
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    harmonic = 2 * sensitivity * specificity / (sensitivity + specificity)
    close(metrics.harmonic_mean(preds, target), harmonic, rtol=1e-6)
    close(metrics.geometric_mean(preds, target), (sensitivity * specificity) ** 0.5, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_match_scikit_learn(weighted: bool) -> None:
    draw = np.random.default_rng(3)
    target, chances = draw.integers(0, 2, (N, 4)), draw.random((N, 4)).astype(np.float32)
    target[:, 3] = 0
    chances[:, 3] = 0.1  # a label that never occurs
    preds = (chances > 0.5).astype(int)
    weight = draw.random(N).astype(np.float32) if weighted else None
    wide = None if weight is None else weight.astype(float)
    metric = metrics.MultilabelConfusionMatrix(4)
    state = metric.update(metric.init(), preds=chances, target=target, weight=weight)
    close(metric.counts(state), peer.multilabel_confusion_matrix(target, preds, sample_weight=wide), rtol=1e-6)
    for name, (rate, theirs) in RATES.items():
        for average, mode in (("macro_all", "macro"), ("weighted", "weighted"), ("micro", "micro"), (None, None)):
            want = theirs(target, preds, average=mode, sample_weight=wide, zero_division=0)
            got = rate(num_labels=4, average=average, zero_division=0.0).compute(state)
            close(got, want, rtol=1e-6, err_msg=f"{name} {average}")
        present = theirs(target[:, :3], preds[:, :3], average="macro", sample_weight=wide)
        close(rate(num_labels=4).compute(state), present, rtol=1e-6)
    close(
        metrics.HammingLoss(num_labels=4).compute(state),
        peer.hamming_loss(target, preds, sample_weight=wide),
        rtol=1e-6,
    )
    got = metrics.exact_match(chances, target, num_labels=4, weight=weight)
    close(got, peer.accuracy_score(target, preds, sample_weight=wide), rtol=1e-6)
    table = peer.confusion_matrix(
        target.ravel(), preds.ravel(), sample_weight=None if wide is None else np.repeat(wide, 4)
    )
    (tn, fp), (fn, tp) = table
    want = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    close(metrics.MatthewsCorrelation(num_labels=4).compute(state), want, rtol=1e-6)


def test_what_torchmetrics_gives() -> None:
    chances, target = KEPT["chances"], KEPT["target"]
    labels: dict[str, Any] = {"num_labels": 4, "threshold": 0.3}
    for average in ("micro", "macro", "weighted", None):
        key = average or "none"
        got = metrics.specificity(chances, target, average=average)
        close(got, KEPT[f"specificity_classes_{key}"], rtol=1e-6)
        got = metrics.negative_predictive_value(chances, target, average=average)
        close(got, KEPT[f"npv_classes_{key}"], rtol=1e-6)
        got = metrics.specificity(KEPT["label_chances"], KEPT["label_target"], average=average, **labels)
        close(got, KEPT[f"specificity_labels_{key}"], rtol=1e-6)
    got = metrics.exact_match(KEPT["label_chances"], KEPT["label_target"], **labels)
    close(got, KEPT["exact_match_labels"], rtol=1e-6)
    got = metrics.exact_match(KEPT["places"], KEPT["place_target"], num_classes=2)
    close(got, KEPT["exact_match_places"], rtol=1e-6)
    got = metrics.matthews_correlation(KEPT["label_chances"], KEPT["label_target"], **labels)
    close(got, KEPT["matthews_labels"], rtol=1e-5)  # theirs is float32 throughout


_f1 = jax.jit(lambda preds, target, weight: metrics.f1(preds, target, num_classes=C, average=None, weight=weight))


@given(seed=st.integers(0, 2**31), classes=st.integers(1, C), spread=st.sampled_from([0, 3, 12]))
def test_f1_of_each_class_matches_scikit_learn(seed: int, classes: int, spread: int) -> None:
    draw = np.random.default_rng(seed)
    target, preds = draw.integers(0, classes, N), draw.integers(0, classes, N)
    weight = (10.0 ** draw.uniform(-spread, spread, N)).astype(np.float32)
    want = peer.f1_score(
        target, preds, average=None, labels=range(C), sample_weight=weight.astype(float), zero_division=np.nan
    )
    # a weight below 2^-30 of the largest is rounded when counted
    close(_f1(preds, target, weight), want, rtol=1e-6 if spread < 6 else 1e-3, atol=1e-7)


@pytest.mark.smoke
def test_counts_past_2_to_the_32_stay_exact_in_what_follows() -> None:
    """float32 counts stop at 2^24, int32 at 2^31; and one pair among 2^33 must still be seen."""
    start = 2**33 + 1
    high = np.float32(start)
    metric = metrics.FalsePositiveRate(2, average="binary")
    cells = [start, 0, 0, start, 0, 0]
    state = sums.Sums(
        jnp.asarray([high if cell else 0.0 for cell in cells], jnp.float32),
        jnp.asarray([np.float32(start - int(high)) if cell else 0.0 for cell in cells], jnp.float32),
    )
    update = jax.jit(lambda state: metric.update(state, preds=jnp.array([1, 0]), target=jnp.array([0, 0])))
    for _ in range(3):
        state = update(state)
    assert metrics.ConfusionMatrix(2).counts(state).tolist() == [[start + 3, 3], [0, start]]
    close(metric.compute(state), 3 / (start + 6), rtol=1e-6)
    close(metrics.HammingLoss(2).compute(state), 3 / (2 * start + 6), rtol=1e-6)
    close(1 - float(metrics.MatthewsCorrelation(2).compute(state)), 0, atol=1e-7)
    # a class that is nearly everything: what is left of it is no rounding error of the whole
    rare = metrics.Specificity(2, average="binary", pos_label=0)
    state = sums.Sums(jnp.asarray([high, 0, 2, 3, 0, 0], jnp.float32), jnp.zeros(6, jnp.float32))
    close(rare.compute(state), 0.6, rtol=1e-6)


def test_a_nan_score_makes_a_rate_nan_and_is_counted() -> None:
    scores = np.float32([[2, 1], [np.nan, 1], [0, 3]])
    matrix = metrics.ConfusionMatrix(2)
    state = matrix.update(matrix.init(), preds=scores, target=[0, 0, 1])
    fine = matrix.update(matrix.init(), preds=scores, target=[0, 0, 1], weight=[1.0, 0.0, 1.0])
    for average in ("macro", "micro", "weighted", "macro_all", None):
        assert np.isnan(metrics.F1(2, average=average).compute(state)).all(), average  # type: ignore[arg-type]
        assert np.all(np.asarray(metrics.F1(2, average=average).compute(fine)) == 1), average  # type: ignore[arg-type]
    for other in (
        metrics.MatthewsCorrelation(2), metrics.CohenKappa(2), metrics.BalancedAccuracy(2), metrics.HarmonicMean(2),
        metrics.GeometricMean(2), metrics.Accuracy(num_classes=2), metrics.HammingLoss(2),
    ):  # fmt: skip
        assert np.isnan(other.compute(state)), other.name
        assert float(other.compute(fine)) == (other.name != "hamming_loss"), other.name
    assert matrix.counts(state).tolist() == [[1, 0], [0, 1]] and float(matrix.invalid(state)) == 1
    report = metrics.ClassificationReport(2)
    assert report.table(state).splitlines()[-1] == "left out: 1 with an id out of range or a NaN score"
    labels = metrics.F1(num_labels=2, average=None)
    state = labels.update(labels.init(), preds=np.float32([[np.nan, 0.9], [0.6, 0.1]]), target=[[1, 1], [1, 0]])
    assert np.isnan(labels.compute(state)[0]) and float(labels.compute(state)[1]) == 1, "NaN stays with its label"
    assert float(labels.invalid(state)) == 1
    rows = np.float32([[0.9, 0.1], [np.nan, 0.1]])
    assert np.isnan(metrics.exact_match(rows, [[1, 0], [1, 0]], num_labels=2))
    assert float(metrics.exact_match(rows, [[1, 0], [1, 0]], num_labels=2, weight=[1.0, 0.0])) == 1


def test_out_of_range_is_left_out_and_counted_and_ignored_is_only_left_out() -> None:
    metric = metrics.F1(3, ignore_index=255)
    state = metric.update(metric.init(), preds=[0, 1, 2, 7, 1], target=[0, 255, 1, 1, -1], weight=[1.0, 2, 4, 8, 16])
    assert float(metric.invalid(state)) == 24
    assert metrics.ConfusionMatrix(3).counts(state).tolist() == [[1, 0, 0], [0, 0, 4], [0, 0, 0]]
    labels = metrics.MultilabelConfusionMatrix(2, ignore_index=-1)
    state = labels.update(labels.init(), preds=[[1, 2], [0, 1]], target=[[1, 1], [-1, -2]])
    assert float(labels.invalid(state)) == 2 and labels.counts(state)[0].tolist() == [[0, 0], [0, 1]]
    exact = metrics.ExactMatch(num_classes=3, ignore_index=-1)
    state = exact.update(
        exact.init(), preds=[[0, 1], [2, 2], [0, 0], [1, 9]], target=[[0, -1], [2, 1], [-1, -1], [1, 1]]
    )
    assert float(exact.compute(state)) == 0.5, "a row of nothing but padding is absent"
    assert float(exact.invalid(state)) == 1
    assert np.isnan(metrics.f1([0], [5], num_classes=2)) and np.isnan(metrics.hamming_loss([5], [0], num_classes=2))
    assert float(metrics.f1([0], [5], num_classes=2, zero_division=0.25)) == 0.25
    assert float(metrics.matthews_correlation([1, 1], [0, 1], zero_division=0.0)) == 0
    assert np.isnan(metrics.cohen_kappa([1, 1], [1, 1])) and np.isnan(metrics.matthews_correlation([1, 1], [0, 1]))


def test_one_state_serves_all_metrics_of_one_configuration() -> None:
    made = metrics.Collection(
        [
            metrics.Accuracy(num_classes=3), metrics.Precision(3), metrics.F1(3, average=None), metrics.CohenKappa(3),
            metrics.ConfusionMatrix(3), metrics.BalancedAccuracy(3), metrics.ClassificationReport(3),
        ]
    )  # fmt: skip
    state = made.update(made.init(), preds=np.array([0, 1, 2, 2]), target=np.array([0, 1, 1, 2]))
    assert len(jax.tree.leaves(state)) == 2, "one pair of sums"
    values = made.compute(state)
    assert float(values["accuracy"]) == 0.75 and float(values["classification_report"]["accuracy"]) == 0.75
    assert metrics.F1(3) == metrics.F1(3, zero_division=float("nan")) and hash(metrics.F1(3)) == hash(metrics.F1(3))
    assert metrics.F1(3).statistic == metrics.Accuracy(num_classes=3).statistic != metrics.F1(4).statistic


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.F1(), "f1: give num_classes= where one class excludes the others (2 for binary)"),
        (lambda: metrics.F1(3, 3), "both are given"),
        (lambda: metrics.F1(3, average="mean"), "'weighted', 'binary', 'samples' or None; it is 'mean'"),
        (lambda: metrics.F1(3, average="binary"), "needs num_classes=2; it is 3"),
        (lambda: metrics.F1(2, average="binary", pos_label=2), "pos_label must be 0 or 1; it is 2"),
        (lambda: metrics.F1(2, zero_division="warn"), "zero_division must be a number; it is 'warn'"),
        (lambda: metrics.F1(3, threshold=0.5), "splits one score in two, but num_classes is 3"),
        (lambda: metrics.F1(2, threshold=float("nan")), "threshold must be a number or None"),
        (lambda: metrics.F1(num_labels=0), "num_labels must be a positive integer; it is 0"),
        (lambda: metrics.FBeta(2, beta=-1.0), "beta must be a number from 0; it is -1.0"),
        (lambda: metrics.CohenKappa(2, "cubic"), "'equal', 'linear' or 'quadratic'; it is 'cubic'"),
        (lambda: metrics.Accuracy(top_k=2, num_classes=3), "top_k=2 is not read off counts"),
        (lambda: metrics.Accuracy(threshold=0.5), "accuracy: give num_classes="),
        (lambda: metrics.MultilabelConfusionMatrix(2, normalize="pred"), "'predicted' or 'all'; it is 'pred'"),
        (lambda: metrics.f1(np.zeros(4), np.zeros(4, int), num_classes=2), "give threshold=0.5 for probabilities"),
        (lambda: metrics.f1(np.zeros((4, 2)), np.zeros(4, int), num_classes=2, threshold=0.5), "give preds[..., 1]"),
        (lambda: metrics.f1(np.zeros((4, 3)), np.zeros((4, 3), int), num_labels=2), "with num_labels=2 it is [..., 2]"),
        (lambda: metrics.f1(np.zeros((4, 3)), np.zeros((4, 2), int), num_labels=2), "they must be the same"),
        (lambda: metrics.exact_match(np.zeros(4, int), np.zeros(4, int)), "rows of it are compared"),
        (lambda: metrics.f1([0, 1], [0, 1], avrage="micro"), "f1() has no argument 'avrage'; did you mean average?"),
        (lambda: jax.jit(metrics.f1)(np.zeros(4, int), np.zeros(4, int)), "inside jit the number of classes"),
    ],
)
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_report_matches_scikit_learn_and_prints() -> None:
    preds, target = _data("a class never occurs")
    found = metrics.classification_report(preds, target, num_classes=C, zero_division=0.0)
    want = peer.classification_report(target, preds, labels=range(C), output_dict=True, zero_division=0)
    for k in range(C):
        for ours, theirs in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            close(found[ours][k], want[str(k)][theirs], rtol=1e-6)
    close(found["weighted_f1"], want["weighted avg"]["f1-score"], rtol=1e-6)
    close(found["macro_f1"], want["macro avg"]["f1-score"] * C / (C - 1), rtol=1e-6)  # of the classes present
    lines = metrics.report_table(found, classes=["a", "b", "c", "d", "e"]).splitlines()
    assert lines[0].split() == ["precision", "recall", "f1", "support"]
    assert lines[5].split() == ["e", "0.0000", "0.0000", "0.0000", "0"]
    assert [line.split()[0] for line in lines[6:]] == ["macro", "weighted", "accuracy"]
    labels = metrics.report_table(metrics.classification_report([[1, 0]], [[1, 1]], num_labels=2))
    assert "micro mean" in labels and "accuracy" not in labels


def test_how_many_classes_one_call_sees() -> None:
    assert metrics.confusion_matrix([0, 1, 9], [0, 1, 255], ignore_index=255).shape == (2, 2)
    scores, target = np.float32([0.9, 0.6, 0.2]), np.array([1, 0, 1])
    assert float(metrics.precision(scores, target, threshold=0.5, average="binary")) == 0.5
    assert float(metrics.balanced_accuracy(scores, target, threshold=0.5)) == 0.25
    for preds in (scores, np.float32([[0.9, 0.1], [0.3, 0.7]])):
        with pytest.raises(TypeError, match=re.escape("num_labels= for labels that do not exclude each other")):
            metrics.f1(preds, np.zeros(preds.shape, int), threshold=None if preds.ndim == 1 else 0.5)
    with pytest.raises(ValueError, match=re.escape("drop the last axis: preds[..., 0]")):
        metrics.f1(np.zeros((3, 1), int), target)


def test_columns_of_tables_and_values_of_nothing() -> None:
    matrix = metrics.ConfusionMatrix(2)
    state = matrix.update(matrix.init(), preds=[0, 0, 0, 1], target=[0, 0, 1, 1])
    assert matrix.table(state).splitlines()[-2].split() == ["share", "75.0", "%", "25.0", "%"]
    assert matrix.per_class(state)["support"].tolist() == [2, 2]
    single = matrix.update(matrix.init(), preds=[0, 0, 0], target=[0, 1, 1])
    assert matrix.per_class(single)["support"].tolist() == [1, 2]
    assert float(metrics.cohen_kappa([1, 1], [1, 1], zero_division=0.5)) == 0.5
    labels = metrics.multilabel_confusion_matrix([[1], [1], [0]], [[1], [0], [0]], normalize="predicted")
    assert labels[0].tolist() == [[1.0, 0.5], [0.0, 0.5]]
