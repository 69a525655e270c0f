"""Offload: state in pinned host memory trains the same numbers; activations move there where a device can do it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.checkpoint import Store, fingerprint
from jaxdl.core.offload import activation_bytes, require_host_memory
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.data import make_feed
from jaxdl.nn.stack import offload_policy
from jaxdl.parallel import Layout, Parallel, tracing
from jaxdl.parallel.bytes import held, layout_of
from jaxdl.planning import Parts, compile_here, parallel_from
from tests.steps import largest_difference

BATCH, STEPS = 32, 6
SMALL = {"shard_above": 64}


@functools.cache
def mlp() -> Any:
    return jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(64, 32)))


def program(parallel: Parallel | None, devices: int, plan: RunPlan | None = None) -> Program:
    train, _ = jaxdl.data.load("digits")
    step = jaxdl.gradient_step(mlp(), jaxdl.optim.adam(1e-2))
    layout = Layout.of(parallel, jax.devices()[:devices])
    return Program(step, make_feed(train.select(np.arange(101)), BATCH), layout=layout, plan=plan)


def trained(built: Program) -> tuple[Any, np.ndarray]:
    state, losses, step = built.init(), [], 0
    while step < STEPS:
        count = min(built.steps_in_block(step), STEPS - step)
        before = state
        state, packed = built.run(state, built.block(step, count), count, step)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.opt_state))  # donated, on the host, too
        losses.append(built.reports(jaxdl.core.packing.read(packed)).scalars["loss"])
        step += count
    return state, np.concatenate(losses)


def kinds(tree: Any) -> set[str]:
    """The memories of all leaves but scalars."""
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree) if leaf.ndim}


def check_equal(parallel: Parallel, devices: int, plan: RunPlan | None) -> None:
    on_device = program(parallel, devices, plan)
    off = program(dataclasses.replace(parallel, offload="optimizer"), devices, plan)
    (expected, losses), (state, seen) = trained(on_device), trained(off)
    np.testing.assert_array_equal(seen, losses)
    assert largest_difference(state, expected) == 0
    assert kinds(expected) == {"device"}
    assert kinds(state.opt_state) == {"pinned_host"}
    assert kinds((state.params, state.model_state)) == {"device"}
    for leaf, other in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert leaf.sharding.shard_shape(leaf.shape) == other.sharding.shard_shape(other.shape)
    assert fingerprint(state) == fingerprint(expected)
    assert kinds(off.copy(state).opt_state) == {"pinned_host"}
    assert off.jaxpr_text == on_device.jaxpr_text  # a resume with the other setting is the same training


# ---- the optimizer's state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [None, RunPlan("scan", 3)], ids=["own", "scan"])
def test_one_device_trains_alike_with_its_moments_on_the_host(plan: RunPlan | None) -> None:
    check_equal(Parallel(data=1), 1, plan)


@pytest.mark.devices8
@pytest.mark.parametrize(
    "name", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("ddp", "zero1")), "fsdp", "mics"]
)
def test_a_mesh_trains_alike_with_its_moments_on_the_host(name: str) -> None:
    check_equal(Parallel(name, **SMALL), 8, None)


@pytest.mark.devices8
@pytest.mark.slow
def test_moments_ride_through_a_compiled_loop_too() -> None:
    check_equal(Parallel("fsdp", **SMALL), 8, RunPlan("scan", 3))


def test_one_device_is_the_default_where_there_is_only_one() -> None:
    built = program(Parallel(offload="optimizer"), 1)
    assert built.plan.mode == "loop"
    assert kinds(built.init().opt_state) == {"pinned_host"}
    with pytest.raises(ValueError, match=r"names no axis for the 8 devices"):
        Parallel(offload="optimizer").sizes([SimpleNamespace(process_index=0)] * 8)


def test_a_run_saves_its_offloaded_state_and_goes_on_with_and_without(tmp_path: Path) -> None:
    train, _ = jaxdl.data.load("digits")

    def fit(folder: Path | None, epochs: int, offload: str | None) -> Any:
        return jaxdl.fit(
            mlp(), train.select(np.arange(101)), epochs=epochs, batch_size=32,
            parallel=Parallel("ddp", offload=offload), verbose=0, checkpoint=None if folder is None else str(folder),
        )  # fmt: skip

    straight = fit(None, 3, None)
    begun = fit(tmp_path / "run", 1, "optimizer")
    assert kinds(begun.state.opt_state) == {"pinned_host"}
    record = jaxdl.tracking.RunFolder.open(tmp_path / "run").read_json("program.json")
    assert record["parallel"] == {"preset": "ddp", "offload": "optimizer"}
    with Store(tmp_path / "run" / "checkpoints", read_only=True) as store:
        restored = store.restore(begun.state)
    assert kinds(restored.tree.opt_state) == {"pinned_host"}
    assert largest_difference(restored.tree, begun.state) == 0
    assert kinds(fit(tmp_path / "run", 2, None).state.opt_state) == {"device"}
    run = fit(tmp_path / "run", 3, "optimizer")
    assert largest_difference(run.state.params, straight.state.params) == 0
    assert [one["train:loss"] for one in run.history] == [one["train:loss"] for one in straight.history]


def test_what_waits_on_the_host_is_counted_apart() -> None:
    shapes = program(None, 1).abstract_state
    whole, off = (held(layout_of(Parallel("fsdp", offload=o, **SMALL), 8), shapes) for o in (None, "optimizer"))
    assert off.host == whole.optimizer - 4  # but for Adam's count
    assert off.optimizer == 4
    assert off.state == whole.state - off.host
    assert whole.host == 0
    report, plain = (program(Parallel(data=1, offload=o), 1).report() for o in ("optimizer", None))
    assert report.host_bytes == plain.state_bytes - report.state_bytes == 2 * 4 * sum(m[1] for m in report.modules)
    assert "host memory: 52.6 kB" in str(report) and "host memory" not in str(plain)


# ---- activations --------------------------------------------------------------------------------------------------


@functools.cache
def gpt() -> Any:
    model = jaxdl.create_model("gpt", num_classes=32, width=32, depth=4, heads=4, length=32, unroll=False)
    return jaxdl.tasks.language_model(model)


@functools.cache
def moves(platform: str, **asked: Any) -> tuple[int, int]:
    """How many arrays a lowered measure sends to the host, and takes back from it."""
    layout = dataclasses.replace(Layout.of(Parallel(**asked), table=gpt().logical_axes), planned=True)
    built = Program(
        jaxdl.gradient_step(gpt(), jaxdl.optim.sgd(0.1)), make_feed({"x": np.ones((48, 17), np.int32)}, 32),
        layout=layout, plan=RunPlan("unrolled", 1),
    )  # fmt: skip
    with tracing(layout.tracing()):
        traced = jax.jit(lambda state, batch: built.step.measure(state, batch).total).trace(
            built.abstract_state, dict(built.batch)
        )
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return tuple(text.count(f'_xla_buffer_placement = "{kind}"') for kind in ("pinned_host", "device"))  # type: ignore


def test_activations_go_to_the_host_and_come_back_where_a_gpu_runs_it() -> None:
    assert moves("cuda", data=1, offload="activations")[0] == 1  # the input of each layer
    assert moves("cuda", data=1, offload="activations")[1] >= 1
    assert moves("cuda", data=1, offload="activations", remat="names:attention_out")[0] == 2
    assert moves("cuda", data=1, offload="activations", remat="dots_no_batch")[0] > 3  # and its products with weights
    assert moves("cuda", data=1, remat="full") == (0, 0)
    assert moves("cuda", data=1) == (0, 0)
    assert moves("cpu", data=1, offload="activations")[0] == 0  # which is why it is refused there


@pytest.mark.devices8
@pytest.mark.parametrize("asked", [{"preset": "fsdp"}, {"stage": 2, "data": 4}], ids=["fsdp", "stage x data"])
def test_activations_move_on_a_mesh_too(asked: dict[str, Any]) -> None:
    assert moves("cuda", **asked, offload="activations")[0] == 1
    assert moves("cuda", **asked)[0] == 0


def test_a_cpu_says_that_it_would_do_nothing() -> None:
    train, _ = jaxdl.data.load("digits")
    for offload in ("activations", "activations+optimizer"):
        with pytest.raises(ValueError, match="would silently do nothing here; on a GPU or TPU it works"):
            jaxdl.fit(mlp(), train, epochs=1, batch_size=32, verbose=0, parallel=Parallel("ddp", offload=offload))


def test_a_model_without_a_stack_says_so() -> None:
    layout = dataclasses.replace(Layout.of(Parallel(data=1, offload="activations"), jax.devices()[:1]), planned=True)
    with pytest.raises(ValueError, match=r"Parallel\(offload=...\) did nothing.*move its activations to the host"):
        Program(program(None, 1).step, make_feed({"x": np.ones((32, 64), np.float32), "y": np.ones(32, np.int32)}, 32),
                layout=layout)  # fmt: skip


def test_a_plan_counts_the_inputs_of_the_layers() -> None:
    parts = Parts(task=gpt(), optimizer=jaxdl.optim.adam(), example={"x": ((17,), "int32")}, batch_size=32)
    inputs = 4 * 32 * 16 * 32 * 4  # layers x batch x length x width x bytes
    assert compile_here(parts, Parallel(data=1, offload="activations")).host == inputs
    assert parallel_from("fsdp,offload=activations+optimizer") == Parallel("fsdp", offload="activations+optimizer")


@pytest.mark.devices8
def test_each_device_counts_its_own_activations() -> None:
    layout = layout_of(Parallel(replica=2, fsdp=4, offload="activations"), 8, gpt().logical_axes)
    one = layout_of(Parallel(data=1, offload="activations"), 1, gpt().logical_axes)
    step = jaxdl.gradient_step(gpt(), jaxdl.optim.sgd(0.1))
    feed = make_feed({"x": np.ones((48, 17), np.int32)}, 32)
    built = Program(step, feed, layout=Layout.single())
    none = layout_of(Parallel(data=1, remat="full"), 1, gpt().logical_axes)
    counts = [activation_bytes(step, built.abstract_state, built.batch, each) for each in (layout, one, none)]
    assert counts[1] == 8 * counts[0] > counts[2] == 0


# ---- sentences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Parallel("ddp", offload="optimiser"), r"offload='optimiser'; did you mean 'optimizer'\?"),
        (
            lambda: Parallel("ddp", offload=("optimizer",)),
            r"it is None, 'activations' or 'optimizer' or 'activations\+",
        ),
        (lambda: Parallel("pmap", offload="optimizer"), r'pmap keeps everything on its devices: take "ddp"'),
        (lambda: offload_policy("dots"), r"the products of attention.*too large"),
        (lambda: offload_policy("dot"), r"no remat policy is called 'dot'; did you mean 'dots'\?"),
    ],
)
def test_what_cannot_be_is_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_device_without_pinned_memory_says_so() -> None:
    device = SimpleNamespace(
        platform="toy", device_kind="Toy 1", addressable_memories=lambda: [SimpleNamespace(kind="device")]
    )
    layout = SimpleNamespace(parallel=Parallel("ddp", offload="optimizer"), planned=False, device=device)
    with pytest.raises(ValueError, match=r"needs pinned host memory, which Toy 1 \(toy\) does not have .*are device"):
        require_host_memory(layout)  # type: ignore[arg-type]
