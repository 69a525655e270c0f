"""What a job starts from: who started the processes, their share of the devices, the command line, and beats."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxdl.cli import main
from jaxdl.parallel.join import JOINED, Beat, Surroundings, beat, join, read_beat, surroundings
from jaxdl.parallel.launch_devices import found_gpus, shares
from jaxdl.parallel.worker import run, script_ended

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}  # fmt: skip
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
OURS = {"JAXDL_COORDINATOR": "host:1", "JAXDL_PROCESSES": "3", "JAXDL_PROCESS": "2"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No trace of a job in which the tests themselves may run."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "JAXDL_CO", "JAXDL_PR", "JOB_COMPLETION")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (SLURM, Surroundings("Slurm", 3, 4, "slurm")),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, None),  # sbatch without srun
        (OPEN_MPI | URI, Surroundings("Open MPI", 1, 2, "ompi")),
        (OPEN_MPI, Surroundings("Open MPI", 1, 2, "mpi4py")),  # version 5 names no launcher
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (SLURM | OPEN_MPI | URI, Surroundings("Open MPI", 1, 2, "ompi")),  # mpirun in an allocation of Slurm
        (POD, Surroundings("Kubernetes", 2, None)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        (OURS, Surroundings("jaxdl launch", 2, 3)),
        (SLURM | OURS, Surroundings("jaxdl launch", 2, 3)),
        (OURS | {"JAXDL_PROCESSES": "1", "JAXDL_PROCESS": "0"}, None),
    ],
)
def test_who_started_this_process(environment, found):
    assert surroundings(environment) == found


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"JAXDL_PROCESS": "0"}, "JAXDL_COORDINATOR and JAXDL_PROCESSES not set in the environment"),
        (OURS | {"JAXDL_PROCESS": "3"}, "JAXDL_PROCESS=3: processes are counted from 0, and JAXDL_PROCESSES=3"),
        (OURS | {"JAXDL_PROCESSES": "three"}, "JAXDL_PROCESSES='three' in the environment: a whole number is needed"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK is not set in the environment"),
    ],
)
def test_an_environment_that_contradicts_itself(environment, sentence):
    with pytest.raises(ValueError, match=sentence):
        surroundings(environment)


def test_the_variables_are_those_that_jax_reads(monkeypatch):
    """jax's own detection agrees with ours about this process; its modules are private, and may move."""
    from jax._src import clusters

    for environment, cluster in ((SLURM, clusters.SlurmCluster), (OPEN_MPI | URI, clusters.OmpiCluster)):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            found = surroundings()
            assert found is not None and cluster.name == found.method
            assert cluster.is_env_present()
            assert (cluster.get_process_id(), cluster.get_process_count()) == (found.process, found.processes)
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    assert not clusters.SlurmCluster.is_env_present()


def test_joining_alone_and_joining_late(monkeypatch):
    assert join() is False
    import jax

    jax.devices()
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        RuntimeError, match=r"one of 3 \(jaxdl launch\), but has used a device.*call jaxdl.join\(\) first"
    ):
        join()


def test_a_process_that_a_joined_one_has_started_joins_nothing(monkeypatch):
    """A worker of a grain feed runs the script's first lines again, in the environment of the process it works for."""
    import jax

    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *words, **options: joined.append(words[2]))
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setenv(JOINED, "")
    monkeypatch.delenv(JOINED)
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    assert join() is True
    assert len(joined) == 1
    assert os.environ[JOINED] == str(os.getpid())
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert join() is False
    assert len(joined) == 1


def test_packages_that_jax_needs_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for environment, package in ((POD, "kubernetes"), (OPEN_MPI, "mpi4py")):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(ValueError, match=f"pip install {package}, or set JAXDL_COORDINATOR"):
                join()


def test_beats(tmp_path, monkeypatch):
    path = tmp_path / "progress"
    beat("step 1")
    assert read_beat(path) is None
    monkeypatch.setenv("JAXDL_PROGRESS", str(path))
    beat("step 1")
    first = read_beat(path)
    assert isinstance(first, Beat) and first.what == "step 1"
    beat("step 22\nand more" + "x" * 1000)
    second = read_beat(path)
    assert second is not None and second.time >= first.time and second.what.startswith("step 22 and morex")
    assert second.step == 1, "only a number alone is one"
    beat("step 33")
    beat("saving")
    assert read_beat(path)[1:] == ("saving", 33), "the step is kept, where the next word comes at once"
    half = bytearray(path.read_bytes())
    half[30] ^= 1
    path.write_bytes(half)
    assert read_beat(path) is None, "half-written"
    path.write_bytes(half[:100])
    assert read_beat(path) is None
    monkeypatch.setenv("JAXDL_PROGRESS", str(tmp_path / "another"))
    beat("compiling")
    assert read_beat(tmp_path / "another")[1:] == ("compiling", -1)


def test_gpus_are_shared_out_evenly():
    parts = shares(2, environment={"A": "b"}, gpus=["0", "3", "5", "6"])
    assert [part["CUDA_VISIBLE_DEVICES"] for part in parts] == ["0,3", "5,6"]
    assert parts[0]["A"] == "b"
    assert "CUDA_VISIBLE_DEVICES" not in shares(1, environment={}, gpus=["0", "1"])[0]
    with pytest.raises(ValueError, match=r"-n 3: 4 GPUs \(0, 1, 2, 3\) cannot be shared .* choose 1, 2, 4"):
        shares(3, environment={}, gpus=["0", "1", "2", "3"])
    with pytest.raises(ValueError, match="this machine has 2 GPUs"):
        shares(2, 4, environment={}, gpus=["0", "1"])


def test_virtual_devices_take_the_place_of_others():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=false"}
    (part,) = shares(1, 2, environment=flags, gpus=[])
    assert part["XLA_FLAGS"].split() == ["--xla_cpu_enable_fast_math=false", "--xla_force_host_platform_device_count=2"]
    assert shares(1, environment=flags, gpus=[])[0]["XLA_FLAGS"] == flags["XLA_FLAGS"]


def test_processes_of_one_host_need_no_proxy():
    part = shares(2, environment={"https_proxy": "http://there", "no_proxy": "here"}, gpus=[])[1]
    assert part["no_proxy"] == "here,127.0.0.1,localhost" and part["NO_PROXY"] == "127.0.0.1,localhost"
    assert "no_proxy" not in shares(1, environment={}, gpus=[])[0]


def test_which_gpus_jax_would_use(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found_gpus({}) == [], "jax without its CUDA plugin sees none"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jax_cuda12_plugin" or None)
    assert found_gpus({"CUDA_VISIBLE_DEVICES": "2, 3"}) == ["2", "3"]
    assert found_gpus({"CUDA_VISIBLE_DEVICES": "2,3", "JAX_PLATFORMS": "cpu"}) == []
    assert found_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    lister = tmp_path / "nvidia-smi"
    lister.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    lister.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found_gpus({"JAX_PLATFORMS": "cuda,cpu"}) == ["0", "1"]


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(monkeypatch, tmp_path):
    """The job that the command line asks for, instead of running it; in a folder with a script."""
    found = []
    monkeypatch.setattr("jaxdl.parallel.launch.supervise", lambda job: found.append(job) or 7)
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    return found


def test_what_follows_the_script_is_its_own(wanted):
    words = "launch -n 4 --quiet --hang-seconds=5 --logs here train.py -n 9 --quiet --restarts 3 -m x"
    assert main(words.split()) == 7
    (job,) = wanted
    assert job.command == ("train.py", "-n", "9", "--quiet", "--restarts", "3", "-m", "x")
    assert (job.processes, job.quiet, job.hang_seconds, job.logs) == (4, True, 5.0, Path("here"))
    assert (job.health, job.grace_seconds, job.restarts, job.show) == (True, 30.0, 3, "all")


def test_a_module_and_no_number(wanted):
    assert main(["launch", "--no-health", "--show", "first", "-m", "project.train", "--lr", "1"]) == 7
    (job,) = wanted
    assert job.command == ("-m", "project.train", "--lr", "1")
    assert (job.processes, job.health, job.show) == (1, False, "first")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("launch -n 4", 1, "which script. For example: jaxdl launch -n 4 train.py"),
        ("launch -n 4 -m", 1, "which script"),
        ("launch -n 4 tain.py", 1, "there is no script tain.py"),
        ("launch -n 0 train.py", 1, "--processes 0: give a number of at least 1"),
        ("launch -n 2 --restarts -1 train.py", 1, "--restarts -1: give a number of at least 0"),
        ("launch -n two train.py", 2, "two"),
        ("launch --restart 2 train.py", 2, "--restarts"),
    ],
)
def test_words_that_are_not_understood(wanted, capsys, words, code, sentence):
    assert main(words.split()) == code
    assert re.search(sentence, "".join(capsys.readouterr()))
    assert not wanted


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI | URI, POD, OURS])
def test_in_a_job_it_becomes_one_of_its_processes(wanted, monkeypatch, capsys, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    became = []
    monkeypatch.setattr("os.execv", lambda program, words: became.append((program, words)))
    main(["launch", "--no-health", "train.py", "--epochs", "3"])
    program, words = became.pop()
    assert program == words[0] == sys.executable
    assert words[1:] == ["-m", "jaxdl.parallel.worker", "--no-health", "train.py", "--epochs", "3"]
    by = surroundings().by
    assert main(["launch", "-n", "2", "train.py"]) == 1
    assert f"-n 2: this is a process of a job of {by} already: leave out -n" in capsys.readouterr().err
    assert main(["launch", "--restarts", "5", "train.py"]) == 1
    assert f"--restarts: in a job of {by}, that job watches over its processes" in capsys.readouterr().err
    assert not wanted and not became


# ---- the worker ------------------------------------------------------------------------------------------------------


def python(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120,
        env=dict(os.environ) | environment,
    )  # fmt: skip


def test_a_script_is_run_as_python_runs_it(tmp_path):
    """Its name, arguments, folder, neighbours, traceback and exit code."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "neighbour.py").write_text("def fail():\n    raise KeyError('deep')\n")
    (tmp_path / "inner" / "script.py").write_text(
        "import json, sys, neighbour, pickle\n"
        "class Thing: pass\n"
        "pickle.loads(pickle.dumps(Thing()))\n"
        "print(json.dumps([__name__, __file__, sys.argv, sys.path[0], __spec__ is None]), flush=True)\n"
        "if sys.argv[1] == 'fail': neighbour.fail()\n"
        "sys.exit(sys.argv[1])\n"
    )
    for last in ("fail", "in words"):
        plain = python(tmp_path, "inner/script.py", last)
        ours = python(tmp_path, "-m", "jaxdl.parallel.worker", "--no-health", "inner/script.py", last)
        assert plain.returncode == ours.returncode == 1
        name, file, (_, *words), *rest = json.loads(plain.stdout)
        assert json.loads(ours.stdout) == [name, file, [file, *words], *rest]
        assert plain.stderr == ours.stderr
    module = python(tmp_path, "-m", "jaxdl.parallel.worker", "--no-health", "-m", "inner.script", "x",
                    PYTHONPATH=f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path / 'inner'}")  # fmt: skip
    name, file, argv, *_ = json.loads(module.stdout)
    assert (name, argv[1:]) == ("__main__", ["x"]) and argv[0] == file == str(tmp_path / "inner" / "script.py")


def test_who_has_ended_waits_for_the_others_while_a_supervisor_watches(tmp_path, monkeypatch):
    """Process 0 may draw plots for longer than the five minutes after which jax aborts all of them."""
    monkeypatch.setenv("JAXDL_PROGRESS", str(tmp_path / "2-1"))
    monkeypatch.setenv("JAXDL_PROCESSES", "2")
    monkeypatch.setenv("JAXDL_PROCESS", "1")
    other = "import sys; from jaxdl.parallel.join import beat; beat(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", other, "step 3"], env=dict(os.environ) | {"JAXDL_PROGRESS": str(tmp_path / "2-0")}
    )
    waiting = threading.Thread(target=script_ended)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert read_beat(tmp_path / "2-1").what == "finished the script"
    subprocess.run(
        [sys.executable, "-c", other, "finished the script"],
        env=dict(os.environ) | {"JAXDL_PROGRESS": str(tmp_path / "2-0")},
    )
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("1 / 0", 1, "failed 1 by ZeroDivisionError"),
        ("raise SystemExit(5)", 5, "failed 5 by SystemExit"),
        ("raise SystemExit('why')", "why", "failed 1 by SystemExit"),
        ("raise SystemExit(143)", 143, "step 3"),
        ("raise SystemExit", None, "finished the script"),
        ("raise KeyboardInterrupt", 130, "failed 130 by KeyboardInterrupt"),
    ],
)
def test_an_end_that_is_no_good_one_is_announced(tmp_path, monkeypatch, capsys, line, code, said):
    """Before Python waits, at its end, for processes that may never come."""
    monkeypatch.setenv("JAXDL_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "script.py").write_text(f"from jaxdl.parallel.join import beat\nbeat('step 3')\n{line}\n")
    with pytest.raises(SystemExit) as left:
        run([str(tmp_path / "script.py")])
    assert left.value.code == code
    assert read_beat(tmp_path / "progress").what == said
