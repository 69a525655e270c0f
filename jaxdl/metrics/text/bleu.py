"""BLEU: how many n-grams of a text its references have, of a corpus and of single sentences, as sacreBLEU counts."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.means import MeanOf
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.text.ngrams import clipped, lengths, present, token_ids, totals
from jaxdl.metrics.text.sentences import add_counts, as_quotient, quotient, text_call
from jaxdl.metrics.text.tokens import Tokenizer, encode, pairs_of, tokenizer_of

Smoothing = Literal["exp", "floor", "add-k", "none"]
_SMOOTH_VALUE = {"floor": 0.1, "add-k": 1.0}


@dataclass(frozen=True)
class NgramMatches:
    """Clipped n-gram matches, n-grams, and both lengths of a corpus: the statistic of BLEU.

    preds: token ids int [batch, length], filled up with -1; target: [batch, references, length], or [batch, length]
    for one reference each. State: `Sums` of 2 + 2 * max_order numbers: tokens of the texts, tokens of the references
    closest in length, matches of each order, n-grams of each order.
    """

    max_order: int = 4
    name: str = field(default="ngrams", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if isinstance(self.max_order, bool) or not isinstance(self.max_order, int) or not 1 <= self.max_order <= 64:
            raise ValueError(f"{self.name}: max_order must be an integer from 1 to 64; it is {self.max_order!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 2 + 2 * self.max_order))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds texts and their references; `weight` and `mask` are [batch]."""
        return add_counts(state, self.counts(preds, target), weight, mask, self.name)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def counts(self, preds: Any, target: Any) -> jax.Array:
        """The numbers of each text, int32 [batch, 2 + 2 * max_order]."""
        preds, target = token_ids(preds, target, self.name)
        length = lengths(preds)
        matches = clipped(preds, target, order=self.max_order, together=True)
        closest = _closest(length, lengths(target), present(target))
        return jnp.concatenate(
            [length[:, None], closest[:, None], matches, totals(length, self.max_order)], axis=1, dtype=jnp.int32
        )


def _closest(length: jax.Array, references: jax.Array, there: jax.Array) -> jax.Array:
    """The reference length nearest to the text's, the shorter of two: int32 [batch], [batch, refs] -> [batch]."""
    far = jnp.where(there, jnp.abs(references - length[:, None]), jnp.int32(1 << 30))
    nearest = far == jnp.min(far, axis=1, keepdims=True)
    return jnp.min(jnp.where(nearest, references, jnp.int32(1 << 30)), axis=1)


def _check(metric: Any) -> None:
    """The fields that BLEU and SentenceBLEU have in common."""
    name = metric.name
    object.__setattr__(metric, "zero_division", as_quotient(metric.zero_division, name))
    tokenizer_of(metric.tokenize, name)
    if metric.smoothing not in get_args(Smoothing):
        near = difflib.get_close_matches(str(metric.smoothing), get_args(Smoothing), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name}: smoothing must be 'exp', 'floor', 'add-k' or 'none'; it is {metric.smoothing!r}{hint}"
        )
    if metric.smoothing_value is not None:
        if metric.smoothing not in _SMOOTH_VALUE:
            raise ValueError(f"{name}: smoothing_value belongs to 'floor' and 'add-k', not to {metric.smoothing!r}")
        if not metric.smoothing_value >= 0:
            raise ValueError(f"{name}: smoothing_value must not be negative; it is {metric.smoothing_value!r}")
    _ = NgramMatches(metric.max_order, name=name)


def _encode(metric: Any, preds: Any, references: Any, length: int | None) -> dict[str, np.ndarray]:
    texts, groups = pairs_of(preds, references, metric.name)
    tokenize = tokenizer_of(metric.tokenize, metric.name)
    return encode(texts, groups, (lambda text: tokenize(text.lower())) if metric.lowercase else tokenize, length)


def _score(metric: Any, counts: jax.Array) -> jax.Array:
    """BLEU of counts, float32 [..., 2 + 2 * max_order] -> [...]."""
    order = metric.max_order
    length, reference = counts[..., 0], counts[..., 1]
    matches, grams = counts[..., 2 : 2 + order], counts[..., 2 + order :]
    zero, one = jnp.zeros_like(length), jnp.ones_like(length)
    some = jnp.sum(matches, axis=-1) > 0
    k = metric.smoothing_value
    k = jnp.float32(_SMOOTH_VALUE.get(metric.smoothing, 0.0) if k is None else k)
    logs, orders, halvings = zero, zero, zero
    for n in range(order):
        found, total = matches[..., n], grams[..., n]
        if metric.smoothing == "add-k" and n:
            found, total = found + k, total + k
        some_grams, missing = total > 0, found == 0
        if metric.smoothing == "exp":
            halvings = halvings + jnp.where(some_grams & missing, one, zero)
            found = jnp.where(missing, jnp.exp2(-halvings), found)
        elif metric.smoothing == "floor":
            found = jnp.where(missing, k, found)
        precision = quotient(found, total, 0.0)
        counted = some_grams if metric.effective_order else jnp.ones_like(some_grams)
        logs = logs + jnp.where(counted, jnp.log(precision), zero)
        orders = orders + jnp.where(counted, one, zero)
    short = length < reference
    brevity = jnp.where(short, one - reference / jnp.where(length == 0, one, length), zero)
    score = jnp.float32(100) * jnp.exp(jnp.minimum(brevity, zero) + logs / jnp.maximum(orders, one))
    nothing = (length == 0) & (reference == 0)
    return jnp.where(nothing, jnp.float32(metric.zero_division), jnp.where(some, score, zero))


@dataclass(frozen=True)
class BLEU(Derived):
    """BLEU of a corpus, from 0 to 100: the geometric mean of n-gram precisions times a penalty for short texts.

    BLEU = 100 * min(1, exp(1 - r / c)) * (p_1 * ... * p_N)^(1/N), with p_n = matches_n / ngrams_n summed over the
    corpus, c the tokens of the texts and r those of the references closest in length (the shorter of two). A match is
    an n-gram that a reference has, counted at most as often as in the reference that has it most (Papineni et al.,
    2002). Numbers equal those of sacreBLEU (Post, 2018) for the same fields.

    `encode(texts, references)` makes the arrays of `update` from strings: preds int32 [batch, length], target int32
    [batch, references, length], both filled up with -1. Weight and mask are [batch]: weight 2 is a sentence twice.

    tokenize: "13a", "intl", "zh", "char", "none" (already tokens with spaces between), or a function from a string to a
    list of strings. lowercase: lower-case first. smoothing, of an order without matches: "exp" (the k-th such order
    counts 1 / 2^k matches), "floor" (smoothing_value matches, 0.1), "add-k" (smoothing_value, 1, on matches and n-grams
    of all orders above the first), "none". effective_order: leaves out orders that no text is long enough for; without
    it BLEU is 0 there, as it is without any match. Where both sides have no token at all, zero_division, NaN.

    >>> from jaxdl.metrics import BLEU, bleu
    >>> round(float(bleu(["The cat sat on the mat."], [["The cat sat on a mat.", "A cat on the mat."]])), 2)
    79.53
    >>> metric = BLEU(tokenize="13a")
    >>> state = metric.update(metric.init(), **metric.encode(["one two three four"], ["one two three four"]))
    >>> round(float(metric.compute(state)), 3)
    100.0
    """

    tokenize: str | Tokenizer = "13a"
    lowercase: bool = False
    max_order: int = 4
    smoothing: Smoothing = "exp"
    smoothing_value: float | None = None
    effective_order: bool = False
    zero_division: float = float("nan")
    name: str = "bleu"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> NgramMatches:
        """The matches and lengths of the corpus."""
        return NgramMatches(self.max_order, name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and their references (one string, or a list of them, for each text).

        `length` is what rows are filled up to; by default one of few lengths, so that few shapes are compiled.
        """
        return _encode(self, preds, references, length)

    def compute(self, state: sums.Sums) -> jax.Array:
        """BLEU, float32 []."""
        return _score(self, sums.value(state))

    def precisions(self, state: sums.Sums) -> jax.Array:
        """p_1 ... p_N in percent without smoothing, float32 [max_order]; NaN for an order without n-grams."""
        order = self.max_order
        return jnp.float32(100) * sums.ratio(
            sums.pick(state, slice(2, 2 + order)), sums.pick(state, slice(2 + order, None))
        )


@dataclass(frozen=True)
class SentenceBLEU(MeanOf):
    """The weighted mean over texts of the BLEU of each text alone, from 0 to 100; `scores` gives them one by one.

    Shapes and fields as in `BLEU`; effective_order is on, because a text of three tokens has no 4-gram.

    >>> from jaxdl.metrics import sentence_bleu
    >>> round(float(sentence_bleu(["a b c", "a b x"], ["a b c", "a b c"], tokenize="none")), 3)
    77.516
    """

    tokenize: str | Tokenizer = "13a"
    lowercase: bool = False
    max_order: int = 4
    smoothing: Smoothing = "exp"
    smoothing_value: float | None = None
    effective_order: bool = True
    zero_division: float = float("nan")
    name: str = "sentence_bleu"

    def __post_init__(self) -> None:
        _check(self)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and their references (one string, or a list of them, for each text)."""
        return _encode(self, preds, references, length)

    def scores(self, preds: Any, target: Any) -> jax.Array:
        """The BLEU of each text, float32 [batch]."""
        return _score(self, NgramMatches(self.max_order, name=self.name).counts(preds, target).astype(jnp.float32))

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        return self.scores(preds, target), None


bleu = text_call(BLEU, "bleu")
sentence_bleu = text_call(SentenceBLEU, "sentence_bleu")
