"""fit under `jaxdl launch`: whatever ends a process, and when, the losses are those of the run that nobody ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxdl
from jaxdl.checkpoint import Store
from jaxdl.parallel.launch import Job, supervise

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import jax, numpy as np
import jaxdl, jaxdl.training
from jaxdl.checkpoint import together
from jaxdl.parallel import Parallel

folder, what, number, when, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
mine = jax.process_index() == number and not (folder / "happened").exists()

def happen():
    (folder / "happened").touch()
    if what == "hang":
        time.sleep(1000)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[what])

beat, saves = jaxdl.training.beat, 0

def watched(text):
    beat(text)
    if mine and when == text and what != "none":
        happen()

def writes(*arguments, **settings):
    global saves
    saves += 1
    if mine and when == f"save {saves}":
        happen()
    return write_pieces(*arguments, **settings)

jaxdl.training.beat, write_pieces, together.write_pieces = watched, together.write_pieces, writes

train, test = jaxdl.data.load("digits")
task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(64, 32)))
run = jaxdl.fit(
    task, train.select(np.arange(203)), validation=test.select(np.arange(90)), epochs=epochs, batch_size=64,
    optimizer=jaxdl.optim.sgd(0.05, momentum=0.9), parallel=Parallel("fsdp", shard_above=64), verbose=2,
    checkpoint=jaxdl.Checkpoint(str(folder / "run"), every=2), program=jaxdl.ProgramOptions(steps_per_dispatch=2),
)
if jax.process_index() == 0:
    (folder / "result").write_text(json.dumps([run.history, run.stopped, jax.process_count()]))
"""


def launch(folder: Path, *arguments: Any, processes: int = 2, devices: int = 2, **options: Any) -> int:
    """The exit code of the job that trains in `folder`."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    settings: dict[str, Any] = {"devices_per_process": devices, "pause_seconds": 0.1, "heartbeat_seconds": 20}
    command = (str(script), str(folder), *map(str, arguments))
    return supervise(Job(command, processes, **settings | options))


def losses(folder: Path) -> list[tuple[float, float]]:
    """Of each epoch, training and validation."""
    history, stopped, _ = json.loads((folder / "result").read_text())
    assert stopped == "finished"
    assert [record["epoch"] for record in history] == list(range(1, len(history) + 1))
    return [(record["train:loss"], record["validation:loss"]) for record in history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "job"
    assert launch(folder, "none", 0, "never", 3) == 0
    return folder


@pytest.fixture
def straight(undisturbed: Path) -> list[tuple[float, float]]:
    return losses(undisturbed)


def test_one_process_loads_what_two_have_trained(undisturbed: Path) -> None:
    _, test = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(64, 32)))
    run = jaxdl.load_run(undisturbed / "run", task, test, which="last")
    seen = run.evaluate(test.select(np.arange(90)))["loss"]
    assert seen == pytest.approx(losses(undisturbed)[-1][1], rel=1e-5)
    assert run.stopped == "finished" and (undisturbed / "run" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("what", "number", "when"),
    [
        ("kill", 1, "step 6"),
        ("term", 1, "evaluating"),
        pytest.param("term", 1, "step 6", marks=pytest.mark.slow),
        pytest.param("kill", 0, "step 6", marks=pytest.mark.slow),
        pytest.param("term", 0, "save 3", marks=pytest.mark.slow),
        pytest.param("kill", 1, "save 3", marks=pytest.mark.slow),
        pytest.param("kill", 0, "save 3", marks=pytest.mark.slow),
        pytest.param("hang", 1, "step 6", marks=pytest.mark.slow),
    ],
)
def test_losses_are_equal_to_the_last_digit(
    tmp_path: Path, capfd: Any, straight: list[tuple[float, float]], what: str, number: int, when: str
) -> None:
    limits = {"hang_seconds": 8.0} if what == "hang" else {}
    assert launch(tmp_path / "job", what, number, when, 3, **limits) == 0
    assert (tmp_path / "job" / "happened").exists()
    assert losses(tmp_path / "job") == straight
    said = capfd.readouterr()
    assert "done, after 1 restart" in said.err
    names = {"kill": f"process {number} was ended by SIGKILL", "term": "preempted", "hang": "hangs"}
    assert names[what] in said.err
    assert "resumed at step" in said.out
    with Store(tmp_path / "job" / "run" / "checkpoints", read_only=True) as store:
        assert store.steps()[-1] == 12 and store.verify() == []


@pytest.mark.slow
def test_half_as_many_processes_go_on(tmp_path: Path) -> None:
    assert launch(tmp_path / "job", "none", 0, "never", 2, processes=4, devices=1) == 0
    first = losses(tmp_path / "job")
    assert launch(tmp_path / "job", "none", 0, "never", 3, processes=2, devices=1) == 0
    assert losses(tmp_path / "job")[:2] == first
    assert launch(tmp_path / "whole", "none", 0, "never", 3, processes=1, devices=1) == 0
    for one, other in zip(losses(tmp_path / "job"), losses(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capfd: Any) -> None:
    assert launch(tmp_path / "job", "none", 0, "never", 2) == 0
    checkpoints = tmp_path / "job" / "run" / "checkpoints"
    newest = sorted(path for path in checkpoints.iterdir() if path.name.isdecimal())[-1]
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    capfd.readouterr()
    assert launch(tmp_path / "job", "none", 0, "never", 3) == 0
    said = capfd.readouterr().out
    assert "fell back to step 6" in said and largest.name in said
    assert launch(tmp_path / "whole", "none", 0, "never", 3) == 0
    assert losses(tmp_path / "job") == losses(tmp_path / "whole")
