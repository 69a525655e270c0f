"""Measures of drift between two histograms: p is the reference's shares, q the current ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.drift import DriftMeasure, Sides, shares_of, two_samples
from jaxdl.metrics.fairness_pre import js, kl, largest, total_variation
from jaxdl.metrics.metric import Derived, State

Smoothing = Literal["floor", "additive"]


def smoothed(sides: Sides, smoothing: str, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Shares without zeros: "floor" lifts those below epsilon to it, "additive" adds epsilon to every weight first."""
    if smoothing == "additive":
        return shares_of(Sides(*(side + np.float64(epsilon) for side in sides)))
    p, q = (jnp.maximum(share, np.float64(epsilon)) for share in shares_of(sides))
    return p, q


def _check_smoothing(name: str, smoothing: str, epsilon: float) -> None:
    if smoothing not in ("floor", "additive"):
        raise ValueError(f"{name}: smoothing must be 'floor' or 'additive'; it is {smoothing!r}")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"{name}: epsilon must be a finite number of at least 0; it is {epsilon!r}")


def _log_base(name: str, base: float | None) -> float:
    if base is None:
        return 1.0
    if not (base > 0 and base != 1 and math.isfinite(base)):
        raise ValueError(f"{name}: base must be a positive number other than 1, or None for e; it is {base!r}")
    return math.log(base)


@dataclass(frozen=True)
class PopulationStabilityIndex(DriftMeasure, Derived):
    """PSI: sum of (q - p) ln(q / p), in [0, inf); 0.1 is commonly read as some drift, 0.25 as much.

    Empty cells: smoothing="floor" lifts each share below `epsilon` to it (1e-4, as is common), without scaling the rest
    down; "additive" adds `epsilon` to every cell's weight (1 is Laplace's rule). epsilon=0 leaves zeros: a cell that is
    empty on one side alone gives inf. Bins of equal reference share (`fit_edges`) are the usual choice. Inputs, state
    and missing values: `DriftMeasure`. Source: Lewis, An Introduction to Credit Scoring, 1994.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import PopulationStabilityIndex
    >>> psi = PopulationStabilityIndex(edges=(0.0, 1.0, 2.0))
    >>> reference = psi.update(psi.init(), preds=jnp.array([0.5, 1.5]), target=0)
    >>> state = psi.update(reference, preds=jnp.array([0.5, 1.5, 1.5, 1.5]))
    >>> round(float(psi.compute(state)), 4)
    0.2747
    """

    name: str = "psi"
    smoothing: Smoothing = "floor"
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        DriftMeasure.__post_init__(self)
        _check_smoothing(self.name, self.smoothing, self.epsilon)

    def _measure(self, sides: Sides) -> jax.Array:
        return jnp.sum(self._terms(sides))

    def _terms(self, sides: Sides) -> jax.Array:
        p, q = smoothed(sides, self.smoothing, self.epsilon)
        same = p == q  # both empty as well
        ratio = jnp.where(same, jnp.ones_like(p), q) / jnp.where(same, jnp.ones_like(p), p)
        return jnp.where(same, jnp.zeros_like(p), (q - p) * jnp.log(ratio))

    def contributions(self, state: State) -> jax.Array:
        """What each cell adds to the index, float32 [cells]: which bins drifted."""
        with jax.enable_x64(True):
            return self._terms(self._sides(state)).astype(jnp.float32)


@dataclass(frozen=True)
class DriftKL(DriftMeasure, Derived):
    """The Kullback-Leibler divergence of the reference from the current shares, sum of p ln(p / q), in [0, inf].

    direction="current_to_reference" swaps the two. `base` of the logarithm: None is e (nats), 2 gives bits. Infinite
    when a cell of the first is empty in the second, unless `epsilon` smooths both sides as `PopulationStabilityIndex`
    says. Inputs, state and missing values: `DriftMeasure`. Source: Kullback and Leibler, 1951.
    """

    name: str = "drift_kl"
    direction: Literal["reference_to_current", "current_to_reference"] = "reference_to_current"
    base: float | None = None
    smoothing: Smoothing = "floor"
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        DriftMeasure.__post_init__(self)
        _check_smoothing(self.name, self.smoothing, self.epsilon)
        _log_base(self.name, self.base)
        if self.direction not in ("reference_to_current", "current_to_reference"):
            raise ValueError(
                f"{self.name}: direction must be 'reference_to_current' or 'current_to_reference'; "
                f"it is {self.direction!r}"
            )

    def _measure(self, sides: Sides) -> jax.Array:
        p, q = smoothed(sides, self.smoothing, self.epsilon)
        first, second = (p, q) if self.direction == "reference_to_current" else (q, p)
        return kl(first, second) / np.float64(_log_base(self.name, self.base))


@dataclass(frozen=True)
class DriftJS(DriftMeasure, Derived):
    """The Jensen-Shannon divergence, (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2; never infinite.

    `base` of the logarithm: None is e, with values in [0, ln 2]; 2 gives [0, 1]. distance=True takes the square root,
    which is a metric (Endres and Schindelin, 2003) and what scipy calls jensenshannon. Inputs, state and missing
    values: `DriftMeasure`. Source: Lin, 1991.
    """

    name: str = "drift_js"
    base: float | None = None
    distance: bool = False

    def __post_init__(self) -> None:
        DriftMeasure.__post_init__(self)
        _log_base(self.name, self.base)

    def _measure(self, sides: Sides) -> jax.Array:
        value = jnp.maximum(js(*shares_of(sides)), np.float64(0)) / np.float64(_log_base(self.name, self.base))
        return jnp.sqrt(value) if self.distance else value


@dataclass(frozen=True)
class DriftTotalVariation(DriftMeasure, Derived):
    """The total variation distance, half the sum of |p - q|, in [0, 1]: the mass that would have to move.

    Inputs, state and missing values: `DriftMeasure`.
    """

    name: str = "drift_total_variation"

    def _measure(self, sides: Sides) -> jax.Array:
        return total_variation(*shares_of(sides))


@dataclass(frozen=True)
class DriftLInfinity(DriftMeasure, Derived):
    """The largest |p - q| of a cell, in [0, 1]: the "Simple" comparison of SageMaker Model Monitor.

    Inputs, state and missing values: `DriftMeasure`.
    """

    name: str = "drift_l_infinity"

    def _measure(self, sides: Sides) -> jax.Array:
        return largest(*shares_of(sides))


@dataclass(frozen=True)
class DriftHellinger(DriftMeasure, Derived):
    """The Hellinger distance, sqrt(sum of (sqrt p - sqrt q)^2 / 2), in [0, 1].

    Inputs, state and missing values: `DriftMeasure`. Source: Hellinger, 1909.
    """

    name: str = "drift_hellinger"

    def _measure(self, sides: Sides) -> jax.Array:
        p, q = shares_of(sides)
        return jnp.sqrt(jnp.sum((jnp.sqrt(p) - jnp.sqrt(q)) ** 2) / np.float64(2))


def _cumulative(sides: Sides) -> tuple[jax.Array, jax.Array]:
    """The CDFs at all edges, [bins + 1] each."""
    p, q = shares_of(sides)
    f, g = (jnp.concatenate([jnp.zeros(1, share.dtype), jnp.cumsum(share)]) for share in (p, q))
    return f, g


@dataclass(frozen=True)
class DriftKS(DriftMeasure, Derived):
    """The Kolmogorov-Smirnov statistic, the largest |F(x) - G(x)| of the two CDFs, looked at where x is a bin edge.

    In [0, 1]; at most the statistic of the samples themselves, which exceeds it by `bound(state)` at the most: finer
    edges bring both together. Of samples that fit into memory, `KolmogorovSmirnov` is exact (`two_sample_ks`). NaN
    values are left out (`missing_share` tells how many). Inputs and state: `DriftMeasure`; it needs `edges`. Source:
    Smirnov, 1939.
    """

    name: str = "drift_ks"
    _ordered: ClassVar[bool] = True

    def _measure(self, sides: Sides) -> jax.Array:
        f, g = _cumulative(sides)
        return jnp.max(jnp.abs(f - g))

    def bound(self, state: State) -> jax.Array:
        """How much larger the statistic of the samples themselves may be, float32 []."""
        with jax.enable_x64(True):
            sides = self._sides(state)
            f, g = _cumulative(sides)
            most = jnp.max(jnp.maximum(f[1:] - g[:-1], g[1:] - f[:-1]))
            return (most - self._measure(sides)).astype(jnp.float32)

    def p_value(self, state: State) -> jax.Array:
        """The asymptotic probability of such a statistic without drift, float32 [] (Kolmogorov's distribution).

        2 sum over k of (-1)^(k-1) exp(-2 k^2 n m / (n + m) D^2); weights count as repetitions. Binning makes it
        conservative.
        """
        with jax.enable_x64(True):
            sides = self._sides(state)
            n, m = jnp.sum(sides.reference), jnp.sum(sides.current)
            square = self._measure(sides) ** 2 * (n / (n + m)) * m
            return _kolmogorov(square).astype(jnp.float32)


def _kolmogorov(square: jax.Array) -> jax.Array:
    """P(K > sqrt(square)) of Kolmogorov's K; of two series the one that converges."""
    k = jnp.arange(1, 21, dtype=jnp.float64)
    signs = 1 - 2 * (jnp.arange(20) % 2)
    safe = jnp.maximum(square, np.float64(1e-300))
    tail = 2 * jnp.sum(signs.astype(jnp.float64) * jnp.exp(-2 * k**2 * safe))
    odd = (2 * k - 1) ** 2
    head = 1 - jnp.sqrt(2 * np.pi / safe) * jnp.sum(jnp.exp(-odd * np.float64(np.pi**2 / 8) / safe))
    return jnp.clip(jnp.where(square > 1, tail, jnp.where(square > 0.01, head, jnp.ones_like(head))), 0, 1)


@dataclass(frozen=True)
class DriftWasserstein(DriftMeasure, Derived):
    """The Wasserstein-1 (earth mover's) distance in the unit of the values, all mass of a bin at its middle.

    The sum over inner edges of |F - G| times the distance of the middles of the bins beside it, F and G the CDFs. The
    distance of the samples themselves is within `bound(state)`, which is infinite when values lie outside the edges
    (`outside_share`): choose edges wide enough. Of samples that fit into memory, `ExactWasserstein` is exact. NaN
    values are left out. Inputs and state: `DriftMeasure`; it needs `edges`. Source: Vallender, 1974.
    """

    name: str = "drift_wasserstein"
    _ordered: ClassVar[bool] = True

    def _measure(self, sides: Sides) -> jax.Array:
        f, g = _cumulative(sides)
        edges = np.asarray(self.edges, np.float64)
        middles = (edges[1:] + edges[:-1]) / 2
        return jnp.sum(jnp.abs(f - g)[1:-1] * np.diff(middles))

    def bound(self, state: State) -> jax.Array:
        """How far the distance of the samples themselves may be from the value, float32 []; inf with values outside."""
        with jax.enable_x64(True):
            sides = self._sides(state)
            f, g = _cumulative(sides)
            widths = np.diff(np.asarray(self.edges, np.float64))
            most = jnp.sum(widths * jnp.maximum(f[1:] - g[:-1], g[1:] - f[:-1]))
            least = jnp.sum(widths * jnp.maximum(jnp.maximum(f[:-1] - g[1:], g[:-1] - f[1:]), np.float64(0)))
            value = self._measure(sides)
            inside = jnp.all(self.outside_share(state) == 0)
            radius = jnp.maximum(most - value, value - least)
            return jnp.where(inside, radius, jnp.full_like(radius, jnp.inf)).astype(jnp.float32)


@dataclass(frozen=True)
class DriftChiSquare(DriftMeasure, Derived):
    """Pearson's chi-square test: {"statistic", "dof", "p_value"}, float32 [] each.

    test="homogeneity" asks whether both sides come from one distribution: observed against expected counts of the
    2 x cells table, dof = cells - 1 (scipy's chi2_contingency without correction). test="fit" takes the reference's
    shares for the truth: sum of (n_q - n p)^2 / (n p) (scipy's chisquare); the statistic is infinite when the current
    side has a category that the reference lacks. Cells that are empty on both sides do not count. p_value is the
    regularised upper gamma function Q(dof / 2, statistic / 2). Weights count as repetitions. Inputs, state and missing
    values: `DriftMeasure`. Source: Pearson, 1900.
    """

    name: str = "drift_chi_square"
    test: Literal["homogeneity", "fit"] = "homogeneity"

    def __post_init__(self) -> None:
        DriftMeasure.__post_init__(self)
        if self.test not in ("homogeneity", "fit"):
            raise ValueError(f"{self.name}: test must be 'homogeneity' or 'fit'; it is {self.test!r}")

    def _measure(self, sides: Sides) -> dict[str, jax.Array]:
        observed = jnp.stack(sides)
        rows, columns = jnp.sum(observed, axis=1, keepdims=True), jnp.sum(observed, axis=0, keepdims=True)
        if self.test == "fit":
            expected = (shares_of(sides)[0] * rows[1, 0])[None]
            observed = observed[1:]
        else:
            whole = jnp.sum(rows)
            expected = rows * (columns / jnp.where(whole == 0, jnp.ones_like(whole), whole))
        none = jnp.zeros_like(observed)
        never = jnp.where(observed > 0, jnp.full_like(observed, jnp.inf), none)
        terms = (observed - expected) ** 2 / jnp.where(expected > 0, expected, jnp.ones_like(expected))
        statistic = jnp.sum(jnp.where(expected > 0, terms, never))
        dof = jnp.maximum(jnp.sum((columns > 0).astype(statistic.dtype)) - 1, np.float64(0))
        return {"statistic": statistic, "dof": dof, "p_value": _chi_square_tail(statistic, dof, sides.reference.size)}


def _chi_square_tail(statistic: jax.Array, dof: jax.Array, cells: int) -> jax.Array:
    """P(chi-square > statistic), float64: for whole dof < cells the gamma function Q is a finite sum, all of one sign.

    Q(n, x) = sum over k < n of e^-x x^k / k!; Q(n + 1/2, x) = erfc(sqrt x) + sum of e^-x x^(k + 1/2) / Gamma(k + 3/2).
    """
    terms = cells // 2 + 1
    k = np.arange(terms)
    even = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])  # ln k!
    odd = math.lgamma(1.5) + np.concatenate([[0.0], np.cumsum(np.log(k[1:] + 0.5))])  # ln Gamma(k + 3/2)
    finite = jnp.isfinite(statistic)
    x = jnp.where(finite, statistic, jnp.ones_like(statistic)) / 2
    positive = jnp.where(x > 0, x, jnp.ones_like(x))
    half = dof % 2 == 1
    power = jnp.where(half, k + 0.5, jnp.asarray(k, jnp.float64))
    logs = power * jnp.log(positive) - x - jnp.where(half, jnp.asarray(odd), jnp.asarray(even))
    among = jnp.asarray(k, jnp.float64) < jnp.floor(dof / 2)
    total = jnp.sum(jnp.where(among, jnp.exp(logs), jnp.zeros_like(logs)))
    total = total + jnp.where(half, jax.lax.erfc(jnp.sqrt(x)), jnp.zeros_like(x))
    total = jnp.where((dof > 0) & (x > 0), total, jnp.ones_like(total))
    return jnp.where(finite | (dof == 0), total, jnp.zeros_like(total))


population_stability_index = two_samples(PopulationStabilityIndex, "population_stability_index")
drift_kl = two_samples(DriftKL, "drift_kl")
drift_js = two_samples(DriftJS, "drift_js")
drift_total_variation = two_samples(DriftTotalVariation, "drift_total_variation")
drift_l_infinity = two_samples(DriftLInfinity, "drift_l_infinity")
drift_hellinger = two_samples(DriftHellinger, "drift_hellinger")
drift_ks = two_samples(DriftKS, "drift_ks")
drift_wasserstein = two_samples(DriftWasserstein, "drift_wasserstein")
drift_chi_square = two_samples(DriftChiSquare, "drift_chi_square")
