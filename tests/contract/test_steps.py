"""Every step and every transformation through one contract: structure, dtypes, additivity, weight 0, trials by vmap."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdl
from jaxdl.core.gradient import global_norm
from jaxdl.core.step import Step, add, update, zeros
from tests.steps import digits, kmeans_step, mlp_task, recurrent_task

ROWS = 12


def _gradient(**settings: Any) -> Step:
    return jaxdl.gradient_step(mlp_task(), jaxdl.optim.adamw(1e-2), **settings)


#: name -> (step, numbers of hyper beside its own)
STEPS: dict[str, tuple[Any, dict[str, float]]] = {
    "gradient": (lambda: _gradient(), {}),
    "optax": (lambda: jaxdl.gradient_step(mlp_task(), optax.adam(1e-2)), {}),
    "norm and metrics": (lambda: _gradient(report_norm=True, metrics=tuple(mlp_task().metrics)), {}),
    "clipped": (lambda: _gradient(), {"clip_norm": 0.5, "clip_value": 0.1}),
    "penalties": (lambda: _gradient(), {"l1": 1e-3, "l2": 1e-2}),
    "bf16": (lambda: _gradient(precision="bf16"), {}),
    "recurrent": (lambda: jaxdl.gradient_step(recurrent_task(), jaxdl.optim.sgd(0.1, momentum=0.9)), {}),
    "accumulate": (lambda: jaxdl.accumulate(_gradient(), 3), {}),
    "guard": (lambda: jaxdl.guard(_gradient()), {}),
    "average": (lambda: jaxdl.average(_gradient(), 0.9), {}),
    "all": (lambda: jaxdl.guard(jaxdl.average(jaxdl.accumulate(_gradient(), 4), 0.99)), {"clip_norm": 1.0}),
    "lbfgs": (lambda: jaxdl.lbfgs_step(mlp_task(), memory=3), {}),
    "k-means": (lambda: kmeans_step(4), {}),
}
#: steps whose arithmetic is bfloat16 add up to its precision
LOOSE = {"bf16"}


def batch_of(rows: slice | np.ndarray, weight: np.ndarray | None = None) -> dict[str, jax.Array]:
    train, _ = digits()
    x, y = train["x"][rows], train["y"][rows]
    weight = np.ones(len(x), np.float32) if weight is None else weight
    return {"x": jnp.asarray(x), "y": jnp.asarray(y), "weight": jnp.asarray(weight, jnp.float32)}


@functools.cache
def compiled(name: str) -> tuple[Step, Any, Any, Any, Any]:
    """The step with init, measure and update compiled, and its state after one update."""
    build, more = STEPS[name]
    step = build()
    hyper = {key: jnp.float32(value) for key, value in {**step.hyper, **more}.items()}
    init = jax.jit(lambda seed, batch: step.init(seed, batch, hyper))
    advance = jax.jit(lambda state, batch: update(step, state, batch))
    state, _ = advance(init(jnp.uint32(0), batch_of(slice(0, ROWS))), batch_of(slice(0, ROWS)))
    return step, init, jax.jit(step.measure), advance, state


@pytest.mark.smoke
@pytest.mark.parametrize("name", STEPS)
def test_structure_and_dtypes_never_change(name: str) -> None:
    _, init, measure, advance, state = compiled(name)
    batch = batch_of(slice(ROWS, 2 * ROWS))
    fresh = init(jnp.uint32(1), batch)
    new, report = advance(state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, state, new)
    assert int(fresh.step) == 0 and int(state.step) == 1 and int(new.step) == 2
    assert {"loss", "weight"} <= set(report.scalars)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in report.scalars.values())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new.params))
    assert advance._cache_size() == 1  # one trace for states before and after
    chex.assert_trees_all_equal_shapes_and_dtypes(measure(state, batch), zeros(measure(state, batch)))


@pytest.mark.parametrize("name", STEPS)
def test_donation_works(name: str) -> None:
    step, init, _, _, _ = compiled(name)
    batch = batch_of(slice(0, ROWS))
    state = init(jnp.uint32(0), batch)
    donating = jax.jit(lambda s, b: update(step, s, b)[0], donate_argnums=0)
    donating(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", STEPS)
@given(data=st.data())
def test_measure_is_additive(name: str, data: st.DataObject) -> None:
    """Any split of a batch, with any weights (0 included), sums to the whole. Parts keep one shape: rows that belong to
    the other part have weight 0 there."""
    _, _, measure, _, state = compiled(name)
    number = st.sampled_from([0.0, 0.25, 1.0, 3.0])
    weight = np.array(data.draw(st.lists(number, min_size=ROWS, max_size=ROWS)), np.float32)
    part = np.array(data.draw(st.lists(st.integers(0, 2), min_size=ROWS, max_size=ROWS)))
    rows = slice(20, 20 + ROWS)
    whole = measure(state, batch_of(rows, weight))
    total = zeros(whole)
    for number in range(3):
        total = add(total, measure(state, batch_of(rows, np.where(part == number, weight, 0))))
    tolerance = 3e-2 if name in LOOSE else 2e-5
    scale = 1 + float(weight.sum())
    chex.assert_trees_all_close(total.total, whole.total, rtol=tolerance, atol=tolerance * scale)
    assert float(total.weight) == pytest.approx(float(whole.weight), rel=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_a_batch_without_weight_changes_nothing_but_the_count(name: str) -> None:
    _, _, _, advance, state = compiled(name)
    batch = batch_of(slice(0, ROWS), np.zeros(ROWS, np.float32))
    batch["x"] = batch["x"].at[3].set(jnp.nan)  # what padding rows hold must not matter
    new, report = advance(state, batch)
    chex.assert_trees_all_equal(new.replace(step=state.step), state.replace(extra=new.extra | _kept(state)))
    assert float(report.scalars["weight"]) == 0


def _kept(state: Any) -> dict[str, Any]:
    return {name: value for name, value in state.extra.items() if name != "guard"}


TRIALS = ["gradient", "clipped", "penalties", "accumulate", "guard", "average", "all", "k-means"]


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_equals_its_solo_run(name: str) -> None:
    """init and update under vmap over three seeds and learning rates, against each alone."""
    step, _, _, _, _ = compiled(name)
    batch = batch_of(slice(0, ROWS))
    hyper = {key: jnp.full(3, value, jnp.float32) for key, value in {**step.hyper, **STEPS[name][1]}.items()}
    if "learning_rate" in hyper:
        hyper["learning_rate"] = jnp.array([1e-3, 1e-2, 1e-1], jnp.float32)

    def two_updates(seed: jax.Array, hyper: Any) -> Any:
        state = step.init(seed, batch, hyper)
        state, _ = update(step, state, batch)
        return update(step, state, batch)

    seeds = jnp.arange(3, dtype=jnp.uint32)
    together, _ = jax.jit(jax.vmap(two_updates))(seeds, hyper)
    alone = jax.jit(two_updates)
    for trial in range(3):
        solo, _ = alone(seeds[trial], {key: value[trial] for key, value in hyper.items()})
        one = jax.tree.map(lambda x, i=trial: x[i], together.params)
        chex.assert_trees_all_close(one, solo.params, atol=2e-5)


class TestNumbers:
    """What single transformations promise, on numbers that can be checked by hand."""

    @staticmethod
    def _updated(step: Step, hyper: dict[str, float], batch: Any, times: int = 1) -> tuple[Any, Any, Any]:
        values = {key: jnp.float32(value) for key, value in {**step.hyper, **hyper}.items()}
        first = step.init(jnp.uint32(0), batch, values)
        state, report = first, None
        advance = jax.jit(lambda s, b: update(step, s, b))
        for _ in range(times):
            state, report = advance(state, batch)
        return first, state, report

    def test_clip_norm_bounds_the_step_of_sgd(self) -> None:
        step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.sgd(1.0), report_norm=True)
        batch = batch_of(slice(0, ROWS))
        first, state, report = self._updated(step, {"clip_norm": 0.01}, batch)
        moved = jax.tree.map(lambda a, b: a - b, first.params, state.params)
        assert float(global_norm(moved)) == pytest.approx(0.01, rel=1e-4)
        assert float(report.scalars["gradient_norm"]) > 0.1  # before clipping
        first, state, _ = self._updated(step, {"clip_value": 1e-3}, batch)
        moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), first.params, state.params)
        assert max(map(float, jax.tree.leaves(moved))) == pytest.approx(1e-3, rel=1e-3)

    @pytest.mark.parametrize("name, slope", [("l1", np.sign), ("l2", lambda w: w)])
    def test_penalties_add_their_slope_to_kernels_only(self, name: str, slope: Any) -> None:
        step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.sgd(1.0))
        batch = batch_of(slice(0, ROWS))
        first, plain, _ = self._updated(step, {}, batch)
        _, penalised, _ = self._updated(step, {name: 0.01}, batch)
        for path, before in jax.tree_util.tree_leaves_with_path(first.params):
            a, b = (dict(jax.tree_util.tree_leaves_with_path(s.params))[path] for s in (plain, penalised))
            expected = -0.01 * slope(np.asarray(before)) if before.ndim > 1 else 0 * np.asarray(before)
            np.testing.assert_allclose(np.asarray(b) - np.asarray(a), expected, atol=1e-6)

    def test_decoupled_weight_decay_shrinks_by_rate_times_decay(self) -> None:
        batch = batch_of(slice(0, ROWS))
        first, plain, _ = self._updated(jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam(0.1)), {}, batch)
        step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam(0.1, weight_decay=0.2))
        _, decayed, _ = self._updated(step, {}, batch)
        for w, a, b in zip(*(jax.tree.leaves(s.params) for s in (first, plain, decayed)), strict=True):
            np.testing.assert_allclose(np.asarray(b - a), -0.1 * 0.2 * np.asarray(w), atol=1e-6)

    def test_guard_skips_counts_and_keeps_everything(self) -> None:
        step = jaxdl.guard(jaxdl.average(_gradient(), 0.9))
        good, bad = batch_of(slice(0, ROWS)), batch_of(slice(0, ROWS))
        bad["x"] = bad["x"].at[0, 0, 0, 0].set(jnp.inf)
        values = {key: jnp.float32(value) for key, value in step.hyper.items()}
        advance = jax.jit(lambda s, b: update(step, s, b))
        state, report = advance(step.init(jnp.uint32(0), good, values), good)
        assert float(report.scalars["skipped"]) == 0
        after, report = advance(state, bad)
        assert float(report.scalars["skipped"]) == 1 and float(report.scalars["weight"]) == 0
        assert int(after.extra["guard"]) == 1 and int(after.step) == 2
        chex.assert_trees_all_equal(after.params, state.params)
        chex.assert_trees_all_equal(after.opt_state, state.opt_state)
        chex.assert_trees_all_equal(after.extra["average"], state.extra["average"])
        again, _ = advance(after, good)
        assert int(again.extra["guard"]) == 1
        assert not np.array_equal(jax.tree.leaves(again.params)[0], jax.tree.leaves(after.params)[0])

    def test_guard_lets_statistics_be_infinite_but_not_nan(self) -> None:
        task = mlp_task()

        def with_state(value: float) -> Any:
            def init(key: Any, batch: Any) -> Any:
                return task.init(key, batch) | {"stats": {"least": jnp.float32(jnp.inf)}}

            def loss(variables: Any, batch: Any, context: Any) -> Any:
                state = {"stats": {"least": jnp.float32(value)}}
                return task.loss({"params": variables["params"]}, batch, context)._replace(model_state=state)

            return jaxdl.guard(jaxdl.gradient_step(task._replace(init=init, loss=loss), jaxdl.optim.adam()))

        batch = batch_of(slice(0, ROWS))
        assert float(self._updated(with_state(np.inf), {}, batch)[2].scalars["skipped"]) == 0
        assert float(self._updated(with_state(np.nan), {}, batch)[2].scalars["skipped"]) == 1

    def test_average_follows_its_formula_and_evaluates_with_it(self) -> None:
        batch = batch_of(slice(0, ROWS))
        step = jaxdl.average(_gradient(), 0.5)
        first, state, _ = self._updated(step, {}, batch, times=1)
        d = min(0.5, 1 / 10)  # step 0
        for p0, p1, a in zip(
            *(jax.tree.leaves(t) for t in (first.params, state.params, state.extra["average"])), strict=True
        ):
            np.testing.assert_allclose(np.asarray(a), d * np.asarray(p0) + (1 - d) * np.asarray(p1), atol=1e-6)
        assert step.evaluate is not None and _gradient().evaluate is not None
        with_average = step.evaluate(state, batch)
        swapped = _gradient().evaluate(state.replace(params=state.extra["average"]), batch)
        assert float(with_average.loss) == float(swapped.loss) != float(_gradient().evaluate(state, batch).loss)

    def test_bf16_keeps_float32_where_it_matters(self) -> None:
        seen: dict[str, Any] = {}
        task = mlp_task()

        def loss(variables: Any, batch: Any, context: Any) -> Any:
            seen.update(params=jax.tree.leaves(variables["params"])[0].dtype, x=batch["x"].dtype)
            result = task.loss(variables, batch, context)
            seen.update(value=result.value.dtype)
            return result

        step = jaxdl.gradient_step(task._replace(loss=loss), jaxdl.optim.adam(), precision="bf16")
        _, state, report = self._updated(step, {}, batch_of(slice(0, ROWS)))
        assert seen == {"params": jnp.bfloat16, "x": jnp.bfloat16, "value": jnp.float32}
        assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state[0].mu))} == {jnp.dtype("float32")}
        assert report.scalars["loss"].dtype == jnp.float32

    def test_schedules_read_the_step_of_the_state(self) -> None:
        schedule = jaxdl.optim.piecewise({1: 0.0})  # 1 at step 0, then 0
        step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.sgd(0.1, schedule=schedule))
        batch = batch_of(slice(0, ROWS))
        first, once, _ = self._updated(step, {}, batch, times=1)
        _, thrice, _ = self._updated(step, {}, batch, times=3)
        assert not np.array_equal(jax.tree.leaves(first.params)[1], jax.tree.leaves(once.params)[1])
        chex.assert_trees_all_equal(once.params, thrice.params)


class TestRefusals:
    def test_what_evaluates_again_is_named(self) -> None:
        train, _ = digits()
        with pytest.raises(TypeError, match=r"scale_by_zoom_linesearch evaluates the loss again.*lbfgs_step"):
            jaxdl.fit(mlp_task(), train, optimizer=optax.lbfgs(), epochs=1, verbose=0)

    @pytest.mark.parametrize("opaque", [True, False])
    def test_sam_trains_unless_it_evaluates_again(self, opaque: bool) -> None:
        train, _ = digits()
        sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=opaque)
        if opaque:
            with pytest.raises(TypeError, match=r"SAMState evaluates the loss again"):
                jaxdl.fit(mlp_task(), train, optimizer=sam, epochs=1, verbose=0)
        else:
            losses = jaxdl.fit(mlp_task(), train, optimizer=sam, epochs=6, verbose=0).history
            assert losses[-1]["train:loss"] < losses[0]["train:loss"]

    def test_numbers_that_lbfgs_would_not_read(self) -> None:
        with pytest.raises(ValueError, match="'l2', which neither task nor optimizer reads"):
            jaxdl.fit(jaxdl.lbfgs_step(mlp_task()), digits()[0], epochs=1, hyper={"l2": 1.0}, verbose=0)

    def test_no_optimizer_at_all(self) -> None:
        with pytest.raises(TypeError, match="optimizer is a float"):
            jaxdl.gradient_step(mlp_task(), 0.1)  # type: ignore[arg-type]

    def test_a_mean_instead_of_values_per_example(self) -> None:
        task = mlp_task()

        def loss(variables: Any, batch: Any, context: Any) -> Any:
            result = task.loss(variables, batch, context)
            return result._replace(value=result.value.mean())

        with pytest.raises(ValueError, match="one number per example"):
            jaxdl.fit(task._replace(loss=loss), digits()[0], epochs=1, verbose=0)

    def test_whole_batches_are_not_split(self) -> None:
        step = jaxdl.gradient_step(mlp_task()._replace(whole_batch=True), jaxdl.optim.adam())
        with pytest.raises(ValueError, match="accumulate=4 would split"):
            jaxdl.accumulate(step, 4)

    def test_unread_numbers_are_named(self) -> None:
        with pytest.raises(ValueError, match="'momentum', which neither task nor optimizer reads"):
            jaxdl.fit(mlp_task(), digits()[0], epochs=1, hyper={"momentum": 0.9}, verbose=0)
