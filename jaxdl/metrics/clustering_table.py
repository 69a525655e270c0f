"""How many examples of each class lie in each cluster, and the information in that table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_ids, as_weight, same_shape
from jaxdl.metrics.metric import Reduce

# Terms of a hypergeometric distribution below this share of its largest are left out of the expectation.
_NEGLIGIBLE = 1e-18


class Table(NamedTuple):
    """The counts in float64, made under x64: of (class, cluster), of classes, of clusters, of all."""

    counts: jax.Array
    classes: jax.Array
    clusters: jax.Array
    total: jax.Array

    def information(self) -> jax.Array:
        """The mutual information in nats, float64 []."""
        independent = self.classes[:, None] * self.clusters[None, :]
        some = self.counts > 0
        one = jnp.ones_like(self.counts)
        ratio = jnp.where(some, self.counts / _or_one(self.total), one)
        lift = jnp.where(some, self.counts * self.total, one) / jnp.where(some, independent, one)
        return jnp.maximum(jnp.sum(jnp.where(some, ratio * jnp.log(lift), jnp.zeros_like(one))), 0.0)

    def entropies(self) -> tuple[jax.Array, jax.Array]:
        """Of the classes and of the clusters, in nats, float64 []."""
        return _entropy(self.classes / _or_one(self.total)), _entropy(self.clusters / _or_one(self.total))

    def both_single(self) -> jax.Array:
        """Whether there is one class and one cluster: two partitions that are the same without telling anything."""
        return (jnp.sum(self.classes > 0) == 1) & (jnp.sum(self.clusters > 0) == 1)

    def result(self, value: jax.Array) -> jax.Array:
        """The value as float32; NaN when nothing was counted."""
        return jnp.where(self.total > 0, value, jnp.full_like(value, jnp.nan)).astype(jnp.float32)


@dataclass(frozen=True)
class ClassesInClusters:
    """Counts of (class, cluster): the statistic of all metrics that compare a clustering with true classes.

    preds: cluster ids int [...]; target: class ids int [...]. A pair with an id outside 0 .. num_clusters - 1 or 0 ..
    num_classes - 1 (such as -1 for noise) is left out and counted in `invalid`. State: `Sums` of num_classes *
    num_clusters cells, row by row (row = class), and one for the invalid; counts are exact to 2^46.
    """

    num_classes: int
    num_clusters: int
    name: str = field(default="clustering", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        for what in ("num_classes", "num_clusters"):
            count = getattr(self, what)
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= 32768:
                raise ValueError(f"{self.name}: {what} must be an integer from 1 to 32768; it is {count!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, self.num_classes * self.num_clusters + 1))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch of cluster ids and class ids, int [...] each."""
        clusters, classes = as_ids(preds, f"{self.name}: preds"), as_ids(target, f"{self.name}: target")
        same_shape(clusters, classes, self.name)
        valid = (classes >= 0) & (classes < self.num_classes) & (clusters >= 0) & (clusters < self.num_clusters)
        last = self.num_classes * self.num_clusters
        cells = jnp.where(valid, classes * self.num_clusters + clusters, jnp.full_like(classes, last)).reshape(-1)
        if weight is None:
            kept = as_weight(classes.shape, None, mask, self.name)
            return sums.add(state, sums.count_by_cell(cells, None if kept is None else kept.reshape(-1) > 0, last + 1))
        weights = as_weight(classes.shape, weight, mask, self.name)
        assert weights is not None
        return sums.add(state, sums.sum_by_cell(cells, weights.reshape(-1), last + 1))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because an id was no class or no cluster, float32 []."""
        return sums.value(sums.pick(state, -1))

    def table(self, state: sums.Sums) -> Table:
        """The counts, under x64."""
        cells = (state.hi.astype(jnp.float64) + state.lo.astype(jnp.float64))[:-1]
        counts = cells.reshape(self.num_classes, self.num_clusters)
        return Table(counts, jnp.sum(counts, axis=1), jnp.sum(counts, axis=0), jnp.sum(counts))


def expected_information(table: Table) -> jax.Array:
    """The mutual information that random labels with these class and cluster sizes have on average, float64 [].

    A count n of (class of size a, cluster of size b) among N is then hypergeometric; the sum of P(n) (n / N) log(N n /
    (a b)) starts at the mode of n and goes both ways by the ratio of neighbouring probabilities, all cells at once, and
    is divided by the sum of the probabilities: no factorials. It takes about 9 standard deviations, sqrt(N) / 4 at
    most, of steps.
    """
    a = jnp.broadcast_to(table.classes[:, None], table.counts.shape)
    b = jnp.broadcast_to(table.clusters[None, :], table.counts.shape)
    total = jnp.broadcast_to(table.total, table.counts.shape)
    one, zero = jnp.ones_like(a), jnp.zeros_like(a)
    possible = (a > 0) & (b > 0)
    mode = jnp.clip(
        jnp.floor((a + one) * (b + one) / (total + 2.0)), jnp.maximum(zero, a + b - total), jnp.minimum(a, b)
    )

    def term(n: jax.Array) -> jax.Array:
        some = possible & (n > 0)
        lift = jnp.where(some, total * n, one) / jnp.where(some, a * b, one)
        return jnp.where(some, n / _or_one(total) * jnp.log(lift), zero)

    def up(n: jax.Array) -> jax.Array:
        """P(n + 1) / P(n)."""
        return jnp.maximum((a - n) * (b - n), 0.0) / _or_one((n + one) * (total - a - b + n + one))

    def down(n: jax.Array) -> jax.Array:
        """P(n - 1) / P(n)."""
        return jnp.maximum(n * (total - a - b + n), 0.0) / _or_one((a - n + one) * (b - n + one))

    def step(carry: Any) -> Any:
        high, chance_high, low, chance_low, mass, mean = carry
        chance_high, chance_low = chance_high * up(high), chance_low * down(low)
        high, low = high + one, low - one
        mass = mass + chance_high + chance_low
        return high, chance_high, low, chance_low, mass, mean + chance_high * term(high) + chance_low * term(low)

    def goes_on(carry: Any) -> jax.Array:
        return jnp.any(possible & (jnp.maximum(carry[1], carry[3]) > _NEGLIGIBLE))

    start = jnp.where(possible, one, zero)
    *_, mass, mean = lax.while_loop(goes_on, step, (mode, start, mode, start, start, term(mode)))
    return jnp.sum(mean / _or_one(mass))


def _entropy(share: jax.Array) -> jax.Array:
    some = share > 0
    return -jnp.sum(jnp.where(some, share * jnp.log(jnp.where(some, share, jnp.ones_like(share))), 0.0))


def _or_one(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, jnp.ones_like(x), x)
