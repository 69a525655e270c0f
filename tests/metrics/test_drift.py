"""Drift measures against scipy and against formulas restated in numpy; bounds, bins, missing values, sentences."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from jaxdl import metrics

EDGES = (-2.0, -1.0, -0.25, 0.5, 1.0, 2.5)
CELLS = len(EDGES) - 1
ALL = metrics.Collection([
    metrics.PopulationStabilityIndex(EDGES),
    metrics.PopulationStabilityIndex(EDGES, epsilon=0.0, name="plain"),
    metrics.PopulationStabilityIndex(EDGES, smoothing="additive", epsilon=1.0, name="laplace"),
    metrics.DriftKL(EDGES),
    metrics.DriftKL(EDGES, direction="current_to_reference", base=2, name="back"),
    metrics.DriftJS(EDGES),
    metrics.DriftJS(EDGES, base=2, distance=True, name="js distance"),
    metrics.DriftTotalVariation(EDGES),
    metrics.DriftLInfinity(EDGES),
    metrics.DriftHellinger(EDGES),
    metrics.DriftKS(EDGES),
    metrics.DriftWasserstein(EDGES),
    metrics.DriftChiSquare(EDGES),
    metrics.DriftChiSquare(EDGES, test="fit", name="fit"),
])  # fmt: skip
KS, WASSERSTEIN = metrics.DriftKS(EDGES), metrics.DriftWasserstein(EDGES)


@jax.jit
def everything(values: jax.Array, side: jax.Array, weight: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measures of 120 values, and the bounds of two of them."""
    (state,) = ALL.update(ALL.init(), preds=values, target=side, weight=weight)
    more = {"ks": KS.bound(state), "wasserstein": WASSERSTEIN.bound(state), "p": KS.p_value(state)}
    return ALL.compute((state,)), more


def histograms(values: np.ndarray, side: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights by bin and side, what is outside in the outer bins; missing values last."""
    bins = np.clip(np.searchsorted(EDGES, values, side="right") - 1, 0, CELLS - 1)
    bins = np.where(np.isnan(values), CELLS, bins)
    p, q = (np.bincount(bins[side == s], weight[side == s], minlength=CELLS + 1) for s in (0, 1))
    return p, q


def restated(n: np.ndarray, m: np.ndarray) -> dict[str, Any]:
    """All measures from two histograms, by scipy where it has them."""
    p, q = n / n.sum(), m / m.sum()

    def psi(p: np.ndarray, q: np.ndarray) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.where(p == q, 0, (q - p) * np.log(q / p)).sum())

    floor = psi(np.maximum(p, 1e-4), np.maximum(q, 1e-4))
    laplace = psi((n + 1) / (n + 1).sum(), (m + 1) / (m + 1).sum())
    found = {
        "psi": floor, "plain": psi(p, q), "laplace": laplace, "drift_kl": stats.entropy(p, q),
        "back": stats.entropy(q, p, base=2), "drift_js": jensenshannon(p, q) ** 2,
        "js distance": jensenshannon(p, q, 2), "drift_total_variation": abs(p - q).sum() / 2,
        "drift_l_infinity": abs(p - q).max(), "drift_hellinger": np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2),
    }  # fmt: skip
    f, g = (np.cumsum(x[:-1] / x[:-1].sum()) for x in (n, m))
    middles = (np.array(EDGES)[1:] + np.array(EDGES)[:-1]) / 2
    found["drift_ks"] = abs(f - g).max()
    found["drift_wasserstein"] = stats.wasserstein_distance(middles, middles, n[:-1], m[:-1])
    there = (n + m) > 0
    table = np.stack([n, m])[:, there]
    test = stats.chi2_contingency(table, correction=False)
    found["drift_chi_square"] = {"statistic": test.statistic, "dof": test.dof, "p_value": test.pvalue}
    if (n[there] > 0).all():
        fit = stats.chisquare(m[there], p[there] * m.sum())
        found["fit"] = {"statistic": fit.statistic, "dof": there.sum() - 1, "p_value": fit.pvalue}
    else:
        found["fit"] = {"statistic": np.inf, "dof": there.sum() - 1, "p_value": 0.0}
    return found


def data(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    values, side, weight = draw.normal(size=120), draw.integers(0, 2, 120), np.ones(120)
    values += 0.4 * side
    if kind == "ties":
        values = values.round(0)
    if kind == "missing":
        values[draw.random(120) < 0.2] = np.nan
    if kind == "weights":
        weight = draw.integers(0, 4, 120).astype(float)
    if kind == "skewed":
        side = (np.arange(120) % 30 == 0).astype(int)
    if kind == "one bin is empty":
        values = np.where((values > 0.5) & (values < 1.0) & (side == 0), 0.0, values)
    if kind == "tiny weights":
        weight = np.full(120, 1e-6)
    if kind == "outside":
        values = values * 4
    if kind == "the same":
        values[60:], side = values[:60], np.repeat([0, 1], 60)
    if kind == "far":
        values = np.where(side == 1, 2.2, -1.7)
    return values.astype(np.float32), side.astype(np.int32), weight.astype(np.float32)


KINDS = (
    "plain",
    "ties",
    "missing",
    "weights",
    "skewed",
    "one bin is empty",
    "tiny weights",
    "outside",
    "the same",
    "far",
)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_measures_equal_scipys(kind: str) -> None:
    values, side, weight = data(1, kind)
    found, _ = everything(values, side, weight)
    wanted = restated(*histograms(values, side, weight))
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7, err_msg=name), found[name], value)


@pytest.mark.parametrize("kind", ["plain", "ties", "weights", "skewed", "far", "missing"])
def test_the_samples_lie_within_the_bounds(kind: str) -> None:
    values, side, weight = data(2, kind)
    values = np.clip(values, EDGES[0], EDGES[-1])
    found, bound = everything(values, side, weight)
    seen = ~np.isnan(values)
    a, b = values[(side == 0) & seen].astype(float), values[(side == 1) & seen].astype(float)
    wa, wb = weight[(side == 0) & seen], weight[(side == 1) & seen]
    exact = stats.wasserstein_distance(a, b, wa, wb)
    assert abs(exact - found["drift_wasserstein"]) <= bound["wasserstein"] + 1e-6
    points = np.sort(np.concatenate([a, b]))
    cdf = [np.array([w[x <= at].sum() / w.sum() for at in points]) for x, w in ((a, wa), (b, wb))]
    ks = abs(cdf[0] - cdf[1]).max()
    assert found["drift_ks"] - 1e-6 <= ks <= found["drift_ks"] + bound["ks"] + 1e-6
    effective = np.sqrt(wa.sum() * wb.sum() / (wa.sum() + wb.sum()))
    np.testing.assert_allclose(
        bound["p"], special.kolmogorov(effective * float(found["drift_ks"])), rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize(("a", "b"), [(-1.0, -0.2501), (-0.2501, -1.0), (-0.2501, -0.25), (-1.0, 0.4999)])
def test_bounds_are_reached_at_the_ends_of_bins(a: float, b: float) -> None:
    values = np.where(np.arange(120) < 50, a, b).astype(np.float32)
    side = (np.arange(120) >= 50).astype(np.int32)
    found, bound = everything(values, side, np.ones(120, np.float32))
    assert abs(abs(a - b) - found["drift_wasserstein"]) == pytest.approx(float(bound["wasserstein"]), abs=1e-3)
    assert found["drift_ks"] + bound["ks"] == pytest.approx(1)


def test_values_outside_the_edges_have_no_bound_and_are_told() -> None:
    state = WASSERSTEIN.update(WASSERSTEIN.init(), preds=np.array([-5.0, 0.0, 1.0, 2.5]), target=0)
    state = WASSERSTEIN.update(state, preds=np.array([0.0, np.nan, np.nan, np.inf]))
    assert np.isinf(WASSERSTEIN.bound(state))
    np.testing.assert_allclose(WASSERSTEIN.outside_share(state), [0.25, 0.25])
    np.testing.assert_allclose(WASSERSTEIN.missing_share(state), [0, 0.5])
    shares = metrics.DriftTotalVariation(EDGES).shares(state)
    np.testing.assert_allclose(shares, [[0.25, 0, 0.25, 0, 0.5, 0], [0, 0, 0.25, 0, 0.25, 0.5]])


def test_a_value_at_an_edge_begins_a_bin_and_the_last_edge_ends_one() -> None:
    metric = metrics.DriftTotalVariation(EDGES)
    for place, edge in enumerate(EDGES):
        state = metric.update(metric.init(), preds=np.array([edge], np.float32), target=0)
        assert int(np.argmax(metric.shares(state)[0])) == min(place, CELLS - 1)
        assert float(metric.outside_share(state)[0]) == 0


def test_a_stream_is_compared_with_a_reference_that_stays() -> None:
    draw = np.random.default_rng(3)
    psi = metrics.PopulationStabilityIndex(edges=metrics.fit_edges(draw.normal(size=500), bins=5))
    reference = psi.update(psi.init(), preds=draw.normal(size=500), target=0)
    assert np.isnan(psi.compute(reference))  # nothing is current yet
    batches = draw.normal(1, size=(3, 40)).astype(np.float32)
    state, live = reference, psi.init()
    for batch in batches:
        state, live = psi.update(state, preds=batch), psi.update(live, preds=batch, target=1)
    together = psi.compute(psi.merge(reference, live))
    assert float(psi.compute(state)) == float(together) > 0.25
    np.testing.assert_allclose(np.sum(psi.contributions(state)), together, rtol=1e-6)


def test_categories_that_the_reference_lacks_count_as_other() -> None:
    reference = metrics.category_ids(["a", "b", "b", None, "c"])
    assert reference.names == ("a", "b", "c") and reference.ids.tolist() == [0, 1, 1, 3, 2]
    current = metrics.category_ids(["a", "z", "b", "zz"], reference.names)
    metric = metrics.DriftTotalVariation(categories=3)
    state = metric.update(metric.update(metric.init(), preds=reference.ids, target=0), preds=current.ids)
    np.testing.assert_allclose(metric.compute(state), (abs(0.25 - 0.2) + abs(0.25 - 0.4) + 0.2 + abs(0.5 - 0.2)) / 2)
    np.testing.assert_allclose(metric.missing_share(state), [0.2, 0.5])
    known = metrics.DriftTotalVariation(categories=3, missing="left_out")
    np.testing.assert_allclose(known.compute(state), (0.25 + 0 + 0.25) / 2)
    assert float(metrics.DriftKL(categories=3).compute(state)) == np.inf


def test_edges_are_fitted_to_a_reference() -> None:
    draw = np.random.default_rng(4)
    values = draw.exponential(size=1000)
    edges = metrics.fit_edges(values, bins=4)
    np.testing.assert_allclose(edges, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), rtol=1e-6)
    np.testing.assert_allclose(metrics.fit_edges([0, 8], bins=4, kind="uniform"), [0, 2, 4, 6, 8])
    tiny = float(np.finfo(np.float32).tiny)
    assert metrics.fit_edges([0, 0, 0, 0, 1, np.nan, np.inf], bins=4) == (0.0, tiny, 1.0)
    weighted = metrics.fit_edges([1.0, 2.0, 3.0], bins=2, weight=[1, 1, 8])
    assert weighted == metrics.fit_edges([1.0, 2.0] + [3.0] * 8, bins=2, weight=np.ones(10))
    constant = metrics.DriftTotalVariation(metrics.fit_edges([7.0, 7.0]))
    for other, moved in ((7.0, 0.0), (7.001, 1.0), (6.999, 1.0), (1e6, 1.0)):
        state = constant.update(constant.init(), preds=np.array([7.0]), target=0)
        assert float(constant.compute(constant.update(state, preds=np.array([other])))) == moved


def test_a_value_that_is_most_of_the_reference_has_a_bin_of_its_own() -> None:
    flag, later = np.repeat([0.0, 1.0], [95, 5]), np.repeat([0.0, 1.0], [40, 60])
    np.testing.assert_allclose(metrics.drift_ks(flag, later), 0.55, rtol=1e-6)
    expected = 0.55 * np.log(0.95 / 0.4 * 0.6 / 0.05)
    np.testing.assert_allclose(metrics.population_stability_index(flag, later), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.drift_total_variation(1 - flag, 1 - later), 0.55, rtol=1e-6)
    for only, other in ((0.0, 0.5), (0.0, -0.5), (-3.0, 4.0), (3e38, 1.0), (1e-3, 0.5)):
        assert metrics.drift_ks(np.full(9, only), np.full(9, other)) == 1, (only, other)
    # the next float32 above 0 is 0 to a compiled program, and so to the closed end of the last bin
    closed = metrics.DriftWasserstein((-2.0, -1.0, 0.0))
    state = closed.update(closed.init(), preds=jnp.array([0.0, -1.5]), target=0)
    assert closed.outside_share(state)[0] == 0


def test_exact_distances_of_two_samples() -> None:
    draw = np.random.default_rng(5)
    for a, b in (
        (draw.normal(size=50), draw.normal(1, size=31)), (draw.normal(size=50).round(0), draw.normal(size=31).round(0)),
        (np.full(50, 2.0), np.full(31, 5.5)), (1e6 + draw.normal(size=50), 1e6 + draw.normal(size=31)),
    ):  # fmt: skip
        a, b = a.astype(np.float32), b.astype(np.float32)
        wanted = stats.wasserstein_distance(a.astype(float), b.astype(float))
        np.testing.assert_allclose(metrics.two_sample_wasserstein(a, b), wanted, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(metrics.two_sample_ks(a, b), stats.ks_2samp(a, b).statistic, rtol=1e-6)
    weight = draw.integers(0, 3, 50)
    wanted = stats.wasserstein_distance(np.repeat(a, weight).astype(float), b.astype(float))
    np.testing.assert_allclose(metrics.two_sample_wasserstein(a, b, reference_weight=weight), wanted, rtol=1e-6)
    assert np.isnan(metrics.two_sample_wasserstein(np.full(50, np.nan), b))
    metric = metrics.ExactWasserstein(capacity=4)
    state = metric.update(metric.init(), preds=np.arange(5.0), target=np.array([0, 1, 0, 1, 0]))
    assert metric.overflowed(state) and np.isnan(metric.compute(state))


def test_functions_of_two_samples_cut_at_quantiles_of_the_reference() -> None:
    draw = np.random.default_rng(6)
    a, b = draw.normal(size=80).astype(np.float32), draw.normal(0.5, size=60).astype(np.float32)
    edges = metrics.fit_edges(a)
    p, q = (np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] for x in (a, b))
    np.testing.assert_allclose(metrics.drift_total_variation(a, b), abs(p / 80 - q / 60).sum() / 2, rtol=1e-6)
    np.testing.assert_allclose(
        metrics.drift_hellinger(a, b, current_weight=np.ones(60)), metrics.drift_hellinger(a, b), rtol=1e-6
    )
    assert float(metrics.drift_l_infinity(np.array([0, 1, 2]), np.array([0, 1, 9]))) == pytest.approx(1 / 3)


def test_attributions_that_change_order() -> None:
    gain = np.array([0.5, 0.3, 0.2, 0.0])
    discount = 1 / np.log2(np.arange(2, 6))
    for live in ([0.5, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.5], [0.3, 0.5, 0.2, 0.0]):
        order = np.argsort(-np.array(live), kind="stable")
        wanted = (gain[order] * discount).sum() / (gain * discount).sum()
        np.testing.assert_allclose(metrics.attribution_drift(gain, np.array(live)), wanted, rtol=1e-6)
    shared = (gain * [discount[0], discount[1:3].mean(), discount[1:3].mean(), discount[3]]).sum()
    np.testing.assert_allclose(
        metrics.attribution_drift(gain, np.array([0.5, 0.2, 0.2, 0.0])), shared / (gain * discount).sum(), rtol=1e-6
    )
    metric = metrics.AttributionDrift(2)
    state = metric.update(metric.init(), preds=np.array([[1.0, -0.2], [3.0, 0.4]]), target=0)
    assert np.isnan(metric.compute(state)) and not metric.drifted(state)
    state = metric.update(state, preds=np.array([[0.1, -5.0]]))
    wanted = (2 / np.log2(3) + 0.3) / (2 + 0.3 / np.log2(3))
    np.testing.assert_allclose(metric.compute(state), wanted, rtol=1e-6)
    assert metric.drifted(state) and not metric.drifted(state, threshold=0.5)
    squares = metrics.AttributionDrift(2, "mean_sq")
    same = squares.update(
        squares.update(squares.init(), preds=jnp.array([[1.0, 2.0]]), target=0), preds=jnp.array([[1.0, -2.0]])
    )
    assert float(squares.compute(same)) == 1
    assert np.isnan(metrics.attribution_drift(np.zeros(2), np.ones(2)))


@given(st.integers(0, 2**32 - 1))
def test_drift_is_symmetric_where_it_should_be_and_bounded(seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = (draw.normal(size=120) * draw.choice([0.1, 1, 3])).round(draw.integers(0, 3)).astype(np.float32)
    side = draw.integers(0, 2, 120).astype(np.int32)
    one = np.ones(120, np.float32)
    (forth, _), (back, _) = everything(values, side, one), everything(values, 1 - side, one)
    symmetric = ("psi", "laplace", "drift_js", "drift_total_variation", "drift_l_infinity", "drift_hellinger")
    for name in (*symmetric, "drift_ks", "drift_wasserstein"):
        np.testing.assert_allclose(forth[name], back[name], rtol=1e-5, atol=1e-7, err_msg=name)
        assert forth[name] >= 0
    np.testing.assert_allclose(forth["drift_kl"] / np.log(2), back["back"], rtol=1e-5, atol=1e-7)
    assert forth["drift_l_infinity"] <= forth["drift_total_variation"] + 1e-6 <= 1 + 2e-6
    assert forth["js distance"] <= 1 and forth["drift_hellinger"] ** 2 <= forth["drift_total_variation"] + 1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: metrics.DriftJS(), "give edges= for numbers"),
        (lambda: metrics.DriftJS((0.0, 1.0), categories=2), "one of them"),
        (lambda: metrics.DriftJS((1.0, 0.0)), "numbers that rise"),
        (lambda: metrics.DriftJS((1.0, 1.0 + 1e-12)), "in float32"),
        (lambda: metrics.DriftJS(categories=0), "from 1 to 2"),
        (lambda: metrics.DriftKS(categories=3), "no order"),
        (lambda: metrics.DriftJS(EDGES, base=1), "other than 1"),
        (lambda: metrics.DriftJS(EDGES, missing="drop"), "'category' or 'left_out'"),
        (lambda: metrics.PopulationStabilityIndex(EDGES, epsilon=-1), "epsilon"),
        (lambda: metrics.PopulationStabilityIndex(EDGES, smoothing="laplace"), "'floor' or 'additive'"),
        (lambda: metrics.DriftKL(EDGES, direction="back"), "direction must be"),
        (lambda: metrics.DriftChiSquare(EDGES, test="g"), "'homogeneity' or 'fit'"),
        (lambda: KS.update(KS.init(), preds=np.zeros(3), target=np.zeros(3)), "0 .reference. or 1"),
        (lambda: KS.update(KS.init(), preds=np.zeros(3), target=np.zeros(2, int)), "target has shape"),
        (lambda: metrics.drift_js(np.array([0.5]), np.array([0.5]), categories=3, bins=4), "unexpected keyword"),
        (lambda: metrics.DriftJS(categories=3).update(jnp.zeros(9), preds=np.array([0.5])), "integer category ids"),
        (lambda: metrics.drift_js(np.zeros((2, 2)), np.zeros(2)), "one axis"),
        (lambda: metrics.fit_edges([np.nan]), "no finite value"),
        (lambda: metrics.drift_js([0, 1, 2], [0.5, 1.7]), "as categories, but current is float32"),
        (lambda: metrics.drift_js([0.5, 1.7], [0, 1], categories=2), "categories, but reference is float32"),
        (lambda: metrics.drift_js([-3, 1], [0, 1]), "ids from 0, but reference holds -3"),
        (lambda: metrics.fit_edges([1.0], bins=0), "at least 1"),
        (lambda: metrics.fit_edges([1.0], kind="log"), "'quantile' or 'uniform'"),
        (lambda: metrics.fit_edges([1.0], weight=[1, 2]), "weight has 2"),
        (lambda: metrics.category_ids(["a"], ["x", "x"]), "one name"),
        (lambda: metrics.AttributionDrift(0), "num_features"),
        (lambda: metrics.AttributionDrift(2, "median"), "'mean_abs' or 'mean_sq'"),
        (lambda: metrics.attribution_drift(np.zeros(2), np.zeros(3)), "same features"),
        (lambda: metrics.ExactWasserstein(), "neither"),
    ],
)  # fmt: skip
def test_refusals(make: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()
