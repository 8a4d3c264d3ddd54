"""Finds what a test has left behind: held mutexes, processes, threads of this framework, sockets, shared memory.

What exists before a test is compared with what exists after it. What is just ending has a few seconds to do so.
Sockets, shared memory and processes that were not started by :mod:`multiprocessing` are found only if the operating
system shows them as files (Linux) or psutil is installed.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from multiprocessing import process as processes
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.lazy import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

__all__ = ["Leaks"]

_GRACE = 5.0
"""Seconds in which processes, threads and sockets that are just ending may end."""
_PAUSE = 0.01
"""Seconds between two checks what is left."""

_OURS = str(Path(__file__).parents[1]) + os.sep
"""Where the framework's code is: threads that run it are its own."""
_DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux lists the open files of a process (proc(5))."""
_ARRAYS = "/memfd:catkit_devices"
"""What the memory of arrays is called there."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written to
_LASTING_THREADS = ("catkit-lifeline-", "catkit-signals")
"""Threads whose names begin so are no leaks: they run as long as a connected server, or as this process."""
_LASTING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Processes that Python's multiprocessing starts once and keeps until the end: they are no leaks."""


class _Kind(NamedTuple):
    title: str
    find: Callable[[], Mapping[Hashable, str]]


class Leaks:
    """What exists in this process when the object is made, to be compared with a later moment."""

    def __init__(self) -> None:
        self._before = {kind.title: frozenset(kind.find()) for kind in _KINDS}

    def found(self, grace: float | None = None) -> list[str]:
        """Return one line for each object that was not there before and still exists after ``grace`` seconds.

        Args:
            grace: None for a few seconds; 0 checks once.
        """
        deadline = time.monotonic() + (_GRACE if grace is None else grace)
        leaks = self._look()
        if leaks:
            gc.collect()
            leaks = self._look()
        while leaks and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            leaks = self._look()
        return leaks

    def _look(self) -> list[str]:
        return [
            f"{kind.title}: {text}"
            for kind in _KINDS
            for key, text in kind.find().items()
            if key not in self._before[kind.title]
        ]


# --- mutexes


def _held_mutexes() -> dict[Hashable, str]:
    held: dict[Hashable, str] = {}
    locks = imported("catkit_devices.multiprocessing.locks.lock")
    if locks is not None:
        for lock in gc.get_referrers(locks.OwnedLock):
            if isinstance(lock, locks.OwnedLock) and (holder := lock.holder()) is not None:
                held["here", id(lock)] = f"{lock.name!r} is {holder}"
    session = imported("catkit_devices.multiprocessing.client.session")
    if session is not None:
        for client in session.open_sessions():
            for owner, number in set(client.sections.values()):
                name, depth = client.names.get(number, "?"), len(client.sections_of(owner, number))
                text = f"{name!r} of server {client.endpoint.name!r} is held ({depth} deep) by thread {owner[1]}"
                held[client.id, owner, number] = text
    return held


# --- processes


def _children() -> dict[Hashable, str]:
    found: dict[Hashable, str] = {
        child.pid: f"{child.name} (pid {child.pid})"
        for child in processes.active_children()  # this also waits for children that have ended
    }
    try:
        import psutil
    except ImportError:
        return found
    for child in psutil.Process().children():
        try:
            command = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and not any(helper in command for helper in _LASTING):
                found.setdefault(child.pid, f"{command[:100]} (pid {child.pid})")
        except psutil.NoSuchProcess:
            continue
    return found


# --- threads


def _our_threads() -> dict[Hashable, str]:
    frames = sys._current_frames()  # noqa: SLF001 - documented, though its name is private
    me = threading.get_ident()
    return {
        thread.ident: f"{thread.name!r} in {place}"
        for thread in threading.enumerate()
        if thread.ident in frames
        and thread.ident != me
        and not thread.name.startswith(_LASTING_THREADS)
        and (place := _our_code(frames[thread.ident]))
    }


def _our_code(frame: object) -> str | None:
    """Return which function of this framework a thread is in; None if it is in none."""
    while frame is not None:
        code = getattr(frame, "f_code")  # noqa: B009 - frames have no public type
        if code.co_filename.startswith(_OURS):
            return f"{code.co_filename.removeprefix(_OURS)}:{code.co_name}"
        frame = getattr(frame, "f_back")  # noqa: B009 - mypy: not every frame has it
    return None


# --- sockets and shared memory


def _descriptors() -> Iterator[tuple[str, str]]:
    """Return the number of every open descriptor, and the kernel's name for what it is open on."""
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - names only, and often
    except OSError:
        return
    for name in names:
        try:
            yield name, os.readlink(_DESCRIPTORS / name)  # noqa: PTH115 - as it is written there
        except OSError:  # the descriptor of this listing, or one that was closed meanwhile
            continue


def _sockets() -> dict[Hashable, str]:
    ours = _connected()
    return {
        target: f"descriptor {name}"
        for name, target in _descriptors()
        if target.startswith("socket:") and int(name) not in ours
    }


def _connected() -> set[int]:
    """Return the descriptors of connections to servers, which are no leaks: the server is reported, as a process."""
    session = imported("catkit_devices.multiprocessing.client.session")
    if session is None:
        return set()
    found = {client.descriptor for client in session.open_sessions()} - {None}
    return found | {channel.socket.fileno() for channel in _channels()}


def _channels() -> list[Any]:
    module = imported("catkit_devices.multiprocessing.wire.channel")
    if module is None:
        return []
    return [one for one in gc.get_referrers(module.Channel) if isinstance(one, module.Channel)]


def _segments() -> dict[Hashable, str]:
    # A connection keeps its segments for the next arrays.
    kept = _ARRAYS if _channels() else None
    found: dict[Hashable, str] = {
        ("memfd", name): f"{target.removesuffix(' (deleted)')}, descriptor {name}"
        for name, target in _descriptors()
        if target.startswith(_ARRAYS) and target.removesuffix(" (deleted)") != kept
    }
    try:
        entries = list(os.scandir(_SHARED_MEMORY))
    except OSError:
        return found
    for entry in entries:
        # Python's multiprocessing gives these names. Other programs, and other pytest workers, have such segments too.
        if entry.name.startswith("psm_") and _mapped(entry.path):
            found["name", entry.name] = entry.path
    return found


def _mapped(path: str) -> bool:
    """Return whether this process maps the file."""
    return path in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")


_KINDS = (
    _Kind("held mutex", _held_mutexes),
    _Kind("process", _children),
    _Kind("thread", _our_threads),
    _Kind("socket", _sockets),
    _Kind("shared memory", _segments),
)
"""What may be left behind, and how it is found."""
