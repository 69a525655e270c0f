"""The task of encoders and decoders: a sequence of tokens from another one."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxdl import nn
from jaxdl.core.task import Array, Batch, Context, Key, Loss, Task, Variables
from jaxdl.nn.networks import linen_network
from jaxdl.nn.precision import widened
from jaxdl.tasks_labels import check_fraction, smoothing_of
from jaxdl.tasks_network import run_network


def translation(
    model: Any, *, begin: int = 1, end: int = 2, pad: int = 0, label_smoothing: float = 0.0, steps: int = 50
) -> Task:
    """The target's next token, given the source and the target so far: cross-entropy over tokens that are no padding.

    Args:
        model: a linen module, {"source": [batch, S], "target": [batch, T]} -> logits [batch, T, vocabulary], with a
            method decode(variables, source, begin=, end=, steps=) -> `jaxdl.models.decoding.Decoded`: `lstm_seq2seq`
            and its like.
        begin: the token that targets begin with, and decoding starts from; end: the one that they end with.
        pad: the token of padding.
        label_smoothing: as in `classification`.
        steps: how many tokens predictions have at most.

    Batch:
        x: [batch, S] source tokens. y: [batch, T + 1] target tokens, from the one called `begin` to the one called
        `end`: the model reads y[:, :-1] and tells y[:, 1:]. Predictions need x only.

    Returns:
        A Task; outputs are {"preds": logits, "target": tokens}, predictions the likeliest tokens one after the other,
        [batch, steps] int32, padding after the end token.

    Raises:
        ValueError: label_smoothing outside [0, 1); x or y of another shape. TypeError: they are no integers.
    """
    from jaxdl.metrics import Accuracy

    check_fraction("label_smoothing", label_smoothing)
    network = linen_network(model)

    def tokens(batch: Batch, name: str) -> Array:
        found = batch[name]
        if not jnp.issubdtype(found.dtype, jnp.integer):
            raise TypeError(f"translation: {name} holds token numbers, not {found.dtype}")
        if found.ndim != 2 or (name == "y" and found.shape[1] < 2):
            raise ValueError(f"translation: {name} is [batch, tokens] with two tokens or more, not {list(found.shape)}")
        return found.astype(jnp.int32)

    def inputs(batch: Batch) -> dict[str, Array]:
        return {"source": tokens(batch, "x"), "target": tokens(batch, "y")[:, :-1]}

    def init(key: Key, batch: Batch) -> Variables:
        return network.init(key, inputs(batch))

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        logits, state = run_network(network, variables, inputs(batch), context)
        target = tokens(batch, "y")[:, 1:]
        value = nn.softmax_cross_entropy(logits, target, label_smoothing=smoothing_of(context, label_smoothing))
        weight = (target != pad).astype(jnp.float32)
        return Loss(value, weight, {"preds": widened(logits), "target": target}, state)

    def predict(variables: Variables, batch: Batch) -> Array:
        return model.decode(variables, tokens(batch, "x"), begin=begin, end=end, steps=steps).tokens

    return Task(init, loss, predict, metrics=(Accuracy(),), logical_axes=network.logical_axes)
