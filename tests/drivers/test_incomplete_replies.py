"""How long a reply may take, and what one that did not come says, also in another process."""

import copy
from types import SimpleNamespace

import pytest
from pyvisa import VisaIOError, constants
from pyvisa.constants import InterfaceType, StatusCode

from catkit_devices._wire.byte_stream import IncompleteReplyError, Line

TIMEOUT = 2.0
TOLD = InterfaceType.asrl, "INSTR"
NOT_TOLD = InterfaceType.tcpip, "SOCKET"
"""Through the library of a vendor."""
MESSAGES = InterfaceType.usb, "INSTR"


class Wire:
    """An opened resource whose bytes come one after the other, and the clock by which they come.

    Args:
        kind: interface and class of the resource.
        reply: what comes.
        rate: bytes per second.
    """

    session = 1
    resource_class = interface_type = timeout = None

    def __init__(self, kind, reply, rate):
        self.interface_type, self.resource_class = kind
        self.visalib = self
        self.reply, self.rate, self.now, self.taken = reply, rate, 0.0, 0
        self.ends_at = None

    def monotonic(self):
        return self.now

    @property
    def bytes_in_buffer(self):
        return min(len(self.reply), int(self.now * self.rate + 1e-6)) - self.taken

    def set_visa_attribute(self, attribute, value):
        if attribute == constants.ResourceAttribute.termchar:
            self.ends_at = value
        if attribute == constants.ResourceAttribute.termchar_enabled and not value:
            self.ends_at = None

    def read(self, session, count):
        wanted = self.reply[self.taken : self.taken + count]
        if self.ends_at is not None and (end := wanted.find(self.ends_at)) >= 0:
            wanted = wanted[: end + 1]
        there = (self.taken + len(wanted)) / self.rate
        if len(wanted) == 0 or there > self.now + self.timeout / 1000:
            self.now += self.timeout / 1000
            raise VisaIOError(StatusCode.error_timeout)
        self.now = max(self.now, there)
        self.taken += len(wanted)
        ended = self.taken == len(self.reply) and self.interface_type == InterfaceType.usb
        return wanted, StatusCode.success if ended else StatusCode.success_max_count_read


@pytest.fixture
def line(monkeypatch):
    def opened(kind, reply, rate):
        wire = Wire(kind, reply, rate)
        monkeypatch.setattr("catkit_devices._wire.byte_stream.time", SimpleNamespace(monotonic=wire.monotonic))
        return Line(wire, {}), wire

    return opened


def nothing():
    pass


@pytest.mark.parametrize(("kind", "rate"), [(TOLD, 200), (NOT_TOLD, 20_000), (MESSAGES, 20_000)])
def test_a_long_reply_that_flows_may_take_much_longer_than_its_timeout(line, kind, rate):
    reply = b"1" * rate * 10 + b"\n"

    for read in (
        lambda stream: stream.read_message(b"\n", TIMEOUT, nothing),
        lambda stream: stream.read_bytes(len(reply), TIMEOUT, nothing).removesuffix(b"\n"),
    ):
        stream, wire = line(kind, reply, rate)
        assert read(stream) == reply[:-1]
        assert wire.now >= 10


@pytest.mark.parametrize("kind", [TOLD, NOT_TOLD])
def test_a_reply_that_comes_in_drops_is_given_up(line, kind):
    for read in (
        lambda stream: stream.read_message(b"\n", TIMEOUT, nothing),
        lambda stream: stream.read_bytes(1000, TIMEOUT, nothing),
    ):
        stream, wire = line(kind, b"1" * 1000, 0.6)
        with pytest.raises(IncompleteReplyError, match="only b'1' in 2 s"):
            read(stream)
        assert wire.now <= 2 * TIMEOUT


def test_a_long_reply_that_stops_says_how_much_has_come(line):
    stream, _ = line(TOLD, b"1" * 1000, 500)
    with pytest.raises(IncompleteReplyError, match="after 1000 bytes, which begin with b'1+', no 256 more in 2 s"):
        stream.read_bytes(2000, TIMEOUT, nothing)


def test_a_reply_that_did_not_come_to_its_end_is_the_same_error_in_another_process():
    there = copy.copy(IncompleteReplyError(2.0, b"1.5"))  # made again as when it is unpickled
    assert (str(there), there.received) == ("only b'1.5' in 2 s", b"1.5")
