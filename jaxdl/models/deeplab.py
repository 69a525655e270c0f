"""DeepLabV3: a dilated ResNet under atrous spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers
from jaxdl.models.segmentation import ConvNorm, ResNetSegmenter, conv_norm

Array = jax.Array


class DeepLabV3(ResNetSegmenter):
    """DeepLabV3: the last stage of a dilated ResNet seen at several rates at once (atrous spatial pyramid pooling).

    The pyramid is a 1x1 convolution, one 3x3 convolution for each rate, and the mean of the whole image, spread over it
    again; side by side they go through a 1x1 convolution, then a 3x3 one. In training the mean of the image is
    normalised over the batch alone: with one image a batch that branch is constant.

    Attributes:
        num_classes, depths, width, bottleneck, output_stride, aux, aux_dropout, features: see `ResNetSegmenter`.
        dropout: rate after the pyramid.
        channels: of the pyramid's branches; None: 4 * width, 256 by default.
        rates: dilation of each 3x3 branch; None: (12, 24, 36) at an output stride of 8, half as much at 16.

    Source: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017;
    the head and the counts are torchvision's.
    """

    dropout: float | Array = 0.5
    channels: int | None = None
    rates: Sequence[int] | None = None

    def head(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        """The pyramid and the 3x3 convolution after it."""
        channels = 4 * self.width if self.channels is None else self.channels
        rates = [96 // self.output_stride * factor for factor in (1, 2, 3)] if self.rates is None else self.rates
        if not rates or min(rates) < 1:
            raise ValueError(f"rates are dilations of at least 1, one or more, not {tuple(rates)}")
        branches = [ConvNorm(channels, name="aspp_point")(x, train=train, mask=mask)]
        for number, rate in enumerate(rates, start=1):
            branches.append(ConvNorm(channels, 3, rate, name=f"aspp_rate{number}")(x, train=train, mask=mask))
        pooled = ConvNorm(channels, name="aspp_image")(nn.global_avg_pool(x)[:, None, None], train=train, mask=mask)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = ConvNorm(channels, name="aspp")(jnp.concatenate(branches, axis=-1), train=train, mask=mask)
        x = nn.Dropout(self.dropout)(x, train=train)
        return ConvNorm(channels, 3, name="head")(x, train=train, mask=mask)

    def _names(self) -> Peer:
        head = [
            *conv_norm("aspp_point", "classifier.0.convs.0.0", "classifier.0.convs.0.1"),
            *conv_norm("aspp", "classifier.0.project.0", "classifier.0.project.1"),
            *conv_norm("head", "classifier.1", "classifier.2"),
        ]
        count = 3 if self.rates is None else len(self.rates)
        for number in range(1, count + 1):
            branch = f"classifier.0.convs.{number}"
            head += conv_norm(f"aspp_rate{number}", f"{branch}.0", f"{branch}.1")
        image = f"classifier.0.convs.{count + 1}"
        head += conv_norm("aspp_image", f"{image}.1", f"{image}.2")
        return self._torchvision(tuple(head), "classifier.4")

    peers: ClassVar[Peers] = {"torchvision": _names}
