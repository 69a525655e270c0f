"""What makes two calls of fit the same run: whatever else differs is refused and named when a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from tests.steps import digits


def linear(**options: Any) -> jaxdl.Task:
    return jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10), **options)


def fit(folder: Any, data: Any = None, task: Any = None, **settings: Any) -> jaxdl.Run:
    settings = {"verbose": 0, "epochs": 1, "checkpoint": folder} | settings
    return jaxdl.fit(linear() if task is None else task, digits()[0] if data is None else data, **settings)


class TestAllow:
    def test_what_may_differ_lets_nothing_else_differ(self, tmp_path: Path) -> None:
        _, test = digits()
        allowed = jaxdl.Checkpoint(str(tmp_path), allow=("validation",))
        fit(allowed, optimizer=optax.sgd(0.1), validation=test.select(range(50)))
        with pytest.raises(ValueError, match="what task and optimizer compute differs"):
            fit(allowed, epochs=2, optimizer=optax.sgd(0.001), validation=test)
        assert len(fit(allowed, epochs=2, optimizer=optax.sgd(0.1), validation=test).history) == 2

    def test_an_update_that_may_differ(self, tmp_path: Path) -> None:
        fit(str(tmp_path), optimizer=optax.sgd(0.1))
        for name in ("batch_size", "precision"):  # allowed, and yet the same: that excuses nothing
            with pytest.raises(ValueError, match="what task and optimizer compute differs"):
                fit(jaxdl.Checkpoint(str(tmp_path), allow=(name,)), epochs=2, optimizer=optax.sgd(0.001))
        allowed = jaxdl.Checkpoint(str(tmp_path), allow=("program",))
        assert len(fit(allowed, epochs=2, optimizer=optax.sgd(0.001)).history) == 2


def weighed(costs: np.ndarray) -> jaxdl.Task:
    """A linear classifier whose loss weighs the classes by an array that it closes over."""
    plain, costs = linear(), jnp.asarray(costs, jnp.float32)

    def loss(variables: Any, batch: Any, context: Any) -> jaxdl.Loss:
        made = plain.loss(variables, batch, context)
        return made._replace(value=made.value * costs[batch["y"]])

    return jaxdl.Task(plain.init, loss, plain.predict)


@pytest.mark.parametrize("accumulate", [1, 2])  # with 2, what is measured is jitted within the update
def test_other_constants_in_a_loss(tmp_path: Path, accumulate: int) -> None:
    fit(str(tmp_path), task=weighed(np.ones(10)), accumulate=accumulate)
    with pytest.raises(ValueError, match="what task and optimizer compute differs"):
        fit(str(tmp_path), task=weighed(np.arange(10)), accumulate=accumulate, epochs=2)
    assert len(fit(str(tmp_path), task=weighed(np.ones(10)), accumulate=accumulate, epochs=2).history) == 2
