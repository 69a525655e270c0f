"""Memory that is freed stays with the process where the C library can be told so, unless the user says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, jax, jax.numpy as jnp
from jaxdl.core.allocator import keep_freed_memory
kept = keep_freed_memory()
narrow = jnp.ones((4096, 8))
step = jax.jit(lambda x: jnp.linalg.norm((x @ x.T) @ x))     # the product is a temporary of 64 MB
for _ in range(3):
    jax.block_until_ready(step(narrow))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    jax.block_until_ready(step(narrow))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> tuple[bool, int]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "JAXDL_MALLOC"}
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=env | environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    kept, count = out.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_page_faults_are_gone_and_a_users_setting_wins() -> None:
    kept, with_kept = faults()
    left, with_system = faults(JAXDL_MALLOC="system")
    assert kept and not left
    assert with_system > 10 * max(with_kept, 100)  # 5 times 64 MB are 81,920 pages
    assert faults(MALLOC_ARENA_MAX="2")[0] is False
