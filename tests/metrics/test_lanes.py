"""Sums over many examples keep within their bound, whatever the numbers, and R2 of them within 1e-6."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn import metrics as peer

from jaxdl import metrics
from jaxdl.metrics import sums
from jaxdl.metrics.lanes import add_up

# a number passes eleven roundings at most: its own product, seven in registers, three more of a block of 32
BOUND = 11 * 2.0**-24


def columns(size: int) -> dict[str, np.ndarray]:
    """Numbers that are hard to add: rounding to one side, sorted over decades, cancelling, one that outweighs all."""
    draw = np.random.default_rng(size)
    one = np.zeros(size)
    one[size // 3] = 3e7
    found = {
        "three tenths": np.full(size, 0.3),
        "sorted": np.sort(np.exp(draw.normal(0, 4, size))),
        "cancelling": draw.normal(0, 1, size) * 1e6,
        "one large": draw.random(size) + one,
        "whole": draw.integers(0, 2**19, size),  # 32 of them are exact in float32, 75 are not
    }
    return {key: value.astype(np.float32) for key, value in found.items()}


# less than a row of lanes; a rest; groups of rows and single ones; blocks, groups, single rows and a rest
@pytest.mark.parametrize(("size", "outputs"), [(2047, 1), (2049, 1), (12 * 2048, 1), (75 * 2048 + 77, 1), (99_999, 3)])
def test_sums_keep_within_their_bound(size: int, outputs: int) -> None:
    given = columns(size)
    found = jax.jit(lambda *arrays: add_up(lambda *chunk: list(chunk), arrays, outputs))(*given.values())
    assert found.hi.shape == (len(given), outputs)
    for got, (name, values) in zip(sums.exact(found), given.items(), strict=True):
        wide = values.astype(np.float64).reshape(-1, outputs)
        limit = 0 if name == "whole" else BOUND * np.abs(wide).sum(axis=0)
        assert (np.abs(got - wide.sum(axis=0)) <= limit).all(), name


def test_infinities_and_nan_stay_in_their_term() -> None:
    values = np.ones((3, 5000), np.float32)
    values[0, 4999], values[1, 17] = np.inf, np.nan
    found = sums.value(add_up(lambda *chunk: list(chunk), list(values)))
    np.testing.assert_array_equal(found[:, 0], [np.inf, np.nan, 5000])


def test_r2_of_hard_numbers() -> None:
    """Far means, any order, predictions that are off by much more than they vary: against float64."""
    draw, size = np.random.default_rng(4), 70_001
    target, error = draw.normal(size=size), draw.normal(0, 0.5, size)
    cases = {
        "far": (target + 1e6, error),
        "sorted and far": (np.sort(target) + 1e4, error),
        "periodic": (1e4 + (np.arange(size) % 16 == 0), error),
        "an outlier": (1e4 + target + 1e4 * (np.arange(size) == 5), error),
        "decades": (np.sort(np.exp(2 * target)), error),
        "biased": (target, error + 100),
        "constantly off": (target, np.full(size, 0.3)),
        "tiny": (target * 1e-12, error * 1e-12),
        "huge": (target * 1e12, error * 1e12),
    }
    for name, (true, off) in cases.items():
        true = true.astype(np.float32)
        preds = (true + off).astype(np.float32)
        wide = true.astype(np.float64), preds.astype(np.float64)
        share = np.square(wide[1] - wide[0]).sum() / np.square(wide[0] - wide[0].mean()).sum()
        np.testing.assert_allclose(metrics.relative_squared_error(preds, true), share, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(metrics.r2(preds, true), peer.r2_score(*wide), rtol=1e-6, atol=1e-7, err_msg=name)
    # an infinite error leaves no value, as a NaN
    for bad in (np.inf, np.nan):
        preds[3] = bad
        assert np.isnan(metrics.r2(preds, true)) and np.isnan(metrics.relative_squared_error(preds, true))
