"""Large arrays go through shared memory, whole, and leave nothing."""

import os
import signal
import time

import numpy as np
import psutil
import pytest
from instruments import Instrument

from catkit_devices.multiprocessing import Process, SharedMemoryManager

pytestmark = pytest.mark.usefixtures("ready_children")


class Store(Instrument):
    def __init__(self, name, **kwargs):
        super().__init__(name, **kwargs)
        self._kept = []

    def keep(self, array):
        self._kept.append(array)

    def kept(self):
        return list(self._kept)

    def forget(self):
        self._kept.clear()

    def frame(self, rows, columns, value):
        return np.full((rows, columns), value, dtype=np.float64)

    def memory(self):
        return sum(os.fstat(int(name)).st_size for name in descriptors("self"))


def descriptors(pid):
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:catkit_devices" in os.readlink(f"/proc/{pid}/fd/{name}"):
                found.append(name)
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def store(manager):
    return manager.get_object("store", Store, "store", open_on_use=True)


@pytest.mark.parametrize("shape", [(34, 34), (91, 91), (712, 712), (0, 5), (1, 1)])
@pytest.mark.parametrize("dtype", ["<u2", "<f8", ">f4"])
def test_arrays_of_every_size_arrive_as_they_were_sent(store, shape, dtype):
    array = np.random.default_rng(1).integers(0, 1000, shape).astype(dtype)
    back = store.echo(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_many_arrays_in_one_message_and_fortran_order(store):
    arrays = {str(number): np.asfortranarray(np.arange(20_000.0 + number).reshape(-1, 1)) for number in range(20)}
    back = store.echo(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(back[key], array)


def test_an_array_that_is_kept_is_never_overwritten_by_later_ones(store):
    frames = [store.frame(300, 300, value) for value in range(30)]
    assert [float(frame.min()) for frame in frames] == [float(frame.max()) for frame in frames] == list(range(30))
    for value in range(30):
        store.keep(np.full((200, 200), value))
    assert [int(array.min()) for array in store.kept()] == list(range(30))


def test_received_arrays_are_writable_copies(store):
    sent = np.zeros((300, 300))
    back = store.echo(sent)
    back += 1
    assert sent.max() == 0


def test_segments_are_used_again_and_do_not_grow_in_number(store):
    for value in range(200):
        assert store.frame(712, 712, value)[3, 4] == value
    assert len(descriptors(store._remote_.connection().session.pid)) <= 3


def test_a_full_shared_memory_does_not_crash_the_process(store, monkeypatch):
    import catkit_devices.multiprocessing.wire.segments as segments

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments.os, "posix_fallocate", full)
    array = np.arange(100_000.0)
    np.testing.assert_array_equal(store.echo(array), array)


def send_for_ever():
    manager = SharedMemoryManager("bench")
    manager.connect()
    store = manager.get_object("store")
    array = np.ones((712, 712))
    manager.get_queue("at").put("sending")
    while True:
        store.echo(array)


def test_nothing_is_left_of_a_sender_killed_in_the_middle(manager, store):
    for _ in range(5):
        process = Process(target=send_for_ever)
        process.start()
        manager.get_queue("at").get(timeout=30)
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="SIGKILL"):
            process.join()
        assert store.echo(1) == 1
    deadline = time.monotonic() + 5
    while descriptors(manager.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(descriptors(manager.pid)) <= 1
    assert psutil.Process(manager.pid).num_fds() < 40
