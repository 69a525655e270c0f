"""Areas under curves: ROC (whole or partial), precision over recall, and average precision."""

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
class ROCAUC(OfScores, Derived):
    """The probability that a random positive scores above a random negative; ties count half.

    AUC = sum over pairs of w_pos * w_neg * ([s_pos > s_neg] + [s_pos = s_neg] / 2) / (W_pos * W_neg)
    (Hanley and McNeil, 1982; Mann and Whitney's U).

    `capacity` examples are kept and the area is exact; or `scores` says how: Exact(capacity), Histogram(), whose area
    is off by at most sum_b pos_b neg_b / (2 W_pos W_neg) (`bounded` gives the ends), or Bits16(), exact for 16-bit
    scores. NaN where only one label was seen, where a counted score is NaN, where a weight is negative or not finite,
    and where more than `capacity` examples came (`overflowed`).

    max_fpr: None, or the false positive rate in (0, 1] up to which the area counts, standardised so that chance is 0.5
    and the best 1: (1 + (A - m^2 / 2) / (m - m^2 / 2)) / 2 (McClish, 1989).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ROCAUC
    >>> metric = ROCAUC(capacity=100)
    >>> scores, labels = jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([0, 0, 1, 1])
    >>> float(metric.compute(metric.update(metric.init(), preds=scores, target=labels)))
    0.875
    """

    capacity: int | None = None
    scores: Scores | None = None
    max_fpr: float | None = None
    name: str = "auc"

    def __post_init__(self) -> None:
        check_scores(self)
        if self.max_fpr is not None and not 0 < self.max_fpr <= 1:
            raise ValueError(f"ROCAUC: max_fpr must be above 0 and at most 1; it is {self.max_fpr!r}")

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        if self.max_fpr is None:
            # of each positive, the negatives below it; divided before multiplied
            below = 1.0 - share(at.fp + at.fp_above, at.negatives + at.negatives)
            area = jnp.sum(share(scores.positive.astype(jnp.float64), at.positives) * below)
            return finish(area, scores, at)
        left, right, low, high = self._boxes(at)
        limit = jnp.float64(self.max_fpr)
        end = jnp.minimum(right, limit)
        top = low + (high - low) * share(end - left, right - left)
        return finish(self._standard(jnp.sum(jnp.maximum(end - left, 0.0) * (low + top)) / 2), scores, at)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        # within a bin the curve may rise first and then run, or run first and then rise
        left, right, low, high = self._boxes(at)
        width = right - left
        if self.max_fpr is not None:
            width = jnp.maximum(jnp.minimum(right, jnp.float64(self.max_fpr)) - left, 0.0)
        ends = [self._standard(jnp.sum(width * height)) for height in (low, high)]
        return finish(ends[0], scores, at), finish(ends[1], scores, at)

    def _boxes(self, at: Corners) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """False positive rates where each run of ties begins and ends, and true positive rates; later places of a run
        begin where they end."""
        right, high = share(at.fp, at.negatives), share(at.tp, at.positives)
        left = jnp.concatenate([jnp.zeros_like(right[:1]), right[:-1]])
        low = jnp.concatenate([jnp.zeros_like(high[:1]), high[:-1]])
        return left, right, low, high

    def _standard(self, area: jax.Array) -> jax.Array:
        if self.max_fpr is None or self.max_fpr == 1:
            return area
        least = self.max_fpr**2 / 2
        return (1.0 + (area - least) / (self.max_fpr - least)) / 2


@dataclass(frozen=True)
class AveragePrecision(OfScores, Derived):
    """The mean over positives of the precision at the positive's score: sum_k (R_k - R_{k-1}) P_k.

    P_k and R_k are precision and recall at the k-th highest of the distinct scores; no interpolation (Buckley and
    Voorhees, 2000; scikit-learn's definition). Chance gives the share of positives. Fields, shapes and NaN as `ROCAUC`;
    without negatives it is 1, without positives NaN. Bounds of a histogram: within a bin positives come first, tied, or
    last, one by one.

    >>> from jaxdl.metrics import average_precision
    >>> round(float(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])), 4)
    0.8333
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "average_precision"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        part = share(scores.positive.astype(jnp.float64), at.positives)
        return finish(jnp.sum(part * share(at.tp, at.tp + at.fp)), scores, at, negatives=False)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        part = scores.positive.astype(jnp.float64)
        high = part * share(at.tp, at.tp + at.fp_above)
        low = part * _mean_precision(at, at.fp)
        ends = (jnp.sum(share(end, at.positives)) for end in (low, high))
        low, high = (finish(end, scores, at, negatives=False) for end in ends)
        return low, high


@dataclass(frozen=True)
class PRAUC(OfScores, Derived):
    """The area under the precision-recall curve by trapezia: sum_k (R_k - R_{k-1}) (P_k + P_{k-1}) / 2, P_0 = 1.

    As scikit-learn's auc(recall, precision). It draws straight lines where the curve bends, so it is above what can be
    reached (Davis and Goadrich, 2006): prefer `AveragePrecision` to compare models. Fields, shapes and NaN as `ROCAUC`;
    without positives NaN.

    >>> from jaxdl.metrics import pr_auc
    >>> round(float(pr_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])), 4)
    0.7917
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "pr_auc"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        here = share(at.tp, at.tp + at.fp, otherwise=1.0)
        above = share(at.tp_above, at.tp_above + at.fp_above, otherwise=1.0)
        part = share(scores.positive.astype(jnp.float64), at.positives)
        return finish(jnp.sum(part * (here + above)) / 2, scores, at, negatives=False)

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        # precision at t true positives lies between t / (t + fp) and t / (t + fp_above), both concave in t: a chord of
        # the first is the least that trapezia give, and the integral of the second the most
        part = share(scores.positive.astype(jnp.float64), at.positives)
        # without any negatives so far the precision is 1 at no recall too
        chord = (share(at.tp_above, at.tp_above + at.fp, otherwise=1.0) + share(at.tp, at.tp + at.fp)) / 2
        most = part * _mean_precision(at, at.fp_above)
        low, high = (finish(jnp.sum(end), scores, at, negatives=False) for end in (part * chord, most))
        return low, high


def _mean_precision(at: Corners, fp: jax.Array) -> jax.Array:
    """The mean of t / (t + fp) over t from tp_above to tp, where they differ."""
    rise = at.tp - at.tp_above
    rest = jnp.where(at.tp_above + fp == 0, jnp.zeros_like(fp), fp * jnp.log1p(share(rise, at.tp_above + fp)))
    return 1.0 - share(rest, rise)


def _one(metric: Any, name: str) -> Any:
    return one_call(metric, name, infer=infer_capacity, either=("capacity", "scores"))


roc_auc = _one(ROCAUC, "roc_auc")
average_precision = _one(AveragePrecision, "average_precision")
pr_auc = _one(PRAUC, "pr_auc")
