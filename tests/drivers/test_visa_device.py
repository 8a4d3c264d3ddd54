"""What a VisaDevice does on the wire, on pyvisa's own stack, when all is well and when it is not."""

import math
import pickle
import threading

import pytest

from catkit_devices._wire.exchange import _transports
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
    MutexTimeoutError,
    SimulationError,
)
from catkit_devices.properties import Control, Measurement, Setting
from catkit_devices.simulation import Fault
from catkit_devices.visa import VisaDevice

SERIAL = "ASRL7::INSTR"
SOCKET = "TCPIP0::10.0.0.7::5025::SOCKET"
USB = "USB0::0x1313::0x8078::P0001::INSTR"
ADDRESSES = pytest.mark.parametrize("address", [SERIAL, SOCKET, USB])

REPLIES = {b"*IDN?": b"ACME,Widget,7,1.0\n", b"A?": b"1.5\n", b"B?": b"2.5\n"}


class Widget(VisaDevice):
    identity = "acme,widget"
    io_timeout = 0.5

    a = Control("A?", "A {}", limits=(0, 10), doc="Amplitude.")
    b = Measurement("B?", doc="Backlash.", shared=True)


@pytest.fixture
def widget(serve, script):
    """Build a widget at an address: ``device, library = widget(address, replies)``; it is closed at the end."""
    made = []

    def build(address, replies=REPLIES, cls=Widget, **options):
        library = serve(address, script, replies=replies)
        device = cls("widget", address=address, visa_library=library, **options)
        made.append(device)
        return device, library

    yield build
    for device in made:
        device.close(force=True)


@pytest.mark.parametrize("option", ["timeout", "safe_timeout", "late_window"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "1"])
def test_a_timeout_that_is_not_a_time_is_refused_when_the_device_is_made(option, value):
    with pytest.raises(ValueError, match=f"'widget'.* timeout .*, got '?{value}"):
        Widget("widget", address="ASRL7::INSTR", **{option: value})


@ADDRESSES
def test_a_dialogue_is_exactly_what_was_declared(widget, address):
    device, library = widget(address)

    with device:
        assert (device.a, device.b) == (1.5, 2.5)
        device.a = 3

    assert library.instrument(address).sent == [b"*IDN?", b"A?", b"B?", b"A 3.0"]


@ADDRESSES
def test_no_reply_is_a_timeout_that_names_device_address_and_command(widget, address):
    device, library = widget(address)

    with device:
        library.line(address).inject(Fault("no_reply"))
        with pytest.raises(DeviceTimeoutError, match=r"no reply in 0.5 s") as caught:
            _ = device.a

    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.device, error.address, error.command) == ("widget", address, "A?")
    assert isinstance(error, TimeoutError)


def test_a_reply_may_be_waited_for_without_end_but_not_for_no_number_of_seconds(widget):
    device, library = widget(SOCKET)

    with device:
        assert (device.query("A?", timeout=math.inf), device.query("A?", timeout=1e300)) == ("1.5", "1.5")
        for timeout in (math.nan, "3"):
            with pytest.raises(ValueError, match=f"a reply: a timeout is a number of seconds, got '?{timeout}"):
                device.query("A?", timeout=timeout)
        assert device.a == 1.5

    assert library.instrument(SOCKET).sent == [b"*IDN?", b"A?", b"A?", b"A?"]


@ADDRESSES
@pytest.mark.parametrize("late", [0.1, 0.5, 0.9])
def test_a_reply_within_the_late_window_is_never_taken_for_the_next_one(widget, address, late):
    device, library = widget(address)

    with device:
        library.line(address).inject(Fault("late", delay=0.5 + late))
        with pytest.raises(DeviceTimeoutError):
            _ = device.a

        assert [device.b, device.a] == [2.5, 1.5]

    assert library.instrument(address).sent.count(b"*IDN?") == 2


@ADDRESSES
def test_a_late_reply_is_not_taken_for_another_after_opening_again(widget, address):
    device, library = widget(address, {**REPLIES, b"A?": b"acme,widget\n"})

    device.open()
    library.line(address).inject(Fault("late", delay=0.9))
    with pytest.raises(DeviceTimeoutError):
        device.query("A?")
    device.close()
    device.open()

    assert device.b == 2.5


@ADDRESSES
@pytest.mark.parametrize(
    "fault",
    [
        Fault("truncated", keep=2),
        Fault("truncated", keep=0),
        Fault("garbled"),
        Fault("extra", data=b"??", after=False),
        Fault("disconnect"),
    ],
    ids=lambda fault: f"{fault.kind}{fault.keep or ''}",
)
def test_a_damaged_reply_is_an_error_and_the_next_reply_is_right(widget, address, fault):
    device, library = widget(address)

    with device:
        library.line(address).inject(fault)
        with pytest.raises((DeviceProtocolError, DeviceTimeoutError, DeviceDisconnectedError)):
            _ = device.a
        if fault.kind != "disconnect":
            assert [device.b, device.a] == [2.5, 1.5]


@pytest.mark.parametrize("address", [SERIAL, SOCKET])
def test_unexpected_bytes_are_not_taken_for_a_reply(widget, address):
    device, library = widget(address)

    with device:
        library.line(address).inject(Fault("extra", data=b"9.5\n", after=True))
        assert device.a == 1.5

        assert device.b == 2.5

    assert library.instrument(address).sent.count(b"*IDN?") == 2


@ADDRESSES
def test_a_slow_reply_is_read_to_its_end(widget, address):
    device, library = widget(address)

    with device:
        library.line(address).inject(Fault("slow", interval=0.05))
        assert device.a == 1.5


@ADDRESSES
def test_a_line_that_cannot_be_recovered_puts_the_device_into_fault(widget, address):
    device, library = widget(address)

    with device:
        library.line(address).inject(Fault("no_reply"), count=2)
        with pytest.raises(DeviceTimeoutError):
            _ = device.a
        with pytest.raises(DeviceFaultError, match=r"no reply in 0\.5 s"):
            _ = device.a

        assert device.state == "fault"
        with pytest.raises(DeviceFaultError):
            _ = device.a
        device.reset()


def test_after_recovery_another_instrument_is_not_accepted(widget):
    replies = {**REPLIES, b"*IDN?": [b"ACME,Widget,7,1.0\n", b"OTHER,Thing,1,1\n"]}
    device, library = widget(SERIAL, replies)

    with device:
        library.line(SERIAL).inject(Fault("no_reply"))
        with pytest.raises(DeviceTimeoutError):
            _ = device.a
        with pytest.raises(DeviceFaultError):
            _ = device.a
        device.reset()


@ADDRESSES
def test_a_pulled_cable_is_a_disconnection_and_opening_again_works(widget, address):
    device, library = widget(address)

    device.open()
    library.disconnect(address)
    with pytest.raises(DeviceDisconnectedError) as caught:
        _ = device.a
    with pytest.raises(DeviceOpenError):  # opened anew, or tried to
        _ = device.a
    device.close(force=True)
    with pytest.raises(DeviceOpenError):
        device.open()
    library.reconnect(address)
    device.open()

    assert isinstance(caught.value, ConnectionError)
    assert device.a == 1.5


def test_after_a_lost_connection_the_next_operation_opens_it_again(widget):
    device, library = widget("ASRL7::INSTR")
    device.open()
    library.disconnect("ASRL7::INSTR")
    with pytest.raises(DeviceDisconnectedError):
        _ = device.a
    library.reconnect("ASRL7::INSTR")
    assert device.a == 1.5
    device.close()


def test_a_device_that_has_lost_its_connection_says_so_until_the_next_operation_restores_it(widget):
    device, library = widget("ASRL7::INSTR")
    device.open()
    library.disconnect("ASRL7::INSTR")
    with pytest.raises(DeviceDisconnectedError):
        _ = device.a
    assert (device.state, device._status_()["state"], device.is_open) == ("lost", "lost", True)
    with pytest.raises(DeviceOpenError):  # the instrument is still away
        _ = device.a
    assert device.state == "lost"
    library.reconnect("ASRL7::INSTR")
    assert device.a == 1.5
    assert device.state == "open"
    device.close()
    assert device.state == "closed"


def test_a_device_says_that_its_connection_is_lost_though_only_another_one_at_its_address_has_noticed(serve, script):
    library = serve(SERIAL, script, replies=REPLIES)
    first, second = (Widget(name, address=SERIAL, visa_library=library) for name in ("first", "second"))
    with first, second:
        library.disconnect(SERIAL)
        with pytest.raises(DeviceDisconnectedError):
            _ = second.a
        assert (first.state, second.state) == ("lost", "lost")
        library.reconnect(SERIAL)
        assert second.a == 1.5
        assert (first.state, second.state) == ("lost", "open")
        assert first.a == 1.5
        assert first.state == "open"


class Patient(Widget):
    """One of its readings may be repeated."""

    steady = Measurement("A?", doc="Level that reading does not change.", repeatable=True)


def test_only_a_repeatable_reading_is_repeated_and_never_in_a_section(widget):
    device, library = widget("ASRL7::INSTR", cls=Patient)
    device.open()

    def replug():
        library.disconnect("ASRL7::INSTR")
        library.reconnect("ASRL7::INSTR")

    replug()
    assert device.steady == 1.5
    replug()
    with pytest.raises(DeviceDisconnectedError):
        device.a = 3
    assert b"A 3.0" not in library.instrument("ASRL7::INSTR").sent
    with device.lock():
        assert device.steady == 1.5
        replug()
        with pytest.raises(DeviceDisconnectedError):
            _ = device.steady
    device.close()


def test_a_section_that_was_held_across_a_lost_connection_is_refused_until_it_is_left(widget):
    device, library = widget("ASRL7::INSTR")
    device.open()
    with device.lock():
        assert device.a == 1.5
        library.disconnect("ASRL7::INSTR")
        with pytest.raises(DeviceDisconnectedError):
            _ = device.a
        library.reconnect("ASRL7::INSTR")
        with pytest.raises(DeviceDisconnectedError, match="leave the section"):
            _ = device.a
    with device.lock():
        assert device.a == 1.5
    device.close()


class Lamp(Widget):
    """Is made safe by switching it off."""

    def _make_safe(self):
        self._query("OFF?")


LAMP = {**REPLIES, b"OFF?": b"0\n"}


@pytest.fixture
def lost_lamp(widget):
    """A lamp whose line was unplugged while it shone, and the library in which it can be plugged in again."""
    device, library = widget("ASRL7::INSTR", LAMP, cls=Lamp, safe_timeout=3.0)
    device.open()
    device.a = 3
    library.disconnect("ASRL7::INSTR")
    return device, library


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("act", [Lamp.make_safe, Lamp.close])
def test_a_device_whose_line_was_lost_is_made_safe_over_a_new_one(lost_lamp, noticed, act):
    device, library = lost_lamp
    if noticed:
        with pytest.raises(DeviceDisconnectedError):
            _ = device.a
    library.reconnect("ASRL7::INSTR")
    act(device)
    assert library.instrument("ASRL7::INSTR").sent[-1] == b"OFF?"
    assert device.state != "fault"


@pytest.mark.parametrize("act", [Lamp.make_safe, Lamp.close])
def test_a_device_that_cannot_be_reached_is_never_taken_for_one_that_was_made_safe(lost_lamp, act):
    device, library = lost_lamp
    for error in (DeviceDisconnectedError, DeviceOpenError):  # it notices; then it tries in vain to connect
        with pytest.raises(error):
            _ = device.a
    with pytest.raises(DeviceFaultError, match="could not be made safe"):
        act(device)
    library.reconnect("ASRL7::INSTR")
    with pytest.raises(DeviceFaultError):
        _ = device.a
    device.reset()
    with device:
        assert device.a == 1.5


@pytest.mark.parametrize("act", [Lamp.make_safe, Lamp.close])
@pytest.mark.parametrize("kind", ["no_reply", "late", "truncated"])
def test_a_device_is_made_safe_though_a_reply_is_bad(widget, kind, act):
    device, library = widget("ASRL7::INSTR", LAMP, cls=Lamp)
    device.open()
    library.line("ASRL7::INSTR").inject(Fault(kind))
    act(device)
    assert device.state != "fault"
    assert library.instrument("ASRL7::INSTR").sent[-1] == b"OFF?"


def test_a_device_that_answers_no_more_is_never_taken_for_one_that_was_made_safe(widget):
    device, library = widget("ASRL7::INSTR", LAMP, cls=Lamp)
    device.open()
    library.line("ASRL7::INSTR").inject(Fault("no_reply"), count=1000)
    with pytest.raises(DeviceFaultError, match="could not be"):
        device.make_safe()
    with pytest.raises(DeviceFaultError, match="could not be made safe"):
        device.reset()
    assert device.state == "fault"
    library.line("ASRL7::INSTR").clear()
    device.reset()
    assert library.instrument("ASRL7::INSTR").sent[-1] == b"OFF?"
    assert device.state == "closed"


def test_a_section_learns_that_another_device_at_the_address_has_restored_the_connection(serve, script):
    library = serve(SERIAL, script, replies=REPLIES)
    first, second = (Widget(name, address=SERIAL, visa_library=library) for name in ("first", "second"))
    with first, second:
        with first.lock():
            assert first.a == 1.5
            library.disconnect(SERIAL)
            library.reconnect(SERIAL)
            with pytest.raises(DeviceDisconnectedError):
                _ = second.a
            assert second.a == 1.5
            with pytest.raises(DeviceDisconnectedError, match="leave the section"):
                _ = first.a
        with first.lock():  # it began after that
            assert first.a == 1.5


def test_an_address_without_an_instrument_does_not_open(widget):
    _device, library = widget(SERIAL)
    stranger = Widget("stranger", address="ASRL8::INSTR", visa_library=library)

    with pytest.raises(DeviceOpenError, match=r"'stranger'.*ASRL8::INSTR.*cannot be opened"):
        stranger.open()

    assert stranger.state == "closed"


@ADDRESSES
def test_an_instrument_that_does_not_answer_does_not_open(widget, address):
    device, _library = widget(address, {})

    with pytest.raises(DeviceOpenError, match=r"nothing answers: no reply in 0\.5 s") as caught:
        device.open()

    assert isinstance(caught.value.__cause__, DeviceTimeoutError)
    assert device.state == "closed"


@ADDRESSES
def test_the_wrong_instrument_does_not_open(widget, address):
    device, _library = widget(address, {b"*IDN?": b"OTHER,Thing,1,1\n"})

    with pytest.raises(DeviceOpenError, match=r"'acme,widget' was expected, found 'OTHER,Thing,1,1'"):
        device.open()


def test_unread_bytes_of_an_instrument_do_not_prevent_its_opening(widget):
    device, library = widget(SERIAL, {**REPLIES, b"*IDN?": [b"7.5\nACME,Widget,7,1.0\n", b"ACME,Widget,7,1.0\n"]})

    with device:
        assert device.a == 1.5

    assert library.instrument(SERIAL).sent == [b"*IDN?", b"*IDN?", b"A?"]


@ADDRESSES
def test_the_greeting_of_an_instrument_that_is_switched_on_is_discarded(serve, script, address):
    class Talkative(script):
        def feed(self, data):
            greeting, self._greeting = self._greeting, b""
            return greeting + super().feed(data)

        _greeting = b"" if address == USB else b"Welcome to the ACME Widget\n"

    library = serve(address, Talkative, replies=REPLIES)

    with Widget("widget", address=address, visa_library=library) as device:
        assert device.a == 1.5

    assert library.instrument(address).sent == [b"*IDN?", b"A?"]


@pytest.mark.parametrize(
    ("opened", "simulated"),
    [
        (SOCKET, "tcpip::10.0.0.7::05025::socket"),
        ("tcpip::10.0.0.7::05025::socket", SOCKET),
        ("TCPIP::10.0.0.7::HISLIP0,4880", "TCPIP0::10.0.0.7::hislip0::INSTR"),
    ],
)
def test_a_device_opens_what_is_simulated_at_another_spelling_of_its_address(serve, script, opened, simulated):
    with Widget("widget", address=opened, visa_library=serve(simulated, script, replies=REPLIES)) as device:
        assert device.a == 1.5


def test_a_text_that_is_not_an_address_does_not_open():
    with pytest.raises(DeviceOpenError, match="nonsense"):
        Widget("widget", address="nonsense").open()


class Prompting(VisaDevice):
    read_termination = write_termination = "\r"
    identity = "x"

    def say(self, command):
        return self.read_until(b"> ") if self.write(command) is None else None


def test_a_prompt_of_several_bytes_is_matched_as_a_whole(serve, script):
    library = serve(SERIAL, script, end=b"\r", replies={b"*IDN?": b"x\r", b"list?": b"a b >c\r> ", b"old": b">> "})

    with Prompting("p", address=SERIAL, visa_library=library) as device:
        assert device.say("list?") == b"a b >c\r"
        assert device.say("old") == b">"


@ADDRESSES
@pytest.mark.parametrize("size", [0, 1, 9, 70_000])
def test_a_block_is_read_by_its_count_whatever_it_contains(widget, address, size):
    data = bytes(range(256)) * (size // 256) + b"\n" * (size % 256)
    head = b"#%d%d" % (len(str(size)), size)
    device, _library = widget(address, {**REPLIES, b"D?": head + data + b"\n"})

    with device:
        assert device.query_binary("D?") == data
        assert device.a == 1.5


@pytest.mark.parametrize("address", [USB, "GPIB0::8::INSTR", "TCPIP0::10.0.0.7::inst0::INSTR"])
@pytest.mark.parametrize("content", [b"", b"hello", b"ab\n", b"x" * 700_000])
def test_a_block_may_end_with_its_message_and_without_a_termination(widget, address, content):
    head = b"#%d%d" % (len(str(len(content))), len(content))
    device, _library = widget(address, {**REPLIES, b"D?": head + content})

    with device:
        assert device.query_binary("D?") == content
        assert device.a == 1.5


@pytest.mark.parametrize("address", [SERIAL, SOCKET])
def test_a_block_without_a_termination_is_an_error_where_nothing_else_marks_its_end(widget, address):
    device, _library = widget(address, {**REPLIES, b"D?": b"#15hello"})

    with device:
        with pytest.raises(DeviceTimeoutError, match="D\\?"):
            device.query_binary("D?")
        assert device.a == 1.5


@pytest.mark.parametrize("content", [b"", b"ab\ncd"])
def test_a_block_of_indefinite_length_ends_with_its_message(widget, content):
    device, _library = widget(USB, {**REPLIES, b"D?": b"#0" + content + b"\n"})

    with device:
        assert device.query_binary("D?") == content
        assert device.a == 1.5


@pytest.mark.parametrize("address", [SERIAL, SOCKET])
def test_a_block_of_indefinite_length_is_an_error_where_nothing_marks_its_end(widget, address):
    device, _library = widget(address, {**REPLIES, b"D?": b"#0ab\ncd\n"})

    with device:
        with pytest.raises(DeviceProtocolError, match="definite-length block was expected"):
            device.query_binary("D?")
        assert device.a == 1.5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n> "])
def test_a_long_reply_on_a_socket_takes_a_few_reads(widget, monkeypatch, end):
    text = "1\r" * 50_000
    cls = type("Scope", (Widget,), {"read_termination": end})
    ended = {command: reply.replace(b"\n", end.encode()) for command, reply in REPLIES.items()}
    device, library = widget(SOCKET, {**ended, b"D?": text.encode() + end.encode() + b"left over"}, cls)
    reads = []
    read = library.read
    monkeypatch.setattr(library, "read", lambda session, count: reads.append(count) or read(session, count))

    with device:
        reads.clear()
        assert device.query("D?") == text
        assert len(reads) < 12
        assert device.read_bytes(9) == b"left over"  # what is behind a reply stays on the line


@ADDRESSES
def test_a_reply_of_any_length_is_read_for_as_long_as_it_comes_in_time(widget, address):
    text = "1.234567," * 400_000
    device, _library = widget(address, {**REPLIES, b"D?": text.encode() + b"\n"})

    with device:
        assert device.query("D?") == text


@ADDRESSES
def test_a_reply_without_its_end_is_reported_as_such_and_not_as_a_timeout(widget, monkeypatch, address):
    monkeypatch.setattr("catkit_devices._wire.byte_stream._LONGEST_REPLY", 1 << 20)
    device, _library = widget(address, {**REPLIES, b"D?": b"1" * (3 << 19)})

    with device:
        with pytest.raises(DeviceProtocolError, match=r"1048576 bytes, the longest reply that is read; got \d+"):
            device.query("D?")
        assert device.a == 1.5


def test_a_long_reply_that_comes_too_late_is_thrown_away_in_a_few_reads(widget, monkeypatch):
    device, library = widget(SOCKET, {**REPLIES, b"D?": b"1" * 100_000 + b"\n"})
    reads = []
    read = library.read
    monkeypatch.setattr(library, "read", lambda session, count: reads.append(count) or read(session, count))

    with device:
        library.line(SOCKET).inject(Fault("late", delay=1.0))
        with pytest.raises(DeviceTimeoutError):
            device.query("D?")
        reads.clear()
        assert device.a == 1.5
        assert len(reads) < 60


@ADDRESSES
def test_a_reply_that_trickles_in_is_a_timeout_and_not_a_reply_that_ends_wrongly(widget, address):
    device, library = widget(address, {**REPLIES, b"D?": b"1111\n"})

    with device:
        library.line(address).inject(Fault("slow", interval=0.2))
        with pytest.raises(DeviceTimeoutError):
            device.query("D?")
        assert device.a == 1.5


@ADDRESSES
@pytest.mark.parametrize("reply", [b"1.5\n", b"#2x1a\n", b"#13abcd\n", b"#15abc\n", b"#13abc\r\n"])
def test_a_reply_that_is_not_a_block_is_an_error(widget, address, reply):
    device, _library = widget(address, {**REPLIES, b"D?": reply})

    with device:
        with pytest.raises((DeviceProtocolError, DeviceTimeoutError), match="D\\?"):
            device.query_binary("D?")
        assert device.a == 1.5


@pytest.mark.parametrize("command", ["A 1\nB 2", "A µ"])
def test_a_command_is_one_line_of_text_that_can_be_sent(widget, command):
    device, library = widget(SERIAL)

    with device, pytest.raises(DeviceValueError):
        device.write(command)

    assert library.instrument(SERIAL).sent == [b"*IDN?"]


@pytest.mark.parametrize(("encoding", "wire"), [("latin-1", b"25.5 \xb0C \xb5"), ("utf-8", "25.5 °C µ".encode())])
@ADDRESSES
def test_text_on_the_wire_is_in_the_encoding_of_the_driver(widget, address, encoding, wire):
    cls = type("Oven", (Widget,), {"encoding": encoding, "label": Setting("L '{}'", type=str, doc="Label.")})
    device, library = widget(address, {**REPLIES, b"T?": wire + b"\n", b"L '%b'" % wire: b""}, cls)

    with device:
        assert device.query("T?") == "25.5 °C µ"
        device.label = "25.5 °C µ"

    assert library.instrument(address).sent[-1] == b"L '%b'" % wire


@ADDRESSES
def test_a_reply_in_another_encoding_is_an_error_that_names_the_attribute(widget, address):
    device, _library = widget(address, {**REPLIES, b"T?": b"25 \xb0C\n"})

    with device:
        with pytest.raises(DeviceProtocolError, match=r"text in 'ascii' .* got b'25 .xb0C'; .* 'encoding'") as caught:
            device.query("T?")
        assert caught.value.command == "T?"
        assert device.a == 1.5


def test_a_command_that_the_encoding_does_not_have_is_refused_before_anything_is_sent(widget):
    device, library = widget(SERIAL, cls=type("Oven", (Widget,), {"encoding": "latin-1"}))

    with device, pytest.raises(DeviceValueError, match=r"text in 'latin-1' \(.*'encoding'\), which has no 'Ω'"):
        device.write("R 5 kΩ")

    assert library.instrument(SERIAL).sent == [b"*IDN?"]


class TwoWords(Widget):
    def pair(self, command):
        with self._transaction():
            self._write(f"SEL {command}")
            return self._query(f"{command}?")


def test_devices_at_one_address_share_its_wire(serve, script, often):
    replies = {**REPLIES, b"SEL A": b"", b"SEL B": b""}
    library = serve(SERIAL, script, replies=replies)
    first, second = (TwoWords(name, address=SERIAL, visa_library=library) for name in ("first", "second"))
    count = 200

    def use(device, command):
        for _ in range(count):
            device.pair(command)

    with first, second:
        threads = [threading.Thread(target=use, args=pair) for pair in ((first, "A"), (second, "B"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    sent = library.instrument(SERIAL).sent[2:]
    pairs = set(zip(sent[::2], sent[1::2], strict=True))
    assert pairs == {(b"SEL A", b"A?"), (b"SEL B", b"B?")}
    assert len(sent) == 4 * count


def test_the_last_device_of_an_address_closes_it(serve, script):
    library = serve(SERIAL, script, replies=REPLIES)
    first, second = (Widget(name, address=SERIAL, visa_library=library) for name in ("first", "second"))

    first.open()
    second.open()
    first.close()
    assert second.a == 1.5
    second.close()

    assert library._sessions == {}


def test_a_failed_open_leaves_nothing_open(serve, script):
    library = serve(SERIAL, script, replies={})

    with pytest.raises(DeviceOpenError):
        Widget("widget", address=SERIAL, visa_library=library).open()

    assert library._sessions == {}


def transports_of(library):
    """Return what is open through a library: another test of this process may have left something of its own."""
    return [transport for (identity, _), transport in list(_transports.items()) if identity == id(library)]


@pytest.mark.parametrize("others", [1, 3])
def test_a_session_that_hangs_when_it_is_closed_keeps_no_other_address_from_being_opened_or_closed(
    serve, script, monkeypatch, until, others
):
    """So do real ones: the close of a vendor's library waits for a device that answers no more."""
    library = serve(SERIAL, script, replies=REPLIES)
    hung = Widget("hung", address=SERIAL, visa_library=library)
    closing, go_on, close = threading.Event(), threading.Event(), library.close

    def hang(session):
        closing.set()
        go_on.wait(60)
        return close(session)

    hung.open()
    monkeypatch.setattr(library, "close", hang)
    closer = threading.Thread(target=hung.close)
    closer.start()
    assert closing.wait(30)
    monkeypatch.setattr(library, "close", close)
    for number in range(others):
        address = f"ASRL{20 + number}::INSTR"
        elsewhere = serve(address, script, replies=REPLIES)
        with Widget(f"other {number}", address=address, visa_library=elsewhere) as other:
            assert other.a == 1.5
        assert elsewhere._sessions == {}
    # Its own address is free when it is closed: until then, a thread that opens it waits.
    values = []

    def use():
        with Widget("next", address=SERIAL, visa_library=library) as following:
            values.append(following.a)

    users = [threading.Thread(target=use) for _ in range(others)]
    for user in users:
        user.start()
    until(lambda: sum(transport._users for transport in transports_of(library)) == others)
    assert values == []
    go_on.set()
    for thread in (closer, *users):
        thread.join(30)
    assert values == [1.5] * others
    assert library._sessions == {}
    assert not transports_of(library)


OTHER = "ASRL8::INSTR"


class Follower(Widget):
    """Uses another device: in an operation, in the middle of a dialogue of its own, and to be made safe."""

    def __init__(self, name, *, follows, **options):
        super().__init__(name, **options)
        self._follows = follows

    def follow(self):
        return self._follows.a

    def follow_within_a_dialogue(self):
        with self._exchange("A?"):
            self._send("A?")
            followed = self._follows.a
            return followed, self._read()

    def _make_safe(self):
        self._write("A 0.0")
        self._follows.make_safe()
        if self._follows.a:
            self._write("A 1.0")


@pytest.fixture
def follower(serve, script):
    """A device that uses another one, open both, and their libraries."""
    mine, its = serve(SERIAL, script, replies=REPLIES), serve(OTHER, script, replies=REPLIES)
    other = Widget("other", address=OTHER, visa_library=its, open_on_use=True)
    device = Follower("follower", address=SERIAL, visa_library=mine, follows=other)
    device.open()
    assert device.follow() == 1.5
    yield device, mine, its
    its.reconnect(OTHER)
    device.close()
    other.close(force=True)


def test_the_lost_connection_of_a_device_that_another_one_uses_is_not_taken_for_its_own(follower):
    device, mine, its = follower
    with device.lock():
        device.a = 3
        its.disconnect(OTHER)
        with pytest.raises(DeviceDisconnectedError, match="'other'"):
            device.follow()
        device.a = 4  # its own line was never broken
    with pytest.raises(DeviceFaultError, match="'other'"):
        device.make_safe()
    assert mine.instrument(SERIAL).sent.count(b"*IDN?") == 1
    its.reconnect(OTHER)
    assert device._follows.a == 1.5  # using it opens its connection anew
    device.reset()
    device.open()
    assert device.follow() == 1.5


def test_an_error_of_a_lost_connection_that_names_no_device_means_the_connection_of_its_driver(widget):
    class Terse(Widget):
        def fail(self):
            raise DeviceDisconnectedError("pulled")

    device, library = widget(SERIAL, cls=Terse)
    with device:
        with pytest.raises(DeviceDisconnectedError) as caught:
            device.fail()
        assert caught.value.device == "widget"
        assert device.a == 1.5
    assert library.instrument(SERIAL).sent.count(b"*IDN?") == 2


@pytest.mark.parametrize("fault", ["garbled", "no_reply"])
def test_a_reply_left_behind_because_another_device_failed_is_never_taken_for_the_next_one(follower, fault):
    device, mine, its = follower
    mine.line(SERIAL).inject(Fault("late", delay=0.8))  # later than the other's failure, within the late window
    its.line(OTHER).inject(Fault(fault))
    with pytest.raises((DeviceProtocolError, DeviceTimeoutError), match="'other'"):
        device.follow_within_a_dialogue()
    assert device.b == 2.5


def test_a_timeout_while_waiting_for_the_mutex_of_another_device_is_not_a_timeout_of_the_wire(follower):
    device, _, _ = follower
    device._follows.mutex.timeout = 0.0
    held, leave = threading.Event(), threading.Event()

    def hold():
        with device._follows.lock():
            held.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    with pytest.raises(MutexTimeoutError, match="'other'"):
        device.follow_within_a_dialogue()
    leave.set()
    holder.join()


def test_a_shared_read_works_after_a_lost_connection_even_while_another_holds_the_device(widget):
    device, library = widget(SERIAL)
    reads = []

    def read():
        for _ in range(2):
            try:
                reads.append(device.b)
            except DeviceDisconnectedError as error:
                reads.append(error)

    with device, device.lock():
        library.disconnect(SERIAL)
        with pytest.raises(DeviceDisconnectedError):
            device.a = 3
        library.reconnect(SERIAL)
        reader = threading.Thread(target=read)
        reader.start()
        reader.join()
        with pytest.raises(DeviceDisconnectedError, match="leave the section"):
            device.a = 3
    assert reads == [2.5, 2.5]


def test_a_shared_read_that_may_be_repeated_is_repeated_even_while_another_holds_the_device(widget):
    class Steady(Widget):
        level = Measurement("B?", doc="Level that reading does not change.", shared=True, repeatable=True)

    device, library = widget(SERIAL, cls=Steady)
    reads = []
    with device, device.lock():
        library.disconnect(SERIAL)
        library.reconnect(SERIAL)
        reader = threading.Thread(target=lambda: reads.append(device.level))
        reader.start()
        reader.join()
        with pytest.raises(DeviceDisconnectedError, match="leave the section"):
            device.a = 3
    assert reads == [2.5]


@pytest.mark.parametrize(
    "mistake", [ValueError("no such mode"), TimeoutError("late"), ConnectionError("gone"), OSError(2, "no file"),
                KeyError("mode"), DeviceProtocolError("of another device")],
)  # fmt: skip
@ADDRESSES
def test_an_error_in_a_simulator_is_reported_as_such_and_not_as_one_of_the_instrument(serve, script, address, mistake):
    class Mistaken(script):
        def feed(self, data):
            if data == b"B?\n":
                raise mistake
            return super().feed(data)

    device = Widget("widget", address=address, visa_library=serve(address, Mistaken, replies=REPLIES))
    with device:
        with pytest.raises(SimulationError, match=r"simulated instrument at .*Mistaken.* failed: ") as caught:
            _ = device.b

        assert caught.value.__cause__ is mistake
        assert device.a == 1.5
