"""A run's folder survives what happens to folders: killed writers, odd numbers, missing and broken files."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.tracking import RunFolder, list_runs


def _record(step: int, **more: object) -> dict[str, object]:
    return {"kind": "train", "step": step, "train:loss": 1.0 / step, **more}


@pytest.mark.smoke
def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "run")
    folder.append({"kind": "train", "step": np.int64(1), "train:loss": jnp.float32(0.5), "note": None})
    folder.append({"kind": "epoch", "step": 2, "train:loss": math.nan, "x": math.inf, "y": -math.inf})
    folder.append({"kind": "note", "step": 2, "text": "nan"})
    first, epoch, note = folder.records()
    assert first == {"kind": "train", "step": 1, "train:loss": 0.5, "note": None}
    assert math.isnan(epoch["train:loss"]) and epoch["x"] == math.inf and epoch["y"] == -math.inf
    assert note["text"] == "nan", "text stays text"
    assert folder.records("note") == [note]
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1], parse_constant=pytest.fail)["train:loss"] == "nan", "strict JSON, for other readers"


def test_a_line_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    script = "import os,sys; from jaxdl.tracking import RunFolder; f=RunFolder.create(sys.argv[1])\n"
    script += "for i in range(3): f.append({'kind':'train','step':i})\nos._exit(9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert [record["step"] for record in RunFolder.open(tmp_path).records()] == [0, 1, 2]


def test_a_half_written_line_is_ignored_and_replaced(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.append(_record(1))
    folder.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert [record["step"] for record in folder.records()] == [1]
    folder.append(_record(2))
    assert [record["step"] for record in folder.records()] == [1, 2]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\noops\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a JSON record"):
        folder.records()
    (tmp_path / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: a record is an object"):
        folder.records()


def test_rewind_drops_what_came_after_a_step(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    assert folder.rewind(3) == 0, "nothing yet"
    for step in range(1, 7):
        folder.append(_record(step, odd=math.nan))
    assert folder.rewind(4) == 2
    folder.append(_record(5))
    records = folder.records()
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5] and math.isnan(records[0]["odd"])
    assert folder.rewind(-1) == 5 and folder.records() == []
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


@dataclass(frozen=True)
class _Setting:
    rate: float
    names: tuple[str, ...]


def test_json_keeps_odd_numbers_and_words(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    setting = _Setting(math.inf, ("nan", "inf"))
    folder.write_json("config.json", {"a": setting, "b": np.arange(3), "c": tmp_path, "d": {2, 1}, "e": [math.nan]})
    content = folder.read_json("config.json")
    assert content["a"] == {"rate": math.inf, "names": ["nan", "inf"]}, "a class may be called nan"
    assert (content["b"], content["c"], content["d"]) == ([0, 1, 2], str(tmp_path), [1, 2])
    assert math.isnan(content["e"][0])


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path)
    folder.write_json("config.json", {"a": 1})
    with pytest.raises(TypeError, match=re.escape("config.json['b'][1]: a object cannot be written")):
        folder.write_json("config.json", {"b": [1, object()]})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_json("config.json", {"a": 2})
    assert folder.read_json("config.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_sentences(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs" / "digits")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        folder.read_json("config.json")
    (folder.path / "config.json").write_text('{"a": }')
    with pytest.raises(ValueError, match=r"config\.json, line 1, column 7: not JSON"):
        folder.read_json("config.json")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*digit; runs in .*runs: digits"):
        RunFolder.open(tmp_path / "runs" / "digit")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileExistsError, match="is a file; a run needs a folder"):
            RunFolder.create(path)
    with pytest.raises(ValueError, match="one of running, finished"):
        folder.set_status("done")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        list_runs(tmp_path / "nowhere")


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(PermissionError, match="may not be written; give another"):
        RunFolder.create(tmp_path)
    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(PermissionError, match="may not be made: Permission denied; give another"):
        RunFolder.create(tmp_path / "run")


@pytest.mark.smoke
def test_index_of_runs(tmp_path: Path) -> None:
    best = {"metric": "validation:accuracy", "value": 0.98, "epoch": 2, "step": 20}
    first = RunFolder.create(tmp_path / "first")
    first.set_status("running", step=0)
    first.set_status("finished", epochs=3, step=30, seconds=1.5, best=best)
    RunFolder.create(tmp_path / "sweep" / "second").set_status("running", step=7)
    killed = RunFolder.create(tmp_path / "sweep" / "killed")
    killed.set_status("running", step=5)
    content = killed.read_json("run.json")
    killed.write_json("run.json", content | {"pid": 2**22 + 1})  # above the largest process id
    RunFolder.create(tmp_path / "old").write_json("config.json", {})
    (RunFolder.create(tmp_path / "broken").path / "run.json").write_text("{")
    runs = {run["name"]: run for run in list_runs(tmp_path)}
    assert set(runs) == {"first", str(Path("sweep/second")), str(Path("sweep/killed")), "old", "broken"}
    assert runs["first"]["status"] == "finished" and runs["first"]["best"] == best
    assert (runs["first"]["epochs"], runs["first"]["step"], runs["first"]["seconds"]) == (3, 30, 1.5)
    assert runs[str(Path("sweep/second"))]["status"] == "running"
    assert runs[str(Path("sweep/killed"))]["status"] == "interrupted"
    assert runs["old"]["status"] == "unknown" and runs["old"]["problem"] is None
    assert "line 1" in runs["broken"]["problem"]
    assert [run["name"] for run in list_runs(tmp_path / "first")] == ["first"]
