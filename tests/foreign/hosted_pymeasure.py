"""PyMeasure's own tests on our devices: ``pytest -p hosted_pymeasure tests/instruments``, in its source distribution.

It puts a device in the place of the instrument that ``expected_protocol`` makes: every property and method that a test
uses is an operation of the device, under its mutex, on a simulated line that serves the table of the test.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import pkgutil
from importlib import import_module
from pathlib import Path
from unittest import mock

from catkit_devices.components import Component
from catkit_devices.drivers import Plugins
from catkit_devices.errors import CatkitDevicesError
from catkit_devices.foreign.device import ForeignVisaDevice
from catkit_devices.foreign.generate import made_from
from catkit_devices.simulation import Instrument, LineDroppedError, VirtualClock, build_library

REACHED = "HOSTED_PYMEASURE_REACHED"
"""Environment variable with the file that gets a line for each test that used what is no operation."""

_classes = {}


class Table:
    """An instrument that expects what a table of PyMeasure says, and answers so.

    Like PyMeasure's own, it compares without terminations, and however a command is divided into writes.
    """

    def __init__(self, bench, *, pairs=(), terminations=("", "")):
        self.pairs = [tuple(None if side is None else to_bytes(side) for side in pair) for pair in pairs]
        self.written = b""
        self.problem = None
        self._read_end, self._write_end = (end.encode() for end in terminations)
        self._replies = []
        self._answer_unasked()

    def feed(self, data):
        if data:
            self.written += data
            self._compare()
        return self._replies.pop(0) if self._replies else b""

    def _compare(self):
        if not self.pairs:
            self.problem = f"{self.written!r} was sent, and nothing more was expected"
            return
        expected, answer = self.pairs[0]
        for written in (self.written, self.written.removesuffix(self._write_end)):
            if written == expected:
                self.written = b""
                del self.pairs[0]
                self._answer(answer)
                return
        if not (expected or b"").startswith(self.written.removesuffix(self._write_end)):
            self.problem = f"{self.written!r} was sent, {expected!r} was expected"

    def _answer(self, answer):
        if answer is not None:
            self._reply(answer)
        self._answer_unasked()

    def _reply(self, answer):
        self._replies.append(answer if self._read_end and answer.endswith(self._read_end) else answer + self._read_end)

    def _answer_unasked(self):
        while self.pairs and self.pairs[0][0] is None:
            answer = self.pairs.pop(0)[1]
            if answer is not None:
                self._reply(answer)


def to_bytes(command):
    from pymeasure.adapters.protocol import to_bytes as theirs

    return theirs(command)


class _Captured(Exception):
    pass


def line_settings(cls, **options):
    """What a class gives to pyvisa, learned from its constructor, which is interrupted where it opens the line."""
    from pymeasure.instruments import instrument

    def capture(*_args, **kwargs):
        raise _Captured(kwargs)

    given = {}
    with mock.patch.object(instrument, "VISAAdapter", capture), contextlib.suppress(Exception):
        try:
            cls(GPIB, **options)
        except _Captured as captured:
            given = captured.args[0]
    return given


SERIAL, GPIB = "ASRL5::INSTR", "GPIB0::5::INSTR"
"""Two kinds of lines: plain bytes, and messages with ends."""


def line_for(cls, **options):
    """Return an address that a class takes, and what ends replies and commands there."""
    given = line_settings(cls, **options)
    is_serial = bool({"baud_rate", "baudrate", "parity", "data_bits", "stop_bits"} & set(given))
    ends = {**(given.get("asrl" if is_serial else "gpib") or {}), **given}
    ends = ends.get("read_termination") or "", ends.get("write_termination", "\r\n") or ""
    return SERIAL if is_serial else GPIB, ends


def device_class_for(cls):
    """The class of devices for an instrument class, without the question what it is, which no table expects."""
    if cls not in _classes:
        source = Plugins().sources["pymeasure"]
        _classes[cls] = made_from(source, cls, dataclasses.replace(source.describe(cls), question=None))
    return _classes[cls]


@contextlib.contextmanager
def expected_protocol(cls, comm_pairs, connection_attributes=None, connection_methods=None, **options):
    """In the place of PyMeasure's: the same table, the same use, through a device."""
    if connection_attributes or connection_methods:
        raise NotImplementedError("a test with a connection of its own")
    address, ends = line_for(cls, **options)
    if address == SERIAL and not ends[0]:
        # VISA ends a read from a serial port at a line feed, where the driver says nothing else (VPP-4.3, 3.3).
        comm_pairs = [(sent, f"{reply}\n" if isinstance(reply, str) else reply) for sent, reply in comm_pairs]
    table = {"pairs": comm_pairs, "terminations": ends}
    library = build_library([Instrument(address, Table, table)], clock=VirtualClock())
    device = device_class_for(cls)(
        "device", address=address, visa_library=library, options=options, safe="nothing", late_window=0.0
    )
    table = library.instrument(address)
    with of_theirs():
        device.open()
    try:
        yield Shown(device)
        assert table.problem is None, table.problem
        assert not table.pairs, f"Unprocessed protocol definitions remain: {table.pairs}"
        assert not table.written, f"Non-empty write buffer remains: {table.written!r}"
    finally:
        device._life_.abandon()


@contextlib.contextmanager
def of_theirs():
    """Raise the foreign error where it has become one of ours, so that ``pytest.raises`` of their tests finds it."""
    try:
        yield
    except CatkitDevicesError as error:
        cause = error.__cause__
        while isinstance(cause, CatkitDevicesError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is None or isinstance(cause, CatkitDevicesError):
            raise
        raise cause from error


class Shown:
    """A device or component as PyMeasure's tests see their instrument: with the names that its members have there."""

    def __init__(self, of):
        object.__setattr__(self, "_of", of)

    def __getattr__(self, name):
        return self._get(name)

    def _get(self, name):
        own = (
            f"{name}_"
            if isinstance(getattr_static(type(self._of), f"{name}_"), object) and is_renamed(self._of, name)
            else name
        )
        member = getattr_static(type(self._of), own)
        if member is None or (own == name and inherited(self._of, name)):
            note_reached(name)
            return getattr(self._of._target_(), name)
        with of_theirs():
            value = getattr(self._of, own)
        if inspect.ismethod(value) or inspect.isfunction(value):
            return called(value)
        if isinstance(value, Component):
            return Shown(value)
        if isinstance(value, dict) and any(isinstance(one, Component) for one in value.values()):
            return {key: Shown(one) for key, one in value.items()}
        return value

    def __setattr__(self, name, value):
        own = f"{name}_" if is_renamed(self._of, name) else name
        if getattr_static(type(self._of), own) is None or (own == name and inherited(self._of, name)):
            note_reached(name)
            setattr(self._of._target_(), name, value)
            return
        with of_theirs():
            setattr(self._of, own, value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._get("shutdown")()


def is_renamed(of, name):
    return inherited(of, name) and getattr_static(type(of), f"{name}_") is not None


def inherited(of, name):
    """Whether every device or component has the name, so that it is none of PyMeasure's."""
    base = Component if isinstance(of, Component) else ForeignVisaDevice
    return hasattr(base, name)


def getattr_static(cls, name):
    return inspect.getattr_static(cls, name, None)


def called(method):
    def call(*args, **kwargs):
        with of_theirs():
            return method(*args, **kwargs)

    return call


def note_reached(name):
    if REACHED in os.environ:
        with Path(os.environ[REACHED]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0], name]) + "\n")


def pytest_configure(config):
    import pymeasure.test

    pymeasure.test.expected_protocol = expected_protocol


ANSWERS = (b"0", b"1", b"1,1,1,1,1,1,1,1", b"MAKER,M1.0,1,1.0,1", b"+1", b"00", b"ERR 0")
"""What the scripted line answers to everything, one after the other until an instrument can be opened on it."""


class Answering:
    """An instrument that gives one answer to whatever it is asked."""

    def __init__(self, bench, *, answer, always=False):
        self._answer, self._always, self._asked = answer, always, 0

    def feed(self, data):
        self._asked += 1
        if self._asked > 500:  # somebody asks until the answer is another one
            raise LineDroppedError("asked too often")
        return self._answer + b"\r\n" if data and (self._always or b"?" in data) else b""


def opened_on_a_script(cls, **options):
    """Open a device for an instrument class on a scripted line, describe and close it; return what it has."""
    made = device_class_for(cls)
    address, _ends = line_for(cls, **options)
    failure = None
    for always, answer in [(always, answer) for always in (False, True) for answer in ANSWERS]:
        simulator = Instrument(address, Answering, {"answer": answer, "always": always})
        library = build_library([simulator], clock=VirtualClock())
        device = made("device", address=address, visa_library=library, options=options, safe="nothing", late_window=0)
        try:
            device.open()
            described = device.describe()
            device.close()
        except Exception as error:
            failure = failure or error
            device._life_.abandon()
        else:
            return described
    raise failure


def instrument_classes():
    """Every instrument class of PyMeasure whose module can be imported, and why the others cannot."""
    import pymeasure.instruments as package

    classes, problems = [], {}
    for found in pkgutil.walk_packages(package.__path__, "pymeasure.instruments."):
        try:
            module = import_module(found.name)
        except Exception as error:
            problems[found.name] = f"{type(error).__name__}: {error}"
            continue
        classes += [
            one
            for one in vars(module).values()
            if inspect.isclass(one) and issubclass(one, package.Instrument) and one.__module__ == module.__name__
        ]
    return classes, problems
