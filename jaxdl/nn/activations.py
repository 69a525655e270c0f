"""Activation functions by name, each with its derivative and with what goes wrong in it.

Three ways for a unit to stop learning, which a debugger looks for:

- **Saturated**: |f'(x)| is nearly 0 on one side or both (sigmoid, tanh: |x| above about 5; softmax: one probability
  near 1). The gradient through it vanishes, and below many such layers it is gone.
- **Dead**: f'(x) is exactly 0 for every example that comes (ReLU with a bias driven below all its inputs). Nothing
  brings such a unit back, since no gradient reaches its weights. Leaky ReLU, PReLU and ELU have no exact 0.
- **Without gradient by nature**: the binary step. Its straight-through form pretends to be the identity backwards.

`describe(name)` gives, for each name, the derivative in closed form and on which inputs it is flat.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.nn.largest import largest

Array = jax.Array
Function = Callable[[Array], Array]


@jax.custom_jvp
def binary_step_straight_through(x: Array) -> Array:
    """1 where x > 0, else 0; its gradient is passed on as if it were the identity.

    Source: Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
    """
    return binary_step(x)


binary_step_straight_through.defjvps(lambda tangent, _, x: tangent)


def binary_step(x: Array) -> Array:
    """1 where x > 0, else 0, in x's dtype; its gradient is 0 everywhere, so nothing below it learns."""
    return (x > 0).astype(x.dtype)


def maxout(x: Array, pieces: int = 2) -> Array:
    """The largest of each `pieces` neighbouring features: [..., features] -> [..., features // pieces].

    Raises:
        ValueError: the features do not divide by the pieces.

    Source: Goodfellow et al., "Maxout Networks", 2013.
    """
    features = x.shape[-1]
    if pieces < 1 or features % pieces:
        raise ValueError(f"maxout of {pieces} pieces needs features that divide by it, not {features} ({x.shape})")
    return largest(x.reshape(*x.shape[:-1], features // pieces, pieces), -1)


class PReLU(nn.Module):
    """x where x > 0, else slope * x; one learned `slope`, or one for each feature with `per_feature`.

    Source: He et al., "Delving Deep into Rectifiers", 2015 (slope 0.25 at the start).
    """

    initial_slope: float = 0.25
    per_feature: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x: [..., features]; the same shape."""
        shape = (x.shape[-1],) if self.per_feature else ()
        slope = self.param("slope", nn.initializers.constant(self.initial_slope), shape, jnp.float32)
        return jnp.where(x > 0, x, x * jnp.broadcast_to(slope.astype(x.dtype), x.shape))


class Swish(nn.Module):
    """x * sigmoid(beta * x) with a learned `beta`, which is 1 at the start.

    Source: Ramachandran, Zoph, Le, "Searching for Activation Functions", 2017.
    """

    initial_beta: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x: [...]; the same shape."""
        beta = self.param("beta", nn.initializers.constant(self.initial_beta), (), jnp.float32)
        return x * jax.nn.sigmoid(beta.astype(x.dtype) * x)


@dataclass(frozen=True)
class Activation:
    """One row of the table.

    Attributes:
        make: () -> the function; for a learned one, a fresh module with parameters of its own.
        derivative: f'(x) in closed form, elementwise; None for the functions of a whole axis (softmax, maxout) and for
            the learned ones, which depend on their parameter.
        flat: x -> bool, where |f'(x)| is below 1 % of its largest value: there the unit is saturated or dead.
        risk: what to look for, a sentence.
    """

    make: Callable[[], Function]
    derivative: Function | None
    flat: Function | None
    risk: str


def _sigmoid_slope(x: Array) -> Array:
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1.0 + jax.lax.erf(x / math.sqrt(2.0)))


def _gelu_slope(x: Array) -> Array:
    return _normal_cdf(x) + x * jnp.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _gelu_tanh_slope(x: Array) -> Array:
    scale = math.sqrt(2.0 / math.pi)
    inner = jnp.tanh(scale * (x + 0.044715 * x * x * x))
    return 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * scale * (1.0 + 3.0 * 0.044715 * x * x)


def _swish_slope(x: Array) -> Array:
    return jax.nn.sigmoid(x) * (1.0 + x * jax.nn.sigmoid(-x))


def _below(derivative: Function, largest: float) -> Function:
    return lambda x: jnp.abs(derivative(x)) < 0.01 * largest


def _row(function: Function, derivative: Function, largest: float, risk: str) -> Activation:
    return Activation(lambda: function, derivative, _below(derivative, largest), risk)


_NEVER = "none: the slope never vanishes"
_ACTIVATIONS: dict[str, Activation] = {
    "linear": _row(lambda x: x, jnp.ones_like, 1.0, "no nonlinearity: layers with it collapse into one"),
    "binary_step": _row(binary_step, jnp.zeros_like, 1.0, "the gradient is 0 everywhere: nothing below it learns"),
    "binary_step_straight_through": _row(
        binary_step_straight_through, jnp.ones_like, 1.0, "the gradient is that of the identity, not its own: biased"
    ),
    "sigmoid": _row(
        jax.nn.sigmoid, _sigmoid_slope, 0.25, "saturates on both sides (|x| > 6); slope at most 1/4: deep stacks vanish"
    ),
    "tanh": _row(jnp.tanh, lambda x: 1.0 - jnp.tanh(x) ** 2, 1.0, "saturates on both sides (|x| > 3)"),
    "relu": _row(jax.nn.relu, lambda x: (x > 0).astype(x.dtype), 1.0, "dies: exactly 0 for all x <= 0, for ever"),
    "leaky_relu": _row(
        jax.nn.leaky_relu,
        lambda x: jnp.where(x > 0, 1.0, 0.01).astype(x.dtype),
        0.5,
        "slope 0.01 below 0: slow, not dead",
    ),
    "elu": _row(
        jax.nn.elu, lambda x: jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0.0))), 1.0, "saturates at -1 (x < -5)"
    ),
    "swish": _row(jax.nn.swish, _swish_slope, 1.0998, "flat far below 0 (x < -7) and at its minimum (x = -1.28)"),
    "gelu": _row(
        lambda x: jax.nn.gelu(x, approximate=False), _gelu_slope, 1.1289, "flat below -3 and at its minimum (x = -0.75)"
    ),
    "gelu_tanh": _row(
        lambda x: jax.nn.gelu(x, approximate=True), _gelu_tanh_slope, 1.1294, "as gelu, of which it is an approximation"
    ),
    "prelu": Activation(PReLU, None, None, "the learned slope may reach 0 (then as ReLU) or 1 (then linear)"),
    "swish_learned": Activation(Swish, None, None, "beta near 0 makes it linear, a large one makes it ReLU"),
    "maxout": Activation(lambda: maxout, None, None, "a piece that never wins gets no gradient"),
    "softmax": Activation(
        lambda: jax.nn.softmax, None, None, "saturates where one logit leads by 7; do not put it before a cross-entropy"
    ),
    "log_softmax": Activation(lambda: jax.nn.log_softmax, None, None, _NEVER),
}


def describe(name: str) -> Activation:
    """What is known of the activation called `name`: its derivative, where it is flat, what to look for.

    Raises:
        ValueError: the name is unknown; the sentence lists the names and suggests the nearest.
    """
    if name not in _ACTIVATIONS:
        near = difflib.get_close_matches(name, _ACTIVATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no activation is called {name!r}{hint} (known: {', '.join(sorted(_ACTIVATIONS))})")
    return _ACTIVATIONS[name]


def activation(name: str | Function) -> Function:
    """The activation function called `name`; a function is returned as it is.

    Those with a learned parameter ("prelu", "swish_learned") come as a fresh linen module: ask inside the `setup` or
    `@nn.compact` of your own, once for each layer.

    Raises:
        ValueError: the name is unknown; the sentence lists the names and suggests the nearest.
    """
    return name if callable(name) else describe(name).make()


def list_activations() -> tuple[str, ...]:
    """The names that `activation` knows, sorted."""
    return tuple(sorted(_ACTIVATIONS))
