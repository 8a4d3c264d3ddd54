"""What keeps an object open: every ``with`` block and every ``open()`` of every session.

They are not counted by a number but each has an identity, which its process gives it. So adding one twice, or taking
it away twice, is harmless, in whatever order the threads of a process do so; and whoever was interrupted can say later
which one is not to count.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.errors import OperationCancelled
from catkit_devices.multiprocessing.locks.lock import guard
from catkit_devices.multiprocessing.locks.owner import current_call, process_id

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.owner import Call, OwnerKey, Session

__all__ = ["Entries", "Entry", "OwnEntries", "new_entry"]

_numbers = itertools.count(1)


class Entry(NamedTuple):
    """One block, or one ``open()``."""

    process: str
    """Id of the process that gave it its number."""
    number: int
    block: bool
    """Whether it is a ``with`` block, which nothing but its own end takes away."""


def new_entry(*, block: bool) -> Entry:
    """Return an entry that is not yet counted."""
    return Entry(process_id(), next(_numbers), block)


class Entries:
    """The entries of each session. What ended, or was given up, is never counted again."""

    def __init__(self) -> None:
        self._of: dict[str, set[Entry]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, call: Call, entry: Entry) -> None:
        """Count an entry for the session of a call.

        Raises:
            BaseException: why the call was cancelled, if it was; then nothing is counted.
        """
        with guard:
            call.check()
            if call.session.ended:
                raise OperationCancelled("the calling process has ended")
            self._of.setdefault(call.session.carrier.id, set()).add(entry)

    def remove(self, session: Session, entry: Entry) -> bool:
        """Take an entry away; return whether it was there."""
        with guard:
            entries = self._of.get(session.carrier.id, set())
            if entry not in entries:
                return False
            entries.discard(entry)
            if not entries:
                del self._of[session.carrier.id]
            return True

    def end_session(self, session: Session) -> bool:
        """Take away all that a session has; return whether it had any."""
        with guard:
            return self._of.pop(session.id, None) is not None

    def clear(self) -> None:
        """Take away all."""
        with guard:
            self._of.clear()


class Entered(NamedTuple):
    """One entry, who made it, and in which session."""

    entry: Entry
    owner: OwnerKey
    session: object


class OwnEntries:
    """What was entered over one object of this process, and is not left yet, counted or not.

    Whoever leaves ends what they have entered themselves, also where that counts no more (somebody has closed by
    force, or the server has ended): else they would end what another one has entered since.
    """

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Entered] = []

    def add(self, entry: Entry, session: object = None) -> None:
        """Note what is entered, by the owner that asks."""
        self._all.append(Entered(entry, current_call().owner.key, session))

    def newest(self, *, block: bool, session: object = None) -> Entered | None:
        """Return what is to be left next: the newest of the owner that asks, else the newest of all; None without.

        Args:
            block: whether it is a ``with`` block.
            session: only of this one, where it is given.
        """
        here, mine = process_id(), current_call().owner.key
        found = [one for one in self._all if one.entry.block == block and one.entry.process == here]
        if session is not None:
            found = [one for one in found if one.session is session]
        own = [one for one in found if one.owner == mine]
        return next(reversed(own or found), None)

    def discard(self, entry: Entry) -> None:
        """Note that it was left; harmless to repeat."""
        for one in [one for one in self._all if one.entry == entry]:
            with contextlib.suppress(ValueError):  # another thread is quicker
                self._all.remove(one)
