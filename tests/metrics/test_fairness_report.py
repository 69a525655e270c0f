"""Reports of bias, facets from columns, real people, and what is refused in a sentence."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics
from tests.metrics.fairness_values import CASES, KEPT, POST, PRE, REPORT, arrays, number


def test_functions_infer_the_ids_and_name_what_is_wrong() -> None:
    y, g = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2])
    assert metrics.class_imbalance(y, facet=g).shape == (3,)
    assert float(metrics.facet_kl(y, facet=g > 0, weight=np.array([1, 1, 0, 0]))) != 0
    with pytest.raises(TypeError, match="facet"):
        metrics.class_imbalance(y)
    with pytest.raises(TypeError, match=r"divid.*did you mean divide"):
        metrics.disparate_impact(y, y, facet=g, divid="nan")
    with pytest.raises(TypeError, match="stratums"):
        metrics.pretraining_bias(y, facet=g, stratums=3)


def test_reports_print_a_table() -> None:
    case = CASES["random 2"]
    inputs = arrays(case, "preds", "target", "facet", "stratum")
    features = np.asarray(case["inputs"]["features"], np.float32)
    found = metrics.posttraining_bias(**inputs, features=features, facets=("men", "women"))
    assert tuple(found) == POST
    for key in POST:
        np.testing.assert_allclose(found[key], number(case["values"][key]), rtol=1e-6, err_msg=key)
    lines = str(found).splitlines()
    assert lines[0] == "d: women; a: men" and len(lines) == 2 + len(POST)
    assert f"{float(found['DI']):.4f}" in next(line for line in lines if line.startswith("DI "))
    labels = metrics.pretraining_bias(inputs["target"], facet=inputs["facet"], stratum=inputs["stratum"])
    assert tuple(labels) == PRE and "facet 1" in str(labels)
    left_out = metrics.pretraining_bias(np.array([0, 1, 1, -1]), facet=np.array([0, 1, 1, 0]))
    assert "left out: 1" in str(left_out)
    report = metrics.BiasReport(num_facets=3, stage="pretraining")
    state = report.update(report.init(), target=np.array([0, 1, 1, 0]), facet=np.array([0, 1, 2, 2]))
    assert "all others" in report.table(state, facets=("x", "y", "z"))


@pytest.mark.data
def test_bank_marketing(data_folder: Path) -> None:
    with gzip.open(data_folder / "bank_marketing" / "bank-additional.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    column = {key: np.array([row[key] for row in rows]) for key in ("age", "job", "y", "euribor3m")}
    facet, stratum = metrics.facet_ids(column["age"], above=40), metrics.facet_ids(column["job"])
    report = metrics.BiasReport(num_strata=len(stratum.names))
    preds, target = column["euribor3m"].astype(float) < 2, column["y"] == "yes"
    state = report.init()
    for part in np.array_split(np.arange(len(rows)), 3):
        state = report.update(
            state, preds=preds[part], target=target[part], facet=facet.ids[part], stratum=stratum.ids[part]
        )
    found = report.compute(state)
    assert set(found) == set(KEPT["bank"])
    for key, value in KEPT["bank"].items():
        np.testing.assert_allclose(found[key], number(value), rtol=1e-6, err_msg=key)


def test_columns_become_facets() -> None:
    column = ["b", "a", None, "b", "c"]
    ids, names = metrics.facet_ids(column)
    assert ids.tolist() == [1, 0, -1, 1, 2] and names == ("a", "b", "c")
    ids, names = metrics.facet_ids(column, disadvantaged=["b", "c"])
    assert ids.tolist() == [1, 0, -1, 1, 1] and names[1] == "b, c"
    ids, names = metrics.facet_ids([1.0, 2.0, np.nan, 3.0], above=2)
    assert ids.tolist() == [0, 0, -1, 1] and names == ("at most 2", "above 2")
    assert metrics.facet_ids(np.array([30, 31, 60, 99]), edges=[30, 60]).ids.tolist() == [0, 1, 1, 2]
    assert metrics.facet_ids(np.array([True, False])).ids.tolist() == [1, 0]
    for bad, words in (
        ({"disadvantaged": "bb"}, "did you mean 'b'"), ({"above": 1.0}, "needs numbers"),
        ({"above": 1.0, "edges": [1]}, "one of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            metrics.facet_ids(column, **bad)
    assert metrics.facet_ids(["x", "y"], disadvantaged="x").names == ("y", "x")
    with pytest.raises(ValueError, match="nothing to compare"):
        metrics.facet_ids(["x", "x"], disadvantaged="x")
    with pytest.raises(ValueError, match="two values"):
        metrics.facet_ids(["a", "a"])
    with pytest.raises(ValueError, match="rise"):
        metrics.facet_ids([1, 2], edges=[2, 1])
    with pytest.raises(ValueError, match="one axis"):
        metrics.facet_ids([[1, 2]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: metrics.DisparateImpact(num_facets=1), "num_facets must be an integer from 2"),
        (lambda: metrics.DisparateImpact(positive=2), "positive must be one or more of the class ids 0 .. 1"),
        (lambda: metrics.DisparateImpact(positive=(0, 1)), "but not all"),
        (lambda: metrics.DisparateImpact(divide="zero"), "'clarify' or 'nan'"),
        (lambda: metrics.DisparateImpact(num_classes=3, threshold=0.5), "threshold"),
        (lambda: metrics.DisparateImpact(num_classes=20000, num_facets=20), "do not fit"),
        (lambda: metrics.EqualizedOddsRatio(aggregate="max"), "'worst_case' or 'mean'"),
        (lambda: metrics.DemographicParityRatio(method="pairs"), "'between_groups'"),
        (lambda: metrics.BiasReport(stage="before"), "stage must be"),
        (lambda: metrics.FlipTest(capacity=0, num_features=2), "capacity must be an integer"),
        (lambda: metrics.FlipTest(capacity=9, num_features=2, part="all"), "part must be"),
        (lambda: metrics.flip_test([0], facet=[0], features=[1.0], num_features=2, capacity=4), "features"),
        (lambda: metrics.class_imbalance(np.array([0, 1]), facet=np.array([0, 1, 1])), "facet has shape"),
        (lambda: REPORT.update(REPORT.init(), target=[0], facet=[0]), "stage='pretraining'"),
        (lambda: REPORT.update(REPORT.init(), preds=[0], target=[0], facet=[0]), "give stratum="),
        (lambda: metrics.DisparateImpact().update(jnp.zeros(1), target=[0], facet=[0]), "give preds="),
    ],
)  # fmt: skip
def test_refusals(make: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()
