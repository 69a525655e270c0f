"""Tables that are trained by the rows that a batch looks up: equal to the dense update where that is promised."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import nn, optim, tasks
from jaxdl.core.gradient import gradient_step
from jaxdl.core.row_sparse import row_sparse_step
from jaxdl.core.step import update
from jaxdl.core.transform import accumulate

WORDS, LENGTH, BATCH = 40, 5, 6


class _Texts(linen.Module):
    """Two lookups in one table, one in another inside a module, and batch norm for the untrained collections."""

    @linen.compact
    def __call__(self, x, *, train, mask=None):
        words = nn.Embed(WORDS, 4, name="words")
        pairs = words(x) + words(x[:, ::-1])
        lengths = nn.Embed(3, 4, name="kinds")(x % 3)
        x = nn.BatchNorm()((pairs + lengths).reshape(x.shape[0], -1), train=train, mask=mask)
        return nn.Dense(3)(jnp.tanh(nn.Dense(8)(x)))


def _batches(count, words=WORDS, weight=None):
    random = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "x": jnp.asarray(random.integers(0, words, (BATCH, LENGTH)), jnp.int32),
            "y": jnp.asarray(random.integers(0, 3, BATCH), jnp.int32),
            "weight": jnp.ones(BATCH) if weight is None else jnp.asarray(weight, jnp.float32),
        }


def _trained(step, batches, hyper=None):
    batches = list(batches)
    state = step.init(
        jnp.uint32(1), batches[0], {name: jnp.float32(v) for name, v in {**step.hyper, **(hyper or {})}.items()}
    )
    advance = jax.jit(lambda state, batch: update(step, state, batch))
    reports = []
    for batch in batches:
        state, report = advance(state, batch)
        reports.append(report.scalars)
    return state, reports


def _assert_same(a, b, tolerance=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=1e-5), a, b)


@pytest.mark.parametrize(
    ("optimizer", "hyper"),
    [
        (optim.sgd(0.1), {}),
        (optim.sgd(0.1), {"clip_norm": 0.05}),
        (optim.sgd(0.1), {"clip_value": 0.01}),
        (optax.adagrad(0.1), {}),
    ],
)
def test_the_update_equals_the_dense_one_where_untouched_rows_stay(optimizer, hyper):
    task = tasks.classification(_Texts())
    options = {"report_norm": True}
    dense = _trained(gradient_step(task, optimizer, **options), _batches(4), hyper)
    sparse = _trained(row_sparse_step(task, optimizer, **options), _batches(4), hyper)
    assert jax.tree.structure(dense) == jax.tree.structure(sparse)
    _assert_same(dense, sparse)


@pytest.mark.parametrize("optimizer", [optim.adam(0.01), optim.adamw(0.01), optim.sgd(0.1, momentum=0.9)])
def test_every_optimizer_equals_the_dense_one_where_each_row_is_looked_up(optimizer):
    task = tasks.classification(_Texts())

    def batches():
        for batch in _batches(3):
            order = jax.random.permutation(jax.random.key(0), jnp.arange(WORDS, dtype=jnp.int32))
            yield {**batch, "x": order.reshape(8, LENGTH), "y": jnp.arange(8) % 3, "weight": jnp.ones(8)}

    _assert_same(
        _trained(gradient_step(task, optimizer), batches()), _trained(row_sparse_step(task, optimizer), batches())
    )


def test_adam_leaves_rows_that_nobody_looks_up_and_moves_the_others():
    step = row_sparse_step(tasks.classification(_Texts()), optim.adam(0.01))
    batches = list(_batches(3, words=20))
    first = step.init(jnp.uint32(1), batches[0], {"learning_rate": jnp.float32(0.01)})
    state, _ = _trained(step, batches)
    before, after = first.params["words"]["embedding"], state.params["words"]["embedding"]
    np.testing.assert_array_equal(before[20:], after[20:])
    looked_up = np.unique(np.stack([batch["x"] for batch in batches]))
    assert (np.abs(after - before)[looked_up].max(axis=1) > 1e-4).all()


def test_padding_rows_parts_and_bfloat16_equal_the_dense_step():
    task = tasks.classification(_Texts())
    weight = [1, 1, 2, 1, 0, 0]
    dense = _trained(gradient_step(task, optim.sgd(0.1)), _batches(2, weight=weight))
    _assert_same(dense, _trained(row_sparse_step(task, optim.sgd(0.1)), _batches(2, weight=weight)))
    dense = _trained(accumulate(gradient_step(task, optim.sgd(0.1)), 4), _batches(2))
    _assert_same(dense, _trained(accumulate(row_sparse_step(task, optim.sgd(0.1)), 4), _batches(2)))
    options = {"precision": "bf16"}
    dense = _trained(gradient_step(task, optim.sgd(0.1), **options), _batches(2))
    _assert_same(dense, _trained(row_sparse_step(task, optim.sgd(0.1), **options), _batches(2)), 2e-3)


def test_no_array_of_the_table_s_size_is_made_but_the_table():
    task = tasks.classification(_Texts())
    step = row_sparse_step(task, optim.adam(0.01))
    batch = next(_batches(1))
    state = step.init(jnp.uint32(1), batch, {"learning_rate": jnp.float32(0.01)})

    def whole_tables(step):
        text = str(jax.make_jaxpr(lambda s, b: step.apply(s, step.measure(s, b)))(state, batch))
        return [line for line in text.splitlines() if f"f32[{WORDS},4] =" in line and "scatter[" not in line]

    assert whole_tables(gradient_step(task, optim.adam(0.01)))
    assert not whole_tables(step)


class _Tied(linen.Module):
    @linen.compact
    def __call__(self, x, *, train):
        words = nn.Embed(WORDS, 4, name="words")
        kinds = nn.Embed(3, 4, name="kinds")
        return words.attend(words(x) + kinds(x % 3))


def test_a_table_that_is_used_whole_is_trained_densely():
    task = tasks.language_modelling(_Tied()) if hasattr(tasks, "language_modelling") else None
    if task is None:
        task = tasks.classification(_Tied())
    batches = [{**batch, "y": batch["x"]} for batch in _batches(3)]
    _assert_same(
        _trained(gradient_step(task, optim.sgd(0.1)), batches), _trained(row_sparse_step(task, optim.sgd(0.1)), batches)
    )


class _Counts(linen.Module):
    @linen.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(x.astype(jnp.float32))


def test_what_cannot_be_trained_by_rows_gets_a_sentence():
    batch = next(_batches(1))
    with pytest.raises(ValueError, match="this model has none"):
        _trained(row_sparse_step(tasks.classification(_Counts()), optim.sgd(0.1)), [batch])
    with pytest.raises(ValueError, match="which has no rows to gather"):
        _trained(
            row_sparse_step(tasks.classification(_Texts()), optax.adafactor(0.1, min_dim_size_to_factor=2)), [batch]
        )
    with pytest.raises(TypeError, match="use accumulate="):
        row_sparse_step(tasks.classification(_Texts()), optax.MultiSteps(optax.sgd(0.1), 2))


def test_fit_trains_by_rows():
    random = np.random.default_rng(0)
    x = random.integers(0, WORDS, (48, LENGTH)).astype(np.int32)
    data = {"x": x, "y": (x.sum(1) % 3).astype(np.int32)}
    runs = [
        jaxdl.fit(make(tasks.classification(_Texts()), optim.sgd(0.5)), data, epochs=2, batch_size=16, verbose=0)
        for make in (gradient_step, row_sparse_step)
    ]
    losses = [[record["train:loss"] for record in run.history] for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
