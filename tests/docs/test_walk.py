"""The page on the architecture names every file that runs when a property of a device is set through a proxy."""

import re
import socketserver
import sys
import threading
from pathlib import Path

import catkit_devices
from catkit_devices import Control, VisaDevice
from catkit_devices.multiprocessing import SharedMemoryManager

PACKAGE = Path(catkit_devices.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/explanation/architecture.md"


class Wheel(VisaDevice):
    position = Control("pos?", "pos={}", type=int, limits=(1, 6), doc="Filter in the beam.")


class Instrument(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if line == b"*IDN?\n":
                self.wfile.write(b"wheel\n")


class Tracer:
    def __init__(self):
        self.files = set()

    def __call__(self, frame, event, _argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            self.files.add(str(path.relative_to(PACKAGE)))


class Trace:
    """Traces the thread that serves its client."""

    def begin(self):
        self.tracer = Tracer()
        sys.setprofile(self.tracer)

    def end(self):
        sys.setprofile(None)
        return self.tracer.files


def test_the_path_of_a_call_names_every_file_that_runs():
    section = PAGE.read_text().partition("## The path of one call")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\S+\.py)` \|", section, re.MULTILINE)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Instrument) as server, SharedMemoryManager() as manager:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"TCPIP::127.0.0.1::{server.server_address[1]}::SOCKET"
        wheel = manager.get_object("wheel", Wheel, "wheel", address=address, open_on_use=True)
        trace = manager.get_object("trace", Trace)
        wheel.position = 1
        here = Tracer()
        trace.begin()
        sys.setprofile(here)
        try:
            wheel.position = 3
        finally:
            sys.setprofile(None)
        there = trace.end()
        wheel.close(force=True)
        server.shutdown()
    assert sorted(named) == sorted(here.files | there)
