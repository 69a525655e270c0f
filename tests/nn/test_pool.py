"""Pools and resize against torch, flax and NumPy."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn


def _torch_layout(x):
    return np.moveaxis(np.asarray(x), -1, 1).copy()


def _ours_layout(x):
    return np.moveaxis(np.asarray(x), 1, -1)


def _draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


GEOMETRIES = [
    ((2, 6, 8, 3), 2, None, 0, False),
    ((2, 7, 9, 3), 2, None, 0, False),
    ((2, 7, 9, 3), 2, None, 0, True),
    ((2, 7, 9, 3), 3, 2, 1, False),
    ((2, 8, 10, 3), 3, 2, 0, False),
    ((2, 2, 4, 3), 3, 2, 0, True),
    ((2, 8, 9, 3), 3, 2, 0, True),
    ((2, 8, 10, 3), 3, 2, 1, True),
    ((2, 7, 5, 3), 3, 3, 1, False),
    ((2, 6, 6, 3), 2, 3, 1, True),
    ((2, 3, 5, 3), 2, None, 1, True),  # the last window would start in the padding, and is left out
    ((2, 11, 3), 3, 2, 1, True),
    ((1, 5, 6, 7, 2), 2, None, 0, True),
]


@pytest.mark.parametrize(("shape", "window", "strides", "padding", "ceil"), GEOMETRIES)
def test_pools_equal_torch_in_value_and_gradient(shape, window, strides, padding, ceil):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    axes = len(shape) - 2
    x = _draw(*shape)

    def check(ours, theirs):
        t = torch.tensor(_torch_layout(x), requires_grad=True)
        expected = theirs(t)
        weight = np.cos(np.arange(expected.numel(), dtype=np.float32)).reshape(expected.shape)
        (expected * torch.from_numpy(weight)).sum().backward()
        y = ours(x)
        np.testing.assert_allclose(y, _ours_layout(expected.detach()), atol=1e-6)
        gradient = jax.grad(lambda x: jnp.sum(ours(x) * jnp.asarray(_ours_layout(weight))))(x)
        np.testing.assert_allclose(gradient, _ours_layout(t.grad), atol=1e-6)

    pool = getattr(functional, f"max_pool{axes}d")
    check(
        lambda x: nn.max_pool(x, window, strides, padding, ceil),
        lambda t: pool(t, window, strides, padding, ceil_mode=ceil),
    )
    average = getattr(functional, f"avg_pool{axes}d")
    for counted in (True, False):
        check(
            lambda x: nn.avg_pool(x, window, strides, padding, ceil, count_include_pad=counted),  # noqa: B023
            lambda t: average(t, window, strides, padding, ceil_mode=ceil, count_include_pad=counted),  # noqa: B023
        )


@pytest.mark.parametrize(("space", "window"), [((4, 6), 2), ((5, 7), (2, 2)), ((9,), (3,)), ((4, 4, 2), (2, 2, 2))])
def test_max_pool_equals_flax_in_value_and_gradient(space, window):
    x = _draw(2, *space, 3)
    lengths = (window,) * len(space) if isinstance(window, int) else window

    def pools(pool):
        weight = jnp.arange(pool(x).size, dtype=jnp.float32).reshape(pool(x).shape)
        return pool(x), jax.grad(lambda x: jnp.sum(pool(x) * weight))(x)

    ours = pools(lambda x: nn.max_pool(x, window))
    flax_s = pools(lambda x: flax.linen.max_pool(x, lengths, strides=lengths))
    np.testing.assert_array_equal(ours[0], flax_s[0])
    np.testing.assert_allclose(ours[1], flax_s[1], rtol=1e-6)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pools_with_named_padding_equal_flax(padding):
    x = _draw(2, 7, 8, 3)
    ours, theirs = nn.max_pool(x, 3, 2, padding), flax.linen.max_pool(x, (3, 3), (2, 2), padding)
    np.testing.assert_array_equal(ours, theirs)
    for counted in (True, False):
        ours = nn.avg_pool(x, 3, 2, padding, count_include_pad=counted)
        with jax.numpy_dtype_promotion("standard"):  # flax divides floats by integers
            theirs = flax.linen.avg_pool(x, (3, 3), (2, 2), padding, count_include_pad=counted)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_padding_of_a_max_pool_never_wins():
    x = -5.0 - jnp.abs(_draw(1, 5, 5, 2))
    assert float(nn.max_pool(x, 3, 2, 1).max()) < -5.0
    assert float(nn.max_pool(x, 2, ceil=True).max()) < -5.0
    assert nn.max_pool(jnp.full((1, 3, 3, 1), -7, jnp.int32), 2, ceil=True).tolist() == [[[[-7], [-7]], [[-7], [-7]]]]


def test_equal_numbers_share_the_gradient_of_a_reshaped_max_pool():
    gradient = jax.grad(lambda x: nn.max_pool(x, 2).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_allclose(gradient, 0.25)


def test_pools_refuse_a_window_that_does_not_fit():
    with pytest.raises(ValueError, match="fewer pools"):
        nn.max_pool(jnp.ones((1, 1, 4, 2)), 2)
    with pytest.raises(ValueError, match="window of 2 lengths"):
        nn.max_pool(jnp.ones((1, 4, 4, 2)), (2,))
    with pytest.raises(ValueError, match="smaller than the window"):
        nn.avg_pool(jnp.ones((1, 4, 4, 2)), 2, padding=2)


@pytest.mark.parametrize(("space", "size"), [((7, 10), (3, 4)), ((6, 6), 3), ((5, 4), 7), ((9,), 4), ((1, 1), 6)])
def test_adaptive_pools_equal_torch(space, size):
    torch = pytest.importorskip("torch")
    x = _draw(2, *space, 3)
    for kind, ours in (("avg", nn.adaptive_avg_pool), ("max", nn.adaptive_max_pool)):
        theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool{len(space)}d")
        expected = _ours_layout(theirs(torch.tensor(_torch_layout(x)), size))
        np.testing.assert_allclose(ours(x, size), expected, atol=1e-6)


def test_global_pools_leave_batch_and_channels():
    x = _draw(2, 4, 5, 3)
    np.testing.assert_allclose(nn.global_avg_pool(x), np.asarray(x).mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(nn.global_max_pool(x), np.asarray(x).max((1, 2)))


def test_average_pools_of_bfloat16_sum_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.0 + 2**-7, jnp.bfloat16)
    for y in (nn.global_avg_pool(x), nn.avg_pool(x, 63, 1), nn.adaptive_avg_pool(x, 3)):
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(y.astype(jnp.float32), 1.0 + 2**-7)


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (10, 14), (13, 9), (1, 1)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_resize_equals_torch(size, align_corners):
    torch = pytest.importorskip("torch")
    x = _draw(2, 5, 7, 3)
    theirs = torch.nn.functional.interpolate(
        torch.tensor(_torch_layout(x)), size=size, mode="bilinear", align_corners=align_corners
    )
    np.testing.assert_allclose(nn.resize(x, size, align_corners=align_corners), _ours_layout(theirs), atol=2e-6)


def test_enlarging_equals_jax_image_and_shrinking_does_not_smooth():
    x = _draw(2, 5, 7, 3)
    np.testing.assert_allclose(nn.resize(x, (10, 21)), jax.image.resize(x, (2, 10, 21, 3), "bilinear"), atol=1e-5)
    unsmoothed = jax.image.resize(x, (2, 3, 3, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(nn.resize(x, 3), unsmoothed, atol=1e-5)


@pytest.mark.parametrize("size", [(10, 14), (3, 4), (13, 9)])
def test_nearest_resize_equals_torch(size):
    torch = pytest.importorskip("torch")
    x = _draw(2, 5, 7, 3)
    theirs = torch.nn.functional.interpolate(torch.tensor(_torch_layout(x)), size=size, mode="nearest")
    np.testing.assert_array_equal(nn.resize(x, size, "nearest"), _ours_layout(theirs))


def test_resize_to_the_same_size_is_the_identity_and_keeps_the_dtype():
    x = _draw(1, 4, 4, 2).astype(jnp.bfloat16)
    np.testing.assert_array_equal(nn.resize(x, 4), x)
    assert nn.resize(x, 7).dtype == jnp.bfloat16


def test_resize_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="resize method='cubic'"):
        nn.resize(jnp.ones((1, 4, 4, 2)), 8, "cubic")
    with pytest.raises(ValueError, match="no corners"):
        nn.resize(jnp.ones((1, 4, 4, 2)), 8, "nearest", align_corners=True)


@pytest.mark.parametrize(
    "mean", [nn.avg_pool, lambda x: nn.adaptive_avg_pool(x, 3), nn.global_avg_pool, lambda x: nn.resize(x, 8)]
)
def test_means_of_integers_are_refused_since_they_would_be_cut_off(mean):
    with pytest.raises(TypeError, match="means of floats, not of uint8"):
        mean(jnp.ones((1, 4, 4, 1), jnp.uint8))


def test_nearest_resize_keeps_integers():
    x = jnp.arange(4, dtype=jnp.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        nn.resize(x, 4, "nearest")[0, ..., 0], np.kron(np.arange(4).reshape(2, 2), np.ones((2, 2)))
    )
