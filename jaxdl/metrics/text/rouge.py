"""ROUGE: what a summary has in common with its references, as n-grams or as common subsequences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.text.alignment import common_subsequence, subsequence_places
from jaxdl.metrics.text.ngrams import clipped, lengths, occurrences, present, token_ids, tokens_first
from jaxdl.metrics.text.sentences import add_counts, as_quotient, quotient, text_call
from jaxdl.metrics.text.stems import stem_long
from jaxdl.metrics.text.tokens import (
    ABSENT,
    PAD,
    Tokenizer,
    Vocabulary,
    encode,
    pad,
    padded_length,
    pairs_of,
    rouge_words,
    tokenizer_of,
)

# Whole tables are kept for ROUGE-Lsum, in so many bytes at a time.
_TABLES = 1 << 26


@dataclass(frozen=True)
class ROUGE:
    """ROUGE of summaries: precision, recall and F1 of what they share with their references, each from 0 to 1.

    kind "1" ... "9" counts n-grams, each at most as often as the reference has it; "L" the longest common subsequence;
    "Lsum" the union of those of all sentences (Lin, 2004). precision = shared / n-grams (tokens) of the summary,
    recall = shared / those of the reference, f1 = 2 P R / (P + R); the value is the weighted mean over the summaries of
    each, {"precision", "recall", "f1"}. Numbers equal those of the package rouge-score, with its stemmer and without.

    `encode(texts, references)` makes the arrays of `update` from strings: preds int32 [batch, length], target int32
    [batch, references, length], filled up with -1; for "Lsum" [batch, sentences, length] and [batch, references,
    sentences, length], a sentence a line of the text. Weight and mask are [batch].

    tokenize: a function from a string to a list of strings, or a name as in `BLEU`; by default lower-cased runs of a-z
    and 0-9. use_stemmer: `encode` takes the endings off words of four letters and more, by Porter's rules for English,
    so that "runs" meets "running". references: of several, "best" takes that of the highest F1 and "mean" averages.
    zero_division: the precision of a summary without n-grams, the recall of a reference without them, and the F1 where
    neither has any; 0 here, not NaN, since one-word summaries are common and have no bigrams.

    >>> from jaxdl.metrics import rouge
    >>> value = rouge(["the cat sat on the mat"], [["the cat was on the mat", "a cat"]], kind="2")
    >>> {key: round(float(number), 3) for key, number in value.items()}
    {'f1': 0.6, 'precision': 0.6, 'recall': 0.6}
    """

    kind: str = "L"
    tokenize: str | Tokenizer = rouge_words
    references: Literal["best", "mean"] = "best"
    zero_division: float = 0.0
    use_stemmer: bool = False
    name: str = "rouge"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", as_quotient(self.zero_division, self.name))
        if not isinstance(self.kind, str) or not re.fullmatch("[1-9]|L|Lsum", self.kind):
            raise ValueError(f"{self.name}: kind must be '1' ... '9', 'L' or 'Lsum'; it is {self.kind!r}")
        if self.references not in ("best", "mean"):
            raise ValueError(f"{self.name}: references must be 'best' or 'mean'; it is {self.references!r}")
        if not isinstance(self.use_stemmer, bool):
            raise TypeError(f"{self.name}: use_stemmer must be True or False; it is {self.use_stemmer!r}")
        tokenizer_of(self.tokenize, self.name)

    def _tokenizer(self) -> Tokenizer:
        words = tokenizer_of(self.tokenize, self.name)
        return (lambda text: [stem_long(word) for word in words(text)]) if self.use_stemmer else words

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and their references (one string, or a list of them, for each text)."""
        texts, groups = pairs_of(preds, references, self.name)
        tokenize = self._tokenizer()
        if self.kind != "Lsum":
            return encode(texts, groups, tokenize, length)
        number = Vocabulary()

        def lines(text: str) -> list[list[int]]:
            return [number(tokenize(line)) for line in text.split("\n") if line]

        flat = [[lines(text) for text in group] for group in groups]
        summaries = _stack([lines(text) for text in texts], length)
        most = max(map(len, groups), default=1)
        stacked = _stack([rows for group in flat for rows in group], length)
        target = np.full((len(groups), most, *stacked.shape[1:]), ABSENT, np.int32)
        place = 0
        for rows, group in zip(target, groups, strict=True):
            rows[: len(group)] = stacked[place : place + len(group)]
            place += len(group)
        return {"preds": summaries, "target": target}

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: four sums, of precision, recall and F1, and of weights."""
        return sums.zeros((*batch_shape, 4))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds summaries and their references; `weight` and `mask` are [batch]."""
        scores = self.scores(preds, target)
        columns = [scores["precision"], scores["recall"], scores["f1"], jnp.ones_like(scores["f1"])]
        return add_counts(state, jnp.stack(columns, axis=1), weight, mask, self.name)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> dict[str, jax.Array]:
        """The means of precision, recall and f1, float32 [] each; NaN when nothing was counted."""
        count = sums.pick(state, 3)
        return {key: sums.ratio(sums.pick(state, at), count) for at, key in enumerate(("precision", "recall", "f1"))}

    def scores(self, preds: Any, target: Any) -> dict[str, jax.Array]:
        """precision, recall and f1 of each summary, float32 [batch] each."""
        shared, own, its, there = self._summaries(preds, target) if self.kind == "Lsum" else self._texts(preds, target)
        hits, true = shared.astype(jnp.float32), its.astype(jnp.float32)
        given = jnp.broadcast_to(own[:, None], its.shape).astype(jnp.float32)
        values = {
            "precision": quotient(hits, given, self.zero_division),
            "recall": quotient(hits, true, self.zero_division),
            "f1": quotient(hits + hits, given + true, self.zero_division),
        }
        if self.references == "mean":
            count = jnp.sum(there, axis=1, dtype=jnp.float32)
            kept = {key: jnp.where(there, value, jnp.zeros_like(value)) for key, value in values.items()}
            return {key: jnp.sum(value, axis=1) / count for key, value in kept.items()}
        rank = jnp.where(there, quotient(hits + hits, given + true, 0.0), jnp.float32(-1))
        best = jnp.argmax(rank, axis=1)
        return {key: jnp.take_along_axis(value, best[:, None], axis=1)[:, 0] for key, value in values.items()}

    def _texts(self, preds: Any, target: Any) -> tuple[jax.Array, ...]:
        """What is shared [batch, refs], what there is in the text [batch], in references, and which of them exist."""
        preds, target = token_ids(preds, target, self.name)
        own, its, there = lengths(preds), lengths(target), present(target)
        if self.kind == "L":
            return _common(preds, target), own, its, there
        order = int(self.kind)
        found = clipped(preds, target, order=order, together=False)[..., -1]
        less, zero = jnp.int32(order - 1), jnp.int32(0)
        return found, jnp.maximum(own - less, zero), jnp.maximum(its - less, zero), there

    def _summaries(self, preds: Any, target: Any) -> tuple[jax.Array, ...]:
        """As `_texts`, of sentences: [batch, sentences, length] and [batch, refs, sentences, length]."""
        preds, target = _sentence_ids(preds, target, self.name)
        (batch, several, length), (_, refs, others, other_length) = preds.shape, target.shape
        table = 4 * several * refs * others * (length + other_length + 1) * (length + 1)
        return (
            _union(preds, target, at_once=min(batch, max(1, _TABLES // table))),
            jnp.sum(lengths(preds), axis=1, dtype=jnp.int32),
            jnp.sum(lengths(target), axis=2, dtype=jnp.int32),
            jnp.all(present(target), axis=2),
        )


@jax.jit
def _common(preds: jax.Array, target: jax.Array) -> jax.Array:
    """The longest common subsequence with each reference: int32 [batch, refs]."""
    return jax.vmap(jax.vmap(common_subsequence, in_axes=(None, 0)))(preds, target)


@partial(jax.jit, static_argnames="at_once")
def _union(preds: jax.Array, target: jax.Array, *, at_once: int) -> jax.Array:
    """`_union_hits` with each reference, int32 [batch, refs], of so many examples at once."""
    each = jax.vmap(_union_hits, in_axes=(None, 0))
    if preds.shape[0] <= at_once:
        return jax.vmap(each)(preds, target)
    return lax.map(lambda pair: each(*pair), (preds, target), batch_size=at_once)


def _union_hits(text: jax.Array, reference: jax.Array) -> jax.Array:
    """Tokens of a reference in any sentence's common subsequence, each at most as often as the text has it.

    int32 [sentences, length], [sentences, length] -> int32 [].
    """
    pairs = jax.vmap(lambda sentence: jax.vmap(lambda own: subsequence_places(own, sentence))(text))(reference)
    tokens = jnp.where(jnp.any(pairs, axis=1), reference, jnp.int32(PAD)).reshape(-1)
    rank, counts = occurrences(tokens, text.reshape(1, -1), 1)
    return jnp.sum(rank < counts[0], dtype=jnp.int32)


def _sentence_ids(preds: Any, target: Any, name: str) -> tuple[jax.Array, jax.Array]:
    shapes = np.shape(preds), np.shape(target)
    if len(shapes[0]) != 3 or len(shapes[1]) not in (3, 4) or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"{name}: preds have shape {shapes[0]} and target {shapes[1]}; for kind 'Lsum' ids have shape [batch, "
            "sentences, length], references [batch, references, sentences, length], as encode(texts, references) makes"
        )
    several, length = shapes[0][1:]
    others, other_length = shapes[1][-2:]
    refs = shapes[1][1] if len(shapes[1]) == 4 else 1
    flat, flat_target = token_ids(
        jnp.asarray(preds).reshape(-1, several * length),
        jnp.asarray(target).reshape(-1, refs, others * other_length),
        name,
        as_they_are=True,
    )
    return (
        tokens_first(flat.reshape(-1, several, length)),
        tokens_first(flat_target.reshape(-1, refs, others, other_length)),
    )


def _stack(texts: list[list[list[int]]], length: int | None) -> np.ndarray:
    """Sentences of texts as int32 [texts, sentences, length], filled up with -1."""
    flat = pad([row for rows in texts for row in rows], length)
    most = max([1, *map(len, texts)])
    count = most if most <= 4 else padded_length(most)
    result = np.full((len(texts), count, flat.shape[1]), PAD, np.int32)
    place = 0
    for row, rows in zip(result, texts, strict=True):
        row[: len(rows)] = flat[place : place + len(rows)]
        place += len(rows)
    return result


rouge = text_call(ROUGE, "rouge")
