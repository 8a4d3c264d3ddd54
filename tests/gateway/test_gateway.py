"""The gateway: programs that speak VISA take their turn at the devices of a testbed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import pyvisa
from crossing import cross
from kills import kill_in_turn
from talker import Program, kill, run

from catkit_devices.errors import MutexTimeoutError, SafetyError
from catkit_devices.gateway.doors import LockAnswer
from catkit_devices.gateway.messages import MessageType
from catkit_devices.gateway.testbed_device import doors_of
from catkit_devices.multiprocessing import SharedMemoryManager


def test_a_program_reads_and_writes_under_the_mutex(bench, lamp, visa):
    with visa(bench.port, "hislip_lamp") as resource:
        assert resource.query("*IDN?") == "Makers,Lamp,1,1"
        resource.write("POW 3")
        assert resource.query("POW?") == "3"
        assert resource.query_binary_values("BLOCK? 10000000", datatype="B", container=bytes) == bytes(10_000_000)
    assert bench.lamp.power == 3


def test_what_is_not_declared_as_a_read_is_refused_unless_the_configuration_says_write(bench, lamp):
    one = lamp("hislip_shown")
    assert one.query(b"POW?") == b"0\n"
    for message in (b"POW 3", b"ECHO? 3", b"*RST"):
        one.write(message, rmt=1)
        assert b'gateway = "write"' in one.sync.hear(MessageType.ERROR).payload
    one.sync.say(MessageType.TRIGGER, 0, one.message_id)
    assert b"'*TRG'" in one.sync.hear(MessageType.ERROR).payload
    assert one.query(b"*IDN?") == b"Makers,Lamp,1,1\n"
    assert bench.testbed.devices.shown.power == 0
    with pytest.raises(AssertionError, match="no instrument at sub-address 'hislip_hidden'"):
        lamp("hislip_hidden")


def test_visas_lock_is_the_mutex(bench, lamp):
    one = lamp()
    assert one.lock() == LockAnswer.SUCCESS
    assert one.lock() == LockAnswer.ERROR
    with pytest.raises(MutexTimeoutError, match="held for .* by 'VISA program at 127.0.0.1:"):
        bench.lamp.acquire(0.0)
    assert one.lock_info() == (1, 1)
    assert one.query(b"ECHO? mine") == b"mine\n"
    assert one.unlock() == LockAnswer.SUCCESS
    assert one.unlock() == LockAnswer.ERROR
    with bench.lamp.lock(timeout=0.0):
        assert one.lock_info() == (1, 1)
        assert one.lock(0.05) == LockAnswer.FAILURE
        one.write(b"POW 5", rmt=1)
        time.sleep(0.1)
        assert bench.lamp.power == 0
    assert one.query(b"POW?") == b"5\n"


def test_programs_and_experiments_wait_in_one_queue(bench, lamp, until):
    order, programs = [], [lamp(), lamp()]

    def experiment(name):
        with bench.lamp.lock(timeout=20.0):
            order.append(name)

    threads = [threading.Thread(target=experiment, args=(name,)) for name in ("first", "second")]
    with bench.lamp.lock():
        for thread, one, number in zip(threads, programs, itertools.count(1), strict=False):
            thread.start()
            bench.wait_for(2 * number - 1)
            one.begin_lock(20)
            bench.wait_for(2 * number)
    for number, one in enumerate(programs):
        assert one.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS
        order.append(number)
        one.unlock()
    for thread in threads:
        thread.join()
    assert order.index("first") < order.index(0) < order.index(1)
    assert order.index("second") < order.index(1)


def test_messages_wait_in_the_same_queue(bench, lamp):
    one = lamp()
    threads = [threading.Thread(target=bench.lamp.query, args=(f"ECHO? {name}",)) for name in ("first", "second")]
    with bench.lamp.lock():
        threads[0].start()
        bench.wait_for(1)
        one.write(b"POW 4")
        bench.wait_for(2)
        threads[1].start()
        bench.wait_for(3)
    for thread in threads:
        thread.join()
    assert bench.heard()[-3:] == ["ECHO? first", "POW 4", "ECHO? second"]


def test_a_circle_through_two_connections_of_a_program_ends_by_the_timeout_which_names_the_program(bench, lamp, until):
    one, other = lamp(), lamp("hislip_shown")
    one.lock()
    with bench.testbed.devices.shown.lock():
        other.begin_lock(60)
        until(lambda: bench.testbed.devices.shown.mutex.waiters)
        with pytest.raises(MutexTimeoutError, match=r"held for .* by 'VISA program at 127\.0\.0\.1:"):
            bench.lamp.acquire(0.2)
    assert other.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS


def test_shared_locks_exclude_everybody_else(bench, lamp):
    one, two, other = lamp(), lamp(), lamp()
    assert one.lock(5, b"us") == two.lock(5, b"us") == LockAnswer.SUCCESS
    assert one.lock_info() == (0, 2)
    assert other.lock(0.05, b"them") == other.lock(0.05) == LockAnswer.FAILURE
    with pytest.raises(MutexTimeoutError, match="shared lock 'us'"):
        bench.lamp.acquire(0.0)
    assert [one.query(b"ECHO? 1"), two.query(b"ECHO? 2")] == [b"1\n", b"2\n"]
    assert two.lock() == LockAnswer.SUCCESS
    assert one.lock(0.05) == LockAnswer.FAILURE
    assert [two.unlock(), two.unlock()] == [LockAnswer.SUCCESS, LockAnswer.SUCCESS_SHARED]
    assert one.query(b"ECHO? 3", rmt=1) == b"3\n"
    one.unlock()
    assert other.lock(5) == LockAnswer.SUCCESS


def test_a_program_that_ends_with_the_lock_is_a_death_and_the_device_is_made_safe_first(bench, lamp, until):
    one = lamp()
    one.lock()
    one.write(b"POW 7")
    assert one.query(b"POW?") == b"7\n"
    begun = threading.Event()
    found = []

    def wait():
        begun.set()
        with bench.lamp.lock(timeout=20.0):
            found.append((time.monotonic(), bench.lamp.power))

    thread = threading.Thread(target=wait)
    thread.start()
    bench.wait_for(1)
    ended = time.monotonic()
    one.close()
    thread.join()
    assert found[0][1] == 0.0
    assert found[0][0] - ended < 5


def test_a_program_that_ends_without_a_lock_leaves_the_device_as_it_is(bench, lamp, until):
    one = lamp()
    one.write(b"POW 7")
    one.close()
    until(lambda: bench.lamp.power == 7)
    sessions = bench.testbed.manager.status
    until(lambda: not any("VISA" in session["process"] for session in sessions()["sessions"]))
    assert bench.lamp.power == 7


def test_a_program_that_is_gone_while_it_waits_is_never_granted(bench, lamp, until):
    one = lamp()
    with bench.lamp.lock():
        one.begin_lock(20)
        bench.wait_for(1)
        one.close()
        bench.wait_for(0)
    with bench.lamp.lock(timeout=5.0):
        pass


def test_a_device_clear_ends_what_waits_for_somebody_else(bench, lamp, until):
    one = lamp()
    with bench.lamp.lock():
        one.write(b"POW 9")
        bench.wait_for(1)
        one.clear()
        bench.wait_for(0)
    assert one.query(b"POW?") == b"0\n"
    assert "POW 9" not in bench.heard()


def test_a_device_clear_in_the_middle_of_an_exchange_leaves_the_lock_and_the_line_in_order(bench, lamp):
    one = lamp()
    one.lock()
    one.write(b"SLOW?")
    one.clear()
    assert one.query(b"ECHO? after") == b"after\n"
    assert one.unlock() == LockAnswer.SUCCESS


def test_who_no_longer_waits_for_the_lock_does_not_get_it(bench, lamp, until):
    one = lamp()
    with bench.lamp.lock():
        one.begin_lock(20)
        bench.wait_for(1)
        assert one.unlock() == LockAnswer.FAILURE
        assert one.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.ERROR
        bench.wait_for(0)
    assert one.lock_info() == (0, 0)


@pytest.mark.parametrize("wanted", ["the lock", "a shared lock", "an answer"])
def test_who_is_gone_while_another_session_is_opened_for_it_never_gets_the_device(bench, until, wanted):
    (door,) = (one for name, one in doors_of(bench.testbed).items() if name == "lamp")
    server = SharedMemoryManager(bench.testbed.layout.device_servers[0])
    server.connect()

    async def come_and_go(pause):
        visit = await door.visit("127.0.0.1:1", lambda byte: None)
        ask = {
            "the lock": lambda: visit.lock(b"", 60.0),
            "a shared lock": lambda: visit.lock(b"key", 60.0),
            "an answer": lambda: visit.exchange(b"POW?"),
        }[wanted]
        waiting = asyncio.create_task(ask())
        while not bench.lamp.mutex.waiters:
            await asyncio.sleep(0.001)
        waiting.cancel()  # as by a device clear, or by its end
        await asyncio.sleep(pause)
        visit.hang_up()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await visit.leave(orderly=True)

    for number in range(20):
        with bench.lamp.lock():
            asyncio.run(come_and_go(number * 0.0003))
        until(lambda: bench.lamp.mutex.holder is None)
    until(lambda: not re.findall("VISA program|shared lock", str(server.status()["sessions"])))
    door.close()


def test_a_device_clear_in_the_middle_of_a_long_reply_leaves_nothing_of_it_behind(bench, lamp):
    one, other = lamp(), lamp()
    one.write(b"BLOCK? 10000000")
    assert one.sync.hear(MessageType.DATA).payload.startswith(b"#8")
    one.clear()
    assert [one.query(b"ECHO? one"), other.query(b"ECHO? other")] == [b"one\n", b"other\n"]


def test_a_broken_lock_refuses_the_program_that_had_it(bench, lamp):
    one = lamp()
    one.lock()
    bench.lamp.mutex.break_("an operator's test")
    one.write(b"POW 3")
    assert b"an operator's test" in one.sync.hear(MessageType.ERROR).payload
    with bench.lamp.lock(timeout=5.0):
        assert bench.lamp.power == 0


WATCHED = """
[safety.power]
device = "lamp"
property = "warmth"
maximum = 8
interval = 0.05
"""


@pytest.mark.parametrize("bench_file", [WATCHED], indirect=True, ids=["watched"])
def test_after_a_trip_programs_may_look_and_not_change(bench, lamp, until):
    one = lamp()
    one.write(b"POW 9")
    until(lambda: bench.testbed.trip is not None)
    until(lambda: one.query(b"POW?") == b"0\n")
    one.write(b"POW 3", rmt=1)
    assert b"power" in one.sync.hear(MessageType.ERROR).payload
    assert one.query(b"POW?") == b"0\n"
    with contextlib.suppress(SafetyError):
        bench.testbed.run()


@pytest.mark.parametrize("what", ["holds", "waits"])
def test_a_killed_program_is_a_death(bench, lamp, until, what):
    one = lamp()
    if what == "waits":
        one.lock()
        one.write(b"POW 7")
    killed = run(bench.port, what, "hislip_lamp")
    if what == "waits":
        bench.wait_for(2)  # its lock, and its message
        kill(killed)
        bench.wait_for(0)
        assert one.query(b"POW?") == b"7\n"
        return
    one.begin_lock(20)
    bench.wait_for(1)
    kill(killed)
    assert one.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control == LockAnswer.SUCCESS
    assert one.query(b"POW?") == b"0\n"  # it had been left on


def test_programs_that_are_killed_at_any_moment_hold_up_nobody_and_leave_nothing_on(bench, lamp):
    kill_in_turn(bench, lamp, 14, seed=0)


def test_no_reply_goes_to_another_program_or_to_an_experiment(bench):
    failures = []

    def experiment():
        try:
            for number in range(100):
                with bench.lamp.lock():
                    if bench.lamp.query(f"ECHO? mine {number}") != f"mine {number}":
                        failures.append(number)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=experiment)
    thread.start()
    failures += cross(bench.port, 800, "hislip_lamp")
    thread.join()
    assert failures == []


@pytest.fixture
def plain(bench):
    """Open a plain socket to the lamp or to the one that may only be read."""
    opened = []

    def connect(name):
        line = socket.create_connection(("127.0.0.1", bench.ports[name]), timeout=20)
        opened.append((line, line.makefile("rb")))
        return opened[-1]

    yield connect
    for line, file in opened:
        file.close()
        line.close()


def test_a_program_without_hislip_uses_a_plain_socket(bench, plain):
    manager = pyvisa.ResourceManager("@py")
    address = f"TCPIP::127.0.0.1::{bench.ports['lamp']}::SOCKET"
    with manager.open_resource(address, read_termination="\n", write_termination="\n") as resource:
        resource.timeout = 20_000
        resource.write("POW 4")
        assert [resource.query("POW?"), resource.query("ECHO? 7")] == ["4", "7"]
        assert resource.query_binary_values("BLOCK? 100000", datatype="B", container=bytes) == bytes(100_000)
    manager.close()
    line, answers = plain("shown")
    line.sendall(b"POW?\nPOW 3\nPOW?\n")
    assert answers.read() == b"0\n"  # it was disconnected because it wanted to write
    assert bench.testbed.devices.shown.power == 0


def test_what_a_program_writes_before_it_closes_its_socket_is_done_and_half_a_line_is_not(bench, plain, until):
    line, _answers = plain("lamp")
    line.sendall(b"POW 6\nPOW 9")
    line.shutdown(socket.SHUT_WR)
    until(lambda: bench.lamp.power == 6)
    line, answers = plain("lamp")
    line.sendall(b"POW?\n")
    assert answers.readline() == b"6\n"
    assert "POW 9" not in bench.heard()


def test_start_serves_programs_if_the_configuration_says_so(tmp_path, runtime, bench_file):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "catkit_devices"]
    options = [
        "--set",
        "testbed.gateway=true",
        "--set",
        f"testbed.gateway_port={port}",
        "--set",
        "testbed.gateway_host='127.0.0.2'",
    ]
    done = subprocess.run([*command, "start", "--config", bench_file, "--background", *options], check=False,
                          capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    try:
        with pytest.raises(ConnectionRefusedError):
            Program(port, "hislip_lamp")
        one = Program(port, "hislip_lamp", host="127.0.0.2")
        assert one.query(b"*IDN?") == b"Makers,Lamp,1,1\n"
        one.close()
    finally:
        subprocess.run([*command, "stop", "bench"], check=True, capture_output=True)


def test_a_command_serves_a_running_testbed_until_it_ends(bench, tmp_path):
    command = [sys.executable, "-m", "catkit_devices", "gateway", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            text = "".join(iter(process.stdout.readline, "}\n")) + "}"
            rows = {row["device"]: row for row in json.loads(text)["instruments"]}
            assert {name: row["access"] for name, row in rows.items()} == {"lamp": "write", "shown": "read"}
            port = int(re.search(r",(\d+)::INSTR", rows["lamp"]["hislip_address"])[1])
            one = Program(port, "hislip_lamp")
            assert one.query(b"*IDN?") == b"Makers,Lamp,1,1\n"
            one.close()
            process.send_signal(signal.SIGINT)
            _, warned = process.communicate(timeout=20)
            assert process.returncode == 0, warned
            assert "'hidden' is not served: gateway = off" in " ".join(warned.split())
        finally:
            process.kill()
