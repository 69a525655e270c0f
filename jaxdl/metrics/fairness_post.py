"""Bias in the predictions: SageMaker Clarify's measures of a classifier, facet against facet.

Notation: a is the advantaged facet, d the disadvantaged one; TP, FP, FN, TN are those of one facet. All follow the code
of Clarify 0.5 in sign and in rules; the flip test is in flips.py. `divide` (see `FacetMeasure`) chooses between
Clarify's rule for zero denominators, 0 / 0 = 0 and x / 0 = inf, and NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxdl.metrics.call import one_call
from jaxdl.metrics.fairness import (
    COUNTS,
    Divide,
    FacetMeasure,
    Quadrants,
    collapse,
    difference,
    infer_facets,
    quadrants,
    quotient,
    where_both,
)
from jaxdl.metrics.fairness_pre import Positive, conditional_disparity, proportion_difference
from jaxdl.metrics.metric import Derived


def positive_rate(q: Quadrants, divide: Divide) -> jax.Array:
    """The share of positive predictions."""
    return quotient(q.tp + q.fp, q.tp + q.fp + q.fn + q.tn, divide)


def acceptance(q: Quadrants, divide: Divide) -> jax.Array:
    """Positive labels to positive predictions."""
    return quotient(q.tp + q.fn, q.tp + q.fp, divide)


def rejection(q: Quadrants, divide: Divide) -> jax.Array:
    """Negative labels to negative predictions."""
    return quotient(q.tn + q.fp, q.tn + q.fn, divide)


def recall_of(q: Quadrants, divide: Divide) -> jax.Array:
    """TP / (TP + FN)."""
    return quotient(q.tp, q.tp + q.fn, divide)


def specificity_of(q: Quadrants, divide: Divide) -> jax.Array:
    """TN / (TN + FP)."""
    return quotient(q.tn, q.tn + q.fp, divide)


def precision_of(q: Quadrants, divide: Divide) -> jax.Array:
    """TP / (TP + FP)."""
    return quotient(q.tp, q.tp + q.fp, divide)


def negative_value(q: Quadrants, divide: Divide) -> jax.Array:
    """TN / (TN + FN)."""
    return quotient(q.tn, q.tn + q.fn, divide)


def accuracy_of(q: Quadrants, divide: Divide) -> jax.Array:
    """(TP + TN) / n."""
    return quotient(q.tp + q.tn, q.tp + q.fp + q.fn + q.tn, divide)


def treatment(q: Quadrants, divide: Divide) -> jax.Array:
    """FN / FP."""
    return quotient(q.fn, q.fp, divide)


#: Measure -> (the rate of one facet, its sign: 1 for a - d, -1 for d - a).
DIFFERENCES = {
    "DPPL": (positive_rate, 1),
    "DCA": (acceptance, 1),
    "DCR": (rejection, -1),
    "RD": (recall_of, 1),
    "SD": (specificity_of, -1),
    "DAR": (precision_of, 1),
    "DRR": (negative_value, -1),
    "AD": (accuracy_of, 1),
    "TE": (treatment, -1),
}


def rate_difference(table: jax.Array, measure: str, positive: Positive, divide: Divide) -> jax.Array:
    """One of DIFFERENCES of confusion counts [strata, facets, classes, classes], [groups]."""
    a, d = quadrants(table, positive)
    rate, sign = DIFFERENCES[measure]
    first, second = (a, d) if sign > 0 else (d, a)
    return _where_both(difference(rate(first, divide), rate(second, divide)), a, d)


def impact(table: jax.Array, positive: Positive, divide: Divide) -> jax.Array:
    """DI of confusion counts [strata, facets, classes, classes], [groups]."""
    a, d = quadrants(table, positive)
    return _where_both(quotient(positive_rate(d, divide), positive_rate(a, divide), divide), a, d)


def entropy(table: jax.Array, positive: Positive, alpha: float) -> jax.Array:
    """GE of confusion counts [strata, facets, classes, classes], []; facets play no part."""
    binary = collapse(collapse(jnp.sum(table, axis=(0, 1)), positive, axis=-1), positive, axis=-2)
    none, one, two = binary[1, 0], binary[0, 0] + binary[1, 1], binary[0, 1]  # by benefit 0, 1 and 2
    n = none + one + two
    mean = (one + two + two) / jnp.where(n > 0, n, jnp.ones_like(n))
    safe = jnp.where(mean > 0, mean, jnp.ones_like(mean))
    shares = jnp.stack([none, one, two]) / jnp.where(n > 0, n, jnp.ones_like(n))
    ratio = jnp.stack([jnp.zeros_like(safe), 1 / safe, 2 / safe])
    positive_ratio = jnp.where(ratio > 0, ratio, jnp.ones_like(ratio))
    if alpha == 1:
        terms = ratio * jnp.log(positive_ratio)
    elif alpha == 0:
        terms = jnp.where(ratio > 0, -jnp.log(positive_ratio), jnp.full_like(ratio, jnp.inf))
    else:
        power = (
            ratio**alpha if alpha > 0 else jnp.where(ratio > 0, positive_ratio**alpha, jnp.full_like(ratio, jnp.inf))
        )
        terms = (power - 1) / (alpha * (alpha - 1))
    value = jnp.sum(jnp.where(shares > 0, shares * terms, jnp.zeros_like(terms)))
    return jnp.where((n > 0) & (mean > 0), value, jnp.full_like(value, jnp.nan))


def _where_both(value: jax.Array, a: Quadrants, d: Quadrants) -> jax.Array:
    return where_both(value, *(q.tp + q.fp + q.fn + q.tn for q in (a, d)))


@dataclass(frozen=True)
class PredictedPositiveProportionDifference(FacetMeasure, Derived):
    """DPPL: how much more often facet a is predicted positive, q^_a - q^_d, in [-1, 1].

    Above 0 the disadvantaged facet gets fewer positive predictions. Shapes, fields and policy: `FacetMeasure`. Source:
    SageMaker Clarify 0.5, DPPL. `DemographicParityDifference` is the textbook's.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import predicted_positive_proportion_difference
    >>> preds, labels, facet = jnp.array([1, 1, 1, 0]), jnp.array([1, 0, 1, 0]), jnp.array([0, 0, 1, 1])
    >>> float(predicted_positive_proportion_difference(preds, labels, facet=facet))
    0.5
    """

    name: str = "DPPL"

    def _measure(self, table: jax.Array) -> jax.Array:
        return proportion_difference(jnp.sum(table, axis=-2), self.positive)


@dataclass(frozen=True)
class DisparateImpact(FacetMeasure, Derived):
    """DI: how often facet d is predicted positive, relative to facet a: q^_d / q^_a, in [0, inf).

    1 is parity; US courts look at 0.8 (the four-fifths rule). With q^_a = 0: inf, or 0 when q^_d = 0 as well
    (divide="clarify"), or NaN (divide="nan"). Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, DI.
    """

    name: str = "DI"

    def _measure(self, table: jax.Array) -> jax.Array:
        return impact(table, self.positive, self.divide)


@dataclass(frozen=True)
class ConditionalAcceptanceDifference(FacetMeasure, Derived):
    """DCA: c_a - c_d, where c = positive labels / positive predictions = (TP + FN) / (TP + FP); any real number.

    Above 0 facet a is accepted less often than its labels say, compared with d. Shapes, fields and policy:
    `FacetMeasure`. Source: SageMaker Clarify 0.5, DCA (DCAcc in its guide).
    """

    name: str = "DCA"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "DCA", self.positive, self.divide)


@dataclass(frozen=True)
class ConditionalRejectionDifference(FacetMeasure, Derived):
    """DCR: r_d - r_a, where r = negative labels / negative predictions = (TN + FP) / (TN + FN); any real number.

    Below 0 facet d is rejected more often than its labels say, compared with a. Shapes, fields and policy:
    `FacetMeasure`. Source: SageMaker Clarify 0.5, DCR.
    """

    name: str = "DCR"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "DCR", self.positive, self.divide)


@dataclass(frozen=True)
class RecallDifference(FacetMeasure, Derived):
    """RD: recall_a - recall_d, recall = TP / (TP + FN), in [-1, 1].

    Above 0 the model finds fewer of the positives of facet d. Shapes, fields and policy: `FacetMeasure`. Source:
    SageMaker Clarify 0.5, RD. `EqualOpportunityDifference` is the textbook's.
    """

    name: str = "RD"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "RD", self.positive, self.divide)


@dataclass(frozen=True)
class SpecificityDifference(FacetMeasure, Derived):
    """SD: specificity_d - specificity_a, specificity = TN / (TN + FP), in [-1, 1]; note the direction, d - a.

    Above 0 the model raises more false alarms in facet a. Shapes, fields and policy: `FacetMeasure`. Source: SageMaker
    Clarify 0.5, SD.
    """

    name: str = "SD"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "SD", self.positive, self.divide)


@dataclass(frozen=True)
class AcceptanceRateDifference(FacetMeasure, Derived):
    """DAR: precision_a - precision_d, precision = TP / (TP + FP), in [-1, 1].

    Above 0 acceptances in facet d are wrong more often. Shapes, fields and policy: `FacetMeasure`. Source: SageMaker
    Clarify 0.5, DAR.
    """

    name: str = "DAR"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "DAR", self.positive, self.divide)


@dataclass(frozen=True)
class RejectionRateDifference(FacetMeasure, Derived):
    """DRR: v_d - v_a, where v = TN / (TN + FN) is the share of rejections that are right, in [-1, 1].

    Below 0 rejections in facet d are wrong more often. Shapes, fields and policy: `FacetMeasure`. Source: SageMaker
    Clarify 0.5, DRR.
    """

    name: str = "DRR"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "DRR", self.positive, self.divide)


@dataclass(frozen=True)
class AccuracyDifference(FacetMeasure, Derived):
    """AD: accuracy_a - accuracy_d, in [-1, 1].

    Above 0 the model is wrong about facet d more often. Shapes, fields and policy: `FacetMeasure`. Source: SageMaker
    Clarify 0.5, AD.
    """

    name: str = "AD"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "AD", self.positive, self.divide)


@dataclass(frozen=True)
class TreatmentEquality(FacetMeasure, Derived):
    """TE: t_d - t_a, where t = FN / FP; any real number.

    Above 0 the errors about facet d are rather missed positives. With FP = 0 a side is inf (0 when FN = 0 as well), and
    two infinite sides differ by 0 (divide="clarify"); or NaN (divide="nan"). Shapes and fields: `FacetMeasure`.
    Source: SageMaker Clarify 0.5, TE; Berk et al., 2018.
    """

    name: str = "TE"

    def _measure(self, table: jax.Array) -> jax.Array:
        return rate_difference(table, "TE", self.positive, self.divide)


@dataclass(frozen=True)
class PredictedConditionalDemographicDisparity(FacetMeasure, Derived):
    """CDDPL: `ConditionalDemographicDisparity` of the predictions instead of the labels, in [-1, 1].

    Above 0 facet d has more of the rejections than of the acceptances within strata. It reads `stratum`, ids below
    `num_strata`. Shapes, fields and policy: there. Source: SageMaker Clarify 0.5, CDDPL.
    """

    name: str = "CDDPL"

    def _measure(self, table: jax.Array) -> jax.Array:
        return conditional_disparity(jnp.sum(table, axis=-2), self.positive, self.divide)


@dataclass(frozen=True)
class GeneralizedEntropy(FacetMeasure, Derived):
    """GE: how unequally the benefit b = prediction - label + 1 is spread over all people, whatever their facet.

    (1 / (alpha (alpha - 1) n)) sum of (b / mean b)^alpha - 1, with alpha = 2 half the squared coefficient of variation,
    as in Clarify; alpha = 1 is Theil's index, mean of (b / mean b) ln(b / mean b), and alpha = 0 the mean log deviation
    (infinite when there is a false negative). float32 [], 0 when all benefit alike. NaN (Clarify raises an error) when
    every example is a false negative, or there is none. `divide` plays no part. Shapes and fields: `FacetMeasure`.
    Sources: SageMaker Clarify 0.5, GE; Speicher et al., 2018.
    """

    name: str = "GE"
    alpha: float = 2.0

    def _measure(self, table: jax.Array) -> jax.Array:
        return entropy(table, self.positive, float(self.alpha))


def _call(metric: type[FacetMeasure], name: str):  # type: ignore[no-untyped-def]
    return one_call(metric, name, infer=infer_facets, either=COUNTS)


predicted_positive_proportion_difference = _call(
    PredictedPositiveProportionDifference, "predicted_positive_proportion_difference"
)
disparate_impact = _call(DisparateImpact, "disparate_impact")
conditional_acceptance_difference = _call(ConditionalAcceptanceDifference, "conditional_acceptance_difference")
conditional_rejection_difference = _call(ConditionalRejectionDifference, "conditional_rejection_difference")
recall_difference = _call(RecallDifference, "recall_difference")
specificity_difference = _call(SpecificityDifference, "specificity_difference")
acceptance_rate_difference = _call(AcceptanceRateDifference, "acceptance_rate_difference")
rejection_rate_difference = _call(RejectionRateDifference, "rejection_rate_difference")
accuracy_difference = _call(AccuracyDifference, "accuracy_difference")
treatment_equality = _call(TreatmentEquality, "treatment_equality")
predicted_conditional_demographic_disparity = _call(
    PredictedConditionalDemographicDisparity, "predicted_conditional_demographic_disparity"
)
generalized_entropy = _call(GeneralizedEntropy, "generalized_entropy")
