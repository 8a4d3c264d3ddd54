"""Our drivers talk to simulators that others wrote: files of QCoDeS, and a bath of lewis.

Where the two disagreed, the manufacturer's manual was asked, or nothing was decided where there is none here:

* QCoDeS's files answer only to commands spelled as its own drivers send them, name "QCoDeS" as the manufacturer, and
  have no error queue: our drivers of the 2450, the 34461A, the 33500B and the DS1000Z refuse them, rightly.
* Its 336 wants CR LF at the end of a command, calls itself "QCoDeS, m0d3l, 336", has no ``*ESR?``, answers ``ERROR``
  to a command that it does not know, ``KRDG?`` without a sign and ``RDGST?`` with one digit. By the manual (chapter 6)
  LF is enough, the name is ``LSCI,MODEL336``, a refused command sets a bit of ``*ESR?`` without a reply, and replies
  have the forms ``+nnn.nn`` and ``nnn``. Two commands in one message get one message in IEEE 488.2, with a semicolon
  between the replies, two messages in pyvisa-sim. The test corrects all this; then readings and settings agree.
* The bath of lewis answers each setting with an empty line.
* sinstruments 1.5.0 ships one simulator, of Elettra's electrometers, which ends each connection with a TypeError at the
  first command. So nothing is tried with it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from importlib.resources import files

import pytest

from catkit_devices import Control, Measurement, VisaDevice
from catkit_devices.drivers import create_device
from catkit_devices.errors import DeviceOpenError, DeviceProtocolError
from catkit_devices.simulation import Instrument, VirtualClock, YamlInstrument, build_library

GPIB = "GPIB0::12::INSTR"


def library_of(file, simulator=None):
    options = {"device": "device 1"} | ({"path": file, "address": GPIB} if simulator else {})
    return build_library([Instrument(GPIB, simulator or file, options)], clock=VirtualClock())


class Joining(YamlInstrument):
    """An instrument that answers several commands in one message by one message (IEEE 488.2, 8.4.1)."""

    def answer(self, message):
        replies = super().answer(message).split(b"\r\n")[:-1]
        return b";".join(replies) + b"\r\n" if replies else b""


def test_our_driver_of_the_336_uses_the_one_of_qcodes(tmp_path):
    text = files("qcodes.instrument.sims").joinpath("lakeshore_model336.yaml").read_text()
    file = tmp_path / "336.yaml"
    text = re.sub(r'(q: "KRDG\? .")\s+r: "{}"', r'\1\n          r: "+{}"', text)
    text = re.sub(r'(q: "RDGST\? .")\s+r: "{}"', r'\1\n          r: "000"', text)
    file.write_text(
        text.replace('q: "\\r\\n"', 'q: "\\n"')
        .replace("QCoDeS, m0d3l, 336, 0.0.01", "LSCI,MODEL336,1234567/7654321,1.0")
        .replace("    error: ERROR\n", "")
        .replace("    dialogues:\n", "    dialogues:\n      - {q: '*ESR?', r: '000'}\n")
    )
    device = create_device("lakeshore_336", "controller", {"address": GPIB}, visa_library=library_of(file, Joining))

    with device:
        assert [device.inputs[name].temperature for name in "ABCD"] == [100.0, 100.0, 100.0, 100.0]
        output = device.outputs[1]
        output.setpoint = 4.2
        assert (output.setpoint, output.range) == (4.2, "low")


@pytest.mark.parametrize(
    ("driver", "file", "named"),
    [
        ("keithley_2450", "Keithley_2450.yaml", "QCoDeS, correct mode, model, v0.01"),
        ("keysight_34461a", "Keysight_34465A.yaml", "Keysight, 34465A, 1000"),
        ("keysight_33500b", "Keysight_33xxx.yaml", "QCoDeS, 33522B"),
        ("rigol_ds1000z", "Rigol_DS1074Z.yaml", "QCoDeS, DS1074Z"),
    ],
)
def test_an_instrument_that_calls_itself_otherwise_is_refused(driver, file, named):
    library = library_of(files("qcodes.instrument.sims").joinpath(file))
    device = create_device(driver, "device", {"address": GPIB}, visa_library=library)

    with pytest.raises(DeviceOpenError, match=f"found '{named}"):
        device.open()


class Bath(VisaDevice):
    """A Julabo FP50 bath."""

    read_termination = "\r\n"
    write_termination = "\r"
    io_timeout = 2.0

    def _identify(self):
        if not (found := self._query("VERSION")).startswith("JULABO FP50"):
            raise DeviceProtocolError("a Julabo FP50 was expected", command="VERSION", reply=found)

    def _set(self, command):
        if reply := self._query(command):
            raise DeviceProtocolError("an empty line was expected", command=command, reply=reply)

    temperature = Measurement("IN_PV_00", unit="degC", doc="Temperature of the bath.")
    setpoint = Control(
        "IN_SP_00",
        lambda self, value: self._set(f"OUT_SP_00 {value:.2f}"),
        unit="degC",
        limits=(-94.0, 299.0),
        doc="Temperature to hold.",
    )
    circulating = Control(
        "IN_MODE_05",
        lambda self, value: self._set(f"OUT_MODE_05 {value:d}"),
        type=bool,
        doc="Whether the bath is circulated, and its temperature controlled.",
    )


@pytest.fixture
def bath(until):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    protocol = f"julabo-version-1: {{bind_address: 127.0.0.1, port: {port}}}"
    command = [sys.executable, "-m", "lewis", "julabo", "-p", protocol, "-o", "none"]
    with subprocess.Popen(command) as lewis:
        try:
            until(lambda: listens(port), 60.0)
            with Bath("bath", address=f"TCPIP0::127.0.0.1::{port}::SOCKET", visa_library="@py") as device:
                yield device
        finally:
            lewis.kill()


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def test_a_driver_uses_a_bath_of_lewis(bath, until):
    assert (bath.temperature, bath.circulating) == (24.0, False)
    bath.setpoint, bath.circulating = 24.5, True

    assert (bath.setpoint, bath.circulating) == (24.5, True)
    until(lambda: bath.temperature > 24.0)
