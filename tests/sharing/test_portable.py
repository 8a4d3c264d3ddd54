"""What other systems do without, taken away: no Unix sockets, pipes, anonymous memory or futex."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from instruments import Instrument

from catkit_devices.errors import ServerError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.types.stream import stream_over


@pytest.fixture(scope="module")
def _running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("portable")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CATKIT_DEVICES_PORTABLE", "1")
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
        with SharedMemoryManager("bench") as manager:
            yield manager, directory / "rt"


@pytest.fixture
def manager(_running, runtime, monkeypatch):
    monkeypatch.setenv("CATKIT_DEVICES_PORTABLE", "1")
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(_running[1]))
    return _running[0]


@pytest.fixture
def instrument(manager):
    return manager.get_object("instrument", Instrument, "instrument", open_on_use=True)


def named():
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


def connect():
    manager = SharedMemoryManager("bench")
    manager.connect()
    return manager


def hold():
    manager = connect()
    with manager.get_mutex("tool"):
        manager.get_event("held").set()
        time.sleep(60)


def read_and_die(count):
    manager = connect()
    reader = manager.get_stream("whole").reader()
    manager.get_event("reading").set()
    seen = [reader.next(timeout=20) for _ in range(count)]
    whole = all(frame.array.min() == frame.array.max() == frame.number for frame in seen)
    manager.get_queue("seen").put((whole, seen[-1].number - seen[0].number + 1 - sum(one.missed for one in seen[1:])))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_server_is_reached_over_tcp_with_its_key_and_uses_no_pipes_and_no_anonymous_memory(manager, instrument):
    host, port = manager.server.address
    assert (host, port > 0) == ("127.0.0.1", True)
    array = np.arange(200_000.0)
    assert manager.get_object("keeper", dict).update(array=array) is None
    targets = {os.readlink(one) for one in Path(f"/proc/{manager.pid}/fd").iterdir() if one.is_symlink()}
    assert not [target for target in targets if "memfd" in target]
    assert not list(Path(os.environ["CATKIT_DEVICES_RUNTIME"]).glob("*.sock"))


def test_arrays_arrive_unchanged(manager):
    shared = manager.get_dict("arrays")
    array = np.random.default_rng(1).normal(size=(300, 400))
    shared["array"] = array
    np.testing.assert_array_equal(shared["array"], array)


def test_a_killed_holder_frees_the_mutex(manager):
    process = Process(target=hold)
    process.start()
    assert manager.get_event("held").wait(20)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL"):
        process.join()
    assert manager.get_mutex("tool").acquire(timeout=10)
    manager.get_mutex("tool").release()


def test_frames_are_whole_counted_and_stay_when_a_reader_dies(manager):
    stream = manager.get_stream("whole", (50, 60), "u4", slots=4)
    reader = stream.reader()
    process = Process(target=read_and_die, args=(50,))
    process.start()
    assert manager.get_event("reading").wait(20)
    with stream.writer() as publish:
        number = 0
        while process.is_alive():
            publish(np.full((50, 60), number, "u4"))
            number += 1
    with pytest.raises(Exception, match="SIGKILL"):
        process.join()
    assert manager.get_queue("seen").get(timeout=10) == (True, 50)
    frame = reader.newest(timeout=1)
    assert (frame.number, frame.missed) == (number - 1, number - 1)
    assert connect().get_stream("whole").newest(timeout=1).number == number - 1


def test_a_waiting_reader_is_told_soon_and_follows_a_change_of_shape(manager):
    stream = manager.get_stream("changing", (2,), "u1")
    reader = stream.reader()
    with stream.writer() as publish:
        publish.change((500, 500), "f8")
        publish(np.ones((500, 500)))
        assert reader.next(timeout=5).array.shape == (500, 500)
        begun = time.monotonic()
        publish(np.ones((500, 500)))
        assert reader.next(timeout=5).number == 1
    assert time.monotonic() - begun < 2


KILLS_ITS_SERVER = """
import os, signal
from catkit_devices.multiprocessing import SharedMemoryManager

if __name__ == "__main__":
    manager = SharedMemoryManager("third")
    manager.start()
    manager.get_stream("frames", (100,), "u1").reader()
    os.kill(manager.pid, signal.SIGKILL)
    print("killed", flush=True)
"""


def test_the_memory_of_a_stream_is_removed_with_its_server_and_if_that_was_killed_with_its_program(manager, until):
    before = named()
    with SharedMemoryManager("second") as second:
        second.get_stream("frames", (100,), "u1").reader()
        assert named() - before
    assert named() == before
    done = subprocess.run([sys.executable, "-c", KILLS_ITS_SERVER], capture_output=True, text=True, timeout=60)
    assert done.stdout == "killed\n"
    until(lambda: named() == before)


def test_memory_that_is_not_that_of_the_server_is_refused(manager):
    """As on another computer, where the name is unknown or means another memory."""
    memory = manager.get_stream("frames", (100,), "u1").memory
    name, size, token = memory.named()

    class Elsewhere:
        _remote_ = memory._remote_

        def __init__(self, *named):
            self.named = lambda: named

    for wrong in (("psm_nothing", size, token), (name, size, token + 1)):
        with pytest.raises(ServerError, match="'bench' is on another computer"):
            stream_over(Elsewhere(*wrong))
