"""One batch spread over eight devices is the batch on one: token and pixel means are of the whole, not of the parts."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxdl
from jaxdl.core.step import Step, update
from jaxdl.core.task import Task
from jaxdl.core.transform import accumulate
from tests.steps import largest_difference

ROWS, DEVICES, PAD = 24, 8, 0

pytestmark = pytest.mark.devices8


class Bigram(nn.Module):
    """Logits of the next token from this one."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        return nn.Embed(7, 7)(tokens)


class PerPixel(nn.Module):
    """Logits of a pixel from its own channels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(x)


def tokens() -> tuple[Task, dict[str, np.ndarray]]:
    """Sentences of 2 to 9 tokens, the short ones together at the end; the last row is padding."""
    numbers = np.random.default_rng(0)
    lengths = np.where(np.arange(ROWS) < ROWS // 2, 9, 2)
    x = np.where(np.arange(9) < lengths[:, None], numbers.integers(1, 7, (ROWS, 9)), PAD).astype(np.int32)
    weight = (np.arange(ROWS) < ROWS - 1).astype(np.float32)
    return jaxdl.tasks.language_model(Bigram(), pad=PAD), {"x": x, "weight": weight}


def pixels() -> tuple[Task, dict[str, np.ndarray]]:
    """Images of 4 x 4 pixels, of which ever fewer are labelled, and none on the last device."""
    numbers = np.random.default_rng(1)
    ignored = numbers.random((ROWS, 4, 4)) < np.linspace(0, 1.1, ROWS)[:, None, None]
    ignored[-ROWS // DEVICES :] = True
    y = np.where(ignored, 255, numbers.integers(0, 3, (ROWS, 4, 4))).astype(np.uint8)
    x = numbers.normal(size=(ROWS, 4, 4, 2)).astype(np.float32)
    return jaxdl.tasks.segmentation(PerPixel()), {"x": x, "y": y, "weight": np.ones(ROWS, np.float32)}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("make", [tokens, pixels])
def test_a_batch_over_eight_devices_gives_the_true_mean_and_its_gradient(make: Any, parts: int) -> None:
    task, batch = make()
    step: Step = accumulate(jaxdl.gradient_step(task, jaxdl.optim.sgd(1.0)), parts)
    state = step.init(jnp.uint32(0), batch, {"learning_rate": jnp.float32(1.0)})
    expected, report = jax.jit(lambda s, b: update(step, s, b))(state, batch)

    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("data",))
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    spread = jax.device_put(batch, rows)
    assert [shard.data.shape[0] for shard in spread["x"].addressable_shards] == [ROWS // DEVICES] * DEVICES
    compiled = jax.jit(lambda s, b: update(step, s, b), out_shardings=whole)
    got, spread_report = compiled(jax.device_put(state, whole), spread)
    jax.block_until_ready(got)
    assert float(spread_report.scalars["weight"]) == float(report.scalars["weight"])
    assert float(spread_report.scalars["loss"]) == pytest.approx(float(report.scalars["loss"]), rel=1e-6)
    assert largest_difference(jax.device_get(got.params), jax.device_get(expected.params)) < 1e-6

    # The test could tell: the mean of the devices' own means is another number, a thousand tolerances away.
    means = []
    for part in range(DEVICES):
        mine = {name: value[part * ROWS // DEVICES : (part + 1) * ROWS // DEVICES] for name, value in batch.items()}
        measured = step.measure(state, mine)
        means.append(float(measured.total["loss"]) / max(float(measured.weight), 1.0))
    assert abs(np.mean(means) / float(report.scalars["loss"]) - 1) > 1e-3
