"""Word and character error rates, information lost and preserved, and the edit distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.means import MeanOf
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.text.alignment import Costs, alignment_costs
from jaxdl.metrics.text.ngrams import lengths, token_ids
from jaxdl.metrics.text.sentences import add_counts, as_quotient, quotient, text_call
from jaxdl.metrics.text.tokens import Tokenizer, encode, pairs_of, tokenizer_of

# One alignment carries two numbers: errors in the upper bits, and minus the hits in the lower 16.
_ERROR = np.int32(1 << 16)
_LONGEST = 32000


@dataclass(frozen=True)
class Edits:
    """Errors, hits and lengths of the cheapest alignments of a corpus: the statistic of the error rates.

    preds and target: token ids int [batch, length], filled up with -1; the lengths of the two arrays may differ, up to
    32,000. Of all alignments with the fewest substitutions, insertions and deletions, one with the most hits counts.
    State: `Sums` of four numbers: errors, hits, tokens of the target, tokens of preds.
    """

    name: str = field(default="edits", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 4))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds texts and what they should be; `weight` and `mask` are [batch]."""
        return add_counts(state, self.counts(preds, target), weight, mask, self.name)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def counts(self, preds: Any, target: Any) -> jax.Array:
        """Of each text, int32 [batch, 4]: errors, hits, tokens of the target, tokens of preds."""
        preds, target = _pair(preds, target, self.name)
        if max(preds.shape[1], target.shape[1]) > _LONGEST:
            raise ValueError(
                f"{self.name}: preds have shape {preds.shape} and target {target.shape}; texts may have "
                f"{_LONGEST:,} tokens"
            )
        costs = Costs(_ERROR, _ERROR, _ERROR, np.int32(-1))
        packed = alignment_costs(preds, target, costs=costs)
        hits = -packed & jnp.int32(0xFFFF)
        errors = (packed + hits) >> jnp.int32(16)
        return jnp.stack([errors, hits, lengths(target), lengths(preds)], axis=1)


def _pair(preds: Any, target: Any, name: str) -> tuple[jax.Array, jax.Array]:
    preds, target = token_ids(preds, target, name)
    if target.shape[1] != 1:
        raise ValueError(
            f"{name}: target has shape {target.shape}, with {target.shape[1]} references; it takes one for each text, "
            "[batch, length] or [batch, 1, length]"
        )
    return preds, target[:, 0]


def _encode(metric: Any, preds: Any, references: Any, length: int | None, tokenize: Tokenizer) -> dict[str, np.ndarray]:
    texts, groups = pairs_of(preds, references, metric.name)
    many = next((index for index, group in enumerate(groups) if len(group) != 1), None)
    if many is not None:
        raise ValueError(f"{metric.name}: text {many} has {len(groups[many])} references; it takes one for each text")
    encoded = encode(texts, groups, tokenize, length)
    encoded["target"] = encoded["target"][:, 0]
    # filled up to the next of few lengths, a text that is not too long would be refused
    return {key: ids[:, :_LONGEST] if (ids[:, _LONGEST:] < 0).all() else ids for key, ids in encoded.items()}


def _check(metric: Any) -> None:
    object.__setattr__(metric, "zero_division", as_quotient(metric.zero_division, metric.name))
    if hasattr(metric, "tokenize"):
        tokenizer_of(metric.tokenize, metric.name)


def _split(state: sums.Sums) -> tuple[jax.Array, ...]:
    """errors, hits, tokens of the target, tokens of preds."""
    numbers = sums.value(state)
    return tuple(numbers[..., index] for index in range(4))


@dataclass(frozen=True)
class WordErrorRate(Derived):
    """The word error rate of a corpus: errors / words of the target; 0 is perfect, and it may exceed 1.

    WER = (S + D + I) / N: the fewest substitutions, deletions and insertions that make the target of each text,
    summed over the corpus, over the N words of the targets (Morris et al., 2004).

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. tokenize: "none" (words, at white space), another name as in `BLEU`, or a function from
    a string to a list of strings. zero_division (NaN): the value where there is nothing to divide by.

    >>> from jaxdl.metrics import word_error_rate
    >>> float(word_error_rate(["the cat sat down", "a dog"], ["the cat sat", "the dog"]))
    0.4000000059604645
    """

    tokenize: str | Tokenizer = "none"
    zero_division: float = float("nan")
    name: str = "word_error_rate"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> Edits:
        """Errors, hits and lengths of the corpus."""
        return Edits(name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, tokenizer_of(self.tokenize, self.name))

    def compute(self, state: sums.Sums) -> jax.Array:
        """WER, float32 []."""
        errors, _, true, _ = _split(state)
        return quotient(errors, true, self.zero_division)


@dataclass(frozen=True)
class CharErrorRate(Derived):
    """The character error rate of a corpus: errors / characters of the target; white space counts.

    CER = (S + D + I) / N over Unicode code points, otherwise as `WordErrorRate`.

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. zero_division (NaN): the value where there is nothing to divide by.

    >>> from jaxdl.metrics import char_error_rate
    >>> float(char_error_rate(["rain"], ["train"]))
    0.20000000298023224
    """

    zero_division: float = float("nan")
    name: str = "char_error_rate"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> Edits:
        """Errors, hits and lengths of the corpus."""
        return Edits(name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, list)

    def compute(self, state: sums.Sums) -> jax.Array:
        """CER, float32 []."""
        errors, _, true, _ = _split(state)
        return quotient(errors, true, self.zero_division)


@dataclass(frozen=True)
class MatchErrorRate(Derived):
    """The share of errors among all steps of the alignments, from 0 to 1: (S + D + I) / (H + S + D + I).

    H are the hits of the alignment with the fewest errors, and of these the one with the most hits (Morris et al.,
    2004). Implementations that divide by the longer of both texts instead give another number wherever a text has
    both insertions and deletions.

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. tokenize: "none" (words, at white space), another name as in `BLEU`, or a function from
    a string to a list of strings. zero_division (NaN): the value where there is nothing to divide by.

    >>> from jaxdl.metrics import match_error_rate
    >>> float(match_error_rate(["the cat sat down"], ["the cat sat"]))
    0.25
    """

    tokenize: str | Tokenizer = "none"
    zero_division: float = float("nan")
    name: str = "match_error_rate"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> Edits:
        """Errors, hits and lengths of the corpus."""
        return Edits(name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, tokenizer_of(self.tokenize, self.name))

    def compute(self, state: sums.Sums) -> jax.Array:
        """MER, float32 []."""
        errors, hits, _, _ = _split(state)
        return quotient(errors, errors + hits, self.zero_division)


@dataclass(frozen=True)
class WordInformationPreserved(Derived):
    """The share of information preserved, from 0 to 1: (H / N) (H / P), with N words of the target and P of preds.

    H are the hits of the alignments, as in `MatchErrorRate`, summed over the corpus as N and P are (Morris et al.,
    2004). Where one side has no word it is 0, where neither has, zero_division.

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. tokenize: "none" (words, at white space), another name as in `BLEU`, or a function from
    a string to a list of strings. zero_division (NaN): the value where there is nothing to divide by.

    >>> from jaxdl.metrics import word_information_preserved
    >>> float(word_information_preserved(["the cat sat down"], ["the cat sat"]))
    0.75
    """

    tokenize: str | Tokenizer = "none"
    zero_division: float = float("nan")
    name: str = "word_information_preserved"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> Edits:
        """Errors, hits and lengths of the corpus."""
        return Edits(name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, tokenizer_of(self.tokenize, self.name))

    def compute(self, state: sums.Sums) -> jax.Array:
        """WIP, float32 []."""
        return _preserved(state, self.zero_division)


@dataclass(frozen=True)
class WordInformationLost(Derived):
    """The share of information lost, from 0 to 1: 1 - `WordInformationPreserved`.

    Where one side has no word it is 1, where neither has, zero_division.

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. tokenize: "none" (words, at white space), another name as in `BLEU`, or a function from
    a string to a list of strings. zero_division (NaN): the value where there is nothing to divide by.

    >>> from jaxdl.metrics import word_information_lost
    >>> float(word_information_lost(["the cat sat down"], ["the cat sat"]))
    0.25
    """

    tokenize: str | Tokenizer = "none"
    zero_division: float = float("nan")
    name: str = "word_information_lost"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def statistic(self) -> Edits:
        """Errors, hits and lengths of the corpus."""
        return Edits(name=self.name)

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, tokenizer_of(self.tokenize, self.name))

    def compute(self, state: sums.Sums) -> jax.Array:
        """WIL, float32 []."""
        return jnp.float32(1) - _preserved(state, 1.0 - self.zero_division)


def _preserved(state: sums.Sums, undefined: float) -> jax.Array:
    _, hits, true, given = _split(state)
    share = quotient(hits, true, 0.0) * quotient(hits, given, 0.0)
    return jnp.where(true + given == 0, jnp.full_like(share, undefined), share)


@dataclass(frozen=True)
class EditDistance(MeanOf):
    """The weighted mean over texts of the edit distance to their targets; `scores` gives the distances one by one.

    The distance is the least cost of insertions (of what the target has not), deletions (of what only the target has)
    and substitutions that make the text of its target (Levenshtein, 1966; Wagner and Fischer, 1974); with costs of 1
    their number. Two empty texts have distance 0.

    `encode(texts, targets)` makes the arrays of `update` from strings: int32 [batch, length] each, filled up with -1;
    weight and mask are [batch]. tokenize: `list` (characters), a name as in `BLEU`, or a function from a string to a
    list of strings. insertion, deletion, substitution: costs, not negative. normalize: divides the distance by the
    length of the longer of both texts; 0 where both are empty.

    >>> from jaxdl.metrics import edit_distance
    >>> float(edit_distance(["rain", "kitten"], ["shine", "sitting"]))
    3.0
    """

    tokenize: str | Tokenizer = list
    insertion: float = 1.0
    deletion: float = 1.0
    substitution: float = 1.0
    normalize: bool = False
    name: str = "edit_distance"

    def __post_init__(self) -> None:
        tokenizer_of(self.tokenize, self.name)
        for what in ("insertion", "deletion", "substitution"):
            cost = getattr(self, what)
            if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < float("inf"):
                raise ValueError(f"{self.name}: the cost of {what} must be a number from 0; it is {cost!r}")

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of texts and what they should be, one string for each."""
        return _encode(self, preds, references, length, tokenizer_of(self.tokenize, self.name))

    def scores(self, preds: Any, target: Any) -> jax.Array:
        """The distance of each text, float32 [batch]."""
        preds, target = _pair(preds, target, self.name)
        costs = Costs(*(np.float32(cost) for cost in (self.insertion, self.deletion, self.substitution, 0)))
        distance = alignment_costs(preds, target, costs=costs)
        if not self.normalize:
            return distance
        return quotient(distance, jnp.maximum(lengths(preds), lengths(target)).astype(jnp.float32), 0.0)

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        return self.scores(preds, target), None


word_error_rate = text_call(WordErrorRate, "word_error_rate")
char_error_rate = text_call(CharErrorRate, "char_error_rate")
match_error_rate = text_call(MatchErrorRate, "match_error_rate")
word_information_preserved = text_call(WordInformationPreserved, "word_information_preserved")
word_information_lost = text_call(WordInformationLost, "word_information_lost")
edit_distance = text_call(EditDistance, "edit_distance")
