"""What every test runs under: the CPU by default, strict dtypes and ranks, one compile cache, real data if present."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"

# Before jax is imported, and as environment variables, so that the processes which tests start share them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

import hypothesis
import jax
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example of a property compiles.
_examples = DirectoryBasedExampleDatabase(CACHE / "hypothesis")
hypothesis.settings.register_profile("fast", max_examples=25, deadline=None, database=_examples)
hypothesis.settings.register_profile("slow", max_examples=500, deadline=None, database=_examples)
hypothesis.settings.load_profile("fast")

_DATA = os.environ.get("JAXDL_DATA", "")
_NO_DATA = (
    f"JAXDL_DATA is {_DATA!r}, which is no folder"
    if _DATA
    else "JAXDL_DATA is not set: it names the folder of the real data sets"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need what this machine lacks, each with its reason."""
    without_data = pytest.mark.skip(reason=_NO_DATA)
    without_devices = pytest.mark.skip(reason="needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    for item in items:
        if item.get_closest_marker("data") and not Path(_DATA or "/nowhere").is_dir():
            item.add_marker(without_data)
        if item.get_closest_marker("devices8") and jax.device_count() < 8:
            item.add_marker(without_devices)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that JAXDL_DATA names; the test is skipped where there is none."""
    if not Path(_DATA or "/nowhere").is_dir():
        pytest.skip(_NO_DATA)
    return Path(_DATA).resolve()
