"""Where a run may be recorded: on a disk of this machine.

The processes that use SQLite's write-ahead log share memory and file locks, which work on one machine only. On a
network file system a run would seem to work and lose records, so it is refused there before anything is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from catkit_devices.errors import DataError

__all__ = ["Mount", "mount_of", "refuse_network"]

# 9p and virtiofs are missing on purpose: a virtual machine or a container often has no other disk, and all processes of
# a run are inside of that one machine.
_NETWORK = frozenset({
    "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs",
    "fuse.ceph", "fuse.curlftpfs", "fuse.davfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.moosefs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs",
})  # fmt: skip
_MOUNTS = Path("/proc/self/mounts")
"""Where Linux lists what is mounted (proc(5))."""


class Mount(NamedTuple):
    """A mounted file system: what is mounted, where, and of which type."""

    source: str
    place: str
    kind: str


def mount_of(path: Path, mounts: str) -> Mount | None:
    """Return the file system that a path lies on, whether or not the path exists yet.

    Args:
        path: the path.
        mounts: what is mounted, in the form of ``/proc/mounts``.
    """
    wanted = Path(os.path.realpath(path))
    found: Mount | None = None
    for line in mounts.splitlines():
        fields = [_unescaped(field) for field in line.split(" ")]
        if len(fields) < 3:
            continue
        mount = Mount(*fields[:3])
        # Where two are mounted in one place, the later one hides the earlier one.
        if wanted.is_relative_to(mount.place) and (found is None or len(mount.place) >= len(found.place)):
            found = mount
    return found


def refuse_network(path: Path) -> None:
    """Make sure that a run can be recorded at ``path``, which need not exist yet.

    Does nothing if the system does not tell what is mounted (Windows, macOS).

    Raises:
        DataError: it lies on a network file system; the text says which.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    mount = mount_of(path, mounts)
    if mount is not None and mount.kind in _NETWORK:
        raise DataError(
            f"{path} is on a network file system ({mount.kind}: {mount.source} on {mount.place}), where records of a "
            f"run could be lost: keep runs on a disk of this machine and copy them when they have ended"
        )


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
