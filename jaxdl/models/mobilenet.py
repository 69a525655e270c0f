"""MobileNetV2, and the inverted residual block that it shares with EfficientNet-Lite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array

FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")
FAN_IN = linen.initializers.variance_scaling(2.0, "fan_in", "normal")  # of a depthwise kernel: its window


class InvertedResidual(linen.Module):
    """1x1 to many channels, depthwise convolution, 1x1 to few; x is added where the shape stays.

    The last convolution has no activation: few channels would lose too much in it.

    Attributes:
        channels: that come out.
        kernel, stride: of the depthwise convolution.
        expansion: how many times the channels are multiplied in the middle; 1 leaves the first convolution out.
        padding: of the depthwise convolution: "same" (zeros at the end first) or "symmetric" (the same at both ends).
        epsilon: of the batch norms.
        drop: rate of stochastic depth.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    expansion: int = 6
    padding: str = "symmetric"
    epsilon: float = 1e-5
    drop: float | Array = 0.0

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""

        def normed(x: Array, name: str) -> Array:
            return nn.BatchNorm(epsilon=self.epsilon, name=name)(x, train=train, mask=mask)

        before = x
        if self.expansion != 1:
            wide = x.shape[-1] * self.expansion
            x = nn.Conv(wide, 1, use_bias=False, kernel_init=FAN_OUT, name="expand_conv")(x)
            x = jax.nn.relu6(normed(x, "expand_norm"))
        x = nn.DepthwiseConv(
            self.kernel,
            strides=self.stride,
            padding=padding_of(self.padding, self.kernel),
            use_bias=False,
            kernel_init=FAN_IN,
            name="depthwise_conv",
        )(x)
        x = jax.nn.relu6(normed(x, "depthwise_norm"))
        x = nn.Conv(self.channels, 1, use_bias=False, kernel_init=FAN_OUT, name="project_conv")(x)
        x = normed(x, "project_norm")
        if x.shape != before.shape or self.stride != 1:
            return x
        return before + nn.StochasticDepth(self.drop)(x, train=train)


def padding_of(padding: str, kernel: int) -> str | int:
    """What `nn.Conv` takes for "same" or "symmetric".

    Raises:
        ValueError: another word.
    """
    if padding not in ("same", "symmetric"):
        raise ValueError(f"padding is 'same' or 'symmetric', not {padding!r}")
    return "SAME" if padding == "same" else kernel // 2


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of 8 nearest to `channels`, at least 8 and never less than 0.9 of them."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class _Block(NamedTuple):
    stage: str
    number: int
    channels: int
    stride: int
    expansion: int


# Expansion, channels, blocks, stride of the first block.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _torchvision(model: MobileNetV2) -> Peer:
    rules = [*conv("c1_stem_conv", "features.0.0"), *norm("c1_stem_norm", "features.0.1")]
    blocks = model.blocks()
    for number, block in enumerate(blocks, start=1):
        ours, theirs = f"{block.stage}_block{block.number}", f"features.{number}.conv"
        wide = int(block.expansion != 1)
        if wide:
            rules += [*conv(f"{ours}/expand_conv", f"{theirs}.0.0"), *norm(f"{ours}/expand_norm", f"{theirs}.0.1")]
        rules += [
            *conv(f"{ours}/depthwise_conv", f"{theirs}.{wide}.0"),
            *norm(f"{ours}/depthwise_norm", f"{theirs}.{wide}.1"),
            *conv(f"{ours}/project_conv", f"{theirs}.{wide + 1}"),
            *norm(f"{ours}/project_norm", f"{theirs}.{wide + 2}"),
        ]
    last = f"features.{len(blocks) + 1}"
    rules += [*conv("head_conv", f"{last}.0"), *norm("head_norm", f"{last}.1"), *linear("logits", "classifier.1")]
    return Peer(tuple(rules), head=r"classifier\..*")


class MobileNetV2(linen.Module):
    """MobileNetV2: inverted residuals of depthwise convolutions, for small devices.

    Stages are c1 to c5, with strides 2, 4, 8, 16, 32: the blocks of that size, before the last 1x1 convolution.

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        width: all channels are multiplied by it (those of the last convolution only where it is above 1) and rounded
            to multiples of 8.
        depth: the number of blocks in each group is multiplied by it and rounded up.
        dropout: rate before the logits; 0 draws nothing.
        epsilon: of the batch norms.
        features: as in `ResNet`.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
    """

    num_classes: int
    width: float = 1.0
    depth: float = 1.0
    dropout: float | Array = 0.2
    epsilon: float = 1e-5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv/kernel", (None, None, "channels_in", "channels_out")),
        (r".*norm/(scale|bias)", ("channels_out",)),
        (r"logits/kernel", ("channels_in", "classes")),
        (r"logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {"torchvision": _torchvision}

    def blocks(self) -> tuple[_Block, ...]:
        """Every inverted residual, in order."""
        found: list[_Block] = []
        level = 1
        for expansion, channels, count, stride in _GROUPS:
            level += stride - 1
            for number in range(max(1, -int(-count * self.depth // 1))):
                index = sum(block.stage == f"c{level}" for block in found)
                step = stride if number == 0 else 1
                found.append(_Block(f"c{level}", index, divisible(channels * self.width), step, expansion))
        return tuple(found)

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, channels] or by name.

        Raises:
            ValueError: x is no batch of images.
        """
        if x.ndim != 4:
            raise ValueError(f"MobileNetV2 takes images [batch, height, width, channels], not {x.shape}")

        def activated(x: Array, name: str) -> Array:
            return jax.nn.relu6(nn.BatchNorm(epsilon=self.epsilon, name=name)(x, train=train, mask=mask))

        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5"))
        stem = divisible(32 * self.width)
        x = nn.Conv(stem, 3, strides=2, padding=1, use_bias=False, kernel_init=FAN_OUT, name="c1_stem_conv")(x)
        x = activated(x, "c1_stem_norm")
        blocks = self.blocks()
        for block, following in zip(blocks, (*blocks[1:], None), strict=True):
            x = InvertedResidual(
                block.channels,
                stride=block.stride,
                expansion=block.expansion,
                epsilon=self.epsilon,
                name=f"{block.stage}_block{block.number}",
            )(x, train=train, mask=mask)
            if following is None or following.stage != block.stage:
                x = stages.reached(block.stage, x)
                if stages.complete:
                    return stages.kept
        last = divisible(1280 * max(1.0, self.width))
        x = nn.Conv(last, 1, use_bias=False, kernel_init=FAN_OUT, name="head_conv")(x)
        x = nn.global_avg_pool(activated(x, "head_norm"))
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, kernel_init=linen.initializers.normal(0.01), name="logits")(x)
