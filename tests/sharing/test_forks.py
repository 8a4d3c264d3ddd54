"""What a forked child keeps of its parent: nothing that others would notice, and no lock that nobody can give back."""

import importlib
import os
import pickle
import signal
import sys
import threading
import time

import pytest

from catkit_devices.errors import ServerError
from catkit_devices.multiprocessing import Mutex, MutexedDict, Process, SharedMemoryManager

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
    """A file; what is forked lives while it is there."""
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


def test_a_fork_waits_in_vain_for_an_import_only_once(tmp_path, monkeypatch):
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
