"""Disk full, no permission, two runs in one folder, errors in the background: a sentence each, and nothing lost."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import Store, arrays, commit
from jaxdl.checkpoint.lock import NAME


def make_tree(step: int, size: int = 1000) -> dict:
    return {"x": jnp.full((size,), float(step)), "step": jnp.int32(step)}


def run(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


def left_overs(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".jaxdl-") and path.name != NAME]


def failing_writer(error: BaseException, times: int):
    """A writer that leaves half of its work and raises, then works again."""
    calls = []

    def write(folder, stored):
        calls.append(folder)
        if len(calls) <= times:
            folder.mkdir()
            (folder / "half").write_bytes(b"x" * 100)
            raise error
        return arrays.write_arrays(folder, stored)

    return write


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (ValueError("UNKNOWN: writev failed: [OS error 28: No space left on device] file.cc:12"), "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line"),
    ],
)
@pytest.mark.parametrize("surfaces_at", ["save", "wait", "close"])
def test_an_error_in_the_background_surfaces_once_and_the_next_save_works(
    tmp_path, monkeypatch, error, says, surfaces_at
):
    store = Store(tmp_path)
    store.save(1, make_tree(1), manifest={}, wait=True)
    monkeypatch.setattr(commit, "write_arrays", failing_writer(error, times=1))
    store.save(2, make_tree(2), manifest={})
    with pytest.raises(OSError, match=f"step 2 was not saved.*{re.escape(says)}.*newest good one is step 1"):
        {"save": lambda: store.save(3, make_tree(3), manifest={}), "wait": store.wait, "close": store.close}[
            surfaces_at
        ]()
    assert left_overs(tmp_path) == []
    if surfaces_at == "close":
        store.close()  # it was said once
        store = Store(tmp_path)
    store.save(4, make_tree(4), manifest={}, wait=True)
    assert store.steps() == (1, 4) and store.verify() == []
    assert float(store.restore(make_tree(0)).tree["x"][0]) == 4
    store.close()


def test_a_failed_replacement_leaves_the_old_one(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.save(1, make_tree(1), manifest={}, wait=True)
        rename = os.rename

        def refuse(source, target):
            if Path(source).name.startswith(".jaxdl-saving"):
                raise OSError(errno.EIO, "Input/output error")
            return rename(source, target)

        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(OSError, match="step 1 was not saved"):
            store.save(1, make_tree(7), manifest={}, wait=True)
        monkeypatch.undo()
        assert float(store.restore(make_tree(0)).tree["x"][0]) == 1 and left_overs(tmp_path) == []


def test_a_save_that_stands_is_not_called_lost_when_deleting_fails(tmp_path, monkeypatch):
    with Store(tmp_path, keep=1) as store:
        store.save(1, make_tree(1), manifest={}, wait=True)
        monkeypatch.setattr(
            commit, "delete", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "Permission denied"))
        )
        with pytest.raises(
            OSError, match=r"step 2 was saved.*older checkpoint could not be deleted: permission denied"
        ):
            store.save(2, make_tree(2), manifest={}, wait=True)
        assert store.steps() == (1, 2)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_disk_that_is_really_full(tmp_path):
    """A tmpfs of 3 MB: at 1 MB each the third does not fit, first by what is free, then by what the writer meets."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        with Store(tmp_path, keep=None) as store:
            size = 2**18
            for step in (1, 2):
                store.save(step, make_tree(step, size), manifest={}, wait=True)
            with pytest.raises(OSError, match=r"step 3 was not saved.*disk is full.*1\.0 MB.*step 2"):
                store.save(3, make_tree(3, size), manifest={}, wait=True)
            free = shutil.disk_usage(tmp_path).free
            with pytest.raises(OSError, match=r"step 3 was not saved.*disk is full"):
                store.save(3, make_tree(3, free // 4 - 4), manifest={}, wait=True)  # fits, but without Orbax's index
            assert left_overs(tmp_path) == [] and store.verify() == []
            store.save(3, make_tree(3, 10), manifest={}, wait=True)
            assert store.steps() == (1, 2, 3)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_limit_on_file_sizes(tmp_path):
    """RLIMIT_FSIZE makes real writes fail in the middle, deep inside the storage library."""
    code = f"""
import resource, jax.numpy as jnp
from jaxdl.checkpoint import Store
store = Store({str(tmp_path)!r})
store.save(1, {{"x": jnp.ones(1000)}}, manifest={{}}, wait=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    store.save(2, {{"x": jnp.ones(1_000_000)}}, manifest={{}}, wait=True)
except OSError as error:
    print("said:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(3, {{"x": jnp.ones(1_000_000)}}, manifest={{}}, wait=True)
print(store.steps(), store.verify())
"""
    ended = run(code)
    assert re.search("said: .*step 2 was not saved.*the next save tries again", ended.stdout), ended
    assert "(1, 3) []" in ended.stdout and "Traceback" not in ended.stderr
    assert left_overs(tmp_path) == []


@contextlib.contextmanager
def as_nobody():
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_folder_without_permission():
    with tempfile.TemporaryDirectory() as open_to_all:  # pytest's own folders cannot even be entered by others
        folder = Path(open_to_all)
        folder.chmod(0o755)
        with Store(folder / "run") as store:
            store.save(1, make_tree(1), manifest={}, wait=True)
        with as_nobody():
            for forbidden in (folder / "run", folder / "new"):
                says = f"cannot be written into {forbidden}.*permission denied.*choose a folder"
                with pytest.raises(PermissionError, match=says):
                    Store(forbidden)
            with Store(folder / "run", read_only=True) as store:
                assert store.restore(make_tree(0)).step == 1 and store.verify() == []


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match=r"cannot be written into .*run"):
        Store(tmp_path / "run")


def test_a_folder_removed_meanwhile(tmp_path):
    store = Store(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError, match=r"step 1 was not saved.*no such file or directory.*there is none yet"):
        store.save(1, make_tree(1), manifest={}, wait=True)
    store.close()


def test_two_runs_in_one_folder(tmp_path):
    """The second hears who is there, whether in this process or in another, and the first goes on undisturbed."""
    saving = tmp_path / ".jaxdl-saving-00000009"
    with Store(tmp_path) as store:
        saving.mkdir()
        who = f"process {os.getpid()} on {re.escape(socket.gethostname())}"
        with pytest.raises(OSError, match=f"another run writes checkpoints into.*{who}.*read_only=True"):
            Store(tmp_path)
        ended = run(f"import jaxdl.checkpoint as c; c.Store({str(tmp_path)!r})")
        assert ended.returncode == 1 and re.search(who, ended.stderr)
        assert saving.exists()  # only the holder of the lock cleans
        store.save(1, make_tree(1), manifest={}, wait=True)
    Store(tmp_path).close()
    assert not saving.exists() and not (tmp_path / NAME).exists()


def test_a_store_that_is_dropped_unclosed_locks_nobody_out(tmp_path):
    store = Store(tmp_path)
    store.save(1, make_tree(1), manifest={}, wait=True)
    del store
    gc.collect()
    with Store(tmp_path) as again:
        assert again.steps() == (1,)


def test_the_lock_of_a_dead_run_is_taken_over(tmp_path):
    code = f"import os, jaxdl.checkpoint as c; c.Store({str(tmp_path)!r}); os.kill(os.getpid(), 9)"
    assert run(code).returncode == -9
    assert (tmp_path / NAME).exists()
    with Store(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_the_lock_that_an_orphan_holds_for_a_dead_run_is_taken_over(tmp_path):
    """A forked worker outlives its killed parent and keeps the parent's file open."""
    code = f"""
import fcntl, json, os, socket, time
file = os.open({str(tmp_path / NAME)!r}, os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, json.dumps({{"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}}).encode())
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(60)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    orphan = int(parent.stdout.readline())
    parent.stdout.close()
    parent.wait()
    try:
        with Store(tmp_path) as store:
            store.save(1, make_tree(1), manifest={}, wait=True)
            with pytest.raises(OSError, match=f"process {os.getpid()}"):
                Store(tmp_path)
    finally:
        os.kill(orphan, 9)


def test_left_overs_are_cleaned_and_others_are_left(tmp_path):
    with Store(tmp_path) as store:
        store.save(1, make_tree(1), manifest={}, wait=True)
        store.save(2, make_tree(2), manifest={}, wait=True)
    for name in (".jaxdl-saving-00000003", ".jaxdl-deleting-00000000"):
        (tmp_path / name / "arrays").mkdir(parents=True)
        (tmp_path / name / "arrays" / "d").write_bytes(b"half")
    (tmp_path / "00000002").rename(tmp_path / ".jaxdl-replaced-00000002")  # killed between the two renames
    for name in ("my-notes", ".jaxdlrc"):
        (tmp_path / name).mkdir()
    with Store(tmp_path) as store:
        assert store.steps() == (1, 2) and store.verify() == [] and left_overs(tmp_path) == []
    assert (tmp_path / "my-notes").exists() and (tmp_path / ".jaxdlrc").exists()


def test_waiting_for_the_save_before(tmp_path, monkeypatch):
    """Two saves in a row: the second waits for the first, and both are there, each with its own values."""

    def slow(folder, stored):
        time.sleep(0.1)
        arrays.write_arrays(folder, stored)

    monkeypatch.setattr(commit, "write_arrays", slow)
    with Store(tmp_path) as store:
        for step in (1, 2):
            store.save(step, make_tree(step), manifest={})
    with Store(tmp_path, read_only=True) as store:
        assert [float(np.asarray(store.restore(make_tree(0), step=step).tree["x"][0])) for step in (1, 2)] == [1, 2]
