"""Areas of many classes and labels against scikit-learn, and what is absent, broken or out of range."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from sklearn import metrics as peer

from jaxdl import metrics

N = 64


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


@pytest.mark.parametrize(("average", "scores"), [("macro", None), ("weighted", metrics.Histogram())])
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
