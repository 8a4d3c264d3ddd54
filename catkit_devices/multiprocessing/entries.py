"""What keeps an object open: every ``with`` block and every ``open()`` of every session.

They are not counted by a number but each has an identity, which its process gives it. So adding one twice, or taking
it away twice, is harmless, in whatever order the threads of a process do so; and whoever was interrupted can say later
which one is not to count.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.errors import OperationCancelled
from catkit_devices.multiprocessing.holds import guard
from catkit_devices.multiprocessing.owner import process_id

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.owner import Call, Session

__all__ = ["Entries", "Entry", "new_entry"]

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
            self._of.setdefault(call.session.id, set()).add(entry)

    def remove(self, session: Session, entry: Entry) -> bool:
        """Take an entry away; return whether it was there."""
        with guard:
            entries = self._of.get(session.id, set())
            if entry not in entries:
                return False
            entries.discard(entry)
            if not entries:
                del self._of[session.id]
            return True

    def newest(self, session: Session, *, block: bool) -> Entry | None:
        """Return the newest block, or ``open()``, that this process has counted for a session; None without one."""
        here = process_id()
        with guard:
            entries = [one for one in self._of.get(session.id, ()) if one.process == here and one.block == block]
        return max(entries, default=None)

    def end_session(self, session: Session) -> bool:
        """Take away all that a session has; return whether it had any."""
        with guard:
            return self._of.pop(session.id, None) is not None

    def clear(self) -> None:
        """Take away all."""
        with guard:
            self._of.clear()
