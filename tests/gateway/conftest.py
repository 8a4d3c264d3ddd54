from __future__ import annotations

import pytest
import pyvisa
from talker import USB, Program, Talker

from catkit_devices.gateway import HislipServer, SimulatedInstrument
from catkit_devices.simulation import Instrument, build_library


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
