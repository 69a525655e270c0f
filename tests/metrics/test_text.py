"""BLEU and chrF against sacreBLEU, counts against plain Python, and how strings become arrays."""

from __future__ import annotations

import gzip
import math
import string
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from hypothesis import example, given
from hypothesis import strategies as st
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from jaxdl import metrics
from jaxdl.metrics import call as call_of
from jaxdl.metrics import sums
from jaxdl.metrics.text.bleu import NgramMatches
from jaxdl.metrics.text.tokens import TOKENIZERS, padded_length

WORDS = ["the", "The", "cat", "cat,", "1,000.5", "a-b", "(so)", "naïve", "猫は", "!", "don't", "&amp;", "x"]
EDGES = [
    ("a", ["a"]),
    ("", ["a b"]),
    ("a b", [""]),
    ("a a a a a", ["a a", "a a a b"]),
    ("x y z", ["a b c"]),
    ("a b c d e", ["a b c"]),
    ("a b x d", ["a b c d", "e f", "a b x"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("é 猫 😀 猫", ["猫 é 😀", "é 猫 😀"]),
]


def corpus(seed: int, n: int = 40, most: int = 12) -> tuple[list[str], list[list[str]]]:
    """Texts that share much with their references, of which there are one to three."""
    draw = np.random.default_rng(seed)
    texts, groups = [], []
    for _ in range(n):
        words = list(draw.choice(WORDS, draw.integers(1, most)))
        group = []
        for _ in range(draw.integers(1, 4)):
            keep = draw.random(len(words)) > 0.25
            group.append(" ".join([word for word, kept in zip(words, keep, strict=True) if kept] + ["x"]))
        texts.append(" ".join(words))
        groups.append(group)
    return texts, groups


def streams(groups: list[list[str]]) -> list[list[str | None]]:
    """As sacreBLEU takes references: one list for the first of each text, one for the second ..."""
    most = max(map(len, groups))
    return [[group[k] if k < len(group) else None for group in groups] for k in range(most)]


NASTY = string.punctuation + "ab1 9\n«»“„€¾२٣ñ中。\uff0c😀½²—\u2a6e\u9fbc\ufa6b"


@given(text=st.text(st.sampled_from(NASTY), max_size=24))
@example(text="1,000.50 <skipped> a-\nb 3-4 .,5 &amp;lt; a..b '90s — “quoted” ½.5")
@pytest.mark.parametrize(
    ("name", "peer"),
    [("13a", Tokenizer13a()), ("intl", TokenizerV14International()), ("char", TokenizerChar()), ("zh", TokenizerZh())],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tokenisers_match_sacrebleu(name: str, peer: Any, text: str) -> None:
    assert TOKENIZERS[name](text) == peer(text.rstrip()).split()


@pytest.mark.parametrize("tokenize", ["13a", "intl", "zh", "char", "none"])
def test_bleu_matches_sacrebleu(tokenize: str) -> None:
    texts, groups = corpus(0)
    metric = metrics.BLEU(tokenize=tokenize)
    state = metric.update(metric.init(), **metric.encode(texts, groups, length=64))
    peer = sacrebleu.BLEU(tokenize=tokenize).corpus_score(texts, streams(groups))
    np.testing.assert_allclose(metric.compute(state), peer.score, rtol=1e-6)
    np.testing.assert_allclose(metric.precisions(state), peer.precisions, rtol=1e-6)
    if tokenize == "13a":
        texts = [text.upper() for text in texts]
        lower = sacrebleu.BLEU(lowercase=True).corpus_score(texts, streams(groups)).score
        np.testing.assert_allclose(metrics.bleu(texts, groups, lowercase=True), lower, rtol=1e-6)


SMOOTHING = [("exp", None), ("floor", None), ("floor", 0.3), ("add-k", None), ("add-k", 2.0), ("none", None)]


@pytest.mark.parametrize("order", [2, 4])
def test_bleu_of_single_texts_matches_sacrebleu(order: int) -> None:
    texts, groups = corpus(1, 12, 5)
    texts, groups = texts + [text for text, _ in EDGES], groups + [group for _, group in EDGES]
    one = metrics.SentenceBLEU(tokenize="none", max_order=order, zero_division=0.0)
    arrays = one.encode(texts, groups)
    counts = NgramMatches(order).counts(**arrays).astype(jnp.float32)
    peer = sacrebleu.BLEU(tokenize="none", effective_order=True, max_ngram_order=order)
    want = [peer.sentence_score(text, group).score for text, group in zip(texts, groups, strict=True)]
    np.testing.assert_allclose(one.scores(**arrays), want, rtol=2e-6, atol=1e-6)
    for smoothing, value in SMOOTHING:
        for effective in (False, True):
            options = {"smoothing": smoothing, "smoothing_value": value, "effective_order": effective}
            theirs = sacrebleu.BLEU(
                tokenize="none", smooth_method=smoothing, smooth_value=value, effective_order=effective,
                max_ngram_order=order,
            )  # fmt: skip
            want = [theirs.sentence_score(text, group).score for text, group in zip(texts, groups, strict=True)]
            metric = metrics.BLEU(tokenize="none", max_order=order, **options)
            each = metric.compute(sums.Sums(counts, jnp.zeros_like(counts)))
            np.testing.assert_allclose(each, want, rtol=2e-6, atol=1e-6, err_msg=str(options))


@pytest.mark.parametrize(
    "options",
    [
        {"word_order": 2},
        {"char_order": 3, "beta": 1.0, "whitespace": True, "lowercase": True},
        {"char_order": 2, "word_order": 1, "eps_smoothing": True},
    ],
    ids=str,
)
def test_chrf_matches_sacrebleu(options: dict[str, Any]) -> None:
    texts, groups = corpus(2, 20, 6)
    edges = [edge for edge in EDGES if edge[1] != [""]]
    texts, groups = texts + [text for text, _ in edges], groups + [group for _, group in edges]
    theirs = sacrebleu.CHRF(**options)
    one = metrics.SentenceCHRF(**options)
    arrays = one.encode(texts, groups)
    want = [theirs.sentence_score(text, group).score for text, group in zip(texts, groups, strict=True)]
    whole = metrics.CHRF(**options)
    state, scores = jax.jit(lambda given: (whole.update(whole.init(), **given), one.scores(**given)))(arrays)
    np.testing.assert_allclose(scores, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(whole.compute(state), theirs.corpus_score(texts, streams(groups)).score, rtol=1e-6)
    np.testing.assert_allclose(one.compute(state), np.mean(want), rtol=1e-6)


def ngrams(ids: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))


_counts = jax.jit(NgramMatches(3).counts)


@given(
    texts=st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=4, max_size=4),
    target=st.lists(st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=2, max_size=2), min_size=4, max_size=4),
)
def test_counts_match_plain_python(texts: list[list[int]], target: list[list[list[int]]]) -> None:
    preds = np.full((4, 8), -1, np.int32)
    references = np.full((4, 2, 9), -1, np.int32)
    want = []
    for row, (text, group) in enumerate(zip(texts, target, strict=True)):
        preds[row, : len(text)] = text
        for k, reference in enumerate(group):
            references[row, k, : len(reference)] = reference
        most = [ngrams(group[0], n) | ngrams(group[1], n) for n in (1, 2, 3)]
        matches = [(ngrams(text, n) & most[n - 1]).total() for n in (1, 2, 3)]
        closest = min((abs(len(reference) - len(text)), len(reference)) for reference in group)[1]
        want.append([len(text), closest, *matches, *(max(len(text) - n, 0) for n in range(3))])
    np.testing.assert_array_equal(_counts(preds, references), want)


@pytest.mark.smoke
def test_what_is_undefined_and_what_is_zero() -> None:
    texts, references = ["", "", "a b", "a b c"], ["", "a b", "", "a b c"]
    metric = metrics.BLEU(tokenize="none")
    arrays = metric.encode(texts, references)

    def bleu(index: int, **options: Any) -> float:
        changed = metrics.BLEU(tokenize="none", **options)
        return float(changed.compute(changed.update(changed.init(), **arrays, mask=np.arange(4) == index)))

    assert math.isnan(bleu(0)), "no token on either side"
    assert bleu(0, zero_division=0) == 0.0
    assert bleu(1) == 0.0 and bleu(2) == 0.0, "sacreBLEU's 0"
    assert bleu(3) == 0.0, "no 4-gram"
    assert bleu(3, effective_order=True) == pytest.approx(100)
    assert math.isnan(bleu(9)), "nothing was counted"
    scores = metrics.SentenceBLEU(tokenize="none").scores(**arrays)
    assert math.isnan(scores[0]) and scores[1:].tolist() == pytest.approx([0, 0, 100])
    one = metrics.SentenceCHRF(char_order=2)
    arrays = one.encode(texts, references)
    state = one.update(one.init(), **arrays)
    scores = one.scores(**arrays)
    assert (
        np.isnan(scores).tolist() == [True, False, True, False] and scores[1] == 0 and scores[3] == pytest.approx(100)
    )
    assert math.isnan(one.compute(state))
    assert float(metrics.SentenceCHRF(char_order=2, zero_division=50).compute(state)) == pytest.approx(50)
    recall = (3 / 5 + 2 / 3) / 2
    assert float(metrics.CHRF(char_order=2).compute(state)) == pytest.approx(100 * 5 * recall / (4 + recall))
    assert math.isnan(metrics.CHRF().compute(metrics.CHRF().init()))
    assert float(metrics.CHRF(zero_division=0).compute(metrics.CHRF().init())) == 0.0
    assert metrics.BLEU(zero_division=float("nan")) == metrics.BLEU() == metrics.BLEU(zero_division=np.nan)


def test_a_stream_in_jit_is_the_corpus_whatever_the_lengths() -> None:
    texts, groups = corpus(3, 20)
    metric = metrics.BLEU(tokenize="none", max_order=2)
    update = jax.jit(metric.update)
    first, second = (metric.encode(texts[at], groups[at]) for at in (slice(0, 6), slice(6, 20)))
    state = update(update(metric.init(), **first), **second)
    want = sacrebleu.BLEU(tokenize="none", max_ngram_order=2).corpus_score(texts, streams(groups)).score
    np.testing.assert_allclose(metric.compute(state), want, rtol=1e-6)


def test_tokens_count_wherever_the_filling_stands() -> None:
    first, left = np.array([[5, 6, 7, 8, -1, -1]]), np.array([[-1, -1, 5, 6, 7, 8]])
    other = np.array([[5, 6, 9, 8, 4, -1]])
    for holed in (left, np.array([[5, -100, 6, 7, -1, 8]])):
        for call in (metrics.bleu, metrics.chrf, metrics.word_error_rate, metrics.edit_distance, metrics.rouge):
            jax.tree.map(np.testing.assert_array_equal, call(holed, other), call(first, other))
            jax.tree.map(np.testing.assert_array_equal, call(other, holed), call(other, first))
    lines = metrics.ROUGE("Lsum")
    rows = lines.encode(["a b\nc"], ["c\na b d"])
    shifted = {key: np.roll(ids, 3, axis=-1) for key, ids in rows.items()}
    jax.tree.map(np.testing.assert_array_equal, lines.scores(**shifted), lines.scores(**rows))


def test_long_texts_and_no_texts_at_all() -> None:
    metric = metrics.CharErrorRate()
    long = metric.encode(["a" * 31000], ["a" * 30000])
    assert {ids.shape for ids in long.values()} == {(1, 32000)}
    jax.eval_shape(metric.update, metric.init(), **long)
    with pytest.raises(ValueError, match="texts may have 32,000 tokens"):
        metric.update(metric.init(), **metric.encode(["a" * 32001], ["a"]))
    assert all(np.isnan(call([], [])) for call in (metrics.bleu, metrics.chrf, metrics.word_error_rate))


def test_one_program_serves_batches_of_many_sizes() -> None:
    texts, groups = corpus(3, 8, 6)
    texts[0], groups[0] = "the longest text of all " * 3, ["the longest reference of all " * 3] * 3
    weight, mask = np.arange(1, 9, dtype=np.float32), np.arange(8) % 3 < 2
    peers = {metrics.sentence_bleu: sacrebleu.BLEU(effective_order=True), metrics.sentence_chrf: sacrebleu.CHRF()}

    def all_of_them(n: int) -> int:
        for call, peer in peers.items():
            each = [peer.sentence_score(text, group).score for text, group in zip(texts[:n], groups[:n], strict=True)]
            got = call(texts[:n], groups[:n], weight=weight[:n], mask=mask[:n])
            np.testing.assert_allclose(got, np.average(each, weights=weight[:n] * mask[:n]), rtol=2e-6)
        return call_of._compiled._cache_size()

    compiled = all_of_them(8)
    assert all_of_them(5) == all_of_them(7) == compiled
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        metrics.sentence_bleu(texts[:5], groups[:5], weight=weight[:4])


def test_memory_grows_with_the_length_not_with_its_square() -> None:
    def temporary(length: int) -> int:
        ids = jax.ShapeDtypeStruct((4, length), jnp.int32)
        compiled = jax.jit(NgramMatches(4).counts).lower(ids, ids).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2048) < 8 * temporary(512) < 4 * 2048 * 2048


def test_padding() -> None:
    assert [padded_length(n) for n in (0, 8, 9, 16, 17, 20, 33, 65, 1000)] == [8, 8, 10, 16, 20, 20, 40, 80, 1024]
    assert all(n <= padded_length(n) <= max(8, 1.25 * n) for n in range(3000))
    metric = metrics.BLEU()
    arrays = metric.encode(["a b", "c"], [["a", "b c"], ["c"]], length=4)
    assert arrays["preds"].tolist() == [[0, 1, -1, -1], [2, -1, -1, -1]]
    assert arrays["target"].tolist() == [[[0, -1, -1, -1], [1, 2, -1, -1]], [[2, -1, -1, -1], [-2, -2, -2, -2]]]
    nothing = metric.update(metric.init(), preds=np.zeros((2, 0), np.int32), target=np.zeros((2, 0), np.int32))
    assert math.isnan(metric.compute(nothing))
    with pytest.raises(ValueError, match="3 tokens, more than length=2; give a larger one"):
        metric.encode(["a b c"], ["a"], length=2)
    assert metrics.cut_at(np.array([[5, 2, 7, 2], [1, 1, 1, 1]]), end=2).tolist() == [[5, -1, -1, -1], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.BLEU(tokenize="13b"), r"tokenize must be one of 'none', '13a'.* did you mean '13a'\?"),
        (lambda: metrics.BLEU(smoothing="expo"), r"smoothing must be .* did you mean 'exp'\?"),
        (lambda: metrics.BLEU(smoothing_value=1.0), "smoothing_value belongs to 'floor' and 'add-k', not to 'exp'"),
        (lambda: metrics.BLEU(smoothing="floor", smoothing_value=-1.0), "must not be negative; it is -1.0"),
        (lambda: metrics.BLEU(max_order=0), "max_order must be an integer from 1 to 64; it is 0"),
        (lambda: metrics.BLEU(zero_division="0"), "zero_division must be a number or NaN; it is '0'"),
        (lambda: metrics.CHRF(char_order=0), "char_order must be an integer from 1 to 64; it is 0"),
        (lambda: metrics.CHRF(beta=0.0), "beta must be above 0"),
        (lambda: metrics.bleu(["a"], ["a"], tokenise="13a"), r"no argument 'tokenise'; did you mean tokenize\?"),
        (lambda: metrics.bleu(["a", "b"], ["a"]), "2 texts, but references for 1"),
        (lambda: metrics.bleu(["a", "b", "c"], [["a", "b", "c"]]), r"streams of references: give list\(zip\(\*streams"),
        (lambda: metrics.bleu(["a"], [[]]), "text 0 has no reference; an empty text is the reference ''"),
        (lambda: metrics.bleu(["a", None], ["a", "b"]), "texts must be strings; one is of type NoneType: None"),
        (lambda: metrics.bleu(["a"], [[1]]), "references must be strings; one is of type int: 1"),
        (lambda: metrics.bleu(["a"], "a"), "references must be a list with one string"),
        (lambda: metrics.bleu(np.zeros((2, 3)), np.zeros((2, 3))), "preds must be integer class ids; they are float32"),
        (lambda: metrics.bleu(np.zeros(3, int), np.zeros(3, int)), r"shape \(3,\).*token ids have shape \[batch, len"),
        (lambda: metrics.bleu(np.zeros((2, 3), int), np.zeros((3, 3), int)), r"preds have shape \(2, 3\) and target"),
        (lambda: metrics.BLEU().update(None, preds=["a"], target=["a"]), "takes token ids, not strings"),
        (lambda: metrics.chrf(np.zeros((2, 3), int), np.zeros((2, 3), int), word_order=2), "must be a dictionary of"),
    ],
)
def test_sentences(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


@pytest.mark.data
def test_real_translations_match_sacrebleu(data_folder: Path) -> None:
    files = [data_folder / "multi30k" / f"test_2016_flickr.{language}.gz" for language in ("en", "de")]
    english, german = (gzip.decompress(file.read_bytes()).decode().split("\n")[:1000] for file in files)
    draw = np.random.default_rng(0)
    texts = [
        " ".join(w for w in line.split() if draw.random() > 0.15) if k % 3 else line for k, line in enumerate(english)
    ]
    groups = [[one, other] for one, other in zip(english, english[1:] + english[:1], strict=True)]
    want = sacrebleu.corpus_bleu(texts, streams(groups), tokenize="intl").score
    np.testing.assert_allclose(metrics.bleu(texts, groups, tokenize="intl"), want, rtol=1e-6)
    want = sacrebleu.corpus_bleu(german, [english]).score
    np.testing.assert_allclose(metrics.bleu(german, english), want, rtol=1e-6)
    want = sacrebleu.corpus_chrf(texts, streams(groups), word_order=2).score
    np.testing.assert_allclose(metrics.chrf(texts, groups, word_order=2), want, rtol=1e-6)
