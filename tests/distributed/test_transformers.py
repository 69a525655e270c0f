"""A Transformer on every mesh, and on mixes of axes, trains as on one device; what each of them does can be read."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jaxdl
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.data import make_feed
from jaxdl.nn.attention import dot_product_attention
from jaxdl.parallel import Layout, Parallel, tracing
from jaxdl.parallel.hlo import collectives
from jaxdl.parallel.pipeline import Schedule
from tests.steps import largest_difference

pytestmark = pytest.mark.devices8

BATCH, STEPS = 32, 3
SMALL = {"shard_above": 64}


def program(parallel: Parallel | None = None, steps: int = STEPS, **options: Any) -> Program:
    """A GPT of four layers over rows of 17 tokens, the last of them padding in some rows."""
    settings = {"num_classes": 32, "width": 32, "depth": 4, "heads": 4, "length": 32} | options
    task = jaxdl.tasks.language_model(jaxdl.create_model("gpt", **settings), pad=0)
    numbers = np.random.default_rng(0)
    x = numbers.integers(1, 32, (48, 17)).astype(np.int32)
    x[numbers.random(48) < 0.3, 9:] = 0
    step = jaxdl.gradient_step(task, jaxdl.optim.sgd(0.3), report_norm=True)
    feed = make_feed({"x": x}, BATCH)
    layout = Layout.of(parallel, table=task.logical_axes)
    return Program(step, feed, layout=layout, plan=RunPlan("unrolled", 1))


def trained(built: Program, steps: int = STEPS) -> tuple[Any, np.ndarray]:
    state, seen = built.init(), []
    for step in range(steps):
        state, packed = built.run(state, built.block(step, 1), 1, step)
        scalars = built.reports(jaxdl.core.packing.read(packed)).scalars
        seen.append([scalars["loss"][0], scalars["gradient_norm"][0]])
    return jax.device_get(state), np.array(seen)


@functools.cache
def alone() -> tuple[Any, np.ndarray]:
    return trained(program())


MIXES = {
    "fsdp": Parallel("fsdp", **SMALL),
    "tensor x data": Parallel(tensor=4, data=2),
    "fsdp x tensor": Parallel(fsdp=4, tensor=2, **SMALL),
    "replica x fsdp x tensor": Parallel(replica=2, fsdp=2, tensor=2, **SMALL),
    "stage x data, interleaved": Parallel(stage=2, data=4, repeats=2, microbatches=4),
    "stage x fsdp": Parallel(stage=2, fsdp=4, **SMALL),
    "data x context": Parallel(data=2, context=4),
    "context x fsdp": Parallel(context=2, fsdp=4, context_strategy="all_gather", **SMALL),
    "context x fsdp x tensor": Parallel(context=2, fsdp=2, tensor=2, context_strategy="all_gather", **SMALL),
    "ring x fsdp": Parallel(context=2, fsdp=4, **SMALL),
    "remat": Parallel("fsdp", remat="full", **SMALL),
}


#: Compiled anew each time, since programs with sends of a ring or a pipeline beside gathers are not kept.
APART = ("stage x fsdp", "ring x fsdp", "context x fsdp x tensor")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in APART else name for name in MIXES]
)
def test_a_gpt_trains_as_on_one_device(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    state, seen = trained(program(MIXES[name]))
    expected, expected_seen = alone()
    np.testing.assert_allclose(seen, expected_seen, rtol=1e-5)
    assert largest_difference(state.params, expected.params) < 1e-5
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["context x fsdp", "context x fsdp x tensor", "ring x fsdp"])
def test_twenty_steps_of_a_split_sequence_are_those_of_one_device(name: str) -> None:
    state, seen = trained(program(MIXES[name]), 20)
    expected, expected_seen = trained(program(), 20)
    np.testing.assert_allclose(seen, expected_seen, rtol=1e-5)
    assert largest_difference(state.params, expected.params) < 1e-5


def test_tensor_parallelism_splits_heads_and_mlp_and_sends_activations_only() -> None:
    built = program(Parallel(tensor=4, data=2))
    shapes = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), built.abstract_state.params)
    assert shapes["blocks"]["attention"]["query"]["kernel"] == (4, 32, 8)
    assert shapes["blocks"]["attention"]["out"]["kernel"] == (4, 8, 32)
    found = collectives(built.compile().as_text(), built.layout.sizes)
    kinds = {one.kind for one in found if one.axes == ("tensor",)}
    assert "all-reduce" in kinds


def test_the_ring_passes_keys_on_and_gathers_nothing() -> None:
    layout = Layout.of(Parallel(context=8))
    numbers = np.random.default_rng(0)
    q, k, v = (numbers.normal(size=(2, 32, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    padding = np.arange(32)[None] < np.array([[32], [21]])

    def run(q: Any, k: Any, v: Any, options: Any) -> Any:
        return jax.jit(
            jax.value_and_grad(lambda *x: (dot_product_attention(*x, **options) ** 2).sum(), argnums=(0, 1, 2))
        )(q, k, v)

    for options in ({}, {"causal": True}, {"causal": True, "window": 5}, {"padding": jnp.asarray(padding)}):
        expected, gradients = run(q, k, v, options)
        with tracing(layout.tracing()):
            got, ring_gradients = jax.block_until_ready(run(q, k, v, options))
        assert float(got) == pytest.approx(float(expected), rel=1e-5), options
        for one, other in zip(gradients, ring_gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
    with tracing(layout.tracing()):
        text = jax.jit(lambda *x: dot_product_attention(*x, causal=True)).lower(q, k, v).compile().as_text()
    found = collectives(text, layout.sizes)
    assert found and {one.kind for one in found} == {"collective-permute"}
    assert max(one.times for one in found) == 8


@pytest.mark.parametrize(
    ("schedule", "ticks", "bubble"),
    [(Schedule(4, 1, 8), 11, 0.273), (Schedule(4, 4, 8), 35, 0.086), (Schedule(8, 2, 8), 23, 0.304)],
)
def test_the_bubble_is_that_of_the_circular_schedule(schedule: Schedule, ticks: int, bubble: float) -> None:
    assert schedule.ticks == ticks
    assert schedule.bubble == pytest.approx(bubble, abs=5e-4)


def test_a_pipeline_holds_its_own_layers_and_passes_activations() -> None:
    built = program(Parallel(stage=4, data=2))
    shapes = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), built.abstract_state.params)
    assert shapes["blocks"]["attention"]["query"]["kernel"] == (1, 32, 32)
    found = collectives(built.compile().as_text(), built.layout.sizes)
    copies = [one for one in found if "data" in one.axes]  # their gradients cross once, not in each turn
    assert copies and all(one.depth == 0 and one.times == 1 for one in copies)
    turns = [one for one in found if one.kind == "collective-permute" and one.axes == ("stage",)]
    assert {one.times for one in turns if one.depth == 1} == {Schedule(4, 1, 4).ticks}


def test_computing_again_needs_less_memory() -> None:
    def temporary(remat: str | None) -> int:
        built = program(Parallel("fsdp", remat=remat, **SMALL), depth=8, width=64, unroll=False)
        return built.compile().memory_analysis().temp_size_in_bytes

    assert temporary("full") * 2 < temporary(None)


def test_what_no_model_acts_on_is_refused() -> None:
    train, _ = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10))
    for parallel, named in ((Parallel(stage=2, data=4), "stage"), (Parallel(context=2, data=4), "context"),
                            (Parallel("ddp", remat="full"), "remat")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"Parallel\({named}=...\) did nothing"):
            jaxdl.fit(task, train, epochs=1, batch_size=64, parallel=parallel, verbose=0)


def test_gathered_keys_are_those_of_one_device_and_nothing_is_sent_by_hand() -> None:
    layout = Layout.of(Parallel(context=8, context_strategy="all_gather"))
    numbers = np.random.default_rng(0)
    q, k, v = (numbers.normal(size=(2, 32, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    padding = jnp.asarray(np.arange(32)[None] < np.array([[32], [21]]))
    mask = jnp.asarray(numbers.random((2, 1, 32, 32)) < 0.8)
    split = layout.block(np.zeros((1, 8)), 8).update(spec=PartitionSpec(None, "context"))

    def run(q: Any, k: Any, v: Any, options: Any) -> Any:
        return jax.jit(
            jax.value_and_grad(lambda *x: (dot_product_attention(*x, **options) ** 2).sum(), argnums=(0, 1, 2))
        )(q, k, v)

    everything = {"causal": True, "window": 5, "padding": padding, "mask": mask, "dropout": 0.3,
                  "dropout_key": jax.random.key(0)}  # fmt: skip
    expected, gradients = run(q, k, v, everything)
    there = jax.device_put((q, k, v), split)
    with tracing(layout.tracing()):
        got, gathered_gradients = jax.block_until_ready(run(*there, everything))
        lowered = jax.jit(lambda *x: dot_product_attention(*x, causal=True)).lower(*there)
    text = lowered.compile().as_text()
    assert lowered.as_text().count("<@mesh, [{}, {}, {}, {}]>") == 2  # keys and values, said to be whole
    assert float(got) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(gradients, gathered_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    found = collectives(text, layout.sizes)
    assert {one.kind for one in found} == {"all-gather"} and {one.axes for one in found} == {("context",)}
    assert sum(one.bytes for one in found) == k.nbytes + v.nbytes


def test_a_pipeline_refuses_examples_that_depend_on_each_other() -> None:
    train, _ = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10))._replace(whole_batch=True)
    for parallel in (Parallel(stage=2, fsdp=4), Parallel("pmap")):
        with pytest.raises(ValueError, match="examples depend on each other"):
            jaxdl.fit(task, train, epochs=1, batch_size=64, parallel=parallel, verbose=0)


@pytest.mark.parametrize(
    ("parallel", "sentence"),
    [
        (Parallel(stage=8), r"4 layers do not divide into stage=8 x repeats=1 chunks"),
        (Parallel(stage=4, data=2, microbatches=2), r"microbatches=2 leave stages of stage=4 without work"),
        (Parallel(stage=2, data=4, microbatches=3), r"batch_size=32 does not divide over data=4 x microbatches=3"),
    ],
)
def test_a_pipeline_that_does_not_fit_says_so(parallel: Parallel, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        program(parallel)
