"""Exceptions of every kind, each raised by a function of its own; imported by children, so it imports little."""

import dataclasses
import errno
import sys
import threading


class KeywordOnlyError(Exception):
    def __init__(self, *, axis, limit):
        super().__init__(f"axis {axis} is beyond {limit}")
        self.axis = axis
        self.limit = limit


class TwoArgumentsError(Exception):
    def __init__(self, axis, limit):
        super().__init__(f"axis {axis} is beyond {limit}")
        self.axis = axis
        self.limit = limit


class ReformattingError(ValueError):
    def __init__(self, text):
        super().__init__(f"camera: {text}")


class CableError(OSError):
    def __init__(self, port):
        super().__init__(errno.EIO, "cable unplugged", port)
        self.port = port


class StageTimeoutError(TimeoutError):
    def __init__(self, axis, *, seconds):
        super().__init__(f"axis {axis} did not move in {seconds} s")
        self.axis = axis
        self.seconds = seconds


class TupleNewError(Exception):
    def __new__(cls, first, second, third):
        return super().__new__(cls, first)

    def __init__(self, first, second, third):
        super().__init__(first)
        self.rest = (second, third)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    axis: str
    limit: int


class SlotsError(Exception):
    __slots__ = ("axis", "limit")

    def __init__(self, axis):
        super().__init__("slots")
        self.axis = axis
        self.limit = None


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class LoadsBadlyError(Exception):
    """Loads by calling something that is not there."""

    def __init__(self):
        super().__init__("it was loaded badly")

    def __reduce__(self):
        return _fails_on_load, ()


class BadAttribute:
    def __reduce__(self):
        return _fails_on_load, ()

    def __repr__(self):
        return "<a bad attribute>"


def _fails_on_load():
    raise ImportError("the library of this class is not here")


class SampleGroup(ExceptionGroup):
    def __new__(cls, message, errors, run):
        made = super().__new__(cls, message, errors)
        made.run = run
        return made

    def derive(self, errors):
        return SampleGroup(self.message, errors, self.run)


def plain():
    raise ValueError("position must be 1 to 6, got 9", 9)


def with_attributes_and_notes():
    error = RuntimeError("the filter wheel is stuck")
    error.slot = 4
    error.history = [1, 2, {"three": 3.0}]
    error.add_note("at 21 degrees")
    error.add_note("twice today")
    raise error


def with_cause():
    try:
        _low_level()
    except ZeroDivisionError as error:
        raise RuntimeError("no reading") from error


def with_context():
    try:
        _low_level()
    except ZeroDivisionError:
        raise RuntimeError("while recovering")  # noqa: B904


def with_suppressed_context():
    try:
        _low_level()
    except ZeroDivisionError:
        raise RuntimeError("while recovering") from None


def _low_level():
    return 1 // 0


def group():
    errors = []
    for function in (plain, with_cause):
        try:
            function()
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("two failed", [*errors, ExceptionGroup("inner", [KeyError("k")])])


def own_group():
    raise SampleGroup("samples", [ValueError(1)], 42)


def base_group():
    raise BaseExceptionGroup("with Ctrl-C", [KeyboardInterrupt(), ValueError("x")])


def group_in_a_circle():
    """A member of a group has the group as its context."""
    member = ValueError("member")
    whole = ExceptionGroup("whole", [member])
    member.__context__ = whole
    raise whole


def circle():
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    raise first


def long_chain():
    error = ValueError("the first")
    for number in range(3000):
        later = ValueError(f"number {number}")
        later.__context__ = error
        error = later
    raise error


def keyword_only():
    raise KeywordOnlyError(axis="x", limit=6)


def two_arguments():
    raise TwoArgumentsError("x", 6)


def reformatting():
    raise ReformattingError("overexposed")


def os_subclass():
    raise CableError("/dev/ttyUSB0")


def timeout_subclass():
    raise StageTimeoutError("x", seconds=2.5)


def own_new():
    raise TupleNewError("one", "two", "three")


def frozen():
    raise FrozenError("x", 6)


def slots():
    raise SlotsError("x")


def locally_defined():
    class LocalError(LookupError):
        def __init__(self, *, axis):
            super().__init__(f"local {axis}")
            self.axis = axis

    raise LocalError(axis="x")


def large():
    raise ValueError("x" * 20_000_000)


def unpicklable_attribute():
    error = ValueError("it holds a lock")
    error.lock = threading.Lock()
    error.axis = "x"
    raise error


def unpicklable_argument():
    raise ValueError("it holds a lock", threading.Lock())


def bad_attribute():
    error = ValueError("its attribute does not load")
    error.bad = BadAttribute()
    error.axis = "x"
    raise error


def bad_argument():
    raise ValueError("its argument does not load", BadAttribute())


def loads_badly():
    raise LoadsBadlyError


def mute():
    raise MuteError("silence")


def visa():
    from pyvisa.constants import StatusCode
    from pyvisa.errors import VisaIOError

    raise VisaIOError(StatusCode.error_timeout)


def pint_dimensions():
    import pint

    registry = pint.UnitRegistry(None)
    registry.define("meter = [length]")
    registry.define("second = [time]")
    registry.Quantity(1, "meter").to("second")


def pint_undefined():
    import pint

    pint.UnitRegistry(None).Quantity(1, "furlongs_per_fortnight")


def missing_file():
    open("/nonexistent/file")  # noqa: SIM115


def unicode():
    b"\xff".decode()


def missing_attribute():
    holder = threading.Lock()
    holder.nothing  # noqa: B018


def recursion():
    def deeper(n):
        return deeper(n + 1) + 1

    sys.setrecursionlimit(5000)
    try:
        deeper(0)
    finally:
        sys.setrecursionlimit(1000)


def interrupted():
    raise KeyboardInterrupt


class Raiser:
    """Shared by a server."""

    def raise_(self, name):
        globals()[name]()

    def answer(self):
        return 42
