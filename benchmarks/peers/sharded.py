"""The small step of `benchmarks.scaling`'s dispatch row, written by hand: jit, shard_map and pmap over all devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def steps(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], object]]:
    """Name -> one blocked step of SGD on a hidden layer of 32, the batch uploaded in each call as any feed would.

    Args:
        x: [batch, features] float32; the batch divides by the number of devices.
        y: [batch] labels below 10.
    """
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    numbers = np.random.default_rng(0)
    start = {
        "w1": numbers.standard_normal((x.shape[1], 32), np.float32) * np.float32(0.1),
        "b1": np.zeros(32, np.float32),
        "w2": numbers.standard_normal((32, 10), np.float32) * np.float32(0.1),
        "b2": np.zeros(10, np.float32),
    }

    def loss(params: Any, x: Any, y: Any) -> Any:
        hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
        scores = jax.nn.log_softmax(hidden @ params["w2"] + params["b2"])
        return -jnp.take_along_axis(scores, y[:, None], axis=1).mean()

    def step(params: Any, x: Any, y: Any, *, axis: str | None = None) -> tuple[Any, Any]:
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        if axis is not None:
            value, gradient = jax.lax.pmean((value, gradient), axis)
        return jax.tree.map(lambda w, g: w - 0.01 * g, params, gradient), value

    def by_hand(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        return step(params, x, y, axis="data")

    rows, none = PartitionSpec("data"), PartitionSpec()
    island = jax.shard_map(
        by_hand, mesh=mesh, in_specs=(none, rows, rows), out_specs=(none, none), check_vma=False
    )  # fmt: skip
    programs = {
        "hand-written jit": jax.jit(step, donate_argnums=0, out_shardings=(whole, whole)),
        "hand-written shard_map": jax.jit(island, donate_argnums=0),
    }

    def blocked(program: Any, held: dict[str, Any], put: Callable[[], tuple[Any, Any]]) -> Callable[[], object]:
        def run() -> None:
            held["params"], value = program(held["params"], *put())
            jax.block_until_ready(value)

        return run

    def send() -> tuple[Any, Any]:
        return jax.device_put((x, y), split)

    found = {name: blocked(one, {"params": jax.device_put(start, whole)}, send) for name, one in programs.items()}
    parts = x.reshape(len(devices), -1, x.shape[1]), y.reshape(len(devices), -1)
    mapped = jax.pmap(by_hand, "data", in_axes=(None, 0, 0), out_axes=None, donate_argnums=0)
    found["hand-written pmap"] = blocked(
        mapped, {"params": jax.device_put(start, whole)}, lambda: jax.device_put(parts, split)
    )
    return found
