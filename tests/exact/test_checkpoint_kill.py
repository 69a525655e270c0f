"""kill -9 at any moment of a save: the folder opens again, and the newest complete step comes back bit for bit."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import Store

WRITER = """
import os, sys
import jax.numpy as jnp, numpy as np
from jaxdl.checkpoint import Store, commit

folder, die_at = sys.argv[1], int(sys.argv[2])
calls = 0

def counted(of):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), 9)
        return of(*args, **options)
    return call

def tree(step):
    random = np.random.default_rng(step)
    return {"w": jnp.asarray(random.standard_normal((300, 400)), jnp.float32), "step": jnp.int32(step)}

store = Store(folder, keep=2)
first = (store.steps() or (0,))[-1] + 1
if die_at:
    store.save(first, tree(first), manifest={"step": first}, wait=True)
    for module, names in ((os, ("rename", "replace", "fsync", "mkdir")), (commit.shutil, ("rmtree",))):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    steps = (first, first + 1, first + 2)  # the first is replaced, the last makes the store delete
else:
    steps = range(first, first + 1000)
for step in steps:
    print("saving", step, flush=True)
    store.save(step, tree(step), manifest={"step": step}, wait=True)
    print("saved", step, flush=True)
print("calls", calls, flush=True)
"""


def make_tree(step: int) -> dict:
    x = np.random.default_rng(step).standard_normal((300, 400))
    return {"w": jnp.asarray(x, jnp.float32), "step": jnp.int32(step)}


def start(folder: Path, die_at: int = 0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(die_at)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(folder: Path, said: str) -> int:
    """Everything that was reported as saved and is still to be kept is there, whole; nothing half is."""
    saved = max(map(int, re.findall(r"saved (\d+)", said)), default=0)
    started = max(map(int, re.findall(r"saving (\d+)", said)), default=0)
    with Store(folder, keep=2) as store:
        assert [path.name for path in folder.iterdir() if not path.name.isdecimal()] == [".jaxdl-lock"]
        assert store.verify() == []
        if saved:
            restored = store.restore(make_tree(0))
            assert restored.notes == () and saved <= restored.step <= started
        for step in store.steps():
            tree = store.restore(make_tree(0), step=step).tree
            assert np.asarray(tree["w"]).tobytes() == np.asarray(make_tree(step)["w"]).tobytes()
            assert int(tree["step"]) == step and store.manifest(step)["configuration"] == {"step": step}
    return saved


def kill_at_random(folder: Path, times: int, seed: int) -> None:
    """Each run goes on in the folder that the killed one left."""
    moment = random.Random(seed)
    for _ in range(times):
        with start(folder) as writer:
            said = ""
            while "saved" not in said:  # the first save imports Orbax; from here on one follows the other
                line = writer.stdout.readline()
                assert line, writer.stderr.read()
                said += line
            time.sleep(moment.uniform(0, 0.25))
            writer.kill()
            said += writer.stdout.read()
        assert check(folder, said) > 0


def test_killed_at_random_moments(tmp_path):
    kill_at_random(tmp_path, times=5, seed=0)


@pytest.mark.slow
def test_killed_at_more_random_moments(tmp_path):
    kill_at_random(tmp_path, times=20, seed=1)


def kill_at_calls(folder: Path, moments) -> None:
    for die_at in moments:
        here = folder / str(die_at)
        here.mkdir()
        Store(here).close()
        writer = start(here, die_at)
        said, wrong = writer.communicate(timeout=60)
        assert writer.returncode == -9, (die_at, said, wrong)
        saved = check(here, "saved 1\n" + said)
        assert saved in (1, 2, 3)


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> int:
    """How many renames, flushes, folders and removals of ours and Orbax's a replacement, a save and a deletion take."""
    writer = start(tmp_path_factory.mktemp("counted"), die_at=10**6)
    said, wrong = writer.communicate(timeout=60)
    assert writer.returncode == 0, wrong
    return int(re.search(r"calls (\d+)", said)[1])


def test_killed_at_a_call_of_each_third(tmp_path, calls):
    """Deterministic moments: in the replacement of a step, in a save, and in the deletion of the oldest."""
    assert calls > 30
    kill_at_calls(tmp_path, (calls // 3 - 2, calls // 2, calls - 1))


@pytest.mark.slow
def test_killed_at_every_call(tmp_path, calls):
    kill_at_calls(tmp_path, range(1, calls + 1))
