"""jaxdl: the whole of `fit` as a user calls it, stopped at each epoch's end by a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure, networks
from benchmarks.networks import Row

NEEDS = ("jax",)


def task(model: str) -> Any:
    """The Task of a row: jaxdl's own model where it has one, else the benchmark's functions."""
    import jaxdl

    if model == "mlp":
        return jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=networks.WIDTHS))
    if model == "logreg":
        return jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=2))
    if model == "convnet":
        return jaxdl.tasks.classification(jaxdl.create_model("convnet", num_classes=10, dropout=0.0))

    def init(key: Any, x: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.array(leaf), networks.init(model))

    return jaxdl.tasks.from_functions(init=init, apply=networks.APPLY[model], loss="softmax_cross_entropy")


def epochs(row: Row, total: int, **settings: Any) -> dict[str, measure.Paced]:
    """One call of fit over `total` epochs, one epoch a turn; `settings` are further arguments of fit."""
    import jaxdl

    data = networks.columns(row)

    def train(epoch_end: Callable[[], None]) -> None:
        def stop(record: dict[str, Any], run: Any) -> None:
            epoch_end()

        jaxdl.fit(
            task(row.model),
            data,
            optimizer=jaxdl.optim.adam(learning_rate=networks.LEARNING_RATE),
            epochs=total,
            batch_size=row.batch_size,
            callbacks=(stop,),
            accumulate=row.parts,
            verbose=0,
            **settings,
        )

    return {"jaxdl": measure.Paced(train)}
