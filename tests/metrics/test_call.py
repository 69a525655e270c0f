"""Metrics in one call: what is inferred, what is said, and labels as text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics

IDS = np.array([0, 1, 2, 1, 0], np.int32)


@pytest.mark.parametrize("given", [{"mask": [1, 1, 1, 1, 0]}, {"weight": [2.0, 1.0, 1.0, 1.0, 0.0]}])
def test_what_is_absent_is_no_class(given: dict[str, Any]) -> None:
    target = np.where(np.arange(5) == 4, 255, IDS).astype(np.int32)
    given = {key: np.asarray(value) for key, value in given.items()}
    assert metrics.confusion_matrix(IDS, target, **given).shape == (3, 3)
    assert metrics.adjusted_rand_index(IDS, target, **given) == 1
    facet = np.array([0, 1, 0, 1, 99], np.int32)
    assert metrics.demographic_parity_difference(IDS > 0, IDS > 0, facet=facet, **given).shape == ()


def test_what_was_left_out_or_did_not_fit_is_said() -> None:
    with pytest.warns(UserWarning, match="accuracy: weight 2 was left out") as caught:
        metrics.accuracy(IDS, np.where(IDS == 0, -1, IDS))
    assert {Path(warning.filename).name for warning in caught} == {"test_call.py"}
    with pytest.warns(UserWarning, match="auc: weight 3 was left out|auc: weight"):
        metrics.roc_auc(np.array([0.1, 0.9, 0.5]), np.array([-1, 2, 5]))
    with pytest.warns(UserWarning, match="more examples came than the capacity holds"):
        assert np.isnan(metrics.roc_auc(np.arange(5.0, dtype=np.float32), np.array([0, 1, 0, 1, 1]), capacity=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.accuracy(IDS, np.where(IDS == 0, -1, IDS), mask=IDS > 0)
        jax.jit(lambda x: metrics.accuracy(x, x - 1))(jnp.asarray(IDS))


def test_labels_as_text_do_not_depend_on_a_missing_value_elsewhere() -> None:
    reference = metrics.category_ids(np.array([3, 1, 2]))
    assert reference.names == ("1", "2", "3")
    live = metrics.category_ids(np.array([3.0, np.nan, 2.0]), reference.names)
    assert live.ids.tolist() == [2, 3, 1]
    assert metrics.category_ids([1, "a", 2.5, np.float32(2)]).names == ("1", "2", "2.5", "a")
    assert metrics.group_ids(np.array([1.0, 2.0, 7.0]), [2, 1]).tolist() == [1, 0, -1]


def test_one_ignored_id_and_no_list_of_them() -> None:
    with pytest.raises(ValueError, match="ignore_index must be one integer id, such as 255; it is"):
        metrics.ConfusionMatrix(3, ignore_index=(0, 1))  # type: ignore[arg-type]


def test_the_normal_interval_is_the_quantile_times_the_standard_deviation() -> None:
    values = np.random.default_rng(1).normal(2, 3, 50).astype(np.float32)
    key = jax.random.key(5)
    drawn = np.asarray(metrics.bootstrap(metrics.Mean(), key, 40, preds=values), np.float64)
    found = metrics.confidence_interval(metrics.Mean(), key, preds=values, resamples=40, method="normal", level=0.9)
    spread = 1.6448536 * drawn.std(ddof=1)
    np.testing.assert_allclose([found.low, found.high], [found.value - spread, found.value + spread], rtol=1e-5)


def test_a_curve_has_no_low_and_high_end() -> None:
    curve = metrics.ROCCurve(scores=metrics.Histogram())
    with pytest.raises(TypeError, match="roc is no single number"):
        jax.eval_shape(curve.bounded, curve.init())
