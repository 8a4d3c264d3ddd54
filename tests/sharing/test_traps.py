"""Traps of multiprocessing's managers, each of which has cost somebody a lock or an answer."""

import gc
import os
import threading

import pytest
from instruments import Instrument

from catkit_devices.multiprocessing import SharedMemoryManager

pytestmark = pytest.mark.usefixtures("ready_children")


def test_deleting_a_proxy_takes_nothing_from_another_of_the_same_thread(manager, instrument):
    """The standard library's proxies count references, and close the connection that both use."""
    sibling = manager.get_object("instrument")
    with instrument.lock():
        sibling.value = 3
        del sibling
        gc.collect()
        assert instrument.value == 3
        assert instrument.mutex.holder is not None
        someone_else = []
        thread = threading.Thread(target=lambda: someone_else.append(instrument.mutex.acquire(0, raise_on_fail=False)))
        thread.start()
        thread.join()
        assert someone_else == [False]


class Raising(Instrument):
    def fail(self, error):
        raise error


@pytest.mark.parametrize(
    "error",
    [EOFError("the file ended"), ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe"), OSError(5, "io")],
)
def test_a_connection_error_raised_by_a_device_is_not_taken_for_a_lost_server(manager, error):
    device = manager.get_object("device", Raising, "device", open_on_use=True)
    with device.lock():
        device.value = 1
        for _ in range(3):
            with pytest.raises(type(error)) as caught:
                device.fail(error)
            assert caught.value.args == error.args
        assert device.value == 1
        assert device.mutex.holder.depth >= 1
    assert device.record["safe"] == 0


def test_a_runtime_directory_may_have_a_path_of_any_length(tmp_path, monkeypatch):
    """The path of a Unix socket must be shorter than 108 bytes (unix(7))."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(deep))
    with SharedMemoryManager("deep") as manager:
        other = SharedMemoryManager("deep")
        other.connect()
        assert other.get_mutex("m").acquire(5.0)
        assert other.pid == manager.pid


def forked(action):
    """Run something in a forked child; return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = action() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_has_nor_ends_what_its_parent_holds(manager, instrument):
    mutex = manager.get_mutex("m")

    def use():
        proxy = manager.get_object("instrument")
        if mutex.acquire(0, raise_on_fail=False):
            return 10  # the parent holds it
        proxy.value = proxy.value + 1
        return 0

    with mutex:
        for _ in range(5):
            assert forked(use) == 0
            assert forked(lambda: 0) == 0
            assert mutex.holder is not None
            instrument.value = instrument.value + 1
    assert instrument.value == 10
