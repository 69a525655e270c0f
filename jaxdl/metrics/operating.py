"""Operating points of a curve: the best threshold, the equal error rate, and what one rate costs in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.metrics.call import one_call
from jaxdl.metrics.corners import Corners, Sorted, finish, share
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.of_scores import OfScores, Scores, check_scores, infer_capacity


@dataclass(frozen=True)
class KolmogorovSmirnov(OfScores, Derived):
    """The largest distance between the distributions of the scores of positives and of negatives: max |TPR - FPR|.

    Kolmogorov and Smirnov's two-sample statistic, two-sided. Fields, shapes and NaN as `ROCAUC`. Of a histogram the
    value is the lower end, since the edges of bins are thresholds like others.

    >>> from jaxdl.metrics import kolmogorov_smirnov
    >>> float(kolmogorov_smirnov([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    0.5
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "ks"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        return finish(jnp.max(jnp.abs(share(at.tp, at.positives) - share(at.fp, at.negatives))), scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        over = share(at.tp, at.positives) - share(at.fp_above, at.negatives)
        under = share(at.fp, at.negatives) - share(at.tp_above, at.positives)
        return self._value(scores, at), finish(jnp.max(jnp.maximum(over, under)), scores, at)


@dataclass(frozen=True)
class EqualErrorRate(OfScores, Derived):
    """The rate at which false positives and misses are equally frequent: FPR = 1 - TPR, on the line between points.

    The ROC curve is drawn with straight lines, as for its area, and crossed with FPR + TPR = 1. Fields, shapes and NaN
    as `ROCAUC`.

    >>> from jaxdl.metrics import equal_error_rate
    >>> float(equal_error_rate([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    0.5
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "eer"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        left, right, low, high = self._crossing(at)
        before, after = left + low - 1.0, right + high - 1.0
        return finish(left + (right - left) * share(-before, after - before), scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        left, right, low, high = self._crossing(at)
        ends = jnp.maximum(left, 1.0 - high), jnp.minimum(right, 1.0 - low)
        return finish(ends[0], scores, at), finish(ends[1], scores, at)

    def _crossing(self, at: Corners) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """FPR and TPR of the last point where their sum is at most 1, and of the first where it is above: both rise."""
        fpr, tpr = share(at.fp, at.negatives), share(at.tp, at.positives)
        early = fpr + tpr <= 1
        left, low = (jnp.max(jnp.where(early, rate, 0.0)) for rate in (fpr, tpr))
        right, high = (jnp.min(jnp.where(early, 1.0, rate)) for rate in (fpr, tpr))
        return left, right, low, high


@dataclass(frozen=True)
class BestThreshold(OfScores, Derived):
    """The threshold of the largest F-beta: {"value": F, "threshold": t}, where score >= t is called positive.

    F_beta = (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP) (van Rijsbergen, 1979); the highest of equal
    thresholds. Fields, shapes and NaN as `ROCAUC`; without positives NaN. Of a histogram thresholds are edges of bins,
    the value is what this threshold reaches and so the lower end of the largest.

    >>> from jaxdl.metrics import best_threshold
    >>> {key: round(float(value), 2) for key, value in best_threshold([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).items()}
    {'threshold': 0.35, 'value': 0.8}
    """

    capacity: int | None = None
    scores: Scores | None = None
    beta: float = 1.0
    name: str = "best_threshold"

    def __post_init__(self) -> None:
        check_scores(self)
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"BestThreshold: beta must be above 0 and finite; it is {self.beta!r}")

    def _value(self, scores: Sorted, at: Corners) -> dict[str, jax.Array]:
        quality = self._quality(at, at.fp)
        best = jnp.max(quality)
        return _point(best, _highest(scores, quality == best), scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        ends = (jnp.max(self._quality(at, fp)) for fp in (at.fp, at.fp_above))
        low, high = (finish(end, scores, at, negatives=False) for end in ends)
        return low, high

    def _quality(self, at: Corners, fp: jax.Array) -> jax.Array:
        square = self.beta**2
        return (1.0 + square) * share(at.tp, square * at.positives + at.tp + fp)


@dataclass(frozen=True)
class PrecisionAtRecall(OfScores, Derived):
    """The largest precision among thresholds of at least this recall: {"value": precision, "threshold": t}.

    Of equal precisions the one of the largest recall, and of equal ones the highest threshold. Fields, shapes and NaN
    as `ROCAUC`; without positives NaN. Of a histogram thresholds are edges of bins and the value is the lower end.

    >>> from jaxdl.metrics import precision_at_recall
    >>> found = precision_at_recall([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], recall=0.75)
    >>> round(float(found["value"]), 4), round(float(found["threshold"]), 2)
    (0.6667, 0.35)
    """

    recall: float
    capacity: int | None = None
    scores: Scores | None = None
    name: str = "precision_at_recall"

    def __post_init__(self) -> None:
        check_scores(self)
        _check_rate("PrecisionAtRecall: recall", self.recall)

    def _value(self, scores: Sorted, at: Corners) -> dict[str, jax.Array]:
        recall, precision = share(at.tp, at.positives), share(at.tp, at.tp + at.fp, otherwise=-1.0)
        return _largest(precision, recall, self._enough(recall), scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        enough = self._enough(share(at.tp, at.positives))
        high = jnp.max(jnp.where(enough, share(at.tp, at.tp + at.fp_above), 0.0))
        return self._value(scores, at)["value"], finish(high, scores, at, negatives=False)

    def _enough(self, recall: jax.Array) -> jax.Array:
        # compiled, a division by one number is a product with its inverse: 49 of 49 are 1 - 2^-53
        return recall >= jnp.float64(self.recall * (1 - 2**-50))


@dataclass(frozen=True)
class RecallAtPrecision(OfScores, Derived):
    """The largest recall among thresholds of at least this precision: {"value": recall, "threshold": t}.

    Of equal recalls the one of the largest precision, and of equal ones the highest threshold. Where no threshold is
    that precise the recall is 0 and the threshold infinite: nothing is called positive. Fields, shapes and NaN as
    `ROCAUC`; without positives NaN. Of a histogram thresholds are edges of bins and the value is the lower end.

    >>> from jaxdl.metrics import recall_at_precision
    >>> found = recall_at_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], precision=0.9)
    >>> float(found["value"]), round(float(found["threshold"]), 2)
    (0.5, 0.8)
    """

    precision: float
    capacity: int | None = None
    scores: Scores | None = None
    name: str = "recall_at_precision"

    def __post_init__(self) -> None:
        check_scores(self)
        _check_rate("RecallAtPrecision: precision", self.precision)

    def _value(self, scores: Sorted, at: Corners) -> dict[str, jax.Array]:
        recall, precision = share(at.tp, at.positives), share(at.tp, at.tp + at.fp, otherwise=-1.0)
        enough = (precision >= jnp.float64(self.precision)) & (recall > 0)
        return _largest(recall, precision, enough, scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        enough = share(at.tp, at.tp + at.fp_above) >= jnp.float64(self.precision)
        high = jnp.max(jnp.where(enough, share(at.tp, at.positives), 0.0))
        return self._value(scores, at)["value"], finish(high, scores, at, negatives=False)


def _largest(
    first: jax.Array, second: jax.Array, allowed: jax.Array, scores: Sorted, at: Corners
) -> dict[str, jax.Array]:
    """The largest `first` where allowed, then the largest `second`, then the highest score; 0 where none is allowed."""
    best = jnp.max(jnp.where(allowed, first, -1.0))
    allowed &= first == best
    allowed &= second == jnp.max(jnp.where(allowed, second, -1.0))
    return _point(jnp.maximum(best, 0.0), _highest(scores, allowed), scores, at)


def _highest(scores: Sorted, chosen: jax.Array) -> jax.Array:
    """The highest chosen score that is present; infinite when there is none."""
    chosen &= (scores.positive > 0) | (scores.negative > 0)
    score = jnp.max(jnp.where(chosen, scores.score, jnp.full_like(scores.score, -jnp.inf)))
    return jnp.where(jnp.any(chosen), score, jnp.full_like(score, jnp.inf))


def _point(value: jax.Array, threshold: jax.Array, scores: Sorted, at: Corners) -> dict[str, jax.Array]:
    return {
        "value": finish(value, scores, at, negatives=False),
        "threshold": finish(threshold, scores, at, negatives=False),
    }


def _check_rate(what: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{what} must lie between 0 and 1; it is {rate!r}")


def _one(metric: Any, name: str) -> Any:
    return one_call(metric, name, infer=infer_capacity, either=("capacity", "scores"))


kolmogorov_smirnov = _one(KolmogorovSmirnov, "kolmogorov_smirnov")
equal_error_rate = _one(EqualErrorRate, "equal_error_rate")
best_threshold = _one(BestThreshold, "best_threshold")
precision_at_recall = _one(PrecisionAtRecall, "precision_at_recall")
recall_at_precision = _one(RecallAtPrecision, "recall_at_precision")
