"""One question and its answer by HiSLIP, beside a bare TCP echo and beside pyvisa-py's own plain socket, as ratios.

``python benchmarks/gateway.py``. The servers run in a process of their own; the rounds of the peers are interleaved.
The instrument is served twice: alone, and as a device of a testbed, where a question is an operation under the mutex.
"""

import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import pyvisa

from catkit_devices.gateway import HislipServer, SimulatedInstrument
from catkit_devices.gateway.testbed_device import doors_of
from catkit_devices.simulation import Instrument, build_library
from catkit_devices.testbed import Testbed, load_configuration

BENCH = """
[testbed]
name = "benchmark"
simulate = true

[devices.meter]
driver = "keysight_34461a"
address = "TCPIP0::10.0.0.9::inst0::INSTR"
simulator = "keysight_34461a"
"""
ADDRESS = "TCPIP0::10.0.0.9::inst0::INSTR"
QUESTION = "*IDN?"
ROUNDS, EACH = 30, 50


def serve(pipe):
    """Serve a simulated multimeter over HiSLIP and on a plain socket, alone and in a testbed, and an echo.

    It ends when the connection to the echo is closed.
    """
    library = build_library([Instrument(ADDRESS, "keysight_34461a")])
    alone = {"meter": SimulatedInstrument(library.resource(ADDRESS))}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CATKIT_DEVICES_RUNTIME"] = os.path.join(directory, "runtime")
        file = Path(directory, "benchmark.toml")
        file.write_text(BENCH)
        with (
            Testbed(load_configuration([file]), runs=directory) as testbed,
            HislipServer(alone, port=0, sockets={"meter": (plain := _free_port())}) as by_itself,
            HislipServer(doors_of(testbed), port=0, sockets={"meter": (shared := _free_port())}) as gateway,
            socket.create_server(("127.0.0.1", 0)) as echo,
        ):
            pipe.send((by_itself.port, plain, gateway.port, shared, echo.getsockname()[1]))
            connection, _ = echo.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def main():
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,))
    server.start()
    hislip, plain, gateway, shared, echo = here.recv()
    manager = pyvisa.ResourceManager("@py")
    ends = {"read_termination": "\n", "write_termination": "\n"}
    resources = {
        "pyvisa-py, plain socket": manager.open_resource(f"TCPIP::127.0.0.1::{plain}::SOCKET", **ends),
        "pyvisa-py, HiSLIP": manager.open_resource(f"TCPIP::127.0.0.1::hislip0,{hislip}::INSTR", **ends),
        "a device of a testbed, plain socket": manager.open_resource(f"TCPIP::127.0.0.1::{shared}::SOCKET", **ends),
        "a device of a testbed, HiSLIP": manager.open_resource(f"TCPIP::127.0.0.1::hislip0,{gateway}::INSTR", **ends),
    }
    bare = socket.create_connection(("127.0.0.1", echo))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask_bare():
        bare.sendall(b"*IDN?\n")
        bare.recv(4096)

    peers = {"bare TCP echo": ask_bare}
    peers |= {name: (lambda resource=resource: resource.query(QUESTION)) for name, resource in resources.items()}
    times = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, ask in peers.items():
            begun = time.perf_counter()
            for _ in range(EACH):
                ask()
            times[name].append((time.perf_counter() - begun) / EACH * 1e6)
    floor = statistics.median(times["bare TCP echo"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"{name:36} {middle:7.0f} us  {middle / floor:5.1f} x the echo")
    for resource in resources.values():
        resource.close()
    manager.close()
    bare.close()
    server.join(30)


if __name__ == "__main__":
    main()
