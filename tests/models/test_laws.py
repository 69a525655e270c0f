"""Laws that every model obeys; one row of rows.py per model."""

from __future__ import annotations

import functools
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn
from jaxdl.data import Dataset
from jaxdl.models import create_model, model_info
from jaxdl.models.catalog import MODELS
from tests.models.rows import CLASSES, ROWS, Row

every_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=[pytest.mark.slow] if row.slow else []) for row in ROWS]
)


def _seed(row: Row) -> int:
    return zlib.crc32(row.id.encode())


def _batch(row: Row, count: int) -> dict[str, np.ndarray]:
    return row.data(np.random.default_rng(_seed(row)), count)


@functools.cache
def _started(row_id: str) -> tuple[Any, dict[str, Any], Any]:
    """(model, variables, x of four examples)."""
    row = next(row for row in ROWS if row.id == row_id)
    model, x = create_model(row.name, **row.options), jax.tree.map(jnp.asarray, row.inputs(_batch(row, 4)))
    keys = {"params": nn.light_key(jax.random.key(_seed(row)))}
    return model, jax.jit(functools.partial(model.init, train=False))(keys, x), x


def _paths(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(key, "key", key)) for key in path): leaf for path, leaf in leaves}


def _training(model: Any, variables: dict[str, Any]) -> Any:
    """x -> (outputs, changed collections), as a task calls the model in training."""
    untrained = [name for name in variables if name != "params"]

    def run(params: Any, x: Any) -> tuple[Any, Any]:
        whole = {**variables, "params": params}
        return model.apply(whole, x, train=True, rngs={"dropout": jax.random.key(7)}, mutable=untrained)

    return run


@every_row
def test_every_parameter_gets_a_gradient_and_statistics_move_in_training(row):
    model, variables, x = _started(row.id)
    run = _training(model, variables)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        outputs, changed = run(params, x)
        total = jnp.zeros((), jnp.float32)
        for number, leaf in enumerate(jax.tree.leaves(outputs)):
            target = jax.random.normal(jax.random.key(number), leaf.shape, jnp.float32)
            total += jnp.sum((leaf.astype(jnp.float32) - target) ** 2)
        return total, changed

    gradient, changed = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in _paths(gradient).items():
        assert np.isfinite(leaf).all(), f"the gradient of {path} is not finite"
        if not any(re.fullmatch(pattern, path) for pattern in row.no_gradient):
            assert np.any(leaf != 0), f"no gradient reaches {path}"
    moved = _paths(changed.get("batch_stats", {}))
    assert moved.keys() == _paths(variables.get("batch_stats", {})).keys()
    for path, before in _paths(variables.get("batch_stats", {})).items():
        assert not np.array_equal(before, moved[path]), f"{path} did not move in training"
    assert bool(moved) <= model_info(row.name).uses_mask, "a model with batch norm hands a mask on to it"


@every_row
def test_evaluation_is_deterministic_changes_nothing_and_sees_one_example_at_a_time(row):
    model, variables, x = _started(row.id)
    untrained = [name for name in variables if name != "params"]
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False, mutable=untrained))
    outputs, changed = apply(variables, x)
    jax.tree.map(np.testing.assert_array_equal, {name: variables[name] for name in untrained}, dict(changed))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))
    again, _ = apply(variables, x)
    jax.tree.map(np.testing.assert_array_equal, outputs, again)
    if row.couples:
        return
    mixed = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:1], leaf[:0:-1]]), x)
    among_others, _ = apply(variables, mixed)
    alone, _ = jax.eval_shape(apply, variables, jax.tree.map(lambda leaf: leaf[:1], x))
    for whole, other, one in zip(*map(jax.tree.leaves, (outputs, among_others, alone)), strict=True):
        np.testing.assert_allclose(whole[0], other[0], rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(whole))))
        assert one.shape == (1, *whole.shape[1:])


@every_row
def test_bfloat16_goes_in_and_comes_out_and_parameters_stay_float32(row):
    model, variables, x = _started(row.id)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables["params"])} == {"float32"}
    low = jax.tree.map(lambda leaf: _lowered(leaf), {"params": variables["params"]})
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    outputs = jax.eval_shape(
        lambda x: model.apply({**rest, **low}, x, train=False), jax.tree.map(lambda leaf: _lowered(leaf), x)
    )
    if all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x)):
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(outputs)} == {"bfloat16"}


def _lowered(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


@every_row
def test_taps_are_free_when_nobody_listens(row, monkeypatch):
    model, variables, x = _started(row.id)

    def text() -> str:
        return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(_training(model, variables))(variables["params"], x)))

    assert "intermediates" not in variables and "perturbations" not in variables
    with_taps = text()
    listened = functools.partial(model.apply, train=False, mutable=["intermediates"])
    assert jax.eval_shape(listened, variables, x)[1]["intermediates"], "it names no stage that one could listen to"
    monkeypatch.setattr(nn, "tap", lambda module, name, x: x)
    assert text() == with_taps


# One of each kind of task and of network is always trained; the others by `make test-slow`.
_LEARNERS = (
    "mlp",
    "lenet5",
    "resnet18",
    "lstm_classifier",
    "transformer_encoder",
    "unet",
    "ssd300_vgg16",
    "vae",
    "two_tower",
)


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.id, marks=[] if row.id in _LEARNERS else [pytest.mark.slow]) for row in ROWS],
)
def test_learns_32_examples_by_heart(row):
    data = Dataset(_batch(row, 32))
    model = create_model(row.name, **row.options)
    run = jaxdl.fit(
        row.task(model), data, optimizer=jaxdl.optim.adam(row.rate), steps=row.steps, batch_size=32, verbose=0
    )
    assert run.evaluate(data, batch_size=32)["loss"] < row.loss


@pytest.mark.slow
@every_row
def test_vmap_over_trials_equals_one_by_one(row):
    model, variables, x = _started(row.id)
    run = _training(model, variables)
    others = jax.tree.map(lambda leaf: leaf * jnp.asarray(1.1, leaf.dtype), variables["params"])
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), variables["params"], others)
    together, _ = jax.jit(jax.vmap(run, in_axes=(0, None)))(both, x)
    alone = jax.jit(run)
    for number, params in enumerate((variables["params"], others)):
        outputs, _ = alone(params, x)
        for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[number], rtol=0, atol=1e-4 * float(jnp.max(jnp.abs(a))))


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=[] if row in CLASSES else [pytest.mark.slow]) for row in ROWS]
)
def test_tasks_hand_on_what_each_dimension_of_a_parameter_is(row):
    """By shapes alone: tensor parallelism reads the table from the task. A linear model has none, and is whole."""
    model = create_model(row.name, **row.options)
    task = row.task(model)
    assert tuple(task.logical_axes) == tuple(getattr(model, "logical_axes", ()))
    batch = jax.tree.map(jnp.asarray, _batch(row, 2))
    for path, leaf in _paths(jax.eval_shape(task.init, jax.random.key(0), batch)["params"]).items():
        axes = next((axes for pattern, axes in task.logical_axes if re.fullmatch(pattern, path)), None)
        assert axes is not None or row.name == "linear", f"no pattern of {row.name} names {path}"
        assert axes is None or len(axes) == leaf.ndim, (path, leaf.shape, axes)


def test_every_class_of_the_registry_has_a_row():
    assert {entry[:2] for entry in MODELS.values()} == {MODELS[row.name][:2] for row in ROWS}
