"""Fully convolutional networks: the paper's, on VGG-16, and torchvision's, on a dilated ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.models.rules import AS_IS, Layout, Peer, Peers, Rule, conv, conv_transpose
from jaxdl.models.segmentation import ConvNorm, ResNetSegmenter, conv_norm, prefixed
from jaxdl.models.stages import Stages
from jaxdl.models.vgg import VGG

Array = jax.Array

_HE = linen.initializers.he_normal()
#: Numbers that a kernel of a transposed convolution may have: 1 GB; all of VGG-16 has half as many.
_LARGEST = 2**28
#: A convolution [height, width, in, out] here, the dense layer [out, in * height * width] there.
_DENSE = Layout(
    lambda x: x.transpose(3, 2, 0, 1).reshape(x.shape[3], -1),
    lambda x, shape: x.reshape(shape[3], shape[2], shape[0], shape[1]).transpose(2, 3, 1, 0),
)


class FCNResNet(ResNetSegmenter):
    """FCN as torchvision builds it: a 3x3 convolution on the last stage of a dilated ResNet, then the logits, resized.

    It has no skips and is no FCN-8s, which is `FCN`. Its options are those of `ResNetSegmenter`.

    Attributes:
        num_classes, depths, width, bottleneck, output_stride, aux, dropout, aux_dropout, features: see
            `ResNetSegmenter`.

    Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015; the form, the
    head and the counts are torchvision's.
    """

    def head(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        """The 3x3 convolution."""
        x = ConvNorm(x.shape[-1] // 4, 3, name="head")(x, train=train, mask=mask)
        return nn.Dropout(self.dropout)(x, train=train)

    def _names(self) -> Peer:
        return self._torchvision(conv_norm("head", "classifier.0", "classifier.1"), "classifier.4")

    peers: ClassVar[Peers] = {"torchvision": _names}


def bilinear_kernel(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Initial kernel [height, width, channels, channels] of a transposed convolution that interpolates each channel.

    With stride s, a size of 2s - s % 2 and torch's padding ceil((s - 1) / 2), the transposed convolution then resizes
    bilinearly (half-pixel centres) by s, but for the border, where it blends with zeros. The key is not used.
    """
    height, width, inputs, outputs = shape
    if inputs != outputs:
        raise ValueError(f"a bilinear kernel keeps its channels: it cannot lead from {inputs} to {outputs}")
    rows, columns = (_triangle(length) for length in (height, width))
    kernel = jnp.asarray(np.outer(rows, columns)[:, :, None, None], dtype=dtype)
    return kernel * jnp.eye(inputs, dtype=dtype)[None, None]


def _triangle(length: int) -> np.ndarray:
    factor = (length + 1) // 2
    centre = factor - 1 if length % 2 else factor - 0.5
    return 1 - np.abs(np.arange(length) - centre) / factor


class FCN(linen.Module):
    """FCN-32s, FCN-16s and FCN-8s on VGG-16: scores at several strides, added up on the way back to the image's size.

    VGG's dense layers become convolutions (7x7, then 1x1, with dropout); a 1x1 convolution makes scores of the result,
    at stride 32. Transposed convolutions, which start as bilinear interpolation and are learned, double them; on the
    way the scores of the stages of stride 16 (16s) and of stride 16 and 8 (8s) are added, which start as zeros, as in
    the paper.

    The paper's code pads the image by 100 pixels and crops the scores; here the image is continued by its last row and
    column to a multiple of 32, and the scores are cropped to the image: any size comes out as large as it went in.

    Attributes:
        num_classes: how many logits a pixel has; 0: the map before the scores, at stride 32.
        stride: of the finest scores: 8, 16 or 32.
        width: channels of VGG's first stage.
        depths: convolutions of each of VGG's stages.
        batch_norm: the VGG has batch norms.
        hidden: channels of the two convolutions that were dense layers; None: 64 * width, 4096 by default.
        dropout: rate after each of them.
        features: names of stages whose outputs are returned instead of logits: c1 to c5 of the VGG (strides 2 to 32),
            and head, what the scores are computed from.

    Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015.
    """

    num_classes: int
    stride: int = 8
    width: int = 64
    depths: Sequence[int] = (2, 2, 3, 3, 3)
    batch_norm: bool = False
    hidden: int | None = None
    dropout: float | Array = 0.5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"(score|up)\d+/kernel", (None, None, None, "classes")),
        (r"score\d+/bias", ("classes",)),
        (r".*/kernel", (None, None, "channels_in", "channels_out")),
        (r".*/(bias|scale)", ("channels_out",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, height, width, num_classes]; or the features that were asked for.

        Raises:
            ValueError: x is no batch of images; an unknown stride or feature; so many classes that the kernel of the
                last enlargement, [2 * stride, 2 * stride, classes, classes], would be larger than 1 GB.
        """
        last = (2 * self.stride) ** 2 * self.num_classes**2
        if last > _LARGEST:
            raise ValueError(
                f"FCN-{self.stride}s of {self.num_classes} classes would learn {last:,} numbers to enlarge its scores, "
                f"from each class to each: take fcn_resnet50, which resizes them, a smaller stride, or fewer classes"
            )
        if x.ndim != 4:
            raise ValueError(f"FCN takes images [batch, height, width, channels], not {x.shape}")
        if self.stride not in (8, 16, 32):
            raise ValueError(
                f"stride is 8, 16 or 32, not {self.stride}: the image is 8 times the finest scores or more"
            )
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5", "head"))
        height, width = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0)), mode="edge")
        reached = self._backbone(name="backbone")(x, train=train, mask=mask)
        assert isinstance(reached, dict)  # the features that were asked for
        for name, value in reached.items():
            reached[name] = stages.reached(name, value)
        if stages.complete:
            return stages.kept
        x = reached["c5"]
        hidden = 64 * self.width if self.hidden is None else self.hidden
        for name, size in (("fc6", 7), ("fc7", 1)):
            x = jax.nn.relu(nn.Conv(hidden, size, padding=size // 2, kernel_init=_HE, name=name)(x))
            x = nn.Dropout(self.dropout)(x, train=train)
        x = stages.reached("head", x)
        if stages.complete or not self.num_classes:
            return stages.result(x)
        scores = nn.Conv(self.num_classes, 1, name="score32")(x)
        for stride, name in ((16, "c4"), (8, "c3")):
            if stride < self.stride:
                break
            zero = linen.initializers.zeros
            skipped = nn.Conv(self.num_classes, 1, kernel_init=zero, name=f"score{stride}")(reached[name])
            scores = self._enlarged(scores, 2, f"up{stride}") + skipped
        return self._enlarged(scores, self.stride, "up1")[:, :height, :width]

    def _enlarged(self, scores: Array, factor: int, name: str) -> Array:
        return nn.ConvTranspose(
            self.num_classes,
            2 * factor,
            strides=factor,
            padding=factor // 2,
            use_bias=False,
            kernel_init=bilinear_kernel,
            name=name,
        )(scores)

    def _backbone(self, **options: Any) -> VGG:
        return VGG(
            num_classes=0,
            depths=self.depths,
            width=self.width,
            batch_norm=self.batch_norm,
            features=("c1", "c2", "c3", "c4", "c5"),
            **options,
        )

    def _names(self) -> Peer:
        """A VGG classifier's, whose dense layers become convolutions; its last one stays out, the scores are new."""
        backbone = VGG.peers["torchvision"](self._backbone(parent=None)).rules
        dense = (
            Rule(rf"{ours}/{leaf}", f"classifier.{number}.{word}", layout)
            for ours, number in (("fc6", 0), ("fc7", 3))
            for leaf, word, layout in (("kernel", "weight", _DENSE), ("bias", "bias", AS_IS))
        )
        scores = (*conv(r"(score\d+)", r"\1"), *conv_transpose(r"(up\d+)", r"\1"))
        return Peer(
            (*prefixed(backbone, "backbone/", ""), *dense, *scores),
            head=r"(score|up)\d+\..*",
            ignored=r"classifier\.6\..*",
        )

    peers: ClassVar[Peers] = {"torchvision": _names}
