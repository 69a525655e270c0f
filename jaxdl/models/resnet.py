"""Residual networks: ResNet in four variants, ResNeXt and Wide ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.rules import Layout, Peer, Peers, Rule, conv, keras_layer, keras_norm, linear, norm
from jaxdl.models.stages import Stages

Array = jax.Array

VARIANTS = ("v1", "v1.5", "v2", "d")
_FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResidualBlock(linen.Module):
    """x + f(x), where f is two 3x3 convolutions ("basic") or 1x1, 3x3, 1x1 ("bottleneck"), each normalised.

    v2 normalises and activates before each convolution, the others after it; v1 strides in the first convolution of a
    bottleneck, the others in its 3x3. Where the shape changes, x goes through a 1x1 convolution of the same stride
    ("d": an average pool that strides, then a 1x1 convolution that does not).

    Attributes:
        channels: that come out.
        inner: channels between the convolutions of a bottleneck.
        bottleneck, variant, groups, zero_init, conv_bias, epsilon: as in `ResNet`.
        stride: of the block.
        dilations: of the first and the second 3x3 convolution (a bottleneck has the first only).
        project: whether x goes through a 1x1 convolution.
    """

    channels: int
    inner: int
    bottleneck: bool
    variant: str
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    project: bool = False
    groups: int = 1
    zero_init: bool = False
    conv_bias: bool = False
    epsilon: float = 1e-5

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""
        early = self.variant == "v1"
        if self.bottleneck:
            # (channels, size, stride, dilation, groups) of each convolution
            plan = [
                (self.inner, 1, self.stride if early else 1, 1, 1),
                (self.inner, 3, 1 if early else self.stride, self.dilations[0], self.groups),
                (self.channels, 1, 1, 1, 1),
            ]
        else:
            plan = [
                (self.channels, 3, self.stride, self.dilations[0], 1),
                (self.channels, 3, 1, self.dilations[1], 1),
            ]

        def norm(x: Array, name: str, *, last: bool = False) -> Array:
            scale = linen.initializers.zeros if last and self.zero_init else linen.initializers.ones
            return nn.BatchNorm(epsilon=self.epsilon, scale_init=scale, name=name)(x, train=train, mask=mask)

        before = self.variant == "v2"
        shortcut = x
        if before:
            x = jax.nn.relu(norm(x, "norm1"))
        if self.project:
            shortcut = self._projected(x if before else shortcut)
            shortcut = shortcut if before else norm(shortcut, "shortcut_norm")
        for number, (features, size, stride, dilation, groups) in enumerate(plan, start=1):
            if before and number > 1:
                x = jax.nn.relu(norm(x, f"norm{number}"))
            x = nn.Conv(
                features,
                size,
                strides=stride,
                padding=dilation * (size // 2),
                dilation=dilation,
                groups=groups,
                use_bias=self.conv_bias,
                kernel_init=_FAN_OUT,
                name=f"conv{number}",
            )(x)
            if not before:
                x = norm(x, f"norm{number}", last=number == len(plan))
                x = x if number == len(plan) else jax.nn.relu(x)
        return x + shortcut if before else jax.nn.relu(x + shortcut)

    def _projected(self, x: Array) -> Array:
        stride = self.stride
        if self.variant == "d" and stride > 1:
            # An odd size keeps its last row and column: the window there is smaller.
            x, stride = nn.avg_pool(x, (stride, stride), ceil=True, count_include_pad=False), 1
        return nn.Conv(
            self.channels,
            1,
            strides=stride,
            padding=0,
            use_bias=self.conv_bias,
            kernel_init=_FAN_OUT,
            name="shortcut_conv",
        )(x)


def _torchvision(model: ResNet) -> Peer:
    """torchvision's names, and timm's but for v2."""
    if model.variant == "d":
        rules = [
            *(rule for number in (1, 2, 3) for rule in conv(f"c1_conv{number}", f"conv1.{3 * number - 3}")),
            *(rule for number in (1, 2) for rule in norm(f"c1_norm{number}", f"conv1.{3 * number - 2}")),
            *norm("c1_norm3", "bn1"),
        ]
    else:
        rules = [*conv("c1_conv", "conv1"), *norm("c1_norm", "bn1")]
    shortcut = 1 if model.variant == "d" else 0  # timm's "d" has its pool first
    for stage in range(1, len(model.depths) + 1):
        ours, theirs = rf"c{stage + 1}_block(\d+)", rf"layer{stage}.\1"
        rules += [
            *conv(rf"{ours}/conv(\d)", rf"{theirs}.conv\2"),
            *norm(rf"{ours}/norm(\d)", rf"{theirs}.bn\2"),
            *conv(f"{ours}/shortcut_conv", f"{theirs}.downsample.{shortcut}"),
            *norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.{shortcut + 1}"),
        ]
    return Peer((*rules, *linear("logits", "fc")), head=r"fc\..*")


# timm's v2 ends in a 1x1 convolution: [1, 1, in, out] of theirs is our [in, out].
_AS_CONV = Layout(lambda x: x.transpose(1, 0)[:, :, None, None], lambda x, shape: x[:, :, 0, 0].transpose(1, 0))


def _timm(model: ResNet) -> Peer:
    if model.variant != "v2":
        return _torchvision(model)
    rules = [*conv("c1_conv", "stem.conv"), *norm("norm", "norm")]
    for stage in range(len(model.depths)):
        ours, theirs = rf"c{stage + 2}_block(\d+)", rf"stages.{stage}.blocks.\1"
        rules += [
            *conv(rf"{ours}/(conv\d)", rf"{theirs}.\2"),
            *norm(rf"{ours}/(norm\d)", rf"{theirs}.\2"),
            *conv(f"{ours}/shortcut_conv", f"{theirs}.downsample.conv"),
        ]
    rules += [Rule("logits/kernel", "head.fc.weight", _AS_CONV), Rule("logits/bias", "head.fc.bias")]
    return Peer(tuple(rules), head=r"head\.fc\..*")


def _keras(model: ResNet) -> Peer:
    """keras.applications' names of ResNet50, 101, 152: variant v1 with conv_bias and epsilon 1.001e-5."""
    rules = [*keras_layer("c1_conv", "conv1_conv"), *keras_norm("c1_norm", "conv1_bn")]
    for stage in range(2, len(model.depths) + 2):
        for block in range(model.depths[stage - 2]):
            ours, theirs = f"c{stage}_block{block}", f"conv{stage}_block{block + 1}"
            rules += [
                *keras_layer(rf"{ours}/conv(\d)", rf"{theirs}_\1_conv"),
                *keras_norm(rf"{ours}/norm(\d)", rf"{theirs}_\1_bn"),
                *keras_layer(f"{ours}/shortcut_conv", f"{theirs}_0_conv"),
                *keras_norm(f"{ours}/shortcut_norm", f"{theirs}_0_bn"),
            ]
    return Peer((*rules, *keras_layer("logits", "predictions")), head="predictions/.*")


class ResNet(linen.Module):
    """Residual network: stages of blocks that add to their input, each stage half as large and twice as wide.

    Stages are c1 (the stem), c2, c3, c4, c5, with strides 2, 4, 8, 16, 32; with the CIFAR stem 1, 1, 2, 4, 8. The
    parameters of stage c3 are those whose path starts with "c3_".

    Attributes:
        num_classes: how many logits come out; 0: the pooled features.
        depths: blocks of each stage.
        width: channels of the stem and the first stage.
        bottleneck: blocks of three convolutions that put out four times their width, instead of two convolutions.
        variant: "v1" (the paper's: a bottleneck strides in its first 1x1), "v1.5" (in its 3x3: torchvision, timm), "v2"
            (norm and activation before the convolutions), "d" (v1.5 with a stem of three 3x3 convolutions and average
            pools in the shortcuts).
        stem: "imagenet" (7x7 with stride 2, and a max pool) or "cifar" (3x3 with stride 1, no pool: images of 32x32).
        groups: of the 3x3 convolution in a bottleneck; 32 in ResNeXt.
        group_width: channels of a group in the first stage, where it has a width of 64; 64 makes bottlenecks as wide as
            their stage, 128 twice as wide (Wide ResNet).
        replace_stride_with_dilation: for c3, c4, c5: keep the size and dilate the 3x3 convolutions instead, for
            segmentation. (False, True, True) gives c5 a stride of 8; () strides everywhere.
        zero_init: the last norm of each block starts with scale 0, so that a block starts as the identity (not in v2).
        conv_bias: convolutions of blocks and stem have a bias (keras has them).
        epsilon: of the batch norms.
        features: names of stages; {name: [batch, height, width, channels]} is returned instead of logits. What comes
            after the last of them is not computed and has no parameters. In v2, c2 to c5 are the sums before the next
            norm.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015; "Identity Mappings in Deep Residual
    Networks", 2016 (v2); He et al., "Bag of Tricks for Image Classification", 2018 (d); Xie et al., "Aggregated
    Residual Transformations", 2016 (ResNeXt); Zagoruyko and Komodakis, "Wide Residual Networks", 2016; Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017 (zero_init).
    """

    num_classes: int
    depths: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    bottleneck: bool = False
    variant: str = "v1.5"
    stem: str = "imagenet"
    groups: int = 1
    group_width: int = 64
    replace_stride_with_dilation: Sequence[bool] = ()
    zero_init: bool = False
    conv_bias: bool = False
    epsilon: float = 1e-5
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r".*conv\d?/kernel", (None, None, "channels_in", "channels_out")),
        (r".*conv\d?/bias", ("channels_out",)),
        (r".*norm\d?/(scale|bias)", ("channels_out",)),
        (r"logits/kernel", ("channels_in", "classes")),
        (r"logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {"torchvision": _torchvision, "timm": _timm, "keras": _keras}

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, num_classes]; the features asked for, [batch, channels] or by name.

        Raises:
            ValueError: x is no batch of images, or an option is not among those above.
        """
        inner = self._checked(x)
        stages = Stages(self, self.features, known=("c1", *self._names()))
        x = stages.reached("c1", self._stemmed(x, train=train, mask=mask))
        if self.stem == "imagenet" and not stages.complete:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=1)
        dilation, channels = 1, x.shape[-1]
        for index, (name, depth) in enumerate(zip(self._names(), self.depths, strict=True)):
            if stages.complete:
                break
            out = self.width * 2**index * (4 if self.bottleneck else 1)
            stride = 1 if index == 0 else 2
            first = dilation
            if index > 0 and self.replace_stride_with_dilation and self.replace_stride_with_dilation[index - 1]:
                dilation, stride = dilation * stride, 1
            for block in range(depth):
                x = ResidualBlock(
                    channels=out,
                    inner=inner * 2**index,
                    bottleneck=self.bottleneck,
                    variant=self.variant,
                    stride=stride if block == 0 else 1,
                    # The first block still reads an input of the former dilation.
                    dilations=(first if block == 0 else dilation, dilation),
                    project=block == 0 and (stride != 1 or channels != out),
                    groups=self.groups,
                    zero_init=self.zero_init,
                    conv_bias=self.conv_bias,
                    epsilon=self.epsilon,
                    name=f"{name}_block{block}",
                )(x, train=train, mask=mask)
                channels = out
            x = stages.reached(name, x)
        if stages.complete:
            return stages.kept
        if self.variant == "v2":
            x = jax.nn.relu(nn.BatchNorm(epsilon=self.epsilon, name="norm")(x, train=train, mask=mask))
        x = nn.global_avg_pool(x)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x

    def _names(self) -> tuple[str, ...]:
        return tuple(f"c{index + 2}" for index in range(len(self.depths)))

    def _stemmed(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        """The stem up to its activation, in v2 up to its convolution."""
        if self.stem == "cifar":
            plan = [(self.width, 3, 1)]
        elif self.variant == "d":
            plan = [(self.width // 2, 3, 2), (self.width // 2, 3, 1), (self.width, 3, 1)]
        else:
            plan = [(self.width, 7, 2)]
        for number, (features, size, stride) in enumerate(plan, start=1):
            suffix = str(number) if len(plan) > 1 else ""
            x = nn.Conv(
                features,
                size,
                strides=stride,
                padding=size // 2,
                use_bias=self.conv_bias,
                kernel_init=_FAN_OUT,
                name=f"c1_conv{suffix}",
            )(x)
            if self.variant != "v2":
                norm = nn.BatchNorm(epsilon=self.epsilon, name=f"c1_norm{suffix}")
                x = jax.nn.relu(norm(x, train=train, mask=mask))
        return x

    def _checked(self, x: Array) -> int:
        """The inner channels of the first stage's bottlenecks."""
        if x.ndim != 4:
            raise ValueError(f"a ResNet takes images [batch, height, width, channels], not {x.shape}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {self.variant!r}")
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem is 'imagenet' or 'cifar', not {self.stem!r}")
        if self.replace_stride_with_dilation and len(self.replace_stride_with_dilation) != len(self.depths) - 1:
            raise ValueError(
                f"replace_stride_with_dilation has one value for each of {', '.join(self._names()[1:])}, not "
                f"{tuple(self.replace_stride_with_dilation)}"
            )
        if not self.bottleneck and (self.groups, self.group_width) != (1, 64):
            raise ValueError("groups and group_width are those of bottlenecks: bottleneck=True")
        inner = self.width * self.group_width // 64 * self.groups
        if inner == 0 or (self.width * self.group_width) % 64:
            raise ValueError(
                f"width {self.width} times group_width {self.group_width} must be a multiple of 64: a group has a 64th "
                "of it as channels"
            )
        return inner
