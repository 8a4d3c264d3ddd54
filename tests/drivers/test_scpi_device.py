"""What a ScpiDevice reads, what it asks after a command, and what a strict one refuses."""

import enum
import math

import numpy as np
import pytest

from catkit_devices import Component, Components, Control, Measurement, ScpiDevice, scpi
from catkit_devices.errors import DeviceOpenError, DeviceProtocolError, DeviceTimeoutError
from catkit_devices.scpi import EventStatus, StatusByte

SOCKET = "TCPIP0::10.0.0.7::5025::SOCKET"
USB = "USB0::0x1313::0x8078::P0001::INSTR"

NO_ERROR = b'+0,"No error"\n'
REPLIES = {b"*IDN?": b"ACME,Source,7,1.0\n", b"SYST:ERR?": NO_ERROR}


class Source(ScpiDevice):
    identity = "acme,source"
    io_timeout = 0.5

    voltage = Control("VOLT?", "VOLT {}", unit="V", limits=(0, 10), doc="Voltage of the output.")
    enabled = Control("OUTP?", "OUTP {}", type=bool, doc="Output.")
    count = Control("COUN?", "COUN {}", type=int, doc="Number of readings.")
    label = Measurement("LAB?", type=str, doc="Label of the channel.")
    function = Control(
        "FUNC?", 'FUNC "{}"', choices={"voltage": "VOLT", "current": "CURR"}, doc="Function of the output."
    )


class StrictSource(Source):
    strict = True


@pytest.fixture
def source(serve, script):
    """Build a source: ``device, simulator = source({b"VOLT?": b"1\\n"})``; it is closed at the end."""
    made = []

    def build(replies, cls=Source, address=USB):
        library = serve(address, script, replies={**REPLIES, **replies})
        device = cls("source", address=address, visa_library=library)
        made.append(device)
        device.open()
        simulator = library.instrument(address)
        simulator.sent.clear()
        return device, simulator

    yield build
    for device in made:
        device.close(force=True)


# --- the forms of replies


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("5", 5.0), ("+5", 5.0), ("-005", -5.0),  # NR1
        ("5.0", 5.0), ("5.", 5.0), ("+.5", 0.5),  # NR2
        ("5.0E+00", 5.0), ("+5E0", 5.0), ("-1.5e-3", -1.5e-3), ("1.23456789E-006", 1.23456789e-6),  # NR3
        ("#HFF", 255.0), ("#hff", 255.0), ("#Q17", 15.0), ("#B1011", 11.0),
        ("9.9E37", math.inf), ("+9.90000000E+37", math.inf), ("-9.9E+37", -math.inf),
        ("INF", math.inf), ("NINF", -math.inf), ("-INF", -math.inf), ("INFinity", math.inf),
    ],
)  # fmt: skip
def test_a_number_is_read_in_every_form_of_the_standard(source, reply, value):
    device, _simulator = source({b"VOLT?": f" {reply} \n".encode()})

    assert device.voltage == scpi.number(reply) == value


@pytest.mark.parametrize("reply", ["9.91E37", "+9.91000000E+37", "NAN"])
def test_a_reply_that_means_not_a_number_is_nan(source, reply):
    device, _simulator = source({b"VOLT?": f"{reply}\n".encode()})

    assert math.isnan(device.voltage)


@pytest.mark.parametrize("reply", ["", "volts", "1,2", "#HXY", "#Q8", "#B2", "#", "1_0", "0x10", '"5"', "5 V"])
def test_a_reply_that_is_no_number_is_an_error(source, reply):
    device, _simulator = source({b"VOLT?": f"{reply}\n".encode()})

    with pytest.raises(DeviceProtocolError, match="a number was expected, got"):
        _ = device.voltage


@pytest.mark.parametrize("reply", ["12", "+12", "1.2E+01", "12.0", "#HC", "#Q14", "#b1100"])
def test_a_whole_number_is_read_in_every_form(source, reply):
    device, _simulator = source({b"COUN?": f"{reply}\n".encode()})

    assert device.count == scpi.whole(reply) == 12


@pytest.mark.parametrize(
    ("reply", "value"),
    [("1", True), ("0", False), ("+1", True), ("ON", True), ("off", False), ("1.00000E+00", True), ("FALSE", False)],
)
def test_a_switch_is_read_in_every_form(source, reply, value):
    device, _simulator = source({b"OUTP?": f"{reply}\n".encode()})

    assert device.enabled is value
    assert scpi.boolean(reply) is value


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('"red"', "red"), ("'red'", "red"), ("RED", "RED"), ('""', ""), ('"5"" disk"', '5" disk'), ("'it''s'", "it's"),
        ('"a,b"', "a,b"), ('"a","b"', '"a","b"'), ('6" disk', '6" disk'),
    ],
)  # fmt: skip
def test_a_text_is_what_is_inside_of_its_quotes(source, reply, value):
    device, _simulator = source({b"LAB?": f"{reply}\n".encode()})

    assert device.label == scpi.text(reply) == value


def test_a_string_without_its_last_quote_is_an_error(source):
    device, _simulator = source({b"LAB?": b'"red\n'})

    with pytest.raises(DeviceProtocolError, match='a string that ends with " was expected'):
        _ = device.label


@pytest.mark.parametrize("reply", [b"VOLT\n", b'"VOLT"\n', b"volt\n"])
def test_a_choice_may_be_sent_in_quotes(source, reply):
    device, _simulator = source({b"FUNC?": reply})

    assert device.function == "voltage"


def test_a_choice_that_is_answered_in_quotes_is_recognised(source):
    class Meter(Source):
        sense = Measurement("SENS?", choices={"volts": '"VOLT"', "amperes": '"CURR"'}, doc="What is measured.")

    device, _simulator = source({b"SENS?": b'"CURR"\n'}, Meter)

    assert device.sense == "amperes"


def test_the_parts_of_a_reply_are_separated_by_commas_outside_of_strings():
    assert scpi.elements("1, \"a,b\" ,'c,d', e") == ["1", '"a,b"', "'c,d'", "e"]


def test_a_method_asks_for_values_in_the_same_forms(source):
    class Meter(Source):
        def both(self):
            return self._ask_value("READ?", count=2), self._ask_value("LAB?", str), self._ask_value("COUN?", int)

    device, _simulator = source({b"READ?": b"#H10,9.9E37\n", b"LAB?": b'"x"\n', b"COUN?": b"+3.0E0\n"}, Meter)

    assert device.both() == ([16.0, math.inf], "x", 3)


def test_a_reply_with_another_number_of_values_is_an_error(source):
    class Meter(Source):
        def both(self):
            return self._ask_value("READ?", count=2)

    device, _simulator = source({b"READ?": b"1,2,3\n"}, Meter)

    with pytest.raises(DeviceProtocolError, match="2 values, with commas between them, were expected, got '1,2,3'"):
        device.both()


def test_status_bits_are_flags(source):
    class Meter(Source):
        def status(self):
            return self._event_status(), self._ask_value("*STB?", int)

    device, _simulator = source({b"*ESR?": b"+160\n", b"*STB?": b"36\n"}, Meter)
    events, byte = device.status()

    assert events == EventStatus.POWER_ON | EventStatus.COMMAND_ERROR
    assert StatusByte(byte) == StatusByte.EVENT | StatusByte.ERROR_QUEUE


# --- waveforms


class Scope(Source):
    def trace(self, dtype, options):
        return self._query_array("CURV?", dtype, **options)


@pytest.mark.parametrize("address", [USB, SOCKET])
@pytest.mark.parametrize(
    ("dtype", "data"),
    [(">i2", b"#18\x00\x01\xff\xfe\x00\n\x00\n"), ("<i2", b"#18\x01\x00\xfe\xff\n\x00\n\x00"),
     ("i1", b"#14\x01\xfe\n\n"), (">f4", b"#216" + np.array([1, -2, 10, 10], ">f4").tobytes()),
     ("text", b"1,-2,#HA,+1.0E1"), ("text", b"#9000000010" + b"1,-2, 10,1E1")],
)  # fmt: skip
def test_a_waveform_is_an_array(source, dtype, data, address):
    device, _simulator = source({b"CURV?": data + b"\n"}, Scope, address)

    assert device.trace(dtype, {}).tolist() == [1, -2, 10, 10]
    assert device.trace(dtype, {"scale": 0.5, "offset": 1, "shape": 4}).tolist() == [1.5, 0, 6, 6]


def test_a_waveform_of_indefinite_length_ends_with_its_message(source):
    device, _simulator = source({b"CURV?": b"#0\x01\x02\n\x03\n"}, Scope)

    assert device.trace("u1", {}).tolist() == [1, 2, 10, 3]


@pytest.mark.parametrize(
    ("dtype", "options", "said"),
    [(">i2", {}, "numbers of 2 bytes were expected, got 3 bytes"), ("u1", {"shape": 4}, "4 numbers were expected")],
)
def test_a_waveform_of_another_length_is_an_error(source, dtype, options, said):
    device, _simulator = source({b"CURV?": b"#13abc\n"}, Scope)

    with pytest.raises(DeviceProtocolError, match=said):
        device.trace(dtype, options)


def test_a_type_of_several_bytes_needs_a_byte_order(source):
    device, _simulator = source({}, Scope)

    with pytest.raises(TypeError, match="'i2' of 2 bytes needs a byte order: '>i2' "):
        device.trace("i2", {})


# --- errors


def test_after_a_command_the_error_queue_is_read_until_it_is_empty(source):
    queue = [NO_ERROR, b'-222,"Data out of range"\n', b"113\n", b'0, "No error"\n', b"0\n"]
    device, simulator = source({b"SYST:ERR?": queue})

    with pytest.raises(DeviceProtocolError, match=r'refused: -222,"Data out of range"; 113 \[command \'VOLT 3.0\'\]'):
        device.voltage = 3
    device.voltage = 4

    assert simulator.sent == [b"VOLT 3.0", *[b"SYST:ERR?"] * 3, b"VOLT 4.0", b"SYST:ERR?"]


def test_a_queue_without_an_end_is_an_error_that_ends(source):
    class Full(Source):
        errors = "on_request"

    device, simulator = source({b"SYST:ERR?": [NO_ERROR] + [b'-350,"Queue overflow"\n'] * 200}, Full)

    with pytest.raises(DeviceProtocolError, match="Queue overflow.*not empty after 100 errors"):
        device.check_errors()
    assert len(simulator.sent) == 100


def test_errors_are_read_on_request_only_where_the_driver_says_so(source):
    class Fast(Source):
        errors = "on_request"
        error_query = "ERR?"

    queue = [b"+0\n", b'-100,"Command error"\n', b"+0\n", b"+0\n"]
    device, simulator = source({b"ERR?": queue}, Fast)
    device.voltage = 3

    assert simulator.sent == [b"VOLT 3.0"]
    with pytest.raises(DeviceProtocolError, match='-100,"Command error"'):
        device.check_errors()
    device.check_errors()


def test_an_instrument_without_an_error_queue_is_never_asked(source):
    class Plain(Source):
        errors = "never"

    device, simulator = source({}, Plain)
    device.voltage = 3

    assert simulator.sent == [b"VOLT 3.0"]
    with pytest.raises(DeviceProtocolError, match="has no error queue"):
        device.check_errors()


def test_an_instrument_without_an_error_queue_is_reported_when_it_is_opened(serve, script):
    library = serve(USB, script, replies={b"*IDN?": b"ACME,Source,7,1.0\n"})

    with pytest.raises(DeviceOpenError, match=r"no reply.*errors = 'never'.*SYST:ERR\?"):
        Source("source", address=USB, visa_library=library).open()


@pytest.mark.parametrize("strict", [False, True])
def test_an_instrument_without_an_error_queue_tells_by_its_status_register(source, strict):
    class OfStatus(Source):
        error_query = "*ESR?"

    OfStatus.strict = strict
    device, simulator = source({b"*ESR?": [b"129\n", b"1\n", b"16\n", b"36\n", b"0\n"]}, OfStatus)

    device.voltage = 1  # 1 is "operation complete", which is no error
    with pytest.raises(DeviceProtocolError, match=r"refused: execution error .*'VOLT 2\.0'"):
        device.voltage = 2
    with pytest.raises(DeviceProtocolError, match="refused: command error .*; query error"):
        device.check_errors()
    device.check_errors()
    assert simulator.sent == [b"VOLT 1.0", b"*ESR?", b"VOLT 2.0", b"*ESR?", b"*ESR?", b"*ESR?"]


@pytest.mark.parametrize("reply", ["ERROR", "-1", "1_0", "256"])
def test_what_cannot_be_a_status_register_is_named(source, reply):
    class OfStatus(Source):
        error_query = "*ESR?"

    device, _simulator = source({b"*ESR?": [b"128\n", f"{reply}\n".encode()] + [b"0\n"] * 9}, OfStatus)

    with pytest.raises(DeviceProtocolError, match=f"status register, 0 to 255, was expected, got '{reply}'"):
        device.check_errors()


def test_errors_that_are_in_the_queue_before_the_opening_are_logged_and_not_raised(source, caplog):
    device, _simulator = source({b"SYST:ERR?": [b'-113,"Undefined header"\n', NO_ERROR, NO_ERROR]})
    device.voltage = 3

    assert '-113,"Undefined header"' in caplog.text


def test_a_command_that_fails_while_it_is_waited_for_raises_the_text_of_the_instrument(source):
    class Oven(Source):
        def tune(self):
            self._wait_for_completion("TUNE", 5.0)

    queue = [NO_ERROR, NO_ERROR, NO_ERROR, b'-310,"System error;heater open"\n', NO_ERROR]
    device, _simulator = source({b"*ESR?": [b"0\n", b"0\n", b"8\n"], b"SYST:ERR?": queue}, Oven)

    with pytest.raises(DeviceProtocolError, match='refused: -310,"System error;heater open"'):
        device.tune()


def test_a_wait_ends_when_the_instrument_says_that_it_is_complete(source):
    class Oven(Source):
        def tune(self):
            self._wait_for_completion("TUNE", 5.0)

        def tune_for_ever(self):
            self._wait_for_completion("TUNE", 0.2)

    device, simulator = source({b"*ESR?": [b"128\n", b"0\n", b"1\n"] + [b"0\n"] * 9}, Oven)
    device.tune()

    assert [command for command in simulator.sent if command != b"SYST:ERR?"] == [
        b"*ESR?", b"TUNE", b"*OPC", b"*ESR?", b"*ESR?"
    ]  # fmt: skip
    with pytest.raises(DeviceTimeoutError, match=r"not complete in 0.2 s"):
        device.tune_for_ever()


class Channel(Component):
    """A channel that addresses itself in every command."""

    level = Control("LEV?", "LEV {}", unit="V", limits=(0, 9), settles_within=5.0, doc="Level.")

    def _query(self, command, timeout=None):
        return self.device._query(f"CH{self.number}:{command}", timeout)

    def _write(self, command):
        self.device._write(f"CH{self.number}:{command}")


def test_errors_and_completion_of_a_channel_are_those_of_the_whole_instrument(source):
    class Rack(Source):
        channels = Components(Channel, numbers=(1, 2))

    replies = {b"CH2:LEV?": b"3\n", b"*ESR?": [b"0\n", b"1\n"]}
    device, simulator = source(replies, Rack)
    device.channels[2].level = 3

    assert device.channels[2].level == 3.0
    assert [command for command in simulator.sent if command != b"SYST:ERR?"] == [
        b"*ESR?", b"CH2:LEV 3.0", b"*OPC", b"*ESR?", b"CH2:LEV?"
    ]  # fmt: skip


# --- strict drivers


@pytest.mark.parametrize(
    ("name", "reply"),
    [("voltage", "1.5"), ("voltage", "15"), ("voltage", "1.5E0"), ("voltage", "#HFF"), ("count", "1.0E+01"),
     ("count", "#H1"), ("enabled", "ON"), ("enabled", "+1")],
)  # fmt: skip
def test_a_strict_driver_takes_exact_forms_only(source, name, reply):
    device, _simulator = source({f"{query(name)}".encode(): f"{reply}\n".encode()}, StrictSource)

    with pytest.raises(DeviceProtocolError, match=r"in exactly this form \(strict = True\)"):
        getattr(device, name)


@pytest.mark.parametrize(
    ("name", "replies"), [("count", ["12", "1"]), ("label", ["red", "redo"]), ("function", ["VOLT", "CURR"])]
)
def test_a_strict_driver_asks_twice_if_one_character_more_or_less_gives_another_valid_value(source, name, replies):
    device, simulator = source({query(name).encode(): [f"{one}\n".encode() for one in replies]}, StrictSource)

    with pytest.raises(DeviceProtocolError, match="the same answer twice was expected"):
        getattr(device, name)
    assert simulator.sent == [query(name).encode()] * 2


@pytest.mark.parametrize(
    ("name", "reply", "value"),
    [("voltage", "1.5E+00", 1.5), ("voltage", "9.90000000E+37", math.inf), ("count", "+12", 12),
     ("enabled", "0", False), ("label", '"red"', "red"), ("function", '"CURR"', "current")],
)  # fmt: skip
def test_a_strict_driver_reads_exact_forms(source, name, reply, value):
    device, _simulator = source({query(name).encode(): f"{reply}\n".encode()}, StrictSource)

    assert getattr(device, name) == value


def query(name):
    return {"voltage": "VOLT?", "count": "COUN?", "enabled": "OUTP?", "label": "LAB?", "function": "FUNC?"}[name]


class Color(enum.Enum):
    RED = "RED"
    BLUE = "BLUE"


def test_a_choice_may_be_a_member_of_an_enumeration(source):
    class Lamp(Source):
        color = Control("COL?", "COL {}", type=Color, doc="Colour of the lamp.")

    device, simulator = source({b"COL?": b'"BLUE"\n'}, Lamp)
    device.color = "RED"

    assert device.color is Color.BLUE
    assert simulator.sent[0] == b"COL RED"
