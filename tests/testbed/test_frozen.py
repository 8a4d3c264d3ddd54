"""Each process of a testbed is stopped, as by a debugger or a computer that swaps: nothing stays on, nothing hangs."""

import contextlib
import json
import os
import random
import signal
import time

import psutil
import pytest
from bench_script import CHECK, dark_after, of_session, run_until_lit

from catkit_devices.errors import CatkitDevicesError, SafetyError, ServerUnresponsiveError
from catkit_devices.testbed import Experiment, Testbed, load_configuration, running_testbeds
from catkit_devices.testbed.safety.monitor import MONITOR

QUICK = "testbed.permit_timeout=1.5"
SLACK = 6.0
"""Seconds that a busy computer adds to what is bounded to 2 s."""
CLINGS = """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


class Nothing(Experiment):
    def experiment(self):
        return None


def pid_of(runtime, server):
    """The process of a server, by what its name ends with ("" for the testbed's own)."""
    found = {file.stem.partition(".")[2]: json.loads(file.read_text())["pid"] for file in runtime.glob("*.json")}
    return found[server]


def processes(testbed, process, runtime, until):
    """The pids of a testbed's processes, by what they are."""
    sessions = testbed.manager.status()["sessions"]
    (monitor,) = {session["pid"] for session in sessions if session["process"] == MONITOR}
    (experiment,) = until(testbed.progress)
    return {
        "testbed": process.pid,
        "server": pid_of(runtime, ""),
        "devices": pid_of(runtime, "devices"),
        "monitor": monitor,
        "experiment": experiment.pid,
    }


def stop(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def go_on(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def seen(testbed, process, victim):
    """Whether a display shows that something is wrong; the end of the testbed counts too."""
    if process.poll() is not None:
        return True
    try:
        status = testbed.status(2.0)
    except CatkitDevicesError:  # it does not answer, or it is gone
        return True
    if victim == "experiment":
        return any(one["silent"] for one in status["experiments"].values())
    return status["state"] in {"silent", "tripped", "ending"}


def dark(journal, since):
    return all(dark_after(journal, lamp, since) is not None for lamp in ("tank", "basin"))


WHOLE = pytest.mark.whole


@pytest.mark.timeout(4000)
@pytest.mark.parametrize(
    "victim", ["devices", "monitor", *(pytest.param(one, marks=WHOLE) for one in ("testbed", "server", "experiment"))]
)
def test_a_process_that_is_stopped_at_any_moment_is_noticed_and_leaves_nothing_on(
    bench, journal, until, runtime, rounds, victim
):
    chance = random.Random(f"stopped {victim}")
    for _ in range(rounds(1, soak=40)):
        for file in (journal, journal.with_suffix(".times")):
            file.write_text("")
        process = run_until_lit(bench, journal, until, CHECK, QUICK, "testbed.stop_timeout=1")
        testbed = Testbed.attach("trial")
        pid = processes(testbed, process, runtime, until)[victim]
        time.sleep(chance.uniform(0.0, 0.5))
        stopped = time.time()
        stop(pid)
        try:
            until(lambda testbed=testbed, process=process: seen(testbed, process, victim), timeout=60)
            if victim != "experiment":  # which keeps what it holds as long as it runs
                until(lambda since=stopped: dark(journal, since), timeout=60)
            if victim == "testbed" or chance.random() < 0.5:
                go_on(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            go_on(pid)
        assert process.returncode in {1, -signal.SIGINT}, errors
        until(lambda session=process.pid: not of_session(session), timeout=30)
        assert dark(journal, stopped)
        assert running_testbeds() == []


@pytest.mark.timeout(4000)
def test_processes_that_were_stopped_for_a_moment_continue_or_the_testbed_has_tripped(
    bench, journal, until, runtime, rounds
):
    chance = random.Random("for a moment")
    for _ in range(rounds(1, soak=30)):
        process = run_until_lit(bench, journal, until, CHECK, QUICK, "testbed.stop_timeout=1")
        testbed = Testbed.attach("trial")
        pids = processes(testbed, process, runtime, until)
        for victim in chance.sample(sorted(pids), len(pids)):
            time.sleep(chance.uniform(0.0, 0.3))
            stop(pids[victim])
            time.sleep(chance.uniform(0.0, 0.9))
            go_on(pids[victim])
            if process.poll() is not None:
                break
            with contextlib.suppress(CatkitDevicesError):  # it ends just now
                status = testbed.status()
                assert status["state"] != "running" or status["safety"]["permit"] > 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        until(lambda session=process.pid: not of_session(session), timeout=30)
        assert dark(journal, time.time())
        assert running_testbeds() == []


def test_a_server_that_continues_is_told_of_the_trip_that_it_missed(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        server = testbed.manager.pid
        stop(server)
        try:
            until(lambda: testbed.trip, timeout=60)
        finally:
            go_on(server)
        until(lambda: Testbed.attach("trial").status()["state"] == "tripped", timeout=60)
        with pytest.raises(SafetyError):
            Testbed.attach("trial").run(Nothing())
        testbed.reset_safety("it goes on")
        assert Testbed.attach("trial").status()["state"] == "running"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_testbed_whose_server_is_stopped(bench, journal, until, runtime, sent):
    process = run_until_lit(bench, journal, until)
    server = pid_of(runtime, "")
    stop(server)
    try:
        with pytest.raises(ServerUnresponsiveError, match=f"pid {server}"):  # as it takes 5 s, everybody knows by then
            Testbed.attach("trial")
        pressed = time.monotonic()
        process.send_signal(sent)
        out, errors = process.communicate(timeout=60)
        took = time.monotonic() - pressed
    finally:
        go_on(server)

    assert out == "torn down\n"
    assert "did not answer, and was killed" in errors
    assert dark(journal, time.time())
    assert took < 2.0 + SLACK
    until(lambda: not of_session(process.pid))
    assert psutil.pid_exists(server) is False


def test_a_second_ctrl_c_ends_a_testbed_whose_server_is_stopped_at_once(bench, journal, until, runtime):
    process = run_until_lit(bench, journal, until, "testbed.stop_timeout=60", loop=CLINGS)
    server = pid_of(runtime, "")
    stop(server)
    try:
        with pytest.raises(ServerUnresponsiveError):
            Testbed.attach("trial")
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(Exception):
            process.wait(1.0)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        took = time.monotonic() - pressed
    finally:
        go_on(server)

    assert took < 2.0 + SLACK
    assert dark(journal, time.time())
    until(lambda: not of_session(process.pid))
