"""Squeeze and excite: channels weighted by what the whole image holds."""

from __future__ import annotations

import flax.linen as linen
import jax

from jaxdl.nn.activations import activation
from jaxdl.nn.conv import Conv
from jaxdl.nn.pool import global_avg_pool

Array = jax.Array


class SqueezeExcite(linen.Module):
    """x * gate(expand(act(reduce(mean of x over space)))): one number in [0, 1] for each example and channel.

    Parameters: `reduce` and `expand`, 1x1 convolutions with bias, as torchvision's fc1 and fc2.

    Attributes:
        hidden: channels between the two.
        activation: after `reduce`; a name.
        gate: after `expand`; a name.

    Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", 2018.
    """

    hidden: int
    activation: str = "relu"
    gate: str = "sigmoid"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, *space, channels]; the same shape."""
        pooled = global_avg_pool(x).reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        hidden = activation(self.activation)(Conv(self.hidden, 1, name="reduce")(pooled))
        return x * activation(self.gate)(Conv(x.shape[-1], 1, name="expand")(hidden))
