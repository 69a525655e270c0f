"""PSPNet: a dilated ResNet under pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.segmentation import ConvNorm, ResNetSegmenter

Array = jax.Array


class PSPNet(ResNetSegmenter):
    """PSPNet: the last stage of a dilated ResNet beside its means over grids of several sizes (pyramid pooling).

    Each grid's cells are averages over as many pixels as fall to them, for sizes that no grid divides too; they go
    through a 1x1 convolution and are resized to the stage, half-pixel centres as everywhere here (the paper's code
    aligns corners). A 3x3 convolution reads all of them and the stage itself.

    Attributes:
        num_classes, depths, width, bottleneck, output_stride, aux, dropout, aux_dropout, features: see
            `ResNetSegmenter`.
        bins: cells along each side of the grids.

    Source: Zhao, Shi, Qi, Wang and Jia, "Pyramid Scene Parsing Network", 2017, on torchvision's ResNet, whose stem is
    one 7x7 convolution instead of three of 3x3.
    """

    bins: Sequence[int] = (1, 2, 3, 6)

    def head(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        """The pyramid and the 3x3 convolution that reads it."""
        if not self.bins or min(self.bins) < 1:
            raise ValueError(f"bins are numbers of cells of at least 1, one or more, not {tuple(self.bins)}")
        size, channels = x.shape[1:3], x.shape[-1]
        branches = [x]
        for number, cells in enumerate(self.bins, start=1):
            pooled = nn.adaptive_avg_pool(x, (cells, cells))
            pooled = ConvNorm(channels // len(self.bins), name=f"bin{number}")(pooled, train=train, mask=mask)
            branches.append(nn.resize(pooled, size))
        x = ConvNorm(channels // 4, 3, name="head")(jnp.concatenate(branches, axis=-1), train=train, mask=mask)
        return nn.Dropout(self.dropout)(x, train=train)
