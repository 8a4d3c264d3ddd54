"""Memory that several processes of a computer map: without a name where there is such memory, else with one.

Memory without a name (``memfd_create``, Linux) is found by its descriptor, which the server sends over its Unix socket;
it ends with its last user. Memory with a name is what macOS and Windows have, and what a server on Linux uses that is
reached over TCP. Its server removes it at its end. If the server is killed, the resource tracker of Python does that
when the program that started the server ends (on Windows the system, with the last user). Who maps it never removes it.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import Protocol

__all__ = ["AnonymousMemory", "NamedMemory", "SharedMemory", "map_named"]


class SharedMemory(Protocol):
    """Memory that a server has made for others."""

    size: int

    def write(self, data: bytes, offset: int) -> None:
        """Write into it."""

    def close(self) -> None:
        """Let it go: who has mapped it keeps it."""


class AnonymousMemory:
    """Memory without a name.

    Args:
        label: shown by the system for its descriptors.
        size: in bytes.

    Raises:
        OSError: there is not enough memory.
    """

    def __init__(self, label: str, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create(label, os.MFD_CLOEXEC)
        try:
            # Allocated now, so that a lack of memory is an error here and not a bus error later.
            os.posix_fallocate(self.descriptor, 0, size)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes, offset: int) -> None:
        """Write into it."""
        os.pwrite(self.descriptor, data, offset)

    def close(self) -> None:
        """Let it go: who has mapped it keeps it."""
        os.close(self.descriptor)


class NamedMemory:
    """Memory with a name.

    Args:
        size: in bytes.

    Raises:
        OSError: there is not enough memory.
    """

    def __init__(self, size: int) -> None:
        from multiprocessing import shared_memory

        self.size = size
        self._memory = shared_memory.SharedMemory(create=True, size=size)
        self.name = self._memory.name
        if hasattr(os, "posix_fallocate"):
            descriptor = _opened(self.name)
            try:
                os.posix_fallocate(descriptor, 0, size)  # as above
            except BaseException:
                self.close()
                raise
            finally:
                os.close(descriptor)

    def write(self, data: bytes, offset: int) -> None:
        """Write into it."""
        buffer = self._memory.buf
        if buffer is not None:  # it is None once the memory is closed
            buffer[offset : offset + len(data)] = data

    def close(self) -> None:
        """Let it go, and its name: who has mapped it keeps it."""
        self._memory.close()
        self._memory.unlink()


def map_named(name: str, size: int) -> mmap.mmap:
    """Map memory with a name.

    Args:
        name: of the memory.
        size: in bytes.

    Raises:
        FileNotFoundError: there is none of that name. On Windows there is then empty memory of that name instead.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=name)
    # Not by SharedMemory(name): before Python 3.13, that removes the memory when this process ends.
    descriptor = _opened(name)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _opened(name: str) -> int:
    import _posixshmem  # noqa: PLC2701 - there is no public way but one that removes the memory

    descriptor: int = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
    return descriptor
