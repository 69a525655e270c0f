"""IDX, the format of MNIST: two zero bytes, a type byte, the rank, big-endian sizes, the values."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from jaxdl.data.formats.source import existing, read_bytes
from jaxdl.data.schema import Column
from jaxdl.data.table import Table

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str], *, labels: str | os.PathLike[str] | None = None) -> Table:
    """A table with `x` (images uint8 `[n, h, w, 1]`, else the array as stored) and, where there are labels, `label`.

    labels: the file of the labels; None takes the one beside `path` whose name has "labels-idx1" for "images-idx3",
    where it exists.
    """
    found = existing(path)
    array = _read(found)
    columns = {"x": Column(array[..., None] if array.ndim == 3 else array)}
    beside = found.with_name(found.name.replace("images-idx3", "labels-idx1"))
    if labels is None and beside != found and beside.exists():
        labels = beside
    if labels is not None:
        numbers = _read(existing(labels))
        if numbers.shape != (len(array),):
            raise ValueError(
                f"{labels} has shape {list(numbers.shape)}, but the {len(array)} examples of {found.name} need "
                f"[{len(array)}]"
            )
        columns["label"] = Column(numbers)
    return Table(columns, found.name)


def _read(path: Path) -> np.ndarray:
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or content[3] == 0:
        raise ValueError(
            f"{path} is no IDX file: it starts with {content[:4].hex(' ')}, not with 00 00, a type and a rank"
        )
    dtype, rank = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(f"{path} is cut off inside its header: {len(content)} bytes")
    shape = struct.unpack(f">{rank}I", content[4:start])
    needed = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != needed:
        raise ValueError(
            f"{path} says that it holds an array {list(shape)}, which needs {needed:,} bytes, but it has "
            f"{len(content):,}"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
