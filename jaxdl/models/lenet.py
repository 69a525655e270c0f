"""LeNet-5: two convolutions and three dense layers, the network that read cheques."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.models.rules import Peer, Peers, conv, linear
from jaxdl.models.stages import Stages

Array = jax.Array

_POOLS: dict[str, Callable[[Array], Array]] = {"max": nn.max_pool, "avg": nn.avg_pool}


class LeNet(linen.Module):
    """LeNet-5 as it is taught: 6 and 16 maps of 5x5 convolutions with pools, dense layers of 120 and 84.

    The paper's third layer joins only some of the 6 maps to each of its 16, its pools have learned factors, and its
    outputs are distances to drawn digits; here all maps are joined, the pools are plain, and logits come out. Features
    are c1 and c2, after the pools.

    Attributes:
        num_classes: how many logits come out; 0: the [batch, 84] features before them.
        width: maps of the first convolution; everything else is in proportion (6, 16, 120, 84 at 6).
        depth: how many of the two convolutions, each with its pool: 1 or 2.
        activation: a name (`jaxdl.nn.list_activations()`) or a function; the paper's is a scaled tanh.
        pool: "avg" or "max", of windows of 2.
        padding: zeros around the image; 2 for 28x28 images, which the paper embeds in 32x32.
        dropout: rate after the two dense layers.
        features: names of stages whose outputs are returned instead of logits.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """

    num_classes: int
    width: int = 6
    depth: int = 2
    activation: str | Callable[[Array], Array] = "tanh"
    pool: str = "avg"
    padding: int = 0
    dropout: float | Array = 0.0
    features: Sequence[str] = ()

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"conv\d/kernel", (None, None, "channels_in", "channels_out")),
        (r"conv\d/bias", ("channels_out",)),
        (r"fc1/kernel", (None, "mlp")),
        (r"fc1/bias", ("mlp",)),
        (r"fc2/kernel", ("mlp", "embed")),
        (r"fc2/bias", ("embed",)),
        (r"logits/kernel", ("embed", "classes")),
        (r"logits/bias", ("classes",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array | dict[str, Array]:
        """x: [batch, height, width, channels] floats.

        Returns:
            [batch, num_classes]; the features asked for, [batch, 84] or by name.

        Raises:
            ValueError: x is no batch of images, or they are too small; another depth; an unknown pool or feature.
        """
        if self.depth not in (1, 2):
            raise ValueError(f"LeNet-5 has two convolutions: depth is 1 or 2, not {self.depth}")
        least = (16 if self.depth == 2 else 6) - 2 * self.padding
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise ValueError(
                f"LeNet takes images [batch, height, width, channels] of {least}x{least} or more, not {x.shape}"
            )
        if self.pool not in _POOLS:
            raise ValueError(f"pool={self.pool!r}: choose {' or '.join(map(repr, _POOLS))}")
        stages = Stages(self, self.features, known=("c1", "c2")[: self.depth])
        for number, (maps, padding) in enumerate(((6, self.padding), (16, 0))[: self.depth], start=1):
            x = nn.Conv(self._scaled(maps), 5, padding=padding, name=f"conv{number}")(x)
            x = stages.reached(f"c{number}", _POOLS[self.pool](nn.activation(self.activation)(x)))
            if stages.complete:
                return stages.kept
        x = x.reshape(x.shape[0], -1)
        for name, size in (("fc1", 120), ("fc2", 84)):
            x = nn.activation(self.activation)(nn.Dense(self._scaled(size), name=name)(x))
            x = nn.Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x

    def _scaled(self, size: int) -> int:
        return max(1, size * self.width // 6)

    def _torch(self) -> Peer:
        """torch's tutorials: conv1, conv2, fc1, fc2, fc3, of square images."""
        layers = (
            *conv(r"conv(\d)", r"conv\1"),
            *linear("fc1", "fc1", flatten=(self._scaled(16 if self.depth == 2 else 6),)),
        )
        return Peer((*layers, *linear("fc2", "fc2"), *linear("logits", "fc3")), head=r"fc3\..*")

    peers: ClassVar[Peers] = {"torch": _torch}
