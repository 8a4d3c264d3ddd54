"""The page on the architecture names every file that runs when a property of a device of a testbed is set."""

import re
import socketserver
import sys
import threading
from pathlib import Path

import catkit_devices
from catkit_devices import Testbed, load_configuration
from catkit_devices.multiprocessing import SharedMemoryManager

PACKAGE = Path(catkit_devices.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/explanation/architecture.md"

PLUGIN = """
from catkit_devices import Control, VisaDevice, hookimpl


class Wheel(VisaDevice):
    position = Control("pos?", "pos={}", type=int, limits=(1, 6), doc="Filter in the beam.")


@hookimpl
def catkit_devices_drivers():
    return {"wheel": Wheel}
"""

BENCH = """
[testbed]
name = "walk"
plugins = ["plugins"]

[devices.wheel]
driver = "wheel"
address = "TCPIP::127.0.0.1::%d::SOCKET"
"""


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


def test_the_path_of_a_call_names_every_file_that_runs(tmp_path):
    section = PAGE.read_text().partition("## The path of one call")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\S+\.py)` \|", section, re.MULTILINE)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "wheel_plugin.py").write_text(PLUGIN)
    bench = tmp_path / "bench.toml"
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Instrument) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench.write_text(BENCH % server.server_address[1])
        with Testbed(load_configuration([bench])) as testbed:
            wheel = testbed.devices.wheel
            server_of_the_wheel = SharedMemoryManager(testbed.layout.device_servers[0])
            server_of_the_wheel.connect()
            trace = server_of_the_wheel.get_object("trace", Trace)
            wheel.position = 1
            here = Tracer()
            trace.begin()
            sys.setprofile(here)
            try:
                wheel.position = 3
            finally:
                sys.setprofile(None)
            there = trace.end()
        server.shutdown()
    assert sorted(named) == sorted(here.files | there)
    assert len(named) <= 15
