"""An operation that waits gives way to shared reads, and to nothing else."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest
from instruments import Oven

from catkit_devices.device import Device
from catkit_devices.errors import (
    DeadlockError,
    DeviceDisconnectedError,
    MutexBrokenError,
    MutexTimeoutError,
    OperationCancelled,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.locks.lock import OwnedLock, giving_way
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session

pytestmark = pytest.mark.usefixtures("ready_children")

LONG = 60.0
"""Seconds; what takes as long as that has not given way, or has not been ended."""


@pytest.fixture
def oven(manager):
    return manager.get_object("oven", Oven, "oven", open_on_use=True)


def connect(name="bench"):
    manager = SharedMemoryManager(name)
    manager.connect()
    return manager


@contextlib.contextmanager
def meanwhile(operation, *args, fails=None):
    """Have another owner run an operation; give what it raised, in a list, and wait for its end."""
    outcome = []

    def run():
        try:
            operation(*args)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(LONG)
    (error,) = outcome
    if fails is not None:
        assert isinstance(error, fails), error
    elif error is not None:
        raise error


def has_begun(oven, what="begin"):
    return lambda: what in oven.record["said"]


# --- who may enter, and when


def test_shared_reads_run_while_an_operation_waits(oven, until):
    with meanwhile(oven.settle, 2.0):
        until(has_begun(oven))
        for _ in range(10):
            assert oven.temperature == 21.0
        assert "step" not in oven.record["said"], "they waited for the operation"
    assert oven.record["overlaps"] == 0


def test_nothing_else_runs_while_an_operation_waits(oven, until):
    with meanwhile(oven.settle, 0.3):
        until(has_begun(oven))
        oven.echo(1)
    said = oven.record["said"]
    assert said.index("echo") > said.index("end")


def test_a_waiting_operation_continues_when_the_read_has_ended(oven, until):
    with meanwhile(oven.settle, 0.2):
        until(has_begun(oven))
        with meanwhile(oven.look, 1.0):
            until(has_begun(oven, "look"))
    assert oven.record["said"] == ["begin", "look", "step", "end"]
    assert oven.record["overlaps"] == 0


def test_a_read_that_waits_lets_others_in_too(oven, until):
    with meanwhile(oven.settle, 0.5), meanwhile(oven.look_patiently, 1.0):
        until(has_begun(oven, "look patiently"))
        assert oven.temperature == 21.0
    said = oven.record["said"]
    assert said.index("look patiently") < said.index("read") < said.index("step")
    assert oven.record["overlaps"] == 0


def settle_again_and_again(times):
    oven = connect().get_object("oven")
    for _ in range(times):
        oven.settle(0.002, 3)


def test_bodies_and_reads_of_many_processes_never_overlap(oven):
    processes = [Process(target=settle_again_and_again, args=(15,)) for _ in range(3)]
    for process in processes:
        process.start()
    reads = 0
    while any(process.is_alive() for process in processes):
        assert oven.temperature == 21.0
        reads += 1
    for process in processes:
        process.join(LONG)
    record = oven.record
    assert record["overlaps"] == 0
    assert record["said"].count("step") == 3 * 15 * 3
    assert reads > 15


def test_owners_readers_and_cancellations_in_any_order_leave_the_lock_free():
    """The lock alone, with threads: one runs at a time, and all that was begun is ended."""
    lock = OwnedLock("lock", by_chain=True)
    running = 0
    overlaps = []

    def runs():
        nonlocal running
        running += 1
        overlaps.append(running > 1)
        time.sleep(0)
        overlaps.append(running > 1)
        running -= 1

    def use(seed):
        chooser = random.Random(seed)
        session = Session(f"session {seed}", "process", 1, "host")
        owner = Owner((f"process {seed}", 1, 0), "process", 1, "host", "thread")
        for _ in range(60):
            call = Call(owner, object(), session)
            lock.enter(call, LONG, "site", shared=chooser.random() < 0.6)
            try:
                runs()
                for _ in range(2):
                    with giving_way(call):
                        time.sleep(chooser.random() * 0.002)
                    runs()
            finally:
                lock.leave(call)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(overlaps)
    assert len(overlaps) == 6 * 60 * 3 * 2
    assert lock.holder() is None
    assert not lock.has_guest()


# --- devices that use others


class Patient(Device):
    def _open(self):
        return True

    def _close(self):
        pass

    def _make_safe(self):
        pass

    def pause(self, *wait, **until):
        self.wait(*wait, **until)


@pytest.mark.parametrize(
    ("wait", "until"),
    [
        ((float("nan"),), {}),
        (("3",), {}),
        ((lambda: False,), {"timeout": float("nan")}),
        ((lambda: True,), {"timeout": "3"}),
        ((lambda: True,), {"interval": float("nan")}),
    ],
)
def test_a_wait_is_refused_if_its_time_is_no_number_of_seconds(wait, until):
    with Patient("patient") as patient, pytest.raises(ValueError, match="device 'patient', .*a number of seconds, got"):
        patient.pause(*wait, **until)


def test_a_device_lets_reads_in_while_the_device_that_it_uses_waits(manager, until):
    stage = manager.get_object("stage", Oven, "stage", open_on_use=True)
    oven = manager.get_object("oven", Oven, "oven", uses=stage, open_on_use=True)
    watch_both(oven, stage, until)


def test_a_device_lets_reads_in_while_a_device_on_another_server_waits(manager, second_manager, until):
    stage = second_manager.get_object("stage", Oven, "stage", open_on_use=True)
    oven = manager.get_object("oven", Oven, "oven", uses=stage, open_on_use=True)
    watch_both(oven, stage, until)


def test_a_device_lets_reads_in_while_a_device_two_servers_away_waits(manager, second_manager, until):
    stage = manager.get_object("stage", Oven, "stage", open_on_use=True)
    middle = second_manager.get_object("middle", Through, "middle", uses=stage, open_on_use=True)
    oven = manager.get_object("oven", Oven, "oven", uses=middle, open_on_use=True)
    watch_both(oven, stage, until)


class Through(Oven):
    """Hands on what it is asked for."""

    def settle(self, seconds, times=1):
        self._uses.settle(seconds, times)

    def call_back(self, other):
        self._uses.call_back(other)


def watch_both(oven, stage, until):
    with meanwhile(oven.settle_both, 2.0):
        until(has_begun(stage))
        until(lambda: (oven.temperature, stage.temperature) == (21.0, 21.0))
        assert "step" not in stage.record["said"], "a read of one of them waited for the operation"
    assert oven.record["said"][-2:] == ["echo", "both"]
    assert oven.record["overlaps"] == stage.record["overlaps"] == 0


# --- the end of it


def test_a_read_that_hangs_delays_the_operation_for_the_timeout_of_the_device_and_is_named(manager, until):
    oven = manager.get_object("oven", Oven, "oven", open_on_use=True, timeout=0.5)
    with meanwhile(oven.settle, 0.3, fails=MutexTimeoutError) as outcome:
        until(has_begun(oven))
        with meanwhile(oven.look, 2.0):
            until(lambda: outcome)
    assert "oven.look" in str(outcome[0])
    assert f"(pid {os.getpid()}" in str(outcome[0])
    assert oven.echo(3) == 3


def test_a_break_ends_a_wait_at_once_even_during_many_reads(manager, oven, until):
    with meanwhile(oven.settle, LONG, fails=MutexBrokenError):
        until(has_begun(oven))
        with meanwhile(read_until_it_has_ended, oven):
            until(has_begun(oven, "read"))
            begun = time.monotonic()
            manager.break_mutex("oven", "the test says so")
    assert time.monotonic() - begun < LONG / 4
    assert oven.record["overlaps"] == 0


def read_until_it_has_ended(oven):
    while "end" not in oven.record["said"]:
        assert oven.temperature == 21.0


def test_a_read_that_hangs_delays_the_end_of_a_broken_operation_by_a_second(manager, oven, until):
    with meanwhile(oven.settle, LONG, fails=MutexBrokenError):
        until(has_begun(oven))
        with meanwhile(oven.look, 6.0):
            until(has_begun(oven, "look"))
            manager.break_mutex("oven", "the test says so")
            until(has_begun(oven, "end"), timeout=4.0)


def settle_for_ever():
    connect().get_object("oven").settle(LONG)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_caller_that_dies_or_is_interrupted_ends_the_wait_at_once(oven, until, number):
    process = Process(target=settle_for_ever)
    process.start()
    until(has_begun(oven))
    with meanwhile(read_until_it_has_ended, oven):
        until(has_begun(oven, "read"))
        begun = time.monotonic()
        os.kill(process.pid, number)
    with contextlib.suppress(BaseException):
        process.join(LONG)
    assert oven.echo(4) == 4
    assert time.monotonic() - begun < LONG / 4
    assert oven.record["overlaps"] == 0


def test_a_break_reaches_a_nested_operation_that_is_just_starting(manager, second_manager, until):
    stage = second_manager.get_object("stage", Oven, "stage", open_on_use=True)
    oven = manager.get_object("oven", Oven, "oven", uses=stage, open_on_use=True)
    begun = time.monotonic()
    for _ in range(20):
        with meanwhile(oven.settle_both, LONG, fails=(MutexBrokenError, OperationCancelled)):
            until(lambda: oven.mutex.holder)
            manager.break_mutex("oven", "the test says so")
    assert time.monotonic() - begun < LONG


# --- what must not be let in


def test_no_read_is_let_in_while_the_device_is_being_opened(manager, until):
    oven = manager.get_object("oven", Oven, "oven", open_on_use=True, opening=0.5)
    with meanwhile(oven.echo, 1):
        until(lambda: oven.record["opened"])
        assert oven.temperature == 21.0
    assert oven.record["said"] == ["echo", "read"]
    assert oven.record["opened"] == 1


def test_a_read_does_not_replace_the_connection_of_an_operation_that_waits(oven, until):
    with meanwhile(oven.settle, 0.5):
        until(has_begun(oven))
        oven.pull_the_cable(True)
        with pytest.raises(DeviceDisconnectedError, match="the cable is out"):
            _ = oven.temperature
        oven.pull_the_cable(False)
        with pytest.raises(DeviceDisconnectedError, match="an operation waits"):
            _ = oven.temperature
        assert oven.record["opened"] == 1
    assert oven.temperature == 21.0
    assert oven.record["opened"] == 2


def test_a_read_that_waits_for_a_mutex_of_the_owner_of_the_operation_is_a_deadlock(manager, until):
    stage = manager.get_object("stage", Oven, "stage", open_on_use=True)
    oven = manager.get_object("oven", Oven, "oven", uses=stage, open_on_use=True)

    def settle():
        with stage.lock():
            oven.settle(0.5)

    with meanwhile(settle, fails=DeadlockError):
        until(has_begun(oven))
        with meanwhile(oven.look_at_the_other):
            until(lambda: stage.mutex.waiters)
