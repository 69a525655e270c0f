"""Kill it anywhere, resume: the same losses, metrics and parameters, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxdl
from jaxdl.checkpoint import Store
from jaxdl.training import Training
from tests.exact import train_and_die
from tests.steps import convnet_task, digits, kmeans_step, mlp_task, same_bits

SCRIPT = Path(train_and_die.__file__)
TIMING = ("seconds", "examples_per_second")


def without_times(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in TIMING} for record in history]


def child(folder: Path, phase: str, count: int = 1, delay: float = 0.0) -> int:
    """One process of the training; its exit code, -9 when it was killed."""
    command = [sys.executable, str(SCRIPT), str(folder), phase, str(count), str(delay)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert out.returncode in (0, -signal.SIGKILL), out.stderr
    return out.returncode


def killed_and_resumed(folder: Path, kills: list[tuple[str, int, float]]) -> None:
    straight = train_and_die.train(None)
    killed = [child(folder, *kill) for kill in kills]
    assert -signal.SIGKILL in killed
    resumed = train_and_die.train(str(folder))
    assert without_times(resumed.history) == without_times(straight.history)
    assert same_bits(resumed.state, straight.state)
    records = [record for record in resumed.folder.records("epoch")]
    assert [record["epoch"] for record in records] == list(range(1, train_and_die.EPOCHS + 1))
    with Store(folder / "checkpoints") as store:
        assert store.verify() == []


def test_killed_in_training_in_evaluation_and_in_a_save(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path / "run", [("train", 17, 0.0), ("evaluate", 4, 0.0), ("save", 5, 0.004)])


@pytest.mark.slow
def test_killed_twenty_times_at_random(tmp_path: Path) -> None:
    draw = random.Random(time.time_ns())
    kills = [
        (draw.choice(["train", "evaluate", "save"]), draw.randint(1, 4), draw.choice([0.0, draw.random() * 0.05]))
        for _ in range(20)
    ]
    print(kills)
    killed_and_resumed(tmp_path / "run", kills)


@pytest.mark.smoke
def test_a_finished_run_is_loaded_and_goes_on(tmp_path: Path) -> None:
    train, test = digits()
    folder = str(tmp_path / "run")

    def run(epochs: int, checkpoint: str | None) -> jaxdl.Run:
        return jaxdl.fit(
            mlp_task(), train, validation=test, epochs=epochs, batch_size=32, checkpoint=checkpoint, verbose=0
        )

    first = run(2, folder)
    again = run(2, folder)
    assert again.history == first.history and again.stopped == "finished"
    assert same_bits(again.state, first.state)
    longer = run(4, folder)
    assert without_times(longer.history) == without_times(run(4, None).history)
    assert longer.history[:2] == first.history


@pytest.mark.parametrize("learner", ["convnet", "k-means", "lbfgs"])
def test_other_steps_and_modes_resume_too(tmp_path: Path, learner: str) -> None:
    """The loop of a convnet, and steps that apply once an epoch, stopped in the middle of an epoch."""
    train, _ = digits()
    task = {"convnet": convnet_task(), "k-means": kmeans_step(5), "lbfgs": jaxdl.lbfgs_step(mlp_task(), memory=3)}
    settings = {"batch_size": 32, "verbose": 0, "apply": "batch" if learner == "convnet" else "epoch"}
    settings["program"] = jaxdl.ProgramOptions(steps_per_dispatch=2)
    straight = jaxdl.fit(task[learner], train, steps=28, **settings)
    folder = str(tmp_path / "run")
    part = jaxdl.fit(task[learner], train, steps=10, checkpoint=folder, **settings)
    assert int(part.state.step) == 10  # the second step of a block of two: a resume begins within the block
    resumed = jaxdl.fit(task[learner], train, steps=28, checkpoint=folder, **settings)
    assert same_bits(resumed.state, straight.state)
    assert resumed.history[-1]["train:loss"] == straight.history[-1]["train:loss"]


def test_a_training_cut_within_epochs_decides_nothing_there(tmp_path: Path) -> None:
    """The rate is cut, and the best epoch found, as if the training had never been cut into pieces."""
    train, test = digits()
    settings = {"validation": test, "batch_size": 32, "verbose": 0}
    settings["callbacks"] = [jaxdl.ReduceOnPlateau("train:loss", patience=1, min_delta=10.0)]
    straight = jaxdl.fit(mlp_task(), train, epochs=4, **settings)
    settings["checkpoint"] = jaxdl.Checkpoint(str(tmp_path / "r"), best="validation:accuracy")
    for steps in (10, 17):
        jaxdl.fit(mlp_task(), train, steps=steps, **settings)
    pieces = jaxdl.fit(mlp_task(), train, epochs=4, **settings)
    assert without_times(pieces.history) == without_times(straight.history)
    assert len({record["learning_rate"] for record in pieces.history}) > 1  # it was cut
    with Store(tmp_path / "r" / "checkpoints", read_only=True) as store:
        assert store.best_step() == pieces.metrics["best"]["step"]


class TestSignals:
    def test_an_interrupted_run_goes_back_to_its_best_epoch_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        train, test = digits()
        reports = Training.on_reports

        def interrupt(self: Training, step: int, report: object) -> None:
            reports(self, step, report)
            if step == 17:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Training, "on_reports", interrupt)
        run = jaxdl.fit(
            mlp_task(),
            train,
            validation=test,
            batch_size=32,
            epochs=6,
            verbose=0,
            early_stopping=jaxdl.EarlyStopping("validation:loss"),
            program=jaxdl.ProgramOptions(steps_per_dispatch=1),
        )
        assert run.stopped == "interrupted" and len(run.history) == 2
        assert int(run.state.step) == run.metrics["best"]["step"] == 14

    def test_ctrl_c_saves_and_returns(self, tmp_path: Path) -> None:
        train, test = digits()
        settings = {"validation": test, "batch_size": 32, "verbose": 0, "epochs": 6}

        def interrupt(record: dict, run: jaxdl.Run) -> None:
            if record["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGINT)

        handler = signal.getsignal(signal.SIGINT)
        run = jaxdl.fit(mlp_task(), train, checkpoint=str(tmp_path / "r"), callbacks=[interrupt], **settings)
        assert run.stopped == "interrupted" and len(run.history) == 3
        assert run.folder.read_json("run.json")["status"] == "interrupted"
        assert signal.getsignal(signal.SIGINT) is handler
        resumed = jaxdl.fit(mlp_task(), train, checkpoint=str(tmp_path / "r"), **settings)
        straight = jaxdl.fit(mlp_task(), train, **settings)
        assert without_times(resumed.history) == without_times(straight.history)
        assert same_bits(resumed.state, straight.state)

    def test_sigterm_saves_and_exits_with_143(self, tmp_path: Path) -> None:
        train, _ = digits()

        def terminate(record: dict, run: jaxdl.Run) -> None:
            if record["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(SystemExit) as exit_code:
            jaxdl.fit(mlp_task(), train, epochs=5, checkpoint=str(tmp_path / "r"), callbacks=[terminate], verbose=0)
        assert exit_code.value.code == 143
        with Store(tmp_path / "r" / "checkpoints", read_only=True) as store:
            assert store.steps()[-1] == 2 * 7


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        self.fit(str(tmp_path / "r"))
        return str(tmp_path / "r")

    @staticmethod
    def fit(folder: str | jaxdl.Checkpoint, **changes) -> jaxdl.Run:
        train, _ = digits()
        settings = {"data": train, "epochs": 1, "batch_size": 32, "checkpoint": folder, "verbose": 0} | changes
        return jaxdl.fit(settings.pop("task", mlp_task()), settings.pop("data"), **settings)

    def test_every_difference_is_named(self, folder: str) -> None:
        other = digits()[0].select(np.arange(150))
        for changes, sentence in (
            ({"batch_size": 16}, "batch_size was 32, is 16"),
            ({"seed": 1}, "seed was 0, is 1"),
            ({"data": other}, "the training data differ"),
            ({"hyper": {"learning_rate": 0.1}}, "hyper 'learning_rate' was 0.001"),
            ({"precision": "bf16"}, "precision was 'float32', is 'bf16'"),
            ({"task": mlp_task(activation="tanh")}, "what task and optimizer compute differs"),
            ({"optimizer": jaxdl.optim.sgd()}, "state differ"),
        ):
            with pytest.raises(ValueError, match=sentence):
                self.fit(folder, epochs=2, **changes)
        assert len(self.fit(folder, epochs=2).history) == 2  # and nothing was harmed

    def test_another_batch_size_when_asked_for(self, folder: str) -> None:
        allowed = jaxdl.Checkpoint(folder, allow=("batch_size",))
        run = self.fit(allowed, epochs=2, batch_size=64)
        assert [record["step"] for record in run.history] == [4, 8]  # epoch 1 in 7 batches of 32, counted as 4 of 64
        # The smaller number of the same place is the newest one from now on.
        allowed = jaxdl.Checkpoint(folder, allow=("batch_size",), every="epoch")
        longer = self.fit(allowed, epochs=4, batch_size=64)
        assert [record["step"] for record in longer.history] == [4, 8, 12, 16]
        assert [record["train:loss"] for record in longer.history[:2]] == [r["train:loss"] for r in run.history]
        assert [record["epoch"] for record in longer.folder.records("epoch")] == [1, 2, 3, 4]
        with pytest.raises(ValueError, match="no setting is called 'batchsize'"):
            self.fit(jaxdl.Checkpoint(folder, allow=("batchsize",)))

    def test_killed_before_the_first_save_with_another_batch_size(self, folder: str, monkeypatch) -> None:
        """config.json already has the new size then; what counts is what the checkpoint was saved with."""
        allowed = jaxdl.Checkpoint(folder, allow=("batch_size",))

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Store, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                self.fit(allowed, epochs=2, batch_size=64)
        run = self.fit(allowed, epochs=2, batch_size=64)
        assert [record["step"] for record in run.history] == [4, 8]

    def test_another_way_of_running(self, folder: str) -> None:
        with pytest.raises(ValueError, match="is now asked to run as loop"):
            self.fit(folder, epochs=2, program=jaxdl.ProgramOptions(mode="loop"))

    def test_two_runs_in_one_folder(self, folder: str) -> None:
        with Store(Path(folder) / "checkpoints"), pytest.raises(OSError, match=f"{os.getpid()}"):
            self.fit(folder, epochs=2)

    def test_a_damaged_checkpoint_is_passed_over_and_said(self, folder: str, capsys) -> None:
        self.fit(folder, epochs=2)
        newest = max(Path(folder, "checkpoints").glob("*14/**/*"), key=lambda path: path.stat().st_size)
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
        run = self.fit(folder, epochs=3, verbose=2)
        said = capsys.readouterr().out
        assert "fell back to step 7" in said and newest.name in said
        straight = self.fit(None, epochs=3)
        assert without_times(run.history) == without_times(straight.history)
