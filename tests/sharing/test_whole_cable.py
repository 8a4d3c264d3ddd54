"""Two hosts with a cable between them that is really cut: two network namespaces, and a pair of virtual interfaces."""

import shutil
import subprocess
import sys
import textwrap

import pytest

HOSTS = """
import os, queue, subprocess, sys, tempfile, threading, time

A, B = "10.77.0.1", "10.77.0.2"
NOBODY = "02:00:00:00:00:99"  # a frame to this address is taken by nobody

def sh(*command):
    subprocess.run(command, check=True)

def python(*prefix_and_program):
    environment = {**os.environ, "CATKIT_DEVICES_RUNTIME": tempfile.mkdtemp(dir=".")}
    process = subprocess.Popen(prefix_and_program, stdout=subprocess.PIPE, text=True, env=environment)
    lines = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line.split()) for line in process.stdout], daemon=True).start()
    return process, lines

def wait_for(lines, word, seconds=100):
    end = time.monotonic() + seconds
    while True:
        try:
            found = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            sys.exit(f"not told within {seconds} s: {word}")
        if found[0] == word:
            return float(found[1]), found[2:]

other = subprocess.Popen(["unshare", "--net", "sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while os.readlink(f"/proc/{other.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    time.sleep(0.01)
on_b = ("nsenter", "--target", str(other.pid), "--net")
sh("ip", "link", "add", "name", "to_b", "type", "veth", "peer", "name", "to_a")
sh("ip", "link", "set", "to_a", "netns", str(other.pid))
for prefix, name, address in (((), "to_b", A), (on_b, "to_a", B)):
    sh(*prefix, "ip", "address", "add", f"{address}/24", "dev", name)
    sh(*prefix, "ip", "link", "set", "lo", "up")
    sh(*prefix, "ip", "link", "set", name, "up")

CUTS = {
    "cable": ((*on_b, "ip", "link", "set", "to_a", "down"), (*on_b, "ip", "link", "set", "to_a", "up")),
    "A to B": (("ip", "neigh", "replace", B, "lladdr", NOBODY, "dev", "to_b", "nud", "permanent"),
               ("ip", "neigh", "del", B, "dev", "to_b")),
    "B to A": ((*on_b, "ip", "neigh", "replace", A, "lladdr", NOBODY, "dev", "to_a", "nud", "permanent"),
               (*on_b, "ip", "neigh", "del", A, "dev", "to_a")),
}
server = client = other
try:
    server, at_server = python(sys.executable, "-u", "on_a.py")
    wait_for(at_server, "ready")
    client, at_client = python(*on_b, sys.executable, "-u", "on_b.py")
    for name, (cut, mend) in CUTS.items():
        wait_for(at_client, "holds")
        wait_for(at_server, "on")
        began = time.monotonic()
        sh(*cut)
        safe = wait_for(at_server, "safe")[0] - began
        failed, error = wait_for(at_client, "failed")
        sh(*mend)
        print(f"{name}: safe after {safe:.1f} s, error after {failed - began:.1f} s: {' '.join(error)}", flush=True)
    wait_for(at_client, "holds")  # the same two processes go on
finally:
    for process in (client, server, other):
        process.kill()
"""

ON_A = """
import time
from catkit_devices.device import Device
from catkit_devices.multiprocessing import SharedMemoryManager

class Lamp(Device):
    def _open(self):
        return object()
    def _make_safe(self):
        print("safe", time.monotonic(), flush=True)
    def switch_on(self):
        print("on", time.monotonic(), flush=True)
    def echo(self, number):
        return number

with SharedMemoryManager("far", address=("10.77.0.1", 50123), authkey=b"key of the lab") as manager:
    manager.get_object("lamp", Lamp, "lamp", open_on_use=True)
    print("ready", time.monotonic(), flush=True)
    manager.get_event("end").wait()
"""

ON_B = """
import time
from catkit_devices.errors import CatkitDevicesError
from catkit_devices.multiprocessing import SharedMemoryManager

manager = SharedMemoryManager("far", address=("10.77.0.1", 50123), authkey=b"key of the lab")
manager.connect()
lamp = manager.get_object("lamp")
number = 0
while True:
    held = False
    try:
        with lamp.lock():
            lamp.switch_on()
            held = True
            print("holds", time.monotonic(), flush=True)
            while True:
                number += 1
                if lamp.echo(number) != number:
                    raise SystemExit("a wrong value")
                time.sleep(0.1)
    except CatkitDevicesError as error:
        if held:
            print("failed", time.monotonic(), type(error).__name__, error, flush=True)
        time.sleep(0.2)
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("ip") is None, reason="needs Linux, and its command ip")
def test_a_cable_that_is_cut_frees_the_device_safely_and_when_it_is_mended_both_sides_go_on(tmp_path):
    """Cut as a whole, and in each direction alone; the client holds the device and uses it."""
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], check=False).returncode != 0:
        pytest.skip("this system does not let users make a network namespace")
    for name, text in (("hosts.py", HOSTS), ("on_a.py", ON_A), ("on_b.py", ON_B)):
        (tmp_path / name).write_text(textwrap.dedent(text))
    found = subprocess.run(
        [*apart, sys.executable, "hosts.py"], cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    told = found.stdout.splitlines()
    print(*told, sep="\n")
    assert len(told) == 3
    for line in told:
        assert float(line.partition("safe after ")[2].split()[0]) < 30.0, line  # 4 to 7 s on a quiet computer
        assert "MutexBrokenError 'lamp' was taken from this owner: server 'far'" in line, line
