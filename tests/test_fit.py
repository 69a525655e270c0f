"""What each argument of fit does, by running it on small tasks."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import together
from jaxdl.metrics import Accuracy, ConfusionMatrix
from tests.steps import counting_task, digits, largest_difference, mlp_task, same_bits

PER_EPOCH = 4  # 203 examples in batches of 64: 3 * 64 + 11


@functools.cache
def linear() -> jaxdl.Task:
    return jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10))


def fit(task: Any = None, data: Any = None, **settings: Any) -> jaxdl.Run:
    settings = {"batch_size": 64, "verbose": 0} | settings
    if not {"epochs", "steps", "max_seconds"} & set(settings):
        settings["epochs"] = 1
    return jaxdl.fit(linear() if task is None else task, digits()[0] if data is None else data, **settings)


def cross_entropy(run: jaxdl.Run, data: Any, smoothing: float = 0.0, params: Any = None) -> np.ndarray:
    """[examples] losses of a linear model, in float64."""
    layer = next(iter((run.state.params if params is None else params).values()))
    x = np.asarray(data["x"], np.float64).reshape(len(data), -1)
    logits = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(1 - smoothing) * logs[np.arange(len(x)), data["y"]] - smoothing * logs.mean(1)


class TestLength:
    @pytest.mark.parametrize(
        "settings, step, stopped",
        [
            ({"epochs": 2}, 8, "finished"),
            ({"steps": 3}, 3, "finished"),
            ({"epochs": 2, "steps": 5}, 5, "finished"),
            ({"epochs": 1, "steps": 5}, 4, "finished"),
            ({"epochs": 2, "max_seconds": 1e6}, 8, "finished"),
            ({"max_seconds": 1e-9}, 4, "max_seconds"),
            ({"epochs": 9, "steps": 30, "max_seconds": 1e-9}, 4, "max_seconds"),
        ],
        ids=str,
    )
    def test_the_first_that_is_reached_ends_it(self, settings: dict, step: int, stopped: str) -> None:
        run = fit(**settings)
        assert (int(run.state.step), run.history[-1]["step"], run.stopped) == (step, step, stopped)

    def test_max_seconds_ends_it_within_an_epoch(self) -> None:
        run = fit(max_seconds=1e-9, program=jaxdl.ProgramOptions(steps_per_dispatch=1))
        assert int(run.state.step) == run.history[-1]["step"] == 1 and run.history[-1]["epoch"] == 1

    def test_a_run_that_ended_within_an_epoch_goes_on_in_it(self, tmp_path) -> None:
        """Its history then is that of a run that never stopped."""
        folder = str(tmp_path / "r")
        assert [r["step"] for r in fit(steps=6, checkpoint=folder).history] == [4, 6]
        assert [r["step"] for r in fit(steps=6, checkpoint=folder).history] == [4, 6]  # nothing to do, nothing lost
        resumed, straight = fit(steps=8, checkpoint=folder), fit(steps=8)
        assert [(r["step"], r["train:loss"]) for r in resumed.history] == [
            (r["step"], r["train:loss"]) for r in straight.history
        ]
        assert [r["step"] for r in resumed.folder.records("epoch")] == [4, 8]


class TestEvaluation:
    def test_eval_batch_size_changes_memory_and_nothing_else(self) -> None:
        _, test = digits()
        sizes: dict[Any, set[int]] = {}
        records = []
        for size in (None, 7, 1000):
            seen = sizes.setdefault(size, set())

            def loss(variables: Any, batch: Any, context: Any, seen: set[int] = seen) -> Any:
                if not context.train:
                    seen.add(batch["x"].shape[0])
                return linear().loss(variables, batch, context)

            run = fit(linear()._replace(loss=loss), validation=test, eval_batch_size=size)
            records.append([run.metrics["validation:loss"], run.metrics["validation:accuracy"]])
        assert sizes == {None: {64}, 7: {7}, 1000: {90}}
        np.testing.assert_allclose(records, [records[0]] * 3, rtol=1e-6)
        assert records[0][0] == pytest.approx(cross_entropy(run, test).mean(), rel=1e-5)

    def test_metrics_are_those_asked_for(self) -> None:
        _, test = digits()

        def names(**settings: Any) -> set[str]:
            return {name for name in fit(validation=test, **settings).metrics if name.startswith("validation:")}

        assert names() == {"validation:loss", "validation:accuracy"}
        assert names(metrics=()) == {"validation:loss"}
        top = Accuracy(top_k=3, name="top3")
        assert names(metrics=[top, ConfusionMatrix(10)]) == {"validation:loss", "validation:top3"}
        run = fit(validation=test, metrics=[top])
        best = np.argsort(-run.predict(test), 1)[:, :3]
        assert run.metrics["validation:top3"] == pytest.approx((best == test["y"][:, None]).any(1).mean())

    def test_train_metrics_look_at_every_training_example_once(self) -> None:
        train, _ = digits()
        run = fit(optimizer=jaxdl.optim.sgd(0.0), train_metrics=[Accuracy()], epochs=2)
        expected = (run.predict(train).argmax(1) == train["y"]).mean()
        assert [r["train:accuracy"] for r in run.history] == pytest.approx([expected] * 2)

    def test_the_average_is_what_evaluates_and_predicts(self) -> None:
        _, test = digits()
        run = fit(validation=test, average=0.5, optimizer=jaxdl.optim.sgd(0.5))
        average = run.state.extra["average"]
        assert not same_bits(average, run.state.params)
        expected = cross_entropy(run, test, params=average)
        assert abs(expected.mean() - cross_entropy(run, test).mean()) > 1e-3
        assert run.metrics["validation:loss"] == pytest.approx(expected.mean(), rel=1e-5)
        assert run.evaluate(test)["loss"] == pytest.approx(expected.mean(), rel=1e-5)
        np.testing.assert_allclose(-np.log(run.predict(test)[np.arange(90), test["y"]]), expected, rtol=1e-4)

    def test_validation_that_repeats_training_rows_is_warned_of(self) -> None:
        train, test = digits()
        with pytest.warns(UserWarning, match="validation repeats training rows") as caught:
            fit(validation=train.select(np.arange(5)))
        assert caught[0].filename == __file__  # the caller's line

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(validation=test)


class TestNumbers:
    def test_label_smoothing_reaches_the_training_loss_alone(self) -> None:
        train, test = digits()
        run = fit(validation=test, optimizer=jaxdl.optim.sgd(0.0), hyper={"label_smoothing": 0.3})
        assert run.metrics["train:loss"] == pytest.approx(cross_entropy(run, train, 0.3).mean(), rel=1e-5)
        assert run.metrics["validation:loss"] == pytest.approx(cross_entropy(run, test).mean(), rel=1e-5)

    def test_dropout_reaches_the_module(self) -> None:
        half = mlp_task(dropout=0.5)
        losses = {rate: fit(half, hyper={"dropout": rate}).metrics["train:loss"] for rate in (0.0, 0.5)}
        assert losses[0.0] == pytest.approx(fit(mlp_task(dropout=1e-9)).metrics["train:loss"], rel=1e-6)
        assert losses[0.5] == fit(half).metrics["train:loss"] != losses[0.0]

    def test_weights_and_the_order_of_the_data(self) -> None:
        """One step without shuffling sees the first rows, each with its weight and its class's."""
        train, _ = digits()
        weight = np.arange(203, dtype=np.float32)
        table = {3: 2.0, 5: 0.0}
        run = fit(steps=1, shuffle=False, optimizer=jaxdl.optim.sgd(0.0), sample_weight=weight, class_weight=table)
        whole = weight * np.array([table.get(int(y), 1.0) for y in train["y"]])
        expected = np.average(cross_entropy(run, train)[:64], weights=whole[:64])
        assert run.metrics["train:loss"] == pytest.approx(expected, rel=1e-5)
        assert fit(steps=1, optimizer=jaxdl.optim.sgd(0.0)).metrics["train:loss"] != pytest.approx(expected, rel=1e-4)

    def test_an_optimizer_that_copies_the_parameters_begins_at_start(self) -> None:
        trained = fit(epochs=2).variables
        moved = fit(steps=3, start=trained, optimizer=optax.contrib.schedule_free_sgd(1e-6))
        assert largest_difference(moved.state.params, trained["params"]) < 1e-4

    def test_start_is_where_it_begins(self) -> None:
        start = {"params": jax.tree.map(lambda x: x + 1, fit(steps=1).state.params)}
        run = fit(optimizer=jaxdl.optim.sgd(0.0), start=start)
        assert same_bits(run.state.params, start["params"])

    def test_bf16_keeps_its_master_weights_in_float32(self) -> None:
        half, full = fit(precision="bf16", epochs=3), fit(epochs=3)
        assert {leaf.dtype for leaf in jax.tree.leaves(half.state.params)} == {np.dtype("float32")}
        assert half.metrics["train:loss"] == pytest.approx(full.metrics["train:loss"], rel=0.02)
        assert half.metrics["train:loss"] != full.metrics["train:loss"]
        assert half.predict(digits()[1]).dtype == np.float32

    def test_an_automatic_batch_size_fits_and_a_resume_keeps_it(self, tmp_path, monkeypatch) -> None:
        folder = str(tmp_path / "r")
        assert fit(batch_size="auto", checkpoint=folder).batch_size == 128  # the largest power of two below 203
        monkeypatch.setattr(together, "device_memory", lambda device: 100_000)
        assert fit(batch_size="auto").batch_size < 128
        again = fit(batch_size="auto", checkpoint=folder, epochs=2)
        assert again.batch_size == 128 and len(again.history) == 2


class TestNotFinite:
    def test_guard_skips_counts_and_says_so(self, tmp_path, capsys) -> None:
        train, _ = digits()
        x = np.array(train["x"])
        x[70] = np.inf
        run = fit(data=(x, train["y"]), guard=True, shuffle=False, epochs=2, verbose=2, checkpoint=str(tmp_path / "r"))
        assert [r["train:skipped"] for r in run.history] == [1, 1] and int(run.state.extra["guard"]) == 2
        assert np.isfinite(run.metrics["train:loss"])
        assert "epoch 1: 1 updates were not finite" in capsys.readouterr().out
        assert [note["step"] for note in run.folder.records("note")] == [4, 8]

    def test_the_broken_state_is_not_saved(self, tmp_path) -> None:
        folder = str(tmp_path / "r")
        settings = {
            "checkpoint": jaxdl.Checkpoint(folder, every=1),
            "program": jaxdl.ProgramOptions(steps_per_dispatch=1),
        }

        def burst(record: dict, run: jaxdl.Run) -> None:
            run.set_hyper("learning_rate", 1e38)

        run = fit(epochs=5, optimizer=jaxdl.optim.sgd(0.1), callbacks=[burst], **settings)
        assert run.stopped.startswith("the loss is ") and "try a smaller learning rate" in run.stopped
        assert run.folder.read_json("run.json")["status"] == "stopped"
        for which in ("best", "last"):
            kept = jaxdl.load_run(folder, linear(), digits()[0], which=which)
            assert np.isfinite(kept.predict(digits()[1])).all()

    def test_parameters_that_overflow_after_a_finite_loss_are_not_saved_either(self, tmp_path) -> None:
        task = jaxdl.tasks.from_functions(
            init=lambda key, x: {"w": jnp.zeros(())}, apply=lambda params, x: params["w"] * x, loss=lambda out, y: out
        )
        data = (np.full(8, 1e30, np.float32), np.zeros(8, np.float32))
        run = fit(task, data, optimizer=jaxdl.optim.sgd(1e20), checkpoint=str(tmp_path / "r"), batch_size=8)
        assert run.metrics["train:loss"] == 0.0
        assert run.stopped.startswith("the parameters are not finite after step 1")
        assert [note["text"] for note in run.folder.records("note")] == [f"stopped, and not saved: {run.stopped}"]
        assert not any((tmp_path / "r" / "checkpoints").glob("0*"))

    @pytest.mark.parametrize(
        "change, sentence",
        [
            (lambda x, y: (x, y - 1), "y holds -1 in row"),
            (lambda x, y: (x, y + 1), "y holds 10 in row 8, and the model has classes 0 to 9"),
            (lambda x, y: (np.where(np.arange(203)[:, None, None, None] == 5, np.nan, x), y), "column 'x' .* in row 5"),
        ],
    )
    def test_data_that_are_to_blame_are_blamed(self, change: Any, sentence: str) -> None:

        train, _ = digits()
        run = fit(data=change(train["x"], train["y"]))
        assert re.search(f"^the loss is nan at step .*{sentence}", run.stopped), run.stopped


class TestProgram:
    @pytest.mark.parametrize("mode, k", [("loop", 2), ("unrolled", 3), ("scan", None), (None, 100)])
    def test_options_are_obeyed_and_written_down(self, tmp_path, mode: str | None, k: int | None) -> None:
        program = jaxdl.ProgramOptions(mode=mode, steps_per_dispatch=k)
        plan = fit(program=program, checkpoint=str(tmp_path / "r")).folder.read_json("program.json")
        assert plan["mode"] == (mode or "scan") and plan["steps_per_dispatch"] == min(k or PER_EPOCH, PER_EPOCH)

    @pytest.mark.parametrize("verbose, lines", [(0, 0), (1, 4), (2, 4), (True, 4), (False, 0)])
    def test_verbose_in_a_pipe(self, verbose: int, lines: int, capsys) -> None:
        fit(epochs=2, verbose=verbose)
        out, err = capsys.readouterr()
        assert out.count("\n") == lines and err == ""  # title, how it runs, two epochs
        if lines:
            assert "650 parameters, 203 examples in 4 batches of 64" in out and "epoch 2/2" in out

    @pytest.mark.parametrize(
        "first", ["import jaxdl.fitting", "import jaxdl.run, jaxdl.report", "from jaxdl import fit"]
    )
    def test_fit_is_the_function_whatever_is_imported_first(self, first: str) -> None:
        code = (
            f"import jaxdl; {first}; import jaxdl.fitting, jaxdl.core.transform; assert jaxdl.fit.__name__ == 'fit'; "
            "assert callable(jaxdl.accumulate); assert set(dir(jaxdl)) == set(jaxdl.__all__)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestCallbacks:
    def test_true_stops_and_nothing_else_does(self) -> None:
        seen: list[int] = []

        def stop(record: dict, run: jaxdl.Run) -> Any:
            assert run.history[-1] is record
            seen.append(record["epoch"])
            return True if record["epoch"] == 2 else 1

        run = fit(epochs=5, callbacks=[stop])
        assert seen == [1, 2] and run.stopped == "callback" and int(run.state.step) == 8

    def test_set_hyper_holds_from_the_next_step_on(self) -> None:
        def freeze(record: dict, run: jaxdl.Run) -> None:
            run.set_hyper("learning_rate", 0.0)

        frozen = fit(epochs=3, callbacks=[freeze], optimizer=jaxdl.optim.sgd(0.1))
        assert same_bits(frozen.state.params, fit(epochs=1, optimizer=jaxdl.optim.sgd(0.1)).state.params)
        assert [r["learning_rate"] for r in frozen.history] == pytest.approx([0.1, 0.0, 0.0])
        with pytest.raises(ValueError, match="no number 'momentum'; it has learning_rate"):
            frozen.set_hyper("momentum", 0.5)
        with pytest.raises(ValueError, match="'learning_rate' is -1"):
            frozen.set_hyper("learning_rate", -1)

    def test_reduce_on_plateau_resumes_exactly(self, tmp_path) -> None:
        """By mode="max" a falling loss is a plateau from the second epoch on."""
        settings = {
            "callbacks": [jaxdl.ReduceOnPlateau("train:loss", mode="max", factor=0.5, patience=2, least=0.03)],
            "optimizer": jaxdl.optim.sgd(0.1, momentum=0.9),
        }
        straight = fit(epochs=7, **settings)
        rates = [r["learning_rate"] for r in straight.history]
        assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.03, 0.03])
        for epochs in (3, 4, 7):
            resumed = fit(epochs=epochs, checkpoint=str(tmp_path / "r"), **settings)
        assert same_bits(resumed.state, straight.state) and resumed.hyper == straight.hyper
        assert [r["learning_rate"] for r in resumed.history] == rates

    def test_an_error_in_a_callback_leaves_a_failed_run_that_resumes(self, tmp_path) -> None:
        folder = str(tmp_path / "r")

        def fail(record: dict, run: jaxdl.Run) -> None:
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            fit(epochs=2, callbacks=[fail], checkpoint=folder)
        assert jaxdl.list_runs(str(tmp_path))[0]["status"] == "failed"
        assert same_bits(fit(epochs=2, checkpoint=folder).state, fit(epochs=2).state)


class TestEarlyStopping:
    def test_it_is_a_function_of_the_history(self) -> None:
        def stops(values: list[float], **settings: Any) -> bool:
            rule = jaxdl.EarlyStopping("validation:loss", **({"patience": 2} | settings))
            return rule.should_stop([{"validation:loss": value} for value in values])

        assert not stops([]) and not stops([1.0]) and not stops([1.0, 2.0]) and stops([1.0, 2.0, 1.5])
        assert not stops([1.0, 2.0, 0.9]) and stops([3.0, 1.0, 1.0, 1.0])  # equal is no improvement
        assert stops([1.0, 0.95, 0.92], min_delta=0.1) and not stops([1.0, 0.95, 0.89], min_delta=0.1)
        assert not stops([1.0, 2.0, 3.0], mode="max") and stops([3.0, 2.0, 1.0], mode="max")
        assert stops([1.0, float("nan"), float("nan")]) and not stops([float("nan")] * 3)

    def test_it_stops_goes_back_and_does_so_again_after_a_resume(self, tmp_path) -> None:
        rule = jaxdl.EarlyStopping("train:loss", mode="max", patience=2)  # a falling loss: the first epoch is the best
        one = fit(epochs=1)
        run = fit(epochs=9, early_stopping=rule)
        assert run.stopped == "early stopping" and len(run.history) == 3
        assert same_bits(run.state, one.state)
        assert run.metrics["best"] == {
            "metric": "train:loss",
            "value": one.metrics["train:loss"],
            "epoch": 1,
            "step": 4,
        }
        kept = fit(
            epochs=9, early_stopping=jaxdl.EarlyStopping("train:loss", mode="max", patience=2, restore_best=False)
        )
        assert same_bits(kept.state, fit(epochs=3).state)
        folder = str(tmp_path / "r")
        saving = jaxdl.Checkpoint(folder, keep=1, every="epoch")
        fit(epochs=2, early_stopping=rule, checkpoint=saving)  # interrupted after the best epoch
        for _ in range(2):  # goes on; then finds that nothing is left to do
            run = fit(epochs=9, early_stopping=rule, checkpoint=saving)
            assert run.stopped == "early stopping" and len(run.history) == 3
            assert same_bits(run.state, one.state)


def test_one_update_an_epoch_that_ends_within_one_has_no_loss_to_tell(tmp_path) -> None:
    """The update of that epoch is still to come; a resume makes it, as if the run had never been cut."""
    settings = {"apply": "epoch", "optimizer": jaxdl.optim.sgd(0.1)}
    folder = str(tmp_path / "r")
    run = fit(steps=6, epochs=None, checkpoint=folder, **settings)  # 4 steps an epoch
    assert [record["step"] for record in run.history] == [4, 6]
    assert "train:loss" in run.history[0] and "train:loss" not in run.history[1]
    assert "train:loss" not in run.metrics
    assert "still to come" in run.folder.records("note")[-1]["text"]
    whole = fit(epochs=2, **settings)
    run = fit(epochs=2, checkpoint=folder, **settings)
    assert [record["step"] for record in run.history] == [4, 8]
    assert [record["train:loss"] for record in run.history] == [record["train:loss"] for record in whole.history]
    assert same_bits(run.state, whole.state)


@pytest.mark.parametrize("guard", [False, True])
def test_labels_that_no_class_has_end_the_training_whether_guarded_or_not(guard) -> None:
    train, _ = digits()
    y = np.array(train["y"])
    y[7] = 12
    run = fit(data=(train["x"], y), guard=guard)
    assert re.search("y holds 12 in row 7, and the model has classes 0 to 9", run.stopped), run.stopped


class TestInterruption:
    @staticmethod
    def interrupt(times: int, number: int = signal.SIGINT) -> Any:
        def callback(record: dict, run: jaxdl.Run) -> None:
            if record["epoch"] == 2:
                for _ in range(times):
                    os.kill(os.getpid(), number)

        return callback

    def test_ctrl_c_returns_the_run(self) -> None:
        run = fit(epochs=5, callbacks=[self.interrupt(1)])
        assert run.stopped == "interrupted" and int(run.state.step) == 8
        assert run.predict(digits()[1]).shape == (90, 10)

    def test_a_second_ctrl_c_is_pythons_own(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(epochs=5, callbacks=[self.interrupt(2)])
        assert signal.getsignal(signal.SIGINT) is before

    def test_sigterm_without_a_folder_exits_all_the_same(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            fit(epochs=5, callbacks=[self.interrupt(1, signal.SIGTERM)])
        assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before

    def test_in_another_thread_signals_are_left_alone(self) -> None:
        before, runs = signal.getsignal(signal.SIGINT), []

        def look(record: dict, run: jaxdl.Run) -> None:
            assert signal.getsignal(signal.SIGINT) is before

        thread = threading.Thread(target=lambda: runs.append(fit(epochs=2, callbacks=[look])))
        thread.start()
        thread.join()
        assert runs[0].stopped == "finished" and same_bits(runs[0].state, fit(epochs=2).state)


class TestDataShapes:
    @pytest.mark.parametrize("examples", [1, 5, 64, 128, 130])
    def test_any_number_of_examples(self, examples: int) -> None:
        data = digits()[0].select(np.arange(examples))
        run = fit(data=data, optimizer=jaxdl.optim.sgd(0.0))
        assert run.history[0]["step"] == -(-examples // 64) and run.batch_size == min(64, examples)
        assert run.metrics["train:loss"] == pytest.approx(cross_entropy(run, data).mean(), rel=1e-5)

    def test_float64_memory_maps_and_bytes(self, tmp_path) -> None:
        train, _ = digits()
        straight = fit()
        path = tmp_path / "x.npy"
        np.save(path, np.asarray(train["x"], np.float64))
        mapped = np.load(path, mmap_mode="r")
        assert same_bits(fit(data={"x": mapped, "y": train["y"].astype(np.int64)}).state, straight.state)
        pixels = np.random.default_rng(0).integers(0, 256, (203, 8, 8, 1)).astype(np.uint8)
        asbytes, asfloats = (fit(data=(x, train["y"])) for x in (pixels, pixels.astype(np.float32) / 255))
        assert asbytes.metrics["train:loss"] == pytest.approx(asfloats.metrics["train:loss"], rel=1e-5)

    def test_other_columns_reach_the_task(self) -> None:
        """A task of its own columns, without x and y."""
        from jaxdl.core.task import Loss, Task

        def loss(variables: Any, batch: Any, context: Any) -> Loss:
            value = (batch["a"] * variables["params"]["w"] - batch["b"]) ** 2
            return Loss(value, None, value, {})

        task = Task(lambda key, batch: {"params": {"w": jnp.float32(0)}}, loss, lambda v, b: b["a"] * v["params"]["w"])
        numbers = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)[:, 0]
        data = {"a": numbers, "b": 3 * numbers}
        held_out = {name: column[::-1] + 1 for name, column in data.items()}
        run = fit(task, data, validation=held_out, epochs=20, optimizer=jaxdl.optim.sgd(0.3), batch_size=20)
        assert float(run.state.params["w"]) == pytest.approx(3, abs=1e-3)
        np.testing.assert_allclose(run.predict({"a": numbers}), 3 * numbers, atol=1e-2)

    def test_nothing_is_traced_again_for_evaluate_after_fit(self) -> None:
        traces: dict[str, int] = {}
        fit(counting_task(linear(), traces), validation=digits()[1], epochs=3)
        assert traces == {"init": 1, "train": 1, "evaluate": 1}
