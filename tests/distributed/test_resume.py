"""A run goes on on another mesh: the same state to the bit, the same losses up to rounding, and a note that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.checkpoint import Store, fingerprint
from jaxdl.parallel import Layout, Parallel
from tests.steps import largest_difference

pytestmark = pytest.mark.devices8

SMALL = {"shard_above": 64}


def fit(folder: Path | None, epochs: int, parallel: Any) -> Any:
    train, test = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(64, 32)))
    return jaxdl.fit(
        task, train.select(np.arange(203)), validation=test.select(np.arange(90)), epochs=epochs, batch_size=64,
        optimizer=jaxdl.optim.sgd(0.05, momentum=0.9), parallel=parallel, verbose=0,
        checkpoint=None if folder is None else str(folder),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Parallel("fsdp", **SMALL), Parallel("mics", **SMALL)),
        (Parallel(fsdp=4, tensor=2, **SMALL), None),
        (None, Parallel("zero1", **SMALL)),
        (Parallel("ddp", compress="int8"), Parallel("fsdp", **SMALL)),
    ],
)
def test_a_run_goes_on_on_another_mesh(tmp_path: Path, first: Any, then: Any) -> None:
    begun = fit(tmp_path / "run", 2, first)
    run = fit(tmp_path / "run", 4, then)
    assert [record["epoch"] for record in run.history] == [1, 2, 3, 4]
    straight = fit(None, 4, None)
    close = 1e-5 if first is None or first.compress is None else 0.05
    for record, expected in zip(run.history, straight.history, strict=True):
        assert record["train:loss"] == pytest.approx(expected["train:loss"], rel=close)
    assert run.history[:2] == begun.history


def test_a_checkpoint_is_the_same_bits_on_every_mesh(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", 1, Parallel("fsdp", **SMALL))
    assert run.state is not None
    saved = {"params": run.state.params, "opt_state": run.state.opt_state}
    marks = fingerprint(saved)
    with Store(tmp_path / "run" / "checkpoints", read_only=True) as store:
        how = store.manifest(store.steps()[-1])["configuration"]["program"]
        assert how["parallel"] == {"preset": "fsdp", "shard_above": 64} and how["mesh"] == {"fsdp": 8}
        for parallel in (Parallel("mics", **SMALL), Parallel(fsdp=2, tensor=4, **SMALL), None):
            layout = Layout.of(parallel, table=run.step.logical_axes)
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), run.state)
            like = layout.abstract(shapes, layout.state(shapes))
            restored = store.restore({"params": like.params, "opt_state": like.opt_state}, strict=False).tree
            assert largest_difference(jax.device_get(restored), jax.device_get(saved)) == 0
            assert fingerprint(restored) == marks
            for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
                assert leaf.shape == wanted.shape
            kernel = restored["params"]["hidden0"]["kernel"]
            assert kernel.sharding == like.params["hidden0"]["kernel"].sharding


def test_the_folder_tells_how_the_training_was_spread(tmp_path: Path) -> None:
    fit(tmp_path / "run", 1, Parallel("mics", **SMALL))
    from jaxdl.tracking import RunFolder

    record = RunFolder.open(tmp_path / "run").read_json("program.json")
    assert record["parallel"] == {"preset": "mics", "shard_above": 64}
    assert record["mesh"] == {"replica": 2, "fsdp": 4}
    assert "replica=2 x fsdp=4" in (tmp_path / "run" / "report.html").read_text()
