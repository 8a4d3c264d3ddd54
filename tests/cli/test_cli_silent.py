"""A testbed of which a process was stopped: every command says so, none says that all is well, and none hangs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import psutil
import pytest

SILENT = 6
AT_ONCE = 2.0
"""Seconds within which Ctrl-C ends what only looks; the machine may be busy, so tests allow more."""
SLACK = 3.0


@pytest.fixture
def service(bench):
    """A testbed in the foreground of another terminal."""
    process = bench.start()
    yield process
    bench.end(process)


@pytest.fixture
def unwatched(bench):
    """The same without safety checks: nothing trips."""
    file = bench.directory / "bench.toml"
    file.write_text(file.read_text().partition("[safety.level]")[0])
    process = bench.start()
    yield process
    bench.end(process)


def pid_of(bench, server):
    """The process of a server, by what its name ends with ("" for the testbed's own)."""
    for file in bench.runtime.glob("*.json"):
        name = file.stem.partition(".")
        if name[2] == server:
            return json.loads(file.read_text())["pid"]
    return pytest.fail(f"no server {server!r}")


@contextlib.contextmanager
def stopped(pid):
    """Have a process stopped for the time of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def outcomes(bench, commands, timeout=90):
    """Run commands at the same time; return exit code, what was printed and what was complained of, of each."""
    processes = [bench.popen(*command) for command in commands]
    found = []
    for process in processes:
        try:
            out, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert "Traceback" not in errors
        found.append((process.returncode, out, errors))
    return found


@pytest.mark.whole
def test_a_testbed_whose_server_is_stopped_is_named_with_its_processes_by_every_command(bench, service):
    server = pid_of(bench, "")
    commands = [
        ["status", "bench"], ["status", "bench", "--json"], ["status", "bench", "--watch"], ["locks", "bench"],
        ["devices", "bench"], ["stop", "bench"], ["get", "wheel.position"], ["reset-safety"],
        ["start", "--config", "bench.toml"], ["run", "work.py:Turn", "--config", "bench.toml"], ["status", "bnch"],
    ]  # fmt: skip

    with stopped(server):
        *known, other = outcomes(bench, commands)

    for (code, out, errors), command in zip(known, commands, strict=False):
        assert code == SILENT, (command, code, out, errors)
        if "--json" in command:
            assert json.loads(out)["exit_code"] == SILENT
        else:
            assert out == "", command
        assert re.search(r"testbed 'bench' does not answer: no news for \d+ s of its server ", errors)
        assert f"(pid {server}); its process" in errors
        assert f"its process has pid {service.pid}; `kill {service.pid}` ends it" in errors
        assert f"`kill -CONT {server}` resumes it" in errors
    assert other[0] == 3
    assert "did you mean 'bench'?" in other[2]


def test_start_beside_a_suspended_testbed_says_at_once_that_it_is_suspended(bench, unwatched):
    with stopped(unwatched.pid):
        error = bench.error("start", "-c", "bench.toml", exit_code=SILENT)
    pid = unwatched.pid
    # On a busy computer its silence may have been noticed by then.
    assert re.search(rf"process \(pid {pid}\) (is suspended|does not answer: no news for \d+ s)", error)
    assert f"`kill -CONT {pid}` resumes it, `kill -KILL {pid}` ends it" in error


def test_a_stopped_testbed_is_named_with_its_process_and_does_not_obey_later(bench, unwatched):
    with stopped(unwatched.pid):
        stop, _, locks = outcomes(bench, [["stop", "bench"], ["reset-safety"], ["locks"]])
        (again,) = outcomes(bench, [["start", "-c", "bench.toml"]])  # there has been no news for a while by now
        status = bench.command("status", exit_code=SILENT)
        facts = bench.json("status", exit_code=SILENT)

    assert stop[0] == SILENT
    assert f"of its process (pid {unwatched.pid})" in stop[2]
    assert f"`kill -KILL {unwatched.pid}` ends it" in stop[2]
    assert re.search(
        rf"the testbed's process \(pid {unwatched.pid}\) does not answer: no news for \d+ s", status.stdout
    )
    assert (facts["state"], facts["silent"][0]["pid"]) == ("silent", unwatched.pid)
    assert locks[0] == 0  # every server answers, so everything in that list is known
    assert again[0] == SILENT
    assert "is running already, and does not answer: the testbed's process" in again[2].replace("\n", " ")
    assert f"`kill -KILL {unwatched.pid}` ends it" in again[2]
    bench.until(lambda status: status["state"] == "running")
    assert bench.command("set", "wheel.position", "2").stdout == "wheel.position = 2\n"
    assert unwatched.poll() is None  # it was not told to stop any more


def test_a_stopped_device_server_is_named_and_the_state_of_its_devices_is_unknown(bench, unwatched):
    bench.command("set", "laser.enabled", "on")
    server = pid_of(bench, "devices")
    with stopped(server):
        status, facts, locks, devices = outcomes(
            bench, [["status"], ["status", "--json"], ["locks", "--json"], ["devices", "--json"]]
        )
    assert [status[0], facts[0], locks[0], devices[0]] == [SILENT] * 4
    assert f"(pid {server}) does not answer: no news for" in status[1]
    assert {device["state"].partition(":")[0] for device in json.loads(facts[1])["devices"].values()} == {"not known"}
    assert json.loads(facts[1])["state"] == "silent"
    assert all(f"(pid {server})" in row["unknown"] for row in json.loads(locks[1])["locks"] if row["device"])
    assert all("not known" in row["state"] for row in json.loads(devices[1])["devices"])
    assert bench.json("status")["devices"]["laser"]["state"] == "open"


def test_a_check_that_is_not_read_any_more_is_not_shown_as_passing(bench, service):
    service.send_signal(signal.SIGSTOP)  # or it would notice, too
    monitor = next(child for child in psutil.Process(service.pid).children() if child.name() == "safety monitor")
    with stopped(monitor.pid):
        status = bench.until(lambda status: status["safety"]["checks"]["level"]["silent"], timeout=60)
    service.send_signal(signal.SIGCONT)
    assert "not read for" in status["safety"]["checks"]["level"]["problem"]


# --- watching ---


def read_until(process, wanted, seconds=60):
    """Read lines until one of them satisfies a condition; return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        if wanted(line):
            return line
    return pytest.fail(f"not within {seconds} s")


def interrupted(process):
    """Press Ctrl-C; return after how many seconds the process has ended."""
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.returncode == 130
    return time.monotonic() - pressed


def test_status_watch_says_since_when_there_is_no_news_and_when_there_is_news_again(bench, unwatched):
    with bench.popen("status", "--watch") as process:
        read_until(process, lambda line: "wheel: closed" in line)
        with stopped(pid_of(bench, "")):
            read_until(
                process, lambda line: f"testbed 'bench' (pid {unwatched.pid}) does not answer: no news for" in line
            )
            read_until(process, lambda line: "wheel: not known" in line)
        read_until(process, lambda line: "testbed 'bench' answers again" in line)
        bench.end(process)


def test_json_of_a_testbed_that_does_not_answer_never_says_safe(bench, service):
    with bench.popen("status", "--watch", "--json", "--interval", "0.1") as process:
        read_until(process, lambda line: json.loads(line)["state"] == "running")
        with stopped(pid_of(bench, "")):
            line = read_until(process, lambda line: json.loads(line)["state"] == "silent")
        bench.end(process)
    facts = json.loads(line)
    assert facts["safety"]["tripped"].startswith("not known: no news for")
    assert facts["safety"]["permit"] is None
    assert facts["safety"]["checks"]["level"]["problem"].startswith("no news for")
    assert {device["state"] for device in facts["devices"].values()} == {"not known"}


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--watch"],
        *(
            pytest.param(words, marks=pytest.mark.whole)
            for words in (["status", "--watch", "--json"], ["status"], ["stop"])
        ),
    ],
)
def test_ctrl_c_ends_commands_that_wait_for_a_testbed_that_does_not_answer(bench, unwatched, words):
    with stopped(pid_of(bench, "")):
        process = bench.popen(*words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.5)  # it is waiting for an answer
        if process.poll() is None:
            assert interrupted(process) < AT_ONCE + SLACK
        process.communicate()


def test_ctrl_c_ends_a_testbed_in_the_foreground_whose_server_is_stopped_and_its_view_says_so(bench, unwatched):
    bench.command("set", "laser.enabled", "on")
    server = pid_of(bench, "")
    with stopped(server):
        line = ""
        while "testbed" not in line or "does not answer" not in line:  # a busy computer may name another process first
            line = unwatched.stderr.readline()
            assert line
        # For as long as the command waits.
        time.sleep(max(0.0, 5.0 - float(re.search(r"no news for (\d+) s", line)[1])))
        took = interrupted(unwatched)
    assert f"testbed 'bench' (pid {unwatched.pid}) does not answer: no news for" in line
    assert took < AT_ONCE + SLACK
    assert bench.error("status", exit_code=3)


def test_an_experiment_whose_testbed_does_not_answer_ends_and_says_so(bench, unwatched):
    process = bench.popen("run", "work.py:Hold")
    bench.until(lambda status: status["devices"]["wheel"]["holder"])
    server = pid_of(bench, "")
    with stopped(server):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == SILENT, errors
    assert f"(pid {server}) is lost: it has not answered for 5 s" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("presses", [1, pytest.param(2, marks=pytest.mark.whole)])
def test_ctrl_c_ends_an_experiment_whose_testbed_does_not_answer(bench, unwatched, presses):
    process = bench.popen("run", "work.py:Hold")
    bench.until(lambda status: status["devices"]["wheel"]["holder"])
    with stopped(pid_of(bench, "")):
        for _ in range(presses - 1):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.7)
        took = interrupted(process)
        process.communicate()
    print(took)
    assert took < (AT_ONCE if presses == 2 else 3 * AT_ONCE) + SLACK


def test_a_testbed_whose_server_died_is_not_reported_as_ended(bench, unwatched):
    with bench.popen("status", "--watch") as process:
        read_until(process, lambda line: "wheel: closed" in line)
        os.kill(pid_of(bench, ""), signal.SIGKILL)
        read_until(process, lambda line: "the server of testbed 'bench' has died" in line)
        assert process.wait(30) == 1
