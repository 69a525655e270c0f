"""Metrics of clusterings from the points alone, exact: a padded buffer of points, compared in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_array, as_float, as_ids, as_weight
from jaxdl.metrics.metric import Derived, Reduce

# Rows of the table of distances that exist at one time: block * capacity numbers.
_BLOCK = 64


class PointBuffer(NamedTuple):
    """What the exact metrics remember.

    Attributes:
        points: float32 [..., capacity, features].
        cluster: int32 [..., capacity].
        weight: float32 [..., capacity], 0 where nothing is stored.
        length: int32 [...], how many examples were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a coordinate was not finite, or a weight negative or not finite.
        invalid: the weight of examples whose id was no cluster, [...].
    """

    points: jax.Array
    cluster: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array
    invalid: sums.Sums


@dataclass(frozen=True)
class ClusteredPoints:
    """Points with their clusters, up to `capacity` of them: the statistic of silhouette and Davies-Bouldin.

    preds: cluster ids int [...]; points: coordinates [..., features]. An id outside 0 .. num_clusters - 1 (such as -1
    for noise) is left out and counted in `invalid`. More points (of weight above 0) than `capacity` make all values
    NaN, never a silent drop; `overflowed` tells. A coordinate that is not finite makes all values NaN.
    """

    num_clusters: int
    features: int
    capacity: int
    name: str = field(default="clustering", compare=False)
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")

    def __post_init__(self) -> None:
        check_positive(self.name, num_clusters=self.num_clusters, features=self.features, capacity=self.capacity)

    def init(self, batch_shape: tuple[int, ...] = ()) -> PointBuffer:
        """The empty buffer."""
        return PointBuffer(
            points=jnp.zeros((*batch_shape, self.capacity, self.features), jnp.float32),
            cluster=jnp.zeros((*batch_shape, self.capacity), jnp.int32),
            weight=jnp.zeros((*batch_shape, self.capacity), jnp.float32),
            length=jnp.zeros(batch_shape, jnp.int32),
            undefined=jnp.zeros(batch_shape, jnp.bool_),
            invalid=sums.zeros(batch_shape),
        )

    def update(
        self, state: PointBuffer, *, preds: Any, points: Any = None, target: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> PointBuffer:  # fmt: skip
        """Adds points [..., features] of clusters int [...]."""
        cluster, place, weights, inside = points_and_weights(
            self.name, preds, points, weight, mask, self.num_clusters, self.features
        )
        keep = inside & (weights != 0)
        broken = ~jnp.all(jnp.isfinite(place), axis=-1) | ~(jnp.isfinite(weights) & (weights >= 0))
        lost = sums.total(jnp.where(inside, jnp.zeros_like(weights), weights))
        stored = self._append(state, place, cluster, weights, keep)
        return stored._replace(
            undefined=state.undefined | jnp.any(keep & broken), invalid=sums.add(state.invalid, lost)
        )

    def _append(
        self, state: PointBuffer, points: jax.Array, cluster: jax.Array, weight: jax.Array, keep: jax.Array
    ) -> PointBuffer:
        """Puts the kept rows [n] behind those stored; what does not fit is dropped and shows in the length."""
        count = jnp.cumsum(keep, dtype=jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            points=state.points.at[place].set(points, mode="drop"),
            cluster=state.cluster.at[place].set(cluster, mode="drop"),
            weight=state.weight.at[place].set(weight, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: PointBuffer, b: PointBuffer) -> PointBuffer:
        """Both in one; b's points stand behind a's, which no result shows."""
        append = self._append
        for _ in range(a.length.ndim):
            append = jax.vmap(append)
        places = lax.broadcasted_iota(jnp.int32, b.cluster.shape, b.cluster.ndim - 1)
        keep = places < jnp.broadcast_to(b.length[..., None], b.cluster.shape)
        stored = append(a, b.points, b.cluster, b.weight, keep)
        # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
        seen = jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1))
        return stored._replace(length=seen, undefined=a.undefined | b.undefined, invalid=sums.add(a.invalid, b.invalid))

    def invalid(self, state: PointBuffer) -> jax.Array:
        """The weight of examples whose id was no cluster, float32 []."""
        return sums.value(state.invalid)

    def overflowed(self, state: PointBuffer) -> jax.Array:
        """Whether more points came than `capacity`, bool []."""
        return state.length > self.capacity

    def result(self, state: PointBuffer, value: jax.Array) -> jax.Array:
        """The value as float32; NaN where the buffer overflowed or held what is no number."""
        broken = self.overflowed(state) | state.undefined
        return jnp.where(broken, jnp.full_like(value, jnp.nan), value).astype(jnp.float32)


@dataclass(frozen=True)
class Silhouette(Derived):
    """How much nearer points lie to their own cluster than to the next one: the mean of (b - a) / max(a, b).

    a is a point's mean Euclidean distance to the other points of its cluster, b the smallest mean distance to the
    points of another cluster; a point alone in its cluster gives 0 (Rousseeuw, 1987). Exact, and of quadratic cost:
    distances are taken by differences, in blocks, so memory is linear in `capacity`. A weight k counts a point k times;
    shares below 1 weigh means, and their common scale does not matter.
    NaN with fewer than 2 clusters, and when every point is a cluster. Shapes and capacity: `ClusteredPoints`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import silhouette
    >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
    >>> round(float(silhouette(jnp.array([0, 0, 1, 1]), points=points)), 4)
    0.8997
    """

    num_clusters: int
    features: int
    capacity: int
    name: str = "silhouette"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")  # type: ignore[assignment,misc]

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the sizes

    @property
    def statistic(self) -> ClusteredPoints:
        """The points."""
        return ClusteredPoints(self.num_clusters, self.features, self.capacity, name=self.name)

    def compute(self, state: PointBuffer) -> jax.Array:
        """In [-1, 1], float32 []."""
        member = _members(state, self.num_clusters, jnp.float32)
        sizes = jnp.sum(member, axis=0)
        clusters = jnp.arange(self.num_clusters, dtype=jnp.int32)

        def widths(part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            points, cluster, weight = part
            away = jnp.sqrt(jnp.sum((points[:, None, :] - state.points[None, :, :]) ** 2, axis=-1))
            apart = jnp.matmul(away, member, precision=lax.Precision.HIGHEST)
            own = cluster[:, None] == clusters[None, :]
            size = jnp.sum(jnp.where(own, sizes[None, :], jnp.zeros_like(apart)), axis=-1)
            # without the point itself, whose distance of 0 is in the sum
            others = size - jnp.minimum(weight, jnp.float32(1))
            inner = jnp.sum(jnp.where(own, apart, jnp.zeros_like(apart)), axis=-1) / jnp.where(others > 0, others, 1.0)
            there = ~own & (sizes > 0)[None, :]
            mean = apart / jnp.where(sizes > 0, sizes, jnp.ones_like(sizes))[None, :]
            outer = jnp.min(jnp.where(there, mean, jnp.full_like(mean, jnp.inf)), axis=-1)
            larger = jnp.maximum(inner, outer)
            width = (outer - inner) / jnp.where(larger > 0, larger, jnp.ones_like(larger))
            return jnp.where(others > 0, width, jnp.zeros_like(width)), others

        count = -(-self.capacity // _BLOCK)
        fill = count * _BLOCK - self.capacity
        blocks = (
            jnp.pad(state.points, ((0, fill), (0, 0))).reshape(count, _BLOCK, self.features),
            jnp.pad(state.cluster, (0, fill)).reshape(count, _BLOCK),
            jnp.pad(state.weight, (0, fill)).reshape(count, _BLOCK),
        )
        width, others = (x.reshape(-1)[: self.capacity] for x in lax.map(widths, blocks))
        stored = state.weight > 0
        total = sums.total(jnp.where(stored, width * state.weight, jnp.zeros_like(width)))
        value = sums.ratio(total, sums.total(state.weight))
        alone = ~jnp.any(stored & (others > 0))
        defined = (jnp.sum(sizes > 0) >= 2) & ~alone
        return self.statistic.result(state, jnp.where(defined, value, jnp.full_like(value, jnp.nan)))


@dataclass(frozen=True)
class DaviesBouldin(Derived):
    """How alike each cluster is to the one most alike; 0 is best.

    DB = mean over clusters i of max over j of (S_i + S_j) / M_ij, where S is the mean distance of a cluster's points to
    its centre and M the distance of two centres (Davies and Bouldin, 1979). The mean distance to the *final* centre
    cannot be kept as a running sum, so it is computed from a buffer; `ClusterMoments` gives the streaming metrics. Two
    clusters with one centre give infinity unless both have no extent. NaN with fewer than 2 clusters. Shapes and
    capacity: `ClusteredPoints`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import davies_bouldin
    >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
    >>> round(float(davies_bouldin(jnp.array([0, 0, 1, 1]), points=points)), 4)
    0.1
    """

    num_clusters: int
    features: int
    capacity: int
    name: str = "davies_bouldin"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "points")  # type: ignore[assignment,misc]

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the sizes

    @property
    def statistic(self) -> ClusteredPoints:
        """The points."""
        return ClusteredPoints(self.num_clusters, self.features, self.capacity, name=self.name)

    def compute(self, state: PointBuffer) -> jax.Array:
        """At least 0, float32 []."""
        with jax.enable_x64(True):
            member = _members(state, self.num_clusters, jnp.float64)
            sizes = jnp.sum(member, axis=0)
            there = sizes > 0
            some = jnp.where(there, sizes, jnp.ones_like(sizes))
            points = state.points.astype(jnp.float64)
            centres = (member.T @ points) / some[:, None]
            spread = jnp.sqrt(jnp.sum((points - centres[state.cluster]) ** 2, axis=-1))
            spread = (member.T @ spread) / some
            apart = jnp.sqrt(jnp.sum((centres[:, None, :] - centres[None, :, :]) ** 2, axis=-1))
            both = spread[:, None] + spread[None, :]
            infinite = jnp.where(both > 0, jnp.full_like(both, jnp.inf), jnp.zeros_like(both))
            alike = jnp.where(apart > 0, both / jnp.where(apart > 0, apart, jnp.ones_like(apart)), infinite)
            other = there[None, :] & ~jnp.eye(self.num_clusters, dtype=jnp.bool_)
            worst = jnp.max(jnp.where(other, alike, jnp.zeros_like(alike)), axis=1)
            count = jnp.sum(there, dtype=jnp.int32)
            value = jnp.sum(jnp.where(there, worst, jnp.zeros_like(worst))) / jnp.maximum(count, 1).astype(jnp.float64)
            return self.statistic.result(state, jnp.where(count >= 2, value, jnp.full_like(value, jnp.nan)))


def _members(state: PointBuffer, clusters: int, dtype: Any) -> jax.Array:
    """The weight of each stored point in its cluster's column, [capacity, clusters]."""
    own = state.cluster[:, None] == jnp.arange(clusters, dtype=jnp.int32)[None, :]
    return jnp.where(own, state.weight[:, None], jnp.zeros((), jnp.float32)).astype(dtype)


def check_positive(name: str, **sizes: Any) -> None:
    """Refuses sizes that are not positive integers."""
    for what, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size < 2**30:
            raise ValueError(f"{name}: {what} must be a positive integer; it is {size!r}")


def points_and_weights(
    name: str, preds: Any, points: Any, weight: Any, mask: Any, clusters: int, features: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(cluster int32 [n], coordinates float32 [n, features], weight float32 [n], whether the id is a cluster)."""
    if points is None:
        raise TypeError(f"{name}: points= is missing: the coordinates [..., features] of what preds gives clusters to")
    ids, place = as_ids(preds, f"{name}: preds"), as_float(points, f"{name}: points")
    if place.shape != (*ids.shape, features):
        raise ValueError(
            f"{name}: points have shape {place.shape} and preds, their cluster ids, {ids.shape}; with "
            f"features={features} points must be {(*ids.shape, features)}"
        )
    given = as_weight(ids.shape, weight, mask, name)
    weights = jnp.ones(ids.shape, jnp.float32) if given is None else given
    inside = (ids >= 0) & (ids < clusters)
    ids = jnp.where(inside, ids, jnp.zeros_like(ids))
    return ids.reshape(-1), place.reshape(-1, features), weights.reshape(-1), inside.reshape(-1)


def infer_points(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_clusters, features and capacity from the data."""
    ids, points = as_ids(inputs["preds"], "preds"), as_array(inputs["points"], "points")
    if isinstance(ids, jax.core.Tracer):
        raise ValueError("inside jit the number of clusters must be given: num_clusters=")
    return {
        "num_clusters": max(int(jnp.max(ids, initial=0)), 0) + 1,
        "features": int(points.shape[-1]) if points.ndim else 1,
        "capacity": max(1, int(ids.size)),
    }


silhouette = one_call(Silhouette, "silhouette", infer=infer_points)
davies_bouldin = one_call(DaviesBouldin, "davies_bouldin", infer=infer_points)
