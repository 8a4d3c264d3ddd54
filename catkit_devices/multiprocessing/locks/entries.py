"""What keeps an object open: every ``with`` block and every ``open()`` of every session, each an *entry*.

Entries are not only counted: each has an identity, which its process gives it. So it does no harm to add or remove one
twice, in whatever order the threads of a process do so. And after an interrupt, a process can still say which entry
must not count.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.multiprocessing.locks.lock import guard
from catkit_devices.multiprocessing.locks.owner import (
    current_call,
    forwarded_call,
    local_session,
    own_session,
    process_id,
)

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.owner import Call, OwnerKey, Session

__all__ = ["Entries", "OpenEntry", "OwnEntries", "new_entry", "opener"]

_numbers = itertools.count(1)


class OpenEntry(NamedTuple):
    """One block, or one ``open()``."""

    process: str
    """Id of the process that gave it its number."""
    number: int
    block: bool
    """Whether it is a ``with`` block, which only its own end removes."""


def new_entry(*, block: bool) -> OpenEntry:
    """Return an entry that is not yet counted."""
    return OpenEntry(process_id(), next(_numbers), block)


class Entries:
    """The entries of all sessions. An entry that has ended, or was abandoned, never counts again."""

    def __init__(self) -> None:
        self._sessions: dict[OpenEntry, str] = {}
        """The id of the session of each."""

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def add(self, call: Call, entry: OpenEntry) -> None:
        """Count an entry for the session of a call.

        If the call is part of an operation of the process that has sent it, the entry is that process's own: it does
        not end with the session for which the operation is done.

        Raises:
            BaseException: the reason, if the call was cancelled; then nothing is counted.
        """
        with guard:
            call.check()
            call.session.require_open()
            session = call.session.carrier if call.nested else call.session
            self._sessions[entry] = session.id

    def remove(self, entry: OpenEntry) -> bool:
        """Remove an entry; return whether it was there."""
        with guard:
            return self._sessions.pop(entry, None) is not None

    def end_session(self, session: Session) -> bool:
        """Remove all entries of a session; return whether it had any."""
        with guard:
            ended = [entry for entry, identity in self._sessions.items() if identity == session.id]
            for entry in ended:
                del self._sessions[entry]
            return bool(ended)

    def clear(self) -> None:
        """Remove all entries."""
        with guard:
            self._sessions.clear()


def opener() -> str:
    """Return the id of the session of this process that keeps open what this code opens on a server.

    A part of an operation opens it for the process, no matter who asked for the operation.
    """
    return (local_session() if forwarded_call() is None else own_session()).id


class Entered(NamedTuple):
    """One entry, with its owner and its session."""

    entry: OpenEntry
    owner: OwnerKey
    session: object
    opener: str


class OwnEntries:
    """The entries that were made through one object of this process and are not left yet.

    An owner that leaves ends its own entry, even if this entry does not count any more because the object was closed by
    force or the server has ended. Otherwise it would end an entry that another owner has made since.
    """

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Entered] = []

    def add(self, entry: OpenEntry, session: object = None) -> None:
        """Record an entry of the current owner."""
        self._all.append(Entered(entry, current_call().owner.key, session, opener()))

    def newest(self, *, block: bool, session: object = None) -> Entered | None:
        """Return the entry to leave next: the current owner's newest, else the newest of all; None if there is none.

        Args:
            block: whether it is a ``with`` block.
            session: if given, only entries of this session count.
        """
        here, mine = process_id(), current_call().owner.key
        found = [one for one in self._all if one.entry.block == block and one.entry.process == here]
        opened = opener()
        found = [one for one in found if one.opener == opened]
        if session is not None:
            found = [one for one in found if one.session is session]
        own = [one for one in found if one.owner == mine]
        return next(reversed(own or found), None)

    def discard(self, entry: OpenEntry) -> None:
        """Record that an entry was left; may be repeated."""
        for one in [one for one in self._all if one.entry == entry]:
            with contextlib.suppress(ValueError):  # another thread is quicker
                self._all.remove(one)
