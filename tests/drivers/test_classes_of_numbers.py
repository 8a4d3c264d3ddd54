"""What is read or set is of the declared type, or is refused: numbers that do not fit, flags, truth values, arrays."""

import ctypes
import enum
import math
import operator
import typing
from decimal import Decimal
from fractions import Fraction

import astropy.nddata
import astropy.units
import numpy as np
import pytest
import xarray as xr

from catkit_devices import Control, Device, Measurement, readings, units
from catkit_devices._device.values import Rule, SetCommand
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Array
from catkit_devices.scpi import StatusByte

VOLT = astropy.units.V


class Signal(enum.Flag):
    BUSY = 1
    ERROR = 2


class Unyt(np.ndarray):
    """As a quantity of unyt: an array, also without dimensions, with a unit of a library of its own."""

    @property
    def value(self):
        return np.asarray(self)

    units = type("Unit", (), {"dimensions": "voltage", "__str__": lambda _: "V"})()

    def to(self, _unit):
        raise AssertionError


# --- numbers


class Gauge(Device):
    """A device whose function and wire give what the test says."""

    level = Control(lambda self: self._found, lambda self, value: None, type=np.float16, doc="Level.")
    steps = Control(lambda self: self._found, lambda self, value: None, type=np.uint8, doc="Steps.")
    sent_level = Measurement("?", type=np.float16, doc="Level, from the wire.")
    sent_steps = Measurement("?", type=np.uint8, doc="Steps, from the wire.")

    def _open(self):
        return self

    def _query(self, command):
        return str(self._found)


@pytest.mark.parametrize(
    ("name", "number"), [("level", 70000.0), ("level", -1e6), ("level", 1e-9), ("steps", 256), ("steps", -1)]
)
def test_a_number_that_does_not_fit_in_the_declared_type_is_an_error_that_names_the_property(name, number):
    with Gauge("gauge") as gauge:
        gauge._found = number
        for read in (name, f"sent_{name}"):
            with pytest.raises(DeviceProtocolError, match=rf"{read}: .*number that u?(float16|int8) can hold"):
                getattr(gauge, read)
        with pytest.raises(DeviceValueError, match=rf"{name} must be a number that u?(float16|int8) can hold"):
            setattr(gauge, name, number)


@pytest.mark.parametrize(
    ("kind", "found", "value"),
    [
        (np.float32, 0.5, np.float32(0.5)), (np.float32, np.array(0.5), np.float32(0.5)),
        (np.int16, 3.0, np.int16(3)), (Decimal, 0.1, Decimal("0.1")), (Decimal, np.float32(0.1), Decimal("0.1")),
        (Decimal, Fraction(1, 4), Decimal("0.25")), (Fraction, 0.1, Fraction(1, 10)), (Fraction, 2, Fraction(2)),
        (complex, 2, 2 + 0j), (np.complex64, 1j, np.complex64(1j)), (str, np.str_("text"), "text"),
        (float, np.float32(0.5), 0.5), (int, np.int64(5), 5), (bool, np.True_, True), (np.bool_, np.True_, True),
    ],
)  # fmt: skip
def test_what_a_function_returns_becomes_a_value_of_the_declared_type(kind, found, value):
    got = Rule(kind, None, None).returned(found)

    assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize("kind", [Decimal, Fraction])
def test_an_exact_number_is_set_as_one_also_in_a_unit(kind):
    rule = Rule(kind, "mV", None)

    assert [type(rule.convert(value)) for value in (0.1, "0.1 mV", 1 * VOLT, 5)] == [kind] * 4
    assert rule.convert(0.1) == rule.convert("0.1") == kind("0.1")
    assert rule.narrowed((0, 0.1), None) == (0.0, 0.1)
    rule.check(rule.convert(0.1), (0.1, 0.1))
    assert SetCommand("V {:.2f}", rule).text(rule.convert(0.1), (0.1, 0.1)) == "V 0.10"
    assert SetCommand("V {:d}", Rule(np.uint16, "mV", None)).text(5) == "V 5"


@pytest.mark.parametrize("kind", [Decimal, Fraction, np.float32, np.int16])
@pytest.mark.parametrize("found", [1j, 1 * VOLT, np.ones(1), None, True, np.True_, b"1", "1_0", np.ma.masked])
def test_what_is_no_number_of_the_declared_class_is_refused(kind, found):
    with pytest.raises(ValueError, match="expected|must be"):
        Rule(kind, None, None).returned(found)


@pytest.mark.parametrize("text", ["1_0", "infinity", "snan", "1e400", "\N{FULLWIDTH DIGIT ONE}"])
@pytest.mark.parametrize("kind", [float, int, Decimal, Fraction, complex, np.float32, np.int16, np.float64])
def test_a_text_that_no_instrument_sends_for_a_number_is_none(kind, text):
    with pytest.raises(ValueError, match="number was expected"):
        Rule(kind, None, None).parse(text)


@pytest.mark.parametrize("kind", [complex, np.complex64])
@pytest.mark.parametrize("text", ["9.91E37", "1+9.91E37j"])
def test_a_complex_number_that_stands_for_no_measurement_is_read_as_that(kind, text):
    found = Rule(kind, None, None).parse(text)

    assert np.isnan(found)
    assert np.isnan(Rule(kind, None, None).returned(kind(9.91e37)))
    assert np.isnan(readings.measured(np.array([9.91e37 + 1j]))).all()
    assert type(found) is kind
    with pytest.raises(ValueError, match="must be a finite number"):
        Rule(kind, None, None).convert(9.91e37 + 0j)


# --- flags


@pytest.mark.parametrize("kind", [Signal, StatusByte])
@pytest.mark.parametrize("text", ["9.9E37", "9.91E37", "-9.9E37", "INF", "NAN", "-1", "1.5", "1e400", ""])
def test_no_flags_are_read_from_what_is_no_sum_of_them(kind, text):
    rule = Rule(kind, None, None)
    with pytest.raises(ValueError, match="expected, got"):
        rule.parse(text)
    for make in (rule.returned, rule.convert):
        with pytest.raises(ValueError, match="must be of"):
            make(text)


@pytest.mark.parametrize("kind", [Signal, StatusByte])
@pytest.mark.parametrize(
    "value", [9.9e37, 9.91e37, math.inf, math.nan, -1, 1.5, True, None, np.ma.masked, 1 * VOLT, 10**38]
)
def test_no_flags_are_made_of_a_number_that_is_no_sum_of_them(kind, value):
    for make in (Rule(kind, None, None).returned, Rule(kind, None, None).convert):
        with pytest.raises(ValueError, match="must be of"):
            make(value)


def test_a_bit_that_no_flag_has_is_refused_in_words():
    with pytest.raises(ValueError, match=r"^the sum of 1 \(BUSY\), 2 \(ERROR\) was expected, got '4'$"):
        Rule(Signal, None, None).parse("4")
    wide = enum.IntFlag("Wide", {"LOWEST": 1, "HIGHEST": 2**63})
    for make in (Rule(wide, None, None).returned, Rule(wide, None, None).convert):
        assert make(2**63 + 1) == make(np.uint64(2**63 + 1)) == wide.LOWEST | wide.HIGHEST
    assert Rule(StatusByte, None, None).parse("2") == StatusByte(2)  # an IntFlag keeps bits without a name


# --- truth values


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_every_class_of_truth_values_is_read_in_the_forms_that_instruments_use(kind):
    rule = Rule(kind, None, None)

    assert [rule.parse(text) for text in ("0", "OFF", "+0.0E0", "false")] == [False] * 4
    assert [rule.parse(text) for text in ("1", "ON", "1.0E0", "True")] == [True] * 4
    assert rule.returned("OFF") is rule.convert("off") is False
    for wrong in ("9.91E37", "2", ""):
        with pytest.raises(ValueError, match="on or off was expected"):
            rule.parse(wrong)


@pytest.mark.parametrize(
    "kind",
    [ctypes.c_bool, operator.truth, operator.not_, any, all, "bool", typing.Annotated[bool, "on"], list[bool],
     typing.NewType("On", bool)],
)  # fmt: skip
@pytest.mark.parametrize("get", ["ON?", lambda _device: "0"])
def test_a_type_for_which_each_text_is_true_is_refused_when_the_class_is_made(kind, get):
    with pytest.raises(TypeError, match="type"):
        Measurement(get, type=kind, doc="Output.")


# --- quantities of any library


@pytest.mark.parametrize(
    "given",
    [
        units.quantity(2, "V"), 2 * VOLT, 0.002 * astropy.units.kV, 2 * astropy.units.Unit("1 V"),
        2e-3 * astropy.units.Unit("1000 V"), np.array(2.0).view(Unyt), xr.DataArray(2.0, attrs={"units": "V"}),
        xr.DataArray(units.quantity(np.array(2.0), "V")), astropy.nddata.NDData(np.array(2.0), unit=VOLT),
    ],
)  # fmt: skip
def test_a_quantity_of_any_library_is_converted_as_one_of_pint(given):
    for kind, value in ((float, 2000.0), (int, 2000), (Decimal, Decimal(2000)), (np.float32, np.float32(2000))):
        rule = Rule(kind, "mV", None)
        assert rule.convert(given) == rule.returned(given) == value
    assert Rule(lambda reply: reply, "mV", None).returned(given) == 2000
    for kind in (float, int, Decimal, bool):
        for make in (Rule(kind, None, None).convert, Rule(kind, None, None).returned):
            with pytest.raises(ValueError, match="must be|was expected"):
                make(given)
    with pytest.raises(ValueError, match="must be in s"):
        Rule(float, "s", None).convert(given)
    with pytest.raises(ValueError, match="numbers in mV were expected, got .* with their own units"):
        Rule(tuple, "mV", None).returned((given, 2))
    assert readings.real_number(given) is None


@pytest.mark.parametrize(
    "given",
    [
        np.array([1, 2]) * VOLT, units.quantity(np.array([1.0, 2.0]), "V"), np.array([1.0, 2.0]).view(Unyt),
        xr.DataArray([1.0, 2.0], attrs={"units": "V"}), astropy.nddata.NDData(np.array([1.0, 2.0]), unit=VOLT),
    ],
)  # fmt: skip
def test_an_array_with_its_own_unit_is_converted_or_refused(given):
    rule = Rule(Array(), "mV", None)

    assert rule.returned(given).tolist() == rule.convert(given).tolist() == [1000, 2000]
    for unit in (None, "s"):
        for make in (Rule(Array(), unit, None).convert, Rule(Array(), unit, None).returned):
            with pytest.raises(ValueError, match="must be"):
                make(given)


def test_an_array_is_judged_before_its_unit_is_converted():
    for given in (np.array([9.91e37, 1e3]) * VOLT, units.quantity(np.array([9.91e37, 1e3]), "V")):
        np.testing.assert_array_equal(Rule(Array(), "kV", None).returned(given), [math.nan, 1.0])
        with pytest.raises(ValueError, match="must hold finite numbers only"):
            Rule(Array(), "kV", None).convert(given)


# --- arrays

NO_ARRAYS = [
    None, 1.0, "1,2", b"12", ["1", "2"], [1, None], [[1, 2], [3]], [True, False], [True, 1.0], [np.True_, 2.0], [1j, 2],
    [1 * VOLT, 2 * VOLT], [units.quantity(1, "V"), 2], {1: 2}, np.ones((2, 2)), np.array(1.0),
    np.ma.array([1.0, 2.0], mask=[False, True]), [np.ma.masked, 1.0], np.array(["2026"], "M8"), np.array([1], object),
]  # fmt: skip


@pytest.mark.parametrize("given", NO_ARRAYS, ids=repr)
def test_what_is_no_array_of_numbers_of_the_declared_shape_is_refused(given):
    for kind in (Array(), Array("<f4"), Array(">i2", scale=0.5)):
        for make in (Rule(kind, "V", None).returned, Rule(kind, "V", None).convert):
            with pytest.raises(ValueError, match="^must (be|have)"):
                make(given)


def test_a_function_that_returns_no_array_is_a_protocol_error_that_names_the_property():
    class Scope(Device):
        trace = Control(lambda self: [[1], [1, 2]], lambda self, value: None, type=Array(), doc="Waveform.")

        def _open(self):
            return self

    with Scope("scope") as scope:
        with pytest.raises(DeviceProtocolError, match=r"trace: must be an array of numbers, got \[\[1\], \[1, 2\]\]"):
            _ = scope.trace
        with pytest.raises(DeviceValueError, match="trace must be an array of numbers, got None"):
            scope.trace = None


@pytest.mark.parametrize(
    ("dtype", "given"),
    [(">i2", [40000, 1]), (">i2", [1.5]), (">i2", [math.nan]), ("u1", [-1]), ("u1", np.array([256])), ("<f2", [70000]),
     ("<i8", np.array([2**64 - 1], "u8"))],
)  # fmt: skip
def test_numbers_that_do_not_fit_in_the_type_of_an_array_are_refused(dtype, given):
    with pytest.raises(ValueError, match="must be an array of numbers that .* can hold"):
        Rule(Array(dtype), None, None).returned(given)
    with pytest.raises(ValueError, match="must "):
        Rule(Array(dtype), None, None).convert(given)


def test_an_array_of_a_function_has_the_type_and_shape_that_one_of_the_wire_has():
    for dtype, expected in ((">i2", "int16"), ("<f4", "float32"), ("u1", "uint8"), ("text", "float64")):
        for given in ([1, 2], (1.0, 2.0), np.array([1, 2], "u1"), np.array([1.0, 2.0])):
            found = Rule(Array(dtype), None, None).returned(given)
            assert (found.dtype, found.tolist(), found.dtype.isnative) == (np.dtype(expected), [1, 2], True)
    assert Rule(Array(shape=(1, 2)), None, None).returned([[1, 2]]).shape == (1, 2)
    np.testing.assert_array_equal(
        Rule(Array("<f4"), None, None).returned(np.array([9.91e37, 9.9e37, 1], "<f4")), [math.nan, math.inf, 1]
    )
    with pytest.raises(ValueError, match=r"must be an array of the shape \(2,\), got one of the shape \(3,\)"):
        Rule(Array(shape=2), None, None).returned([1, 2, 3])


def test_numbers_of_a_block_that_stand_for_no_measurement_are_read_as_that_also_scaled():
    kind = Array("<f4", scale=1e-3)
    sent = np.array([9.91e37, 9.9e37, 1000], "<f4").tobytes()

    np.testing.assert_array_equal(kind.scaled(kind(sent), None), [math.nan, math.inf, 1.0])


@pytest.mark.parametrize(("scale", "offset", "value"), [(2, 0, 60000), (1, 30000, 60000), (9.91e37, 0, math.nan)])
def test_a_scaled_array_does_not_overflow_in_the_type_that_was_sent(scale, offset, value):
    found = Array(">i2", scale=lambda _: scale, offset=lambda _: offset).scaled(np.array([30000], "i2"), None)

    np.testing.assert_array_equal(found, [value])
    with pytest.raises(ValueError, match="scale and offset must be numbers, got None"):
        Array(">i2", scale=lambda _: None).scaled(np.array([1], "i2"), None)
