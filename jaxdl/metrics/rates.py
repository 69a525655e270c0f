"""Precision, recall, F, specificity and their kin: rates of true and false positives and negatives.

One configuration serves them all. `num_classes=C`: one class excludes the others (2 for binary); each class is counted
against the rest. `num_labels=L`: several labels may hold at once. Metrics of one configuration share one state in a
`Collection`: that of `PairCounts` or `LabelCounts`, which say what preds and target look like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import Outcomes, PairCounts, divide, infer_classes
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.multilabel import LabelCounts, counts_of
from jaxdl.metrics.samples import SampleRates

Average = Literal["binary", "micro", "macro", "macro_all", "weighted", "samples"]
_AVERAGES = ("binary", "micro", "macro", "macro_all", "weighted", "samples", None)


@dataclass(frozen=True)
class Rate:
    """The fields of every rate, and how one number comes out of many classes or labels.

    Attributes:
        num_classes: classes that exclude each other; 2 for binary. Give this or `num_labels`.
        num_labels: labels of which several may hold at once.
        average: "macro" (the mean over the classes that are present in target or prediction), "macro_all" (over all
            classes), "micro" (of the summed outcomes), "weighted" (mean over classes, weighted by their true weight),
            "binary" (that of class `pos_label`, for num_classes=2), "samples" (for num_labels: the mean over examples
            of the rate of each row of labels), or None (each class: [num_classes]).
        threshold: a label is predicted where its score > threshold: 0.5 for labels unless given; for num_classes=2 it
            splits one score [...] for each example, and without it preds are ids or two scores.
        pos_label: the positive class of average="binary".
        ignore_index: examples (or labels) whose target equals it are left out.
        zero_division: the value of 0 / 0. With NaN a class without a value does not enter a mean; with 0 it counts as
            0 there, which is what scikit-learn does by default.
    """

    num_classes: int | None = None
    num_labels: int | None = None
    average: Average | None = "macro"
    threshold: float | None = None
    pos_label: int = 1
    ignore_index: int | None = None
    zero_division: float = float("nan")
    name: str = "rate"

    def __post_init__(self) -> None:
        check_average(self.average, self.num_classes, self.pos_label, self.name)
        if self.average == "samples" and self.num_labels is None:
            raise ValueError(f"{self.name}: average='samples' is the mean of rows of labels and needs num_labels=")
        # one NaN for all, or two equal metrics would differ: NaN != NaN unless they are one object
        object.__setattr__(self, "zero_division", plain_number(self.zero_division, f"{self.name}: zero_division"))
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> PairCounts | LabelCounts | SampleRates:
        """The counts that this rate is computed from; with average="samples" the sum of the rates of rows."""
        if self.average == "samples":
            return self._of_samples
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    @property
    def _of_samples(self) -> SampleRates:
        # numerator and denominator are linear in the outcomes
        units = [Outcomes(*np.eye(4)[k]) for k in range(4)]
        above, below = zip(*(map(float, self._parts(unit)) for unit in units), strict=True)
        threshold = 0.5 if self.threshold is None else self.threshold
        return SampleRates(int(self.num_labels or 0), threshold, self.ignore_index, above, below, name=self.name)

    def _parts(self, outcomes: Outcomes) -> tuple[Any, Any]:
        """The rate's numerator and denominator, both linear in the outcomes."""
        raise NotImplementedError

    def compute(self, state: sums.Sums) -> jax.Array:
        """The rate: float32 [], or [num_classes] (labels alike) with average=None."""
        if self.average == "samples":
            return self._of_samples.mean(state, self.zero_division)
        with jax.enable_x64(True):
            outcomes = counts_of(
                self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name
            ).outcomes(state)
            return averaged(self._parts, outcomes, self.average, self.pos_label, self.zero_division).astype(jnp.float32)


def plain_number(value: float, what: str) -> float:
    """`value` as a Python number; every NaN becomes the same object, so that equal records compare equal."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{what} must be a number; it is {value!r}")
    return np.nan if np.isnan(value) else float(value)


def check_average(average: str | None, num_classes: int | None, pos_label: int, name: str) -> None:
    """Refuses what is no average, and "binary" where there are not two classes."""
    if average not in _AVERAGES:
        raise ValueError(
            f"{name}: average must be 'macro', 'macro_all', 'micro', 'weighted', 'binary', 'samples' or None; it is "
            f"{average!r}"
        )
    if average != "binary":
        return
    if num_classes != 2:
        raise ValueError(
            f"{name}: average='binary' is the rate of one of two classes and needs num_classes=2; it is {num_classes!r}"
            ". For more take 'macro', 'micro' or 'weighted'"
        )
    if pos_label not in (0, 1):
        raise ValueError(f"{name}: pos_label must be 0 or 1; it is {pos_label!r}")


def averaged(parts: Any, outcomes: Outcomes, average: str | None, pos_label: int, zero_division: float) -> jax.Array:
    """One rate of all classes as `average` says: float64 [], or [classes]."""
    if average == "micro":
        outcomes = Outcomes(*(jnp.sum(part) for part in outcomes))
    above, below = parts(outcomes)
    rates = divide(above, below, zero_division)
    if average is None or average == "micro":
        return rates
    if average == "binary":
        return rates[pos_label]
    ones = jnp.ones_like(rates)
    if average == "weighted":
        share = outcomes.tp + outcomes.fn
    elif average == "macro":
        share = (outcomes.tp + outcomes.fp + outcomes.fn != 0).astype(rates.dtype)
    else:
        share = ones
    if np.isnan(zero_division):
        share = jnp.where(below == 0, jnp.zeros_like(share), share)
    return divide(jnp.sum(jnp.where(share == 0, jnp.zeros_like(rates), rates * share)), jnp.sum(share), zero_division)


@dataclass(frozen=True)
class Precision(Rate, Derived):
    """Of what was predicted, how much is right: TP / (TP + FP), the positive predictive value.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import precision
    >>> preds, target = jnp.array([0, 1, 1, 2]), jnp.array([0, 1, 2, 2])
    >>> precision(preds, target, num_classes=3, average=None).tolist()
    [1.0, 0.5, 1.0]
    >>> scores, target = jnp.array([0.9, 0.6, 0.2]), jnp.array([1, 0, 1])
    >>> float(precision(scores, target, num_classes=2, threshold=0.5, average="binary"))
    0.5
    """

    name: str = "precision"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tp, outcomes.tp + outcomes.fp


@dataclass(frozen=True)
class Recall(Rate, Derived):
    """Of what is true, how much was found: TP / (TP + FN), the sensitivity.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import recall
    >>> float(recall(jnp.array([0, 1, 1, 2]), jnp.array([0, 1, 2, 2]), num_classes=3, average="weighted"))
    0.75
    """

    name: str = "recall"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tp, outcomes.tp + outcomes.fn


@dataclass(frozen=True)
class TruePositiveRate(Rate, Derived):
    """The recall under its name in ROC analysis: TPR = TP / (TP + FN)."""

    name: str = "true_positive_rate"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tp, outcomes.tp + outcomes.fn


@dataclass(frozen=True)
class Specificity(Rate, Derived):
    """Of what is not of the class, how much was not predicted as it: TN / (TN + FP), the true negative rate.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import specificity
    >>> round(float(specificity(jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 0, 0]), num_classes=2, average="binary")), 4)
    0.6667
    """

    name: str = "specificity"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tn, outcomes.tn + outcomes.fp


@dataclass(frozen=True)
class NegativePredictiveValue(Rate, Derived):
    """Of what was not predicted as the class, how much is indeed not of it: NPV = TN / (TN + FN)."""

    name: str = "negative_predictive_value"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tn, outcomes.tn + outcomes.fn


@dataclass(frozen=True)
class FalsePositiveRate(Rate, Derived):
    """Of what is not of the class, how much was predicted as it: FPR = FP / (FP + TN), the fall-out."""

    name: str = "false_positive_rate"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.fp, outcomes.fp + outcomes.tn


@dataclass(frozen=True)
class FalseNegativeRate(Rate, Derived):
    """Of what is of the class, how much was missed: FNR = FN / (FN + TP) = 1 - recall."""

    name: str = "false_negative_rate"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.fn, outcomes.fn + outcomes.tp


@dataclass(frozen=True)
class FalseDiscoveryRate(Rate, Derived):
    """Of what was predicted as the class, how much is not of it: FDR = FP / (FP + TP) = 1 - precision."""

    name: str = "false_discovery_rate"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.fp, outcomes.fp + outcomes.tp


@dataclass(frozen=True)
class F1(Rate, Derived):
    """The harmonic mean of precision and recall: F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen, 1979).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import F1
    >>> metric = F1(num_classes=2, average="binary")
    >>> state = metric.update(metric.init(), preds=jnp.array([0, 1, 1, 0]), target=jnp.array([0, 1, 0, 0]))
    >>> round(float(metric.compute(state)), 4)
    0.6667
    """

    name: str = "f1"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tp * 2.0, outcomes.tp * 2.0 + outcomes.fp + outcomes.fn


@dataclass(frozen=True)
class FBeta(Rate, Derived):
    """Precision and recall in one, recall `beta` times as important: (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import f_beta
    >>> preds, target = jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 0, 0])
    >>> round(float(f_beta(preds, target, num_classes=2, average="binary", beta=0.5)), 4)
    0.5556
    """

    name: str = "f_beta"
    beta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", plain_number(self.beta, f"{self.name}: beta"))
        if not 0 <= self.beta < np.inf:
            raise ValueError(f"{self.name}: beta must be a number from 0; it is {self.beta!r}")
        Rate.__post_init__(self)

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        square = self.beta**2
        above = outcomes.tp * (1 + square)
        return above, above + outcomes.fn * square + outcomes.fp


@dataclass(frozen=True)
class Jaccard(Rate, Derived):
    """Of what is or was predicted as the class, how much is both: TP / (TP + FP + FN), intersection over union.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import jaccard
    >>> jaccard(jnp.array([0, 1, 1]), jnp.array([0, 1, 0]), num_classes=2, average=None).tolist()
    [0.5, 0.5]
    """

    name: str = "jaccard"

    def _parts(self, outcomes: Outcomes) -> tuple[jax.Array, jax.Array]:
        return outcomes.tp, outcomes.tp + outcomes.fp + outcomes.fn


def _call(metric: Any, name: str) -> Any:
    return one_call(metric, name, infer=infer_classes, either=("num_classes", "num_labels"))


precision = _call(Precision, "precision")
recall = _call(Recall, "recall")
true_positive_rate = _call(TruePositiveRate, "true_positive_rate")
specificity = _call(Specificity, "specificity")
negative_predictive_value = _call(NegativePredictiveValue, "negative_predictive_value")
false_positive_rate = _call(FalsePositiveRate, "false_positive_rate")
false_negative_rate = _call(FalseNegativeRate, "false_negative_rate")
false_discovery_rate = _call(FalseDiscoveryRate, "false_discovery_rate")
f1 = _call(F1, "f1")
f_beta = _call(FBeta, "f_beta")
jaccard = _call(Jaccard, "jaccard")
