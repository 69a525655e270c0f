"""AlexNet: five convolutions and three dense layers, torchvision's and the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv, linear
from jaxdl.models.stages import Stages

Array = jax.Array

_HE = linen.initializers.he_normal()


class AlexNet(linen.Module):
    """Five convolutions with three overlapping pools, then three dense layers.

    The defaults are torchvision's, which are those of the later "one weird trick" paper: 64, 192, 384, 256, 256
    channels, no normalisation, one tower. "alexnet_paper" of the registry is the network of 2012: 96, 256, 384, 384,
    256 channels, local response normalisation after the first two convolutions, and the second, fourth and fifth in two
    groups, which were on two GPUs; its images are 227x227 without padding. Features are c1 to c5, each convolution
    after its activation, normalisation and pool where it has them (strides 8, 16, 16, 16, 32).

    Attributes:
        num_classes: how many logits come out; 0: the [batch, hidden] features before them.
        width: channels of the first convolution, with those of the others and `hidden` in proportion; None: as they
            stand in `widths` and `hidden`.
        depth: how many of the five convolutions, from the first on.
        widths: channels of the five convolutions.
        hidden: of the two dense layers before the logits.
        groups: of the second, fourth and fifth convolution.
        response_norm: local response normalisation after the first two convolutions.
        first_padding: zeros around the image.
        pool: the last feature map is averaged to this size before the dense layers; one number or (height, width).
        dropout: rate before each of the two dense layers, as in torchvision (the paper: after each).
        features: names of stages whose outputs are returned instead of logits.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012;
    Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
    """

    num_classes: int
    width: int | None = None
    depth: int = 5
    widths: Sequence[int] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    groups: int = 1
    response_norm: bool = False
    first_padding: int = 2
    pool: int | tuple[int, int] = 6
    dropout: float | Array = 0.5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"conv\d/kernel", (None, None, "channels_in", "channels_out")),
        (r"conv\d/bias", ("channels_out",)),
        (r"fc6/kernel", (None, "mlp")),
        (r"fc6/bias", ("mlp",)),
        (r"fc7/kernel", ("mlp", "embed")),
        (r"fc7/bias", ("embed",)),
        (r"logits/kernel", ("embed", "classes")),
        (r"logits/bias", ("classes",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats.

        Returns:
            [batch, num_classes]; the features asked for, [batch, hidden] or by name.

        Raises:
            ValueError: x is no batch of images, or they are too small; not five widths or a depth above 5; an unknown
                feature.
        """
        if len(self.widths) != 5 or not 1 <= self.depth <= 5:
            raise ValueError(
                f"AlexNet has five convolutions: widths={tuple(self.widths)} has {len(self.widths)} numbers, and depth="
                f"{self.depth} says how many of them there are"
            )
        least = 67 - 2 * self.first_padding
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise ValueError(
                f"AlexNet takes images [batch, height, width, channels] of {least}x{least} or more, not {x.shape}"
            )
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5")[: self.depth])
        # (size, stride, padding, groups, normalised, pooled) of each convolution
        plan = (
            (11, 4, self.first_padding, 1, self.response_norm, True),
            (5, 1, 2, self.groups, self.response_norm, True),
            (3, 1, 1, 1, False, False),
            (3, 1, 1, self.groups, False, False),
            (3, 1, 1, self.groups, False, True),
        )
        for number, (channels, layer) in enumerate(list(zip(self.widths, plan, strict=True))[: self.depth], start=1):
            size, stride, padding, groups, normalised, pooled = layer
            kernel = nn.Conv(
                self._scaled(channels),
                size,
                strides=stride,
                padding=padding,
                groups=groups,
                kernel_init=_HE,
                name=f"conv{number}",
            )
            x = jax.nn.relu(kernel(x))
            if normalised:  # the paper's alpha of 1e-4 is for a sum over five channels, this one for their mean
                x = nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)(x)
            x = stages.reached(f"c{number}", nn.max_pool(x, 3, strides=2) if pooled else x)
            if stages.complete:
                return stages.kept
        x = nn.adaptive_avg_pool(x, self.pool)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.Dropout(self.dropout)(x, train=train)
            x = jax.nn.relu(nn.Dense(self._scaled(self.hidden), kernel_init=_HE, name=name)(x))
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x

    def _scaled(self, size: int) -> int:
        """size at `width`, a multiple of `groups`."""
        if self.width is None:
            return size
        return max(1, size * self.width // (self.widths[0] * self.groups)) * self.groups

    def _torchvision(self) -> Peer:
        height, width = (self.pool, self.pool) if isinstance(self.pool, int) else self.pool
        positions = {"1": "0", "2": "3", "3": "6", "4": "8", "5": "10"}
        convolutions = [
            rule for ours, theirs in positions.items() for rule in conv(f"conv{ours}", f"features.{theirs}")
        ]
        dense = (
            *linear("fc6", "classifier.1", flatten=(self._scaled(self.widths[self.depth - 1]), height, width)),
            *linear("fc7", "classifier.4"),
            *linear("logits", "classifier.6"),
        )
        return Peer((*convolutions, *dense), head=r"classifier\.6\..*")

    peers: ClassVar[Peers] = {"torchvision": _torchvision}
