"""What a forked child keeps of its parent: nothing that others would notice, and no lock that nobody can give back."""

import importlib
import os
import pickle
import signal
import socket
import sys
import threading
import time

import pytest
from lamp import Lamp

from catkit_devices.errors import DeviceClosedError, ServerError
from catkit_devices.multiprocessing import Mutex, MutexedDict, Process, SharedMemoryManager
from catkit_devices.properties import Measurement
from catkit_devices.visa import VisaDevice

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def fork(action):
    """Run something in a forked child; return its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = action() or 0
        finally:
            os._exit(code)
    return pid


def exit_code(pid, timeout=20.0):
    """Return the exit code of a child; kill it, and return None, when it takes too long."""
    deadline = time.monotonic() + timeout
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


@pytest.fixture
def living(tmp_path):
    """A file; the forked process runs as long as the file exists."""
    file = tmp_path / "living"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def live(file):
    while file.exists():
        time.sleep(0.02)


def connect_while_forking(living):
    """Connect and acquire in one thread, and fork in another all the while."""
    manager = SharedMemoryManager("bench")
    held = threading.Event()

    def connect():
        manager.connect()
        manager.get_mutex("m").acquire()
        held.set()

    threading.Thread(target=connect).start()
    while not held.is_set():
        fork(lambda: live(living))
        time.sleep(0)
    time.sleep(60)


def test_a_child_that_was_forked_while_another_thread_connected_keeps_no_session_alive(manager, living):
    mutex = manager.get_mutex("m")
    for _ in range(3):
        process = Process(target=connect_while_forking, args=(living,))
        process.start()
        deadline = time.monotonic() + 20
        while mutex.holder is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        assert mutex.acquire(10, raise_on_fail=False), "the dead client's mutex is still held"
        mutex.release()
        with pytest.raises(Exception, match="SIGKILL"):
            process.join(20)


def test_a_child_that_was_forked_while_another_thread_imported_can_import_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for number in range(3):
        name = f"slow_{number}"
        (tmp_path / f"{name}.py").write_text(
            "import logging, time\ntime.sleep(0.2)\nlog = logging.getLogger(__name__)\nvalue = 5\n"
        )
        thread = threading.Thread(target=importlib.import_module, args=(name,))
        thread.start()
        while name not in sys.modules:
            time.sleep(0)
        pid = fork(lambda name=name: 0 if importlib.import_module(name).value == 5 else 2)
        assert exit_code(pid) == 0, "the child waits for a thread that only its parent has"
        thread.join()


def test_only_the_first_fork_waits_for_an_import_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("catkit_devices.multiprocessing.wire.forking._IMPORTS", 0.2)
    (tmp_path / "waits_for_a_fork.py").write_text("import sys\nsys.go_on.wait(20)\n")
    sys.go_on = threading.Event()
    thread = threading.Thread(target=importlib.import_module, args=("waits_for_a_fork",))
    thread.start()
    while "waits_for_a_fork" not in sys.modules:
        time.sleep(0)
    try:
        assert exit_code(fork(lambda: 0)) == 0
        started = time.monotonic()
        assert exit_code(fork(lambda: 0)) == 0
        assert time.monotonic() - started < 0.2
    finally:
        sys.go_on.set()
        thread.join()
        del sys.go_on


def test_a_local_mutex_of_a_thread_of_the_parent_is_free_in_a_forked_child():
    mutex, shared = Mutex("local", timeout=10), MutexedDict()
    with mutex, shared:
        for use in (mutex, shared):

            def enter(use=use):
                with use:
                    return 0

            assert exit_code(fork(enter)) == 0
        assert mutex.locked()


class Forking:
    """Lives on a server and forks, as a pool of workers does."""

    def fork(self, living):
        return fork(lambda: live(living))

    def set_in_a_child(self, data):
        return exit_code(fork(lambda: pickle.loads(data).update(set_by="the child")))


def test_a_child_of_a_server_keeps_neither_its_clients_nor_its_name(runtime, living):
    manager = SharedMemoryManager("bench")
    manager.start()
    forking = manager.get_object("forking", Forking)
    worker = forking.fork(living)
    pid = manager.pid
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(ServerError):
        forking.fork(living)
    assert time.monotonic() - started < 4.0, "noticed by its silence only"
    with SharedMemoryManager("bench") as again:
        assert again.pid != pid
    os.kill(worker, 0)  # it lived all the while


def test_a_child_of_a_server_uses_the_server_and_not_its_copy_of_it(manager):
    forking = manager.get_object("forking", Forking)
    shared = manager.get_dict("shared")
    assert forking.set_in_a_child(pickle.dumps(shared)) == 0
    assert shared["set_by"] == "the child"


def sleeps():
    time.sleep(60)


def test_the_end_of_a_process_is_noticed_whatever_was_forked_while_it_was_started(living):
    stop = threading.Event()
    children = []

    def fork_all_the_while():
        while not stop.is_set():
            children.append(fork(lambda: live(living)))
            time.sleep(0.002)

    thread = threading.Thread(target=fork_all_the_while)
    thread.start()
    try:
        processes = [Process(target=sleeps) for _ in range(3)]
        for process in processes:
            process.start()
    finally:
        stop.set()
        thread.join()
    for process in processes:
        process.kill()
        started = time.monotonic()
        with pytest.raises(Exception, match="SIGKILL"):
            process.join(20)
        assert time.monotonic() - started < 4.0
    living.unlink()
    for child in children:
        assert exit_code(child) == 0


# --- devices of this very process


def journal_of(path):
    return path.read_text().split("\n")[:-1]


def refused(*uses):
    """Try every use of a device in a forked child; return whether each was refused because of the fork."""

    def try_each():
        for use in uses:
            with pytest.raises(DeviceClosedError, match="the process that forked this one"):
                use()

    return exit_code(fork(try_each)) == 0


def test_a_forked_child_can_do_nothing_with_a_device_that_its_parent_has_open(tmp_path):
    journal = tmp_path / "journal"
    with Lamp("lamp", journal=journal) as lamp:
        assert refused(
            lamp.switch_on,
            lamp.open,
            lamp.__enter__,
            lamp.acquire,
            lamp.make_safe,
            lamp.reset,
            lambda: lamp.close(force=True),
            lambda: lamp.is_open,
            lambda: lamp.state,
        )

        def leave():
            lamp.close()
            lamp.__exit__(None, None, None)
            return "of the process that forked this one" not in repr(lamp)

        assert exit_code(fork(leave)) == 0
        assert journal_of(journal) == ["opening", "on"]
        lamp.switch_on()
    assert journal_of(journal) == ["opening", "on", "on", "making safe", "off", "closed"]


def test_a_child_forked_during_an_operation_or_an_opening_can_do_nothing_with_the_device(tmp_path):
    codes = []

    class Forks(Lamp):
        def _open(self):
            codes.append(refused(self.switch_on, self.make_safe))
            return super()._open()

        def fork_now(self):
            codes.append(refused(self.switch_on, self.make_safe))

    with Forks("lamp", journal=tmp_path / "journal") as lamp, lamp.lock():
        lamp.fork_now()
    assert codes == [True, True]


def test_a_forked_child_can_open_and_use_a_device_that_was_closed_at_the_fork(tmp_path):
    journal = tmp_path / "journal"
    lamp = Lamp("lamp", journal=journal)
    with lamp:
        pass

    def use():
        with lamp:
            lamp.switch_on()

    assert exit_code(fork(use)) == 0
    opened, closed = ["opening", "on"], ["making safe", "off", "closed"]
    assert journal_of(journal) == [*opened, *closed, *opened, "on", *closed]
    assert not lamp.is_open


class Meter(VisaDevice):
    identity = "meter"
    voltage = Measurement("V?", unit="V", doc="Voltage.")
    current = Measurement("I?", unit="A", doc="Current.")


@pytest.fixture
def instrument():
    """The address of a meter of 1 V and 2 A on a real socket, for one connection at a time; answers take their time."""
    listening = socket.create_server(("127.0.0.1", 0))
    answers = {b"*IDN?\n": b"meter\n", b"V?\n": b"1\n", b"I?\n": b"2\n"}

    def serve(connection):
        with connection, connection.makefile("rb") as questions:
            for question in questions:
                time.sleep(0.0005)
                connection.sendall(answers[question])

    def accept():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            serve(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"TCPIP0::127.0.0.1::{listening.getsockname()[1]}::SOCKET"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(20)


def test_no_reply_to_a_process_goes_to_its_forked_child(instrument):
    with Meter("meter", address=instrument, visa_library="@py", late_window=0.02) as meter:
        for _ in range(20):  # at random moments of an exchange of another thread
            right = []
            asking = threading.Thread(target=lambda right=right: right.append({meter.voltage for _ in range(20)}))
            asking.start()
            children = [fork(lambda: 0 if refused_here(meter) else 1) for _ in range(2)]
            asking.join()
            assert right == [{1.0}]
            assert [exit_code(child) for child in children] == [0, 0]


def refused_here(meter):
    for _ in range(20):
        with pytest.raises(DeviceClosedError):
            meter.current  # noqa: B018 - the read is what is tried
    return True


def open_and_fork(address, living, ready):
    meter = Meter("meter", address=address, visa_library="@py")
    meter.open()
    fork(lambda: live(living))
    ready.set()
    time.sleep(60)


def test_an_instrument_is_free_when_its_process_is_killed_though_a_forked_child_lives(manager, instrument, living):
    ready = manager.get_event("ready")
    process = Process(target=open_and_fork, args=(instrument, living, ready))
    process.start()
    assert ready.wait(20)
    process.kill()
    with pytest.raises(Exception, match="SIGKILL"):
        process.join(20)
    with Meter("meter", address=instrument, visa_library="@py", late_window=0.02) as meter:
        assert meter.voltage == 1.0
