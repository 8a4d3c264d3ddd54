"""The permit by itself: an object of a device server that is renewed, runs out, is taken away and given again."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from catkit_devices.device import Device
from catkit_devices.errors import CatkitDevicesError, MutexBrokenError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.alarm import PERMIT, new_trip
from catkit_devices.testbed.layout import Layout
from catkit_devices.testbed.permit import Permit, permit_of_this_server


class Lamp(Device):
    """A lamp that writes down when it is switched."""

    def __init__(self, name, *, journal, **options):
        super().__init__(name, **options)
        self._journal = journal
        self._on = False

    def _open(self):
        return self

    def _make_safe(self):
        self._switch(False)

    @property
    def on(self) -> bool:
        """Whether it burns."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        self._switch(on)

    def shine(self, seconds: float) -> None:
        """Burn for a while, and once more when that is interrupted."""
        self._switch(True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)  # as a vendor's library would, which hears of nothing
        self._switch(True)

    def _switch(self, on):
        self._on = on
        with self._journal.open("a") as file:
            file.write("1" if on else "0")


def make_lamp(journal):
    lamp = Lamp("lamp", journal=journal, open_on_use=True)
    lamp._safety_gate = permit_of_this_server().refusal
    return lamp


class Bench:
    def __init__(self, manager, journal, watchers, timeout):
        self.manager = manager
        layout = Layout(name="trial", server="nowhere", devices=())
        self.permit = manager.get_object(PERMIT, Permit, layout, manager.name, watchers, timeout)
        self.lamp = manager.get_object("lamp", make_lamp, journal)

    def renew(self, *watchers):
        for watcher in watchers:
            self.permit.renew(watcher, time.monotonic())


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def bench(journal):
    with SharedMemoryManager("permits") as manager:
        yield Bench(manager, journal, ("one", "other"), 0.8)


def test_it_is_given_when_everybody_has_renewed_it(bench):
    bench.renew("one")
    with pytest.raises(SafetyError, match="not given yet: 'on' of device 'lamp' is refused"):
        bench.lamp.on = True
    bench.renew("other")

    bench.lamp.on = True

    assert bench.lamp.on
    assert 0.0 < bench.permit.status()["remaining"] <= 0.8


def test_without_anybody_who_watches_it_is_given_for_ever(journal):
    with SharedMemoryManager("permits") as manager:
        bench = Bench(manager, journal, (), 0.0)
        bench.lamp.on = True
        assert bench.permit.status() == {"given": True, "remaining": None, "tripped": None}


def test_it_runs_out_when_one_of_them_falls_silent_and_the_server_makes_its_devices_safe_by_itself(bench, journal):
    bench.renew("one", "other")
    bench.lamp.acquire()
    bench.lamp.on = True
    renewed = time.monotonic()

    while not (tripped := bench.permit.status()["tripped"]):
        bench.renew("other")

    assert 0.6 < time.monotonic() - renewed < 8.0
    assert tripped == "safety check 'permit': the one has not renewed it for 0.8 s: killed, stopped, hung or cut off"
    assert bench.permit.wait_until_safe(5.0) == {}
    assert journal.read_text() == "10"
    with pytest.raises(SafetyError, match="refused until the safety is reset"):
        bench.lamp.on = True
    with pytest.raises(MutexBrokenError, match="the one has not renewed it for 0.8 s"):
        bench.lamp.release()
    assert bench.lamp.on is False


def test_a_device_is_made_safe_once_more_after_an_operation_that_was_running(bench, journal, until):
    from threading import Thread

    bench.renew("one", "other")
    failures = []

    def shine():
        try:
            bench.lamp.shine(0.4)
        except CatkitDevicesError as error:
            failures.append(error)

    thread = Thread(target=shine)
    thread.start()
    until(journal.exists)

    bench.permit.trip(new_trip("fire", "it burns"))
    thread.join()

    until(lambda: journal.read_text() == "1010")


def test_what_was_sent_before_a_server_was_stopped_does_not_renew_it_afterwards(bench, journal):
    bench.renew("one", "other")
    bench.lamp.on = True
    server = psutil.Process(bench.manager.pid)

    server.suspend()
    sent = time.monotonic()
    time.sleep(1.0)
    server.resume()
    for watcher in ("one", "other"):
        bench.permit.renew(watcher, sent)

    with pytest.raises(SafetyError, match="has run out: 'on' of device 'lamp' is refused"):
        bench.lamp.on = True
    assert bench.permit.status()["tripped"] is None
    bench.renew("one", "other")
    bench.lamp.on = True


def test_after_a_reset_it_is_given_when_everybody_has_renewed_it_again(bench):
    bench.renew("one", "other")
    bench.permit.trip(new_trip("fire", "it burns"))
    bench.permit.trip(new_trip("flood", "it is wet"))
    bench.renew("one", "other")
    with pytest.raises(SafetyError, match="safety check 'fire': it burns; 'on' of device 'lamp' is refused"):
        bench.lamp.on = True

    bench.permit.reset()

    bench.renew("one")
    with pytest.raises(SafetyError, match="not given yet"):
        bench.lamp.on = True
    bench.renew("other")
    bench.lamp.on = True


def test_when_the_testbed_ends_devices_are_neither_changed_nor_opened_any_more(bench):
    bench.renew("one", "other")
    bench.permit.end("the testbed is ending")

    with pytest.raises(CatkitDevicesError, match="device 'lamp': 'on' is refused: the testbed is ending"):
        _ = bench.lamp.on
    assert bench.lamp.state == "closed"


ORPHAN = """
import logging, os, signal, time
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.alarm import PERMIT
from catkit_devices.testbed.layout import DeviceEntry, Layout
from catkit_devices.testbed.permit import Permit

class Late(Permit):
    def _watch(self):
        logging.getLogger("catkit_devices").addHandler(logging.NullHandler())
        time.sleep(600)  # as where this thread is not run until its process has ended

manager = SharedMemoryManager("permits")
manager.start()
layout = Layout(name="trial", server="nowhere", devices=(DeviceEntry(name="lamp", driver="none", server=manager.name),))
manager.get_object(PERMIT, Late, layout, manager.name, (), 1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_death_of_the_testbed_is_said_however_late_the_watch_is():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.count("safety check 'testbed': the testbed's process ") == 1
    assert "has died" in done.stderr
