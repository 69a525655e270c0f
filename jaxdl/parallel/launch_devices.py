"""Which devices each process of one host gets, found without touching one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

_CUDA = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_VIRTUAL = "--xla_force_host_platform_device_count"


def shares(
    processes: int,
    devices_per_process: int | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    gpus: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """The environment of each of `processes` processes: its share of the GPUs, or its virtual CPU devices.

    Args:
        devices_per_process: virtual devices of each, on the CPU.
        environment: by default that of this process.
        gpus: the numbers of this machine's GPUs; by default those that jax would use here.

    Raises:
        ValueError: the GPUs cannot be divided evenly.
    """
    base = dict(os.environ if environment is None else environment)
    gpus = found_gpus(base) if gpus is None else gpus
    if any(name.lower() in ("http_proxy", "https_proxy", "grpc_proxy") and value for name, value in base.items()):
        for name in ("no_proxy", "NO_PROXY"):  # the processes talk to each other, not through a proxy
            base[name] = ",".join(filter(None, [base.get(name), "127.0.0.1", "localhost"]))
    if devices_per_process is not None:
        if gpus:
            raise ValueError(
                f"--devices-per-process is for virtual CPU devices, but this machine has {len(gpus)} GPUs, which are "
                "shared out evenly: set JAX_PLATFORMS=cpu to train on the CPU"
            )
        flags = [flag for flag in base.get("XLA_FLAGS", "").split() if not flag.startswith(_VIRTUAL)]
        base["XLA_FLAGS"] = " ".join([*flags, f"{_VIRTUAL}={devices_per_process}"])
    if not gpus or processes == 1:
        return [dict(base) for _ in range(processes)]
    if len(gpus) % processes:
        divisors = ", ".join(str(count) for count in range(1, len(gpus) + 1) if len(gpus) % count == 0)
        raise ValueError(
            f"-n {processes}: {len(gpus)} GPUs ({', '.join(gpus)}) cannot be shared out evenly to {processes} "
            f"processes; choose {divisors}, or leave some out by CUDA_VISIBLE_DEVICES"
        )
    each = len(gpus) // processes
    return [
        base | {"CUDA_VISIBLE_DEVICES": ",".join(gpus[number * each : (number + 1) * each])}
        for number in range(processes)
    ]


def found_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that jax would use in this environment, as CUDA_VISIBLE_DEVICES names them; [] without any."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not re.search("cuda|gpu", platforms):
        return []
    if not any(importlib.util.find_spec(name) for name in _CUDA):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [part.strip() for part in environment["CUDA_VISIBLE_DEVICES"].split(",") if part.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []
