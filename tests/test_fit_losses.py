"""Losses through fit: tokens, pixels, functions, nnx modules, batch statistics and carries, against numbers by hand."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl.core.task import Loss, Task
from tests.steps import digits, largest_difference, same_bits

PAD = 0


class Bigram(nn.Module):
    """Logits of the next token from this one."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        return nn.Embed(7, 7)(tokens)


class PerPixel(nn.Module):
    """Logits of a pixel from its own channels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(x)


class Normalised(nn.Module):
    """Batch norm before a dense layer; padding rows stay out of the statistics."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        rows = None if mask is None else mask[:, None]
        return nn.Dense(2)(nn.BatchNorm(momentum=0.5)(x, use_running_average=not train, mask=rows))


def ragged() -> dict[str, np.ndarray]:
    """22 sentences of 2 to 9 tokens, padded to 9; and all but one of the last few are very short."""
    numbers = np.random.default_rng(0)
    tokens = numbers.integers(1, 7, (22, 9)).astype(np.int32)
    lengths = np.where(np.arange(22) < 18, numbers.integers(2, 10, 22), 2)
    return {"x": np.where(np.arange(9) < lengths[:, None], tokens, PAD)}


def images() -> dict[str, np.ndarray]:
    """22 images of 4 x 4 pixels, of which 0 to 16 are labelled."""
    numbers = np.random.default_rng(1)
    labels = numbers.integers(0, 3, (22, 4, 4)).astype(np.uint8)
    ignored = numbers.random((22, 4, 4)) < np.linspace(0, 1, 22)[:, None, None]
    x = numbers.normal(size=(22, 4, 4, 2)).astype(np.float32)
    return {"x": x, "y": np.where(ignored, 255, labels).astype(np.uint8)}


def by_hand(logits: Any, targets: np.ndarray, counts: np.ndarray) -> float:
    logits = np.asarray(logits, np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(logs, np.where(counts, targets, 0)[..., None].astype(int), -1)[..., 0]
    return float(-picked[counts].mean())


@pytest.mark.filterwarnings("ignore:validation repeats training rows")
@pytest.mark.parametrize("batch_size", [4, 5, 16])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_tokens_and_pixels_give_the_true_weighted_mean(batch_size: int, accumulate: int) -> None:
    """Whatever the split: a mean of the batches' means would be several per cent off."""
    data = ragged()
    settings = {"optimizer": jaxdl.optim.sgd(0.0), "batch_size": batch_size, "accumulate": accumulate, "verbose": 0}
    run = jaxdl.fit(jaxdl.tasks.language_model(Bigram(), pad=PAD), data, validation=data, epochs=1, **settings)
    table = np.asarray(jax.tree.leaves(run.state.params)[0])
    targets = data["x"][:, 1:]
    expected = by_hand(table[data["x"][:, :-1]], targets, targets != PAD)
    assert run.metrics["train:loss"] == pytest.approx(expected, rel=1e-5)
    assert run.metrics["validation:loss"] == pytest.approx(expected, rel=1e-5)
    assert run.evaluate(data, batch_size=7)["loss"] == pytest.approx(expected, rel=1e-5)
    right = table[data["x"][:, :-1]].argmax(-1) == targets
    assert run.metrics["validation:accuracy"] == pytest.approx(right[targets != PAD].mean(), rel=1e-5)

    data = images()
    run = jaxdl.fit(jaxdl.tasks.segmentation(PerPixel()), data, validation=data, epochs=1, **settings)
    logits = PerPixel().apply({"params": run.state.params}, data["x"])
    expected = by_hand(logits, data["y"], data["y"] != 255)
    assert run.metrics["train:loss"] == pytest.approx(expected, rel=1e-5)
    assert run.metrics["validation:loss"] == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_a_ragged_batch_does_not_depend_on_the_split() -> None:
    """One update from all 22 sentences, in 1, 2 and 4 parts of very different numbers of tokens."""
    task = jaxdl.tasks.language_model(Bigram(), pad=PAD)
    settings = {"optimizer": jaxdl.optim.sgd(1.0), "batch_size": 22, "epochs": 1, "verbose": 0}
    whole, two, four = (jaxdl.fit(task, ragged(), accumulate=n, **settings).state.params for n in (1, 2, 4))
    assert max(largest_difference(whole, two), largest_difference(whole, four)) < 1e-6


def _functions() -> Task:
    def apply(params: Any, x: jax.Array, *, train: bool, key: Any) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        if train:  # a little noise, which a resume has to repeat
            x = x + 0.01 * jax.random.normal(key, x.shape)
        return x @ params["w"]

    return jaxdl.tasks.from_functions(
        init=lambda key, x: {"w": 0.01 * jax.random.normal(key, (64, 10))}, apply=apply, loss="softmax_cross_entropy"
    )


def _nnx() -> Task:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.norm = nnx.BatchNorm(64, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)
            self.out = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.out(self.drop(self.norm(x.reshape(x.shape[0], -1))))

    return jaxdl.tasks.from_nnx(lambda rngs: Net(rngs), loss="softmax_cross_entropy")


@pytest.mark.parametrize("make", [_functions, _nnx])
def test_other_modules_train_and_resume(make: Any, tmp_path) -> None:
    train, test = digits()
    settings = {"validation": test, "batch_size": 32, "optimizer": jaxdl.optim.adam(0.01), "verbose": 0}
    task = make()
    straight = jaxdl.fit(task, train, steps=28, **settings)
    assert straight.metrics["validation:accuracy"] > 0.5
    for steps in (10, 28):
        resumed = jaxdl.fit(task, train, steps=steps, checkpoint=str(tmp_path / "r"), **settings)
    assert same_bits(resumed.state, straight.state)
    loaded = jaxdl.load_run(tmp_path / "r", task, train)
    np.testing.assert_array_equal(loaded.predict(test), straight.predict(test))


def _statistics(x: np.ndarray, batches: list[list[slice]]) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance with momentum 0.5 after these batches, each of these parts."""
    mean, var = np.zeros(x.shape[1]), np.ones(x.shape[1])
    for parts in batches:
        sizes = [len(x[part]) for part in parts]
        mean = np.average([0.5 * mean + 0.5 * x[part].mean(0) for part in parts], axis=0, weights=sizes)
        var = np.average([0.5 * var + 0.5 * x[part].var(0) for part in parts], axis=0, weights=sizes)
    return mean, var


@pytest.mark.parametrize(
    "accumulate, batches",
    [
        (1, [[slice(0, 4)], [slice(4, 8)], [slice(8, 10)]]),  # the last batch has two rows of padding
        (2, [[slice(0, 2), slice(2, 4)], [slice(4, 6), slice(6, 8)], [slice(8, 10)]]),  # and its second part no others
    ],
)
def test_batch_statistics_are_those_of_the_real_rows(accumulate: int, batches: list[list[slice]]) -> None:
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(3.0, 2.0, (10, 3)).astype(np.float32), numbers.integers(0, 2, 10)
    run = jaxdl.fit(
        jaxdl.tasks.classification(Normalised()), (x, y), epochs=1, batch_size=4, shuffle=False, verbose=0,
        accumulate=accumulate, optimizer=jaxdl.optim.sgd(0.0),
    )  # fmt: skip
    mean, var = _statistics(x, batches)
    found = run.state.model_state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["var"], var, rtol=1e-4)
    trained = jaxdl.fit(
        jaxdl.tasks.classification(Normalised()), (x, y), epochs=2, batch_size=4, verbose=0, accumulate=accumulate
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.state.params))
    predicted = run.predict((x,), batch_size=3)  # with the running statistics, whatever the batch
    np.testing.assert_allclose(predicted, run.predict((x,), batch_size=10), rtol=1e-5)


def _recurrent() -> Task:
    """A hidden number a row, which the next batch of the same rows goes on from."""

    def init(key: Any, batch: Any) -> Any:
        return {"params": {"w": jnp.float32(0.5)}, "carry": {"h": jnp.zeros(batch["x"].shape[0], jnp.float32)}}

    def loss(variables: Any, batch: Any, context: Any) -> Loss:
        hidden = jnp.tanh(variables["params"]["w"] * variables["carry"]["h"] + batch["x"])
        return Loss((hidden - batch["y"]) ** 2, None, hidden, {"carry": {"h": jax.lax.stop_gradient(hidden)}})

    return Task(init, loss, lambda variables, batch: batch["x"])


@pytest.mark.parametrize("accumulate", [1, 2, 3])  # 8 rows in 3 parts: one row of padding
def test_a_carry_follows_its_rows(accumulate: int, tmp_path) -> None:
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(2, 32)).astype(np.float32)
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0, "accumulate": accumulate}
    settings["optimizer"] = jaxdl.optim.sgd(0.0)
    run = jaxdl.fit(_recurrent(), (x, y), epochs=2, **settings)
    hidden, losses = np.zeros(8), []
    for _ in range(2):
        for batch in range(4):
            rows = slice(8 * batch, 8 * batch + 8)
            hidden = np.tanh(0.5 * hidden + x[rows])
            losses.append(((hidden - y[rows]) ** 2).mean())
    np.testing.assert_allclose(run.state.model_state["carry"]["h"], hidden, rtol=1e-5)
    assert [r["train:loss"] for r in run.history] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-5)
    for steps in (5, 8):
        resumed = jaxdl.fit(_recurrent(), (x, y), steps=steps, checkpoint=str(tmp_path / "r"), **settings)
    assert same_bits(resumed.state, run.state)
