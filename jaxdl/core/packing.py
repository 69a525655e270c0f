"""Reports as rows of 32-bit words: what a dispatch has to say is read by one download."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.step import Array, Report


class Field(NamedTuple):
    """One leaf of a report: its path, shape and dtype, and where it stands in the packed row."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    stop: int


class Packed(NamedTuple):
    """Reports of one dispatch on the device: one uint32 row a step, how many rows are real, and where they begin."""

    rows: Array
    steps: int
    start: int = 0


def read(packed: Packed) -> np.ndarray:
    """The one place where the host waits for the device and reads: one vector per dispatch, [steps, words] uint32."""
    return np.asarray(packed.rows)[packed.start : packed.start + packed.steps]


def pack(report: Report) -> Array:
    """A report as one row of 32-bit words, so that one download reads it all."""
    words = [
        jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1) if leaf.dtype != jnp.uint32 else leaf.reshape(-1)
        for leaf in jax.tree.leaves(report)
    ]
    return jnp.concatenate(words)


def fields_of(report: Report) -> tuple[Field, ...]:
    fields, start = [], 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(report):
        if np.dtype(leaf.dtype).itemsize != 4:
            raise ValueError(
                f"report{jax.tree_util.keystr(path)} is {leaf.dtype}: reports hold 32-bit numbers, cast it to float32"
            )
        names = tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)
        size = int(np.prod(leaf.shape, dtype=np.int64))
        fields.append(Field(names, tuple(leaf.shape), np.dtype(leaf.dtype), start, start + size))
        start += size
    return tuple(fields)
