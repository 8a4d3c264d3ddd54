"""A live run is refused on a network file system, before anything is written there."""

import os
import shutil
import subprocess
import sys

import pytest

from catkit_devices.datalog.filesystem import mount_of

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local ext4 rw 0 0
//nas/lab\\040data /mnt/lab\\040data cifs rw 0 0
tmpfs /mnt/over tmpfs rw 0 0
server:/over /mnt/over nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        ("/data/runs", "/", "ext4"),
        ("/home/anna/runs", "/home", "nfs4"),
        ("/homes/anna", "/", "ext4"),
        ("/home/local/runs", "/home/local", "ext4"),
        ("/mnt/lab data/runs", "/mnt/lab data", "cifs"),
        ("/mnt/over/runs", "/mnt/over", "nfs"),
        ("/home/local/../anna", "/home", "nfs4"),
    ],
)
def test_the_file_system_of_a_path_is_the_nearest_mount_and_of_several_the_last(path, place, kind):
    mount = mount_of(path, MOUNTS)
    assert (mount.place, mount.kind) == (place, kind)


# A file system of the type of sshfs, as small as one can be: its root is a directory that holds nothing.
PROGRAM = """
import ctypes, errno, os, struct, sys, threading

place = sys.argv[1]
device = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"lab:/data", place.encode(), b"fuse.sshfs", 0, options):
    print("cannot mount", os.strerror(ctypes.get_errno()))
    sys.exit(77)
asked = []

def serve():
    INIT, GETATTR = 26, 3
    while True:
        request = os.read(device, 1 << 17)
        opcode, unique = struct.unpack_from("<IQ", request, 4)
        asked.append(opcode)
        if opcode == INIT:
            body = struct.pack("<IIIIHHIIHHIII7I", 7, 31, 0, 0, 0, 0, 1 << 16, 1, 0, 0, 0, 0, 0, *[0] * 7)[:64]
        elif opcode == GETATTR:
            body = struct.pack("<QII", 0, 0, 0)
            body += struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
        else:
            body = None
        error = -errno.EROFS if body is None else 0
        os.write(device, struct.pack("<IiQ", 16 + len(body or b""), error, unique) + (body or b""))

threading.Thread(target=serve, daemon=True).start()
from catkit_devices.datalog import Run
from catkit_devices.errors import DataError
try:
    Run.create(os.path.join(place, "runs"), "scan")
except DataError as error:
    print("refused:", error)
os._exit(0)
"""


@pytest.mark.skipif(not os.path.exists("/dev/fuse") or os.geteuid() != 0, reason="needs FUSE and root")
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a mount namespace")
def test_a_run_on_a_file_system_that_is_mounted_over_the_network_is_refused(tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    command = ["unshare", "--mount", sys.executable, "-c", PROGRAM, str(place)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode == 77 or "unshare failed" in result.stderr:
        pytest.skip(f"no file system can be mounted here: {result.stdout}{result.stderr}")
    assert result.returncode == 0, result.stderr
    assert "is on a network file system (fuse.sshfs: lab:/data on" in result.stdout
    assert "keep runs on a disk of this machine" in result.stdout
