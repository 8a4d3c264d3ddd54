"""Simulated instruments over HiSLIP: through pyvisa-py, and through programs that break every rule."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time

import psutil
import pytest
from crossing import abuse, cross
from talker import GPIB, LAN, USB, Line, Program, Talker, Unclearable, Untriggered, kill, run

from catkit_devices.drivers import create_device
from catkit_devices.errors import ConfigurationError
from catkit_devices.gateway import HislipServer, SimulatedInstrument
from catkit_devices.gateway import server as server_module
from catkit_devices.gateway.doors import LockAnswer
from catkit_devices.gateway.messages import FatalCode, Message, MessageType
from catkit_devices.simulation import Instrument, build_library

# --- programs that nobody here wrote: pyvisa with pyvisa-py


def test_pyvisa_identifies_asks_and_sets(talker, visa):
    instrument, server = talker
    for name in ("hislip_talker", "HISLIP_Talker", "hislip0"):
        with visa(server.port, name) as resource:
            assert resource.query("*IDN?") == "Makers,Talker,1,1"
            assert resource.query("ECHO? 7") == "7"
            resource.write("KEEP 3")
            assert resource.query("SLOW? 0.05,late") == "late"
    assert instrument.heard.count(b"KEEP 3") == 3


def test_instruments_of_every_interface_are_on_one_port(serve, visa):
    _library, server = serve(one=(USB, Talker), two=(GPIB, Talker), three=(LAN, Talker))
    opened = {name: visa(server.port, f"hislip_{name}") for name in ("one", "two", "three")}
    for name, resource in opened.items():
        resource.write(f"KEEP {name}")
        assert resource.query("*IDN?") == "Makers,Talker,1,1"
    with pytest.raises(AssertionError, match="no instrument at sub-address 'hislip0'"):
        Program(server.port)


def test_pyvisa_reads_ten_megabytes_and_writes_three(talker, visa):
    instrument, server = talker
    with visa(server.port, chunk_size=1 << 20) as resource:
        data = resource.query_binary_values("BLOCK? 10000000", datatype="B", container=bytes)
        assert data == bytes(10_000_000)
        resource.write_raw(b"KEEP " + b"x" * 3_000_000 + b"\n")
        assert resource.query("ECHO? after") == "after"
    assert [len(line) for line in instrument.heard] == [15, 3_000_005, 11]


def test_pyvisa_reads_the_status_byte(talker, visa):
    _instrument, server = talker
    with visa(server.port) as resource:
        resource.write("STATUS 33")
        assert resource.query("ECHO? 1") == "1"
        assert resource.read_stb() == 33
        resource.write("ECHO? 2")
        while not resource.read_stb() & 16:
            pass
        assert resource.read() == "2"
        assert resource.read_stb() == 33


def test_pyvisa_clears_the_device_and_goes_on(talker, visa):
    instrument, server = talker
    with visa(server.port) as resource:
        resource.write("SLOW? 30,never")
        resource.clear()
        assert instrument.clears
        assert resource.query("ECHO? after") == "after"


def test_pyvisa_clears_the_device_in_the_middle_of_a_reply(talker, visa):
    _instrument, server = talker
    with visa(server.port, chunk_size=1000) as resource:
        protocol = visa.protocol(resource)
        resource.write("BLOCK? 10000000")
        resource.read_bytes(1000, break_on_termchar=False)
        feature = protocol.async_device_clear()
        protocol._sync.settimeout(0.2)
        discarded = 0
        with pytest.raises(TimeoutError):  # pyvisa-py leaves to its caller what was under way
            while True:
                discarded += len(protocol._sync.recv(1 << 16))
        assert discarded < 9_000_000
        protocol._sync.settimeout(20)
        protocol.device_clear_complete(feature)
        protocol.last_message_id = None
        protocol._message_id = 0xFFFF_FF00
        assert resource.query("ECHO? after") == "after"


def test_pyvisa_locks_by_the_protocol(talker, visa):
    _instrument, server = talker
    with visa(server.port) as one, visa(server.port) as other:
        for_one, for_other = visa.protocol(one), visa.protocol(other)
        assert for_one.async_lock_request(1.0) == "success"
        assert for_other.async_lock_request(0.05) == "failure"
        assert for_other.async_lock_info() == 1
        assert one.query("ECHO? mine") == "mine"
        assert for_one.async_lock_release() == "success"
        assert for_other.async_lock_request(1.0) == "success"
        assert for_other.async_lock_release() == "success"


def test_a_wrong_sub_address_is_told_the_nearest_right_one(talker):
    _instrument, server = talker
    with pytest.raises(AssertionError, match="the nearest is 'hislip_talker'"):
        Program(server.port, "hislip_talkre")


@pytest.mark.parametrize(("driver", "address"), [
    ("thorlabs_pm100d", "USB0::0x1313::0x8078::P0001::0::INSTR"), ("lakeshore_336", "GPIB0::12::INSTR"),
    ("keysight_34461a", "TCPIP0::10.0.0.4::inst0::INSTR"),
])  # fmt: skip
def test_our_own_drivers_work_over_it(serve, driver, address):
    _library, server = serve(thing=(address, driver))
    where = f"TCPIP::127.0.0.1::hislip_thing,{server.port}::INSTR"
    with create_device(driver, "device", {"address": where}, visa_library="@py") as device:
        for name, facts in device.describe()["properties"].items():
            if facts["readable"] and name.isidentifier():
                getattr(device, name)


# --- what the protocol promises


def test_a_lower_version_is_agreed_on(talker, program):
    _instrument, server = talker
    one = program(server.port, version=0x0200)
    assert one.begun.parameter >> 16 == 0x0100


def test_a_program_without_the_lock_waits_for_it_with_its_message(talker, program):
    instrument, server = talker
    one, other = program(server.port), program(server.port)
    assert one.lock() == LockAnswer.SUCCESS
    other.write(b"KEEP waits")
    assert one.query(b"ECHO? mine") == b"mine\n"
    assert b"KEEP waits" not in instrument.heard
    assert one.unlock() == LockAnswer.SUCCESS
    assert other.query(b"ECHO? 2") == b"2\n"
    assert instrument.heard == [b"ECHO? mine", b"KEEP waits", b"ECHO? 2"]


def test_locks_are_granted_in_the_order_in_which_they_were_asked_for(talker, program):
    _instrument, server = talker
    programs = [program(server.port) for _ in range(5)]
    assert programs[0].lock() == LockAnswer.SUCCESS
    for one in programs[1:]:
        one.begin_lock(20)
        one.lock_info()  # answered after the request was taken
    for before, after in itertools.pairwise(programs):
        before.unlock()
        assert after.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS


def test_shared_locks_exclude_all_programs_that_do_not_share_them(talker, program):
    instrument, server = talker
    one, two, other = (program(server.port) for _ in range(3))
    assert one.lock(key=b"us") == two.lock(key=b"us") == LockAnswer.SUCCESS
    assert one.lock_info() == (0, 2)
    assert other.lock(key=b"them") == other.lock() == LockAnswer.FAILURE
    other.write(b"KEEP other")
    assert [one.query(b"ECHO? 1"), two.query(b"ECHO? 2")] == [b"1\n", b"2\n"]
    assert two.lock() == LockAnswer.SUCCESS  # for itself, within those who share
    assert other.lock_info() == (1, 2)
    assert two.lock() == LockAnswer.ERROR
    assert [two.unlock(), two.unlock(), two.unlock()] == [
        LockAnswer.SUCCESS, LockAnswer.SUCCESS_SHARED, LockAnswer.ERROR,
    ]  # fmt: skip
    assert b"KEEP other" not in instrument.heard
    assert one.unlock() == LockAnswer.SUCCESS_SHARED
    assert other.query(b"ECHO? 3") == b"3\n"


def test_an_owner_that_no_longer_waits_for_a_lock_does_not_get_it(talker, program):
    _instrument, server = talker
    one, other = program(server.port), program(server.port)
    one.lock()
    other.begin_lock(20)
    assert other.unlock() == LockAnswer.FAILURE  # of the request
    assert other.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.ERROR  # it had none to give back
    one.unlock()
    assert one.lock_info() == (0, 0)


def test_a_lock_is_given_back_after_the_message_that_was_sent_before(talker, program):
    instrument, server = talker
    one, other = program(server.port), program(server.port)
    one.lock()
    other.begin_lock(20)
    one.write(b"SLOW? 0.3,last")
    assert one.unlock() == LockAnswer.SUCCESS
    assert instrument.outbox.take() == b""  # the reply has been sent
    other.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE)
    assert one.read() == b"last\n"


@pytest.mark.parametrize("kind", [Talker, Unclearable])
def test_a_reply_that_was_given_up_reaches_nobody(serve, program, kind):
    _library, server = serve(talker=(USB, kind))
    one, other = program(server.port), program(server.port)
    one.write(b"SLOW? 0.3,stale")
    one.write(b"ECHO? fresh")
    assert one.sync.hear(MessageType.INTERRUPTED).parameter == one.last_id
    assert one.asyn.hear(MessageType.ASYNC_INTERRUPTED).parameter == one.last_id
    assert one.read() == b"fresh\n"
    one.write(b"SLOW? 0.3,stale", rmt=1)
    one.close()
    assert other.query(b"ECHO? mine") == b"mine\n"
    time.sleep(0.4)  # until the stale one would come
    assert other.query(b"ECHO? mine too") == b"mine too\n"


def test_a_trigger_and_its_reply(talker, program):
    instrument, server = talker
    one = program(server.port)
    one.sync.say(MessageType.TRIGGER, 0, one.message_id)
    assert one.sync.hear(MessageType.DATA_END).payload == b"triggered\n"
    assert instrument.heard == [b"<trigger>"]


def test_service_requests_reach_every_program(talker, program):
    _instrument, server = talker
    one, other = program(server.port), program(server.port)
    one.write(b"STATUS 65")
    for each in (one, other):
        assert each.asyn.hear(MessageType.ASYNC_SERVICE_REQUEST).control == 65
    assert one.status() == 65


def test_remote_and_local_are_accepted(talker, program):
    _instrument, server = talker
    one = program(server.port)
    for request in range(7):
        one.asyn.say(MessageType.ASYNC_REMOTE_LOCAL_CONTROL, request, 0)
        one.asyn.hear(MessageType.ASYNC_REMOTE_LOCAL_RESPONSE)


def test_in_overlapped_mode_no_reply_is_lost(talker, program):
    _instrument, server = talker
    one = program(server.port)
    assert one.clear(overlapped=1) == 1
    first = one.message_id
    for number in range(20):
        one.write(b"ECHO? %d" % number)
    replies = [one.sync.hear(MessageType.DATA_END) for _ in range(20)]
    assert [(m.parameter - first, m.payload) for m in replies] == [(2 * n, b"%d\n" % n) for n in range(20)]
    assert one.clear(overlapped=0) == 0


def test_a_device_clear_does_not_clear_what_another_program_has_locked(talker, program):
    instrument, server = talker
    one, other = program(server.port), program(server.port)
    one.lock()
    one.write(b"SLOW? 0.2,mine")
    other.clear()
    assert one.read() == b"mine\n"
    assert instrument.clears == 0


def test_the_last_command_before_closing_is_carried_out(talker, until):
    instrument, server = talker
    for number in range(20):
        one = Program(server.port)
        one.write(b"KEEP %d" % number)
        one.close()
        until(lambda number=number: b"KEEP %d" % number in instrument.heard)


def test_an_instrument_that_cannot_do_it_says_why(serve, program):
    library, server = serve(talker=(USB, Untriggered))
    one = program(server.port)
    one.sync.say(MessageType.TRIGGER, 0, one.message_id)
    assert b"has no trigger" in one.sync.hear(MessageType.ERROR).payload
    assert one.query(b"*IDN?") == b"Makers,Talker,1,1\n"
    library.disconnect(USB)
    one.write(b"*IDN?", rmt=1)
    with pytest.raises(EOFError):
        one.sync.next()
    with pytest.raises(AssertionError, match="cable of the simulated instrument"):
        program(server.port)


# --- programs that break the rules, or break


def alive(port, name="hislip0"):
    """Whether a new program is served as always."""
    one = Program(port, name)
    try:
        return one.query(b"ECHO? alive") == b"alive\n" and one.lock() == LockAnswer.SUCCESS
    finally:
        one.close()


@pytest.mark.parametrize("first", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(16), b"\xff" * 64, Message(MessageType.DATA_END, 0, 0, b"x").encode(),
    Message(MessageType.INITIALIZE, 0, 0, bytes(257)).encode(), Message(MessageType.ASYNC_INITIALIZE, 0, 7).encode(),
    Message(MessageType.INITIALIZE, 0, 1 << 24, b"hislip_nobody").encode(),
])  # fmt: skip
def test_a_client_that_begins_wrongly_is_told_so_and_disconnected(talker, first):
    _instrument, server = talker
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stranger:
        stranger.sendall(first)
        answer = b""
        while data := stranger.recv(1 << 16):
            answer += data
    assert answer[:3] == b"HS\2"
    assert alive(server.port)


def test_garbage_in_the_middle_ends_that_program_only(talker, program):
    _instrument, server = talker
    one, other = program(server.port), program(server.port)
    one.lock()
    one.sync.socket.sendall(b"\0" * 16)
    assert one.sync.hear(MessageType.FATAL_ERROR).control == FatalCode.POORLY_FORMED_HEADER
    assert other.query(b"ECHO? here") == b"here\n"
    assert other.lock(5) == LockAnswer.SUCCESS


def test_data_before_the_second_connection_is_refused(talker):
    _instrument, server = talker
    line = Line(server.port)
    line.say(MessageType.INITIALIZE, 0, 1 << 24, b"hislip0")
    line.hear(MessageType.INITIALIZE_RESPONSE)
    line.say(MessageType.DATA_END, 0, 0, b"ECHO? 1")
    assert line.hear(MessageType.FATAL_ERROR).control == FatalCode.NOT_BOTH_CHANNELS
    line.close()


def test_a_program_cannot_join_the_session_of_another_program(talker, program):
    _instrument, server = talker
    one = program(server.port)
    for number in (one.session, (one.session + 1) % 65536):
        thief = Line(server.port)
        thief.say(MessageType.ASYNC_INITIALIZE, 0, number)
        assert thief.hear(MessageType.FATAL_ERROR).control == FatalCode.INVALID_INITIALIZATION
        thief.close()
    assert one.lock() == LockAnswer.SUCCESS


def test_connections_that_say_nothing_are_closed(talker, monkeypatch):
    _instrument, server = talker
    monkeypatch.setattr(server_module, "_INTRODUCTION", 0.2)
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(10)]
    half = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    half.sendall(Message(MessageType.INITIALIZE, 0, 1 << 24, b"hislip0").encode()[:-3])
    lonely = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    lonely.sendall(Message(MessageType.INITIALIZE, 0, 1 << 24, b"hislip0").encode())
    for one in [*silent, half]:
        assert one.recv(1) == b""
        one.close()
    assert b"was not opened in 0.2 s" in b"".join(iter(lambda: lonely.recv(1 << 16), b""))
    lonely.close()
    assert alive(server.port)


def test_an_instrument_may_take_longer_to_begin_with_than_a_program_to_say_what_it_wants(program, monkeypatch):
    class Late(SimulatedInstrument):
        async def visit(self, *arguments):
            await asyncio.sleep(2.5)
            monkeypatch.setattr(server_module, "_INTRODUCTION", 10.0)
            return await super().visit(*arguments)

    monkeypatch.setattr(server_module, "_INTRODUCTION", 2.0)
    library = build_library([Instrument(USB, Talker)])
    with HislipServer({"talker": Late(library.resource(USB))}, port=0) as server:
        assert program(server.port).query(b"ECHO? now") == b"now\n"


def test_programs_without_end_are_refused_and_the_first_ones_go_on(talker, program, monkeypatch):
    _instrument, server = talker
    monkeypatch.setattr(server_module, "_MOST_PROGRAMS", 3)
    opened = [program(server.port) for _ in range(3)]
    with pytest.raises(AssertionError, match="at most 3 programs"):
        program(server.port)
    assert [one.query(b"ECHO? 1") for one in opened] == [b"1\n"] * 3


@pytest.mark.parametrize("half", [b"H", Message(MessageType.DATA_END, 0, 0, b"KEEP never").encode()[:-1]])
def test_a_message_that_never_ends_is_never_carried_out(talker, program, half):
    instrument, server = talker
    one = program(server.port)
    one.lock()
    one.sync.socket.sendall(half)
    one.close()
    assert alive(server.port)
    assert b"KEEP never" not in instrument.heard


def test_a_program_that_does_not_read_disturbs_nobody_and_fills_no_memory(talker, program):
    _instrument, server = talker
    greedy, other = program(server.port), program(server.port)
    greedy.clear(overlapped=1)
    process = psutil.Process()
    before = process.memory_info().rss
    greedy.sync.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):  # at some time no more is read from it
        for _ in range(100_000):
            greedy.write(b"BLOCK? 1000000" + b" " * 10_000)
    assert other.query(b"ECHO? quick") == b"quick\n"
    assert process.memory_info().rss - before < 50_000_000


def test_oversized_messages_are_refused_and_the_program_goes_on(serve, program):
    instrument, server = serve(longest_message=3_000_000, talker=(USB, Talker))
    one = program(server.port)
    one.write(bytes(2_000_000))
    assert b"a payload may have" in one.sync.hear(MessageType.ERROR).payload
    for _ in range(4):
        one.sync.say(MessageType.DATA, 0, one.message_id, bytes(1_000_000))
    one.write(b"its end")
    assert b"3000000 bytes in all" in one.sync.hear(MessageType.ERROR).payload
    assert one.query(b"ECHO? on") == b"on\n"
    assert instrument.instrument(USB).heard == [b"ECHO? on"]


def test_a_killed_program_leaves_neither_its_lock_nor_its_reply_behind(talker, program):
    _instrument, server = talker
    holder = run(server.port, "holds")
    one = program(server.port)
    one.begin_lock(20)
    one.lock_info()
    kill(holder)
    assert one.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS
    assert one.query(b"ECHO? mine") == b"mine\n"


def test_a_killed_program_that_waits_is_never_granted(talker, program):
    instrument, server = talker
    one = program(server.port)
    one.lock()
    waiting = run(server.port, "waits")
    kill(waiting)
    other = program(server.port)
    other.begin_lock(20)
    time.sleep(1.2)  # longer than what was sent before a connection closed is waited for
    one.unlock()
    assert other.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS
    assert other.query(b"ECHO? mine") == b"mine\n"
    assert b"KEEP never" not in instrument.heard


@pytest.mark.parametrize("kind", [Talker, Unclearable])
def test_no_reply_to_one_of_eight_programs_reaches_another(serve, kind):
    _library, server = serve(talker=(USB, kind))
    assert cross(server.port, 2000) == []


# --- the server


def test_it_says_what_is_wrong_with_what_it_is_to_serve():
    library = build_library([Instrument("ASRL3::INSTR", Talker), Instrument(USB, Talker)])
    with pytest.raises(ConfigurationError, match="marks no ends of messages"):
        SimulatedInstrument(library.resource("ASRL3::INSTR"))
    door = SimulatedInstrument(library.resource(USB))
    with pytest.raises(ConfigurationError, match="capital letters"):
        HislipServer({"a": door, "A": door}, port=0)
    with pytest.raises(ConfigurationError, match="0 to 65535"):
        HislipServer({"a": door}, port=65536)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="in use"):
        HislipServer({"a": door}, port=taken.getsockname()[1])


def test_closing_disconnects_every_program_and_frees_the_port():
    door = SimulatedInstrument(build_library([Instrument(USB, Talker)]).resource(USB))
    threads = threading.active_count()
    server = HislipServer({"talker": door}, port=0)
    one = Program(server.port)
    one.write(b"SLOW? 60,never")
    server.close()
    with pytest.raises((EOFError, ConnectionResetError)):
        one.sync.next()
    one.close()
    assert threading.active_count() == threads
    HislipServer({"talker": door}, port=server.port).close()
    server.close()


def test_malformed_messages_harm_nothing(talker):
    _instrument, server = talker
    abuse(server.port, 2000, seed=7)
    assert alive(server.port)


def test_a_driver_of_pymeasure_works_over_it(serve):
    from pymeasure.adapters import VISAAdapter
    from pymeasure.instruments.keysight import KeysightE36312A

    _library, server = serve(supply=(LAN, "keysight_e36312a"))
    address = f"TCPIP::127.0.0.1::hislip_supply,{server.port}::INSTR"
    adapter = VISAAdapter(address, visa_library="@py", timeout=20_000)
    supply = KeysightE36312A(adapter)
    try:
        assert "E36312A" in supply.id
        supply.ch_1.voltage_setpoint = 1.5
        assert supply.ch_1.voltage_setpoint == 1.5
        assert supply.check_errors() == []
    finally:
        adapter.close()
        adapter.manager.close()


@pytest.mark.parametrize("steps", range(5))
def test_an_exchange_that_is_interrupted_and_cancelled_at_once_is_cancelled(steps):
    door = SimulatedInstrument(build_library([Instrument(USB, Talker)]).resource(USB))

    async def both():
        visit = await door.visit("somebody", lambda _: None)
        exchange = asyncio.ensure_future(visit.exchange(b"SLOW? 30,never"))
        await asyncio.sleep(0.05)
        visit.interrupt()
        for _ in range(steps):  # of the loop, between the two
            await asyncio.sleep(0)
        accepted = exchange.cancel()
        await asyncio.wait({exchange}, timeout=5)
        assert exchange.cancelled() == accepted

    asyncio.run(both())
