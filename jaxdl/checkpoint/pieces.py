"""The file of a process's blocks, and any region of a leaf read from the blocks that overlap it."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.checkpoint.manifest import CorruptCheckpoint, StoredLeaf, StoredPiece
from jaxdl.checkpoint.shards import Block, Region

_CHUNK = 1 << 24


def write_pieces(
    path: Path, pieces: Mapping[str, Sequence[Block]]
) -> tuple[dict[str, list[StoredPiece]], tuple[int, int]]:
    """Write blocks one after the other into a new file and flush it to the disk.

    Plain bytes, and not Orbax: its handler for host arrays writes on process 0 only, and its others want the arrays on
    devices. The crc32 is that of the bytes in memory, so a file that came out otherwise is found.

    Returns:
        Where the blocks of each leaf lie, and the file's size and crc32.
    """
    places: dict[str, list[StoredPiece]] = {}
    crc = offset = 0
    with open(path, "xb", buffering=0) as file:
        for leaf, blocks in pieces.items():
            places[leaf] = []
            for block in blocks:
                if not block.data.size:
                    continue
                places[leaf].append(StoredPiece(path.name, offset, block.start, block.data.shape))
                for part in _chunks(block.data):
                    crc = zlib.crc32(part, crc)
                    offset += len(part)
                    while part:
                        part = part[file.write(part) :]
        os.fsync(file.fileno())
    return places, (offset, crc)


def read_pieces(
    checkpoint: Path, stored: Mapping[str, StoredLeaf], wanted: Mapping[str, Sequence[Region]]
) -> dict[str, dict[Region, np.ndarray]]:
    """Read regions of leaves from the blocks that overlap them, each into memory of its own.

    Raises:
        CorruptCheckpoint: the blocks do not cover a region, or a file is too short.
    """
    files: dict[str, Any] = {}
    try:
        found: dict[str, dict[Region, np.ndarray]] = {}
        for path, regions in wanted.items():
            leaf = stored[path]
            found[path] = {}
            for region in regions:
                target = np.empty([stop - start for start, stop in region], leaf.dtype)
                covered = 0
                for piece in leaf.pieces or ():
                    overlap = _overlap(piece, region)
                    if overlap is None:
                        continue
                    if piece.file not in files:
                        files[piece.file] = open(checkpoint / piece.file, "rb", buffering=0)  # noqa: SIM115
                    covered += _read_overlap(files[piece.file], piece, overlap, region, target)
                if covered != target.size:
                    raise CorruptCheckpoint(
                        f"the pieces of {path} in {checkpoint} hold {covered} elements of {region}, not {target.size}"
                    )
                found[path][region] = target
        return found
    finally:
        for file in files.values():
            file.close()


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for begin in range(0, raw.size, _CHUNK):
        yield raw[begin : begin + _CHUNK].data


def _overlap(piece: StoredPiece, region: Region) -> Region | None:
    overlap = tuple(
        (max(start, low), min(start + size, high))
        for start, size, (low, high) in zip(piece.start, piece.shape, region, strict=True)
    )
    return None if any(low >= high for low, high in overlap) else overlap


def _read_overlap(file: Any, piece: StoredPiece, overlap: Region, region: Region, target: np.ndarray) -> int:
    """Copy what a block has of a region into it: the rows of the first axis that are wanted, no others, are read."""
    size = math.prod(high - low for low, high in overlap)
    rows = (overlap[0][0] - piece.start[0], overlap[0][1] - piece.start[0]) if overlap else (0, 1)
    tail = piece.shape[1:]
    row = math.prod(tail) * target.dtype.itemsize
    straight = size == target.size and all(
        (low, high) == (start, start + length)
        for (low, high), start, length in zip(overlap[1:], piece.start[1:], tail, strict=True)
    )
    read = target if straight else np.empty((rows[1] - rows[0], *tail), target.dtype)
    file.seek(piece.offset + rows[0] * row)
    view = read.reshape(-1).view(np.uint8).data
    while view:
        count = file.readinto(view[:_CHUNK])
        if not count:
            raise CorruptCheckpoint(f"{file.name} ends before the piece at {piece.offset} does")
        view = view[count:]
    if not straight:
        to = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(overlap, region, strict=True))
        of = tuple(slice(low - start, high - start) for (low, high), start in zip(overlap, piece.start, strict=True))
        target[to] = read[(slice(None), *of[1:])]
    return size
