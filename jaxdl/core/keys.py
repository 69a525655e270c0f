"""Stateless randomness: a key is a function of (seed, name, step), never stored and never split."""

from __future__ import annotations

import zlib

import jax
import numpy as np


def name_key(key: jax.Array, name: str) -> jax.Array:
    """Fold a name into a key. crc32, because Python's `hash` of a string differs in every process."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def step_key(seed: jax.Array, name: str, step: jax.Array, part: jax.Array | None = None) -> jax.Array:
    """The key called `name` at a step.

    Args:
        seed: [] uint32.
        name: what the key is for: "dropout", "augment" ...
        step: [] int32, the number of the batch.
        part: [] int32, the number of the microbatch when one batch is measured in parts; each part draws its own.

    Returns:
        A typed key, [] key<fry>: threefry whatever the user's default generator, so that results do not depend on it.
    """
    key = jax.random.fold_in(name_key(jax.random.key(seed, impl="threefry2x32"), name), step)
    return key if part is None else jax.random.fold_in(key, part)
