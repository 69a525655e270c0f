"""Textbook fairness of a classifier over any number of groups, as fairlearn defines it: parity, opportunity, odds.

Each is a difference or a ratio of rates over the facet values that occur; all facets stand on equal terms (none is
"the disadvantaged one"). Undefined is NaN: a group without positives has no true positive rate, and one group alone has
no parity. fairlearn takes such a rate for 0, and calls one group alone fair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdl.metrics.call import one_call
from jaxdl.metrics.fairness import COUNTS, FacetMeasure, collapse, infer_facets, quotient
from jaxdl.metrics.fairness_pre import Positive
from jaxdl.metrics.metric import Derived

Method = Literal["between_groups", "to_overall"]
Aggregate = Literal["worst_case", "mean"]


def _rates(table: jax.Array, positive: Positive) -> tuple[dict[str, tuple[jax.Array, jax.Array]], jax.Array]:
    """{rate: (of each facet [facets], of all [])} and which facets occur, bool [facets]."""
    binary = collapse(collapse(jnp.sum(table, axis=0), positive, axis=-1), positive, axis=-2)
    both = jnp.concatenate([binary, jnp.sum(binary, axis=0, keepdims=True)])
    found = {
        "selection": quotient(jnp.sum(both[..., 1], axis=-1), jnp.sum(both, axis=(-2, -1)), "nan"),
        "tpr": quotient(both[:, 1, 1], jnp.sum(both[:, 1], axis=-1), "nan"),
        "fpr": quotient(both[:, 0, 1], jnp.sum(both[:, 0], axis=-1), "nan"),
    }
    present = ~(jnp.sum(binary, axis=(-2, -1)) == 0)
    return {key: (rate[:-1], rate[-1]) for key, rate in found.items()}, present


def _difference(rate: jax.Array, overall: jax.Array, present: jax.Array, method: str) -> jax.Array:
    if method == "to_overall":
        value = jnp.max(jnp.where(present, jnp.abs(rate - overall[None]), jnp.zeros_like(rate)))
    else:
        value = _largest(rate, present) - _smallest(rate, present)
    return _of_two(value, present)


def _ratio(rate: jax.Array, overall: jax.Array, present: jax.Array, method: str) -> jax.Array:
    if method == "to_overall":
        whole = jnp.broadcast_to(overall, rate.shape)
        low, high = jnp.minimum(rate, whole), jnp.maximum(rate, whole)
        value = _smallest(quotient(low, high, "nan"), present)
    else:
        value = quotient(_smallest(rate, present), _largest(rate, present), "nan")
    return _of_two(value, present)


def _largest(rate: jax.Array, present: jax.Array) -> jax.Array:
    return jnp.max(jnp.where(present, rate, jnp.full_like(rate, -jnp.inf)))


def _smallest(rate: jax.Array, present: jax.Array) -> jax.Array:
    return jnp.min(jnp.where(present, rate, jnp.full_like(rate, jnp.inf)))


def _of_two(value: jax.Array, present: jax.Array) -> jax.Array:
    return jnp.where(jnp.sum(present, dtype=jnp.int32) > 1, value, jnp.full_like(value, jnp.nan))


def _check(name: str, method: str, aggregate: str = "mean") -> None:
    if method not in ("between_groups", "to_overall"):
        raise ValueError(f"{name}: method must be 'between_groups' or 'to_overall'; it is {method!r}")
    if aggregate not in ("worst_case", "mean"):
        raise ValueError(f"{name}: aggregate must be 'worst_case' or 'mean'; it is {aggregate!r}")


@dataclass(frozen=True)
class DemographicParityDifference(FacetMeasure, Derived):
    """How far the shares of positive predictions of the groups lie apart: largest - smallest, in [0, 1].

    method="to_overall": the largest distance of a group from all examples. float32 [], over all facets that occur;
    `divide` plays no part. NaN with fewer than two of them. Other fields and shapes: `FacetMeasure`. As fairlearn's
    demographic_parity_difference.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import demographic_parity_difference
    >>> preds, labels, facet = jnp.array([1, 1, 1, 0]), jnp.array([1, 0, 1, 0]), jnp.array([0, 0, 1, 1])
    >>> float(demographic_parity_difference(preds, labels, facet=facet))
    0.5
    """

    name: str = "demographic_parity_difference"
    method: Method = "between_groups"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        return _difference(*rates["selection"], present, self.method)


@dataclass(frozen=True)
class DemographicParityRatio(FacetMeasure, Derived):
    """The smallest share of positive predictions of a group over the largest, in [0, 1]; 1 is parity.

    method="to_overall": the smallest of rate / overall and overall / rate. NaN when no group has a positive prediction,
    and with fewer than two groups. Other fields and shapes: `DemographicParityDifference`. As fairlearn's
    demographic_parity_ratio.
    """

    name: str = "demographic_parity_ratio"
    method: Method = "between_groups"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        return _ratio(*rates["selection"], present, self.method)


@dataclass(frozen=True)
class EqualOpportunityDifference(FacetMeasure, Derived):
    """How far the true positive rates of the groups lie apart: largest - smallest, in [0, 1].

    NaN when a group has no positive label, and with fewer than two groups. Other fields and shapes:
    `DemographicParityDifference`. As fairlearn's equal_opportunity_difference (Hardt, Price and Srebro, 2016).
    """

    name: str = "equal_opportunity_difference"
    method: Method = "between_groups"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        return _difference(*rates["tpr"], present, self.method)


@dataclass(frozen=True)
class EqualOpportunityRatio(FacetMeasure, Derived):
    """The smallest true positive rate of a group over the largest, in [0, 1].

    NaN when a group has no positive label, when all rates are 0, and with fewer than two groups. Other fields and
    shapes: `DemographicParityRatio`. As fairlearn's equal_opportunity_ratio.
    """

    name: str = "equal_opportunity_ratio"
    method: Method = "between_groups"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        return _ratio(*rates["tpr"], present, self.method)


@dataclass(frozen=True)
class EqualizedOddsDifference(FacetMeasure, Derived):
    """The larger ("worst_case") or the mean of the differences in true and in false positive rates, in [0, 1].

    NaN when a group lacks positive or negative labels, and with fewer than two groups. Other fields and shapes:
    `DemographicParityDifference`. As fairlearn's equalized_odds_difference (Hardt, Price and Srebro, 2016).
    """

    name: str = "equalized_odds_difference"
    method: Method = "between_groups"
    aggregate: Aggregate = "worst_case"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method, self.aggregate)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        both = jnp.stack([_difference(*rates[key], present, self.method) for key in ("tpr", "fpr")])
        return jnp.max(both) if self.aggregate == "worst_case" else jnp.mean(both)


@dataclass(frozen=True)
class EqualizedOddsRatio(FacetMeasure, Derived):
    """The smaller ("worst_case") or the mean of the ratios of true and of false positive rates, in [0, 1].

    NaN when a group lacks positive or negative labels, when one of the rates is 0 in all groups, and with fewer than
    two groups. Other fields and shapes: `DemographicParityRatio`. As fairlearn's equalized_odds_ratio.
    """

    name: str = "equalized_odds_ratio"
    method: Method = "between_groups"
    aggregate: Aggregate = "worst_case"

    def __post_init__(self) -> None:
        FacetMeasure.__post_init__(self)
        _check(self.name, self.method, self.aggregate)

    def _measure(self, table: jax.Array) -> jax.Array:
        rates, present = _rates(table, self.positive)
        both = jnp.stack([_ratio(*rates[key], present, self.method) for key in ("tpr", "fpr")])
        return jnp.min(both) if self.aggregate == "worst_case" else jnp.mean(both)


def _call(metric: type[FacetMeasure], name: str):  # type: ignore[no-untyped-def]
    return one_call(metric, name, infer=infer_facets, either=COUNTS)


demographic_parity_difference = _call(DemographicParityDifference, "demographic_parity_difference")
demographic_parity_ratio = _call(DemographicParityRatio, "demographic_parity_ratio")
equal_opportunity_difference = _call(EqualOpportunityDifference, "equal_opportunity_difference")
equal_opportunity_ratio = _call(EqualOpportunityRatio, "equal_opportunity_ratio")
equalized_odds_difference = _call(EqualizedOddsDifference, "equalized_odds_difference")
equalized_odds_ratio = _call(EqualizedOddsRatio, "equalized_odds_ratio")
