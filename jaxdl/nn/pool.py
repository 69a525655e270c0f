"""Pooling: windows, cells of a fixed number, the whole of space; and resizing.

x is [batch, *space, channels] everywhere, with one, two or three axes of space.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn.conv import Lengths, Padding, padding_pairs, per_axis
from jaxdl.nn.largest import largest
from jaxdl.nn.precision import widened

Array = jax.Array


def max_pool(
    x: Array, window: Lengths = 2, strides: Lengths | None = None, padding: Padding = 0, ceil: bool = False
) -> Array:
    """The largest number of each window; what is padded never wins.

    Windows that lie side by side are a reshape and a maximum, whose gradient costs 0.3 of reduce_window's on CPU.
    Where several numbers of a window are equal and largest, the reshape shares the gradient between them.

    >>> x = jnp.arange(5.0).reshape(1, 5, 1)
    >>> max_pool(x).ravel().tolist(), max_pool(x, ceil=True).ravel().tolist()
    ([1.0, 3.0], [1.0, 3.0, 4.0])

    Args:
        x: [batch, *space, channels].
        window, strides: one number, or one per axis of space; strides are the window unless given.
        padding: 0, a number, "SAME", or one number or pair per axis; smaller than the window.
        ceil: also keep the incomplete window at the end of an axis (torch's ceil_mode) instead of dropping it.

    Returns:
        [batch, *new space, channels].

    Raises:
        ValueError: the window has another number of axes than x, is longer than x, or is no longer than its padding.
    """
    window, steps, pads, extra = _geometry("max_pool", x, window, strides, padding, ceil)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    low = np.asarray(lowest, x.dtype)  # known while tracing: lax then sees a maximum, which has a gradient
    all_pads = [(before, after + more) for (before, after), more in zip(pads, extra, strict=True)]
    if window == steps:
        split = _side_by_side(x, window, all_pads, low)
        for axis in reversed(_inner_axes(x)):
            split = largest(split, axis)
        return split
    config = ((0, 0), *_never_cut(pads, extra), (0, 0))
    return jax.lax.reduce_window(x, low, jax.lax.max, (1, *window, 1), (1, *steps, 1), config)


def avg_pool(
    x: Array,
    window: Lengths = 2,
    strides: Lengths | None = None,
    padding: Padding = 0,
    ceil: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The mean of each window.

    Args:
        x, window, strides, padding, ceil: as in `max_pool`.
        count_include_pad: count the padding as zeros of the window, as torch does; False divides by the numbers that
            are there. What `ceil` adds beyond the padding never counts.

    Returns:
        [batch, *new space, channels] in x's dtype, summed in at least float32.

    Raises:
        ValueError: as in `max_pool`. TypeError: x holds integers, whose mean would be cut off.
    """
    window, steps, pads, extra = _geometry("avg_pool", x, window, strides, padding, ceil)
    wide = _floats("avg_pool", x)
    zero = np.zeros((), wide.dtype)
    all_pads = [(before, after + more) for (before, after), more in zip(pads, extra, strict=True)]
    if window == steps:
        sums = jnp.sum(_side_by_side(wide, window, all_pads, zero), axis=_inner_axes(x))
    else:
        config = ((0, 0), *_never_cut(pads, extra), (0, 0))
        sums = jax.lax.reduce_window(wide, zero, jax.lax.add, (1, *window, 1), (1, *steps, 1), config)
    counts = np.ones((1,) * x.ndim)
    for axis, (size, length, step, (before, after)) in enumerate(zip(x.shape[1:-1], window, steps, pads, strict=True)):
        starts = np.arange(sums.shape[1 + axis]) * step - before
        first, last = (-before, size + after) if count_include_pad else (0, size)
        inside = np.minimum(starts + length, last) - np.maximum(starts, first)
        counts = counts * inside.reshape([-1 if n == 1 + axis else 1 for n in range(x.ndim)])
    return (sums * jnp.asarray(1.0 / counts, dtype=wide.dtype)).astype(x.dtype)


def _floats(name: str, x: Array) -> Array:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} takes means of floats, not of {x.dtype}: cast x first")
    return widened(x)


def _geometry(
    name: str, x: Array, window: Lengths, strides: Lengths | None, padding: Padding, ceil: bool
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], list[int]]:
    """Window, strides, padding, and what is added at each end to complete the last window (negative: to drop it)."""
    space = x.shape[1:-1]
    if not isinstance(window, int) and len(window) != len(space):
        raise ValueError(f"{name} of {x.shape} needs a window of {len(space)} lengths, not {tuple(window)}")
    lengths = per_axis(window, len(space), "window")
    steps = lengths if strides is None else per_axis(strides, len(space), "strides")
    pads = padding_pairs(padding, space, lengths, steps, (1,) * len(space))
    if not isinstance(padding, str) and any(max(pad) >= length for pad, length in zip(pads, lengths, strict=True)):
        raise ValueError(f"{name}: padding {pads} must be smaller than the window {lengths}")
    extra = []
    for size, length, step, (before, after) in zip(space, lengths, steps, pads, strict=True):
        span = size + before + after
        count = (span - length) // step + 1
        if ceil and (span - length) % step and count * step < size + before:  # it must start on a number
            count += 1
        if count < 1:
            raise ValueError(f"{name}: the window {lengths} is longer than the input {space}: use fewer pools")
        extra.append((count - 1) * step + length - span)
    return lengths, steps, pads, extra


def _side_by_side(x: Array, window: Sequence[int], pads: Sequence[tuple[int, int]], fill: Array | np.ndarray) -> Array:
    """[batch, *space, channels] -> [batch, count, length, count, length, ..., channels]."""
    if any(before or after for before, after in pads):
        x = jax.lax.pad(x, fill, [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    split = [n for size, length in zip(x.shape[1:-1], window, strict=True) for n in (size // length, length)]
    return x.reshape(x.shape[0], *split, x.shape[-1])


def _never_cut(pads: Sequence[tuple[int, int]], extra: Sequence[int]) -> list[tuple[int, int]]:
    """Padding for reduce_window, which drops an incomplete window itself and has no gradient where padding cuts."""
    return [(before, after + max(more, 0)) for (before, after), more in zip(pads, extra, strict=True)]


def _inner_axes(x: Array) -> tuple[int, ...]:
    return tuple(range(2, 2 * (x.ndim - 1), 2))


def adaptive_avg_pool(x: Array, size: Lengths) -> Array:
    """The mean of each of `size` cells per axis, which cover space evenly and overlap where it does not divide.

    Cell i of n over a length L reaches from floor(i * L / n) to ceil((i + 1) * L / n), as in torch.

    Args:
        x: [batch, *space, channels].
        size: one number of cells, or one per axis of space.

    Returns:
        [batch, *size, channels] in x's dtype.
    """
    y = _floats("adaptive_avg_pool", x)
    for axis, cells in enumerate(per_axis(size, x.ndim - 2, "size"), start=1):
        length = x.shape[axis]
        if length % cells == 0:
            y = jnp.mean(y.reshape(*y.shape[:axis], cells, length // cells, *y.shape[axis + 1 :]), axis=axis + 1)
            continue
        shares = np.zeros((length, cells))
        for cell, (first, last) in enumerate(_cells(length, cells)):
            shares[first:last, cell] = 1.0 / (last - first)
        weights = jnp.asarray(shares, dtype=y.dtype)
        y = jnp.moveaxis(jnp.tensordot(y, weights, axes=(axis, 0), precision="highest"), -1, axis)
    return y.astype(x.dtype)


def adaptive_max_pool(x: Array, size: Lengths) -> Array:
    """The largest number of each of `size` cells per axis; cells as in `adaptive_avg_pool`."""
    for axis, cells in enumerate(per_axis(size, x.ndim - 2, "size"), start=1):
        length = x.shape[axis]
        if length % cells == 0:
            x = largest(x.reshape(*x.shape[:axis], cells, length // cells, *x.shape[axis + 1 :]), axis + 1)
            continue
        parts = [
            jnp.expand_dims(largest(jax.lax.slice_in_dim(x, first, last, axis=axis), axis), axis)
            for first, last in _cells(length, cells)
        ]
        x = jnp.concatenate(parts, axis=axis)
    return x


def _cells(length: int, cells: int) -> list[tuple[int, int]]:
    return [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]


def global_avg_pool(x: Array) -> Array:
    """The mean over all of space: [batch, *space, channels] -> [batch, channels] in x's dtype."""
    return jnp.mean(_floats("global_avg_pool", x), axis=tuple(range(1, x.ndim - 1))).astype(x.dtype)


def global_max_pool(x: Array) -> Array:
    """The largest number in all of space: [batch, *space, channels] -> [batch, channels]."""
    return largest(x.reshape(x.shape[0], -1, x.shape[-1]), 1)


def resize(x: Array, size: Lengths, method: str = "bilinear", align_corners: bool = False) -> Array:
    """Stretch or shrink space to `size`, without smoothing first (torch's `interpolate`, antialias=False).

    "bilinear" is linear along each axis, for one and three axes too. Sample i of n over a length L stands at
    (i + 0.5) * L / n - 0.5, or with `align_corners` at i * (L - 1) / (n - 1); "nearest" takes floor(i * L / n).

    >>> resize(jnp.asarray([0.0, 1.0]).reshape(1, 2, 1), 4).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]

    Args:
        x: [batch, *space, channels].
        size: one length, or one per axis of space.

    Returns:
        [batch, *size, channels] in x's dtype, computed in at least float32.

    Raises:
        ValueError: an unknown method; "nearest" with align_corners. TypeError: "bilinear" of integers.
    """
    if method not in ("bilinear", "nearest"):
        raise ValueError(f'resize method={method!r}: choose "bilinear" or "nearest"')
    if method == "nearest" and align_corners:
        raise ValueError('resize: align_corners goes with "bilinear"; "nearest" has no corners to align')
    wide = x if method == "nearest" else _floats("resize", x)
    for axis, new in enumerate(per_axis(size, x.ndim - 2, "size"), start=1):
        old = x.shape[axis]
        if new == old:
            continue
        if method == "nearest":
            wide = _nearest(wide, axis, new)
            continue
        places = _places(old, new, align_corners)
        low = np.floor(places).astype(np.int64)
        share = places - low
        weights = np.zeros((old, new))
        np.add.at(weights, (low, np.arange(new)), 1.0 - share)
        np.add.at(weights, (np.minimum(low + 1, old - 1), np.arange(new)), share)
        matrix = jnp.asarray(weights, dtype=wide.dtype)
        wide = jnp.moveaxis(jnp.tensordot(wide, matrix, axes=(axis, 0), precision="highest"), -1, axis)
    return wide.astype(x.dtype)


def _nearest(x: Array, axis: int, new: int) -> Array:
    old = x.shape[axis]
    if new % old == 0:  # each number is repeated: its gradient is a sum, no scatter
        return jnp.repeat(x, new // old, axis=axis)
    return jnp.take(x, np.arange(new) * old // new, axis=axis)


def _places(old: int, new: int, align_corners: bool) -> np.ndarray:
    """Where in [0, old - 1] each new sample stands."""
    if align_corners:
        return np.arange(new) * ((old - 1) / max(new - 1, 1))
    return np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0, old - 1.0)
