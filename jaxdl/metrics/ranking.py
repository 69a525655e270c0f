"""Metrics of ranking: how well scores order the documents of each query, with ties averaged exactly.

All take scores and relevances [queries, documents], padded and masked; `pad_queries` makes such arrays of rows (score,
relevance, query). Each is a weighted mean over queries, and all have these fields:

* k: only the k best documents count; None: all.
* ties: "average" gives the value that is expected when documents of equal score stand in any order with the same
  probability, in closed form (McSherry and Najork, 2008); "first" leaves them in the order in which they are given.
* empty: what a query gives whose own value is undefined because it has no relevant document: "nan", "zero", "one", or
  "skip", which leaves the query out; `metric.statistic.empty_queries(state)` says how many there were.

`mask` is [queries] or [queries, documents], `weight` [queries]. A score or relevance that is NaN makes the result NaN,
and so does a mean over no query.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.ranking_order import Ties
from jaxdl.metrics.ranking_sums import Empty, Gain, GainSums, HitSums, check_empty


@dataclass(frozen=True)
class DCG(Derived):
    """Discounted cumulative gain: the mean over queries of sum over places p <= k of gain(p) / log2(p + 1).

    gain: "linear", the relevance itself (Järvelin and Kekäläinen, 2002), or "exponential", 2^relevance - 1 (Burges et
    al., 2005). Shapes, ties and weights as `GainSums` says. A query without relevant documents has DCG 0.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import dcg
    >>> round(float(dcg(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[3, 0, 1]]))), 4)
    3.6309
    """

    k: int | None = None
    gain: Gain = "linear"
    ties: Ties = "average"
    empty: Empty = "zero"
    name: str = "dcg"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> GainSums:
        """The sums over queries."""
        return GainSums(self.k, self.gain, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "dcg", self.empty)


@dataclass(frozen=True)
class NDCG(Derived):
    """Normalised discounted cumulative gain: DCG over the DCG of the best possible order; 1 is a perfect ranking.

    Shapes, ties and weights as `GainSums` says, gains as in `DCG`. A query without relevant documents is 0 / 0: NaN
    unless `empty` says otherwise (scikit-learn and torchmetrics give 0: `empty="zero"`). A negative relevance makes the
    result NaN, since the ratio then means nothing. With k the best order is cut at k too.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ndcg
    >>> scores, relevance = jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 0, 3]])
    >>> round(float(ndcg(scores, relevance)), 4), round(float(ndcg(scores, relevance, gain="exponential")), 4)
    (0.7967, 0.7098)
    """

    k: int | None = None
    gain: Gain = "linear"
    ties: Ties = "average"
    empty: Empty = "nan"
    name: str = "ndcg"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> GainSums:
        """The sums over queries."""
        return GainSums(self.k, self.gain, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "ndcg", self.empty)


@dataclass(frozen=True)
class MeanReciprocalRank(Derived):
    """The mean over queries of 1 / (place of the first relevant document); 0 where none is among the k best.

    Shapes, ties and weights as `GainSums` says. A query without relevant documents gives 0 unless `empty` says
    otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_reciprocal_rank
    >>> scores = jnp.array([[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]])
    >>> float(mean_reciprocal_rank(scores, jnp.array([[0, 0, 1], [0, 1, 1]])))
    0.75
    """

    k: int | None = None
    ties: Ties = "average"
    empty: Empty = "zero"
    name: str = "mrr"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "reciprocal_rank", self.empty)


@dataclass(frozen=True)
class RetrievalMAP(Derived):
    """Mean average precision of rankings: the mean over queries of the precision at each relevant document's place.

    AP = sum over places p <= k of relevant(p) * precision at p / min(relevant documents, k). Shapes, ties and weights
    as `GainSums` says; the precision of tied documents is that of McSherry and Najork (2008). (Others divide by the
    relevant documents found among the k best, which rises when fewer are found.) A query without relevant documents is
    NaN unless `empty` says otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import retrieval_map
    >>> round(float(retrieval_map(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 1, 0]]))), 4)
    0.8333
    """

    k: int | None = None
    ties: Ties = "average"
    empty: Empty = "nan"
    name: str = "retrieval_map"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "average_precision", self.empty)


@dataclass(frozen=True)
class PrecisionAtK(Derived):
    """The share of relevant documents among the k best: the mean over queries of relevant among them / k.

    k=None takes all documents of the query. A query of fewer than k documents is still divided by k, unless
    `adaptive_k`. Shapes, ties and weights as `GainSums` says. A query without relevant documents gives 0 unless
    `empty` says otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import precision_at_k
    >>> float(precision_at_k(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 1, 0]]), k=2))
    0.5
    """

    k: int | None = None
    adaptive_k: bool = False
    ties: Ties = "average"
    empty: Empty = "zero"
    name: str = "precision_at_k"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "adaptive_precision" if self.adaptive_k else "precision", self.empty)


@dataclass(frozen=True)
class RecallAtK(Derived):
    """The share of the relevant documents that are among the k best, averaged over queries.

    Shapes, ties and weights as `GainSums` says. A query without relevant documents is NaN unless `empty` says
    otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import recall_at_k
    >>> float(recall_at_k(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 1, 0]]), k=1))
    0.5
    """

    k: int | None = None
    ties: Ties = "average"
    empty: Empty = "nan"
    name: str = "recall_at_k"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "recall", self.empty)


@dataclass(frozen=True)
class HitRate(Derived):
    """The share of queries with at least one relevant document among the k best.

    With tied scores the probability of it. Shapes, ties and weights as `GainSums` says. A query without relevant
    documents gives 0 unless `empty` says otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import hit_rate
    >>> float(hit_rate(jnp.array([[0.9, 0.2, 0.5], [0.1, 0.3, 0.2]]), jnp.array([[0, 0, 1], [0, 1, 1]]), k=1))
    0.5
    """

    k: int | None = None
    ties: Ties = "average"
    empty: Empty = "zero"
    name: str = "hit_rate"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "hit", self.empty)


@dataclass(frozen=True)
class RPrecision(Derived):
    """The precision among the R best, where R is how many documents of the query are relevant; mean over queries.

    Shapes, ties and weights as `GainSums` says. A query without relevant documents is NaN unless
    `empty` says otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import r_precision
    >>> float(r_precision(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 1, 0]])))
    0.5
    """

    ties: Ties = "average"
    empty: Empty = "nan"
    name: str = "r_precision"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(None, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "r_precision", self.empty)


@dataclass(frozen=True)
class FallOut(Derived):
    """The share of the irrelevant documents that are among the k best, averaged over queries; lower is better.

    Shapes, ties and weights as `GainSums` says. Here it is a query without *irrelevant* documents that is undefined:
    NaN unless `empty` says otherwise.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import fall_out
    >>> float(fall_out(jnp.array([[0.9, 0.2, 0.5]]), jnp.array([[1, 0, 0]]), k=2))
    0.5
    """

    k: int | None = None
    ties: Ties = "average"
    empty: Empty = "nan"
    name: str = "fall_out"

    def __post_init__(self) -> None:
        check_empty(self.name, self.empty)
        _ = self.statistic  # checks the other fields

    @property
    def statistic(self) -> HitSums:
        """The sums over queries."""
        return HitSums(self.k, self.ties, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over queries, float32 []."""
        return self.statistic.mean(state, "fall_out", self.empty)


dcg = one_call(DCG, "dcg")
ndcg = one_call(NDCG, "ndcg")
mean_reciprocal_rank = one_call(MeanReciprocalRank, "mean_reciprocal_rank")
retrieval_map = one_call(RetrievalMAP, "retrieval_map")
precision_at_k = one_call(PrecisionAtK, "precision_at_k")
recall_at_k = one_call(RecallAtK, "recall_at_k")
hit_rate = one_call(HitRate, "hit_rate")
r_precision = one_call(RPrecision, "r_precision")
fall_out = one_call(FallOut, "fall_out")
