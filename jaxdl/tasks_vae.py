"""The task of a variational autoencoder: reconstruction and the divergence from the prior, one number an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.core.task import Array, Batch, Context, Loss, Task, Variables
from jaxdl.metrics import MeanOf
from jaxdl.models.vae import LIKELIHOODS, gaussian_kl, reconstruction_cost
from jaxdl.nn.networks import linen_network
from jaxdl.nn.precision import widened
from jaxdl.tasks_network import init_of, run_network, scaled


@dataclass(frozen=True)
class PartOfLoss(MeanOf):
    """The mean of one part of a loss that its task reports by name: preds is {name: [batch]}."""

    name: str

    def _values(self, preds: Any, target: Any) -> tuple[Array, None]:
        return preds[self.name], None


def vae(model: Any, *, likelihood: str = "bernoulli", beta: float = 1.0, warmup: int = 0) -> Task:
    """Inputs as draws of a few latent numbers: minus the evidence lower bound.

        -log p(x | z) + beta * KL(q(z | x) || N(0, 1)),   z drawn from q in training, its mean otherwise

    Both terms are sums (over the numbers of x, over the latents); the loss is their mean over the batch. With the mean
    for z, an evaluation's loss is no bound, and mostly below it: for one, see `jaxdl.models.vae.negative_bound`.

    Args:
        model: such as `vae` or `conv_vae`: a linen module, x -> {"reconstruction", "mean", "logvar"}.
        likelihood: "bernoulli": x in [0, 1], the reconstruction is a logit. "gaussian": of variance 1, half the
            squared error without the constant.
        beta: factor of the divergence; `hyper` "beta" overrides it. 1 is the bound.
        warmup: steps over which beta grows from 0, in training only, against latents that the decoder never learns to
            read (collapse). Evaluations have beta whole.

    Batch:
        x: [batch, ...]; uint8 becomes [0, 1].

    Returns:
        A Task; predictions are {"reconstruction": probabilities or means, "mean", "logvar"}, float32. Its metrics are
        the two terms, "reconstruction" and "kl" (without beta).

    Source: Kingma and Welling, 2014; Higgins et al., "beta-VAE", 2017 (beta); Bowman et al., 2016 (warm-up).
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"vae has no likelihood {likelihood!r}; it has {', '.join(LIKELIHOODS)}")
    if beta < 0 or warmup < 0:
        raise ValueError(f"vae: beta and warmup are at least 0, not {beta} and {warmup}")
    network = linen_network(model)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        outputs, state = run_network(network, variables, batch["x"], context)
        reconstruction = reconstruction_cost(outputs["reconstruction"], scaled(batch["x"], {}), likelihood)
        divergence = gaussian_kl(outputs["mean"], outputs["logvar"])
        factor = jnp.asarray(context.hyper.get("beta", beta), jnp.float32)
        if context.train and warmup:
            factor = factor * jnp.minimum((context.step.astype(jnp.float32) + 1.0) / warmup, 1.0)
        parts = {"reconstruction": reconstruction, "kl": divergence}
        return Loss(reconstruction + factor * divergence, None, {"preds": parts, "target": {}}, state)

    def predict(variables: Variables, batch: Batch) -> dict[str, Array]:
        outputs, _ = run_network(network, variables, batch["x"], None)
        outputs = jax.tree.map(widened, outputs)
        if likelihood == "bernoulli":
            outputs = {**outputs, "reconstruction": jax.nn.sigmoid(outputs["reconstruction"])}
        return outputs

    parts = PartOfLoss("reconstruction"), PartOfLoss("kl")
    return Task(init_of(network), loss, predict, metrics=parts, logical_axes=network.logical_axes)
