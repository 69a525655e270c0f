"""Precision, recall, F1 and support of every class and their averages, as numbers and as a table to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import PairCounts, divide, infer_classes
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.multilabel import LabelCounts, counts_of
from jaxdl.metrics.rates import F1, Precision, Recall, averaged, plain_number

_RATES = {"precision": Precision, "recall": Recall, "f1": F1}


@dataclass(frozen=True)
class ClassificationReport(Derived):
    """Precision, recall, F1 and support of each class or label, their averages and the accuracy.

    `compute` gives {"precision", "recall", "f1", "support": [classes], "macro_precision", ..., "weighted_f1": [],
    "accuracy": []}, and for labels "micro_precision", ... in place of the accuracy; `table` prints them. The fields and
    the averages are those of `Precision`.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import ClassificationReport
    >>> report = ClassificationReport(num_classes=2)
    >>> state = report.update(report.init(), preds=jnp.array([0, 1, 1, 1]), target=jnp.array([0, 0, 1, 1]))
    >>> print(report.table(state, classes=["ham", "spam"]))
                   precision  recall      f1  support
    ham               1.0000  0.5000  0.6667        2
    spam              0.6667  1.0000  0.8000        2
    macro mean        0.8333  0.7500  0.7333        4
    weighted mean     0.8333  0.7500  0.7333        4
    accuracy          0.7500
    """

    num_classes: int | None = None
    num_labels: int | None = None
    threshold: float | None = None
    ignore_index: int | None = None
    zero_division: float = float("nan")
    name: str = "classification_report"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zero_division", plain_number(self.zero_division, f"{self.name}: zero_division"))
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> PairCounts | LabelCounts:
        """The counts of all pairs, or of each label."""
        return counts_of(self.num_classes, self.num_labels, self.threshold, self.ignore_index, self.name)

    @property
    def _averages(self) -> tuple[str, ...]:
        return ("macro", "weighted") if self.num_labels is None else ("micro", "macro", "weighted")

    def compute(self, state: sums.Sums) -> dict[str, jax.Array]:
        """The numbers, float32; see the class."""
        found = {}
        with jax.enable_x64(True):
            outcomes = self.statistic.outcomes(state)
            for name, rate in _RATES.items():
                parts = rate(self.num_classes, self.num_labels)._parts
                for average in (None, *self._averages):
                    key = name if average is None else f"{average}_{name}"
                    found[key] = averaged(parts, outcomes, average, 1, self.zero_division)
            found["support"] = outcomes.tp + outcomes.fn
            if self.num_labels is None:
                found["accuracy"] = divide(*self.statistic.right(state), np.nan)
            return {key: value.astype(jnp.float32) for key, value in found.items()}

    def table(self, state: sums.Sums, *, classes: Sequence[str] | None = None) -> str:
        """The numbers as plain text, one line for each class and average; `classes` names the lines."""
        lost = float(np.asarray(self.invalid(state)))
        return report_table(self.compute(state), classes=classes, invalid=lost)


def report_table(report: Mapping[str, Any], *, classes: Sequence[str] | None = None, invalid: float = 0.0) -> str:
    """What `classification_report` gives, as plain text: a line for each class and average. Undefined is "nan"."""
    from jaxdl.metrics.show import aligned, class_names, number

    support = np.asarray(report["support"], np.float64)
    names = class_names(classes, len(support))
    rows = [["", *_RATES, "support"]]
    for i, name in enumerate(names):
        rows.append([name, *(f"{float(report[key][i]):.4f}" for key in _RATES), number(support[i])])
    for average in ("micro", "macro", "weighted"):
        if f"{average}_f1" in report:
            values = (f"{float(report[f'{average}_{key}']):.4f}" for key in _RATES)
            rows.append([f"{average} mean", *values, number(support.sum())])
    if "accuracy" in report:
        rows.append(["accuracy", f"{float(report['accuracy']):.4f}", "", "", ""])
    lines = aligned(rows)
    if invalid:
        lines.append(f"left out: {number(invalid)} with an id out of range or a NaN score")
    return "\n".join(lines)


classification_report = one_call(
    ClassificationReport, "classification_report", infer=infer_classes, either=("num_classes", "num_labels")
)
