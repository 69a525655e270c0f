"""chrF and chrF++: F-scores of character and word n-grams, of a corpus and of single texts, as sacreBLEU counts."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.text.ngrams import clipped, lengths, present, token_ids, totals
from jaxdl.metrics.text.sentences import add_counts, as_quotient, quotient, text_call
from jaxdl.metrics.text.tokens import Vocabulary, code_points, pad, pad_references, pairs_of

_PUNCTUATION = frozenset(string.punctuation)
_EPSILON = 1e-16


@dataclass(frozen=True)
class CharacterMatches:
    """N-grams of the texts, of their best references, and those in common, and each text's score: chrF's statistic.

    preds: character ids int [batch, length], filled up with -1; target [batch, references, length], or [batch, length];
    with word_order above 0 dictionaries {"characters": ..., "words": ...} of such arrays. Of several references that
    with the highest F-score counts. State: `Sums` of 3 * (char_order + word_order) numbers and three more: the scores
    of the texts, their weight, and the weight of texts whose references have no n-gram, which have no score.
    """

    char_order: int = 6
    word_order: int = 0
    beta: float = 2.0
    eps_smoothing: bool = False
    name: str = field(default="chrf", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        for what, least in (("char_order", 1), ("word_order", 0)):
            order = getattr(self, what)
            if isinstance(order, bool) or not isinstance(order, int) or not least <= order <= 64:
                raise ValueError(f"{self.name}: {what} must be an integer from {least} to 64; it is {order!r}")
        if not self.beta > 0:
            raise ValueError(f"{self.name}: beta must be above 0; it is {self.beta!r}")

    @property
    def order(self) -> int:
        """How many orders are averaged."""
        return self.char_order + self.word_order

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 3 * self.order + 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds texts and their references; `weight` and `mask` are [batch]."""
        counts = self.counts(preds, target).astype(jnp.float32)
        scores = self.score(counts, math.nan)
        without = jnp.isnan(scores)
        more = [jnp.where(without, jnp.zeros_like(scores), scores), ~without, without]
        flat = counts.reshape(counts.shape[0], 3 * self.order)
        columns = jnp.concatenate([flat, jnp.stack([column.astype(jnp.float32) for column in more], axis=1)], axis=1)
        return add_counts(state, columns, weight, mask, self.name)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def counts(self, preds: Any, target: Any) -> jax.Array:
        """Of each text, int32 [batch, 3, orders]: its n-grams, its best reference's, and those in common."""
        if not self.word_order:
            counts, there = self._kind(preds, target, self.char_order)
        else:
            for what, value in (("preds", preds), ("target", target)):
                if not isinstance(value, Mapping) or set(value) != {"characters", "words"}:
                    raise TypeError(
                        f"{self.name}: with word_order={self.word_order} {what} must be a dictionary of token ids, "
                        '{"characters": ..., "words": ...}, as encode(texts, references) makes them'
                    )
            counts, there = self._kind(preds["characters"], target["characters"], self.char_order)
            more, _ = self._kind(preds["words"], target["words"], self.word_order)
            if more.shape[:2] != counts.shape[:2]:
                raise ValueError(
                    f"{self.name}: there are characters of {counts.shape[:2]} texts and references, and words of "
                    f"{more.shape[:2]}; they must be as many"
                )
            counts = jnp.concatenate([counts, more], axis=-1)
        scores = jnp.where(there, self.score(counts.astype(jnp.float32), 0.0), jnp.float32(-1))
        best = jnp.argmax(scores, axis=1)
        return jnp.take_along_axis(counts, best[:, None, None, None], axis=1)[:, 0]

    def _kind(self, preds: Any, target: Any, order: int) -> tuple[jax.Array, jax.Array]:
        """Counts against each reference, int32 [batch, references, 3, order], and which references are there."""
        preds, target = token_ids(preds, target, self.name)
        matches = clipped(preds, target, order=order, together=False)
        own = jnp.broadcast_to(totals(lengths(preds), order)[:, None], matches.shape)
        its = totals(lengths(target), order)
        # sacreBLEU leaves n-grams of the text out that no n-gram of the reference could match
        own = jnp.where(its > 0, own, jnp.zeros_like(own))
        return jnp.stack([own, its, matches], axis=2), present(target)

    def score(self, counts: jax.Array, undefined: float) -> jax.Array:
        """chrF of counts, float32 [..., 3, orders] -> [...]; `undefined` where no reference has any n-gram."""
        own, its, found = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
        factor, hundred = jnp.float32(self.beta**2), jnp.float32(100)
        nothing = jnp.sum(its, axis=-1) == 0
        if self.eps_smoothing:
            precision, recall = quotient(found, own, _EPSILON), quotient(found, its, _EPSILON)
            each = quotient((factor + 1) * precision * recall, factor * precision + recall, _EPSILON)
            score = hundred * jnp.mean(each, axis=-1)
        else:
            both = ((own > 0) & (its > 0)).astype(jnp.float32)
            orders = jnp.sum(both, axis=-1)
            precision = quotient(jnp.sum(both * quotient(found, own, 0.0), axis=-1), orders, 0.0)
            recall = quotient(jnp.sum(both * quotient(found, its, 0.0), axis=-1), orders, 0.0)
            score = hundred * quotient((factor + 1) * precision * recall, factor * precision + recall, 0.0)
        return jnp.where(nothing, jnp.full_like(score, undefined), score)


def chrf_words(text: str) -> list[str]:
    """The words of chrF++: at white space, with one punctuation mark set apart at the end, or else at the start."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def _encode(metric: Any, preds: Any, references: Any, length: int | None) -> dict[str, Any]:
    texts, groups = pairs_of(preds, references, metric.name)
    if metric.lowercase:
        texts, groups = [text.lower() for text in texts], [[text.lower() for text in group] for group in groups]

    def signs(text: str) -> np.ndarray:
        return code_points(text if metric.whitespace else "".join(text.split()))

    characters = pad([signs(text) for text in texts], length)
    references = pad_references([[signs(text) for text in group] for group in groups], length)
    if not metric.word_order:
        return {"preds": characters, "target": references}
    number = Vocabulary()
    words = pad([number(chrf_words(text)) for text in texts], length)
    others = pad_references([[number(chrf_words(text)) for text in group] for group in groups], length)
    return {
        "preds": {"characters": characters, "words": words},
        "target": {"characters": references, "words": others},
    }


def _statistic(metric: Any) -> CharacterMatches:
    return CharacterMatches(metric.char_order, metric.word_order, metric.beta, metric.eps_smoothing, name=metric.name)


@dataclass(frozen=True)
class CHRF(Derived):
    """chrF of a corpus, from 0 to 100: the F-score of character n-grams; with word_order=2, chrF++.

    chrF = 100 (1 + beta^2) P R / (beta^2 P + R), with P and R the means over orders of matches / n-grams of the texts
    and matches / n-grams of the references, summed over the corpus; orders without n-grams on one side are left out
    (Popovic, 2015 and 2017). Of several references of a text, that with the highest F-score counts. Numbers equal those
    of sacreBLEU for the same fields.

    `encode(texts, references)` makes the arrays of `update` from strings: preds int32 [batch, length] of characters,
    target int32 [batch, references, length], filled up with -1; for chrF++ dictionaries {"characters", "words"} of
    such arrays. Weight and mask are [batch].

    whitespace: count spaces as characters. lowercase: lower-case first. eps_smoothing: the mean of the orders' F-scores
    with 1e-16 for undefined ones, as in chrF++.py, Moses and NLTK. zero_division (NaN): the value where no reference
    has an n-gram.

    >>> from jaxdl.metrics import chrf
    >>> round(float(chrf(["The cat sat on the mat."], [["The cat sat on a mat.", "A cat sat on it."]])), 3)
    71.422
    """

    char_order: int = 6
    word_order: int = 0
    beta: float = 2.0
    whitespace: bool = False
    lowercase: bool = False
    eps_smoothing: bool = False
    zero_division: float = float("nan")
    name: str = "chrf"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", as_quotient(self.zero_division, self.name))
        _ = self.statistic  # checks the orders

    @property
    def statistic(self) -> CharacterMatches:
        """The matches and n-grams of the corpus."""
        return _statistic(self)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, Any]:
        """The arrays of texts and their references (one string, or a list of them, for each text)."""
        return _encode(self, preds, references, length)

    def compute(self, state: sums.Sums) -> jax.Array:
        """chrF, float32 []."""
        statistic = self.statistic
        counts = sums.value(sums.pick(state, slice(0, 3 * statistic.order)))
        return statistic.score(counts.reshape(*counts.shape[:-1], 3, statistic.order), self.zero_division)


@dataclass(frozen=True)
class SentenceCHRF(Derived):
    """The weighted mean over texts of the chrF of each text alone, from 0 to 100; `scores` gives them one by one.

    Shapes and fields as in `CHRF`, with which it shares its state; zero_division (NaN) is the score of a text whose
    references have no n-gram.

    >>> from jaxdl.metrics import sentence_chrf
    >>> round(float(sentence_chrf(["cat", "dog"], ["cat", "cow"])), 3)
    55.556
    """

    char_order: int = 6
    word_order: int = 0
    beta: float = 2.0
    whitespace: bool = False
    lowercase: bool = False
    eps_smoothing: bool = False
    zero_division: float = float("nan")
    name: str = "sentence_chrf"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", as_quotient(self.zero_division, self.name))
        _ = self.statistic  # checks the orders

    @property
    def statistic(self) -> CharacterMatches:
        """The scores of the texts, among others."""
        return _statistic(self)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, Any]:
        """The arrays of texts and their references (one string, or a list of them, for each text)."""
        return _encode(self, preds, references, length)

    def scores(self, preds: Any, target: Any) -> jax.Array:
        """The chrF of each text, float32 [batch]."""
        statistic = self.statistic
        return statistic.score(statistic.counts(preds, target).astype(jnp.float32), self.zero_division)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []; NaN when nothing was counted."""
        total, count, without = (sums.value(sums.pick(state, at)) for at in (-3, -2, -1))
        undefined = jnp.where(without == 0, jnp.zeros_like(without), without * jnp.float32(self.zero_division))
        return quotient(total + undefined, count + without, math.nan)


chrf = text_call(CHRF, "chrf")
sentence_chrf = text_call(SentenceCHRF, "sentence_chrf")
