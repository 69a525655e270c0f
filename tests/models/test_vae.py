"""Variational autoencoders: the bound and its parts, the draw of the latents, both coders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn, tasks
from jaxdl.core.keys import step_key
from jaxdl.core.task import Context, Hyper
from jaxdl.models import create_model
from jaxdl.models.vae import gaussian_kl, generate, negative_bound

KEY = jax.random.key(3)
TINY = {"shape": (8, 8, 1), "latents": 3, "widths": (16,)}


def started(name: str = "vae", **options):
    model = create_model(name, **TINY | options)
    x = jax.random.uniform(jax.random.key(1), (4, *model.shape), jnp.float32)
    return model, model.init(nn.light_key(jax.random.key(0)), x, train=False), x


def context(train: bool, step: int = 0, **hyper):
    numbers = Hyper({name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()})
    at = jnp.asarray(step, jnp.int32)
    return Context(train, lambda name: step_key(jnp.uint32(0), name, at), at, numbers, jnp.ones(4))


def test_the_divergence_is_the_integral():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(1, 1)).astype(np.float32), rng.normal(size=(1, 1)).astype(np.float32)
    z = np.linspace(-15, 15, 200_001)
    scale = np.exp(logvar[0, 0] / 2)
    log_q = -((z - mean[0, 0]) ** 2) / (2 * scale**2) - np.log(scale * np.sqrt(2 * np.pi))
    log_p = -(z**2) / 2 - np.log(np.sqrt(2 * np.pi))
    integral = np.sum(np.exp(log_q) * (log_q - log_p)) * (z[1] - z[0])
    np.testing.assert_allclose(gaussian_kl(jnp.asarray(mean), jnp.asarray(logvar)), [integral], rtol=1e-4)
    wide = gaussian_kl(jnp.tile(mean, (5, 4)), jnp.tile(logvar, (5, 4)))
    np.testing.assert_allclose(wide, np.full(5, 4 * integral), rtol=1e-4)  # summed over latents, one an example


@pytest.mark.parametrize("name", ["vae", "conv_vae"])
def test_training_draws_around_the_mean_and_evaluation_takes_it(name):
    model, variables, x = started(name)
    asked = model.clone(features=("latent",))
    outputs = model.apply(variables, x, train=False)
    assert outputs["reconstruction"].shape == x.shape and outputs["mean"].shape == outputs["logvar"].shape == (4, 3)
    np.testing.assert_array_equal(asked.apply(variables, x, train=False)["latent"], outputs["mean"])
    draw = jax.jit(lambda key: asked.apply(variables, x, train=True, rngs={"dropout": key})["latent"])
    np.testing.assert_array_equal(draw(jax.random.key(0)), draw(jax.random.key(0)))
    draws = np.stack([draw(jax.random.key(seed)) for seed in range(400)])
    deviation = np.exp(np.asarray(outputs["logvar"]) / 2)
    np.testing.assert_allclose(draws.mean(0), outputs["mean"], atol=5 * deviation.max() / 20)
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.2)
    np.testing.assert_array_equal(model.apply(variables, outputs["mean"], method="decode"), outputs["reconstruction"])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_a_sum_over_pixels_and_latents_for_each_example(likelihood):
    model, variables, x = started()
    task = tasks.vae(model, likelihood=likelihood, beta=0.5)
    loss = task.loss(variables, {"x": x}, context(False))
    given = np.asarray(model.apply(variables, x, train=False)["reconstruction"], np.float64)
    target = np.asarray(x, np.float64)
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-given))
        cost = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    else:
        cost = (given - target) ** 2 / 2
    outputs = model.apply(variables, x, train=False)
    expected = cost.reshape(4, -1).sum(1) + 0.5 * np.asarray(gaussian_kl(outputs["mean"], outputs["logvar"]))
    assert loss.value.shape == (4,) and loss.weight is None
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "likelihood"), [("vae", "bernoulli"), ("vae", "gaussian"), ("conv_vae", "bernoulli")])
def test_the_bound_is_the_mean_over_the_latents_and_not_their_mean(name, likelihood):
    """By an integral over one latent number that is far from certain."""
    model, variables, x = started(name, latents=1)
    mean, logvar = model.apply(variables, x, method="encode")
    z = np.linspace(-7, 7, 1001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    latents = np.asarray(mean)[:, 0] + np.exp(np.asarray(logvar)[:, 0] / 2) * z[:, None]
    given = np.asarray(
        jax.jit(lambda z: model.apply(variables, z, method="decode"))(np.float32(latents.reshape(-1, 1)))
    )
    given, target = np.float64(given).reshape(1001, 4, -1), np.asarray(x, np.float64).reshape(4, -1)
    cost = np.logaddexp(0, given) - target * given if likelihood == "bernoulli" else (given - target) ** 2 / 2
    integral = weight @ cost.sum(-1)
    deviation = np.sqrt(weight @ (cost.sum(-1) - integral) ** 2)
    expected = integral + np.asarray(gaussian_kl(mean, logvar), np.float64)
    draws = 4000
    bound = jax.jit(lambda x: negative_bound(model, variables, x, KEY, draws=draws, likelihood=likelihood))
    assert (np.abs(np.asarray(bound(x)) - expected) < 4 * deviation / np.sqrt(draws)).all()
    evaluated = np.asarray(tasks.vae(model, likelihood=likelihood).loss(variables, {"x": x}, context(False)).value)
    assert (np.abs(evaluated - expected) > 8 * deviation / np.sqrt(draws)).all(), "the loss of an evaluation is another"


def test_the_bound_takes_bytes_and_refuses_what_is_no_bound():
    model, variables, x = started()
    pixels = jnp.rint(x * 255).astype(jnp.uint8)
    both = [
        negative_bound(model, variables, given, KEY, draws=2) for given in (pixels, pixels.astype(jnp.float32) / 255)
    ]
    np.testing.assert_allclose(*both, rtol=1e-6)
    with pytest.raises(ValueError, match="1 draw or more"):
        negative_bound(model, variables, x, KEY, draws=0)
    with pytest.raises(ValueError, match="no likelihood 'poisson'"):
        negative_bound(model, variables, x, KEY, likelihood="poisson")


def test_beta_grows_in_training_only_and_hyper_overrides_it():
    model, variables, x = started()
    task = tasks.vae(model, beta=2.0, warmup=10)

    def factor(train: bool, step: int, **hyper) -> float:
        loss = task.loss(variables, {"x": x}, context(train, step, **hyper))
        parts = loss.outputs["preds"]
        return float(((loss.value - parts["reconstruction"]) / parts["kl"])[0])

    np.testing.assert_allclose([factor(True, step) for step in (0, 4, 9, 50)], [0.2, 1.0, 2.0, 2.0], rtol=1e-3)
    np.testing.assert_allclose(factor(False, 0), 2.0, rtol=1e-3)
    np.testing.assert_allclose(factor(False, 0, beta=0.25), 0.25, rtol=1e-3)


def test_a_vae_learns_bars_reconstructs_them_and_draws_new_ones():
    x = np.zeros((64, 8, 8, 1), np.uint8)
    for row in range(64):
        x[row, :, row % 8] = 255
    model = create_model("vae", **TINY)
    run = jaxdl.fit(
        tasks.vae(model, beta=0.5), {"x": x}, steps=300, batch_size=64, optimizer=jaxdl.optim.adam(1e-2), verbose=0
    )
    values = run.evaluate({"x": x})
    np.testing.assert_allclose(values["loss"], values["reconstruction"] + 0.5 * values["kl"], rtol=1e-4)
    found = run.predict({"x": x[:8]})
    assert (found["reconstruction"][..., 0].mean(1).argmax(-1) == np.arange(8)).all()
    drawn = np.asarray(generate(model, {"params": run.state.params}, jax.random.key(0), 32))
    assert drawn.shape == (32, 8, 8, 1) and 0 <= drawn.min() < 0.1 and 0.9 < drawn.max() <= 1


def test_what_does_not_fit_is_refused_in_a_sentence():
    x = jnp.zeros((2, 8, 8, 1))
    for name, options, sentence in (
        ("vae", {"shape": (9, 8, 1)}, r"vae of shape=\(9, 8, 1\) takes \[batch, 9, 8, 1\]"),
        ("vae", {"coder": "lstm"}, "no coder 'lstm'; it has dense, conv"),
        ("vae", {"widths": ()}, "layers, each of one number or more"),
        ("conv_vae", {"widths": (2, 2, 2, 2)}, "whose sides divide by 16"),
    ):
        with pytest.raises(ValueError, match=sentence):
            create_model(name, **TINY | options).init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match="no likelihood 'poisson'"):
        tasks.vae(create_model("vae"), likelihood="poisson")
