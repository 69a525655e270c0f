"""Sums over many examples, fast and exact: float32 beside each other for a few additions, then two floats each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics import sums

# Examples that are added side by side, and how many of them one float32 sum takes before it goes into a two-float sum:
# R2 of 1e6 examples was fastest with 1000 to 2000 lanes. A sum of 32 numbers, eight in registers and then four of
# those, rounds 11 times on its way: at most 7e-7 of the sum of their sizes.
_LANES = 2048
_ADDITIONS = 32
# Rows whose terms one fused loop adds in registers; the sums are read and written once for them: half the time of one
# row after the other, and 16 are slow again.
_TOGETHER = 8


def add_up(terms: Callable[..., list[jax.Array]], arrays: Sequence[jax.Array], outputs: int = 1) -> sums.Sums:
    """Sums of what `terms` makes of flat arrays [examples * outputs], over the examples: Sums [terms, outputs].

    `terms` is applied to equal pieces of all arrays, a multiple of `outputs` long. Pieces are added side by side, which
    XLA vectorises, in float32 for a few additions and then in two floats. Each term has a carry of its own: stacked in
    one, they cost a tenth more, and one that nobody reads could not be left out.
    """
    size = arrays[0].shape[0]
    lanes = outputs * max(1, _LANES // outputs)
    if size <= lanes:
        return _over_lanes([plain(term) for term in terms(*arrays)], outputs)
    rows = size // lanes

    def row(i: Any) -> list[jax.Array]:
        return terms(*(lax.dynamic_slice_in_dim(array, i * lanes, lanes) for array in arrays))

    def group(i: Any, together: int) -> list[jax.Array]:
        found = row(i)
        for k in range(1, together):
            found = [a + b for a, b in zip(found, row(i + k), strict=True)]
        return found

    def run(start: Any, groups: int) -> list[sums.Sums]:
        def more(i: Any, found: list[jax.Array]) -> list[jax.Array]:
            return [a + b for a, b in zip(found, group(start + i * _TOGETHER, _TOGETHER), strict=True)]

        return [plain(found) for found in lax.fori_loop(1, groups, more, group(start, _TOGETHER))]

    blocks, left = divmod(rows, _ADDITIONS)
    groups, single = divmod(left, _TOGETHER)
    parts = []
    if blocks:
        every = _ADDITIONS // _TOGETHER
        parts.append(
            lax.fori_loop(1, blocks, lambda i, found: _added(found, run(i * _ADDITIONS, every)), run(0, every))
        )
    if groups:
        parts.append(run(blocks * _ADDITIONS, groups))
    if single:
        parts.append([plain(found) for found in group(rows - single, single)])
    if size > rows * lanes:
        # cut off before it is fused with what reads the whole, which takes 0.5 ns an example where a million come
        tail = terms(*lax.optimization_barrier([array[rows * lanes :] for array in arrays]))
        parts.append([plain(jnp.pad(term, (0, (rows + 1) * lanes - size))) for term in tail])
    found = parts[0]
    for part in parts[1:]:
        found = _added(found, part)
    return _over_lanes(found, outputs)


def weighted_sums(
    terms: Callable[..., list[jax.Array]], arrays: tuple[jax.Array, ...], weight: jax.Array | None, outputs: int = 1
) -> sums.Sums:
    """Sums [terms + 1, outputs] of weight * terms(arrays), and of the weights; weight 0 hides even NaN."""
    flat = [array.reshape(-1) for array in arrays]
    if weight is None:
        return add_up(lambda *chunk: [*terms(*chunk), jnp.ones_like(chunk[0])], flat, outputs)

    def heavy(*chunk: jax.Array) -> list[jax.Array]:
        found, weights = terms(*chunk[:-1]), chunk[-1]
        absent = weights == 0
        return [*(jnp.where(absent, jnp.zeros_like(value), weights * value) for value in found), weights]

    return add_up(heavy, [*flat, weight.reshape(-1)], outputs)


def plain(values: jax.Array) -> sums.Sums:
    """float32 numbers as sums of one number each."""
    return sums.Sums(values, jnp.zeros_like(values))


def _added(a: list[sums.Sums], b: list[sums.Sums]) -> list[sums.Sums]:
    return [sums.add(x, y) for x, y in zip(a, b, strict=True)]


def _over_lanes(found: list[sums.Sums], outputs: int) -> sums.Sums:
    """Sums [lanes] of each term -> [terms, outputs].

    In float64, whose plain sum of 2048 numbers keeps more digits than 48 bits and takes 2 us, where two floats took 60.
    """
    with jax.enable_x64(True):
        wide = jnp.stack([sums.wide(term) for term in found])
        return sums.narrow(jnp.sum(wide.reshape(len(found), -1, outputs), axis=1))
