"""The same network in a plain JAX loop and in PyTorch gives the same weights after 50 SGD steps, to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from tests.steps import largest_difference

KEPT = np.load(Path(__file__).parents[1] / "fixtures" / "torch_sgd.npz")
MODELS = {
    "mlp": jaxdl.create_model("mlp", num_classes=10, widths=(32, 16)),
    "convnet": jaxdl.create_model("convnet", num_classes=10, width=4, hidden=16, dropout=0.0),
}


def kept(name: str, when: str) -> dict[str, Any]:
    """The kept weights as a tree of parameters."""
    tree: dict[str, Any] = {}
    for path in KEPT.files:
        model, moment, layer, leaf = path.split("/")
        if (model, moment) == (name, when):
            tree.setdefault(layer, {})[leaf] = KEPT[path]
    return tree


def fitted(name: str, *, start: Any = None, optimizer: Any = None, steps: int = 50, **settings: Any) -> Any:
    """Parameters after fit on the first 320 digits, in order."""
    train, _ = jaxdl.data.load("digits")
    run = jaxdl.fit(
        jaxdl.tasks.classification(MODELS[name]),
        train.select(np.arange(320)),
        optimizer=optimizer or jaxdl.optim.sgd(0.1, momentum=0.9),
        steps=steps,
        batch_size=32,
        shuffle=False,
        start={"params": kept(name, "before") if start is None else start},
        verbose=0,
        **settings,
    )
    return run.state.params


@pytest.mark.parametrize("name", MODELS)
def test_pytorch(name: str) -> None:
    expected = kept(name, "after")
    assert largest_difference(expected, kept(name, "before")) > 0.1  # it did learn
    assert largest_difference(fitted(name), expected) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": jaxdl.optim.sgd(0.1001, momentum=0.9)},
        {"optimizer": jaxdl.optim.sgd(0.1, momentum=0.9, nesterov=True)},
        {"hyper": {"l2": 1e-5}},
        {"steps": 49},
    ],
    ids=["rate", "nesterov", "penalty", "steps"],
)
def test_small_errors_are_seen(name: str, wrong: dict[str, Any]) -> None:
    assert largest_difference(fitted(name, **wrong), kept(name, "after")) > 1e-5


@pytest.mark.smoke
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_plain_loop(name: str, kind: str) -> None:
    """Thirty lines of JAX and optax, as one would write them by hand."""
    train, _ = jaxdl.data.load("digits")
    x, y = np.asarray(train["x"][:320]), np.asarray(train["y"][:320])
    model, params = MODELS[name], kept(name, "before")
    tx = optax.sgd(0.1, momentum=0.9) if kind == "sgd" else optax.adam(1e-3)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, x, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for number in range(50):
        rows = slice(number % 10 * 32, (number % 10 + 1) * 32)
        params, state = step(params, state, x[rows], y[rows])
        jax.block_until_ready(params)

    mine = {"sgd": jaxdl.optim.sgd(0.1, momentum=0.9), "adam": jaxdl.optim.adam(1e-3)}[kind]
    assert largest_difference(fitted(name, optimizer=mine), params) < 1e-5
    assert largest_difference(fitted(name, optimizer=tx), params) < 1e-5
