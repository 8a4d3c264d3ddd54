"""Faults between an instrument and the computer, as a program sees them."""

from __future__ import annotations

import pytest
import pyvisa
from pyvisa.constants import StatusCode

from catkit_devices.errors import ConfigurationError
from catkit_devices.simulation import Fault, Instrument, build_library

SERIAL = "ASRL1::INSTR"
USB = "USB::1::2::3::INSTR"


class Echo:
    def __init__(self, bench):
        pass

    def feed(self, data):
        return data


@pytest.fixture(params=[SERIAL, USB])
def echo(visa, request):
    resource = visa((request.param, Echo)).open_resource(
        request.param, read_termination="\n", write_termination="\n", timeout=1000
    )
    resource.line = resource.visalib.line(request.param)
    resource.clock = resource.visalib.bench.clock
    return resource


def times_out(operation):
    with pytest.raises(pyvisa.VisaIOError) as caught:
        operation()
    return caught.value.error_code == StatusCode.error_timeout


def test_a_fault_strikes_the_next_reply_only(echo):
    echo.line.inject(Fault("no_reply"))
    assert times_out(lambda: echo.query("lost"))
    assert echo.query("next") == "next"
    assert echo.line.history == [(1, "no_reply")]


def test_a_fault_can_strike_several_replies(echo):
    echo.line.inject(Fault("no_reply"), count=2)
    assert times_out(lambda: echo.query("1"))
    assert times_out(lambda: echo.query("2"))
    assert echo.query("3") == "3"


def test_a_fault_can_let_some_replies_pass(echo):
    echo.line.inject(Fault("no_reply"), after=2)
    assert [echo.query("1"), echo.query("2")] == ["1", "2"]
    assert times_out(lambda: echo.query("3"))
    assert echo.query("4") == "4"


def test_a_device_clear_ends_a_slow_reply_and_not_a_late_one(visa):
    resource = visa((USB, Echo)).open_resource(USB, timeout=1000)
    resource.visalib.line(USB).inject(Fault("slow", interval=0.3))
    resource.visalib.line(USB).inject(Fault("late", delay=60.0))
    resource.write_raw(b"0123456789")
    assert times_out(resource.read_raw)
    resource.write_raw(b"late")
    resource.clear()
    resource.timeout = 100_000
    assert resource.read_raw() == b"late"


def test_a_late_reply_comes_while_the_next_one_is_awaited(echo):
    echo.line.inject(Fault("late", delay=1.5))
    assert times_out(lambda: echo.query("first"))
    assert echo.query("second") == "first"
    assert echo.read() == "second"


def test_a_truncated_reply_has_lost_its_end(echo):
    echo.line.inject(Fault("truncated", keep=3))
    if echo.resource_name.startswith("USB"):
        with pytest.warns(UserWarning, match="doesn't end with"):
            assert echo.query("0123456789") == "012"
    else:
        assert times_out(lambda: echo.query("0123456789"))
    assert echo.query("next") == "next"


def test_a_garbled_reply_is_no_longer_text(echo):
    echo.line.inject(Fault("garbled", position=1))
    echo.write("012")
    assert echo.read_raw() == b"0\xb12\n"


@pytest.mark.parametrize(("after", "received"), [(False, b"\0\0reply\n"), (True, b"reply\n\0\0")])
def test_extra_bytes_come_before_or_after_a_reply(echo, after, received):
    echo.line.inject(Fault("extra", data=b"\0\0", after=after))
    echo.write("reply")
    assert echo.read_bytes(8) == received


def test_a_disconnect_loses_the_reply_and_the_connection(echo):
    echo.line.inject(Fault("disconnect"))
    with pytest.raises(pyvisa.VisaIOError) as caught:
        echo.query("x")
    assert caught.value.error_code == StatusCode.error_connection_lost


def test_a_slow_reply_is_whole_in_the_end(echo):
    echo.line.inject(Fault("slow", interval=0.05))
    assert echo.query("0123456789") == "0123456789"
    assert echo.clock.time() >= 11 * 0.05


def test_a_slow_reply_can_be_too_slow(echo):
    echo.line.inject(Fault("slow", interval=0.2))
    assert times_out(lambda: echo.query("0123456789"))


@pytest.mark.parametrize("fault", [Fault("slow", interval=0.2), Fault("late", delay=1.5)])
def test_the_rest_of_a_reply_does_not_come_over_the_next_tcp_connection(visa, fault):
    address = "TCPIP::192.168.1.9::5025::SOCKET"
    manager = visa((address, Echo))

    def connected():
        return manager.open_resource(address, read_termination="\n", write_termination="\n", timeout=1000)

    old = connected()
    old.visalib.line(address).inject(fault)
    assert times_out(lambda: old.query("0123456789"))
    old.close()
    assert connected().query("next") == "next"


def test_injected_faults_can_be_removed(echo):
    echo.line.inject(Fault("no_reply"))
    echo.line.clear()
    assert echo.query("x") == "x"


def test_a_fault_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'garbled'"):
        Fault("grabled")


def dialogue(seed, address=SERIAL):
    """Run 200 exchanges under a schedule of faults; return what struck and every byte that arrived."""
    schedule = {"no_reply": 0.05, "late": 0.05, "truncated": 0.05, "garbled": 0.05, "extra": 0.05, "slow": 0.05}
    library = build_library([Instrument(address, Echo, {}, schedule)], seed=seed, clock="virtual")
    manager = pyvisa.ResourceManager(library)
    resource = manager.open_resource(address, write_termination="\n")
    received = bytearray()
    for number in range(200):
        resource.write(f"message {number}")
        library.bench.clock.wait(1.0)
        received += resource.read_bytes(resource.bytes_in_buffer)
    manager.close()
    return library.line(address).history, bytes(received)


def test_the_same_seed_gives_the_same_faults_and_another_gives_others():
    assert dialogue(1) == dialogue(1)
    assert dialogue(1) != dialogue(2)
    assert dialogue(1) != dialogue(1, "ASRL2::INSTR")


def test_a_schedule_strikes_about_as_often_as_it_says():
    history, _received = dialogue(3)
    assert 30 <= len(history) <= 90
    assert {kind for _number, kind in history} == {"no_reply", "late", "truncated", "garbled", "extra", "slow"}
