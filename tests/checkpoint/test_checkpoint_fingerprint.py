"""The fingerprint: one number for the same bits on host and device, another for any flipped bit or moved element."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.checkpoint import fingerprint
from jaxdl.checkpoint.fingerprint import device_sums, host_sum
from jaxdl.checkpoint.leaves import named_leaves

WIDTHS = {"bool": 1, "int8": 1, "uint8": 1, "float8_e4m3fn": 1, "bfloat16": 2, "float16": 2, "int16": 2, "uint16": 2}
WIDTHS |= {"int32": 4, "uint32": 4, "float32": 4, "complex64": 8, "int64": 8, "float64": 8, "complex128": 16}


def filled(name: str, shape: tuple[int, ...] = (3, 5, 7), seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if name == "bool":
        return random.integers(0, 2, shape).astype(bool)
    return random.integers(0, 256, (*shape, WIDTHS[name]), np.uint8).view(jnp.dtype(name)).reshape(shape)


def by_definition(x: np.ndarray) -> int:
    """The formula of the docstring in plain Python integers."""
    width = min(x.dtype.itemsize, 4)
    raw = np.ascontiguousarray(x).tobytes()
    words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
    return sum(word * (2 * i + 1) for i, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("name", WIDTHS)
def test_host_sum_is_the_formula(name):
    x = filled(name)
    assert host_sum(x) == by_definition(x)
    assert host_sum(x[:0]) == 0


def test_host_sum_over_many_blocks_is_the_formula():
    x = np.random.default_rng(0).integers(0, 2**32, 100_003, np.uint32)
    weights = 2 * np.arange(x.size, dtype=np.uint64) + np.uint64(1)
    assert host_sum(x) == int(np.sum(x.astype(np.uint64) * weights, dtype=np.uint64) % np.uint64(2**32))


@pytest.mark.smoke
def test_the_device_program_gives_the_host_s_numbers_and_is_one():
    names = [name for name, width in WIDTHS.items() if width < 8 or name == "complex64"]
    arrays = [filled(name) for name in names] + [
        filled("float32", ()),
        filled("int32", (0, 3)),
        filled("int8", (4096,)),
    ]
    arrays += [np.arange(-8, 8).astype(jnp.int4), np.arange(16).astype(jnp.uint4)]
    leaves = [jnp.asarray(array) for array in arrays]
    before = device_sums._cache_size()
    sums = np.asarray(device_sums(leaves)).tolist()
    assert np.asarray(device_sums([jnp.array(leaf, copy=True) for leaf in leaves])).tolist() == sums
    assert device_sums._cache_size() == before + 1
    assert sums == [host_sum(array) for array in arrays]


def test_the_device_program_takes_64_bits():
    with jax.enable_x64(True):
        arrays = [filled(name) for name in ("int64", "float64", "complex128")]
        sums = np.asarray(device_sums([jnp.asarray(array) for array in arrays])).tolist()
    assert sums == [host_sum(array) for array in arrays]


@pytest.mark.parametrize("name", WIDTHS)
def test_every_single_bit_counts(name):
    x = filled(name, (11,))
    right = host_sum(x)
    raw = bytearray(x.tobytes())
    for byte in range(len(raw)):
        for bit in range(1 if name == "bool" else 8):
            raw[byte] ^= 1 << bit
            assert host_sum(np.frombuffer(bytes(raw), x.dtype)) != right, (byte, bit)
            raw[byte] ^= 1 << bit


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_exchanged_elements_count(i, j):
    x = np.arange(40_001, dtype=np.int32) * 7 + 1
    y = x.copy()
    y[[i, j]] = y[[j, i]]
    assert (host_sum(x) == host_sum(y)) == (i == j)


def test_a_tree_s_number_knows_its_paths():
    a, b = jnp.arange(4.0), jnp.ones((2,), jnp.int8)
    marks = fingerprint({"p": {"a": a}, "q": (b, np.int64(-3))})
    assert list(marks.leaves) == ["p/a", "q/0", "q/1"]
    assert marks.leaves == {
        path: by_definition(np.asarray(x)) for path, x in zip(marks.leaves, (a, b, np.int64(-3)), strict=True)
    }
    assert marks.whole == sum((v + 1) * (2 * zlib.crc32(p.encode()) + 1) for p, v in marks.leaves.items()) % 2**32
    assert fingerprint({"p": {"b": a}, "q": (b, np.int64(-3))}).whole != marks.whole
    assert fingerprint({"p": {"a": a}, "q": (b,)}).whole != marks.whole


def test_the_numbers_of_today_are_those_of_tomorrow():
    """Checkpoints on disk hold them; 0x3f800000 * 3 + 0x40000000 * 5 + ... mod 2^32."""
    assert fingerprint({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}).leaves == {"w": 3416260608}


@pytest.mark.parametrize(
    ("leaf", "says"),
    [(1.5, "is a float"), ("text", "is a str"), (np.array(["a"]), "dtype <U1"), (jax.random.key(0), "key_data")],
)
def test_what_is_no_array_is_refused_by_path(leaf, says):
    with pytest.raises(TypeError, match=rf"'params/x'.*{says}|{says}.*'params/x'"):
        named_leaves({"params": {"x": leaf}})


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match="'a/b'"):
        named_leaves({"a/b": np.ones(1), "a": {"b": np.ones(1)}})
