"""Making a device safe gets the wire after one short exchange, or says what holds it; and how a driver waits."""

from __future__ import annotations

import threading
import time

import pytest

from catkit_devices import Control, VisaDevice, unlocked
from catkit_devices.errors import (
    DeviceFaultError,
    DeviceProtocolError,
    DeviceTimeoutError,
    MutexBrokenError,
    OperationCancelled,
)
from catkit_devices.simulation import Instrument, Outbox, build_library

STREAM = "TCPIP0::192.0.2.1::5025::SOCKET"
MESSAGES = "USB0::0x1313::0x8078::P0001::0::INSTR"
LONG = 60.0
"""Seconds; what takes a fraction of it has not waited for the end of an exchange that takes so long."""


class LaserInstrument:
    """A laser with overlapped commands: it answers other questions while it is busy (IEEE 488.2, 12)."""

    message_end = b"\n"

    def __init__(self, bench, *, output=True, busy=LONG):
        self.bench = bench
        self.output = output
        self.asked = []
        self.note = lambda: None
        """Called with every question."""
        self._busy = busy
        self._until = 0.0
        self._pending = False
        self._status = 128 + 1
        self._received = b""
        self._outbox = Outbox(bench.clock)
        self._late = Outbox(bench.clock)

    def feed(self, data):
        self._received += data
        while b"\n" in self._received:
            line, _end, self._received = self._received.partition(b"\n")
            self.asked.append(line.decode())
            self.note()
            self._obey(line.decode())
        return self._outbox.take() + self._late.take()

    def _obey(self, line):
        now = self.bench.clock.time()
        if self._pending and now >= self._until:
            self._pending, self._status = False, self._status | 1
        match line.split():
            case ["*IDN?"]:
                self._say("ACME,LASER")
            case ["OUTP?"]:
                self._say(f"{self.output:d}")
            case ["OUTP", value]:
                self.output = value == "1"
            case ["CAL"]:
                self._until = now + self._busy
            case ["*OPC?"]:
                self._late.put(b"1\n", at=self._until)
            case ["*OPC"] if now < self._until:
                self._pending = True
            case ["*OPC"]:
                self._status |= 1
            case ["*ESR?"]:
                self._say(str(self._status))
                self._status = 0
            case ["CAL:STATE?"]:
                self._say("BUSY" if now < self._until else "IDLE")
            case ["SLOW?"]:
                self._late.put(b"slow\n", 0.3)
            case _:
                self._status |= 32

    def _say(self, text):
        self._outbox.put(text.encode() + b"\n")


class Laser(VisaDevice):
    identity = "ACME,LASER"

    output = Control("OUTP?", "OUTP {:d}", type=bool, doc="Output of the laser.")

    def _make_safe(self):
        self._write("OUTP 0")
        if self._query("OUTP?") != "0":
            raise DeviceProtocolError("it is still on", **self._facts())

    def calibrate(self, timeout=LONG):
        """Calibrate, as it should be written."""
        self._wait_for_completion("CAL", timeout)

    def calibrate_by_state(self):
        """Calibrate, asking a question of the instrument's own."""
        self._wait_for_completion("CAL", LONG, lambda: self._query("CAL:STATE?") == "IDLE")

    def dwell(self):
        """Wait with the wire held."""
        with self._transaction():
            self._query("OUTP?")
            self.wait(LONG)

    @unlocked
    def ask_again_and_again(self, ended):
        """Do whole exchanges, one after the other."""
        while not ended():
            self._query("OUTP?")


@pytest.fixture
def make():
    """Make lasers at addresses of one bench: ``laser, instrument = make(address, clock=..., **options)``."""
    made = []
    libraries = {}

    def build(address=STREAM, *, clock="real", name="laser", busy=LONG, **options):
        library = libraries.get(address)
        if library is None:
            library = libraries[address] = build_library([Instrument(address, LaserInstrument, {"busy": busy})],
                                                         clock=clock)  # fmt: skip
        laser = Laser(name, address=address, visa_library=library, late_window=0.1, **options)
        laser.open()
        made.append(laser)
        return laser, library.instrument(address)

    yield build
    for laser in made:
        laser.reset()
        laser.close(force=True)


class Meanwhile:
    """An operation in another thread, and what came of it."""

    def __init__(self, operation, *args):
        self.outcome = None
        self._thread = threading.Thread(target=self._run, args=(operation, args))
        self._thread.start()

    def _run(self, operation, args):
        try:
            self.outcome = operation(*args)
        except BaseException as error:
            self.outcome = error

    def join(self):
        self._thread.join(LONG)
        return self.outcome


def busy_asking(instrument, question="*OPC?"):
    return lambda: question in instrument.asked


# --- an emergency while the wire is in use


def test_a_long_exchange_gives_up_the_wire_to_make_safe(make, until):
    laser, instrument = make()
    laser.write("CAL")
    asking = Meanwhile(laser.query, "*OPC?", LONG)
    until(busy_asking(instrument))
    begun = time.monotonic()
    laser.make_safe()
    assert not instrument.output
    assert laser.state == "open"
    assert isinstance(asking.join(), OperationCancelled)
    assert "made safe" in str(asking.outcome)
    assert time.monotonic() - begun < LONG / 3
    assert laser.output is False, "the line is not to be trusted any more"


def test_a_long_exchange_of_another_device_at_the_address_gives_up_the_wire_to_make_safe(make, until):
    laser, instrument = make()
    other, _instrument = make(name="other")
    laser.write("CAL")
    asking = Meanwhile(other.query, "*OPC?", LONG)
    until(busy_asking(instrument))
    begun = time.monotonic()
    laser.make_safe()
    assert not instrument.output
    assert isinstance(asking.join(), OperationCancelled)
    assert time.monotonic() - begun < LONG / 3


def test_a_wait_that_holds_the_wire_gives_it_up_to_make_safe(make, until):
    laser, instrument = make()
    dwelling = Meanwhile(laser.dwell)
    until(busy_asking(instrument, "OUTP?"))
    begun = time.monotonic()
    laser.make_safe()
    assert not instrument.output
    assert isinstance(dwelling.join(), OperationCancelled)
    assert time.monotonic() - begun < LONG / 3


def test_a_short_exchange_ends_before_the_device_is_made_safe(make, until):
    laser, instrument = make()
    asking = Meanwhile(laser.query, "SLOW?")
    until(busy_asking(instrument, "SLOW?"))
    laser.make_safe()
    assert asking.join() == "slow"
    assert not instrument.output


@pytest.mark.parametrize("address", [STREAM, MESSAGES])
def test_an_operation_that_is_cancelled_between_its_question_and_the_reply_leaves_the_line_in_step(make, address):
    laser, instrument = make(address)
    instrument.note = lambda: laser.mutex.break_("the operator wants it")
    asking = Meanwhile(laser.query, "OUTP?")
    asking.join()
    instrument.note = lambda: None
    instrument.asked.clear()
    assert laser.output is True
    assert instrument.asked == ["OUTP?"], "the line was silent for late_window, and the instrument was asked who it is"


def test_where_a_read_cannot_be_ended_early_the_error_names_the_exchange_that_has_the_wire(make, until):
    laser, instrument = make(MESSAGES, safe_timeout=0.7)
    laser.write("CAL")
    asking = Meanwhile(laser.query, "*OPC?", 3.0)
    until(busy_asking(instrument))
    with pytest.raises(DeviceFaultError, match=r"not done in 0.7 s; .*in use for .* s by 'laser': '\*OPC\?'"):
        laser.make_safe()
    assert laser.state == "fault"
    assert isinstance(asking.join(), DeviceTimeoutError)
    until(lambda: not instrument.output)  # late, but it was not forgotten


def test_make_safe_gets_the_wire_before_everybody_else_who_waits(make, until):
    laser, instrument = make()
    others = [make(name=f"other {number}")[0] for number in range(4)]
    while_it_waited = []
    transport = laser._exchanges_.transport
    instrument.note = lambda: while_it_waited.append(instrument.asked[-1]) if transport._urgent else None
    ended = threading.Event()
    greedy = [Meanwhile(other.ask_again_and_again, ended.is_set) for other in others]
    for _ in range(20):
        asked = len(instrument.asked)
        until(lambda asked=asked: len(instrument.asked) > asked + 20)
        while_it_waited.clear()
        laser.make_safe()
        # It has two exchanges, and each waits for the one that was under way.
        assert len(while_it_waited) <= 2, while_it_waited
        assert not instrument.output
    ended.set()
    assert [one.join() for one in greedy] == [None] * 4


# --- waiting for completion


@pytest.mark.parametrize("address", [STREAM, MESSAGES])
@pytest.mark.parametrize("calibrate", ["calibrate", "calibrate_by_state"])
def test_completion_is_waited_for_in_short_exchanges(make, address, calibrate):
    laser, instrument = make(address, clock="virtual", busy=30.0)
    clock = laser._visa_library_.bench.clock
    begun = clock.time()
    getattr(laser, calibrate)()
    assert 30.0 <= clock.time() - begun < 31.0
    questions = instrument.asked.count("*ESR?") + instrument.asked.count("CAL:STATE?")
    assert questions > 100


def test_a_user_can_wait_for_completion_too(make):
    laser, instrument = make(clock="virtual", busy=30.0)
    laser.wait_for_completion("CAL", timeout=40.0)
    assert instrument.bench.clock.time() >= 30.0


def test_an_earlier_completion_is_not_taken_for_this_one(make):
    laser, instrument = make(
        clock="virtual", busy=30.0
    )  # whose register says that all is complete, and was switched on
    with pytest.raises(DeviceTimeoutError, match=r"not complete in 5 s.*CAL"):
        laser.calibrate(timeout=5.0)
    assert laser.output is True, "the line is in order"
    assert instrument.asked.count("*ESR?") > 20


def test_a_refused_command_is_not_reported_as_complete(make):
    laser, _instrument = make(clock="virtual")
    with pytest.raises(DeviceProtocolError, match="refused, or failed: command error"):
        laser.wait_for_completion("NONSENSE", timeout=5.0)


@pytest.mark.parametrize("address", [STREAM, MESSAGES])
def test_a_device_is_made_safe_while_its_completion_is_waited_for(make, until, address):
    laser, instrument = make(address)
    calibrating = Meanwhile(laser.calibrate)
    until(busy_asking(instrument, "*OPC"))
    begun = time.monotonic()
    laser.make_safe()
    assert time.monotonic() - begun < LONG / 3
    assert not instrument.output
    laser.mutex.break_("the test is over")
    assert isinstance(calibrating.join(), MutexBrokenError)
