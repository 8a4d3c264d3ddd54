"""Drivers that speak pyserial, on simulated, served and recorded instruments."""

from __future__ import annotations

import pytest
import pyvisa
import serial
from pyvisa.constants import StatusCode

from catkit_devices._wire.serial_port import VisaSerialPort
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.serial_device import SerialDevice
from catkit_devices.simulation import Fault, Instrument, InstrumentServer, RecordingVisaLibrary, build_library

SERIAL = "ASRL3::INSTR"


class Vendor:
    """Somebody else's library, which knows nothing but pyserial."""

    def __init__(self, port):
        self.port = port

    def ask(self, command):
        self.port.write(command + b"\r")
        reply = self.port.read_until(b"> ")
        if not reply.endswith(b"> "):
            raise TimeoutError(f"only {reply!r}")
        echo, *lines = reply[:-2].split(b"\r")
        if echo != command:
            raise ValueError(f"echo {echo!r}")
        return b"\n".join(lines).decode().strip()


class Wheel(SerialDevice):
    """The filter wheel, driven by the vendor's library."""

    baud_rate = 115200
    io_timeout = 0.5
    write_termination = "\r"

    @property
    def position(self) -> int:
        """Filter slot in the beam."""
        with self._using_port("pos?") as port:
            return int(Vendor(port).ask(b"pos?"))

    def count_waiting(self) -> tuple[int, bytes, int]:
        """Say how much of an answer waits, read a part, throw the rest away."""
        with self._using_port() as port:
            port.write(b"pos?\r")
            first = port.read(1)
            waiting = port.in_waiting
            rest = port.read(4)
            port.reset_input_buffer()
            return waiting, first + rest, port.in_waiting

    def fail(self, error: BaseException) -> None:
        """Raise what the vendor's library might."""
        with self._using_port("fail"):
            raise error

    def _identify(self) -> None:
        with self._using_port("*idn?") as port:
            reply = Vendor(port).ask(b"*idn?")
        self._check_identity(reply)


@pytest.fixture(params=["simulated", "served", "recorded"])
def wheel(request, tmp_path):
    """A wheel, its line, and what kind of port it has."""
    virtual = "real" if request.param == "served" else "virtual"
    library = build_library([Instrument(SERIAL, "thorlabs_fw102c", {"position": 4})], clock=virtual)
    options = {"late_window": 0.1}
    if request.param == "served":
        with InstrumentServer(library) as server:
            yield Wheel("wheel", address=server.served[SERIAL].url, **options), library.line(SERIAL), serial.SerialBase
    else:
        chosen = RecordingVisaLibrary(library, tmp_path) if request.param == "recorded" else library
        yield Wheel("wheel", address=SERIAL, visa_library=chosen, **options), library.line(SERIAL), VisaSerialPort


def test_a_pyserial_driver_works_on_it(wheel):
    device, _line, kind = wheel
    with device:
        assert device.position == 4
        waiting, read, left = device.count_waiting()
        assert (read, left) == (b"pos?\r", 0)
        assert waiting >= 1
        device.write("pos?")
        assert device.read_until(b"> ") == b"pos?\r4\r"
        with device._using_port() as port:
            assert isinstance(port, kind)
            assert port.timeout == device.io_timeout
            port.timeout = None
        assert device._exchanges_.transport.line.resource.timeout < 60_000  # not for ever


def test_silence_is_a_timeout_and_its_late_answer_is_never_taken_for_the_next_one(wheel):
    device, line, _kind = wheel
    with device:
        line.inject(Fault("late", delay=device.io_timeout + 0.05))
        with pytest.raises(DeviceTimeoutError, match=r"pos\?"):
            _ = device.position
        assert device.position == 4


def test_nonsense_is_a_protocol_error(wheel):
    device, line, _kind = wheel
    with device:
        line.inject(Fault("garbled", position=1))
        with pytest.raises(DeviceProtocolError, match="echo"):
            _ = device.position
        assert device.position == 4


def test_a_dropped_line_is_a_disconnection(wheel):
    device, line, _kind = wheel
    with device:
        line.inject(Fault("disconnect"))
        with pytest.raises(DeviceDisconnectedError):
            _ = device.position
        device.close(force=True)
    with device:
        assert device.position == 4


def test_a_write_that_took_too_long_is_a_timeout(wheel):
    device, _line, _kind = wheel
    with device, pytest.raises(DeviceTimeoutError, match="not sent in 0.5 s"):
        device.fail(serial.SerialTimeoutException("Write timeout"))


def test_a_recording_has_what_went_through_the_port(tmp_path):
    library = build_library([Instrument(SERIAL, "thorlabs_fw102c")], clock="virtual")
    with Wheel("wheel", address=SERIAL, visa_library=RecordingVisaLibrary(library, tmp_path)) as device:
        _ = device.position
    (path,) = tmp_path.glob("*.wire")
    replayed = build_library([Instrument(SERIAL, path)], clock="virtual")
    with Wheel("wheel", address=SERIAL, visa_library=replayed) as device:
        assert device.position == 1
    replayed.instrument(SERIAL).finish()


@pytest.mark.parametrize(("address", "visa"), [
    ("COM3", "ASRL3::INSTR"), ("/dev/ttyUSB0", "ASRL/dev/ttyUSB0::INSTR"), ("ASRL3", "ASRL3"),
    ("socket://bench.lab:5001", "ASRLsocket://bench.lab:5001::INSTR"),
])  # fmt: skip
def test_a_port_may_be_given_by_any_of_its_names(address, visa):
    assert Wheel("wheel", address=address)._address_ == visa


def test_a_port_that_is_not_there_does_not_open():
    with pytest.raises(DeviceOpenError, match="no_such_port"):
        Wheel("wheel", address="/dev/no_such_port").open()


def test_a_port_of_a_simulation_behaves_as_pyserial_says():
    library = build_library([Instrument(SERIAL, "thorlabs_fw102c")], clock="virtual")
    manager = pyvisa.ResourceManager(library)
    resource = manager.open_resource(SERIAL)
    manager.visalib._ignore_warning_in_session[resource.session].add(StatusCode.success_max_count_read)
    port = VisaSerialPort(resource)
    port.timeout = 2.0
    began = library.bench.clock.time()
    assert port.write(b"pos?\r") == 5
    assert port.read(100) == b"pos?\r1\r> "  # what came until the time was over
    assert 2.0 <= library.bench.clock.time() - began < 2.5
    port.timeout = 0
    assert port.read(5) == b""
    port.close()
    with pytest.raises(serial.PortNotOpenError):
        port.read(1)
    port.open()
    library.disconnect(SERIAL)
    for operation in (lambda: port.read(1), lambda: port.write(b"x"), lambda: port.in_waiting):
        with pytest.raises(serial.SerialException):
            operation()
    manager.close()
