"""Checkpoints of several processes, which are real ones: the same bits on every mesh, and trouble that all hear of.

Each start costs seconds, so each tells many stories; what the processes do is in checkpointing.py.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdl.checkpoint import CorruptCheckpoint, Store, fingerprint
from tests.distributed import several
from tests.distributed.checkpointing import flip, values

SCRIPT = """
import sys
from pathlib import Path
import pytest
from tests.distributed import checkpointing
folder, *arguments = sys.argv[1:]
folder = Path(folder)
monkeypatch = pytest.MonkeyPatch()
"""


def run(tmp_path: Path, body: str, count: int, devices: int, *arguments: object) -> list[str]:
    """What each process printed, which runs the body after the imports above."""
    texts = [str(each) for each in (tmp_path, *arguments)]
    return several.run(SCRIPT + body, count, tmp_path / "out", devices=devices, arguments=texts)


def like() -> dict[str, np.ndarray]:
    return {name: np.zeros(x.shape, x.dtype) for name, x in values().items()}


def same(tree: dict[str, jax.Array], step: int) -> bool:
    return all(np.asarray(tree[name]).tobytes() == x.tobytes() for name, x in values(step).items())


def test_two_processes_save_and_one_reads_and_back(tmp_path: Path) -> None:
    """The bits, the fingerprints, and whatever `Store` offers, of two processes with two devices each."""
    run_folder = tmp_path / "run"
    with Store(run_folder) as store:
        store.save(1, like() | values(1), manifest={"step": 1}, metric=1.0, wait=True)  # as Orbax stores it
    body = """
checkpointing.numbers_are_those_of_one_process()
checkpointing.saves_and_restores(folder / "run", (2, 3), data=2, onto=(1, 2, 4))
checkpointing.a_part_of_a_tree(folder / "part")
checkpointing.as_on_accelerators(folder / "devices", monkeypatch)
checkpointing.keeping(folder / "keeping")
checkpointing.damage(folder / "damage")
checkpointing.trouble(folder / "trouble", monkeypatch)
checkpointing.missing(folder / "missing", monkeypatch)
checkpointing.refused(folder / "refused", folder / "held", monkeypatch)
"""
    with Store(tmp_path / "held"):
        run(tmp_path, body, 2, 2)
    with Store(run_folder, keep=None) as store:
        assert store.steps() == (1, 2, 3) and store.verify() == []
        for step in (1, 2, 3):
            restored = store.restore(like(), step=step)
            assert same(restored.tree, step) and restored.manifest["configuration"] == {"step": step}
            assert restored.manifest["fingerprint"] == fingerprint(restored.tree).whole
            assert ("pieces" in restored.manifest["leaves"]["kernel"]) == (step > 1)
        sizes = [of["size"] for of in store.manifest(3)["files"].values()]
        assert len(sizes) == 2 and sum(sizes) == sum(x.nbytes for x in values(3).values())  # nothing is written twice
        flip(run_folder / "00000003" / "pieces-00001")
        with pytest.raises(CorruptCheckpoint, match="pieces-00001 has crc32"):
            store.restore(like(), step=3)
        assert store.restore(like()).step == 2


@pytest.mark.parametrize(
    "moment", ["before the part", pytest.param("after the part", marks=pytest.mark.slow), "before the rename"]
)
def test_a_process_killed_in_the_middle_of_a_save(tmp_path: Path, moment: str) -> None:
    """What was there stands, the other process is not kept waiting, and the next opening sweeps."""
    body = 'checkpointing.killed(folder / "run", arguments[0])'
    started = several.start(SCRIPT + body, 2, tmp_path / "out", devices=2, arguments=[str(tmp_path), moment])
    ended = several.finish(started, tmp_path / "out", timeout=60)
    victim = 0 if moment == "before the rename" else 1
    assert ended[victim].code == -9, ended
    whole = moment == "after the part"
    if victim == 1:
        lines = ended[0].text.splitlines()
        if whole:
            assert "done" in lines, ended
        else:
            said = json.loads(lines[-1])
            assert f"process 1 of 2 on host {socket.gethostname()}" in said and "ended before it had written" in said
    folder = tmp_path / "run"
    assert any(path.name.startswith(".jaxdl-") for path in folder.iterdir())
    with Store(folder) as store:
        assert [path.name for path in folder.iterdir() if not path.name.isdecimal()] == [".jaxdl-lock"]
        assert store.steps() == ((1, 2, 3) if whole else (1, 2)) and store.verify() == []
        restored = store.restore(like())
        assert same(restored.tree, store.steps()[-1]) and restored.notes == ()


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bits_and_numbers(tmp_path: Path) -> None:
    """Saved by one, two, four processes on eight devices in turn, and read by all others, damage included."""
    steps: list[int] = []
    for step, (count, devices) in enumerate([(1, 8), (2, 4), (4, 2), (2, 1), (1, 4)]):
        steps.append(step)
        body = """
checkpointing.numbers_are_those_of_one_process()
step, data = int(arguments[0]), int(arguments[1])
checkpointing.saves_and_restores(folder / "run", (step,), data=data, onto=(1, 2))
"""
        run(tmp_path, body, count, devices, step, 2)
    with Store(tmp_path / "run", keep=None) as store:
        assert store.steps() == tuple(steps) and store.verify() == []
        assert [store.manifest(step)["environment"]["process_count"] for step in steps] == [1, 2, 4, 2, 1]
        assert all(same(store.restore(like(), step=step).tree, step) for step in steps)
    body = """
checkpointing.damage(folder / "damage")
checkpointing.trouble(folder / "trouble", monkeypatch)
checkpointing.refused(folder / "refused", folder / "held", monkeypatch)
"""
    with Store(tmp_path / "held"):
        run(tmp_path, body, 4, 1)
