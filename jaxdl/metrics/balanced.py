"""Accuracy where classes are of unequal size: arithmetic, geometric and harmonic mean of the recall of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import PairCounts, divide, infer_classes
from jaxdl.metrics.metric import Derived


def _recalls(counts: PairCounts, state: sums.Sums) -> tuple[jax.Array, jax.Array]:
    """float64 [classes]: the recall of each class (0 for one that is not in the target), and 1 where it is."""
    outcomes = counts.outcomes(state)
    true = outcomes.tp + outcomes.fn
    return divide(outcomes.tp, true, 0.0), (true != 0).astype(true.dtype)


@dataclass(frozen=True)
class BalancedAccuracy(Derived):
    """The mean recall of the classes that are in the target; for two classes (sensitivity + specificity) / 2.

    adjusted: (mean - 1 / k) / (1 - 1 / k) with k classes in the target, so that 0 is chance and 1 is perfect (NaN for
    one class). Brodersen et al., 2010. preds and target: see `PairCounts`. NaN when nothing was counted.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import balanced_accuracy
    >>> float(balanced_accuracy(jnp.array([0, 0, 0, 1]), jnp.array([0, 0, 1, 1])))
    0.75
    """

    num_classes: int
    adjusted: bool = False
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = "balanced_accuracy"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs."""
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []."""
        with jax.enable_x64(True):
            recalls, present = _recalls(self.statistic, state)
            classes = jnp.sum(present)
            mean = divide(jnp.sum(recalls), classes, np.nan)
            if self.adjusted:
                chance = divide(jnp.ones_like(classes), classes, np.nan)
                mean = divide(mean - chance, 1.0 - chance, np.nan)
            return mean.astype(jnp.float32)


@dataclass(frozen=True)
class GeometricMean(Derived):
    """The geometric mean of the recall of the classes in the target: (recall_1 ... recall_k)^(1/k), the G-mean.

    For two classes sqrt(sensitivity * specificity) (Kubat and Matwin, 1997; for more Sun et al., 2006). One class
    that is never found makes it 0. preds and target: see `PairCounts`. NaN when nothing was counted.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import geometric_mean
    >>> round(float(geometric_mean(jnp.array([0, 0, 0, 1]), jnp.array([0, 0, 1, 1]))), 4)
    0.7071
    """

    num_classes: int
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = "geometric_mean"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs."""
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []."""
        with jax.enable_x64(True):
            recalls, present = _recalls(self.statistic, state)
            logs = jnp.log(jnp.where(present > 0, recalls, jnp.ones_like(recalls)))
            return jnp.exp(divide(jnp.sum(logs), jnp.sum(present), np.nan)).astype(jnp.float32)


@dataclass(frozen=True)
class HarmonicMean(Derived):
    """The harmonic mean of the recall of the classes in the target: k / (1 / recall_1 + ... + 1 / recall_k).

    For two classes 2 * sensitivity * specificity / (sensitivity + specificity): of the three means the hardest on a
    class that is neglected. (The harmonic mean of precision and recall is `F1`.) One class that is never found makes it
    0. preds and target: see `PairCounts`. NaN when nothing was counted.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import harmonic_mean
    >>> round(float(harmonic_mean(jnp.array([0, 0, 0, 1]), jnp.array([0, 0, 1, 1]))), 4)
    0.6667
    """

    num_classes: int
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = "harmonic_mean"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs."""
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []."""
        with jax.enable_x64(True):
            recalls, present = _recalls(self.statistic, state)
            inverse = jnp.where(present > 0, 1.0 / recalls, jnp.zeros_like(recalls))
            return divide(jnp.sum(present), jnp.sum(inverse), np.nan).astype(jnp.float32)


def _call(metric: Any, name: str) -> Any:
    return one_call(metric, name, infer=infer_classes)


balanced_accuracy = _call(BalancedAccuracy, "balanced_accuracy")
geometric_mean = _call(GeometricMean, "geometric_mean")
harmonic_mean = _call(HarmonicMean, "harmonic_mean")
