"""Activation functions by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "sigmoid": jax.nn.sigmoid,
    "swish": jax.nn.swish,
    "tanh": jnp.tanh,
}


def activation(name: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The activation function called `name`; a function is returned as it is.

    Raises:
        ValueError: the name is unknown; the sentence lists the names and suggests the nearest.
    """
    if callable(name):
        return name
    if name not in _ACTIVATIONS:
        near = difflib.get_close_matches(name, _ACTIVATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no activation is called {name!r}{hint} (known: {', '.join(sorted(_ACTIVATIONS))})")
    return _ACTIVATIONS[name]


def list_activations() -> tuple[str, ...]:
    """The names that `activation` knows, sorted."""
    return tuple(sorted(_ACTIVATIONS))
