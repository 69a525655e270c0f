"""A Stack is a loop of its blocks; remat keeps what its name says; what blocks sow comes out by layer."""

from __future__ import annotations

import functools
import re

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn
from jaxdl.nn.stack import remat_policy, run_layers

LAYERS = 3
_X = jax.random.normal(jax.random.key(0), (2, 5, 8))


def _block(**options):
    return nn.TransformerBlock(width=8, heads=2, mlp_width=12, **options)


def _stack(remat="none", unroll=None, **options):
    return nn.Stack(_block(**options), LAYERS, remat=remat, unroll=unroll)


@functools.cache
def _started():
    keys = {"params": nn.light_key(jax.random.key(1))}
    return jax.jit(functools.partial(_stack().init, train=False))(keys, _X)["params"]


def _layer(params, number):
    return jax.tree.map(lambda leaf: leaf[number], params)


@pytest.mark.smoke
@pytest.mark.parametrize("unroll", [False, True])
def test_a_stack_equals_a_loop_of_its_blocks(unroll):
    params, x = _started(), _X
    for number in range(LAYERS):
        x = _block().apply({"params": _layer(params, number)}, x, train=False)
    found = jax.jit(lambda p: _stack(unroll=unroll).apply({"params": p}, _X, train=False))(params)
    np.testing.assert_allclose(found, x, atol=1e-6)


def test_parameters_have_a_leading_axis_of_layers_and_each_layer_its_own():
    params = _started()
    assert set(params) == {"attention", "mlp", "norm1", "norm2"}
    kernel = params["attention"]["query"]["kernel"]
    assert kernel.shape == (LAYERS, 8, 8)
    assert not np.allclose(kernel[0], kernel[1]) and not np.allclose(kernel[1], kernel[2])
    # Each layer is drawn as a block of its own would be: with the deviation of one kernel, not of a stack of them.
    single = _block().init({"params": jax.random.key(2)}, _X, train=False)["params"]["mlp"]["up"]["kernel"]
    assert 0.5 < float(params["mlp"]["up"]["kernel"].std() / single.std()) < 2.0


def test_starting_inside_jit_runs_no_block():
    text = str(jax.make_jaxpr(lambda key: _stack().init({"params": key}, _X, train=False))(jax.random.key(0)))
    compiled = jax.jit(lambda key: _stack().init({"params": key}, _X, train=False)).lower(jax.random.key(0)).compile()
    assert "dot_general" in text  # the trace of one block, of which nothing is left
    assert " dot(" not in compiled.as_text() and "while" not in str(text).split("dot_general")[-1]


def test_each_layer_draws_its_own_dropout():
    class Zeroing(linen.Module):
        @linen.compact
        def __call__(self, x, *, train):
            scale = self.param("scale", linen.initializers.ones, (1,))
            return x, nn.Dropout(0.5)(jnp.ones((64,)) * scale, train=train)

    stack = nn.Stack(Zeroing(), LAYERS)
    params = stack.init(jax.random.key(0), _X, train=False)
    _, drawn = stack.apply(params, _X, train=True, rngs={"dropout": jax.random.key(1)})
    assert drawn.shape == (LAYERS, 64)
    assert len({array.tobytes() for array in np.asarray(drawn)}) == LAYERS
    _, again = stack.apply(params, _X, train=True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(drawn, again)


def test_taps_and_perturbations_have_an_axis_of_layers():
    params = _started()
    y, state = _stack().apply({"params": params}, _X, train=False, mutable=["intermediates"])
    (attended,) = state["intermediates"]["attention_out"]
    (fed,) = state["intermediates"]["mlp_out"]
    assert attended.shape == fed.shape == (LAYERS, *_X.shape)
    np.testing.assert_allclose(_X + attended.sum(0) + fed.sum(0), y, atol=1e-5)  # the residual path is their sum

    def out(perturbations):
        return _stack().apply({"params": params, "perturbations": perturbations}, _X, train=False).sum()

    gradient = jax.grad(out)({"mlp_out": jnp.zeros((LAYERS, *_X.shape))})["mlp_out"]
    np.testing.assert_allclose(gradient[-1], 1.0, atol=1e-6)  # the last layer's goes straight to the sum
    assert not np.allclose(gradient[0], 1.0)


# ---- remat -----------------------------------------------------------------------------------------------------------


def _loops(remat):
    """The loops of the gradient, forward and backward."""

    def loss(params):
        return _stack(remat, unroll=False).apply({"params": params}, _X, train=True).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss))(_started())
    loops = [equation for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "scan"]
    assert len(loops) == 2
    return loops


def _counts(remat, primitive="dot_general"):
    """How often a primitive stands in the forward and in the backward loop."""
    return tuple(len(re.findall(rf"= {primitive}\b", str(loop.params["jaxpr"]))) for loop in _loops(remat))


def test_remat_computes_again_what_its_name_says():
    products = {name: _counts(name) for name in ("none", "dots", "dots_no_batch", "full", "names:mlp_out")}
    assert len({forward for forward, _ in products.values()}) == 1  # six of weights, two of attention
    assert products["none"][0] == 8
    backward = {name: again for name, (_, again) in products.items()}
    assert backward["dots"] == backward["none"] == 16
    # attention's two products have a batch on both sides; the last product of a block is never needed again
    assert backward["dots_no_batch"] == 16 + 2
    assert backward["full"] == 16 + 7
    assert backward["names:mlp_out"] == 16 + 7
    assert _counts("names:attention_out")[1] < 16 + 7
    assert _counts("dots", "erfc")[1] > _counts("none", "erfc")[1]  # what is no product is computed again


def test_remat_keeps_less_between_the_passes_and_gives_the_same_gradient():
    def kept(remat):
        return sum(variable.aval.size for variable in _loops(remat)[0].outvars)

    sizes = {name: kept(name) for name in ("none", "dots", "dots_no_batch", "names:attention_out", "full")}
    assert sizes["none"] > sizes["dots"] > sizes["dots_no_batch"] > sizes["names:attention_out"] > sizes["full"]

    def gradient(remat, unroll):
        return jax.jit(jax.grad(lambda p: (_stack(remat, unroll).apply({"params": p}, _X, train=True) ** 2).sum()))(
            _started()
        )

    plain = gradient("none", False)
    for remat, unroll in (("full", False), ("dots_no_batch", True)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradient(remat, unroll), plain
        )


def test_unknown_policies_get_a_sentence():
    with pytest.raises(ValueError, match="called 'dot'; did you mean 'dots'"):
        remat_policy("dot")
    with pytest.raises(ValueError, match="says which values to keep"):
        remat_policy("names:")


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_run_layers_hands_each_layer_its_own_and_all_what_is_shared():
    def apply_one(params, x, own, shared):
        y = x * params + own["add"] + shared
        return y, y.sum()

    x, shared = jnp.ones((2, 3)), jnp.full((2, 3), 0.5)
    params, own = jnp.array([1.0, 2.0]), {"add": jnp.array([1.0, -1.0])}
    y, sums = run_layers(apply_one, params, x, own, shared)
    np.testing.assert_allclose(y, (1 * 1 + 1 + 0.5) * 2 - 1 + 0.5)
    np.testing.assert_allclose(sums, [2.5 * 6, 4.5 * 6])


def test_a_block_with_statistics_is_refused():
    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x, *, train):
            return nn.BatchNorm()(x, train=train)

    with pytest.raises(ValueError, match="have parameters only; Normed has batch_stats"):
        nn.Stack(Normed(), 2).init(jax.random.key(0), _X, train=False)
