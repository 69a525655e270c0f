"""Drift of two samples that fit into memory: the exact Kolmogorov-Smirnov and Wasserstein distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.call import evaluate
from jaxdl.metrics.corners import Corners, Sorted, finish, share
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.of_scores import OfScores, check_scores
from jaxdl.metrics.operating import KolmogorovSmirnov
from jaxdl.metrics.scores import Exact


@dataclass(frozen=True)
class ExactWasserstein(OfScores, Derived):
    """The Wasserstein-1 distance of two samples, the area between their CDFs, in the unit of the values. Exact.

    preds: values float [n]; target: 0 reference, 1 current, [n]. `capacity` is how many of both fit: more give NaN
    (`overflowed` tells), as does a NaN value, a negative weight, or an empty side. The state is that of `ROCAUC` and
    `KolmogorovSmirnov`, which a `Collection` shares; of unlimited streams `DriftWasserstein` gives the distance within
    a bound. Source: Vallender, 1974.

    >>> from jaxdl.metrics import two_sample_wasserstein
    >>> float(two_sample_wasserstein([0.0, 1.0, 3.0], [5.0, 6.0, 8.0]))
    5.0
    """

    capacity: int | None = None
    scores: Exact | None = None
    name: str = "wasserstein"

    def __post_init__(self) -> None:
        check_scores(self)
        if self.scores is not None and not isinstance(self.scores, Exact):
            raise TypeError(f"{self.name}: scores must be Exact(capacity); for histograms there is DriftWasserstein")

    def _value(self, scores: Sorted, at: Corners) -> jax.Array:
        gap = jnp.abs(share(at.tp, at.positives) - share(at.fp, at.negatives))[:-1]
        value = scores.score.astype(jnp.float64)
        high, low = value[:-1], value[1:]
        # the places of an unfilled buffer stand last, as NaN; equal infinities are no step
        step = jnp.where(jnp.isnan(low) | (high == low), jnp.zeros_like(low), high - low)
        return finish(jnp.sum(jnp.where(gap > 0, gap * step, jnp.zeros_like(gap))), scores, at)


def _two(metric: Any, name: str, reference: Any, current: Any, weights: tuple[Any, Any]) -> jax.Array:
    sides = [as_float(side, f"{name}: {what}") for side, what in ((reference, "reference"), (current, "current"))]
    if any(side.ndim != 1 for side in sides):
        shapes = " and ".join(str(side.shape) for side in sides)
        raise ValueError(f"{name}: reference and current must have one axis each; their shapes are {shapes}")
    sizes = [len(side) for side in sides]
    given = [as_weight((size,), weight, None, name) for size, weight in zip(sizes, weights, strict=True)]
    filled = [jnp.ones(size, jnp.float32) if one is None else one for size, one in zip(sizes, given, strict=True)]
    which = np.repeat(np.array([0, 1], np.int32), sizes)
    made = metric(capacity=max(1, sum(sizes)))
    return evaluate(made, preds=jnp.concatenate(sides), target=which, weight=jnp.concatenate(filled))


def two_sample_wasserstein(
    reference: Any, current: Any, *, reference_weight: Any = None, current_weight: Any = None
) -> jax.Array:
    """The exact Wasserstein-1 distance of two samples float [n] and [m]; one call of `ExactWasserstein`."""
    weights = (reference_weight, current_weight)
    return _two(ExactWasserstein, "two_sample_wasserstein", reference, current, weights)


def two_sample_ks(
    reference: Any, current: Any, *, reference_weight: Any = None, current_weight: Any = None
) -> jax.Array:
    """The exact Kolmogorov-Smirnov statistic of two samples float [n] and [m]; one call of `KolmogorovSmirnov`.

    >>> from jaxdl.metrics import two_sample_ks
    >>> float(two_sample_ks([0.0, 1.0, 2.0, 3.0], [1.5, 2.5]))
    0.5
    """
    return _two(KolmogorovSmirnov, "two_sample_ks", reference, current, (reference_weight, current_weight))
