"""A damaged checkpoint is found, named and passed over; a sound one of another tree is refused with its paths."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import CorruptCheckpoint, Store
from jaxdl.checkpoint.arrays import write_arrays
from jaxdl.checkpoint.manifest import crc32_of_file


def make_tree(step: int) -> dict:
    x = np.random.default_rng(step).standard_normal((40, 30)).astype(np.float32)
    return {"params": {"kernel": jnp.asarray(x), "bias": jnp.zeros(30)}, "step": jnp.int32(step)}


@pytest.fixture
def folder(tmp_path) -> Path:
    with Store(tmp_path) as store:
        for step in (30, 40):
            store.save(step, make_tree(step), manifest={"step": step}, wait=True)
    return tmp_path


def files_of(folder: Path, step: int) -> list[Path]:
    return sorted(path for path in (folder / f"{step:08d}").rglob("*") if path.is_file())


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "appended":
        path.write_bytes(raw + b"x")
    elif how == "swapped":
        path.unlink()
        path.mkdir()
    else:
        raw[{"first": 0, "middle": len(raw) // 2, "last": len(raw) - 1}[how]] ^= 4
        path.write_bytes(raw)


@pytest.mark.parametrize("how", ["first", "middle", "last", "truncated", "deleted", "appended", "swapped"])
def test_each_stored_file_damaged_in_turn_is_found(folder, how):
    """One file after the other: verify names it, step= refuses it, and without step= the older one is taken."""
    files = files_of(folder, 40)
    assert len(files) >= 4 and any(path.name == "manifest.json" for path in files)
    tried = 0
    with Store(folder, read_only=True) as store:
        for path in files:
            if path.stat().st_size == 0:
                continue
            kept = path.read_bytes()
            damage(path, how)
            for problems in (store.verify(40), store.verify()):
                assert any(str(path) in problem for problem in problems)
                if how in ("truncated", "appended") and path.name != "manifest.json":
                    assert any(re.search(r"has \d+ bytes, the manifest says \d+", problem) for problem in problems)
            with pytest.raises(CorruptCheckpoint) as caught:
                store.restore(make_tree(0), step=40)
            assert str(path) in str(caught.value) and "step 40 is corrupt" in str(caught.value)
            restored = store.restore(make_tree(0))
            assert restored.step == 30 and np.array_equal(
                restored.tree["params"]["kernel"], make_tree(30)["params"]["kernel"]
            )
            assert "fell back to step 30" in restored.notes[0] and str(path) in restored.notes[0]
            if path.is_dir():
                path.rmdir()
            path.write_bytes(kept)
            tried += 1
        assert store.verify() == [] and store.restore(make_tree(0)).step == 40
    assert tried == len(files)


def test_every_bit_of_a_small_manifest_counts(folder):
    path = folder / "00000040" / "manifest.json"
    text = path.read_bytes()
    with Store(folder, read_only=True) as store:
        for at in range(0, len(text), max(1, len(text) // 150)):
            path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
            with pytest.raises(CorruptCheckpoint, match=r"manifest\.json"):
                store.manifest(40)


def reseal(path: Path, change) -> None:
    """Edit a manifest as one who knows its crc32 would."""
    record = json.loads(path.read_bytes())
    del record["crc32"]
    change(record)
    body = json.dumps(record, indent=1).encode()[2:]
    path.write_bytes(b'{"crc32": "%08x",\n' % zlib.crc32(body) + body)


def test_other_values_under_right_checksums_are_found_by_the_fingerprint(folder):
    """What Orbax restored silently: files that are sound as files and hold other bits."""
    checkpoint = folder / "00000040"
    other = {f"params/{name}": np.asarray(x) for name, x in make_tree(40)["params"].items()} | {"step": np.int32(40)}
    other["params/kernel"] = other["params/kernel"].copy()
    other["params/kernel"].view(np.uint32)[7, 7] ^= 1
    shutil.rmtree(checkpoint / "arrays")
    write_arrays(checkpoint / "arrays", {path: np.asarray(x) for path, x in other.items()})
    new = {
        path.relative_to(checkpoint).as_posix(): {"size": path.stat().st_size, "crc32": crc32_of_file(path)}
        for path in files_of(folder, 40)
        if path.name != "manifest.json"
    }
    reseal(checkpoint / "manifest.json", lambda record: record.update(files=new))
    with Store(folder) as store:
        assert [problem for problem in store.verify() if "params/kernel has fingerprint" in problem]
        with pytest.raises(CorruptCheckpoint, match="params/kernel has fingerprint"):
            store.restore(make_tree(0), step=40)
        assert store.restore(make_tree(0)).step == 30


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["leaves"]["params/bias"].update(shape=[5, 6]), r"params/bias.*\[30\].*\[5, 6\]"),
        (lambda record: record["leaves"]["params/bias"].update(dtype="int32"), "params/bias.*float32.*int32"),
        (lambda record: record["leaves"].update(ghost=record["leaves"]["step"]), "ghost"),
        (lambda record: record.update(format=99), "format 99"),
        (lambda record: record.update(step=41), "renamed"),
    ],
)
def test_a_manifest_that_does_not_tell_the_truth_is_found(folder, change, says):
    reseal(folder / "00000040" / "manifest.json", change)
    with Store(folder, read_only=True) as store:
        assert re.search(says, " ".join(store.verify(40)))


def test_a_renamed_checkpoint_is_found(folder):
    (folder / "00000040").rename(folder / "00000050")
    with Store(folder, read_only=True) as store:
        assert store.restore(make_tree(0)).step == 30
        with pytest.raises(CorruptCheckpoint, match="is that of step 40"):
            store.restore(make_tree(0), step=50)


def test_a_stranger_s_file_is_listed_and_does_no_harm(folder):
    (folder / "00000040" / "arrays" / "notes.txt").write_text("mine")
    with Store(folder, read_only=True) as store:
        assert [problem for problem in store.verify() if "notes.txt is not in the manifest" in problem]
        assert store.restore(make_tree(0)).step == 40


def test_when_all_are_damaged_all_are_named(folder):
    for step in (30, 40):
        damage(max(files_of(folder, step), key=lambda path: path.stat().st_size), "middle")
    with Store(folder) as store, pytest.raises(CorruptCheckpoint, match=r"(?s)step 40 is corrupt.*step 30 is corrupt"):
        store.restore(make_tree(0))


def test_a_damaged_newer_one_does_not_push_out_a_sound_one(folder):
    damage(max(files_of(folder, 40), key=lambda path: path.stat().st_size), "middle")
    with Store(folder, keep=2) as store:
        assert store.restore(make_tree(0)).step == 30
        store.save(35, make_tree(35), manifest={}, wait=True)
        assert store.steps() == (30, 35, 40)
        store.save(40, make_tree(40), manifest={}, wait=True)  # training comes by again
        assert store.steps() == (35, 40) and store.verify() == []


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tree: tree["params"].pop("bias"), "surplus in it: params/bias"),
        (lambda tree: tree["params"].update(scale=jnp.ones(3)), "missing in the checkpoint: params/scale"),
        (lambda tree: tree.update(step=jnp.zeros(2, jnp.int32)), r"step: shape \[\] in the checkpoint, \[2\] wanted"),
        (lambda tree: tree.update(step=jnp.float32(0)), "step: dtype int32 in the checkpoint, float32 wanted"),
        (
            lambda tree: tree["params"].update(biases=tree["params"].pop("bias")),
            r"path_map=\{'params/biases': 'params/bias'\}",
        ),
    ],
)
def test_another_tree_is_refused_with_its_paths(folder, change, says):
    """No fall back here: an older checkpoint of the same run would not fit either."""
    like = make_tree(0)
    change(like)
    with Store(folder) as store, pytest.raises(ValueError, match=says) as caught:
        store.restore(like)
    assert not isinstance(caught.value, CorruptCheckpoint) and "step 40" in str(caught.value)


def test_a_missing_step_is_named_with_those_there(folder):
    with Store(folder, read_only=True) as store:
        for call in (lambda: store.restore(make_tree(0), step=7), lambda: store.verify(7), lambda: store.manifest(7)):
            with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7: it holds 30, 40"):
                call()


def test_the_best_is_not_looked_for_in_a_damaged_manifest(tmp_path):
    with Store(tmp_path) as store:
        for step, metric in ((1, 0.1), (2, 0.2)):
            store.save(step, {"x": jax.numpy.ones(2)}, manifest={}, metric=metric, wait=True)
    damage(tmp_path / "00000001" / "manifest.json", "middle")
    with Store(tmp_path) as store:
        assert store.best_step() == 2
