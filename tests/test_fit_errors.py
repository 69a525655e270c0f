"""What fit, load_run and their records refuse: each wrong value with a sentence that says what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax
import pytest

import jaxdl
from jaxdl.core.program import Program
from jaxdl.core.transform import accumulate, average, guard
from jaxdl.data import Resident
from jaxdl.metrics import Accuracy
from tests.steps import digits, kmeans_step, mlp_task


def fit(**settings: Any) -> jaxdl.Run:
    settings = {"task": mlp_task(), "data": digits()[0], "epochs": 1, "verbose": 0} | settings
    return jaxdl.fit(settings.pop("task"), settings.pop("data"), **settings)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"epochs": None}, r"how long to train\? Give epochs="),
        ({"epochs": 0}, "epochs=0: must be a whole number of at least 1"),
        ({"epochs": "3"}, "epochs='3': give a whole number"),
        ({"epochs": True}, "epochs=True"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"steps": -1}, "steps=-1"),
        ({"max_seconds": 0}, "max_seconds=0: give a number above 0"),
        ({"max_seconds": float("nan")}, "max_seconds=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": "big"}, "batch_size='big': give a number, or \"auto\""),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0 and at most 4294967295"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"accumulate": 2.5}, "accumulate=2.5"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"average": 1.0}, r"average=1.0: the decay must be in \[0, 1\)"),
        ({"average": True}, "average=True"),
        ({"guard": "yes"}, "guard='yes': give True or False"),
        ({"shuffle": 1}, "shuffle=1: give True or False"),
        ({"verbose": 3}, "verbose=3: give 0"),
        ({"precision": "fp16"}, "precision='fp16': choose one of 'float32', 'bf16'"),
        ({"apply": "never"}, "apply='never'"),
        ({"feed": "bogus"}, "no feed called 'bogus'"),
        ({"metrics": "accuracy"}, "metrics='accuracy': give a sequence"),
        ({"metrics": Accuracy()}, r"metrics=Accuracy\(.*\): give a sequence"),
        ({"metrics": ["accuracy"]}, "metrics holds 'accuracy': give metrics such as"),
        ({"train_metrics": 5}, "train_metrics=5"),
        ({"train_metrics": [Accuracy(), Accuracy()]}, "training metrics need different names"),
        ({"sample_weight": np.zeros(203)}, "every example weighs 0"),
        ({"callbacks": print}, "callbacks=.*: give a sequence of functions"),
        ({"callbacks": [3]}, "callbacks="),
        ({"checkpoint": 3}, "checkpoint=3: give a folder"),
        ({"early_stopping": 5}, r"early_stopping=5: give jaxdl.EarlyStopping"),
        ({"program": "scan"}, "program='scan': give jaxdl.ProgramOptions"),
        ({"hyper": [1]}, r"hyper=\[1\]: give numbers by name"),
        ({"hyper": {"learning_rate": "a"}}, "hyper 'learning_rate' is 'a': give a number"),
        ({"hyper": {"learning_rate": float("nan")}}, "hyper 'learning_rate' is nan"),
        ({"hyper": {"learning_rate": -1}}, "hyper 'learning_rate' is -1: must be at least 0"),
        ({"hyper": {"clip_norm": 0}}, "hyper 'clip_norm' is 0: must be above 0"),
        ({"hyper": {"label_smoothing": 1.5}}, r"hyper 'label_smoothing' is 1.5: must be in \[0, 1\)"),
        ({"start": 3}, "start=3: give collections by name"),
        ({"start": {"parameters": {}}}, "start has a collection 'parameters'"),
        ({"class_weight": 3}, "class_weight=3"),
        ({"class_weight": "even"}, "class_weight='even'"),
        ({"class_weight": {"a": 1}}, "class_weight has the key 'a': the keys are the whole numbers in y"),
        ({"sample_weight": "abc"}, "sample_weight='abc'"),
        ({"sample_weight": np.ones(7)}, r"sample_weight has shape \[7\], the data have 203"),
        ({"task": None}, "fit learns a Task or a Step, not a NoneType"),
        ({"task": mlp_task().loss}, "not a function: for a model"),
        ({"task": kmeans_step(3), "optimizer": optax.sgd(1.0)}, "optimizer= belongs to a Task"),
        ({"task": kmeans_step(3), "precision": "bf16"}, "precision= belongs to a Task"),
        ({"task": kmeans_step(3), "validation": digits()[1]}, "this step has no evaluate function"),
        ({"early_stopping": jaxdl.EarlyStopping()}, "follows 'validation:loss', which needs validation= data"),
        (
            {"checkpoint": jaxdl.Checkpoint("r", best="validation:accuracy")},
            "follows 'validation:accuracy', which needs",
        ),
        (
            {
                "checkpoint": jaxdl.Checkpoint("r", best="validation:accuracy"),
                "early_stopping": jaxdl.EarlyStopping("train:loss"),
                "validation": digits()[1],
            },
            "follow the same metric in both",
        ),
        ({"data": digits()[0]["x"]}, r"data is one array: write \(data,\)"),
        ({"data": (digits()[0]["x"],)}, "the task reads the column 'y'; the data have x"),
        ({"data": (digits()[0]["x"], digits()[0]["y"].astype(np.float32))}, "y must hold integers .* not float32"),
        ({"data": (digits()[0]["x"][:0], digits()[0]["y"][:0])}, "holds no examples"),
        ({"data": Resident(digits()[0], 32), "sample_weight": np.ones(203)}, "sample_weight= shapes batches"),
        ({"data": Resident(digits()[0], 32), "class_weight": "balanced"}, "class_weight= shapes batches"),
        ({"data": Resident(digits()[0], 32), "shuffle": False}, "shuffle= shapes batches"),
        ({"data": Resident(digits()[0], 32), "batch_size": 16}, "draws batches of 32"),
        ({"data": Resident(digits()[0], 32), "batch_size": "auto"}, "batch_size=auto, but the data are a feed"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        fit(**settings)


def test_numbers_of_numpy_are_numbers(tmp_path) -> None:
    run = fit(
        epochs=np.int64(1), batch_size=np.int32(64), seed=np.uint8(3), hyper={"learning_rate": np.float32(0.25)},
        checkpoint=tmp_path / "r",
    )  # fmt: skip
    assert run.history[0]["step"] == 4 and run.hyper == {"learning_rate": 0.25}


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: jaxdl.Checkpoint("r", every=0), "every=0"),
        (lambda: jaxdl.Checkpoint("r", every=True), "every=True"),
        (lambda: jaxdl.Checkpoint("r", every="minute"), "every='minute'"),
        (lambda: jaxdl.Checkpoint("r", best="validation:xyz"), 'give mode="min" or "max"'),
        (lambda: jaxdl.Checkpoint("r", best="validation:loss", mode="low"), "mode='low'"),
        (lambda: jaxdl.Checkpoint("r", keep=0), "keep=0"),
        (lambda: jaxdl.EarlyStopping(patience=0), "patience=0"),
        (lambda: jaxdl.EarlyStopping(patience=1.5), r"patience=1\.5"),
        (lambda: jaxdl.EarlyStopping(min_delta="x"), "min_delta='x'"),
        (lambda: jaxdl.ReduceOnPlateau(factor="half"), "factor='half'"),
        (lambda: jaxdl.ReduceOnPlateau(least=-1), "least=-1"),
        (lambda: jaxdl.ProgramOptions(mode="bogus"), "mode='bogus'"),
        (lambda: jaxdl.EarlyStopping(min_delta=-1), "min_delta=-1"),
        (lambda: jaxdl.ReduceOnPlateau(factor=1.0), "factor=1.0"),
        (lambda: jaxdl.ReduceOnPlateau(patience=0), "patience=0"),
        (lambda: jaxdl.ProgramOptions(steps_per_dispatch=0), "steps_per_dispatch=0"),
        (lambda: jaxdl.ProgramOptions(steps_per_dispatch=2.5), "steps_per_dispatch=2.5"),
        (lambda: jaxdl.RunPlan("while", 3), "mode='while'"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_made(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: jaxdl.Checkpoint(3), "folder=3"),  # type: ignore[arg-type]
        (lambda: jaxdl.Checkpoint("r", allow="batch_size"), "allow='batch_size': give|give a tuple of names"),
        (lambda: jaxdl.EarlyStopping(metric=3), "followed by its name"),  # type: ignore[arg-type]
        (lambda: jaxdl.ProgramOptions(tune="yes"), "tune='yes'"),  # type: ignore[arg-type]
        (lambda: jaxdl.gradient_step(3, jaxdl.optim.adam()), "task is a int"),  # type: ignore[arg-type]
        (lambda: jaxdl.lbfgs_step(3), "task is a int"),  # type: ignore[arg-type]
        (lambda: Program(mlp_task(), Resident(digits()[0], 32)), r"Program .* not a Task: jaxdl.gradient_step\(task"),
        (lambda: guard(mlp_task()), r"guard .* not a Task: jaxdl.gradient_step\(task"),
        (lambda: accumulate(mlp_task(), 2), r"accumulate .* not a Task"),
        (lambda: average(mlp_task()), r"average .* not a Task"),
        (lambda: guard(3), "guard takes a Step, not a int$"),  # type: ignore[arg-type]
    ],
)
def test_types_that_cannot_be_are_refused_when_things_are_made(make: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        make()


def test_a_metric_that_the_history_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="no 'validation:f1'; it has train:loss, validation:loss, validation:accuracy"):
        fit(validation=digits()[1], early_stopping=jaxdl.EarlyStopping("validation:f1"))


def test_the_rate_of_a_finished_transformation_cannot_be_reduced() -> None:
    with pytest.raises(ValueError, match=r"use an optimizer of jaxdl\.optim"):
        fit(optimizer=optax.sgd(0.1), callbacks=[jaxdl.ReduceOnPlateau("train:loss")])


def test_predict_and_evaluate_say_what_is_missing() -> None:
    run = fit()
    with pytest.raises(ValueError, match="the task reads the column 'x'; the data have z"):
        run.predict({"z": digits()[1]["x"]})
    with pytest.raises(ValueError, match="the task reads the column 'y'; the data have x"):
        run.evaluate((digits()[1]["x"],))
    with pytest.raises(ValueError, match=r"batch_size=2\.5"):
        run.predict(digits()[1], batch_size=2.5)
    with pytest.raises(TypeError, match="metrics='accuracy': give a tuple"):
        run.evaluate(digits()[1], metrics="accuracy")
    seen: list[str] = []

    def early(record: dict, run: jaxdl.Run) -> None:
        with pytest.raises(ValueError, match="after fit has returned") as caught:
            run.predict(digits()[1])
        seen.append(str(caught.value))

    fit(callbacks=[early])
    assert len(seen) == 1


def test_predict_reads_no_labels_and_no_weights() -> None:
    run, x = fit(), digits()[1]["x"]
    expected = run.predict(x)
    y, weight = np.full(len(x), np.nan, np.float32), np.full(len(x), -1.0, np.float32)
    for data in ((x, y), (x, y, weight), {"x": x, "y": y[:3], "weight": weight}, digits()[1]):
        np.testing.assert_array_equal(run.predict(data), expected)


def test_a_key_error_of_the_task_s_own_stays_what_it_is() -> None:
    def loss(variables: Any, batch: Any, context: Any) -> Any:
        return {"mine": 1}["yours"]

    with pytest.raises(KeyError, match="yours"):
        fit(task=mlp_task()._replace(loss=loss))


def test_transformations_refuse_what_they_cannot_do() -> None:
    step = jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam())
    for make, sentence in (
        (lambda: jaxdl.accumulate(step, 0), "accumulate=0"),
        (lambda: jaxdl.accumulate(step, 2.5), r"accumulate=2\.5"),
        (lambda: jaxdl.average(step, 1.0), "average=1.0"),
        (lambda: jaxdl.average(step, -0.1), "average=-0.1"),
        (lambda: jaxdl.lbfgs_step(mlp_task(), memory=0), "memory=0"),
        (lambda: jaxdl.gradient_step(mlp_task(), jaxdl.optim.adam(), precision="half"), "precision='half'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()


def test_unknown_names_of_the_package_suggest_the_nearest() -> None:
    for name in jaxdl.__all__:
        assert getattr(jaxdl, name) is not None
    with pytest.raises(AttributeError, match="did you mean 'EarlyStopping'"):
        _ = jaxdl.EarlyStoping
