"""Rows of the table of metrics: bias between facets."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from jaxdl.metrics.fairness import FacetMeasure
from tests.metrics.rows import N, Row, draw

_draw = draw()
_target = _draw.integers(0, 2, N).astype(np.int32)
_preds = np.where(_draw.random(N) < 0.7, _target, 1 - _target).astype(np.int32)
_facet = _draw.integers(0, 2, N).astype(np.int32)
# labels, facets and outcomes that occur in every part of the data: a law about NaN would prove nothing
for _start in (0, 11, 20, 31, 40, 51):
    _target[_start : _start + 8] = [0, 0, 0, 0, 1, 1, 1, 1]
    _preds[_start : _start + 8] = [0, 1, 0, 1, 0, 1, 0, 1]
    _facet[_start : _start + 8] = [0, 0, 1, 1, 0, 0, 1, 1]
_stratum = _draw.integers(0, 3, N).astype(np.int32)
_target[9::20] = 2  # no class: left out
PEOPLE = {"preds": _preds, "target": _target, "facet": _facet, "stratum": _stratum}
_groups = np.where(_draw.random(N) < 0.3, 2, _facet).astype(np.int32)
GROUPS = {"preds": _draw.normal(size=(N, 3)).astype(np.float32), "target": _target, "facet": _groups}
_few = 24  # all pairs are compared
FEATURES = {
    "preds": _preds[:_few],
    "facet": (np.arange(_few) // 2 % 2).astype(np.int32),
    "features": _draw.normal(size=(_few, 2)).round(0).astype(np.float32),  # rounded: equal distances
}
_labels: tuple[type[FacetMeasure], ...] = (
    metrics.ClassImbalance, metrics.PositiveProportionDifference, metrics.FacetKL, metrics.FacetJS, metrics.FacetLP,
    metrics.FacetTVD, metrics.FacetKS, metrics.ConditionalDemographicDisparity, metrics.LabelKLDivergence,
    metrics.LabelJSDivergence, metrics.LabelL2Distance, metrics.LabelTotalVariation, metrics.LabelKolmogorovSmirnov,
)  # fmt: skip
_predictions: tuple[type[FacetMeasure], ...] = (
    metrics.PredictedPositiveProportionDifference, metrics.DisparateImpact, metrics.ConditionalAcceptanceDifference,
    metrics.ConditionalRejectionDifference, metrics.RecallDifference, metrics.SpecificityDifference,
    metrics.AcceptanceRateDifference, metrics.RejectionRateDifference, metrics.AccuracyDifference,
    metrics.TreatmentEquality, metrics.PredictedConditionalDemographicDisparity, metrics.GeneralizedEntropy,
    metrics.DemographicParityDifference, metrics.DemographicParityRatio, metrics.EqualOpportunityDifference,
    metrics.EqualOpportunityRatio, metrics.EqualizedOddsDifference, metrics.EqualizedOddsRatio,
)  # fmt: skip

ROWS = [
    *(Row(f"{one.name} of facets", one(num_strata=3), PEOPLE) for one in _labels),
    *(Row(f"{one.name} of facets", one(num_strata=3), PEOPLE, smoke=True) for one in _predictions),
    Row("bias report", metrics.BiasReport(num_strata=3, stage="pretraining"), PEOPLE),
    Row("disparate impact of three facets", metrics.DisparateImpact(3, num_classes=3, positive=(1, 2)), GROUPS),
    Row("flip test", metrics.FlipTest(capacity=4 * _few, num_features=2), FEATURES),
]
