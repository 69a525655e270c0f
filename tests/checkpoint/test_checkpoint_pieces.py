"""Leaves in blocks: any region is read from whatever blocks were written, and their sums are those of the whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.checkpoint import CorruptCheckpoint, crc32_of_file
from jaxdl.checkpoint.fingerprint import host_sum
from jaxdl.checkpoint.manifest import StoredLeaf
from jaxdl.checkpoint.pieces import read_pieces, write_pieces
from jaxdl.checkpoint.shards import Block, whole

DTYPES = ("float32", "int8", "int4", "bool", "bfloat16", "int64", "complex64")


def blocks_of(x: np.ndarray, cuts: tuple[int, ...]) -> list[Block]:
    """An array cut once along every axis."""
    sides = [((0, cut), (cut, size)) for cut, size in zip(cuts, x.shape, strict=True)]
    return [
        Block(tuple(low for low, _ in each), x[tuple(slice(*bounds) for bounds in each)], x.shape)
        for each in itertools.product(*sides)
    ]


@st.composite
def cut_arrays(draw) -> tuple[np.ndarray, tuple[int, ...], tuple[tuple[int, int], ...]]:
    """An array, where it is cut, and a region of it."""
    shape = tuple(draw(st.lists(st.integers(1, 7), max_size=3)))
    x = (
        np.random.default_rng(draw(st.integers(0, 99)))
        .integers(0, 2, shape)
        .astype(jnp.dtype(draw(st.sampled_from(DTYPES))))
    )
    cuts = tuple(draw(st.integers(0, size)) for size in shape)
    region = []
    for size in shape:
        low = draw(st.integers(0, size - 1))
        region.append((low, draw(st.integers(low + 1, size))))
    return x, cuts, tuple(region)


@given(cut_arrays())
def test_blocks_hold_every_region_and_add_up(tmp_path_factory, case):
    x, cuts, region = case
    folder = tmp_path_factory.mktemp("pieces")
    blocks = blocks_of(x, cuts)
    places, (size, crc) = write_pieces(folder / "pieces-00000", {"x": blocks})
    assert (size, crc) == (x.nbytes, crc32_of_file(folder / "pieces-00000"))
    stored = {"x": StoredLeaf(x.shape, x.dtype, 0, tuple(places["x"]))}
    found = read_pieces(folder, stored, {"x": [region, whole(x.shape)]})["x"]
    assert found[region].tobytes() == x[tuple(slice(*bounds) for bounds in region)].tobytes()
    assert found[whole(x.shape)].tobytes() == x.tobytes()
    assert sum(host_sum(block.data, block.start, x.shape) for block in blocks) % 2**32 == host_sum(x)


def test_sums_of_long_and_of_many_runs_add_up():
    """More words in a run than are summed at once, and more runs; offsets beyond 2^32 words wrap around."""
    for shape, cuts in (((3, 70_001), (1, 40_000)), ((70_001, 3), (35_000, 1)), ((5, 40_000, 2), (2, 39_999, 1))):
        x = np.random.default_rng(0).integers(0, 2**32, shape, np.uint32)
        parts = blocks_of(x, cuts)
        assert sum(host_sum(block.data, block.start, x.shape) for block in parts) % 2**32 == host_sum(x)
    far = host_sum(np.array([[7]], np.uint32), (2**20, 5), (2**21, 2**20))
    assert far == 7 * (2 * (2**40 + 5) + 1) % 2**32


def test_a_gap_and_a_short_file_are_found(tmp_path: Path):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    places, _ = write_pieces(tmp_path / "pieces-00000", {"x": blocks_of(x, (2, 3))})
    with pytest.raises(CorruptCheckpoint, match="hold 18 elements"):
        read_pieces(tmp_path, {"x": StoredLeaf(x.shape, x.dtype, 0, tuple(places["x"][1:]))}, {"x": [whole(x.shape)]})
    path = tmp_path / "pieces-00000"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptCheckpoint, match="ends before"):
        read_pieces(tmp_path, {"x": StoredLeaf(x.shape, x.dtype, 0, tuple(places["x"]))}, {"x": [whole(x.shape)]})
