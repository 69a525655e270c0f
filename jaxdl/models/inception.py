"""Inception-v3: inception blocks with factored convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.googlenet import Branch, ConvUnit, Fork, Mixed, Outputs, Pool, Unit, from_imagenet_statistics
from jaxdl.models.rules import Peer, Peers, conv, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array


def _a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Unit("branch1x1", 64),),
        (Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, 5, 1, 2)),
        (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, 3, 1, 1), Unit("branch3x3dbl_3", 96, 3, 1, 1)),
        (Pool("avg"), Unit("branch_pool", pooled)),
    )


def _c(inner: int) -> tuple[Branch, ...]:
    wide, high = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return (
        (Unit("branch1x1", 192),),
        (Unit("branch7x7_1", inner), Unit("branch7x7_2", inner, *wide), Unit("branch7x7_3", 192, *high)),
        (
            Unit("branch7x7dbl_1", inner),
            Unit("branch7x7dbl_2", inner, *high),
            Unit("branch7x7dbl_3", inner, *wide),
            Unit("branch7x7dbl_4", inner, *high),
            Unit("branch7x7dbl_5", 192, *wide),
        ),
        (Pool("avg"), Unit("branch_pool", 192)),
    )


def _forked(name: str) -> Fork:
    return Fork((Unit(f"{name}a", 384, (1, 3), 1, (0, 1)), Unit(f"{name}b", 384, (3, 1), 1, (1, 0))))


_B: tuple[Branch, ...] = (
    (Unit("branch3x3", 384, 3, 2),),
    (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, 3, 1, 1), Unit("branch3x3dbl_3", 96, 3, 2)),
    (Pool("max", 2, 0),),
)
_D: tuple[Branch, ...] = (
    (Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, 3, 2)),
    (
        Unit("branch7x7x3_1", 192),
        Unit("branch7x7x3_2", 192, (1, 7), 1, (0, 3)),
        Unit("branch7x7x3_3", 192, (7, 1), 1, (3, 0)),
        Unit("branch7x7x3_4", 192, 3, 2),
    ),
    (Pool("max", 2, 0),),
)
_E: tuple[Branch, ...] = (
    (Unit("branch1x1", 320),),
    (Unit("branch3x3_1", 384), _forked("branch3x3_2")),
    (Unit("branch3x3dbl_1", 448), Unit("branch3x3dbl_2", 384, 3, 1, 1), _forked("branch3x3dbl_3")),
    (Pool("avg"), Unit("branch_pool", 192)),
)

#: The blocks of each stage; the first of stages 4 and 5 halves the map.
STAGES: dict[str, dict[str, tuple[Branch, ...]]] = {
    "c3": {"5b": _a(32), "5c": _a(64), "5d": _a(64)},
    "c4": {"6a": _B, "6b": _c(128), "6c": _c(160), "6d": _c(160), "6e": _c(192)},
    "c5": {"7a": _D, "7b": _E, "7c": _E},
}


class InceptionV3(linen.Module):
    """Eleven inception blocks whose large convolutions are factored: 5x5 into two 3x3, 7x7 into 1x7 and 7x1.

    Features are c1 to c5, the last maps of strides 2 to 32.

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        depths: how many of the blocks 5b to 5d; 6a to 6e; 7a to 7c.
        width: channels of the first convolution; everything else is in proportion.
        dropout: rate before the logits.
        aux: an auxiliary head at the end of stage c4: {"logits", "aux1"} in training, logits otherwise. torchvision
            weighs its loss by 0.4. A map below 17x17 is averaged to 5x5 instead of by windows of 5 in steps of 3.
        epsilon: of the batch norms.
        transform_input: the images are normalised by ImageNet's statistics, the weights want them by 0.5 (so those that
            torchvision publishes).
        features: names of stages whose outputs are returned instead of logits.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015; numbers as torchvision.
    """

    num_classes: int
    depths: Sequence[int] = (3, 5, 3)
    width: int = 32
    dropout: float | Array = 0.5
    aux: bool = False
    epsilon: float = 1e-3
    transform_input: bool = False
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv/kernel", (None, None, "channels_in", "channels_out")),
        (r".*norm/(bias|scale)", ("channels_out",)),
        (r".*logits/kernel", ("channels_in", "classes")),
        (r".*logits/bias", ("classes",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Outputs:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes], in training with `aux` a dict of them; the features asked for, [batch, channels] or by
            name.

        Raises:
            ValueError: x is no batch of images, or they are too small; an impossible option or feature.
        """
        if x.ndim != 4 or (min(x.shape[1:3]) < 75 and not self.features):
            raise ValueError(
                f"Inception-v3 takes images [batch, height, width, channels] of 75x75 or more, not {x.shape}"
            )
        if len(self.depths) != 3 or any(not 1 <= d <= most for d, most in zip(self.depths, (3, 5, 3), strict=True)):
            raise ValueError(f"depths are 1 to 3, 1 to 5 and 1 to 3 blocks, not {tuple(self.depths)}")
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5"))
        heads: dict[str, Array] = {}
        x = from_imagenet_statistics(x) if self.transform_input else x

        def unit(x: Array, name: str, channels: int, kernel: int = 3, strides: int = 1, padding: int = 0) -> Array:
            module = ConvUnit(self._scaled(channels), kernel, strides, padding, epsilon=self.epsilon, name=name)
            return module(x, train=train, mask=mask)

        x = unit(unit(x, "conv1a", 32, strides=2), "conv2a", 32)
        x = stages.reached("c1", unit(x, "conv2b", 64, padding=1))
        if stages.complete:
            return stages.kept
        x = unit(nn.max_pool(x, 3, strides=2), "conv3b", 80, kernel=1)
        x = stages.reached("c2", unit(x, "conv4a", 192))
        if stages.complete:
            return stages.kept
        x = nn.max_pool(x, 3, strides=2)
        for (stage, blocks), depth in zip(STAGES.items(), self.depths, strict=True):
            for name, branches in list(blocks.items())[:depth]:
                block = Mixed(self._thinned(branches), epsilon=self.epsilon, name=f"mixed{name}")
                x = block(x, train=train, mask=mask)
            x = stages.reached(stage, x)
            if stages.complete:
                return stages.kept
            wants_head = self.aux and self.num_classes and not self.features
            if stage == "c4" and wants_head and (train or self.is_initializing()):
                heads["aux1"] = self._head(x, train=train, mask=mask)
        x = nn.Dropout(self.dropout)(nn.global_avg_pool(x), train=train)
        logits = nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x
        return {"logits": logits, **heads} if heads and train else logits

    def _head(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        x = nn.adaptive_avg_pool(x, 5) if min(x.shape[1:3]) < 17 else nn.avg_pool(x, 5, strides=3)
        x = ConvUnit(self._scaled(128), epsilon=self.epsilon, name="aux1_conv0")(x, train=train, mask=mask)
        x = ConvUnit(self._scaled(768), 5, epsilon=self.epsilon, name="aux1_conv1")(x, train=train, mask=mask)
        return nn.Dense(self.num_classes, name="aux1_logits")(nn.global_avg_pool(x))

    def _thinned(self, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        def thin(part: Unit | Pool | Fork) -> Unit | Pool | Fork:
            if isinstance(part, Fork):
                return Fork(tuple(unit._replace(features=self._scaled(unit.features)) for unit in part.units))
            return part._replace(features=self._scaled(part.features)) if isinstance(part, Unit) else part

        return tuple(tuple(thin(part) for part in branch) for branch in branches)

    def _scaled(self, channels: int) -> int:
        return max(1, channels * self.width // 32)

    def _torchvision(self) -> Peer:
        """torchvision's names; timm has the same."""
        stem = {"conv1a": "1a_3x3", "conv2a": "2a_3x3", "conv2b": "2b_3x3", "conv3b": "3b_1x1", "conv4a": "4a_3x3"}
        units = {**{ours: f"Conv2d_{theirs}" for ours, theirs in stem.items()}}
        units |= {r"mixed(\w\w)/(branch\w+)": r"Mixed_\1.\2", r"aux1_(conv\d)": r"AuxLogits.\1"}
        convolutions = [
            rule
            for ours, theirs in units.items()
            for rule in (*conv(f"{ours}/conv", f"{theirs}.conv"), *norm(f"{ours}/norm", f"{theirs}.bn"))
        ]
        heads = (*linear("aux1_logits", "AuxLogits.fc"), *linear("logits", "fc"))
        ignored = "(?!)" if self.aux else r"AuxLogits\..*"
        return Peer((*convolutions, *heads), head=r"(AuxLogits\.)?fc\..*", ignored=ignored)

    peers: ClassVar[Peers] = {"torchvision": _torchvision, "timm": _torchvision}
