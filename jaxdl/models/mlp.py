"""Dense networks: a linear model and a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.models.stages import Stages
from jaxdl.nn import Dropout, activation
from jaxdl.parallel import constrain

Array = jax.Array


class Linear(nn.Module):
    """One dense layer on the flattened input: logistic or linear regression.

    It has no hidden layer, so neither width nor depth.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: the flattened input.
        features: ("inputs",) returns {"inputs": [batch, numbers]}, what the layer reads, instead of logits.
    """

    num_classes: int
    features: Sequence[str] = ()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array | dict[str, Array]:
        """x: [batch, ...] floats or integers; returns [batch, num_classes], or the features asked for."""
        stages = Stages(self, self.features, known=("inputs",))
        x = stages.reached("inputs", flatten(x))
        if stages.complete:
            return stages.kept
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


class MLP(nn.Module):
    """Dense layers with an activation after each but the last; the input is flattened.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: what the last hidden layer has.
        width: size of each hidden layer.
        depth: number of hidden layers; 0: logits of the flattened input.
        widths: sizes of the hidden layers, one by one, instead of width and depth.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        dropout: rate after each hidden layer; 0 draws nothing.
        features: names of hidden layers ("hidden0", ...) whose activations, [batch, size], are returned by name instead
            of logits; what comes after the last of them is not computed and has no parameters.
    """

    #: On a tensor axis the hidden layers take turns: columns, then rows, so that two of them need one reduce.
    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"hidden\d*[02468]/kernel", ("embed", "hidden")),
        (r"hidden\d*[02468]/bias", ("hidden",)),
        (r"hidden\d*[13579]/kernel", ("hidden", "embed")),
        (r"hidden\d*[13579]/bias", ("embed",)),
        (r"logits/kernel", ("embed", "classes")),
        (r"logits/bias", ("classes",)),
    )

    num_classes: int
    width: int = 128
    depth: int = 2
    widths: Sequence[int] | None = None
    activation: str | Callable[[Array], Array] = "relu"
    dropout: float | Array = 0.0
    features: Sequence[str] = ()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array | dict[str, Array]:
        """x: [batch, ...] floats or integers; returns [batch, num_classes], or the features asked for."""
        widths = (self.width,) * self.depth if self.widths is None else tuple(self.widths)
        stages = Stages(self, self.features, known=[f"hidden{index}" for index in range(len(widths))])
        x = flatten(x)
        for index, width in enumerate(widths):
            x = nn.Dense(width, kernel_init=nn.initializers.he_uniform(), name=f"hidden{index}")(x)
            x = activation(self.activation)(x)
            x = constrain(x, "batch", "embed" if index % 2 else "hidden")
            x = stages.reached(f"hidden{index}", x)
            if stages.complete:
                return stages.kept
            x = Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


def flatten(x: Array) -> Array:
    """[batch, ...] -> [batch, everything else]; integers become float32."""
    x = x.reshape(x.shape[0], -1)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
