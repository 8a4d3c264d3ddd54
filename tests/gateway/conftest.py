from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
import pyvisa
from talker import USB, Program, Talker

from catkit_devices.errors import ConfigurationError
from catkit_devices.gateway import HislipServer, SimulatedInstrument
from catkit_devices.gateway.testbed_device import doors_of
from catkit_devices.simulation import Instrument, build_library
from catkit_devices.testbed import Testbed, load_configuration

BENCH = """
[testbed]
name = "bench"
plugins = ["{plugins}"]
runs = "{runs}"
simulate = true

[devices.lamp]
driver = "lamp"
address = "USB0::0x1::0x2::LAMP::0::INSTR"
simulator = "lamp"
simulator_options = {{ journal = "{journal}" }}
gateway = "write"

[devices.shown]
driver = "lamp"
address = "TCPIP0::10.0.0.1::5025::SOCKET"
simulator = "lamp"
simulator_options = {{ journal = "{journal}2" }}

[devices.hidden]
driver = "lamp"
address = "GPIB0::3::INSTR"
simulator = "lamp"
simulator_options = {{ journal = "{journal}3" }}
gateway = "off"
"""


@pytest.fixture(scope="module", autouse=True)
def _children_begin_ready(ready_children):
    """How processes are started is shown in ``sharing``."""


@pytest.fixture
def serve():
    """Serve simulated instruments, given as name=(address, simulator[, options]); return the library and the server."""
    servers = []

    def build(longest_message=None, **instruments):
        library = build_library([Instrument(*given) for given in instruments.values()])
        doors = {name: SimulatedInstrument(library.resource(given[0])) for name, given in instruments.items()}
        servers.append(HislipServer(doors, port=0, longest_message=longest_message))
        return library, servers[-1]

    yield build
    for server in servers:
        server.close()


@pytest.fixture
def talker(serve):
    """Serve one talker; return the simulated instrument and the server."""
    library, server = serve(talker=(USB, Talker))
    return library.instrument(USB), server


@pytest.fixture
def program():
    """Open connections byte by byte: ``program(port, name)``."""
    opened = []

    def build(*arguments, **options):
        opened.append(Program(*arguments, **options))
        return opened[-1]

    yield build
    for one in opened:
        one.close()


@pytest.fixture
def visa():
    """Open a resource with pyvisa and pyvisa-py: ``visa(port, sub_address)``."""
    manager = pyvisa.ResourceManager("@py")

    def build(port, name="hislip0", **options):
        options = {"read_termination": "\n", "timeout": 20_000, **options}
        return manager.open_resource(f"TCPIP::127.0.0.1::{name},{port}::INSTR", **options)

    build.protocol = lambda resource: manager.visalib.sessions[resource.session].interface
    yield build
    manager.close()


class Bench:
    def __init__(self, testbed, server, journal, ports, until):
        self.ports = ports
        self.testbed = testbed
        self.lamp = testbed.devices.lamp
        self.port = server.port
        self._journal = journal
        self._until = until

    def wait_for(self, count):
        """Wait until so many wait for the lamp."""
        self._until(lambda: len(self.lamp.mutex.waiters) == count)

    def heard(self):
        return [line.split(" ", 1)[1] for line in self._journal.read_text().splitlines()]


@pytest.fixture
def bench_file(tmp_path, request):
    path, journal = tmp_path / "bench.toml", tmp_path / "journal"
    journal.touch()
    plugins = Path(__file__).parent / "plugins"
    text = BENCH.format(plugins=plugins, runs=tmp_path / "runs", journal=journal)
    path.write_text(text + getattr(request, "param", ""))
    return path


@pytest.fixture
def bench(bench_file, runtime, until):
    with Testbed(load_configuration([bench_file])) as testbed:
        for _ in range(10):
            with contextlib.ExitStack() as free:
                taken = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
                ports = dict(zip(("lamp", "shown"), [one.getsockname()[1] for one in taken], strict=True))
            with contextlib.suppress(ConfigurationError):  # somebody else has taken it meanwhile
                server = HislipServer(doors_of(testbed), port=0, sockets=ports)
                break
        with server:
            yield Bench(testbed, server, bench_file.with_name("journal"), ports, until)


@pytest.fixture
def lamp(bench, program):
    """Open a connection to the lamp."""
    return lambda name="hislip_lamp": program(bench.port, name)
