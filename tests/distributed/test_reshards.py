"""No mesh makes XLA copy whole arrays to every device for want of a shorter way from one sharding to the next."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.devices8

#: Compiles each mesh without the cache, since only a compilation prints the line, and names it where it speaks.
SCRIPT = """
import sys
from jaxdl.core.plan import RunPlan
from jaxdl.parallel import Parallel
from tests.distributed import test_presets as presets
from tests.distributed import test_transformers as transformers

task, names = sys.argv[1], sys.argv[2].split(";")
for name in names:
    for parts in (1,) if task == "gpt" else (1, 2):
        print("mesh:", task, name, "in", parts, file=sys.stderr, flush=True)
        if task == "gpt":
            built = transformers.program(transformers.MIXES[name])
        else:
            built = presets.program(getattr(presets, task)(), presets.PRESETS[name], parts, plan=RunPlan("unrolled", 1))
        built.compile()
        built.init()
"""


def warned(task: str, names: list[str]) -> list[str]:
    """What XLA said of whole copies, each line with its mesh before it."""
    environment = dict(os.environ) | {"JAX_ENABLE_COMPILATION_CACHE": "false", "TF_CPP_MIN_LOG_LEVEL": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, task, ";".join(names)], env=environment, capture_output=True, text=True,
        timeout=1500, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-4000:]
    mesh, found = "", []
    for line in ran.stderr.splitlines():
        mesh = line if line.startswith("mesh:") else mesh
        if "Involuntary full rematerialization" in line:
            found.append(f"{mesh}: {line}")
    assert mesh  # the script did speak
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mlp", "convnet"])
def test_every_preset_reshards_without_whole_copies(task: str) -> None:
    from tests.distributed.test_presets import PRESETS

    assert warned(task, list(PRESETS)) == []


@pytest.mark.slow
def test_every_mix_of_a_gpt_reshards_without_whole_copies() -> None:
    from tests.distributed.test_transformers import MIXES

    assert warned("gpt", list(MIXES)) == []


def test_groups_with_a_split_optimizer_reshard_without_whole_copies() -> None:
    assert warned("mlp", ["mics+zero1"]) == []
