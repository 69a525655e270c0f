"""Clusterings: values against scikit-learn, weights as repeats, streams far from the origin, policies, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given

from jaxdl import metrics
from jaxdl.metrics import sums

_update = jax.jit(lambda statistic, inputs: statistic.update(statistic.init(), **inputs), static_argnums=0)
_compute = jax.jit(lambda metric, state: metric.compute(state), static_argnums=0)


def value(metric: Any, **inputs: Any) -> float:
    """One metric's value, compiled once for each configuration and shape."""
    return float(_compute(metric, _update(metric.statistic, inputs)))


CLASSES, CLUSTERS, COUNT = 6, 5, 120
LABELS: dict[Any, Callable[..., float]] = {
    metrics.RandIndex(CLASSES, CLUSTERS): reference.rand_score,
    metrics.AdjustedRandIndex(CLASSES, CLUSTERS): reference.adjusted_rand_score,
    metrics.FowlkesMallows(CLASSES, CLUSTERS): reference.fowlkes_mallows_score,
    metrics.MutualInformation(CLASSES, CLUSTERS): reference.mutual_info_score,
    metrics.Homogeneity(CLASSES, CLUSTERS): reference.homogeneity_score,
    metrics.Completeness(CLASSES, CLUSTERS): reference.completeness_score,
    metrics.VMeasure(CLASSES, CLUSTERS, beta=2.0): lambda t, p: reference.v_measure_score(t, p, beta=2.0),
}
for _average in ("arithmetic", "geometric", "min", "max"):
    LABELS[metrics.NormalizedMutualInformation(CLASSES, CLUSTERS, average=_average)] = (  # type: ignore[arg-type]
        lambda t, p, average=_average: reference.normalized_mutual_info_score(t, p, average_method=average)
    )
    LABELS[metrics.AdjustedMutualInformation(CLASSES, CLUSTERS, average=_average)] = (  # type: ignore[arg-type]
        lambda t, p, average=_average: reference.adjusted_mutual_info_score(t, p, average_method=average)
    )


def labellings() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(5)
    classes = draw.integers(0, CLASSES, COUNT)
    one = np.zeros(COUNT, int)
    return {
        "random": (draw.integers(0, CLUSTERS, COUNT), classes),
        "related": (np.where(draw.random(COUNT) < 0.3, draw.integers(0, CLUSTERS, COUNT), classes % CLUSTERS), classes),
        "same": (classes % CLUSTERS, classes % CLUSTERS),
        "one cluster": (one, classes),
        "one class": (classes % CLUSTERS, one),
        "one of each": (one, one),
        "skewed": ((draw.random(COUNT) < 0.03).astype(int), (draw.random(COUNT) < 0.97).astype(int)),
        "classes missing": (1 + draw.integers(0, 2, COUNT), 2 + draw.integers(0, 3, COUNT)),
    }


@pytest.mark.parametrize("name", labellings())
def test_labels_are_scikit_learns(name: str) -> None:
    clusters, classes = labellings()[name]
    state = _update(metrics.RandIndex(CLASSES, CLUSTERS).statistic, {"preds": clusters, "target": classes})
    for metric, function in LABELS.items():
        got = float(_compute(metric, state))
        np.testing.assert_allclose(got, function(classes, clusters), rtol=1e-6, atol=2e-7, err_msg=repr(metric))


@given(
    clusters=hnp.arrays(np.int32, 20, elements=st.integers(0, 4)),
    classes=hnp.arrays(np.int32, 20, elements=st.integers(0, 5)),
    names=st.permutations(range(5)),
)
def test_names_do_not_matter(clusters: np.ndarray, classes: np.ndarray, names: list[int]) -> None:
    named = np.asarray(names, np.int32)[clusters]
    for metric, function in (
        (metrics.AdjustedMutualInformation(6, 5), reference.adjusted_mutual_info_score),
        (metrics.AdjustedRandIndex(6, 5), reference.adjusted_rand_score),
    ):
        got = value(metric, preds=clusters, target=classes)
        np.testing.assert_allclose(value(metric, preds=named, target=classes), got, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(got, function(classes, clusters), rtol=1e-6, atol=1e-6)


@pytest.mark.smoke
def test_large_counts() -> None:
    """A table of 4e9 examples: the scatter of a stream cannot be waited for, its state can be written."""
    counts = np.array([[2e9, 3e8], [1e8, 1.6e9]])
    metric = metrics.AdjustedRandIndex(2, 2)
    state = sums.Sums(jnp.asarray([*counts.ravel(), 0.0], jnp.float32), jnp.zeros(5, jnp.float32))
    total, squares = counts.sum(), (counts**2).sum()
    rows, columns = (counts.sum(1) ** 2).sum(), (counts.sum(0) ** 2).sum()
    index, chance = squares - total, (rows - total) * (columns - total) / (total * (total - 1))
    want = (index - chance) / ((rows + columns) / 2 - total - chance)
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)
    # with 1e6 examples scikit-learn still follows
    thousand = counts.ravel() / 4e3
    classes, clusters = np.repeat([0, 0, 1, 1], thousand.astype(int)), np.repeat([0, 1, 0, 1], thousand.astype(int))
    state = sums.Sums(jnp.asarray([*thousand, 0.0], jnp.float32), jnp.zeros(5, jnp.float32))
    want = reference.adjusted_mutual_info_score(classes, clusters)
    np.testing.assert_allclose(metrics.AdjustedMutualInformation(2, 2).compute(state), want, rtol=1e-6)


def blobs(count: int = 90, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(9)
    clusters = draw.integers(0, 4, count)
    points = draw.normal(size=(count, 3)) + np.array([0, 3, 6, 6.5])[clusters][:, None] + shift
    return points.astype(np.float32), clusters


POINTS: dict[str, tuple[Callable[[int], Any], Callable[..., float]]] = {
    "silhouette": (lambda k: metrics.Silhouette(k, 3, 100), reference.silhouette_score),
    "davies_bouldin": (lambda k: metrics.DaviesBouldin(k, 3, 100), reference.davies_bouldin_score),
    "calinski_harabasz": (lambda k: metrics.CalinskiHarabasz(k, 3), reference.calinski_harabasz_score),
    "wcss": (
        lambda k: metrics.WithinClusterSumOfSquares(k, 3),
        lambda x, c: sum(((x[c == k] - x[c == k].mean(0)) ** 2).sum() for k in np.unique(c)),
    ),
}


@pytest.mark.parametrize("name", POINTS)
def test_points_are_scikit_learns(name: str) -> None:
    make, function = POINTS[name]
    metric = make(5)  # cluster 4 is empty
    for shift, scale in ((0.0, 1.0), (1e4, 1.0), (0.0, 1e-12), (0.0, 1e9)):
        points, clusters = blobs(shift=shift)
        points *= np.float32(scale)
        got = value(metric, preds=clusters, points=points)
        # scikit-learn takes small distances for 0 in Davies-Bouldin: no scale changes its value
        divisor = scale if name == "davies_bouldin" else 1.0
        want = function(points.astype(np.float64) / divisor, clusters)
        np.testing.assert_allclose(got, want, rtol=2e-6, err_msg=f"{shift} {scale}")
    points, clusters = blobs()
    clusters[clusters == 3] = 2
    clusters[0] = 3  # alone
    got = value(metric, preds=clusters, points=points)
    np.testing.assert_allclose(got, function(points.astype(np.float64), clusters), rtol=2e-6)


def test_weights_are_repeats_and_noise_is_counted() -> None:
    points, clusters = blobs()
    times = np.random.default_rng(1).integers(0, 3, 90)
    again = np.repeat(np.arange(90), times)
    for make, function in POINTS.values():
        got = value(make(4), preds=clusters, points=points, weight=times.astype(np.float32))
        want = function(points[again].astype(np.float64), clusters[again])
        np.testing.assert_allclose(got, want, rtol=2e-6)
    noise = np.where(clusters == 1, -1, clusters)
    metric = metrics.WithinClusterSumOfSquares(4, 3)
    state = _update(metric.statistic, {"preds": noise, "points": points})
    assert float(metric.invalid(state)) == np.sum(clusters == 1)
    kept = clusters != 1
    np.testing.assert_allclose(_compute(metric, state), POINTS["wcss"][1](points[kept], clusters[kept]), rtol=2e-6)


def test_a_stream_far_from_the_origin() -> None:
    points, clusters = blobs(shift=3e4)
    metric = metrics.CalinskiHarabasz(4, 3)
    step = jax.jit(lambda state, preds, points: metric.update(state, preds=preds, points=points))
    state = metric.init()
    for k in range(0, 90, 15):
        state = step(state, clusters[k : k + 15], points[k : k + 15])
    want = reference.calinski_harabasz_score(points.astype(np.float64), clusters)
    np.testing.assert_allclose(_compute(metric, state), want, rtol=2e-6)


def test_what_is_undefined() -> None:
    points, clusters = blobs()
    none = np.zeros(90, bool)
    for metric in LABELS:
        assert np.isnan(_compute(metric, metric.init())), metric
    for make, _ in POINTS.values():
        assert np.isnan(value(make(4), preds=clusters, points=points, mask=none))
    for name in ("silhouette", "davies_bouldin", "calinski_harabasz"):
        assert np.isnan(value(POINTS[name][0](4), preds=np.zeros(90, int), points=points)), f"{name}: one cluster"
    assert np.isnan(value(metrics.Silhouette(90, 3, 100), preds=np.arange(90), points=points))
    bad = points.copy()
    bad[7, 1] = np.nan
    seen = np.arange(90) != 7
    for make, function in POINTS.values():
        assert np.isnan(value(make(4), preds=clusters, points=bad))
        masked = value(make(4), preds=clusters, points=bad, mask=seen)
        np.testing.assert_allclose(masked, function(points[seen].astype(np.float64), clusters[seen]), rtol=2e-6)
    fraction = value(metrics.AdjustedMutualInformation(4, 4), preds=clusters, target=clusters, weight=np.full(90, 0.3))
    assert np.isnan(fraction), "chance needs whole counts"
    assert value(metrics.Homogeneity(4, 4), preds=clusters, target=clusters, weight=np.full(90, 0.3)) == 1.0


def test_a_full_buffer_says_so() -> None:
    points, clusters = blobs()
    metric = metrics.DaviesBouldin(4, 3, capacity=89)
    state = _update(metric.statistic, {"preds": clusters, "points": points})
    assert bool(metric.overflowed(state)) and np.isnan(_compute(metric, state))
    masked = _update(metric.statistic, {"preds": clusters, "points": points, "mask": np.arange(90) > 0})
    assert not bool(metric.overflowed(masked)) and not np.isnan(_compute(metric, masked))
    assert bool(metric.overflowed(metric.merge(masked, masked)))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: metrics.RandIndex(0, 3), ValueError, "rand_index: num_classes must be an integer from 1 to 32768"),
        (lambda: metrics.VMeasure(3, 3, beta=-1.0), ValueError, "v_measure: beta must be at least 0"),
        (lambda: metrics.NormalizedMutualInformation(2, 2, average="mean"), ValueError, "average must be one of"),  # type: ignore[arg-type]
        (lambda: metrics.rand_index([0.5, 1.0], [0, 1]), TypeError, "preds must be integer class ids"),
        (lambda: metrics.rand_index([0, 1, 1], [0, 1]), ValueError, "they must be the same"),
        (lambda: metrics.Silhouette(2, 3, 0), ValueError, "silhouette: capacity must be a positive integer"),
        (
            lambda: metrics.silhouette(np.zeros(3, int), points=np.zeros((3, 2)), features=3),
            ValueError,
            r"points have shape \(3, 2\) and preds.*with features=3 points must be \(3, 3\)",
        ),
        (lambda: metrics.davies_bouldin(np.zeros(3, int)), (TypeError, KeyError), "points"),
    ],
)
def test_refusals(call: Callable[[], Any], error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


def test_equal_partitions_that_chance_always_gives_are_equal() -> None:
    assert float(metrics.adjusted_mutual_information([0, 1], [1, 0])) == 1


def test_the_scale_of_weights_below_one_leaves_the_silhouette() -> None:
    draw = np.random.default_rng(8)
    points, clusters = draw.normal(size=(30, 2)).astype(np.float32), np.arange(30) % 3
    clusters[0] = 3  # alone
    want = float(metrics.silhouette(clusters, points=points))
    for share in (0.3, 1 / 30):
        got = metrics.silhouette(clusters, points=points, weight=np.full(30, share, np.float32))
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.isnan(metrics.silhouette([0, 1, 2], points=points[:3], weight=[0.4, 0.4, 0.4]))
