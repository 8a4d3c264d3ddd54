"""The permit by itself: an object of a device server that is renewed, runs out, is taken away and given again."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from catkit_devices.device import Device, operation, unlocked
from catkit_devices.errors import CatkitDevicesError, DeviceOpenError, MutexBrokenError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.server.objects import Host
from catkit_devices.testbed.layout import Layout
from catkit_devices.testbed.safety.permit import Permit
from catkit_devices.testbed.trip import PERMIT, new_trip


class Lamp(Device):
    """A lamp that writes down when it is switched; it can come up shining, as many an instrument does."""

    def __init__(self, name, *, journal, shines=False, **options):
        super().__init__(name, **options)
        self._journal = journal
        self._shines = shines
        self._on = self._opening = False
        self._flags = set()
        self._file = journal.open("ab", buffering=0)

    def _open(self):
        self._opening = True
        self._wait_while("opening is slow")
        if self._shines:
            self._switch(True)
        return self

    def _make_safe(self):
        if "stuck" in self._flags:
            raise OSError("the shutter is stuck")
        self._switch(False)

    @property
    def on(self) -> bool:
        """Whether it burns."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        self._switch(on)

    @property
    @operation(shared=True)
    def warmth(self) -> float:
        """How warm it is."""
        return 21.0

    def shine(self) -> None:
        """Burn for as long as told, hearing of nothing, as in a vendor's library; at the end burn once more."""
        self._switch(True)
        self._wait_while("shine")
        self._switch(True)

    @unlocked
    def rig(self, *flags) -> None:
        """Have it behave badly."""
        self._flags = set(flags)

    @unlocked
    def lose_connection(self) -> None:
        """Have its line unplugged."""
        self._life_.lose()

    @property
    @unlocked
    def burns(self) -> bool:
        """Whether it burns, as one sees by looking."""
        return self._on

    @property
    @unlocked
    def opening(self) -> bool:
        """Whether it is being opened."""
        return self._opening

    def _wait_while(self, flag):
        while flag in self._flags:
            time.sleep(0.005)

    def _switch(self, on):
        self._on = on
        self._file.write(b"1" if on else b"0")


TOKEN = "only for those who watch"


def make_lamp(journal, **options):
    return Lamp("lamp", journal=journal, open_on_use=True, **options)


class Bench:
    def __init__(self, manager, journal, watchers, timeout, **options):
        self.manager = manager
        layout = Layout(name="trial", server="nowhere", devices=())
        self.permit = manager.get_object(PERMIT, Permit, layout, manager.name, watchers, timeout, TOKEN)
        self.lamp = manager.get_object("lamp", make_lamp, journal, **options)

    def renew(self, *watchers):
        for watcher in watchers:
            self.permit.renew(watcher, time.monotonic(), TOKEN)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def bench(journal):
    with SharedMemoryManager("permits") as manager:
        yield Bench(manager, journal, ("one", "other"), 0.8)


def test_the_permit_is_given_when_everybody_has_renewed_it(bench):
    bench.renew("one")
    with pytest.raises(SafetyError, match="not given yet: 'on' of device 'lamp' is refused"):
        bench.lamp.on = True
    bench.renew("other")

    bench.lamp.on = True

    assert bench.lamp.on
    assert 0.0 < bench.permit.status()["remaining"] <= 0.8


def test_without_a_monitor_the_permit_never_ends(journal):
    with SharedMemoryManager("permits") as manager:
        bench = Bench(manager, journal, (), 0.0)
        bench.lamp.on = True
        assert bench.permit.status() == {"given": True, "remaining": None, "tripped": None, "not_safe": {}}


def test_the_permit_runs_out_when_one_of_them_sends_nothing_more_and_the_server_makes_its_devices_safe_by_itself(
    bench, journal
):
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


@pytest.fixture
def shining(journal):
    """A bench whose lamp comes up shining when it is opened."""
    with SharedMemoryManager("permits") as manager:
        yield Bench(manager, journal, ("one",), 60.0, shines=True, safe_timeout=2.0)


FIRE = new_trip("fire", "it burns")


class Client:
    """A client that uses the bench in its own thread."""

    def __init__(self, action):
        self.outcome = None
        self._action = action
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.outcome = self._action()
        except BaseException as error:
            self.outcome = error

    def result(self):
        self._thread.join(30)
        return self.outcome


@pytest.mark.parametrize(
    "attempt",
    [
        lambda lamp: lamp.open(),
        lambda lamp: lamp.__enter__(),
        lambda lamp: lamp.shine(),
        lambda lamp: lamp.on,
        lambda lamp: lamp.warmth,
    ],
    ids=["open", "with", "change", "read", "shared read"],
)
def test_after_a_trip_nothing_is_opened(shining, journal, attempt):
    shining.renew("one")
    shining.permit.trip(FIRE)
    with pytest.raises(SafetyError, match="it burns; '.*' of device 'lamp'.* is refused until the safety is reset"):
        attempt(shining.lamp)
    assert shining.lamp.state == "closed"
    assert journal.read_text() == ""


def test_after_a_trip_a_lost_connection_is_opened_again_only_for_making_safe(shining, journal):
    shining.renew("one")
    assert shining.lamp.on
    shining.permit.trip(FIRE)
    shining.permit.wait_until_safe(5.0)
    shining.lamp.lose_connection()
    for read in (lambda: shining.lamp.on, lambda: shining.lamp.warmth):
        with pytest.raises(SafetyError, match="which is not open, is refused"):
            read()
    assert journal.read_text() == "10"
    shining.lamp.make_safe()
    assert journal.read_text() == "1010"
    assert shining.lamp.on is False


class Valve(Device):
    """Is made safe with the help of a lamp."""

    def __init__(self, name, *, lamp):
        super().__init__(name)
        self._lamp = lamp

    def _open(self):
        return self

    def _make_safe(self):
        _ = self._lamp.warmth


def test_a_device_that_is_opened_again_to_make_another_one_safe_is_made_safe_too(monkeypatch, journal):
    host = Host()
    monkeypatch.setattr("catkit_devices._device.access.running_server", [SimpleNamespace(host=host)])
    with Lamp("lamp", journal=journal, shines=True) as lamp, Valve("valve", lamp=lamp) as valve:
        host.gate = lambda device, operation, changes: FIRE
        lamp.make_safe()
        lamp.lose_connection()
        valve.make_safe()
        assert lamp._life_.connected
        assert not lamp.burns
    lamp._file.close()


@pytest.mark.parametrize(
    "action", [lambda lamp: lamp.open(), lambda lamp: lamp.shine(), lambda lamp: lamp.warmth], ids=lambda _: ""
)
def test_a_device_that_was_being_opened_at_the_trip_is_made_safe_when_it_is_open_and_named_until_then(
    shining, until, action
):
    shining.renew("one")
    shining.lamp.rig("opening is slow")
    client = Client(lambda: action(shining.lamp))
    until(lambda: shining.lamp.opening)

    shining.permit.trip(FIRE)

    assert "an operation that may change it again is still running" in shining.permit.wait_until_safe(5.0)["lamp"]
    shining.lamp.rig()
    client.result()
    assert shining.lamp.is_open
    assert not shining.lamp.burns
    assert shining.permit.wait_until_safe(5.0) == {}


def test_after_a_running_operation_the_device_is_made_safe_again_and_named_until_then(bench, journal, until):
    bench.renew("one", "other")
    bench.lamp.rig("shine")
    client = Client(bench.lamp.shine)
    until(lambda: bench.lamp.burns)

    bench.permit.trip(FIRE)

    named = bench.permit.wait_until_safe(5.0)["lamp"]
    assert named.startswith("an operation that may change it again is still running: lamp.shine of ")
    assert not bench.lamp.burns
    assert bench.permit.status()["not_safe"] == {"lamp": named}
    bench.lamp.rig()
    client.result()
    until(lambda: bench.permit.status()["not_safe"] == {})
    assert not bench.lamp.burns
    assert journal.read_text() == "1010"


def test_a_device_that_could_not_be_made_safe_is_named_and_tried_again_until_it_is_safe(bench, until):
    bench.renew("one", "other")
    bench.lamp.on = True
    bench.lamp.rig("stuck")

    bench.permit.trip(FIRE)

    named = {"lamp": "could not be made safe (OSError: the shutter is stuck)"}
    assert bench.permit.wait_until_safe(10.0) == named
    assert bench.lamp.burns
    bench.lamp.rig()
    until(lambda: not bench.lamp.burns)
    until(lambda: bench.permit.status()["not_safe"] == {})
    assert bench.lamp.state == "fault"


class Shortage:
    """Leaves its process no thread that it could start, and no descriptor that it could open."""

    def __init__(self):
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def of_threads(self):
        """Begin."""
        threading.stack_size(1 << 46)  # bytes: more than there is address space
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=print).start()

    def of_descriptors(self):
        """Begin."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, self._limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(__file__, os.O_RDONLY)

    def end(self):
        """End it."""
        threading.stack_size(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


def test_a_server_that_can_start_no_thread_and_open_no_file_makes_its_devices_safe(bench):
    bench.renew("one", "other")
    bench.lamp.on = True
    shortage = bench.manager.get_object("shortage", Shortage)
    shortage.of_threads()
    shortage.of_descriptors()

    while bench.permit.status()["tripped"] is None:
        pass

    assert bench.permit.wait_until_safe(5.0) == {}
    assert not bench.lamp.burns
    shortage.end()


def test_a_device_is_not_opened_where_the_thread_that_makes_it_safe_cannot_be_started(bench, journal):
    bench.manager.get_object("shortage", Shortage).of_threads()
    bench.renew("one", "other")  # only now: the server may take long to import what the shortage needs
    with pytest.raises(DeviceOpenError, match="the thread that would have to make it safe cannot be started"):
        bench.lamp.on = True
    assert journal.read_text() == ""


class Cupboard:
    """Not a device, and has one."""

    def __init__(self, journal):
        self._lamp = Lamp("hidden", journal=journal, open_on_use=True)

    def switch(self, on):
        """Switch the lamp in it."""
        self._lamp.on = on


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_device_on_the_server_needs_the_permit_wherever_it_was_made(bench, journal, when):
    bench.renew("one", "other")
    if when == "after":
        bench.permit.trip(FIRE)
    lamp = bench.manager.get_object("lamp of my own", make_lamp, journal)
    cupboard = bench.manager.get_object("cupboard", Cupboard, journal)
    if when == "before":
        lamp.on = True
        cupboard.switch(True)
        bench.permit.trip(FIRE)

    assert bench.permit.wait_until_safe(5.0) == {}

    assert journal.read_text() == {"before": "1100", "after": ""}[when]
    with pytest.raises(SafetyError, match="it burns"):
        lamp.on = True
    with pytest.raises(SafetyError, match="it burns"):
        cupboard.switch(True)
    assert not lamp.burns


class Log:
    """What its process logs."""

    def __init__(self):
        self._lines = []
        handler = logging.Handler()
        handler.emit = lambda record: self._lines.append(record.getMessage())
        logging.getLogger("catkit_devices").addHandler(handler)

    def lines(self):
        """Return all."""
        return self._lines


def test_only_clients_with_the_token_may_renew_reset_or_end_the_permit_and_others_are_logged(bench):
    log = bench.manager.get_object("log", Log)
    me = f"pid {os.getpid()}"
    for what, attempt in {
        "renewing it": lambda: bench.permit.renew("one", time.monotonic(), "a guess"),
        "resetting it": lambda: bench.permit.reset(),
        "ending it": lambda: bench.permit.end("no reason", "a guess"),
        "opening devices while it is not given": lambda: bench.permit.admit("a guess"),
    }.items():
        with pytest.raises(SafetyError, match=rf"{what} is refused to .*{me}.*: only the safety monitor and the"):
            attempt()
        assert f"the permit of server 'permits': {what} was refused to" in log.lines()[-1]
        assert me in log.lines()[-1]
    bench.renew("one", "other")
    bench.permit.trip(FIRE)
    bench.permit.reset(TOKEN)
    assert "the permit of server 'permits' was reset by" in log.lines()[-1]
    assert me in log.lines()[-1]


def test_the_permit_cannot_be_renewed_for_the_future(bench):
    for watcher in ("one", "other"):
        bench.permit.renew(watcher, time.monotonic() + 1e6, TOKEN)
    assert bench.permit.status()["remaining"] < 0.9


def test_before_the_permit_is_given_only_the_monitor_opens_devices_and_one_that_starts_switched_on_is_made_safe(
    shining, journal
):
    with pytest.raises(SafetyError, match="not given yet: 'warmth' of device 'lamp', which is not open, is refused"):
        _ = shining.lamp.warmth
    assert journal.read_text() == ""

    shining.permit.admit(TOKEN)

    assert shining.lamp.warmth == 21.0
    assert journal.read_text() == "10"
    with pytest.raises(SafetyError, match="not given yet"):
        shining.lamp.on = True


def test_a_trip_while_the_testbed_ends_makes_its_devices_safe(bench):
    bench.renew("one", "other")
    bench.lamp.on = True
    bench.permit.end("the testbed is ending", TOKEN)
    bench.permit.trip(FIRE)
    assert bench.permit.wait_until_safe(5.0) == {}
    assert not bench.lamp.burns


def test_renewals_sent_before_a_server_was_stopped_do_not_renew_the_permit_afterwards(bench, journal):
    bench.renew("one", "other")
    bench.lamp.on = True
    server = psutil.Process(bench.manager.pid)

    server.suspend()
    sent = time.monotonic()
    time.sleep(1.0)
    server.resume()
    for watcher in ("one", "other"):
        bench.permit.renew(watcher, sent, TOKEN)

    with pytest.raises(SafetyError, match="has run out: 'on' of device 'lamp' is refused"):
        bench.lamp.on = True
    assert bench.permit.status()["tripped"] is None
    bench.renew("one", "other")
    bench.lamp.on = True


def test_after_a_reset_the_permit_is_given_when_everybody_has_renewed_it_again(bench):
    bench.renew("one", "other")
    bench.permit.trip(new_trip("fire", "it burns"))
    bench.permit.trip(new_trip("flood", "it is wet"))
    bench.renew("one", "other")
    with pytest.raises(SafetyError, match="safety check 'fire': it burns; 'on' of device 'lamp' is refused"):
        bench.lamp.on = True

    bench.permit.reset(TOKEN)

    bench.renew("one")
    with pytest.raises(SafetyError, match="not given yet"):
        bench.lamp.on = True
    bench.renew("other")
    bench.lamp.on = True


def test_when_the_testbed_ends_devices_are_neither_changed_nor_opened_any_more(bench):
    bench.renew("one", "other")
    bench.permit.end("the testbed is ending", TOKEN)

    with pytest.raises(CatkitDevicesError, match="device 'lamp': 'on' is refused: the testbed is ending"):
        _ = bench.lamp.on
    assert bench.lamp.state == "closed"


ORPHAN = """
import logging, os, signal, time
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.trip import PERMIT
from catkit_devices.testbed.layout import DeviceEntry, Layout
from catkit_devices.testbed.safety.permit import Permit

class Late(Permit):
    def _watch(self):
        logging.getLogger("catkit_devices").addHandler(logging.NullHandler())
        time.sleep(600)  # as where this thread is not run until its process has ended

manager = SharedMemoryManager("permits")
manager.start()
layout = Layout(name="trial", server="nowhere", devices=(DeviceEntry(name="lamp", driver="none", server=manager.name),))
manager.get_object(PERMIT, Late, layout, manager.name, (), 1.0, "")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_death_of_the_testbed_is_reported_however_late_it_is_noticed():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.count("safety check 'testbed': the testbed's process ") == 1
    assert "has died" in done.stderr
