"""How much memory there is: the machine's and that of the process's control group, whichever is less."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from jaxdl.core import summary

MEMINFO = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\n"
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8_192_000),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "max\n", f"{V2}/memory.current": "5\n"}, 8_192_000),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "900\n", f"{V2}/memory.current": "400\n"}, 500),
        (  # cache of files that is not in use can be given up
            {
                "proc/self/cgroup": "0::/\n",
                f"{V2}/memory.max": "900\n",
                f"{V2}/memory.current": "400\n",
                f"{V2}/memory.stat": "anon 100\ninactive_file 300\n",
            },
            800,
        ),
        (  # a group above has less left than the process's own
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/memory.max": "900\n",
                f"{V2}/a/b/memory.current": "100\n",
                f"{V2}/a/memory.max": "600\n",
                f"{V2}/a/memory.current": "500\n",
            },
            100,
        ),
        (  # in a container, the host's path
            {"proc/self/cgroup": "0::/docker/1f\n", f"{V2}/memory.max": "70\n", f"{V2}/memory.current": "20\n"},
            50,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
                f"{V1}/x/memory.limit_in_bytes": "3000\n",
                f"{V1}/x/memory.usage_in_bytes": "1000\n",
            },
            2000,
        ),
        (  # version 1's way to say that there is no limit
            {
                "proc/self/cgroup": "4:memory:/\n",
                f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}/memory.usage_in_bytes": "1000\n",
            },
            8_192_000,
        ),
        (  # more in use than the limit, as after it was lowered
            {"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "10\n", f"{V2}/memory.current": "20\n"},
            0,
        ),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert summary.available_memory(tmp_path) == expected


def test_without_proc_the_free_pages_count(tmp_path: Path) -> None:
    assert summary.available_memory(tmp_path) > 0


def test_a_cpu_has_the_memory_that_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "available_memory", lambda: 123)
    assert summary.device_memory(jax.devices("cpu")[0]) == 123
