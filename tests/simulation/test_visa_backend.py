"""The simulated VISA library, through pyvisa's own resource classes and with instruments of a few lines."""

from __future__ import annotations

import threading

import pytest
import pyvisa
from pyvisa import constants
from pyvisa.constants import BufferOperation, SerialTermination, StatusCode

from catkit_devices.errors import SimulationError
from catkit_devices.simulation import LineDroppedError, Outbox, VirtualClock

SERIAL = "ASRL/dev/ttyUSB0::INSTR"
SOCKET = "TCPIP::bench.lab::5025::SOCKET"
VXI11 = "TCPIP::bench.lab::INSTR"
USB = "USB::0x1313::0x8078::P0009999::INSTR"
USB_RAW = "USB::0x1313::0x8078::P0009999::RAW"
GPIB = "GPIB::12::INSTR"
EVERY_KIND = ["ASRL3::INSTR", SERIAL, SOCKET, VXI11, USB, USB_RAW, GPIB]
WITH_ENDS = [VXI11, USB, USB_RAW, GPIB]


class Parrot:
    """Sends everything back."""

    def __init__(self, bench):
        pass

    def feed(self, data):
        return data


class Script:
    """Answers each line (LF) with what `replies` says, at once."""

    def __init__(self, bench, *, replies):
        self.replies = replies
        self.heard = b""
        self.cleared = 0

    def feed(self, data):
        self.heard += data
        lines = self.heard.split(b"\n")
        self.heard = lines.pop()
        return b"".join(self.replies.get(line.decode(), b"") for line in lines)


class ScriptWithEnd(Script):
    message_end = b"\n"

    def clear(self):
        self.cleared += 1


class Slowcoach:
    """Answers every write after `delay` seconds."""

    def __init__(self, bench, *, delay):
        self.delay = delay
        self.outbox = Outbox(bench.clock)

    def feed(self, data):
        if data:
            self.outbox.put(data, self.delay)
        return self.outbox.take()


class Dropper:
    def __init__(self, bench):
        pass

    def feed(self, data):
        if data:
            raise LineDroppedError
        return b""


def error_code(caught):
    return StatusCode(caught.value.error_code)


@pytest.mark.parametrize("address", EVERY_KIND)
def test_an_instrument_answers_at_any_kind_of_address(visa, address):
    resource = visa((address, Parrot)).open_resource(address, read_termination="\n", write_termination="\n")
    assert resource.query("spam") == "spam"


@pytest.mark.parametrize("address", EVERY_KIND)
def test_an_address_without_an_instrument_does_not_open(visa, address):
    manager = visa(("GPIB::1::INSTR", Parrot))
    with pytest.raises(pyvisa.VisaIOError) as caught:
        manager.open_resource(address)
    assert error_code(caught) is StatusCode.error_resource_not_found


def test_one_address_may_be_spelt_in_several_ways(visa):
    manager = visa(("USB0::0x1313::0x8078::P0009999::0::INSTR", Parrot), ("ASRL7", Parrot))
    for spelling in ("USB::4883::32888::P0009999", "USB0::0X1313::0x8078::P0009999::INSTR", "ASRL7::INSTR"):
        manager.open_resource(spelling).close()


def test_resources_are_listed_where_they_are_and_while_they_are_connected(visa):
    manager = visa((SERIAL, Parrot), (SOCKET, Parrot), (USB, Parrot))
    assert manager.list_resources() == (SERIAL, "USB0::0x1313::0x8078::P0009999::0::INSTR")
    assert manager.list_resources("TCPIP?*") == ("TCPIP0::bench.lab::5025::SOCKET",)
    manager.visalib.disconnect(SERIAL)
    assert SERIAL not in manager.list_resources()


def test_the_attributes_that_programs_set_are_kept(visa):
    manager = visa((SERIAL, Parrot), (SOCKET, Parrot), (USB, Parrot), (GPIB, Parrot))
    serial = manager.open_resource(
        SERIAL,
        baud_rate=115200,
        data_bits=7,
        parity=constants.Parity.odd,
        stop_bits=constants.StopBits.two,
        flow_control=constants.ControlFlow.rts_cts,
        timeout=1500,
        send_end=False,
        end_input=SerialTermination.none,
    )
    assert (serial.baud_rate, serial.parity, serial.timeout) == (115200, constants.Parity.odd, 1500)
    assert serial.resource_name == SERIAL
    socket = manager.open_resource(SOCKET)
    for attribute in (constants.VI_ATTR_TCPIP_NODELAY, constants.VI_ATTR_TCPIP_KEEPALIVE):
        socket.set_visa_attribute(attribute, constants.VI_TRUE)
        assert socket.get_visa_attribute(attribute) == constants.VI_TRUE
    assert socket.get_visa_attribute(constants.VI_ATTR_TCPIP_PORT) == 5025
    assert socket.get_visa_attribute(constants.VI_ATTR_SUPPRESS_END_EN)
    assert manager.open_resource(USB).manufacturer_id == 0x1313
    assert manager.open_resource(GPIB).primary_address == 12


def test_an_attribute_that_the_interface_does_not_have_is_refused(visa):
    resource = visa((USB, Parrot)).open_resource(USB)
    with pytest.raises(pyvisa.VisaIOError) as caught:
        resource.set_visa_attribute(constants.VI_ATTR_ASRL_BAUD, 9600)
    assert error_code(caught) is StatusCode.error_nonsupported_attribute


@pytest.mark.parametrize("address", EVERY_KIND)
def test_a_read_without_a_reply_times_out_in_virtual_time(visa, address):
    manager = visa((address, Script, {"replies": {}}))
    resource = manager.open_resource(address, timeout=3000, write_termination="\n")
    resource.write("anything")
    before = manager.visalib.bench.clock.time()
    with pytest.raises(pyvisa.VisaIOError) as caught:
        resource.read()
    assert error_code(caught) is StatusCode.error_timeout
    assert manager.visalib.bench.clock.time() - before == pytest.approx(3.0)


def test_waiting_for_a_reply_passes_virtual_time_until_it_comes(visa):
    manager = visa((SERIAL, Slowcoach, {"delay": 100.0}))
    resource = manager.open_resource(SERIAL, timeout=120_000, read_termination="\n", write_termination="\n")
    assert resource.query("hello") == "hello"
    assert manager.visalib.bench.clock.time() == pytest.approx(100.0, rel=0.02)


def test_waiting_for_a_reply_takes_its_time_on_a_real_clock(visa):
    manager = visa((SERIAL, Slowcoach, {"delay": 0.05}), clock="real")
    resource = manager.open_resource(SERIAL, timeout=5000, read_termination="\n", write_termination="\n")
    before = manager.visalib.bench.clock.time()
    assert resource.query("hello") == "hello"
    assert manager.visalib.bench.clock.time() - before >= 0.05


def test_an_infinite_timeout_ends_after_a_day(visa):
    manager = visa((SERIAL, Script, {"replies": {}}))
    resource = manager.open_resource(SERIAL, timeout=None)
    with pytest.raises(pyvisa.VisaIOError):
        resource.read_bytes(1)
    assert manager.visalib.bench.clock.time() == pytest.approx(86400)


def test_a_timed_out_read_loses_what_it_had_received(visa):
    resource = visa((SERIAL, Script, {"replies": {"a?": b"12", "b?": b"34\n"}})).open_resource(
        SERIAL, timeout=100, read_termination="\n", write_termination="\n"
    )
    resource.write("a?")
    with pytest.raises(pyvisa.VisaIOError):
        resource.read()
    assert resource.query("b?") == "34"


def test_reads_of_counted_bytes_leave_the_rest(visa):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL)
    resource.write_raw(b"\x00\x0a\xff\x0a0123")
    assert resource.read_bytes(3) == b"\x00\x0a\xff"
    assert resource.bytes_in_buffer == 5
    assert resource.read_bytes(5, chunk_size=2) == b"\x0a0123"


def test_a_serial_read_ends_at_any_termination_character(visa):
    """As real serial ports do: a two-character termination ends at its last character only."""
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL, read_termination="> ", write_termination="")
    resource.write("one two> ")
    with pytest.warns(UserWarning, match="doesn't end with"):
        assert resource.read() == "one "
    assert resource.read() == "two"


def test_a_serial_read_can_be_told_not_to_end_at_a_line_feed(visa):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL, timeout=100, end_input=SerialTermination.none)
    resource.write_raw(b"line\n")
    with pytest.raises(pyvisa.VisaIOError):
        resource.read_raw()


def test_a_socket_read_does_not_end_without_a_termination_character(visa):
    resource = visa((SOCKET, Parrot)).open_resource(SOCKET, timeout=100)
    resource.write_raw(b"no end\n")
    with pytest.raises(pyvisa.VisaIOError) as caught:
        resource.read_raw()
    assert error_code(caught) is StatusCode.error_timeout


@pytest.mark.parametrize("address", WITH_ENDS)
def test_a_message_ends_the_read_where_the_interface_marks_ends(visa, address):
    resource = visa((address, Parrot)).open_resource(address)
    resource.write_raw(b"first\nline")
    resource.write_raw(b"second")
    assert resource.read_raw() == b"first\nline"
    assert resource.read_raw(size=2) == b"second"


def test_the_rest_of_a_message_ends_where_the_message_does(visa):
    resource = visa((USB, Parrot)).open_resource(USB)
    resource.write_raw(b"abcdef")
    assert resource.read_bytes(4) == b"abcd"
    resource.write_raw(b"ghijkl")
    assert (resource.read_raw(), resource.read_raw()) == (b"ef", b"ghijkl")


@pytest.mark.parametrize("address", WITH_ENDS)
def test_the_end_of_a_write_replaces_the_terminator_if_there_is_one(visa, address):
    replies = {"*IDN?": b"it is me\n"}
    resource = visa((address, ScriptWithEnd, {"replies": replies})).open_resource(address)
    assert resource.write("*IDN?", termination="\n") == 6
    assert resource.read_raw() == b"it is me\n"
    assert resource.write("*IDN?", termination="") == 5
    assert resource.read_raw() == b"it is me\n"


def test_the_end_of_a_write_does_not_replace_a_terminator_on_a_serial_line(visa):
    manager = visa((SERIAL, ScriptWithEnd, {"replies": {"*IDN?": b"it is me\n"}}))
    resource = manager.open_resource(SERIAL, write_termination="", read_termination="\n")
    resource.write("*ID")
    resource.write("N?")
    assert resource.bytes_in_buffer == 0
    assert resource.query("\n") == "it is me"


def test_flushing_discards_what_arrived(visa):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL, read_termination="\n", write_termination="\n")
    resource.write("old")
    resource.flush(BufferOperation.discard_receive_buffer)
    assert resource.bytes_in_buffer == 0
    assert resource.query("new") == "new"


def test_clearing_discards_what_arrived_and_reaches_the_instrument(visa):
    manager = visa((USB, ScriptWithEnd, {"replies": {"a?": b"old\n", "b?": b"new\n"}}), (SERIAL, Parrot))
    usb = manager.open_resource(USB, write_termination="\n", read_termination="\n")
    usb.write("a?")
    usb.clear()
    assert usb.query("b?") == "new"
    assert manager.visalib.instrument(USB).cleared == 1
    serial = manager.open_resource(SERIAL)
    serial.write("old")
    serial.clear()
    assert serial.bytes_in_buffer == 0


def test_the_status_byte_tells_that_a_message_is_available(visa):
    manager = visa((GPIB, Parrot), (SERIAL, Parrot))
    gpib = manager.open_resource(GPIB)
    assert gpib.read_stb() == 0
    gpib.write("x")
    assert gpib.read_stb() == 16
    with pytest.raises(pyvisa.VisaIOError) as caught:
        manager.open_resource(SERIAL).read_stb()
    assert error_code(caught) is StatusCode.error_nonsupported_operation


def test_null_bytes_can_be_discarded_on_a_serial_line(visa):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL, discard_null=True, read_termination="\n")
    resource.write_raw(b"\x00a\x00b\n")
    assert resource.read() == "ab"


def test_sessions_on_one_address_share_the_instrument_and_get_their_own_replies(visa):
    manager = visa((USB, Script, {"replies": {"a?": b"a\n", "b?": b"b\n"}}))
    one, two = (manager.open_resource(USB, write_termination="\n", read_termination="\n") for _ in range(2))
    one.write("a?")
    two.write("b?")
    assert (one.read(), two.read()) == ("a", "b")


@pytest.mark.parametrize(("address", "arrives"), [(SERIAL, True), (SOCKET, False)])
def test_a_reply_to_a_closed_session_is_lost_only_with_its_connection(visa, address, arrives):
    manager = visa((address, Slowcoach, {"delay": 1.0}))
    first = manager.open_resource(address)
    first.write("late", termination="\n")
    first.close()
    second = manager.open_resource(address, read_termination="\n", timeout=2000)
    if arrives:
        assert second.read() == "late"
    else:
        with pytest.raises(pyvisa.VisaIOError):
            second.read()


def test_a_reply_to_a_closed_connection_is_not_given_to_the_next_one(visa):
    manager = visa((SOCKET, Slowcoach, {"delay": 1.0}))
    first = manager.open_resource(SOCKET, write_termination="\n")
    first.write("first")
    first.close()
    manager.visalib.bench.clock.wait(1.5)
    second = manager.open_resource(SOCKET, read_termination="\n", write_termination="\n", timeout=2000)
    assert second.query("second") == "second"


def test_a_disconnected_instrument_is_lost_until_it_is_opened_again(visa):
    manager = visa((SERIAL, Parrot))
    resource = manager.open_resource(SERIAL, write_termination="\n", read_termination="\n")
    resource.write("unread")
    manager.visalib.disconnect(SERIAL)
    for operation in (resource.read, lambda: resource.write("x"), resource.clear):
        with pytest.raises(pyvisa.VisaIOError) as caught:
            operation()
        assert error_code(caught) is StatusCode.error_connection_lost
    with pytest.raises(pyvisa.VisaIOError) as caught:
        manager.open_resource(SERIAL)
    assert error_code(caught) is StatusCode.error_resource_not_found
    manager.visalib.reconnect(SERIAL)
    with pytest.raises(pyvisa.VisaIOError):
        resource.write("x")
    resource.close()
    again = manager.open_resource(SERIAL, write_termination="\n", read_termination="\n")
    assert again.query("hello") == "hello"


def test_an_instrument_can_drop_the_connection_itself(visa):
    resource = visa((SOCKET, Dropper)).open_resource(SOCKET)
    resource.write("x")
    with pytest.raises(pyvisa.VisaIOError) as caught:
        resource.read_raw()
    assert error_code(caught) is StatusCode.error_connection_lost


def test_a_closed_resource_refuses_use_and_closing_twice_is_harmless(visa):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL)
    resource.close()
    resource.close()
    with pytest.raises(pyvisa.InvalidSession):
        resource.write("x")


def test_closing_ends_a_read_that_waits_in_another_thread(visa):
    resource = visa((SERIAL, Parrot), clock="real").open_resource(SERIAL, timeout=100_000)
    ended, waiting = [], threading.Event()

    def wait():
        waiting.set()
        try:
            resource.visalib.read(resource.session, 1)
        except pyvisa.VisaIOError as error:
            ended.append(StatusCode(error.error_code))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(10)
    resource.visalib.close(resource.session)
    thread.join(timeout=10)
    resource.session = None
    assert ended == [StatusCode.error_invalid_object]


def test_opening_and_closing_leaves_nothing_behind(visa):
    library = visa((SERIAL, Parrot)).visalib
    sizes = []
    for _ in range(3):
        library.resource_manager.open_resource(SERIAL).close()
        sizes.append({name: len(value) for name, value in vars(library).items() if hasattr(value, "__len__")})
    assert sizes[0] == sizes[1] == sizes[2]


def test_closing_the_manager_leaves_the_library_usable(visa):
    manager = visa((SERIAL, Parrot))
    library = manager.visalib
    manager.open_resource(SERIAL)
    manager.close()
    second = pyvisa.ResourceManager(library)
    assert second.open_resource(SERIAL, read_termination="\r\n").query("x") == "x"
    second.close()


def test_two_libraries_in_one_process_have_their_own_instruments(visa):
    one, two = visa((SERIAL, Parrot)), visa((USB, Parrot))
    assert one.visalib is not two.visalib
    assert one.list_resources() != two.list_resources()


@pytest.mark.parametrize("operation", ["lock_excl", "unlock"])
def test_operations_of_visa_that_are_not_simulated_report_so(visa, operation):
    resource = visa((SERIAL, Parrot)).open_resource(SERIAL)
    with pytest.raises(pyvisa.VisaIOError) as caught:
        getattr(resource, operation)()
    assert error_code(caught) is StatusCode.error_nonsupported_operation


class Detector:
    """Notices two threads inside any instrument of one bench."""

    def __init__(self, bench, *, inside, overlaps):
        self.inside, self.overlaps = inside, overlaps

    def feed(self, data):
        self.inside.append(self)
        if len(self.inside) > 1:
            self.overlaps.append(data)
        reply = bytes(reversed(data[:-1])) + b"\n" if data else b""
        sum(range(200))
        self.inside.remove(self)
        return reply


def test_only_one_thread_at_a_time_is_inside_the_bench(visa):
    shared = {"inside": [], "overlaps": []}
    addresses = [SERIAL, USB, SOCKET]
    manager = visa(*((address, Detector, shared) for address in addresses), clock="real")
    failures = []

    def use(address):
        resource = manager.open_resource(address, write_termination="\n", read_termination="\n")
        for number in range(150):
            if resource.query(f"{number:04d}") != f"{number:04d}"[::-1]:
                failures.append((address, number))

    threads = [threading.Thread(target=use, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert (failures, shared["overlaps"]) == ([], [])


def test_a_virtual_clock_also_passes_for_a_program_that_only_polls(visa):
    clock = VirtualClock(tick=0.5)
    resource = visa((SERIAL, Parrot), clock=clock).open_resource(SERIAL)
    for _ in range(4):
        resource.write("x")
    assert clock.time() == 2.0


class Mistaken:
    """Cannot do what only some interfaces ask for."""

    def __init__(self, bench):
        pass

    def feed(self, data):
        return b""

    def clear(self):
        raise ValueError("a mistake")

    trigger = read_stb = clear


@pytest.mark.parametrize("operation", ["clear", "read_stb", "assert_trigger"])
def test_every_error_of_a_simulator_is_reported_as_a_simulation_error(visa, operation):
    resource = visa((GPIB, Mistaken)).open_resource(GPIB)
    with pytest.raises(SimulationError, match=r"at GPIB0::12::INSTR \(Mistaken\) failed: ValueError: a mistake"):
        getattr(resource, operation)()
