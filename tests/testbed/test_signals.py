"""What the terminal, an operator or the kernel can do to a testbed's process."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_script import CHECK, dark_after, of_session, run_until_lit, start_script

from catkit_devices.errors import CatkitDevicesError, SafetyError
from catkit_devices.testbed import Testbed
from catkit_devices.testbed.processes import signals

SOON = 5.0
"""Seconds; a tenth of a second where the machine has nothing else to do. The guarantee is 1 s."""

# --- Ctrl-C, SIGTERM, the end of the terminal ---


@pytest.mark.parametrize(
    ("sent", "overrides"),
    [
        pytest.param(signal.SIGINT, (), marks=pytest.mark.whole),
        (signal.SIGINT, (CHECK,)),
        (signal.SIGTERM, (CHECK,)),
        (signal.SIGHUP, ()),
    ],
)
def test_a_signal_to_end_ends_everything_in_order(bench, journal, until, runtime, sent, overrides):
    process = run_until_lit(bench, journal, until, *overrides)

    if sent == signal.SIGTERM:  # from an operator, to this process; the others come to all that are on the terminal
        process.send_signal(sent)
    else:
        os.killpg(process.pid, sent)
    out, err = process.communicate(timeout=30)

    assert out == "torn down\n"
    assert "SafetyError" not in err
    if sent == signal.SIGINT:
        assert err.rstrip().endswith("KeyboardInterrupt: ") or err.rstrip().endswith("KeyboardInterrupt")
        assert process.returncode == -signal.SIGINT
    else:
        assert process.returncode == 128 + sent
    assert journal.read_text().splitlines()[-2:] == ["basin LAMP 0", "tank LAMP 0"]
    until(lambda: not of_session(process.pid))
    assert not [path for path in runtime.iterdir() if path.suffix in {".json", ".sock"}]


def test_ctrl_c_ends_an_experiment_that_ignores_it(bench, journal, until):
    loop = """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
    """
    process = run_until_lit(bench, journal, until, "testbed.stop_timeout=0.3", loop=loop)

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    assert {"basin LAMP 0", "tank LAMP 0"} <= set(journal.read_text().splitlines())
    until(lambda: not of_session(process.pid))


@pytest.mark.timeout(1200)
def test_ctrl_c_at_any_moment_leaves_nothing_behind(bench, journal, until, runtime, rounds):
    chance = random.Random(7)
    for _ in range(rounds(4, soak=100)):
        imported = bench.with_name("imported")
        imported.unlink(missing_ok=True)
        process = start_script(bench, CHECK)
        until(imported.exists)  # what Ctrl-C does to the import of a library is up to that
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.0, 2.0))

        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)

        assert process.returncode == -signal.SIGINT, err
        assert "\nKeyboardInterrupt" in err  # a library may have put a note on it, where it was being imported
        until(lambda session=process.pid: not of_session(session))
        assert not [path for path in runtime.iterdir() if path.suffix in {".json", ".sock"}]
        lamps = [line for line in journal.read_text().splitlines() if "tank LAMP" in line]
        assert lamps[-1:] in ([], ["tank LAMP 0"])


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(bench, journal, until, sent, code):
    finalizer = f"""
        class Dropped:
            def __del__(self):
                import signal
                signal.raise_signal(signal.{sent})
        def drop():
            Dropped()
    """
    process = start_script(bench, on_tick="drop", before=finalizer)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err


def test_every_signal_of_a_terminal_reaches_only_the_process_of_the_testbed(bench, journal, until):
    process = run_until_lit(bench, journal, until, CHECK)

    ignored = {}
    for child in of_session(process.pid):
        if "resource_tracker" not in " ".join(child.cmdline()):
            ignored[child.pid] = ignored_by(child.pid)
    of_children = [names for pid, names in ignored.items() if pid != process.pid]
    process.terminate()
    process.communicate(timeout=30)

    assert ignored[process.pid] == set()
    assert of_children == [{"SIGINT", "SIGQUIT", "SIGTSTP", "SIGHUP"}] * 4


def ignored_by(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn")]
    mask = int(line.split()[1], 16)
    names = ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGHUP")
    return {name for name in names if mask >> (getattr(signal, name) - 1) & 1}


# --- SIGKILL and SIGSTOP ---


@pytest.mark.parametrize("overrides", [(), (CHECK, "devices.basin.server='other'")])
def test_when_the_testbed_is_killed_devices_are_made_safe_and_experiments_torn_down(bench, journal, until, overrides):
    process = run_until_lit(bench, journal, until, *overrides)

    killed = time.time()
    process.kill()
    out, err = process.communicate(timeout=30)

    until(lambda: not of_session(process.pid), timeout=20)
    assert out == "torn down\n"
    assert dark_after(journal, "basin", killed) < SOON
    assert dark_after(journal, "tank", killed) < SOON
    assert f"safety check 'testbed': the testbed's process {process.pid} has died" in err


def test_when_the_testbed_is_killed_an_experiment_that_ignores_signals_is_killed_too(bench, journal, until):
    process = run_until_lit(bench, journal, until, "testbed.stop_timeout=0.1", loop="sum(range(10**11))")

    process.kill()
    process.communicate(timeout=30)

    until(lambda: not of_session(process.pid), timeout=20)


def test_when_the_testbed_is_stopped_devices_are_made_safe_and_its_experiments_end(bench, journal, until):
    process = run_until_lit(bench, journal, until, CHECK, "testbed.permit_timeout=1.5")
    with Testbed.attach("trial") as testbed:
        stopped = time.time()
        process.send_signal(signal.SIGSTOP)
        try:
            until(testbed.safety_event.is_set)
            detected = testbed.trip.detected
            until(lambda: dark_after(journal, "basin", detected) is not None)
            with pytest.raises(SafetyError, match="'lamp' of device 'basin' is refused until the safety is reset"):
                testbed.devices.basin.lamp = True
            assert testbed.devices.basin.lamp is False
            until(lambda: testbed.progress()[0].state in {"stopped", "failed"})
            state = testbed.status()["state"]
        finally:
            process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=30)

    assert detected - stopped < 6.0
    assert max(dark_after(journal, lamp, detected) for lamp in ("basin", "tank")) < SOON
    assert state == "tripped"
    assert out == "torn down\n"
    assert process.returncode == 1
    problem = "the testbed's process has not renewed it for 1.5 s: killed, stopped, hung or cut off"
    assert f"SafetyError: safety check 'permit': {problem}" in err
    until(lambda: not of_session(process.pid))


def test_a_killed_testbed_is_not_listed_as_running(bench, journal, until, runtime):
    process = run_until_lit(bench, journal, until)
    for one in of_session(process.pid):
        one.kill()
    process.communicate(timeout=30)

    with pytest.raises(CatkitDevicesError, match="no testbed named 'trial' is running"):
        Testbed.attach("trial")

    assert not [path for path in runtime.iterdir() if path.name.startswith("trial") and "." not in path.stem]


ENDING = """
import os, signal, sys
from catkit_devices.errors import StopExperiment
from catkit_devices.testbed.experiments.stop import StopGuard

def tell_to_end():
    if "by its starter" in sys.argv:
        guard.stop("ends", told=True)
    else:
        os.kill(os.getpid(), signal.SIGTERM)

with StopGuard() as guard:
    guard.arm()
    try:
        guard.stop("the server is lost")
        signal.pause()
    except StopExperiment as reason:
        print(reason, flush=True)
        tell_to_end()
        print("still putting things in order", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("too long", flush=True)
"""


@pytest.mark.parametrize("told", ["by SIGTERM", "by its starter"])
def test_an_experiment_that_stops_for_a_reason_of_its_own_is_ended_at_once_only_when_it_had_been_told_to_end(told):
    done = subprocess.run([sys.executable, "-c", ENDING, told], capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines() == ["the server is lost", "still putting things in order"], done.stderr
    assert done.returncode == -signal.SIGTERM


# --- a second request while the testbed ends


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(signals, "_LONG", 0.6)


@pytest.mark.parametrize(
    ("asked", "pauses", "hurried"),
    [
        (True, [0.3], [signal.SIGINT]),  # the second request to end
        (True, [0.0], []),  # the same one, sent twice
        (False, [0.0], []),  # the first one, in an ordinary end
        (False, [0.0, 0.0], []),
        (False, [0.0, 0.3], [signal.SIGINT]),
    ],
)
def test_a_second_request_to_end_is_acted_on_when_the_clean_up_has_had_its_time(short, asked, pauses, hurried):
    found = []

    def clean_up():
        with signals.deferred(found.append, asked=asked):
            for pause in pauses:
                time.sleep(pause)
                signal.raise_signal(signal.SIGINT)
            assert found == []
            time.sleep(1.0)

    with pytest.raises(KeyboardInterrupt):
        clean_up()

    assert found == hurried


def test_a_clean_up_that_ends_in_time_is_not_hurried(short):
    found = []

    def clean_up():
        with signals.deferred(found.append, asked=True):
            time.sleep(0.3)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    time.sleep(0.5)

    assert found == []


@pytest.mark.whole
def test_a_second_ctrl_c_ends_an_experiment_that_is_suspended(bench, journal, until, runtime):
    process = run_until_lit(bench, journal, until)
    (experiment,) = until(Testbed.attach("trial").progress)
    os.kill(experiment.pid, signal.SIGSTOP)

    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    begun, now = time.monotonic(), time.time()
    process.communicate(timeout=30)

    assert time.monotonic() - begun < SOON
    assert all(dark_after(journal, lamp, now) is not None for lamp in ("basin", "tank"))
    until(lambda: not of_session(process.pid))
