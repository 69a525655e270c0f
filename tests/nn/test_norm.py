"""Norms against torch and flax; batch norm with padding rows and with rows spread over devices."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn


def _draw(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(1.0, 2.0, shape), jnp.float32)


def _norm(x, mask=None, train=True, statistics=None, **options):
    module = nn.BatchNorm(**options)
    variables = module.init(jax.random.key(0), x, train=False)
    if statistics is not None:
        variables = {**variables, "batch_stats": statistics}
    return module.apply(variables, x, train=train, mask=mask, mutable=["batch_stats"])


def test_batch_norm_equals_flax():
    x = 3.0 * _draw(6, 4, 4, 5) + 2.0
    theirs = flax.linen.BatchNorm(use_running_average=False, momentum=0.9)
    expected, expected_state = theirs.apply(theirs.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    y, state = _norm(x)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)


def test_batch_norm_with_padding_rows_equals_the_batch_without_them():
    x = _draw(8, 3, 5) * 4.0
    padded = x.at[5:].set(1e4)
    mask = jnp.arange(8) < 5
    y, state = _norm(padded, mask)
    expected, expected_state = _norm(x[:5])
    np.testing.assert_allclose(y[:5], expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)


def test_batch_norm_of_nothing_but_padding_stays_finite_and_keeps_its_statistics():
    statistics = {"mean": jnp.full(5, 2.0), "var": jnp.full(5, 3.0)}
    y, state = _norm(jnp.ones((4, 5)), jnp.zeros(4, jnp.bool_), statistics=statistics)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], statistics)


def test_batch_norm_uses_running_averages_outside_training_and_leaves_them():
    statistics = {"mean": jnp.full(5, 2.0), "var": jnp.full(5, 4.0)}
    y, state = _norm(jnp.full((4, 5), 6.0), train=False, statistics=statistics)
    np.testing.assert_allclose(y, 2.0, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], statistics)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    x = (100.0 + jax.random.normal(jax.random.key(1), (512, 2))).astype(jnp.bfloat16)
    y, state = _norm(x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * exact.var(axis=0), rtol=1e-5)


def test_batch_norm_refuses_a_mask_of_another_shape():
    with pytest.raises(ValueError, match="mask of batch norm"):
        _norm(jnp.ones((4, 5)), jnp.ones((4, 5), jnp.bool_))


@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_over_a_named_axis_has_the_statistics_of_all_rows(masked):
    x = _draw(8, 3, 5)
    mask = jnp.arange(8) < 5 if masked else None
    expected, expected_state = _norm(x, mask)
    module = nn.BatchNorm(axis_name="devices")
    variables = module.init(jax.random.key(0), x, train=False)

    def part(x, mask=None):
        return module.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])

    parts = [x.reshape(4, 2, 3, 5), *([mask.reshape(4, 2)] if masked else [])]
    y, state = jax.vmap(part, axis_name="devices")(*parts)
    np.testing.assert_allclose(y.reshape(x.shape), expected, atol=1e-5)
    for device in range(4):
        mine = jax.tree.map(lambda leaf: leaf[device], state)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mine, expected_state)


@pytest.mark.devices8
def test_batch_norm_on_eight_devices_has_the_statistics_of_all_rows():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = _draw(16, 3, 5)
    expected, expected_state = _norm(x)
    y, state = jax.jit(_norm)(jax.device_put(x, split))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)
    module = nn.BatchNorm(axis_name="data")
    variables = module.init(jax.random.key(0), x, train=False)
    spec = jax.sharding.PartitionSpec
    sharded = jax.shard_map(
        lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"]),
        mesh=mesh,
        in_specs=spec("data"),
        out_specs=(spec("data"), spec()),
    )
    y, state = jax.jit(sharded)(x)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected_state)


def _random_parameters(module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(random.normal(1.0, 0.5, s.shape), jnp.float32), shapes)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nn.LayerNorm(1e-3), flax.linen.LayerNorm(epsilon=1e-3, use_fast_variance=False)),
        (nn.LayerNorm(use_bias=False, use_scale=False), flax.linen.LayerNorm(1e-5, use_bias=False, use_scale=False)),
        (nn.RMSNorm(1e-3), flax.linen.RMSNorm(epsilon=1e-3)),
        (nn.GroupNorm(3, 1e-3), flax.linen.GroupNorm(3, epsilon=1e-3, use_fast_variance=False)),
    ],
)
def test_norms_equal_flax_in_value_and_gradient(ours, theirs):
    x = _draw(2, 4, 5, 6)
    variables = _random_parameters(ours, x)

    def value_and_gradient(module):
        def loss(x):
            y = module.apply(variables, x)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

        with jax.numpy_rank_promotion("allow"):  # for flax
            return jax.grad(loss, has_aux=True)(x)

    for a, b in zip(value_and_gradient(ours), value_and_gradient(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_norms_equal_torch():
    torch = pytest.importorskip("torch")
    x = np.asarray(_draw(2, 4, 5, 6))
    channels_first = torch.tensor(np.moveaxis(x, -1, 1).copy())
    pairs = [
        (nn.LayerNorm(), torch.nn.LayerNorm(6)(torch.tensor(x)), False),
        (nn.GroupNorm(2), torch.nn.GroupNorm(2, 6)(channels_first), True),
        (nn.GroupNorm(6), torch.nn.InstanceNorm2d(6)(channels_first), True),
    ]
    for size, k, beta in ((5, 2.0, 0.75), (4, 1.0, 0.5), (2, 1.0, 0.75), (1, 1.0, 0.75)):
        theirs = torch.nn.LocalResponseNorm(size, alpha=0.3, beta=beta, k=k)(channels_first)
        pairs.append((nn.LocalResponseNorm(size, alpha=0.3, beta=beta, k=k), theirs, True))
    for ours, expected, moved in pairs:
        expected = expected.detach().numpy()
        y = ours.apply(ours.init(jax.random.key(0), jnp.asarray(x)), jnp.asarray(x))
        np.testing.assert_allclose(y, np.moveaxis(expected, 1, -1) if moved else expected, atol=1e-5)


def test_statistics_of_bfloat16_inputs_are_float32():
    x = (1000.0 + 10.0 * _draw(4, 512)).astype(jnp.bfloat16)
    for module in (nn.LayerNorm(), nn.GroupNorm(1), nn.RMSNorm(), nn.L2Norm()):
        variables = module.init(jax.random.key(0), x)
        y = module.apply(variables, x)
        assert y.dtype == jnp.bfloat16
        exact = module.apply(variables, x.astype(jnp.float32))
        np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-7)


def test_l2_norm_gives_channels_their_learned_length_and_survives_zeros():
    x = _draw(2, 3, 4)
    module = nn.L2Norm()
    variables = module.init(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["params"]["scale"], 20.0)
    np.testing.assert_allclose(jnp.linalg.norm(module.apply(variables, x), axis=-1), 20.0, rtol=1e-5)
    fixed = nn.L2Norm(1.0, learned=False)
    np.testing.assert_allclose(jnp.linalg.norm(fixed.apply({}, x), axis=-1), 1.0, rtol=1e-5)
    value, gradient = jax.value_and_grad(lambda x: module.apply(variables, x).sum())(jnp.zeros((1, 1, 4)))
    assert value == 0.0
    assert np.isfinite(gradient).all()


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="4 groups needs channels that divide by them, not 6"):
        nn.GroupNorm(4).init(jax.random.key(0), jnp.ones((1, 6)))
