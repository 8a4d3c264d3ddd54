"""One program per instrument on this machine: a file lock on its address, which says who has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceBusyError

if TYPE_CHECKING:
    import filelock

__all__ = ["Ownership"]


class Ownership:
    """The claim of this process to one address.

    It ends with :meth:`release` or with the process, however that ends: the operating system holds the lock. It keeps
    out the programs of the same user on the same host that use this framework; VISA itself offers no lock that works
    on every interface.

    Args:
        address: as ``normalise`` of ``address`` returns it.

    Attributes:
        inherited: whether the last owner died without giving it back: the instrument may still send an answer to its
            last command.

    Raises:
        DeviceBusyError: another process has it; says which.
        RuntimeDirectoryError: nothing can be written there.
    """

    def __init__(self, address: str) -> None:
        import filelock

        from catkit_devices.multiprocessing.wire.endpoint import runtime_directory, writing_in

        directory = runtime_directory() / "instruments"
        with writing_in(directory):
            directory.mkdir(mode=0o700, exist_ok=True)
        # Readable for people who list the directory, and unique: two addresses may differ only by a character that is
        # left out here.
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", address)[:80]
        name = f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
        self._facts = directory / f"{name}.owner"
        # Not per thread: another thread than the one that opened a device may close it.
        self._lock: filelock.BaseFileLock = filelock.FileLock(directory / f"{name}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise DeviceBusyError(f"{address} is in use by {_describe(self._facts)}") from None
        self.inherited = self._facts.exists()
        try:
            with writing_in(directory):
                self._facts.write_text(json.dumps(_self()), encoding="utf-8")
        except OSError:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the address back."""
        with contextlib.suppress(OSError):
            self._facts.unlink(missing_ok=True)
        self._lock.release()


def _self() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "program": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python",
        "server": os.environ.get("CATKIT_DEVICES_SERVER", ""),
    }


def _describe(file: Path) -> str:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        server = f", server {facts['server']!r}" if facts["server"] else ""
        return f"{facts['program']} (pid {facts['pid']}{server})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
