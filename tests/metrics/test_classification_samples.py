"""Rates of rows of labels, average="samples", against scikit-learn and by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose as close
from sklearn import metrics as peer

from jaxdl import metrics

SAMPLES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "precision": (metrics.Precision, peer.precision_score),
    "recall": (metrics.Recall, peer.recall_score),
    "f1": (metrics.F1, peer.f1_score),
    "f2": (partial(metrics.FBeta, beta=2.0), partial(peer.fbeta_score, beta=2.0)),
    "jaccard": (metrics.Jaccard, peer.jaccard_score),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_rates_of_rows_of_labels_match_scikit_learn(name: str) -> None:
    metric, theirs = SAMPLES[name]
    draw = np.random.default_rng(9)
    preds, target = (draw.integers(0, 2, (40, 5)).astype(np.int32) for _ in range(2))
    preds[::3], target[::4] = 0, 0  # rows without a label, on one side and on both
    weight = draw.random(40).astype(np.float32)
    state = jax.jit(lambda metric, **given: metric.update(metric.init(), **given), static_argnums=0)
    for zero in (0.0, 1.0, np.nan):
        if name == "jaccard" and np.isnan(zero):
            continue  # the peer refuses it there
        mean = metric(num_labels=5, average="samples", zero_division=zero)
        for w in (None, weight):
            wide = None if w is None else w.astype(float)
            want = theirs(target, preds, average="samples", zero_division=zero, sample_weight=wide)
            close(mean.compute(state(mean.statistic, preds=preds, target=target, weight=w)), want, rtol=1e-6)


def test_what_rows_of_labels_leave_out() -> None:
    metric = metrics.F1(num_labels=2, average="samples", ignore_index=9)
    target = np.array([[1, 0], [1, 7], [0, 9], [9, 9], [1, 1]])
    preds = np.array([[1, 1], [1, 1], [0, 1], [1, 1], [0, 1]])
    state = metric.update(metric.init(), preds=preds, target=target)
    # by hand: 2/3; of the first label alone 1; no positive label; nothing to look at; 2/3
    close(metric.compute(state), (2 / 3 + 1 + 2 / 3) / 3, rtol=1e-6)
    assert float(metric.invalid(state)) == 1
    zero = metrics.F1(num_labels=2, average="samples", ignore_index=9, zero_division=0.0)
    close(zero.compute(state), (2 / 3 + 1 + 0 + 2 / 3) / 4, rtol=1e-6)
    labels = metric.update(metric.init(), preds=preds[:1], target=target[:1], mask=np.array([[True, False]]))
    assert float(metric.compute(labels)) == 1
    scores = np.array([[0.9, np.nan], [0.9, 0.9]], np.float32)
    for one in (metric, zero):
        state = one.update(one.init(), preds=scores, target=target[:2])
        assert np.isnan(one.compute(state)) and float(one.invalid(state)) == 2
        hidden = one.update(one.init(), preds=scores, target=target[:2], mask=np.array([False, True]))
        assert float(one.compute(hidden)) == 1
    assert metrics.Recall(num_labels=2, average="samples").statistic == (
        metrics.TruePositiveRate(num_labels=2, average="samples").statistic
    )
    with pytest.raises(ValueError, match="needs num_labels="):
        metrics.Precision(4, average="samples")
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        metric.update(metric.init(), preds=preds[:2], target=target[:2], weight=np.ones((2, 2)))
