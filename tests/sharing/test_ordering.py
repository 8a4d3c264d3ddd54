"""The order of loads and stores in shared memory, and the number of futex: on every processor that Linux runs on."""

import ctypes
import errno
import mmap
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

from catkit_devices.multiprocessing.types import bell
from catkit_devices.multiprocessing.types.bell import Bell
from catkit_devices.multiprocessing.wire import ordering

STORES = """
import mmap, sys
import numpy as np
from catkit_devices.multiprocessing.wire.ordering import _fence

with open(sys.argv[1], "r+b") as file:
    words = np.frombuffer(mmap.mmap(file.fileno(), 4096), np.uint64)
data, flag, ready = words[0:1], words[64:65], words[128:129]
ready[0] = 1
for number in range(1, int(sys.argv[2]) + 1):
    data[0] = number
    _fence()
    flag[0] = number
"""


def test_who_sees_what_was_stored_after_a_fence_sees_what_was_stored_before_it(tmp_path, rounds):
    """The litmus test *message passing*: on a processor that reorders, it fails sooner or later without fences."""
    count = rounds(100_000, soak=20_000_000)
    path = tmp_path / "words"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        words = np.frombuffer(mmap.mmap(file.fileno(), 4096), np.uint64)
    data, flag, ready = words[0:1], words[64:65], words[128:129]
    writer = subprocess.Popen([sys.executable, "-c", STORES, str(path), str(count)])
    looks = early = 0
    while int(flag[0]) < count and writer.poll() is None:
        if not ready[0]:
            continue
        seen = int(flag[0])
        ordering._fence()
        early += int(data[0]) < seen
        looks += 1
    assert writer.wait(60) == 0
    assert int(flag[0]) == int(data[0]) == count
    assert looks > 0
    assert early == 0


def test_a_fence_is_usable_by_many_threads_at_once():
    threads = [threading.Thread(target=lambda: [ordering._fence() for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_processor_that_is_not_known_to_keep_the_order_has_fences():
    assert (ordering.fence is ordering._no_fence) == (platform.machine() in {"x86_64", "AMD64"})


@pytest.mark.skipif(sys.platform != "linux", reason="futex is Linux's")
def test_the_number_of_futex_is_that_of_this_processor():
    """The kernel refuses to wait for a number that has changed already (EAGAIN); no other call would say that."""
    word = ctypes.c_uint32(7)
    library = ctypes.CDLL(None, use_errno=True)
    number = bell._NUMBERS[platform.machine()]
    assert library.syscall(ctypes.c_long(number), ctypes.byref(word), 0, ctypes.c_uint32(8), None, None, 0) == -1
    assert ctypes.get_errno() == errno.EAGAIN
    assert library.syscall(ctypes.c_long(number), ctypes.byref(word), 1, ctypes.c_uint32(1), None, None, 0) == 0


@pytest.mark.parametrize("taken_away", [False, True])
def test_who_waits_for_a_change_is_woken_with_futex_and_without(monkeypatch, taken_away):
    if taken_away:
        monkeypatch.setenv("CATKIT_DEVICES_PORTABLE", "1")
    waiting = Bell(np.zeros(4, np.uint64), 2)
    assert (waiting._futex is None) == taken_away
    waiting.wait(1, 30.0)  # it has changed already
    thread = threading.Thread(target=waiting.wait, args=(0, 30.0))
    thread.start()
    waiting.ring(5)
    thread.join(20)
    assert not thread.is_alive()
    assert waiting.value == 5
