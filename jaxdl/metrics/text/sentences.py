"""What the text metrics share: one call on strings, means over sentences, weighted sums of counts."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_weight


class Encoder(Protocol):
    """A text metric: it makes its own arrays of strings."""

    def encode(self, preds: Any, references: Any, *, length: int | None = None) -> dict[str, Any]: ...


def text_call(metric: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`one_call` that also takes strings: the metric's `encode` turns them into arrays first.

    Batches of strings are filled up to a power of two, and masked, so that few sizes are compiled.
    """
    on_arrays = one_call(metric, name)
    fields = set(inspect.signature(metric).parameters) - {"name"}

    @functools.wraps(on_arrays)
    def call(preds: Any, target: Any = None, *, weight: Any = None, mask: Any = None, **options: Any) -> Any:
        if is_text(preds):
            made = metric(**{key: value for key, value in options.items() if key in fields})
            encoded = made.encode(preds, target)
            preds, target, weight, mask = _filled_up(encoded["preds"], encoded["target"], weight, mask)
        return on_arrays(preds, target, weight=weight, mask=mask, **options)

    return call


def _filled_up(preds: Any, target: Any, weight: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
    """The arrays of a batch with more rows, up to a power of two, that the mask leaves out."""
    size = len(jax.tree.leaves(preds)[0])
    given = [part for part in (weight, mask) if part is not None]
    if not size or any(isinstance(part, jax.core.Tracer) or np.shape(part) != (size,) for part in given):
        return preds, target, weight, mask  # `update` says what is wrong with a shape

    def longer(part: Any) -> np.ndarray:
        array = np.asarray(part)
        return np.concatenate([array, np.repeat(array[:1], more, axis=0)])

    more = (1 << (size - 1).bit_length()) - size
    preds, target = jax.tree.map(longer, preds), jax.tree.map(longer, target)
    kept = np.concatenate([np.ones(size, np.bool_) if mask is None else np.asarray(mask), np.zeros(more, np.bool_)])
    return preds, target, None if weight is None else longer(weight), kept


def is_text(value: Any) -> bool:
    """Whether these are strings, not arrays of ids."""
    if isinstance(value, str):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "OUST"
    if not isinstance(value, list | tuple):
        return False
    # lists of tokens are no texts, but what is said about them should speak of texts
    return not value or any(isinstance(x, str | bytes) or (isinstance(x, list | tuple) and is_text(x)) for x in value)


def as_quotient(value: float, name: str) -> float:
    """`zero_division` as a float; one NaN object for all, so that equal metrics compare equal.

    Raises:
        TypeError: for what is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: zero_division must be a number or NaN; it is {value!r}")
    return math.nan if math.isnan(value) else float(value)


def add_counts(state: sums.Sums, counts: jax.Array, weight: Any, mask: Any, name: str) -> sums.Sums:
    """Adds weighted numbers of each example, int32 or float32 [batch, k], to a state of k sums."""
    weights = as_weight(counts.shape[:1], weight, mask, name)
    values = counts.astype(jnp.float32)
    if weights is not None:
        factor = jnp.broadcast_to(weights[:, None], values.shape)
        values = jnp.where(factor == 0, jnp.zeros_like(values), values * factor)
    return sums.add(state, sums.total(values.T))


def quotient(above: jax.Array, below: jax.Array, undefined: float) -> jax.Array:
    """above / below; `undefined` where below is 0."""
    empty = below == 0
    return jnp.where(empty, jnp.full_like(above, undefined), above / jnp.where(empty, jnp.ones_like(below), below))
