"""Hand-written JAX: what a careful user would write in thirty lines, in every variant that is best somewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import networks
from benchmarks.networks import Row

NEEDS = ("jax", "optax")


def epochs(row: Row) -> dict[str, Callable[[], object]]:
    """The variants that are best somewhere.

    "scan": one program an epoch, the host's permutation as its argument. "loop": a Python loop over a jitted donated
    step that gathers on the device; "loop-host": the same with NumPy gathering. For the convnet also im2col in a scan.
    "-parts": a large batch whose gradient is summed over parts that fit the cache.
    """
    apply = networks.APPLY[row.model]
    whole = dataclasses.replace(row, parts=1)
    if row.model == "convnet":  # lax.conv in a scan is 20 times slower on CPU: no candidate for the best
        parts = {} if row.parts == 1 else {"loop-parts": _loop(row, apply)}
        return parts | {
            "loop": _loop(whole, apply),
            "loop-host": _loop(whole, apply, gather="host"),
            "scan-im2col": _scan(whole, networks.convnet_im2col),
        }
    parts = {} if row.parts == 1 else {"scan-parts": _scan(row, apply)}
    return parts | {
        "scan": _scan(whole, apply),
        "loop": _loop(whole, apply),
        "loop-host": _loop(whole, apply, gather="host"),
    }


def _step(apply: Any, tx: optax.GradientTransformation, state: Any, x: Any, y: Any, parts: int = 1) -> tuple[Any, Any]:
    params, opt_state = state

    def mean(p: Any, x: Any, y: Any) -> Any:
        return networks.cross_entropy(apply(p, x), y).mean()

    each = [
        jax.value_and_grad(mean)(params, *part) for part in zip(jnp.split(x, parts), jnp.split(y, parts), strict=True)
    ]
    loss, gradient = jax.tree.map(lambda *leaves: sum(leaves) / parts, *each) if parts > 1 else each[0]
    updates, opt_state = tx.update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


def _start(row: Row) -> tuple[optax.GradientTransformation, Any]:
    tx = optax.adam(networks.LEARNING_RATE)
    params = jax.tree.map(lambda leaf: jnp.array(leaf), networks.init(row.model))
    return tx, (params, tx.init(params))


def _scan(row: Row, apply: Any) -> Callable[[], object]:
    tx, state = _start(row)
    x, y = map(jax.device_put, networks.columns(row))

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda s, rows: _step(apply, tx, s, x[rows], y[rows], row.parts), state, order)

    rng = np.random.default_rng(0)

    def run() -> float:
        nonlocal state
        order = rng.permutation(row.examples).astype(np.int32)[: row.steps * row.batch_size]
        state, losses = epoch(state, x, y, order.reshape(row.steps, row.batch_size))
        jax.block_until_ready(state)
        return float(np.mean(losses))

    return run


def _loop(row: Row, apply: Any, gather: str = "device") -> Callable[[], object]:
    tx, state = _start(row)
    columns = networks.columns(row)
    resident = tuple(map(jax.device_put, columns))

    @partial(jax.jit, donate_argnums=0)
    def gathered(state: Any, x: Any, y: Any, rows: Any) -> tuple[Any, Any]:
        return _step(apply, tx, state, x[rows], y[rows], row.parts)

    @partial(jax.jit, donate_argnums=0)
    def handed(state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        return _step(apply, tx, state, x, y, row.parts)

    rng = np.random.default_rng(0)

    def run() -> float:
        nonlocal state
        order = rng.permutation(row.examples).astype(np.int32)[: row.steps * row.batch_size]
        losses = []
        for rows in order.reshape(row.steps, row.batch_size):
            if gather == "device":
                state, loss = gathered(state, *resident, rows)
            else:
                state, loss = handed(state, columns[0][rows], columns[1][rows])
            losses.append(loss)
        jax.block_until_ready(state)
        return float(np.mean(losses))

    return run
