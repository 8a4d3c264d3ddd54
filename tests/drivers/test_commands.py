"""What reaches the wire when a quantity is set is what was checked, and one command."""

from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catkit_devices import VisaDevice, unlocked
from catkit_devices._device.values import Command, Rule, SetCommand
from catkit_devices.drivers import create_device
from catkit_devices.errors import DeviceValueError
from catkit_devices.properties import Control, Setting, command_text
from catkit_devices.simulation import Instrument, build_library

ADDRESS = "TCPIP0::192.0.2.1::5025::SOCKET"
SERIAL = "ASRL1::INSTR"
NUMBER = Rule(float, None, None)
TEXT = Rule(str, None, None)
WHOLE = Rule(int, None, None)


class Listener:
    """An instrument that takes any command; what it has received is in ``heard``."""

    heard: list[str]

    def __init__(self, bench):
        self.received = b""
        Listener.heard = []

    def feed(self, data):
        *lines, self.received = (self.received + data).split(b"\n")
        Listener.heard += [line.decode() for line in lines if line != b"*IDN?"]
        return b"ACME,S1\n" * lines.count(b"*IDN?")


class Supply(VisaDevice):
    identity = "ACME"

    current = Setting("CURR {:.1f}", unit="A", limits=(0, 3), doc="Current.")
    cold = Setting("TEMP {:.0f}", unit="K", limits=(0.5, 300), doc="Temperature.")
    label = Setting('DISP:TEXT "{}"', type=str, doc="Label.")
    plain = Setting("NAME {}", type=str, doc="Name.")


@pytest.fixture
def supply():
    library = build_library([Instrument(ADDRESS, Listener)], clock="virtual")
    with Supply("supply", address=ADDRESS, visa_library=library, limits={"current": [0, "2.46 A"]}) as device:
        yield device


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("current", 2.46, "current must be 0 to 2.46 A, got 2.46 A, which would be sent as '2.5'"),
        ("cold", "0.5 K", "cold must be 0.5 to 300 K, got 0.5 K, which would be sent as '0'"),
    ],
)
def test_a_number_that_its_format_rounds_beyond_a_limit_is_refused(supply, name, value, problem):
    with pytest.raises(DeviceValueError) as caught:
        setattr(supply, name, value)

    assert caught.value.problem == problem
    assert Listener.heard == []


def test_a_number_that_its_format_rounds_within_the_limits_is_sent(supply):
    supply.current = 2.44

    assert Listener.heard == ["CURR 2.4"]


@given(
    template=st.sampled_from(
        ["C {}", "C {:.0f}", "C {:.2f}", "C {:.1e}", "C {:.3g}", "C {:+.1f}", "C {:08.2f}", "C {: .1f}", "C {:.3G}"]
    ),
    limits=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted),
    share=st.floats(0, 1),
)
def test_no_number_is_sent_beyond_its_limits_whatever_the_format(template, limits, share):
    low, high = limits
    value = min(max(low + share * (high - low), low), high)
    try:
        sent = SetCommand(template, NUMBER).text(value, (low, high))
    except ValueError:
        assert template != "C {}"
    else:
        assert low <= float(sent.removeprefix("C ")) <= high


@pytest.mark.parametrize(
    ("template", "value", "sent"),
    [("C {:.1%}", 0.25, "C 25.0%"), ("C {:,.1f}", 1500.0, "C 1,500.0"), ("C {:_.0f}", 1500.0, "C 1_500")],
)
def test_numbers_that_are_written_in_other_ways_are_read_back_too(template, value, sent):
    command = SetCommand(template, NUMBER)

    assert command.text(value, (0, 2000)) == sent
    with pytest.raises(ValueError, match="would be sent as"):
        command.text(value + 0.00051, (0, value + 0.00051) if "%" in template else (value + 0.0003, 2000))


@pytest.mark.parametrize("template", ["REG {:x}", "REG {:#06X}", "REG {:o}", "REG {:b}", "REG {:d}", "REG {}"])
def test_whole_numbers_are_sent_in_any_base(template):
    assert SetCommand(template, Rule(int, None, None)).text(16, (0, 255)) == template.format(16)


def test_a_whole_number_is_never_sent_as_another_one():
    with pytest.raises(ValueError, match=r"cannot be 15: that would be sent as '2e\+01'"):
        SetCommand("POS {:.0e}", Rule(int, None, None)).text(15)


@pytest.mark.parametrize(
    ("template", "rule", "problem"),
    [
        ("C", NUMBER, "has no {} for the value"),
        ("C {},{}", NUMBER, "has not just one, plain {} for the value"),
        ("C {value}", NUMBER, "has not just one, plain {} for the value"),
        ("C {:{}}", NUMBER, "has not just one, plain {} for the value"),
        ("C {", NUMBER, "is no command"),
        ("C {:d}", NUMBER, "does not fit a value such as 1.0"),
        ("C {:*>8}", NUMBER, "would send 1.0 as"),
        ("C {:.3f}", TEXT, "does not fit a value such as 'text'"),
        ("C {:.1f}", Rule(float, None, (0.25, 0.5)), "would send 0.25 as '0.2'"),
        ("C {:d}", Rule(float, None, ("on", "off")), "does not fit a value such as 'on'"),
        ("C {:.1f}", Rule(float, None, [Decimal("0.25")]), "would send Decimal('0.25') as '0.2'"),
        ("C {:.0f}", Rule(float, None, [np.float32(0.5)]), "would send np.float32(0.5) as '0'"),
        ("C {:.3s}", Rule(str, None, ["abcd", "abce"]), "would send 'abcd' as 'abc'"),
        ("C {:.3s}", TEXT, "would send 'text' as 'tex'"),
        ("C {!r}", TEXT, """would send 'text' as "'text'\""""),
        ("C {:*>8}", TEXT, "would send 'text' as '****text'"),
        ("C {:0<4x}", WHOLE, "would send 1 as '1000'"),
        ("C {:1>4x}", WHOLE, "would send 1 as '1111'"),
        ("C {:c}", WHOLE, "writes a number as a letter"),
        ("C {!s:.2}", Rule(str.strip, None, [Decimal("0.25")]), "would send Decimal('0.25') as '0.'"),
    ],
)
def test_a_command_that_cannot_say_its_values_fails_where_it_is_written(template, rule, problem):
    with pytest.raises(TypeError) as caught:
        SetCommand(template, rule)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("template", "rule", "value", "sent"),
    [
        ("C {!s:.3}", NUMBER, 123456.0, "123"),
        ("C {!s:.3}", NUMBER, 2.46, "2.4"),
        ("C {!r:.4}", NUMBER, 1.5e-7, "1.5e"),
        ("C {:.9}", Rule(str.strip, None, None), "a long text", "a long te"),
        ("C {!s:.3}", Rule(str.strip, None, None), 123456, "123"),
    ],
)
def test_a_value_that_the_format_would_cut_off_is_not_sent(template, rule, value, sent):
    command = SetCommand(template, rule)

    with pytest.raises(ValueError, match=f"cannot be .*: that would be sent as '{sent}'"):
        command.text(value)


@pytest.mark.parametrize(
    ("template", "value", "sent"),
    [
        *(("{:.1f}", 2.46, "2.5"), ("{:.0e}", 123456.0, "1e+05"), ("{:.2g}", 123456.0, "1.2e+05")),
        ("{:.0%}", 0.254, "25%"),
        *(("{:g}", 1e300, "1e+300"), ("{}", 5e-324, "5e-324"), ("{:.3f}", 0.0005, "0.001"), ("{:.1f}", 0.25, "0.2")),
        *(("{:,.1f}", 1234567.89, "1,234,567.9"), ("{:>8.1f}", -0.04, "    -0.0"), ("{:.0f}", 1e22, "1" + 22 * "0")),
    ],
)
def test_a_number_is_rounded_to_the_digits_of_its_format(template, value, sent):
    for rule in (NUMBER, Rule(lambda reply: float(reply), None, None)):
        assert SetCommand(f"C {template}", rule).text(value) == f"C {sent}"


@pytest.mark.parametrize("choice", [Decimal("0.1"), np.float32(0.1), Fraction(1, 4), 0.1, 3, "x", True, None])
def test_a_choice_of_any_kind_is_sent_as_it_is_written(choice):
    assert (
        SetCommand("C {}", Rule(float, None, [choice])).text(choice) == f"C {int(choice) if choice is True else choice}"
    )


@pytest.mark.parametrize(("template", "rule"), [("S '{:s}'", TEXT), ("S {:s}", Rule(str, None, ["A", "B"]))])
def test_a_format_for_text_is_one_for_text(template, rule):
    assert SetCommand(template, rule).text("A") == template.format("A")


# --- text ---


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('12" wafer', 'DISP:TEXT "12"" wafer"'),
        ("it's; or is it", 'DISP:TEXT "it\'s; or is it"'),
        ('a";:OUTP ON;:DISP:TEXT "', 'DISP:TEXT "a"";:OUTP ON;:DISP:TEXT """'),
    ],
)
def test_a_quote_inside_of_quoted_text_is_doubled(supply, text, sent):
    supply.label = text

    assert Listener.heard == [sent]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("plain", "a;:OUTP ON", "plain must be text without ';', behind which another command begins"),
        ("plain", "a\nOUTP ON", "plain must be printable text"),
        ("plain", "a\rOUTP ON", "plain must be printable text"),
        ("label", "a\x00", "label must be printable text"),
        ("label", "a\u2028OUTP ON", "label must be printable text"),
    ],
)
def test_a_text_that_could_become_a_second_command_is_refused(supply, name, text, problem):
    with pytest.raises(DeviceValueError) as caught:
        setattr(supply, name, text)

    assert caught.value.problem.startswith(problem)
    assert Listener.heard == []


@given(text=st.text(st.characters(codec="ascii"), max_size=12), quote=st.sampled_from("\"'"))
def test_a_quoted_text_is_one_string_whatever_it_holds(text, quote):
    try:
        sent = SetCommand(f"TEXT {quote}{{}}{quote};*WAI", TEXT).text(text)
    except ValueError:
        assert not text.isprintable()
    else:
        inside = sent.removeprefix(f"TEXT {quote}").removesuffix(f"{quote};*WAI")
        assert inside.replace(2 * quote, "").count(quote) == 0
        assert inside.replace(2 * quote, quote) == text


@pytest.mark.parametrize(
    ("template", "sent"),
    [
        ('A "{} mm"', 'A "a""b mm"'),
        ("A '{}'", "A 'a\"b'"),
        ("A \"x\",'{}'", 'A "x",\'a"b\''),
        ('A "x""y",{}', 'A "x""y",a"b'),
        ('A "{}', 'A "a"b'),
    ],
)
def test_only_the_quote_of_the_string_around_it_is_doubled(template, sent):
    assert SetCommand(template, TEXT).text('a"b') == sent


@pytest.mark.parametrize("value", ["x\nOUTP ON", "x;OUTP ON"])
def test_a_value_that_a_drivers_own_type_accepts_is_checked_as_it_is_sent(value):
    class Name:
        def __str__(self):
            return value

    for given_value in (value, Name()):
        with pytest.raises(ValueError, match="must be"):
            SetCommand("NAME {}", Rule(str.strip, None, None)).text(given_value)


@pytest.mark.parametrize("termination", ["\r", "\r\n", ">"])
@pytest.mark.parametrize("end", ["\r", "\n"])
def test_no_line_end_of_any_kind_is_sent_inside_a_command(termination, end):
    class Box(VisaDevice):
        write_termination = termination

        def _identify(self):
            pass

    library = build_library([Instrument(ADDRESS, Listener)], clock="virtual")
    with (
        Box("box", address=ADDRESS, visa_library=library) as box,
        pytest.raises(DeviceValueError, match="must be one command"),
    ):
        box.write(f"NAME a{end}OUTP ON")


# --- what a driver's own methods send ---


def units_of(message):
    """Return the commands that an instrument finds in a message (IEEE 488.2, 7.4.1, 7.7.5 and 7.7.6)."""
    units, quote, position = [""], "", 0
    while position < len(message):
        letter = message[position]
        width = 1
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and message[position + 1 : position + 2].isdigit():
            digits = int(message[position + 1])
            length = message[position + 2 : position + 2 + digits]
            width = 2 + digits + (int(length) if length.isdecimal() else 0)
        if letter == ";" and not quote:
            units.append("")
        else:
            units[-1] += message[position : position + width]
        position += width
    return units


@pytest.mark.parametrize(
    ("template", "values", "sent"),
    [
        ('DISP "{}"', ['x";OUTP ON;"'], 'DISP "x"";OUTP ON;"""'),
        ("DISP '{}',{:.2f}", ["it's", 1.234], "DISP 'it''s',1.23"),
        ("FUNC {};LIM {}", ["VOLT", 3], "FUNC VOLT;LIM 3"),
        ("OUTP {}", [True], "OUTP 1"),
        ("RANG {},(@{:02d})", [Decimal("0.1"), np.int64(4)], "RANG 0.1,(@04)"),
    ],
)
def test_a_driver_puts_values_into_a_command_of_its_own(template, values, sent):
    assert command_text(template, *values) == sent


@pytest.mark.parametrize(
    ("template", "value", "problem"),
    [
        ("FUNC {}", "VOLT;OUTP ON", "must be text without ';'"),
        ("FUNC {}", "VOLT\nOUTP ON", "must be printable text"),
        ('DISP "{}"', "x\ny", "must be printable text"),
        ("FUNC {:c}", 59, "must be text without ';'"),
        ('FUNC {},"x;OUTP ON"', 'x"', "must be text that ends each string"),
        ('FUNC {},"x;OUTP ON"', "#12", "must be text that ends each string"),
        ("VOLT {}", float("nan"), "must be a finite number"),
        ("VOLT {}", 9.9e37, "must be a finite number"),
        ("VOLT {}", None, "must be a text or a number"),
        ("VOLT {:d}", 2.5, "Unknown format code"),
        ("FUNC {:.3}", "VOLTAGE", "cannot be 'VOLTAGE': that would be sent as 'VOL'"),
    ],
)
def test_a_value_that_cannot_be_a_part_of_a_drivers_own_command_is_refused(template, value, problem):
    with pytest.raises(DeviceValueError, match=problem):
        command_text(template, value)


@pytest.mark.parametrize("template", ["A", "A {} {}", "A {number}", "A {:{}}"])
def test_a_template_needs_one_place_for_each_value(template):
    with pytest.raises(TypeError, match="needs a plain {} for each value, got 1 values"):
        command_text(template, 1)


TEXTS = st.text(st.sampled_from("ab1#;\"' ,"), max_size=8)


@given(
    template=st.sampled_from(["A {} {}", "A {} '{}'", "A '{}' {}", "A \"{}\",'{}'", 'A {};B "{}"']),
    one=TEXTS,
    two=TEXTS,
)
def test_no_texts_make_other_commands_of_a_message_than_its_template_has(template, one, two):
    try:
        sent = command_text(template, one, two)
    except DeviceValueError:
        return
    assert len(units_of(sent)) == len(units_of(template))


# --- a driver that makes its own frames ---


def test_lc400_never_goes_to_the_step_beyond_a_limit():
    step = 2000.0 / 1048574  # µrad: the simulated stage's range is 2000 µrad
    limit = 33000.6 * step
    library = build_library([Instrument(SERIAL, "npoint_lc400")], clock="virtual")
    options = {"address": SERIAL, "limits": {"tip": [-limit, limit]}}
    with create_device("npoint_lc400", "stage", options, visa_library=library) as stage:
        for set_it in (lambda value: setattr(stage, "tip", value), lambda value: stage.move(value, 0)):
            set_it(33000 * step)
            with pytest.raises(DeviceValueError, match=r"tip must be -62.94.* to 62.94.* urad"):
                set_it(limit)
            assert stage.tip == pytest.approx(33000 * step, abs=step / 2)


# --- what a device fills in of itself


class Module(VisaDevice):
    """One module of a mainframe, which every command names."""

    identity = "ACME"
    form: ClassVar[str] = "(@{value})"

    def __init__(self, name, *, slot, **options):
        super().__init__(name, **options)
        self._slot = slot

    current = Setting("CURR {:.1f},(@{self._slot:02d})", unit="A", limits=(0, 3), doc="Current.")
    label = Setting('{self._slot}:DISP "{}",{self.name!r}', type=str, doc="Label.")
    pattern = Setting("PATT {self.form},{}", type=int, doc="Pattern.")
    voltage = Control("VOLT? {self._slot}", "VOLT {self._slot},{}", unit="V", doc="Voltage.")


def module(slot):
    library = build_library([Instrument(ADDRESS, Listener)], clock="virtual")
    return Module("upper", slot=slot, address=ADDRESS, visa_library=library)


def test_a_command_contains_values_of_the_device():
    with module(7) as device:
        device.current = 2
        device.label = "{self._slot} {}"  # a text is never more than a text
        device.pattern = 5
        device.voltage = 1.5

        assert Listener.heard == [
            "CURR 2.0,(@07)", "7:DISP \"{self._slot} {}\",'upper'", "PATT (@{value}),5", "VOLT 7,1.5"
        ]  # fmt: skip


def test_a_text_of_the_device_cannot_become_a_second_command_either():
    device = SimpleNamespace(label='x";OUTP ON;"')

    assert Command('DISP? "{self.label}"').filled(device) == 'DISP? "x"";OUTP ON;"""'
    assert SetCommand('DISP "{self.label}",{}', NUMBER).text(1.0, owner=device) == 'DISP "x"";OUTP ON;""",1.0'
    for refused in (Command("DISP? {self.label}"), SetCommand("DISP {},{self.label}", NUMBER)._after):
        with pytest.raises(ValueError, match="'label' must be text without ';'"):
            refused.filled(device)


@pytest.mark.parametrize("slot", [None, "1\nOUTP ON", ["1"]], ids=str)
def test_a_value_of_the_device_that_cannot_be_in_a_command_is_not_sent(slot):
    with module(slot) as device:
        for use in (lambda: device.voltage, lambda: setattr(device, "voltage", 1.0)):
            with pytest.raises(
                DeviceValueError, match=r"voltage cannot be sent: in '.*' a number or a word was expected"
            ):
                use()
        assert Listener.heard == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("VOLT? {self.slto}", r"Driver\.voltage has 'slto' filled into its command.*did you mean 'slot'"),
        ("VOLT? {self.slot.number}", r"can have an attribute filled in, as in {self\.number}"),
        ("VOLT? {self}", r"can have an attribute filled in"),
        ("VOLT? {self.measured}", r"has 'measured' filled into its command, which is an operation itself"),
        ("VOLT? {self.query}", r"has 'query' filled into its command, which is an operation itself"),
    ],
)
def test_a_command_with_an_attribute_that_cannot_be_filled_in_is_refused_when_the_class_is_made(command, problem):
    with pytest.raises(TypeError, match=problem):
        type(
            "Driver",
            (VisaDevice,),
            {
                "slot": unlocked(property(lambda self: 1)),
                "measured": property(lambda self: 1),
                "voltage": Control(command, command + " {}", doc="Voltage."),
            },
        )


def test_other_braces_of_a_question_are_sent_as_they_are():
    assert Command('DATA? {1,{2}},{self.number}"{}"').filled(SimpleNamespace(number=3)) == 'DATA? {1,{2}},3"{}"'
