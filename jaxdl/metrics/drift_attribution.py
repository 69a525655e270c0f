"""Drift of feature attributions: do the features that mattered still matter, in the same order?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import evaluate
from jaxdl.metrics.drift import sides_of
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.metric import Derived, Reduce, State

Aggregate = Literal["mean_abs", "mean_sq"]


@dataclass(frozen=True)
class AttributionSums:
    """Sums of |attribution| (or its square) of each feature, of the reference and of the current side.

    preds: float [n, num_features], such as SHAP values; target as in `DriftCounts`, [n] or one number. State: `Sums`
    [2 * (num_features + 1) + 1].
    """

    num_features: int
    aggregate: Aggregate = "mean_abs"
    name: str = field(default="attributions", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        count = self.num_features
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{self.name}: num_features must be an integer of at least 1; it is {count!r}")
        if self.aggregate not in ("mean_abs", "mean_sq"):
            raise ValueError(f"{self.name}: aggregate must be 'mean_abs' or 'mean_sq'; it is {self.aggregate!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 2 * (self.num_features + 1) + 1))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds attributions [n, num_features]; `weight` and `mask` are [n]."""
        values = as_float(preds, f"{self.name}: preds")
        if values.ndim != 2 or values.shape[1] != self.num_features:
            raise ValueError(f"{self.name}: preds have shape {values.shape}; they must be [n, {self.num_features}]")
        shape = values.shape[:1]
        given = as_weight(shape, weight, mask, self.name)
        weights = jnp.ones(shape, jnp.float32) if given is None else given
        side = sides_of(target, shape, self.name)
        size = jnp.abs(values) if self.aggregate == "mean_abs" else values**2
        columns = jnp.concatenate([size.T, jnp.ones((1, *shape), jnp.float32)])
        parts = []
        for which in (side == 0, side == 1):
            there = jnp.where(which, weights, jnp.zeros_like(weights))[None]
            parts.append(jnp.where(there == 0, jnp.zeros_like(columns), columns * there))
        lost = jnp.where((side == 0) | (side == 1), jnp.zeros_like(weights), weights)[None]
        return sums.add(state, sums.total(jnp.concatenate([*parts, lost])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def means(self, state: sums.Sums) -> jax.Array:
        """The mean of each feature, float64 [2, num_features]: call it inside `with jax.enable_x64(True)`."""
        sides = sums.wide(state)[:-1].reshape(2, self.num_features + 1)
        count = sides[:, -1:]
        return sides[:, :-1] / jnp.where(count == 0, jnp.full_like(count, jnp.nan), count)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples whose target named no side, float32 []."""
        return sums.value(sums.pick(state, -1))


@dataclass(frozen=True)
class AttributionDrift(Derived):
    """NDCG of the features as the live model ranks them: 1 when their order is the reference's; alert below 0.90.

    Gain of a feature: its reference attribution a, the mean of |attribution| over examples (aggregate="mean_abs") or of
    its square ("mean_sq"). DCG = sum over ranks i of a(feature of live rank i) / log2(i + 1); divided by the DCG of the
    reference's own ranking. Features of equal live attribution share the discounts of their ranks. In (0, 1]; NaN while
    a side is empty, when all reference attributions are 0, and when an attribution is NaN. Inputs: `AttributionSums`.
    Source: SageMaker Model Monitor, feature attribution drift; Jarvelin and Kekalainen, 2002.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import attribution_drift
    >>> round(float(attribution_drift(jnp.array([0.5, 0.3, 0.2]), jnp.array([0.3, 0.5, 0.2]))), 4)
    0.9065
    """

    num_features: int
    aggregate: Aggregate = "mean_abs"
    name: str = "attribution_drift"

    def __post_init__(self) -> None:
        _ = self.statistic

    @property
    def statistic(self) -> AttributionSums:
        """The sums of both sides."""
        return AttributionSums(self.num_features, self.aggregate, name=self.name)

    def compute(self, state: State) -> jax.Array:
        """The NDCG, float32 []."""
        with jax.enable_x64(True):
            gain, live = self.statistic.means(state)
            best = jnp.sum(gain * _discounts(gain))
            value = jnp.sum(gain * _discounts(live)) / jnp.where(best == 0, jnp.full_like(best, jnp.nan), best)
            broken = jnp.any(jnp.isnan(live))
            return jnp.where(broken, jnp.full_like(value, jnp.nan), value).astype(jnp.float32)

    def drifted(self, state: State, threshold: float = 0.9) -> jax.Array:
        """Whether the NDCG is below the threshold, bool []; False while it is undefined."""
        return self.compute(state) < jnp.float32(threshold)


def _discounts(scores: jax.Array) -> jax.Array:
    """1 / log2(rank + 1) of each feature, ranked by falling score; equal ones share."""
    count = scores.shape[0]
    table = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, count + 2)))])
    above = jnp.sum(scores[None] > scores[:, None], axis=1, dtype=jnp.int32)
    equal = jnp.maximum(jnp.sum(scores[None] == scores[:, None], axis=1, dtype=jnp.int32), jnp.int32(1))
    summed = jnp.asarray(table)
    return (summed[above + equal] - summed[above]) / equal.astype(summed.dtype)


def attribution_drift(reference: Any, current: Any, *, aggregate: Aggregate = "mean_abs") -> jax.Array:
    """NDCG of two attributions, float [features] each (of the whole model) or [n, features] and [m, features].

    One call of `AttributionDrift`, which says what it means.
    """
    rows = [
        as_float(side, f"attribution_drift: {what}") for side, what in ((reference, "reference"), (current, "current"))
    ]
    rows = [side[None] if side.ndim == 1 else side for side in rows]
    if any(side.ndim != 2 for side in rows) or rows[0].shape[1] != rows[1].shape[1]:
        shapes = " and ".join(str(side.shape) for side in rows)
        raise ValueError(f"attribution_drift: attributions must be of the same features, [features] or [n, features]; "
                         f"they are {shapes}")  # fmt: skip
    side = np.repeat(np.array([0, 1], np.int32), [len(rows[0]), len(rows[1])])
    metric = AttributionDrift(rows[0].shape[1], aggregate)
    return evaluate(metric, preds=jnp.concatenate(rows), target=side)
