"""What a forked child must not inherit from its parent: its connections, and locks that a thread of the parent holds.

A fork copies every descriptor, but only one thread. A copied connection stays open when its owner dies, so that the
death is not noticed. A lock that another thread holds at the fork is never released in the child, and an import that
another thread is doing is never finished there.
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
"""Seconds that a fork waits at most for imports of other threads: one of them might wait for the thread that forks."""

making = threading.RLock()
"""Held while a descriptor is made and registered by ``private``, and during every fork, so that a fork never happens
between the two."""

_private: dict[int, tuple[int, int]] = {}
"""Device and inode on which each private descriptor was open. If they differ now, the number is in use for another file
and not private any more."""

_given_up: set[tuple[str, int]] = set()
"""Imports (module and thread) for which a fork has waited without success."""

_before_logging = True
"""Whether the fork hook of ``logging`` runs before ours. It holds a lock that most modules need during their import, so
an import of another thread could not be finished while ours waits for it."""


def private(descriptor: int) -> int:
    """Make sure that children that are forked from now on do not keep this descriptor; return it."""
    status = os.fstat(descriptor)
    _private[descriptor] = status.st_dev, status.st_ino
    if _before_logging and imported("logging") is not None:
        _register()
    return descriptor


def renewed(lock: _L) -> _L:
    """Make sure that a lock is free in every forked child, even if a thread of the parent holds it; return it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # noqa: SLF001 - as threading does with its own
    return lock


def socket_of(listener: Any) -> socket.socket:
    """Return the socket on which a listener of the standard library listens."""
    sock: socket.socket = listener._listener._socket  # noqa: SLF001 - there is no public way to it
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
    sock.setblocking(False)  # the client may disconnect before accept(): a fork must not wait for the next client
    while True:
        poller.poll()
        with making, contextlib.suppress(BlockingIOError):
            connection = listener.accept()
            private(connection.fileno())
            return connection


def receive_descriptors(sock: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """Return one byte and the descriptors that come with it; child processes do not inherit them.

    Raises:
        OSError: nothing came within the socket's timeout.
    """
    sock.recv(1, socket.MSG_PEEK)  # waits here, because a fork must not wait during the next lines
    descriptors = array.array("i")
    with making:
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        data, messages, _, _ = sock.recvmsg(1, socket.CMSG_LEN(most * descriptors.itemsize), flags)
        for level, kind, passed in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(passed[: len(passed) - len(passed) % descriptors.itemsize])
        return data, [private(descriptor) for descriptor in descriptors]


def _before_fork() -> None:
    """Wait until no other thread makes a descriptor or imports a module, and let none begin until the fork is done."""
    deadline = time.monotonic() + _IMPORTS
    while True:
        making.acquire()
        _imp.acquire_lock()  # while it is held, no import begins
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
    """Return the modules that other threads are importing now, with these threads."""
    me = threading.get_ident()
    locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})  # noqa: SLF001 - there is no public way
    held = [(name, lock.owner) for name, reference in locks.items() if (lock := reference()) is not None]
    return {(name, owner) for name, owner in held if owner not in (None, me)}


def _after_fork() -> None:
    _imp.release_lock()
    making.release()


def _in_child() -> None:
    # Before anything else is opened: the objects that had these descriptors may close the same numbers once more.
    for descriptor, identity in _private.items():
        with contextlib.suppress(OSError):  # closed since
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) == identity:
                _put_nothing(descriptor)
    _private.clear()
    _after_fork()


def _put_nothing(descriptor: int) -> None:
    """Replace a descriptor by one on /dev/null: an object in the child may close its number again later."""
    os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _register() -> None:
    """Register the hooks for every fork; a second time, if needed, so that they run before those of ``logging``."""
    global _before_logging  # noqa: PLW0603 - hooks belong to the process, and cannot be removed
    _before_logging = imported("logging") is None
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


_register()
