"""Single-shot detection: SSD300 and SSD512 on VGG-16 or ResNet-50."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.models import rules
from jaxdl.models.default_boxes import boxes_per_place, default_boxes, linear_scales
from jaxdl.models.resnet import ResNet
from jaxdl.models.stages import Stages

Array = jax.Array

_FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")
_XAVIER = linen.initializers.xavier_uniform()

#: What the second convolution of an extra map does: kernel, stride, padding.
_EXTRAS = {"half": (3, 2, 1), "valid": (3, 1, 0), "last": (4, 1, 1)}
_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "resnet50": (3, 4, 6, 3)}


class _Boxes(NamedTuple):
    """What goes with a size of the image: extra maps by backbone, and the default boxes."""

    extras: dict[str, tuple[str, ...]]
    aspect_ratios: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    steps: tuple[int, ...]


_PUBLISHED = {
    300: _Boxes(
        {"vgg16": ("half", "half", "valid", "valid"), "resnet50": ("half", "valid", "valid")},
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        (8, 16, 32, 64, 100, 300),
    ),
    512: _Boxes(
        {"vgg16": ("half", "half", "half", "half", "last"), "resnet50": ("half", "half", "half", "last")},
        ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
        (8, 16, 32, 64, 128, 256, 512),
    ),
}


class SSD(linen.Module):
    """Boxes and their classes from feature maps of falling size, in one pass.

    VGG-16 gives conv4_3 (its channels scaled to a learned length) and the former dense layer fc7, dilated, as maps of
    strides 8 and 16; ResNet-50 gives c3, c4 and c5. Extra convolutions make smaller maps. On each map two 3x3
    convolutions say, for each default box, the logits of the classes (0 is the background) and four offsets.

    With VGG-16 and 300 it is torchvision's ssd300_vgg16; with 512 it has the maps and boxes of the authors' SSD512
    (24,564). No peer has the ResNet forms: maps, default boxes and heads are those of the VGG ones, the extra
    convolutions are normalised. Inputs are floats of any scale; torchvision's weights want 255 * x minus the channels'
    means (123, 117, 104).

    Attributes:
        num_classes: with the background: 21 for VOC, 91 for COCO.
        backbone: "vgg16" or "resnet50".
        size: height and width of the images. 300 and 512 come with extra maps and default boxes; other sizes have extra
            maps down to one place, scales that grow evenly from 0.15 to 0.9, and the aspect ratios of SSD300.
        width: channels of the backbone's first stage; all others follow. 64 is the published one.
        depth: convolutions (VGG) or blocks (ResNet) of every stage, instead of depths.
        depths: those of each stage; None: of VGG-16 or ResNet-50.
        batch_norm: normalise after each convolution but the heads; None: not with VGG-16, but with ResNet-50.
        extras: how each extra map comes from the one before: "half" (3x3, stride 2), "valid" (3x3 without padding) or
            "last" (4x4, padding 1).
        aspect_ratios: for each map, the default boxes' ratios beside 1.
        scales: of the default boxes, one more than there are maps.
        steps: pixels between the places of each map; only for the published sizes are they not size / places.
        features: names of maps ("map1" ...) that are returned instead, {name: [batch, height, width, channels]}.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016; the authors' code for SSD512.
    """

    num_classes: int
    backbone: str = "vgg16"
    size: int = 300
    width: int = 64
    depth: int | None = None
    depths: Sequence[int] | None = None
    batch_norm: bool | None = None
    extras: Sequence[str] | None = None
    aspect_ratios: Sequence[Sequence[float]] | None = None
    scales: Sequence[float] | None = None
    steps: Sequence[int] | None = None
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        *((rf"resnet/{pattern}", names) for pattern, names in ResNet.logical_axes),
        (r"logits\d+/kernel", (None, None, "channels_in", "classes")),
        (r"logits\d+/bias", ("classes",)),
        (r"offsets\d+/kernel", (None, None, "channels_in", None)),
        (r"offsets\d+/bias", (None,)),
        (r"conv\w+/kernel", (None, None, "channels_in", "channels_out")),
        (r"conv\w+/bias", ("channels_out",)),
        (r"\w*norm\w*/(scale|bias)", ("channels_out",)),
    )
    peers: ClassVar[rules.Peers] = {"torchvision": lambda model: _torchvision(model)}

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> dict[str, Array]:
        """x: [batch, size, size, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            {"logits": [batch, boxes, num_classes], "offsets": [batch, boxes, 4]}, the boxes in the order of
            `default_boxes()`; or the features asked for.

        Raises:
            ValueError: x is no batch of such images, or an option is not among those above.
        """
        ratios = self._layout()[1]
        if x.ndim != 4 or x.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"ssd of size={self.size} takes images [batch, {self.size}, {self.size}, channels], not {x.shape}: "
                "resize the images and their boxes, or choose another size"
            )
        names = tuple(f"map{number}" for number in range(1, len(ratios) + 1))
        stages = Stages(self, self.features, known=names)
        maps = self._vgg(x, train, mask) if self.backbone == "vgg16" else self._resnet(x, train, mask)
        maps = self._extra(maps, train, mask)
        maps = [stages.reached(name, y) for name, y in zip(names, maps, strict=True)]
        if stages.complete:
            return stages.kept
        outputs = {}
        for head, numbers in (("logits", self.num_classes), ("offsets", 4)):
            parts = []
            for k, (y, count) in enumerate(zip(maps, boxes_per_place(ratios), strict=True), start=1):
                y = nn.Conv(count * numbers, 3, padding=1, kernel_init=_XAVIER, name=f"{head}{k}")(y)
                parts.append(y.reshape(y.shape[0], -1, numbers))
            outputs[head] = jnp.concatenate(parts, axis=1)
        return outputs

    def default_boxes(self) -> np.ndarray:
        """The boxes that the outputs speak of, (centre x, centre y, width, height) in shares of the image, float32
        [boxes, 4]: 8,732 for a size of 300, 24,564 for 512."""
        grids, ratios, scales, steps = self._layout()
        return default_boxes(
            [(side, side) for side in grids], (self.size, self.size), aspect_ratios=ratios, scales=scales, steps=steps
        )

    def _extra_kinds(self) -> tuple[str, ...]:
        """How the extra maps come about, one word each."""
        if self.backbone not in _DEPTHS:
            raise ValueError(f"ssd has no backbone {self.backbone!r}; it has {', '.join(_DEPTHS)}")
        if not isinstance(self.num_classes, int) or self.num_classes < 2:
            raise ValueError(f"ssd needs num_classes of 2 or more, the background among them, not {self.num_classes}")
        depths = self._stage_depths()
        if len(depths) != len(_DEPTHS[self.backbone]) or min(depths) < 1:
            raise ValueError(f"{self.backbone} has {len(_DEPTHS[self.backbone])} stages, each of 1 or more: {depths}")
        if self.extras is not None:
            for kind in self.extras:
                if kind not in _EXTRAS:
                    raise ValueError(f"an extra map of ssd is one of {', '.join(_EXTRAS)}, not {kind!r}")
            return tuple(self.extras)
        if self.size in _PUBLISHED:
            return _PUBLISHED[self.size].extras[self.backbone]
        return ("half",) * max(0, self._backbone_sides()[-1] - 1).bit_length()

    def _stage_depths(self) -> tuple[int, ...]:
        published = _DEPTHS[self.backbone]
        if self.depths is not None:
            return tuple(self.depths)
        return published if self.depth is None else (self.depth,) * len(published)

    def _backbone_sides(self) -> list[int]:
        """Places along a side of each map of the backbone."""
        if self.backbone == "vgg16":
            fourth = -(-(self.size // 4) // 2)
            return [fourth, fourth // 2]
        return [-(-self.size // stride) for stride in (8, 16, 32)]

    def _layout(self) -> tuple[list[int], Sequence[Sequence[float]], Sequence[float], Sequence[int] | None]:
        """Places along a side of each map, and aspect ratios, scales and steps of their default boxes."""
        kinds, sides = self._extra_kinds(), self._backbone_sides()
        for kind in kinds:
            kernel, stride, padding = _EXTRAS[kind]
            sides.append((sides[-1] + 2 * padding - kernel) // stride + 1)
        if min(sides) < 1:
            raise ValueError(
                f"ssd of size={self.size} has maps of {sides} places a side: choose a larger size or fewer extras"
            )
        published, maps = _PUBLISHED.get(self.size), len(sides)
        usual = published if published is not None and len(published.aspect_ratios) == maps else None
        ratios = self.aspect_ratios
        if ratios is None:
            few = [(2,) if k == 0 or k >= max(1, maps - 2) else (2, 3) for k in range(maps)]
            ratios = few if usual is None else usual.aspect_ratios
        scales = self.scales
        if scales is None:
            scales = linear_scales(maps) if usual is None else usual.scales
        steps = self.steps
        if steps is None and usual is not None:
            steps = usual.steps
        return sides, ratios, scales, steps

    def _convolved(
        self, x: Array, channels: int, name: str, train: bool, mask: Array | None, *, normed: bool, kernel: int = 3,
        stride: int = 1, padding: int = 1, dilation: int = 1, trunk: bool = False,
    ) -> Array:  # fmt: skip
        """Convolution, batch norm where wanted, relu."""
        x = nn.Conv(
            channels, kernel, strides=stride, padding=padding, dilation=dilation, use_bias=not normed,
            kernel_init=_FAN_OUT if trunk or normed else _XAVIER, name=f"conv{name}",
        )(x)  # fmt: skip
        if normed:
            x = nn.BatchNorm(name=f"norm{name}")(x, train=train, mask=mask)
        return jax.nn.relu(x)

    def _vgg(self, x: Array, train: bool, mask: Array | None) -> list[Array]:
        """conv4_3 and conv7 of the dilated VGG; the third pool keeps the odd row."""
        normed = bool(self.batch_norm)
        first = x
        for stage, depth in enumerate(self._stage_depths(), start=1):
            channels = self.width * min(2 ** (stage - 1), 8)
            for number in range(1, depth + 1):
                x = self._convolved(x, channels, f"{stage}_{number}", train, mask, normed=normed, trunk=True)
            if stage == 4:
                first = nn.L2Norm(initial_scale=20.0, name="l2norm4_3")(x)
            if stage < 5:
                x = nn.max_pool(x, 2, ceil=stage == 3)
        x = nn.max_pool(x, 3, strides=1, padding=1)
        wide = self.width * 16
        x = self._convolved(x, wide, "6", train, mask, normed=normed, padding=6, dilation=6)
        return [first, self._convolved(x, wide, "7", train, mask, normed=normed, kernel=1, padding=0)]

    def _resnet(self, x: Array, train: bool, mask: Array | None) -> list[Array]:
        """c3, c4 and c5."""
        depths, names = self._stage_depths(), ("c3", "c4", "c5")
        resnet = ResNet(num_classes=0, depths=depths, width=self.width, bottleneck=True, features=names, name="resnet")
        maps = resnet(x, train=train, mask=mask)
        return [maps[name] for name in names]

    def _extra(self, maps: list[Array], train: bool, mask: Array | None) -> list[Array]:
        """The maps of the backbone, and those that extra convolutions make of the last."""
        normed = self.backbone == "resnet50" if self.batch_norm is None else self.batch_norm
        x, first = maps[-1], 8 if self.backbone == "vgg16" else 6
        for index, kind in enumerate(self._extra_kinds()):
            kernel, stride, padding = _EXTRAS[kind]
            inner = self.width * (4 if index == 0 else 2)
            x = self._convolved(x, inner, f"{first + index}_1", train, mask, normed=normed, kernel=1, padding=0)
            x = self._convolved(
                x, 2 * inner, f"{first + index}_2", train, mask, normed=normed, kernel=kernel, stride=stride,
                padding=padding,
            )  # fmt: skip
            maps = [*maps, x]
        return maps


def _torchvision(model: SSD) -> rules.Peer:
    """ssd300_vgg16."""
    if model.backbone != "vgg16" or model.batch_norm:
        raise ValueError("torchvision has ssd with VGG-16 without batch norm only")
    found: list[rules.Rule] = [rules.Rule("l2norm4_3/scale", "backbone.scale_weight")]
    place = 0
    for stage, depth in enumerate(model._stage_depths(), start=1):
        if stage == 5:  # after the fourth pool, which is the first of its list
            place = 1
        where = "backbone.features" if stage < 5 else "backbone.extra.0"
        for number in range(1, depth + 1):
            found += rules.conv(f"conv{stage}_{number}", f"{where}.{place}")
            place += 2
        place += stage < 4
    found += rules.conv("conv6", f"backbone.extra.0.{place}.1")
    found += rules.conv("conv7", f"backbone.extra.0.{place}.3")
    for index in range(len(model._extra_kinds())):
        for number, inside in ((1, 0), (2, 2)):
            found += rules.conv(f"conv{8 + index}_{number}", f"backbone.extra.{index + 1}.{inside}")
    for index in range(len(model._extra_kinds()) + 2):
        found += rules.conv(f"logits{index + 1}", f"head.classification_head.module_list.{index}")
        found += rules.conv(f"offsets{index + 1}", f"head.regression_head.module_list.{index}")
    return rules.Peer(tuple(found), head=r"head\.classification_head\..*")
