"""Ctrl-C at any moment loses the call that it interrupts, and nothing else."""

import contextlib
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from instruments import Instrument

from catkit_devices._base.ctrl_c import InterruptSafeEvent as CtrlCEvent
from catkit_devices.errors import OperationCancelled
from catkit_devices.multiprocessing import (
    Mutex,
    MutexedDict,
    Process,
    SharedMemoryManager,
    acting_as,
    current_owner,
    lock_all,
)
from catkit_devices.multiprocessing.locks.lock import OwnedLock, cancel, new_section
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session


def connect():
    manager = SharedMemoryManager("bench")
    manager.connect()
    return manager


def interrupted_at_random(seed, rounds):
    """Interrupt oneself at random moments of calls and sections; every answer must be that of its own question."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    manager = connect()
    instrument = manager.get_object("instrument")
    chooser = random.Random(seed)
    stop = threading.Event()
    armed = threading.Event()

    def interrupt():
        while not stop.is_set():
            if armed.wait(0.1):
                time.sleep(chooser.random() * 0.002)
                if armed.is_set():
                    armed.clear()
                    os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    interrupts = 0
    number = 0
    for _ in range(rounds):
        try:
            armed.set()
            while True:
                number += 1
                assert instrument.echo(number) == number, "the answer to another question"
        except KeyboardInterrupt:
            interrupts += 1
        number += 1
        assert instrument.echo(number) == number, "the answer to another question"
    for _ in range(rounds):
        try:
            armed.set()
            while True:
                with instrument.lock():
                    try:
                        number += 1
                        assert instrument.echo(number) == number
                    finally:
                        armed_before = armed.is_set()
                        armed.clear()  # what follows checks the invariant, uninterrupted
                        assert instrument.mutex.holder.depth >= 1, "given away before the block was left"
                        if armed_before:
                            armed.set()
        except KeyboardInterrupt:
            interrupts += 1
            armed.clear()
        while mine(manager, instrument):  # CPython: an interrupt on entry to __exit__ keeps it held, and visible
            instrument.release()
    stop.set()
    armed.clear()
    return interrupts


def mine(manager, instrument):
    holder = instrument.mutex.holder
    return holder is not None and f"pid {os.getpid()}," in holder.owner


def test_ctrl_c_at_random_points_never_mixes_answers_nor_loses_the_mutex(manager, instrument, rounds):
    instrument.null()
    processes = [Process(target=interrupted_at_random, args=(seed, rounds(60, soak=2000))) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.result > 50
    assert instrument.mutex.holder is None
    assert instrument.record["overlaps"] == 0


def test_the_mutex_stays_held_until_the_block_is_left_its_finally_included(manager, instrument):
    holders = []
    with pytest.raises(KeyboardInterrupt), instrument.lock():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            instrument.nap(60)
        finally:
            holders.append(instrument.mutex.holder)
            instrument.value = 5
            holders.append(instrument.mutex.holder)
    assert all(str(os.getpid()) in str(holder) for holder in holders)
    assert instrument.value == 5
    assert instrument.mutex.holder is None


def test_a_long_operation_that_waits_is_cancelled_on_the_server(manager, instrument, until):
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        instrument.nap(60)
    started = time.monotonic()
    assert instrument.echo("next") == "next"
    assert time.monotonic() - started < 5


def test_the_next_operation_of_an_owner_waits_for_its_interrupted_one_to_end(manager, instrument):
    with pytest.raises(KeyboardInterrupt), instrument.lock():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            instrument.work(1.0)  # not interruptible on the server
        finally:
            instrument.value = 1
            assert instrument.record["overlaps"] == 0
            wire = instrument.record["wire"]
    assert "worked" not in wire  # the abandoned body was stopped at its next exchange
    assert wire[-1] == "value=1"


def test_an_interrupted_wait_for_a_mutex_is_withdrawn(manager, until):
    mutex = manager.get_mutex("m")
    release = threading.Event()

    def hold():
        with mutex:
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    until(lambda: mutex.holder)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        mutex.acquire()
    until(lambda: not mutex.waiters)
    release.set()
    holder.join()
    until(lambda: mutex.holder is None)


def test_an_interrupted_nested_call_is_cancelled_on_the_second_server(manager, second_manager, until):
    from instruments import Instrument

    class Nester(Instrument):
        def nap_there(self):
            return self._uses.nap(60)

    stage = second_manager.get_object("stage", Instrument, "stage", open_on_use=True)
    wheel = manager.get_object("wheel", Nester, "wheel", uses=stage, open_on_use=True)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        wheel.nap_there()
    started = time.monotonic()
    assert stage.echo(1) == wheel.echo(1)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["mutex", "operation"])
def test_ctrl_c_while_waiting_for_a_local_mutex_leaves_nothing(until, kind):
    device = Instrument("instrument", open_on_use=True)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with device.lock():
            entered.set()
            leave.wait(10)

    def interrupt():
        until(lambda: device.mutex.waiters)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threads = [threading.Thread(target=hold), threading.Thread(target=interrupt)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    with pytest.raises(KeyboardInterrupt):
        device.mutex.acquire(30) if kind == "mutex" else device.null()
    assert device.mutex.waiters == []
    leave.set()
    for thread in threads:
        thread.join()
    assert device.mutex.holder is None
    assert device.echo("again") == "again"


class Interrupts:
    """Ctrl-C at random moments: as a signal that comes while something is done, and not later.

    Args:
        seed: of the moments.
        longest: seconds.
        count: how many come, one shortly after the other.
    """

    def __init__(self, seed, longest, count=1):
        self._chooser = random.Random(seed)
        self.longest = longest
        self._count = self._left = count
        self._armed = False
        signal.signal(signal.SIGALRM, self._come)

    def _come(self, *_):
        if self._armed:
            self._left -= 1
            # After the last one once more, should that be lost: what is raised in a __del__ goes nowhere. That must not
            # come while the last one is still handled, which takes long on a busy computer.
            soon = self._chooser.random() * 0.0003 + 1e-6
            signal.setitimer(signal.ITIMER_REAL, soon if self._left > 0 else 5.0)
            raise KeyboardInterrupt

    def during(self, action):
        """Do something until it is interrupted; return whether it was."""
        self._left = self._count
        try:
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + self._chooser.random() * self.longest)
                action()
            finally:
                self._armed = False
        except KeyboardInterrupt:
            return True
        return False


@pytest.mark.parametrize("somebody", ["else has it", "waits for it", "is not there"])
def test_ctrl_c_in_a_wait_for_a_condition_leaves_it_held_until_the_block_is_left(manager, until, somebody):
    condition = manager.get_condition("c")
    seen = []

    def use():
        until(lambda: condition.mutex.holder is None)
        with condition:
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda: condition.mutex.waiters)  # the thread that was interrupted waits for it again
            seen.append("somebody else had it meanwhile")

    thread = threading.Thread(target=use)
    with pytest.raises(KeyboardInterrupt), condition:
        if somebody == "else has it":
            thread.start()
        else:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            condition.wait()
        finally:
            seen.append(condition.mutex.holder.thread)
    if somebody == "else has it":
        thread.join(20)
    assert seen[-1] == "MainThread"
    assert condition.mutex.holder is None


class Waits:
    """Waits for a condition on behalf of its caller."""

    def __init__(self):
        self._outcome = None

    def wait_for_it(self, condition):
        try:
            with condition:
                try:
                    condition.wait()
                finally:
                    held = condition.mutex.holder is not None
        except BaseException as error:
            self._outcome = (type(error).__name__, held)
            raise

    def outcome(self):
        return self._outcome


def test_an_operation_that_is_cancelled_while_it_waits_for_a_condition_holds_it_until_it_has_left(
    manager, second_manager, until
):
    for where in (manager, second_manager):
        condition = where.get_condition("c")
        waits = manager.get_object(f"waits for {where.name}", Waits)
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            waits.wait_for_it(condition)
        assert until(waits.outcome) == ("OperationCancelled", True)
        until(lambda condition=condition: condition.mutex.holder is None)


def get_all(seed, last):
    """Get items until the last one comes, interrupted at random moments; return what came and how often it was."""
    queue = connect().get_queue("q")
    got, interrupted = [], 0
    alarm = Interrupts(seed, 0.002)

    def get():
        while last not in got[-1:]:
            got.append(queue.get())

    while last not in got[-1:]:
        before = len(got)
        interrupted += alarm.during(get)
        # Each interruption costs a new connection, which on a busy computer may take longer than until the next one.
        alarm.longest = 0.002 if len(got) > before else alarm.longest * 1.2
    return got, interrupted


def test_no_item_of_a_queue_is_lost_or_doubled_by_ctrl_c(manager, until, rounds):
    queue = manager.get_queue("q")
    count = rounds(300, soak=10_000)
    process = Process(target=get_all, args=(3, count - 1))
    process.start()
    for number in range(count):
        if number % 50 == 0:
            until(lambda: queue.qsize() < 50)
        queue.put(number)
    got, interrupted = process.result
    assert got == list(range(count))
    assert interrupted > 30


HELD = {
    "a mutex": lambda manager, device: (manager.get_mutex("m"),) * 2,
    "a device": lambda manager, device: (device.lock(), device.mutex),
    "a device's twice": lambda manager, device: (lock_all(manager.get_mutex("m"), device, device), device.mutex),
    "a dict": lambda manager, device: ((shared := manager.get_dict("d")), shared.mutex),
    "a condition": lambda manager, device: ((condition := manager.get_condition("c")), condition.mutex),
    "a local mutex": lambda manager, device: ((mutex := Mutex("local")), mutex),
    "several local ones": lambda manager, device: ((several := lock_all(Mutex("a"), Mutex("b"))), next(iter(several))),
    "a local device": lambda manager, device: ((local := Instrument("local")).lock(), local.mutex),
    "a local dict": lambda manager, device: ((shared := MutexedDict()), shared.mutex),
    "a device, in a session": lambda manager, device: (device.lock(), device.mutex),
    "a mutex, for the owner of another thread": lambda manager, device: (manager.get_mutex("m"),) * 2,
}


def enter_and_leave(what, seed, rounds):
    """Enter and leave blocks, interrupted at random moments; return how often one was held that was never entered."""
    manager = connect()
    held, mutex = HELD[what](manager, manager.get_object("instrument"))
    others = {mutex, *(held if isinstance(held, lock_all) else ())}
    alarm = Interrupts(seed, 0.001)
    not_entered = kept = 0
    inside = False
    acting = contextlib.nullcontext()
    if what.endswith("session"):
        acting = manager.session("page")
    elif what.endswith("thread"):
        with ThreadPoolExecutor(1) as pool:
            acting = acting_as(pool.submit(current_owner).result())

    def enter():
        nonlocal inside
        while True:
            inside = False
            with held:
                inside = True

    with acting:
        for _ in range(rounds):
            alarm.during(enter)
            left_held = False
            for other in others:
                while (holder := other.holder) is not None and holder.pid == os.getpid():
                    left_held = True
                    other.release()
            not_entered += left_held and not inside
            kept += left_held
    return not_entered, kept


HELD_BY_DEFAULT = {"a mutex", "a device's twice", "several local ones", "a device, in a session"}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if what in HELD_BY_DEFAULT else [pytest.mark.whole]) for what in HELD]
)
def test_a_mutex_whose_acquisition_was_interrupted_is_not_held(manager, instrument, rounds, what):
    count = rounds(300, soak=5000)
    process = Process(target=enter_and_leave, args=(what, 7, count))
    process.start()
    not_entered, kept = process.result
    assert not_entered == 0
    assert kept < count / 15  # CPython: on entry to __exit__, where nothing of ours runs yet; 0.2 to 2.5 in 100


def ask_interrupted_twice(seed, rounds):
    """Every answer is that of its own question, however soon Ctrl-C comes again; nothing stays held."""
    instrument = connect().get_object("instrument")
    alarm = Interrupts(seed, 0.001, count=3)
    number = 0

    def ask():
        nonlocal number
        while True:
            number += 1
            assert instrument.echo(number) == number, "the answer to another question"

    for _ in range(rounds):
        alarm.during(ask)
        number += 1
        assert instrument.echo(number) == number, "the answer to another question"


def test_a_second_ctrl_c_during_the_handling_of_the_first_mixes_no_answers(manager, instrument, rounds):
    instrument.null()
    process = Process(target=ask_interrupted_twice, args=(11, rounds(150, soak=3000)))
    process.start()
    process.join(100)
    assert instrument.mutex.holder is None
    assert instrument.record["overlaps"] == 0


def use_ones_own_device(seed, rounds):
    device = Instrument("own", open_on_use=True, timeout=1.0)
    alarm = Interrupts(seed, 0.0005)

    def use():
        while True:
            device.null()

    for _ in range(rounds):
        alarm.during(use)
        assert device.mutex.holder is None
        device.null()  # raises when what was interrupted counts as running


def test_an_operation_of_a_local_device_has_ended_when_ctrl_c_is_raised(rounds):
    process = Process(target=use_ones_own_device, args=(2, rounds(1000, soak=10000)))
    process.start()
    process.join(60)


@pytest.mark.parametrize("next_owner", ["the same one, again", "another thread of its process"])
def test_a_grant_that_is_given_up_does_not_release_the_lock_of_its_next_holder(next_owner):
    holder, client = Session("0", "holder", 0, "host"), Session("1", "client", 1, "host")
    owners = [Owner((name, 1, number), name, 0, "host", "t") for number, name in enumerate(("h", "a", "b"))]
    for _ in range(50):
        lock = OwnedLock("m")
        held, given_up = Call(owners[0], 0, holder), Call(owners[1], 1, client)
        again = Call(owners[1 if next_owner == "the same one, again" else 2], 2, client)
        lock.acquire(held, 0)
        outcomes, sections = [], {given_up: new_section(), again: new_section()}

        def acquire(call, lock=lock, outcomes=outcomes, sections=sections):
            try:
                lock.acquire(call, 20, sections[call])
            except OperationCancelled as error:
                outcomes.append(error)

        threads = [threading.Thread(target=acquire, args=(call,)) for call in (given_up, again)]
        threads[0].start()
        while len(lock.waiters()) < 1:
            time.sleep(0)
        if again.owner is owners[2]:
            threads[1].start()
            while len(lock.waiters()) < 2:
                time.sleep(0)
        lock.release(held)  # grants it: and before its thread has woken up, the client gives the call up
        cancel(given_up, OperationCancelled("the caller interrupted the operation"))
        lock.close_section(sections[given_up])
        if again.owner is owners[1]:
            threads[1].start()
        for thread in threads:
            thread.join(20)
        assert lock.opened(again) == [sections[again]]
        lock.release(again)
        assert lock.holder() is None


def wait_for_events(begun):
    """Wait for an event, interrupted from outside; return how often that was, and whether it can still be used."""
    event, told, interrupted, armed = CtrlCEvent(), CtrlCEvent(), 0, False

    def come(*_):
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def wait():
        # A function of its own: Python 3.13 leaves the jump back to the beginning of a `while` out of the `try` around
        # it, so that an exception of a signal handler is not caught there.
        while time.monotonic() < until:
            told.set()
            event.wait(1e-6)

    signal.signal(signal.SIGINT, come)
    begun.put(os.getpid())
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        try:
            armed = True
            wait()
            armed = False
        except KeyboardInterrupt:
            interrupted += 1
    setter = threading.Thread(target=event.set, daemon=True)
    setter.start()
    usable = event.wait(10) and told.wait(10)
    setter.join(10)
    return interrupted, usable and not setter.is_alive()


def test_an_event_that_the_main_thread_waits_for_survives_ctrl_c(manager):
    begun = manager.get_queue("begun")
    process = Process(target=wait_for_events, args=(begun,))
    process.start()
    pid = begun.get(timeout=30)
    chooser = random.Random(5)
    until = time.monotonic() + 1.9
    while time.monotonic() < until:
        os.kill(pid, signal.SIGINT)
        time.sleep(chooser.random() * 0.001)
    interrupted, usable = process.result
    assert interrupted > 100
    assert usable
