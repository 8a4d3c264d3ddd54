"""Waiting that could never end raises at once and names everybody."""

import contextlib
import socket
import threading
import time

import pytest
from instruments import Instrument

from catkit_devices.errors import DeadlockError
from catkit_devices.multiprocessing import Mutex, Process, SharedMemoryManager
from catkit_devices.multiprocessing.wire.endpoint import Registration

pytestmark = pytest.mark.usefixtures("ready_children")


def connect(name):
    manager = SharedMemoryManager(name)
    manager.connect()
    return manager


def hold_then_want(held, wanted, barrier, outcomes, party):
    """Each of held and wanted is a (server, mutex) pair."""
    mutexes = [connect(server).get_mutex(name, timeout=30) for server, name in (held, wanted)]
    manager = connect("bench")
    with mutexes[0]:
        manager.get_barrier(barrier).wait()
        started = time.monotonic()
        try:
            with mutexes[1]:
                outcome = "entered"
        except DeadlockError as error:
            outcome = str(error)
        manager.get_queue(outcomes).put((party, outcome, time.monotonic() - started))


def in_a_ring(manager, ring):
    """Run one process per element of the ring, each holding its own and wanting the next one's."""
    manager.get_barrier("all hold", parties=len(ring)).leave()
    processes = [
        Process(
            target=hold_then_want,
            args=(held, ring[(number + 1) % len(ring)], "all hold", "outcomes", number),
            name=f"party-{number}",
        )
        for number, held in enumerate(ring)
    ]
    for process in processes:
        process.start()
    outcomes = [manager.get_queue("outcomes").get(timeout=60) for _ in ring]
    for process in processes:
        process.join(30)
    return outcomes


@pytest.mark.parametrize("parties", [2, 3])
def test_a_cycle_through_one_server_is_named_at_once(manager, parties):
    outcomes = in_a_ring(manager, [("bench", f"m{number}") for number in range(parties)])
    deadlocks = [(text, took) for _, text, took in outcomes if text != "entered"]
    assert len(deadlocks) == 1  # the one that closed it; the others go on
    for number in range(parties):
        assert f"'party-{number}'" in deadlocks[0][0]
        assert f"'m{number}'" in deadlocks[0][0]


@pytest.mark.parametrize("parties", [2, 3])
def test_a_cycle_through_two_servers_is_named_within_half_a_second(manager, second_manager, parties):
    servers = ["bench", "second", "bench"]
    outcomes = in_a_ring(manager, [(servers[number], f"m{number}") for number in range(parties)])
    deadlocks = [(text, took) for _, text, took in outcomes if text != "entered"]
    assert len(deadlocks) == 1, outcomes
    assert deadlocks[0][1] < 2.0  # 0.5 s where the machine has nothing else to do
    for number in range(parties):
        assert f"'party-{number}'" in deadlocks[0][0]


def test_a_cycle_through_three_servers_is_named(manager, second_manager, runtime):
    with SharedMemoryManager("third"):
        outcomes = in_a_ring(manager, [("bench", "m0"), ("second", "m1"), ("third", "m2")])
    assert sorted(text == "entered" for _, text, _ in outcomes) == [False, True, True]


def test_a_long_wait_that_is_not_a_deadlock_is_not_reported(manager, second_manager, until):
    here, there = manager.get_mutex("here"), second_manager.get_mutex("there")
    entered = []

    def other():
        with here:
            until(lambda: there.waiters)
            time.sleep(0.5)
        entered.append("other left")

    thread = threading.Thread(target=other)
    thread.start()
    until(lambda: here.holder)
    there.acquire()
    thread2 = threading.Thread(target=lambda: (there.acquire(timeout=30), entered.append("third"), there.release()))
    thread2.start()
    with here:
        entered.append("in")
    there.release()
    thread.join()
    thread2.join()
    assert sorted(entered) == ["in", "other left", "third"]


def test_a_cycle_through_a_nested_call_on_another_server_is_named(manager, second_manager, until):
    stage = second_manager.get_object("stage", Instrument, "stage", open_on_use=True, timeout=30)
    wheel = manager.get_object("wheel", Instrument, "wheel", uses=stage, open_on_use=True, timeout=30)
    outcomes = []

    def hold_stage_want_wheel():
        try:
            with stage.lock():
                until(lambda: stage.mutex.waiters)
                wheel.null()
        except DeadlockError as error:
            outcomes.append(error)

    thread = threading.Thread(target=hold_stage_want_wheel, name="holder of the stage")
    thread.start()
    until(lambda: stage.mutex.holder)
    try:
        wheel.through()
    except DeadlockError as error:
        outcomes.append(error)
    thread.join(20)
    assert len(outcomes) == 1
    assert "holder of the stage" in str(outcomes[0])
    assert "'stage'" in str(outcomes[0])
    assert "'wheel" in str(outcomes[0])


def test_two_threads_on_local_mutexes_are_named(until):
    one, other = Mutex("one"), Mutex("other")
    outcomes = []

    def first():
        with one:
            until(lambda: other.holder)
            try:
                other.acquire()
                other.release()
            except DeadlockError as error:
                outcomes.append(str(error))

    thread = threading.Thread(target=first, name="first")
    with other:
        thread.start()
        until(lambda: other.waiters)
        with pytest.raises(DeadlockError, match="'one'.*first"):
            one.acquire()
    thread.join()
    assert not outcomes


@pytest.mark.parametrize("closed_by", ["the named one", "the local one"])
def test_a_circle_of_a_local_and_a_named_mutex_is_named(manager, until, closed_by):
    local, named = Mutex("local", timeout=30), manager.get_mutex("named", timeout=30)
    first, last = (local, named) if closed_by == "the named one" else (named, local)
    outcomes = []

    def attempt(mutex):
        started = time.monotonic()
        try:
            with mutex:
                outcomes.append("entered")
        except DeadlockError as error:
            outcomes.append((str(error), time.monotonic() - started))

    def other():
        with last:
            until(lambda: first.holder)
            attempt(first)

    thread = threading.Thread(target=other, name="other")
    with first:
        thread.start()
        until(lambda: first.waiters)
        time.sleep(1.0)  # so long that it is looked at seldom
        attempt(last)
    thread.join(20)
    assert len(outcomes) == 2
    text, took = outcomes[0]
    assert "'local'" in text
    assert "'named'" in text
    assert "other" in text
    assert took < 10.0  # 0.2 s where the machine has nothing else to do
    assert outcomes[1] == "entered"


def test_a_blocking_wait_for_a_task_of_the_same_thread_is_a_deadlock(manager):
    import asyncio

    mutex = manager.get_mutex("m")

    async def main():
        async with mutex:

            async def blocks():
                with pytest.raises(DeadlockError, match="async with"):
                    mutex.acquire()

            await asyncio.create_task(blocks())

    asyncio.run(main())


def test_a_process_that_dies_ends_the_deadlock_for_the_others(manager, until):
    mutex = manager.get_mutex("m")

    def client():
        mutex = connect("bench").get_mutex("m")
        mutex.acquire()
        time.sleep(60)

    process = Process(target=client)
    process.start()
    until(lambda: mutex.holder)
    threading.Timer(0.3, process.kill).start()
    with mutex:
        pass
    with pytest.raises(Exception, match="SIGKILL"):
        process.join()


@pytest.fixture
def asked(runtime):
    """When somebody came to ask a server that only counts who comes."""
    came = []
    registration = Registration("counts")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(registration.socket_path())
        listener.listen()
        registration.publish(registration.socket_path(), b"no key")

        def count():
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = listener.accept()
                    came.append(time.monotonic())
                    conn.close()

        threading.Thread(target=count, daemon=True).start()
        yield came
        listener.shutdown(socket.SHUT_RDWR)
    registration.withdraw()


@contextlib.contextmanager
def waiting_for(mutex, until, *, count, holding=lambda number: contextlib.nullcontext()):
    """Have so many threads wait for a mutex that somebody else has, each in a section of its own."""
    here = threading.Barrier(count + 1)

    def wait(number):
        with holding(number):
            here.wait(60)
            with mutex:
                pass

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(count)]
    with mutex:
        for thread in threads:
            thread.start()
        here.wait(60)
        until(lambda: len(mutex.waiters) == count, timeout=60)
        yield
    for thread in threads:
        thread.join(60)


def test_other_servers_are_not_asked_about_waiters_for_whom_nobody_waits(manager, second_manager, asked, until):
    others = [second_manager.get_mutex(f"of {number}") for number in range(20)]
    camera = manager.get_mutex("camera", timeout=60)
    with waiting_for(camera, until, count=20, holding=lambda number: others[number]):
        time.sleep(1.0)  # looks are due after 0.1, 0.3 and 0.7 s
        assert asked == []
        with pytest.raises(DeadlockError):  # the owner for whom it waits is examined, too: this thread has the camera
            others[0].acquire()
        assert asked != []


def test_a_deadlock_among_many_other_waiters_is_named(manager, second_manager, until):
    others = [second_manager.get_mutex(f"of {number}") for number in range(60)]
    camera = manager.get_mutex("camera", timeout=60)
    with waiting_for(camera, until, count=60, holding=lambda number: others[number]):
        outcomes = in_a_ring(manager, [("bench", "m0"), ("second", "m1")])
    assert sorted(text == "entered" for _, text, _ in outcomes) == [False, True]
    assert min(took for _, text, took in outcomes if text != "entered") < 2.0
