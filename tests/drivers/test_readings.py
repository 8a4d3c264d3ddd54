"""What is no measurement, wherever a number comes from."""

import array
import math
from collections import UserDict, UserList, UserString, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray

from catkit_devices import units
from catkit_devices.device import Device
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Control, Measurement, Setting
from catkit_devices.readings import measured, missing_in, no_measurement, real_number, without_stand_ins

NONE = [
    9.91e37, 9.9e37, -9.9e37, 9.9e37 * (1 - 1e-7), 1e38, -1e300, math.inf, -math.inf, math.nan,
    float(np.float32(9.9e37)), float(np.float32(9.91e37)),
]  # fmt: skip


class Point(NamedTuple):
    x: float
    y: float


class Meter(Device):
    """Answers every question with what a test put there."""

    amount = Control("A?", "A {}", unit="mA", limits=(0, None), doc="Amount.")
    free = Control("A?", "A {}", doc="Amount.")
    count = Measurement("A?", type=int, doc="Count.")
    scaled = Measurement("A?", type=lambda reply: float(reply) * 1e-3, unit="W", doc="Power.")
    parsed = Control("A?", "A {}", type=lambda reply: float(reply), doc="Power.")
    status = Measurement("A?", type=lambda reply: int(reply, 16), doc="Status register, in hexadecimal.")
    level = Measurement("A?", type=lambda reply: 0.5 * int(reply, 16), unit="mV", doc="Level, in hexadecimal.")
    grouped = Measurement("A?", type=lambda reply: tuple(map(float, reply.split(","))), unit="V", doc="Voltages.")
    curve = Measurement("A?", type=lambda reply: np.array(reply.split(","), "f4"), unit="V", doc="Voltages.")
    called = Measurement(lambda device: device._reply, unit="W", doc="Power.")
    load = Control("A?", "A {}", choices={50.0: "50", math.inf: "INF"}, doc="Load.")
    told = Measurement(lambda device: device._reply, choices=(50.0, math.inf), doc="Load.")
    learned = Control("A?", "A {}", limits=lambda device: (0, device._reply), doc="Amount.")

    def _open(self):
        self._sent, self._reply = [], "0"
        return self

    def _query(self, command):
        return self._reply

    def _write(self, command):
        self._sent.append(command)


class Limited(Meter):
    """Asks the instrument what may be set."""

    named = Setting("B {}", limits=("-called", "called"), doc="Amount.")


@pytest.fixture
def meter():
    with Meter("meter") as device:
        yield device


@pytest.mark.parametrize("number", NONE)
def test_stand_ins_infinities_and_nan_are_no_measurement(number):
    assert no_measurement(number)
    assert not math.isfinite(without_stand_ins(number))


@pytest.mark.parametrize("number", [0.0, -1.5, 1e-300, 1e30, 9.8e37, -9.8e37])
def test_every_other_number_is_a_measurement(number):
    assert not no_measurement(number)
    assert without_stand_ins(number) == number


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("9.91E37", math.nan), ("+9.91000E+37", math.nan), ("9.9E37", math.inf), ("9.90000000E+037", math.inf),
        ("-9.9E37", -math.inf), ("1E+38", math.inf), ("nan", math.nan), ("-inf", -math.inf),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["amount", "free", "scaled", "parsed"])
def test_a_reply_that_stands_for_no_measurement_is_read_as_nan_or_infinity(meter, name, reply, value):
    meter._reply = reply

    assert getattr(meter, name) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("reply", ["1E40", "1e40", "99E37"])
def test_a_number_in_hexadecimal_is_what_the_function_of_the_driver_makes_of_it(meter, reply):
    meter._reply = reply

    assert meter.status == int(reply, 16)
    assert meter.level == 0.5 * int(reply, 16)


@pytest.mark.parametrize("read", [9.91e37, np.float32(9.91e37), np.array(9.91e37), Decimal("9.91E37")])
def test_a_number_from_a_function_of_the_driver_that_means_no_measurement_is_read_as_nan_or_infinity(meter, read):
    meter._reply = read

    assert math.isnan(meter.called)


@pytest.mark.parametrize("name", ["grouped", "curve"])
def test_each_number_of_a_group_that_means_no_measurement_is_read_as_nan_or_infinity(meter, name):
    meter._reply = "9.91E37,1,-9.9E37,2"

    assert list(getattr(meter, name)) == pytest.approx([math.nan, 1, -math.inf, 2], nan_ok=True)


def test_a_group_keeps_its_kind():
    masked = np.ma.array([9.9e37, 2.0], mask=[0, 1])

    assert measured(Point(1, 9.9e37)) == Point(1, math.inf)
    assert measured({"a": [1, -9.9e37]}) == {"a": [1, -math.inf]}
    assert measured(masked).mask.tolist() == [False, True]
    assert measured(masked)[0] == math.inf
    whole = (1, [2.0], "9.9E37")
    assert measured(whole) is whole


def test_an_infinite_choice_is_read_from_the_number_that_means_infinity(meter):
    meter._reply = "+9.90000000E+37"
    assert meter.load == math.inf
    meter._reply = 9.9e37
    assert meter.told == math.inf


@pytest.mark.parametrize("reply", ["9.9E37", "9.91E+37", "nan", "99" + 36 * "0", "-991" + 35 * "0"])
def test_a_reply_that_means_no_measurement_is_refused_where_a_whole_number_was_declared(meter, reply):
    meter._reply = reply

    with pytest.raises(DeviceProtocolError, match="a whole number was expected"):
        _ = meter.count


@pytest.mark.parametrize("value", [*NONE, "9.9E37", "9.91e37 mA", "1e35 A", "9.91e37 A", np.ma.masked, Decimal("sNaN")])
@pytest.mark.parametrize("name", ["amount", "free"])
def test_a_number_that_means_no_measurement_cannot_be_set(meter, name, value):
    with pytest.raises(DeviceValueError, match="must be"):
        setattr(meter, name, value)

    assert meter._sent == []


def test_a_number_that_means_no_measurement_cannot_be_set_with_a_type_of_the_driver(meter):
    for value in NONE:
        with pytest.raises(DeviceValueError, match="must be a finite number"):
            meter.parsed = value
    for value in [(math.nan, 1.0), [9.91e37], np.array([math.nan, 1]), complex(math.nan, 0), {"a": math.inf}]:
        with pytest.raises(DeviceValueError, match="must hold finite numbers only"):
            meter.parsed = value

    assert meter._sent == []


def test_an_infinite_choice_is_a_choice(meter):
    meter.load = math.inf

    assert meter._sent == ["A INF"]


@pytest.mark.parametrize("told", NONE)
@pytest.mark.parametrize("limits", [{}, {"learned": (0, 5), "named": (0, 5)}], ids=["declared", "narrowed"])
def test_a_limit_that_the_instrument_does_not_tell_allows_nothing(limits, told):
    with Limited("meter", limits=limits) as device:
        device._reply = told
        for name, problem in {
            "learned": f"its highest value is not known: what its function tells is {told:g}",
            "named": f"its lowest value is not known: -called is {-without_stand_ins(told):g}",
        }.items():
            with pytest.raises(DeviceValueError) as refused:
                setattr(device, name, 1)
            assert refused.value.problem == f"{name} cannot be set, because {problem}, which is no measurement"
        assert device._sent == []
        assert math.isnan(device.describe()["properties"]["learned"]["limits"][1])


def test_a_function_may_say_that_there_is_no_limit(meter):
    meter._reply = None
    meter.learned = 1

    assert meter._sent == ["A 1.0"]


@pytest.mark.parametrize("limit", NONE)
@pytest.mark.parametrize("other", [None, 0, "free"])
def test_a_declared_limit_that_means_no_measurement_is_refused_when_the_class_is_made(limit, other):
    for limits in [(limit, other), (other, limit)]:
        with pytest.raises(ValueError, match=r"cannot be a limit, because it stands for no measurement: .* None"):
            Control("A?", "A {}", limits=limits, doc="Amount.")


@pytest.mark.parametrize("limit", [True, b"5", [5]])
def test_a_declared_limit_that_is_no_number_is_refused_when_the_class_is_made(limit):
    with pytest.raises(TypeError, match="a limit is a number, the name of a property, or None for no limit"):
        Control("A?", "A {}", limits=(0, limit), doc="Amount.")


def test_a_value_is_judged_before_its_unit_is_converted():
    with pytest.raises(ValueError, match="means infinity"):
        units.convert("9.9e37 pA", "A")


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (np.float32(2), 2.0), (np.array(3), 3.0), (Decimal("1.5"), 1.5), (Fraction(1, 2), 0.5),
     (10**400, math.inf), (-(10**400), -math.inf)],
)  # fmt: skip
def test_numbers_of_every_kind_are_real_numbers(value, number):
    assert real_number(value) == number


@pytest.mark.parametrize(
    "value",
    [None, True, np.True_, "3", b"3", 1j, np.ones(1), [1], np.ma.masked, np.ma.array(5.0, mask=True), object(),
     units.quantity(50, "percent"), np.timedelta64(5, "ns"), np.array(5, "M8[ns]")],
)  # fmt: skip
def test_real_number_returns_none_for_what_is_not_one_plain_number(value):
    assert real_number(value) is None


@dataclass
class Pair:
    one: float
    other: object = None


ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (9.91e37, "9.91e+37"),
        ((1.0, math.nan), "nan"),
        ({"a": [1, (2.0, -math.inf)]}, "-inf"),
        ({1.0, 9.9e37}, "9.9e+37"),
        (Pair(1.0, {"x": math.nan}), "nan"),
        (units.quantity(math.nan, "mA"), "nan"),
        (np.array([1.0, 9.9e37]), "9.9e+37"),
        (np.array([1.0, 9.91e37], "f4"), "9.91e+37"),
        (np.array([1.0, math.inf], "f2"), "inf"),
        (np.array([1, complex(math.nan, 0)]), "nan+0j"),
        (np.array([1.0, math.nan], object), "nan"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "masked"),
        (np.ma.masked, "masked"),
        ([np.ma.array([1.0, 2.0], mask=[False, True])], "masked"),
        (complex(math.nan, 1), "nan+1j"),
        (complex(1, 9.91e37), "1+9.91e+37j"),
        (np.complex64(complex(math.inf, 0)), "inf+0j"),
        ({math.nan: 1}, "nan"),
        (deque([math.nan]), "nan"),
        (array.array("d", [1.0, math.nan]), "nan"),
        (memoryview(array.array("d", [1.0, math.nan])), "nan"),
        (UserList([1.0, [math.inf]]), "inf"),
        (UserDict(a=math.nan), "nan"),
        (SimpleNamespace(a=(1.0, math.nan)), "nan"),
        ({"a": 9.9e37}.values(), "9.9e+37"),
        (np.array([("2026-11-27", 1.0), ("NaT", 1.0)], [("t", "M8[s]"), ("x", "f8")])["t"], "NaT"),
        (np.datetime64("NaT", "ns"), "NaT"),
        (np.array([(1.0, math.nan)], [("a", "f8"), ("b", "f8")]), "nan"),
        (pd.Series([1.0, math.nan]), "nan"),
        (pd.DataFrame({"a": [1.0, math.nan]}), "nan"),
        (xarray.DataArray([1.0, math.nan]), "nan"),
        (ENDLESS, "something nested too deep"),
        (np.ma.array([(1, 2.0)], mask=[(0, 1)], dtype=[("a", "i4"), ("b", "f8")]), "masked"),
    ],
)
def test_a_number_that_is_no_measurement_is_found_in_whatever_holds_it(value, missing):
    assert missing_in(value) == missing


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            "nan",
            True,
            3,
            (1.0, "x", None),
            {"a": 1},
            Pair(1.0),
            Pair,
            np.zeros((2, 2)),
            np.arange(3),
            np.zeros(0),
        ),
        *(1 + 2j, b"nan", range(10**12), UserString("nan"), deque([1.0]), SimpleNamespace(a=1), np.datetime64("2026")),
        *(iter([math.nan]), pd.Series(["nan", "x"]), np.zeros(3, "U3"), np.zeros(0), lambda: math.nan),
    ],
)
def test_nothing_is_found_if_every_number_is_a_measurement(value):
    assert missing_in(value) is None
