from __future__ import annotations

import sys

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.simulation import Instrument, VirtualClock, build_library

TAKE_LONG = {"test_a_fault_on_the_line_is_survived", "test_it_works_from_two_processes"}
"""What is tried with a few of the bundled drivers by default, and with all of them with ``--whole``."""

A_FEW = {
    "TestFW102C",  # lines with a prompt
    "TestLC400",  # frames
    "TestMFF101",  # frames with a header
    "TestTSP01",  # SCPI over USB
    "Test2450",  # SCPI over the network
    "TestDliPowerSwitch",  # HTTP
}
"""The suites of these drivers: one for each way to talk to an instrument."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave what takes long to ``--whole``."""
    for item in items:
        if (
            item.path.name == "test_conformance.py"
            and item.originalname in TAKE_LONG
            and item.cls.__name__ not in A_FEW
        ):
            item.add_marker("whole")


class Script:
    """A simulated instrument that answers each command by a list of replies in turn, or always by the same one.

    ``sent`` is what came over the wire; nothing is answered to what the script does not know.
    """

    message_end = b"\n"

    def __init__(self, bench, *, replies, end=b"\n"):
        self.bench = bench
        self.sent = []
        self._replies = {key: list(value) if isinstance(value, list) else value for key, value in replies.items()}
        self._end = end
        self._received = b""

    def feed(self, data):
        self._received += data
        reply = b""
        while self._end in self._received:
            line, _end, self._received = self._received.partition(self._end)
            self.sent.append(line)
            answer = self._replies.get(line, b"")
            reply += answer.pop(0) if isinstance(answer, list) else answer
        return reply


class Bytes(Script):
    """The same with frames in place of lines: what is written at once is one command."""

    def feed(self, data):
        if not data:
            return b""
        self.sent.append(data)
        answer = self._replies.get(data, b"")
        return answer.pop(0) if isinstance(answer, list) else answer


@pytest.fixture(scope="module", autouse=True)
def _children_begin_ready(ready_children):
    """How processes are started is shown in ``sharing``."""


@pytest.fixture
def often():
    """Let threads take turns as often as they can, so that what can interleave does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def script():
    return Script


@pytest.fixture
def frames():
    return Bytes


@pytest.fixture
def simulated(serve):
    """Open a driver, on its own simulator or on another one: ``device, simulator = simulated(driver, address)``."""
    opened = []

    def build(driver, address="ASRL7::INSTR", simulator=None, *, opens=True, options=None, **simulator_options):
        library = serve(address, simulator or driver, **simulator_options)
        device = create_device(driver, "device", {"address": address, **(options or {})}, visa_library=library)
        if opens:
            device.open()
            opened.append(device)
        return device, library.instrument(address)

    yield build
    for device in opened:
        if device.state == "fault":
            device._life_.abandon()
        device.close(force=True)


@pytest.fixture
def serve():
    """Serve one simulator at an address on a virtual clock: ``library = serve(address, simulator, **options)``."""

    def build(address, simulator, bench=None, **options):
        return build_library([Instrument(address, simulator, options)], bench=bench, clock=VirtualClock())

    return build
