"""How far predicted and true classes agree as a whole: Matthews' correlation, Cohen's kappa, Hamming loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import PairCounts, divide, infer_classes
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.multilabel import LabelCounts, counts_of
from jaxdl.metrics.rates import plain_number


@dataclass(frozen=True)
class MatthewsCorrelation(Derived):
    """The correlation of true and predicted classes, from -1 to 1; 0 is chance, whatever the shares of the classes.

    Of two classes (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)) (Matthews, 1975); of more the R_K
    statistic (Gorodkin, 2004): with t_k, p_k the true and predicted shares of class k and c the share that is right,
    (c - sum t_k p_k) / sqrt((1 - sum p_k^2)(1 - sum t_k^2)). 0 / 0 (only one class was true, or only one predicted) is
    `zero_division`: NaN, where scikit-learn says 0. `num_labels`: all labels counted in one two-by-two table.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import matthews_correlation
    >>> round(float(matthews_correlation(jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 0, 0]))), 4)
    0.5774
    """

    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | None = None
    ignore_index: int | None = None
    zero_division: float = float("nan")
    name: str = "matthews_correlation"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", plain_number(self.zero_division, f"{self.name}: zero_division"))
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> PairCounts | LabelCounts:
        """The counts of all pairs, or of each label."""
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The correlation, float32 []."""
        counts = self.statistic
        with jax.enable_x64(True):
            if isinstance(counts, PairCounts):
                matrix = counts.wide(state)
            else:
                tp, fp, fn, tn = (jnp.sum(part) for part in counts.outcomes(state))
                matrix = jnp.stack([jnp.stack([tn, fp]), jnp.stack([fn, tp])])
            # the products of counts below 2^46 fit in float64; differences of them lose less than those of shares
            whole = jnp.sum(matrix)
            true, predicted = jnp.sum(matrix, axis=1), jnp.sum(matrix, axis=0)
            above = jnp.trace(matrix) * whole - jnp.sum(true * predicted)
            wrong_true = jnp.sum(true * (whole - true))
            wrong_predicted = jnp.sum(predicted * (whole - predicted))
            below = jnp.sqrt(wrong_true) * jnp.sqrt(wrong_predicted)
            return divide(above, below, self.zero_division).astype(jnp.float32)


@dataclass(frozen=True)
class CohenKappa(Derived):
    """Agreement beyond that of chance: 1 - sum(d O) / sum(d E); 1 is perfect, 0 chance (Cohen, 1960 and 1968).

    O is the confusion matrix, E[i, j] = true_i * predicted_j / n what independence would give, and d the disagreement
    of two classes by `distance`: "equal" (1 for any two different ones), "linear" (|i - j|) or "quadratic"
    ((i - j)^2), for classes in an order. 0 / 0 (all true and predicted in one class) is `zero_division`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import cohen_kappa
    >>> float(cohen_kappa(jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 0, 0])))
    0.5
    """

    num_classes: int
    distance: Literal["equal", "linear", "quadratic"] = "equal"
    threshold: float | None = None
    ignore_index: int | None = None
    zero_division: float = float("nan")
    name: str = "cohen_kappa"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", plain_number(self.zero_division, f"{self.name}: zero_division"))
        if self.distance not in ("equal", "linear", "quadratic"):
            raise ValueError(f"{self.name}: distance must be 'equal', 'linear' or 'quadratic'; it is {self.distance!r}")
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> PairCounts:
        """The counts of all pairs."""
        return PairCounts(self.num_classes, self.ignore_index, self.threshold, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The agreement, float32 []."""
        ids = np.arange(self.num_classes)
        apart = np.abs(ids[:, None] - ids[None, :]).astype(np.float64)
        cost = {"equal": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[self.distance]
        with jax.enable_x64(True):
            matrix = self.statistic.wide(state)
            # d E summed as true' d predicted: no [classes, classes] of expected counts
            expected = jnp.sum(matrix, axis=1) @ (cost @ jnp.sum(matrix, axis=0))
            lost = divide(jnp.sum(matrix * cost) * jnp.sum(matrix), expected, np.nan)
            empty = expected == 0
            return jnp.where(empty, jnp.full_like(lost, self.zero_division), 1.0 - lost).astype(jnp.float32)


@dataclass(frozen=True)
class HammingLoss(Derived):
    """The share of what is wrong: of examples with `num_classes` (1 - accuracy), of single labels with `num_labels`.

    sum(weight * [predicted != true]) / sum(weight); NaN when nothing was counted (Hamming, 1950).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import hamming_loss
    >>> float(hamming_loss(jnp.array([[1, 0], [1, 1]]), jnp.array([[1, 0], [0, 1]]), num_labels=2))
    0.25
    """

    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | None = None
    ignore_index: int | None = None
    name: str = "hamming_loss"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> PairCounts | LabelCounts:
        """The counts of all pairs, or of each label."""
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The share, float32 []."""
        with jax.enable_x64(True):
            right, whole = self.statistic.right(state)
            return divide(whole - right, whole, np.nan).astype(jnp.float32)


matthews_correlation = one_call(
    MatthewsCorrelation, "matthews_correlation", infer=infer_classes, either=("num_classes", "num_labels")
)
cohen_kappa = one_call(CohenKappa, "cohen_kappa", infer=infer_classes)
hamming_loss = one_call(HammingLoss, "hamming_loss", infer=infer_classes, either=("num_classes", "num_labels"))
