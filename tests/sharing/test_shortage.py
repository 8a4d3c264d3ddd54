"""If either side closes a connection, the caller gets an error at once; a server that is short of resources refuses,
and recovers."""

import os
import resource
import socket
import sys
import threading
import time

import numpy as np
import pytest

from catkit_devices.errors import CatkitDevicesError, RemoteError, ServerResourceError, TransferError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.wire.channel import Channel

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process: Linux")

MB = 1 << 20


class Thing:
    """What is asked in these tests; an ordinary class, shared by name."""

    def size(self, value):
        return getattr(value, "nbytes", None) or len(value)

    def echo(self, value):
        return value

    def zeros(self, count):
        return np.zeros(count)

    def grow(self, count):
        return len(bytes(count))

    def fill(self, but=0):
        """Take every descriptor that this process can still have, but so many."""
        self._taken = []
        try:
            while True:
                self._taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(but):
                os.close(self._taken.pop())

    def empty(self):
        while self._taken:
            os.close(self._taken.pop())

    def made_here(self, module, name):
        return getattr(__import__(module), name)()

    def raised_here(self, module, name):
        raise getattr(__import__(module), name)("on the server")


@pytest.fixture
def thing(manager):
    thing = manager.get_object("thing", Thing)
    thing.size(np.zeros(20_000))  # so that what is imported when it is first used is there
    return thing


class Limit:
    """A limit of another process, low for the length of a block."""

    def __init__(self, pid, kind, soft):
        self.pid, self.kind, self.soft = pid, kind, soft

    def __enter__(self):
        self.before = resource.prlimit(self.pid, self.kind)
        resource.prlimit(self.pid, self.kind, (self.soft, self.before[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, self.kind, self.before)


def address_space(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def no_more_memory(pid, but):
    return Limit(pid, resource.RLIMIT_AS, address_space(pid) + but)


def no_more_descriptors(pid):
    return Limit(pid, resource.RLIMIT_NOFILE, max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1)


def in_a_thread(action):
    """Run something on a line of its own; return what came of it, within seconds."""
    came = []

    def run():
        try:
            came.append(action())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert came, "it hangs"
    return came[0]


# --- what does not load ---------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A module that, like many a script, reads its command line when it is imported, in every process but this one."""

    def write(name, ends_in_this_process):
        sign = "==" if ends_in_this_process else "!="
        (tmp_path / f"{name}.py").write_text(
            "import os, sys\nclass Setting: pass\nclass Failure(Exception): pass\n"
            f"if os.getpid() {sign} {os.getpid()}: sys.exit('usage: script CONFIG')\n"
        )

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in ("script_there", "script_here"):
        sys.modules.pop(name, None)


@pytest.fixture
def scripted(script, manager_after):
    return manager_after.get_object("thing", Thing)


@pytest.fixture
def manager_after(script, runtime):
    with SharedMemoryManager("bench") as started:
        yield started


def test_an_argument_whose_module_calls_exit_is_an_error_and_the_connection_stays_usable(script, scripted):
    script("script_there", ends_in_this_process=False)
    import script_there

    for _ in range(2):
        error = in_a_thread(lambda: scripted.echo(script_there.Setting()))
        assert isinstance(error, ImportError)
        assert "usage: script CONFIG" in str(error)
        assert any("could not be loaded in the process of the server" in note for note in error.__notes__)
    assert scripted.echo(1) == 1


def test_an_answer_or_an_error_whose_module_calls_exit_does_not_end_the_client(script, scripted):
    script("script_here", ends_in_this_process=True)
    with pytest.raises(TransferError, match=r"thing.made_here returned .* script_here.Setting.* usage: script CONFIG"):
        scripted.made_here("script_here", "Setting")
    with pytest.raises(RemoteError, match=r"script_here\.Failure: on the server"):
        scripted.raised_here("script_here", "Failure")
    assert scripted.echo(1) == 1


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [bytes(100 * MB), np.zeros(100 * MB, dtype="u1"), [bytes(50 * MB), np.zeros(50 * MB, dtype="u1")]]
)
def test_a_message_for_which_the_server_has_no_memory_is_refused_and_the_connection_stays_usable(manager, thing, value):
    kept = np.arange(20_000.0)
    with no_more_memory(manager.pid, but=40 * MB):
        for _ in range(2):
            error = in_a_thread(lambda: thing.size(value))
            assert isinstance(error, ServerResourceError)
            assert "'size'" in str(error)
            assert "out of memory" in str(error)
            assert error.pid == manager.pid
            with pytest.raises(ServerResourceError, match="nothing was done"):
                thing.size(value)
        np.testing.assert_array_equal(thing.echo(kept), kept)
    assert thing.size(value) == len(value) if isinstance(value, list) else 100 * MB
    np.testing.assert_array_equal(thing.echo(kept), kept)


def test_an_operation_for_which_the_server_has_no_memory_says_that_it_is_the_server(manager, thing):
    with no_more_memory(manager.pid, but=40 * MB):
        with pytest.raises(MemoryError) as caught:
            thing.grow(100 * MB)
        assert any(f"pid {manager.pid}" in note for note in caught.value.__notes__)
        with pytest.raises(MemoryError):
            thing.zeros(30 * MB)
    assert thing.zeros(MB).nbytes == 8 * MB


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_a_server_without_free_descriptors_refuses_arrays_and_new_clients_and_serves_the_rest(manager, thing):
    mutex = manager.get_mutex("m")
    many = [np.full(20_000, value) for value in range(20)]
    done, came, deadline = threading.Event(), [], time.monotonic() + 20
    with mutex, no_more_descriptors(manager.pid):
        thing.fill(but=1)  # for the connection of the next one, which comes without pipes
        last = threading.Thread(target=lambda: (came.append(thing.echo(1)), done.wait(60)), daemon=True)
        last.start()
        while not came:
            assert time.monotonic() < deadline
        for _ in range(2):
            with pytest.raises(ServerResourceError, match=r"'echo'.*out of descriptors"):
                thing.echo(many)
            error = in_a_thread(lambda: thing.echo(2))
            assert isinstance(error, ServerResourceError)
            assert "out of descriptors" in str(error)
            assert thing.echo(1) == 1
            assert manager.get_mutex("m").holder.pid == os.getpid()
        thing.empty()
        assert in_a_thread(lambda: thing.echo(2)) == 2
    done.set()
    assert mutex.holder is None
    for _ in range(3):
        np.testing.assert_array_equal(thing.echo(many), many)


def test_a_client_without_free_descriptors_gets_an_error_that_says_so_and_recovers(thing):
    opened = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 5, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        came = [in_a_thread(lambda: thing.echo(2))]
        for free in range(3):  # enough for the connection, and not for all that makes the line
            os.close(opened.pop())
            came.append(in_a_thread(lambda free=free: thing.echo(free)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)
    assert all(isinstance(one, int) or "Too many open files" in str(one) for one in came), came
    assert isinstance(came[0], OSError)
    assert in_a_thread(lambda: thing.echo(2)) == 2


def test_a_message_may_have_more_arrays_than_descriptors_can_be_sent_at_once(thing):
    """Linux passes at most 253 of them at once."""
    arrays = [np.full(8_200, value) for value in range(300)]
    assert [array[0] for array in thing.echo(arrays)] == list(range(300))


# --- threads --------------------------------------------------------------------------------------------------------


def hold_until_told(name):
    manager = SharedMemoryManager("bench")
    manager.connect()
    manager.get_mutex(name).acquire()
    manager.get_event("holding").set()
    manager.get_event("never").wait()


def test_a_server_that_can_start_no_thread_refuses_new_clients_notices_deaths_and_recovers(manager, thing):
    """What cannot be had here is the memory of a thread's stack, so it is the system that refuses the thread."""
    holder = Process(target=hold_until_told, args=("m",))
    holder.start()
    assert manager.get_event("holding").wait(30)
    done = threading.Event()
    refused = []

    def use_a_line_of_its_own():
        try:
            thing.echo(1)
            done.wait(60)
        except BaseException as error:
            refused.append(error)

    threads = []
    with no_more_memory(manager.pid, but=2 * MB):
        # The stacks of threads that have ended are used again first: so many lines are opened that those are used up.
        while not refused and len(threads) < 100:
            threads.append(threading.Thread(target=use_a_line_of_its_own, daemon=True))
            threads[-1].start()
            threads[-1].join(0.05)
        for _ in range(3):
            assert isinstance(in_a_thread(lambda: thing.echo(2)), ServerResourceError)
        assert isinstance(refused[0], ServerResourceError)
        assert "out of threads" in str(refused[0])
        assert thing.echo(3) == 3
        holder.kill()
        with pytest.raises(CatkitDevicesError, match="SIGKILL"):
            holder.join()
        deadline = time.monotonic() + 10
        while manager.get_mutex("m").holder is not None:
            assert time.monotonic() < deadline, "the mutex of a dead process stays held"
    assert in_a_thread(lambda: thing.echo(2)) == 2
    assert in_a_thread(lambda: manager.get_mutex("m").acquire(5, raise_on_fail=False)) is True
    done.set()
    for thread in threads:
        thread.join(10)


# --- the line itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def ends():
    """The two ends of a line: the server's and the client's."""
    made = []

    def make():
        here, there = (Channel(end) for end in socket.socketpair())
        here.offer_pipes()
        there.accept_pipes()
        made.extend((here, there))
        return here, there

    yield make
    for end in made:
        end.close()


def test_a_closed_connection_is_noticed_even_if_copies_of_its_descriptor_are_open(ends):
    """A process that the server has forked, or a program that a driver has started, has copies of all it has open."""
    server, client = ends()
    copies = [os.dup(descriptor) for descriptor in server._pipes] + [os.dup(server.socket.fileno())]
    try:
        client.send(client.pack(("a question",)))
        assert server.unpack(server.receive()) == ("a question",)
        server.close()
        with pytest.raises(EOFError):
            client.receive()
    finally:
        for copy in copies:
            os.close(copy)


def test_an_answer_that_was_sent_only_in_part_ends_the_connection(ends):
    for whole in (b"x" * 100, b"x" * 1_000_000):
        server, client = ends()
        data = server.pack((whole,))
        if len(data) < 1000:
            os.write(server._out, (len(data)).to_bytes(8, "little") + data[:50])
        else:
            server._write((len(data) | 1 << 63).to_bytes(8, "little"))
            server.socket.sendall(data[:50_000])
        server.close()
        with pytest.raises(EOFError):
            client.receive()


def test_an_answer_that_was_sent_before_the_connection_was_closed_arrives(ends):
    for value in ("short", "long" * 50_000):
        server, client = ends()
        thread = threading.Thread(target=lambda server=server, value=value: server.send(server.pack((value,))))
        thread.start()
        message = client.receive()
        thread.join()
        server.close()
        assert client.unpack(message) == (value,)
    server, client = ends()
    server.send(server.pack(("short",)))
    server.close()
    assert client.unpack(client.receive()) == ("short",)


def test_a_connection_for_which_no_pipes_can_be_made_uses_its_socket(ends, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here, there = (Channel(end) for end in socket.socketpair())
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    filling = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        here.offer_pipes()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)
    there.accept_pipes()
    there.send(there.pack((1, np.zeros(100))))
    assert here.unpack(here.receive())[0] == 1
    there.wake()
    with pytest.raises(EOFError):
        there.receive()
    here.close()
    there.close()


def test_waking_a_connection_that_is_being_closed_writes_to_no_other_descriptor(ends):
    """The number of a descriptor that was closed is given to the next one that is opened."""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        server, client = ends()
        thread = threading.Thread(target=client.wake)
        thread.start()
        client.close()
        others = [*socket.socketpair(), *socket.socketpair()]
        thread.join()
        for other in others[::2]:
            other.sendall(b"?")
        for other in others[1::2]:
            assert other.recv(100) == b"?"
        for other in others:
            other.close()
        server.close()
