"""What makes two calls of fit the same run: whatever else differs is refused and named when a run goes on."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl.configuration import _feed, differences
from jaxdl.data import GrainFeed, Resident, Streamed
from tests.steps import digits, same_bits


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


def doubled(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**record, "x": record["x"] * np.float32(2)}


def scaled(record: dict[str, Any], rng: np.random.Generator, factor: float) -> dict[str, Any]:
    return {**record, "x": record["x"] * np.float32(factor)}


def closing_over(factor: Any) -> Any:
    return lambda record, rng: {**record, "x": record["x"] * factor}


class TestFeeds:
    @pytest.mark.parametrize(
        ("changed", "sentence"),
        [
            (lambda data: Resident(data, 32, shuffle=False), "the feed's shuffle was True, is False"),
            (
                lambda data: Resident(data, 32, drop_last=True),
                "drop_last was False, is True.*steps_per_epoch was 7, is 6",
            ),
            (lambda data: Streamed(data, 32), "the feed's class was Resident, is Streamed"),
            (lambda data: data, "the feed's class was Resident, is Dataset"),
        ],
    )
    def test_another_way_of_drawing(self, tmp_path: Path, changed: Any, sentence: str) -> None:
        train, _ = digits()
        fit(str(tmp_path), Resident(train, 32))
        with pytest.raises(ValueError, match=sentence):
            fit(str(tmp_path), changed(train), epochs=2)
        assert len(fit(str(tmp_path), Resident(train, 32), epochs=2).history) == 2

    def test_another_transform(self, tmp_path: Path) -> None:
        train, _ = digits()
        fit(str(tmp_path), GrainFeed(train, 32, transform=doubled))
        with pytest.raises(
            ValueError, match=r"transform was tests.test_same_run.doubled, is tests.test_same_run.scaled"
        ):
            fit(str(tmp_path), GrainFeed(train, 32, transform=partial(scaled, factor=2.0)), epochs=2)
        with pytest.raises(ValueError, match=r"transform was .*doubled, is None"):
            fit(str(tmp_path), GrainFeed(train, 32), epochs=2)
        assert len(fit(str(tmp_path), GrainFeed(train, 32, transform=doubled), epochs=2).history) == 2
        allowed = jaxdl.Checkpoint(str(tmp_path), allow=("feed",))
        assert len(fit(allowed, GrainFeed(train, 32, transform=partial(scaled, factor=2.0)), epochs=3).history) == 3

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (partial(scaled, factor=2.0), partial(scaled, factor=3.0)),
            (closing_over(2), closing_over(3)),
            (closing_over(np.zeros(3)), closing_over(np.ones(3))),
            (lambda record, rng: np.sin(record), lambda record, rng: np.cos(record)),
            (lambda record, rng: [2 * x for x in record], lambda record, rng: [3 * x for x in record]),
        ],
    )
    def test_a_transform_of_the_same_name(self, one: Any, other: Any) -> None:
        train, _ = digits()
        described = [_feed(GrainFeed(train, 32, transform=transform)) for transform in (one, other, one)]
        assert described[0]["transform"] == described[1]["transform"] and described[0] == described[2]
        assert differences({"feed": described[0]}, {"feed": described[1]}) == [
            "the feed's transform has other code or other arguments"
        ]

    def test_a_transform_of_a_script_is_that_of_the_module(self, tmp_path: Path, monkeypatch) -> None:
        """A run that a script began is gone on with by who imports the script, and the other way round."""
        (tmp_path / "augmenting.py").write_text(
            "from jaxdl.configuration import _feed\nfrom jaxdl.data import GrainFeed\n\n\n"
            "def turned(record, rng):\n    return record\n\n\n"
            "described = _feed(GrainFeed(({'x': [[1.0], [2.0]]}), 2, transform=turned))\n"
            "if __name__ == '__main__':\n    print(described)\n"
        )
        said = [
            subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
            for words in (["augmenting.py"], ["-m", "augmenting"])
        ]
        monkeypatch.syspath_prepend(tmp_path)
        described = importlib.import_module("augmenting").described
        assert described["transform"] == "augmenting.turned"
        assert said == [f"{described}\n"] * 2

    def test_a_transform_is_the_same_in_every_process(self) -> None:
        code = (
            "from tests.test_same_run import *\nfrom tests.test_same_run import _feed\n"
            "known = lambda record, rng: record['x'] in {'a', 'b', 'c', 'd'} or [each for each in record]\n"
            "for each in (doubled, closing_over(2), known):\n"
            "    print(_feed(GrainFeed((np.ones((4, 2)),), 2, transform=each)))"
        )
        run = partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
        answers = [run(env={**os.environ, "PYTHONHASHSEED": seed}) for seed in ("1", "2")]
        assert answers[0].stdout and answers[0].stdout == answers[1].stdout, answers[0].stderr


class Drawn:
    """A feed with no more than jaxdl.Feed declares: y is the sign of x's sum."""

    examples, batch_size, steps_per_epoch = 64, 16, 4

    def __init__(self, shift: float = 0.0) -> None:
        self.data = {"shift": np.full(4, shift, np.float32)}

    def block(self, seed: int, step: int, count: int) -> dict[str, np.ndarray]:
        draws = [np.random.default_rng((seed, t)).normal(size=(16, 4)) for t in range(step, step + count)]
        x = np.stack(draws).astype(np.float32)
        return {"x": x, "y": (x.sum(-1) > 0).astype(np.int32), "weight": np.ones(x.shape[:2], np.float32)}

    def take(self, data: Any, item: Any) -> dict[str, Any]:
        return {**item, "x": item["x"] + data["shift"][None]}


class TestOwnFeed:
    def test_trains_validates_saves_and_goes_on(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        held_out = (rng.normal(size=(10, 4)).astype(np.float32), rng.integers(0, 2, 10))
        settings = {"validation": held_out, "task": linear(), "eval_batch_size": 4}
        straight = fit(None, Drawn(), epochs=3, **settings)
        fit(str(tmp_path), Drawn(), epochs=1, **settings)
        resumed = fit(str(tmp_path), Drawn(), epochs=3, **settings)
        assert [record["validation:loss"] for record in resumed.history] == [
            record["validation:loss"] for record in straight.history
        ]
        assert same_bits(resumed.state, straight.state)
        with pytest.raises(ValueError, match="the training data differ"):
            fit(str(tmp_path), Drawn(1.0), epochs=4, **settings)

    def test_validation_of_another_shape_leaves_no_folder(self, tmp_path: Path) -> None:
        for held_out, sentence in (
            (
                {"x": np.zeros((3, 5), np.float32), "y": np.zeros(3, int)},
                r"shape \[5\] in validation and \[4\] in training",
            ),
            ({"x": np.zeros((3, 4), np.float32)}, "validation lacks the column 'y'"),
        ):
            with pytest.raises(ValueError, match=sentence):
                fit(str(tmp_path / "run"), Drawn(), validation=held_out)
            assert not (tmp_path / "run").exists()
