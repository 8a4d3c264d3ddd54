"""What keeps a device open: blocks and open() of every session, counted, whatever interrupts them."""

import os
import random
import signal
import threading
import time
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from instruments import Instrument

from catkit_devices.device import Device
from catkit_devices.errors import DeviceClosedError, MutexTimeoutError, OperationCancelled
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.locks import lock as locks
from catkit_devices.multiprocessing.locks.entries import new_entry
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session, calling, current_call, current_owner

SESSIONS = 3


def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.0005)


class Lamp(Device):
    """Counts how often it was opened, made safe and closed; opening fails, or is interrupted, as told."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self._done = []
        self._while_opening = None

    def _open(self):
        if self._while_opening is not None:
            self._while_opening()
        self._done.append("open")

    def _make_safe(self):
        self._done.append("safe")

    def _close(self):
        self._done.append("close")


class Model(RuleBasedStateMachine):
    """For each session: how many blocks and how many open() it has, and which entries of a client on another host."""

    kept = False

    def __init__(self):
        super().__init__()
        self.device = Lamp("lamp", timeout=0, open_on_use=self.kept)
        self.sessions = [Session(f"session {n}", f"process {n}", n, "host") for n in range(SESSIONS)]
        self.has = [{"blocks": 0, "opens": 0, "sent": []} for _ in range(SESSIONS)]
        self.open = False
        self.opened = 0
        self.holder = None

    # --- what the model says

    def call(self, session):
        """Return a call of some thread of the session: which one makes no difference."""
        name = self.sessions[session].id
        return Call(Owner((name, 1, 0), name, session, "host", "t"), object(), self.sessions[session])

    def anybody(self):
        return any(one["blocks"] or one["opens"] or one["sent"] for one in self.has)

    def enter(self, session, enter):
        """Enter; return whether that is to have counted."""
        with calling(self.call(session)):
            if self.holder not in (None, session):
                with pytest.raises(MutexTimeoutError):
                    enter()
                return False
            enter()
        self.opened += not self.open
        self.open = True
        return True

    def leave(self, session, leave):
        """Leave, now that the model has what is left."""
        last = self.open and not self.kept and not self.anybody()
        # One that is not the last waits for nobody; nor does one too many, where somebody else keeps it open.
        waits = not self.kept and not self.anybody() and self.holder not in (None, session)
        with calling(self.call(session)):
            if waits:
                with pytest.raises(MutexTimeoutError):
                    leave()
            else:
                leave()
        if last and not waits:
            self.open = False

    one = st.integers(0, SESSIONS - 1)

    # --- what users do

    @rule(session=one)
    def enter_a_block(self, session):
        self.has[session]["blocks"] += self.enter(session, self.device.__enter__)

    @rule(session=one)
    def leave_a_block(self, session):
        # Perhaps one that was ended by force meanwhile.
        self.has[session]["blocks"] = max(0, self.has[session]["blocks"] - 1)
        self.leave(session, lambda: self.device.__exit__(None, None, None))

    @rule(session=one)
    def open_it(self, session):
        self.has[session]["opens"] += self.enter(session, self.device.open)

    @rule(session=one)
    def close_it_perhaps_once_too_often(self, session):
        self.has[session]["opens"] = max(0, self.has[session]["opens"] - 1)
        self.leave(session, self.device.close)

    @rule(session=one, times=st.integers(1, 2))
    def a_client_enters_and_repeats_it(self, session, times):
        entry = new_entry(block=True)._replace(process="a client's")
        for _ in range(times):
            counted = self.enter(session, lambda: self.device._enter_entry_(entry))
        if counted:
            self.has[session]["sent"].append(entry)

    @rule(session=one, times=st.integers(1, 2), by_word=st.booleans())
    def a_client_leaves_and_repeats_it(self, session, times, by_word):
        if not self.has[session]["sent"]:
            return
        entry = self.has[session]["sent"].pop()
        for _ in range(times):
            if by_word:  # the client was interrupted, and says so on its lifeline
                self.device._withdraw_entry_(entry)
                self.settle()
            else:
                self.leave(session, lambda: self.device._leave_entry_(entry, False))

    @rule(session=one, block=st.booleans(), how=st.sampled_from(["fails", "cancelled", "session ends"]))
    def opening_is_ended_early(self, session, block, how):
        if self.open or self.holder is not None:
            return
        call = self.call(session)

        def strike():
            if how == "fails":
                raise OSError("no such lamp")
            if how == "cancelled":
                locks.cancel(call, OperationCancelled("interrupted"))
            else:
                self.end_session(session, goodbye=False)

        self.device._while_opening = strike
        before = self.device._done.count("open")
        with calling(call), pytest.raises((OSError, OperationCancelled)):
            self.device.__enter__() if block else self.device.open()
        self.device._while_opening = None
        self.opened += self.device._done.count("open") - before
        if self.kept and how != "fails":
            self.open = True

    @rule(session=one)
    def close_it_for_everybody(self, session):
        if self.holder not in (None, session):
            return
        with calling(self.call(session)):
            self.device.close(force=True)
        for one in self.has:
            one["blocks"], one["opens"], one["sent"] = 0, 0, []
        self.open = False

    @rule(session=one)
    def hold_it(self, session):
        if self.holder is None:
            with calling(self.call(session)):
                self.device.acquire()
            self.holder = session

    @rule()
    def release_it(self):
        if self.holder is not None:
            with calling(self.call(self.holder)):
                self.device.release()
            self.holder = None
            self.settle()

    @rule(session=one, goodbye=st.booleans())
    def a_session_ends(self, session, goodbye):
        self.end_session(session, goodbye)
        self.settle()

    def end_session(self, session, goodbye):
        ended = self.sessions[session]
        locks.end_session(ended)
        self.device._session_ended_(ended, goodbye)
        self.has[session] = {"blocks": 0, "opens": 0, "sent": []}
        if self.holder == session:
            self.holder = None
        self.sessions[session] = Session(ended.id + "'", ended.process, ended.pid, "host")

    def settle(self):
        """Somebody may have left the device open for lack of its mutex: that is made good as soon as it is free."""
        if self.open and self.holder is None and not self.kept and not self.anybody():
            _until(lambda: not self.device.is_open)
            self.open = False
        _until(lambda: self.device.mutex.holder is None or self.holder is not None)

    @invariant()
    def it_is_open_for_whoever_has_entered(self):
        assert self.device.is_open == self.open
        done = self.device._done
        assert done.count("open") == self.opened
        assert done.count("close") == self.opened - self.open
        assert all(before == "safe" for before, this in pairwise(done) if this == "close")
        assert self.open or not self.anybody()

    def teardown(self):
        if self.holder is not None:
            self.release_it()
        for session in range(SESSIONS):
            self.a_session_ends(session, goodbye=True)
        assert self.device.is_open == (self.kept and self.open)


class OnATestbed(Model):
    """The testbed keeps it open itself, from the first use on."""

    kept = True


for machine in (Model, OnATestbed):
    machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_a_device_is_open_as_long_as_its_model_says = Model.TestCase
test_a_device_of_a_testbed_is_open_as_long_as_its_model_says = OnATestbed.TestCase


# --- over real sessions


@pytest.fixture(params=["in this process", "proxy", "another proxy", "another thread"])
def helper(request, manager):
    """A device, and a function of a library that opens what it needs, as everybody is taught to."""
    if request.param == "in this process":
        device = again = Instrument("lamp")
    else:
        device = manager.get_object("lamp", Instrument, "lamp")
        again = manager.get_object("lamp") if request.param == "another proxy" else device

    def measure():
        with again:
            again.open()
            again.close()
            return again.value

    def elsewhere():
        result = []
        thread = threading.Thread(target=lambda: result.append(measure()))
        thread.start()
        thread.join()
        return result[0]

    return device, elsewhere if request.param == "another thread" else measure


def test_a_block_inside_of_another_block_leaves_the_device_open_for_the_outer_one(helper):
    device, measure = helper
    with device:
        device.on = True
        assert measure() == 0
        assert device.on
        assert device.record["safe"] == 0
    assert device.state == "closed"
    assert (device.record["safe"], device.record["on"]) == (1, False)


def test_open_is_ended_by_a_close_in_any_thread_and_a_surplus_close_does_not_end_a_block(helper):
    device, _ = helper
    device.open()
    closing = threading.Thread(target=device.close)
    with device:
        closing.start()
        closing.join()
        device.close()
        assert device.value == 0
    with pytest.raises(DeviceClosedError):
        _ = device.value


def test_a_device_of_a_testbed_stays_open_after_a_block(instrument):
    with instrument:
        instrument.on = True
    assert instrument.on
    assert instrument.record["safe"] == 0
    instrument.close(force=True)
    assert (instrument.state, instrument.record["on"]) == ("closed", False)


def in_another_thread(function):
    outcome = []

    def run():
        outcome.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    return outcome


@pytest.mark.parametrize("where", ["in this process", "proxy"])
def test_leaving_a_block_that_was_closed_by_force_does_not_close_the_device_for_later_users(manager, where):
    lamp = manager.get_object("lamp", Instrument, "lamp") if where == "proxy" else Instrument("lamp")
    first = lamp.__enter__()
    assert in_another_thread(lambda: lamp.close(force=True)) == [None]
    entered, leave = threading.Event(), threading.Event()
    states = []

    def second():
        with lamp:
            entered.set()
            leave.wait(30)
            states.append(lamp.state)

    thread = threading.Thread(target=second)
    thread.start()
    assert entered.wait(30)
    first.__exit__(None, None, None)
    leave.set()
    thread.join(30)
    assert states == ["open"]
    assert lamp.state == "closed"


@pytest.mark.parametrize("how", ["block", "open"])
def test_leaving_a_block_on_a_server_that_has_ended_does_not_close_devices_of_the_next_server(how):
    def server():
        manager = SharedMemoryManager("bench")
        manager.start()
        return manager, manager.get_object("lamp", Instrument, "lamp")

    manager, old = server()
    if how == "block":
        old.__enter__()
    else:
        old.open()
    manager.shutdown()
    manager, new = server()
    with manager:
        new.__enter__() if how == "block" else new.open()
        if how == "block":
            old.__exit__(None, None, None)
        else:
            old.close()
        assert new.state == "open"
        new.__exit__(None, None, None) if how == "block" else new.close()
        assert new.state == "closed"


def test_a_device_is_closed_in_a_thread_that_ctrl_c_does_not_reach_as_part_of_the_call_that_closes_it():
    closed = []

    class Told(Lamp):
        def _close(self):
            closed.append((threading.current_thread().name, current_call().owner))

    lamp = Told("lamp")
    with lamp:
        pass
    assert closed == [("make-safe-lamp", current_owner())]


def in_a_block(entered):
    manager = SharedMemoryManager("bench")
    manager.connect()
    with manager.get_object("lamp") as lamp, lamp:
        lamp.open()
        manager.get_event(entered).set()
        time.sleep(60)


def test_the_blocks_of_a_killed_process_are_ended_and_those_of_others_stay(manager, until):
    lamp = manager.get_object("lamp", Instrument, "lamp")
    processes = [Process(target=in_a_block, args=(name,)) for name in ("first", "second")]
    for process, name in zip(processes, ("first", "second"), strict=True):
        process.start()
        manager.get_event(name).wait(60)
    with lamp:
        processes[0].kill()
        until(lambda: len(manager.status()["sessions"]) == 2)
        assert lamp.value == 0
    assert lamp.state == "open"  # for the second one
    processes[1].kill()
    until(lambda: lamp.state == "closed")
    assert lamp.record["safe"] == 1


def interrupted_in_blocks(seed, rounds):
    """Interrupt oneself at random moments of entering, using and leaving; the device must be closed each time."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    manager = SharedMemoryManager("bench")
    manager.connect()
    lamp = manager.get_object("lamp")
    chooser = random.Random(seed)
    armed, stop = threading.Event(), threading.Event()

    def interrupt():
        while not stop.is_set():
            if armed.wait(0.1):
                time.sleep(chooser.random() * 0.003)
                armed.clear()
                os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    left_open = 0
    for _ in range(rounds):
        try:
            armed.set()
            while True:
                with lamp, lamp:
                    lamp.open()
                    lamp.close()
        except KeyboardInterrupt:
            while any(lamp._remote_.connection().session.opened.values()):
                lamp.close()  # an open() without its close()
        deadline = time.monotonic() + 20
        while lamp.is_open and time.monotonic() < deadline:
            time.sleep(0.001)
        if lamp.is_open:  # CPython: an interrupt on entry to __exit__
            left_open += 1
            lamp.close(force=True)
    stop.set()
    return left_open


def test_ctrl_c_at_random_points_of_blocks_leaves_no_device_open(manager, rounds):
    lamp = manager.get_object("lamp", Instrument, "lamp")
    count = rounds(150, soak=3000)
    process = Process(target=interrupted_in_blocks, args=(1, count))
    process.start()
    process.join(110)
    # CPython delivers some on entry to __exit__, before any line of ours: 0 to 3 % here, more on a busy computer.
    assert process.result <= count // 10
    assert lamp.state == "closed"


@pytest.mark.parametrize("where", ["in this process", "proxy"])
def test_a_block_whose_end_is_interrupted_while_another_holds_the_device_closes_it_after_that_one(
    manager, until, where
):
    lamp = Instrument("lamp") if where == "in this process" else manager.get_object("lamp", Instrument, "lamp")
    held, leave = threading.Event(), threading.Event()

    def hold():
        with lamp.lock():
            held.set()
            leave.wait(20)

    def interrupt():
        until(lambda: lamp.mutex.waiters)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threads = [threading.Thread(target=hold), threading.Thread(target=interrupt)]
    with pytest.raises(KeyboardInterrupt), lamp:
        threads[0].start()
        assert held.wait(20)
        threads[1].start()
    assert lamp.is_open
    leave.set()
    until(lambda: not lamp.is_open)
    assert lamp.record["safe"] == 1
    for thread in threads:
        thread.join()


def test_an_open_that_fails_counts_nothing():
    class Stubborn(Instrument):
        def _open(self):
            if not self._value:
                raise OSError("nobody there")

        def _plug_in(self):
            self._value = 1

    lamp = Stubborn("lamp")
    with pytest.raises(OSError, match="nobody there"), lamp:
        pass
    lamp._plug_in()
    with lamp:
        pass
    assert lamp.state == "closed"
