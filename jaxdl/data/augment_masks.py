"""Random changes of an image and its mask alike, for transforms: where a pixel goes, its class goes.

    def transform(record, rng):
        image, mask = scale_with_mask(record["x"], record["y"], rng, smallest=0.75, largest=1.5)
        image, mask = crop_with_mask(image, mask, rng, size=(256, 256))
        image, mask = flip_with_mask(image, mask, rng)
        return {**record, "x": image, "y": mask}

Images are [height, width, channels], uint8 or float; masks [height, width], integers. Each function draws from `rng`
alone.
"""

from __future__ import annotations

import numpy as np


def crop_with_mask(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, size: tuple[int, int], ignore: int = 255
) -> tuple[np.ndarray, np.ndarray]:
    """A window of `size` (height, width) at a random place of both.

    Where they are smaller than the window, they lie at a random place of it; the rest is zeros, and `ignore` in the
    mask, so that it counts in no loss.
    """
    _check(image, mask)
    (top, above), (left, before) = (_place(have, want, rng) for have, want in zip(image.shape, size, strict=False))
    image, mask = image[top : top + size[0], left : left + size[1]], mask[top : top + size[0], left : left + size[1]]
    if image.shape[:2] == tuple(size):
        return image, mask
    window, labels = np.zeros((*size, image.shape[2]), image.dtype), np.full(size, ignore, mask.dtype)
    inside = (slice(above, above + image.shape[0]), slice(before, before + image.shape[1]))
    window[inside], labels[inside] = image, mask
    return window, labels


def flip_with_mask(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, probability: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Both, with this probability mirrored left to right."""
    _check(image, mask)
    return (image[:, ::-1], mask[:, ::-1]) if rng.random() < probability else (image, mask)


def scale_with_mask(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, smallest: float = 0.5, largest: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Both resized by one factor between `smallest` and `largest`, as likely twice as large as half as large.

    The image bilinearly, smoothed where it shrinks; the mask to the nearest pixel, so that no class is made up.

    Raises:
        ValueError: the limits are not 0 < smallest <= largest.
        ImportError: pillow is not installed.
    """
    _check(image, mask)
    if not 0 < smallest <= largest:
        raise ValueError(f"the factors lie between smallest={smallest} and largest={largest}: 0 < smallest <= largest")
    try:
        from PIL import Image
    except ImportError as problem:
        raise ImportError("resizing images needs pillow: pip install 'jaxdl[data]'") from problem
    factor = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])

    def resized(channel: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))

    if image.dtype == np.uint8:
        scaled = resized(image) if image.shape[2] == 3 else np.stack([resized(c) for c in _channels(image)], axis=-1)
    else:
        scaled = np.stack([resized(c.astype(np.float32)) for c in _channels(image)], axis=-1).astype(image.dtype)
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(mask.shape, (height, width), strict=True)
    )
    return scaled, mask[rows[:, None], columns]


def _channels(image: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[2])]


def _place(have: int, want: int, rng: np.random.Generator) -> tuple[int, int]:
    """(where the window starts in the image, where the image starts in the window)."""
    start = int(rng.integers(abs(have - want) + 1))
    return (start, 0) if have >= want else (0, start)


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    if image.ndim != 3 or mask.shape != image.shape[:2]:
        raise ValueError(
            f"an image is [height, width, channels] and its mask [height, width], not {list(image.shape)} and "
            f"{list(mask.shape)}"
        )
