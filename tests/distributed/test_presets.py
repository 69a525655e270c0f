"""Every preset trains as one device does: gradients, losses, bytes on each device, and what it sends."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.core.island import on_mesh
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.step import Step
from jaxdl.core.transform import accumulate
from jaxdl.data import make_feed
from jaxdl.parallel import Layout, Parallel, tracing
from jaxdl.parallel.hlo import collectives
from tests.steps import convnet_task, largest_difference

pytestmark = pytest.mark.devices8

STEPS, BATCH = 20, 64


@functools.cache
def mlp() -> Any:
    model = jaxdl.create_model("mlp", num_classes=10, widths=(64, 32))
    return jaxdl.tasks.classification(model)


@functools.cache
def convnet() -> Any:
    return convnet_task(batch_norm=True)


def program(task: Any, parallel: Any = None, parts: int = 1, **options: Any) -> Program:
    """203 examples in batches of 64: the last batch of an epoch is padded, and no shard of it is like another."""
    train, _ = jaxdl.data.load("digits")
    step: Step = jaxdl.gradient_step(task, jaxdl.optim.sgd(0.1), report_norm=True)
    feed = make_feed(train.select(np.arange(203)), BATCH)
    asked = None if parallel is None else parallel if isinstance(parallel, Parallel) else Parallel(parallel)
    return Program(accumulate(step, parts), feed, layout=Layout.of(asked, table=task.logical_axes), **options)


def trained(built: Program, steps: int = STEPS) -> tuple[Any, np.ndarray]:
    """The state after so many steps of SGD, and the loss and the gradient's norm at each."""
    state, seen = built.init(), []
    step = 0
    while step < steps:
        count = min(built.steps_in_block(step), steps - step)
        state, packed = built.run(state, built.block(step, count), count, step)
        scalars = built.reports(jaxdl.core.packing.read(packed)).scalars
        seen.append(np.stack([scalars["loss"], scalars["gradient_norm"]], axis=1))
        step += count
    return jax.device_get(state), np.concatenate(seen)


@functools.cache
def alone(make: Any, parts: int = 1) -> tuple[Any, np.ndarray]:
    return trained(program(make(), parts=parts))


SMALL = {"shard_above": 64}  # the networks of these tests are small; by default their parameters would stay whole
PRESETS = {
    "ddp": Parallel("ddp"),
    "pmap": Parallel("pmap"),
    "zero1": Parallel("zero1", **SMALL),
    "fsdp": Parallel("fsdp", **SMALL),
    "mics": Parallel("mics", **SMALL),
    "mics+zero1": Parallel("mics+zero1", **SMALL),
    "tensor": Parallel("tensor"),
    "fsdp x tensor": Parallel(fsdp=4, tensor=2, **SMALL),
    "replica x fsdp x tensor": Parallel(replica=2, fsdp=2, tensor=2, **SMALL),
    "data x fsdp": Parallel(data=2, fsdp=4, **SMALL),
}


@pytest.mark.parametrize("name", PRESETS)
def test_an_mlp_trains_as_on_one_device(name: str) -> None:
    state, seen = trained(program(mlp(), PRESETS[name]))
    expected, expected_seen = alone(mlp)
    np.testing.assert_allclose(seen, expected_seen, rtol=1e-5)
    assert largest_difference(state.params, expected.params) < 1e-5


@pytest.mark.parametrize("name", ["ddp", "pmap", "fsdp", "mics", "data x fsdp"])
def test_batch_norm_has_the_statistics_of_the_whole_batch(name: str) -> None:
    state, seen = trained(program(convnet(), PRESETS[name]), 8)
    expected, expected_seen = trained(program(convnet()), 8)
    np.testing.assert_allclose(seen, expected_seen, rtol=2e-5)
    assert largest_difference(state.params, expected.params) < 1e-5
    assert largest_difference(state.model_state, expected.model_state) < 1e-5


@pytest.mark.parametrize("name", ["ddp", "pmap", "zero1", "fsdp", "mics", "mics+zero1", "fsdp x tensor"])
def test_microbatches_on_a_mesh_add_up_to_the_batch(name: str) -> None:
    state, seen = trained(program(mlp(), PRESETS[name], parts=2))
    expected, expected_seen = alone(mlp)
    np.testing.assert_allclose(seen, expected_seen, rtol=1e-5)
    assert largest_difference(state.params, expected.params) < 1e-5


# ---- what lies where ----------------------------------------------------------------------------------------------


def held(tree: Any) -> int:
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * 4 for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "of_parameters", "of_moments"),
    [("ddp", 1, 1), ("zero1", 1, 8), ("fsdp", 8, 8), ("mics", 4, 4), ("mics+zero1", 4, 8)],
)
def test_a_device_holds_its_share_to_the_byte(name: str, of_parameters: int, of_moments: int) -> None:
    train, _ = jaxdl.data.load("digits")
    # widths that all divide by 8; the ten classes and biases of fewer than 64 numbers stay whole, as `least` says
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=16, widths=(64, 64)))
    step = jaxdl.gradient_step(task, jaxdl.optim.adam(1e-3))
    built = Program(step, make_feed(train, BATCH), layout=Layout.of(PRESETS[name]))
    state = built.init()
    large = 64 * 64 + 64 + 64 * 64 + 64 + 64 * 16
    small = 16
    assert held(state.params) == 4 * (large // of_parameters + small)
    assert held(state.opt_state) - 4 == 2 * 4 * (large // of_moments + small)  # and Adam's count
    report = built.report()
    assert report.state_bytes == held(state)
    if name != "ddp":
        assert any("logits/bias [16]" in note for note in report.notes)
    assert "logits/bias" in str(report) or name == "ddp"


def test_tensor_parallelism_splits_columns_then_rows() -> None:
    state = program(mlp(), Parallel(tensor=8)).init()
    shapes = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), state.params)
    assert shapes["hidden0"] == {"kernel": (64, 8), "bias": (8,)}
    assert shapes["hidden1"] == {"kernel": (8, 32), "bias": (32,)}


# ---- what is sent -------------------------------------------------------------------------------------------------


def sent(name: str, parts: int = 1) -> list[Any]:
    built = program(mlp(), PRESETS[name], parts, plan=RunPlan("unrolled", 1))
    return collectives(built.compile().as_text(), built.layout.sizes)


def test_data_parallelism_reduces_once_and_sends_nothing_else() -> None:
    for found in (sent("ddp"), sent("pmap")):
        assert {one.kind for one in found} == {"all-reduce"}
        assert {one.axes for one in found} == {("data",)}


def test_sharded_parameters_are_gathered_and_the_optimizers_state_is_not() -> None:
    fsdp, zero1 = sent("fsdp"), sent("zero1")
    assert {"all-reduce", "all-gather"} <= {one.kind for one in fsdp}
    assert {one.axes for one in fsdp} == {("fsdp",)}
    # ZeRO-1 gathers each new parameter once: the bytes of those that are split
    gathered = sum(one.bytes for one in zero1 if one.kind == "all-gather")
    assert gathered == 4 * (64 * 64 + 64 + 64 * 32 + 32 * 10)


@pytest.mark.parametrize("name", ["ddp", "zero1", "mics", "mics+zero1"])
def test_no_gradient_crosses_copies_of_the_model_inside_the_accumulation(name: str) -> None:
    found = sent(name, parts=4)
    between = [one for one in found if set(one.axes) & {"data", "replica"} and one.kind == "all-reduce"]
    assert between and all(one.depth == 0 for one in between)
    if name.startswith("mics"):  # the first of two levels: inside a group, each microbatch
        assert any(one.depth == 1 and one.axes == ("fsdp",) for one in found if one.kind == "all-reduce")
    inside = [one for one in found if one.depth]
    assert all(one.axes == ("fsdp",) for one in inside)
    assert all(one.times == 4 for one in inside)


def test_data_beside_fsdp_crosses_data_once_and_only_with_parts() -> None:
    found = sent("data x fsdp")
    across = [one for one in found if "data" in one.axes]
    assert {one.kind for one in across} == {"all-reduce"}
    split = 4 * (64 * 64 + 64 + 64 * 32 + 32 * 10) / 4
    assert split <= sum(one.bytes for one in across) < split + 4 * 64  # and what is too small to split


def test_xla_alone_would_reduce_in_the_loop() -> None:
    # what the island is for: fsdp's own axis, which XLA reduces, is crossed by each microbatch
    assert any(one.depth == 1 and one.kind == "all-reduce" for one in sent("fsdp", parts=4))


# ---- fewer bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compress", "close"), [("bf16", 2e-3), ("int8", 2e-2)])
@pytest.mark.parametrize("axes", [{"data": 8}, {"replica": 2, "data": 4}])
def test_compressed_gradients_train_nearly_alike(compress: str, close: float, axes: dict[str, int]) -> None:
    _, seen = trained(program(mlp(), Parallel(**axes, compress=compress)))
    _, expected = alone(mlp)
    assert np.abs(seen[:, 0] - expected[:, 0]).max() < close
    assert np.abs(seen[:, 0] - expected[:, 0]).max() > 0  # it did round


@pytest.mark.parametrize(
    "name",
    ["mics", *(pytest.param(one, marks=pytest.mark.slow) for one in ("mics+zero1", "replica x fsdp x tensor"))],
)
def test_parts_of_gradients_cross_the_copies_as_bf16(name: str) -> None:
    plain, half = (dataclasses.replace(PRESETS[name], compress=c) for c in (None, "bf16"))
    _, seen = trained(program(mlp(), half))
    _, expected = alone(mlp)
    assert 0 < np.abs(seen[:, 0] - expected[:, 0]).max() < 2e-3
    whole, halved = (program(mlp(), one, plan=RunPlan("unrolled", 1)).compile().as_text() for one in (plain, half))
    sizes = Layout.of(plain).sizes
    # XLA:CPU widens what it sends to float32, so counts of numbers are compared: a device's part of each large gradient
    across = [one for one in collectives(whole, sizes) if one.kind == "all-reduce" and one.axes == ("replica",)]
    sums = [one for one in collectives(halved, sizes) if one.kind == "all-to-all"]
    left = [one for one in collectives(halved, sizes) if one.kind == "all-reduce" and one.axes == ("replica",)]
    assert sums and {one.axes for one in sums} == {("replica",)}
    assert 2 * sum(one.sent for one in sums) == sum(one.sent for one in across) - sum(one.sent for one in left)


@pytest.mark.parametrize("parallel", [Parallel("mics", compress="int8"), Parallel("fsdp", compress="bf16")])
def test_what_cannot_be_compressed_says_where_it_can(parallel: Parallel) -> None:
    with pytest.raises(ValueError, match=r"sums gradients over data and replica axes.*this mesh splits them over fsdp"):
        program(mlp(), parallel)


def test_a_gpu_sends_bfloat16_across_the_copies() -> None:
    built = program(mlp(), dataclasses.replace(PRESETS["mics"], compress="bf16"), plan=RunPlan("unrolled", 1))
    with tracing(built.layout.tracing()):
        step = on_mesh(built.step, built.layout)
        traced = jax.jit(step.measure).trace(built.abstract_state, dict(built.batch))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    sent = [line for line in text.splitlines() if "stablehlo.all_to_all" in line]
    assert len(sent) == 2 and all("bf16" in line for line in sent)  # two kernels have more than 1,024 numbers


def test_int8_sends_a_quarter_and_what_it_rounds_away_comes_later() -> None:
    whole, eighth = (program(mlp(), Parallel("ddp", compress=c), plan=RunPlan("unrolled", 1)) for c in (None, "int8"))
    bytes_of = [
        sum(one.sent for one in collectives(built.compile().as_text(), built.layout.sizes)) for built in (whole, eighth)
    ]
    assert bytes_of[1] < 0.35 * bytes_of[0]
    state, _ = trained(eighth)
    owed = state.extra["residual"]
    assert all(x.shape[0] == 8 for x in owed.values()) and any(np.abs(x).max() > 0 for x in owed.values())


def test_error_feedback_sums_to_what_was_meant() -> None:
    from jax.sharding import PartitionSpec as P

    from jaxdl.parallel.compress import sum_int8

    layout = Layout.of(Parallel("ddp"))
    numbers = np.random.default_rng(0).normal(size=(40, 8, 50)).astype(np.float32)

    def one(x: Any, owed: Any) -> Any:
        total, owed = sum_int8(x[0], owed[0], ("data",), 8)
        return total, owed[None]

    step = jax.jit(
        jax.shard_map(one, mesh=layout.mesh, in_specs=P("data"), out_specs=(P(), P("data")), check_vma=False)
    )
    owed, sums = np.zeros((8, 50), np.float32), np.zeros(50)
    for x in numbers:
        total, owed = jax.block_until_ready(step(x, owed))
        sums += np.asarray(total)
    meant = numbers.sum((0, 1), dtype=np.float64)
    # what is missing is exactly what the devices still owe: nothing is lost over forty roundings
    np.testing.assert_allclose(sums + np.asarray(owed).sum(0), meant, atol=1e-4)
    assert np.abs(sums - meant).max() > 1e-3

    bad = numbers[0].copy()
    bad[3, 7] = np.inf
    total, after = jax.block_until_ready(step(bad, owed))
    assert np.isnan(np.asarray(total)).all()
    np.testing.assert_array_equal(np.asarray(after), np.asarray(owed))


# ---- through fit --------------------------------------------------------------------------------------------------


def test_fit_evaluates_and_predicts_on_the_mesh_as_on_one_device() -> None:
    train, test = jaxdl.data.load("digits")
    train, test = train.select(np.arange(200)), test.select(np.arange(90))

    def fit(parallel: Any) -> Any:
        return jaxdl.fit(
            mlp(), train, validation=test, optimizer=jaxdl.optim.sgd(0.1), epochs=2, batch_size=48, parallel=parallel,
            verbose=0,
        )  # fmt: skip

    expected, run = fit(None), fit(PRESETS["fsdp"])
    for name, value in expected.metrics.items():
        assert run.metrics[name] == pytest.approx(value, rel=1e-5), name
    np.testing.assert_allclose(run.predict(test), expected.predict(test), atol=1e-5)
    assert run.evaluate(test)["accuracy"] == expected.evaluate(test)["accuracy"]


@pytest.mark.parametrize(
    ("parallel", "parts"),
    [("ddp", 1), ("pmap", 1), ("mics", 2), (Parallel("pmap", compress="int8"), 2)],
    ids=["ddp", "pmap", "mics in parts", "pmap int8 in parts"],
)
def test_recurrent_carries_stay_with_their_rows(parallel: Any, parts: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, 2000).astype(np.int32)
    model = jaxdl.create_model("lstm_language_model", num_classes=20, width=8, depth=1, stateful=True)

    def fit(parallel: Any, parts: int) -> Any:
        return jaxdl.fit(
            jaxdl.tasks.language_model(model), jaxdl.data.TokenStreams(tokens, 16, 8), steps=6, parallel=parallel,
            optimizer=jaxdl.optim.sgd(0.5), accumulate=parts, verbose=0,
        )  # fmt: skip

    run, expected = fit(parallel, parts), fit(None, 1)
    close = 1e-5 if not isinstance(parallel, Parallel) else 1e-3
    assert largest_difference(run.state.model_state, expected.state.model_state) < close
    assert largest_difference(run.state.params, expected.state.params) < close
    assert float(np.abs(jax.tree.leaves(jax.device_get(run.state.model_state["carry"]))[0]).max()) > 0
