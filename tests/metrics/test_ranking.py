"""Rankings: values against scikit-learn, torchmetrics and all orders of ties; policies; refusals; padding of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import dcg_score, ndcg_score

from jaxdl import metrics
from jaxdl.metrics import pad_queries

FIXTURE = Path(__file__).parent.parent / "fixtures" / "metrics_ranking.npz"
SHAPE = (20, 12)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(3)
    relevance = draw.integers(0, 4, SHAPE).astype(np.float32)
    relevance[:, 0] = 1
    rare = np.zeros(SHAPE, np.float32)
    rare[np.arange(20), draw.integers(0, 12, 20)] = 1
    normal = draw.normal(size=SHAPE).astype(np.float32)
    return {
        "random": (normal, relevance),
        "tied": (normal.round(0), relevance),
        "all tied": (np.zeros(SHAPE, np.float32), relevance),
        "skewed": (normal, rare),
        "saturated": (np.tanh(8 * normal), relevance),
        "tiny": (normal * np.float32(1e-37), relevance * np.float32(1e-30)),
        "huge": (normal * np.float32(1e37), relevance * np.float32(1e30)),
        "fractions": (normal.round(1), draw.random(SHAPE).astype(np.float32)),
        "all relevant": (normal, np.ones(SHAPE, np.float32)),
    }


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize("name", cases())
def test_gains_are_scikit_learns(name: str, k: int | None) -> None:
    scores, relevance = cases()[name]
    weight = np.arange(20).astype(np.float32)
    for function, reference in ((metrics.ndcg, ndcg_score), (metrics.dcg, dcg_score)):
        want = reference(relevance.astype(np.float64), scores, k=k, sample_weight=weight)
        np.testing.assert_allclose(function(scores, relevance, k=k, weight=weight), want, rtol=1e-6)


@pytest.mark.smoke
def test_order_of_equal_scores_may_be_kept() -> None:
    scores, relevance = cases()["tied"]
    stable = np.take_along_axis(relevance, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    # distinct scores in the order kept: what scikit-learn, whose own order of ties is unstable, can be asked about
    want = ndcg_score(stable, np.broadcast_to(-np.arange(12.0), SHAPE))
    np.testing.assert_allclose(metrics.ndcg(scores, relevance, ties="first"), want, rtol=1e-6)
    first = np.where(stable > 0, 1 / np.arange(1, 13), 0).max(axis=1).mean()
    np.testing.assert_allclose(metrics.mean_reciprocal_rank(scores, relevance, ties="first"), first, rtol=1e-6)


def test_exponential_gain_is_the_linear_gain_of_transformed_relevance() -> None:
    scores, relevance = cases()["tied"]
    for function, reference in ((metrics.ndcg, ndcg_score), (metrics.dcg, dcg_score)):
        want = reference(2.0**relevance - 1, scores, k=5)
        np.testing.assert_allclose(function(scores, relevance, k=5, gain="exponential"), want, rtol=1e-6)


@pytest.mark.parametrize("k", ["None", "1", "5"])
def test_without_ties_as_torchmetrics(k: str) -> None:
    kept = np.load(FIXTURE)
    scores, graded = kept["scores"], kept["graded"]
    number = None if k == "None" else int(k)
    tried = 0
    for name, make in {
        "ndcg": metrics.NDCG,
        "mrr": metrics.MeanReciprocalRank,
        "retrieval_map": metrics.RetrievalMAP,
        "precision_at_k": metrics.PrecisionAtK,
        "recall_at_k": metrics.RecallAtK,
        "hit_rate": metrics.HitRate,
        "fall_out": metrics.FallOut,
        "r_precision": metrics.RPrecision,
    }.items():
        if f"{name}/{k}" not in kept:
            continue
        options = {} if name == "r_precision" else {"k": number}
        # torchmetrics gives the worst value: of fall-out that is 1
        metric: Any = make(empty="one" if name == "fall_out" else "zero", **options)  # type: ignore[arg-type]
        value = metric.compute(updated(metric, preds=scores, target=graded))
        np.testing.assert_allclose(value, kept[f"{name}/{k}"], rtol=1e-6, err_msg=name)
        tried += 1
    assert tried >= 6


_update = jax.jit(lambda statistic, inputs: statistic.update(statistic.init(), **inputs), static_argnums=0)


def updated(metric: Any, **inputs: Any) -> Any:
    """The state of a metric; compiled once for all metrics of one statistic."""
    return _update(metric.statistic, inputs)


def test_ties_are_the_mean_over_all_orders() -> None:
    def mean_over_orders(value: Callable[[np.ndarray], float], scores: np.ndarray, relevance: np.ndarray) -> float:
        found = []
        for order in itertools.permutations(range(len(scores))):
            turned = list(order)
            found.append(value(relevance[turned][np.argsort(-scores[turned], kind="stable")]))
        return float(np.mean(found))

    def precision(hits: np.ndarray) -> np.ndarray:
        return np.cumsum(hits) / np.arange(1, len(hits) + 1)

    k = 3
    references: dict[Any, Callable[[np.ndarray], float]] = {
        metrics.MeanReciprocalRank(k=k): lambda r: max([1 / (p + 1) for p in range(k) if r[p] > 0], default=0.0),
        metrics.RetrievalMAP(k=k): lambda r: (precision(r > 0) * (r > 0))[:k].sum() / min(k, (r > 0).sum()),
        metrics.PrecisionAtK(k=k): lambda r: (r[:k] > 0).sum() / k,
        metrics.RecallAtK(k=k): lambda r: (r[:k] > 0).sum() / (r > 0).sum(),
        metrics.HitRate(k=k): lambda r: float((r[:k] > 0).any()),
        metrics.FallOut(k=k): lambda r: (r[:k] == 0).sum() / (r == 0).sum(),
        metrics.RPrecision(): lambda r: (r[: (r > 0).sum()] > 0).sum() / (r > 0).sum(),
    }
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 3, (8, 5)).astype(np.float32)
    scores[0] = 1
    relevance = draw.integers(0, 3, (8, 5)).astype(np.float32)
    relevance[:, 0], relevance[:, 1] = 0, 2
    for metric, value in references.items():
        want = np.mean([mean_over_orders(value, s, r) for s, r in zip(scores, relevance, strict=True)])
        got = metric.compute(updated(metric, preds=scores, target=relevance))
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=metric.name)


@given(
    scores=hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([-1e30, -1.0, 0.0, 1e-30, 0.5, 3.0, 1e30])),
    relevance=hnp.arrays(np.int32, (3, 6), elements=st.integers(0, 3)),
    order=st.permutations(range(6)),
)
def test_only_the_order_of_scores_counts(scores: np.ndarray, relevance: np.ndarray, order: list[int]) -> None:
    metric = metrics.NDCG(empty="one")
    value = metric.compute(updated(metric, preds=scores, target=relevance))
    assert 0 <= value <= 1 + 1e-6
    moved = updated(metric, preds=scores[:, order], target=relevance[:, order])
    np.testing.assert_allclose(metric.compute(moved), value, rtol=1e-6)
    ranks = np.stack([np.unique(row, return_inverse=True)[1] for row in scores]).astype(np.float32)
    np.testing.assert_allclose(metric.compute(updated(metric, preds=ranks, target=relevance)), value, rtol=1e-6)
    best = updated(metric, preds=relevance.astype(np.float32), target=relevance)
    np.testing.assert_allclose(metric.compute(best), 1.0, rtol=1e-6)


def test_queries_without_relevant_documents() -> None:
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]], np.float32)
    relevance = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0]])
    metric = metrics.MeanReciprocalRank
    state = updated(metric(), preds=scores, target=relevance)
    values = {empty: float(metric(empty=empty).compute(state)) for empty in ("zero", "one", "skip", "nan")}  # type: ignore[arg-type]
    assert values["zero"] == pytest.approx(0.5) and values["one"] == pytest.approx(2.5 / 3)
    assert values["skip"] == pytest.approx(0.75) and np.isnan(values["nan"])
    assert float(metric().statistic.empty_queries(state)) == 1
    assert np.isnan(metrics.RetrievalMAP().compute(state)) and np.isnan(metrics.RecallAtK().compute(state))
    assert metrics.FallOut().compute(state) == 1.0
    all_relevant = updated(metric(), preds=scores, target=np.ones((3, 3), np.int32))
    assert np.isnan(metrics.FallOut().compute(all_relevant)) and metrics.RetrievalMAP().compute(all_relevant) == 1.0
    gains = updated(metrics.NDCG(), preds=scores, target=relevance)
    assert np.isnan(metrics.NDCG().compute(gains)) and float(metrics.NDCG().statistic.empty_queries(gains)) == 1
    np.testing.assert_allclose(metrics.NDCG(empty="skip").compute(gains), (1 + 1 / np.log2(3)) / 2, rtol=1e-6)


def test_nan_and_negative() -> None:
    def both(scores: list[float], relevance: list[float], mask: tuple[bool, ...] = (True, True, True)) -> list[float]:
        arrays = {"preds": np.array([scores], np.float32), "target": np.array([relevance], np.float32)}
        found = []
        for metric in (metrics.NDCG(empty="skip"), metrics.MeanReciprocalRank(empty="skip")):
            found.append(float(metric.compute(updated(metric, **arrays, mask=np.array([mask])))))
        return found

    nan = np.nan
    assert np.isnan(both([3, nan, 1], [1, 0, 0])).all(), "NaN is not a query without relevant documents"
    assert np.isnan(both([3, 2, 1], [1, nan, 0])).all()
    assert both([3, nan, 1], [1, nan, 0], (True, False, True)) == [1.0, 1.0]
    assert np.isnan(both([3, 2, 1], [1, 0, 0], (False, False, False))).all(), "no query is there"
    assert both([np.inf, -np.inf, 0], [2, 0, 1]) == [1.0, 1.0]
    assert both([-0.0, 0.0, -1], [0, 1, 0])[1] == 0.75, "the two zeros are equal scores"
    assert np.isnan(both([3, 2, 1], [1, -1, 0])[0]), "the ratio of negative gains means nothing"
    gains = updated(metrics.DCG(), preds=np.array([[3.0, 2, 1]]), target=np.array([[1.0, 0, -2]]))
    assert metrics.DCG().compute(gains) == 0.0


def test_shorter_lists() -> None:
    scores = np.array([[3.0, 2, 9, 9], [1, 2, 3, 9]], np.float32)
    relevance = np.array([[1, 0, 1, 1], [0, 0, 1, 1]], np.float32)
    mask = np.array([[True, True, False, False], [True, True, True, False]])
    state = updated(metrics.PrecisionAtK(k=4), preds=scores, target=relevance, mask=mask)
    assert metrics.PrecisionAtK(k=4).compute(state) == 0.25
    np.testing.assert_allclose(metrics.PrecisionAtK(k=4, adaptive_k=True).compute(state), 5 / 12, rtol=1e-6)
    assert metrics.HitRate(k=4).compute(state) == metrics.RecallAtK(k=4).compute(state) == 1.0
    np.testing.assert_allclose(metrics.FallOut(k=4).compute(state), 1.0, rtol=1e-6)
    gains = updated(metrics.NDCG(), preds=scores[:, ::-1], target=relevance[:, ::-1], mask=mask[:, ::-1])
    np.testing.assert_allclose(metrics.NDCG().compute(gains), 1.0, rtol=1e-6)


def test_rows_become_queries() -> None:
    batch = pad_queries([0.1, 0.5, 0.3, 0.7], [0, 2, 1, 1], ["q2", "q1", "q2", "q2"], documents=4)
    assert batch.query.tolist() == ["q1", "q2"]
    np.testing.assert_array_equal(batch.preds, np.array([[0.5, 0, 0, 0], [0.1, 0.3, 0.7, 0]], np.float32))
    np.testing.assert_array_equal(batch.target, [[2, 0, 0, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(batch.mask, [[True] + [False] * 3, [True] * 3 + [False]])
    assert pad_queries([], [], []).preds.shape == (0, 1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pad_queries([1, 2], [1], [1, 2]), r"their shapes are \(2,\), \(1,\) and \(2,\)"),
        (lambda: pad_queries([1.0], [1], [np.nan]), "the query id of row 0 is NaN"),
        (lambda: pad_queries([1, 2, 3], [1, 1, 1], [7, 7, 8], documents=1), "7 has 2 rows, more than documents=1"),
        (lambda: metrics.ndcg(np.ones(3), np.ones(3)), r"ndcg: preds have shape \(3,\); they must be \[queries, doc"),
        (lambda: metrics.ndcg(np.ones((2, 3)), np.ones((2, 4))), "they must be the same"),
        (lambda: metrics.ndcg(np.ones((2, 3)), np.ones((2, 3)), weight=np.ones((2, 3))), "a weight belongs to a query"),
        (lambda: metrics.NDCG(k=0), "ndcg: k must be a positive integer or None; it is 0"),
        (lambda: metrics.NDCG(gain="square"), "ndcg: gain must be 'linear' or 'exponential'; it is 'square'"),  # type: ignore[arg-type]
        (lambda: metrics.HitRate(ties="last"), "hit_rate: ties must be 'average' or 'first'; it is 'last'"),  # type: ignore[arg-type]
        (lambda: metrics.RecallAtK(empty="drop"), "recall_at_k: empty must be .* it is 'drop'"),  # type: ignore[arg-type]
    ],
)
def test_refusals(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_k_may_be_a_number_of_numpy() -> None:
    assert float(metrics.ndcg([[1.0, 2.0]], [[1.0, 0.0]], k=np.int64(1))) == 0
    assert float(metrics.recall_at_k([[1.0, 2.0]], [[1.0, 0.0]], k=np.int64(2))) == 1
