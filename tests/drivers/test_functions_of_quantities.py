"""What the functions of a quantity return is checked as a reply is, and what they get is of the declared type."""

import enum
import math
from decimal import Decimal
from fractions import Fraction

import astropy.units
import numpy as np
import pytest

from catkit_devices import units
from catkit_devices._device.values import Rule
from catkit_devices.device import Device
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Control, Measurement


class Mode(enum.Enum):
    SLOW = "S"
    FAST = "F"


def read(device):
    return device._found


def keep(device, value):
    device._got.append(value)


class Wrapped(Device):
    """A device without a wire, as around a vendor's SDK."""

    amount = Control(read, keep, limits=(0, 5), doc="Amount.")
    power = Control(read, keep, type=float, unit="mW", limits=(0, None), doc="Power.")
    count = Control(read, keep, type=int, limits=(0, 2**62), doc="Count.")
    enabled = Control(read, keep, type=bool, doc="Output.")
    label = Control(read, keep, type=str, doc="Label.")
    speed = Control(read, keep, choices=("slow", "fast"), doc="Speed.")
    mode = Control(read, keep, type=Mode, doc="Mode.")
    pair = Measurement(read, type=tuple, doc="Row and column.")
    exact = Measurement(read, type=Decimal, doc="Price.")
    scaled = Measurement(read, type=lambda reply: float(reply), unit="W", doc="Power.")

    def _open(self):
        self._found, self._got = None, []
        return self


@pytest.fixture
def wrapped():
    with Wrapped("wrapped") as device:
        yield device


@pytest.mark.parametrize(
    ("name", "found", "value"),
    [
        ("amount", 3, 3.0), ("amount", np.float32(0.5), 0.5), ("amount", Decimal("0.5"), 0.5), ("amount", "0.5", 0.5),
        ("amount", np.array(2), 2.0), ("power", 2, 2.0), ("power", units.quantity(1, "W"), 1000.0),
        ("count", 3.0, 3), ("count", np.int16(3), 3), ("count", 2**53 + 1, 2**53 + 1), ("count", " +3\r\n", 3),
        ("enabled", np.True_, True), ("enabled", 1, True), ("enabled", "OFF", False), ("enabled", "1.0E0", True),
        ("label", "", ""), ("speed", "fast", "fast"), ("mode", Mode.FAST, Mode.FAST), ("mode", "F", Mode.FAST),
        ("pair", (1, 2), (1, 2)), ("scaled", units.quantity(3, "mW"), 0.003),
        ("exact", Decimal("0.1"), Decimal("0.1")), ("exact", " 0.1", Decimal("0.1")), ("exact", 2, Decimal(2)),
        ("exact", 0.1, Decimal("0.1")), ("label", np.str_("text"), "text"), ("scaled", 3 * astropy.units.mW, 0.003),
        ("power", 3 * astropy.units.W, 3000.0), ("count", 3 * astropy.units.one, 3),
    ],
)  # fmt: skip
def test_the_result_of_a_function_becomes_a_plain_value_of_the_declared_type(wrapped, name, found, value):
    wrapped._found = found

    got = getattr(wrapped, name)

    assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize(
    ("found", "value"),
    [(9.91e37, math.nan), (math.nan, math.nan), (9.9e37, math.inf), ("-9.9E37", -math.inf),
     (units.quantity(math.nan, "W"), math.nan)],
)  # fmt: skip
def test_a_function_may_return_that_there_is_no_measurement(wrapped, found, value):
    wrapped._found = found

    assert wrapped.power == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *[("amount", found) for found in ("", "error", "1,5", None, True, b"1", [1.0], np.ones(2), 1j, object())],
        ("amount", np.ma.masked), ("power", units.quantity(1, "V")), ("power", "2 mW"),
        *[("count", found) for found in ("", "2.5", 2.5, None, False, math.nan, 9.9e37)],
        *[("enabled", found) for found in ("", "maybe", None, 2, 0.5, [])],
        *[("label", found) for found in (None, 5, b"x")],
        *[("speed", found) for found in ("", "medium", None, 0)],
        *[("mode", found) for found in ("", "X", None)],
        *[("scaled", found) for found in ("", None, True, units.quantity(1, "V"), 3 * astropy.units.V)],
        ("scaled", np.ones(2) * astropy.units.V), ("amount", 3 * astropy.units.W), ("power", 3 * astropy.units.V),
        ("power", 3 * astropy.units.dB(astropy.units.mW)), ("enabled", np.ma.array(True, mask=True)),
        ("enabled", 1 * astropy.units.V),
        *[("exact", found) for found in ("", "much", None, True, b"1", [1.0], 1j, np.ones(2))],
    ],
)  # fmt: skip
def test_a_function_that_returns_something_else_is_a_protocol_error_that_names_it(wrapped, name, found):
    wrapped._found = found

    with pytest.raises(DeviceProtocolError, match=rf"^device 'wrapped' \(Wrapped\): {name}: .*(expected|must be)"):
        getattr(wrapped, name)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("amount", 3, 3.0), ("amount", np.int8(3), 3.0), ("power", "3 W", 3000.0), ("count", 3, 3), ("count", 3.0, 3),
        ("count", np.int64(2**53 + 1), 2**53 + 1), ("count", np.array(2**53 + 1), 2**53 + 1),
        ("count", "9007199254740993", 2**53 + 1), ("count", "9007199254740993.0", 2**53 + 1),
        ("count", Decimal(2**53 + 1), 2**53 + 1), ("count", Fraction(2**53 + 1), 2**53 + 1),
        ("count", units.quantity(2**53 + 1, None), 2**53 + 1),
        ("power", units.quantity(1234567890123457.0, "mW"), 1234567890123457.0),
        ("enabled", 1, True), ("mode", "FAST", Mode.FAST), ("power", 3 * astropy.units.W, 3000.0),
    ],
)  # fmt: skip
def test_a_function_that_sets_gets_a_plain_value_of_the_declared_type(wrapped, name, value, got):
    setattr(wrapped, name, value)

    assert [(type(one), one) for one in wrapped._got] == [(type(got), got)]


@pytest.mark.parametrize(
    "value",
    [Decimal("9007199254740993.5"), Fraction(2**54 + 1, 2), "1.00000000000000000001", "9007199254740993.5", "1e-400"],
)
def test_a_number_that_a_float_would_round_to_a_whole_one_is_refused_as_a_whole_number(wrapped, value):
    with pytest.raises(DeviceValueError, match="count must be a whole number"):
        wrapped.count = value
    wrapped._found = value
    with pytest.raises(DeviceProtocolError, match="count: a whole number was expected"):
        _ = wrapped.count


@pytest.mark.parametrize("value", [Decimal(2**53 + 1), Fraction(2**53 + 1), units.quantity(2**53 + 1, None)])
def test_a_whole_number_that_a_function_returns_is_exact(wrapped, value):
    wrapped._found = value

    assert wrapped.count == 2**53 + 1


def test_a_whole_number_is_converted_exactly_or_refused():
    rate = Rule(int, "Hz", None)

    assert rate.convert(units.quantity(1234567890123457, "Hz")) == 1234567890123457
    assert rate.convert("1234567890123457 hertz") == 1234567890123457
    assert Rule(int, "count", None).convert("9007199254740993 count") == 2**53 + 1
    assert rate.convert("635.001 kHz") == 635001
    with pytest.raises(
        ValueError,
        match="must be in Hz: a conversion of such a large number would lose digits, got '1234567890123.457 kHz'",
    ):
        rate.convert("1234567890123.457 kHz")


def test_a_function_that_sets_never_gets_a_value_beyond_the_limits(wrapped):
    with pytest.raises(DeviceValueError, match="amount must be 0 to 5, got 6"):
        wrapped.amount = 6

    assert wrapped._got == []


def test_with_a_unit_a_reply_that_does_not_become_a_number_is_an_error():
    class Meter(Device):
        power = Measurement("P?", type=str.strip, unit="W", doc="Power.")

        def _open(self):
            return self

        def _query(self, command):
            return ""

    with Meter("meter") as meter, pytest.raises(DeviceProtocolError, match="a number in W was expected, got ''"):
        _ = meter.power
