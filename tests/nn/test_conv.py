"""Convolutions: two implementations with one answer, equal to flax's and torch's, in value and in gradient."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn

CASES = {
    "same": ((2, 7, 6, 4), {"kernel_size": 3}),
    "strided": ((2, 9, 8, 4), {"kernel_size": 3, "strides": 2}),
    "torch padding": ((2, 9, 8, 4), {"kernel_size": 3, "strides": 2, "padding": 1}),
    "uneven padding": ((2, 5, 8, 4), {"kernel_size": (2, 3), "padding": ((0, 1), (2, 0))}),
    "dilated": ((2, 9, 8, 4), {"kernel_size": 3, "dilation": 2}),
    "valid": ((2, 9, 8, 4), {"kernel_size": (4, 1), "padding": "VALID"}),
    "one by one": ((2, 5, 4, 4), {"kernel_size": 1, "strides": 2}),
    "grouped": ((2, 5, 4, 4), {"kernel_size": 3, "groups": 2}),
    "one channel a group": ((2, 5, 4, 4), {"kernel_size": 3, "groups": 4}),
    "1D": ((2, 11, 3), {"kernel_size": 5, "strides": 2}),
    "1D dilated": ((2, 11, 3), {"kernel_size": 3, "dilation": 3, "padding": 3}),
    "3D": ((1, 5, 4, 3, 2), {"kernel_size": (3, 2, 1), "strides": (2, 1, 1)}),
}


def _value_and_gradients(module, x):
    variables = jax.eval_shape(module.init, jax.random.key(1), x)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape), jnp.float32), variables)

    def loss(variables, x):
        y = module.apply(variables, x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(variables, x)
    return variables, (y, gradients)


def _assert_close(a, b, tolerance=1e-5):
    def compare(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, float(np.abs(b).max())), rtol=0)

    jax.tree.map(compare, a, b)


@pytest.mark.parametrize("name", CASES)
def test_im2col_equals_native_in_value_and_gradients_and_flax(name):
    shape, options = CASES[name]
    x = jax.random.normal(jax.random.key(0), shape)
    module = nn.Conv(8, implementation="native", **options)
    variables, (y, gradients) = _value_and_gradients(module, x)
    _, other = _value_and_gradients(nn.Conv(8, implementation="im2col", **options), x)
    _assert_close(other, (y, gradients))
    axes = len(shape) - 2
    named = {"dilation": "kernel_dilation", "groups": "feature_group_count"}
    theirs = {named.get(key, key): value for key, value in options.items()}
    if isinstance(theirs["kernel_size"], int):
        theirs["kernel_size"] = (theirs["kernel_size"],) * axes
    _assert_close(y, flax.linen.Conv(8, **theirs).apply(variables, x), 1e-6)


def test_auto_is_native_until_the_code_around_says_im2col():
    x = jnp.ones((1, 4, 4, 2))
    conv = nn.Conv(3, 3)
    variables = conv.init(jax.random.key(0), x)

    def primitives():
        return str(jax.make_jaxpr(lambda x: conv.apply(variables, x))(x))

    assert "conv_general_dilated" in primitives()
    with nn.conv_implementation("im2col"):
        assert "conv_general_dilated" not in primitives()
    assert "conv_general_dilated" in primitives()
    with nn.conv_implementation("im2col"):
        explicit = nn.Conv(3, 3, implementation="native")
        assert "conv_general_dilated" in str(jax.make_jaxpr(lambda x: explicit.apply(variables, x))(x))


def test_a_kernel_of_one_tap_is_one_product_on_a_cpu():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 3))
    native = "conv_general_dilated" in str(jax.make_jaxpr(lambda x: nn.convolve(x, kernel, strides=2))(x))
    assert native == (jax.default_backend() != "cpu")
    explicit = jax.make_jaxpr(lambda x: nn.convolve(x, kernel, implementation="native"))(x)
    assert "conv_general_dilated" in str(explicit)


def test_fit_scans_convolutions_that_are_traced_as_im2col_and_learns_the_same():
    random = np.random.default_rng(0)
    data = {"x": random.normal(size=(32, 8, 8, 2)).astype(np.float32), "y": random.integers(0, 3, 32).astype(np.int32)}

    def trained():
        task = jaxdl.tasks.classification(jaxdl.create_model("convnet", num_classes=3, width=4, dropout=0.0))
        plan = jaxdl.Program(jaxdl.gradient_step(task, jaxdl.optim.sgd(0.1)), jaxdl.data.make_feed(data, 8)).plan.mode
        return plan, jaxdl.fit(task, data, optimizer=jaxdl.optim.sgd(0.1), epochs=2, batch_size=8, verbose=0).history

    plain_mode, plain = trained()
    with nn.conv_implementation("im2col"):
        mode, history = trained()
    assert mode == "scan"
    assert plain_mode == ("loop" if jax.default_backend() == "cpu" else "scan")
    losses = [[record["train:loss"] for record in each] for each in (plain, history)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_im2col_under_vmap_over_models_equals_one_model_after_the_other():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    conv = nn.Conv(4, 3, implementation="im2col")
    many = jax.vmap(lambda key: conv.init(key, x))(jax.random.split(jax.random.key(1), 3))
    together = jax.vmap(lambda variables: conv.apply(variables, x))(many)
    for index in range(3):
        one = jax.tree.map(lambda w: w[index], many)  # noqa: B023
        np.testing.assert_allclose(together[index], conv.apply(one, x), atol=1e-5)


@pytest.mark.parametrize("implementation", ["native", "im2col"])
@pytest.mark.parametrize(("multiplier", "strides", "dilation"), [(1, 1, 1), (3, 2, 1), (1, 1, 2)])
def test_depthwise_equals_one_convolution_per_channel(implementation, multiplier, strides, dilation):
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
    module = nn.DepthwiseConv(3, strides, dilation=dilation, multiplier=multiplier, implementation=implementation)
    variables = module.init(jax.random.key(1), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 1, 4 * multiplier)
    y = module.apply(variables, x)
    for channel in range(4):
        features = slice(channel * multiplier, (channel + 1) * multiplier)
        alone = nn.convolve(x[..., channel : channel + 1], kernel[..., features], strides=strides, dilation=dilation)
        np.testing.assert_allclose(y[..., features], alone, atol=1e-5)


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_equals_flax(kernel, strides, padding):
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    theirs = flax.linen.ConvTranspose(6, (kernel, kernel), (strides, strides), padding)
    weights = np.random.default_rng(0).normal(size=(kernel, kernel, 3, 6))
    variables = {"params": {"kernel": jnp.asarray(weights, jnp.float32), "bias": jnp.arange(6.0)}}
    ours = nn.ConvTranspose(6, kernel, strides, padding)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)


@pytest.mark.parametrize("implementation", ["native", "im2col"])
@pytest.mark.parametrize(
    "geometry", [(2, 2, 0, 0, 1), (3, 2, 1, 1, 1), (4, 2, 1, 0, 1), (3, 3, 0, 2, 1), (3, 2, 2, 1, 2), (2, 3, 0, 0, 1)]
)
def test_transposed_with_numbers_as_padding_equals_torch(geometry, implementation):
    torch = pytest.importorskip("torch")
    kernel, strides, padding, output_padding, dilation = geometry
    theirs = torch.nn.ConvTranspose2d(
        3, 6, kernel, strides, padding=padding, output_padding=output_padding, dilation=dilation
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = theirs(torch.from_numpy(x)).detach().numpy().transpose(0, 2, 3, 1)
    weight = theirs.weight.detach().numpy().transpose(2, 3, 0, 1)[::-1, ::-1]
    params = {"kernel": jnp.asarray(weight.copy()), "bias": jnp.asarray(theirs.bias.detach().numpy())}
    module = nn.ConvTranspose(
        6,
        kernel,
        strides,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        implementation=implementation,
    )
    y = module.apply({"params": params}, jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("strides", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 3, 2, 1), (2, 1, 1, 2)])
def test_conv_equals_torch(strides, padding, dilation, groups):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Conv2d(4, 6, 3, strides, padding, dilation, groups)
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 8)).astype(np.float32)
    expected = theirs(torch.from_numpy(x)).detach().numpy().transpose(0, 2, 3, 1)
    params = {
        "kernel": jnp.asarray(theirs.weight.detach().numpy().transpose(2, 3, 1, 0)),
        "bias": jnp.asarray(theirs.bias.detach().numpy()),
    }
    ours = nn.Conv(6, 3, strides, padding, dilation, groups)
    np.testing.assert_allclose(
        ours.apply({"params": params}, jnp.asarray(x.transpose(0, 2, 3, 1))), expected, atol=1e-5
    )


@pytest.mark.parametrize("implementation", ["native", "im2col"])
def test_conv_in_bfloat16_gives_bfloat16_from_float32_parameters(implementation):
    conv = nn.Conv(4, 3, implementation=implementation)
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 8))
    variables = conv.init(jax.random.key(1), x.astype(jnp.bfloat16))
    assert variables["params"]["kernel"].dtype == jnp.float32
    y = conv.apply(variables, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), conv.apply(variables, x), atol=0.1)


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 4, 4, 2), {"kernel_size": (3, 3, 3)}, "kernel_size=.*one for each of 2 axes"),
        ((1, 4, 4, 2), {"kernel_size": 3, "implementation": "fft"}, "implementation='fft': choose one of"),
        ((1, 4, 4, 2), {"kernel_size": 3, "padding": "same"}, "padding='same'"),
        ((1, 4, 4, 2), {"kernel_size": 3, "padding": (1, 2, 3)}, "2 axes of space take one number or pair each"),
        ((1, 4, 4, 2), {"kernel_size": 5, "padding": "VALID"}, "does not fit into"),
        ((1, 4, 4, 3), {"kernel_size": 3, "groups": 2}, "groups=2 must divide 3 channels"),
        ((1, 4, 4, 2), {"kernel_size": 3, "strides": 0}, "strides=0"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(nn.Conv(4, **options).init, jax.random.key(0), jnp.ones(shape))


def test_transposed_refuses_an_output_padding_without_meaning():
    x = jnp.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match="smaller than its stride"):
        jax.eval_shape(nn.ConvTranspose(2, 3, 2, padding=1, output_padding=2).init, jax.random.key(0), x)
    with pytest.raises(ValueError, match="goes with a padding of numbers"):
        jax.eval_shape(nn.ConvTranspose(2, 3, 2, output_padding=1).init, jax.random.key(0), x)


def test_unknown_implementations_in_the_context_are_refused():
    with pytest.raises(ValueError, match='choose "native" or "im2col"'), nn.conv_implementation("auto"):
        pass
