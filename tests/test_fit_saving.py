"""What fit saves, when, where, and what it does when it cannot; and what load_run gives back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl import saving, training
from jaxdl.checkpoint import Store, commit
from jaxdl.tracking import RunFolder
from tests.steps import digits, kmeans_step, mlp_task, same_bits

PER_EPOCH = 4


def linear(**options: Any) -> jaxdl.Task:
    return jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10), **options)


def fit(task: Any = None, data: Any = None, **settings: Any) -> jaxdl.Run:
    settings = {"batch_size": 64, "verbose": 0, "epochs": 1} | settings
    return jaxdl.fit(linear() if task is None else task, digits()[0] if data is None else data, **settings)


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were saved, in order."""
    steps: list[int] = []
    real = Store.save
    monkeypatch.setattr(
        Store, "save", lambda self, step, *a, **k: (steps.append(step / PER_EPOCH), real(self, step, *a, **k))[1]
    )
    return steps


def kept(folder: str | Path) -> list[int]:
    with Store(Path(folder) / "checkpoints", read_only=True) as store:
        assert store.verify() == []
        return [step // PER_EPOCH for step in store.steps()]


@pytest.mark.parametrize("given", [str, Path])
def test_the_home_folder_is_not_a_folder_called_tilde(tmp_path, monkeypatch, given: Any) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    place = given("~/run")
    assert jaxdl.Checkpoint(place).folder == str(tmp_path / "home" / "run")
    RunFolder.create(place).write_json("run.json", {"status": "finished"})
    assert RunFolder.open(place).path == tmp_path / "home" / "run"
    assert not list((tmp_path / "here").iterdir())


class TestWhen:
    def test_by_default_the_first_epoch_then_every_ten_seconds_then_the_last(
        self, tmp_path, saves, monkeypatch
    ) -> None:
        clock = [0.0]
        for module in (training, saving):
            monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))

        def four_seconds(record: dict, run: jaxdl.Run) -> None:
            clock[0] += 4.0

        fit(epochs=8, callbacks=[four_seconds], checkpoint=str(tmp_path / "r"))
        assert saves == [1, 4, 7, 8]  # at 4, 16, 28 and 32 seconds

    def test_every_epoch_and_every_so_many_steps(self, tmp_path, saves) -> None:
        fit(epochs=3, checkpoint=jaxdl.Checkpoint(str(tmp_path / "a"), every="epoch"))
        assert saves == [1, 2, 3]
        saves.clear()
        one = jaxdl.ProgramOptions(steps_per_dispatch=1)
        fit(epochs=3, checkpoint=jaxdl.Checkpoint(str(tmp_path / "b"), every=5), program=one)
        assert saves == [5 / 4, 10 / 4, 3]

    def test_the_newest_stay_and_the_best_whatever_its_age(self, tmp_path) -> None:
        """The loss falls, so that by mode="max" the first epoch is the best."""
        for mode, stay in (("max", [1, 4]), ("min", [4])):
            folder = str(tmp_path / mode)
            saving = jaxdl.Checkpoint(folder, every="epoch", keep=1, best="train:loss", mode=mode)
            run = fit(epochs=4, checkpoint=saving)
            assert kept(folder) == stay
            assert run.metrics["best"]["epoch"] == stay[0] == run.folder.read_json("run.json")["best"]["epoch"]
            assert same_bits(
                jaxdl.load_run(folder, linear(), digits()[0]).state.params, fit(epochs=stay[0]).state.params
            )
        fit(epochs=5, checkpoint=jaxdl.Checkpoint(str(tmp_path / "max"), keep=2))
        assert kept(tmp_path / "max")[-1] == 5

    def test_an_epoch_that_improves_is_saved_whatever_the_clock_says(self, tmp_path, saves) -> None:
        fit(epochs=4, checkpoint=jaxdl.Checkpoint(str(tmp_path / "r"), best="train:loss"))
        assert saves == [1, 2, 3, 4]

    def test_the_best_epoch_of_early_stopping_waits_for_the_next_save(self, tmp_path, saves) -> None:
        """Of many short epochs that improve, those within ten seconds are not saved one by one."""
        stopping = jaxdl.EarlyStopping("train:loss", patience=3)
        run = fit(epochs=9, early_stopping=stopping, checkpoint=str(tmp_path / "falls"))
        assert run.metrics["best"]["epoch"] == 9 and saves == [1, 9]
        saves.clear()
        # Where the first epoch is the best, it is on disk already.
        worse = jaxdl.EarlyStopping("train:loss", mode="max", patience=3)
        run = fit(epochs=9, early_stopping=worse, checkpoint=str(tmp_path / "first"))
        assert run.metrics["best"]["epoch"] == 1 and saves == [1, 4]

    def test_the_best_epoch_is_on_disk_before_any_later_one(self, tmp_path, saves, monkeypatch) -> None:
        """However early stopping goes on, the epoch that it would go back to is found after a kill, and by load_run."""
        train, test = digits()
        settings = {
            "data": train, "validation": test, "optimizer": jaxdl.optim.adam(0.1), "epochs": 30, "task": mlp_task(),
        }  # fmt: skip
        stopping = jaxdl.EarlyStopping("validation:loss", patience=2)
        run = fit(early_stopping=stopping, checkpoint=str(tmp_path / "r"), **settings)
        best = run.metrics["best"]["epoch"]
        assert 1 < best < run.history[-1]["epoch"] and saves == [1, best, run.history[-1]["epoch"]]
        with Store(tmp_path / "r" / "checkpoints", read_only=True) as store:
            assert store.best_step() == best * PER_EPOCH and store.verify() == []
            progress = store.manifest(best * PER_EPOCH)["configuration"]["progress"]
        assert [record["epoch"] for record in progress["history"]] == list(range(1, best + 1))
        loaded = jaxdl.load_run(tmp_path / "r", mlp_task(), train)
        assert same_bits(loaded.state.params, run.state.params)
        again = fit(early_stopping=stopping, checkpoint=str(tmp_path / "r"), **settings)
        assert same_bits(again.state, run.state)


class TestWhenItCannot:
    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> set[int]:
        """Steps at which the disk is full."""
        steps: set[int] = set()
        real = commit.commit

        def write(folder: Path, step: int, *rest: Any) -> Any:
            if step in steps:
                raise OSError(28, "No space left on device")
            return real(folder, step, *rest)

        monkeypatch.setattr(commit, "commit", write)
        return steps

    @pytest.mark.parametrize("bad, stay", [({8}, [1, 3, 4]), ({12}, [1, 2, 4]), ({8, 12}, [1, 4])])
    def test_a_full_disk_in_the_middle_is_said_and_the_next_save_works(self, tmp_path, full, bad, stay, capsys) -> None:
        full |= bad
        run = fit(epochs=4, checkpoint=jaxdl.Checkpoint(str(tmp_path / "r"), every="epoch"), verbose=2)
        assert run.stopped == "finished" and same_bits(run.state, fit(epochs=4).state)
        notes = [note["text"] for note in run.folder.records("note")]
        assert len(notes) == len(bad) and all("was not saved" in note and "the disk is full" in note for note in notes)
        assert capsys.readouterr().out.count("the disk is full") == len(bad)
        assert kept(tmp_path / "r") == stay

    def test_a_full_disk_at_the_end_costs_the_checkpoint_and_not_the_run(self, tmp_path, full) -> None:
        full |= {8}
        folder = str(tmp_path / "r")
        with pytest.warns(RuntimeWarning, match="step 8 was not saved.*the newest good one is step 4"):
            run = fit(epochs=2, checkpoint=jaxdl.Checkpoint(folder, every="epoch"))
        assert same_bits(run.state, fit(epochs=2).state)
        full.clear()
        assert same_bits(fit(epochs=2, checkpoint=folder).state, run.state)  # from step 4 on
        assert kept(folder) == [1, 2]

    def test_a_metrics_file_that_cannot_be_written_ends_nothing(self, tmp_path, monkeypatch, capsys) -> None:
        from jaxdl.tracking import RunFolder

        def refuse(self: Any, record: dict) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(RunFolder, "append", refuse)
        run = fit(epochs=2, checkpoint=str(tmp_path / "r"), verbose=2)
        assert run.stopped == "finished" and kept(tmp_path / "r") == [1, 2]
        assert "not recorded: [Errno 28]" in capsys.readouterr().out

    def test_places_that_are_no_folder(self, tmp_path) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        with pytest.raises(FileExistsError, match="is a file; a run needs a folder"):
            fit(checkpoint=str(file))
        assert file.read_text() == "mine"

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission(self, tmp_path) -> None:
        (tmp_path / "r").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="may not be written"):
            fit(checkpoint=tmp_path / "r")


class TestFolder:
    def test_what_is_in_it(self, tmp_path) -> None:
        _, test = digits()
        run = fit(mlp_task(), validation=test, epochs=2, checkpoint=tmp_path / "r", average=0.9, seed=3)
        folder = tmp_path / "r"
        config, plan, status, results = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("config", "program", "run", "results")
        )
        expected = {"batch_size": 64, "examples": 203, "epochs": 2, "seed": 3, "average": 0.9, "parameters": 1210,
                    "metrics": ["accuracy"], "optimizer": "adam", "precision": "float32"}  # fmt: skip
        assert expected.items() <= config.items() and config["hyper"]["learning_rate"] == pytest.approx(1e-3)
        assert config["data"] == digits()[0].fingerprint() and config["validation"] == test.fingerprint()
        assert plan["mode"] == "scan" and plan["jax"] == jax.__version__ and plan["cpus"] == os.cpu_count()
        assert (status["status"], status["epochs"], status["step"], status["stopped"]) == ("finished", 2, 8, "finished")
        assert status["metrics"] == run.metrics == results["metrics"]
        assert np.sum(results["confusion_matrix"]) == 90 and results["classes"] == list(test.classes)
        correct = np.trace(np.array(results["confusion_matrix"]))
        assert correct / 90 == pytest.approx(run.metrics["validation:accuracy"])
        epochs = run.folder.records("epoch")
        assert [{k: v for k, v in record.items() if k != "kind"} for record in epochs] == run.history
        assert [record["step"] for record in run.folder.records("train")] == [4, 8]
        assert "<svg" in (folder / "report.html").read_text()
        before = (folder / "results.json").read_text()
        fit(mlp_task(), validation=test, epochs=2, checkpoint=tmp_path / "r", average=0.9, seed=3)  # nothing left to do
        assert json.loads((folder / "results.json").read_text()) == json.loads(before)

    def test_an_open_end_keeps_a_thinned_record(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(training, "TRAIN_RECORDS", 20)

        def stop(record: dict, run: jaxdl.Run) -> bool:
            return record["step"] >= 600

        one = jaxdl.ProgramOptions(steps_per_dispatch=1)
        run = fit(epochs=None, max_seconds=1e6, callbacks=[stop], checkpoint=str(tmp_path / "r"), program=one)
        steps = [record["step"] for record in run.folder.records("train")]
        assert steps[:50] == list(range(1, 51)) and 100 < len(steps) < 250 and steps[-1] > 580

    def test_how_it_runs_is_written_before_the_first_step(self, tmp_path) -> None:
        """Killed in the first dispatch: the folder says how it ran, and the same call starts anew."""
        code = (
            "import os, sys, jaxdl; from jaxdl.core.program import Program; from tests.test_fit_saving import fit\n"
            "Program.run = lambda *a: os._exit(9)\nfit(checkpoint=sys.argv[1])"
        )
        folder = tmp_path / "r"
        assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == 9
        assert json.loads((folder / "program.json").read_text())["mode"] == "scan"
        assert (folder / "config.json").exists() and jaxdl.list_runs(str(tmp_path))[0]["status"] != "finished"
        assert same_bits(fit(checkpoint=folder).state, fit().state)

    def test_another_run_in_the_folder_is_refused(self, tmp_path) -> None:
        folder = str(tmp_path / "r")
        weights = {0: 2.0}
        start = {"params": jax.tree.map(np.asarray, fit(steps=1).state.params)}
        settings: dict[str, Any] = {"checkpoint": folder, "start": start}
        fit(linear(class_weight=weights), **settings)
        moved = {"params": jax.tree.map(lambda x: x + 1, start["params"])}
        for task, changes, sentence in (
            (linear(class_weight={0: 3.0}), {}, "what task and optimizer compute differs"),  # a constant of the program
            (linear(class_weight=weights), {"start": moved}, r"the values that training starts from \(start=\) differ"),
            (linear(class_weight=weights), {"validation": digits()[1]}, "the validation data differ"),
            (linear(class_weight=weights), {"guard": True}, "guard was False, is True"),
            (
                linear(class_weight=weights),
                {"optimizer": jaxdl.optim.adam(schedule=jaxdl.optim.cosine(9))},
                "compute differs",
            ),
        ):
            with pytest.raises(ValueError, match=f"holds another run: .*{sentence}"):
                fit(task, epochs=2, **settings | changes)
        assert len(fit(linear(class_weight=weights), epochs=2, **settings).history) == 2

    def test_a_measured_plan_stays_the_folder_s(self, tmp_path, monkeypatch) -> None:
        from jaxdl import fitting
        from jaxdl.core.plan import RunPlan

        monkeypatch.setattr(fitting, "tune", lambda build: RunPlan("scan", 2, "measured"))
        tuned = {"program": jaxdl.ProgramOptions(tune=True), "checkpoint": str(tmp_path / "r")}
        assert fit(**tuned).folder.read_json("program.json")["steps_per_dispatch"] == 2
        monkeypatch.setattr(fitting, "tune", lambda build: pytest.fail("measured again"))
        assert fit(epochs=2, **tuned).folder.read_json("program.json")["steps_per_dispatch"] == 2


class TestLoadRun:
    def test_it_predicts_and_evaluates_as_the_run_did(self, tmp_path) -> None:
        _, test = digits()
        folder = tmp_path / "r"
        saving = jaxdl.Checkpoint(str(folder), every="epoch", best="train:loss", mode="max")
        settings = {"average": 0.5, "validation": test, "hyper": {"label_smoothing": 0.1}}
        run, first = fit(epochs=3, checkpoint=saving, **settings), fit(epochs=1, **settings)
        for which, wanted in (("last", run), ("best", first)):
            loaded = jaxdl.load_run(folder, linear(), digits()[0], which=which)
            np.testing.assert_array_equal(loaded.predict(test), wanted.predict(test))
            assert loaded.evaluate(test) == wanted.evaluate(test)
            assert loaded.history == run.history and loaded.metrics == run.metrics
        with pytest.raises(ValueError, match="which='newest'"):
            jaxdl.load_run(folder, linear(), digits()[0], which="newest")

    @pytest.mark.parametrize(
        "widths, sentence",
        [
            ((16,), "it has params/hidden1/bias"),
            ((16, 16, 16), "params/hidden2/bias"),
            ((8, 8), r"params/hidden0/bias.*8"),
        ],
    )
    def test_another_model_is_refused_by_path(self, tmp_path, widths: tuple[int, ...], sentence: str) -> None:
        def task(widths: tuple[int, ...]) -> jaxdl.Task:
            return jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=widths))

        fit(task((16, 16)), checkpoint=tmp_path / "r")
        with pytest.raises(ValueError, match=f"is of another model: .*{sentence}") as refused:
            jaxdl.load_run(tmp_path / "r", task(widths), digits()[0])
        assert "strict" not in str(refused.value) and "`like`" not in str(refused.value)

    def test_a_step_and_a_damaged_checkpoint(self, tmp_path) -> None:
        train, test = digits()
        saving = jaxdl.Checkpoint(str(tmp_path / "r"), every="epoch")
        run = fit(kmeans_step(4), epochs=2, apply="epoch", checkpoint=saving)
        loaded = jaxdl.load_run(tmp_path / "r", kmeans_step(4), train)
        np.testing.assert_array_equal(loaded.predict(test), run.predict(test))
        files = [path for path in (tmp_path / "r" / "checkpoints").glob("*8/arrays/**/*") if path.is_file()]
        newest = max(files, key=lambda path: path.stat().st_size)
        newest.write_bytes(newest.read_bytes()[:-9])
        with pytest.warns(UserWarning, match="fell back to step 4"):
            jaxdl.load_run(tmp_path / "r", kmeans_step(4), train)

    def test_no_run_no_checkpoint(self, tmp_path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            jaxdl.load_run(tmp_path / "nothing", linear(), digits()[0])
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match="holds no run"):
            jaxdl.load_run(tmp_path / "empty", linear(), digits()[0])


def test_the_confusion_matrix_is_of_the_state_that_fit_returns(tmp_path: Path) -> None:
    """Early stopping goes back to the best epoch; the report's matrix goes with it."""
    train, test = digits()
    stopping = jaxdl.EarlyStopping("validation:loss", patience=2)
    run = jaxdl.fit(
        mlp_task(),
        train,
        validation=test,
        optimizer=jaxdl.optim.adam(0.1),
        epochs=30,
        early_stopping=stopping,
        checkpoint=str(tmp_path / "r"),
        verbose=0,
    )
    assert run.metrics["best"]["epoch"] < run.history[-1]["epoch"]
    matrix = np.asarray(run.folder.read_json("results.json")["confusion_matrix"])
    assert np.trace(matrix) / matrix.sum() == pytest.approx(run.evaluate(test)["accuracy"])
    with pytest.raises(ValueError, match="training is over"):
        run.set_hyper("learning_rate", 0.5)
