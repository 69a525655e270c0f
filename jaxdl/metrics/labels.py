"""What every statistic of scores reads: one score an example, a label 0 or 1, and a weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.metrics.inputs import as_weight, same_shape


class Labelled(NamedTuple):
    """One batch, flat.

    Attributes:
        scores: float [n].
        positive: bool [n], whether the label is 1.
        present: bool [n], whether it is neither masked nor of weight 0; None where nothing can be absent.
        counted: bool [n], whether the example is present and its label is 0 or 1.
        wrong: bool [n], whether it is present and its label is neither.
        weight: float32 [n], or None where every example that is present weighs 1.
        broken: bool [n], whether a counted weight is negative or not finite; None without weights.
    """

    scores: jax.Array
    positive: jax.Array
    present: jax.Array | None
    counted: jax.Array
    wrong: jax.Array
    weight: jax.Array | None
    broken: jax.Array | None


def labelled(preds: jax.Array, target: jax.Array, weight: Any, mask: Any, name: str) -> Labelled:
    """One batch of scores [...] with labels [...] of any real dtype, checked and flat."""
    if jnp.issubdtype(preds.dtype, jnp.complexfloating) or jnp.issubdtype(target.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: scores and labels must be real; they are {preds.dtype} and {target.dtype}")
    if preds.ndim == target.ndim + 1 and preds.shape[:-1] == target.shape and preds.shape[-1] > 2:
        raise ValueError(
            f"{name}: preds of shape {preds.shape} hold {preds.shape[-1]} classes; this curve is of two classes: "
            "give one class's scores against the rest, preds[..., c] with target == c, or use OneVsRest"
        )
    same_shape(preds, target, name)
    shape, target = target.shape, target.reshape(-1)
    positive, negative = target == jnp.ones((), target.dtype), target == jnp.zeros((), target.dtype)
    known = positive | negative
    kept = as_weight(shape, None, mask, name)
    given = None if weight is None else as_weight(shape, weight, None, name)
    if kept is None and given is None:
        return Labelled(preds.reshape(-1), positive, None, known, ~known, None, None)
    present = jnp.ones(target.shape, jnp.bool_) if kept is None else kept.reshape(-1) != 0
    broken = None
    if given is not None:
        given = given.reshape(-1)
        present &= given != 0
        broken = present & ~(jnp.isfinite(given) & (given > 0))
    return Labelled(preds.reshape(-1), positive, present, present & known, present & ~known, given, broken)


def two_columns(preds: jax.Array, target: jax.Array) -> bool:
    """Whether preds hold one more axis than target, of the scores of two classes."""
    return preds.shape == (*target.shape, 2)


def saturating(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum of two counts, which stays at 2^31 - 1 instead of turning negative."""
    top = jnp.int32(2**31 - 1)
    return jnp.where(a > top - b, top, a + b)
