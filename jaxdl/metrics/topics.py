"""Metrics of topics: whether their words belong together, differ between topics, and explain the documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_float, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

Documents = Literal["ids", "counts"]
Topics = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class WordsInDocuments:
    """In how many documents each word and each pair of words occurs: the statistic of topic coherence.

    words: the ids that matter, usually the best words of all topics. preds: the reference documents, as `documents`
    says: "ids", int [documents, length], word ids with any negative id as padding; or "counts", [documents,
    vocabulary], how often each word occurs. `mask` is [documents] or of the shape of preds, `weight` [documents].
    State: `Sums` of len(words)^2 pairs (the diagonal holds single words) and of documents; it streams over any corpus.
    """

    words: tuple[int, ...]
    documents: Documents = "ids"
    name: str = field(default="coherence", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def __post_init__(self) -> None:
        if self.documents not in ("ids", "counts"):
            raise ValueError(f"{self.name}: documents must be 'ids' or 'counts'; it is {self.documents!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """No documents."""
        return sums.zeros((*batch_shape, len(self.words) ** 2 + 1))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds documents."""
        given = as_array(preds, f"{self.name}: preds")
        if given.ndim != 2:
            what = "length] of word ids" if self.documents == "ids" else "vocabulary] of counts"
            raise ValueError(f"{self.name}: preds have shape {given.shape}; they must be [documents, {what}")
        if weight is not None and as_array(weight, f"{self.name}: weight").ndim > 1:
            raise ValueError(f"{self.name}: weight has shape {jnp.shape(weight)}; a weight belongs to a document")
        weights = as_weight(given.shape[:1], weight, None, self.name)
        weights = jnp.ones(given.shape[:1], jnp.float32) if weights is None else weights
        present = jnp.ones(given.shape, jnp.bool_) if mask is None else as_mask(given.shape, mask, self.name)
        weights = jnp.where(jnp.any(present, axis=-1), weights, jnp.zeros_like(weights))
        there = self._of_ids(given, present) if self.documents == "ids" else self._of_counts(given, present)
        there = jnp.where((weights == 0)[:, None], jnp.zeros_like(there), there)
        pairs = jnp.matmul(there.T, there * weights[:, None], precision=lax.Precision.HIGHEST).reshape(-1)
        new = sums.Sums(pairs, jnp.zeros_like(pairs))
        count = sums.total(weights[None, :])
        return sums.add(state, sums.Sums(*(jnp.concatenate(parts) for parts in zip(new, count, strict=True))))

    def _of_ids(self, given: jax.Array, present: jax.Array) -> jax.Array:
        """Which words occur, 1.0 or 0.0, [documents, words]."""
        ids = as_ids(given, f"{self.name}: preds")
        count, largest = len(self.words), max(self.words)
        column = np.full(largest + 2, count, np.int32)
        column[np.asarray(self.words)] = np.arange(count)
        known = present & (ids >= 0) & (ids <= largest)
        columns = jnp.asarray(column)[jnp.where(known, ids, jnp.full_like(ids, largest + 1))]
        rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None] * jnp.int32(count + 1)
        cells = jnp.zeros((ids.shape[0] * (count + 1),), jnp.float32)
        cells = cells.at[(rows + columns).reshape(-1)].set(1.0, mode="promise_in_bounds")
        return cells.reshape(ids.shape[0], count + 1)[:, :count]

    def _of_counts(self, given: jax.Array, present: jax.Array) -> jax.Array:
        if given.shape[1] <= max(self.words):
            raise ValueError(
                f"{self.name}: preds have shape {given.shape}, so word ids end at {given.shape[1] - 1}; a topic holds "
                f"word {max(self.words)}"
            )
        columns = np.asarray(self.words)
        counts = given[:, columns].astype(jnp.float32)
        there = ((counts > 0) & present[:, columns]).astype(jnp.float32)
        return jnp.where(jnp.isnan(counts) & present[:, columns], jnp.full_like(there, jnp.nan), there)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def counts(self, state: sums.Sums) -> tuple[jax.Array, jax.Array]:
        """(documents of each pair, [words, words]; all documents, []), float64, under x64."""
        cells = state.hi.astype(jnp.float64) + state.lo.astype(jnp.float64)
        return cells[:-1].reshape(len(self.words), len(self.words)), cells[-1]


@dataclass(frozen=True)
class UMassCoherence(Derived):
    """Whether a topic's words occur in the same documents: mean of log((D(w_i, w_j) + smoothing) / D(w_j)).

    The mean is over a topic's pairs of words with w_j before w_i, and over topics; D counts documents of the reference
    corpus, usually the training one (Mimno et al., 2011, who sum over pairs). At most about 0; higher is better.
    topics: the best words of each topic, best first, [topics, words]; `top_words` gives them. NaN when a word of a
    topic occurs in no document. Shapes of documents: `WordsInDocuments`; `per_topic` gives the single values.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import umass_coherence
    >>> documents = jnp.array([[0, 1, 2], [0, 1, -1], [2, 3, -1]])
    >>> [round(float(umass_coherence(documents, topics=[topic])), 4) for topic in ([0, 1], [0, 3])]
    [0.4055, -0.6931]
    """

    topics: Topics
    documents: Documents = "ids"
    smoothing: float = 1.0
    name: str = "umass_coherence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "topics", as_topics(self.topics, self.name))
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> WordsInDocuments:
        """The counts of words and pairs of words."""
        return WordsInDocuments(_vocabulary(self.topics), self.documents, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over topics, float32 []."""
        return jnp.mean(self.per_topic(state))

    def per_topic(self, state: sums.Sums) -> jax.Array:
        """float32 [topics]."""
        before, after = _pairs(self.topics)
        with jax.enable_x64(True):
            pairs, _ = self.statistic.counts(state)
            single = pairs[before, before]
            value = jnp.log(
                (pairs[after, before] + self.smoothing) / jnp.where(single > 0, single, jnp.ones_like(single))
            )
            value = jnp.where((single > 0) & (pairs[after, after] > 0), value, jnp.full_like(value, jnp.nan))
            return jnp.mean(value, axis=1).astype(jnp.float32)


@dataclass(frozen=True)
class NPMICoherence(Derived):
    """Whether a topic's words occur together more often than by chance, from -1 (never) over 0 (chance) to 1 (always).

    NPMI(i, j) = log(p_ij / (p_i p_j)) / -log p_ij, where p_ij = (D(w_i, w_j) + smoothing) / D and D counts documents;
    the mean over pairs and over topics (Bouma, 2009; Lau, Newman and Baldwin, 2014). Two words that never meet
    give -1, two that are in every document 0. For windows of words instead of documents pass `sliding_windows` of them.
    topics, NaN and shapes as in `UMassCoherence`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import npmi_coherence
    >>> documents = jnp.array([[0, 1, 2], [0, 1, -1], [2, 3, -1]])
    >>> round(float(npmi_coherence(documents, topics=[[0, 1], [0, 3]])), 4)
    0.0
    """

    topics: Topics
    documents: Documents = "ids"
    smoothing: float = 0.0
    name: str = "npmi_coherence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "topics", as_topics(self.topics, self.name))
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> WordsInDocuments:
        """The counts of words and pairs of words."""
        return WordsInDocuments(_vocabulary(self.topics), self.documents, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over topics, float32 []."""
        return jnp.mean(self.per_topic(state))

    def per_topic(self, state: sums.Sums) -> jax.Array:
        """float32 [topics]."""
        before, after = _pairs(self.topics)
        with jax.enable_x64(True):
            pairs, documents = self.statistic.counts(state)
            one, two = pairs[before, before], pairs[after, after]
            both = pairs[after, before] + self.smoothing
            some = (one > 0) & (two > 0)
            fill = jnp.ones_like(both)
            meet = some & (both > 0)
            ratio = jnp.where(meet, both * documents, fill) / jnp.where(some, one * two, fill)
            rarity = -jnp.log(
                jnp.where(meet, both, fill) / jnp.where(documents > 0, documents, jnp.ones_like(documents))
            )
            value = jnp.log(ratio) / jnp.where(rarity > 0, rarity, fill)
            value = jnp.where(rarity > 0, value, jnp.zeros_like(value))
            value = jnp.where(meet, value, jnp.where(some, -fill, jnp.full_like(value, jnp.nan)))
            return jnp.mean(value, axis=1).astype(jnp.float32)


@dataclass(frozen=True)
class TopicDiversity:
    """The share of different words among the best words of all topics: 1 when no two topics share one.

    (Dieng, Ruiz and Blei, 2020, with 25 words a topic.) preds: word ids int [topics, words], the examples being topics.
    An id outside 0 .. vocabulary - 1 is left out and counted in `invalid`. NaN without words. State: `Sums`, how often
    each word of the vocabulary occurs.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import topic_diversity
    >>> float(topic_diversity(jnp.array([[0, 1], [1, 2]])))
    0.75
    """

    vocabulary: int
    name: str = "topic_diversity"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def __post_init__(self) -> None:
        size = self.vocabulary
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{self.name}: vocabulary must be a positive integer; it is {size!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """No topics."""
        return sums.zeros((*batch_shape, self.vocabulary + 1))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds topics: word ids [topics, words]."""
        ids = as_ids(preds, f"{self.name}: preds")
        given = as_weight(ids.shape, weight, mask, self.name)
        weights = jnp.ones(ids.shape, jnp.float32) if given is None else given
        valid = (ids >= 0) & (ids < self.vocabulary)
        cells = jnp.where(valid, ids, jnp.full_like(ids, self.vocabulary))
        return sums.add(state, sums.sum_by_cell(cells.reshape(-1), weights.reshape(-1), self.vocabulary + 1))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        words = sums.pick(state, slice(None, -1))
        different = jnp.sum(words.hi > 0, axis=-1, dtype=jnp.int32).astype(jnp.float32)
        every = sums.add(sums.total(words.hi), sums.total(words.lo))
        return sums.ratio(sums.Sums(different, jnp.zeros_like(different)), every)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of ids outside the vocabulary, float32 []."""
        return sums.value(sums.pick(state, -1))


@dataclass(frozen=True)
class DocumentLikelihoods:
    """Log likelihoods and numbers of words summed over documents: the statistic of the two metrics below.

    preds: log likelihood of each document in nats [...]; target: how many words it has [...]. `document_log_likelihood`
    gives both from a topic model. A document of a negative number of words makes the result NaN.
    """

    name: str = field(default="topics", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """No documents."""
        return sums.zeros((*batch_shape, 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds documents."""
        likelihood, words = as_float(preds, f"{self.name}: preds"), as_float(target, f"{self.name}: target")
        same_shape(likelihood, words, self.name)
        words = jnp.where(words < 0, jnp.full_like(words, jnp.nan), words)
        given = as_weight(words.shape, weight, mask, self.name)
        weights = jnp.ones(words.shape, jnp.float32) if given is None else given
        none = jnp.zeros_like(weights)
        rows = [jnp.where(weights == 0, none, x * weights).reshape(-1) for x in (likelihood, words)]
        return sums.add(state, sums.total(jnp.stack(rows)))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)


@dataclass(frozen=True)
class PerWordLogLikelihood(Derived):
    """The log likelihood of held-out documents per word, in nats: sum of log p(document) / sum of words.

    NaN without words. Shapes: `DocumentLikelihoods`.

    >>> from jaxdl.metrics import per_word_log_likelihood
    >>> float(per_word_log_likelihood([-20.0, -50.0], [4, 10]))
    -5.0
    """

    name: str = "per_word_log_likelihood"

    @property
    def statistic(self) -> DocumentLikelihoods:
        """The two sums."""
        return DocumentLikelihoods(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """At most 0 for probabilities of words, float32 []."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))


@dataclass(frozen=True)
class TopicPerplexity(Derived):
    """exp(-log likelihood per word) of held-out documents: as unsure as a choice among so many words.

    Documents are weighed by their words (Blei, Ng and Jordan, 2003). NaN without words. Shapes: `DocumentLikelihoods`.

    >>> from jaxdl.metrics import topic_perplexity
    >>> round(float(topic_perplexity([-20.0, -50.0], [4, 10])), 3)
    148.413
    """

    name: str = "topic_perplexity"

    @property
    def statistic(self) -> DocumentLikelihoods:
        """The two sums."""
        return DocumentLikelihoods(name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """At least 1 for probabilities of words, float32 []."""
        return jnp.exp(-sums.ratio(sums.pick(state, 0), sums.pick(state, 1)))


def as_topics(topics: Any, name: str) -> Topics:
    """Lists or an array [topics, words] as tuples of word ids.

    Raises:
        ValueError: when topics differ in length, have fewer than two words, a word twice, or a negative id.
    """
    rows = tuple(tuple(int(word) for word in topic) for topic in topics)
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths == {0} or lengths == {1}:
        raise ValueError(f"{name}: topics must be [topics, words] with at least two words each; lengths are {lengths}")
    for number, row in enumerate(rows):
        if min(row) < 0 or len(set(row)) < len(row):
            raise ValueError(f"{name}: topic {number} must hold different word ids of at least 0; it is {row}")
    return rows


def _vocabulary(topics: Topics) -> tuple[int, ...]:
    return tuple(sorted({word for topic in topics for word in topic}))


def _pairs(topics: Topics) -> tuple[np.ndarray, np.ndarray]:
    """Columns of (the earlier, the later) word of all pairs of a topic, int [topics, pairs] each."""
    column = {word: place for place, word in enumerate(_vocabulary(topics))}
    places = np.array([[column[word] for word in topic] for topic in topics])
    earlier, later = np.triu_indices(places.shape[1], 1)
    return places[:, earlier], places[:, later]


def _infer_vocabulary(inputs: Mapping[str, Any]) -> dict[str, int]:
    ids = as_ids(inputs["preds"], "preds")
    if isinstance(ids, jax.core.Tracer):
        raise ValueError("inside jit the size of the vocabulary must be given: vocabulary=")
    return {"vocabulary": max(int(jnp.max(ids, initial=0)), 0) + 1}


umass_coherence = one_call(UMassCoherence, "umass_coherence")
npmi_coherence = one_call(NPMICoherence, "npmi_coherence")
topic_diversity = one_call(TopicDiversity, "topic_diversity", infer=_infer_vocabulary)
per_word_log_likelihood = one_call(PerWordLogLikelihood, "per_word_log_likelihood")
topic_perplexity = one_call(TopicPerplexity, "topic_perplexity")
