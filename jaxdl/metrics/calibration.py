"""Whether probabilities mean what they say: calibration error and curve, over bins of confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import divide
from jaxdl.metrics.inputs import as_float, as_ids
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.probabilities import counting, distribution, probable

Binning = Literal["width", "mass"]
# Equal masses are put together from narrow bins: of equal width in the logit, where confidences near 0 and 1, which are
# most of them, lie as wide apart as others.
_FINE, _LOGIT = 4096, 18.0


class Bins(NamedTuple):
    """What lies in each bin, float64 [bins]: weight, and weighted sums of confidence and of hits."""

    weight: jax.Array
    confidence: jax.Array
    hits: jax.Array


@dataclass(frozen=True)
class CalibrationBins:
    """Weight, confidence and hits in each bin of confidence: the statistic of calibration error and curve.

    preds [...] of label 1 with target 0 or 1 [...]: the confidence is the probability, a hit is label 1. preds
    [..., classes] with target ids [...]: the confidence is the largest probability, a hit that its class is the target.
    State: `Sums`, three for each bin, one for the weight that is not valid, one for that of NaN confidences.
    """

    bins: int = 15
    binning: Binning = "width"
    from_logits: bool = False
    ignore_index: int | None = None
    name: str = field(default="calibration", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or not 1 <= self.bins <= _FINE:
            raise ValueError(f"{self.name}: bins must be an integer from 1 to {_FINE}; it is {self.bins!r}")
        if self.binning not in ("width", "mass"):
            raise ValueError(f"{self.name}: binning must be 'width' or 'mass'; it is {self.binning!r}")

    @property
    def _stored(self) -> int:
        """How many bins the state has."""
        return self.bins if self.binning == "width" else _FINE

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, 3 * self._stored + 2))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch; shapes as the class says."""
        preds, target = as_float(preds, f"{self.name}: preds"), as_ids(target, f"{self.name}: target")
        classes = distribution(preds, target, self.name)
        if classes is None:
            confidence = jax.nn.sigmoid(preds) if self.from_logits else probable(preds)
            hit = target == 1
        else:
            chances = jax.nn.softmax(preds, axis=-1) if self.from_logits else probable(preds)
            confidence = jnp.max(chances, axis=-1)  # NaN if one of them is
            hit = jnp.argmax(chances, axis=-1).astype(jnp.int32) == target
        valid = (target >= 0) & (target < (classes or 2))
        counted, lost = (x.reshape(-1) for x in counting(target, valid, weight, mask, self.ignore_index, self.name))
        confidence, hit = confidence.reshape(-1), hit.reshape(-1)
        broken = jnp.isnan(confidence)
        none = jnp.zeros_like(counted)
        place = jnp.where(broken, jnp.zeros_like(target.reshape(-1)), self.place(confidence))
        whole = jnp.where(broken, none, counted)
        # a confidence where nothing is counted may be anything
        parts = [whole, jnp.where(whole == 0, none, whole * confidence), jnp.where(hit, whole, none)]
        places = [place + jnp.int32(i * self._stored) for i in range(3)]
        binned = sums.sum_by_cell(jnp.concatenate(places), jnp.concatenate(parts), 3 * self._stored)
        rest = sums.total(jnp.stack([lost, counted - whole]))
        hi, lo = (jnp.concatenate(leaves) for leaves in zip(binned, rest, strict=True))
        return sums.add(state, sums.Sums(hi, lo))

    def place(self, confidence: jax.Array) -> jax.Array:
        """The stored bin of each confidence, int32: bin k holds (edge k, edge k + 1], and the first one 0 too."""
        if self.binning == "mass":
            logit = jnp.log(confidence) - jnp.log1p(-confidence)
            scaled = (logit + jnp.float32(_LOGIT)) * jnp.float32(_FINE / (2 * _LOGIT))
            return jnp.clip(jnp.floor(scaled), 0, _FINE - 1).astype(jnp.int32)
        edges = jnp.asarray(np.linspace(0, 1, self.bins + 1), jnp.float32)
        guess = jnp.clip((confidence * jnp.float32(self.bins)).astype(jnp.int32), 0, self.bins - 1)
        # the product rounds: a confidence at an edge belongs below it
        guess -= ((confidence <= edges[guess]) & (guess > 0)).astype(jnp.int32)
        return guess + ((confidence > edges[guess + 1]) & (guess < self.bins - 1)).astype(jnp.int32)

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def read(self, state: sums.Sums) -> Bins:
        """What lies in each of `bins`: call it inside `with jax.enable_x64(True)`. NaN after a NaN confidence."""
        values = sums.wide(state)
        spoiled = jnp.where(values[-1] != 0, jnp.full_like(values, jnp.nan), values)
        found = Bins(*spoiled[: 3 * self._stored].reshape(3, self._stored))
        if self.binning == "width":
            return found
        before = jnp.cumsum(found.weight) - found.weight / 2
        level = divide(before, jnp.broadcast_to(jnp.sum(found.weight), before.shape), 0.0)
        group = jnp.clip(jnp.floor(level * self.bins), 0, self.bins - 1).astype(jnp.int32)
        return Bins(*(jnp.zeros(self.bins, part.dtype).at[group].add(part) for part in found))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because their target was no class, float32 []."""
        return sums.value(sums.pick(state, -2))


@dataclass(frozen=True)
class CalibrationError(Derived):
    """How far confidence and accuracy of the bins of confidence lie apart; 0 is perfect.

    With w_b the share of the weight that falls in bin b, and gap_b = |hits_b / weight_b - mean confidence_b|: norm "l1"
    is sum w_b gap_b, the expected calibration error (ECE; Naeini et al., 2015; Guo et al., 2017); "l2" its root mean
    square, sqrt(sum w_b gap_b^2); "max" the largest gap (MCE). Empty bins do not count.

    preds [...] of label 1 with target 0 or 1 [...], or [..., classes] with target ids [...], of which the largest
    counts; `from_logits=True`: logits. binning "width": bins (k / bins, (k + 1) / bins]. "mass": about as much weight
    in each bin; the edges come from 4096 narrow bins of equal width in the logit of the confidence, so the masses are
    equal up to that of a narrow bin, and equal confidences are never parted. A number outside [0, 1] makes it NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import calibration_error
    >>> round(float(calibration_error(jnp.array([0.9, 0.9, 0.2, 0.2]), jnp.array([1, 1, 0, 1]), bins=10)), 4)
    0.2
    """

    bins: int = 15
    norm: Literal["l1", "l2", "max"] = "l1"
    binning: Binning = "width"
    from_logits: bool = False
    ignore_index: int | None = None
    name: str = "calibration_error"

    def __post_init__(self) -> None:
        if self.norm not in ("l1", "l2", "max"):
            raise ValueError(f"{self.name}: norm must be 'l1', 'l2' or 'max'; it is {self.norm!r}")
        _ = self.statistic  # checks the rest

    @property
    def statistic(self) -> CalibrationBins:
        """The sums of each bin."""
        return CalibrationBins(self.bins, self.binning, self.from_logits, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The error, float32 [] in [0, 1]; NaN when nothing was counted."""
        with jax.enable_x64(True):
            found = self.statistic.read(state)
            whole = jnp.sum(found.weight)
            gap = jnp.abs(found.hits - found.confidence)  # of sums: the weight of the bin times the gap of means
            if self.norm == "l1":
                error = divide(jnp.sum(gap), whole, math.nan)
            elif self.norm == "l2":
                error = jnp.sqrt(divide(jnp.sum(divide(gap * gap, found.weight, 0.0)), whole, math.nan))
            else:
                largest = jnp.max(divide(gap, found.weight, 0.0))
                error = jnp.where(whole == 0, jnp.full_like(largest, jnp.nan), largest)
            return error.astype(jnp.float32)


@dataclass(frozen=True)
class CalibrationCurve(Derived):
    """Accuracy over confidence, bin by bin (a reliability diagram): {"confidence", "accuracy", "weight"}, [bins] each.

    confidence and accuracy are the weighted means of the bin, NaN in an empty one. preds, target, `binning` and
    `from_logits`: see `CalibrationError`, with which it shares its state. A well calibrated model lies on the diagonal.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import CalibrationCurve
    >>> curve = CalibrationCurve(bins=2)
    >>> state = curve.update(curve.init(), preds=jnp.array([0.75, 0.75, 0.25]), target=jnp.array([1, 0, 0]))
    >>> {key: value.tolist() for key, value in sorted(curve.compute(state).items())}
    {'accuracy': [0.0, 0.5], 'confidence': [0.25, 0.75], 'weight': [1.0, 2.0]}
    """

    bins: int = 15
    binning: Binning = "width"
    from_logits: bool = False
    ignore_index: int | None = None
    name: str = "calibration_curve"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> CalibrationBins:
        """The sums of each bin."""
        return CalibrationBins(self.bins, self.binning, self.from_logits, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> dict[str, jax.Array]:
        """The curve, float32 [bins] each."""
        with jax.enable_x64(True):
            found = self.statistic.read(state)
            curve = {
                "confidence": divide(found.confidence, found.weight, math.nan),
                "accuracy": divide(found.hits, found.weight, math.nan),
                "weight": found.weight,
            }
            return {key: value.astype(jnp.float32) for key, value in curve.items()}

    def plot(self, state: sums.Sums, *, title: str = "") -> Any:
        """The curve with the diagonal, and the weight of the bins below, as a matplotlib Figure."""
        return calibration_plot([self.compute(state)], title=title)


def calibration_plot(curves: Sequence[dict[str, Any]], *, names: Sequence[str] | None = None, title: str = "") -> Any:
    """Calibration curves in one matplotlib Figure, with the diagonal and, below, the share of weight in each bin."""
    from jaxdl.metrics.show import blank_figure

    if names is not None and len(names) != len(curves):
        raise ValueError(f"there are {len(curves)} curves but {len(names)} names: {', '.join(names)}")
    figure = blank_figure((5.2, 6.0), "a calibration curve")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1, label="perfect")
    for i, curve in enumerate(curves):
        confidence, accuracy, weight = (
            np.asarray(curve[key], np.float64) for key in ("confidence", "accuracy", "weight")
        )
        full = weight > 0
        share = weight[full] / max(weight.sum(), np.finfo(float).tiny)
        name = names[i] if names is not None else "model" if len(curves) == 1 else f"model {i}"
        upper.plot(confidence[full], accuracy[full], marker="o", markersize=4, label=name, color=f"C{i}")
        lower.vlines(confidence[full], 0, share, linewidth=4, color=f"C{i}", alpha=0.7)
    upper.set(ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title)
    upper.legend(loc="upper left", frameon=False)
    lower.set(xlabel="confidence", ylabel="share of weight")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


calibration_error = one_call(CalibrationError, "calibration_error")
calibration_curve = one_call(CalibrationCurve, "calibration_curve")
