"""ROUGE, error rates and edit distance: against kept values of their packages, and against plain Python."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import metrics
from jaxdl.metrics.text.alignment import subsequence_places
from jaxdl.metrics.text.error_rates import Edits
from jaxdl.metrics.text.stems import stem

KEPT = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics_text.json").read_text())
NAMES = ("precision", "recall", "f1")


@pytest.mark.parametrize("kind", ["1", "2", "3", "L", "Lsum"])
def test_rouge_matches_rouge_score(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = KEPT["rouge"]
    metric = metrics.ROUGE(kind)
    arrays = metric.encode(data["preds"], data["target"])
    scores = metric.scores(**arrays)
    for at, name in enumerate(NAMES):
        np.testing.assert_allclose(scores[name], np.array(data["best"][kind])[:, at], rtol=1e-6, atol=1e-7)
    if kind == "L":
        value = metrics.rouge(data["preds"], data["target"])
        for at, name in enumerate(NAMES):
            np.testing.assert_allclose(value[name], np.mean(np.array(data["best"][kind])[:, at]), rtol=1e-6)
    if kind in data["mean"]:
        means = metrics.ROUGE(kind, references="mean").scores(**arrays)
        for at, name in enumerate(NAMES):
            np.testing.assert_allclose(means[name], np.array(data["mean"][kind])[:, at], rtol=1e-6, atol=1e-7)
    if kind == "Lsum":
        file = importlib.import_module("jaxdl.metrics.text.rouge")  # the function of this name hides it
        monkeypatch.setattr(file, "_TABLES", 1 << 16)  # a few examples at a time
        chunked = metric.scores(**arrays)
        jax.tree.map(np.testing.assert_array_equal, chunked, scores)


def test_stems_match_nltk() -> None:
    words = KEPT["stems"]["words"]
    assert len(words) > 900 and {word: stem(word) for word in words} == words


def test_rouge_with_stems_matches_rouge_score() -> None:
    data = KEPT["stems"]
    for kind, want in data["rouge"].items():
        metric, bare = metrics.ROUGE(kind, use_stemmer=True), metrics.ROUGE(kind)
        scores, without = (m.scores(**m.encode(data["preds"], data["target"])) for m in (metric, bare))
        for at, name in enumerate(NAMES):
            np.testing.assert_allclose(scores[name], np.array(want)[:, at], rtol=1e-6, atol=1e-7)
        assert np.abs(scores["f1"] - without["f1"]).max() > 0.05, "the texts have nothing to stem"
    # short words keep their endings: "its" is not "it"
    assert float(metrics.rouge(["its runs"], ["it running"], kind="1", use_stemmer=True)["f1"]) == 0.5


def test_a_planted_error_would_be_found() -> None:
    """The kept texts tell the kinds apart, and the best reference from the mean of them."""
    best = {kind: np.array(values) for kind, values in KEPT["rouge"]["best"].items()}
    assert all(np.abs(best[a] - best[b]).max() > 0.1 for a, b in (("1", "L"), ("L", "Lsum"), ("1", "Lsum"), ("2", "3")))
    assert np.abs(best["1"] - np.array(KEPT["rouge"]["mean"]["1"])).max() > 0.1


@pytest.mark.parametrize("name", [key for key in KEPT["unique"] if key not in ("preds", "target")])
def test_error_rates_match_torchmetrics(name: str) -> None:
    for corpus in (KEPT["unique"], KEPT["any"]):
        if name in corpus:  # the peer counts hits otherwise where a text has insertions and deletions
            got = getattr(metrics, name)(corpus["preds"], corpus["target"])
            np.testing.assert_allclose(got, corpus[name], rtol=1e-6, atol=1e-7)


def align(text: list[int], other: list[int], insertion: float, deletion: float, substitution: float) -> Any:
    """(cost, minus hits) of the cheapest alignment with the most hits, by the textbook's table."""
    table = [[(i * insertion + j * deletion, 0) for j in range(len(other) + 1)] for i in range(len(text) + 1)]
    for i, own in enumerate(text):
        for j, its in enumerate(other):
            same = own == its
            table[i + 1][j + 1] = min(
                (table[i][j + 1][0] + insertion, table[i][j + 1][1]),
                (table[i + 1][j][0] + deletion, table[i + 1][j][1]),
                (table[i][j][0] + (0 if same else substitution), table[i][j][1] - same),
            )
    return table[-1][-1]


def padded(rows: list[list[int]], length: int) -> np.ndarray:
    return np.array([row + [-1] * (length - len(row)) for row in rows], np.int32)


_edits = jax.jit(Edits().counts)
_costs = {"insertion": 0.5, "deletion": 2.0, "substitution": 1.25}
_distance = jax.jit(metrics.EditDistance(**_costs).scores)
_subsequence = jax.jit(metrics.ROUGE("L", tokenize="none").scores)
_places = jax.jit(jax.vmap(subsequence_places))
_row = st.lists(st.integers(0, 3), max_size=9)


@given(texts=st.lists(_row, min_size=6, max_size=6), target=st.lists(_row, min_size=6, max_size=6))
def test_alignments_match_plain_python(texts: list[list[int]], target: list[list[int]]) -> None:
    arrays = padded(texts, 9), padded(target, 11)
    pairs = list(zip(texts, target, strict=True))
    want = [align(text, other, 1, 1, 1) for text, other in pairs]
    lengths = [(len(other), len(text)) for text, other in pairs]
    np.testing.assert_array_equal(_edits(*arrays), [[c, -h, *n] for (c, h), n in zip(want, lengths, strict=True)])
    weighted = [align(text, other, *_costs.values())[0] for text, other in pairs]
    np.testing.assert_allclose(_distance(*arrays), weighted, rtol=1e-6)
    # insertions and deletions alone leave the longest common subsequence
    longest = [(len(text) + len(other) - align(text, other, 1, 1, 2)[0]) / 2 for text, other in pairs]
    recall = [n / len(other) if other else 0.0 for n, (_, other) in zip(longest, pairs, strict=True)]
    np.testing.assert_allclose(_subsequence(*arrays)["recall"], recall, rtol=1e-6)
    places = np.asarray(_places(*arrays))
    assert places.sum(1).tolist() == longest
    for taken, (text, other) in zip(places, pairs, strict=True):
        rest = iter(text)
        assert all(token in rest for token in np.array(other, int)[taken[: len(other)]]), "no subsequence of the text"


@pytest.mark.smoke
def test_error_rates_by_hand() -> None:
    texts, target = ["the cat sat", "", "a b", "x"], ["the dog sat down", "one two", "", "x"]
    arrays = metrics.WordErrorRate().encode(texts, target)
    state = Edits().update(Edits().init(), **arrays)
    assert float(metrics.WordErrorRate().compute(state)) == pytest.approx(6 / 7)
    assert float(metrics.MatchErrorRate().compute(state)) == pytest.approx(6 / 9)
    assert float(metrics.WordInformationPreserved().compute(state)) == pytest.approx(3 / 7 * 3 / 6)
    assert float(metrics.WordInformationLost().compute(state)) == pytest.approx(1 - 3 / 7 * 3 / 6)
    no_words = Edits().update(Edits().init(), **arrays, mask=np.arange(4) == 2)
    assert math.isnan(metrics.WordErrorRate().compute(no_words)), "errors, but no word to divide by"
    assert float(metrics.WordErrorRate(zero_division=1).compute(no_words)) == 1.0
    assert float(metrics.WordInformationLost().compute(no_words)) == 1.0
    empty = Edits().init()
    for name in ("WordErrorRate", "CharErrorRate", "MatchErrorRate", "WordInformationLost", "WordInformationPreserved"):
        metric = getattr(metrics, name)
        assert math.isnan(metric().compute(empty)) and float(metric(zero_division=0.25).compute(empty)) == 0.25
    distance = metrics.EditDistance()
    arrays = distance.encode(["rain", "", "naïve 猫", "kitten"], ["shine", "", "naive 猫", "sitting"])
    assert distance.scores(**arrays).tolist() == [3, 0, 1, 3]
    assert metrics.EditDistance(normalize=True).scores(**arrays).tolist() == pytest.approx([0.6, 0, 1 / 7, 3 / 7])


def test_rouge_by_hand() -> None:
    metric = metrics.ROUGE("2")
    arrays = metric.encode(["one", "", "a b", "A-b: c"], [["one"], [""], [""], ["", "a b d"]])
    scores = metric.scores(**arrays)
    assert scores["f1"].tolist() == pytest.approx([0, 0, 0, 0.5])
    undefined = metrics.ROUGE("2", zero_division=float("nan")).scores(**arrays)
    assert np.isnan(undefined["f1"]).tolist() == [True, True, False, False]
    assert np.isnan(undefined["precision"]).tolist() == [True, True, False, False]
    stemmed = metrics.ROUGE("1", tokenize=lambda text: [word.rstrip("s") for word in text.split()])
    arrays = stemmed.encode(["cats sit"], ["cat sits"])
    assert stemmed.scores(**arrays)["f1"].tolist() == [1.0]


def test_long_texts_align_with_linear_memory() -> None:
    def temporary(length: int) -> int:
        ids = jax.ShapeDtypeStruct((2, length), jnp.int32)
        return jax.jit(Edits().counts).lower(ids, ids).compile().memory_analysis().temp_size_in_bytes

    assert temporary(4096) < 2 * 4096 * 4 * 64


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.ROUGE("LL"), r"kind must be '1' ... '9', 'L' or 'Lsum'; it is 'LL'"),
        (lambda: metrics.ROUGE(references="all"), "references must be 'best' or 'mean'; it is 'all'"),
        (lambda: metrics.ROUGE(use_stemmer="porter"), "use_stemmer must be True or False; it is 'porter'"),
        (lambda: metrics.ROUGE(tokenize="porter"), "tokenize must be one of"),
        (lambda: metrics.rouge(["a"], ["a"], kinds="1"), r"no argument 'kinds'; did you mean kind\?"),
        (
            lambda: metrics.ROUGE("Lsum").scores(np.zeros((2, 3), int), np.zeros((2, 3), int)),
            "for kind 'Lsum' ids have",
        ),
        (lambda: metrics.word_error_rate(["a"], [["a", "b"]]), "text 0 has 2 references; it takes one for each text"),
        (
            lambda: metrics.word_error_rate(np.zeros((2, 3), int), np.zeros((2, 2, 3), int)),
            "with 2 references; it takes",
        ),
        (lambda: metrics.word_error_rate(np.zeros((1, 32001), int), np.zeros((1, 3), int)), "may have 32,000 tokens"),
        (lambda: metrics.EditDistance(insertion=-1.0), "the cost of insertion must be a number from 0; it is -1.0"),
        (lambda: metrics.WordErrorRate(tokenize="word"), "tokenize must be one of"),
    ],
)
def test_sentences(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
