"""Devices whose drivers need a pyserial port, because they use a library that needs one.

For a driver that only sends and receives bytes, use :class:`~catkit_devices.visa.VisaDevice`.
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

    It has everything of :class:`~catkit_devices.visa.VisaDevice`, and in addition the port::

        def spin(self, speed: float) -> None:
            with self._using_port_("spin") as port:
                vendor_library.spin(port, speed)

    The block is one exchange: nobody else uses the wire meanwhile, and it begins only when the line can be trusted.
    Errors in it become errors of the device: those of pyserial a DeviceDisconnectedError or DeviceTimeoutError, and a
    ValueError, which you raise for a reply that makes no sense, a DeviceProtocolError. When the time is over, pyserial
    returns fewer bytes than were asked for; raise TimeoutError if these are not enough. After an error the line must be
    silent for a while, and the instrument must identify itself again, as after every other exchange.

    With real instruments the port is one of pyserial. With simulated instruments, and during recording, it is a
    :class:`~catkit_devices._wire.serial_port.VisaSerialPort`.

    Args:
        name: the device's name.
        address: a serial VISA address (``"ASRL3::INSTR"``), the name of a port (``"/dev/ttyUSB0"``, ``"COM3"``), or a
            URL of pyserial (``"socket://bench.lab:5001"``, for example of a simulated instrument that is served).
        visa_library: a pyvisa library object: a simulation, or a recorder. Any text means pyvisa-py.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    def __init__(self, name: str, *, address: str, visa_library: Any = "@py", **options: Any) -> None:
        library = "@py" if isinstance(visa_library, str) and not visa_library.endswith("@sim") else visa_library
        super().__init__(name, address=visa_address(address), visa_library=library, **options)

    @contextlib.contextmanager
    def _using_port(self, command: str | bytes | None = None) -> Iterator[serial.SerialBase]:
        """Use the port for one exchange; at its beginning, the timeouts of the port are ``io_timeout``.

        Args:
            command: the name of the exchange in errors.
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
                resource.timeout = before  # both kinds of port have changed it


def _port_of(resource: Any) -> serial.SerialBase:
    import serial
    from pyvisa_py.highlevel import PyVisaLibrary

    from catkit_devices._wire.serial_port import VisaSerialPort

    if type(resource.visalib) is PyVisaLibrary:
        port = resource.visalib.sessions[resource.session].interface
        if isinstance(port, serial.SerialBase):
            return port
    return VisaSerialPort(resource)
