"""One question and its answer by HiSLIP, beside a bare TCP echo and beside pyvisa-py's own plain socket, as ratios.

``python benchmarks/gateway.py``. The servers run in a process of their own; the rounds of the peers are interleaved.
"""

import multiprocessing
import socket
import statistics
import time

import pyvisa

from catkit_devices.gateway import HislipServer, SimulatedInstrument
from catkit_devices.simulation import Instrument, build_library

ADDRESS = "TCPIP0::10.0.0.9::inst0::INSTR"
QUESTION = "*IDN?"
ROUNDS, EACH = 30, 50


def serve(pipe):
    """Serve a simulated multimeter over HiSLIP and on a plain socket, and an echo, until the pipe is closed."""
    library = build_library([Instrument(ADDRESS, "keysight_34461a")])
    with socket.create_server(("127.0.0.1", 0)) as free:
        plain = free.getsockname()[1]
    door = SimulatedInstrument(library.resource(ADDRESS))
    made = HislipServer({"meter": door}, port=0, sockets={"meter": plain})
    with made as server, socket.create_server(("127.0.0.1", 0)) as echo:
        pipe.send((server.port, plain, echo.getsockname()[1]))
        connection, _ = echo.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def main():
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    hislip, plain, echo = here.recv()
    manager = pyvisa.ResourceManager("@py")
    by_hislip = manager.open_resource(f"TCPIP::127.0.0.1::hislip0,{hislip}::INSTR", read_termination="\n")
    by_socket = manager.open_resource(
        f"TCPIP::127.0.0.1::{plain}::SOCKET", read_termination="\n", write_termination="\n"
    )
    bare = socket.create_connection(("127.0.0.1", echo))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask_bare():
        bare.sendall(b"*IDN?\n")
        bare.recv(4096)

    peers = {
        "bare TCP echo": ask_bare,
        "pyvisa-py, plain socket": lambda: by_socket.query(QUESTION),
        "pyvisa-py, HiSLIP": lambda: by_hislip.query(QUESTION),
    }
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
        print(f"{name:26} {middle:7.0f} us  {middle / floor:5.1f} x the echo")
    by_hislip.close()
    by_socket.close()
    manager.close()
    bare.close()
    server.join(10)


if __name__ == "__main__":
    main()
