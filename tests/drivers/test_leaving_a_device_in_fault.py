"""A device in FAULT because of its line is made safe as soon as that is possible; leaving it closes it."""

from __future__ import annotations

import pytest

from catkit_devices import Control, Measurement, VisaDevice
from catkit_devices.errors import DeviceFaultError, DeviceProtocolError
from catkit_devices.simulation import Instrument, Outbox, build_library

ADDRESS = "TCPIP0::192.0.2.1::5025::SOCKET"


class LaserInstrument:
    """Is on until it is switched off. Its line sends nonsense as long as a test wants: as if somebody pulled at a
    plug."""

    def __init__(self, bench):
        self.shines = False
        self.nonsense = 0
        """How many more questions are answered with nonsense."""
        self.deaf = 0
        """How many more commands are not heard."""
        self._received = b""
        self._outbox = Outbox(bench.clock)

    def feed(self, data):
        self._received += data
        while b"\n" in self._received:
            line, _end, self._received = self._received.partition(b"\n")
            self._obey(line.decode())
        return self._outbox.take()

    def _obey(self, line):
        if not line.endswith("?") and self.deaf:
            self.deaf -= 1
        elif not line.endswith("?"):
            self.shines = line == "OUTP 1"
        elif self.nonsense:
            self.nonsense -= 1
            self._outbox.put(b"~\n")
        else:
            self._outbox.put(b"ACME,LASER\n" if line == "*IDN?" else b"%d\n" % self.shines)


class Laser(VisaDevice):
    identity = "ACME,LASER"
    io_timeout = 0.5

    shines = Control("OUTP?", "OUTP {:d}", type=bool, doc="Output of the laser.")
    power = Measurement("POW?", doc="Power of the laser.")

    def _make_safe(self):
        self.shines = False


@pytest.fixture
def lasers():
    opened = []

    def make(**options):
        library = build_library([Instrument(ADDRESS, LaserInstrument)], clock="virtual")
        device = Laser("laser", address=ADDRESS, visa_library=library, late_window=0.01, **options)
        opened.append(device)
        return device, lambda: library.instrument(ADDRESS)

    yield make
    for device in opened:
        device._life_.abandon()


def _put_into_fault(device, instrument, nonsense, deaf=0):
    device.shines = True
    instrument.nonsense = 1 + nonsense
    instrument.deaf = deaf
    with pytest.raises(DeviceProtocolError):
        _ = device.power
    with pytest.raises(DeviceFaultError, match="could not be recovered"):
        _ = device.power
    assert device.state == "fault"


LONG = 1000
"""Questions; for as long as anybody asks in these tests."""


def test_a_device_that_its_line_has_put_into_fault_is_made_safe_at_once_over_a_new_connection(lasers):
    device, instrument = lasers(open_on_use=True)
    device.open()
    # Commands over the old connection are not received, and the reply to the identity query is nonsense twice.
    _put_into_fault(device, instrument(), nonsense=2, deaf=1)

    assert not instrument().shines
    with pytest.raises(DeviceFaultError, match="POW|power"):
        _ = device.power
    device.reset()
    assert device.power == 0


@pytest.mark.parametrize("leave", ["with", "close", "close by force"])
def test_leaving_a_device_in_fault_makes_it_safe_closes_it_and_raises(lasers, leave):
    device, instrument = lasers()
    device.open() if leave != "with" else device.__enter__()
    _put_into_fault(device, instrument(), nonsense=LONG, deaf=LONG)
    assert instrument().shines

    instrument().nonsense = instrument().deaf = 0
    with pytest.raises(DeviceFaultError, match="is in FAULT.*it has been made safe since"):
        device.__exit__(None, None, None) if leave == "with" else device.close(force=leave.endswith("force"))

    assert not instrument().shines
    assert (device.state, device.is_open) == ("fault", False)
    with pytest.raises(DeviceFaultError):
        device.open()
    device.reset()
    with device:
        device.shines = True


def test_nobody_else_gets_a_device_in_fault_meanwhile(lasers):
    device, instrument = lasers()
    with pytest.raises(DeviceFaultError), device:
        _put_into_fault(device, instrument(), nonsense=LONG)
        for use in (device.open, device.acquire, device.lock().__enter__, lambda: device.power):
            with pytest.raises(DeviceFaultError, match="is in FAULT"):
                use()
