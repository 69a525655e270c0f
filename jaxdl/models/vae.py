"""Variational autoencoders, dense and convolutional."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.stages import Stages
from jaxdl.nn.precision import widened

Array = jax.Array
CODERS = ("dense", "conv")
LIKELIHOODS = ("bernoulli", "gaussian")


class VAE(linen.Module):
    """An encoder to a Gaussian over a few latent numbers, and a decoder from a draw of it back to the input.

    "dense" has layers that grow narrower and the same in reverse; "conv" has 4x4 convolutions of stride 2 that grow
    wider, and transposed ones back. The encoder ends in a mean and a logarithm of the variance (not a deviation: any
    real number is one). In training the latents are drawn, mean + exp(logvar / 2) * noise, from the key that the task
    hands in (linen's stream "dropout"); otherwise they are the mean, so that evaluation is deterministic.

    Attributes:
        shape: of one example: (8, 8, 1), (30,) ...; images where the coder is "conv", whose sides divide by
            2**depth.
        latents: how many latent numbers.
        coder: "dense" or "conv".
        width: of the encoder's first layer; each further one is half as wide ("dense") or twice as wide ("conv").
        depth: number of the encoder's layers.
        widths: of the encoder's layers, one by one, instead of width and depth.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        features: "mean", "logvar" or "latent" instead of all outputs.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014.
    """

    shape: Sequence[int] = (28, 28, 1)
    latents: int = 16
    coder: str = "dense"
    width: int = 512
    depth: int = 2
    widths: Sequence[int] | None = None
    activation: Any = "relu"
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"conv_(in|out)_\d+/kernel", (None, None, "channels_in", "channels_out")),
        (r"conv_(in|out)_\d+/bias", ("channels_out",)),
        (r"output_conv/kernel", (None, None, "channels_in", None)),
        (r"(dense_(in|out)_\d+|seed)/kernel", (None, "hidden")),
        (r"(dense_(in|out)_\d+|seed)/bias", ("hidden",)),
        (r"(mean|logvar|output)/kernel", ("hidden", None)),
        (r"(mean|logvar|output|output_conv)/bias", (None,)),
    )

    def setup(self) -> None:
        """The layers of both halves, so that either can be called alone."""
        shape, widths = tuple(self.shape), self._sizes()
        he = linen.initializers.he_normal()
        if self.coder not in CODERS:
            raise ValueError(f"vae has no coder {self.coder!r}; it has {', '.join(CODERS)}")
        if not widths or min(widths) < 1 or self.latents < 1:
            raise ValueError(
                f"vae needs layers, each of one number or more, and one latent or more, not {widths}, {self.latents}"
            )
        if self.coder == "dense":
            self.dense_in = [nn.Dense(width, kernel_init=he) for width in widths]
            self.dense_out = [nn.Dense(width, kernel_init=he) for width in widths[::-1]]
            self.output = nn.Dense(math.prod(shape))
        else:
            factor = 2 ** len(widths)
            if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
                raise ValueError(
                    f"a convolutional vae of {len(widths)} layers takes images (height, width, channels) whose sides "
                    f"divide by {factor}, not {shape}: pad them, or give a smaller depth"
                )
            self.conv_in = [nn.Conv(width, 4, strides=2, padding=1, kernel_init=he) for width in widths]
            self.seed = nn.Dense(math.prod(self._seed_shape()), kernel_init=he)
            back = [*widths[::-1][1:], widths[0]]
            self.conv_out = [nn.ConvTranspose(width, 4, strides=2, padding=1, kernel_init=he) for width in back]
            self.output_conv = nn.Conv(shape[-1], 3, padding=1)
        self.mean = nn.Dense(self.latents)
        self.logvar = nn.Dense(self.latents)

    def __call__(self, x: Array, *, train: bool) -> dict[str, Array]:
        """x: [batch, *shape] floats.

        Returns:
            {"reconstruction": [batch, *shape] (logits of a Bernoulli, or means of a Gaussian: the task says),
            "mean": [batch, latents], "logvar": [batch, latents]}; or the features asked for.
        """
        reached = Stages(self, self.features, known=("mean", "logvar", "latent"))
        mean, logvar = self.encode(x)
        mean, logvar = reached.reached("mean", mean), reached.reached("logvar", logvar)
        latent = mean
        if train:
            noise = jax.random.normal(self.make_rng("dropout"), mean.shape, jnp.float32).astype(mean.dtype)
            latent = mean + jnp.exp(0.5 * logvar) * noise
        latent = reached.reached("latent", latent)
        return reached.result({"reconstruction": self.decode(latent), "mean": mean, "logvar": logvar})

    def encode(self, x: Array) -> tuple[Array, Array]:
        """x [batch, *shape] -> mean and logarithm of the variance, [batch, latents] each.

        Raises:
            ValueError: x has another shape.
        """
        if x.shape[1:] != tuple(self.shape):
            raise ValueError(f"vae of shape={tuple(self.shape)} takes [batch, {', '.join(map(str, self.shape))}], "
                             f"not {x.shape}")  # fmt: skip
        act = nn.activation(self.activation)
        if self.coder == "dense":
            x = x.reshape(x.shape[0], -1)
        for layer in self.dense_in if self.coder == "dense" else self.conv_in:
            x = act(layer(x))
        x = x.reshape(x.shape[0], -1)
        return self.mean(x), self.logvar(x)

    def decode(self, latent: Array) -> Array:
        """latent [batch, latents] -> [batch, *shape], as the reconstruction."""
        act, x = nn.activation(self.activation), latent
        if self.coder == "conv":
            x = act(self.seed(x)).reshape(x.shape[0], *self._seed_shape())
        for layer in self.dense_out if self.coder == "dense" else self.conv_out:
            x = act(layer(x))
        x = self.output(x) if self.coder == "dense" else self.output_conv(x)
        return x.reshape(x.shape[0], *self.shape)

    def _sizes(self) -> tuple[int, ...]:
        """Of the encoder's layers."""
        if self.widths is not None:
            return tuple(self.widths)
        wider = self.coder == "conv"
        return tuple(self.width * 2**layer if wider else self.width // 2**layer for layer in range(self.depth))

    def _seed_shape(self) -> tuple[int, int, int]:
        """Of what the transposed convolutions start from."""
        widths = self._sizes()
        factor = 2 ** len(widths)
        return self.shape[0] // factor, self.shape[1] // factor, widths[-1]


def gaussian_kl(mean: Array, logvar: Array) -> Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over the latents: [batch], at least float32.

    sum (exp(logvar) + mean^2 - 1 - logvar) / 2
    """
    mean, logvar = widened(mean), widened(logvar)
    return 0.5 * jnp.sum(jnp.exp(logvar) + mean * mean - 1.0 - logvar, axis=-1)


def negative_bound(
    model: VAE, variables: Mapping[str, Any], x: Array, key: Array, *, draws: int = 16, likelihood: str = "bernoulli"
) -> Array:
    """What -log p(x) is at most, [batch], in nats: the mean over draws of the latents, as the paper has it.

    -log p(x | z) + KL(q(z | x) || N(0, 1)),   z drawn from q. Evaluations decode the mean instead, so that they are
    deterministic; their loss is mostly lower, and no bound.

    Args:
        model: as it was trained.
        variables: {"params": run.state.params}.
        x: [batch, *shape] floats, or uint8, which becomes [0, 1].
        key: of the draws.
        draws: how many, all decoded at once; the mean is right whatever their number, and scatters less with more.
        likelihood: as in the task. A Gaussian's lacks the constant log(2 pi) / 2 a number.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"vae has no likelihood {likelihood!r}; it has {', '.join(LIKELIHOODS)}")
    if draws < 1:
        raise ValueError(f"negative_bound takes the mean over 1 draw or more, not {draws}")
    x = jnp.asarray(x)
    x = x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x

    encoded: Any = model.apply(dict(variables), x, method="encode")
    mean, logvar = encoded
    noise = jax.random.normal(key, (draws, *mean.shape), jnp.float32)
    latents = (mean[None] + jnp.exp(0.5 * logvar)[None] * noise).reshape(-1, model.latents)
    decoded: Any = model.apply(dict(variables), latents, method="decode")
    repeated = jnp.broadcast_to(x[None], (draws, *x.shape)).reshape(decoded.shape)
    cost = reconstruction_cost(decoded, repeated, likelihood).reshape(draws, -1)
    return jnp.mean(cost, axis=0) + gaussian_kl(mean, logvar)


def reconstruction_cost(reconstruction: Array, x: Array, likelihood: str) -> Array:
    """-log p(x | z), summed over the numbers of an example: [batch], at least float32."""
    x = widened(x)
    if likelihood == "bernoulli":
        cost = nn.sigmoid_cross_entropy(reconstruction, x)
    else:
        cost = 0.5 * nn.squared_error(reconstruction, x)
    return jnp.sum(cost.reshape(cost.shape[0], -1), axis=-1)


def generate(
    model: VAE, variables: Mapping[str, Any], key: Array, count: int, *, likelihood: str = "bernoulli"
) -> Array:
    """New examples: the decoder's mean for `count` draws of the prior, [count, *shape].

    Args:
        model: as it was trained.
        variables: {"params": run.state.params}.
        key: of the draws.
        count: how many.
        likelihood: as in the task: "bernoulli" gives probabilities, "gaussian" the numbers themselves.
    """
    latent = jax.random.normal(key, (count, model.latents), jnp.float32)
    decoded: Any = model.apply(dict(variables), latent, method="decode")
    return jax.nn.sigmoid(decoded) if likelihood == "bernoulli" else decoded
