"""Measures of bias: Clarify's values kept in a fixture, textbook formulas restated, policies."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from jaxdl import metrics
from tests.metrics.fairness_values import CASES, CLASSES, POST, PRE, REPORT, arrays, number

evaluate = jax.jit(lambda state: REPORT.compute(state))
FACETS = {"KL": metrics.FacetKL, "JS": metrics.FacetJS, "LP": metrics.FacetLP, "TVD": metrics.FacetTVD,
          "KS": metrics.FacetKS}  # fmt: skip
LABELS = {"KL": metrics.LabelKLDivergence, "JS": metrics.LabelJSDivergence, "LP": metrics.LabelL2Distance,
          "TVD": metrics.LabelTotalVariation, "KS": metrics.LabelKolmogorovSmirnov}  # fmt: skip


def report(case: dict[str, Any], **options: Any) -> dict[str, float]:
    inputs = arrays(case, "preds", "target", "facet", "stratum")
    state = REPORT.update(REPORT.init(), **inputs, **options)
    return {key: float(value) for key, value in evaluate(state).items()}


@pytest.mark.smoke
@pytest.mark.parametrize("name", CASES)
def test_counts_give_clarifys_values(name: str) -> None:
    case = CASES[name]
    found = report(case)
    assert set(found) == {*PRE, *POST} - {"FT"}
    for key, value in found.items():
        # Clarify refuses KL of (nothing in common) and an empty facet by an error; a CDD with an empty facet is 0
        np.testing.assert_allclose(value, number(case["values"][key]), rtol=1e-6, atol=1e-12, err_msg=f"{name}: {key}")


def test_the_fixture_has_the_edges() -> None:
    values = [value for case in CASES.values() for value in case["values"].values()]
    assert {"inf", "-inf", None} <= {value for value in values if not isinstance(value, float)}
    assert all(set(case["values"]) == {*PRE, *POST} for case in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_the_flip_test_gives_clarifys_values(name: str) -> None:
    case = CASES[name]
    inputs = arrays(case, "preds", "facet") | {"features": np.asarray(case["inputs"]["features"], np.float32)}
    metric = metrics.FlipTest(capacity=24, num_features=3)
    value = flip(metric, metric.update(metric.init(), **inputs))
    np.testing.assert_allclose(value, number(case["values"]["FT"]), rtol=1e-6, atol=1e-12)


flip = jax.jit(lambda metric, state: metric.compute(state), static_argnums=0)


@pytest.mark.parametrize("key", FACETS)
@pytest.mark.parametrize("name", CLASSES)
def test_distances_of_several_classes(name: str, key: str) -> None:
    case = CLASSES[name]
    inputs = arrays(case, "target", "facet")
    metric = FACETS[key](num_classes=4)
    value = metric.compute(metric.update(metric.init(), **inputs))
    np.testing.assert_allclose(value, number(case["values"][key]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", CLASSES)
def test_textbook_distances_count_every_class(name: str) -> None:
    inputs = arrays(CLASSES[name], "target", "facet")
    a, d = (np.bincount(inputs["target"][inputs["facet"] == g], minlength=4) for g in (0, 1))
    p, q = a / a.sum(), d / d.sum()
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = {
            pair: np.where(x > 0, x * np.log(x / y), 0).sum()
            for pair, x, y in (("pq", p, q), ("pm", p, m), ("qm", q, m))
        }
    wanted = {"KL": kl["pq"], "JS": (kl["pm"] + kl["qm"]) / 2, "LP": np.linalg.norm(p - q),
              "TVD": abs(p - q).sum() / 2, "KS": abs(np.cumsum(p - q)).max()}  # fmt: skip
    for key, value in wanted.items():
        metric = LABELS[key](num_classes=4)
        np.testing.assert_allclose(metric.compute(metric.update(metric.init(), **inputs)), value, rtol=1e-6)


def restated(y: np.ndarray, p: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """fairlearn's definitions, for 0/1 labels and predictions."""

    def rates(keep: np.ndarray) -> tuple[float, float, float]:
        return p[keep].mean(), p[keep & (y == 1)].mean(), p[keep & (y == 0)].mean()

    of, all_of = np.array([rates(g == k) for k in np.unique(g)]), np.array(rates(g >= 0))
    gap, ratio = of.max(0) - of.min(0), of.min(0) / of.max(0)
    far, near = abs(of - all_of).max(0), np.minimum(of / all_of, all_of / of).min(0)
    found = {}
    for method, d, r in (("between_groups", gap, ratio), ("to_overall", far, near)):
        found |= {
            f"DemographicParityDifference {method}": d[0],
            f"DemographicParityRatio {method}": r[0],
            f"EqualOpportunityDifference {method}": d[1],
            f"EqualOpportunityRatio {method}": r[1],
            f"EqualizedOddsDifference {method}": d[1:].max(),
            f"EqualizedOddsRatio {method}": r[1:].min(),
        }
    return found


def test_textbook_parity_of_four_groups() -> None:
    draw = np.random.default_rng(0)
    y, p, g = (draw.integers(0, k, 200).astype(np.int32) for k in (2, 2, 4))
    g[g == 2] = 3  # facet 2 does not occur, and plays no part
    for what, value in restated(y, p, g).items():
        kind, method = what.split()
        metric = getattr(metrics, kind)(num_facets=4, method=method)
        got = metric.compute(metric.update(metric.init(), preds=p, target=y, facet=g))
        np.testing.assert_allclose(got, value, rtol=1e-6, err_msg=what)
    mean = metrics.EqualizedOddsDifference(num_facets=4, aggregate="mean")
    worst = metrics.EqualizedOddsDifference(num_facets=4)
    state = mean.update(mean.init(), preds=p, target=y, facet=g)
    assert 0 < float(mean.compute(state)) < float(worst.compute(state))


def test_parity_is_undefined_where_a_rate_is() -> None:
    y, p, g = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1])
    assert float(metrics.demographic_parity_difference(p, y, facet=g)) == 0
    assert np.isnan(metrics.equal_opportunity_difference(p, y, facet=g))  # group 1 has no positive label
    assert np.isnan(metrics.demographic_parity_difference(p, y, facet=np.zeros(4, int)))  # one group alone
    assert np.isnan(metrics.demographic_parity_ratio(0 * p, y, facet=g))


def test_nan_policy_where_clarify_divides_by_zero() -> None:
    case = CASES["no false positives"]
    inputs = arrays(case, "preds", "target", "facet")
    clarify, nan = metrics.TreatmentEquality(), metrics.TreatmentEquality(divide="nan")
    state = clarify.update(clarify.init(), **inputs)
    assert not np.isnan(clarify.compute(state)) and np.isnan(nan.compute(state))
    shares = metrics.BiasReport(divide="nan")
    plain = report(CASES["random 0"])
    again = shares.compute(shares.update(shares.init(), **arrays(CASES["random 0"], "preds", "target", "facet")))
    for key in set(again) - {"CDDL", "CDDPL"}:  # the other one has strata
        np.testing.assert_allclose(again[key], plain[key], rtol=1e-6)


def test_each_facet_value_against_the_rest() -> None:
    draw = np.random.default_rng(1)
    y, p, g = (draw.integers(0, k, 90).astype(np.int32) for k in (2, 2, 3))
    many = metrics.posttraining_bias(p, y, facet=g, features=draw.normal(size=(90, 2)))
    labels = metrics.pretraining_bias(y, facet=g)
    for value in range(3):
        one = metrics.BiasReport()
        found = one.compute(one.update(one.init(), preds=p, target=y, facet=g == value))
        for key, own in found.items():
            both = {**labels, **many}[key]
            assert both.shape == (3,)
            np.testing.assert_allclose(both[value], own, rtol=1e-6, err_msg=key)
    assert many["FT"].shape == (3,)


def test_positive_classes_and_scores() -> None:
    draw = np.random.default_rng(2)
    scores = draw.normal(size=(60, 4)).astype(np.float32)
    y, g = draw.integers(0, 4, 60).astype(np.int32), draw.integers(0, 2, 60).astype(np.int32)
    several = metrics.BiasReport(num_classes=4, positive=[3, 1])
    binary = metrics.BiasReport()
    a = several.compute(several.update(several.init(), preds=scores, target=y, facet=g))
    b = binary.compute(
        binary.update(binary.init(), preds=np.isin(scores.argmax(1), (1, 3)), target=np.isin(y, (1, 3)), facet=g)
    )
    jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=1e-6), a, b)
    assert several == metrics.BiasReport(num_classes=4, positive=(1, 3)) and hash(several)
    share = 1 / (1 + np.exp(-scores[:, 0]))
    kept = metrics.disparate_impact(share, y > 1, facet=g, threshold=0.5, num_facets=2)
    np.testing.assert_allclose(kept, metrics.disparate_impact(scores[:, 0] > 0, y > 1, facet=g))


def test_generalized_entropy_of_other_orders() -> None:
    draw = np.random.default_rng(3)
    y, p = draw.integers(0, 2, (2, 80))
    p = np.maximum(p, y)  # no false negative: alpha <= 0 is finite
    b = p - y + 1
    r = b / b.mean()
    for alpha, value in (
        (0.0, -np.log(r).mean()),
        (1.0, (r * np.log(r)).mean()),
        (-1.0, (1 / r - 1).mean() / 2),
        (3.0, (r**3 - 1).mean() / 6),
    ):
        metric = metrics.GeneralizedEntropy(alpha=alpha)
        got = metric.compute(metric.update(metric.init(), preds=p, target=y, facet=0 * y))
        np.testing.assert_allclose(got, value, rtol=1e-6)


def test_counts_past_float32_are_exact() -> None:
    metric = metrics.PositiveProportionDifference()
    state = metric.init()
    many = 2.0**26  # + 1 would be lost in float32
    for facet, target, weight in ((0, 0, many), (0, 1, many), (0, 1, 1.0), (1, 0, many), (1, 1, many)):
        state = metric.update(state, target=np.array([target]), facet=np.array([facet]), weight=np.array([weight]))
    np.testing.assert_allclose(metric.compute(state), (many + 1) / (2 * many + 1) - 0.5, rtol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_swapping_the_facets_turns_the_sign(seed: int) -> None:
    draw = np.random.default_rng(seed)
    y, p, g = (draw.integers(0, 2, 24).astype(np.int32) for _ in range(3))
    s = draw.integers(0, 4, 24).astype(np.int32)
    one, other = (
        {k: float(v) for k, v in evaluate(REPORT.update(REPORT.init(), preds=p, target=y, facet=f, stratum=s)).items()}
        for f in (g, 1 - g)
    )
    # not CDDL and CDDPL: a stratum without one outcome breaks Clarify's symmetry
    for key in ("CI", "DPL", "DPPL", "DCA", "DCR", "RD", "SD", "DAR", "DRR", "AD", "TE"):
        np.testing.assert_allclose(one[key], -other[key], atol=1e-6, err_msg=key)
    for key in ("JS", "LP", "TVD", "KS", "GE"):
        np.testing.assert_allclose(one[key], other[key], rtol=1e-5, atol=1e-7, err_msg=key)


@given(st.integers(0, 2**32 - 1))
def test_flips_by_hand(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, p, g = draw.normal(size=(24, 3)).astype(np.float32), draw.integers(0, 2, 24), draw.integers(0, 2, 24)
    a, d = g == 0, g == 1
    k = 5 if a.sum() > 9 else 1
    metric = metrics.FlipTest(capacity=24, num_features=3)
    got = float(flip(metric, metric.update(metric.init(), preds=p, facet=g, features=x)))
    if not a.any() or not d.any():
        assert np.isnan(got)
        return
    near = NearestNeighbors(n_neighbors=k).fit(x[a].astype(float)).kneighbors(x[d].astype(float), return_distance=False)
    votes = p[a][near].mean(1) > 0.5
    np.testing.assert_allclose(got, ((p[d] == 1) & ~votes).mean() - ((p[d] == 0) & votes).mean(), atol=1e-6)


def test_flips_at_equal_distances_share_what_is_left() -> None:
    # ten of a at one place, six of them positive: every neighbour counts half, 3 of 5 votes
    features = np.zeros((12, 1), np.float32)
    preds = np.array([1] * 6 + [0] * 4 + [0, 1])
    facet = np.array([0] * 10 + [1, 1])
    for order in (np.arange(12), np.arange(12)[::-1]):
        inputs = {"preds": preds[order], "facet": facet[order], "features": features[order]}
        assert float(metrics.flip_test(**inputs)) == -0.5
        assert float(metrics.flip_test(**inputs, part="to_positive")) == 0.5
        assert float(metrics.flip_test(**inputs, part="to_negative")) == 0.0
    drawn = np.array([1] * 5 + [0] * 5 + [0, 1])  # 2.5 of 5: negative
    assert float(metrics.flip_test(drawn, facet=facet, features=features)) == 0.5


def test_the_flip_test_says_what_did_not_fit() -> None:
    metric = metrics.FlipTest(capacity=4, num_features=1)
    inputs = {"preds": np.array([0, 1, 0]), "facet": np.array([0, 1, 5]), "features": np.ones((3, 1))}
    state = metric.update(metric.init(), **inputs)
    assert int(metric.invalid(state)) == 1 and not metric.overflowed(state)
    assert float(metric.compute(state)) == 1.0
    for _ in range(2):
        state = metric.update(state, **inputs)
    assert metric.overflowed(state) and np.isnan(metric.compute(state))
    broken = metric.update(metric.init(), preds=[0, 1], facet=[0, 1], features=np.array([[np.nan], [1.0]]))
    assert np.isnan(metric.compute(broken))


def test_ids_out_of_range_are_counted_and_nan_scores_show() -> None:
    report = metrics.BiasReport()
    state = report.update(
        report.init(), preds=np.array([0, 1, 2, 1]), target=np.array([0, 1, 1, 1]), facet=np.array([0, 1, 1, -1])
    )
    assert float(report.invalid(state)) == 2
    assert float(report.compute(state)["CI"]) == 0
    scores = np.array([[0.1, 0.9], [np.nan, 0.2]], np.float32)
    state = report.update(report.init(), preds=scores, target=np.array([1, 0]), facet=np.array([0, 1]))
    assert all(np.isnan(value) for value in report.compute(state).values())
    masked = report.update(
        report.init(), preds=scores, target=np.array([1, 0]), facet=np.array([0, 1]), mask=np.array([True, False])
    )
    assert float(report.invalid(masked)) == 0


def test_a_collection_shares_one_state_of_all_measures() -> None:
    held = metrics.Collection([metrics.DisparateImpact(), metrics.RecallDifference(), metrics.DemographicParityRatio()])
    assert len(held.statistics) == 1
    inputs = arrays(CASES["random 1"], "preds", "target", "facet")
    found = held.compute(held.update(held.init(), **inputs))
    np.testing.assert_allclose(found["DI"], number(CASES["random 1"]["values"]["DI"]), rtol=1e-6)
    np.testing.assert_allclose(found["RD"], number(CASES["random 1"]["values"]["RD"]), rtol=1e-6)


def test_scores_with_a_threshold_need_no_counts() -> None:
    draw = np.random.default_rng(5)
    scores, labels, facet = draw.random(50).astype(np.float32), draw.integers(0, 2, 50), draw.integers(0, 2, 50)
    found = metrics.disparate_impact(scores, labels, facet=facet, threshold=0.4)
    np.testing.assert_array_equal(found, metrics.disparate_impact(scores > 0.4, labels, facet=facet))
    with pytest.raises((TypeError, ValueError), match="DI"):
        metrics.disparate_impact(scores, labels, facet=facet)


def test_measures_of_labels_need_no_predictions_anywhere() -> None:
    draw = np.random.default_rng(6)
    labels, facet, group = (draw.integers(0, 2, 40) for _ in range(3))
    both = metrics.Collection([metrics.ClassImbalance(), metrics.FacetKL()])
    alone = metrics.class_imbalance(labels, facet=facet)
    np.testing.assert_array_equal(both.compute(both.update(both.init(), target=labels, facet=facet))["CI"], alone)
    sliced = metrics.by(metrics.ClassImbalance(), 2)
    values = sliced.compute(sliced.update(sliced.init(), target=labels, facet=facet, group=group))
    kept = group == 1
    np.testing.assert_allclose(values[1], metrics.class_imbalance(labels[kept], facet=facet[kept]), rtol=1e-6)
    interval = metrics.confidence_interval(
        metrics.ClassImbalance(), jax.random.key(0), target=labels, facet=facet, resamples=20
    )
    assert interval.value == alone and interval.low <= interval.high
