"""U-Net: an encoder, a decoder, and a bridge between them at each resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, Rule, conv, conv_transpose, norm
from jaxdl.models.stages import Stages

Array = jax.Array

_HE = linen.initializers.he_normal()


class DoubleConv(linen.Module):
    """Two 3x3 convolutions that keep the size, each followed by batch norm (where wanted) and the activation.

    Attributes:
        channels: that come out.
        batch_norm, activation: as in `UNet`.
    """

    channels: int
    batch_norm: bool = True
    activation: str | Callable[[Array], Array] = "relu"

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""
        for number in (1, 2):
            x = nn.Conv(
                self.channels, 3, padding=1, use_bias=not self.batch_norm, kernel_init=_HE, name=f"conv{number}"
            )(x)
            if self.batch_norm:
                x = nn.BatchNorm(name=f"norm{number}")(x, train=train, mask=mask)
            x = nn.activation(self.activation)(x)
        return x


class UNet(linen.Module):
    """U-Net: halves the image `depth` times, then doubles it again beside what it saw on the way down.

    The paper's convolutions shrink the image, so that its output is smaller than its input and the bridges are cropped;
    here they keep the size, as nearly everybody's do, and images of any size come out as large as they went in: a 2x2
    max pool leaves the last row or column of an odd size out, and the decoder puts zeros there.

    Stages are down0, down1, ... (before their pool; down0 has the image's size), bottom, ..., up1, up0.

    Attributes:
        num_classes: how many logits a pixel has; 0: the last map of features, [batch, height, width, width].
        width: channels of the first stage; each stage down has twice as many.
        depth: how many times the image is halved; it must be at least 2**depth high and wide.
        batch_norm: normalise after each 3x3 convolution.
        up: how the decoder doubles: "transposed" (a learned 2x2 transposed convolution of stride 2) or "resize"
            (bilinear, then a 1x1 convolution).
        dropout: rate at the bottom.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        features: names of stages; {name: [batch, height, width, channels]} is returned instead of logits.

    Source: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.
    """

    num_classes: int
    width: int = 64
    depth: int = 4
    batch_norm: bool = True
    up: str = "transposed"
    dropout: float | Array = 0.0
    activation: str | Callable[[Array], Array] = "relu"
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"logits/kernel", (None, None, "channels_in", "classes")),
        (r"logits/bias", ("classes",)),
        (r".*/kernel", (None, None, "channels_in", "channels_out")),
        (r".*/(bias|scale)", ("channels_out",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, height, width, num_classes]; or the features that were asked for.

        Raises:
            ValueError: x is no batch of images, or they are too small; an unknown `up` or feature.
        """
        self._check(x)
        down, up = [f"down{level}" for level in range(self.depth)], [f"up{level}" for level in range(self.depth)][::-1]
        stages = Stages(self, self.features, known=(*down, "bottom", *up))

        def block(x: Array, name: str, level: int) -> Array:
            double = DoubleConv(self.width * 2**level, self.batch_norm, self.activation, name=name)
            return stages.reached(name, double(x, train=train, mask=mask))

        bridges = []
        for level, name in enumerate(down):
            x = block(x, name, level)
            bridges.append(x)
            x = nn.max_pool(x, 2)
        x = nn.Dropout(self.dropout)(block(x, "bottom", self.depth), train=train)
        for level, name in zip(range(self.depth)[::-1], up, strict=True):
            bridge = bridges[level]
            x = self._doubled(x, bridge.shape, f"{name}_spread")
            x = block(jnp.concatenate([bridge, x], axis=-1), name, level)
        if self.num_classes:
            x = nn.Conv(self.num_classes, 1, name="logits")(x)
        return stages.result(x)

    def _doubled(self, x: Array, shape: tuple[int, ...], name: str) -> Array:
        """x at the size of a bridge of this shape, with its number of channels."""
        height, width, channels = shape[1:]
        if self.up == "resize":
            return nn.Conv(channels, 1, kernel_init=_HE, name=name)(nn.resize(x, (height, width)))
        x = nn.ConvTranspose(channels, 2, strides=2, padding="VALID", name=name)(x)
        missing = height - x.shape[1], width - x.shape[2]
        return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))) if any(missing) else x

    def _check(self, x: Array) -> None:
        if x.ndim != 4:
            raise ValueError(f"U-Net takes images [batch, height, width, channels], not {x.shape}")
        if self.up not in ("transposed", "resize"):
            raise ValueError(f'up={self.up!r}: choose "transposed" or "resize"')
        if min(x.shape[1:3]) < 2**self.depth:
            raise ValueError(
                f"a U-Net of depth {self.depth} halves the image {self.depth} times, which {x.shape[1]}x{x.shape[2]} "
                f"does not allow: choose depth={max(0, min(x.shape[1:3]).bit_length() - 1)} or less"
            )

    @staticmethod
    def _torch(model: UNet) -> Peer:
        """The names of the widespread PyTorch form (inc, down1, ..., up1, ..., outc), where `up` is "transposed"."""
        rules: list[Rule] = []
        names = {"down0": "inc.double_conv", "bottom": f"down{model.depth}.maxpool_conv.1.double_conv"}
        names |= {f"down{level}": f"down{level}.maxpool_conv.1.double_conv" for level in range(1, model.depth)}
        names |= {f"up{level}": f"up{model.depth - level}.conv.double_conv" for level in range(model.depth)}
        for ours, peer in names.items():
            for number in (1, 2):
                rules += conv(f"{ours}/conv{number}", f"{peer}.{(number - 1) * 3}")
                rules += norm(f"{ours}/norm{number}", f"{peer}.{(number - 1) * 3 + 1}")
        for level in range(model.depth):
            rules += conv_transpose(f"up{level}_spread", f"up{model.depth - level}.up")
        return Peer((*rules, *conv("logits", "outc.conv")), head=r"outc\.conv\..*")

    peers: ClassVar[Peers] = {"torch": lambda model: UNet._torch(model)}
