"""Segmentation: accuracy of pixels, intersection over union, Dice, all read off one state of counted pixels.

preds: class ids int [batch, height, width], or scores float [batch, height, width, num_classes], of which the highest
wins; target: class ids int [batch, height, width] (any other shape does, too: volumes, points). Pixels of a whole data
set are counted together, as the benchmarks of the field do. With n_ij the pixels of true class i predicted as j,
t_i = sum_j n_ij and p_i = sum_j n_ji. Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, name the first four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import Outcomes, PairCounts, divide, infer_classes
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.rates import averaged, plain_number

Average = Literal["macro", "macro_all", "micro", "weighted"]
OverClasses = Literal["macro", "macro_all"]
ClassWeights = Literal["square", "simple", "uniform"]


@dataclass(frozen=True)
class PixelCounts:
    """The fields of every metric of counted pixels.

    Attributes:
        num_classes: at least 2; one more than the largest id.
        ignore_index: pixels whose target it is are left out (255 and -1 are usual).
        threshold: for num_classes=2 and one score a pixel, float [batch, height, width]: class 1 where score >
            threshold.
        exclude: classes that do not enter the average, such as (0,) for the background; their pixels still count
            against the others.
        zero_division: the value of 0 / 0. With NaN a class without a value does not enter a mean.
    """

    num_classes: int
    ignore_index: int | None = None
    threshold: float | None = None
    exclude: tuple[int, ...] = ()
    zero_division: float = float("nan")
    name: str = "pixels"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks num_classes and threshold
        exclude = tuple(self.exclude)
        if any(not 0 <= c < self.num_classes for c in exclude) or len(set(exclude)) == self.num_classes:
            raise ValueError(
                f"{self.name}: exclude must name some, not all, of the classes 0 to {self.num_classes - 1}; it is "
                f"{exclude}"
            )
        object.__setattr__(self, "exclude", exclude)
        object.__setattr__(self, "zero_division", plain_number(self.zero_division, f"{self.name}: zero_division"))
        allowed = self._averages()
        if allowed and self.average not in allowed:  # type: ignore[attr-defined]
            raise ValueError(f"{self.name}: average must be one of {allowed}; it is {self.average!r}")  # type: ignore[attr-defined]

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs of classes."""
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def _averages(self) -> tuple[Any, ...]:
        """What `average` may be; empty without such a field."""
        return ()

    def _outcomes(self, state: sums.Sums, *, every: bool = False) -> Outcomes:
        """The outcomes of each class that is not excluded, float64: call it with 64-bit numbers on."""
        outcomes = self.statistic.outcomes(state)
        if every or not self.exclude:
            return outcomes
        kept = np.array([c for c in range(self.num_classes) if c not in self.exclude])
        return Outcomes(*(part[kept] for part in outcomes))

    def _rate(self, state: sums.Sums, parts: Any, average: str | None) -> jax.Array:
        """One rate, averaged: float32 [], or [num_classes]."""
        with jax.enable_x64(True):
            outcomes = self._outcomes(state, every=average is None)
            return averaged(parts, outcomes, average, 0, self.zero_division).astype(jnp.float32)


def _found(x: Outcomes) -> tuple[jax.Array, jax.Array]:
    return x.tp, x.tp + x.fn


def _iou(x: Outcomes) -> tuple[jax.Array, jax.Array]:
    return x.tp, x.tp + x.fp + x.fn


def _dice(x: Outcomes) -> tuple[jax.Array, jax.Array]:
    return x.tp + x.tp, x.tp + x.tp + x.fp + x.fn


@dataclass(frozen=True)
class PixelAccuracy(PixelCounts, Derived):
    """The share of pixels that have the right class: sum_i n_ii / sum_i t_i. Shapes and sources: the module.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import pixel_accuracy
    >>> target = jnp.array([[[0, 0], [1, 255]]])
    >>> float(pixel_accuracy(jnp.array([[[0, 1], [1, 1]]]), target, num_classes=2, ignore_index=255))
    0.6666666865348816
    """

    name: str = "pixel_accuracy"

    def compute(self, state: sums.Sums) -> jax.Array:
        """The share, float32 [] in [0, 1]."""
        return self._rate(state, _found, "micro")


@dataclass(frozen=True)
class MeanPixelAccuracy(PixelCounts, Derived):
    """The mean over classes of the share of their pixels that were found: mean_i n_ii / t_i.

    Over the classes that occur in the target; average="macro_all": over all classes, one without pixels counting as
    `zero_division`. Shapes and sources: the module.
    """

    average: OverClasses = "macro"
    name: str = "mean_pixel_accuracy"

    def _averages(self) -> tuple[Any, ...]:
        return get_args(OverClasses)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 [] in [0, 1]."""
        return self._rate(state, _found, self.average)


@dataclass(frozen=True)
class IoU(PixelCounts, Derived):
    """Intersection over union of each class: n_ii / (t_i + p_i - n_ii), float32 [num_classes].

    average: None (each class), or "macro", "macro_all", "micro", "weighted"; see `MeanIoU`. NaN for a class that is
    neither in the target nor predicted. Shapes and sources: the module.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import iou
    >>> iou(jnp.array([[0, 1, 1, 1, 1]]), jnp.array([[0, 0, 1, 1, 1]]), num_classes=3).tolist()
    [0.5, 0.75, nan]
    """

    average: Average | None = None
    name: str = "iou"

    def _averages(self) -> tuple[Any, ...]:
        return (None, *get_args(Average))

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [num_classes], or [] when averaged."""
        return self._rate(state, _iou, self.average)


@dataclass(frozen=True)
class MeanIoU(PixelCounts, Derived):
    """The mean intersection over union, mIoU: mean_i n_ii / (t_i + p_i - n_ii).

    Over the classes that occur in the target or in the prediction; average="macro_all": over all classes, one that
    occurs in neither counting as `zero_division`. Shapes and sources: the module.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_iou
    >>> float(mean_iou(jnp.array([[0, 1, 1, 1]]), jnp.array([[0, 0, 0, 0]]), num_classes=3))
    0.125
    """

    average: OverClasses = "macro"
    name: str = "mean_iou"

    def _averages(self) -> tuple[Any, ...]:
        return get_args(OverClasses)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 [] in [0, 1]."""
        return self._rate(state, _iou, self.average)


@dataclass(frozen=True)
class FrequencyWeightedIoU(PixelCounts, Derived):
    """Intersection over union, weighted by how often classes occur: sum_i t_i IoU_i / sum_i t_i.

    Shapes and sources: the module.
    """

    name: str = "frequency_weighted_iou"

    def compute(self, state: sums.Sums) -> jax.Array:
        """The weighted mean, float32 [] in [0, 1]."""
        return self._rate(state, _iou, "weighted")


@dataclass(frozen=True)
class Dice(PixelCounts, Derived):
    """The Dice coefficient 2 n_ii / (t_i + p_i) (Dice, 1945; Sorensen, 1948): F1 of pixels.

    average: "macro" (mean over the classes in target or prediction), "macro_all" (over all), "micro" (of the summed
    counts), "weighted" (by t_i), or None (each class, [num_classes]). Shapes: the module.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import dice
    >>> dice(jnp.array([[0, 1, 1, 1]]), jnp.array([[0, 1, 0, 0]]), num_classes=2, average=None).tolist()
    [0.5, 0.5]
    """

    average: Average | None = "macro"
    name: str = "dice"

    def _averages(self) -> tuple[Any, ...]:
        return (None, *get_args(Average))

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [] in [0, 1], or [num_classes] with average=None."""
        return self._rate(state, _dice, self.average)


@dataclass(frozen=True)
class GeneralizedDice(PixelCounts, Derived):
    """Dice with rare classes weighted up: 2 sum_i w_i n_ii / sum_i w_i (t_i + p_i).

    weighting: "square" w_i = 1 / t_i^2, "simple" w_i = 1 / t_i, "uniform" w_i = 1. Counts are those of the whole data
    set; classes that never occur in the target have no weight (their false pixels count against the classes that lose
    them). Crum, Camara and Hill, 2006; Sudre et al., "Generalised Dice overlap", DLMIA 2017. Shapes: the module.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import generalized_dice
    >>> float(generalized_dice(jnp.array([[0, 0, 0, 1]]), jnp.array([[0, 0, 1, 1]]), num_classes=2))
    0.75
    """

    weighting: ClassWeights = "square"
    name: str = "generalized_dice"

    def __post_init__(self) -> None:
        PixelCounts.__post_init__(self)
        if self.weighting not in get_args(ClassWeights):
            raise ValueError(
                f"{self.name}: weighting must be one of {get_args(ClassWeights)}; it is {self.weighting!r}"
            )

    def compute(self, state: sums.Sums) -> jax.Array:
        """The coefficient, float32 [] in [0, 1]."""
        with jax.enable_x64(True):
            x = self._outcomes(state)
            true = x.tp + x.fn
            power = {"square": 2, "simple": 1, "uniform": 0}[self.weighting]
            here = true != 0  # a NaN score shows, here and in what follows
            # relative to the rarest class, lest squares of large counts run out of range
            rarest = jnp.min(jnp.where(here, true, jnp.inf))
            scale = jnp.where(here, (rarest / jnp.where(here, true, 1.0)) ** power, 0.0)
            above = jnp.sum(scale * (x.tp + x.tp))
            return divide(above, jnp.sum(scale * (x.tp + x.tp + x.fp + x.fn)), self.zero_division).astype(jnp.float32)


pixel_accuracy = one_call(PixelAccuracy, "pixel_accuracy", infer=infer_classes)
mean_pixel_accuracy = one_call(MeanPixelAccuracy, "mean_pixel_accuracy", infer=infer_classes)
iou = one_call(IoU, "iou", infer=infer_classes)
mean_iou = one_call(MeanIoU, "mean_iou", infer=infer_classes)
frequency_weighted_iou = one_call(FrequencyWeightedIoU, "frequency_weighted_iou", infer=infer_classes)
dice = one_call(Dice, "dice", infer=infer_classes)
generalized_dice = one_call(GeneralizedDice, "generalized_dice", infer=infer_classes)
