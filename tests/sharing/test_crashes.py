"""What a killed or stopped client or server leaves behind: nothing."""

import collections
import contextlib
import multiprocessing
import os
import pickle
import random
import signal
import statistics
import threading
import time

import psutil
import pytest
from instruments import Instrument

from catkit_devices.device import unlocked
from catkit_devices.errors import (
    DeviceFaultError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    ProcessDiedError,
    ServerError,
    ServerNotFoundError,
    ServerUnresponsiveError,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager, lock_all

pytestmark = pytest.mark.usefixtures("ready_children")


def connect(name="bench"):
    manager = SharedMemoryManager(name)
    manager.connect()
    return manager


def killed(process):
    """Kill, and see that its parent is told."""
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        process.join(10)


def stop(pid):
    """Stop a process, and see that it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


def acquired_within(mutex, seconds):
    started = time.monotonic()
    mutex.acquire(timeout=30)
    took = time.monotonic() - started
    mutex.release()
    assert took < seconds, f"{took:.3f} s"


# What the victim is in the middle of; each tells on the queue "at" that it has begun.


def idle_in_section():
    manager = connect()
    with manager.get_object("instrument").lock():
        manager.get_queue("at").put("in")
        time.sleep(60)


def in_a_call():
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("in")
    while True:
        instrument.nap(0.01)


def in_short_sections():
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("in")
    while True:
        with instrument.lock():
            instrument.value = instrument.value + 1


def waiting():
    manager = connect()
    manager.get_queue("at").put("in")
    while True:
        with manager.get_object("instrument").lock():
            pass


def connecting():
    manager = connect()
    manager.get_queue("at").put("in")
    while True:
        thread = threading.Thread(target=lambda: connect().get_object("instrument").null())
        thread.start()
        thread.join()


def nested_three_deep():
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("in")
    while True:
        with instrument.lock(), instrument.lock(), instrument.lock():
            instrument.null()


def holding_several():
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("in")
    while True:
        with lock_all(instrument, manager.get_mutex("one"), manager.get_mutex("two")):
            instrument.null()


def acting_for_three():
    manager = connect()
    instrument = manager.get_object("instrument")

    def act(session):
        with session:
            while True:
                with lock_all(instrument, manager.get_mutex("one")):
                    instrument.null()

    for number in range(3):
        threading.Thread(target=act, args=(manager.session(f"page {number}"),), daemon=True).start()
    manager.get_queue("at").put("in")
    time.sleep(60)


@pytest.mark.parametrize(
    "victim",
    [
        idle_in_section,
        in_a_call,
        in_short_sections,
        waiting,
        pytest.param(connecting, marks=pytest.mark.whole),
        pytest.param(nested_three_deep, marks=pytest.mark.whole),
        pytest.param(holding_several, marks=pytest.mark.whole),
        acting_for_three,
    ],
    ids=lambda victim: victim.__name__,
)
def test_a_client_killed_at_a_random_point_leaves_nothing(manager, instrument, victim, rounds):
    """SIGKILL at 10 seeded random moments (hundreds with --soak); the next one always gets in."""
    at = manager.get_queue("at")
    chooser = random.Random(victim.__name__)
    server = psutil.Process(manager.pid)
    instrument.null()
    took = []
    for number in range(rounds(10, soak=200)):
        with instrument.lock() if victim is waiting else contextlib.nullcontext():
            process = Process(target=victim)
            process.start()
            at.get(timeout=30)
            time.sleep(chooser.random() * 0.02)
            killed(process)
            dead = time.monotonic()
        with lock_all(instrument, manager.get_mutex("one"), manager.get_mutex("two"), timeout=5):
            took.append((time.monotonic() - dead) * 1e3)
            assert instrument.echo(number) == number
        if number == 2:
            threads = server.num_threads()
            files = server.num_fds()
    print(
        f"{len(took)} kills, {victim.__name__}: all had in {statistics.median(took):.1f} ms (median), "
        f"{max(took):.1f} ms (worst); made safe {instrument.record['safe']} times"
    )
    status = manager.status()
    assert all(not one.get("waiters") and not one.get("holder") for one in status["objects"])
    assert instrument.record["overlaps"] == 0
    deadline = time.monotonic() + 5
    while server.num_threads() > threads or server.num_fds() > files:
        assert time.monotonic() < deadline, (server.num_threads(), threads, server.num_fds(), files)
        time.sleep(0.01)


def hold(what, seconds):
    manager = connect()
    mutex = manager.get_object("instrument").mutex if what == "device" else manager.get_mutex(what)
    with mutex:
        manager.get_queue("at").put(os.getpid())
        time.sleep(seconds)


@pytest.mark.parametrize("what", ["device", "plain"])
def test_a_killed_holder_frees_the_mutex_at_once(manager, instrument, what):
    mutex = instrument.mutex if what == "device" else manager.get_mutex(what)
    for _ in range(5):
        process = Process(target=hold, args=(what, 60))
        process.start()
        manager.get_queue("at").get(timeout=30)
        killed(process)
        acquired_within(mutex, 3.0)


def test_a_killed_holder_is_made_safe_before_the_next_one_is_granted(manager, instrument, until):
    instrument.on = True
    process = Process(target=hold, args=("device", 60))
    process.start()
    manager.get_queue("at").get(timeout=30)
    instrument_on = threading.Thread(target=lambda: record.append((instrument.echo("in"), instrument.record)))
    record = []
    instrument_on.start()
    until(lambda: instrument.mutex.waiters)
    killed(process)
    instrument_on.join()
    assert record[0][1]["safe"] == 1


def switch_on_and_wait():
    manager = connect()
    manager.get_object("instrument").on = True
    manager.get_queue("at").put("on")
    time.sleep(60)


def test_a_device_is_made_safe_when_the_client_that_switched_it_on_dies_without_holding_it(manager, instrument, until):
    process = Process(target=switch_on_and_wait)
    process.start()
    manager.get_queue("at").get(timeout=30)
    assert instrument.on
    killed(process)
    until(lambda: instrument.record["safe"] == 1)
    assert not instrument.on


@pytest.mark.parametrize("changes", [False, True])
def test_the_device_of_a_dead_client_is_made_safe_only_after_its_living_holder_has_released_it(manager, until, changes):
    patience = 0.3
    instrument = manager.get_object("instrument", Instrument, "instrument", open_on_use=True, timeout=patience)
    process = Process(target=switch_on_and_wait)
    process.start()
    manager.get_queue("at").get(timeout=30)
    with instrument.lock():
        killed(process)
        until(lambda: any(waiter.site == "make_safe" for waiter in instrument.mutex.waiters))
        time.sleep(3 * patience)
        assert instrument.on
        if changes:
            instrument.on = True  # from now on it is as this client wants it
    assert instrument.on is changes
    assert instrument.record["safe"] == (not changes)
    assert instrument.state == "open"


def burn(seconds):
    manager = connect()
    instrument = manager.get_object("instrument")
    instrument.on = True
    manager.get_queue("at").put("on")
    instrument.burn(seconds)


def kill_in_mid_operation(manager, until, seconds, **options):
    instrument = manager.get_object("instrument", Instrument, "instrument", open_on_use=True, **options)
    process = Process(target=burn, args=(seconds,))
    process.start()
    manager.get_queue("at").get(timeout=30)
    until(lambda: instrument.mutex.holder)
    killed(process)
    return instrument


def test_a_device_is_made_safe_during_and_after_an_operation_of_a_dead_client_that_runs_too_long_and_is_in_fault(
    manager, until
):
    instrument = kill_in_mid_operation(manager, until, 2.0, timeout=0.3, safe_timeout=0.3)

    until(lambda: instrument.record["safe"] == 1)
    assert not instrument.record["on"]
    assert instrument.state == "fault"
    with pytest.raises(MutexTimeoutError, match=r"held for .* at instrument\.burn"):
        instrument.reset()

    until(lambda: not instrument.mutex.holder)
    assert instrument.record["wire"] == ["on=True", "safe", "burnt", "safe", "safe"]
    assert not instrument.record["on"]
    assert instrument.state == "fault"
    instrument.reset()
    assert instrument.state == "closed"
    assert not instrument.record["on"]


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_how_long_others_wait_for_a_device_does_not_say_how_long_an_operation_may_take(manager, until, timeout):
    instrument = kill_in_mid_operation(manager, until, 1.0, timeout=timeout)

    until(lambda: not instrument.mutex.holder)

    assert instrument.record["wire"][-2:] == ["burnt", "safe"]
    assert instrument.state == "open"


def test_waiting_for_a_living_holder_costs_nothing(manager, until):
    instrument = manager.get_object("instrument", Instrument, "instrument", open_on_use=True, timeout=0.0)
    process = Process(target=switch_on_and_wait)
    process.start()
    manager.get_queue("at").get(timeout=30)
    server = psutil.Process(manager.pid)
    with instrument.lock():
        killed(process)
        until(lambda: any(waiter.site == "make_safe" for waiter in instrument.mutex.waiters))
        before = sum(server.cpu_times()[:2])
        time.sleep(1.0)
        assert sum(server.cpu_times()[:2]) - before < 0.2
    # Its timeout is 0: asking while it is being made safe would be refused.
    until(lambda: not (instrument.mutex.holder or instrument.mutex.waiters))
    assert not instrument.record["on"]


class SlowToOpen(Instrument):
    """Takes its time to open, and to switch on."""

    def _open(self):
        self._wire.append("opening")
        time.sleep(1.0)
        return object()


def test_a_client_that_dies_while_its_operation_opens_the_device_leaves_it_safe(manager, until):
    instrument = manager.get_object("instrument", SlowToOpen, "instrument", open_on_use=True)

    def client():
        connect().get_object("instrument").burn(0.0)

    process = Process(target=client)
    process.start()
    until(lambda: "opening" in instrument.record["wire"])
    killed(process)

    until(lambda: not instrument.mutex.holder)
    assert instrument.record["wire"] == ["opening", "burnt", "safe"]


def read_for_ever():
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("reading")
    while True:
        _ = instrument.value
        _ = instrument.temperature


def test_a_client_killed_while_it_only_reads_makes_nothing_safe(manager, instrument):
    instrument.on = True
    for _ in range(10):
        process = Process(target=read_for_ever)
        process.start()
        manager.get_queue("at").get(timeout=30)
        time.sleep(0.01)
        killed(process)
        with instrument.lock():
            assert instrument.on
    assert instrument.record["safe"] == 0


def switch_on_and_leave():
    connect().get_object("instrument").on = True


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["as ours", "forked"])
def test_a_client_that_ends_in_good_order_makes_nothing_safe(manager, instrument, start):
    if start == "as ours":
        process = Process(target=switch_on_and_leave)
    elif hasattr(os, "fork"):
        process = multiprocessing.get_context("fork").Process(target=switch_on_and_leave)
    else:
        pytest.skip("this system does not fork")
    process.start()
    process.join()
    with instrument.lock():
        assert instrument.on
    assert instrument.record["safe"] == 0


def work_in_section(seconds):
    manager = connect()
    instrument = manager.get_object("instrument")
    manager.get_queue("at").put("in")
    instrument.work(seconds)


def test_the_running_operation_of_a_killed_client_ends_before_the_next_one_is_granted(manager, instrument, until):
    process = Process(target=work_in_section, args=(0.5,))
    process.start()
    manager.get_queue("at").get(timeout=30)
    until(lambda: instrument.mutex.holder)
    started = time.monotonic()
    killed(process)
    with instrument.lock():
        record = instrument.record
    assert time.monotonic() - started < 5
    # Aborted at its next exchange, then made safe.
    assert record["wire"][-1] == "safe"
    assert "worked" not in record["wire"]
    assert record["overlaps"] == 0


def test_a_waiting_operation_of_a_killed_client_is_cancelled(manager, instrument, until):
    def client():
        connect().get_object("instrument").nap(60)

    process = Process(target=client)
    process.start()
    until(lambda: instrument.mutex.holder)
    killed(process)
    acquired_within(instrument.mutex, 3.0)


def test_a_killed_waiter_is_never_granted(manager, until):
    mutex = manager.get_mutex("m")
    order = manager.get_dict("order")

    def client():
        connect().get_mutex("m").acquire()
        connect().get_dict("order")["granted"] = True

    for _ in range(5):
        with mutex:
            process = Process(target=client)
            process.start()
            until(lambda: mutex.waiters)
            killed(process)
            until(lambda: not mutex.waiters)
        assert mutex.holder is None
    assert "granted" not in order


def test_a_killed_waiter_is_not_granted_even_before_the_end_of_its_session_is_handled(
    manager, instrument, until, rounds
):
    """The server, stopped meanwhile, finds the release and the death at the same moment."""
    for _ in range(rounds(5, soak=200)):
        stopped = threading.Event()

        def hold(stopped=stopped):
            with instrument.lock():
                stopped.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        until(lambda: instrument.mutex.holder)
        process = Process(target=waiting)
        process.start()
        manager.get_queue("at").get(timeout=30)
        until(lambda: instrument.mutex.waiters)
        stop(manager.pid)
        stopped.set()
        time.sleep(0.01)  # in which the release is sent, first
        killed(process)
        os.kill(manager.pid, signal.SIGCONT)
        holder.join(30)
        with instrument.lock():
            assert instrument.record["safe"] == 0


def test_a_thread_that_ended_keeps_its_mutex_and_is_shown_as_ended(manager, until):
    mutex = manager.get_mutex("m")
    thread = threading.Thread(target=mutex.acquire, name="forgetful")
    thread.start()
    thread.join()
    until(lambda: "forgetful, thread ended" in mutex.holder.owner)
    assert not mutex.acquire(timeout=0.05, raise_on_fail=False)


# --- servers ---------------------------------------------------------------------------------------------------------


def test_a_killed_server_gives_every_client_a_clear_error_and_its_name_is_free_at_once(runtime, until):
    first = SharedMemoryManager("bench")
    first.start()
    mutex = first.get_mutex("m")
    event = first.get_event("e")
    outcomes = []

    def wait():
        try:
            event.wait()
        except BaseException as error:
            outcomes.append(error)

    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    mutex.acquire()
    pid = first.pid
    until(lambda: len(first.status()["objects"][1]["waiting"]) == 3)
    started = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for waiter in waiters:
        waiter.join(10)
    assert time.monotonic() - started < 5
    assert [type(outcome) for outcome in outcomes] == [ServerUnresponsiveError] * 3
    assert f"pid {pid}" in str(outcomes[0])
    with pytest.raises((ServerUnresponsiveError, MutexBrokenError), match="server"):
        mutex.acquire()  # which of the two depends on whether this thread has noticed yet
    with pytest.raises(MutexBrokenError, match="'m' was taken from this owner: server "):
        mutex.acquire()
    with pytest.raises(MutexBrokenError, match="server"):
        mutex.release()
    with SharedMemoryManager("bench") as second:
        fresh = second.get_mutex("m")
        with fresh:
            assert fresh.holder
        with mutex:  # the old one finds the new server by its name
            assert fresh.holder.depth == 1
    first.shutdown()


def end_orderly(manager, pid):
    manager.shutdown()


def end_by_a_kill(manager, pid):
    os.kill(pid, signal.SIGKILL)
    manager.shutdown()


def test_an_object_that_ended_with_its_server_says_so_even_if_another_server_has_the_name(runtime):
    first = SharedMemoryManager("bench")
    first.start()
    pid = first.pid
    barrier, counter = first.get_barrier("meet", 2), first.get_object("counter", collections.Counter, "abb")
    sent = pickle.dumps(barrier)
    first.shutdown()
    with SharedMemoryManager("bench") as second:
        for kind, use in (("barrier 'meet'", barrier.wait), ("object 'counter'", counter.total)):
            for _ in range(2):
                with pytest.raises(
                    ServerUnresponsiveError, match=rf"{kind} has ended with its server.*pid {pid}"
                ) as told:
                    use()
                assert f"the server of that name that runs now (pid {second.pid}) does not have it" in str(told.value)
        with pytest.raises(ServerError, match="barrier 'meet' is not on server 'bench'"):
            pickle.loads(sent)
        second.get_barrier("meet", 1)
        assert barrier.wait(10) == 0  # the one of that name that is there now
        assert pickle.loads(sent).parties == 1


@pytest.mark.parametrize("end", [end_orderly, end_by_a_kill])
def test_mutexes_held_when_a_server_ended_are_not_held_on_the_next_server_of_its_name(runtime, end):
    first = SharedMemoryManager("bench")
    first.start()
    old = first.get_mutex("m")
    old.acquire()
    old.acquire()
    counts = first.get_dict("counts")
    section = contextlib.ExitStack()
    section.enter_context(counts)
    end(first, first.pid)
    with SharedMemoryManager("bench") as second:
        second.get_event("e").set()
        second.get_dict("counts")["steps"] = 1
        fresh = second.get_mutex("m")
        with pytest.raises(MutexNotHeldError):
            fresh.release()
        with fresh:
            assert old.holder.depth == 1
        for use in (old.acquire, lambda: counts.__setitem__("steps", 2)):
            with pytest.raises(MutexBrokenError, match="is lost"):
                use()
    with pytest.raises(MutexBrokenError, match="'counts'"):
        section.close()
    with SharedMemoryManager("bench") as third:
        for _ in range(2):
            with pytest.raises(MutexBrokenError, match="is lost"):
                old.release()
        with old:
            assert third.get_mutex("m").holder.depth == 1
        counts["steps"] = 3
        assert dict(third.get_dict("counts").items()) == {"steps": 3}


def test_a_lost_section_of_an_object_that_is_gone_blocks_nobody(runtime):
    with SharedMemoryManager("bench") as manager:
        manager.get_mutex("m").acquire()
    with SharedMemoryManager("bench") as manager, manager.get_mutex("m") as mutex:
        assert mutex.holder.depth == 1


def test_a_section_that_ended_with_its_server_is_refused_though_another_thread_has_gone_on(runtime):
    """All threads of a process may use the device by the same proxy."""
    with SharedMemoryManager("bench") as first:
        device = first.get_object("device", Instrument, "device", open_on_use=True)
        section = contextlib.ExitStack()
        section.enter_context(device.lock())
        device.value = 1
    with SharedMemoryManager("bench") as second:
        second.get_object("device", Instrument, "device", open_on_use=True)

        def go_on():
            device.value = 2

        thread = threading.Thread(target=go_on)
        thread.start()
        thread.join(10)
        with pytest.raises(MutexBrokenError, match="'device' was taken from this owner: server "):
            device.value = 3
        with pytest.raises(MutexBrokenError, match="is lost"):
            section.close()
        assert device.value == 2


def test_no_server_is_a_clear_error(runtime):
    with pytest.raises(ServerNotFoundError, match=r"no server named 'nowhere' is running \(running: none\)"):
        connect("nowhere")


def test_a_stopped_server_is_an_error_and_not_a_hang(manager):
    mutex = manager.get_mutex("m")
    pid = manager.pid
    stop(pid)
    try:
        started = time.monotonic()
        with pytest.raises(ServerUnresponsiveError, match="has not answered"):
            mutex.acquire()
        assert time.monotonic() - started < 20
    finally:
        os.kill(pid, signal.SIGCONT)
    with mutex:
        pass


@contextlib.contextmanager
def silent(manager):
    """Have a server stopped, and this process's session with it lost: everybody needs a new one."""
    mutex, pid = manager.get_mutex("m"), manager.pid
    stop(pid)
    try:
        with pytest.raises(ServerUnresponsiveError, match="has not answered"):
            mutex.acquire()
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def connecting(count):
    """Start threads that connect to "bench"; return them, and what comes of it."""
    outcomes = []

    def attempt():
        try:
            outcomes.append(connect())
        except ServerUnresponsiveError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def test_a_stopped_server_does_not_delay_clients_of_other_servers(manager, second_manager):
    with silent(manager):
        threads, outcomes = connecting(1)
        thread = threading.Thread(target=lambda: second_manager.get_mutex("m").acquire())
        thread.start()
        thread.join(3)

        assert not thread.is_alive()
        assert outcomes == []
        threads[0].join(20)
    assert isinstance(outcomes[0], ServerUnresponsiveError)


def test_several_threads_that_need_a_stopped_server_wait_no_longer_than_one(manager):
    with silent(manager):
        asked = time.monotonic()
        threads, outcomes = connecting(20)
        for thread in threads:
            thread.join(120)
        took = time.monotonic() - asked

    assert [type(outcome) for outcome in outcomes] == [ServerUnresponsiveError] * 20
    assert took < 25  # one attempt takes 5 s, or twice that where the server was stopped in the middle of it


def use_after_stop():
    manager = connect()
    instrument = manager.get_object("instrument")
    outcomes = manager.get_queue("outcomes")
    with instrument.lock():
        manager.get_queue("at").put(os.getpid())
        manager.get_event("go on").wait()
        try:
            instrument.value = 99
        except MutexBrokenError as error:
            outcomes.put(str(error))
    # not reached: leaving raises too


def test_a_stopped_client_keeps_its_mutex_and_its_late_command_is_refused_after_a_break(manager, instrument):
    process = Process(target=use_after_stop)
    process.start()
    pid = manager.get_queue("at").get(timeout=30)
    stop(pid)
    try:
        time.sleep(6.5)  # longer than any silence that a server might be tempted to act upon
        assert not instrument.mutex.acquire(timeout=0.2, raise_on_fail=False)
        whose = manager.break_mutex("instrument", "the operator said so")
        assert f"pid {pid}" in whose
        with instrument.lock(timeout=5):
            instrument.value = 1
        manager.get_event("go on").set()
    finally:
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(MutexBrokenError, match="the operator said so"):
        process.join(30)
    assert "the operator said so" in manager.get_queue("outcomes").get(timeout=5)
    assert instrument.value == 1
    assert "value=99" not in instrument.record["wire"]


def test_a_break_in_the_middle_of_an_operation_stops_it_before_its_next_exchange(manager, instrument, until):
    def client():
        connect().get_object("instrument").steps(1000, 0.01)

    process = Process(target=client)
    process.start()
    until(lambda: len(instrument.record["wire"]) > 3)
    manager.break_mutex("instrument", "enough")
    with instrument.lock(timeout=5):
        count = len(instrument.record["wire"])
        time.sleep(0.1)
        assert len(instrument.record["wire"]) == count
    with pytest.raises(MutexBrokenError, match="enough"):
        process.join(10)


@pytest.mark.parametrize("there", ["waits itself", "waits for a mutex"])
def test_a_break_of_a_device_whose_operation_waits_on_another_server_says_so(manager, second_manager, until, there):
    class Nester(Instrument):
        def nap_there(self):
            return self._uses.nap(60)

    stage = second_manager.get_object("stage", Instrument, "stage", open_on_use=True)
    wheel = manager.get_object("wheel", Nester, "wheel", uses=stage, open_on_use=True)
    raised = []

    def use():
        try:
            wheel.nap_there()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=use)
    with stage.lock() if there == "waits for a mutex" else contextlib.nullcontext():
        thread.start()
        until(lambda: stage.mutex.waiters if there == "waits for a mutex" else stage.mutex.holder)
        manager.break_mutex("wheel", "the operator said so")
        thread.join(20)
    assert isinstance(raised[0], MutexBrokenError)
    assert "the operator said so" in str(raised[0])
    assert stage.echo("free") == "free"


def test_after_leaving_a_broken_section_the_owner_may_acquire_again(manager):
    mutex = manager.get_mutex("m")
    mutex.acquire()
    mutex.acquire()
    manager.break_mutex("m", "test")
    for _ in range(2):
        with pytest.raises(MutexBrokenError):
            mutex.release()
    with mutex:
        assert mutex.holder.depth == 1


class Stubborn(Instrument):
    def _make_safe(self):
        if self._uses != "oil":
            raise OSError("the shutter is stuck")
        super()._make_safe()

    @unlocked
    def oil(self):
        self._uses = "oil"


def test_a_device_that_cannot_be_made_safe_goes_to_fault_and_refuses(manager, until):
    stubborn = manager.get_object("instrument", Stubborn, "instrument", open_on_use=True)
    process = Process(target=switch_on_and_wait)
    process.start()
    manager.get_queue("at").get(timeout=30)
    killed(process)
    until(lambda: stubborn.state == "fault")
    with pytest.raises(RuntimeError, match="the shutter is stuck"):
        stubborn.value = 3


def test_a_device_that_cannot_be_made_safe_stays_in_fault_until_it_is_safe(manager):
    stubborn = manager.get_object("instrument", Stubborn, "instrument")
    with stubborn.lock():
        stubborn.open()
        stubborn.on = True
        with pytest.raises(DeviceFaultError, match="the shutter is stuck"):
            stubborn.close(force=True)
        assert stubborn.state == "fault"
        with pytest.raises(DeviceFaultError, match="is in FAULT"):
            stubborn.open()
    for attempt in (stubborn.open, stubborn.reset, stubborn.make_safe, stubborn.__enter__):
        with pytest.raises(DeviceFaultError, match="the shutter is stuck"):
            attempt()
        assert stubborn.state == "fault"

    stubborn.oil()
    stubborn.reset()

    assert stubborn.record["on"] is False
    with stubborn:
        stubborn.value = 3


def test_a_client_that_uses_many_servers_one_after_the_other_does_not_grow(runtime, until):
    def use(number):
        with SharedMemoryManager(f"server-{number}") as manager:
            manager.get_object("instrument", Instrument, "instrument", open_on_use=True).echo(bytes(10))

    for number in range(3):
        use(number)
    before = psutil.Process().num_fds()
    for number in range(3, 6):
        use(number)
    until(lambda: psutil.Process().num_fds() <= before)  # the thread of a lifeline closes it in its own time
