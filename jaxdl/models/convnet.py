"""A small convolutional network for signals, images and volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.stages import Stages

Array = jax.Array

_SPACE = {
    1: ("signals", "[batch, length, channels]"),
    2: ("images", "[batch, height, width, channels]"),
    3: ("volumes", "[batch, depth, height, width, channels]"),
}
_POOLS: dict[str, Callable[[Array], Array]] = {"max": nn.max_pool, "avg": nn.avg_pool}


class ConvNet(linen.Module):
    """Conv-Pool-[Dropout] blocks, then Flatten-Dense-[Dropout]-logits: the workflow of every first course.

    Each block is a convolution that keeps the size and a pool that halves it; each block is twice as wide as the one
    before. The softmax that ends the workflow is part of the loss (`jaxdl.tasks.classification`) and of its
    predictions: what comes out here are logits. Features are block0, block1, ..., after their pools.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: what the last dense layer has.
        width: channels of the first block.
        depth: number of blocks; the input must be at least 2**depth long in each direction.
        hidden: size of the dense layer, or the sizes of several, each followed by dropout; () for none.
        dropout: rate after each dense layer, and half of it after each block; 0 draws nothing.
        batch_norm: normalise after each convolution.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        filters: channels of each block, instead of width and depth.
        kernel: length of the convolutions' windows, odd or even; one number, or one for each direction.
        pool: "max" or "avg", of windows of 2.
        dims: directions: 1 for signals [batch, length, channels], 2 for images, 3 for volumes.
        spatial_dropout: the dropout after a block zeroes whole channels.
        features: names of blocks whose outputs are returned instead of logits.
    """

    num_classes: int
    width: int = 32
    depth: int = 2
    hidden: int | Sequence[int] = 128
    dropout: float | Array = 0.25
    batch_norm: bool = False
    activation: str | Callable[[Array], Array] = "relu"
    filters: Sequence[int] = ()
    kernel: int | Sequence[int] = 3
    pool: str = "max"
    dims: int = 2
    spatial_dropout: bool = False
    features: Sequence[str] = ()

    @property
    def logical_axes(self) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
        """What the dimensions of each parameter are; a kernel has one for each direction."""
        return (
            (r"conv\d+/kernel", (*(None,) * self.dims, "channels_in", "channels_out")),
            (r"(conv|norm)\d+/(bias|scale)", ("channels_out",)),
            (r"dense\d*/kernel", (None, "mlp")),
            (r"dense\d*/bias", ("mlp",)),
            (r"logits/kernel", ("mlp", "classes")),
            (r"logits/bias", ("classes",)),
        )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, *space, channels] floats with `dims` axes of space; mask: [batch] bool, False for padding rows
        (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, hidden] or by name.

        Raises:
            ValueError: x has other axes, or is too small for so many pools; an unknown pool or feature.
        """
        filters = self._checked(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.float32)
        he_uniform = linen.initializers.he_uniform()
        drop = nn.SpatialDropout if self.spatial_dropout else nn.Dropout
        stages = Stages(self, self.features, known=tuple(f"block{index}" for index in range(len(filters))))
        for index, channels in enumerate(filters):
            bias = not self.batch_norm
            x = nn.Conv(channels, self.kernel, use_bias=bias, kernel_init=he_uniform, name=f"conv{index}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(name=f"norm{index}")(x, train=train, mask=mask)
            x = _POOLS[self.pool](nn.activation(self.activation)(x))
            x = stages.reached(f"block{index}", drop(self.dropout * 0.5)(x, train=train))
            if stages.complete:
                return stages.kept
        x = x.reshape(x.shape[0], -1)
        sizes = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        for index, size in enumerate(sizes):
            x = nn.Dense(size, kernel_init=he_uniform, name=f"dense{index or ''}")(x)
            x = nn.Dropout(self.dropout)(nn.activation(self.activation)(x), train=train)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x

    def _checked(self, x: Array) -> tuple[int, ...]:
        """The channels of each block."""
        if self.dims not in _SPACE:
            raise ValueError(f"convnet has dims=1, 2 or 3, not {self.dims}")
        what, shape = _SPACE[self.dims]
        if x.ndim != self.dims + 2:
            fitting = x.ndim - 2
            hint = f"choose dims={fitting} or " if fitting in _SPACE and self.dims == 2 else ""
            raise ValueError(f"convnet takes {what} {shape}, not {x.shape}: {hint}reshape x first")
        if self.pool not in _POOLS:
            raise ValueError(f"pool={self.pool!r}: choose {' or '.join(map(repr, _POOLS))}")
        filters = tuple(self.filters) or tuple(self.width * 2**index for index in range(self.depth))
        least = min(x.shape[1:-1])
        if least < 2 ** len(filters):
            blocks = max(0, least.bit_length() - 1)
            advice = f"use {blocks} filters or fewer" if self.filters else f"choose depth={blocks} or less"
            size = "x".join(map(str, x.shape[1:-1]))
            raise ValueError(
                f"convnet halves the {what[:-1]} {len(filters)} times, which {size} does not allow: {advice}"
            )
        return filters
