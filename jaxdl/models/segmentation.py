"""What segmentation models on a ResNet share: dilated backbone, auxiliary head, logits as large as the image."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.resnet import ResNet
from jaxdl.models.rules import Peer, Rule, conv, norm
from jaxdl.models.stages import Stages

Array = jax.Array

_FAN_OUT = linen.initializers.variance_scaling(2.0, "fan_out", "normal")
_DILATED = {8: (False, True, True), 16: (False, False, True), 32: (False, False, False)}


class ConvNorm(linen.Module):
    """A convolution that keeps the size, batch norm, ReLU.

    Attributes:
        channels: that come out.
        kernel_size: odd.
        dilation: of the convolution.
    """

    channels: int
    kernel_size: int = 1
    dilation: int = 1

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, height, width, channels]; mask: [batch] bool, the rows that are no padding."""
        x = nn.Conv(
            self.channels,
            self.kernel_size,
            padding=self.dilation * (self.kernel_size // 2),
            dilation=self.dilation,
            use_bias=False,
            kernel_init=_FAN_OUT,
            name="conv",
        )(x)
        return jax.nn.relu(nn.BatchNorm(name="norm")(x, train=train, mask=mask))


class ResNetSegmenter(linen.Module):
    """A dilated ResNet, a head on its last stage, and logits resized to the image: the frame of its subclasses.

    Attributes:
        num_classes: how many logits a pixel has; 0: the head's map of features, [batch, height, width, channels], a
            pixel for each `output_stride` pixels of the image, rounded up.
        depths, width, bottleneck: of the `ResNet`; the defaults are those of ResNet-50.
        output_stride: pixels of the image for each pixel of the last stage: 8, 16 or 32. Below 32, the last stages are
            dilated instead of strided, with the same parameters.
        aux: in training, also the logits of a second head on the stage before the last, "aux1".
        dropout, aux_dropout: rates in the two heads.
        features: names of stages whose outputs are returned instead of logits: c1 to c5 of the ResNet, and head, what
            the logits are computed from.
    """

    num_classes: int
    depths: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    bottleneck: bool = True
    output_stride: int = 8
    aux: bool = False
    dropout: float | Array = 0.1
    aux_dropout: float | Array = 0.1
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"(aux_)?logits/kernel", (None, None, "channels_in", "classes")),
        (r"(aux_)?logits/bias", ("classes",)),
        (r".*/kernel", (None, None, "channels_in", "channels_out")),
        (r".*/(bias|scale)", ("channels_out",)),
    )

    @abc.abstractmethod
    def head(self, x: Array, *, train: bool, mask: Array | None) -> Array:
        """The last stage -> what the logits are computed from; with dropout where the architecture has it."""

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats; mask: [batch] bool, False for padding rows (batch norm only).

        Returns:
            [batch, height, width, num_classes]; with `aux`, in training, {"logits", "aux1"} of that shape; or the
            features that were asked for.

        Raises:
            ValueError: x is no batch of images; an unknown output stride or feature.
        """
        if x.ndim != 4:
            raise ValueError(f"{type(self).__name__} takes images [batch, height, width, channels], not {x.shape}")
        if self.output_stride not in _DILATED:
            raise ValueError(f"output_stride is 8, 16 or 32, not {self.output_stride}")
        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5", "head"))
        reached = self._backbone(name="backbone")(x, train=train, mask=mask)
        assert isinstance(reached, dict)  # the features that were asked for
        for name, value in reached.items():
            reached[name] = stages.reached(name, value)
        if stages.complete:
            return stages.kept
        features = stages.reached("head", self.head(reached["c5"], train=train, mask=mask))
        if stages.complete or not self.num_classes:
            return stages.result(features)
        logits = self._logits(features, x.shape, "logits")
        # The second head is there at init, so that its parameters do not depend on `train`.
        if not self.aux or not (train or self.is_initializing()):
            return logits
        second = ConvNorm(reached["c4"].shape[-1] // 4, 3, name="aux")(reached["c4"], train=train, mask=mask)
        aux = self._logits(nn.Dropout(self.aux_dropout)(second, train=train), x.shape, "aux_logits")
        return {"logits": logits, "aux1": aux} if train else logits

    def _backbone(self, **options: Any) -> ResNet:
        return ResNet(
            num_classes=0,
            depths=self.depths,
            width=self.width,
            bottleneck=self.bottleneck,
            replace_stride_with_dilation=_DILATED[self.output_stride],
            features=("c1", "c2", "c3", "c4", "c5"),
            **options,
        )

    def _logits(self, x: Array, shape: tuple[int, ...], name: str) -> Array:
        return nn.resize(nn.Conv(self.num_classes, 1, name=name)(x), (shape[1], shape[2]))

    def _torchvision(self, head: tuple[Rule, ...], last: str) -> Peer:
        """The peer's names, from the rules of the head and the peer's name of the last convolution."""
        backbone = ResNet.peers["torchvision"](self._backbone(parent=None)).rules
        aux = (*conv_norm("aux", "aux_classifier.0", "aux_classifier.1"), *conv("aux_logits", "aux_classifier.4"))
        return Peer(
            (*prefixed(backbone, "backbone/", "backbone."), *head, *aux, *conv("logits", last)),
            head=rf"{re.escape(last)}\..*|aux_classifier\.4\..*",
            ignored="(?!)" if self.aux else r"aux_classifier\..*",
        )


def conv_norm(ours: str, convolution: str, normalisation: str) -> tuple[Rule, ...]:
    """The rules of a `ConvNorm`, whose two parts have names of their own at a peer's."""
    return (*conv(f"{ours}/conv", convolution), *norm(f"{ours}/norm", normalisation))


def prefixed(rules: Iterable[Rule], ours: str, peer: str) -> tuple[Rule, ...]:
    """The rules of a network that is a part of another, here and at the peer's."""

    def renamed(name: str | Callable[[re.Match[str]], str]) -> str | Callable[[re.Match[str]], str]:
        return f"{peer}{name}" if isinstance(name, str) else lambda match: f"{peer}{name(match)}"

    return tuple(rule._replace(ours=f"{ours}(?:{rule.ours})", peer=renamed(rule.peer)) for rule in rules)
