"""Devices whose drivers must speak pyserial, because a library that they use does.

A driver that only sends and receives bytes is better off as a plain :class:`~catkit_devices.visa.VisaDevice`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from catkit_devices._wire.address import visa_address
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from collections.abc import Iterator

    import serial

__all__ = ["SerialDevice"]


class SerialDevice(VisaDevice):
    """A device on a serial port that its driver uses as a pyserial port.

    Everything of :class:`~catkit_devices.visa.VisaDevice` is there, and the port beside it::

        def spin(self, speed: float) -> None:
            with self._using_port_("spin") as port:
                vendor_library.spin(port, speed)

    The block has the wire to itself, begins only on a line that can be trusted, and its errors are the device's: what
    pyserial raises becomes a DeviceDisconnectedError or DeviceTimeoutError, a ValueError for a reply that makes no
    sense a DeviceProtocolError. pyserial reads less than was asked for where the time is over; whoever cannot go on
    then raises TimeoutError. After an error the line must fall silent and the instrument identify itself again, as for
    every other exchange.

    With real instruments the port is pyserial's own. With simulated ones, and where the wire is recorded, it is a
    :class:`~catkit_devices._wire.serial_port.VisaSerialPort`.

    Args:
        name: the device's name.
        address: a serial VISA address (``"ASRL3::INSTR"``), the name of a port (``"/dev/ttyUSB0"``, ``"COM3"``), or a
            URL that pyserial knows (``"socket://bench.lab:5001"``, which is how served simulators are reached).
        visa_library: a pyvisa library object: a simulation, or a recorder. Any text means pyvisa-py.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    def __init__(self, name: str, *, address: str, visa_library: Any = "@py", **options: Any) -> None:
        library = "@py" if isinstance(visa_library, str) and not visa_library.endswith("@sim") else visa_library
        super().__init__(name, address=visa_address(address), visa_library=library, **options)

    @contextlib.contextmanager
    def _using_port(self, command: str | bytes | None = None) -> Iterator[serial.SerialBase]:
        """Have the port for one exchange; its timeouts are ``io_timeout`` when it begins.

        Args:
            command: what errors name.
        """
        import serial

        with self._exchange_(command) as line:
            resource = line.resource
            before = resource.timeout
            port = _port_of(resource)
            port.timeout = port.write_timeout = self.io_timeout
            try:
                yield port
            except serial.SerialTimeoutException as error:  # an OSError, but the connection is not gone
                raise TimeoutError(f"not sent in {self.io_timeout:g} s") from error
            finally:
                resource.timeout = before  # which both kinds of port change


def _port_of(resource: Any) -> serial.SerialBase:
    import serial
    from pyvisa_py.highlevel import PyVisaLibrary

    from catkit_devices._wire.serial_port import VisaSerialPort

    if type(resource.visalib) is PyVisaLibrary:
        port = resource.visalib.sessions[resource.session].interface
        if isinstance(port, serial.SerialBase):
            return port
    return VisaSerialPort(resource)
