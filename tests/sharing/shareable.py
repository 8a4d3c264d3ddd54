"""Classes to share and functions for children; imported by children, so it imports little."""

import os
import signal
import time
from pathlib import Path

from catkit_devices.errors import TransferError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.hosted import HostedObject


def connected():
    manager = SharedMemoryManager()
    manager.connect()
    return manager


class Tally:
    """An ordinary class that knows nothing of processes."""

    colour = "grey"

    def __init__(self, start=0, *, log=None):
        if log is not None:
            with open(log, "a") as file:
                file.write(f"made in {os.getpid()}\n")
        self.count = start
        self.inside = 0
        self.overlaps = 0
        self.entered = []
        self._items = {}

    def add(self, number=1):
        self.inside += 1
        self.overlaps += self.inside != 1
        before = self.count
        time.sleep(0)  # lets another thread in, if the mutex did
        self.count = before + number
        self.inside -= 1
        return self.count

    def chain(self):
        return self

    def fail(self):
        raise ValueError(f"at {self.count}")

    def numbers(self):
        yield from range(self.count)

    async def later(self):
        return 1

    def add_to(self, other):
        """Use another object of the same server."""
        other.add(self.add())
        return other

    def kind_of(self, other):
        """Return the class that another object of this server has here."""
        return type(other).__name__

    def holder(self):
        return self._seen_by.holder is not None

    @property
    def double(self):
        return 2 * self.count

    @double.setter
    def double(self, value):
        self.count = value // 2

    @property
    def broken(self):
        self.count += 1
        raise AttributeError(f"no colour {self.count}")

    @property
    def fixed(self):
        return "fixed"

    @staticmethod
    def unit():
        return "counts"

    def __len__(self):
        return self.count

    def __bool__(self):
        return True

    def __getitem__(self, key):
        return self._items[key]

    def __setitem__(self, key, value):
        self._items[key] = value

    def __delitem__(self, key):
        del self._items[key]

    def __contains__(self, key):
        return key in self._items

    def __iter__(self):
        return iter(self._items)

    def __call__(self, number):
        return self.count * number

    def __enter__(self):
        self.entered.append("in")
        return self

    def __exit__(self, kind, error, traceback):
        self.entered.append((kind and kind.__name__, error and error.args, traceback is not None))
        return kind is KeyError


class Gate:
    """Has a method that proxies need for themselves."""

    def release(self):
        return "released"


class Inner:
    """Makes another object of the server while it is made itself."""

    def __init__(self, name, other):
        self.other = connected().get_object(other, Inner, other, name) if other else None


def make_and_fail():
    raise OSError("no hardware")


def load_square(key):
    return key * key


def count_in_dict(name, times):
    shared = connected().get_dict(name)
    for _ in range(times):
        with shared:
            shared["n"] = shared["n"] + 1


def count_in_namespace(name, times):
    shared = connected().get_namespace(name)
    for _ in range(times):
        with shared:
            shared.n = shared.n + 1


def add_to_tally(name, times, log):
    tally = connected().get_object(name, Tally, log=log)
    for _ in range(times):
        tally.add()


def add_by_proxy(tally, times):
    for _ in range(times):
        tally.add()
    return tally


def set_event(name):
    connected().get_event(name).set()


def wait_for_event(event, timeout):
    return event.wait(timeout)


def pass_barrier(name, rounds):
    barrier = connected().get_barrier(name)
    return [barrier.wait() for _ in range(rounds)]


def take_part(name):
    manager = connected()
    manager.get_barrier(name)
    manager.get_event("taken part").set()
    time.sleep(600)


def wait_at(barrier):
    barrier.wait()


def wait_notified(name, said):
    manager = connected()
    condition = manager.get_condition(name)
    with condition:
        manager.get_queue("waiting").put(os.getpid())
        notified = condition.wait(30)
    manager.get_queue("notified").put((said, notified))


def wait_until_five(name):
    manager = connected()
    condition, numbers = manager.get_condition(name), manager.get_dict("numbers")
    with condition:
        manager.get_event("waiting").set()
        return condition.wait_for(lambda: numbers["n"] >= 5 and numbers["n"], 30)


def get_one(name):
    return connected().get_queue(name).get()


def put_one(name, item):
    connected().get_queue(name).put(item)


def get_interrupted(name):
    manager = connected()
    queue = manager.get_queue(name)
    try:
        queue.get()
    except KeyboardInterrupt:
        manager.get_event("interrupted").set()
    return queue.get(timeout=30)


class LoadsNotIn:
    """An item that does not load in one process."""

    def __init__(self, pid, value):
        self.pid = pid
        self.value = value

    def __reduce__(self):
        return load_not_in, (self.pid, self.value)


def load_not_in(pid, value):
    if os.getpid() == pid:
        raise OSError("not in this process")
    return LoadsNotIn(pid, value)


def get_what_does_not_load(name):
    queue = connected().get_queue(name)
    queue.put(LoadsNotIn(os.getpid(), 42))
    try:
        queue.get()
    except TransferError as error:
        return error.name, error.operation, str(error.__cause__)
    return None


def consume(name, log):
    """Take items and write down each one before the next is taken."""
    queue = connected().get_queue(name)
    with Path(log).open("a", buffering=1) as file:
        while True:
            file.write(f"{queue.get()}\n")


def die_holding(name):
    manager = connected()
    manager.get_dict(name).lock().__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def use_all(things):
    """Use each of the standard library's types from a child."""
    with things["lock"], things["rlock"], things["rlock"]:
        pass
    with things["semaphore"], things["bounded"]:
        pass
    things["dict"]["child"] = os.getpid()
    things["list"].append("child")
    things["namespace"].child = True
    things["value"].value += 1
    things["array"][0] = 7
    things["queue"].put("from the child")
    things["joinable"].put("work")
    things["event"].set()
    with things["condition"]:
        things["condition"].notify_all()
    return things["barrier"].wait(30)


def square(number):
    return number * number


def append_to_nested(outer):
    outer["list"].append(3)
    return outer["list"]


def length_of_nested(manager):
    outer = manager.dict()
    outer["list"] = manager.list()
    return len(outer["list"])


class InNeed:
    """Needs another object to be made, which may need this one; says when it has begun, and goes on when told."""

    def __init__(self, place, other):
        self._other = None
        if other is None:
            return
        server, name = place
        manager = SharedMemoryManager(server)
        manager.connect()
        manager.get_event(f"making {name}").set()
        manager.get_event(f"go on {name}").wait(30)
        elsewhere = SharedMemoryManager(other[0])
        elsewhere.connect()
        self._other = elsewhere.get_object(other[1], InNeed, other, None)

    def hello(self):
        return "hello"


def make_in_need(place, other):
    manager = SharedMemoryManager(place[0])
    manager.connect()
    manager.get_object(place[1], InNeed, place, other)
    return "made"


class GuestBook(HostedObject):
    """A class that is told by its server what becomes of its clients and of itself."""

    def __init__(self, path):
        self._path = path

    def sign(self):
        """Write down the process that asks."""
        self._write(f"came {os.getpid()}")
        return os.getpid()

    def _write(self, line):
        with open(self._path, "a") as file:
            file.write(f"{line}\n")

    def _session_ended_(self, session, goodbye):
        self._write(f"{session.pid} {'left' if goodbye else 'died'}")

    def _server_stops_(self):
        self._write("closed")

    def _status_(self):
        return {"signed": Path(self._path).read_text()}


class Failing(HostedObject):
    """A class that fails when it is told of the end of a client."""

    def _session_ended_(self, session, goodbye):
        raise ValueError("no such session")


def hold_and_sign(manager, path):
    with manager.get_mutex("held"):
        manager.get_object("book", GuestBook, path).sign()
        time.sleep(60)


def sign_and_stay(manager, path):
    manager.get_object("book", GuestBook, path).sign()
    time.sleep(60)
