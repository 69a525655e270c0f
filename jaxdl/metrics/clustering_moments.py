"""Metrics of clusterings from the points alone that stream: centred moments of each cluster, merged exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.clustering_points import check_positive, infer_points, points_and_weights
from jaxdl.metrics.metric import Derived, Reduce


class Moments(NamedTuple):
    """What is known of each cluster; two-float numbers throughout.

    Attributes:
        weight: the sum of weights in each cluster, [..., clusters].
        mean: the centres, [..., clusters, features].
        spread: the weighted sum of squared distances to the centre, [..., clusters].
        invalid: the weight of examples whose id was no cluster, [...].
    """

    weight: sums.Sums
    mean: sums.Sums
    spread: sums.Sums
    invalid: sums.Sums


@dataclass(frozen=True)
class ClusterMoments:
    """Size, centre and spread of each cluster: the statistic of the clusterings' metrics that need no buffer.

    preds: cluster ids int [...]; points: coordinates [..., features]. An id outside 0 .. num_clusters - 1 (such as -1
    for noise) is left out and counted in `invalid`. Merged as Chan, Golub and LeVeque (1979), in two-float numbers, so
    that points far from the origin lose nothing. A coordinate that is NaN makes the result NaN.
    """

    num_clusters: int
    features: int
    name: str = field(default="clustering", compare=False)
    reduce: ClassVar[Reduce] = "moments"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")

    def __post_init__(self) -> None:
        check_positive(self.name, num_clusters=self.num_clusters, features=self.features)

    def init(self, batch_shape: tuple[int, ...] = ()) -> Moments:
        """No points."""
        clusters = (*batch_shape, self.num_clusters)
        return Moments(
            sums.zeros(clusters), sums.zeros((*clusters, self.features)), sums.zeros(clusters), sums.zeros(batch_shape)
        )

    def update(
        self, state: Moments, *, preds: Any, points: Any = None, target: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> Moments:  # fmt: skip
        """Adds points [..., features] of clusters int [...]."""
        cluster, place, weights, inside = points_and_weights(
            self.name, preds, points, weight, mask, self.num_clusters, self.features
        )
        lost = sums.total(jnp.where(inside, jnp.zeros_like(weights), weights))
        weights = jnp.where(inside, weights, jnp.zeros_like(weights))
        place = jnp.where((weights != 0)[:, None], place, jnp.zeros_like(place))
        count = sums.sum_by_cell(cluster, weights, self.num_clusters)
        size = sums.value(count)[:, None]
        size = jnp.where(size == 0, jnp.ones_like(size), size)
        # a centre that is nearly right, then what it lacks: the sums about it cancel nothing
        empty = jnp.zeros((self.num_clusters, self.features), jnp.float32)
        near = empty.at[cluster].add(place * weights[:, None], mode="promise_in_bounds") / size
        offset = place - near[cluster]
        lack_mean = empty.at[cluster].add(offset * weights[:, None], mode="promise_in_bounds") / size
        mean = sums.add(sums.Sums(near, jnp.zeros_like(near)), sums.Sums(lack_mean, jnp.zeros_like(near)))
        about = sums.sum_by_cell(cluster, jnp.sum(offset * offset, axis=-1) * weights, self.num_clusters)
        excess = sums.value(count) * jnp.sum(lack_mean * lack_mean, axis=-1)
        spread = sums.add(about, sums.Sums(-excess, jnp.zeros_like(excess)))
        return self.merge(state, Moments(count, mean, spread, lost))

    def merge(self, a: Moments, b: Moments) -> Moments:
        """Both in one."""
        count = sums.add(a.weight, b.weight)
        both = sums.value(count)
        both = jnp.where(both == 0, jnp.ones_like(both), both)
        share = sums.value(b.weight) / both
        apart = sums.value(sums.add(b.mean, sums.Sums(-a.mean.hi, -a.mean.lo)))
        step = apart * share[..., None]
        between = sums.value(a.weight) * share * jnp.sum(apart * apart, axis=-1)
        moved = sums.add(a.mean, sums.Sums(step, jnp.zeros_like(step)))
        # where one side is empty the other is taken as it is
        mean = _choose((a.weight.hi == 0)[..., None], b.mean, _choose((b.weight.hi == 0)[..., None], a.mean, moved))
        spread = sums.add(sums.add(a.spread, b.spread), sums.Sums(between, jnp.zeros_like(between)))
        return Moments(count, mean, spread, sums.add(a.invalid, b.invalid))

    def invalid(self, state: Moments) -> jax.Array:
        """The weight of examples whose id was no cluster, float32 []."""
        return sums.value(state.invalid)


def _choose(where: jax.Array, a: sums.Sums, b: sums.Sums) -> sums.Sums:
    where = jnp.broadcast_to(where, a.hi.shape)
    return sums.Sums(jnp.where(where, a.hi, b.hi), jnp.where(where, a.lo, b.lo))


@dataclass(frozen=True)
class WithinClusterSumOfSquares(Derived):
    """The sum of squared distances of points to the centre of their cluster: what k-means makes small (its inertia).

    WCSS = sum over clusters of sum of w |x - centre|^2, where the centre is the mean of the cluster's points. Streams
    and merges; NaN when nothing was counted. Shapes: `ClusterMoments`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import within_cluster_sum_of_squares
    >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
    >>> float(within_cluster_sum_of_squares(jnp.array([0, 0, 1, 1]), points=points))
    1.0
    """

    num_clusters: int
    features: int
    name: str = "within_cluster_sum_of_squares"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")  # type: ignore[assignment,misc]

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the sizes

    @property
    def statistic(self) -> ClusterMoments:
        """The moments of each cluster."""
        return ClusterMoments(self.num_clusters, self.features, name=self.name)

    def compute(self, state: Moments) -> jax.Array:
        """At least 0, float32 []."""
        whole = sums.value(sums.total(sums.value(state.spread)))
        return jnp.where(jnp.any(state.weight.hi > 0), whole, jnp.full_like(whole, jnp.nan))


@dataclass(frozen=True)
class CalinskiHarabasz(Derived):
    """The spread between clusters over the spread within them, each over its degrees of freedom; more is better.

    CH = (B / (K - 1)) / (W / (N - K)), where B = sum of n_i |centre_i - centre|^2, W is the within-cluster sum of
    squares and K the number of clusters that hold points (Calinski and Harabasz, 1974). NaN with fewer than 2 clusters
    or not more points than clusters; infinite where W is 0. Streams and merges. Shapes: `ClusterMoments`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import calinski_harabasz
    >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
    >>> float(calinski_harabasz(jnp.array([0, 0, 1, 1]), points=points))
    200.0
    """

    num_clusters: int
    features: int
    name: str = "calinski_harabasz"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")  # type: ignore[assignment,misc]

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the sizes

    @property
    def statistic(self) -> ClusterMoments:
        """The moments of each cluster."""
        return ClusterMoments(self.num_clusters, self.features, name=self.name)

    def compute(self, state: Moments) -> jax.Array:
        """At least 0, float32 []."""
        with jax.enable_x64(True):
            count, mean, spread = (part.hi.astype(jnp.float64) + part.lo.astype(jnp.float64) for part in state[:3])
            total, clusters = jnp.sum(count), jnp.sum(count > 0, dtype=jnp.int32).astype(jnp.float64)
            defined = (clusters >= 2) & (total > clusters)
            centre = (count @ mean) / jnp.where(total > 0, total, jnp.ones_like(total))
            between = jnp.sum(count * jnp.sum((mean - centre[None, :]) ** 2, axis=-1))
            within = jnp.sum(spread)
            one = jnp.ones_like(total)
            value = (
                between / jnp.where(defined, clusters - one, one) * jnp.where(defined, total - clusters, one) / within
            )
            return jnp.where(defined, value, jnp.full_like(value, jnp.nan)).astype(jnp.float32)


def infer_moments(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_clusters and features from the data."""
    found = infer_points(inputs)
    return {key: found[key] for key in ("num_clusters", "features")}


within_cluster_sum_of_squares = one_call(
    WithinClusterSumOfSquares, "within_cluster_sum_of_squares", infer=infer_moments
)
calinski_harabasz = one_call(CalinskiHarabasz, "calinski_harabasz", infer=infer_moments)
