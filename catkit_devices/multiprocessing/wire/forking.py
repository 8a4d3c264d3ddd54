"""What a forked child must not keep of its parent: its connections, and locks that some thread of the parent has.

A fork copies every descriptor, and one thread. A copy of a connection keeps it open after its owner's death, so that
nobody notices that; a lock, or an import, that another thread was in the middle of is never finished in the child.
"""

from __future__ import annotations

import _imp
import array
import contextlib
import importlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from catkit_devices.lazy import imported

if TYPE_CHECKING:
    from multiprocessing.connection import Listener

__all__ = ["accept", "making", "private", "receive_descriptors", "renewed", "socket_of"]

_L = TypeVar("_L", bound=Any)

_IMPORTS = 5.0
"""Seconds that a fork waits at most for what other threads import: one of them might wait for the thread that forks."""

making = threading.RLock()
"""Held while a descriptor is made and called ``private``, and by every fork: so that none falls between."""

_private: dict[int, tuple[int, int]] = {}
"""What each descriptor was open on (device and inode); one that was closed since, or is another's by now, is not."""

_given_up: set[tuple[str, int]] = set()
"""Imports that a fork has waited for in vain: module and thread."""

_before_logging = True
"""Whether the hook of ``logging``, which takes a lock that most modules need when they are imported, runs before ours:
such an import would be waited for in vain."""


def private(descriptor: int) -> int:
    """Have no child that is forked from now on keep a descriptor; return it."""
    status = os.fstat(descriptor)
    _private[descriptor] = status.st_dev, status.st_ino
    if _before_logging and imported("logging") is not None:
        _register()
    return descriptor


def renewed(lock: _L) -> _L:
    """Have a lock be free in every forked child, whichever thread of the parent has it; return it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # noqa: SLF001 - as threading does with its own
    return lock


def socket_of(listener: Any) -> socket.socket:
    """Return the socket on which a listener of the standard library listens."""
    sock: socket.socket = listener._listener._socket  # noqa: SLF001 - the library hands it out nowhere
    return sock


def accept(listener: Listener) -> Any:
    """Return the next connection of a listener, private; for one thread at a time.

    Raises:
        OSError: as ``Listener.accept``.
    """
    sock = socket_of(listener)
    if not hasattr(os, "register_at_fork"):
        return listener.accept()
    import select

    poller = select.poll()
    poller.register(sock, select.POLLIN)
    sock.setblocking(False)  # it may be gone between the two: a fork must not wait for the next one
    while True:
        poller.poll()
        with making, contextlib.suppress(BlockingIOError):
            connection = listener.accept()
            private(connection.fileno())
            return connection


def receive_descriptors(sock: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """Return one byte and the descriptors that come with it, private and closed in programs that this process starts.

    Raises:
        OSError: nothing came in the time that the socket may take for a read.
    """
    sock.recv(1, socket.MSG_PEEK)  # waits, and a fork must not wait for that
    descriptors = array.array("i")
    with making:
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        data, messages, _, _ = sock.recvmsg(1, socket.CMSG_LEN(most * descriptors.itemsize), flags)
        for level, kind, passed in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(passed[: len(passed) - len(passed) % descriptors.itemsize])
        return data, [private(descriptor) for descriptor in descriptors]


def _before_fork() -> None:
    """Keep descriptors from being made and modules from being imported until the fork is done."""
    deadline = time.monotonic() + _IMPORTS
    while True:
        making.acquire()
        _imp.acquire_lock()  # without it no import begins
        others = _imports_of_others() - _given_up
        if not others or (_before_logging and imported("logging") is not None):
            return
        if time.monotonic() > deadline:
            _given_up.update(others)
            return
        _imp.release_lock()
        making.release()
        time.sleep(0.001)


def _imports_of_others() -> set[tuple[str, int]]:
    """Return the modules that other threads are in the middle of importing, and these threads."""
    me = threading.get_ident()
    locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})  # noqa: SLF001 - nothing public tells
    held = [(name, lock.owner) for name, reference in locks.items() if (lock := reference()) is not None]
    return {(name, owner) for name, owner in held if owner not in (None, me)}


def _after_fork() -> None:
    _imp.release_lock()
    making.release()


def _in_child() -> None:
    # Before anything else is opened: what is closed here may be closed once more by the object that had it.
    for descriptor, identity in _private.items():
        with contextlib.suppress(OSError):  # closed since
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) == identity:
                _put_nothing(descriptor)
    _private.clear()
    _after_fork()


def _put_nothing(descriptor: int) -> None:
    """Close a descriptor, and keep its number in use for whichever object of the child will close it again."""
    os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _register() -> None:
    """Have the hooks run at every fork; once more, and before those of others, where they do already."""
    global _before_logging  # noqa: PLW0603 - hooks are the process's, and stay for its life
    _before_logging = imported("logging") is None
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


_register()
