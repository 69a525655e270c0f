"""Many trials on a mesh: each is its run alone on one device, all of them send what one sends, in as many messages."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.core.evaluator import Evaluator, Predictor
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.step import Step
from jaxdl.core.trials import trials
from jaxdl.data import make_feed
from jaxdl.parallel import Layout, Parallel
from jaxdl.parallel.hlo import collectives
from tests.core.test_trials import one, trained
from tests.distributed.test_presets import BATCH, SMALL, convnet, mlp
from tests.steps import largest_difference

pytestmark = pytest.mark.devices8

COUNT, STEPS = 3, 8
RATES, SEEDS = [0.1, 0.03, 0.2], [4, 0, 9]


def program(make: Any, parallel: Parallel | None = None, parts: int = 1, count: int = COUNT, **options: Any) -> Program:
    """Trials that differ in rate and seed, over 203 examples in batches of 64."""
    task = make()
    step: Step = jaxdl.gradient_step(task, jaxdl.optim.sgd(0.1), report_norm=True)
    step = trials(jaxdl.guard(jaxdl.accumulate(step, parts)), count)
    train, _ = jaxdl.data.load("digits")
    layout = Layout.of(parallel, table=task.logical_axes)
    return Program(
        step, make_feed(train.select(np.arange(203)), BATCH), layout=layout, hyper={"learning_rate": RATES[:count]},
        seeds=SEEDS[:count], **options,
    )  # fmt: skip


@functools.cache
def alone(make: Any) -> tuple[list[Any], list[dict[str, np.ndarray]]]:
    """Each trial by itself on one device: its state and what it reported."""
    start = jax.device_get(program(make).init())
    train, _ = jaxdl.data.load("digits")
    step = jaxdl.guard(jaxdl.gradient_step(make(), jaxdl.optim.sgd(0.1), report_norm=True))
    solo = Program(step, make_feed(train.select(np.arange(203)), BATCH))
    runs = [trained(solo, STEPS, start=one(start, trial)) for trial in range(COUNT)]
    return [state for state, _ in runs], [seen for _, seen in runs]


SLOW = pytest.mark.slow
CASES = [
    pytest.param(mlp, Parallel("ddp"), 1, id="ddp"),
    pytest.param(mlp, Parallel("mics", **SMALL), 2, id="mics in parts"),
    pytest.param(mlp, Parallel("zero1", **SMALL), 1, id="zero1", marks=SLOW),
    pytest.param(mlp, Parallel("fsdp", **SMALL), 1, id="fsdp", marks=SLOW),
    pytest.param(mlp, Parallel("fsdp", **SMALL), 2, id="fsdp in parts", marks=SLOW),
    pytest.param(mlp, Parallel("mics+zero1", **SMALL), 2, id="mics+zero1 in parts", marks=SLOW),
    pytest.param(mlp, Parallel("pmap"), 1, id="pmap", marks=SLOW),
    pytest.param(mlp, Parallel("pmap"), 2, id="pmap in parts", marks=SLOW),
    pytest.param(mlp, Parallel(fsdp=4, tensor=2, **SMALL), 1, id="fsdp x tensor", marks=SLOW),
    pytest.param(convnet, Parallel("ddp"), 1, id="convnet ddp", marks=SLOW),
    pytest.param(convnet, Parallel("mics", **SMALL), 1, id="convnet mics", marks=SLOW),
]


@pytest.mark.parametrize(("make", "parallel", "parts"), CASES)
def test_each_trial_is_its_run_alone_on_one_device(make: Any, parallel: Parallel, parts: int) -> None:
    state, seen = trained(program(make, parallel, parts), STEPS)
    states, reports = alone(make)
    for trial in range(COUNT):
        for name, values in reports[trial].items():
            np.testing.assert_allclose(seen[name][:, trial], values, rtol=2e-5, err_msg=name)
        assert largest_difference(one(state, trial).params, states[trial].params) < 1e-5
        if make is convnet:
            assert largest_difference(one(state, trial).model_state, states[trial].model_state) < 1e-5
    assert largest_difference(states[0].params, states[1].params) > 1e-2


def test_rules_split_what_a_trial_has_and_leave_the_trials_whole() -> None:
    built = program(mlp, Parallel(fsdp=4, tensor=2, **SMALL))
    single = built.step.single
    assert single is not None
    lone = Program(single, built.feed, layout=built.layout).abstract_state
    for many, own in zip(jax.tree.leaves(built.abstract_state.params), jax.tree.leaves(lone.params), strict=True):
        assert many.sharding.shard_shape(many.shape) == (COUNT, *own.sharding.shard_shape(own.shape))
    assert not built.abstract_state.params["hidden0"]["kernel"].sharding.is_fully_replicated
    state = program(mlp, Parallel("zero1", **SMALL)).abstract_state
    assert state.params["hidden0"]["kernel"].sharding.is_fully_replicated
    built = program(mlp, Parallel("fsdp", shard_above=2000))
    report = built.report()
    assert any("hidden1/bias [32] has fewer than 2000 elements" in note for note in report.notes)
    assert report.state_bytes == sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * 4 for x in jax.tree.leaves(built.abstract_state)
    )


def sent(parallel: Parallel, parts: int, count: int) -> list[Any]:
    built = program(mlp, parallel, parts, count, plan=RunPlan("unrolled", 1))
    return collectives(built.compile().as_text(), built.layout.sizes)


def test_one_reduce_serves_all_trials() -> None:
    two, three = (sent(Parallel("ddp"), 2, count) for count in (2, 3))
    assert [(one.kind, one.axes, one.depth) for one in two] == [("all-reduce", ("data",), 0)]
    assert [(one.kind, one.axes, one.depth) for one in three] == [("all-reduce", ("data",), 0)]
    assert (three[0].bytes - 4) * 2 == (two[0].bytes - 4) * 3  # the batch's weight is one number for all
    grouped = sent(Parallel("mics", **SMALL), 2, 3)
    between = [one for one in grouped if "replica" in one.axes and one.kind == "all-reduce"]
    assert between and all(one.depth == 0 for one in between)


@pytest.mark.slow
def test_evaluation_on_a_mesh_is_that_of_each_trial() -> None:
    built = program(mlp, Parallel("fsdp", **SMALL))
    state = built.init()
    _, test = jaxdl.data.load("digits")
    held = make_feed(test.select(np.arange(90)), 48, shuffle=False)
    metrics = built.step.metrics
    found = Evaluator(built.step, held, metrics, built.layout, state)(state)
    outputs = Predictor(built.step, held, built.layout, state)(state)
    single = built.step.single
    assert single is not None
    for trial in range(COUNT):
        own = one(jax.device_get(state), trial)
        alone = Evaluator(single, held, metrics, Layout.single(), own)(own)
        for name, value in alone.items():
            np.testing.assert_allclose(found[name][trial], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(outputs[trial], Predictor(single, held, Layout.single(), own)(own), atol=1e-5)


@pytest.mark.slow
def test_what_int8_sums_owe_is_kept_for_each_trial() -> None:
    built = program(mlp, Parallel("ddp", compress="int8"))
    state, seen = trained(built, STEPS)
    assert all(x.shape[:2] == (COUNT, 8) for x in state.extra["residual"].values())
    for trial, expected in enumerate(alone(mlp)[1]):
        assert np.abs(seen["loss"][:, trial] - expected["loss"]).max() < 2e-2
