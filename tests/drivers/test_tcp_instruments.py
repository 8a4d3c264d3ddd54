"""VisaDevice on real sockets, through pyvisa-py."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from catkit_devices._wire.byte_stream import _socket_of
from catkit_devices.errors import (
    DeviceBusyError,
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.properties import Control
from catkit_devices.visa import VisaDevice


class Widget(VisaDevice):
    identity = "widget"
    io_timeout = 0.4

    a = Control("A?", "A {}", doc="Amplitude.")


class Server:
    """An instrument on a real socket: ``answers`` maps commands to replies, or to functions of the connection."""

    def __init__(self, answers):
        self.answers = {b"*IDN?": b"widget\n", **answers}
        self.sent = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"TCPIP0::127.0.0.1::{self._listening.getsockname()[1]}::SOCKET"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            with contextlib.suppress(ConnectionError):
                connection, _peer = self._listening.accept()
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        if line == b"stop\n":
                            return
                        self.sent.append(line.strip())
                        answer = self.answers.get(line.strip(), b"")
                        if callable(answer):
                            answer = answer(connection)
                        connection.sendall(answer)

    def close(self):
        with socket.create_connection(self._listening.getsockname()) as connection:
            connection.sendall(b"stop\n")
        self._thread.join()
        self._listening.close()


@pytest.fixture
def server():
    made = []

    def build(**answers):
        made.append(Server({name.encode() + b"?": answer for name, answer in answers.items()}))
        return made[-1]

    yield build
    for one in made:
        one.close()


def test_a_dialogue_over_a_socket(server):
    instrument = server(A=b"1.5\n")

    with Widget("widget", address=instrument.address) as device:
        device.a = 3
        assert device.a == 1.5

    assert instrument.sent == [b"*IDN?", b"A 3.0", b"A?"]


def test_a_reply_of_megabytes_over_a_socket_is_read_whole(server):
    reply = b"1.234567," * 400_000

    with Widget("widget", address=server(A=reply + b"\n").address) as device:
        assert device.query("A?", timeout=10) == reply.decode()


def test_small_writes_leave_at_once(server):
    with Widget("widget", address=server().address) as device:
        line = _socket_of(device._exchanges_.transport.line.resource)

        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_refuses_does_not_open():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    device = Widget("widget", address=f"TCPIP0::127.0.0.1::{port}::SOCKET")

    with pytest.raises(DeviceOpenError, match=f"127.0.0.1::{port}"):
        device.open()


def test_a_peer_that_closes_is_a_disconnection_and_no_timeout(server):
    instrument = server(A=lambda connection: connection.shutdown(socket.SHUT_RDWR) or b"")

    with Widget("widget", address=instrument.address) as device:
        begun = time.monotonic()
        with pytest.raises(DeviceDisconnectedError, match="closed the connection"):
            _ = device.a

        assert time.monotonic() - begun < 10 * Widget.io_timeout
        device.close(force=True)


def test_a_peer_that_closed_between_two_commands_is_a_disconnection(server, until):
    closed = threading.Event()

    def close(connection):
        connection.sendall(b"1.5\n")
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()
        return b""

    with Widget("widget", address=server(A=close).address) as device:
        assert device.a == 1.5
        assert closed.wait(5)
        with pytest.raises(DeviceDisconnectedError):
            until(lambda: device.a is None)
        device.close(force=True)


def test_a_late_reply_over_a_socket_is_not_taken_for_the_next_one(server):
    def late(connection):
        threading.Timer(Widget.io_timeout + 0.2, connection.sendall, [b"1.5\n"]).start()
        return b""

    instrument = server(A=late, B=b"2.5\n")

    with Widget("widget", address=instrument.address, late_window=0.4) as device:
        with pytest.raises(DeviceTimeoutError, match=r"no reply in 0.4 s"):
            _ = device.a

        assert device.query("B?") == "2.5"


def test_half_a_reply_is_shown_in_the_error(server):
    with Widget("widget", address=server(A=b"1.").address) as device:
        with pytest.raises(DeviceTimeoutError, match=r"only b'1\.' in 0.4 s"):
            _ = device.a
        device.close(force=True)


def test_a_large_block_full_of_line_ends_arrives_whole(server):
    data = os.urandom(1000) + b"\n" * 3_000_000
    instrument = server(D=b"#7%07d" % len(data) + data + b"\n", A=b"1.5\n")

    with Widget("widget", address=instrument.address) as device:
        assert device.query_binary("D?") == data
        assert device.a == 1.5


def test_a_reply_that_is_no_text_is_a_protocol_error(server):
    with (
        Widget("widget", address=server(A=b"1.5\xb5\n").address) as device,
        pytest.raises(DeviceProtocolError, match="A\\?") as caught,
    ):
        _ = device.a

    assert "text in 'ascii' was expected" in str(caught.value)


_HOLD = """
import sys
from catkit_devices.visa import VisaDevice
with VisaDevice("other", address=sys.argv[1]):
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_an_instrument_that_another_program_has_open_is_busy_and_the_error_names_that_program(server, tmp_path, caplog):
    address = server().address
    script = tmp_path / "scan.py"
    script.write_text(_HOLD)
    other = subprocess.Popen(
        [sys.executable, script, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        try:
            assert other.stdout.readline() == "open\n"
            device = Widget("widget", address=address.replace("TCPIP0", "TCPIP"))

            with pytest.raises(DeviceBusyError, match=rf"in use by scan.py \(pid {other.pid}\)") as caught:
                device.open()

            assert caught.value.device == "widget"
        finally:
            other.kill()
            other.wait()

    assert other.returncode < 0
    # The lock went with its process; what that had asked last may still be answered, so the line is settled first.
    with caplog.at_level("WARNING", "catkit_devices"), device:
        assert device.is_open
    assert (
        "waiting until nothing more is received, because of this: the program that had it before has died"
        in caplog.text
    )


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"])
def test_the_end_of_a_program_reaches_the_wire_before_pyvisas_own_end(server, ending):
    instruments = [server(), server()]
    program = f"""
import os, signal, sys, time
from catkit_devices import Control, VisaDevice

class Source(VisaDevice):
    a = Control("A?", "A {{}}", doc="Amplitude.")
    def _make_safe(self):
        self.a = 0

sources = [Source(address, address=address) for address in sys.argv[1:]]
for source in sources:
    source.open()
    source.a = 3
{ending}
"""
    command = [sys.executable, "-c", program, *(instrument.address for instrument in instruments)]
    subprocess.run(command, timeout=60)
    for instrument in instruments:
        assert instrument.sent == [b"*IDN?", b"A 3.0", b"A 0.0"]
