"""Rows of one data set that stand in another as well: the leak that makes a validation score too good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxdl.data.dataset import Dataset, as_dataset
from jaxdl.data.order import permutation

_CHUNK_BYTES = 2**20  # rows are hashed in pieces that fit the cache, and the clock is read between them
_VERIFIED_ROWS = 1024
# Under a time limit at most this many rows of each side, so that sorting their hashes takes no longer than making them.
_ROWS_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class Leaks:
    """What `find_leaks` found.

    Attributes:
        rows_in_a: distinct rows of a that also stand in b. With sampling: among those looked at.
        rows_in_b: rows of b that also stand in a.
        examples: (row of a, row of b) of equal rows, the first few, in the order of b.
        checked_a: rows of a that were looked at.
        checked_b: rows of b that were looked at.
        sampled: time ran out before every row was looked at: the counts are then lower bounds.
        columns: what was compared.
    """

    rows_in_a: int
    rows_in_b: int
    examples: tuple[tuple[int, int], ...]
    checked_a: int
    checked_b: int
    sampled: bool
    columns: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.rows_in_b > 0

    def __str__(self) -> str:
        if self.sampled:
            looked = f"a sample ({self.checked_a} rows of a, {self.checked_b} of b; time was up)"
        else:
            looked = f"all rows ({self.checked_a} of a, {self.checked_b} of b)"
        over = ", ".join(self.columns)
        if not self:
            return f"no row of b stands in a, by {over}; looked at {looked}"
        pairs = ", ".join(f"a[{a}] = b[{b}]" for a, b in self.examples)
        least = "at least " if self.sampled else ""
        return f"{least}{self.rows_in_b} rows of b stand in a too, by {over}: {pairs}; looked at {looked}"


def find_leaks(
    a: Any, b: Any, *, columns: Sequence[str] | None = None, max_seconds: float | None = None, examples: int = 5
) -> Leaks:
    """Exact duplicates across two data sets, by row hash; every hit is compared byte by byte, so none is a false alarm.

    Rows are equal when their bytes are, in the dtype that both sides have in common (float64 as float32, which is what
    trains); 0.0 and -0.0 are equal, and NaN equals the same NaN.

    Args:
        a: a Dataset or what `as_dataset` takes; usually the training data.
        b: the other; usually validation or test.
        columns: what makes a row; all columns common to both but "y" and "weight" when None (a row that comes back with
            another label is a leak, too).
        max_seconds: after this time the rest is left out: rows are then looked at in a fixed random order, b first for
            up to half of the time. None looks at every row.
        examples: how many pairs to report.

    Raises:
        ValueError: no column in common, or columns whose shapes differ.
    """
    left, right = as_dataset(a, name="a"), as_dataset(b, name="b")
    names = _columns(left, right, columns)
    dtypes = {name: _common(left[name].dtype, right[name].dtype) for name in names}
    began = time.perf_counter()
    half, whole = (None, None) if max_seconds is None else (began + max_seconds / 2, began + max_seconds)
    most = None if max_seconds is None else int(max_seconds * _ROWS_PER_SECOND)
    rows_b, hash_b = _hashes(right, dtypes, half, most)
    rows_a, hash_a = _hashes(left, dtypes, whole, most)
    in_a = np.isin(hash_a, hash_b)
    in_b = np.isin(hash_b, hash_a)
    candidates_a = rows_a[in_a], hash_a[in_a]
    candidates_b = rows_b[in_b], hash_b[in_b]
    partners_b = _partners(right, *candidates_b, left, *candidates_a, dtypes)
    partners_a = _partners(left, *candidates_a, right, *candidates_b, dtypes)
    found = np.flatnonzero(partners_b >= 0)
    found = found[np.argsort(candidates_b[0][found])]
    return Leaks(
        rows_in_a=int((partners_a >= 0).sum()),
        rows_in_b=len(found),
        examples=tuple((int(partners_b[each]), int(candidates_b[0][each])) for each in found[:examples]),
        checked_a=len(rows_a),
        checked_b=len(rows_b),
        sampled=len(rows_a) < len(left) or len(rows_b) < len(right),
        columns=tuple(names),
    )


def _columns(a: Dataset, b: Dataset, asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        names = [name for name in a.columns if name in b and name not in ("y", "weight")]
    else:
        names = [asked] if isinstance(asked, str) else list(asked)
        for data in (a, b):
            for name in names:
                _ = data[name]
    if not names:
        raise ValueError(f"{a!r} and {b!r} have no column in common to compare")
    for name in names:
        if a[name].shape[1:] != b[name].shape[1:]:
            raise ValueError(
                f"column {name!r} is {list(a[name].shape[1:])} an example in {a.name} but {list(b[name].shape[1:])} in "
                f"{b.name}: such rows are never equal"
            )
    return names


def _common(a: np.dtype, b: np.dtype) -> np.dtype:
    """What both become for the comparison; float64 becomes float32, as it will on the device."""
    both = np.result_type(a, b)
    return np.dtype(np.float32) if both == np.float64 else both


def _words(data: Dataset, rows: np.ndarray | slice, dtypes: dict[str, np.dtype]) -> np.ndarray:
    """Rows as 64-bit words, uint64 [rows, words], zero-padded; equal rows have equal words."""
    parts = []
    for name, dtype in dtypes.items():
        values = np.asarray(data[name][rows]).astype(dtype)
        if dtype.kind in "fc":
            values += dtype.type(0)  # -0.0 becomes 0.0
        parts.append(np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8))
    together = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if spare := -together.shape[1] % 8:
        together = np.pad(together, ((0, 0), (0, spare)))
    return np.ascontiguousarray(together).view(np.uint64)


def _hash(words: np.ndarray) -> np.ndarray:
    """One uint64 a row: each word mixed as in splitmix64 (Steele et al., 2014), times its place's odd number, summed.

    Without the mixing, words that differ in their high bits only (floats do) would make sums that do too.
    """
    places = permutation(words.shape[1], 0, 0).astype(np.uint64)
    factors = (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    mixed = words ^ (words >> np.uint64(32))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= factors
    return mixed.sum(axis=1, dtype=np.uint64)


def _hashes(
    data: Dataset, dtypes: dict[str, np.dtype], deadline: float | None, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers, their hashes) of every row, or of whole chunks in a fixed random order until the time is up."""
    width = sum(dtype.itemsize * int(np.prod(data[name].shape[1:])) for name, dtype in dtypes.items())
    size = max(1, _CHUNK_BYTES // max(1, width))
    chunks = -(-len(data) // size)
    order = np.arange(chunks) if deadline is None else permutation(chunks, 0, 0)
    rows, hashes, looked = [], [], 0
    for chunk in order:
        late = deadline is not None and time.perf_counter() > deadline
        if looked and (late or (most is not None and looked >= most)):
            break
        piece = slice(int(chunk) * size, min((int(chunk) + 1) * size, len(data)))
        hashes.append(_hash(_words(data, piece, dtypes)))
        rows.append(np.arange(piece.start, piece.stop))
        looked += len(rows[-1])
    return np.concatenate(rows), np.concatenate(hashes)


def _partners(
    data: Dataset,
    rows: np.ndarray,
    hashes: np.ndarray,
    other: Dataset,
    other_rows: np.ndarray,
    other_hashes: np.ndarray,
    dtypes: dict[str, np.dtype],
) -> np.ndarray:
    """For each row a row of `other` with the same bytes, or -1: [len(rows)] int64."""
    partners = np.full(len(rows), -1, np.int64)
    if not len(rows):
        return partners
    order = np.argsort(other_hashes, kind="stable")
    other_rows, other_hashes = other_rows[order], other_hashes[order]
    first = np.searchsorted(other_hashes, hashes, side="left")
    for start in range(0, len(rows), _VERIFIED_ROWS):
        piece = slice(start, start + _VERIFIED_ROWS)
        guess = other_rows[first[piece]]
        same = (_words(data, rows[piece], dtypes) == _words(other, guess, dtypes)).all(axis=1)
        partners[piece] = np.where(same, guess, -1)
    # A row whose first namesake differs from it: two rows of `other` share a hash. Look at all of them.
    for each in np.flatnonzero(partners < 0):
        namesakes = other_rows[other_hashes == hashes[each]]
        words = _words(data, rows[each : each + 1], dtypes)
        same = (_words(other, namesakes, dtypes) == words).all(axis=1)
        if same.any():
            partners[each] = namesakes[np.argmax(same)]
    return partners
