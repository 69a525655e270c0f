"""The task of two towers: each query's item among all items of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.core.task import Array, Batch, Context, Key, Loss, Task, Variables
from jaxdl.models.two_tower import sides
from jaxdl.nn.networks import linen_network
from jaxdl.nn.precision import widened
from jaxdl.tasks_network import run_network, scaled

_NEVER = -1e9  # a score that no softmax sees; an infinity would make 0 * inf in its gradient


def two_tower(
    model: Any, *, temperature: float = 0.05, item_probability: Sequence[float] | None = None, k: int = 10
) -> Task:
    """Which item goes with which query: softmax over the items of the batch.

    score(i, j) = query_i . item_j / temperature - log q(item_j),   loss_i = -log softmax_j score(i, j) at j = i

    The items of a batch are drawn as often as they are popular; subtracting log q makes the softmax that over all
    items (logQ correction). An item that stands in the batch a second time is no negative of its own query; rows that
    only fill the batch are nobody's negatives. Losses couple examples, so a batch is never split.

    Args:
        model: such as `two_tower`: a linen module, {"query", "item"} -> {"query", "item"}, vectors of length 1.
        temperature: what cosines are divided by; `hyper` "temperature" overrides it.
        item_probability: [items], the share of each item id in the data, above 0 for those that occur; or a column
            "log_q" [batch] with the logarithm. Neither: no correction. An id beyond the table makes the loss NaN.
        k: of the metric "recall_at_k": is the item among the k best of its batch? Of all items it is smaller; see
            `jaxdl.models.two_tower.retrieve`.

    Batch:
        query, item: [batch] ids, [batch, length] bags or [batch, d] numbers; or x: integers [batch, 2]. item_id:
        [batch] integers, where items are no single ids, tells items apart (else no two are the same).

    Returns:
        A Task; predictions are {"query": [batch, features], "item": ...} for the columns that are there.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", 2019.
    """
    from jaxdl.metrics import RecallAtK

    if not temperature > 0:
        raise ValueError(f"two_tower: temperature is above 0, not {temperature}")
    network = linen_network(model)
    log_q = None if item_probability is None else _log_probability(item_probability)

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, scaled(_inputs(batch), {}))

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        x = _inputs(batch)
        outputs, state = run_network(network, variables, x, context)
        query, item = widened(outputs["query"]), widened(outputs["item"])
        count = query.shape[0]
        ids = _ids(batch, x)
        heat = jnp.asarray(context.hyper.get("temperature", temperature), query.dtype)
        cosine = query @ item.T
        own = jnp.eye(count, dtype=jnp.bool_)
        absent = jnp.broadcast_to((context.weight <= 0)[None, :], own.shape)
        if ids is not None:
            absent = absent | (ids[:, None] == ids[None, :])
        absent = absent & ~own
        scores = cosine / heat
        correction = batch.get("log_q")
        if log_q is not None:
            if ids is None:
                raise ValueError("two_tower: item_probability needs item ids: items that are ids, or a column item_id")
            items = getattr(model, "items", None)
            if "item_id" not in batch and items is not None and len(log_q) != items:
                raise ValueError(f"two_tower: item_probability has {len(log_q)} shares for {items} items")
            correction = jnp.asarray(log_q).at[ids].get(mode="fill", fill_value=jnp.nan)
        if correction is not None:
            scores = scores - correction.astype(scores.dtype)[None, :]
        hidden = jnp.full_like(scores, _NEVER)
        value = nn.softmax_cross_entropy(jnp.where(absent, hidden, scores), jnp.arange(count, dtype=jnp.int32))
        seen = {"preds": jnp.where(absent, hidden, cosine), "target": own.astype(jnp.float32)}
        return Loss(value, None, seen, state)

    def predict(variables: Variables, batch: Batch) -> dict[str, Array]:
        outputs, _ = run_network(network, variables, _inputs(batch), None)
        return {name: widened(vectors) for name, vectors in outputs.items()}

    metrics = (RecallAtK(k=k),)
    return Task(init, loss, predict, metrics=metrics, whole_batch=True, logical_axes=network.logical_axes)


def _inputs(batch: Batch) -> Any:
    found = {name: batch[name] for name in ("query", "item") if name in batch}
    return found if found else sides(batch["x"])


def _ids(batch: Batch, x: Any) -> Array | None:
    """[batch] integers that tell items apart, or None."""
    ids = batch["item_id"] if "item_id" in batch else x["item"]
    return ids if ids.ndim == 1 and jnp.issubdtype(ids.dtype, jnp.integer) else None


def _log_probability(shares: Sequence[float]) -> np.ndarray:
    """[items] float32; items of probability 0, which never stand in a batch, have 0."""
    table = np.asarray(shares, np.float64)
    if table.ndim != 1 or not np.isfinite(table).all() or (table < 0).any() or not 0.99 < table.sum() < 1.01:
        raise ValueError("two_tower: item_probability is [items], each at least 0, with a sum of 1")
    return np.log(np.where(table > 0, table, 1.0)).astype(np.float32)
