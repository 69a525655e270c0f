"""Steps and tasks that several tests share: small, and one that is no gradient descent."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxdl
from jaxdl.core.state import State
from jaxdl.core.step import Measure, Report, Step
from jaxdl.core.task import Loss, Task


@functools.cache
def digits() -> tuple[Any, Any]:
    """(train, test) of the digits, the first 203 and 90 of each: 203 is no multiple of any batch size used here."""
    train, test = jaxdl.data.load("digits")
    return train.select(np.arange(203)), test.select(np.arange(90))


def mlp_task(**options: Any) -> Task:
    """A classification of the digits by a small MLP."""
    return jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(16,), **options))


def convnet_task(**options: Any) -> Task:
    """A classification of the digits by a small convnet."""
    options = {"dropout": 0.0} | options  # exact sums need tasks without noise that is drawn per part
    return jaxdl.tasks.classification(jaxdl.create_model("convnet", num_classes=10, width=4, hidden=16, **options))


class Recurrent(nn.Module):
    """A small recurrent classifier of the digits' rows, for what scans inside scans do."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        rows = x.reshape(x.shape[0], 8, 8)
        wx = self.param("wx", nn.initializers.lecun_normal(), (8, 16))
        wh = self.param("wh", nn.initializers.orthogonal(), (16, 16))
        hidden = jnp.zeros((x.shape[0], 16), x.dtype)
        hidden, _ = jax.lax.scan(lambda h, row: (jnp.tanh(row @ wx + h @ wh), None), hidden, rows.swapaxes(0, 1))
        return nn.Dense(10)(hidden)


def recurrent_task() -> Task:
    """A classification by `Recurrent`."""
    return jaxdl.tasks.classification(Recurrent())


def counting_task(task: Task, traces: dict[str, int]) -> Task:
    """The same task, which counts how often Python runs through it: once a trace."""

    def init(key: Any, batch: Any) -> Any:
        traces["init"] = traces.get("init", 0) + 1
        return task.init(key, batch)

    def loss(variables: Any, batch: Any, context: Any) -> Loss:
        name = "train" if context.train else "evaluate"
        traces[name] = traces.get(name, 0) + 1
        return task.loss(variables, batch, context)

    def predict(variables: Any, batch: Any) -> Any:
        traces["predict"] = traces.get("predict", 0) + 1
        return task.predict(variables, batch)

    return task._replace(init=init, loss=loss, predict=predict)


def kmeans_step(clusters: int) -> Step:
    """Lloyd's k-means as a Step: measure is counts and sums of each cluster, apply the new means."""

    def nearest(centers: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        distance = (x**2).sum(1)[:, None] - 2 * x @ centers.T + (centers**2).sum(1)[None]
        return distance.argmin(1), jnp.maximum(distance.min(1), 0)

    def flat(batch: Mapping[str, jax.Array]) -> jax.Array:
        return batch["x"].reshape(batch["x"].shape[0], -1)

    def init(seed: jax.Array, batch: Any, hyper: Any) -> State:
        return State(jnp.int32(0), flat(batch)[:clusters], {}, (), dict(hyper), jnp.uint32(seed), (), {})

    def measure(state: State, batch: Any) -> Measure:
        x, weight = flat(batch), batch["weight"]
        cluster, distance = nearest(state.params, x)
        member = jax.nn.one_hot(cluster, clusters, dtype=jnp.float32) * weight[:, None]
        total = {"count": member.sum(0), "sum": member.T @ x, "distance": (distance * weight).sum()}
        return Measure(total, weight.sum())

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        count = measured.total["count"][:, None]
        means = jnp.where(count > 0, measured.total["sum"] / jnp.maximum(count, 1), state.params)
        inertia = measured.total["distance"] / jnp.maximum(measured.weight, 1)
        return state.replace(params=means), Report({"loss": inertia, "weight": measured.weight}, {})

    def predict(state: State, batch: Any) -> jax.Array:
        return nearest(state.params, flat(batch))[0]

    return Step(init, measure, apply, predict=predict)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """path -> array of every leaf."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees hold the same leaves, bit for bit."""
    left, right = leaves(a), leaves(b)
    return left.keys() == right.keys() and all(left[path].tobytes() == right[path].tobytes() for path in left)


def largest_difference(a: Any, b: Any) -> float:
    """The largest absolute difference over all leaves of two trees of the same structure."""
    left, right = leaves(a), leaves(b)
    assert left.keys() == right.keys()
    return max(float(np.abs(left[path].astype(np.float64) - right[path].astype(np.float64)).max()) for path in left)
