"""Activations by name against their formulas, and their derivatives against the closed form."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.mlp import MLP
from jaxdl.nn import PReLU, Swish, activation, describe, list_activations, maxout

POINTS = np.array([-9.0, -3.0, -1.3, -0.7, -0.01, 0.02, 0.4, 2.5, 8.0], np.float32)

_FORMULAS = {
    "binary_step": lambda x: float(x > 0),
    "binary_step_straight_through": lambda x: float(x > 0),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
}
ELEMENTWISE = [name for name in list_activations() if describe(name).derivative is not None]


def test_the_table_is_whole() -> None:
    assert set(ELEMENTWISE) == set(_FORMULAS)
    assert {"prelu", "swish_learned", "maxout", "softmax", "log_softmax"} == set(list_activations()) - set(ELEMENTWISE)
    assert all(describe(name).risk for name in list_activations())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_and_derivatives_equal_the_closed_form(name: str) -> None:
    function = activation(name)
    np.testing.assert_allclose(function(POINTS), [_FORMULAS[name](float(x)) for x in POINTS], rtol=4e-6, atol=1e-6)
    by_jax = jax.vmap(jax.grad(function))(jnp.asarray(POINTS))
    np.testing.assert_allclose(by_jax, describe(name).derivative(jnp.asarray(POINTS)), rtol=1e-5, atol=2e-6)
    if name.startswith("binary"):
        return
    wide = POINTS.astype(np.float64)
    numeric = [(_FORMULAS[name](x + 1e-6) - _FORMULAS[name](x - 1e-6)) / 2e-6 for x in wide]
    np.testing.assert_allclose(by_jax, numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_flat_is_where_the_slope_is_below_a_hundredth_of_its_largest(name: str) -> None:
    dense = jnp.linspace(-12, 12, 4801, dtype=jnp.float32)
    slope = np.abs(np.asarray(describe(name).derivative(dense)))
    if name == "binary_step":  # flat everywhere
        assert bool(describe(name).flat(dense).all())
        return
    np.testing.assert_array_equal(describe(name).flat(dense), slope < np.float32(0.01) * slope.max())


def test_saturation_and_death_are_where_the_table_says() -> None:
    at = lambda name, x: bool(describe(name).flat(jnp.float32(x)))  # noqa: E731
    assert at("relu", -0.1) and not at("relu", 0.1)
    assert at("sigmoid", 6.5) and at("sigmoid", -6.5) and not at("sigmoid", 5.0)
    assert at("tanh", 3.5) and not at("tanh", 2.0)
    assert not at("leaky_relu", -50.0)
    assert at("elu", -5.0) and not at("elu", -2.0)


def test_dtypes_are_kept() -> None:
    for name in ELEMENTWISE:
        for dtype in (jnp.bfloat16, jnp.float32):
            assert activation(name)(jnp.asarray(POINTS, dtype)).dtype == dtype, name


def test_learned_activations_learn() -> None:
    x = jnp.asarray(POINTS).reshape(3, 3)
    variables = PReLU(per_feature=True).init(jax.random.key(0), x)
    assert variables["params"]["slope"].tolist() == [0.25] * 3
    np.testing.assert_allclose(PReLU(per_feature=True).apply(variables, x), np.where(x > 0, x, 0.25 * x))
    gradient = jax.grad(lambda v: PReLU(per_feature=True).apply(v, x).sum())(variables)["params"]["slope"]
    np.testing.assert_allclose(gradient, np.minimum(x, 0).sum(0))
    swish = Swish(initial_beta=2.0)
    variables = swish.init(jax.random.key(0), x)
    np.testing.assert_allclose(swish.apply(variables, x), x / (1 + np.exp(-2 * x)), rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda v: swish.apply(v, x).sum())(variables)["params"]["beta"]
    sigmoid = 1 / (1 + np.exp(-2.0 * POINTS.astype(np.float64)))
    np.testing.assert_allclose(slope, (POINTS**2 * sigmoid * (1 - sigmoid)).sum(), rtol=1e-4)


def test_a_learned_activation_has_parameters_of_its_own_in_every_layer() -> None:
    model = MLP(3, widths=(4, 5), activation="prelu")
    params = model.init(jax.random.key(0), jnp.ones((2, 6)), train=False)["params"]
    assert {"PReLU_0", "PReLU_1"} <= set(params)


def test_maxout_and_the_functions_of_an_axis() -> None:
    x = jnp.asarray([[0.0, -1.0, 2.0, -3.0, 4.0, -5.0], [6.0, -7.0, 8.0, -9.0, 10.0, -11.0]])
    np.testing.assert_array_equal(maxout(x, 3), np.asarray(x).reshape(2, 2, 3).max(-1))
    with pytest.raises(ValueError, match="divide by it, not 6"):
        maxout(x, 4)
    np.testing.assert_allclose(activation("softmax")(x).sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(activation("log_softmax")(x)), activation("softmax")(x), rtol=1e-5)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'leaky_relu'"):
        activation("leakyrelu")


def test_a_function_is_taken_as_it_is() -> None:
    assert activation(jnp.tanh) is jnp.tanh
    assert isinstance(activation("prelu"), nn.Module)
