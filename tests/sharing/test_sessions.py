"""A process that acts for others: several sessions in one process, and owners that are lent to other threads."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from instruments import Instrument

from catkit_devices import Device
from catkit_devices.errors import (
    DeadlockError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    ProcessDiedError,
    ServerUnresponsiveError,
    SessionEndedError,
)
from catkit_devices.multiprocessing import Mutex, Process, SharedMemoryManager, acting_as, current_owner
from catkit_devices.multiprocessing.client.wait_graph import find_cycle
from catkit_devices.multiprocessing.locks.lock import OwnedLock, is_waited_for, waits
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session


class InThread:
    """A function that runs in a thread of its own; ``result()`` returns what it returned or raises what it raised."""

    def __init__(self, function, *args):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self._thread.start()

    def _run(self, function, *args):
        try:
            self._outcome = function(*args), None
        except BaseException as error:
            self._outcome = None, error

    def result(self, timeout=20):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "it should have ended"
        value, error = self._outcome
        if error is not None:
            raise error
        return value


def acquire_in(session, mutex, timeout=20.0):
    with session:
        return mutex.acquire(timeout)


def names(manager):
    return [one["process"] for one in manager.status()["sessions"]]


# --- several sessions in one process ----------------------------------------------------------------------------------


def test_a_session_is_shown_with_its_name_and_its_origin(manager):
    session = manager.session("page", host="10.0.0.7")
    mutex = manager.get_mutex("m")
    own, shown = manager.status()["sessions"]
    assert (own["origin"], shown["process"], shown["pid"]) == ("", "page", os.getpid())
    assert shown["origin"] == f"from 10.0.0.7, session of {own['process']!r}"
    acquire_in(session, mutex)
    assert f"'page' (from 10.0.0.7, session of {own['process']!r}, pid {os.getpid()}, MainThread)" in str(mutex.holder)
    with pytest.raises(MutexTimeoutError, match="held for .* by 'page' \\(from 10.0.0.7, session of"):
        mutex.acquire(0)
    session.close()


def test_sessions_of_one_process_exclude_each_other_and_the_process(manager):
    first, second = manager.session("first"), manager.session("second")
    mutex = manager.get_mutex("m")
    acquire_in(first, mutex)
    assert acquire_in(first, mutex)
    with pytest.raises(MutexTimeoutError, match="'first'"):
        acquire_in(second, mutex, 0)
    with pytest.raises(MutexTimeoutError, match="'first'"):
        mutex.acquire(0)
    with first:
        mutex.release()
        mutex.release()
        with second, mutex:
            assert mutex.holder.process == "second"
        assert mutex.holder is None
    first.close()
    second.close()


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_a_session_that_ends_gives_back_what_it_held(manager, until, end):
    session = manager.session("page")
    mutex, local = manager.get_mutex("m"), Mutex("local")
    acquire_in(session, mutex)
    acquire_in(session, local)
    getattr(session, end)()
    assert local.holder is None
    assert mutex.acquire(5)
    mutex.release()
    until(lambda: "page" not in names(manager))


def test_a_device_that_could_not_be_made_does_not_prevent_a_session_from_ending(manager):
    class Refused(Device):
        def __init__(self, name):
            kept.append(self)
            super().__init__(name, safe_timeout=0)

    kept = []
    with pytest.raises(ValueError, match="timeout must be above 0"):
        Refused("refused")
    for end in ("close", "abandon"):
        session, local = manager.session("page"), Mutex("local")
        acquire_in(session, local)
        getattr(session, end)()
        assert local.holder is None


def test_what_one_device_does_at_the_end_of_a_session_does_not_keep_the_others(manager, monkeypatch, caplog):
    def fail(_session, _goodbye):
        raise RuntimeError("can't start new thread")

    device, mutexes = Device("broken"), [Mutex(f"local {number}") for number in range(8)]
    monkeypatch.setattr(device._access_.mutex_lock, "session_ended", fail)
    session = manager.session("page")
    for mutex in mutexes:
        acquire_in(session, mutex)
    session.abandon()
    assert [mutex.holder for mutex in mutexes] == [None] * 8
    assert "mutex 'broken': the end of" in caplog.text


def test_a_device_is_made_safe_when_its_session_is_abandoned_before_the_next_one_is_granted(manager, instrument):
    session = manager.session("page")
    with session:
        instrument.acquire()
        instrument.on = True
    waiting = InThread(lambda: (instrument.acquire(), instrument.record, instrument.release())[1])
    while not instrument.mutex.waiters:
        time.sleep(0.001)
    session.abandon()
    record = waiting.result()
    assert record["safe"] == 1
    assert not record["on"]


def test_a_device_is_made_safe_when_the_session_that_switched_it_on_is_abandoned(manager, instrument, until):
    session = manager.session("page")
    with session:
        instrument.on = True
    session.abandon()
    until(lambda: instrument.record["safe"] == 1)


def test_a_session_that_is_closed_leaves_the_device_as_it_is(manager, instrument, until):
    session = manager.session("page")
    with session:
        instrument.on = True
    session.close()
    until(lambda: "page" not in names(manager))
    instrument.null()
    assert instrument.record["on"]
    assert instrument.record["safe"] == 0


def test_a_device_that_another_session_has_changed_since_stays_as_it_is(manager, instrument, until):
    first, second = manager.session("first"), manager.session("second")
    with first:
        instrument.on = True
    with second:
        instrument.value = 3
    first.abandon()
    until(lambda: "first" not in names(manager))
    assert instrument.mutex.holder is None
    assert instrument.record["safe"] == 0
    second.abandon()
    until(lambda: instrument.record["safe"] == 1)


def test_a_device_of_this_process_is_made_safe_when_the_session_that_switched_it_on_is_abandoned(manager, until):
    device = Instrument("local")
    session = manager.session("page")
    with device:
        with session:
            device.on = True
            device.acquire()
        session.abandon()
        until(lambda: device.record["safe"] == 1)
        device.null()


@pytest.mark.parametrize("where", ["on a server", "in the process"])
def test_a_wait_of_an_abandoned_session_ends_at_once_and_is_never_granted(manager, until, where):
    session = manager.session("page")
    mutex = manager.get_mutex("m") if where == "on a server" else Mutex("m")
    with mutex:
        waiting = InThread(acquire_in, session, mutex, 60.0)
        until(lambda: mutex.waiters)
        began = time.monotonic()
        session.abandon()
        with pytest.raises(SessionEndedError, match="session 'page' has ended"):
            waiting.result()
        assert time.monotonic() - began < 5
        assert not mutex.waiters
    assert mutex.holder is None


def test_a_session_that_has_ended_can_do_nothing_any_more(manager, instrument):
    session = manager.session("page")
    mutex = manager.get_mutex("m")
    with session:
        mutex.acquire()
        session.abandon()
        for refused in (mutex.acquire, mutex.release, instrument.null, lambda: manager.get_mutex("other")):
            with pytest.raises(SessionEndedError, match="session 'page' has ended"):
                refused()
    with pytest.raises(SessionEndedError, match="session 'page' has ended"), session:
        pass
    session.close()
    with mutex:
        instrument.null()


def test_calls_that_meet_the_end_of_their_session_leave_nothing_held(manager, until, rounds):
    mutex = manager.get_mutex("m")

    def hammer(session):
        with session:
            while True:
                with mutex:
                    pass

    for number in range(rounds(30, soak=1000)):
        session = manager.session(f"page {number}")
        threads = [InThread(hammer, session) for _ in range(2)]
        until(lambda name=f"page {number}": f"'{name}'" in str(mutex.holder))
        session.abandon()
        for thread in threads:
            with pytest.raises(SessionEndedError):
                thread.result()
        assert mutex.acquire(5)
        mutex.release()
    until(lambda: len(names(manager)) == 1)


def hold_for_a_page(ready, wait):
    manager = SharedMemoryManager("bench")
    manager.connect()
    instrument = manager.get_object("instrument")
    session = manager.session("page")
    with session:
        instrument.acquire()
        instrument.on = True
        manager.get_mutex("m").acquire()
    manager.get_event("ready").set()
    if wait:
        manager.get_event("never").wait()


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_a_session_whose_process_has_gone_without_closing_it_has_died(manager, instrument, end):
    process = Process(target=hold_for_a_page, args=(None, end == "killed"))
    process.start()
    assert manager.get_event("ready").wait(20)
    if end == "killed":
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ProcessDiedError):
            process.join()
    else:
        process.join()
    assert manager.get_mutex("m").acquire(5)
    with instrument.lock(5):
        assert instrument.record["safe"] == 1
        assert not instrument.record["on"]


def switch_on_and_be_killed(end):
    manager = SharedMemoryManager("bench")
    manager.connect()
    session = manager.session("page")
    with session:
        manager.get_object("instrument").on = True
        manager.get_mutex("m").acquire()
    getattr(session, end)()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_how_a_session_was_ended_is_known_though_its_process_is_killed_at_once(manager, instrument, end):
    process = Process(target=switch_on_and_be_killed, args=(end,))
    process.start()
    with pytest.raises(ProcessDiedError):
        process.join()
    assert manager.get_mutex("m").acquire(20)
    with instrument.lock(20):
        assert instrument.record["on"] == (end == "close")
        assert instrument.record["safe"] == (end == "abandon")


def test_a_session_keeps_a_device_open_and_its_end_closes_it(manager, until):
    device = manager.get_object("plain", Instrument, "plain")
    first, second = manager.session("first"), manager.session("second")
    with first:
        device.open()
    with second:
        device.open()
        device.close()
        device.close()  # one too many takes nothing from the first session
    device.close()
    assert device.is_open
    first.close()
    until(lambda: not device.is_open)


def test_a_break_is_told_to_the_session_that_held(manager):
    first, second = manager.session("first"), manager.session("second")
    mutex = manager.get_mutex("m")
    acquire_in(first, mutex)
    assert "'first'" in manager.break_mutex("m", "a test")
    acquire_in(second, mutex)
    with first:
        with pytest.raises(MutexBrokenError, match="a test"):
            mutex.acquire()
        with pytest.raises(MutexBrokenError):
            mutex.release()
    with second:
        mutex.release()


def test_a_deadlock_of_two_sessions_of_one_process_names_both(manager, until):
    first, second = manager.session("first"), manager.session("second")
    one, other = manager.get_mutex("one"), manager.get_mutex("other")
    acquire_in(second, other)

    def both():
        with first, one:
            other.acquire()

    waiting = InThread(both)
    until(lambda: other.waiters)
    with second, pytest.raises(DeadlockError, match="'second' .*holds 'other'"):
        one.acquire()
    second.close()
    waiting.result()


def test_a_deadlock_of_two_sessions_over_two_servers_names_both(manager, second_manager, until):
    first, second = manager.session("first"), manager.session("second")
    one, other = manager.get_mutex("one"), second_manager.get_mutex("other")
    acquire_in(second, other)

    def both():
        with first, one:
            other.acquire()

    waiting = InThread(both)
    until(lambda: other.waiters)
    began = time.monotonic()
    with second, pytest.raises(DeadlockError, match="'second'"):
        one.acquire()
    assert time.monotonic() - began < 10
    second.close()
    waiting.result()


def test_a_nested_call_to_another_server_is_made_for_the_session_and_ends_with_it(manager, second_manager, until):
    inner = second_manager.get_object("inner", Instrument, "inner", open_on_use=True)
    outer = manager.get_object("outer", Instrument, "outer", uses=inner, open_on_use=True)
    session = manager.session("page")
    with session, inner.lock():
        assert outer.through().startswith("'page' (session of")
    inner.null()
    with session:
        outer.through()
    session.abandon()
    until(lambda: inner.record["safe"] == 1)


def test_a_session_lasts_over_the_end_of_a_server(runtime, until):
    with SharedMemoryManager("other") as lasting:
        with SharedMemoryManager("bench") as manager:
            session = manager.session("page")
            mutex = manager.get_mutex("m")
            acquire_in(session, mutex)
        with (
            session,
            pytest.raises((MutexBrokenError, ServerUnresponsiveError)),
        ):  # noticed at the release, or before it
            mutex.release()
        with session, lasting.get_mutex("m"):
            assert "page" in names(lasting)
        with SharedMemoryManager("bench") as manager, session, manager.get_mutex("m") as mutex:
            assert mutex.holder.process == "page"
            assert "page" in names(manager)
        session.close()
        until(lambda: "page" not in names(lasting))


def test_tasks_of_one_loop_act_for_several_sessions(manager):
    mutex = manager.get_mutex("m")
    inside = []

    async def serve(name):
        session = manager.session(name)
        with session:
            for _ in range(5):
                async with mutex:
                    inside.append(mutex.holder.process == name)
                    await asyncio.sleep(0)
                    inside.append(mutex.holder.process == name)
                await asyncio.to_thread(lambda: inside.append(acquire_and_release(mutex) == name))
        session.close()

    def acquire_and_release(mutex):
        with mutex:
            return mutex.holder.process

    async def main():
        await asyncio.gather(*(serve(f"page {number}") for number in range(4)))

    asyncio.run(main())
    assert inside == [True] * 60


def test_a_forked_child_neither_acts_for_nor_ends_a_session_of_its_parent(manager):
    session = manager.session("page")
    mutex = manager.get_mutex("m")
    acquire_in(session, mutex)
    with session:
        child = os.fork()
        if child == 0:
            refused = False
            session.abandon()
            try:
                session.__enter__()
            except SessionEndedError:
                refused = True
            os._exit(0 if refused and current_owner().process != "page" else 1)
        assert os.waitpid(child, 0)[1] == 0
        mutex.release()
    session.close()


@pytest.mark.parametrize("name", ["", 7, None])
def test_a_session_without_a_name_is_refused(manager, name):
    with pytest.raises(ValueError, match="name of a session"):
        manager.session(name)


@pytest.mark.whole
def test_a_thousand_sessions_open_and_close_and_leave_nothing(manager, until):
    mutex = manager.get_mutex("m")
    client, server = psutil.Process(), psutil.Process(manager.pid)

    def use(count):
        sessions = [manager.session(f"page {number}") for number in range(count)]
        for session in sessions[:50]:
            with session, mutex:
                pass
        return sessions

    def end(sessions):
        for number, session in enumerate(sessions):
            session.close() if number % 2 else session.abandon()
        until(lambda: len(names(manager)) == 1)

    def costs():
        return [(one.num_fds(), one.num_threads(), one.memory_info().rss) for one in (client, server)]

    end(use(1000))
    before = costs()
    sessions = use(1000)
    opened = costs()
    end(sessions)
    for _ in range(2):
        end(use(1000))
    after = costs()
    for had, has in zip(before, opened, strict=True):
        assert has[0] <= had[0], "a session costs no descriptor"
        assert has[1] <= had[1], "a session costs no thread"
    for had, has in zip(before, after, strict=True):
        assert has[0] <= had[0]
        assert has[1] <= had[1]
        assert has[2] - had[2] < 4e6, "bytes"


# --- owners that are lent ---------------------------------------------------------------------------------------------


def test_a_worker_thread_that_acts_for_an_owner_enters_what_it_holds(manager, instrument):
    mutex, local = manager.get_mutex("m"), Mutex("local")
    owner = current_owner()

    def work():
        with acting_as(owner), mutex, local, instrument.lock():
            assert current_owner() == owner
            return mutex.holder.depth, local.holder.depth, instrument.echo("here")

    with mutex, local, instrument.lock():
        assert InThread(work).result() == (2, 2, "here")
        with pytest.raises(MutexTimeoutError):
            InThread(mutex.acquire, 0).result()
    assert mutex.holder is None


def test_what_one_thread_has_acquired_for_an_owner_another_one_can_release(manager):
    mutex = manager.get_mutex("m")
    owner = current_owner()

    def acting(operation):
        with acting_as(owner):
            operation()

    InThread(acting, mutex.acquire).result()
    assert mutex.holder.depth == 1
    InThread(acting, mutex.release).result()
    assert mutex.holder is None
    mutex.acquire()
    InThread(acting, mutex.release).result()
    with pytest.raises(MutexNotHeldError):
        mutex.release()


def test_a_function_that_a_task_runs_in_a_thread_can_act_for_the_task(manager, instrument):
    mutex = manager.get_mutex("m")

    async def main():
        async with mutex:
            with acting_as(current_owner()):
                await asyncio.to_thread(mutex.acquire)
                await asyncio.to_thread(mutex.release)
            with pytest.raises(MutexTimeoutError):
                await asyncio.to_thread(mutex.acquire, 0)

    asyncio.run(main())
    assert mutex.holder is None


def test_operations_of_two_threads_that_act_for_one_owner_exclude_each_other(instrument):
    owner = current_owner()

    def work():
        with acting_as(owner):
            for _ in range(20):
                instrument.value = instrument.value + 1
                instrument.steps(2, 0.0)

    with instrument.lock(), ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(work) for _ in range(4)]:
            one.result()
    assert instrument.record["overlaps"] == 0


@pytest.mark.parametrize("where", ["on a server", "in the process"])
def test_threads_that_enter_and_leave_for_one_owner_at_the_same_time_lose_no_section(manager, rounds, where):
    mutex = manager.get_mutex("m") if where == "on a server" else Mutex("m")
    owner, other = manager.session("one"), manager.session("other")
    with owner:
        lent = current_owner()
    inside, overlaps, guard = {"lent": 0, "other": 0}, [], threading.Lock()

    def enter(who, opposite):
        with mutex:
            with guard:
                inside[who] += 1
                overlaps.append(inside[opposite])
            with guard:
                inside[who] -= 1

    def work(count):
        with acting_as(lent):
            for _ in range(count):
                enter("lent", "other")

    def compete(count):
        with other:
            for _ in range(count):
                enter("other", "lent")

    count = rounds(150, soak=5000)
    with ThreadPoolExecutor(5) as pool:
        for one in [*(pool.submit(work, count) for _ in range(4)), pool.submit(compete, count // 3)]:
            one.result()
    assert not any(overlaps)
    assert mutex.holder is None


class Tally:
    """A class that was not written for servers."""

    def __init__(self):
        self._inside = 0
        self.overlaps = 0

    def add(self):
        self._inside += 1
        self.overlaps += self._inside > 1
        time.sleep(0.002)
        self._inside -= 1


def test_calls_of_two_threads_that_act_for_one_owner_exclude_each_other_on_an_object_of_any_class(manager):
    tally = manager.get_object("tally", Tally)
    owner = current_owner()

    def work():
        with acting_as(owner):
            for _ in range(10):
                tally.add()

    with tally.lock(), ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(work) for _ in range(3)]:
            one.result()
    assert tally.overlaps == 0


def owner_and_calls(name, count):
    session = Session(name, name, 1, "host")
    owner = Owner((name, 1, 0), name, 1, "host", "t")
    return owner, [Call(owner, (name, number), session) for number in range(count)]


def test_all_threads_that_wait_for_one_owner_enter_when_it_has_the_lock(until):
    lock = OwnedLock("m")
    _, (holding,) = owner_and_calls("holder", 1)
    _, calls = owner_and_calls("lent", 2)
    _, (between,) = owner_and_calls("between", 1)
    lock.acquire(holding, 0)
    threads = []
    for call in (calls[0], between, calls[1]):
        threads.append(InThread(lock.acquire, call, 20))
        until(lambda: len(lock.waiters()) == len(threads))
    lock.release(holding)
    threads[0].result()
    threads[2].result()
    assert lock.holder().depth == 2
    lock.release(calls[0])
    lock.release(calls[1])
    threads[1].result()
    assert lock.holder().process == "between"


def test_operations_of_two_threads_of_one_owner_that_wait_for_each_other_are_a_deadlock(until):
    wheel, meter = OwnedLock("wheel", by_chain=True), OwnedLock("meter", by_chain=True)
    _, (first, second) = owner_and_calls("lent", 2)
    wheel.enter(first, 0)
    meter.enter(second, 0)
    waiting = InThread(meter.enter, first, 20)
    until(meter.waiters)
    assert find_cycle(waits(), first.owner.key) is None
    with pytest.raises(DeadlockError, match="'meter'"):
        wheel.enter(second, 20)
    meter.leave(second)
    waiting.result()


def test_an_owner_that_waits_for_the_end_of_its_own_operation_is_no_deadlock(until):
    lock = OwnedLock("m", by_chain=True)
    owner, (abandoned, following) = owner_and_calls("client", 2)
    lock.enter(abandoned, 0)
    waiting = InThread(lock.enter, following, 20)
    until(lock.waiters)
    assert is_waited_for(owner.key)
    assert find_cycle(waits(), owner.key) is None
    lock.leave(abandoned)
    waiting.result()


def test_a_thread_that_has_acted_in_a_session_is_itself_again_afterwards(manager):
    mutex = manager.get_mutex("m")

    async def hold():
        async with mutex:
            await asyncio.sleep(0)
        with manager.session("page"), mutex:
            pass

    def fresh_thread():
        asyncio.run(hold())
        with mutex:
            return mutex.holder.owner

    thread = InThread(fresh_thread).result()
    assert "page" not in thread
    assert "task" not in thread


def test_an_owner_of_another_process_cannot_be_lent(manager):
    with pytest.raises(ValueError, match="is of another process"), acting_as(owner_of_another_process()):
        pass


def owner_of_another_process():
    process = Process(target=current_owner)
    process.start()
    return process.result


def test_the_owner_of_an_ended_session_cannot_be_lent_any_more(manager):
    session = manager.session("page")
    with session:
        owner = current_owner()
    session.close()
    with pytest.raises(SessionEndedError, match="'page'"), acting_as(owner):
        pass
