"""Topics: coherence against plain loops over documents, real text, likelihoods, policies, refusals."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import metrics
from jaxdl.metrics import document_log_likelihood, sliding_windows, sums, top_words
from jaxdl.metrics.metric import statistic_of

_update = jax.jit(lambda statistic, inputs: statistic.update(statistic.init(), **inputs), static_argnums=0)


def value(metric: Any, **inputs: Any) -> float:
    """One metric's value; the update is compiled once for each statistic and shape."""
    return float(metric.compute(_update(statistic_of(metric), inputs)))


def by_hand(documents: list[set[int]], topics: Any, kind: str, smoothing: float) -> float:
    """Coherence by loops: Mimno et al. (2011) with the mean over pairs, Bouma (2009)."""

    def count(*words: int) -> int:
        return sum(all(w in document for w in words) for document in documents)

    found = []
    for topic in topics:
        pairs = []
        for one, two in combinations(topic, 2):
            both = count(one, two) + smoothing
            if kind == "umass":
                pairs.append(np.log(both / count(one)))
            elif both == 0:
                pairs.append(-1.0)
            else:
                total = len(documents)
                chance = np.log(both * total / (count(one) * count(two)))
                pairs.append(chance / -np.log(both / total) if both < total else 0.0)
        found.append(np.mean(pairs))
    return float(np.mean(found))


def corpus(seed: int = 3, count: int = 50) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ids = np.minimum(draw.geometric(0.1, (count, 15)) - 1, 30)
    length = draw.integers(0, 16, count)
    ids[np.arange(15)[None, :] >= length[:, None]] = -1
    ids[0] = np.arange(15)
    ids[1] = np.arange(15, 30)
    return ids.astype(np.int32)


TOPICS = ((0, 3, 1, 7), (2, 5, 25, 9), (4, 0, 28, 12))


@pytest.mark.parametrize("smoothing", [0.5, 1.0])
def test_coherence_is_that_of_loops(smoothing: float) -> None:
    ids = corpus()
    sets = [set(row[row >= 0].tolist()) for row in ids]
    counts = np.stack([np.bincount(row[row >= 0], minlength=31) for row in ids])
    for make, kind in ((metrics.UMassCoherence, "umass"), (metrics.NPMICoherence, "npmi")):
        want = by_hand(sets, TOPICS, kind, smoothing)
        got = value(make(TOPICS, smoothing=smoothing), preds=ids)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        got = value(make(TOPICS, documents="counts", smoothing=smoothing), preds=counts)
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.smoke
def test_words_that_always_or_never_meet() -> None:
    ids = np.array([[0, 1, 5], [0, 1, 5], [2, -1, 5], [3, 3, 5]], np.int32)
    topics = ((0, 1), (0, 2), (2, 5), (0, 4))
    metric = metrics.NPMICoherence(topics)
    found = np.asarray(metric.per_topic(_update(metric.statistic, {"preds": ids})))
    np.testing.assert_allclose(found[:3], [1.0, -1.0, 0.0], atol=1e-7)
    assert np.isnan(found[3]), "word 4 occurs nowhere"
    everywhere = metrics.NPMICoherence(((5, 0), (5, 5 - 4)))
    np.testing.assert_allclose(value(everywhere, preds=ids), 0.0, atol=1e-7)
    umass = metrics.UMassCoherence(((0, 1), (2, 3)))
    found = np.asarray(umass.per_topic(_update(umass.statistic, {"preds": ids})))
    np.testing.assert_allclose(found, [np.log(3 / 2), 0.0], rtol=1e-6, atol=1e-7)


@given(st.permutations(range(50)), st.integers(0, 49))
def test_the_order_of_documents_does_not_matter(order: list[int], left_out: int) -> None:
    ids, metric = corpus(), metrics.NPMICoherence(TOPICS, smoothing=0.5)
    weight = np.ones(50, np.float32)
    weight[left_out] = 3
    got = value(metric, preds=ids, weight=weight)
    np.testing.assert_allclose(value(metric, preds=ids[order], weight=weight[order]), got, rtol=1e-6)
    # a word twice in a document, or in another place of it, is one word
    np.testing.assert_allclose(value(metric, preds=ids[:, ::-1], weight=weight), got, rtol=1e-6)


def test_counts_past_float32() -> None:
    metric = metrics.NPMICoherence(((0, 1),))
    cells = np.array([2.0**31 + 1, 2.0**30 + 1, 2.0**30 + 1, 2.0**31 + 3, 2.0**33])
    hi = cells.astype(np.float32)
    state = sums.Sums(jnp.asarray(hi), jnp.asarray((cells - hi).astype(np.float32)))
    want = np.log(cells[1] * cells[4] / (cells[0] * cells[3])) / -np.log(cells[1] / cells[4])
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)


def test_diversity() -> None:
    topics = np.array([[0, 1, 2], [2, 3, 4], [0, 4, 9]], np.int32)
    assert value(metrics.TopicDiversity(10), preds=topics) == pytest.approx(6 / 9)
    metric = metrics.TopicDiversity(9)
    state = _update(metric, {"preds": topics})
    assert float(metric.compute(state)) == pytest.approx(5 / 8) and float(metric.invalid(state)) == 1.0
    assert value(metrics.TopicDiversity(10), preds=topics, mask=np.array([True, False, False])) == 1.0
    assert np.isnan(value(metrics.TopicDiversity(10), preds=topics, mask=np.zeros(3, bool)))


def test_likelihoods() -> None:
    draw = np.random.default_rng(0)
    theta, beta = draw.dirichlet(np.ones(3), 8), draw.dirichlet(np.ones(20), 3)
    counts = draw.poisson(0.7, (8, 20))
    want = (counts * np.log(theta @ beta)).sum(axis=1)
    likelihood, words = document_log_likelihood(theta, beta, counts)
    np.testing.assert_allclose(likelihood, want, rtol=1e-6)
    np.testing.assert_array_equal(words, counts.sum(axis=1))
    mean = want.sum() / counts.sum()
    np.testing.assert_allclose(value(metrics.PerWordLogLikelihood(), preds=likelihood, target=words), mean, rtol=1e-6)
    np.testing.assert_allclose(
        value(metrics.TopicPerplexity(), preds=likelihood, target=words), np.exp(-mean), rtol=2e-6
    )
    nothing = np.zeros(8, np.float32)
    assert np.isnan(value(metrics.TopicPerplexity(), preds=nothing, target=nothing))
    assert np.isnan(value(metrics.TopicPerplexity(), preds=likelihood, target=-np.asarray(words)))
    impossible, _ = document_log_likelihood(np.array([[1.0, 0.0]]), np.eye(2), np.array([[1, 1]]))
    assert np.isneginf(impossible)


def test_windows_and_top_words() -> None:
    ids = np.array([[1, 2, 3, 4], [5, 6, -1, -1], [-1, -1, -1, -1]], np.int32)
    assert sliding_windows(ids, 3).tolist() == [[1, 2, 3], [2, 3, 4], [5, 6, -1]]
    assert sliding_windows(ids, 6).tolist() == [[1, 2, 3, 4, -1, -1], [5, 6, -1, -1, -1, -1]]
    assert top_words(np.array([[0.2, 0.2, 0.5, 0.1]]), 3).tolist() == [[2, 0, 1]]
    assert metrics.UMassCoherence(top_words(np.eye(3), 2)) == metrics.UMassCoherence([[0, 1], [1, 0], [2, 0]])  # type: ignore[arg-type]


@pytest.mark.data
def test_words_of_one_section_belong_together(data_folder: Path) -> None:
    with gzip.open(next((data_folder / "ag_news").glob("*.csv.gz")), "rt", encoding="utf-8") as file:
        texts = [" ".join(row[1:]).lower() for row in csv.reader(file)][:2000]
    vocabulary = ["game", "season", "team", "oil", "prices", "market", "microsoft", "software", "windows"]
    column = {word: place for place, word in enumerate(vocabulary)}
    found = [[column[w] for w in re.findall("[a-z]+", text) if w in column] for text in texts]
    ids = np.full((len(found), max(map(len, found))), -1, np.int32)
    for row, words in enumerate(found):
        ids[row, : len(words)] = words
    together, mixed = ((0, 1, 2), (3, 4, 5), (6, 7, 8)), ((0, 3, 6), (1, 4, 7), (2, 5, 8))
    sets = [set(words) for words in found]
    values = [value(metrics.NPMICoherence(topics), preds=ids) for topics in (together, mixed)]
    np.testing.assert_allclose(values, [by_hand(sets, t, "npmi", 0.0) for t in (together, mixed)], rtol=1e-5)
    assert values[0] > 0.1 > values[1]


_IDS = np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: metrics.UMassCoherence([[1]]),
            ValueError,
            r"topics must be \[topics, words\] with at least two words",
        ),
        (lambda: metrics.UMassCoherence([[1, 2], [1, 2, 3]]), ValueError, "topics must be"),
        (lambda: metrics.NPMICoherence([[1, 1]]), ValueError, r"topic 0 must hold different word ids .* \(1, 1\)"),
        (lambda: metrics.NPMICoherence([[1, 2]], documents="words"), ValueError, "documents must be 'ids' or 'counts'"),
        (lambda: metrics.npmi_coherence(_IDS[0], topics=[[0, 1]]), ValueError, r"they must be \[documents, length\]"),
        (lambda: metrics.npmi_coherence(_IDS * 0.5, topics=[[0, 1]]), TypeError, "must be integer class ids"),
        (
            lambda: metrics.npmi_coherence(_IDS, topics=[[0, 7]], documents="counts"),
            ValueError,
            "word ids end at 2; a topic holds word 7",
        ),
        (
            lambda: metrics.npmi_coherence(_IDS, topics=[[0, 1]], weight=_IDS),
            ValueError,
            "a weight belongs to a document",
        ),
        (lambda: metrics.TopicDiversity(0), ValueError, "vocabulary must be a positive integer"),
        (lambda: top_words(np.ones(3), 2), ValueError, r"topic_words have shape \(3,\)"),
        (lambda: sliding_windows(np.array([[-1, 2]])), ValueError, "padding belongs at the end"),
        (lambda: sliding_windows(np.ones(3)), ValueError, "must be integer word ids"),
        (lambda: document_log_likelihood(np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 4))), ValueError, "must be "),
    ],
)
def test_refusals(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()
