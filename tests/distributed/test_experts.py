"""Experts on a mesh: the numbers of one device, parameters split by experts, tokens sent by all-to-all."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.transform import accumulate
from jaxdl.data import make_feed
from jaxdl.parallel import Layout, Parallel, tracing
from jaxdl.parallel.hlo import collectives
from tests.steps import largest_difference

pytestmark = pytest.mark.devices8

STEPS = 3
SMALL = {"shard_above": 64}


def program(parallel: Parallel | None = None, parts: int = 1, **options: Any) -> Program:
    """A GPT of two blocks with eight experts each, over rows of 9 tokens, the last of them padding in some rows."""
    settings = {"num_classes": 32, "width": 16, "depth": 2, "heads": 2, "length": 16, "pad": 0} | options
    settings = {"experts": 8, "capacity_factor": None} | settings
    task = jaxdl.tasks.language_model(jaxdl.create_model("gpt", **settings), pad=0, balance=0.1, router_z=0.1)
    numbers = np.random.default_rng(0)
    x = numbers.integers(1, 32, (48, 9)).astype(np.int32)
    x[numbers.random(48) < 0.3, 5:] = 0
    step = jaxdl.gradient_step(task, jaxdl.optim.sgd(0.3), report_norm=True)
    layout = Layout.of(parallel, table=task.logical_axes)
    step = accumulate(step, parts) if parts > 1 else step
    return Program(step, make_feed({"x": x}, 32), layout=layout, plan=RunPlan("unrolled", 1))


def trained(built: Program) -> tuple[Any, np.ndarray]:
    state, seen = built.init(), []
    for step in range(STEPS):
        state, packed = built.run(state, built.block(step, 1), 1, step)
        scalars = built.reports(jaxdl.core.packing.read(packed)).scalars
        names = ("loss", "gradient_norm", "shown/balance", "shown/router_z", "shown/dropped")
        seen.append([scalars[name][0] for name in names])
    return jax.device_get(state), np.array(seen)


@functools.cache
def alone() -> tuple[Any, np.ndarray]:
    return trained(program())


MIXES = {
    "expert x data": Parallel(expert=4, data=2),
    "expert x fsdp": Parallel(expert=2, fsdp=4, **SMALL),
    "expert x replica": Parallel(expert=4, replica=2),
    "fsdp": Parallel("fsdp", **SMALL),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_gpt_with_experts_trains_as_on_one_device(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    state, seen = trained(program(MIXES[name]))
    expected, expected_seen = alone()
    np.testing.assert_allclose(seen, expected_seen, rtol=1e-5, atol=1e-7)
    assert largest_difference(state.params, expected.params) < 1e-5
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def test_each_device_holds_its_experts_and_tokens_travel_by_all_to_all() -> None:
    built = program(Parallel(expert=4, data=2))
    shapes = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), built.abstract_state.params)["blocks"]["experts"]
    assert shapes["up"] == {"kernel": (2, 2, 16, 64), "bias": (2, 2, 64)}
    assert shapes["down"] == {"kernel": (2, 2, 64, 16), "bias": (2, 2, 16)}
    assert shapes["router"] == {"kernel": (2, 16, 8)}
    found = collectives(built.compile().as_text(), built.layout.sizes)
    travels = [one for one in found if one.kind == "all-to-all" and one.axes == ("expert",)]
    # there and back, forward and backward, in each of two blocks: 8 experts x 32 places (one for each own token) x 16
    assert sum(one.times for one in travels) == 8
    assert {one.bytes for one in travels} == {8 * 32 * 16 * 4}
    assert not [one for one in found if one.kind == "all-gather" and "expert" in one.axes]


def test_microbatches_route_by_themselves() -> None:
    _, seen = trained(program(Parallel(expert=4, data=2), parts=2))
    _, expected = alone()
    np.testing.assert_allclose(seen[:, 0], expected[:, 0], rtol=2e-2)  # balance is of each device's microbatch
    assert np.isfinite(seen).all() and (seen[:, 4] == 0).all()


def test_places_are_counted_on_each_device() -> None:
    layout = Layout.of(Parallel(expert=4, data=2))
    layer = nn.MixtureOfExperts(8, 16, 4, k=1, capacity_factor=1.0)
    x = jnp.ones((8, 4, 8))  # all tokens are alike, so all choose one expert, of whose places each device has 1 of 4
    variables = layer.init(jax.random.key(0), x, train=True)
    with tracing(layout.tracing()):
        y, routing = jax.block_until_ready(jax.jit(lambda v, x: layer.apply(v, x, train=True))(variables, x))
    served = np.asarray(jnp.abs(y).sum(-1) > 0)
    np.testing.assert_array_equal(served, np.tile([True, False, False, False], (8, 1)))
    assert float(routing.dropped) == 24 and float(routing.choices) == 32


def test_half_precision_on_a_mesh() -> None:
    layout = Layout.of(Parallel(expert=2, fsdp=4))
    layer = nn.MixtureOfExperts(8, 16, 4, capacity_factor=None)
    x = jax.random.normal(jax.random.key(0), (8, 4, 8))
    variables = layer.init(jax.random.key(1), x, train=True)

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return (layer.apply(variables, x, train=True)[0].astype(jnp.float32) ** 2).sum()

    expected = jax.jit(jax.grad(loss))(variables, x)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (variables, x))
    with tracing(layout.tracing()):
        found = jax.block_until_ready(jax.jit(jax.grad(loss))(*halves))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == jnp.bfloat16
        assert np.linalg.norm(one.astype(jnp.float32) - other) < 0.05 * np.linalg.norm(other)


@pytest.mark.parametrize(
    ("parallel", "options", "sentence"),
    [
        (Parallel(expert=8), {"experts": 4}, "4 experts do not divide over expert=8: choose one of 1, 2, 4"),
        (Parallel(expert=8), {"experts": 0}, r"Parallel\(expert=...\) did nothing: .* mixture of experts"),
        (Parallel(stage=2, data=4), {}, "nor the balance of experts: take stage=1"),
    ],
)
def test_what_does_not_fit_is_refused(parallel: Parallel, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        built = program(parallel, **options)
        built.layout.require_used()
