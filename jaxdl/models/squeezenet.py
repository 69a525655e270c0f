"""SqueezeNet: the accuracy of AlexNet with a fiftieth of its parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv
from jaxdl.models.stages import Stages

Array = jax.Array

_HE = linen.initializers.he_uniform()
# The stage of each fire module, and how many channels it squeezes to and expands to (half by 1x1, half by 3x3).
_FIRES = {
    "1.0": (
        ("c2", 16, 128),
        ("c2", 16, 128),
        ("c2", 32, 256),
        ("c3", 32, 256),
        ("c3", 48, 384),
        ("c3", 48, 384),
        ("c3", 64, 512),
        ("c4", 64, 512),
    ),
    "1.1": (
        ("c2", 16, 128),
        ("c2", 16, 128),
        ("c3", 32, 256),
        ("c3", 32, 256),
        ("c4", 48, 384),
        ("c4", 48, 384),
        ("c4", 64, 512),
        ("c4", 64, 512),
    ),
}


class Fire(linen.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions of them side by side.

    Attributes:
        squeezed: channels in the middle.
        expanded: channels that come out.
    """

    squeezed: int
    expanded: int

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, height, width, channels] -> [batch, height, width, expanded]."""
        x = jax.nn.relu(nn.Conv(self.squeezed, 1, kernel_init=_HE, name="squeeze")(x))
        left = nn.Conv(self.expanded // 2, 1, kernel_init=_HE, name="expand1x1")(x)
        right = nn.Conv(self.expanded // 2, 3, padding=1, kernel_init=_HE, name="expand3x3")(x)
        return jax.nn.relu(jnp.concatenate([left, right], axis=-1))


def _torchvision(model: SqueezeNet) -> Peer:
    rules = [*conv("c1_conv", "features.0"), *conv("logits", "classifier.1")]
    number, stage = 1, "c1"
    for index, (name, _, _) in enumerate(model.fires()):
        number += 2 if name != stage else 1  # a pool lies between stages
        stage = name
        rules += conv(rf"{name}_fire{index}/(\w+)", rf"features.{number}.\1")
    return Peer(tuple(rules), head=r"classifier\..*")


class SqueezeNet(linen.Module):
    """SqueezeNet: a stem, eight fire modules in three stages, and a 1x1 convolution to the classes that is pooled.

    Stages are c1 (the stem), c2, c3, c4, with strides 2, 4, 8, 16.

    Attributes:
        num_classes: how many logits come out; 0: the pooled features, 512 channels.
        version: "1.0" (the paper's) or "1.1" (as good with 0.4 of the work: a smaller stem, earlier pools).
        width: all channels are multiplied by it.
        depth: the number of fire modules in each stage is multiplied by it and rounded up; above 1 the last repeats.
        dropout: rate before the last convolution; 0 draws nothing.
        relu_logits: the logits come out of a ReLU before they are pooled, as published: none is below 0, and a class
            whose logit is 0 for all images has no gradient and is never learnt again. False trains more safely.
        features: as in `ResNet`.

    Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.
    """

    num_classes: int
    version: str = "1.0"
    width: float = 1.0
    depth: float = 1.0
    dropout: float | Array = 0.5
    relu_logits: bool = True
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"logits/kernel", (None, None, "channels_in", "classes")),
        (r"logits/bias", ("classes",)),
        (r".*/kernel", (None, None, "channels_in", "channels_out")),
        (r".*/bias", ("channels_out",)),
    )
    peers: ClassVar[Peers] = {"torchvision": _torchvision}

    def fires(self) -> tuple[tuple[str, int, int], ...]:
        """Stage, channels in the middle and channels that come out of every fire module, in order."""
        found: list[tuple[str, int, int]] = []
        for _, group in itertools.groupby(_FIRES[self.version], key=lambda fire: fire[0]):
            fires = tuple(group)
            count = max(1, math.ceil(len(fires) * self.depth))
            found += (*fires, *fires[-1:] * (count - len(fires)))[:count]
        return tuple(found)

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats, at least 21 pixels wide and high (version 1.1: 17).

        Returns:
            [batch, num_classes]; the features asked for, [batch, channels] or by name.

        Raises:
            ValueError: x is no batch of images or too small, or the version is unknown.
        """
        if self.version not in _FIRES:
            raise ValueError(f"SqueezeNet has the versions {', '.join(_FIRES)}, not {self.version!r}")
        least = 21 if self.version == "1.0" else 17
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            wanted = f"[batch, height, width, channels] of at least {least}x{least}"
            raise ValueError(f"SqueezeNet {self.version} takes images {wanted}, not {x.shape}")
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4"))
        channels, size = (96, 7) if self.version == "1.0" else (64, 3)
        x = nn.Conv(self._scaled(channels), size, strides=2, padding="VALID", kernel_init=_HE, name="c1_conv")(x)
        x = jax.nn.relu(x)
        stage = "c1"
        for index, (name, squeezed, expanded) in enumerate(self.fires()):
            if name != stage:
                x = stages.reached(stage, x)
                if stages.complete:
                    return stages.kept
                x = nn.max_pool(x, (3, 3), strides=(2, 2), ceil=True)
                stage = name
            x = Fire(self._scaled(squeezed), self._scaled(expanded), name=f"{name}_fire{index}")(x)
        x = stages.reached(stage, x)
        if stages.complete:
            return stages.kept
        if not self.num_classes:
            return nn.global_avg_pool(x)
        x = nn.Dropout(self.dropout)(x, train=train)
        small = linen.initializers.normal(0.01)
        x = nn.Conv(self.num_classes, 1, kernel_init=small, name="logits")(x)
        return nn.global_avg_pool(jax.nn.relu(x) if self.relu_logits else x)

    def _scaled(self, channels: int) -> int:
        return max(2, 2 * round(channels * self.width / 2))
