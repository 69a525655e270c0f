"""The compile cache: on by itself, in the user's folder, seen and cleared; a user's own setting wins."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import jax, jaxdl
from jaxdl.core import compile_cache
train, _ = jaxdl.data.load("iris")
task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=3))
jaxdl.fit(task, train, epochs=1, verbose=0)
info = compile_cache.info()
print(info.folder, info.programs, info.bytes)
if {clear}:
    print(compile_cache.clear().programs, compile_cache.info().programs)
"""


def _run(clear: bool, **environment: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(clear=clear)], env=env | environment, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_on_by_default_seen_and_cleared(tmp_path) -> None:
    folder, programs, size = _run(False, JAXDL_CACHE=str(tmp_path))[:3]
    assert folder.startswith(str(tmp_path)) and int(programs) >= 2 and int(size) > 1000
    again = _run(True, JAXDL_CACHE=str(tmp_path))
    assert again[1] == programs  # the second run compiled nothing new
    assert again[3:] == [programs, "0"]


def test_a_users_own_folder_wins_and_is_not_cleared(tmp_path) -> None:
    folder = _run(False, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"), JAXDL_CACHE=str(tmp_path / "ours"))[0]
    assert folder == str(tmp_path / "own")
    assert not (tmp_path / "ours").exists()


def test_off(tmp_path) -> None:
    assert _run(False, JAXDL_CACHE="off", HOME=str(tmp_path))[1:] == ["0", "0"]
