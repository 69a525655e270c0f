"""The optimizers against optax's own, number by number; the schedules against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import optim

RATE = 0.03

#: name -> (ours, optax's with static numbers, tolerance). 0.0: the same bits after 5 updates. Where it is not 0, ours
#: rounds elsewhere: rmsprop's momentum is taken before the rate is multiplied in, optax's after.
OPTIMIZERS: dict[str, tuple[optim.Optimizer, optax.GradientTransformation, float]] = {
    "sgd": (optim.sgd(RATE), optax.sgd(RATE), 0.0),
    "momentum": (optim.sgd(RATE, momentum=0.9), optax.sgd(RATE, momentum=0.9), 0.0),
    "nesterov": (optim.sgd(RATE, momentum=0.9, nesterov=True), optax.sgd(RATE, momentum=0.9, nesterov=True), 0.0),
    "adam": (optim.adam(RATE), optax.adam(RATE), 0.0),
    "adam, other decays": (optim.adam(RATE, b1=0.8, b2=0.95, eps=1e-5), optax.adam(RATE, 0.8, 0.95, 1e-5), 0.0),
    "adamw": (optim.adamw(RATE, weight_decay=0.1), optax.adamw(RATE, weight_decay=0.1), 0.0),
    "rmsprop": (optim.rmsprop(RATE), optax.rmsprop(RATE, decay=0.9), 0.0),
    "rmsprop, momentum": (optim.rmsprop(RATE, momentum=0.8), optax.rmsprop(RATE, decay=0.9, momentum=0.8), 1e-6),
    "adagrad": (optim.adagrad(RATE), optax.adagrad(RATE), 0.0),
    "lion": (optim.lion(RATE, weight_decay=0.01), optax.lion(RATE, weight_decay=0.01), 0.0),
    "lamb": (optim.lamb(RATE, weight_decay=0.01), optax.lamb(RATE, weight_decay=0.01), 0.0),
}


def parameters() -> dict[str, jax.Array]:
    numbers = np.random.default_rng(0)
    return {"kernel": jnp.asarray(numbers.normal(size=(5, 3)), jnp.float32), "bias": jnp.ones(3, jnp.float32)}


def five_updates(update: Callable[..., Any], state: Any, params: Any) -> Any:
    numbers = np.random.default_rng(1)
    for step in range(5):
        gradient = jax.tree.map(lambda w: jnp.asarray(numbers.normal(size=w.shape), jnp.float32), params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = update(gradient, state, params, jnp.int32(step))
        params = optax.apply_updates(params, updates)
    return params


def ours(optimizer: optim.Optimizer, **changes: float) -> Any:
    """Five updates whose numbers are traced arguments, as in a Program."""
    hyper = {name: jnp.float32(value) for name, value in {**optimizer.hyper, **changes}.items()}
    update = jax.jit(lambda hyper, g, s, p, step: optimizer.build(hyper, step).update(g, s, p))
    state = optimizer.build(hyper, jnp.int32(0)).init(parameters())
    return five_updates(lambda *arguments: update(hyper, *arguments), state, parameters())


def theirs(tx: optax.GradientTransformation) -> Any:
    update = jax.jit(lambda g, s, p, step: tx.update(g, s, p))
    return five_updates(update, tx.init(parameters()), parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_equals_optax(name: str) -> None:
    optimizer, tx, tolerance = OPTIMIZERS[name]
    for a, b in zip(jax.tree.leaves(ours(optimizer)), jax.tree.leaves(theirs(tx)), strict=True):
        assert not np.array_equal(a, np.ones_like(a))  # it moved
        if tolerance:
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)


def test_every_optimizer_is_in_the_table() -> None:
    assert {optimizer.name for optimizer, _, _ in OPTIMIZERS.values()} == set(optim.list_optimizers())


def test_traced_decay_rates_are_within_rounding_of_static_ones() -> None:
    """1 - b2 in float32 has 4 digits left of b2 = 0.999: the reason why b1, b2 and eps are static unless asked for."""
    traced, static = ours(optim.adam(RATE), b1=0.9, b2=0.999, eps=1e-8), ours(optim.adam(RATE))
    for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(static), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_weight_decay_is_read_wherever_hyper_has_it() -> None:
    for a, b in zip(*(jax.tree.leaves(x) for x in (ours(optim.sgd(RATE), weight_decay=0.5),
                                                  ours(optim.sgd(RATE, weight_decay=0.5)))), strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    assert "weight_decay" in optim.sgd().reads and "momentum" not in optim.sgd().reads


def _closed(steps: int, warmup: int, end: float, shape: Callable[[float], float]) -> Callable[[int], float]:
    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        done = min(1.0, max(0.0, (step - warmup) / max(steps - warmup, 1)))
        return rise * (end + (1 - end) * shape(done))

    return factor


def _half_cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


#: name -> (ours, the closed form in Python numbers)
SCHEDULES: dict[str, tuple[optim.Schedule, Callable[[int], float]]] = {
    "linear": (optim.linear(100), _closed(100, 0, 0.0, lambda t: 1 - t)),
    "linear, warm": (optim.linear(100, warmup=10, end=0.2), _closed(100, 10, 0.2, lambda t: 1 - t)),
    "cosine": (optim.cosine(100), _closed(100, 0, 0.0, _half_cosine)),
    "cosine, warm": (optim.cosine(100, warmup=30, end=0.1), _closed(100, 30, 0.1, _half_cosine)),
    "warmup cosine": (optim.warmup_cosine(30, 100, end=0.1), _closed(100, 30, 0.1, _half_cosine)),
    "all warm": (optim.cosine(10, warmup=10), _closed(10, 10, 0.0, _half_cosine)),
    "exponential": (optim.exponential(20, 0.5), lambda step: 0.5 ** (step / 20)),
    "stairs": (optim.exponential(20, 0.5, staircase=True), lambda step: 0.5 ** (step // 20)),
    "piecewise": (optim.piecewise({30: 0.1, 60: 0.5}), lambda step: 0.1 ** (step >= 30) * 0.5 ** (step >= 60)),
}
STEPS = (0, 1, 9, 10, 29, 30, 31, 59, 60, 99, 100, 5000)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_its_closed_form(name: str) -> None:
    schedule, closed = SCHEDULES[name]
    expected = [closed(step) for step in STEPS]
    together = jax.jit(jax.vmap(schedule))(jnp.array(STEPS, jnp.int32))
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, expected, atol=2e-7, rtol=2e-6)
    one = jax.jit(schedule)
    np.testing.assert_allclose([float(one(jnp.int32(step))) for step in STEPS], expected, atol=2e-7, rtol=2e-6)
    assert float(schedule(60)) == pytest.approx(closed(60), abs=2e-7)  # a plain integer, as for a plot


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("linear", optax.linear_schedule(1.0, 0.0, 100)),
        ("cosine", optax.cosine_decay_schedule(1.0, 100)),
        ("exponential", optax.exponential_decay(1.0, 20, 0.5)),
        ("stairs", optax.exponential_decay(1.0, 20, 0.5, staircase=True)),
    ],
)
def test_a_schedule_is_optax_s(name: str, theirs: Any) -> None:
    for step in STEPS:
        assert float(SCHEDULES[name][0](step)) == pytest.approx(float(theirs(step)), abs=2e-6)


def test_an_optax_schedule_is_a_factor_too() -> None:
    optimizer = optim.sgd(0.5, schedule=optax.linear_schedule(1.0, 0.0, 10))
    assert float(optimizer.rate({"learning_rate": jnp.float32(0.5)}, jnp.int32(4))) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: optim.adam(-1e-3), r"learning_rate=-0.001: must be a number of at least 0"),
        (lambda: optim.adam(math.nan), "learning_rate=nan"),
        (lambda: optim.adam("1e-3"), "learning_rate='1e-3'"),
        (lambda: optim.adamw(weight_decay=-1), "weight_decay=-1"),
        (lambda: optim.sgd(momentum=-0.1), "momentum=-0.1"),
        (lambda: optim.sgd(nesterov=True), "needs momentum="),
        (lambda: optim.adam(b1=1.5), r"b1=1.5: must be in \[0, 1\)"),
        (lambda: optim.adamw(b2=1.0), "b2=1.0"),
        (lambda: optim.lion(b1=-0.1), "b1=-0.1"),
        (lambda: optim.lamb(b2=2), "b2=2"),
        (lambda: optim.rmsprop(decay=1.0), "decay=1.0"),
        (lambda: optim.linear(0), "steps=0"),
        (lambda: optim.cosine(10.5), "steps=10.5"),
        (lambda: optim.cosine(10, warmup=11), "warmup=11"),
        (lambda: optim.linear(10, end=1.5), "end=1.5"),
        (lambda: optim.exponential(10, 0.0), "rate=0.0"),
        (lambda: optim.piecewise({}), "at least one boundary"),
        (lambda: optim.piecewise({10: -1.0}), "both at least 0"),
        (lambda: optim.create_optimizer("adm", 1e-3), "did you mean 'adam'"),
        (lambda: optim.create_optimizer("zebra", 1e-3), "choose one of sgd, adam"),
        (
            lambda: optim.create_optimizer("adam", 1e-3, weight_deca=0.1),
            "adam has no option 'weight_deca': did you mean",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_schedule_in_place_of_the_rate_is_explained() -> None:
    with pytest.raises(TypeError, match="as schedule="):
        optim.adam(optax.constant_schedule(1e-3))  # type: ignore[arg-type]


def test_by_name_it_is_the_same() -> None:
    for name in optim.list_optimizers():
        made = jaxdl.optim.create_optimizer(name, 0.25)
        assert made.name == name and made.hyper["learning_rate"] == 0.25
