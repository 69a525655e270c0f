"""Rows of the table of metrics: drift between a reference and what comes in."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import N, Row, draw

_draw = draw()
_values = _draw.normal(size=N).round(1).astype(np.float32)
_side = (np.arange(N) // 2 % 2).astype(np.int32)  # both sides in every part of the data
_values[5::16] = np.nan  # missing
_side[9::20] = 7  # no side: left out
EDGES = (-1.0, -0.5, 0.0, 0.75, 1.5)
NUMBERS = {"preds": _values, "target": _side}
CATEGORIES = {"preds": _draw.integers(-1, 4, N).astype(np.int32), "target": _side}
ATTRIBUTIONS = {"preds": _draw.normal(size=(N, 3)).astype(np.float32), "target": _side}
SCORES = {"preds": np.nan_to_num(_values), "target": (np.arange(N) // 2 % 2).astype(np.int32)}

ROWS = [
    Row("psi", metrics.PopulationStabilityIndex(EDGES), NUMBERS, smoke=True),
    Row("psi, additive", metrics.PopulationStabilityIndex(EDGES, smoothing="additive", epsilon=0.5), NUMBERS),
    Row("psi without missing", metrics.PopulationStabilityIndex(EDGES, missing="left_out"), NUMBERS),
    Row("drift kl", metrics.DriftKL(EDGES, epsilon=1e-3), NUMBERS),
    Row("drift kl the other way", metrics.DriftKL(EDGES, direction="current_to_reference", epsilon=1e-3), NUMBERS),
    Row("drift js", metrics.DriftJS(EDGES), NUMBERS),
    Row("drift js distance", metrics.DriftJS(EDGES, base=2, distance=True), NUMBERS),
    Row("drift total variation", metrics.DriftTotalVariation(EDGES), NUMBERS),
    Row("drift l infinity", metrics.DriftLInfinity(EDGES), NUMBERS),
    Row("drift hellinger", metrics.DriftHellinger(EDGES), NUMBERS),
    Row("drift ks", metrics.DriftKS(EDGES), NUMBERS),
    Row("drift wasserstein", metrics.DriftWasserstein(EDGES), NUMBERS),
    Row("drift chi-square", metrics.DriftChiSquare(EDGES), NUMBERS),
    Row("psi of categories", metrics.PopulationStabilityIndex(categories=4), CATEGORIES),
    Row("drift chi-square of categories", metrics.DriftChiSquare(categories=4), CATEGORIES),
    Row("attribution drift", metrics.AttributionDrift(3), ATTRIBUTIONS),
    Row("exact wasserstein", metrics.ExactWasserstein(capacity=4 * N), SCORES),
]
