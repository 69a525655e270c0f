"""Dense networks: a linear model and a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.nn import Dropout, activation
from jaxdl.parallel import constrain

Array = jax.Array


class Linear(nn.Module):
    """One dense layer on the flattened input: logistic or linear regression.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: the flattened input.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: [batch, ...] floats or integers; returns [batch, num_classes]."""
        x = flatten(x)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


class MLP(nn.Module):
    """Dense layers with an activation after each but the last; the input is flattened.

    Attributes:
        num_classes: how many numbers come out (classes; 1 for regression); 0: what the last hidden layer has.
        widths: the sizes of the hidden layers.
        activation: a name (`jaxdl.nn.list_activations()`) or a function.
        dropout: rate after each hidden layer; 0 draws nothing.
    """

    #: On a tensor axis the hidden layers take turns: columns, then rows, so that two of them need one reduce.
    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"hidden\d*[02468]/kernel", ("embed", "hidden")),
        (r"hidden\d*[02468]/bias", ("hidden",)),
        (r"hidden\d*[13579]/kernel", ("hidden", "embed")),
    )

    num_classes: int
    widths: Sequence[int] = (128, 128)
    activation: str | Callable[[Array], Array] = "relu"
    dropout: float | Array = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: [batch, ...] floats or integers; returns [batch, num_classes]."""
        x = flatten(x)
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=nn.initializers.he_uniform(), name=f"hidden{index}")(x)
            x = activation(self.activation)(x)
            x = constrain(x, "batch", "embed" if index % 2 else "hidden")
            x = Dropout(self.dropout)(x, train=train)
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


def flatten(x: Array) -> Array:
    """[batch, ...] -> [batch, everything else]; integers become float32."""
    x = x.reshape(x.shape[0], -1)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
