"""A child that was forked for a test is what one is that was started as users start it."""

import os
import signal
import sys

import pytest
from ready_children import ReadyChildren

from catkit_devices import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only are children forked for tests")


def seen():
    numbers = signal.valid_signals()
    return {
        "parent": os.getppid(),
        "session": (os.getsid(0), os.getpgid(0)),
        # Python's readline sets these two behind the back of os.environ.
        "environment": {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}},
        "directory": os.getcwd(),
        "streams": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "handlers": {number: str(signal.getsignal(number)) for number in numbers},
        "masked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "arguments": sys.argv,
        "path": sys.path,
    }


def seen_by_a_child():
    process = Process(target=seen)
    process.start()
    process.join(30)
    return process.result


def test_a_forked_child_has_what_a_real_one_has(tmp_path, monkeypatch):
    ready = ReadyChildren()
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        real = seen_by_a_child()
        with ready.installed():
            forked = seen_by_a_child()
    finally:
        ready.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.signal(signal.SIGUSR2, before)

    assert forked == real
    assert forked["parent"] == os.getpid()
    assert signal.SIGUSR1 in forked["masked"]
    assert forked["handlers"][signal.SIGUSR2] == str(signal.SIG_IGN)
