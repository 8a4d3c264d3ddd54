"""Owners exclude each other, and enter in the order in which they asked."""

import asyncio
import os
import random
import socket
import threading
import time

import pytest
from instruments import Instrument

from catkit_devices.multiprocessing import Mutex, Process, SharedMemoryManager, lock_all

pytestmark = pytest.mark.usefixtures("ready_children")


def connect(name="bench"):
    manager = SharedMemoryManager(name)
    manager.connect()
    return manager


def in_threads(count, body):
    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    failures = []
    threading.excepthook = lambda args: failures.append(args.exc_value)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def count_on_device(sections):
    instrument = connect().get_object("instrument")

    def body(_):
        for _ in range(sections):
            with instrument.lock():
                instrument.value = instrument.value + 1

    in_threads(2, body)


def test_eight_processes_of_two_threads_never_overlap_on_a_device(instrument, rounds):
    sections = rounds(80, soak=5000)
    processes = [Process(target=count_on_device, args=(sections,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert instrument.value == 8 * 2 * sections
    assert instrument.record["overlaps"] == 0


def count_in_file(directory, sections):
    mutex = connect().get_mutex("shared file")
    counter, flag = directory / "counter", directory / "flag"

    def body(_):
        for _ in range(sections):
            with mutex:
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))  # raises if anybody else is inside
                counter.write_text(str(int(counter.read_text()) + 1))  # loses counts if anybody else is
                flag.unlink()

    in_threads(2, body)


def test_eight_processes_of_two_threads_never_overlap_on_a_named_mutex(manager, tmp_path, rounds):
    sections = rounds(80, soak=5000)
    (tmp_path / "counter").write_text("0")
    processes = [Process(target=count_in_file, args=(tmp_path, sections)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert int((tmp_path / "counter").read_text()) == 8 * 2 * sections


def test_the_same_thread_re_enters_through_different_proxies(manager):
    one = manager.get_object("instrument", Instrument, "instrument", open_on_use=True)
    other = connect().get_object("instrument")
    with one.lock(), other.lock(timeout=0), manager.get_object("instrument").lock(timeout=0):
        assert other.mutex.holder.depth == 3
        assert one.echo(1) == other.echo(1)
    assert one.mutex.holder is None


def test_another_thread_of_the_same_process_does_not_re_enter(manager):
    mutex = manager.get_mutex("m")
    entered = []
    with mutex:
        in_threads(1, lambda _: entered.append(mutex.acquire(timeout=0.05, raise_on_fail=False)))
    assert entered == [False]


def test_nested_use_on_the_same_server_re_enters(manager):
    stage = manager.get_object("stage", Instrument, "stage", open_on_use=True)
    wheel = manager.get_object("wheel", Instrument, "wheel", uses=stage, open_on_use=True)
    with stage.lock():
        assert "MainThread" in wheel.through()
    assert stage.value == 1


def test_nested_use_on_another_server_re_enters(manager, second_manager):
    stage = second_manager.get_object("stage", Instrument, "stage", open_on_use=True)
    wheel = manager.get_object("wheel", Instrument, "wheel", uses=stage, open_on_use=True)
    with stage.lock():
        assert "MainThread" in wheel.through()
        assert wheel.through_and_back(wheel) == "there and back"
    assert stage.value == 1


def note_order(name, number, turns, hold):
    mutex = connect().get_mutex("queue")
    order = connect().get_dict("order")
    for _ in range(turns):
        with mutex:
            with order:
                order["sequence"] = [*order.get("sequence", []), number]
            time.sleep(hold)


def test_waiters_enter_in_turn_even_if_one_acquires_again_at_once(manager, until):
    order = manager.get_dict("order")
    mutex = manager.get_mutex("queue")
    mutex.acquire()
    processes = [Process(target=note_order, args=("p", number, 12, 0.002)) for number in range(8)]
    for process in processes:
        process.start()
    until(lambda: len(mutex.waiters) == 8)
    mutex.release()
    for process in processes:
        process.join()
    sequence = order["sequence"]
    # While all contend, an owner that leaves asks again after the seven others: none is in twice within eight turns.
    for start in range(8 * 8):
        assert len(set(sequence[start : start + 7])) == 7, sequence


def test_waiters_are_granted_in_the_order_in_which_the_server_queued_them(manager, until):
    mutex = manager.get_mutex("queue")
    entered = []

    def wait(number):
        with mutex:
            entered.append(number)

    mutex.acquire()
    threads = []
    for number in range(20):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: len(mutex.waiters) == number + 1)
    mutex.release()
    for thread in threads:
        thread.join()
    assert entered == list(range(20))


def test_shared_reads_run_while_another_holds_the_device(instrument):
    with instrument.lock():
        reads = []

        def read(_):
            for _ in range(50):
                started = time.monotonic()
                reads.append((instrument.temperature, time.monotonic() - started))

        in_threads(1, read)
    assert [value for value, _ in reads] == [21.0] * 50
    assert max(took for _, took in reads) < 8.0


def test_a_shared_read_waits_for_the_running_operation_only(instrument, until):
    working = threading.Thread(target=lambda: instrument.work(0.3))
    working.start()
    until(lambda: instrument.mutex.holder)
    assert instrument.temperature == 21.0
    assert instrument.record["wire"][-2:] == ["worked", "temperature?"]
    working.join()


@pytest.mark.parametrize("way", ["mutex", "device", "several"])
def test_five_tasks_of_one_thread_exclude_each_other(manager, instrument, way):
    mutex = manager.get_mutex("m")
    others = [manager.get_mutex(name) for name in ("a", "z")]
    ways = {
        "mutex": lambda chance: mutex,
        "device": lambda chance: instrument.lock(),
        "several": lambda chance: lock_all(mutex, chance.choice(others)),
    }
    chance = random.Random(1)
    inside = overlaps = 0

    async def task():
        nonlocal inside, overlaps
        for _ in range(10):
            async with ways[way](chance):
                inside += 1
                overlaps += inside > 1
                await asyncio.sleep(0.001)
                inside -= 1

    async def main():
        await asyncio.gather(*(task() for _ in range(5)))

    asyncio.run(main())
    assert overlaps == 0
    assert not [one.holder for one in (mutex, *others, instrument.mutex) if one.holder]


def test_a_cancelled_task_holds_nothing(manager):
    mutex, first = manager.get_mutex("m"), manager.get_mutex("a")

    async def waits():
        async with lock_all(first, mutex):
            raise AssertionError("it was cancelled before")

    async def main():
        async with mutex:
            waiting = asyncio.create_task(waits())
            while first.holder is None:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0.1)

    asyncio.run(main())
    assert mutex.holder is None
    assert first.holder is None
    assert mutex.acquire(timeout=0)
    mutex.release()


def take_all(names, rounds, seed):
    import random

    manager = connect()
    chooser = random.Random(seed)
    mutexes = [manager.get_mutex(name) for name in names]
    for _ in range(rounds):
        chooser.shuffle(mutexes)
        with lock_all(*mutexes[: chooser.randint(2, len(mutexes))], timeout=60):
            pass


def test_lock_all_never_deadlocks_under_random_order_from_eight_processes(manager):
    names = [f"m{number}" for number in range(4)]
    processes = [Process(target=take_all, args=(names, 30, seed)) for seed in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert all(manager.get_mutex(name).holder is None for name in names)


def test_lock_all_that_fails_holds_none(manager):
    a, b = manager.get_mutex("a"), manager.get_mutex("b")
    b_taken, done = threading.Event(), threading.Event()

    def other():
        with b:
            b_taken.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    b_taken.wait(10)
    try:
        lock_all(a, b, timeout=0.05).__enter__()
    except TimeoutError as error:
        assert "'b' not acquired" in str(error)
    else:
        raise AssertionError("b was not free")
    assert a.holder is None
    done.set()
    thread.join()


def test_a_timeout_says_who_holds_it_since_when_and_from_which_line(manager, until):
    mutex = manager.get_mutex("camera")

    def hold():
        with mutex:
            until(lambda: not mutex.waiters and finished)

    finished = []
    thread = threading.Thread(target=hold, name="holder")
    thread.start()
    until(lambda: mutex.holder)
    try:
        mutex.acquire(timeout=0.1)
    except TimeoutError as error:
        text = str(error)
    finished.append(True)
    thread.join()
    assert text.startswith("'camera' not acquired in 0.1 s: held for ")
    assert f"(pid {os.getpid()}, holder)" in text
    assert "test_exclusion.py:" in text
    assert "this same process" in text


def wait_for(name):
    with connect().get_mutex(name):
        pass


def test_holders_and_waiters_are_seen_with_process_thread_host_depth_and_line(manager, until):
    mutex = manager.get_mutex("m")
    with mutex, mutex:
        process = Process(target=wait_for, args=("m",), name="sweep")
        process.start()
        (waiter,) = until(lambda: mutex.waiters)
        assert (waiter.process, waiter.pid, waiter.thread) == ("sweep", process.pid, "MainThread")
        holder = mutex.holder
        assert (holder.pid, holder.thread, holder.host) == (os.getpid(), "MainThread", socket.gethostname())
        assert (holder.depth, waiter.depth) == (2, 1)
        assert holder.site.startswith("test_exclusion.py:")
        assert holder.since >= waiter.since >= 0
        (shown,) = [entry for entry in manager.status()["objects"] if entry["name"] == "m"]
        assert (shown["holder"]["pid"], shown["waiters"][0]["process"]) == (os.getpid(), "sweep")
    process.join(30)


def test_a_local_mutex_has_the_same_methods_and_errors():
    mutex = Mutex("local", timeout=0.05)
    outcome = []
    with mutex, mutex:
        assert mutex.holder.depth == 2
        assert mutex.locked()
        in_threads(1, lambda _: outcome.append(mutex.acquire(raise_on_fail=False)))
    assert outcome == [False]
    assert Mutex(lock=mutex).underlying is mutex.underlying
