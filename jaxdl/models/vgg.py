"""VGG: stages of 3x3 convolutions, each followed by a pool, and three dense layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.rules import Layout, Peer, Peers, Rule, conv, keras_layer, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array

_FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")
_SMALL = linen.initializers.normal(0.01)


class VGG(linen.Module):
    """Plain convolutional network: stages of 3x3 convolutions and max pools, then three dense layers.

    Features are c1 to c5, what each pool puts out (strides 2 to 32), and each convolution by name: conv4_3 is the third
    of the fourth stage after its activation (stride 8), which SSD and others read.

    Attributes:
        num_classes: how many logits come out; 0: the [batch, hidden] features before them.
        depths: convolutions of each stage; (2, 2, 3, 3, 3) is VGG-16.
        width: channels of the first stage; each stage has twice those of the one before, at most 8 * width.
        hidden: of the two dense layers before the logits; 0 leaves them out.
        pool: the last feature map is averaged to this size before the dense layers; one number or (height, width).
        dropout: rate after each of the two dense layers.
        batch_norm: normalise after each convolution.
        epsilon: of the batch norms.
        ceil: pools keep an incomplete last window (75 becomes 38, as in SSD).
        features: names of stages or convolutions whose outputs are returned instead of logits,
            {name: [batch, height, width, channels]}; what comes after the last of them is not computed and has no
            parameters.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014; numbers
    as in torchvision.
    """

    num_classes: int
    depths: Sequence[int] = (2, 2, 3, 3, 3)
    width: int = 64
    hidden: int = 4096
    pool: int | tuple[int, int] = 7
    dropout: float | Array = 0.5
    batch_norm: bool = False
    epsilon: float = 1e-5
    ceil: bool = False
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"conv\d+_\d+/kernel", (None, None, "channels_in", "channels_out")),
        (r"conv\d+_\d+/bias", ("channels_out",)),
        (r"norm\d+_\d+/(scale|bias)", ("channels_out",)),
        (r"fc6/kernel", (None, "mlp")),
        (r"fc6/bias", ("mlp",)),
        (r"fc7/kernel", ("mlp", "embed")),
        (r"fc7/bias", ("embed",)),
        (r"logits/kernel", ("embed", "classes")),
        (r"logits/bias", ("classes",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, hidden] or by name.

        Raises:
            ValueError: x is no batch of images, or they are too small for so many pools; an unknown feature.
        """
        least = 2 ** len(self.depths)
        if x.ndim != 4 or (not self.features and not self.ceil and min(x.shape[1:3]) < least):
            raise ValueError(
                f"a VGG of {len(self.depths)} stages takes images [batch, height, width, channels] of {least}x{least} "
                f"or more, not {x.shape}"
            )
        names = list(self.names())
        known = (*names, *(f"c{stage}" for stage in range(1, len(self.depths) + 1)))
        stages = Stages(self, self.features, known=known)
        for stage, depth in enumerate(self.depths, start=1):
            channels = self.width * min(2 ** (stage - 1), 8)
            for number in range(1, depth + 1):
                x = nn.Conv(channels, 3, padding=1, kernel_init=_FAN_OUT, name=f"conv{stage}_{number}")(x)
                if self.batch_norm:
                    normalised = nn.BatchNorm(epsilon=self.epsilon, name=f"norm{stage}_{number}")
                    x = normalised(x, train=train, mask=mask)
                x = stages.reached(f"conv{stage}_{number}", jax.nn.relu(x))
                if stages.complete:
                    return stages.kept
            x = stages.reached(f"c{stage}", nn.max_pool(x, 2, ceil=self.ceil))
            if stages.complete:
                return stages.kept
        x = nn.adaptive_avg_pool(x, self.pool)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7") if self.hidden else ():
            x = jax.nn.relu(nn.Dense(self.hidden, kernel_init=_SMALL, name=name)(x))
            x = nn.Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, kernel_init=_SMALL, name="logits")(x) if self.num_classes else x

    def names(self) -> Iterator[str]:
        """The convolutions in their order: "conv1_1", "conv1_2", "conv2_1" ..."""
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                yield f"conv{stage}_{number}"

    def _flattened(self) -> tuple[int, int, int]:
        """Channels, height and width of what the first dense layer reads."""
        height, width = (self.pool, self.pool) if isinstance(self.pool, int) else self.pool
        return self.width * min(2 ** (len(self.depths) - 1), 8), height, width

    def _convolutions(self) -> tuple[Rule, ...]:
        """`features.N` of torchvision and timm: a convolution, its norm, its activation; a pool ends each stage."""
        rules: tuple[Rule, ...] = ()
        position = 0
        for name in self.names():
            position += name.endswith("_1") and name != "conv1_1"  # the pool before it
            rules += conv(name, f"features.{position}")
            if self.batch_norm:
                rules += norm(name.replace("conv", "norm"), f"features.{position + 1}")
            position += 3 if self.batch_norm else 2
        return rules

    def _torchvision(self) -> Peer:
        last = "6" if self.hidden else "0"
        dense = (
            *linear("fc6", "classifier.0", flatten=self._flattened()),
            *linear("fc7", "classifier.3"),
            *linear("logits", f"classifier.{last}", flatten=None if self.hidden else self._flattened()),
        )
        return Peer((*self._convolutions(), *dense), head=rf"classifier\.{last}\..*")

    def _timm(self) -> Peer:
        """timm has the dense layers as convolutions, of 7x7 and of 1x1."""
        _, height, width = self._flattened()
        dense = (
            Rule("fc6/kernel", "pre_logits.fc1.weight", _whole_map(height, width)),
            Rule("fc6/bias", "pre_logits.fc1.bias"),
            Rule("fc7/kernel", "pre_logits.fc2.weight", _whole_map(1, 1)),
            Rule("fc7/bias", "pre_logits.fc2.bias"),
            *linear("logits", "head.fc"),
        )
        return Peer((*self._convolutions(), *dense), head=r"head\.fc\..*")

    def _keras(self) -> Peer:
        dense = (*keras_layer("fc6", "fc1"), *keras_layer("fc7", "fc2"), *keras_layer("logits", "predictions"))
        return Peer((*keras_layer(r"conv(\d)_(\d)", r"block\1_conv\2"), *dense), head="predictions/.*")

    peers: ClassVar[Peers] = {"torchvision": _torchvision, "timm": _timm, "keras": _keras}


def _whole_map(height: int, width: int) -> Layout:
    """[height * width * channels, out] here, a convolution [out, channels, height, width] over the whole map there."""
    return Layout(
        lambda x: x.reshape(height, width, -1, x.shape[-1]).transpose(3, 2, 0, 1),
        lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),
    )
