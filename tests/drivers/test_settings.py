"""The plain values in a driver's class: declared once, and checked in every class below."""

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import pytest

from catkit_devices import Control, Device, VisaDevice
from catkit_devices._device.settings import Requirement
from catkit_devices.multiprocessing import SharedMemoryManager

if TYPE_CHECKING:
    from nowhere import Known  # for type checkers only


def driver(base=VisaDevice, /, **members):
    return type("Driver", (base,), members)


@pytest.mark.parametrize(
    ("name", "near"),
    [("baudrate", "baud_rate"), ("read_terminator", "read_termination"), ("timeout", "io_timeout"),
     ("stopbits", "stop_bits"), ("flow_controll", "flow_control"), ("Parity", "parity")],
)  # fmt: skip
def test_a_misspelt_value_is_refused_with_the_nearest_right_one(name, near):
    with pytest.raises(TypeError, match=rf"Driver\.{name} .* did you mean '{near}'\?"):
        driver(**{name: 1})


def test_an_unknown_setting_is_refused_and_the_known_ones_are_named():
    with pytest.raises(TypeError, match=r"chunk_size .*baud_rate, data_bits, .* private \(_chunk_size\) or declared"):
        driver(chunk_size=1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("parity", "O", "one of 'none', 'odd', 'even', 'mark', 'space'"),
        ("parity", None, "one of 'none'"),
        ("flow_control", "rtscts", "one of 'none', 'xon_xoff', 'rts_cts'"),
        ("stop_bits", 3, "1, 1.5 or 2"),
        ("stop_bits", True, "1, 1.5 or 2"),
        ("data_bits", 9, "one of 5, 6, 7, 8"),
        ("data_bits", 8.0, "one of 5, 6, 7, 8"),
        ("baud_rate", "9600", "a whole number above 0"),
        ("baud_rate", 9600.0, "a whole number above 0"),
        ("baud_rate", 0, "a whole number above 0"),
        ("baud_rate", True, "a whole number above 0"),
        ("io_timeout", "2 s", "a number of seconds above 0"),
        ("io_timeout", 0, "a number of seconds above 0"),
        ("io_timeout", float("nan"), "a number of seconds above 0"),
        ("io_timeout", float("inf"), "a number of seconds above 0"),
        ("io_timeout", None, "a number of seconds above 0"),
        ("read_termination", b"\n", "text in ASCII"),
        ("write_termination", "\N{DEGREE SIGN}", "text in ASCII"),
        ("read_termination", None, "text in ASCII"),
        ("identity", "A(", "a regular expression"),
        ("encoding", "latin-0", "an encoding that Python knows and in which ASCII is as it is"),
        ("encoding", "utf-16", "an encoding that Python knows and in which ASCII is as it is"),
        ("encoding", "rot13", "an encoding that Python knows and in which ASCII is as it is"),
        ("encoding", "unicode_escape", "an encoding that Python knows and in which ASCII is as it is"),
        ("encoding", "latin-1\0", "an encoding that Python knows and in which ASCII is as it is"),
        ("encoding", None, "an encoding that Python knows and in which ASCII is as it is"),
        ("driver", 1, "text"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(name, value, expected):
    with pytest.raises(TypeError, match=re.escape(f"Driver.{name} must be {expected}")):
        driver(**{name: value})


@pytest.mark.parametrize(
    "members",
    [
        {"parity": "odd"}, {"stop_bits": 1.5}, {"data_bits": 7}, {"io_timeout": 4}, {"read_termination": ""},
        {"identity": "^ACME"}, {"baud_rate": 115200, "write_termination": "\r\n"}, {"_baudrate": 1},
        {"encoding": "utf-8"}, {"encoding": "latin-1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_right_value_is_accepted(members):
    made = driver(**members)

    assert {name: getattr(made, name) for name in members} == members


@pytest.mark.parametrize(
    "member",
    [Control("Q?", "Q {}", doc="A quantity."), property(lambda device: 1), lambda device: 1, int],
    ids=["control", "property", "method", "class"],
)
def test_a_setting_must_be_a_plain_value(member):
    for name in ("parity", "io_timeout", "identity", "driver"):
        with pytest.raises(TypeError, match=rf"Driver\.{name} must be a plain value"):
            driver(**{name: member})


def test_a_value_is_checked_when_it_is_assigned_to_the_class_later():
    made = driver()

    with pytest.raises(TypeError, match="seconds"):
        made.io_timeout = "2 s"
    made.io_timeout = 3.0

    assert made.io_timeout == 3.0


def test_a_value_is_not_set_on_one_device_alone():
    device = driver()("device", address="ASRL1::INSTR")

    with pytest.raises(AttributeError, match="'baud_rate' of Driver 'device' is set in the class"):
        device.baud_rate = 115200


class Family(Device):
    """Instruments with a prompt."""

    PROMPT: Final = b"> "
    prompt: ClassVar[bytes] = b"> "
    retries: ClassVar[Annotated[int, Requirement("1 to 9", range(1, 10).__contains__)]] = 3
    known: "ClassVar[Known | None]" = None
    either: ClassVar[int | str] = 1


def test_a_base_class_of_ones_own_declares_values_for_those_below():
    made = driver(Family, prompt=b"# ", retries=5, known=object(), either="b")

    assert (made.prompt, made.retries) == (b"# ", 5)
    for name, wrong in [("prompt", "> "), ("retries", 10), ("either", 1.5)]:
        with pytest.raises(TypeError, match=rf"Driver\.{name} must be"):
            driver(Family, **{name: wrong})
    with pytest.raises(TypeError, match="did you mean 'prompt'"):
        driver(Family, promt=b"# ")


def test_a_setting_declared_again_is_still_checked_as_its_base_class_declared():
    with pytest.raises(TypeError, match="seconds"):
        driver(io_timeout="2 s", __annotations__={"io_timeout": ClassVar[str]})


def test_a_mixins_values_are_checked_too():
    with pytest.raises(TypeError, match="did you mean 'baud_rate'"):
        type("Driver", (type("Quick", (), {"baudrate": 115200}), VisaDevice), {})


def test_a_driver_with_values_of_its_own_travels_to_a_server_by_value():
    class Local(Device):
        LIMIT: ClassVar[int] = 5
        limit: ClassVar[int] = 6

        def both(self):
            return self.LIMIT, self.limit

        def _open(self):
            return object()

    with SharedMemoryManager() as manager, manager.get_object("local", Local, "local") as device:
        assert device.both() == (5, 6)


@pytest.mark.parametrize("name", ["state", "describe", "query", "write", "lock", "name", "open"])
@pytest.mark.parametrize(
    "member", [Control("Q?", "Q {}", doc="A quantity."), lambda device: 1], ids=["control", "method"]
)
def test_a_public_name_of_a_base_class_cannot_be_used_for_something_else(name, member):
    with pytest.raises(TypeError, match=rf"Driver\.{name} belongs to (Visa)?Device: "):
        driver(**{name: member})
