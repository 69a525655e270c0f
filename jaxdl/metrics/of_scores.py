"""What all metrics over scores of two labels share: how scores are remembered, and one sort for all of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxdl.metrics.corners import Corners, Sorted, corners
from jaxdl.metrics.histograms import Bits16, Histogram
from jaxdl.metrics.in_turn import in_turn
from jaxdl.metrics.scores import Exact

Scores = Exact | Histogram | Bits16


class OfScores:
    """A metric of sorted scores.

    A subclass, which is also a `Derived`, has the fields `capacity` and `scores`, of which one is given, and
    `_value(scores, corners)`; where bins may hide something, also `_ends(scores, corners)`.
    """

    name: str
    capacity: int | None
    scores: Scores | None

    def _value(self, scores: Sorted, at: Corners) -> Any:
        raise NotImplementedError

    def _ends(self, scores: Sorted, at: Corners) -> tuple[jax.Array, jax.Array]:
        raise TypeError(f"{self.name} is no single number, so it has no low and high end; ask its area: ROCAUC, PRAUC")

    @property
    def statistic(self) -> Any:
        """How scores are remembered; equal ones share one state, and in one program one sort."""
        return Exact(self.capacity, name=self.name) if self.scores is None else self.scores  # type: ignore[arg-type]

    def compute(self, state: Any) -> Any:
        """The value; NaN where it is undefined."""
        return self.of_sorted(_in_order(self.statistic, state))

    def of_sorted(self, scores: Sorted) -> Any:
        """The value of scores that `Exact.sort` has sorted, or any with the same order and other weights."""
        return in_turn(self._whole)(scores)

    def _whole(self, scores: Sorted) -> Any:
        with jax.enable_x64(True):
            return self._value(scores, corners(scores))

    def bounded(self, state: Any) -> dict[str, jax.Array]:
        """{"value", "low", "high"}, float32 []: the exact value lies between low and high (to float32), whatever the
        order of scores within a bin of a histogram. Of an exact statistic all three are equal."""
        scores = _in_order(self.statistic, state)
        value = self.of_sorted(scores)
        if isinstance(value, dict):
            value = value["value"]
        if not isinstance(self.statistic, Histogram):
            return {"value": value, "low": value, "high": value}
        with jax.enable_x64(True):
            low, high = self._ends(scores, corners(scores))
        return {"value": value, "low": low, "high": high}


def check_scores(metric: Any) -> None:
    """Refuses a metric without a way to remember scores, or with two.

    Raises:
        ValueError: neither or both of `capacity` and `scores`.
        TypeError: `scores` of another kind.
    """
    kind, capacity, scores = type(metric).__name__, metric.capacity, metric.scores
    if (capacity is None) == (scores is None):
        raise ValueError(
            f"{kind}: give capacity=, how many examples are kept, or scores=, one of Exact(capacity), Histogram() and "
            f"Bits16(); {'neither' if capacity is None else 'both'} was given"
        )
    if scores is None:
        _ = Exact(capacity, name=kind)
    elif not isinstance(scores, Exact | Histogram | Bits16):
        raise TypeError(f"{kind}: scores must be Exact(capacity), Histogram() or Bits16(); it is {scores!r}")


def infer_capacity(inputs: Any) -> dict[str, int]:
    """Room for all the examples at hand."""
    return {"capacity": max(1, int(np.size(inputs["target"])))}


def _in_order(statistic: Any, state: Any) -> Sorted:
    return statistic.sort(state) if isinstance(statistic, Exact) else statistic.cells(state)
