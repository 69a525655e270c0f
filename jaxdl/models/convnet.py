"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.nn import BatchNorm, Dropout, activation, max_pool

Array = jax.Array


class ConvNet(nn.Module):
    """Conv-Pool-[Dropout] blocks, then Flatten-Dense-[Dropout]-logits: the workflow of every first course.

    Each block is a 3x3 convolution that keeps the size and a 2x2 max pool that halves it; each block is twice as
    wide as the one before.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression).
        width: channels of the first block.
        depth: number of blocks; an image must be at least 2**depth wide and high.
        hidden: size of the dense layer.
        dropout: rate after the dense layer, and half of it after each block; 0 draws nothing.
        batch_norm: normalise after each convolution.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
    """

    num_classes: int
    width: int = 32
    depth: int = 2
    hidden: int = 128
    dropout: float | Array = 0.25
    batch_norm: bool = False
    activation: str | Callable[[Array], Array] = "relu"

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes].

        Raises:
            ValueError: x is no batch of images, or the images are too small for so many pools.
        """
        if x.ndim != 4:
            raise ValueError(f"convnet takes images [batch, height, width, channels], not {x.shape}: reshape x first")
        if min(x.shape[1:3]) < 2**self.depth:
            raise ValueError(
                f"convnet halves the image {self.depth} times, which {x.shape[1]}x{x.shape[2]} does not allow: "
                f"choose depth={max(0, min(x.shape[1:3]).bit_length() - 1)} or less"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.float32)
        he_uniform = nn.initializers.he_uniform()
        for index in range(self.depth):
            channels = self.width * 2**index
            x = nn.Conv(channels, (3, 3), use_bias=not self.batch_norm, kernel_init=he_uniform, name=f"conv{index}")(x)
            if self.batch_norm:
                x = BatchNorm(name=f"norm{index}")(x, train=train, mask=mask)
            x = max_pool(activation(self.activation)(x))
            x = Dropout(self.dropout * 0.5)(x, train=train)
        x = x.reshape(x.shape[0], -1)
        x = activation(self.activation)(nn.Dense(self.hidden, kernel_init=he_uniform, name="dense")(x))
        x = Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, name="logits")(x)
