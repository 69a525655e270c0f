"""ROC and precision-recall curves: their points in the graph, padded with a length, and their plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics.call import one_call
from jaxdl.metrics.corners import Corners, Sorted, finish, running, share
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.of_scores import OfScores, Scores, check_scores, infer_capacity


class ROCPoints(NamedTuple):
    """A ROC curve; `trim` cuts off the padding, which repeats the last point.

    Attributes:
        fpr, tpr: float32 [n + 1], false and true positive rates, rising from (0, 0).
        thresholds: float32 [n + 1], falling from infinity: score >= threshold is called positive.
        length: int32 [], how many points there are.
    """

    fpr: jax.Array
    tpr: jax.Array
    thresholds: jax.Array
    length: jax.Array


class PrecisionRecallPoints(NamedTuple):
    """A precision-recall curve; `trim` cuts off the padding, which repeats the last point.

    Attributes:
        precision, recall: float32 [n + 1], recall rising from (precision 1, recall 0).
        thresholds: float32 [n + 1], falling from infinity: score >= threshold is called positive.
        length: int32 [], how many points there are.
    """

    precision: jax.Array
    recall: jax.Array
    thresholds: jax.Array
    length: jax.Array


@dataclass(frozen=True)
class ROCCurve(OfScores, Derived):
    """The true positive rate over the false positive rate at every threshold, as `ROCPoints`.

    One point for each distinct score (or bin that is not empty), and (0, 0) at an infinite threshold: scikit-learn's
    roc_curve(drop_intermediate=False), padded to a fixed length. Fields, shapes and NaN as `ROCAUC`. `plot` draws it.

    >>> from jaxdl.metrics import roc_curve, trim
    >>> points = trim(roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    >>> points.fpr.tolist(), points.tpr.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "roc"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> ROCPoints:
        fpr, tpr = share(at.fp, at.negatives), share(at.tp, at.positives)
        (fpr, tpr), thresholds, length = _points(scores, at, (fpr, tpr), (0.0, 0.0))
        return ROCPoints(finish(fpr, scores, at), finish(tpr, scores, at), thresholds, length)

    def plot(self, state: Any, *, label: str = "", axes: Any = None) -> Any:
        """The curve as a matplotlib Figure with its area, or drawn into `axes`; ImportError without matplotlib."""
        points = trim(self.compute(state))
        area = float(np.sum(np.diff(points.fpr) * (points.tpr[1:] + points.tpr[:-1])) / 2 + 0 * points.fpr[0])
        figure, axes = _axes(axes)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        axes.plot(points.fpr, points.tpr, linewidth=1.8, label=f"{label} (area {area:.4f})".strip())
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve")
        return _framed(figure, axes, "lower right")


@dataclass(frozen=True)
class PrecisionRecallCurve(OfScores, Derived):
    """Precision over recall at every threshold, as `PrecisionRecallPoints`.

    One point for each distinct score (or bin that is not empty), and precision 1 at recall 0: scikit-learn's
    precision_recall_curve in the order of falling thresholds, padded to a fixed length. Fields, shapes and NaN as
    `ROCAUC`; without positives NaN. `plot` draws it in steps.

    >>> from jaxdl.metrics import precision_recall_curve, trim
    >>> points = trim(precision_recall_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    >>> points.precision.round(2).tolist(), points.recall.tolist()
    ([1.0, 1.0, 0.5, 0.6700000166893005, 0.5], [0.0, 0.5, 0.5, 1.0, 1.0])
    """

    capacity: int | None = None
    scores: Scores | None = None
    name: str = "precision_recall"

    def __post_init__(self) -> None:
        check_scores(self)

    def _value(self, scores: Sorted, at: Corners) -> PrecisionRecallPoints:
        rates = share(at.tp, at.tp + at.fp), share(at.tp, at.positives)
        (precision, recall), thresholds, length = _points(scores, at, rates, (1.0, 0.0))
        precision = finish(precision, scores, at, negatives=False)
        return PrecisionRecallPoints(precision, finish(recall, scores, at, negatives=False), thresholds, length)

    def plot(self, state: Any, *, label: str = "", axes: Any = None) -> Any:
        """The curve as a matplotlib Figure with its average precision, or drawn into `axes`; ImportError without
        matplotlib."""
        points = trim(self.compute(state))
        average = float(np.sum(np.diff(points.recall) * points.precision[1:]) + 0 * points.recall[0])
        # the last point has everything called positive: its precision is the share of positives
        chance = float(points.precision[-1])
        figure, axes = _axes(axes)
        axes.axhline(chance, color="0.7", linewidth=1, linestyle="--")
        text = f"{label} (average precision {average:.4f})".strip()
        # of each step the precision is that of its right end
        axes.plot(points.recall, points.precision, linewidth=1.8, drawstyle="steps-pre", label=text)
        axes.set(xlabel="recall", ylabel="precision", title="precision and recall")
        return _framed(figure, axes, "lower left" if average > 0.5 else "upper right")


def trim(points: Any) -> Any:
    """A curve's points without padding, NumPy arrays on the host."""
    length = int(np.asarray(points.length))
    return points._replace(
        **{key: np.asarray(value)[:length] if key != "length" else length for key, value in points._asdict().items()}
    )


def _points(
    scores: Sorted, at: Corners, rates: tuple[jax.Array, jax.Array], first: tuple[float, float]
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """One point for each score that is present, behind the first one; the rest repeats the last."""
    count = scores.key.shape[0]
    # a point is where the weight called positive rises: scores of weight 0 make none
    mass = at.tp + at.fp
    rises = mass > jnp.concatenate([jnp.zeros((1,), mass.dtype), mass[:-1]])
    place = running(rises.astype(jnp.float32), jnp.int32)
    length = place[-1] + 1
    # the first of each run, and only where it rises; others aim beyond the end
    target = jnp.where(rises, place, jnp.full_like(place, count + 1))
    kept = jnp.minimum(jnp.arange(count + 1, dtype=jnp.int32), length - 1)

    def packed(values: jax.Array, start: float) -> jax.Array:
        at_point = jnp.full((count + 1,), start, values.dtype).at[target].set(values, mode="drop")
        return at_point.at[kept].get(mode="promise_in_bounds")

    thresholds = packed(scores.score, jnp.inf)
    defined = ~scores.undefined & (length > 1)
    thresholds = jnp.where(defined, thresholds, jnp.full_like(thresholds, jnp.nan))
    return [packed(rate, start) for rate, start in zip(rates, first, strict=True)], thresholds, length


def _axes(axes: Any) -> tuple[Any, Any]:
    if axes is not None:
        return axes.figure, axes
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting a curve needs matplotlib: pip install 'jaxdl[plot]'") from error
    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    return figure, figure.add_subplot()


def _framed(figure: Any, axes: Any, place: str) -> Any:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc=place, frameon=False)
    return figure


def _one(metric: Any, name: str) -> Any:
    return one_call(metric, name, infer=infer_capacity, either=("capacity", "scores"))


roc_curve = _one(ROCCurve, "roc_curve")
precision_recall_curve = _one(PrecisionRecallCurve, "precision_recall_curve")
