"""A driver with a vendor's library, and others whose instrument is not at an address of the configuration."""

import os
from pathlib import Path

from catkit_devices import Control, Device, VisaDevice, hookimpl
from catkit_devices.serial_device import SerialDevice


class RealCamera:
    """The vendor's class: making one uses the real camera."""

    def __init__(self, serial):
        Path(os.environ["REAL_CAMERA"]).write_text(serial)

    def set_gain(self, value):
        pass

    def close(self):
        pass


class Camera(Device):
    """A camera with a vendor's library."""

    gain = Control(
        lambda camera: camera._connection.gain,
        lambda camera, value: camera._connection.set_gain(value),
        type=int,
        limits=(0, 48),
        doc="Gain of the sensor, in dB.",
    )

    def __init__(self, name, *, serial, **options):
        super().__init__(name, **options)
        self._serial = serial

    def _open(self):
        return RealCamera(self._serial)

    def _close(self):
        self._connection.close()

    def _make_safe(self):
        self._connection.set_gain(0)

    def settle(self):
        """Wait until the simulated camera says so."""
        return self.wait(self._connection.is_ready, 7200.0, 60.0)


class NotInstalled(Camera):
    """Needs a package that is nowhere installed."""

    def _open(self):
        import catkit_devices_sdk_of_nobody

        return catkit_devices_sdk_of_nobody.open(self._serial)


class Sum(Device):
    """Opens no instrument."""

    has_instrument = False

    def _open(self):
        return object()

    def add(self, a, b):
        return a + b


class Unconfigurable(Device):
    """Takes no options, not those of every device either."""

    has_instrument = False
    gain = Control(lambda device: 1.0, lambda device, value: None, unit="dB", limits=(0, 48), doc="Gain.")

    def __init__(self, name):
        super().__init__(name)


class FixedAddress(VisaDevice):
    """Knows its own address."""

    def __init__(self, name, *, address="ASRL99::INSTR", **options):
        super().__init__(name, address=address, **options)


class PortName(SerialDevice):
    """Is given the name of a port."""

    baud_rate = 115200
    identity = "THORLABS"

    def _identify(self):
        with self._using_port("*idn?") as port:
            port.write(b"*idn?\r")
            self._check_identity(port.read(40).decode())

    def kind_of_port(self):
        with self._using_port() as port:
            return type(port).__name__


@hookimpl
def catkit_devices_drivers():
    return {"sdk_camera": Camera, "sum": Sum, "fixed_address": FixedAddress, "port_name": PortName,
            "unconfigurable": Unconfigurable, "not_installed": NotInstalled}  # fmt: skip
