"""Two real processes train as one does: the same losses, one set of decisions, and each reads its part of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.data import Resident, Streamed
from jaxdl.data.grain_feed import GrainFeed
from tests.distributed import several

TRAINED: dict[str, dict[str, Any]] = {
    "resident": {"parallel": "ddp"},
    "streamed": {"parallel": "fsdp", "feed": "streamed"},
    "microbatches": {"parallel": "mics", "accumulate": 2, "average": 0.9, "guard": True},
    "matrices over both processes": {"parallel": {"tensor": 4}},
}

SCRIPT = """
import json, sys, time, warnings
import jax, numpy as np
import jaxdl
from jaxdl.parallel import Layout, Parallel
from tests.distributed.test_processes import TRAINED, fit, Halves

me = jax.process_index()

def say(name, value):
    print("RESULT", json.dumps([name, value]), flush=True)

def refused(**settings):
    try:
        fit(**settings)
    except ValueError as error:
        return str(error)

for name, settings in TRAINED.items():
    settings = dict(settings)
    parallel = settings.pop("parallel")
    axes = {"preset": parallel} if isinstance(parallel, str) else parallel
    run = fit(parallel=Parallel(**axes, shard_above=64), **settings)
    say(name, run.history)
say("bytes", sum(x.nbytes for leaf in jax.tree.leaves(run.state.params) for x in (leaf.addressable_shards[0].data,)))
_, test = jaxdl.data.load("digits")
say("predicted", np.asarray(run.predict(test.select(np.arange(50)))).astype(float).sum(1).tolist())
say("evaluated", run.evaluate(test.select(np.arange(50))))
say("rows", Layout.of(Parallel("ddp")).rows_here(64).tolist())
say("whole rows", Layout.of(Parallel(tensor=4)).rows_here(64).tolist())

fed = Halves(me)
say("own feed", fit(parallel="ddp", data=fed, validation=None, epochs=1, batch_size=None).history[-1]["train:loss"])

say("none", refused(parallel=None))
say("pmap", refused(parallel="pmap"))
say("tune", refused(parallel="ddp", program=jaxdl.ProgramOptions(tune=True)))
say("other seed", refused(parallel="ddp", seed=me))

def slower(record, run):
    if me == 1:
        run.set_hyper("learning_rate", 7.0)
    if me == 0 and record["epoch"] == 1:
        run.set_hyper("learning_rate", 0.01)
    return me == 1 and record["epoch"] == 2

run = fit(parallel="ddp", callbacks=[slower], epochs=9)
say("changed", [run.hyper["learning_rate"], float(run.state.hyper["learning_rate"]), len(run.history), run.stopped])

def late(record, run):
    time.sleep(3.0 if me == 1 else 0.0)

run = fit(parallel="ddp", callbacks=[late], epochs=50, max_seconds=2.5)
say("late", [run.stopped, len(run.history) < 50])
"""


def fit(**settings: Any) -> jaxdl.Run:
    """One small training, the same wherever it runs."""
    train, test = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(64, 32)))
    given: dict[str, Any] = {"epochs": 3, "batch_size": 64, "verbose": 0, "validation": test.select(np.arange(90)),
                             "optimizer": jaxdl.optim.sgd(0.05, momentum=0.9)} | settings  # fmt: skip
    data = given.pop("data", train.select(np.arange(203)))
    if given["batch_size"] is None:
        del given["batch_size"]
    return jaxdl.fit(task, data, **given)


class Halves:
    """A feed of one's own that makes whole batches only, and each process must see those of all."""

    examples, batch_size, steps_per_epoch, data = 128, 64, 2, {}

    def __init__(self, me: int):
        self.train, _ = jaxdl.data.load("digits")

    def block(self, seed: int, step: int, count: int) -> dict[str, np.ndarray]:
        rows = np.stack([np.arange(64) + 64 * ((step + i) % 2) for i in range(count)])
        return {"x": self.train["x"][rows], "y": self.train["y"][rows].astype(np.int32),
                "weight": np.ones(rows.shape, np.float32)}  # fmt: skip

    def take(self, data: Any, item: Any) -> Any:
        return dict(item)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes with two devices said, by name."""
    texts = several.run(SCRIPT, 2, tmp_path_factory.mktemp("two"))
    said = []
    for text in texts:
        lines = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("RESULT ")]
        said.append(dict(json.loads(line) for line in lines))
    return said


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_losses_as_one_process(results: list[dict[str, Any]], name: str) -> None:
    settings = {key: value for key, value in TRAINED[name].items() if key != "parallel"}
    expected = fit(**settings).history
    for said in results:
        assert [record["step"] for record in said[name]] == [record["step"] for record in expected]
        for record, one in zip(said[name], expected, strict=True):
            for key in ("train:loss", "validation:loss", "validation:accuracy"):
                assert record[key] == pytest.approx(one[key], rel=1e-5), key
    loss = [[record["train:loss"] for record in said[name]] for said in results]
    assert loss[0] == loss[1]


def test_parameters_lie_in_parts_and_results_are_whole(results: list[dict[str, Any]]) -> None:
    _, test = jaxdl.data.load("digits")
    run = fit()
    assert run.state is not None
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(run.state.params))
    for said in results:
        assert said["bytes"] < 0.4 * whole
        assert said["predicted"] == pytest.approx([1.0] * 50, rel=1e-5)
        alone = run.evaluate(test.select(np.arange(50)))
        assert said["evaluated"] == pytest.approx(alone, rel=1e-4)


def test_each_process_holds_its_rows_of_a_batch(results: list[dict[str, Any]]) -> None:
    assert [said["rows"] for said in results] == [list(range(32)), list(range(32, 64))]
    assert [said["whole rows"] for said in results] == [list(range(64))] * 2


def test_a_feed_of_ones_own_needs_to_know_nothing_of_processes(results: list[dict[str, Any]]) -> None:
    expected = fit(data=Halves(0), validation=None, epochs=1, batch_size=None).history[-1]["train:loss"]
    assert [said["own feed"] for said in results] == pytest.approx([expected] * 2, rel=1e-5)


def test_what_several_processes_cannot_do_gets_a_sentence_in_all(results: list[dict[str, Any]]) -> None:
    for said in results:
        assert 'say parallel="ddp"' in said["none"]
        assert '"ddp" does the same' in said["pmap"]
        assert "measures in one" in said["tune"]
        assert said["other seed"].startswith("process 1 differs from process 0 in seed")


def test_decisions_of_callbacks_and_clocks_are_one_decision(results: list[dict[str, Any]]) -> None:
    for said in results:
        rate, in_state, epochs, stopped = said["changed"]
        assert rate == 0.01 and in_state == pytest.approx(0.01)
        assert (epochs, stopped) == (2, "callback")
        assert said["late"] == ["max_seconds", True]


class Records:
    """Records that tell which of them were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        self.read.append(row)
        return {"x": np.full(3, row, np.float32)}


def noisy(record: dict[str, np.ndarray], draws: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": record["x"] + draws.normal(size=3).astype(np.float32)}


def test_feeds_read_only_the_rows_that_are_asked_for() -> None:
    data = {"x": np.arange(40.0, dtype=np.float32).reshape(40, 1), "y": np.arange(40)}
    rows = np.array([1, 2, 7])
    for feed in (Resident(data, 16), Streamed(data, 16)):
        whole, part = feed.block(3, 1, 4), feed.block(3, 1, 4, rows=rows)
        if isinstance(feed, Resident):
            np.testing.assert_array_equal(part, whole[:, rows])
        else:
            for name, column in whole.items():
                np.testing.assert_array_equal(part[name], column[:, rows])
    records = Records()
    feed = GrainFeed(records, 16, transform=noisy)
    whole = feed.block(3, 1, 3)
    records.read.clear()
    part = feed.block(3, 1, 3, rows=rows)
    for name, column in whole.items():
        np.testing.assert_array_equal(part[name], column[:, rows])
    assert len(records.read) == 9 + 1  # record 0 tells what the others have to look like


def test_grain_workers_read_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("grain")
    feed = GrainFeed(Records(), 16, transform=noisy, workers=1)
    alone = GrainFeed(Records(), 16, transform=noisy)
    rows = np.array([0, 5])
    try:
        for step in range(3):
            made, expected = feed.block(3, step, 1, rows=rows), alone.block(3, step, 1, rows=rows)
            np.testing.assert_array_equal(made["x"], expected["x"])
    finally:
        feed.close()
