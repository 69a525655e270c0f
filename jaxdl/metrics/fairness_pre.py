"""Bias in the labels, before any training: SageMaker Clarify's eight measures, and the textbook distances beside them.

Notation: a is the advantaged facet, d the disadvantaged one, n their weights, q the share of positive labels, P the
distribution of labels. Clarify's measures carry Clarify's abbreviations as names and follow its code (version 0.5).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics.call import one_call
from jaxdl.metrics.fairness import (
    COUNTS,
    Divide,
    FacetMeasure,
    against_rest,
    collapse,
    infer_facets,
    quotient,
    where_both,
)
from jaxdl.metrics.metric import Derived

Positive = int | tuple[int, ...]


def imbalance(labels: jax.Array) -> jax.Array:
    """CI of label counts [strata, facets, classes], [groups]."""
    a, d = against_rest(jnp.sum(labels, axis=(0, 2)))
    return where_both((a - d) / _not_zero(a + d), a, d)


def proportion_difference(labels: jax.Array, positive: Positive) -> jax.Array:
    """DPL of label counts [strata, facets, classes], [groups]."""
    a, d = against_rest(collapse(jnp.sum(labels, axis=0), positive))
    na, nd = jnp.sum(a, axis=-1), jnp.sum(d, axis=-1)
    return where_both(a[:, 1] / _not_zero(na) - d[:, 1] / _not_zero(nd), na, nd)


def conditional_disparity(labels: jax.Array, positive: Positive, divide: Divide) -> jax.Array:
    """CDDL of label counts [strata, facets, classes], [groups]."""
    counts = jnp.moveaxis(collapse(labels, positive), 1, 0)  # [facets, strata, 2]
    a, d = against_rest(counts)
    both = a + d
    size = jnp.sum(both, axis=-1)
    share = quotient(d, both, divide)
    gap = jnp.where(size > 0, share[..., 0] - share[..., 1], jnp.zeros_like(size))
    value = jnp.sum(size * gap, axis=-1) / _not_zero(jnp.sum(size, axis=-1))
    outcomes = jnp.sum(both, axis=1)
    value = where_both(value, outcomes[:, 0], outcomes[:, 1])
    return value if divide == "clarify" else where_both(value, jnp.sum(a, axis=(1, 2)), jnp.sum(d, axis=(1, 2)))


def distributions(labels: jax.Array, *, common: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(Pa, Pd, defined): shares [groups, classes] and bool [groups].

    `common` keeps only the categories that occur in both facets (the shares are not scaled up again), as Clarify does.
    """
    a, d = against_rest(jnp.sum(labels, axis=0))
    na, nd = jnp.sum(a, axis=-1, keepdims=True), jnp.sum(d, axis=-1, keepdims=True)
    defined = (na > 0) & (nd > 0)
    pa, pd = a / _not_zero(na), d / _not_zero(nd)
    if common:
        kept = (a > 0) & (d > 0)
        defined &= jnp.any(kept, axis=-1, keepdims=True)
        pa, pd = (jnp.where(kept, p, jnp.zeros_like(p)) for p in (pa, pd))
    return pa, pd, defined[:, 0]


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """sum p ln(p / q) over the last axis; 0 ln 0 = 0, and p ln(p / 0) is infinite."""
    none = jnp.zeros_like(p)
    ratio = p / jnp.where(q > 0, q, jnp.ones_like(q))
    terms = jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, ratio, jnp.ones_like(p))), none)
    return jnp.sum(jnp.where((p > 0) & (q == 0), jnp.full_like(p, jnp.inf), terms), axis=-1)


def js(p: jax.Array, q: jax.Array) -> jax.Array:
    """(KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, in nats."""
    middle = (p + q) / jnp.asarray(2, p.dtype)
    return (kl(p, middle) + kl(q, middle)) / jnp.asarray(2, p.dtype)


def l2(p: jax.Array, q: jax.Array) -> jax.Array:
    """The Euclidean distance."""
    return jnp.sqrt(jnp.sum((p - q) ** 2, axis=-1))


def total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
    """Half the sum of absolute differences."""
    return jnp.sum(jnp.abs(p - q), axis=-1) / jnp.asarray(2, p.dtype)


def largest(p: jax.Array, q: jax.Array) -> jax.Array:
    """The largest absolute difference."""
    return jnp.max(jnp.abs(p - q), axis=-1)


def cumulative(p: jax.Array, q: jax.Array) -> jax.Array:
    """The largest absolute difference of the cumulative sums."""
    return jnp.max(jnp.abs(jnp.cumsum(p - q, axis=-1)), axis=-1)


def distance(labels: jax.Array, between: Callable[[jax.Array, jax.Array], jax.Array], *, common: bool) -> jax.Array:
    """A distance of the label distributions of both facets, [groups]."""
    pa, pd, defined = distributions(labels, common=common)
    value = between(pa, pd)
    return jnp.where(defined, value, jnp.full_like(value, jnp.nan))


def _not_zero(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, jnp.ones_like(x), x)


@dataclass(frozen=True)
class ClassImbalance(FacetMeasure, Derived):
    """CI: whether one facet has fewer examples than the other, (n_a - n_d) / (n_a + n_d), in [-1, 1].

    Above 0 the disadvantaged facet is the smaller one. Shapes and fields: `FacetMeasure`; `positive` and `divide` play
    no part. NaN (Clarify raises an error) when a facet is empty. Source: SageMaker Clarify 0.5, CI.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import class_imbalance
    >>> float(class_imbalance(jnp.array([1, 0, 1, 1]), facet=jnp.array([0, 0, 0, 1])))
    0.5
    """

    name: str = "CI"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return imbalance(table)


@dataclass(frozen=True)
class PositiveProportionDifference(FacetMeasure, Derived):
    """DPL: how much more often facet a has the positive label, q_a - q_d, in [-1, 1].

    Above 0 the disadvantaged facet has fewer positive labels. Shapes and fields: `FacetMeasure`; `divide` plays no
    part. NaN (Clarify raises an error) when a facet is empty. Source: SageMaker Clarify 0.5, DPL.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import positive_proportion_difference
    >>> float(positive_proportion_difference(jnp.array([1, 1, 1, 0]), facet=jnp.array([0, 0, 1, 1])))
    0.5
    """

    name: str = "DPL"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return proportion_difference(table, self.positive)


@dataclass(frozen=True)
class FacetKL(FacetMeasure, Derived):
    """KL as Clarify computes it: sum of P_a ln(P_a / P_d) over the labels that occur in both facets, in nats.

    Labels that one facet lacks are dropped and the rest is not scaled up again, so that the value may be negative;
    `LabelKLDivergence` is the textbook's. All num_classes labels count (`positive` plays no part). NaN (Clarify raises
    an error) when no label occurs in both. Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, KL.
    """

    name: str = "KL"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, kl, common=True)


@dataclass(frozen=True)
class FacetJS(FacetMeasure, Derived):
    """JS as Clarify computes it: (KL(P_a, P) + KL(P_d, P)) / 2 with P = (P_a + P_d) / 2, over labels in both facets.

    In nats. Labels that one facet lacks are dropped; `LabelJSDivergence` is the textbook's. `positive` plays no part.
    NaN when no label occurs in both. Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, JS.
    """

    name: str = "JS"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, js, common=True)


@dataclass(frozen=True)
class FacetLP(FacetMeasure, Derived):
    """LP as Clarify computes it: the 2-norm of P_a - P_d over the labels that occur in both facets.

    Labels that one facet lacks are dropped; `LabelL2Distance` is the textbook's. `positive` plays no part. NaN when no
    label occurs in both. Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, LP.
    """

    name: str = "LP"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, l2, common=True)


@dataclass(frozen=True)
class FacetTVD(FacetMeasure, Derived):
    """TVD as Clarify computes it: half the 1-norm of P_a - P_d over the labels that occur in both facets.

    Labels that one facet lacks are dropped; `LabelTotalVariation` is the textbook's. `positive` plays no part. NaN when
    no label occurs in both. Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, TVD.
    """

    name: str = "TVD"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, total_variation, common=True)


@dataclass(frozen=True)
class FacetKS(FacetMeasure, Derived):
    """KS as Clarify computes it: the largest |P_a - P_d| of the labels that occur in both facets, not of the CDFs.

    Labels that one facet lacks are dropped; `LabelKolmogorovSmirnov` is the textbook's. `positive` plays no part. NaN
    when no label occurs in both. Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, KS.
    """

    name: str = "KS"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, largest, common=True)


@dataclass(frozen=True)
class ConditionalDemographicDisparity(FacetMeasure, Derived):
    """CDDL: whether facet d has more of the rejections than of the acceptances, within strata, in [-1, 1].

    (1 / n) sum over strata i of n_i DD_i, DD_i = n_d(negative) / n(negative) - n_d(positive) / n(positive) in stratum i
    (Wachter, Mittelstadt and Russell, 2020). Above 0 facet d is at a disadvantage. It reads `stratum`, ids below
    `num_strata`; with one stratum it is the demographic disparity.

    divide="clarify": a share of nothing within a stratum is 0. "nan": NaN. NaN in both when no label, or every label,
    is positive (Clarify raises an error). Shapes and fields: `FacetMeasure`. Source: SageMaker Clarify 0.5, CDDL.
    """

    name: str = "CDDL"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return conditional_disparity(table, self.positive, self.divide)


@dataclass(frozen=True)
class LabelKLDivergence(FacetMeasure, Derived):
    """The textbook KL(P_a, P_d) of the labels in nats: infinite when facet a has a label that d lacks.

    Undefined (NaN) when a facet is empty; `divide` and `positive` play no part. Shapes and fields: `FacetMeasure`.
    Source: Kullback and Leibler, 1951.
    """

    name: str = "label_kl_divergence"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, kl, common=False)


@dataclass(frozen=True)
class LabelJSDivergence(FacetMeasure, Derived):
    """The textbook Jensen-Shannon divergence of the labels of both facets, in nats, in [0, ln 2].

    Undefined (NaN) when a facet is empty; `divide` and `positive` play no part. Shapes and fields: `FacetMeasure`.
    Source: Lin, 1991.
    """

    name: str = "label_js_divergence"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, js, common=False)


@dataclass(frozen=True)
class LabelL2Distance(FacetMeasure, Derived):
    """The Euclidean distance of the label distributions of both facets, all labels counted, in [0, sqrt 2].

    Undefined (NaN) when a facet is empty; `divide` and `positive` play no part. Shapes and fields: `FacetMeasure`.
    """

    name: str = "label_l2_distance"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, l2, common=False)


@dataclass(frozen=True)
class LabelTotalVariation(FacetMeasure, Derived):
    """The total variation distance of the label distributions, all labels counted: half the 1-norm, in [0, 1].

    Undefined (NaN) when a facet is empty; `divide` and `positive` play no part. Shapes and fields: `FacetMeasure`.
    """

    name: str = "label_total_variation"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, total_variation, common=False)


@dataclass(frozen=True)
class LabelKolmogorovSmirnov(FacetMeasure, Derived):
    """The textbook Kolmogorov-Smirnov statistic of ordered labels: the largest |CDF_a - CDF_d|, in [0, 1].

    Undefined (NaN) when a facet is empty; `divide` and `positive` play no part. Shapes and fields: `FacetMeasure`.
    """

    name: str = "label_kolmogorov_smirnov"
    _labels_only: ClassVar[bool] = True

    def _measure(self, table: jax.Array) -> jax.Array:
        return distance(table, cumulative, common=False)


def labels_call(metric: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function `name(target, *, facet, stratum=None, weight=None, mask=None, ...)` of a measure of labels."""
    call = one_call(metric, name, infer=infer_facets, either=COUNTS)

    def on_labels(target: Any, *, facet: Any, **options: Any) -> Any:
        return call(target, target, facet=facet, **options)  # labels stand in for predictions, which are not read

    given = inspect.signature(call)
    on_labels.__signature__ = given.replace(  # type: ignore[attr-defined]
        parameters=[
            p.replace(default=inspect.Parameter.empty) if p.name == "target" else p
            for p in given.parameters.values()
            if p.name != "preds"
        ]
    )
    on_labels.__name__ = on_labels.__qualname__ = name
    on_labels.__doc__, on_labels.__module__ = call.__doc__, call.__module__
    return on_labels


class_imbalance = labels_call(ClassImbalance, "class_imbalance")
positive_proportion_difference = labels_call(PositiveProportionDifference, "positive_proportion_difference")
facet_kl = labels_call(FacetKL, "facet_kl")
facet_js = labels_call(FacetJS, "facet_js")
facet_lp = labels_call(FacetLP, "facet_lp")
facet_tvd = labels_call(FacetTVD, "facet_tvd")
facet_ks = labels_call(FacetKS, "facet_ks")
conditional_demographic_disparity = labels_call(ConditionalDemographicDisparity, "conditional_demographic_disparity")
label_kl_divergence = labels_call(LabelKLDivergence, "label_kl_divergence")
label_js_divergence = labels_call(LabelJSDivergence, "label_js_divergence")
label_l2_distance = labels_call(LabelL2Distance, "label_l2_distance")
label_total_variation = labels_call(LabelTotalVariation, "label_total_variation")
label_kolmogorov_smirnov = labels_call(LabelKolmogorovSmirnov, "label_kolmogorov_smirnov")
