"""VisaDevice on a real serial port (a pseudo terminal), through pyvisa-py and pyserial."""

import contextlib
import os
import threading
import time
import tty

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import DeviceDisconnectedError, DeviceOpenError, DeviceTimeoutError
from catkit_devices.sim.thorlabs_fw102c import FW102C
from catkit_devices.simulation import Bench, RealClock
from catkit_devices.visa import VisaDevice

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo terminals are there on POSIX only")


class Port:
    """A serial port with a simulated instrument at its other end."""

    def __init__(self, instrument):
        self.instrument = instrument
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        self.address = f"ASRL{os.ttyname(self._far)}::INSTR"
        self._ends = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        os.set_blocking(self._near, False)
        while not self._ends:
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._near, 1000)
            if reply := self.instrument.feed(data):
                os.write(self._near, reply)
            if not data:
                self.instrument.bench.clock.wait(0.001)

    def pull(self):
        self._ends = True
        self._thread.join()
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def port():
    made = []

    def build(instrument):
        made.append(Port(instrument))
        return made[-1]

    yield build
    for one in made:
        one.pull()


@pytest.fixture
def bench():
    return Bench(clock=RealClock())


class Widget(VisaDevice):
    identity = "widget"
    io_timeout = 0.3


def test_a_bundled_driver_works_on_a_serial_port(port, bench):
    wheel = port(FW102C(bench, step_time=0.01))

    with create_device("thorlabs_fw102c", "wheel", {"address": wheel.address}) as device:
        device.position = 4
        assert (device.position, device.positions, device.speed) == (4, 6, "fast")

    assert wheel.instrument.wheel.position == 4


def test_a_block_with_every_byte_arrives_whole(port, bench, script):
    data = bytes(range(256)) * 20
    instrument = port(script(bench, replies={b"*IDN?": b"widget\n", b"D?": b"#45120" + data + b"\n"}))

    with Widget("widget", address=instrument.address) as device:
        assert device.query_binary("D?") == data


class Starved:
    """The time of a process that is not run for 0.15 s between any two looks at it."""

    def __init__(self):
        self._now = time.time()

    def time(self):
        self._now += 0.15
        return self._now


def test_no_byte_is_lost_when_the_process_is_stopped_in_the_middle_of_a_reply(port, bench, script, monkeypatch):
    """pyvisa-py then reports a timeout, and what it had taken is lost: half a number is a number too."""
    instrument = port(script(bench, replies={b"*IDN?": b"widget\n", b"A?": b"-12.345\n"}))

    with Widget("widget", address=instrument.address) as device:
        monkeypatch.setattr("pyvisa_py.sessions.time", Starved())
        assert [device.query("A?") for _ in range(5)] == ["-12.345"] * 5


def test_silence_and_leftovers_are_errors_after_which_the_line_is_right(port, bench, script):
    replies = {b"*IDN?": b"widget\n", b"A?": b"1.5\n9.5\n", b"B?": b"2.5\n", b"C?": b""}
    instrument = port(script(bench, replies=replies))

    with Widget("widget", address=instrument.address, late_window=0.1) as device:
        with pytest.raises(DeviceTimeoutError, match=r"no reply in 0\.3 s.*'C\?'"):
            device.query("C?")
        assert [device.query("A?"), device.query("B?")] == ["1.5", "2.5"]

    assert instrument.instrument.sent.count(b"*IDN?") == 3


def test_a_port_that_is_pulled_is_a_disconnection(port, bench, script):
    instrument = port(script(bench, replies={b"*IDN?": b"widget\n"}))

    with Widget("widget", address=instrument.address) as device:
        instrument.pull()
        with pytest.raises(DeviceDisconnectedError, match=r"'A\?'"):
            device.query("A?")


def test_a_port_that_is_not_there_does_not_open():
    with pytest.raises(DeviceOpenError, match="/dev/no_such_port"):
        Widget("widget", address="ASRL/dev/no_such_port::INSTR").open()
