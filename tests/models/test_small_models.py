"""mlp, convnet, linear: parameter counts, outputs by hand, gradients, dropout, batch norm."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import create_model

_X = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
_TINY = {"mlp": {"widths": (6, 5)}, "convnet": {"width": 2, "hidden": 4, "dropout": 0.0}, "linear": {}}


@functools.cache
def _started(name):
    model = create_model(name, num_classes=3, **_TINY[name])
    return model, jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), _X)


def _count(model, x):
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_parameter_counts():
    assert _count(create_model("linear", num_classes=10), _X) == 64 * 10 + 10
    assert _count(create_model("mlp", num_classes=10), _X) == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    convolutions = (9 * 32 + 32) + (9 * 32 * 64 + 64)
    assert _count(create_model("convnet", num_classes=10), _X) == convolutions + (256 * 128 + 128) + (128 * 10 + 10)
    normed = create_model("convnet", num_classes=10, batch_norm=True)
    assert _count(normed, _X) == convolutions + (32 + 64) + (256 * 128 + 128) + (128 * 10 + 10)


def test_linear_and_mlp_equal_the_matrix_products():
    x = np.asarray(_X, np.float64).reshape(4, -1)
    for name in ("linear", "mlp"):
        model, variables = _started(name)
        hidden = x
        for layer in ("hidden0", "hidden1", "logits"):
            if layer in variables["params"]:
                weights = variables["params"][layer]
                hidden = hidden @ np.asarray(weights["kernel"], np.float64) + np.asarray(weights["bias"])
                hidden = np.maximum(hidden, 0) if layer != "logits" else hidden
        np.testing.assert_allclose(model.apply(variables, _X, train=False), hidden, rtol=1e-4, atol=1e-5)


def test_convnet_equals_loops_over_pixels():
    model, variables = _started("convnet")
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    y = np.asarray(_X, np.float64)
    for layer in ("conv0", "conv1"):
        kernel, bias = params[layer]["kernel"], params[layer]["bias"]
        padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = y.shape[1:3]
        out = np.zeros((*y.shape[:3], kernel.shape[-1])) + bias
        for row in range(height):
            for column in range(width):
                patch = padded[:, row : row + 3, column : column + 3]
                out[:, row, column] += np.einsum("bijc,ijco->bo", patch, kernel)
        out = np.maximum(out, 0)
        y = np.maximum(
            np.maximum(out[:, ::2, ::2], out[:, 1::2, ::2]), np.maximum(out[:, ::2, 1::2], out[:, 1::2, 1::2])
        )
    y = np.maximum(y.reshape(4, -1) @ params["dense"]["kernel"] + params["dense"]["bias"], 0)
    y = y @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(model.apply(variables, _X, train=False), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(_TINY))
def test_the_gradient_reaches_every_parameter(name):
    model, variables = _started(name)
    target = jnp.arange(12, dtype=jnp.float32).reshape(4, 3)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum((model.apply(v, _X, train=True) - target) ** 2)))(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_dropout_acts_in_training_only(name):
    model = create_model(name, num_classes=3, **{**_TINY[name], "dropout": 0.5})
    _, variables = _started(name)
    plain = model.apply(variables, _X, train=False)
    first, again, other = (
        model.apply(variables, _X, train=True, rngs={"dropout": jax.random.key(key)}) for key in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, plain)


def test_batch_norm_of_the_convnet_ignores_padding_rows():
    model = create_model("convnet", num_classes=3, batch_norm=True, **_TINY["convnet"])
    variables = model.init(jax.random.key(0), _X, train=False)
    padded = jnp.concatenate([_X, jnp.full((2, 8, 8, 1), 50.0)])

    def outputs(x, mask):
        return model.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])

    whole, state = outputs(_X, None)
    masked, masked_state = outputs(padded, jnp.arange(6) < 4)
    np.testing.assert_allclose(masked[:4], whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), masked_state, state)


def test_convnet_refuses_what_is_no_image_or_too_small():
    model = create_model("convnet", num_classes=3, depth=3)
    with pytest.raises(ValueError, match=r"\[batch, height, width, channels\], not \(4, 64\)"):
        model.init(jax.random.key(0), jnp.ones((4, 64)), train=False)
    with pytest.raises(ValueError, match="choose depth=2 or less"):
        model.init(jax.random.key(0), jnp.ones((4, 7, 9, 1)), train=False)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        create_model("mlp", num_classes=3, activation="rellu").init(jax.random.key(0), _X, train=False)
