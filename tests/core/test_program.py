"""The compiled program: traced once, donated safely, read once a dispatch, the same however it is run."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.core import loop
from jaxdl.core.cost import cost_of
from jaxdl.core.plan import RunPlan, choose_plan, even
from jaxdl.core.program import Program
from jaxdl.core.summary import device_memory, largest_batch_size
from jaxdl.data import Resident
from tests.steps import convnet_task, counting_task, digits, mlp_task

QUIET = {"verbose": 0, "batch_size": 32}


@pytest.mark.parametrize("task", [mlp_task(), convnet_task()], ids=["scan", "loop"])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"guard": True, "average": 0.9}], ids=str)
def test_train_step_and_evaluation_are_traced_once(task, settings) -> None:
    """Over 3 epochs, with a partial last batch in training (203 = 6 * 32 + 11) and in validation (90 = 2 * 32 + 26)."""
    traces: dict[str, int] = {}
    train, test = digits()
    run = jaxdl.fit(counting_task(task, traces), train, validation=test, epochs=3, **QUIET, **settings)
    assert len(run.history) == 3
    assert traces == {"init": 1, "train": 1, "evaluate": 1}


def test_a_tail_block_traces_nothing_anew() -> None:
    traces: dict[str, int] = {}
    train, _ = digits()
    options = jaxdl.ProgramOptions(mode="scan", steps_per_dispatch=3)  # 7 steps an epoch: 3 + 3 + 1
    run = jaxdl.fit(counting_task(mlp_task(), traces), train, epochs=3, program=options, **QUIET)
    assert run.history[-1]["step"] == 21
    assert traces == {"init": 1, "train": 1}


@pytest.mark.smoke
def test_the_host_reads_once_a_dispatch(monkeypatch) -> None:
    """Conversions of device arrays during training are counted where jax makes them."""
    train, _ = digits()
    reads: list[int] = []
    real = loop.read

    def counted(packed):
        reads.append(packed.steps)
        return real(packed)

    conversions = []
    array = type(jax.device_put(np.zeros(1)))
    value = array._value

    monkeypatch.setattr(loop, "read", counted)
    monkeypatch.setattr(array, "_value", property(lambda self: (conversions.append(self.shape), value.fget(self))[1]))
    program = Program(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam()), Resident(train, 32), plan=RunPlan("scan", 3))
    state = program.init()
    state = loop.train(
        program,
        state,
        stop=14,
        on_reports=lambda step, report: None,
        wants_boundary=lambda step: False,
        at_boundary=lambda step, state: (state, False),
    )
    assert reads == [3, 3, 1, 3, 3, 1]
    assert conversions == [()]  # the number of the first step, before the loop; a report is read by np.asarray alone


@pytest.mark.parametrize("mode", ["scan", "unrolled", "loop"])
def test_only_the_block_is_uploaded(monkeypatch, mode) -> None:
    """The state stays on the device from dispatch to dispatch; a step of the loop finds the guard against uploads."""
    train, _ = digits()
    seen = []
    real = Program.run

    def watched(self, state, block, count, step):
        seen.append({type(leaf).__name__ for leaf in jax.tree.leaves((state, self._data))})
        return real(self, state, block, count, step)

    monkeypatch.setattr(Program, "run", watched)
    run = jaxdl.fit(mlp_task(), train, epochs=2, program=jaxdl.ProgramOptions(mode, 3), **QUIET)
    assert seen == [{"ArrayImpl"}] * 6
    if mode == "loop":
        program = Program(run.step, Resident(train, 32), plan=RunPlan("loop", 3))
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            program.run(jax.tree.map(np.array, run.state), program.block(0, 3), 3, 0)


def test_donation_leaves_the_callers_arrays_alone() -> None:
    train, _ = digits()
    task = mlp_task()
    start = task.init(jax.random.key(3), {"x": train["x"][:2]})
    before = jax.tree.map(np.array, start)
    columns = {"x": jax.numpy.asarray(train["x"]), "y": jax.numpy.asarray(train["y"])}
    run = jaxdl.fit(task, columns, epochs=2, start=start, **QUIET)
    assert run.history[0]["train:loss"] > run.history[1]["train:loss"]
    for kept, now in zip(jax.tree.leaves(before), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(kept, now)  # neither deleted nor changed
    np.testing.assert_array_equal(columns["x"], train["x"])


def test_the_state_is_donated() -> None:
    train, _ = digits()
    program = Program(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam()), Resident(train, 32))
    state = program.init()
    count = program.steps_in_block(0)
    program.run(state, program.block(0, count), count, 0)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_start_is_checked_leaf_by_leaf() -> None:
    train, _ = digits()
    start = mlp_task().init(jax.random.key(0), {"x": train["x"][:2]})
    start["params"]["logits"]["kernel"] = start["params"]["logits"]["kernel"][:, :9]
    with pytest.raises(ValueError, match=r"\['logits'\]\['kernel'\] has shape \[16, 9\], the model's has \[16, 10\]"):
        jaxdl.fit(mlp_task(), train, epochs=1, start=start, **QUIET)


class TestPlan:
    def test_convolutions_on_a_cpu_loop_and_dense_nets_scan(self) -> None:
        train, _ = digits()
        optimizer = jaxdl.optim.adam()
        dense = Program(jaxdl.gradient_step(mlp_task(), optimizer), Resident(train, 32))
        convolutional = Program(jaxdl.gradient_step(convnet_task(), optimizer), Resident(train, 32))
        assert dense.plan.mode == "scan"
        assert convolutional.plan.mode == ("loop" if jax.default_backend() == "cpu" else "scan")

    def test_flops_of_products_convolutions_and_loops(self) -> None:
        a, b = np.ones((3, 5), np.float32), np.ones((5, 7), np.float32)
        assert cost_of(jax.make_jaxpr(lambda x, y: x @ y)(a, b)).flops == 2 * 3 * 5 * 7
        looped = jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=4)[0])
        assert cost_of(looped(np.ones((6, 6), np.float32))).flops == 4 * 2 * 6**3
        images, kernel = np.ones((2, 8, 8, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)
        numbers = ("NHWC", "HWIO", "NHWC")
        convolve = jax.make_jaxpr(
            lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers)
        )(images, kernel)
        assert cost_of(convolve) == (2 * (2 * 8 * 8 * 4) * 3 * 3 * 3, 1, 1)

    def test_blocks_are_even(self) -> None:
        assert even(45, 100) == 45  # a short epoch is one block
        assert even(640, 100) == 80  # a divisor
        assert even(223, 100) == 75  # a prime: three blocks of nearly equal length
        assert even(7, 1) == 1

    def test_dearer_steps_get_shorter_blocks(self) -> None:
        cheap = choose_plan(cost_of(jax.make_jaxpr(lambda x: x)(1.0)), 10_000, 128)
        assert cheap.steps_per_dispatch >= 500

        def k(size: int) -> int:
            matrix = jax.ShapeDtypeStruct((size, size), np.float32)
            return choose_plan(cost_of(jax.make_jaxpr(lambda x: x @ x)(matrix)), 10_000, 128).steps_per_dispatch

        assert k(8192) == 1  # half a minute a step on a CPU
        assert 1 < k(1024) < cheap.steps_per_dispatch
        streamed = choose_plan(cost_of(jax.make_jaxpr(lambda x: x)(1.0)), 10_000, 16 * 2**20)
        assert streamed.steps_per_dispatch == 4  # 64 MiB a block

    def test_unknown_modes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'while'"):
            RunPlan("while", 3)


class TestReport:
    def test_it_counts_what_there_is(self) -> None:
        train, _ = digits()
        program = Program(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam()), Resident(train, 32))
        report = program.report()
        assert report.parameters == 64 * 16 + 16 + 16 * 10 + 10
        assert dict((path, count) for path, count, _ in report.modules) == {"hidden0": 1040, "logits": 170}
        # parameters, two moments and the count of Adam, step, seed and learning rate
        assert report.state_bytes == 3 * 4 * report.parameters + 4 + 4 + 4 + 4
        assert report.flops_per_step > 3 * 2 * 32 * (64 * 16 + 16 * 10) * 0.8
        assert report.compile_seconds > 0
        assert "hidden0" in str(report) and "1,210" in str(report)

    def test_a_batch_size_that_fits_is_found_without_running(self) -> None:
        train, _ = digits()

        def build(size: int) -> Program:
            return Program(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam()), Resident(train, size))

        sizes = {size: build(size).report().device_bytes for size in (16, 32, 64)}
        assert largest_batch_size(build, sizes[32], start=64, most=64) in (16, 32)
        assert largest_batch_size(build, 1 << 40, start=16, most=64) == 64
        with pytest.raises(MemoryError, match="batch size 1 needs"):
            largest_batch_size(build, 1000, start=2)
        assert device_memory(jax.devices()[0]) > 1 << 20


class TestTune:
    def test_it_measures_records_and_remembers(self, tmp_path, monkeypatch) -> None:
        from jaxdl.core import tune

        monkeypatch.setattr(tune, "MEASURE_SECONDS", 0.01)
        train, _ = digits()
        built = []

        def build(plan: RunPlan | None) -> Program:
            built.append(plan)
            return Program(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam()), Resident(train, 32), plan=plan)

        winner = tune.tune(build, folder=tmp_path)
        assert winner.reason.startswith("measured")
        assert len({(plan.mode, plan.steps_per_dispatch) for plan in built if plan}) >= 3
        built.clear()
        again = tune.tune(build, folder=tmp_path)
        assert (again.mode, again.steps_per_dispatch) == (winner.mode, winner.steps_per_dispatch)
        assert built == [None]  # looked up, not measured

    def test_options_that_contradict_are_refused(self) -> None:
        with pytest.raises(ValueError, match="tune=True"):
            jaxdl.ProgramOptions(tune=True, mode="scan")
