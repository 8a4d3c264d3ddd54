from decimal import Decimal
from fractions import Fraction

import astropy.units
import numpy as np
import pytest

from catkit_devices.construction import bind_options
from catkit_devices.device import Device
from catkit_devices.errors import ConfigurationError, DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Control, Measurement, Setting


class Gadget(Device):
    """A device without a bus: what is written is kept, and what is read is what a test put there."""

    position = Control("pos?", "pos={}", type=int, limits=(1, 6), doc="Slot in the beam.")
    current = Control("cur?", "cur={}", unit="mA", limits=(0, 50), doc="Drive current.")
    fitted = Control("fit?", "fit={}", unit="mA", limits=lambda device: (0, device._limit), doc="Drive current.")
    speed = Control("spd?", "spd={}", choices={"slow": 0, "fast": 1}, doc="Speed.")
    rate = Control("rate?", "rate={}", choices=(9600, 115200), doc="Serial rate.")
    gain = Control(lambda device: device._gain, lambda device, value: device._set_gain(value), unit="dB", doc="Gain.")
    label = Control("lab?", "lab={}", type=str, doc="Label.")
    power = Measurement("pow?", unit="W", doc="Power.")
    output = Setting("out {:d}", type=bool, doc="Output.")

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self._sent, self._replies, self._limit, self._gain = [], {}, 68.09, 3.0

    def _open(self):
        return self

    def _query(self, command):
        return self._replies[command]

    def _write(self, command):
        self._sent.append(command)

    def _set_gain(self, value):
        self._gain = value

    @property
    def amount(self):
        """A plain one."""
        return 1

    def home(self):
        """Go to the first slot."""


@pytest.fixture
def gadget():
    with Gadget("gadget") as device:
        yield device


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("position", 3, "pos=3"),
        ("position", np.int8(3), "pos=3"),
        ("position", 3.0, "pos=3"),
        ("current", 20, "cur=20.0"),
        ("current", "0.02 A", "cur=20.0"),
        ("current", 0, "cur=0.0"),
        ("current", 50, "cur=50.0"),
        ("fitted", 68.09, "fit=68.09"),
        ("speed", "fast", "spd=1"),
        ("rate", 9600.0, "rate=9600"),
        ("label", "a b", "lab=a b"),
        ("output", True, "out 1"),
        ("output", np.False_, "out 0"),
        ("output", "on", "out 1"),
    ],
)
def test_a_value_within_its_limits_is_converted_and_sent(gadget, name, value, sent):
    setattr(gadget, name, value)

    assert gadget._sent == [sent]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("position", 0, "position must be 1 to 6, got 0"),
        ("position", 7, "position must be 1 to 6, got 7"),
        ("position", 2.5, "position must be a whole number, got 2.5"),
        ("position", True, "position must be a number, got True"),
        ("current", 50.001, "current must be 0 to 50 mA, got 50.001 mA"),
        ("current", "60 mA", "current must be 0 to 50 mA, got 60.0 mA"),
        ("current", float("nan"), "current must be a finite number, got nan"),
        ("current", "5 V", "current must be in mA, got 5.0 volt"),
        ("fitted", 70, "fitted must be 0 to 68.09 mA, got 70.0 mA"),
        ("speed", "fsat", "speed must be one of 'slow', 'fast', got 'fsat' (did you mean 'fast'?)"),
        ("speed", 1, "speed must be one of 'slow', 'fast', got 1"),
        ("rate", 1200, "rate must be one of 9600, 115200, got 1200"),
        ("label", "a\nOUT 1", "label must be printable text, got 'a\\nOUT 1'"),
        ("output", 2, "output must be true or false, got 2"),
        ("gain", "3 s", "gain must be in dB"),
    ],
)
def test_a_value_that_is_refused_never_reaches_the_instrument(gadget, name, value, problem):
    with pytest.raises(DeviceValueError) as caught:
        setattr(gadget, name, value)

    assert problem in caught.value.problem
    assert (caught.value.device, caught.value.driver) == ("gadget", "Gadget")
    assert gadget._sent == []


@pytest.mark.parametrize(
    ("name", "reply", "value"),
    [
        ("position", "3", 3),
        ("position", " +3.00E+00\r", 3),
        ("current", "1e1", 10.0),
        ("speed", "1", "fast"),
        ("speed", "+0", "slow"),
        ("rate", "115200", 115200),
        ("power", "-1.5E-06", -1.5e-6),
    ],
)
def test_a_reply_becomes_a_value_of_the_declared_type(gadget, name, reply, value):
    gadget._replies = dict.fromkeys(("pos?", "cur?", "spd?", "rate?", "pow?"), reply)

    read = getattr(gadget, name)

    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("name", "reply"),
    [("position", "3.5"), ("position", ""), ("current", "1_0"), ("current", "Command error"), ("speed", "2"),
     ("power", "1,5")],
)  # fmt: skip
def test_a_reply_that_was_not_declared_is_a_protocol_error_that_names_it(gadget, name, reply):
    gadget._replies = dict.fromkeys(("pos?", "cur?", "spd?", "rate?", "pow?"), reply)

    with pytest.raises(DeviceProtocolError, match=f"{name}.*{reply!r}") as caught:
        getattr(gadget, name)

    assert caught.value.command in ("pos?", "cur?", "spd?", "pow?")


class Counter(Gadget):
    """One quantity for each class of numbers that is no plain one."""

    steps = Control("A?", "A {}", type=np.int16, doc="Steps.")
    travel = Control("A?", "A {}", type=np.int16, unit="mm", limits=(0, None), doc="Travel.")
    price = Control("A?", "A {}", type=Decimal, doc="Price.")
    ratio = Control("A?", "A {}", type=Fraction, doc="Ratio.")
    phasor = Control("A?", "A {}", type=complex, doc="Phasor.")
    third = Measurement("A?", type=lambda reply: reply.split(",")[2], doc="Third value.")
    named = Measurement("A?", type=lambda reply: {"A": 1}[reply], doc="Channel.")


@pytest.fixture
def counter():
    with Counter("counter") as device:
        yield device


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("steps", "70000"), ("steps", "1.5"), ("travel", "-40000"), ("price", "cheap"), ("price", ""), ("ratio", "1/0"),
        ("third", "1,2"), ("named", "B"), ("phasor", "1+k"),
    ],
)  # fmt: skip
def test_a_reply_that_the_declared_type_cannot_take_is_a_protocol_error_whatever_the_type_raises(counter, name, reply):
    counter._replies["A?"] = reply
    with pytest.raises(DeviceProtocolError, match=rf"^device 'counter' \(Counter\): {name}: .*\[command 'A\?'\]"):
        getattr(counter, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 70_000), ("steps", 1.5), ("steps", None), ("travel", 70_000), ("travel", 0.5), ("travel", -1),
        ("travel", "40 m"), ("price", None), ("price", [1]), ("price", Decimal("NaN")), ("price", "cheap"),
        ("price", True), ("ratio", 1j), ("phasor", "1"), ("phasor", None), ("price", 3 * astropy.units.V),
    ],
)  # fmt: skip
def test_a_value_that_the_declared_class_of_numbers_cannot_have_is_never_sent(counter, name, value):
    with pytest.raises(DeviceValueError, match=f"{name} must be"):
        setattr(counter, name, value)
    assert counter._sent == []


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("steps", 3.0, "A 3"), ("steps", "-3", "A -3"), ("travel", "2 cm", "A 20"), ("price", "0.1", "A 0.1"),
        ("price", Decimal("0.10"), "A 0.10"), ("price", Fraction(1, 4), "A 0.25"), ("ratio", Fraction(1, 4), "A 1/4"),
        ("phasor", 2 + 1j, "A (2+1j)"),
    ],
)  # fmt: skip
def test_a_number_is_sent_as_its_class_can_say_it(counter, name, value, sent):
    setattr(counter, name, value)
    assert counter._sent == [sent]


def test_functions_can_be_used_instead_of_commands(gadget):
    gadget.gain = "6 dB"

    assert gadget.gain == 6.0


def test_limits_that_a_function_tells_are_described_while_the_device_is_open(gadget):
    assert gadget.describe()["properties"]["fitted"]["limits"] == (0, 68.09)
    assert Gadget("other").describe()["properties"]["fitted"]["limits"] is None


@pytest.mark.parametrize("told", [None, 5, "05", (0,), (0, 1, 2), (0, "5"), (0, True)])
def test_limits_that_a_function_tells_must_be_two_numbers(told):
    class Odd(Gadget):
        odd = Control("odd?", "odd={}", limits=lambda device: told, doc="Odd.")

    with Odd("odd") as odd, pytest.raises(TypeError, match="limits of odd must return two numbers, got"):
        odd.odd = 1


def test_a_quantity_that_cannot_be_set_or_read_says_so(gadget):
    with pytest.raises(AttributeError, match="can be read, not set"):
        gadget.power = 1
    with pytest.raises(AttributeError, match="can be set, not read"):
        _ = gadget.output


def test_limits_can_be_narrowed_for_one_device():
    with Gadget("gadget", limits={"position": [1, 3], "current": ["1 uA", "0.01 A"], "fitted": [None, 20]}) as gadget:
        gadget.position = 3
        for name, value in (("position", 4), ("current", 11), ("fitted", 21)):
            with pytest.raises(DeviceValueError, match="must be"):
                setattr(gadget, name, value)

    assert Gadget.position.limits() == (1, 6)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"position": [0, 3]}, "can only be narrowed: 0 to 3 is not within 1 to 6"),
        ({"current": [0, "1 A"]}, "can only be narrowed: 0 to 1000 mA is not within 0 to 50 mA"),
        ({"position": [None, 3]}, "can only be narrowed"),
        ({"position": [3, 1]}, "above the highest"),
        ({"position": 3}, "int"),
        ({"speed": [0, 1]}, "no limits"),
        ({"power": [0, 1]}, "cannot be set"),
        ({"amount": [0, 1]}, "is a plain property of the driver, whose values only the driver checks"),
        ({"home": [0, 1]}, "this is something else, such as a method"),
        ({"postion": [1, 2]}, "no such property (did you mean 'position'?)"),
    ],
)
def test_limits_that_widen_or_make_no_sense_are_a_configuration_error_with_its_key(limits, problem):
    with pytest.raises(ConfigurationError) as caught:
        Gadget("gadget", limits=limits)

    assert problem in str(caught.value)
    assert caught.value.key == f"devices.gadget.limits.{next(iter(limits))}"


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Measurement("a?", doc=" "),
        lambda: Control("a?", "a=", doc="A."),
        lambda: Control("a?", "a={}", type=str, limits=(1, 2), doc="A."),
        lambda: Measurement("a?", type=bool, unit="W", doc="A."),
    ],
)
def test_a_declaration_that_makes_no_sense_raises_when_the_class_is_made(declare):
    with pytest.raises(TypeError):
        declare()


def test_describe_tells_everything_that_was_declared():
    assert Gadget.current.describe() == {
        "kind": "control", "type": "float", "unit": "mA", "limits": (0, 50), "choices": None, "doc": "Drive current.",
        "readable": True, "writable": True, "shared": False,
    }  # fmt: skip
    assert Gadget.speed.describe()["choices"] == ["slow", "fast"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"limts": {}}, "did you mean 'limits'"), ({"limits": {"position": [0, 9]}}, "narrowed")],
)
def test_options_that_a_driver_does_not_take_are_named(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        bind_options(Gadget, "gadget", options)
