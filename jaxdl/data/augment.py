"""Random changes of one image, for transforms: NumPy arrays [height, width, channels], uint8 or float (0 to 1).

    def transform(record, rng):
        image = random_flip(random_crop(record["x"], rng, size=(32, 32), padding=4), rng)
        return {**record, "x": color_jitter(image, rng, brightness=0.2)}

Each function draws from `rng` alone, so an image depends on its place in the training order and on nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

# ITU-R BT.601, section 2.5.1: luma of red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def random_crop(image: np.ndarray, rng: np.random.Generator, *, size: tuple[int, int], padding: int = 0) -> np.ndarray:
    """A window of `size` (height, width) at a random place, after zero `padding` on all four sides.

    Raises:
        ValueError: the padded image is smaller than the window.
    """
    _check(image)
    height, width = size
    spare = image.shape[0] + 2 * padding - height, image.shape[1] + 2 * padding - width
    if min(spare) < 0:
        raise ValueError(
            f"an image of {image.shape[0]}x{image.shape[1]} with padding {padding} is smaller than the crop "
            f"{height}x{width}: resize it first or pad more"
        )
    top, left = int(rng.integers(spare[0] + 1)) - padding, int(rng.integers(spare[1] + 1)) - padding
    if top >= 0 and left >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    # Only the window is filled: np.pad of the whole image costs 20 times as much.
    window = np.zeros((height, width, image.shape[2]), image.dtype)
    inside = image[max(top, 0) : top + height, max(left, 0) : left + width]
    window[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return window


def random_flip(
    image: np.ndarray, rng: np.random.Generator, *, probability: float = 0.5, vertical: bool = False
) -> np.ndarray:
    """The image, with this probability mirrored left to right (or top to bottom)."""
    _check(image)
    if rng.random() >= probability:
        return image
    return image[::-1] if vertical else image[:, ::-1]


def color_jitter(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
) -> np.ndarray:
    """Brightness, contrast and saturation each scaled by a factor drawn from [1 - amount, 1 + amount].

    factor * image; mean + factor * (image - mean), the mean being that of the grey image; grey + factor * (image -
    grey). The result is clipped to the range of the dtype and has that dtype. Grey images have no saturation to change.
    """
    _check(image)
    for name, amount in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        if not 0 <= amount <= 1:
            raise ValueError(f"{name} is the width of a factor around 1: 0 to 1, not {amount}")
    # All three are drawn in any case: the numbers behind one setting do not move when another changes.
    factors = (1 + np.array([brightness, contrast, saturation]) * rng.uniform(-1, 1, 3)).astype(np.float32)
    top = np.float32(255 if image.dtype == np.uint8 else 1)
    out = np.clip(image.astype(np.float32) * factors[0], 0, top)
    mean = _grey(out).mean()
    out = np.clip(mean + factors[1] * (out - mean), 0, top)
    if image.shape[-1] == 3:
        grey = _grey(out)
        out = np.clip(grey + factors[2] * (out - grey), 0, top)
    return (np.rint(out) if image.dtype == np.uint8 else out).astype(image.dtype)


class ImageFiles:
    """Image files by number, decoded when asked for: what `GrainFeed` takes instead of a Dataset.

    `files[i]` is {"x": uint8 [height, width, channels], "y": int32 []}; sizes may differ until the transform crops.

    Args:
        paths: the files.
        labels: a class number for each; None leaves "y" out.
        channels: 1 (grey) or 3 (colour).
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], labels: Sequence[int] | None = None, *, channels: int = 3
    ):
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), not {channels}")
        self.paths = tuple(os.fspath(path) for path in paths)
        if labels is not None and len(labels) != len(self.paths):
            raise ValueError(f"there are {len(self.paths)} paths but {len(labels)} labels")
        self.labels = None if labels is None else np.asarray(labels, np.int32)
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        path = self.paths[index]
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError as problem:
            raise ImportError("decoding images needs pillow: pip install 'jaxdl[data]'") from problem
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert("L" if self.channels == 1 else "RGB"))
        except FileNotFoundError:
            raise FileNotFoundError(f"image {index}: there is no file {path}") from None
        except (UnidentifiedImageError, OSError, SyntaxError) as problem:
            raise ValueError(f"image {index}, {path}, does not decode: {problem}") from problem
        record = {"x": pixels[..., None] if self.channels == 1 else pixels}
        return record if self.labels is None else {**record, "y": self.labels[index]}


def _grey(image: np.ndarray) -> np.ndarray:
    return image @ _LUMA[:, None] if image.shape[-1] == 3 else image


def _check(image: np.ndarray) -> None:
    if image.ndim != 3:
        raise ValueError(f"an image is [height, width, channels], not {list(image.shape)}")
