"""Boundary F: how well the outlines of segments agree, within a tolerance in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.confusion import infer_classes
from jaxdl.metrics.inputs import as_array, as_ids, as_mask, as_weight, same_shape
from jaxdl.metrics.metric import Derived, Reduce

_WORD = 32
_PARTS = ("f", "precision", "recall")


@dataclass(frozen=True)
class BoundaryScores:
    """The boundary precision, recall and F of each image and class, summed over images: the statistic of `BoundaryF`.

    State: `Sums` of, for each class and then for the image as a whole, the weighted F, precision, recall and the
    weights of each; then the weight of pixels whose id is no class or whose score is NaN.
    """

    num_classes: int
    tolerance: float | None = None
    ignore_index: int | None = None
    name: str = field(default="boundary_f", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        count, tolerance = self.num_classes, self.tolerance
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 2 <= count <= 4096:
            raise ValueError(f"{self.name}: num_classes must be an integer from 2 to 4096; it is {count!r}")
        if tolerance is not None and not (isinstance(tolerance, int | float) and 0 <= tolerance < 1000):
            raise ValueError(
                f"{self.name}: tolerance must be a distance in pixels from 0 to 1000, or None for 0.75 % of the "
                f"image's diagonal; it is {tolerance!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, (self.num_classes + 1) * 2 * len(_PARTS) + 1))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds images: preds int [batch, H, W] or float [batch, H, W, num_classes], target int [batch, H, W].

        weight: [batch]; mask: [batch], or [batch, H, W] for pixels to leave out.
        """
        target = as_ids(target, f"{self.name}: target")
        if target.ndim != 3:
            raise ValueError(f"{self.name}: target has shape {target.shape}; it must be [batch, height, width]")
        predicted, broken = self._predicted(preds, target)
        images = target.shape[0]
        keep = jnp.ones(target.shape, jnp.bool_)
        if mask is not None and as_array(mask, f"{self.name}: mask").ndim > 1:
            keep, mask = as_mask(target.shape, mask, self.name), None
        if self.ignore_index is not None:
            keep &= target != self.ignore_index
        given = as_weight((images,), weight, mask, self.name)
        weights = jnp.ones((images,), jnp.float32) if given is None else given
        classes = self.num_classes
        valid = ~broken & (target >= 0) & (target < classes) & (predicted >= 0) & (predicted < classes)
        lost = jnp.sum(keep & ~valid, axis=(1, 2), dtype=jnp.int32).astype(jnp.float32)
        spoilt = jnp.any(keep & broken, axis=(1, 2))
        keep &= valid
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = 0.0075 * math.hypot(*target.shape[1:])
        outline_p, outline_t = _outline(predicted, keep), _outline(target, keep)
        hit_p = _near(predicted, outline_p, target, outline_t, classes, tolerance)
        hit_t = _near(target, outline_t, predicted, outline_p, classes, tolerance)
        scores = _scores(
            *(
                _by_class(labels, there, classes)
                for labels, there in (
                    (predicted, hit_p),
                    (predicted, outline_p),
                    (target, hit_t),
                    (target, outline_t),
                )
            )
        )  # [images, classes, parts]
        defined = ~jnp.isnan(scores)
        found = jnp.where(defined, scores, jnp.float32(0)) + jnp.where(spoilt, jnp.nan, 0.0)[:, None, None]
        number = jnp.sum(defined, axis=1, dtype=jnp.int32).astype(jnp.float32)
        whole = jnp.sum(found, axis=1) / jnp.maximum(number, jnp.float32(1))
        values = jnp.concatenate([found, whole[:, None]], axis=1)
        there = jnp.concatenate([defined, (number > 0)[:, None]], axis=1)
        flat = [x.reshape(images, -1) for x in (values, there.astype(jnp.float32))]
        columns = jnp.concatenate([*flat, lost[:, None]], axis=1)
        weighted = jnp.where((weights != 0)[:, None], columns * weights[:, None], jnp.float32(0))
        return sums.add(state, sums.total(weighted.T))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def means(self, state: sums.Sums) -> jax.Array:
        """F, precision and recall of each class and, last, of whole images: float32 [classes + 1, 3]."""
        half = (self.num_classes + 1) * len(_PARTS)
        mean = sums.ratio(sums.pick(state, slice(0, half)), sums.pick(state, slice(half, 2 * half)))
        return mean.reshape(self.num_classes + 1, len(_PARTS))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of pixels left out because an id was no class or a score was NaN, float32 []."""
        return sums.value(sums.pick(state, -1))

    def _predicted(self, preds: Any, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The predicted ids, and where scores were NaN."""
        array = as_array(preds, f"{self.name}: preds")
        if array.ndim == 4:
            if array.shape != (*target.shape, self.num_classes):
                raise ValueError(
                    f"{self.name}: preds have shape {array.shape} and target {target.shape}; scores of "
                    f"{self.num_classes} classes have shape {(*target.shape, self.num_classes)}"
                )
            return jnp.argmax(array, axis=-1).astype(jnp.int32), jnp.any(jnp.isnan(array), axis=-1)
        same_shape(array, target, self.name)
        return as_ids(array, f"{self.name}: preds"), jnp.zeros(target.shape, jnp.bool_)


@dataclass(frozen=True)
class BoundaryF(Derived):
    """The boundary F score (BF): whether the outlines of segments lie where they should, within a tolerance.

    For each image and class, the outline is the pixels of the class with a neighbour (up, down, left, right) of another
    class. Precision is the share of the predicted outline within `tolerance` (Euclidean distance, in pixels, at most)
    of the true one, recall the reverse, F = 2 P R / (P + R). An image's score is the mean over the classes that have an
    outline in target or prediction, and the value the weighted mean over images, float32 []. Images without any outline
    are left out; NaN when none is left. A class with an outline on one side only has F = 0.

    preds: class ids int [batch, height, width], or scores float [batch, height, width, num_classes]; target: class ids
    int [batch, height, width]. tolerance: None is 0.75 % of the diagonal, as in the paper. Pixels whose target is
    `ignore_index`, or whose ids are out of range (counted in `invalid`), are neither outline nor neighbours; nor is
    what lies outside the image. A NaN score makes the value NaN. weight: [batch]; mask: [batch], or [batch, height,
    width] for pixels to leave out.

    Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import boundary_f
    >>> target = jnp.zeros((1, 8, 8), jnp.int32).at[:, 2:6, 2:6].set(1)
    >>> moved = jnp.roll(target, 1, axis=2)
    >>> float(boundary_f(moved, target, num_classes=2, tolerance=0))
    0.4375
    >>> float(boundary_f(moved, target, num_classes=2, tolerance=1))
    1.0
    """

    num_classes: int
    tolerance: float | None = None
    ignore_index: int | None = None
    name: str = "boundary_f"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the fields

    @property
    def statistic(self) -> BoundaryScores:
        """The scores of each class and of images."""
        return BoundaryScores(self.num_classes, self.tolerance, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean over images, float32 [] in [0, 1]."""
        return self.statistic.means(state)[-1, 0]

    def per_class(self, state: sums.Sums) -> dict[str, jax.Array]:
        """f, precision and recall, float32 [num_classes] each: means over the images that have the class's outline.

        Precision is a mean over images where the class was predicted, recall over those where it is true.
        """
        means = self.statistic.means(state)[:-1]
        return {part: means[:, i] for i, part in enumerate(_PARTS)}


def _outline(labels: jax.Array, keep: jax.Array) -> jax.Array:
    """Which kept pixels have a kept neighbour of another label: bool [images, H, W]."""
    result = jnp.zeros_like(keep)
    for axis in (1, 2):
        front, back = slice(0, -1), slice(1, None)
        one, other = ((slice(None),) * axis + (part,) for part in (front, back))
        differ = (labels[one] != labels[other]) & keep[one] & keep[other]
        result = result.at[one].max(differ).at[other].max(differ)
    return result


def _near(
    labels: jax.Array, outline: jax.Array, others: jax.Array, other_outline: jax.Array, classes: int, tolerance: float
) -> jax.Array:
    """Which outline pixels have an outline pixel of the same class in the other map within the tolerance."""
    result = jnp.zeros_like(outline)
    # 32 classes at a time, each a bit of a word, so that one dilation serves all
    for first in range(0, classes, _WORD):
        word = _bits(others, other_outline, first)
        wide = _dilate(word, tolerance)
        result |= (wide & _bits(labels, outline, first)) != 0
    return result


def _bits(labels: jax.Array, there: jax.Array, first: int) -> jax.Array:
    """Bit c of a pixel: whether it is there and of class first + c; uint32 [images, H, W]."""
    bit = labels - first
    inside = there & (bit >= 0) & (bit < _WORD)
    return jnp.where(inside, jnp.uint32(1) << jnp.clip(bit, 0, _WORD - 1).astype(jnp.uint32), jnp.uint32(0))


def _dilate(word: jax.Array, radius: float) -> jax.Array:
    """The union of the words within `radius` (Euclidean) of each pixel: a disk, row by row."""
    reach = math.floor(radius)
    height = word.shape[1]
    result = jnp.zeros_like(word)
    for down in range(min(reach, height - 1) + 1):
        side = math.isqrt(math.floor(radius * radius) - down * down)
        row = lax.reduce_window(
            word, np.uint32(0), lax.bitwise_or, (1, 1, 2 * side + 1), (1, 1, 1), ((0, 0), (0, 0), (side, side))
        )
        above = jnp.pad(row[:, down:], ((0, 0), (0, down), (0, 0)))
        below = jnp.pad(row[:, : height - down], ((0, 0), (down, 0), (0, 0)))
        result |= above | below
    return result


def _by_class(labels: jax.Array, there: jax.Array, classes: int) -> jax.Array:
    """How many pixels of each class are there, in each image: float32 [images, classes]."""
    images = labels.shape[0]
    cells = jnp.clip(labels, 0, classes - 1) + classes * jnp.arange(images, dtype=jnp.int32)[:, None, None]
    counts = (
        jnp.zeros((images * classes,), jnp.int32)
        .at[cells.reshape(-1)]
        .add(there.reshape(-1).astype(jnp.int32), mode="promise_in_bounds")
    )
    return counts.reshape(images, classes).astype(jnp.float32)


def _scores(hit_p: jax.Array, all_p: jax.Array, hit_t: jax.Array, all_t: jax.Array) -> jax.Array:
    """F, precision and recall, float32 [images, classes, 3]; NaN where undefined."""
    nothing, nan = jnp.float32(0), jnp.float32(jnp.nan)
    precision = jnp.where(all_p > 0, hit_p / jnp.maximum(all_p, jnp.float32(1)), nothing)
    recall = jnp.where(all_t > 0, hit_t / jnp.maximum(all_t, jnp.float32(1)), nothing)
    both = precision + recall
    f = jnp.where(both > 0, 2 * precision * recall / jnp.where(both > 0, both, jnp.float32(1)), nothing)
    return jnp.stack(
        [
            jnp.where((all_p > 0) | (all_t > 0), f, nan),
            jnp.where(all_p > 0, precision, nan),
            jnp.where(all_t > 0, recall, nan),
        ],
        axis=-1,
    )


boundary_f = one_call(BoundaryF, "boundary_f", infer=infer_classes)
