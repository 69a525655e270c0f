"""EfficientNet-Lite: EfficientNet without squeeze-excite, with ReLU6, for small devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.mobilenet import FAN_OUT, InvertedResidual, divisible, padding_of
from jaxdl.models.rules import Peer, Peers, conv, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array


class _Block(NamedTuple):
    stage: str
    number: int
    group: int
    member: int
    channels: int
    kernel: int
    stride: int
    expansion: int


# Expansion, channels, blocks, stride of the first block, kernel.
_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def _timm(model: EfficientNetLite) -> Peer:
    rules = [*conv("c1_stem_conv", "conv_stem"), *norm("c1_stem_norm", "bn1")]
    for block in model.blocks():
        ours, theirs = f"{block.stage}_block{block.number}", f"blocks.{block.group}.{block.member}"
        kinds = ("expand", "depthwise", "project")
        # Without the first convolution timm calls the last one conv_pw, and its norms are bn1 and bn2.
        names = ("conv_pw", "conv_dw", "conv_pwl") if block.expansion != 1 else ("", "conv_dw", "conv_pw")
        skipped = 0 if block.expansion != 1 else 1
        for number, (kind, name) in enumerate(zip(kinds, names, strict=True), start=1):
            if name:
                rules += conv(f"{ours}/{kind}_conv", f"{theirs}.{name}")
                rules += norm(f"{ours}/{kind}_norm", f"{theirs}.bn{number - skipped}")
    rules += [*conv("head_conv", "conv_head"), *norm("head_norm", "bn2"), *linear("logits", "classifier")]
    return Peer(tuple(rules), head=r"classifier\..*")


def _lukemelas(model: EfficientNetLite) -> Peer:
    """The names of the EfficientNet-PyTorch family, in which Lite weights are passed around."""
    rules = [*conv("c1_stem_conv", "_conv_stem"), *norm("c1_stem_norm", "_bn0")]
    for number, block in enumerate(model.blocks()):
        ours, theirs = f"{block.stage}_block{block.number}", f"_blocks.{number}"
        for kind, index in (("expand", 0), ("depthwise", 1), ("project", 2)):
            rules += conv(f"{ours}/{kind}_conv", f"{theirs}._{kind}_conv")
            rules += norm(f"{ours}/{kind}_norm", f"{theirs}._bn{index}")
    rules += [*conv("head_conv", "_conv_head"), *norm("head_norm", "_bn1"), *linear("logits", "_fc")]
    return Peer(tuple(rules), head=r"_fc\..*")


class EfficientNetLite(linen.Module):
    """EfficientNet-Lite: inverted residuals, grown in width, depth and image size together.

    Stages are c1 to c5, with strides 2, 4, 8, 16, 32: the blocks of that size, before the last 1x1 convolution.

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        width: channels of the blocks are multiplied by it and rounded to multiples of 8.
        depth: the number of blocks in each group but the first and last is multiplied by it and rounded up.
        dropout: rate before the logits; 0 draws nothing.
        drop_path: rate of stochastic depth in the last block, falling to 0 in the first; 0 draws nothing.
        padding: of convolutions that stride: "symmetric" (torch's) or "same" (TensorFlow's: an odd zero at the end).
        epsilon: of the batch norms.
        features: as in `ResNet`.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; Liu, "Higher
    accuracy on vision models with EfficientNet-Lite", 2020.
    """

    num_classes: int
    width: float = 1.0
    depth: float = 1.0
    dropout: float | Array = 0.2
    drop_path: float = 0.0
    padding: str = "symmetric"
    epsilon: float = 1e-5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv/kernel", (None, None, "channels_in", "channels_out")),
        (r".*norm/(scale|bias)", ("channels_out",)),
        (r"logits/kernel", ("channels_in", "classes")),
        (r"logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {"timm": _timm, "efficientnet_pytorch": _lukemelas}

    def blocks(self) -> tuple[_Block, ...]:
        """Every inverted residual, in order."""
        found: list[_Block] = []
        level = 1
        for group, (expansion, channels, count, stride, kernel) in enumerate(_GROUPS):
            level += stride - 1
            ends = group in (0, len(_GROUPS) - 1)
            for member in range(count if ends else max(1, math.ceil(count * self.depth))):
                index = sum(block.stage == f"c{level}" for block in found)
                step = stride if member == 0 else 1
                out = divisible(channels * self.width)
                found.append(_Block(f"c{level}", index, group, member, out, kernel, step, expansion))
        return tuple(found)

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, channels] or by name.

        Raises:
            ValueError: x is no batch of images, or the padding is unknown.
        """
        if x.ndim != 4:
            raise ValueError(f"EfficientNet-Lite takes images [batch, height, width, channels], not {x.shape}")

        def activated(x: Array, name: str) -> Array:
            return jax.nn.relu6(nn.BatchNorm(epsilon=self.epsilon, name=name)(x, train=train, mask=mask))

        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5"))
        pad = padding_of(self.padding, 3)
        # The stem and the last convolution keep their channels in all sizes.
        x = nn.Conv(32, 3, strides=2, padding=pad, use_bias=False, kernel_init=FAN_OUT, name="c1_stem_conv")(x)
        x = activated(x, "c1_stem_norm")
        blocks = self.blocks()
        for number, (block, following) in enumerate(zip(blocks, (*blocks[1:], None), strict=True)):
            x = InvertedResidual(
                block.channels,
                kernel=block.kernel,
                stride=block.stride,
                expansion=block.expansion,
                padding=self.padding,
                epsilon=self.epsilon,
                drop=self.drop_path * number / len(blocks),
                name=f"{block.stage}_block{block.number}",
            )(x, train=train, mask=mask)
            if following is None or following.stage != block.stage:
                x = stages.reached(block.stage, x)
                if stages.complete:
                    return stages.kept
        x = nn.Conv(1280, 1, use_bias=False, kernel_init=FAN_OUT, name="head_conv")(x)
        x = nn.global_avg_pool(activated(x, "head_norm"))
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, kernel_init=linen.initializers.normal(0.01), name="logits")(x)
