"""Evaluation: what metrics share, which columns they read, and how their values are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import jaxdl
from jaxdl import metrics
from jaxdl.metrics import sums
from jaxdl.metrics.metric import Derived

_draw = np.random.default_rng(0)
X = _draw.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
DATA = {"x": X, "y": Y, "group": (np.arange(60) % 3).astype(np.int32)}

UPDATES = []


@dataclass(frozen=True)
class Counted(metrics.ConfusionMatrix):
    """A confusion matrix that notes each trace of its statistic's update."""

    @property
    def statistic(self) -> Any:
        return _Noted(self.num_classes)


class _Noted(type(metrics.ConfusionMatrix(2).statistic)):  # type: ignore[misc]
    def update(self, state: Any, **given: Any) -> Any:
        UPDATES.append(1)
        return super().update(state, **given)


@dataclass(frozen=True)
class Parts(Derived):
    """A metric of several values."""

    name: str = "parts"

    @property
    def statistic(self) -> Any:
        return metrics.Mean()

    def compute(self, state: sums.Sums) -> Any:
        return {"b": {"deep": sums.value(state)[0]}, "a": sums.value(state)[1]}


@pytest.fixture(scope="module")
def run() -> jaxdl.Run:
    task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=2))
    return jaxdl.fit(task, DATA, epochs=2, batch_size=20, verbose=0)


def test_metrics_of_one_statistic_are_updated_once_and_groups_read_their_column(run: jaxdl.Run) -> None:
    UPDATES.clear()
    sliced = metrics.by(metrics.Accuracy(), ["a", "b", "c"])
    shares = (Counted(2), Counted(2, normalize="true", name="recall"))
    values = run.evaluate(DATA, metrics=(sliced, *shares, metrics.Accuracy()))
    assert len(UPDATES) == 1
    right = run.predict(DATA).argmax(1) == Y
    assert list(values) == [
        "loss", "accuracy_by_group/a", "accuracy_by_group/b", "accuracy_by_group/c",
        "confusion_matrix", "recall", "accuracy",
    ]  # fmt: skip
    for i, name in enumerate("abc"):
        assert values[f"accuracy_by_group/{name}"] == pytest.approx(right[i::3].mean())
    np.testing.assert_allclose(
        values["recall"], values["confusion_matrix"] / values["confusion_matrix"].sum(1)[:, None]
    )


def test_a_column_that_the_data_lack_is_named(run: jaxdl.Run) -> None:
    with pytest.raises(ValueError, match="'accuracy_by_group' reads the column 'group', which the data lack"):
        run.evaluate({"x": X, "y": Y}, metrics=(metrics.by(metrics.Accuracy(), 3),))


def test_nested_values_are_named_by_their_path(run: jaxdl.Run) -> None:
    values = run.evaluate(DATA, metrics=(Parts(),))
    assert sorted(values) == ["loss", "parts/a", "parts/b/deep"] and values["parts/a"] == 120


def test_training_metrics_read_their_column_too() -> None:
    task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=2))
    sliced = metrics.by(metrics.Accuracy(), ["a", "b", "c"])
    run = jaxdl.fit(task, DATA, epochs=1, batch_size=20, verbose=0, train_metrics=[sliced], shuffle=False)
    seen = [run.history[0][f"train:accuracy_by_group/{name}"] for name in "abc"]
    assert all(abs(20 * share - round(20 * share)) < 1e-4 for share in seen)  # of 20 examples each
    with pytest.raises(ValueError, match="'accuracy_by_group' reads the column 'group', which the data lack"):
        jaxdl.fit(task, {"x": X, "y": Y}, epochs=1, batch_size=20, verbose=0, train_metrics=[sliced])
