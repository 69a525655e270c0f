"""Every metric over eight devices: one collective, and the values of one device."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxdl import metrics
from tests.metrics.rows import Row, rows

pytestmark = pytest.mark.devices8
_QUICK = {"xla_backend_optimization_level": "0"}
DEVICES = 8
_COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def mesh(shape: tuple[int, ...] = (DEVICES,), names: tuple[str, ...] = ("data",)) -> jax.sharding.Mesh:
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))


def sharded(collection: metrics.Collection, *, names: tuple[str, ...] = ("data",), on: Any = None) -> Any:
    """inputs, weight -> the values, with the examples spread over a mesh."""
    spec = PartitionSpec(names)

    def values(inputs: Any, weight: Any) -> Any:
        return collection.compute(collection.sync(collection.update(collection.init(), **inputs, weight=weight), names))

    return jax.shard_map(values, mesh=on or mesh(), in_specs=(spec, spec), out_specs=PartitionSpec())


def collections() -> list[Any]:
    """All rows of one data set as one collection."""
    found: dict[int, list[Row]] = {}
    for row in rows():
        found.setdefault(id(row.inputs), []).append(row)
    return [pytest.param(table, id=f"{table[0].label} ({len(table)})") for table in found.values()]


@pytest.mark.parametrize("table", collections())
def test_eight_devices_give_what_one_gives(table: list[Row]) -> None:
    count = len(jax.tree.leaves(table[0].inputs)[0])
    inputs = jax.tree.map(lambda x: x[: count - count % DEVICES], dict(table[0].inputs))
    count -= count % DEVICES
    weight = np.random.default_rng(8).integers(0, 4, count).astype(np.float32)
    collection = metrics.Collection([(row.label, row.metric) for row in table])
    one = jax.jit(lambda x, w: collection.compute(collection.update(collection.init(), **x, weight=w)))
    many = jax.jit(sharded(collection), compiler_options=_QUICK)
    got, want = many(inputs, weight), one(inputs, weight)
    jax.block_until_ready((got, want))
    for row in table:
        compare = partial(np.testing.assert_allclose, rtol=row.tolerance, atol=1e-7, err_msg=row.label)
        jax.tree.map(compare, got[row.label], want[row.label])


def ten() -> metrics.Collection:
    """Ten metrics over three statistics, one of them a buffer."""
    return metrics.Collection(
        {
            "auc": metrics.ROCAUC(capacity=512),
            "accuracy": metrics.Accuracy(),
            "top_2": metrics.Accuracy(top_k=2),
            "counts": metrics.ConfusionMatrix(2),
            "recall": metrics.ConfusionMatrix(2, normalize="true"),
            "precision": metrics.ConfusionMatrix(2, normalize="predicted"),
            "shares": metrics.ConfusionMatrix(2, normalize="all"),
            "scores": metrics.Mean(),
            "auc_again": metrics.ROCAUC(capacity=512),
            "counts_again": metrics.ConfusionMatrix(2),
        }
    )


def example(count: int = 512) -> tuple[dict[str, np.ndarray], np.ndarray]:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, count).astype(np.int32)
    scores = draw.normal(size=(count, 2)).astype(np.float32)
    scores[np.arange(count), labels] += 0.7
    return {"preds": scores, "target": labels}, np.ones(count, np.float32)


@pytest.mark.parametrize("shape", [(8,), (4, 2)])
def test_ten_metrics_need_one_collective(shape: tuple[int, ...]) -> None:
    names = ("data", "fsdp")[: len(shape)]
    program = jax.jit(sharded(ten(), names=names, on=mesh(shape, names))).lower(*example()).compile()
    assert _COLLECTIVE.findall(program.as_text()) == ["all-gather"]
    collection = ten()
    values = program(*example())
    inputs, weight = example()
    alone = collection.compute(collection.update(collection.init(), **inputs, weight=weight))
    for name, value in alone.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(values["counts"], alone["counts"])


def test_sums_ride_with_the_gradients_in_one_all_reduce() -> None:
    collection = metrics.Collection([metrics.ConfusionMatrix(2), metrics.Accuracy(), metrics.Mean()])
    inputs, weight = example()

    def step(inputs: Any, weight: Any, params: jax.Array) -> Any:
        # as in a training step on a manual axis: one psum carries the gradient and every state
        gradient = jax.grad(lambda p: jnp.sum(jnp.sin(inputs["preds"] @ p)))(
            jax.lax.pcast(params, "data", to="varying")
        )
        state = collection.update(collection.init(), **inputs, weight=weight)
        packed = jnp.concatenate([gradient, collection.as_vector(state)])
        packed = jax.lax.psum(packed, "data")
        return packed[:2], collection.compute(collection.from_vector(packed[2:]))

    spec = PartitionSpec("data")
    program = jax.jit(
        jax.shard_map(step, mesh=mesh(), in_specs=(spec, spec, PartitionSpec()), out_specs=PartitionSpec())
    )
    params = np.array([0.3, -0.2], np.float32)
    text = program.lower(inputs, weight, params).compile().as_text()
    assert _COLLECTIVE.findall(text) == ["all-reduce"]
    _, values = program(inputs, weight, params)
    alone = collection.compute(collection.update(collection.init(), **inputs, weight=weight))
    np.testing.assert_array_equal(values["confusion_matrix"], alone["confusion_matrix"])
    np.testing.assert_allclose(values["accuracy"], alone["accuracy"], rtol=1e-6)
    np.testing.assert_allclose(values["mean"], alone["mean"], rtol=1e-6)


def test_a_scan_on_each_device_and_counts_past_float32() -> None:
    metric = metrics.ConfusionMatrix(2)
    collection = metrics.Collection([metric])
    inputs, _ = example()
    blocks = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), inputs)
    full = jax.tree.map(lambda x: x.at[0].set(2.0**30) if x.ndim == 1 else x, metric.init())

    def count(blocks: Any) -> Any:
        start = jax.lax.pcast((full._replace(lo=jnp.zeros_like(full.lo)),), "data", to="varying")
        state, _ = jax.lax.scan(lambda s, x: (collection.update(s, **x), None), start, blocks)
        return collection.sync(state, "data")

    program = jax.shard_map(count, mesh=mesh(), in_specs=PartitionSpec(None, "data"), out_specs=PartitionSpec())
    (state,) = jax.jit(program)(blocks)
    want = np.asarray(metrics.confusion_matrix(inputs["preds"], inputs["target"]), np.float64)
    want[0, 0] += 8 * 2.0**30
    np.testing.assert_array_equal(metric.counts(state), want)
