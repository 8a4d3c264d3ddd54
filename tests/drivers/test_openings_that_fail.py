"""What a driver has switched on while it opens does not stay on when the opening fails or is interrupted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catkit_devices import Control, VisaDevice
from catkit_devices.device import Device
from catkit_devices.errors import DeviceOpenError
from catkit_devices.simulation import Instrument, Outbox, build_library

ADDRESS = "TCPIP0::192.0.2.1::5025::SOCKET"


class LaserInstrument:
    def __init__(self, bench):
        self.shines = False
        self._received = b""
        self._outbox = Outbox(bench.clock)

    def feed(self, data):
        self._received += data
        while b"\n" in self._received:
            line, _end, self._received = self._received.partition(b"\n")
            if line == b"*IDN?":
                self._outbox.put(b"ACME,LASER\n")
            else:
                self.shines = line == b"OUTP 1"
        return self._outbox.take()


class Laser(VisaDevice):
    identity = "ACME,LASER"

    shines = Control("OUTP?", "OUTP {:d}", type=bool, doc="Output of the laser.")

    def __init__(self, name, *, interruption, **options):
        super().__init__(name, **options)
        self._interruption = interruption

    def _open(self):
        transport = super()._open()
        self.shines = True
        if self._interruption is not None:
            raise self._interruption
        return transport

    def _make_safe(self):
        self.shines = False


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), ValueError("no such model"), SystemExit()])
def test_an_output_that_a_failed_opening_has_switched_on_is_made_safe(interruption):
    library = build_library([Instrument(ADDRESS, LaserInstrument)], clock="virtual")
    laser = Laser("laser", address=ADDRESS, visa_library=library, interruption=interruption)
    with pytest.raises(type(interruption)):
        laser.open()

    assert not library.instrument(ADDRESS).shines
    assert laser.state == "closed"

    laser._interruption = None
    with laser:
        assert library.instrument(ADDRESS).shines


class Lamp(Device):
    """Its connection is its own; it notes what is done."""

    def __init__(self, name, *, known):
        super().__init__(name)
        self._known = known
        self._done = []

    def _open(self):
        if self._known:
            self._connection = object()
        raise KeyboardInterrupt

    def _make_safe(self):
        self._done.append("safe")

    def _close(self):
        self._done.append("close")


@pytest.mark.parametrize("known", [True, False])
def test_a_failed_opening_is_made_safe_only_if_the_driver_has_stored_its_connection(known):
    lamp = Lamp("lamp", known=known)
    with pytest.raises(KeyboardInterrupt):
        lamp.open()

    assert lamp._done == (["safe", "close"] if known else [])


WITHOUT_PYUSB = """
import sys

sys.modules["usb"] = None  # as if it were not installed
from catkit_devices.errors import DeviceOpenError
from catkit_devices.scpi import ScpiDevice


class Meter(ScpiDevice):
    pass


try:
    Meter("meter", address="USB0::0x1313::0x8078::P0001::INSTR").open()
except DeviceOpenError as error:
    print(error)
"""


def test_a_usb_address_without_pyusb_names_the_extra_that_brings_it():
    told = subprocess.run([sys.executable, "-c", WITHOUT_PYUSB], capture_output=True, text=True, check=True).stdout
    assert "pip install 'catkit-devices[usb]'" in told


def test_an_ipv6_address_says_which_libraries_know_them():
    device = VisaDevice("scope", address="TCPIP::[::1]::5025::SOCKET")
    with pytest.raises(DeviceOpenError, match="pyvisa-py knows no IPv6: give the IPv4 address"):
        device.open()
