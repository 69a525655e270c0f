"""Light keys: numbers as they should be distributed, distinct streams, any kind of key accepted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import light_key


def test_normal_numbers_have_the_moments_of_a_normal():
    x = np.asarray(jax.random.normal(light_key(jax.random.key(0)), (200, 500)), np.float64)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
    assert abs((x**3).mean()) < 0.03 and abs((x**4).mean() - 3) < 0.1
    # Neighbours along both axes are uncorrelated: 4 standard errors of 100,000 products.
    assert abs((x[1:] * x[:-1]).mean()) < 0.013 and abs((x[:, 1:] * x[:, :-1]).mean()) < 0.013


def test_uniform_numbers_fill_every_bin_alike():
    counts = np.histogram(jax.random.uniform(light_key(jax.random.key(5)), (100_000,)), bins=100, range=(0, 1))[0]
    assert 60 < ((counts - 1000) ** 2 / 1000).sum() < 145  # chi-square, 99 degrees of freedom: 0.1 % and 99.8 %


def test_folded_split_and_reseeded_keys_are_all_unlike():
    key = light_key(jax.random.key(0))
    keys = [
        key,
        light_key(jax.random.key(1)),
        *(jax.random.fold_in(key, i) for i in range(50)),
        *jax.random.split(key, 50),
    ]
    draws = np.stack([np.asarray(jax.random.normal(key, (400,))) for key in keys[:8] + keys[-8:]])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.25
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_typed_keys_of_any_kind_are_taken(implementation):
    first, second = (light_key(jax.random.key(seed, impl=implementation)) for seed in (0, 1))
    assert not np.allclose(jax.random.normal(first, (4,)), jax.random.normal(second, (4,)))


def test_raw_keys_are_taken():
    raw = jax.random.key_data(jax.random.key(7))
    np.testing.assert_array_equal(
        jax.random.normal(light_key(raw), (4,)), jax.random.normal(light_key(jax.random.key(7)), (4,))
    )


def test_under_vmap_each_key_draws_what_it_draws_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(lambda key: jax.random.normal(light_key(key), (5,)))(keys)
    alone = jnp.stack([jax.random.normal(light_key(key), (5,)) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-6)
