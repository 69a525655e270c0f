"""find_leaks: every planted duplicate, no false alarm, whatever the dtype and shape."""

from __future__ import annotations

import numpy as np
import pytest

from jaxdl.data import Dataset, available, find_leaks, load
from jaxdl.data import leaks as module


def images(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 5, 3, 3), dtype=np.uint8)


@pytest.mark.smoke
def test_planted_rows_are_found_and_named() -> None:
    a, b = images(50, 0), images(30, 1)
    b[4], b[9], b[21] = a[17], a[3], a[17]
    found = find_leaks((a,), (b,))
    assert found and (found.rows_in_a, found.rows_in_b) == (2, 3)
    assert found.examples == ((17, 4), (3, 9), (17, 21))
    assert (found.checked_a, found.checked_b, found.sampled, found.columns) == (50, 30, False, ("x",))
    assert "3 rows of b stand in a too, by x: a[17] = b[4]" in str(found) and "all rows" in str(found)


def test_rows_that_differ_in_one_place_are_none() -> None:
    a = np.random.default_rng(0).normal(size=(200, 7)).astype(np.float32)
    for place in range(7):
        b = a.copy()
        b[:, place] = np.nextafter(b[:, place], np.float32(9))
        found = find_leaks((a,), (b,))
        assert not found and "no row of b stands in a" in str(found)
    # The same numbers in other places, which a plain sum would not tell apart.
    assert not find_leaks((a,), (a[:, ::-1].copy(),))
    assert not find_leaks((np.eye(6, dtype=np.float32)[:3],), (np.eye(6, dtype=np.float32)[3:],))


def test_a_colliding_hash_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.arange(12.0).reshape(6, 2), np.arange(100.0, 112.0).reshape(6, 2)
    b[5] = a[4]
    monkeypatch.setattr(module, "_hash", lambda words: np.zeros(len(words), np.uint64))
    found = find_leaks((a,), (b,))
    assert found.examples == ((4, 5),) and (found.rows_in_a, found.rows_in_b) == (1, 1)


def test_hashes_spread() -> None:
    # Whole numbers as floats differ in their high bits only; all 65,536 hashes and their low halves must differ.
    rows = np.arange(65_536, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    hashes = module._hash(module._words(Dataset({"x": rows}), slice(None), {"x": np.dtype(np.float32)}))
    assert len(np.unique(hashes)) == 65_536
    assert len(np.unique(hashes & np.uint64(0xFFFFFFFF))) > 65_500
    # The same words in another order are another row.
    assert len(np.unique(module._hash(np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3]], np.uint64)))) == 3


def test_dtypes_zeros_and_nan() -> None:
    a = np.array([[0.0, 1.0], [np.nan, 2.0], [0.1, 3.0]], np.float32)
    assert find_leaks((a,), (a.astype(np.float64),)).rows_in_b == 3
    assert find_leaks((a[:1],), (-a[:1] * np.array([1, -1], np.float32),)).rows_in_b == 1  # -0.0
    assert find_leaks((np.array([[1], [2]], np.uint8),), (np.array([[2], [300]], np.int64),)).examples == ((1, 0),)


def test_the_columns_that_make_a_row() -> None:
    a = {"x": np.arange(4.0), "id": np.arange(4), "y": np.arange(4)}
    b = {"x": np.arange(4.0), "id": np.array([0, 9, 9, 9]), "y": np.arange(4) + 50}
    # Another label or weight does not hide a leak.
    assert find_leaks(a, b).examples == ((0, 0),)
    assert find_leaks(a, b, columns=["x"]).rows_in_b == 4
    assert not find_leaks(a, b, columns=["x", "y"])
    with pytest.raises(KeyError, match="no column 'z'"):
        find_leaks(a, b, columns=["z"])
    with pytest.raises(ValueError, match="no column in common"):
        find_leaks({"x": np.zeros(2)}, {"z": np.zeros(2)})
    with pytest.raises(ValueError, match=r"column 'x' is \[3\] an example in a but \[2\] in b"):
        find_leaks((np.zeros((2, 3)),), (np.zeros((2, 2)),))


def test_it_says_when_it_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 400)
    a = np.random.default_rng(0).normal(size=(1000, 10)).astype(np.float32)
    found = find_leaks((a,), (a[:500],), max_seconds=0.0)
    assert found.sampled and found.checked_a == found.checked_b == 10
    assert "a sample (10 rows of a, 10 of b" in str(found)
    # With time enough it looks at all, in another order, and finds the same.
    whole = find_leaks((a,), (a[:500],), max_seconds=60.0, examples=3)
    assert (whole.rows_in_a, whole.rows_in_b, whole.sampled) == (500, 500, False)
    assert whole.examples == ((0, 0), (1, 1), (2, 2))


def test_memory_maps(tmp_path) -> None:
    np.save(tmp_path / "a.npy", images(40, 0))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert find_leaks((mapped,), (images(40, 0)[[8, 2]],)).examples == ((8, 0), (2, 1))


@pytest.mark.parametrize("name", available())
def test_no_shipped_set_leaks(name: str) -> None:
    assert not find_leaks(*load(name))
