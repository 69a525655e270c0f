"""The same numbers, however the steps are grouped, fed or run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl.core.step import update
from jaxdl.data import GrainFeed, Resident, Streamed
from tests.steps import convnet_task, digits, kmeans_step, largest_difference, mlp_task, recurrent_task, same_bits


def trained(task, data=None, **settings):
    train, _ = digits()
    settings = {"epochs": 3, "batch_size": 32, "verbose": 0, "optimizer": jaxdl.optim.adam(3e-3)} | settings
    return jaxdl.fit(task, train if data is None else data, **settings)


def ways(mode: str, k: int) -> jaxdl.ProgramOptions:
    return jaxdl.ProgramOptions(mode=mode, steps_per_dispatch=k)


@pytest.mark.parametrize("task", [mlp_task(dropout=0.3), recurrent_task()], ids=["mlp", "recurrent"])
def test_one_step_a_dispatch_equals_many(task) -> None:
    one, many = (trained(task, program=ways("scan", k)) for k in (1, 100))
    assert same_bits(one.state, many.state)
    assert [r["train:loss"] for r in one.history] == pytest.approx([r["train:loss"] for r in many.history], rel=1e-12)


@pytest.mark.smoke
def test_scan_equals_loop_bit_for_bit_without_convolutions() -> None:
    """On the convnet they may differ in the last bits (reductions are grouped otherwise), which is why a resume keeps
    to the mode that the run began with."""
    scan, loop = (trained(mlp_task(), program=ways(mode, 4)) for mode in ("scan", "loop"))
    assert same_bits(scan.state, loop.state)
    sgd = jaxdl.optim.sgd(0.05)
    scan, loop = (trained(convnet_task(), program=ways(mode, 4), optimizer=sgd) for mode in ("scan", "loop"))
    assert largest_difference(scan.state.params, loop.state.params) < 1e-5


def test_unrolled_equals_scan_closely() -> None:
    scan, unrolled = (
        trained(mlp_task(), program=ways(mode, 3), optimizer=jaxdl.optim.sgd(0.05)) for mode in ("scan", "unrolled")
    )
    assert largest_difference(scan.state.params, unrolled.state.params) < 1e-6


@pytest.mark.parametrize("task", [mlp_task(), convnet_task(), recurrent_task()], ids=["mlp", "convnet", "recurrent"])
@pytest.mark.parametrize("batch_size", [32, 30])  # 30 rows in 4 parts are padded to 32
def test_accumulate_four_equals_whole(task, batch_size) -> None:
    settings = {"batch_size": batch_size, "optimizer": jaxdl.optim.sgd(0.1, momentum=0.9), "epochs": 2}
    whole, parts = trained(task, **settings), trained(task, accumulate=4, **settings)
    assert largest_difference(whole.state.params, parts.state.params) < 2e-6


def test_accumulated_k_means_equals_whole() -> None:
    settings = {"apply": "epoch", "optimizer": None, "batch_size": 32, "epochs": 5}
    whole, parts = trained(kmeans_step(6), **settings), trained(kmeans_step(6), accumulate=4, **settings)
    assert largest_difference(whole.state.params, parts.state.params) < 1e-5
    losses = [record["train:loss"] for record in whole.history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    # Lloyd's algorithm, written out
    x = np.asarray(digits()[0]["x"], np.float64).reshape(203, -1)
    order = Resident(digits()[0], 32).order(0, 0)[0]
    centers = x[order[:6]]
    for _ in range(5):
        cluster = ((x[:, None] - centers[None]) ** 2).sum(-1).argmin(1)
        centers = np.stack([x[cluster == k].mean(0) if (cluster == k).any() else centers[k] for k in range(6)])
    np.testing.assert_allclose(np.asarray(whole.state.params), centers, atol=1e-5)
    np.testing.assert_array_equal(whole.predict(digits()[0]), ((x[:, None] - centers[None]) ** 2).sum(-1).argmin(1))


def test_dropout_differs_between_microbatches_and_repeats_between_runs() -> None:
    a, b = (trained(mlp_task(dropout=0.5), accumulate=2) for _ in range(2))
    assert same_bits(a.state, b.state)
    # The same rows twice in one batch: with one mask for both parts the gradients of the parts would be equal.
    step = jaxdl.gradient_step(mlp_task(dropout=0.5), jaxdl.optim.sgd(0.1))
    train, _ = digits()
    batch = {"x": jnp.asarray(train["x"][:8]), "y": jnp.asarray(train["y"][:8]), "weight": jnp.ones(8)}
    state = step.init(jnp.uint32(0), batch, {"learning_rate": jnp.float32(0.1)})
    first, second = (step.measure(state, batch | {"part": jnp.int32(p)}) for p in (0, 1))
    assert largest_difference(first.total["gradient"], second.total["gradient"]) > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_resident_streamed_and_record_by_record_feeds_are_equal(weighted: bool) -> None:
    train, _ = digits()
    if weighted:
        weight = np.random.default_rng(0).random(len(train)).astype(np.float32)
        train = train.replace(columns=dict(train.columns) | {"weight": weight})
    runs = [trained(mlp_task(), feed(train, 32)) for feed in (Resident, Streamed, GrainFeed)]
    assert same_bits(runs[0].state, runs[1].state)
    assert same_bits(runs[0].state, runs[2].state)
    assert same_bits(runs[0].state, trained(mlp_task(), train, feed="streamed").state)


def test_compiled_equals_eager() -> None:
    train, _ = digits()
    step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.sgd(0.1))
    feed = Resident(train, 32)
    data = {name: jnp.asarray(column) for name, column in feed.data.items()}
    batches = [feed.take(data, jnp.asarray(feed.block(0, number, 1)[0])) for number in range(4)]
    state = step.init(jnp.uint32(0), batches[0], {"learning_rate": jnp.float32(0.1)})
    with jax.disable_jit():
        for batch in batches:
            state, _ = update(step, state, batch)
    run = trained(mlp_task(), optimizer=jaxdl.optim.sgd(0.1), epochs=None, steps=4)
    assert largest_difference(run.state.params, state.params) < 1e-6


def test_weights_are_repetitions_and_zero_is_absence() -> None:
    train, test = digits()
    weight = np.random.default_rng(1).integers(0, 3, len(train)).astype(np.float32)
    settings = {"optimizer": jaxdl.optim.sgd(0.1), "epochs": 2, "shuffle": False}
    weighted = trained(mlp_task(), train, sample_weight=weight, batch_size=len(train), **settings)
    repeated = train.select(np.repeat(np.arange(len(train)), weight.astype(int)))
    again = trained(mlp_task(), repeated, batch_size=len(repeated), **settings)
    assert largest_difference(weighted.state.params, again.state.params) < 1e-5
    # evaluation: weights count, padding never does
    held = test.replace(columns=dict(test.columns) | {"weight": np.arange(len(test), dtype=np.float32) % 3})
    by_hand = test.select(np.repeat(np.arange(len(test)), np.arange(len(test)) % 3))
    for size in (7, 90):
        a, b = weighted.evaluate(held, batch_size=size), weighted.evaluate(by_hand, batch_size=size)
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("size", [1, 13, 32, 90, 500])
def test_every_example_is_evaluated_and_predicted_once(size: int) -> None:
    _, test = digits()
    run = trained(mlp_task(), epochs=1)
    result = run.evaluate(test, batch_size=size)
    predicted = run.predict(test, batch_size=size)
    assert predicted.shape == (90, 10)
    assert result["accuracy"] == pytest.approx((predicted.argmax(1) == test["y"]).mean(), abs=1e-6)
    picked = predicted[np.arange(90), test["y"]]
    assert result["loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-4)


def test_balanced_class_weights() -> None:
    train, _ = digits()
    labels = np.where(np.arange(len(train)) < 180, 0, 1).astype(np.int32)
    skewed = train.replace(columns={"x": train["x"], "y": labels}, classes=None)
    task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=2))
    settings = {"optimizer": jaxdl.optim.sgd(0.1), "epochs": 1, "shuffle": False}
    table = {0: 203 / (2 * 180), 1: 203 / (2 * 23)}
    runs = [trained(task, skewed, class_weight=w, **settings) for w in ("balanced", table, [table[0], table[1]])]
    assert same_bits(runs[0].state.params, runs[1].state.params)
    assert same_bits(runs[0].state.params, runs[2].state.params)
    by_hand = trained(task, skewed, sample_weight=[table[int(y)] for y in labels], **settings)
    assert largest_difference(runs[0].state.params, by_hand.state.params) < 1e-6
    with pytest.raises(ValueError, match="label 7, which the data do not"):
        trained(task, skewed, class_weight={7: 1.0}, **settings)
