"""Finds deadlocks over several servers: it combines the waits of this process and of all servers.

An owner in a deadlock waits for something, and holds something for which others wait. Most long waits are not like
that, and it takes time to ask every server for its waits. So, at first, only the servers at which the waiting owner is
in a section are asked, with one message, whether anybody waits for this owner. The remaining waits are examined by one
thread of the process, for all of its owners at once.
"""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import AuthenticationError
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from catkit_devices.multiprocessing.locks.lock import end_deadlock, is_waited_for, waits
from catkit_devices.multiprocessing.locks.owner import process_id, process_of
from catkit_devices.multiprocessing.wire.connecting import ask
from catkit_devices.multiprocessing.wire.endpoint import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from catkit_devices.multiprocessing.locks.lock import Section, Wait
    from catkit_devices.multiprocessing.locks.owner import OwnerKey
    from catkit_devices.multiprocessing.wire.endpoint import Address, Endpoint

__all__ = ["LongWait", "find_cycle", "look_for", "own_address"]

_ANYBODY = 5
"""Number of the look from which on any party ends a deadlock; before, only the party that began to wait last does."""
_PAUSE = 0.02
"""Seconds between two collections of all waits: enough for waits that end by themselves to end."""
_TIMEOUT = 1.0
"""Seconds within which a server must send its waits; otherwise they are left out."""

own_address: list[Address] = []
"""If this process is a server itself: its address (at most one entry)."""


class LongWait(NamedTuple):
    """An owner that has been waiting for long, and may be a party of a deadlock."""

    owner: OwnerKey
    sequence: int
    """Number of the wait."""
    attempt: int
    """How many times this wait was examined."""
    server: Address | None
    """The server at which it waits; None if that is this process."""
    waited_for: bool
    """Whether it is known that somebody waits for something that the owner holds."""


class OpenSession(Protocol):
    """What the search needs of a session of this process with a server."""

    @property
    def endpoint(self) -> Endpoint: ...
    def sections_of(self, owner: OwnerKey) -> list[Section]: ...
    def say(self, word: tuple[Any, ...]) -> None: ...


class _Looking:
    """The waits that are to be examined, and whether a thread is doing so; a forked child has its own."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.pending: list[LongWait] = []
        self.running = False


_looking = _Looking()


def _forget_parent() -> None:
    global _looking  # noqa: PLW0603 - the thread that examines waits exists in the parent only
    _looking = _Looking()
    own_address.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def look_for(wait: LongWait, open_sessions: Callable[[], Sequence[OpenSession]]) -> None:
    """Let a thread examine whether a wait is part of a cycle; return at once."""
    with _looking.guard:
        _looking.pending.append(wait)
        if _looking.running:
            return
        _looking.running = True
    try:
        threading.Thread(target=_look, args=(open_sessions,), name="catkit-deadlocks", daemon=True).start()
    except RuntimeError:  # no thread can be started now: the next long wait tries again
        with _looking.guard:
            _looking.running = False


def _look(open_sessions: Callable[[], Sequence[OpenSession]]) -> None:
    looking = _looking
    while True:
        with looking.guard:
            pending, looking.pending = looking.pending, []
            if not pending:
                looking.running = False
                return
        try:
            sessions = open_sessions()
            _search([wait for wait in pending if _may_be_a_party(wait, sessions)], sessions)
        except BaseException:
            with looking.guard:
                looking.running = False  # the next long wait starts another thread
            raise


def _may_be_a_party(wait: LongWait, sessions: Sequence[OpenSession]) -> bool:
    """Whether somebody waits for something that the owner holds.

    If only another server can know it, that server is asked; its answer, if it is yes, comes as a new long wait.
    """
    if wait.waited_for or is_waited_for(wait.owner):
        return True
    if process_of(wait.owner[0]) != process_id():
        return True  # it waits in a nested call of another process: what it holds elsewhere is not known here
    for session in sessions:
        if session.sections_of(wait.owner):
            session.say(("waited for?", *wait))
    return False


def _search(candidates: list[LongWait], open_sessions: Sequence[OpenSession]) -> None:
    """End one wait of each cycle that is the same in two successive collections of all waits."""
    if not candidates:
        return
    sessions = {session.endpoint.address: session for session in open_sessions}
    servers = {server.address: server for server in endpoints()}
    servers |= {address: session.endpoint for address, session in sessions.items()}
    for address in own_address:
        servers.pop(address, None)
    if len(servers) + len(own_address) < 2 and not waits():
        return  # with only one server, that server finds all deadlocks by itself
    edges = _picture(servers.values())
    cycles = {wait: cycle for wait in candidates if (cycle := _due(edges, wait)) is not None}
    if not cycles:
        return
    time.sleep(_PAUSE)
    edges = _picture(servers.values())
    for wait, cycle in cycles.items():
        if _due(edges, wait) == cycle:
            _end(wait, cycle, sessions)


def _picture(servers: Iterable[Endpoint]) -> list[Wait]:
    edges = waits()
    for server in servers:
        try:
            edges += ask(server, "waits", timeout=_TIMEOUT)
        except (ConnectionError, AuthenticationError):  # it has ended meanwhile: it has no waits any more
            continue
    return edges


def _due(edges: list[Wait], wait: LongWait) -> list[Wait] | None:
    """Return the cycle of which a wait is a part, if this process is to end it."""
    cycle = find_cycle(edges, wait.owner, wait.sequence)
    if cycle is None:
        return None
    newest = _newest(cycle)
    if newest.waiter != wait.owner and newest not in waits() and wait.attempt < _ANYBODY:
        return None  # another party began to wait last, and its process ends the deadlock
    return cycle


def _newest(cycle: list[Wait]) -> Wait:
    return max(cycle, key=lambda wait: (wait.since, wait.waiter))


def _end(wait: LongWait, cycle: list[Wait], sessions: dict[Address, OpenSession]) -> None:
    parties = [edge.text for edge in cycle]
    newest = _newest(cycle)
    if newest in waits():
        end_deadlock(newest.waiter, newest.sequence, parties)
    elif wait.server in sessions:
        sessions[wait.server].say(("deadlock", wait.owner, wait.sequence, parties))
    else:
        end_deadlock(wait.owner, wait.sequence, parties)


def find_cycle(edges: Iterable[Wait], start: OwnerKey, sequence: int | None = None) -> list[Wait] | None:
    """Return the edges of the cycle through ``start``, beginning with its own wait, or None.

    Args:
        edges: all waits.
        start: the owner.
        sequence: number of the wait with which the cycle begins; None for any wait of the owner.
    """
    graph: dict[OwnerKey, list[Wait]] = {}
    for edge in edges:
        graph.setdefault(edge.waiter, []).append(edge)
    for first in graph.get(start, ()):
        if sequence is not None and first.sequence != sequence:
            continue
        paths = [[first]]
        seen = {first}
        while paths:
            path = paths.pop()
            last = path[-1]
            if last.holder == start and (last.chains is None or first.chain in last.chains):
                return path
            for edge in graph.get(last.holder, ()):
                if edge not in seen and (last.chains is None or edge.chain in last.chains):
                    seen.add(edge)
                    paths.append([*path, edge])
    return None
