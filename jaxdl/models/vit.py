"""Vision Transformer: an image as a sequence of patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, Rule, conv, linear, norm
from jaxdl.models.stages import Stages
from jaxdl.models.transformer_parts import LogicalAxes, stack_of, stacked_axes
from jaxdl.parallel import constrain

Array = jax.Array


def _torchvision(_: Any) -> Peer:
    layer = "encoder.layers.encoder_layer_*"
    attention = [
        rule
        for number, name in enumerate(("query", "key", "value"))
        for rule in linear(
            f"blocks/attention/{name}", f"{layer}.self_attention.in_proj", part=(number, 3), separator="_"
        )
    ]
    return Peer(
        (
            *conv("patches", "conv_proj"),
            Rule("class_token", "class_token"),
            Rule("positions", "encoder.pos_embedding"),
            *attention,
            *linear("blocks/attention/out", f"{layer}.self_attention.out_proj"),
            *linear("blocks/mlp/up", f"{layer}.mlp.0"),
            *linear("blocks/mlp/down", f"{layer}.mlp.3"),
            *norm("blocks/norm1", f"{layer}.ln_1"),
            *norm("blocks/norm2", f"{layer}.ln_2"),
            *norm("norm", "encoder.ln"),
            *linear("logits", "heads.head"),
        ),
        head=r"heads\.head\..*",
    )


class ViT(linen.Module):
    """A Transformer encoder over the patches of an image and a class token, whose last state is classified.

    The positions are learned for the size of the images that it is started with.

    Attributes:
        num_classes: classes; 0: the class token's features [batch, width].
        patch: height and width of a patch, which divides those of the image.
        width: features; depth: blocks; heads: of attention; mlp_width: hidden features, None: 4 * width.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        norm_epsilon: 1e-6 as in torchvision.
        dropout: rate on the patches' vectors and on what is added to the residual path; attention_dropout: on attention
            weights.
        remat, unroll: see `nn.Stack`; implementation: of attention, "auto", "xla" or "cudnn".
        features: return these stages by name instead: "embedding", "hidden" (after the blocks) and "final" [batch,
            1 + patches, width], "pooled" [batch, width].

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020; numbers as in torchvision.
    """

    num_classes: int
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int | None = None
    activation: str | Callable[[Array], Array] = "gelu"
    norm_epsilon: float = 1e-6
    dropout: float | Array = 0.0
    attention_dropout: float | Array = 0.0
    remat: str = "none"
    unroll: bool | None = None
    implementation: str = "auto"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[LogicalAxes] = (
        ("patches/kernel", (None, None, "channels_in", "embed")),
        ("patches/bias", ("embed",)),
        ("class_token|positions", (None, None, "embed")),
        *stacked_axes("blocks"),
        ("norm/(scale|bias)", ("embed",)),
        ("logits/kernel", ("embed", "classes")),
        ("logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {"torchvision": _torchvision}

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Any:
        """x: [batch, height, width, channels] floats; returns [batch, num_classes], or the features asked for.

        Raises:
            ValueError: x is no batch of images that patches divide, or of another size than the model was started with.
        """
        if x.ndim != 4 or x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"vit takes images [batch, height, width, channels] whose height and width are multiples of "
                f"patch={self.patch}, not {x.shape}"
            )
        stages = Stages(self, self.features, known=("embedding", "hidden", "final", "pooled"))
        # torchvision draws the patches' kernel as a normal of variance 1 / fan_in, cut off at two deviations.
        x = nn.Conv(
            self.width, (self.patch, self.patch), strides=self.patch, padding="VALID", name="patches",
            kernel_init=linen.initializers.lecun_normal(),
        )(x)  # fmt: skip
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", linen.initializers.zeros, (1, 1, self.width), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width)), x], axis=1)
        shape = (1, x.shape[1], self.width)
        if self.has_variable("params", "positions") and self.get_variable("params", "positions").shape != shape:
            started = self.get_variable("params", "positions").shape[1] - 1
            raise ValueError(f"the images have {shape[1] - 1} patches; vit was started with images of {started}")
        positions = self.param("positions", linen.initializers.normal(0.02), shape, jnp.float32)
        x = nn.Dropout(self.dropout)(x + positions.astype(x.dtype), train=train)
        x = stages.reached("embedding", constrain(x, "batch", "length", "embed"))
        x = stack_of(self, name="blocks")(x, train=train)
        x = stages.reached("hidden", x)
        x = stages.reached("final", nn.LayerNorm(self.norm_epsilon, name="norm")(x))
        x = stages.reached("pooled", x[:, 0])
        if stages.complete:
            return stages.kept
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x
