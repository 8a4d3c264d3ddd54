"""What holds between computers, shown over TCP on one."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from instruments import Instrument

from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager

pytestmark = pytest.mark.usefixtures("ready_children")

KEY = b"a key of the lab"


def connect(address):
    manager = SharedMemoryManager("far", address=address, authkey=KEY)
    manager.connect()
    return manager


@pytest.fixture
def far(runtime):
    with SharedMemoryManager("far", address=("127.0.0.1", 0), authkey=KEY) as manager:
        yield manager


@pytest.fixture
def instrument(far):
    return far.get_object("instrument", Instrument, "instrument", open_on_use=True)


def switch_on_and_hold(address):
    manager = connect(address)
    instrument = manager.get_object("instrument")
    with instrument.lock():
        instrument.on = True
        manager.get_queue("at").put("in")
        time.sleep(60)


def test_a_killed_holder_is_made_safe_and_the_next_one_gets_in(far, instrument):
    for count in range(1, 6):
        process = Process(target=switch_on_and_hold, args=(far.address,))
        process.start()
        assert far.get_queue("at").get(timeout=30) == "in"
        os.kill(process.pid, signal.SIGKILL)
        with instrument.mutex:
            assert instrument.record["safe"] == count
            assert not instrument.on
        with pytest.raises(ProcessDiedError, match="SIGKILL"):
            process.join(10)


def echo_frames(address, count):
    instrument = connect(address).get_object("instrument")
    frames = [np.full((300, 200), number, dtype=np.float64) for number in range(count)]
    return all((instrument.echo(frame) == frame).all() for frame in frames)


def test_large_arrays_arrive_without_shared_memory(far, instrument):
    process = Process(target=echo_frames, args=(far.address, 20))
    process.start()
    assert process.result is True


def keepalive_timers(port):
    """Return for every established connection to or from a port whether the kernel asks its other end for life."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    hexadecimal = f"{port:04X}"
    return [
        line[5].startswith("02")  # the timer that runs: 2 is keepalive (proc_net_tcp.rst of the Linux kernel)
        for line in lines
        if line[3] == "01" and hexadecimal in (line[1].partition(":")[2], line[2].partition(":")[2])
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's list of connections")
def test_the_kernel_watches_both_ends_of_every_connection(far, instrument, until):
    """So a computer that vanishes, without a word, ends its sessions within seconds."""
    client = connect(far.address)
    client.get_object("instrument").null()
    timers = until(lambda: all(found := keepalive_timers(far.address[1])) and found)
    assert len(timers) >= 4  # two ends of a lifeline and of a line of calls


VANISH = """
import fcntl, os, socket, struct, sys, threading, time
from pathlib import Path
from catkit_devices.device import Device
from catkit_devices.multiprocessing import Process, SharedMemoryManager

def loopback(up):
    with socket.socket() as sock:  # netdevice(7): SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        name = b"lo".ljust(16, bytes(1))
        flags = struct.unpack_from("h", fcntl.ioctl(sock, 0x8913, name + bytes(16)), 16)[0]
        fcntl.ioctl(sock, 0x8914, name + struct.pack("h", flags | 1 if up else flags & ~1) + bytes(14))

class Lamp(Device):
    def _open(self):
        return object()
    def _make_safe(self):
        Path("safe").write_text(str(time.monotonic()))
    def switch_on(self):
        Path("on").write_text("")

def hold(address):
    manager = SharedMemoryManager("far", address=address, authkey=b"key")
    manager.connect()
    lamp = manager.get_object("lamp", Lamp, "lamp", open_on_use=True)
    with lamp.lock():
        lamp.switch_on()
        if sys.argv[1] == "waiting":  # its server goes on telling it so
            threading.Thread(target=lamp.switch_on).start()
        time.sleep(60)

loopback(True)
manager = SharedMemoryManager("far", address=("127.0.0.1", 0), authkey=b"key")
manager.start()
process = Process(target=hold, args=(manager.address,), daemon=True)
process.start()
while not Path("on").exists():
    time.sleep(0.01)
time.sleep(0.5)
loopback(False)  # from here on each is gone for the other
gone = time.monotonic()
while not Path("safe").exists():
    if time.monotonic() > gone + 30:
        sys.exit("the server has not noticed in 30 s")
    time.sleep(0.01)
print(time.monotonic() - gone)
sys.stdout.flush()
process.kill()
manager._process.kill()
os._exit(0)  # not without trying to take leave of a server that is gone
"""


@pytest.mark.skipif(sys.platform != "linux", reason="takes a network of its own down")
@pytest.mark.parametrize("client", ["idle", "waiting"])
def test_devices_held_by_a_computer_that_has_vanished_are_made_safe_within_seconds(tmp_path, client):
    """Keepalive notices that the other computer does not answer, but not while unacknowledged data is on its way."""
    script = tmp_path / "vanish.py"
    script.write_text(textwrap.dedent(VANISH))
    apart = [shutil.which("unshare"), "--user", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], check=False).returncode != 0:
        pytest.skip("this system does not let users make a network namespace")
    found = subprocess.run(
        [*apart, sys.executable, str(script), client],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 15.0  # 6 s where the machine has nothing else to do
