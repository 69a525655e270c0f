"""Routing against a loop in NumPy; who is dropped; the balance loss; gradients, padding, bfloat16, trials."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn
from jaxdl.parallel.experts import capacity

_X = jax.random.normal(jax.random.key(0), (3, 5, 8))


def _layer(**options: Any) -> nn.MixtureOfExperts:
    return nn.MixtureOfExperts(**({"width": 6, "hidden": 10, "experts": 4, "activation": "relu"} | options))


def _started(layer: nn.MixtureOfExperts, x: Any = _X) -> Any:
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(1), x, train=True))
    numbers = np.random.default_rng(1)  # biases that are not 0, a router that is sure
    return jax.tree.map(lambda leaf: jnp.asarray(numbers.normal(size=leaf.shape) * 0.5, jnp.float32), shapes)


def _apply(layer: nn.MixtureOfExperts, train: bool = True, **options: Any) -> Any:
    return jax.jit(lambda variables, x: layer.apply(variables, x, train=train, **options))


def _loop(params: Any, x: np.ndarray, k: int, each: int, routed: np.ndarray | None = None) -> tuple[Any, ...]:
    """Token by token, expert by expert, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tokens = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    real = np.ones(len(tokens), bool) if routed is None else np.asarray(routed).reshape(-1)
    count = params["router"]["kernel"].shape[1]
    logits = tokens @ params["router"]["kernel"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    y = np.zeros((len(tokens), params["down"]["kernel"].shape[2]))
    filled, chosen, dropped = np.zeros(count, int), np.zeros(count), 0
    for turn in range(k):
        for token in np.flatnonzero(real):
            expert = order[token, turn]
            chosen[expert] += 1
            if filled[expert] == each:
                dropped += 1
                continue
            filled[expert] += 1
            gate = probabilities[token, expert]
            if k > 1:
                gate /= probabilities[token, order[token]].sum()
            up, down = ({name: leaf[expert] for name, leaf in params[part].items()} for part in ("up", "down"))
            hidden = np.maximum(tokens[token] @ up["kernel"] + up["bias"], 0)
            y[token] += gate * (hidden @ down["kernel"] + down["bias"])
    balance = count * (chosen / chosen.sum() * probabilities[real].mean(0)).sum()
    router_z = (np.log(np.exp(logits[real]).sum(1)) ** 2).mean()
    return y.reshape(*x.shape[:2], -1), balance, router_z, dropped, k * real.sum()


@pytest.mark.smoke
@pytest.mark.parametrize(("k", "factor"), [(1, None), (1, 1.0), (2, None), (2, 0.5), (3, 0.7)])
@pytest.mark.parametrize("padded", [False, True])
def test_routing_is_that_of_a_loop(k: int, factor: float | None, padded: bool) -> None:
    layer = _layer(k=k, capacity_factor=factor)
    variables = _started(layer)
    routed = jnp.arange(5)[None] < jnp.array([[5], [2], [4]]) if padded else None
    y, routing = _apply(layer, routed=routed)(variables, _X)
    each = capacity(15, k, 4, factor)
    expected, *numbers = _loop(variables["params"], _X, k, each, routed)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(routing, numbers, rtol=1e-5)
    if not padded:
        assert (float(routing.dropped) > 0) == (factor is not None)


@pytest.mark.parametrize(
    ("arguments", "places"),
    [((16, 1, 4, 1.0), 4), ((16, 2, 4, 1.25), 10), ((10, 1, 4, 1.0), 3), ((16, 2, 4, 8.0), 16), ((16, 1, 4, None), 16)],
)
def test_capacity(arguments: Any, places: int) -> None:
    assert capacity(*arguments) == places


def test_first_choices_are_served_before_second_ones_and_earlier_tokens_first() -> None:
    from jaxdl.parallel.experts import places

    choice = jnp.array([[0, 1], [1, 0], [0, 1], [0, 2], [3, 3]], jnp.int32)  # 3: takes no place
    found = places(choice, 3, 2)
    np.testing.assert_array_equal(found, [[0, 3], [2, 6], [1, 6], [6, 4], [6, 6]])


def test_nobody_is_dropped_out_of_training_unless_asked() -> None:
    x = jnp.ones((2, 8, 8))  # all choose the same
    layer = _layer(k=1, capacity_factor=1.0)
    variables = _started(layer, x)
    assert float(_apply(layer)(variables, x)[1].dropped) == 12
    assert float(_apply(layer, train=False)(variables, x)[1].dropped) == 0
    asked = _layer(k=1, capacity_factor=1.0, eval_capacity_factor=2.0)
    assert float(_apply(asked, train=False)(variables, x)[1].dropped) == 8


def test_gradients_are_those_of_all_experts_weighed_by_their_gates() -> None:
    layer = _layer(k=2, capacity_factor=None, activation="swiglu")
    variables = _started(layer)

    def dense(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = variables["params"]
        probabilities = jax.nn.softmax(x @ params["router"]["kernel"], axis=-1)
        top, _ = jax.lax.top_k(probabilities, 2)
        gates = jnp.where(probabilities >= top[..., 1:], probabilities, 0.0) / top.sum(-1, keepdims=True)

        def one(up: Any, gate: Any, down: Any) -> jax.Array:
            hidden = jax.nn.silu(x @ gate["kernel"] + gate["bias"][None, None])
            hidden = hidden * (x @ up["kernel"] + up["bias"][None, None])
            return hidden @ down["kernel"] + down["bias"][None, None]

        every = jax.vmap(one)(params["up"], params["gate"], params["down"])
        return jnp.einsum("eblw,ble->blw", every, gates), probabilities

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.square(layer.apply(variables, x, train=True)[0]).sum()

    def expected(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.square(dense(variables, x)[0]).sum()

    found, wanted = (jax.jit(jax.grad(f, argnums=(0, 1)))(variables, _X) for f in (loss, expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert np.abs(other).max() > 0


def test_balance_falls_when_it_is_learned() -> None:
    layer = _layer(k=1)
    variables = _started(layer)

    @jax.jit
    def step(variables: Any) -> Any:
        value, slope = jax.value_and_grad(lambda v: layer.apply(v, _X, train=True)[1].balance)(variables)
        return jax.tree.map(lambda w, g: w - 0.5 * g, variables, slope), value

    seen = []
    for _ in range(30):
        variables, value = step(variables)
        seen.append(float(value))
    assert seen[-1] < seen[0] - 0.05


def test_padding_changes_nothing_and_gets_zeros() -> None:
    layer = _layer(k=2, capacity_factor=1.0)
    variables = _started(layer)
    routed = jnp.arange(5)[None] < jnp.array([[5], [3], [5]])
    other = jnp.where(routed[..., None], _X, 100.0)
    apply = _apply(layer, routed=routed)
    y, routing = apply(variables, _X)
    again, numbers = apply(variables, other)
    np.testing.assert_array_equal(y, again)
    np.testing.assert_allclose(routing, numbers, rtol=1e-6)
    assert not np.asarray(y)[1, 3:].any()
    assert float(routing.choices) == 26


def test_half_precision_routes_in_float32() -> None:
    layer = _layer(capacity_factor=None)
    variables = _started(layer)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (variables, _X))
    y, routing = _apply(layer)(*halves)
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves)
    expected, numbers = _apply(layer)(*whole)
    assert y.dtype == jnp.bfloat16 and {leaf.dtype for leaf in routing} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.1)
    np.testing.assert_allclose(routing, numbers, rtol=1e-6)


def test_trials_train_side_by_side() -> None:
    layer = _layer(capacity_factor=1.0)
    first = _started(layer)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), first)
    apply = _apply(layer)
    y, routing = jax.jit(jax.vmap(lambda v: layer.apply(v, _X, train=True)))(many)
    for number in range(2):
        one, alone = apply(jax.tree.map(lambda leaf: leaf[number], many), _X)  # noqa: B023
        np.testing.assert_allclose(y[number], one, atol=1e-6)
        np.testing.assert_allclose([leaf[number] for leaf in routing], alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "x", "sentence"),
    [
        ({"k": 5}, _X, "k=5 of experts=4: choose k from 1 to 4"),
        ({"capacity_factor": 0.0}, _X, "capacity_factor=0.0: give a number above 0, or None"),
        ({}, _X[0], r"takes \[batch, length, features\], not \[5, 8\]"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], x: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _layer(**options).init(jax.random.key(0), x, train=True)


def test_a_gpt_with_experts_reports_balance_and_what_was_dropped() -> None:
    x = np.random.default_rng(0).integers(1, 9, (20, 7)).astype(np.int32)
    model = jaxdl.create_model(
        "gpt", num_classes=9, width=8, depth=2, heads=2, length=8, experts=4, capacity_factor=0.5
    )
    runs = [
        jaxdl.fit(jaxdl.tasks.language_model(model, **factors), {"x": x}, steps=2, batch_size=8, seed=1, verbose=0)
        for factors in ({"balance": 0.5, "router_z": 0.25}, {"balance": 0.0, "router_z": 0.0})
    ]
    first, plain = (run.history[0] for run in runs)
    assert 0.2 < first["train:dropped"] < 0.8 and first["train:balance"] >= 0.9
    terms = 0.5 * first["train:balance"] + 0.25 * first["train:router_z"]
    assert first["train:loss"] - plain["train:loss"] == pytest.approx(terms, rel=0.05)


def test_decoding_with_experts_gives_the_logits_of_one_pass() -> None:
    model = jaxdl.create_model("gpt", num_classes=9, width=8, depth=2, heads=2, length=8, experts=4)
    tokens = jnp.asarray(np.random.default_rng(0).integers(1, 9, (2, 6)), jnp.int32)
    variables = jax.jit(lambda: model.init(jax.random.key(0), tokens, train=False))()
    whole = jax.jit(lambda v: model.apply(v, tokens, train=False))(variables)
    _, cache = model.decoder(variables, 2, 8)
    step = jax.jit(lambda v, cache, tokens: model.decoder(v, 2, 8)[0](cache, tokens))
    for place in range(6):
        logits, cache = step(variables, cache, tokens[:, place])
        np.testing.assert_allclose(logits, whole[:, place], atol=1e-5)
