"""Keras on JAX: model.fit on NumPy arrays with steps_per_execution=16, stopped at each epoch's end by a callback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
import keras
from keras import layers

from benchmarks import measure, networks
from benchmarks.networks import Row

NEEDS = ("keras", "jax")


def epochs(row: Row, total: int) -> dict[str, measure.Paced]:
    """One call of fit over `total` epochs, one epoch a turn."""
    keras.utils.set_random_seed(0)
    x, y = networks.columns(row)
    model = build(row.model)
    model.compile(
        optimizer=keras.optimizers.Adam(networks.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=min(16, row.steps),
    )

    def train(epoch_end: Callable[[], None]) -> None:
        stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch_end())
        model.fit(x, y, batch_size=row.batch_size, epochs=total, verbose=0, callbacks=[stop])

    return {"keras": measure.Paced(train)}


def build(model: str) -> Any:
    """The network called `model`, of Keras's own layers."""
    n = networks
    if model == "mlp":
        hidden = [layers.Dense(width, activation="relu") for width in n.WIDTHS]
        return keras.Sequential([keras.Input((n.PIXELS,)), *hidden, layers.Dense(n.CLASSES)])
    if model == "logreg":
        return keras.Sequential([keras.Input((n.FEATURES,)), layers.Dense(2)])
    if model == "convnet":
        parts: list[Any] = [keras.Input((28, 28, 1))]
        for channels in (32, 64):
            parts += [layers.Conv2D(channels, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
        return keras.Sequential(
            [*parts, layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(n.CLASSES)]
        )
    if model == "lstm":
        return keras.Sequential([keras.Input((n.STEPS, n.INPUTS)), layers.LSTM(n.HIDDEN), layers.Dense(n.CLASSES)])
    tokens = keras.Input((n.CONTEXT,), dtype="int32")
    positions = layers.Embedding(n.CONTEXT, n.WIDTH)(keras.ops.arange(n.CONTEXT)[None])
    h = layers.Embedding(n.VOCABULARY, n.WIDTH)(tokens) + positions
    for _ in range(n.LAYERS):
        normed = layers.LayerNormalization(epsilon=1e-5)(h)
        attention = layers.MultiHeadAttention(n.HEADS, n.WIDTH // n.HEADS)
        h = h + attention(normed, normed, use_causal_mask=True)
        up = layers.Dense(4 * n.WIDTH)(layers.LayerNormalization(epsilon=1e-5)(h))
        h = h + layers.Dense(n.WIDTH)(keras.ops.gelu(up, approximate=True))
    return keras.Model(tokens, layers.Dense(n.VOCABULARY)(layers.LayerNormalization(epsilon=1e-5)(h)))
