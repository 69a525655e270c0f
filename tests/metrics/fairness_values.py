"""Clarify's values, kept in a fixture, and what the tests of fairness read them with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import metrics

KEPT = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics_fairness.json").read_text())
CASES = {case["name"]: case for case in KEPT["binary"]}
CLASSES = {case["name"]: case for case in KEPT["classes"]}
PRE = ("CI", "DPL", "KL", "JS", "LP", "TVD", "KS", "CDDL")
POST = ("DPPL", "DI", "DCA", "DCR", "RD", "SD", "DAR", "DRR", "AD", "CDDPL", "TE", "FT", "GE")
REPORT = metrics.BiasReport(num_strata=4)


def arrays(case: dict[str, Any], *names: str) -> dict[str, np.ndarray]:
    return {name: np.asarray(case["inputs"][name], np.int32) for name in names}


def number(value: Any) -> float:
    """A kept value: an error of Clarify's is our NaN."""
    return float("nan") if value is None else float(value)
