"""GoogLeNet (Inception-v1) in torchvision's form and the paper's, and the parts that Inception-v3 shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array
Outputs = Array | dict[str, Array]
Pair = int | tuple[int, int]

_FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")

#: Channels of each block: 1x1; 3x3 (before, itself); 5x5 (before, itself); after the pool.
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Unit(NamedTuple):
    """A convolution of a branch: its name, its channels, and its geometry."""

    name: str
    features: int
    kernel: Pair = 1
    strides: int = 1
    padding: Pair = 0


class Pool(NamedTuple):
    """A pool of a branch: "max" or "avg", windows of 3."""

    kind: str
    strides: int = 1
    padding: int = 1


class Fork(NamedTuple):
    """Convolutions of one input, side by side, whose channels are joined."""

    units: tuple[Unit, ...]


Branch = tuple[Unit | Pool | Fork, ...]


class ConvUnit(linen.Module):
    """Convolution, batch norm (or a bias), ReLU.

    Attributes:
        features, kernel, strides, padding: of the convolution.
        batch_norm: normalise; without it the convolution has a bias.
        epsilon: of the batch norm.
    """

    features: int
    kernel: Pair = 1
    strides: int = 1
    padding: Pair = 0
    batch_norm: bool = True
    epsilon: float = 1e-3

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""
        x = nn.Conv(
            self.features,
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            use_bias=not self.batch_norm,
            kernel_init=_FAN_OUT,
            name="conv",
        )(x)
        if self.batch_norm:
            x = nn.BatchNorm(epsilon=self.epsilon, name="norm")(x, train=train, mask=mask)
        return jax.nn.relu(x)


class Mixed(linen.Module):
    """An inception block: branches over one input, whose channels are joined in their order.

    Attributes:
        branches: each a chain of convolutions, pools and forks.
        batch_norm, epsilon: of the convolutions, see `ConvUnit`.
    """

    branches: tuple[Branch, ...]
    batch_norm: bool = True
    epsilon: float = 1e-3

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""

        def through(x: Array, part: Unit | Pool | Fork) -> Array:
            if isinstance(part, Fork):
                return jnp.concatenate([through(x, unit) for unit in part.units], axis=-1)
            if isinstance(part, Pool):
                pool = nn.max_pool if part.kind == "max" else nn.avg_pool
                return pool(x, 3, strides=part.strides, padding=part.padding)
            unit = ConvUnit(
                part.features,
                part.kernel,
                part.strides,
                part.padding,
                batch_norm=self.batch_norm,
                epsilon=self.epsilon,
                name=part.name,
            )
            return unit(x, train=train, mask=mask)

        outputs = []
        for branch in self.branches:
            y = x
            for part in branch:
                y = through(y, part)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


def from_imagenet_statistics(x: Array) -> Array:
    """Images normalised by ImageNet's means and deviations -> by 0.5 and 0.5, which converted weights expect."""
    deviation = jnp.asarray([0.229, 0.224, 0.225], x.dtype) / 0.5
    shift = (jnp.asarray([0.485, 0.456, 0.406], x.dtype) - 0.5) / 0.5
    if x.shape[-1] != 3:
        raise ValueError(f"transform_input is for images of three channels, not {x.shape}")
    return x * deviation.reshape(1, 1, 1, 3) + shift.reshape(1, 1, 1, 3)


class GoogLeNet(linen.Module):
    """Nine inception blocks: 1x1, 3x3 and 5x5 convolutions and a pool side by side, and heads on the way in training.

    The defaults are torchvision's: batch norm, no local response normalisation, and a "5x5" branch of 3x3 convolutions.
    "googlenet_paper" of the registry has biases instead of batch norm, local response normalisation around the stem's
    convolutions, and 5x5 branches. Features are c1 to c5, the last maps of strides 2 to 32.

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        depths: how many of the blocks 3a, 3b; 4a to 4e; 5a, 5b.
        width: channels of the stem; everything else is in proportion.
        dropout: rate before the logits.
        aux: two auxiliary heads, after 4a and 4d: {"logits", "aux1", "aux2"} in training, logits otherwise. The paper
            weighs their losses by 0.3. They average their map to 4x4 (the paper: windows of 5 in steps of 3).
        aux_dropout: rate in the auxiliary heads.
        batch_norm: normalise after each convolution.
        epsilon: of the batch norms.
        response_norm: local response normalisation after the first pool and before the second.
        large_kernel: of the "5x5" branches, 3 or 5.
        transform_input: the images are normalised by ImageNet's statistics, the weights want them by 0.5 (so those that
            torchvision publishes).
        features: names of stages whose outputs are returned instead of logits.

    Source: Szegedy et al., "Going Deeper with Convolutions", 2014.
    """

    num_classes: int
    depths: Sequence[int] = (2, 5, 2)
    width: int = 64
    dropout: float | Array = 0.2
    aux: bool = False
    aux_dropout: float = 0.7
    batch_norm: bool = True
    epsilon: float = 1e-3
    response_norm: bool = False
    large_kernel: int = 3
    transform_input: bool = False
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv/kernel", (None, None, "channels_in", "channels_out")),
        (r".*(conv|norm)/(bias|scale)", ("channels_out",)),
        (r"aux\d_fc1/kernel", (None, "mlp")),
        (r"aux\d_fc1/bias", ("mlp",)),
        (r"aux\d_logits/kernel", ("mlp", "classes")),
        (r"logits/kernel", ("channels_in", "classes")),
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
        if x.ndim != 4 or min(x.shape[1:3]) < 15:
            raise ValueError(f"GoogLeNet takes images [batch, height, width, channels] of 15x15 or more, not {x.shape}")
        if len(self.depths) != 3 or any(not 1 <= d <= most for d, most in zip(self.depths, (2, 5, 2), strict=True)):
            raise ValueError(f"depths are 1 to 2, 1 to 5 and 1 to 2 blocks, not {tuple(self.depths)}")
        if self.aux and self.depths[1] < 4:
            raise ValueError(
                f"aux heads stand after the blocks 4a and 4d: depths={tuple(self.depths)} ends before them"
            )
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5"))
        heads: dict[str, Array] = {}
        wants_heads = self.aux and self.num_classes and not self.features and (train or self.is_initializing())
        x = from_imagenet_statistics(x) if self.transform_input else x

        def unit(x: Array, name: str, channels: int, kernel: int, strides: int = 1) -> Array:
            features, padding = self._scaled(channels), kernel // 2
            module = ConvUnit(features, kernel, strides, padding, self.batch_norm, self.epsilon, name=name)
            return module(x, train=train, mask=mask)

        def normed(x: Array) -> Array:
            return nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75)(x) if self.response_norm else x

        x = stages.reached("c1", unit(x, "conv1", 64, 7, strides=2))
        if stages.complete:
            return stages.kept
        x = unit(normed(nn.max_pool(x, 3, strides=2, ceil=True)), "conv2", 64, 1)
        x = stages.reached("c2", normed(unit(x, "conv3", 192, 3)))
        if stages.complete:
            return stages.kept
        for stage, depth in zip((3, 4, 5), self.depths, strict=True):
            x = nn.max_pool(x, 2 if stage == 5 else 3, strides=2, ceil=True)
            for letter in "abcde"[:depth]:
                branches = self._branches(f"{stage}{letter}")
                block = Mixed(branches, self.batch_norm, self.epsilon, name=f"inception{stage}{letter}")
                x = block(x, train=train, mask=mask)
                if wants_heads and f"{stage}{letter}" in ("4a", "4d"):
                    name = f"aux{len(heads) + 1}"
                    heads[name] = self._head(name, x, train=train, mask=mask)
            x = stages.reached(f"c{stage}", x)
            if stages.complete:
                return stages.kept
        x = nn.Dropout(self.dropout)(nn.global_avg_pool(x), train=train)
        logits = nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x
        return {"logits": logits, **heads} if heads and train else logits

    def _head(self, name: str, x: Array, *, train: bool, mask: Array | None) -> Array:
        x = nn.adaptive_avg_pool(x, 4)
        unit = ConvUnit(self._scaled(128), batch_norm=self.batch_norm, epsilon=self.epsilon, name=f"{name}_conv")
        x = unit(x, train=train, mask=mask)
        x = jax.nn.relu(nn.Dense(self._scaled(1024), name=f"{name}_fc1")(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.aux_dropout)(x, train=train)
        return nn.Dense(self.num_classes, name=f"{name}_logits")(x)

    def _branches(self, block: str) -> tuple[Branch, ...]:
        one, before_three, three, before_five, five, pooled = map(self._scaled, BLOCKS[block])
        large = self.large_kernel
        return (
            (Unit("branch1", one),),
            (Unit("branch2_0", before_three), Unit("branch2_1", three, 3, 1, 1)),
            (Unit("branch3_0", before_five), Unit("branch3_1", five, large, 1, large // 2)),
            (Pool("max"), Unit("branch4_1", pooled)),
        )

    def _scaled(self, channels: int) -> int:
        return max(1, channels * self.width // 64)

    def _torchvision(self) -> Peer:
        rules = (
            *conv(r"(conv\d)/conv", r"\1.conv"),
            *norm(r"(conv\d)/norm", r"\1.bn"),
            *conv(r"(inception\w\w)/branch1/conv", r"\1.branch1.conv"),
            *norm(r"(inception\w\w)/branch1/norm", r"\1.branch1.bn"),
            *conv(r"(inception\w\w)/(branch\d)_(\d)/conv", r"\1.\2.\3.conv"),
            *norm(r"(inception\w\w)/(branch\d)_(\d)/norm", r"\1.\2.\3.bn"),
            *conv(r"(aux\d)_conv/conv", r"\1.conv.conv"),
            *norm(r"(aux\d)_conv/norm", r"\1.conv.bn"),
            *linear(r"(aux\d)_fc1", r"\1.fc1", flatten=(self._scaled(128), 4, 4)),
            *linear(r"(aux\d)_logits", r"\1.fc2"),
            *linear("logits", "fc"),
        )
        return Peer(rules, head=r"(fc|aux\d\.fc2)\..*", ignored="(?!)" if self.aux else r"aux\d\..*")

    peers: ClassVar[Peers] = {"torchvision": _torchvision}
