"""Metrics of clusterings against true classes, all read off one table of counts (class, cluster).

preds: cluster ids int [...], target: class ids int [...]; both are names without order, so that relabelling changes
nothing. All metrics of one size share the table in a `Collection`. `weight` counts repeats: integer weights are what
the formulas of pairs and of chance are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.clustering_table import ClassesInClusters, Table, expected_information
from jaxdl.metrics.inputs import as_ids
from jaxdl.metrics.metric import Derived

Average = Literal["arithmetic", "geometric", "min", "max"]
_AVERAGES = ("arithmetic", "geometric", "min", "max")


class OfPartitions:
    """A metric of two partitions: a subclass, which is also a `Derived`, has these fields and gives `compute`.

    Attributes:
        num_classes: one more than the largest class id.
        num_clusters: one more than the largest cluster id.
    """

    num_classes: int
    num_clusters: int
    name: str

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the sizes

    @property
    def statistic(self) -> ClassesInClusters:
        """The counts of all (class, cluster)."""
        return ClassesInClusters(self.num_classes, self.num_clusters, name=self.name)


@dataclass(frozen=True)
class RandIndex(OfPartitions, Derived):
    """The share of pairs of examples on which clustering and classes agree: together in both, or apart in both.

    (Rand, 1971.) Two clusterings without any pair agree: 1. NaN when nothing was counted.

    >>> from jaxdl.metrics import rand_index
    >>> round(float(rand_index([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.8333
    """

    num_classes: int
    num_clusters: int
    name: str = "rand_index"

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            both, first, second, neither = _pairs(table)
            right, every = both + neither, both + first + second + neither
            return table.result(jnp.where(every == 0, jnp.ones_like(right), right / _nonzero(every)))


@dataclass(frozen=True)
class AdjustedRandIndex(OfPartitions, Derived):
    """The Rand index corrected for chance: 1 is the same partition, 0 what random labels give on average.

    ARI = (index - expected) / (largest - expected) under the permutation model (Hubert and Arabie, 1985). 1 for two
    partitions without any disagreement, such as both of one cluster. NaN when nothing was counted.

    >>> from jaxdl.metrics import adjusted_rand_index
    >>> round(float(adjusted_rand_index([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.5714
    """

    num_classes: int
    num_clusters: int
    name: str = "adjusted_rand_index"

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [-0.5, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            both, first, second, neither = _pairs(table)
            above = 2.0 * (both * neither - first * second)
            below = (both + second) * (second + neither) + (both + first) * (first + neither)
            same = (first == 0) & (second == 0)
            return table.result(jnp.where(same, jnp.ones_like(above), above / _nonzero(below)))


@dataclass(frozen=True)
class FowlkesMallows(OfPartitions, Derived):
    """The geometric mean of precision and recall over pairs of examples put together.

    FMI = TP / sqrt((TP + FP) (TP + FN)) (Fowlkes and Mallows, 1983); 0 where no pair is together in both. NaN when
    nothing was counted.

    >>> from jaxdl.metrics import fowlkes_mallows
    >>> round(float(fowlkes_mallows([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.7071
    """

    num_classes: int
    num_clusters: int
    name: str = "fowlkes_mallows"

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            both, first, second, _ = _pairs(table)
            none = both == 0
            value = jnp.sqrt(both / _nonzero(both + first)) * jnp.sqrt(both / _nonzero(both + second))
            return table.result(jnp.where(none, jnp.zeros_like(value), value))


@dataclass(frozen=True)
class MutualInformation(OfPartitions, Derived):
    """How much the clusters tell about the classes, in nats.

    MI = sum over (class, cluster) of p(c, k) log(p(c, k) / (p(c) p(k))). NaN when nothing was counted.

    >>> from jaxdl.metrics import mutual_information
    >>> round(float(mutual_information([0, 0, 1, 1], [0, 0, 1, 1])), 4)
    0.6931
    """

    num_classes: int
    num_clusters: int
    name: str = "mutual_information"

    def compute(self, state: sums.Sums) -> jax.Array:
        """At least 0, float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            return table.result(table.information())


@dataclass(frozen=True)
class NormalizedMutualInformation(OfPartitions, Derived):
    """Mutual information over a mean of the two entropies: 0 is independent, 1 the same partition.

    average: the mean of H(classes) and H(clusters): "arithmetic" (then it is the V-measure), "geometric" (Strehl and
    Ghosh, 2002), "min" or "max". Two partitions of one cluster each are the same: 1. NaN when nothing was counted.

    >>> from jaxdl.metrics import normalized_mutual_information
    >>> round(float(normalized_mutual_information([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.8
    """

    num_classes: int
    num_clusters: int
    average: Average = "arithmetic"
    name: str = "normalized_mutual_information"

    def __post_init__(self) -> None:
        OfPartitions.__post_init__(self)
        _check_average(self.name, self.average)

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            mean = _mean(*table.entropies(), self.average)
            value = table.information() / _nonzero(mean)
            # one entropy of 0 makes the information 0: a ratio of 0 / 0 under "min" and "geometric"
            value = jnp.where(mean == 0, jnp.zeros_like(value), value)
            return table.result(jnp.where(table.both_single(), jnp.ones_like(value), value))


@dataclass(frozen=True)
class AdjustedMutualInformation(OfPartitions, Derived):
    """Mutual information corrected for chance: 0 is what random labels give on average, 1 the same partition.

    AMI = (MI - E[MI]) / (mean of entropies - E[MI]), where E[MI] is exact: under random permutations each count is
    hypergeometric (Vinh, Epps and Bailey, 2010). The sum runs inside the graph, outwards from the mode of each
    distribution until its terms vanish. Counts must then be whole: with weights that sum to fractions it is NaN.
    average as in `NormalizedMutualInformation`. NaN when nothing was counted.

    >>> from jaxdl.metrics import adjusted_mutual_information
    >>> round(float(adjusted_mutual_information([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.5714
    """

    num_classes: int
    num_clusters: int
    average: Average = "arithmetic"
    name: str = "adjusted_mutual_information"

    def __post_init__(self) -> None:
        OfPartitions.__post_init__(self)
        _check_average(self.name, self.average)

    def compute(self, state: sums.Sums) -> jax.Array:
        """At most 1, float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            expected = expected_information(table)
            below = _mean(*table.entropies(), self.average) - expected
            tiny = jnp.full_like(below, jnp.finfo(jnp.float64).eps)
            below = jnp.where(below < 0, jnp.minimum(below, -tiny), jnp.maximum(below, tiny))
            value = (table.information() - expected) / below
            # equal partitions: 0 / 0 where chance, too, always gives them, as of two single examples
            _, first, second, _ = _pairs(table)
            value = jnp.where((first == 0) & (second == 0), jnp.ones_like(value), value)
            whole = jnp.all(table.counts == jnp.round(table.counts))
            return table.result(jnp.where(whole, value, jnp.full_like(value, jnp.nan)))


@dataclass(frozen=True)
class Homogeneity(OfPartitions, Derived):
    """Whether each cluster holds one class only: 1 - H(classes | clusters) / H(classes); 1 when there is one class.

    (Rosenberg and Hirschberg, 2007.) NaN when nothing was counted.

    >>> from jaxdl.metrics import homogeneity
    >>> float(homogeneity([0, 1, 2, 2], [0, 0, 1, 1]))
    1.0
    """

    num_classes: int
    num_clusters: int
    name: str = "homogeneity"

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            return table.result(_told(table)[0])


@dataclass(frozen=True)
class Completeness(OfPartitions, Derived):
    """Whether each class lies in one cluster only: 1 - H(clusters | classes) / H(clusters); 1 with one cluster.

    (Rosenberg and Hirschberg, 2007.) NaN when nothing was counted.

    >>> from jaxdl.metrics import completeness
    >>> float(completeness([0, 0, 0, 0], [0, 0, 1, 1]))
    1.0
    """

    num_classes: int
    num_clusters: int
    name: str = "completeness"

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            return table.result(_told(table)[1])


@dataclass(frozen=True)
class VMeasure(OfPartitions, Derived):
    """The harmonic mean of homogeneity and completeness: (1 + beta) h c / (beta h + c); 0 where both are 0.

    beta above 1 weighs completeness more (Rosenberg and Hirschberg, 2007). NaN when nothing was counted.

    >>> from jaxdl.metrics import v_measure
    >>> round(float(v_measure([0, 0, 1, 1], [0, 0, 1, 2])), 4)
    0.8
    """

    num_classes: int
    num_clusters: int
    beta: float = 1.0
    name: str = "v_measure"

    def __post_init__(self) -> None:
        OfPartitions.__post_init__(self)
        if not self.beta >= 0:
            raise ValueError(f"{self.name}: beta must be at least 0; it is {self.beta!r}")

    def compute(self, state: sums.Sums) -> jax.Array:
        """In [0, 1], float32 []."""
        with jax.enable_x64(True):
            table = self.statistic.table(state)
            first, second = _told(table)
            below = self.beta * first + second
            return table.result(jnp.where(below == 0, below, (1 + self.beta) * first * second / _nonzero(below)))


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, jnp.ones_like(x), x)


def _pairs(table: Table) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Ordered pairs of examples: together in both, in clusters only, in classes only, in neither."""
    squares, classes, clusters = (jnp.sum(x * x) for x in (table.counts, table.classes, table.clusters))
    total = table.total
    return squares - total, clusters - squares, classes - squares, total * total - clusters - classes + squares


def _told(table: Table) -> tuple[jax.Array, jax.Array]:
    """(homogeneity, completeness)."""
    information = table.information()
    classes, clusters = table.entropies()
    one = jnp.ones_like(information)
    return tuple(jnp.where(h == 0, one, jnp.minimum(information / _nonzero(h), one)) for h in (classes, clusters))  # type: ignore[return-value]


def _mean(a: jax.Array, b: jax.Array, average: Average) -> jax.Array:
    if average == "arithmetic":
        return (a + b) / 2
    if average == "geometric":
        return jnp.sqrt(a * b)
    return jnp.minimum(a, b) if average == "min" else jnp.maximum(a, b)


def _check_average(name: str, average: str) -> None:
    if average not in _AVERAGES:
        raise ValueError(f"{name}: average must be one of {', '.join(_AVERAGES)}; it is {average!r}")


def infer_sizes(inputs: Mapping[str, Any]) -> dict[str, int]:
    """num_classes and num_clusters: one more than the largest ids in target and preds.

    Raises:
        ValueError: inside jit, where ids are not known and both must be given.
    """
    found = {}
    for field, key in (("num_classes", "target"), ("num_clusters", "preds")):
        ids = as_ids(inputs[key], key)
        if isinstance(ids, jax.core.Tracer):
            raise ValueError(
                "inside jit the numbers of classes and clusters must be given: num_classes=, num_clusters="
            )
        found[field] = max(int(jnp.max(ids, initial=0)), 0) + 1
    return found


rand_index = one_call(RandIndex, "rand_index", infer=infer_sizes)
adjusted_rand_index = one_call(AdjustedRandIndex, "adjusted_rand_index", infer=infer_sizes)
fowlkes_mallows = one_call(FowlkesMallows, "fowlkes_mallows", infer=infer_sizes)
mutual_information = one_call(MutualInformation, "mutual_information", infer=infer_sizes)
normalized_mutual_information = one_call(
    NormalizedMutualInformation, "normalized_mutual_information", infer=infer_sizes
)
adjusted_mutual_information = one_call(AdjustedMutualInformation, "adjusted_mutual_information", infer=infer_sizes)
homogeneity = one_call(Homogeneity, "homogeneity", infer=infer_sizes)
completeness = one_call(Completeness, "completeness", infer=infer_sizes)
v_measure = one_call(VMeasure, "v_measure", infer=infer_sizes)
