"""The supervisor of `jaxdl launch`: what it makes of each end of its processes, and that it leaves nobody behind."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from jaxdl.parallel.launch import supervise
from jaxdl.parallel.launch_verdict import Budget, Ending, in_words, root_cause
from tests.distributed.supervised import gone, job, start, wait_for


def test_lines_carry_the_number_of_their_process(tmp_path, capfd):
    lines = """
print("out", number, os.environ["JAXDL_PROCESSES"])
print("err", file=sys.stderr)
print("no newline", end="")
"""
    assert supervise(job(tmp_path, lines, 2, logs=tmp_path / "logs")) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[0] no newline", "[0] out 0 2", "[1] no newline", "[1] out 1 2"]
    assert "[0] err" in err and "[1] err" in err
    assert re.search(r"jaxdl launch: 2 processes of script.py started \(pids \d+, \d+\)", err)
    assert "jaxdl launch: done" in err
    assert "out 1 2\n" in (tmp_path / "logs" / "start-1-process-1.log").read_text()


def test_only_the_first_process_is_shown(tmp_path, capfd):
    assert supervise(job(tmp_path, 'print("I am", number)', show="first", quiet=True)) == 0
    assert capfd.readouterr() == ("I am 0\n", "")


def test_a_killed_process_brings_a_new_start_on_a_fresh_port(tmp_path, capfd):
    """Of the two that end together, the one that was killed is named: the other was aborted in consequence."""
    lines = f"""
ports = {str(tmp_path)!r} + "/ports"
open(ports, "a").write(os.environ["JAXDL_COORDINATOR"] + "\\n")
beat(f"step {{start + 4}}")
while len(open(ports).readlines()) < 2 * (start + 1):
    time.sleep(0.01)
if start < 2:
    time.sleep(0 if number == start else 0.05)
    os.kill(os.getpid(), signal.SIGKILL if number == start else signal.SIGABRT)
"""
    assert supervise(job(tmp_path, lines)) == 0
    ports = (tmp_path / "ports").read_text().split()
    assert len(ports) == 6 and all(port.startswith("127.0.0.1:") for port in ports)
    assert len(set(ports)) == 3, "a port was used again"
    said = capfd.readouterr().err
    assert "process 0 was ended by SIGKILL" in said and "after step 4" in said
    assert "process 1 was ended by SIGKILL" in said and "after step 5" in said
    assert "SIGABRT" not in said
    assert said.count("restart 1 of 3, from the newest checkpoint") == 2, "the count begins anew with each further step"
    assert "done, after 2 restarts" in said


@pytest.mark.parametrize(
    ("lines", "code", "starts", "sentence"),
    [
        ("raise ValueError('boom')", 1, 1, "no step was done yet"),
        (
            "beat('step 1'); beat('saving'); raise ValueError('boom')",
            1,
            3,
            "given up: 2 restarts brought it no step further",
        ),
        ("beat('step 1'); sys.exit(2)", 2, 1, "not be understood the next time"),
        ("beat('step 1'); sys.exit(69)", 69, 1, "take the device, or the machine, out of the job"),
        ("beat('step 1'); sys.exit(7)", 7, 3, "process 0 ended with exit code 7 after step 1"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139, 3, "SIGSEGV (a crash in native code) before its first step"),
        ("beat('step 1'); sys.exit(143)", 143, 3, "process 0 was preempted"),
        ("beat('step 1'); sys.exit(143 if start < 2 else 0)", 0, 3, "restart after preemption 2"),
    ],
)
def test_exit_codes(tmp_path, capfd, lines, code, starts, sentence):
    assert supervise(job(tmp_path, lines, 1, restarts=2)) == code
    said = capfd.readouterr().err
    assert sentence in said
    assert said.count("started (pid") == starts


def test_no_restarts_where_none_are_wanted(tmp_path, capfd):
    assert supervise(job(tmp_path, "beat('step 1'); sys.exit(143)", 1, restarts=0)) == 143
    assert "not restarted (--restarts 0)" in capfd.readouterr().err


def test_quiet_says_why_it_ended_badly_and_no_more(tmp_path, capfd):
    lines = """
beat("step 1")
print("all is well")
print("Traceback (most recent call last):\\nOops", file=sys.stderr)
sys.exit(1)
"""
    assert supervise(job(tmp_path, lines, 1, restarts=1, quiet=True, show="none")) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "jaxdl launch: process 0 ended with an exception (exit code 1) after step 1; its last lines:",
        "  [0] Traceback (most recent call last):",
        "  [0] Oops",
        "jaxdl launch: given up: 1 restarts brought it no step further",
    ]


def test_the_first_exception_is_shown_and_those_that_follow_from_it_are_not(tmp_path, capfd):
    lines = """
if number == 0:
    time.sleep(0.2)
print(f"Traceback (most recent call last):\\n  fault of {number}", file=sys.stderr)
beat("failed 1 by ValueError")
time.sleep(60)  # python waits for the other processes at its end
"""
    begun = time.monotonic()
    assert supervise(job(tmp_path, lines)) == 1
    assert time.monotonic() - begun < 30
    said = capfd.readouterr().err
    assert "process 1 ended with an exception" in said and "  [1]   fault of 1" in said
    assert "fault of 0" not in said


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("if number == 0: beat('step 4')\nif number or not start: time.sleep(60 * (start == 0))",
         "process 1 hangs: the last that it said was 'step 3'"),
        ("if number and not start: os.kill(os.getpid(), signal.SIGSTOP)\nif not start: time.sleep(60)",
         "process 1 is stopped (SIGSTOP): the last that it said was 'step 3'"),
    ],
)  # fmt: skip
def test_a_hang_is_found_named_and_replaced(tmp_path, capfd, lines, sentence):
    assert supervise(job(tmp_path, f"beat('step 3')\n{lines}", hang_seconds=1.5)) == 0
    said = capfd.readouterr().err
    assert sentence in said and "(--hang-seconds 1.5)" in said
    assert "process 0 hangs" not in said
    assert "restart 1 of 3" in said


def test_a_handled_traceback_is_no_last_word_of_a_process_that_was_killed(tmp_path, capfd):
    """Nor is what others print because of the kill shown, though native code takes a while to come to its end."""
    lines = (
        f"ready = {str(tmp_path / 'ready')!r}"
        + """
beat("step 1")
if number:
    while not os.path.exists(ready): time.sleep(0.01)
    print("Traceback (most recent call last):\\n  handled", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, lambda *_: (print("later", flush=True), sys.exit(0)))
print("before", flush=True)
print("E1122 00:22:58.716668 coordination_service.cc:1549] because of the other", file=sys.stderr, flush=True)
open(ready, "w").close()
time.sleep(60)
"""
    )
    assert supervise(job(tmp_path, lines, restarts=0)) == 137
    out, err = capfd.readouterr()
    assert out == "[0] before\n"
    assert "its last lines" not in err
    assert err.count("handled") == 1, "what it printed before is shown as what it was"
    assert "because of the other" not in err


def test_a_process_that_hangs_says_where_it_stands(tmp_path, capfd):
    """The supervisor asks with SIGQUIT, which the worker has told Python to answer with its stack."""
    lines = """
import faulthandler
faulthandler.register(signal.SIGQUIT, all_threads=False)
def stuck():
    while True: time.sleep(1)
beat("step 7")
stuck()
"""
    assert supervise(job(tmp_path, lines, hang_seconds=0.5, restarts=0)) == 124
    said = capfd.readouterr().err
    for number in range(2):
        assert f'  [{number}] Stack (most recent call first):\n  [{number}]   File "script.py", line 5 in stuck' in said
    assert "none is behind the others: perhaps they wait for each other" in said


def test_a_process_that_ended_its_script_is_not_the_one_that_hangs(tmp_path, capfd):
    """As after sys.exit() in one process, which Python keeps until the others come to their end."""
    lines = "beat('step 7')\nif number: beat('finished the script')\ntime.sleep(60)"
    assert supervise(job(tmp_path, lines, hang_seconds=0.5, restarts=0)) == 124
    said = capfd.readouterr().err
    assert "process 0 hangs" in said and "process 1 hangs" not in said
    assert "process 1 had come to the end of the script: is it waited for?" in said


def test_a_process_that_ended_its_script_waits_for_the_others_however_long(tmp_path):
    lines = """
beat("step 1")
if number: beat("finished the script"); time.sleep(1.5)
else: [(beat(f"step {n}"), time.sleep(0.1)) for n in range(15)]
"""
    assert supervise(job(tmp_path, lines, startup_seconds=0.5, hang_seconds=20, restarts=0)) == 0
    stuck = "beat('step 1'); beat('finished the script'); time.sleep(60)"
    assert supervise(job(tmp_path, stuck, startup_seconds=0.5, hang_seconds=20, restarts=0)) == 124


def test_a_wait_like_those_before_is_no_hang(tmp_path):
    """Ten times the longest time between beats counts, where it is more than the limit; none after the training."""
    lines = "beat('step 1'); time.sleep(0.4); beat('step 2'); time.sleep(1.2)"
    assert supervise(job(tmp_path, lines, 1, hang_seconds=0.5)) == 0
    assert supervise(job(tmp_path, "beat('step 2'); time.sleep(60)", 1, hang_seconds=0.5, restarts=0)) == 124
    assert supervise(job(tmp_path, "beat('step 2'); beat('finished'); time.sleep(1)", 1, hang_seconds=0.3)) == 0


def test_a_hang_before_the_first_step_and_in_the_health_check(tmp_path, capfd):
    lines = "if number: beat('script begins')\ntime.sleep(60)"
    assert supervise(job(tmp_path, lines, startup_seconds=0.5, restarts=0)) == 124
    assert "process 0 hangs: it never said a word" in capfd.readouterr().err
    lines = "beat(f'health check: matmul on cuda:{number} (NVIDIA H100)')\ntime.sleep(60)"
    assert supervise(job(tmp_path, lines, 1, health_seconds=0.5)) == 69
    said = capfd.readouterr().err
    assert "process 0 hangs: the last that it said was 'health check: matmul on cuda:0 (NVIDIA H100)'" in said
    assert "not restarted: take the device" in said


SAVES = """
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), open(path + ".saved", "w").write("x"), sys.exit(143)))
if number: signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
beat("step 1")
open(FOLDER + f"/ready-{number}", "w").write(str(os.getpid()))
time.sleep(60)
"""
IGNORES = SAVES.replace(
    "signal.signal(", "signal.signal(signal.SIGTERM, signal.SIG_IGN) if number else signal.signal(", 1
)


@pytest.mark.parametrize(
    ("lines", "sent", "code", "sentence"),
    [
        (SAVES, signal.SIGTERM, 143, "all have ended, and saved"),
        (SAVES, signal.SIGINT, 130, "SIGINT: passed on"),
        (IGNORES, signal.SIGTERM, 137, "process 1 did not end in time and got SIGKILL"),
    ],
)
def test_a_request_to_stop_is_passed_on(tmp_path, lines, sent, code, sentence):
    lines = lines.replace("FOLDER", repr(str(tmp_path)))
    supervisor = start(tmp_path, job(tmp_path, lines, grace_seconds=20.0 if code != 137 else 1.0))
    pids = [int(wait_for(tmp_path / f"ready-{number}")) for number in range(2)]
    supervisor.send_signal(sent)
    assert supervisor.wait(60) == code, (tmp_path / "out").read_text()
    said = (tmp_path / "out").read_text()
    assert sentence in said
    assert said.count("started (pid") == 1
    assert gone(pids, 0.0)


def test_a_request_to_stop_between_two_starts(tmp_path):
    supervisor = start(tmp_path, job(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)", 1, pause_seconds=60.0))
    end = time.monotonic() + 60
    while "in 60 s" not in (tmp_path / "out").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 143
    assert (tmp_path / "out").read_text().count("started (pid") == 2


def test_nobody_is_left_behind_when_the_supervisor_is_killed(tmp_path):
    """Not a stopped process, either, nor what the processes have started."""
    lines = f"""
other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
open({str(tmp_path)!r} + f"/ready-{{number}}", "w").write(f"{{os.getpid()}} {{other.pid}} {{path}}")
if number: os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""
    supervisor = start(tmp_path, job(tmp_path, lines))
    ready = [wait_for(tmp_path / f"ready-{number}").split() for number in range(2)]
    supervisor.kill()
    supervisor.wait()
    assert gone([int(pid) for words in ready for pid in words[:2]])
    folder = Path(ready[0][2]).parent
    for _ in range(100):
        if not folder.exists():
            break
        time.sleep(0.02)
    assert not folder.exists(), "the progress files were left behind"


def test_a_process_that_ended_takes_its_group_along(tmp_path):
    lines = f"""
other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
open({str(tmp_path)!r} + "/other", "w").write(str(other.pid))
"""
    begun = time.monotonic()
    assert supervise(job(tmp_path, lines, 1)) == 0
    assert gone([int((tmp_path / "other").read_text())], 5.0)
    assert time.monotonic() - begun < 30


def test_the_root_cause():
    killed, aborted = Ending(2, -signal.SIGKILL), Ending(4, -signal.SIGABRT)
    raised, followed = Ending(3, 1, failed_at=10.0), Ending(1, 1, failed_at=10.5)
    ended_by_jax = Ending(0, -signal.SIGABRT, follows=True)
    assert root_cause([ended_by_jax, aborted, followed, raised, killed]) is killed
    assert root_cause([ended_by_jax, aborted, followed, raised]) is aborted
    assert root_cause([ended_by_jax, followed, raised]) is raised
    assert root_cause([Ending(0, 0), ended_by_jax, Ending(1, 7)]).process == 1
    assert root_cause([Ending(0, 0), ended_by_jax, Ending(1, -signal.SIGTERM)]).process == 1
    assert root_cause([Ending(1, 0), ended_by_jax]) is ended_by_jax


def test_a_process_that_jax_has_not_heard_of_is_named_and_not_the_one_that_jax_ended_for_it(tmp_path, capfd):
    lines = """
beat("step 3")
if number:
    os.kill(os.getpid(), signal.SIGSTOP)
print("F1122 00:19 client.h:80] Terminating: the JAX distributed service detected fatal errors", flush=True)
os.kill(os.getpid(), signal.SIGABRT)
"""
    assert supervise(job(tmp_path, lines, restarts=0)) == 124
    said = capfd.readouterr().err
    assert re.search(r"process 1 is stopped \(SIGSTOP\): .* 'step 3', \d s ago \(no heartbeat for 30 s\)", said)
    assert "SIGABRT" not in said


def test_the_budget():
    budget = Budget(2, pause=1.0)
    assert budget.judge("signal", -9, -1)[::2] == (None, 0.0)
    assert budget.judge("hung", 124, -1)[::2] == (None, 1.0)
    assert budget.judge("signal", -9, 5)[::2] == (None, 0.0), "a step was done since the last restart"
    assert budget.judge("preempted", 143, 5)[::2] == (None, 1.0)
    assert budget.judge("preempted", 143, 4)[::2] == (None, 2.0)
    assert budget.judge("exception", 1, 5)[::2] == (None, 4.0), "preemptions cost nothing"
    assert budget.judge("signal", -9, 5).exit_code == 137
    assert budget.made == 6
    assert Budget(3).judge("exception", 1, -1).exit_code == 1
    long = Budget(20)
    assert [long.judge("signal", -9, -1).pause for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_exit_codes_in_words():
    assert in_words(-signal.SIGKILL).startswith("was ended by SIGKILL (out of memory?")
    assert in_words(3) == "ended with exit code 3"
    assert in_words(-63) == "was ended by signal 63"


def test_this_process_handles_its_signals_as_before(tmp_path):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    assert supervise(job(tmp_path, "pass", 1)) == 0
    assert {number: signal.getsignal(number) for number in before} == before
    assert os.environ.get("JAXDL_PROCESS") is None
