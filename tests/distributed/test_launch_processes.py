"""`jaxdl launch` with processes that really join: killed, restarted, and checked before they begin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.distributed.supervised import ROOT

# Adds up a number of each process, step by step, from what process 0 wrote down last.
ADDS = """
import os, signal, sys
from pathlib import Path
import jax, numpy as np
from jax.experimental import multihost_utils
import jaxdl
from jaxdl.parallel.join import beat

assert jaxdl.join() is True
number, folder = jax.process_index(), Path(sys.argv[1])
kept = folder / "kept"
step, total = map(int, kept.read_text().split()) if kept.exists() else (0, 0)
while step < 6:
    mine = np.array([(number + 1) * 10**number * step], np.int32)
    total += int(multihost_utils.process_allgather(mine).sum())
    step += 1
    beat(f"step {step}")
    if number == 0:
        (folder / "new").write_text(f"{step} {total}")
        (folder / "new").rename(kept)
    for victim in (1, 0):
        if step == 4 - victim and number == victim and not (folder / f"killed-{victim}").exists():
            (folder / f"killed-{victim}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
if number == 1 and not (folder / "preempted").exists():
    (folder / "preempted").touch()
    os.kill(os.getpid(), signal.SIGTERM)  # ends a process that has joined, as any other
if number == 0:
    print("total", total, "on", jax.device_count(), "devices")
"""


def launch(folder: Path, *words: str, code: str = "") -> tuple[int, str]:
    """`jaxdl launch`, after `code`; its exit code and what it printed."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nfrom jaxdl.cli import main\nsys.exit(main(sys.argv[1:]))"]
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "launch", *words], cwd=folder, env=environment, text=True, timeout=240,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_killed_worker_a_killed_coordinator_and_a_preemption_are_survived(tmp_path):
    (tmp_path / "script.py").write_text(ADDS)
    code, said = launch(tmp_path, "-n", "2", "--devices-per-process", "2", "script.py", str(tmp_path))
    assert code == 0, said
    assert f"[0] total {sum(range(6)) * 21} on 4 devices" in said
    killed = re.findall(r"process (\d) was ended by SIGKILL \(.*\) after step (\d)", said)
    assert killed[0] == ("1", "3") and killed[1][0] == "0", said
    assert "process 1 was ended by SIGTERM" in said and "restart after preemption 1" in said
    assert said.count("started (pids") == 4 and "done, after 3 restarts" in said
    assert "Traceback" not in said, "what the survivors print is not shown"


FAULTY = """
import jax, sys
from jaxdl.parallel import health, worker

def wrong(left, right):
    product = health_multiply(left, right)
    return product.at[0, 0].add(1.0) if jax.process_index() == 1 else product

health_multiply, health.multiply = health.multiply, wrong
worker.main(sys.argv[1:])
"""


def test_a_process_whose_device_computes_wrong_is_named_and_nothing_begins(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "script.py").write_text("print('the script runs')")
    driver = (
        "import sys; from pathlib import Path; from jaxdl.parallel.launch import Job, supervise\n"
        "sys.exit(supervise(Job(('script.py',), 2, worker=(sys.executable, 'faulty.py'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver], cwd=tmp_path, env=dict(os.environ) | {"PYTHONPATH": str(ROOT)}, text=True,
        timeout=240, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 69, done.stdout
    assert "process 1 found a device that does not work (exit code 69)" in done.stdout
    assert re.search(
        r"\[1\] process 1 on .*, device cpu:\d+ \(cpu\): a product of 256 x 256 matrices is wrong", done.stdout
    )
    assert "the script runs" not in done.stdout
    assert done.stdout.count("started (pids") == 1
