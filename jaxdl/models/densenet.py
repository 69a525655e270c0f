"""DenseNet: every layer reads what all layers before it in its block have put out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array

_HE = linen.initializers.he_normal()


class DenseLayer(linen.Module):
    """Norm, 1x1 convolution, norm, 3x3 convolution of everything so far: `growth` new channels.

    Attributes:
        growth, bottleneck, dropout, epsilon: as in `DenseNet`.
    """

    growth: int
    bottleneck: int
    dropout: float | Array
    epsilon: float

    @linen.compact
    def __call__(self, parts: Sequence[Array], train: bool, mask: Array | None = None) -> Array:
        """parts: arrays [batch, height, width, channels] of one size; returns [batch, height, width, growth]."""
        x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        x = jax.nn.relu(nn.BatchNorm(epsilon=self.epsilon, name="norm1")(x, train=train, mask=mask))
        x = nn.Conv(self.bottleneck * self.growth, 1, use_bias=False, kernel_init=_HE, name="conv1")(x)
        x = jax.nn.relu(nn.BatchNorm(epsilon=self.epsilon, name="norm2")(x, train=train, mask=mask))
        x = nn.Conv(self.growth, 3, padding=1, use_bias=False, kernel_init=_HE, name="conv2")(x)
        return nn.Dropout(self.dropout)(x, train=train)


def _torchvision(model: DenseNet) -> Peer:
    rules = [*conv("c1_conv", "features.conv0"), *norm("c1_norm", "features.norm0")]
    for block in range(1, len(model.depths) + 1):
        ours, theirs = rf"c{block + 1}_layer(\d+)", rf"features.denseblock{block}.denselayer\1"
        rules += [*conv(rf"{ours}/conv(\d)", rf"{theirs}.conv\2"), *norm(rf"{ours}/norm(\d)", rf"{theirs}.norm\2")]
        between = f"features.transition{block}"
        rules += [
            *conv(f"c{block + 2}_shrink_conv", f"{between}.conv"),
            *norm(f"c{block + 2}_shrink_norm", f"{between}.norm"),
        ]
    rules += [*norm("norm", "features.norm5"), *linear("logits", "classifier")]
    return Peer(tuple(rules), head=r"classifier\..*")


class DenseNet(linen.Module):
    """Densely connected network: layers read all that came before in their block, blocks are joined by shrinking ones.

    Stages are c1 (the stem), c2, c3, c4, c5 (the dense blocks, before the next norm), with strides 2, 4, 8, 16, 32. The
    parameters of stage c3 are those whose path starts with "c3_".

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        depths: layers of each block.
        growth: channels that each layer adds.
        width: channels of the stem; 2 * growth in the published ones.
        bottleneck: the 1x1 convolutions put out so many times `growth`.
        compression: the share of the channels that is left between two blocks.
        dropout: rate after each layer; 0 draws nothing.
        remat: compute the layers again in the backward pass instead of keeping their concatenations, whose memory grows
            with the square of the depth; the results are the same.
        epsilon: of the batch norms.
        features: as in `ResNet`.

    Source: Huang et al., "Densely Connected Convolutional Networks", 2016.
    """

    num_classes: int
    depths: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    dropout: float | Array = 0.0
    remat: bool = False
    epsilon: float = 1e-5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv\d?/kernel", (None, None, "channels_in", "channels_out")),
        (r".*norm\d?/(scale|bias)", ("channels_out",)),
        (r"logits/kernel", ("channels_in", "classes")),
        (r"logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {"torchvision": _torchvision}

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, channels] or by name.

        Raises:
            ValueError: x is no batch of images, or an option cannot be.
        """
        if x.ndim != 4:
            raise ValueError(f"a DenseNet takes images [batch, height, width, channels], not {x.shape}")
        if not 0.0 < self.compression <= 1.0:
            raise ValueError(f"compression is a share in (0, 1], not {self.compression}")

        def activated(x: Array, name: str) -> Array:
            return jax.nn.relu(nn.BatchNorm(epsilon=self.epsilon, name=name)(x, train=train, mask=mask))

        names = [f"c{index + 2}" for index in range(len(self.depths))]
        stages = Stages(self, self.features, known=("c1", *names))
        x = nn.Conv(self.width, 7, strides=2, padding=3, use_bias=False, kernel_init=_HE, name="c1_conv")(x)
        x = stages.reached("c1", activated(x, "c1_norm"))
        # `train` decides what is computed, so it is no array: argument 2 after the module itself and its input.
        kind = linen.remat(DenseLayer, static_argnums=(2,)) if self.remat else DenseLayer
        for index, (name, depth) in enumerate(zip(names, self.depths, strict=True)):
            if stages.complete:
                break
            if index == 0:
                x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=1)
            else:
                x = activated(x, f"{name}_shrink_norm")
                kept = int(x.shape[-1] * self.compression)
                x = nn.Conv(kept, 1, use_bias=False, kernel_init=_HE, name=f"{name}_shrink_conv")(x)
                x = nn.avg_pool(x, (2, 2))
            parts = [x]
            for layer in range(1, depth + 1):
                new = kind(self.growth, self.bottleneck, self.dropout, self.epsilon, name=f"{name}_layer{layer}")
                parts.append(new(parts, train, mask))
            x = stages.reached(name, jnp.concatenate(parts, axis=-1))
        if stages.complete:
            return stages.kept
        x = nn.global_avg_pool(activated(x, "norm"))
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x
