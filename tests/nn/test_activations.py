"""Activations by name against their formulas."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import activation, list_activations

_FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", list_activations())
def test_value_equals_the_formula(name):
    points = [-3.0, -0.7, 0.0, 0.4, 2.5]
    expected = [_FORMULAS[name](point) for point in points]
    np.testing.assert_allclose(activation(name)(jnp.array(points)), expected, rtol=2e-6, atol=1e-6)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'leaky_relu'"):
        activation("leakyrelu")


def test_a_function_is_taken_as_it_is():
    assert activation(jnp.tanh) is jnp.tanh
