"""Switches and enumerations: the forms in which instruments write them, and what they are in Python."""

import enum
import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from catkit_devices._device.values import Rule, SetCommand
from catkit_devices.cli.words import property_value, text_of
from catkit_devices.device import Device
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Control, Measurement, Setting
from catkit_devices.testing.members import same


class Mode(enum.Enum):
    SLOW = "S"
    FAST = "F"


class Gear(enum.IntEnum):
    ONE = 1
    TWO = 2


class Range(enum.Enum):
    LOW = 10
    HIGH = 1000


class Kind(str, enum.Enum):  # noqa: UP042 - str() of its members is another text than str() of a StrEnum's
    SINE = "SIN"
    SQUARE = "SQU"


class Lamp(enum.Enum):
    ON = True
    OFF = False


class Crossed(enum.Enum):
    A = "B"
    B = "A"


class Switchboard(Device):
    """Answers every question with what a test put there, and keeps what is sent."""

    output = Control("?", "O {:d}", type=bool, doc="Output.")
    numbered = Control("?", "S {}", choices={True: 1, False: 0}, doc="State.")
    worded = Control("?", "W {}", choices={True: "ON", False: "OFF"}, doc="State.")
    inhibit = Measurement("?", choices={True: "OFF", False: "ON"}, doc="Inhibition, which is off when all is on.")
    turned = Control("?", "T {}", choices={True: "OFF", False: "ON"}, doc="Inhibition, which is off when all is on.")
    auto = Control("?", "A {}", choices=("ON", "OFF", "ONCE"), doc="Automatic range.")
    slot = Control("?", "P {}", choices={"first": 0, "second": 1}, doc="Slot.")
    register = Measurement("?", choices={"idle": "1E40", "busy": "1E41", "done": "10"}, doc="State, in hexadecimal.")

    mode = Control("?", "M {}", choices=Mode, doc="Mode.")
    gear = Control("?", "G {:d}", type=Gear, doc="Gear.")
    range = Control("?", "R {:d}", choices=Range, unit="mA", doc="Range.")
    kind_ = Setting("K {}", type=str, doc="Kind of wave.")
    lamp = Control("?", "L {}", choices=Lamp, doc="Lamp.")
    mapped = Control("?", "X {}", choices={Mode.SLOW: 0, Mode.FAST: 1}, doc="Mode.")
    behind = Control("?", "B {}", choices={"slow": Mode.SLOW, "fast": Mode.FAST}, doc="Mode.")
    parsed = Control("?", "N {}", type=lambda reply: Mode(reply), doc="Mode.")
    called = Control(
        lambda device: device._called, lambda device, value: device._call(value), choices=Mode, doc="Mode."
    )
    signal = Control("?", "Y {}", type=str, choices=("NAN", "ZERO", "INF"), doc="What is sent.")
    crossed = Setting("C {}", choices=Crossed, doc="Two names that are each other's values.")

    def _open(self):
        self._sent, self._reply, self._called = [], "", Mode.SLOW
        return self

    def _query(self, command):
        return self._reply

    def _write(self, command):
        self._sent.append(command)

    def _call(self, mode):
        self._called = mode


@pytest.fixture
def board():
    with Switchboard("board") as device:
        yield device


ON = ["1", "+1", "01", "1.", "1.0", "1.00000E+00", "+1.00E0", "ON", "on", "On", "TRUE"]
OFF = ["0", "+0", "-0", "00", "0.0", "0.00000E+00", "OFF", "off", "False"]


@pytest.mark.parametrize("name", ["output", "numbered", "worded"])
@pytest.mark.parametrize(("reply", "value"), [*((reply, True) for reply in ON), *((reply, False) for reply in OFF)])
def test_a_switch_is_on_or_off_in_every_form_that_instruments_use(board, name, reply, value):
    board._reply = reply

    assert getattr(board, name) is value


@pytest.mark.parametrize("name", ["output", "numbered", "worded", "inhibit"])
@pytest.mark.parametrize("reply", ["2", "-1", "0.5", "1.5", "9.91E37", "nan", "", "1 0", "ONE", "onn", "1_0", "yes"])
def test_a_reply_that_is_neither_on_nor_off_is_an_error(board, name, reply):
    board._reply = reply

    with pytest.raises(DeviceProtocolError, match="was expected, got"):
        getattr(board, name)


@pytest.mark.parametrize(
    ("name", "reply", "value"),
    [
        ("inhibit", "0", True), ("inhibit", "1", False), ("inhibit", "OFF", True), ("lamp", "ON", Lamp.ON),
        ("lamp", "0", Lamp.OFF), ("auto", "1", "ON"), ("auto", "0", "OFF"), ("auto", "once", "ONCE"),
    ],
)  # fmt: skip
def test_the_choices_of_a_switch_are_read_in_the_same_forms(board, name, reply, value):
    board._reply = reply

    assert getattr(board, name) == value


def test_a_choice_that_is_no_switch_is_not_read_from_on_or_off(board):
    board._reply = "ON"

    with pytest.raises(DeviceProtocolError, match="one of 0, 1 was expected, got 'ON'"):
        _ = board.slot


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("mode", Mode.FAST, "M F"), ("mode", "FAST", "M F"), ("mode", "F", "M F"),
        ("gear", Gear.TWO, "G 2"), ("gear", "TWO", "G 2"), ("gear", 2, "G 2"), ("gear", 2.0, "G 2"),
        ("range", Range.HIGH, "R 1000"), ("range", "HIGH", "R 1000"), ("range", "1 A", "R 1000"),
        ("lamp", Lamp.ON, "L 1"), ("lamp", False, "L 0"), ("mapped", Mode.FAST, "X 1"), ("behind", "fast", "B F"),
        ("parsed", Mode.FAST, "N F"), ("kind_", Kind.SINE, "K SIN"), ("crossed", Crossed.A, "C B"),
    ],
)  # fmt: skip
def test_a_member_of_an_enumeration_is_sent_by_its_value(board, name, value, sent):
    setattr(board, name, value)

    assert board._sent == [sent]


@pytest.mark.parametrize(
    ("name", "reply", "member"),
    [
        ("mode", "F", Mode.FAST), ("mode", "f", Mode.FAST), ("gear", "+2.0E0", Gear.TWO), ("range", "10", Range.LOW),
        ("mapped", "0", Mode.SLOW), ("parsed", "S", Mode.SLOW),
    ],
)  # fmt: skip
def test_a_reply_is_read_as_the_member(board, name, reply, member):
    board._reply = reply

    assert getattr(board, name) is member


def test_functions_of_a_driver_get_and_return_the_member(board):
    board.called = "FAST"

    assert board._called is board.called is Mode.FAST


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("mode", "FSAT", "mode must be one of 'SLOW', 'FAST', got 'FSAT' (did you mean 'FAST'?)"),
        ("mode", Gear.ONE, "mode must be one of 'SLOW', 'FAST', got <Gear.ONE: 1>"),
        ("gear", "THREE", "gear must be one of 'ONE', 'TWO', got 'THREE'"),
        ("gear", 3, "gear must be one of 'ONE', 'TWO', got 3"),
        ("gear", True, "gear must be one of 'ONE', 'TWO', got True"),
        ("gear", np.True_, "gear must be one of 'ONE', 'TWO', got True"),
        ("range", np.array(True), "range must be one of 'LOW', 'HIGH', got True"),
        ("slot", np.False_, "slot must be one of 'first', 'second', got False"),
        ("range", Gear.ONE, "range must be one of 'LOW', 'HIGH', got <Gear.ONE: 1>"),
        ("range", "10 V", "range must be one of 'LOW', 'HIGH', got '10 V'"),
        ("lamp", 1, "lamp must be one of 'ON', 'OFF', got 1"),
        ("crossed", "A", "crossed 'A' is the name of one choice and the value of another: use the member itself"),
    ],
)
def test_a_value_that_is_not_a_member_is_refused_before_anything_is_sent(board, name, value, problem):
    with pytest.raises(DeviceValueError) as caught:
        setattr(board, name, value)

    assert problem in caught.value.problem
    assert board._sent == []


@pytest.mark.parametrize(("reply", "value"), [("1E41", "busy"), ("1e40", "idle"), ("10", "done"), ("1E1", "done")])
def test_the_choice_with_the_very_text_of_the_reply_comes_before_one_with_the_same_number(board, reply, value):
    board._reply = reply

    assert board.register == value


def test_a_reply_that_is_not_a_member_is_an_error_that_names_the_members(board):
    board._reply = "X"

    with pytest.raises(DeviceProtocolError, match="mode: one of 'S', 'F' was expected, got 'X'"):
        _ = board.mode


def test_members_are_described_by_their_names_which_are_plain_data(board):
    described = board.describe()["properties"]

    assert json.loads(json.dumps(described["gear"]["choices"])) == ["ONE", "TWO"]
    assert described["mode"]["type"] == described["gear"]["type"] == "choice"
    assert same(Mode.FAST, "FAST")  # what the conformance suite compares
    assert not same(Mode.FAST, "SLOW")


@pytest.mark.parametrize(("name", "word"), [("mode", "FAST"), ("gear", "TWO"), ("gear", "2"), ("range", "1000 mA")])
def test_the_command_line_takes_and_shows_them_by_name(board, name, word):
    value = property_value(word, board.describe()["properties"][name])
    setattr(board, name, value)

    assert len(board._sent) == 1
    assert text_of(Mode.FAST) == "FAST"


@pytest.mark.parametrize(
    ("reply", "value"), [("9007199254740993", 2**53 + 1), ("9.007199254740993E15", 2**53 + 1), ("1.5E3", 1500)]
)
def test_a_whole_number_is_read_exactly_in_whatever_form_it_is_written(reply, value):
    assert Measurement("?", type=int, doc="Count.")._rule.parse(reply) == value


@pytest.mark.parametrize(
    ("reply", "value"),
    [("NAN", "NAN"), ("nan", "NAN"), ("9.91E37", "NAN"), ("ZERO", "ZERO"), ("+9.90000000E+37", "INF")],
)
def test_a_choice_whose_name_looks_like_nan_or_infinity_is_a_choice(board, reply, value):
    board._reply = reply

    assert board.signal == value


@pytest.mark.parametrize(
    ("value", "sent"),
    [(True, "W ON"), ("on", "W ON"), ("ON", "W ON"), (1, "W ON"), (np.True_, "W ON"), ("true", "W ON"), (0, "W OFF"),
     ("off", "W OFF"), (np.False_, "W OFF"), (np.int8(0), "W OFF")],
)  # fmt: skip
def test_a_switch_with_choices_is_set_by_the_forms_in_which_it_is_read(board, value, sent):
    board.worded = value

    assert board._sent == [sent]


@pytest.mark.parametrize("value", ["ON", "off", 1, "0", np.int64(1)])
def test_a_choice_that_means_something_else_on_the_wire_is_refused(board, value):
    with pytest.raises(DeviceValueError, match="turned must be one of True, False"):
        board.turned = value
    board.turned = np.True_

    assert board._sent == ["T OFF"]


@pytest.mark.parametrize("value", [2, 0.5, 1.0, "maybe", "", None, np.int64(2), [True]])
def test_a_switch_refuses_what_is_not_a_truth_value(board, value):
    with pytest.raises(DeviceValueError, match="worded must be one of True, False"):
        board.worded = value


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
def test_a_whole_number_may_stand_for_flags(kind):
    status = kind("Status", ["BUSY", "ERROR"])
    rule = Rule(status, None, None)

    assert rule.parse("3") == status.BUSY | status.ERROR
    assert rule.parse("+0") == status(0)
    assert rule.convert("BUSY | ERROR") == rule.convert(3) == status.BUSY | status.ERROR
    assert SetCommand("STAT {}", rule).text(status.ERROR) == "STAT 2"
    assert (rule.type_name, rule.choice_names) == ("flags", ["BUSY", "ERROR"])
    for wrong in ("LAZY", "1.5", 2.5, None):
        with pytest.raises(ValueError, match=r"must be of BUSY \| ERROR, got"):
            rule.convert(wrong)
    with pytest.raises(ValueError, match="a whole number was expected, got 'BUSY'"):
        rule.parse("BUSY")


class Scale(Switchboard):
    gain = Control("?", "G {}", choices=(Decimal("0.1"), Decimal("0.2"), Fraction(1, 2)), doc="Gain.")


@pytest.mark.parametrize(
    ("value", "sent"), [(0.1, "G 0.1"), ("0.1", "G 0.1"), (Decimal("0.20"), "G 0.2"), (0.5, "G 1/2"), ("0.5", "G 1/2")]
)
def test_a_choice_that_is_a_decimal_or_a_fraction_is_meant_by_its_number(value, sent):
    with Scale("scale") as scale:
        scale.gain = value
        assert scale._sent == [sent]
        for other in (0.3, "0.3", True, math.nan):
            with pytest.raises(DeviceValueError, match="gain must be"):
                scale.gain = other
        assert scale._sent == [sent]
