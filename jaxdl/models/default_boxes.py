"""Default boxes of SSD: which boxes stand at each place of each feature map. NumPy, computed when a model is traced."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Grid = tuple[int, int]


def default_boxes(
    grids: Sequence[Grid],
    image: Grid,
    *,
    aspect_ratios: Sequence[Sequence[float]],
    scales: Sequence[float],
    steps: Sequence[int] | None = None,
) -> np.ndarray:
    """Boxes (centre x, centre y, width, height) in shares of the image, float32 [boxes, 4].

    Map k has two squares at each place, of sides s_k and sqrt(s_k s_{k+1}), and for each aspect ratio a the two boxes
    (s_k sqrt(a), s_k / sqrt(a)) and (s_k / sqrt(a), s_k sqrt(a)); sides are at most 1. Centres are at (i + 0.5) * step
    pixels. Boxes follow each other by map, row, column and kind, as the heads give their outputs.

    Args:
        grids: (rows, columns) of each map.
        image: (height, width) in pixels.
        aspect_ratios: for each map, the ratios beside 1.
        scales: one more than there are maps, in shares of the image.
        steps: pixels from one place to the next, of each map; None: the image divided by the grid.

    Raises:
        ValueError: the lists have lengths that do not go together.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2; laid out as torchvision does.

    >>> from jaxdl.models.default_boxes import default_boxes
    >>> boxes = default_boxes([(2, 2), (1, 1)], (64, 64), aspect_ratios=[(2,), ()], scales=(0.3, 0.6, 0.9))
    >>> boxes.shape, [round(float(number), 4) for number in boxes[0]]
    ((18, 4), [0.25, 0.25, 0.3, 0.3])
    """
    maps = len(grids)
    if len(aspect_ratios) != maps or len(scales) != maps + 1 or (steps is not None and len(steps) != maps):
        given = f"{len(aspect_ratios)} sets of aspect ratios, {len(scales)} scales" + (
            "" if steps is None else f", {len(steps)} steps"
        )
        raise ValueError(
            f"{maps} feature maps {list(grids)} need {maps} sets of aspect ratios, {maps + 1} scales and {maps} steps "
            f"(or none), not {given}"
        )
    parts = []
    for k, (rows, columns) in enumerate(grids):
        sides = [(scales[k],) * 2, (math.sqrt(scales[k] * scales[k + 1]),) * 2]
        for ratio in aspect_ratios[k]:
            wide, narrow = scales[k] * math.sqrt(ratio), scales[k] / math.sqrt(ratio)
            sides += [(wide, narrow), (narrow, wide)]
        down, across = (rows, columns) if steps is None else (image[0] / steps[k], image[1] / steps[k])
        y, x = np.meshgrid((np.arange(rows) + 0.5) / down, (np.arange(columns) + 0.5) / across, indexing="ij")
        centres = np.broadcast_to(np.stack([x, y], -1)[:, :, None], (rows, columns, len(sides), 2))
        sizes = np.broadcast_to(np.clip(sides, 0.0, 1.0), centres.shape)
        parts.append(np.concatenate([centres, sizes], -1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def boxes_per_place(aspect_ratios: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """How many default boxes a place of each map has."""
    return tuple(2 + 2 * len(ratios) for ratios in aspect_ratios)


def linear_scales(maps: int, smallest: float = 0.15, largest: float = 0.9) -> tuple[float, ...]:
    """Scales that grow evenly from map to map, and 1 after the last: the paper's rule, [maps + 1]."""
    if maps == 1:
        return smallest, largest
    return (*(smallest + (largest - smallest) * k / (maps - 1) for k in range(maps)), 1.0)
