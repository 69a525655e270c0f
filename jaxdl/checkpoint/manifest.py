"""What a checkpoint says of itself: manifest.json, with a crc32 of every stored file and of its own text."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxdl
from jaxdl.checkpoint.fingerprint import Fingerprint

FORMAT = 1
SPREAD_FORMAT = 2  # of several processes: the leaves lie in pieces
NAME = "manifest.json"
_HEAD = re.compile(rb'\{"crc32": "([0-9a-f]{8})",\n')
_CHUNK = 1 << 20


class CorruptCheckpoint(ValueError):
    """A checkpoint on disk is not what was saved; the message names the file or the path within the tree."""


class StoredPiece(NamedTuple):
    """Where a block of a leaf lies: its bytes in row-major order, from `offset` on in a file of the checkpoint."""

    file: str
    offset: int
    start: tuple[int, ...]
    shape: tuple[int, ...]


class StoredLeaf(NamedTuple):
    """What the manifest says of one leaf; `pieces` is None where Orbax stored it, whole."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: int
    pieces: tuple[StoredPiece, ...] | None = None


def crc32_of_file(path: str | os.PathLike[str]) -> int:
    """The crc32 (zlib's, in [0, 2^32)) of a file's bytes, read in pieces of 1 MiB."""
    crc = 0
    piece = bytearray(_CHUNK)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(piece):
            crc = zlib.crc32(memoryview(piece)[:size], crc)
    return crc


def describe(
    *,
    step: int,
    metric: float | None,
    configuration: str,
    arrays: Mapping[str, Any],
    marks: Fingerprint,
    files: Mapping[str, tuple[int, int]],
    pieces: Mapping[str, Sequence[StoredPiece]] | None = None,
) -> bytes:
    """The text of manifest.json.

    Args:
        configuration: JSON, as handed to `save`.
        arrays: path -> anything with shape and dtype.
        files: name relative to the checkpoint -> (size in bytes, crc32).
        pieces: path -> where its blocks lie, of a checkpoint that several processes wrote.
    """
    record = {
        "format": FORMAT if pieces is None else SPREAD_FORMAT,
        "step": step,
        "metric": metric,
        "saved": time.time(),
        "configuration": json.loads(configuration),
        "environment": environment(),
        "fingerprint": marks.whole,
        "leaves": {
            path: {
                "shape": list(array.shape),
                "dtype": np.dtype(array.dtype).name,
                "bytes": array.size * np.dtype(array.dtype).itemsize,
                "fingerprint": marks.leaves[path],
                **({} if pieces is None else {"pieces": [piece._asdict() for piece in pieces[path]]}),
            }
            for path, array in arrays.items()
        },
        "files": {name: {"size": size, "crc32": crc} for name, (size, crc) in sorted(files.items())},
    }
    body = json.dumps(record, indent=1).encode()[2:]  # without the opening brace and its newline
    return b'{"crc32": "%08x",\n' % zlib.crc32(body) + body


def environment() -> dict[str, Any]:
    """What bit-for-bit equality depends on: versions, devices, processes, CPUs that this process may use."""
    versions = {"python": platform.python_version(), "jaxdl": jaxdl.__version__}
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # jaxdl.checkpoint does without flax and optax
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "versions": versions,
        "device_kind": jax.devices()[0].device_kind,
        "platform": jax.devices()[0].platform,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "cpu_count": len(affinity(0)) if affinity else os.cpu_count(),
    }


def read_manifest(checkpoint: Path, *, step: int) -> dict[str, Any]:
    """Read and check the manifest of one checkpoint.

    Raises:
        CorruptCheckpoint: it is missing, edited, truncated, or of a format that this version does not know.
    """
    path = checkpoint / NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CorruptCheckpoint(f"step {step} is corrupt ({path} cannot be read: {error.strerror or error})") from error
    head = _HEAD.match(text)
    if head is None:
        raise CorruptCheckpoint(
            f"step {step} is corrupt ({path} does not begin with its crc32: it was edited or damaged)"
        )
    body = text[head.end() :]
    if zlib.crc32(body) != int(head[1], 16):
        raise CorruptCheckpoint(
            f"step {step} is corrupt ({path} was edited or damaged: its text has crc32 {zlib.crc32(body):08x}, "
            f"its first line says {head[1].decode()})"
        )
    record = json.loads(text)
    if record["format"] not in (FORMAT, SPREAD_FORMAT):
        raise CorruptCheckpoint(
            f"{path} has format {record['format']}; this version of jaxdl reads formats {FORMAT} and {SPREAD_FORMAT}"
        )
    if record["step"] != step:
        raise CorruptCheckpoint(
            f"step {step} is corrupt ({path} is that of step {record['step']}: the folder was renamed)"
        )
    return record


def stored_leaves(record: Mapping[str, Any]) -> dict[str, StoredLeaf]:
    """The leaves that a manifest lists, by path."""
    return {
        path: StoredLeaf(
            tuple(leaf["shape"]), jax.numpy.dtype(leaf["dtype"]), leaf["fingerprint"], _pieces(leaf.get("pieces"))
        )
        for path, leaf in record["leaves"].items()
    }


def file_problems(
    checkpoint: Path, record: Mapping[str, Any], *, strangers: bool, reader: int = 0, readers: int = 1
) -> list[str]:
    """Compare the files of a checkpoint with its manifest: missing, another size, another crc32.

    Args:
        strangers: also list files that the manifest does not know.
        reader: which of `readers` this is, between whom the files are dealt out by size.
    """
    problems = []
    for name in _dealt(record["files"], readers)[reader]:
        expected = record["files"][name]
        path = checkpoint / name
        try:
            size = path.stat().st_size
            if size != expected["size"]:
                problems.append(f"{path} has {size} bytes, the manifest says {expected['size']}")
                continue
            crc = crc32_of_file(path)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        if crc != expected["crc32"]:
            problems.append(f"{path} has crc32 {crc:08x}, the manifest says {expected['crc32']:08x}")
    if strangers:
        known = {*record["files"], NAME}
        problems += [
            f"{path} is not in the manifest"
            for path in sorted(checkpoint.rglob("*"))
            if path.is_file() and path.relative_to(checkpoint).as_posix() not in known
        ]
    return problems


def _pieces(pieces: list[dict[str, Any]] | None) -> tuple[StoredPiece, ...] | None:
    if pieces is None:
        return None
    return tuple(
        StoredPiece(piece["file"], piece["offset"], tuple(piece["start"]), tuple(piece["shape"])) for piece in pieces
    )


def _dealt(files: Mapping[str, Mapping[str, int]], readers: int) -> list[list[str]]:
    """The names of the files that each reader checks, about equally many bytes; the same on every process."""
    if readers == 1:
        return [list(files)]
    dealt: list[list[str]] = [[] for _ in range(readers)]
    load = [0] * readers
    for name in sorted(files, key=lambda name: (-files[name]["size"], name)):
        least = load.index(min(load))
        dealt[least].append(name)
        load[least] += files[name]["size"]
    return dealt
