"""Many trainings in one program: each is its run alone, and none touches another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl.core.evaluator import Evaluator, Predictor
from jaxdl.core.packing import read
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.core.step import Step, update
from jaxdl.core.trials import trials
from jaxdl.data import Resident
from jaxdl.parallel import Layout
from tests.steps import digits, kmeans_step, largest_difference, mlp_task, same_bits

RATES = [0.3, 0.03, 0.003]
SEEDS = [7, 0, 3]


def sgd(**options: Any) -> Step:
    return jaxdl.gradient_step(mlp_task(**options), jaxdl.optim.sgd(0.1, momentum=0.9), report_norm=True)


def wrapped(**options: Any) -> Step:
    return jaxdl.guard(jaxdl.average(jaxdl.accumulate(sgd(**options), 3), 0.9))


def trained(program: Program, steps: int = 10, start: State | None = None) -> tuple[State, dict[str, np.ndarray]]:
    """The state after so many steps, over more than one epoch, and every report's scalars."""
    state, seen, step = program.init() if start is None else jax.device_put(start), [], 0
    while step < steps:
        count = min(program.steps_in_block(step), steps - step)
        state, packed = program.run(state, program.block(step, count), count, step)
        seen.append(program.reports(read(packed)).scalars)
        step += count
    return jax.device_get(state), {name: np.concatenate([one[name] for one in seen]) for name in seen[0]}


def feed() -> Resident:
    """203 examples in batches of 32: the last of an epoch is padded."""
    return Resident(digits()[0], 32)


def one(state: State, trial: int) -> State:
    """The state of one trial."""
    own = jax.tree.map(lambda x: x[trial], state.replace(step=np.zeros(99, np.int32)))
    return own.replace(step=state.step)


def close(a: Any, b: Any, relative: float = 1e-6) -> bool:
    """Whether two trees agree, relative to the largest number of each leaf."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.abs(np.float64(x) - np.float64(y)).max() <= relative * max(np.abs(y).max(), 1.0) for x, y in pairs)


RATES_AND_MORE = {"learning_rate": RATES, "clip_norm": [1.0, 0.5, 9.0], "l2": [0.0, 1e-3, 1e-2]}


@pytest.mark.parametrize(
    ("build", "hyper", "mode"),
    [
        (sgd, {"learning_rate": RATES}, "scan"),
        (wrapped, RATES_AND_MORE, "loop"),
        (lambda: wrapped(dropout=0.3), RATES_AND_MORE | {"dropout": [0.0, 0.2, 0.5]}, "scan"),
    ],
    ids=["plain", "transformed", "dropout"],
)
def test_each_trial_is_its_run_alone(build: Any, hyper: dict[str, list[float]], mode: str) -> None:
    plan = RunPlan(mode, 4)
    many = Program(trials(build(), 3), feed(), hyper=hyper, seeds=SEEDS, plan=plan)
    lone = Program(build(), feed(), hyper={name: values[0] for name, values in hyper.items()}, plan=plan)
    start = jax.device_get(many.init())
    state, seen = trained(many)
    assert state.step.shape == () and int(state.step) == 10
    assert {values.shape for values in seen.values()} == {(10, 3)}
    for trial in range(3):
        expected, expected_seen = trained(lone, start=one(start, trial))
        assert close(one(state, trial), expected), trial
        for what, values in expected_seen.items():
            np.testing.assert_allclose(seen[what][:, trial], values, rtol=2e-6, atol=1e-7, err_msg=what)
    assert largest_difference(one(state, 0).params, one(state, 1).params) > 1e-2  # the trials do differ


def test_what_is_computed_by_itself_is_the_same_to_the_bit() -> None:
    """Initial values and counts; and k-means, whose products have one order."""
    hyper = {"learning_rate": RATES}
    state = jax.device_get(Program(trials(wrapped(), 3), feed(), hyper=hyper, seeds=SEEDS).init())
    for trial, seed in enumerate(SEEDS):
        solo = Program(wrapped(), feed(), hyper={"learning_rate": RATES[trial]}, seed=seed).init()
        assert same_bits(one(state, trial).params, jax.device_get(solo.params))
        assert int(state.seed[trial]) == seed
    many, _ = trained(Program(trials(kmeans_step(4), 2), feed(), apply="epoch"), 14)
    lone, _ = trained(Program(kmeans_step(4), feed(), apply="epoch"), 14)
    assert close(one(many, 0).params, lone.params) and same_bits(many.params[0], many.params[1])


def test_a_trial_that_blows_up_harms_no_other() -> None:
    hyper = {"learning_rate": [0.1, 1e30, 0.1]}
    state, seen = trained(Program(trials(sgd(), 3), feed(), hyper=hyper))
    expected, _ = trained(Program(sgd(), feed(), hyper={"learning_rate": 0.1}))
    assert not np.isfinite(seen["loss"][-1, 1]) and np.isfinite(seen["loss"][:, [0, 2]]).all()
    assert close(one(state, 0), expected) and same_bits(one(state, 0).params, one(state, 2).params)

    state, seen = trained(Program(trials(jaxdl.guard(sgd()), 3), feed(), hyper=hyper))
    assert np.isfinite(state.params["logits"]["kernel"]).all()  # what it learns last is huge, and finite
    assert seen["skipped"][:, 1].sum() == state.extra["guard"][1] > 0
    assert state.extra["guard"][0] == state.extra["guard"][2] == 0
    assert close(one(state, 0).params, expected.params)


def test_a_trial_for_which_nothing_weighs_stays_as_it_is() -> None:
    plain = wrapped()

    def measure(state: State, batch: Any) -> Any:
        measured = plain.measure(state, batch)
        return measured._replace(weight=jnp.where(state.hyper["learning_rate"] > 0.05, measured.weight, 0.0))

    step = trials(plain._replace(measure=measure), 2)
    train, _ = digits()
    batch = {"x": jnp.asarray(train["x"][:12]), "y": jnp.asarray(train["y"][:12]), "weight": jnp.ones(12)}
    hyper = {"learning_rate": jnp.array([0.01, 0.1], jnp.float32), "momentum": jnp.float32(0.9)}
    state = step.init(jnp.uint32(0), batch, hyper)
    new, report = jax.jit(lambda s, b: update(step, s, b))(state, batch)
    assert int(new.step) == 1 and report.scalars["weight"].tolist() == [0, 12]
    assert same_bits(one(new, 0).replace(step=state.step), one(state, 0))
    assert largest_difference(one(new, 1).params, one(state, 1).params) > 1e-4


def test_evaluation_and_prediction_are_those_of_each_trial() -> None:
    _, test = digits()
    hyper = {"learning_rate": RATES}
    step = wrapped()
    state, _ = trained(Program(trials(step, 3), feed(), hyper=hyper, seeds=SEEDS))
    held = Resident(test, 32, shuffle=False)
    metrics = (*step.metrics, jaxdl.metrics.ConfusionMatrix(10))
    many = trials(step, 3)
    found = Evaluator(many, held, metrics, Layout.single(), state)(state)
    outputs = Predictor(many, held, Layout.single(), state)(state)
    assert found["confusion_matrix"].shape == (3, 10, 10) and outputs.shape == (3, 90, 10)
    solo, predict = (
        Evaluator(step, held, metrics, Layout.single(), one(state, 0)),
        Predictor(step, held, Layout.single(), one(state, 0)),
    )
    for trial in range(3):
        own = one(state, trial)
        for name, value in solo(own).items():
            np.testing.assert_allclose(found[name][trial], value, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(outputs[trial], predict(own), atol=1e-6)


def test_the_program_does_not_grow_with_the_trials_and_the_batch_is_held_once() -> None:
    two, eight = (Program(trials(wrapped(), count), feed()) for count in (2, 8))
    equations = [len(program.jaxpr_text.splitlines()) for program in (two, eight)]
    assert equations[0] == equations[1]
    bytes_of = {program.step.trials: program.report() for program in (two, eight)}
    assert bytes_of[8].state_bytes - 4 == 4 * (bytes_of[2].state_bytes - 4)  # all but the step
    assert bytes_of[8].data_bytes == bytes_of[2].data_bytes
    assert "learning_rate" in eight.hyper and eight.hyper["learning_rate"] == [pytest.approx(0.1)] * 8


def test_schedules_show_the_rate_of_each_trial() -> None:
    step = trials(sgd(), 2)
    assert step.rate is not None
    np.testing.assert_allclose(step.rate({"learning_rate": jnp.array([0.1, 0.2])}, jnp.int32(0)), [0.1, 0.2])


def test_what_does_not_fit_is_a_sentence() -> None:
    train, _ = digits()
    many = trials(sgd(), 3)
    with pytest.raises(
        ValueError, match=r"hyper 'learning_rate' has shape \[2\]: give one number for all trials, or 3"
    ):
        Program(many, feed(), hyper={"learning_rate": [0.1, 0.2]})
    with pytest.raises(ValueError, match=r"'learning_rate' is -1: must be at least 0"):
        Program(many, feed(), hyper={"learning_rate": [0.1, -1.0, 0.2]})
    with pytest.raises(ValueError, match=r"seeds= has shape \[2\]: give one number for all trials, or 3"):
        Program(many, feed(), seeds=[0, 1])
    with pytest.raises(ValueError, match=r"seeds= are those of trials\(step, count\)"):
        Program(sgd(), feed(), seeds=[0])
    with pytest.raises(ValueError, match=r"guard takes the Step of one training, and this one has 3 trials"):
        jaxdl.guard(many)
    with pytest.raises(ValueError, match=r"fit takes the Step of one training, and this one has 3 trials"):
        jaxdl.fit(many, train, epochs=1, batch_size=32, verbose=0)
    with pytest.raises(ValueError, match="at least 1"):
        trials(sgd(), 0)
    with pytest.raises(TypeError, match="whole number"):
        trials(sgd(), 2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trials takes a Step, not a Task"):
        trials(mlp_task(), 2)  # type: ignore[arg-type]
