"""What a VISA device does with the messages of programs that know the instrument and not this project."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catkit_devices._wire.program_message import is_question, same_form
from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceTimeoutError, DeviceValueError
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice
from catkit_devices.simulation import Instrument, build_library
from catkit_devices.visa import VisaDevice

USB = "USB0::0x1234::0x5678::RELAY::0::INSTR"
LAN = "TCPIP0::10.0.0.9::5025::SOCKET"


class Source:
    """A supply that also hands out blocks of data."""

    message_end = b"\n"

    def __init__(self, bench):
        self.heard = []
        self.begun = b""

    def feed(self, data):
        self.begun += data
        if b"#3" in self.begun and len(self.begun) < 267:  # a block with anything in it
            return b""
        *lines, self.begun = [self.begun, b""] if b"#3" in self.begun else self.begun.split(b"\n")
        self.heard += lines
        replies = {
            b"*IDN?": b"ACME,Source,1,1", b"VOLT? (@1)": b"1.5", b"VOLT? (@2)": b"2.5", b"CURR?": b"0.1",
            b"DATA?": b"#3256" + bytes(range(256)), b"NOTHING?": b"", b"SYST:ERR?": b'0,"No error"',
        }  # fmt: skip
        return b"".join(replies[line] + b"\n" for line in lines if line in replies)


class Output(Component):
    voltage = Control("VOLT? (@{self.number})", "VOLT {},(@{self.number})", unit="V", doc="Voltage.")


class Supply(VisaDevice):
    identity = "ACME"

    outputs = Components(Output, numbers=(1, 2))
    current = Measurement(":curr?", unit="A", doc="Current.")
    square = Measurement(lambda self: 2.0, doc="Two.")


class Prompting(Supply):
    """It reads replies in a way of its own."""

    def _query(self, command, timeout=None):
        return super()._query(command, timeout).lower()


class Lines(Supply):
    """Its instrument ends lines in another way than most."""

    read_termination = "\r\n"


class LinesSource(Source):
    def feed(self, data):
        return super().feed(data)[:-1] + b"\r\n" if b"?" in data else super().feed(data)


class Scpi(ScpiDevice):
    identity = "ACME"

    errors = "always"


@pytest.fixture(params=[USB, LAN])
def make(request):
    opened = []

    def build(kind, source=Source):
        library = build_library([Instrument(request.param, source)], clock="virtual")
        device = kind("supply", address=request.param, visa_library=library)
        device.open()
        opened.append(device)
        library.instrument(request.param).heard.clear()
        return device, library.instrument(request.param)

    yield build
    for device in opened:
        device.close(force=True)


def test_what_reads_a_property_passes_in_every_spelling(make):
    supply, _source = make(Supply)
    for message in (b"*IDN?", b"*idn?\n", b"*IDN?\r\n"):
        if message.strip().isupper():
            assert supply.relay(message) == b"ACME,Source,1,1\n"
    assert supply.relay(b"VOLT? (@2)\n") == b"2.5\n"
    assert supply.relay(b"CURR?") == b"0.1\n"
    assert supply._is_read_(b":Curr?")
    assert supply._is_read_(b"volt?   (@1)")


@pytest.mark.parametrize("message", [
    b"VOLT 3,(@1)", b"VOLT? (@3)", b"*RST", b"*IDN?;*RST", b"CURR?\nVOLT 3,(@1)", b"CURR?;VOLT? (@1)", b"\xff?", b"",
    b"SYST:ERR?", b"VOLT?\n(@1)", b"VOLT?\r(@1)",
])  # fmt: skip
def test_everything_else_is_refused_and_nothing_is_sent(make, message):
    supply, source = make(Supply)
    with pytest.raises(DeviceValueError, match='gateway = "write"'):
        supply.relay(message)
    assert source.heard == []


def test_anything_is_sent_where_writing_is_allowed(make):
    supply, source = make(Supply)
    assert supply.relay(b"VOLT 3,(@1)\n", read_only=False) == b""
    assert supply.relay(b"NOTHING?", read_only=False) == b"\n"
    assert source.heard == [b"VOLT 3,(@1)", b"NOTHING?"]


@pytest.mark.parametrize("message", [b"CURR?\nCURR?", b"VOLT 3,(@1)\r\nCURR?", b"#15ab\ncd\nCURR?"])
def test_several_messages_in_one_are_refused_because_the_second_reply_could_go_to_somebody_else(make, message):
    supply, source = make(Supply)
    with pytest.raises(DeviceValueError, match="one at a time"):
        supply.relay(message, read_only=False)
    assert source.heard == []


def test_blocks_of_data_pass_in_both_directions_whatever_is_in_them(make):
    supply, source = make(Supply)
    block = b"#3256" + bytes(range(256))
    assert supply.relay(b"DATA?", read_only=False) == block + b"\n"
    assert supply.relay(b"KEEP " + block, read_only=False) == b""
    assert supply.relay(b"CURR?") == b"0.1\n"
    assert source.heard[1] == b"KEEP " + block + b"\n"


def test_a_reply_ends_as_the_instrument_ends_it(make):
    supply, _source = make(Lines, LinesSource)
    assert supply.relay(b"CURR?") == b"0.1\r\n"
    assert supply.relay(b"DATA?", read_only=False) == b"#3256" + bytes(range(256)) + b"\r\n"
    assert supply.relay(b"NOTHING?", read_only=False) == b"\r\n"


def test_a_reply_that_does_not_come_is_an_error_and_the_next_one_is_right(make):
    supply, _source = make(Supply)
    with pytest.raises(DeviceTimeoutError):
        supply.relay(b"SILENT?", read_only=False)
    assert supply.relay(b"CURR?") == b"0.1\n"


def test_a_driver_that_reads_replies_in_its_own_way_is_asked(make):
    supply, _source = make(Prompting)
    assert supply.relay(b"*IDN?") == b"acme,source,1,1\n"


def test_a_driver_that_reads_the_error_queue_does_so(make):
    device, source = make(Scpi)
    device.relay(b"VOLT 3", read_only=False)
    assert source.heard[-2:] == [b"VOLT 3", b"SYST:ERR?"]


def test_reads_change_nothing_and_everything_else_does(make):
    supply, _source = make(Supply)
    supply._access_.forget_changes()
    supply.relay(b"CURR?")
    assert supply._access_.changed_by is None
    supply.relay(b"VOLT 3,(@1)", read_only=False)
    assert supply._access_.changed_by is not None


def test_the_status_byte_is_read_where_there_is_one(make):
    supply, _source = make(Supply)
    assert supply.serial_poll() == 0


@pytest.mark.parametrize(("message", "asks"), [
    (b"*IDN?", True), (b"VOLT 1;CURR?", True), (b"VOLT? (@1)", True), (b"VOLT 3", False), (b"", False), (b"?", True),
    (b'DISP:TEXT "ready?"', False), (b"DISP:TEXT 'a;b?'", False), (b"ARB #13?;?,1", False), (b"ARB #13?;?;A?", True),
    (b"ARB #9", False), (b"X ?", False), (b"#1?", True),
])  # fmt: skip
def test_a_question_is_known_by_its_header(message, asks):
    assert is_question(message) is asks


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60), st.integers(1, 3))
def test_what_is_in_a_block_is_never_a_question(data, digits):
    length = b"%0*d" % (digits, len(data))
    message = b"ARB #%d%s%s" % (len(length), length, data)
    assert not is_question(message)
    assert is_question(message + b";A?")


def test_one_form_for_all_spellings():
    assert same_form(" :volt?  (@1) ") == "VOLT? (@1)"
