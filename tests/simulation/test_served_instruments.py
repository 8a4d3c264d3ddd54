"""Simulated instruments on TCP ports, through pyvisa-py, pyserial and plain sockets."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading

import pytest
import pyvisa
import serial

from catkit_devices.drivers import create_device
from catkit_devices.errors import ConfigurationError, DeviceDisconnectedError
from catkit_devices.simulation import Fault, Instrument, InstrumentServer, Outbox, RealClock, build_library

SERIAL = "ASRL3::INSTR"
USB = "USB0::0x1313::0x8078::P0001::0::INSTR"


class Parrot:
    """Sends everything back, as a line of an instrument without any protocol."""

    def __init__(self, bench):
        self.heard = b""

    def feed(self, data):
        self.heard += data
        if b"boom" in data:
            raise ZeroDivisionError("a bug of the simulator")
        return data


class Store:
    """Keeps the last line written to it and answers ``?`` with it, after `delay` seconds."""

    message_end = b"\n"

    def __init__(self, bench, *, delay=0.0, size=0):
        self.heard = b""
        self.kept = b""
        self.delay = delay
        self.size = size
        self.outbox = Outbox(bench.clock)

    def feed(self, data):
        self.heard += data
        for line in data.splitlines():
            if line == b"?":
                self.outbox.put(self.kept + b"x" * self.size + b"\n", self.delay)
            else:
                self.kept = line
        return self.outbox.take()


@pytest.fixture
def serve():
    servers = []

    def build(*instruments, clock=None, **options):
        library = build_library([Instrument(*instrument) for instrument in instruments], clock=clock)
        servers.append(InstrumentServer(library, **options))
        return library, servers[-1].served

    yield build
    for server in servers:
        server.close()


@pytest.fixture
def connect():
    opened = []

    def open_one(where):
        opened.append(socket.create_connection((where.host, where.port), timeout=10))
        return opened[-1], opened[-1].makefile("rb")

    yield open_one
    for one in opened:
        one.close()


def test_all_three_addresses_reach_the_same_instrument(serve, connect):
    library, served = serve((SERIAL, Store))
    where = served[SERIAL]
    manager = pyvisa.ResourceManager("@py")
    endings = {"read_termination": "\n", "write_termination": "\n"}
    with manager.open_resource(where.visa, **endings) as over_tcp:
        over_tcp.write("spam")
        assert over_tcp.query("?") == "spam"
    with manager.open_resource(where.serial, **endings) as over_serial:
        assert over_serial.query("?") == "spam"
    with serial.serial_for_url(where.url, timeout=10) as port:
        port.write(b"eggs\n?\n")
        assert port.read_until(b"\n") == b"eggs\n"
    plain, lines = connect(where)
    plain.sendall(b"?\n")
    assert lines.readline() == b"eggs\n"
    assert library.instrument(SERIAL).heard == b"spam\n?\n?\neggs\n?\n?\n"


@pytest.mark.parametrize(("driver", "address", "options"), [
    ("thorlabs_fw102c", SERIAL, {"step_time": 0.01}), ("thorlabs_pm100d", USB, {}), ("npoint_lc400", SERIAL, {}),
    ("omega_ithx", "TCPIP0::10.0.0.7::2000::SOCKET", {}), ("thorlabs_mcls1", SERIAL, {}),
    ("scpi_camera", "TCPIP0::10.0.0.8::5025::SOCKET", {"rows": 8, "columns": 8}),
])  # fmt: skip
def test_a_driver_works_on_its_served_simulator(serve, driver, address, options):
    _library, served = serve((address, driver, options))
    (where,) = served.values()
    with create_device(driver, "device", {"address": where.visa}, visa_library="@py") as device:
        for name, facts in device.describe()["properties"].items():
            if facts["readable"]:
                getattr(device, name)


def test_another_program_shares_the_instrument(serve, connect):
    _library, served = serve((SERIAL, Store))
    plain, lines = connect(served[SERIAL])
    plain.sendall(b"from here\n?\n")
    assert lines.readline() == b"from here\n"
    program = (
        "import pyvisa, sys\n"
        "one = pyvisa.ResourceManager('@py').open_resource(sys.argv[1])\n"
        "one.read_termination = one.write_termination = '\\n'\n"
        "print(one.query('?')); one.write('from there'); print(one.query('?'))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, served[SERIAL].visa], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert printed == "from here\nfrom there\n"
    plain.sendall(b"?\n")
    assert lines.readline() == b"from there\n"


def test_an_answer_goes_to_the_client_that_wrote_last(serve, connect):
    _library, served = serve((SERIAL, Parrot))
    (one, lines_of_one), (_other, lines_of_other) = connect(served[SERIAL]), connect(served[SERIAL])
    one.sendall(b"1\n")
    assert lines_of_one.readline() == b"1\n"
    _other.sendall(b"2\n")
    assert lines_of_other.readline() == b"2\n"
    one.sendall(b"3\n")
    assert lines_of_one.readline() == b"3\n"


def test_commands_of_several_clients_reach_an_instrument_whole(serve, connect, until):
    library, served = serve((SERIAL, Store))
    (one, lines), (other, _) = connect(served[SERIAL]), connect(served[SERIAL])
    one.sendall(b"first ha")
    other.sendall(b"other\nand a ha")
    until(lambda: library.instrument(SERIAL).heard == b"other\n")
    one.sendall(b"lf\n?\n")
    assert lines.readline() == b"first half\n"
    other.close()
    one.sendall(b"?\n")
    assert lines.readline() == b"first half\n"
    assert library.instrument(SERIAL).heard == b"other\nfirst half\n?\n?\n"


def test_an_answer_that_takes_time_arrives_by_itself(serve, connect):
    library, served = serve((SERIAL, Store, {"delay": 0.1}))
    plain, lines = connect(served[SERIAL])
    began = library.bench.clock.time()
    plain.sendall(b"late\n?\n")
    assert lines.readline() == b"late\n"
    assert 0.1 <= library.bench.clock.time() - began < 5


def test_an_answer_to_a_client_that_has_gone_is_lost(serve, connect, until):
    library, served = serve((SERIAL, Store, {"delay": 0.1}))
    gone, nothing = connect(served[SERIAL])
    gone.sendall(b"spam\n?\n")
    until(lambda: library.instrument(SERIAL).heard == b"spam\n?\n")
    nothing.close()
    gone.close()
    until(lambda: not library.resource(SERIAL)._open)
    library.bench.clock.wait(0.1)
    plain, lines = connect(served[SERIAL])
    plain.sendall(b"eggs\n?\n")
    assert lines.readline() == b"eggs\n"


def test_a_large_answer_to_a_client_that_does_not_read_does_not_disturb_other_clients(serve, connect, until):
    size = 3_000_000
    library, served = serve((SERIAL, Store, {"size": size}), (USB, Parrot))
    greedy, lines = connect(served[SERIAL])
    greedy.sendall(b"?\n" * 10)
    until(lambda: library.instrument(SERIAL).heard.endswith(b"?\n"))
    other, other_lines = connect(served[USB])
    other.sendall(b"quick\n")
    assert other_lines.readline() == b"quick\n"
    assert [len(lines.readline()) for _ in range(10)] == [size + 1] * 10


def test_a_pulled_cable_disconnects_clients_and_lets_none_in_until_it_is_back(serve, connect):
    library, served = serve((SERIAL, Parrot))
    plain, lines = connect(served[SERIAL])
    plain.sendall(b"1\n")
    assert lines.readline() == b"1\n"
    library.disconnect(SERIAL)
    assert lines.readline() == b""
    assert connect(served[SERIAL])[1].readline() == b""
    library.reconnect(SERIAL)
    again, lines = connect(served[SERIAL])
    again.sendall(b"2\n")
    assert lines.readline() == b"2\n"


def test_a_fault_drops_the_connection_and_the_driver_says_so(serve):
    library, served = serve((SERIAL, "thorlabs_fw102c"))
    options = {"address": served[SERIAL].visa, "late_window": 0.1}
    device = create_device("thorlabs_fw102c", "wheel", options, visa_library="@py")
    with device:
        library.line(SERIAL).inject(Fault("disconnect"))
        with pytest.raises(DeviceDisconnectedError):
            _ = device.position
        device.close(force=True)
    with device:
        assert device.position == 1


def test_a_bug_of_a_simulator_disconnects_its_client_only(serve, connect, caplog):
    _library, served = serve((SERIAL, Parrot))
    (one, lines_of_one), (other, lines_of_other) = connect(served[SERIAL]), connect(served[SERIAL])
    other.sendall(b"hello\n")
    assert lines_of_other.readline() == b"hello\n"
    one.sendall(b"boom\n")
    assert lines_of_one.readline() == b""
    other.sendall(b"still there\n")
    assert lines_of_other.readline() == b"still there\n"
    assert "a bug of the simulator" in caplog.text


def two_free_ports():
    """Return the first of two that are free, below those that the system gives to other programs' connections."""
    first = random.randrange(10_000, 30_000)
    while True:
        try:
            for port in (first, first + 1):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            first += 2
        else:
            return first


def test_ports_follow_the_first_one_and_are_free_again_at_the_end(serve):
    port = two_free_ports()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=f"{port}: .*in use"):
        serve((SERIAL, Parrot), port_base=port)
    library = build_library([Instrument(SERIAL, Parrot), Instrument(USB, Parrot)])
    for _ in range(2):
        with InstrumentServer(library, port_base=port) as server:
            assert [where.port for where in server.served.values()] == [port, port + 1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"


def test_closing_disconnects_every_client(connect):
    server = InstrumentServer(build_library([Instrument(SERIAL, Parrot)], clock=RealClock()))
    _plain, lines = connect(server.served[SERIAL])
    threads = threading.active_count()
    server.close()
    assert lines.readline() == b""
    assert threading.active_count() == threads - 1
    server.close()


@pytest.mark.parametrize(("options", "message"), [
    ({"clock": "virtual"}, "whose clock is virtual cannot be served"),
    ({"host": "nowhere.invalid"}, "cannot be served on nowhere.invalid:0"),
    ({"port_base": 65536}, "65536"),
])  # fmt: skip
def test_arguments_for_serving_that_are_not_possible_are_refused(serve, options, message):
    with pytest.raises(ConfigurationError, match=message):
        serve((SERIAL, Parrot), **options)
