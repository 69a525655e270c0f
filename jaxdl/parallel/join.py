"""Joining the other processes of a job, and saying to who started it that this one makes progress.

What joins is `jax.distributed`; this file knows who started the processes: `jaxdl launch`, Slurm, Open MPI, or an
indexed Kubernetes job. Nothing here touches a device.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import signal
import threading
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import jax

#: What `jaxdl launch` sets in the environment of each process; who starts processes by hand may set the first three.
COORDINATOR, PROCESSES, PROCESS, PROGRESS = "JAXDL_COORDINATOR", "JAXDL_PROCESSES", "JAXDL_PROCESS", "JAXDL_PROGRESS"

#: Set by `join` to the pid of the process that has joined, so that processes which it starts itself do not join, too.
JOINED = "JAXDL_JOINED"

#: What `jaxdl.parallel.worker` says when the script has come to its end.
SCRIPT_ENDED = "finished the script"

_SIZE = 512  # bytes of a progress file: a checksum, so that a half-written text is never read, the time, and the text

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


class Surroundings(NamedTuple):
    """Who started this process, as one of several.

    Attributes:
        by: "jaxdl launch", "Slurm", "Open MPI" or "Kubernetes".
        process: the number of this process; None where only the job's own interface knows.
        processes: how many there are; None where only the job's own interface knows.
        method: what jax.distributed calls this way of detection; None: its own choice.
    """

    by: str
    process: int | None
    processes: int | None
    method: str | None = None


def surroundings(environment: Mapping[str, str] | None = None) -> Surroundings | None:
    """The job that this process is one of several processes of, or None where it is alone.

    Args:
        environment: by default that of this process.

    Raises:
        ValueError: a variable is missing or no number.
    """
    env = os.environ if environment is None else environment
    if any(name in env for name in (COORDINATOR, PROCESSES, PROCESS)):
        missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if not env.get(name)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} not set in the environment: {COORDINATOR} (host:port of process 0), "
                f"{PROCESSES} (how many) and {PROCESS} (which one, from 0) belong together"
            )
        found = Surroundings("jaxdl launch", _number(env, PROCESS), _number(env, PROCESSES))
        assert found.process is not None and found.processes is not None
        if not 0 <= found.process < found.processes:
            raise ValueError(
                f"{PROCESS}={found.process}: processes are counted from 0, and {PROCESSES}={found.processes}"
            )
    elif "OMPI_COMM_WORLD_SIZE" in env:
        found = Surroundings("Open MPI", _number(env, "OMPI_COMM_WORLD_RANK"), _number(env, "OMPI_COMM_WORLD_SIZE"),
                             "ompi" if "OMPI_MCA_orte_hnp_uri" in env else "mpi4py")  # fmt: skip
    elif all(name in env for name in _SLURM):
        found = Surroundings("Slurm", _number(env, "SLURM_PROCID"), _number(env, "SLURM_NTASKS"), "slurm")
    elif "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return Surroundings("Kubernetes", _number(env, "JOB_COMPLETION_INDEX"), None)
    else:
        return None
    return found if found.processes != 1 else None


def join(*, heartbeat_seconds: int = 30, initialization_seconds: int = 300) -> bool:
    """Join the other processes of this job, so that `jax.devices()` are those of all; whether there are others.

    Call it before anything touches a device. It knows processes that `jaxdl launch` started (which have joined before
    the script begins), tasks of Slurm, ranks of Open MPI, and pods of an indexed Kubernetes job or JobSet; others are
    told by JAXDL_COORDINATOR=host:port, JAXDL_PROCESSES and JAXDL_PROCESS in the environment. A process that is alone
    joins nothing, and a second call does nothing; nor does a process that a joined one has started, such as a worker
    of a grain feed, which runs the first lines of the script again. Afterwards SIGTERM ends the process as it did
    before: jax would only take note of it.

    Args:
        heartbeat_seconds: a process that has not been heard of for so long counts as dead, and jax ends the others.
        initialization_seconds: how long to wait for all to come.

    Raises:
        ValueError: the environment contradicts itself, or lacks what the job's kind needs.
        RuntimeError: a device is in use already; or the others did not come in time.
    """
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    found = surroundings()
    if found is None or os.environ.get(JOINED, str(os.getpid())) != str(os.getpid()):
        return False
    if jax.config.values["jax_cpu_collectives_implementation"] in (None, "none"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    main = threading.current_thread() is threading.main_thread()
    on_term = signal.getsignal(signal.SIGTERM) if main else None
    try:
        if found.by == "jaxdl launch":
            coordinator = os.environ[COORDINATOR]
            local = coordinator.startswith("127.0.0.1:")
            if local:  # jax warns of proxies, which `jaxdl launch` has seen to
                jax.config.update("jax_check_proxy_envs", False)
            jax.distributed.initialize(
                coordinator, found.processes, found.process, cluster_detection_method="deactivate",
                coordinator_bind_address=coordinator if local else None,
                heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=initialization_seconds,
            )  # fmt: skip
        else:
            _require(found)
            jax.distributed.initialize(
                cluster_detection_method=found.method,
                heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=initialization_seconds,
            )  # fmt: skip
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise RuntimeError(
            f"this process is one of {found.processes or 'several'} ({found.by}), but has used a device before it "
            "joined the others: call jaxdl.join() first, before jax.devices(), jnp.array or any other computation"
        ) from None
    if on_term is not None:
        signal.signal(signal.SIGTERM, on_term)
    os.environ[JOINED] = str(os.getpid())
    return jax.process_count() > 1 if found.processes is None else True


def _require(found: Surroundings) -> None:
    """What jax needs to find the others, with a sentence where it is missing."""
    package = {"mpi4py": "mpi4py", None: "kubernetes"}.get(found.method)
    if package is None or importlib.util.find_spec(package):
        return
    raise ValueError(
        f"this is process {found.process} of a job of {found.by}, where jax finds the others by the package {package}: "
        f"pip install {package}, or set {COORDINATOR} (host:port of process 0), {PROCESSES} and {PROCESS}"
    )


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except KeyError:
        raise ValueError(f"{name} is not set in the environment, though other variables of such a job are") from None
    except ValueError:
        raise ValueError(f"{name}={env[name]!r} in the environment: a whole number is needed") from None


class Beat(NamedTuple):
    """What a process said last, when (`time.time()`), and the N of the last "step N" that it said (-1: none)."""

    time: float
    what: str
    step: int = -1


class _Last:
    """The file that `beat` writes, mapped: a beat is a copy of some bytes and no call of the system."""

    path: str | None = None
    memory: mmap.mmap | None = None
    step: str = "-1"


def beat(what: str) -> None:
    """Say that this process makes progress: "step 120", "compiling", "evaluating", "saving", "finished".

    Where `jaxdl launch` started the process, the text and the time go into the file that JAXDL_PROGRESS names, which
    costs some microseconds; elsewhere nothing happens. From the first "step N" on the supervisor expects further texts,
    until "finished".
    """
    path = os.environ.get(PROGRESS)
    if not path:
        return
    if path != _Last.path:
        with open(path, "w+b") as file:
            file.write(b" " * _SIZE)
            file.flush()
            _Last.memory, _Last.path, _Last.step = mmap.mmap(file.fileno(), _SIZE), path, "-1"
    assert _Last.memory is not None
    word, _, rest = what.partition(" ")
    if word == "step" and rest.isdigit():
        _Last.step = rest
    text = f"{time.time():.3f} {_Last.step} {what}".encode()[: _SIZE - 10].replace(b"\n", b" ").ljust(_SIZE - 10)
    _Last.memory[:] = b"%08x %s\n" % (zlib.crc32(text), text)


def read_beat(path: str | os.PathLike[str]) -> Beat | None:
    """What the process that writes `path` said last; None where it said nothing yet, or is writing just now."""
    try:
        with open(path, "rb") as file:
            line = file.read(_SIZE)
    except FileNotFoundError:
        return None
    if len(line) < _SIZE or b"%08x" % zlib.crc32(line[9:-1]) != line[:8]:
        return None
    moment, step, what = line[9:].decode(errors="replace").split(" ", 2)
    return Beat(float(moment), what.strip(), int(step))
