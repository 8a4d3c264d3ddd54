"""Events, barriers, conditions, queues, dicts, namespaces and objects of one's own, by name from any process."""

import contextlib
import gc
import multiprocessing
import os
import queue
import random
import signal
import threading
import time
import weakref

import psutil
import pytest
import shareable
from shareable import Tally

from catkit_devices.errors import (
    ConfigurationError,
    DeadlockError,
    MutexNotHeldError,
    MutexTimeoutError,
    ProcessDiedError,
    RemoteError,
    ServerUnresponsiveError,
)
from catkit_devices.multiprocessing import Mutex, MutexedDict, MutexedNamespace, Process, SharedMemoryManager, lock_all
from catkit_devices.multiprocessing.locks.owner import Call, calling, current_owner, local_session
from catkit_devices.multiprocessing.types.events import Event
from catkit_devices.multiprocessing.types.queues import Queue

pytestmark = pytest.mark.usefixtures("ready_children")


@pytest.fixture
def manager(runtime):
    with SharedMemoryManager() as started:
        yield started


@pytest.fixture
def start():
    """Start children; those that are still there in the end are killed."""
    started = []

    def start(target, *args):
        process = Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with contextlib.suppress(BaseException):
            process.join(10)


def waiting(manager, name):
    (entry,) = [one for one in manager.status()["objects"] if one["name"] == name]
    return len(entry["waiting"])


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        process.join(10)


# --- events ----------------------------------------------------------------------------------------------------------


def test_an_event_set_in_one_process_is_seen_in_another(manager, start):
    event = manager.get_event("go")
    assert event.is_set() is False
    assert event.wait(0) is False
    child = start(shareable.wait_for_event, event, 30)
    start(shareable.set_event, "go").join(30)
    assert child.result is True
    assert event.wait() is True
    event.clear()
    assert event.is_set() is False


def test_a_cancelled_wait_does_not_disturb_the_process_that_sets_the_event():
    # The waiter's process has died and the event is set, before the waiter could look.
    event = Event("e")
    outcomes = []

    def wait(call):
        with calling(call):
            try:
                outcomes.append(event.wait(30))
            except BaseException as error:
                outcomes.append(error)

    calls = [Call(current_owner(), object(), local_session()) for _ in range(2)]
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    while len(event._tickets) < 2:
        time.sleep(0.001)
    with event._guard:
        calls[0].cancel(KeyError("dead"))
        time.sleep(0.05)
        for ticket in event._tickets:
            ticket.grant()
        event._tickets.clear()
    for thread in threads:
        thread.join(10)
    assert {type(one) for one in outcomes} == {KeyError, bool}


class CancelsAfter:
    """A guard that cancels a call right after it was given back for the second time by the call's own thread."""

    def __init__(self, guard, call):
        self._guard, self._call, self._thread, self._left = guard, call, None, 0

    def __enter__(self):
        self._guard.acquire()
        if self._thread is None:
            self._thread = threading.get_ident()

    def __exit__(self, *_):
        self._guard.release()
        if threading.get_ident() == self._thread:
            self._left += 1
            if self._left == 2:
                self._call.cancel(KeyError("dead"))


def test_an_item_that_was_granted_just_before_its_waiter_was_cancelled_is_not_lost(until):
    queue = Queue("q")
    call = Call(current_owner(), object(), local_session())
    queue._guard = CancelsAfter(queue._guard, call)
    outcomes = []

    def get():
        with calling(call):
            try:
                outcomes.append(queue.get())
            except KeyError:
                outcomes.append(None)

    thread = threading.Thread(target=get)
    thread.start()
    until(lambda: queue._tickets)
    queue.put("item")
    thread.join(10)
    assert call.reason is not None
    assert (outcomes, queue.qsize()) in ((["item"], 0), ([None], 1))


# --- barriers --------------------------------------------------------------------------------------------------------


def test_a_barrier_lets_all_parties_pass_together_again_and_again(manager, start):
    barrier = manager.get_barrier("meet", 3)
    children = [start(shareable.pass_barrier, "meet", 3) for _ in range(2)]
    mine = [barrier.wait(30) for _ in range(3)]
    positions = [mine, *(child.result for child in children)]
    assert [sorted(column) for column in zip(*positions, strict=True)] == [[0, 1, 2]] * 3
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_a_participant_killed_before_it_waits_breaks_the_barrier_at_once(manager, start, until):
    barrier = manager.get_barrier("meet", 2)
    child = start(shareable.take_part, "meet")
    assert manager.get_event("taken part").wait(30)
    failures = []

    def wait():
        try:
            barrier.wait(60)
        except threading.BrokenBarrierError as error:
            failures.append((str(error), time.monotonic()))

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: waiting(manager, "meet") == 1)
    before = time.monotonic()
    kill(child)
    waiter.join(10)
    text, when = failures[0]
    assert f"pid {child.pid}" in text
    assert text.endswith("died")
    assert when - before < 8
    assert barrier.broken is False  # as new
    again = start(shareable.pass_barrier, "meet", 1)
    assert sorted([barrier.wait(30), *again.result]) == [0, 1]


def test_a_participant_killed_while_it_waits_satisfies_no_barrier(manager, start, until):
    barrier = manager.get_barrier("meet", 2)
    child = start(shareable.wait_at, barrier)  # a proxy that was sent; it has never asked by name
    until(lambda: waiting(manager, "meet") == 1)
    kill(child)
    until(lambda: len(status(manager, "meet")["participants"]) == 1)
    until(lambda: not barrier.broken)
    with pytest.raises(threading.BrokenBarrierError, match=r"'meet': 1 of 2 parties had not come after 0\.1 s"):
        barrier.wait(0.1)


def test_an_aborted_barrier_says_who_aborted_it(manager, start, until):
    barrier = manager.get_barrier("meet", 2)
    child = start(shareable.wait_at, barrier)
    until(lambda: waiting(manager, "meet") == 1)
    barrier.abort()
    with pytest.raises(threading.BrokenBarrierError, match=rf"'meet' was aborted by .*pid {os.getpid()}"):
        child.join(30)


def test_a_barrier_has_a_default_timeout(manager):
    barrier = manager.get_barrier("meet", 2, timeout=0.05)
    with pytest.raises(threading.BrokenBarrierError, match="0.05 s"):
        barrier.wait()


def test_the_first_process_that_asks_for_a_barrier_sets_its_number_of_parties(manager):
    with pytest.raises(ConfigurationError, match="'meet' needs a number of parties"):
        manager.get_barrier("meet")
    manager.get_barrier("meet", 2)
    assert manager.get_barrier("meet").parties == 2


# --- conditions ------------------------------------------------------------------------------------------------------


def test_a_notification_meant_for_a_killed_waiter_goes_to_the_next(manager, start, until):
    condition = manager.get_condition("changed")
    order = manager.get_queue("waiting")
    first = start(shareable.wait_notified, "changed", "first")
    assert order.get(timeout=30) == first.pid
    until(lambda: waiting(manager, "changed") == 1)
    second = start(shareable.wait_notified, "changed", "second")
    assert order.get(timeout=30) == second.pid
    until(lambda: waiting(manager, "changed") == 2)
    os.kill(first.pid, signal.SIGSTOP)
    with condition:
        condition.notify()
        kill(first)
    assert manager.get_queue("notified").get(timeout=30) == ("second", True)
    with condition:
        assert condition.wait(0.01) is False


def test_a_condition_waits_for_a_predicate_of_its_user(manager, start):
    numbers = manager.get_dict("numbers")
    numbers["n"] = 0
    condition = manager.get_condition("changed")
    child = start(shareable.wait_until_five, "changed")
    assert manager.get_event("waiting").wait(30)
    for number in range(1, 6):
        with condition:
            numbers["n"] = number
            condition.notify_all()
    assert child.result == 5
    with condition:
        assert condition.wait_for(lambda: False, 0.01) is False


def test_a_condition_is_used_only_with_its_mutex_held(manager):
    condition = manager.get_condition("changed")
    for use in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(MutexNotHeldError):
            use()


# --- queues ----------------------------------------------------------------------------------------------------------


def test_a_queue_keeps_the_order_and_its_size(manager, start):
    numbers = manager.get_queue("numbers", maxsize=3)
    for number in range(3):
        numbers.put(number)
    assert (numbers.qsize(), numbers.full(), numbers.empty(), numbers.maxsize) == (3, True, False, 3)
    with pytest.raises(queue.Full):
        numbers.put_nowait(3)
    with pytest.raises(queue.Full):
        numbers.put(3, timeout=0.01)
    putter = start(shareable.put_one, "numbers", 3)
    assert [numbers.get(timeout=30) for _ in range(4)] == [0, 1, 2, 3]
    putter.join(30)
    with pytest.raises(queue.Empty):
        numbers.get_nowait()
    with pytest.raises(queue.Empty):
        numbers.get(timeout=0.01)


def test_the_putter_that_waited_longest_is_first():
    numbers = Queue("numbers", 1)
    numbers.put(0)
    putters = []
    for number in range(1, 4):
        putters.append(threading.Thread(target=numbers.put, args=(number,)))
        putters[-1].start()
        while len(numbers._putting) < number:
            time.sleep(0.001)
    assert [numbers.get(timeout=10) for _ in range(4)] == [0, 1, 2, 3]
    for putter in putters:
        putter.join(10)


def test_a_killed_getter_takes_no_item_with_it(manager, start, until):
    numbers = manager.get_queue("numbers")
    child = start(shareable.get_one, "numbers")
    until(lambda: waiting(manager, "numbers") == 1)
    kill(child)
    until(lambda: waiting(manager, "numbers") == 0)
    numbers.put(1)
    assert numbers.get(timeout=10) == 1


def test_an_item_on_its_way_to_a_process_that_dies_goes_to_the_next(manager, start, until):
    numbers = manager.get_queue("numbers")
    first = start(shareable.get_one, "numbers")
    until(lambda: waiting(manager, "numbers") == 1)
    os.kill(first.pid, signal.SIGSTOP)  # it does not read what it is sent
    numbers.put(1)
    numbers.put(2)
    assert numbers.qsize() == 1
    second = start(shareable.get_one, "numbers")
    assert second.result == 2
    third = start(shareable.get_one, "numbers")
    until(lambda: waiting(manager, "numbers") == 1)
    kill(first)
    assert third.result == 1


def test_an_item_that_arrived_stays_with_its_process_when_that_ends(manager, start):
    numbers = manager.get_queue("numbers")
    numbers.put(1)
    assert start(shareable.get_one, "numbers").result == 1
    manager.get_event("another word")
    assert numbers.empty()


def test_consumers_killed_at_random_lose_no_item(manager, start, tmp_path, until, rounds):
    """Each item is written down once, but for at most the one that a killed consumer had just received."""
    numbers = manager.get_queue("numbers")
    log = tmp_path / "log"
    log.touch()
    moments = random.Random(3)
    count = killed = 0
    for _ in range(rounds(8, soak=200)):
        consumers = [start(shareable.consume, "numbers", str(log)) for _ in range(2)]
        until(lambda: waiting(manager, "numbers") == 2)
        enough = len(written(log)) + moments.randrange(60)
        for _ in range(100):
            numbers.put(count)
            count += 1
        while len(written(log)) < enough:
            pass
        for consumer in consumers:
            kill(consumer)
            killed += 1
    last = start(shareable.consume, "numbers", str(log))
    until(lambda: waiting(manager, "numbers") == 1 and numbers.empty())
    kill(last)
    assert len(written(log)) == len(set(written(log)))
    assert len(set(range(count)) - set(map(int, written(log)))) <= killed


def written(log):
    return log.read_text().split()


def test_a_killed_putter_puts_nothing(manager, start, until):
    numbers = manager.get_queue("numbers", maxsize=1)
    numbers.put(0)
    child = start(shareable.put_one, "numbers", "of the dead")
    until(lambda: status(manager, "numbers")["putting"] == 1)
    kill(child)
    until(lambda: status(manager, "numbers")["putting"] == 0)
    assert numbers.get() == 0
    assert numbers.empty()


def status(manager, name):
    return next(one for one in manager.status()["objects"] if one["name"] == name)


def test_ctrl_c_in_get_loses_no_item(manager, start, until):
    numbers = manager.get_queue("numbers")
    child = start(shareable.get_interrupted, "numbers")
    until(lambda: waiting(manager, "numbers") == 1)
    os.kill(child.pid, signal.SIGINT)
    assert manager.get_event("interrupted").wait(30)
    numbers.put(1)
    assert child.result == 1


def test_an_item_that_does_not_load_at_the_getter_goes_back(manager, start):
    child = start(shareable.get_what_does_not_load, "numbers")
    assert child.result == ("numbers", "get", "not in this process")
    assert manager.get_queue("numbers").get(timeout=10).value == 42


# --- dicts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "shared"])
def shared_dict(request):
    if request.param == "local":
        yield MutexedDict()
    else:
        with SharedMemoryManager() as manager:
            yield manager.get_dict("settings")


def test_a_mutexed_dict_has_all_of_dict(shared_dict):
    d, plain = shared_dict, {}
    for one in (d, plain):
        one["a"] = 1
        one.update({"b": 2}, c=3)
        one.update([("d", 4)])
        one |= {"e": 5}
    assert d == plain
    assert plain == d
    assert d != {"a": 1}
    assert dict(d) == plain
    assert {**d} == plain
    assert list(d) == list(plain)
    assert list(reversed(d)) == list(reversed(plain))
    assert list(d.keys()) == list(plain.keys())
    assert list(d.values()) == list(plain.values())
    assert list(d.items()) == list(plain.items())
    assert (len(d), "a" in d, "z" in d) == (5, True, False)
    assert (d["a"], d.get("a"), d.get("z"), d.get("z", 9)) == (1, 1, None, 9)
    assert (d.setdefault("a", 7), d.setdefault("f", 6), d.setdefault("g")) == (1, 6, None)
    assert (d.pop("f"), d.pop("z", 8), d.popitem()) == (6, 8, ("g", None))
    del d["e"]
    assert d | {"z": 1} == {"a": 1, "b": 2, "c": 3, "d": 4, "z": 1}
    assert {"z": 1} | d == {"z": 1, "a": 1, "b": 2, "c": 3, "d": 4}
    assert type(d | {}) is dict
    copied = d.copy()
    assert (type(copied), copied) == (dict, {"a": 1, "b": 2, "c": 3, "d": 4})
    assert dict(d.fromkeys("xy", 1)) == {"x": 1, "y": 1}
    for missing in (lambda: d["z"], lambda: d.pop("z"), lambda: d.__delitem__("z")):
        with pytest.raises(KeyError, match="z"):
            missing()
    assert bool(d) is True
    d.clear()
    assert (bool(d), len(d), d) == (False, 0, {})
    with pytest.raises(KeyError):
        d.popitem()
    with pytest.raises(TypeError, match="unhashable") if isinstance(d, MutexedDict) else contextlib.nullcontext():
        hash(d)  # a proxy is hashed by the object that it represents, not by its content


def test_several_operations_on_a_dict_can_be_one_section(shared_dict):
    shared_dict["n"] = 0

    def add():
        for _ in range(50):
            with shared_dict as same:
                assert same is shared_dict
                shared_dict["n"] = shared_dict["n"] + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert shared_dict["n"] == 200


def test_counts_of_several_processes_in_a_dict_and_a_namespace_add_up(manager, start):
    d, namespace = manager.get_dict("counts"), manager.get_namespace("counts")
    d["n"] = namespace.n = 0
    children = [
        *(start(shareable.count_in_dict, "counts", 60) for _ in range(3)),
        *(start(shareable.count_in_namespace, "counts", 60) for _ in range(3)),
    ]
    for child in children:
        child.join(60)
    assert (d["n"], namespace.n) == (180, 180)


def test_missing_keys_are_loaded_once_locally():
    asked = []

    def load(key):
        asked.append(key)
        return shareable.load_square(key)

    d = MutexedDict(load=load)
    assert 3 not in d
    assert d.get(3) is None
    assert (d[3], d[3], asked) == (9, 9, [3])
    with pytest.raises(TypeError):
        d["x"]
    assert list(d) == [3]


def test_missing_keys_are_loaded_through_a_manager(manager, start):
    offset = 10
    squares = manager.get_dict("squares", load=shareable.load_square)

    def load(key):
        return key + offset

    offsets = manager.get_dict("offsets", load=load)
    assert (squares[3], offsets[3]) == (9, 13)
    assert manager.get_dict("squares", load=shareable.load_square)[4] == 16
    assert manager.get_dict("offsets", load=load)[4] == 14
    with pytest.raises(ConfigurationError, match="dict 'squares' exists with load=.*load_square.*asked for with load="):
        manager.get_dict("squares", load=shareable.square)


def test_a_dict_shares_the_mutex_of_something_else(manager):
    mutex = manager.get_mutex("stage")
    positions = manager.get_dict("positions", lock=mutex)
    tally = manager.get_object("tally", Tally)
    counts = manager.get_dict("counts", lock=tally)
    positions["x"] = counts["x"] = 1
    assert manager.get_dict("positions", lock=mutex)["x"] == 1
    for hold, blocked in ((mutex, positions), (tally.lock(), counts)):
        failures = []

        def use(blocked=blocked, failures=failures):
            try:
                blocked.mutex.acquire(0)
            except MutexTimeoutError as error:
                failures.append(error)

        with hold:
            blocked["x"] = 2  # the same owner goes in
            other = threading.Thread(target=use)
            other.start()
            other.join(30)
        assert failures
    with pytest.raises(ConfigurationError, match="'positions' exists with lock="):
        manager.get_dict("positions", lock=manager.get_mutex("other"))


def test_a_local_dict_shares_the_mutex_of_something_else():
    mutex = Mutex("m")
    d = MutexedDict({"a": 1}, lock=mutex)
    both = MutexedDict(lock=d)
    with mutex:
        assert (d["a"], d.mutex.holder.depth, both.mutex.holder.depth) == (1, 1, 1)


def test_the_mutexes_of_a_killed_process_are_free_again(manager, start):
    d = manager.get_dict("counts")
    child = start(shareable.die_holding, "counts")
    with pytest.raises(ProcessDiedError):
        child.join(30)
    with d.lock(timeout=5):
        d["n"] = 1


# --- namespaces ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "shared"])
def namespace(request):
    if request.param == "local":
        yield MutexedNamespace()
    else:
        with SharedMemoryManager() as manager:
            yield manager.get_namespace("state")


def test_a_namespace_shares_attributes(namespace):
    namespace.slot = 4
    namespace.update = [1]
    assert (namespace.slot, namespace.update) == (4, [1])
    del namespace.slot
    assert not hasattr(namespace, "slot")
    with pytest.raises(AttributeError, match="slot"):
        _ = namespace.slot
    with pytest.raises(AttributeError):
        del namespace.slot
    with pytest.raises(AttributeError, match="mutex"):
        namespace.mutex = 1
    with pytest.raises(AttributeError, match="_private"):
        _ = namespace._private
    with namespace as same:
        assert same is namespace
        assert namespace.mutex.holder.depth >= 1


# --- parameters ------------------------------------------------------------------------------------------------------


#: What waits for how long it is told, with a timeout.
WAITS = {
    "mutex 'm'": lambda manager, timeout: manager.get_mutex("m").acquire(timeout),
    "lock_all": lambda manager, timeout: lock_all(manager.get_mutex("m"), timeout=timeout),
    "event 'e'": lambda manager, timeout: manager.get_event("e").wait(timeout),
    "barrier 'b'": lambda manager, timeout: manager.get_barrier("b", 2).wait(timeout),
    "condition 'c'": lambda manager, timeout: _wait_for(manager.get_condition("c"), timeout),
    "what is waited for": lambda manager, timeout: _wait_until(manager.get_condition("c"), timeout),
    "queue 'empty'": lambda manager, timeout: manager.get_queue("empty").get(timeout=timeout),
    "queue 'full'": lambda manager, timeout: _fill(manager.get_queue("full", maxsize=1), timeout),
    "mutex 'new'": lambda manager, timeout: manager.get_mutex("new", timeout=timeout),
    "barrier 'new'": lambda manager, timeout: manager.get_barrier("new", 2, timeout=timeout),
}


def _wait_for(condition, timeout):
    with condition:
        condition.wait(timeout)


def _wait_until(condition, timeout):
    with condition:
        condition.wait_for(lambda: False, timeout)


def _fill(full, timeout):
    full.put_nowait("first")
    full.put("second", timeout=timeout)


@pytest.mark.parametrize("timeout", [float("nan"), "5"])
@pytest.mark.parametrize("what", list(WAITS))
def test_a_timeout_that_is_no_number_is_refused_at_once(manager, what, timeout):
    with pytest.raises(ValueError, match=f"{what}: a timeout is a number of seconds, got '?{timeout}"):
        WAITS[what](manager, timeout)
    assert not [one for one in manager.status()["objects"] if one.get("holder") or one.get("waiting")]
    assert manager.get_queue("full").qsize() <= 1


def test_a_wait_without_timeout_is_ended_by_what_it_waits_for(manager):
    event = manager.get_event("e")
    threading.Timer(0.2, event.set).start()
    assert event.wait(float("inf"))


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_name_is_a_text_that_is_not_empty(manager, name):
    with pytest.raises(ConfigurationError, match=f"mutex: its name must be a text that is not empty, got {name!r}"):
        manager.get_mutex(name)
    with pytest.raises(ConfigurationError, match="object: its name must be a text that is not empty"):
        manager.get_object(name, Tally)
    assert manager.status()["objects"] == []


def test_a_later_request_may_leave_out_or_repeat_parameters_but_not_change_them(manager):
    manager.get_mutex("m", timeout=5)
    assert manager.get_mutex("m").timeout == 5
    assert manager.get_lock("m", timeout=5).timeout == 5
    with pytest.raises(ConfigurationError, match=r"mutex 'm' exists with timeout=5 and was asked for with timeout=7"):
        manager.get_mutex("m", timeout=7)
    manager.get_queue("q")
    manager.get_queue("q", maxsize=0)  # what it is
    with pytest.raises(ConfigurationError, match=r"queue 'q' exists with maxsize=0 and was asked for with maxsize=2"):
        manager.get_queue("q", maxsize=2)
    manager.get_mutex("default")
    manager.get_mutex("default", timeout=60)
    with pytest.raises(ConfigurationError, match=r"exists with timeout=60\.0 and was asked for with timeout=1"):
        manager.get_mutex("default", timeout=1)
    manager.get_barrier("b", 2)
    with pytest.raises(ConfigurationError, match=r"barrier 'b' exists with parties=2 and was asked for with parties=3"):
        manager.get_barrier("b", 3)


@pytest.mark.parametrize("kind", ["event", "condition", "queue", "dict"])
def test_an_undeclared_attribute_of_a_named_object_does_not_exist(manager, kind):
    thing = getattr(manager, f"get_{kind}")("thing")
    with pytest.raises(AttributeError, match=f"{kind} 'thing' shares no 'colour'"):
        thing.colour = 1
    with pytest.raises(AttributeError, match=f"{kind} 'thing' shares no 'colour'"):
        _ = thing.colour


# --- objects of one's own --------------------------------------------------------------------------------------------


def test_a_user_defined_object_works_through_its_proxy(manager):
    tally = manager.get_object("tally", Tally, 5)
    assert (tally.add(2), tally.add(number=1), tally.count) == (7, 8, 8)
    tally.count = 3
    tally.comment = "new"
    assert (tally.count, tally.comment, tally.double, tally.colour, tally.unit()) == (3, "new", 6, "grey", "counts")
    tally.double = 8
    assert (tally.count, len(tally), tally(10), bool(tally)) == (4, 4, 40, True)
    tally["a"] = 1
    tally["b"] = 2
    del tally["b"]
    assert (tally["a"], "a" in tally, "b" in tally, list(tally)) == (1, True, False, ["a"])
    assert tally.chain() is tally
    del tally.comment
    with pytest.raises(AttributeError, match="comment"):
        _ = tally.comment
    with pytest.raises(AttributeError, match="fixed"):
        tally.fixed = 1
    with pytest.raises(AttributeError, match="add"):
        tally.add = 1
    with pytest.raises(ValueError, match="at 4"):
        tally.fail()
    assert manager.get_object("tally").count == 4
    assert manager.get_object("tally") == tally
    assert "add" in dir(tally)
    assert type(tally).add.__doc__ is None
    assert "Tally 'tally' on server" in repr(tally)


def test_a_property_that_raises_attribute_error_is_asked_once(manager):
    tally = manager.get_object("tally", Tally)
    with pytest.raises(AttributeError, match="no colour 1"):
        _ = tally.broken
    assert tally.count == 1


def test_the_context_manager_of_a_shared_object_gets_the_exception(manager):
    tally = manager.get_object("tally", Tally)
    with tally as same:
        assert same is tally
    with pytest.raises(ValueError, match="inside"), tally:
        raise ValueError("inside")
    with tally:
        raise KeyError("swallowed")
    with pytest.raises(LookupError, match="a lock"), tally:
        error = LookupError("a lock")
        error.lock = threading.Lock()
        raise error
    assert tally.entered == [
        "in",
        (None, None, False),
        "in",
        ("ValueError", ("inside",), True),
        "in",
        ("KeyError", ("swallowed",), True),
        "in",
        ("LookupError", ("a lock",), True),
    ]


@pytest.mark.parametrize("name", ["numbers", "later"])
def test_a_lazy_result_of_a_shared_object_is_refused(manager, name):
    tally = manager.get_object("tally", Tally)
    with pytest.raises(TypeError, match=rf"tally\.{name} returned a .* outside of the object's mutex: return a list"):
        getattr(tally, name)()
    assert tally.add() == 1


class _Lazy:
    @property
    def later(self):
        return lambda: 3


def test_a_property_that_returns_a_function_says_why_it_cannot_be_read(manager):
    lazy = manager.get_object("lazy", _Lazy)
    with pytest.raises(AttributeError, match=r"object 'lazy': 'later' is a function, which would run without .* mutex"):
        _ = lazy.later


def test_a_class_with_a_method_that_proxies_need_is_refused(manager):
    with pytest.raises(TypeError, match=r"Gate\.release cannot be shared: .* give it another name"):
        manager.get_object("gate", Gate := shareable.Gate)
    with pytest.raises(ConfigurationError, match="there is no object named 'gate'"):
        manager.get_object("gate")
    assert Gate().release() == "released"


def test_an_object_asked_for_by_many_processes_at_once_is_made_once_and_every_call_is_mutexed(manager, start, tmp_path):
    log = tmp_path / "log"
    children = [start(shareable.add_to_tally, "tally", 100, str(log)) for _ in range(4)]
    for child in children:
        child.join(60)
    assert log.read_text() == f"made in {manager.pid}\n"
    tally = manager.get_object("tally")
    assert (tally.count, tally.overlaps) == (400, 0)


def test_a_proxy_that_is_sent_to_a_process_works_there_and_comes_back(manager, start):
    tally = manager.get_object("tally", Tally)
    children = [start(shareable.add_by_proxy, tally, 50) for _ in range(2)]
    assert [child.result for child in children] == [tally, tally]
    assert tally.count == 100


def test_an_object_used_by_another_of_the_same_server_keeps_its_mutex(manager):
    first, second = manager.get_object("first", Tally), manager.get_object("second", Tally)
    assert first.add_to(second) == second
    assert (first.count, second.count) == (1, 1)
    failures = []

    def use():
        second.mutex.timeout = 0.1
        try:
            first.add_to(second)
        except BaseException as error:
            failures.append(error)

    manager2 = manager.get_object("short", Tally)
    manager2.count = 0
    with second.lock():
        user = threading.Thread(target=use)
        user.start()
        while not [one for one in manager.status()["objects"] if one["name"] == "second" and one["waiters"]]:
            assert user.is_alive()
        assert second.count == 1
    user.join(30)
    assert (failures, second.count) == ([], 3)
    assert len(manager.status()["sessions"]) == 1  # the server has none with itself


async def _coroutine(*_):
    return 1


@pytest.mark.parametrize(
    "use",
    [
        lambda manager: manager.get_object("made", _coroutine),
        lambda manager: manager.get_object("made", lambda: _coroutine()),
        lambda manager: manager.get_dict("made", load=_coroutine),
        lambda manager: manager.get_dict("loaded", load=lambda key: _coroutine())["x"],
    ],
)
def test_a_factory_that_is_a_coroutine_or_generator_is_refused(manager, use):
    with pytest.raises(TypeError, match=r"whose (body does not run when it is called|work is not done)"):
        use(manager)


def test_a_predicate_of_a_condition_that_returns_a_coroutine_is_an_error(manager):
    condition = manager.get_condition("changed")
    with condition, pytest.raises(TypeError, match="the predicate that is waited for returned a coroutine"):
        condition.wait_for(_coroutine, 1)


def test_a_server_whose_initializer_is_a_coroutine_or_generator_does_not_start(runtime):
    for initializer in (_coroutine, lambda: _coroutine()):
        with pytest.raises(TypeError, match="the initializer of (a|the) server"):
            SharedMemoryManager("other").start(initializer)


def test_a_factory_that_fails_leaves_nothing_and_can_be_tried_again(manager):
    with pytest.raises(OSError, match="no hardware"):
        manager.get_object("camera", shareable.make_and_fail)
    with pytest.raises(ConfigurationError, match=r"no object named 'camera' .*there are: none"):
        manager.get_object("camera")
    assert manager.get_object("camera", Tally).count == 0


def test_an_object_that_needs_itself_to_be_made_is_an_error_not_a_hang(manager):
    with pytest.raises(ConfigurationError, match="making object 'a' asks for object 'a' itself"):
        manager.get_object("a", shareable.Inner, "a", "b")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one server", "two servers"])
def test_two_clients_that_make_objects_which_need_each_other_get_a_deadlock_error(
    manager, start, until, elsewhere, runtime
):
    with contextlib.ExitStack() as stack:
        servers = [manager, stack.enter_context(SharedMemoryManager("other")) if elsewhere else manager]
        places = [(servers[0].name, "x"), (servers[1].name, "y")]
        makers = [start(shareable.make_in_need, place, other) for place, other in (places, places[::-1])]
        for server, (_, name) in zip(servers, places, strict=True):
            event = server.get_event(f"making {name}")
            assert event.wait(30)
        for _, name in places:
            for server in servers:
                server.get_event(f"go on {name}").set()
        outcomes = []
        for maker in makers:
            try:
                maker.join(30)
                outcomes.append(maker.result)
            except DeadlockError as error:
                assert "the making of object" in str(error)
                assert all(maker.name in str(error) for maker in makers)
                outcomes.append("deadlock")
        assert sorted(outcomes) == ["deadlock", "made"]
        for server, (_, name) in zip(servers, places, strict=True):
            assert server.get_object(name).hello() == "hello"


def test_a_client_killed_while_it_makes_an_object_does_not_prevent_others_from_making_it(manager, start):
    maker = start(shareable.make_in_need, (manager.name, "x"), (manager.name, "y"))
    assert manager.get_event("making x").wait(30)
    waiter = start(shareable.make_in_need, (manager.name, "x"), None)
    kill(maker)
    manager.get_event("go on x").set()
    waiter.join(30)
    assert waiter.result == "made"


def test_a_named_object_can_be_forgotten_and_its_name_used_for_another_one(manager):
    manager.get_queue("keep").put(1)
    before = manager.status()["objects"]
    for round_ in range(3):
        made = [
            manager.get_queue("q", maxsize=round_ + 1),
            manager.get_mutex("m"),
            manager.get_event("e"),
            manager.get_dict("d"),
            manager.get_barrier("b", round_ + 1),
            manager.get_object("o", Tally),
        ]
        assert len(manager.status()["objects"]) == len(before) + len(made)
        for one in made:
            manager.forget(one)
            manager.forget(one)
        assert manager.status()["objects"] == before
        assert manager.get_queue("q", maxsize=100).maxsize == 100
        manager.forget(made[0])  # which was another one
        assert manager.get_queue("q").maxsize == 100
        manager.forget(manager.get_queue("q"))
    for use in (made[0].qsize, made[1].acquire, made[2].set, lambda: made[-1].count):
        with pytest.raises(RemoteError, match="it may have been forgotten"):
            use()
    assert manager.get_queue("keep").get(timeout=10) == 1


def test_a_named_object_in_use_cannot_be_forgotten(manager, start, until):
    mutex, event = manager.get_mutex("m"), manager.get_event("e")
    child = start(shareable.wait_for_event, event, 30)
    until(lambda: waiting(manager, "e") == 1)
    with mutex, pytest.raises(ConfigurationError, match="'m' cannot be forgotten, it is in use: .*MainThread"):
        manager.forget(mutex)
    with pytest.raises(ConfigurationError, match="it is in use"):
        manager.forget(event)
    event.set()
    child.join(30)
    manager.forget(mutex)
    for stranger in (Mutex(), 3):
        with pytest.raises(ConfigurationError, match="forgets only its own objects"):
            manager.forget(stranger)


def test_a_registered_class_makes_a_new_object_each_time(manager, start):
    class Manager(SharedMemoryManager):
        pass

    Manager.register("Tally", Tally)
    Manager.register("get_shared", callable=dict, exposed=("__len__",))  # as in the standard library
    assert not hasattr(SharedMemoryManager, "Tally")
    with Manager("registered") as own:
        first, second = own.Tally(5), own.Tally(start=6)
        assert (first.add(), second.add()) == (6, 7)
        assert first != second
        assert start(shareable.add_by_proxy, first, 2).result == first
        assert first.count == 8
        assert len(own.get_shared()) == 0


# --- the standard library's types ------------------------------------------------------------------------------------


def test_every_type_of_the_standard_library_works_here_and_in_a_child(manager, start):
    things = {
        "lock": manager.Lock(),
        "rlock": manager.RLock(),
        "semaphore": manager.Semaphore(2),
        "bounded": manager.BoundedSemaphore(1),
        "condition": manager.Condition(),
        "event": manager.Event(),
        "barrier": manager.Barrier(2),
        "queue": manager.Queue(3),
        "joinable": manager.JoinableQueue(),
        "dict": manager.dict(a=1),
        "list": manager.list([1, 2]),
        "namespace": manager.Namespace(x=1),
        "value": manager.Value("i", 41),
        "array": manager.Array("i", [1, 2, 3]),
    }
    child = start(shareable.use_all, things)
    assert {things["barrier"].wait(30), child.result} == {0, 1}
    assert things["dict"].copy() == {"a": 1, "child": child.pid}
    assert things["list"][:] == [1, 2, "child"]
    assert (things["namespace"].x, things["namespace"].child) == (1, True)
    assert (things["value"].value, list(things["array"])) == (42, [7, 2, 3])
    assert things["queue"].get(timeout=10) == "from the child"
    assert things["joinable"].get(timeout=10) == "work"
    things["joinable"].task_done()
    things["joinable"].join()
    assert things["event"].wait(10)
    with pytest.raises(ValueError, match="released too many"):
        things["bounded"].release()


def test_proxies_of_the_standard_library_can_be_nested_and_come_back_from_children(manager, start):
    outer, through = manager.dict(), manager.Queue()
    outer["list"] = manager.list([1])
    outer["list"].append(2)
    through.put(manager.list([5]))
    assert outer["list"][:] == [1, 2]
    assert through.get()[:] == [5]
    assert start(shareable.append_to_nested, outer).result[:] == [1, 2, 3]
    assert start(shareable.length_of_nested, manager).result == 0


def test_a_pool_of_the_manager_works_and_keeps_nothing_of_a_killed_server(manager, until):
    pool = manager.Pool(2)
    assert pool.map(shareable.square, range(5)) == [0, 1, 4, 9, 16]
    assert pool.apply_async(shareable.square, (7,)).get(30) == 49
    event = manager.get_event("go")
    workers = [
        child for child in psutil.Process(manager.pid).children() if "resource_tracker" not in str(child.cmdline())
    ]
    assert len(workers) == 2
    os.kill(manager.pid, signal.SIGKILL)
    with pytest.raises(ServerUnresponsiveError):
        event.wait(30)
    with SharedMemoryManager() as second:  # the name is free at once
        second.get_event("go").set()
        assert event.wait(30)
    until(lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers))


# --- in the words of the standard library and of catkit ---------------------------------------------------------------


def test_two_handles_of_one_mutex_are_equal_and_hash_alike(manager):
    assert manager.get_mutex("camera") == manager.get_mutex("camera")
    assert len({manager.get_mutex("camera"), manager.get_lock("camera"), manager.get_mutex("wheel")}) == 2
    local = Mutex("local")
    assert Mutex("another name", lock=local) == local
    assert Mutex("local") != local


def test_two_proxies_of_one_dict_are_equal_and_hash_alike(manager):
    one, same, other = manager.get_dict("one"), manager.get_dict("one"), manager.get_dict("other")
    one["x"], other["x"] = 1, 2
    assert one == same
    assert len({one, same, other}) == 2
    assert one == {"x": 1}
    assert one != other


def test_the_mutex_of_a_dict_has_the_timeout_that_was_asked_for(manager):
    assert manager.get_dict("own", timeout=0.5).mutex.timeout == 0.5
    assert manager.get_namespace("own", timeout=0.5).mutex.timeout == 0.5
    assert manager.get_dict("shares", lock=manager.get_mutex("quick", timeout=0.25)).mutex.timeout == 0.25
    assert MutexedDict(lock=Mutex("quick", timeout=0.25)).mutex.timeout == 0.25
    with pytest.raises(ValueError, match="timeout must be 0 to 1000000 s"):
        manager.get_dict("never", timeout=-1)


def test_our_timeout_error_is_also_the_one_of_the_standard_library(manager, start):
    mutex = manager.get_mutex("camera")
    with mutex, pytest.raises(multiprocessing.TimeoutError):
        wait_elsewhere(mutex)
    with pytest.raises(multiprocessing.TimeoutError):
        start(time.sleep, 60).join(0.01)


def wait_elsewhere(mutex):
    failures = []

    def wait():
        try:
            mutex.acquire(timeout=0)
        except MutexTimeoutError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    raise failures[0]


class Oven(MutexedNamespace):
    @property
    def kelvin(self):
        return self.celsius + 273.15

    @kelvin.setter
    def kelvin(self, value):
        self.celsius = value - 273.15


def test_a_property_of_a_namespace_can_be_set(manager):
    oven = Oven()
    oven.kelvin = 300.15
    assert oven.celsius == pytest.approx(27)
    shared = manager.get_object("oven", Oven)
    shared.kelvin = 300.15
    assert shared.celsius == pytest.approx(27)
    with pytest.raises(AttributeError, match="is a name of the namespace itself"):
        oven.mutex = 3


class Desk:
    """An object on a server that returns other objects of that server."""

    def camera(self):
        manager = SharedMemoryManager()
        manager.connect()
        return manager.get_mutex("camera", timeout=7)


def test_a_mutex_that_a_server_asks_itself_for_can_be_sent_to_clients(manager):
    sent = manager.get_object("desk", Desk).camera()
    assert sent == manager.get_mutex("camera")
    assert sent.timeout == 7
    with sent:
        assert manager.get_mutex("camera").holder is not None


def test_a_key_other_than_the_one_of_the_server_is_refused(manager):
    with pytest.raises(multiprocessing.AuthenticationError, match=f"not that of server '{manager.name}'"):
        SharedMemoryManager(manager.name, authkey=b"wrong").connect()
    right = SharedMemoryManager(manager.name, authkey=manager.server.authkey)
    right.connect()
    assert right.pid == manager.pid


def test_a_manager_that_was_shut_down_is_joined_without_an_error(runtime):
    manager = SharedMemoryManager()
    manager.start()
    manager.shutdown()
    manager.join()
    killed = SharedMemoryManager()
    killed.start()
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        killed.join(30)
    with SharedMemoryManager():  # takes away what the killed one has left
        pass


def test_the_arguments_of_a_process_are_not_kept_by_its_parent(manager, start):
    class Big:
        pass

    argument = Big()
    kept = weakref.ref(argument)
    process = start(type, argument)
    process.join()
    del argument
    gc.collect()
    assert kept() is None
