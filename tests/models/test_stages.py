"""Stages for the debugger: their values, the gradient of the loss by them, and nothing when nobody asks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import create_model
from tests.models.drawn import drawn_input

TINY = {"width": 8, "depths": (1, 1), "stem": "cifar"}


@functools.cache
def _started():
    x = jnp.asarray(drawn_input((2, 8, 8, 3)))
    model = create_model("resnet18", num_classes=0, **TINY)
    return model, jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x), x


def test_intermediates_are_the_features():
    model, variables, x = _started()
    listened = jax.jit(functools.partial(model.apply, train=False, mutable=["intermediates"]))
    pooled, state = listened(variables, x)
    asked = create_model("resnet18", num_classes=0, features=("c1", "c2", "c3"), **TINY)
    kept = jax.jit(functools.partial(asked.apply, train=False))(variables, x)
    assert set(state["intermediates"]) == {"c1", "c2", "c3"}
    for name, feature in kept.items():
        np.testing.assert_allclose(state["intermediates"][name][0], feature, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled, jnp.mean(kept["c3"], (1, 2)), rtol=1e-5, atol=1e-6)


def test_perturbations_give_the_gradient_by_a_stage():
    model, variables, x = _started()
    weights = jnp.asarray(drawn_input((2, 16), seed=1))
    zeros = {"c3": jnp.zeros((2, 4, 4, 16))}

    def loss(perturbations):
        return jnp.sum(weights * model.apply({**variables, "perturbations": perturbations}, x, train=False))

    value, gradient = jax.jit(jax.value_and_grad(loss))(zeros)
    # The pooled features are means over 4x4 pixels.
    by_hand = jnp.broadcast_to(weights[:, None, None] / 16, (2, 4, 4, 16))
    np.testing.assert_allclose(gradient["c3"], by_hand, rtol=1e-6)
    np.testing.assert_allclose(value, jnp.sum(weights * model.apply(variables, x, train=False)), rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_a_listener_costs_and_nobody_does_not(train):
    model, variables, x = _started()
    plain = ["batch_stats"] if train else []

    def operations(mutable):
        run = functools.partial(model.apply, train=train, mutable=mutable)
        jaxpr = jax.make_jaxpr(run)(variables, x)
        return len(jaxpr.eqns), len(jaxpr.jaxpr.outvars)

    (eqns, outputs), (same, more) = operations(plain), operations([*plain, "intermediates"])
    assert same == eqns and more == outputs + 3
