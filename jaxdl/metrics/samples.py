"""The rate of each example of many labels, and its mean: what `average="samples"` is computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_weight
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.multilabel import BROKEN, INVALID, LabelCounts

# Where the cell of a label, 2 * target + predicted, stands for a true or false positive or negative.
_TP, _FP, _FN, _TN = 3, 1, 2, 0
# The sums of a state.
_RATE, _DEFINED, _EMPTY, _LOST = range(4)


@dataclass(frozen=True)
class SampleRates:
    """The sum of one rate over examples, each of which is a row of labels: the statistic of `average="samples"`.

    The rate of a row is (above . outcomes) / (below . outcomes), where the outcomes are the numbers of true positives,
    false positives, false negatives and true negatives among its labels. preds and target as in `LabelCounts`; `weight`
    is that of rows [...], `mask` of rows or of labels. Labels that are neither 0 nor 1 are left out of their row and
    counted in `invalid`; a NaN score makes the result NaN. State: `Sums` [4] of the weighted rates, of the weight of
    rows with a rate, of those without (0 / 0), and of the labels that were left out.
    """

    num_labels: int
    threshold: float
    ignore_index: int | None
    above: tuple[float, ...]
    below: tuple[float, ...]
    name: str = field(default="samples", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _ = self._labels  # checks num_labels and threshold

    @property
    def _labels(self) -> LabelCounts:
        return LabelCounts(self.num_labels, self.threshold, self.ignore_index, name=self.name)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 4))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch: preds and target [..., num_labels]."""
        cells, keep = self._labels.cells(preds, target, mask)
        rows = cells.shape[:-1]
        given = as_weight(rows, weight, None, self.name)
        given = jnp.ones(rows, jnp.float32) if given is None else given
        none = jnp.zeros_like(given)
        given = jnp.where(jnp.any(keep, axis=-1), given, none)

        def number(cell: int) -> jax.Array:
            return jnp.sum(keep & (cells == cell), axis=-1, dtype=jnp.int32).astype(jnp.float32)

        outcomes = [number(cell) for cell in (_TP, _FP, _FN, _TN)]
        above, below = (
            sum((np.float32(factor) * part for factor, part in zip(factors, outcomes, strict=True)), none)
            for factors in (self.above, self.below)
        )
        empty = below == 0
        rate = jnp.where(empty, none, above / jnp.where(empty, jnp.ones_like(below), below))
        rate = jnp.where(number(BROKEN) > 0, jnp.full_like(rate, jnp.nan), rate)
        present = given != 0
        lost = jnp.where(present, given * (number(INVALID) + number(BROKEN)), none)
        parts = (jnp.where(present, rate * given, none), jnp.where(empty, none, given), jnp.where(empty, given, none))
        return sums.add(state, sums.total(jnp.stack([part.reshape(-1) for part in (*parts, lost)])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def mean(self, state: sums.Sums, zero_division: float) -> jax.Array:
        """The mean over rows, float32 []; rows of 0 / 0 have `zero_division`, and with NaN do not enter."""
        rates, defined, empty = (sums.pick(state, place) for place in (_RATE, _DEFINED, _EMPTY))
        if np.isnan(zero_division):
            return sums.ratio(rates, defined)
        given = sums.value(empty) * np.float32(zero_division)
        mean = sums.ratio(sums.add(rates, sums.Sums(given, jnp.zeros_like(given))), sums.add(defined, empty))
        return jnp.where(jnp.isnan(sums.value(rates)), jnp.full_like(mean, jnp.nan), mean)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of labels left out because they were neither 0 nor 1 or a score was NaN, float32 []."""
        return sums.value(sums.pick(state, _LOST))
