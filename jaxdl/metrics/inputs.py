"""What every metric checks before tracing: shapes, dtypes, weights and masks, each with a sentence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.ndarray | float | int | bool | list


def as_array(value: Any, what: str) -> jax.Array:
    """`value` as a jax array that carries no gradient; float64 becomes float32 and int64 int32 while x64 is off."""
    if isinstance(value, np.ndarray | np.integer | list) and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        _check_fits(value, what)
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be an array of numbers; it is a {type(value).__name__}: {error}") from error
    return jax.lax.stop_gradient(array)


def _check_fits(value: Any, what: str) -> None:
    """Refuses integers beyond 32 bits, of which JAX would silently keep the lowest 32."""
    try:
        given = np.asarray(value)
    except (TypeError, ValueError):
        return  # the conversion itself has the better sentence
    if given.dtype.kind in "iu" and given.dtype.itemsize == 8 and given.size:
        low, high = int(given.min()), int(given.max())
        if low < -(2**31) or high >= 2**32 or (given.dtype.kind == "i" and high >= 2**31):
            raise ValueError(
                f"{what} has integers from {low} to {high}, which do not fit in 32 bits. Give quantities as floats, "
                ".astype(np.float32), and ids as places in a table of them: np.unique(ids, return_inverse=True)[1]"
            )


def as_float(value: Any, what: str) -> jax.Array:
    """`value` as float32; complex numbers are refused."""
    array = as_array(value, what)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{what} must be real numbers; they are {array.dtype}")
    return array.astype(jnp.float32)


def as_ids(value: Any, what: str) -> jax.Array:
    """`value` as int32 class ids; floats are refused, booleans count as 0 and 1, ids above 2^31 - 1 become -1."""
    array = as_array(value, what)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{what} must be integer class ids; they are {array.dtype} of shape {array.shape}. "
            "Cast them with .astype(int32), or threshold scores first, such as preds > 0.5"
        )
    if jnp.iinfo(array.dtype).max > jnp.iinfo(jnp.int32).max:
        fits = array <= jnp.asarray(jnp.iinfo(jnp.int32).max, array.dtype)
        return jnp.where(fits, array, jnp.zeros_like(array)).astype(jnp.int32) - (~fits).astype(jnp.int32)
    return array.astype(jnp.int32)


def same_shape(preds: jax.Array, target: jax.Array, name: str) -> None:
    """Refuses shapes that would broadcast: [n, 1] against [n] silently compares all with all."""
    if preds.shape != target.shape:
        raise ValueError(
            f"{name}: preds have shape {preds.shape} and target {target.shape}; they must be the same"
            + ("; drop the last axis of preds: preds[..., 0]" if preds.shape == (*target.shape, 1) else "")
        )


def as_weight(shape: tuple[int, ...], weight: Any, mask: Any, name: str) -> jax.Array | None:
    """Weight times mask as float32 of `shape`, or None when neither is given. Both broadcast from the left.

    A mask that is False gives weight 0, whatever the weight there.
    """
    result = None
    if weight is not None:
        result = _from_left(as_float(weight, f"{name}: weight"), shape, f"{name}: weight")
    if mask is not None:
        kept = as_mask(shape, mask, name)
        result = kept.astype(jnp.float32) if result is None else jnp.where(kept, result, jnp.zeros_like(result))
    return result


def as_mask(shape: tuple[int, ...], mask: Any, name: str) -> jax.Array:
    """The mask as bool of `shape`; integers 0 and 1 count as booleans."""
    array = as_array(mask, f"{name}: mask")
    if array.dtype != jnp.bool_ and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: mask must be booleans; it is {array.dtype}. Give numbers as weight= instead")
    return _from_left(array.astype(jnp.bool_), shape, f"{name}: mask")


def _from_left(array: jax.Array, shape: tuple[int, ...], what: str) -> jax.Array:
    if array.shape != shape[: array.ndim]:
        raise ValueError(
            f"{what} has shape {array.shape}, which does not match target's {shape} from the left; "
            f"give {shape[:1]} (one for each example) or {shape}"
        )
    return jnp.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)


def weighted(values: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(values * weight, weight), flat float32 [n]; where the weight is 0 the value is absent, even NaN."""
    values = values.reshape(-1)
    if weight is None:
        return values, jnp.ones_like(values)
    weight = weight.reshape(-1)
    return jnp.where(weight == 0, jnp.zeros_like(values), values * weight), weight


def as_texts(values: Any) -> np.ndarray:
    """Labels of any kind as strings, on the host: an object array of the same shape; whole floats read as integers.

    So a column of integers that became floats (as one missing value makes it) keeps its names.
    """
    column = np.asarray(values)
    if column.dtype.kind == "f":
        column = column.astype(object)
    whole = [isinstance(x, float | np.floating) and float(x).is_integer() for x in column.reshape(-1).tolist()]
    flat = [str(int(x)) if w else str(x) for x, w in zip(column.reshape(-1).tolist(), whole, strict=True)]
    texts = np.empty(len(flat), object)
    texts[:] = flat
    return texts.reshape(column.shape)
