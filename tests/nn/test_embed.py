"""Dense, embeddings, positions, squeeze and excite."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn


def _draw(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 2, 4)])
def test_dense_equals_flax_in_value_and_gradients(shape):
    x = _draw(*shape)
    variables = {"params": {"kernel": _draw(4, 5), "bias": _draw(5)}}

    def results(module):
        def loss(variables, x):
            y = module.apply(variables, x)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), results(nn.Dense(5)), results(flax.linen.Dense(5))
    )
    assert nn.Dense(5).apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_embed_looks_up_rows_and_attends_with_the_same_table():
    module = nn.Embed(7, 3)
    ids = jnp.asarray([[0, 6], [2, 2]])
    variables = module.init(jax.random.key(0), ids)
    table = np.asarray(variables["params"]["embedding"])
    np.testing.assert_array_equal(module.apply(variables, ids), table[np.asarray(ids)])
    x = _draw(2, 3)
    np.testing.assert_allclose(module.apply(variables, x, method="attend"), np.asarray(x) @ table.T, atol=1e-5)
    theirs = flax.linen.Embed(7, 3)
    same = theirs.init(jax.random.key(0), ids)["params"]["embedding"]
    np.testing.assert_array_equal(table, same)
    with pytest.raises(TypeError, match="looks up integers, not float32"):
        module.apply(variables, x)


def test_an_id_outside_the_table_is_nobodys_vector():
    embed, table = nn.Embed(300, 2), _draw(300, 2)
    look = jax.jit(lambda table, ids: embed.apply({"params": {"embedding": table}}, ids))
    found = look(table, jnp.array([-1, -300, 300, 299]))
    np.testing.assert_array_equal(np.isnan(found).all(-1), [True, True, True, False])
    for dtype in (jnp.uint8, jnp.int8, jnp.uint32):
        np.testing.assert_array_equal(look(table, jnp.array([0, 100], dtype)), table[jnp.array([0, 100])])
    slopes = jax.grad(lambda table: jnp.sum(look(table, jnp.array([1, -1]))))(table)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(slopes[:, 0])), [1])


def test_sinusoidal_positions_are_the_formula():
    table = np.asarray(nn.sinusoidal_positions(50, 8, interleaved=True))
    for t in (0, 1, 49):
        for i in range(4):
            angle = t / 10_000 ** (2 * i / 8)
            np.testing.assert_allclose(table[t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)
    halves = np.asarray(nn.sinusoidal_positions(50, 8))
    np.testing.assert_array_equal(halves, np.concatenate([table[:, ::2], table[:, 1::2]], axis=1))
    with pytest.raises(ValueError, match="features=7 must be even"):
        nn.sinusoidal_positions(5, 7)


def test_learned_positions_are_added_by_place_or_by_number():
    module = nn.LearnedPositions(6)
    x = _draw(2, 4, 3)
    variables = module.init(jax.random.key(0), x)
    table = np.asarray(variables["params"]["embedding"])
    assert table.shape == (6, 3)
    np.testing.assert_allclose(module.apply(variables, x), np.asarray(x) + table[:4], atol=1e-6)
    numbers = jnp.asarray([[0, 0, 1, 2], [5, 4, 3, 2]])
    np.testing.assert_allclose(
        module.apply(variables, x, numbers), np.asarray(x) + table[np.asarray(numbers)], atol=1e-6
    )
    np.testing.assert_allclose(module.apply(variables, x, numbers[1]), np.asarray(x) + table[[5, 4, 3, 2]], atol=1e-6)
    with pytest.raises(ValueError, match="beyond max_length=6"):
        module.apply(variables, _draw(1, 7, 3))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_complex_pairs_and_sees_distances_only(interleaved):
    x = _draw(2, 5, 3, 8)
    positions = jnp.asarray([0, 1, 2, 7, 100])
    y = np.asarray(nn.rotary(x, positions, interleaved=interleaved))
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :4], x[..., 4:])
    rates = 10_000.0 ** (-np.arange(0, 8, 2) / 8)
    turned = (np.asarray(a) + 1j * np.asarray(b)) * np.exp(1j * np.asarray(positions)[:, None, None] * rates)
    parts = (y[..., ::2], y[..., 1::2]) if interleaved else (y[..., :4], y[..., 4:])
    np.testing.assert_allclose(parts[0], turned.real, atol=1e-4)
    np.testing.assert_allclose(parts[1], turned.imag, atol=1e-4)

    def products(shift):
        q = nn.rotary(x, positions + shift, interleaved=interleaved)
        k = nn.rotary(x[:, ::-1], positions + shift, interleaved=interleaved)
        return jnp.einsum("bqhd,bkhd->bhqk", q, k)

    np.testing.assert_allclose(products(0), products(13), atol=1e-3)


def test_rotary_takes_positions_of_each_example_and_keeps_bfloat16():
    x = _draw(2, 3, 1, 4)
    positions = jnp.asarray([[0, 1, 2], [5, 6, 7]])
    together = nn.rotary(x, positions)
    for index in range(2):
        np.testing.assert_allclose(together[index], nn.rotary(x[index : index + 1], positions[index])[0], atol=1e-6)
    assert nn.rotary(x.astype(jnp.bfloat16), positions).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="must be even"):
        nn.rotary(_draw(1, 3, 1, 5), positions[0])


def test_squeeze_excite_is_two_dense_layers_on_the_mean():
    module = nn.SqueezeExcite(3)
    x = _draw(2, 4, 5, 6)
    variables = module.init(jax.random.key(0), x)
    p = jax.tree.map(np.asarray, variables["params"])
    hidden = np.maximum(np.asarray(x).mean((1, 2)) @ p["reduce"]["kernel"][0, 0] + p["reduce"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ p["expand"]["kernel"][0, 0] + p["expand"]["bias"])))
    np.testing.assert_allclose(module.apply(variables, x), np.asarray(x) * gate[:, None, None], atol=1e-5)


class _Tapped(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        x = nn.tap(self, "first", nn.Dense(4)(x))
        return jnp.sum(nn.tap(self, "second", jnp.sin(x)) ** 2)


def test_tap_names_values_and_gradients_and_is_free_otherwise():
    x, module = _draw(2, 3), _Tapped()
    variables = module.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    plain = jax.make_jaxpr(lambda x: module.apply(variables, x))(x)
    assert len(plain.eqns) == len(
        jax.make_jaxpr(
            lambda x: jnp.sum(jnp.sin(nn.Dense(4).apply({"params": variables["params"]["Dense_0"]}, x)) ** 2)
        )(x).eqns
    )
    _, seen = module.apply(variables, x, mutable=["intermediates"])
    (first,), (second,) = seen["intermediates"]["first"], seen["intermediates"]["second"]
    np.testing.assert_allclose(second, np.sin(first), atol=1e-6)
    zeros = {"first": jnp.zeros_like(first), "second": jnp.zeros_like(second)}
    gradients = jax.grad(lambda zeros: module.apply({**variables, "perturbations": zeros}, x))(zeros)
    np.testing.assert_allclose(gradients["second"], 2 * second, atol=1e-5)
    np.testing.assert_allclose(gradients["first"], 2 * second * np.cos(first), atol=1e-5)
    one = jax.grad(lambda first: module.apply({**variables, "perturbations": {"first": first}}, x))(zeros["first"])
    np.testing.assert_allclose(one, gradients["first"], atol=1e-6)
