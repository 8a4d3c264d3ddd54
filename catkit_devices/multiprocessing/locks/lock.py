"""The lock that everything here is built on: fair, reentrant, owned, breakable, and aware of deadlocks.

One guard (a plain lock) protects the state of all locks of a process and its wait graph. So code that handles a death
or a break, or searches for a cycle, sees a consistent state. The guard is held for microseconds and never during a
wait.

Ctrl-C may come while the main thread holds the guard. CPython raises it when a Python function is entered, after a call
of a function that is written in C, and at the end of each round of a loop. So changes that belong together are written
without any of these between them, and a change is the last thing that a function does. A function that is interrupted
checks what was changed, and then undoes or finishes it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from catkit_devices.errors import (
    DeadlockError,
    MutexBrokenError,
    MutexError,
    MutexNotHeldError,
    MutexTimeoutError,
    OperationCancelled,
)
from catkit_devices.multiprocessing.locks.owner import process_id, process_of
from catkit_devices.multiprocessing.wire.forking import renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.locks.owner import Call, Owner, OwnerKey, Session

__all__ = [
    "Hold",
    "Holder",
    "OwnedLock",
    "Section",
    "Wait",
    "Waiter",
    "cancel",
    "end_deadlock",
    "end_session",
    "end_session_here",
    "give_way",
    "giving_way",
    "guard",
    "is_waited_for",
    "new_section",
    "newest",
    "sequence_of",
    "take_back",
    "waits",
]

LONG_WAIT = 0.1
"""Seconds after which a waiter looks for a deadlock that involves other servers; it doubles after each look."""
LONGEST_PAUSE = 5.0
"""Seconds between two such looks, at most."""

guard = renewed(threading.Lock())
_waiting: dict[OwnerKey, tuple[Waiter, ...]] = {}
"""The waits of each owner: several if several threads act for it; used under the guard."""
_sequence = itertools.count(1)
_sections = itertools.count(1)
Section = tuple[str, int, int]
"""Identity of a section: id of the process that has opened it, number of the thread, number in the process."""
_LAST_READ = 1.0
"""Seconds that an operation whose wait was cancelled waits for the shared read inside of it to end: most take less."""

_locks: WeakSet[OwnedLock] = WeakSet()
"""The locks of this process; used under the guard."""


class Holder(NamedTuple):
    """Who holds a lock, or waits for it, as shown to people."""

    owner: str
    """The owner as a text: process, pid, thread, and the host if it is another one."""
    process: str
    pid: int
    thread: str
    host: str
    since: float
    """For how many seconds."""
    depth: int
    site: str | None
    """The file and line that asked for the lock, or the operation that runs."""
    key: OwnerKey
    """Which owner it is: two threads of one process with the same name differ only in this."""

    @classmethod
    def of(cls, owner: Owner, since: float, depth: int, site: str | None, remark: str = "") -> Holder:
        """Describe an owner.

        Args:
            owner: the owner that holds the lock, or waits for it.
            since: when that began, on the monotonic clock.
            depth: number of its sections and operations.
            site: where it asked.
            remark: a text to add to the owner.
        """
        words = f"{owner}{remark}"
        ago = time.monotonic() - since
        return cls(words, owner.process, owner.pid, owner.thread, owner.host, ago, depth, site, owner.key)

    def __str__(self) -> str:
        site = f" at {self.site}" if self.site else ""
        return f"held for {self.since:.1f} s by {self.owner}{site}"


class Wait(NamedTuple):
    """One edge of the wait graph: who waits for what, and who holds that."""

    waiter: OwnerKey
    holder: OwnerKey
    text: str
    sequence: int
    """A new number for each wait of the waiter."""
    since: float
    """Wall-clock time at which the wait began."""
    chain: object
    """The chain of calls that waits."""
    chains: tuple[object, ...] | None
    """The chains of calls of the holder's operations; None if the holder is in a section."""


class Hold:
    """One owner's hold of a lock: its sections, each with its session, and the operations that run under it."""

    __slots__ = ("broken", "calls", "gives_way", "key", "owner", "returning", "sections", "since", "site")

    def __init__(self, key: object, owner: Owner, site: str | None) -> None:
        self.key = key
        self.owner = owner
        self.sections: dict[Section, str] = {}
        """The id of the session of each."""
        self.calls: list[Call] = []
        """The calls of the operations that run; the list is never changed, but replaced by a new one."""
        self.since = time.monotonic()
        self.site = site
        self.broken: str | None = None
        self.gives_way = False
        """Whether its operation waits, so that shared reads may run meanwhile."""
        self.returning: Waiter | None = None
        """Its operation, if its own wait is over and it waits for the shared read inside of it to end."""

    def begin(self, call: Call, section: Section | None) -> None:
        """Add an operation, or a section; the caller holds the guard."""
        if section is None:
            self.calls = [*self.calls, call]
        else:
            self.sections[section] = call.session.id

    def end(self, call: Call) -> None:
        """Remove an operation; the caller holds the guard."""
        calls = list(self.calls)
        calls.remove(call)
        self.calls = calls

    def chains(self) -> tuple[object, ...] | None:
        """Return the chains of calls whose end ends the hold; None if it is a section that the owner must leave."""
        return None if self.sections else tuple(call.chain for call in self.calls)

    def described(self) -> Holder:
        """Return it in the form that is shown to people."""
        remark = ", broken, still in its operation" if self.broken is not None else ""
        return Holder.of(self.owner, self.since, len(self.calls) + len(self.sections), self.site, remark)


def new_section() -> Section:
    """Return the identity of a section that this thread opens."""
    return process_id(), get_ident(), next(_sections)


def newest(sections: list[Section]) -> Section | None:
    """Return the section to close next: the newest one of this thread, else the newest of all; None if there is none.

    Several threads that act for one owner close their own ones so.
    """
    if len(sections) < 2:
        return sections[0] if sections else None
    here = get_ident()
    return next((section for section in reversed(sections) if section[1] == here), sections[-1])


def _close_sections(sections: dict[Section, str], session: Session) -> bool:
    """Close all sections of a session; return whether it had any. The caller holds the guard."""
    ended = [section for section, identity in sections.items() if identity == session.id]
    for section in ended:
        del sections[section]
    return bool(ended)


class Waiter:
    """One call in the queue of a lock: granted, or withdrawn with a failure."""

    __slots__ = (
        "asked",
        "call",
        "failure",
        "granted",
        "hold",
        "key",
        "lock",
        "section",
        "sequence",
        "shared",
        "since",
        "site",
        "wake",
    )

    def __init__(
        self,
        lock: OwnedLock,
        key: object,
        call: Call,
        section: Section | None,
        site: str | None,
        shared: bool = False,
    ) -> None:
        self.lock = lock
        self.key = key
        self.call = call
        self.section = section
        """The section that it asks for; None if it asks to begin an operation."""
        self.shared = shared
        self.site = site
        self.since = time.monotonic()
        self.asked = time.time()
        self.granted = False
        self.hold: Hold | None = None
        """The hold that it was granted; None for an operation that continues because its guest has ended."""
        self.failure: BaseException | None = None
        self.sequence = 0
        self.wake = threading.Lock()
        self.wake.acquire()

    def begin(self) -> None:
        """Add it to the wait graph, now that it is in the queue; the caller holds the guard."""
        self.sequence = next(_sequence)
        owner = self.call.owner.key
        _waiting[owner] = (*_waiting.get(owner, ()), self)
        self.call.waiter = self

    def wait(self, timeout: float) -> None:
        """Wait until it is granted or withdrawn, or ``timeout`` seconds are over; without holding the guard."""
        deadline = time.monotonic() + timeout
        pause = LONG_WAIT
        attempt = 0
        while not self.wake.acquire(timeout=min(pause, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break
            # Repeated, because the state of other servers may have changed since the last look.
            attempt += 1
            if self.call.session.long_wait is not None:
                self.call.session.long_wait(self.call, attempt)
            pause = min(2 * pause, LONGEST_PAUSE)

    def go_on(self, inside: Hold) -> None:
        """Let an operation that gave way continue, now that its guest has ended; the caller holds the guard."""
        owner, others = self.others()
        inside.returning = None
        self.granted = True
        if others:
            _waiting[owner] = others
        elif owner in _waiting:
            del _waiting[owner]
        self.wake.release()

    def others(self) -> tuple[OwnerKey, tuple[Waiter, ...]]:
        """Return its owner, and what else this owner waits for; the caller holds the guard."""
        owner = self.call.owner.key
        return owner, tuple(waiter for waiter in _waiting.get(owner, ()) if waiter is not self)

    def leave_graph(self) -> None:
        """Remove it from the wait graph; the caller holds the guard."""
        owner, others = self.others()
        if others:
            _waiting[owner] = others
        elif owner in _waiting:
            del _waiting[owner]


class OwnedLock:
    """A fair, reentrant lock whose holds belong to owners and whose sections belong to sessions.

    A *section* is opened and closed by its owner (``acquire``, ``release``). Sections are not only counted: each has an
    identity. So it does no harm to open or close one twice, in whatever order the threads of its owner do so, and a
    client that was interrupted can say which one must not count. A *body* is an operation that runs under
    the lock (``enter``, ``leave``). An owner's hold ends when it has neither. If a hold is ended or broken by force,
    its sections end at once, but its bodies only when they return: so two bodies of different owners never run
    together.

    An operation that waits may *give way*: until it continues, shared operations enter as its *guests*, one at a time.
    A guest that waits gives way in the same manner.

    Args:
        name: shown in messages.
        by_chain: whether only the same chain of calls may enter it again, not every call of the same owner.
        timeout: seconds that an operation which gave way waits for its guest to end.

    Attributes:
        may_give_way: called under the guard, with the chain that waits; returns whether guests may enter. None: always.
        session_ended: called when a session of this process has ended, and whether in good order. None: not needed.
    """

    __slots__ = (
        "__weakref__",
        "_fences",
        "_queue",
        "by_chain",
        "found_by",
        "guests",
        "hold",
        "may_give_way",
        "name",
        "on_timeout",
        "refusal",
        "session_ended",
        "timeout",
    )

    def __init__(self, name: str, *, by_chain: bool = False, timeout: float = 60.0) -> None:
        self.name = name
        self.timeout = timeout
        self.may_give_way: Callable[[object], bool] | None = None
        self.refusal: Callable[[], BaseException | None] | None = None
        self.on_timeout: Callable[[MutexTimeoutError], None] | None = None
        self.session_ended: Callable[[Session, bool], None] | None = None
        self.found_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        """A function by which other processes find the lock, and its first arguments; None if they cannot."""
        self.by_chain = by_chain
        self.hold: Hold | None = None
        self.guests: list[Hold] = []
        """The holds inside of ``hold``: each entered when the one before it gave way; the last one runs."""
        self._queue: deque[Waiter] = deque()
        self._fences: dict[OwnerKey, tuple[str, dict[Section, str]]] = {}
        with guard:
            _locks.add(self)

    @property
    def order(self) -> tuple[str, int]:
        """Its place in the order in which several locks are acquired: local locks come before those of servers."""
        return ("", id(self))

    # --- sections ---------------------------------------------------------------------------------------------------

    def acquire(self, call: Call, timeout: float, section: Section | None = None, site: str | None = None) -> None:
        """Open a section, nested if this owner has one already.

        Args:
            call: the call for which it is done.
            timeout: seconds; 0 tries once.
            section: its identity; None for a new one.
            site: the place in the code, as file:line.

        Raises:
            MutexTimeoutError: not acquired in time.
            DeadlockError: waiting would close a cycle.
            MutexBrokenError: the lock was broken while this owner held it, and it has not left its outermost section.
        """
        self._take(call, timeout, section or new_section(), site, False)

    def release(self, call: Call, section: Section | None = None) -> None:
        """Close a section: the given one, else the newest of this thread, else the newest.

        Raises:
            MutexBrokenError: the section had been ended by force.
            MutexNotHeldError: there is no section.
        """
        try:
            self._release(call, section)
        except MutexError:
            raise
        except BaseException:  # Ctrl-C
            with guard:
                self.settle()
            raise

    def _release(self, call: Call, section: Section | None) -> None:
        with guard:
            if section is None:
                section = newest(self._opened(call))
            fence = self._fences.get(call.owner.key)
            if fence is not None:
                reason, sections = fence
                if section in sections:
                    del sections[section]
                if not sections:
                    del self._fences[call.owner.key]
                raise MutexBrokenError(self.name, reason)
            hold = self.hold
            if hold is None or hold.key != self._key(call) or section not in hold.sections:
                raise MutexNotHeldError(self.name, str(hold.described()) if hold else None)
            del hold.sections[section]
            self.settle()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def enter(self, call: Call, timeout: float, site: str | None = None, *, shared: bool = False) -> None:
        """Begin an operation under the lock; raises as ``acquire`` does.

        Args:
            call: the call for which it is done.
            timeout: seconds; 0 tries once.
            site: which operation.
            shared: whether it may enter as a guest while the holder gives way.
        """
        if self.guests or ((hold := self.hold) is not None and hold.gives_way):
            self.take_back(call)  # a part of an operation that gives way must not run together with its guests
        self._take(call, timeout, None, site, shared)

    def leave(self, call: Call) -> None:
        """End an operation begun by ``enter``."""
        with guard:
            hold = self.hold_of(call)
            if hold is not None:
                hold.end(call)
                self.settle()

    def end(self, call: Call) -> None:
        """End every operation that ``call`` has begun by ``enter`` and not ended, if there is one."""
        with guard:
            hold = self.hold_of(call)
            while True:
                if hold is None or call not in hold.calls:
                    break
                hold.end(call)
            self.settle()

    # Every operation of a device runs this code. To be fast, it contains what Hold.begin and Hold.end do.

    def enter_both(self, exclusive: OwnedLock, call: Call, timeout: float, site: str) -> None:
        """Begin an operation under this lock (a mutex) and then ``exclusive``; under both at once if they are free."""
        entered = False
        try:
            with guard:
                hold, other = self.hold, exclusive.hold
                if other is None and not exclusive._queue and call.reason is None and not call.session.ended:
                    free = hold is None and not self._queue and not self._fences
                    if free and (self.refusal is None or self.refusal() is None):
                        hold = Hold(call.owner.key, call.owner, site)
                    elif hold is None or hold.key != call.owner.key or hold.broken is not None:
                        hold = None
                    if hold is not None:
                        other = Hold(call.chain, call.owner, site)
                        hold.calls = [*hold.calls, call]
                        other.calls = [call]
                        self.hold, exclusive.hold = hold, other
                        entered = True
        except BaseException:
            if entered:
                self.leave_both(exclusive, call)
            raise
        if entered:
            return
        self.enter(call, timeout, site)
        try:
            exclusive.enter(call, timeout, site)
        except BaseException:
            self.leave(call)
            raise

    def leave_both(self, exclusive: OwnedLock, call: Call) -> None:
        """End an operation begun by ``enter_both``."""
        with guard:
            for lock in (exclusive, self):
                hold = lock.hold if not lock.guests else lock.hold_of(call)
                if hold is not None:
                    if hold.calls == [call]:
                        hold.calls = []
                    else:
                        hold.end(call)
                    lock.settle()

    # --- giving way -------------------------------------------------------------------------------------------------

    def take_back(self, call: Call) -> None:
        """Wait until the guest of an operation that gave way has ended; return at once if there is no guest.

        If the operation was cancelled, it waits one second at most, and then continues to its end beside the guest.

        Raises:
            MutexTimeoutError: the guest, which the error names, is still inside after ``timeout`` seconds.
            DeadlockError: the guest waits for what the owner of ``call`` has.
        """
        while (waiting := self._return(call)) is not None:
            waiter, cancelled = waiting
            timeout = _LAST_READ if cancelled else self.timeout
            try:
                waiter.wait(timeout)
            finally:  # also where Ctrl-C ends it
                with guard:
                    if not waiter.granted and waiter.failure is None:
                        self.withdraw(waiter, self._timed_out(call, timeout))
            if waiter.failure is None:
                return
            if cancelled:
                if call.reason is not None:
                    call.reason.add_note(f"a shared read was still running when the operation ended: {waiter.failure}")
                return
            if call.reason is None and not call.session.ended:
                raise waiter.failure

    def _return(self, call: Call) -> tuple[Waiter, bool] | None:
        """Let no more guests in. Return a waiter for the end of the present guest, and whether the call was cancelled.

        None if there is no guest.
        """
        with guard:
            hold = self.hold_of(call)
            if hold is None or hold.key != self._key(call):
                return None
            hold.gives_way = False
            if self.innermost() is hold:
                return None
            cancelled = call.reason is not None or call.session.ended
            if not cancelled and (cycle := find_cycle_here(self, call)) is not None:
                raise DeadlockError(self.name, cycle)
            hold.returning = waiter = Waiter(self, hold.key, call, None, hold.site)
            if not cancelled:  # else the wait would end at once
                waiter.begin()
            return waiter, cancelled

    # --- force ------------------------------------------------------------------------------------------------------

    def break_(self, reason: str) -> str | None:
        """Take the lock from its holder; return who that was, or None if nobody held it.

        Every later operation of that owner raises MutexBrokenError until it has left its outermost section. Its running
        operation is cancelled with the same error, and the next owner gets the lock when its body has returned.
        """
        with guard:
            hold = self.hold
            if hold is None or hold.broken is not None:
                return None
            hold.broken = reason
            if hold.sections:
                self._fences[hold.owner.key] = (reason, hold.sections)
                hold.sections = {}
            running = list(hold.calls)
            self.settle()
        for call in running:
            cancel(call, MutexBrokenError(self.name, reason))
        return str(hold.owner)

    def end_session(self, session: Session, guardian: Call | None = None) -> bool:
        """End the sections of ``session``; return whether there were any.

        If ``guardian`` is given, this call is put at the head of the queue before anything is released: so it is
        granted next. The caller must then ``claim`` the lock for it and ``leave`` it.
        """
        with guard:
            for key, (_, sections) in list(self._fences.items()):
                if _close_sections(sections, session) and not sections:
                    del self._fences[key]
            hold = self.hold
            held = hold is not None and session.id in hold.sections.values()
            if guardian is not None:
                self._queue.appendleft(Waiter(self, self._key(guardian), guardian, None, "make_safe"))
            if hold is not None:
                _close_sections(hold.sections, session)
            self.settle()
            return held

    def claim(self, guardian: Call, session: Session, timeout: float) -> bool:
        """Wait until the guardian of ``end_session`` has the lock; return whether it has.

        For a holder in a section, or of another session, it waits without limit: the holder is alive, or the end of its
        session is being handled. For an operation that the ended ``session`` left running, the wait has a limit: if
        only this operation has held the lock for ``timeout`` seconds, this returns False. The guardian stays in the
        queue, and can be claimed again.
        """
        with guard:
            waiter = next((waiter for waiter in self._queue if waiter.call is guardian), None)
        if waiter is None:
            return True
        if timeout == math.inf:
            return waiter.wake.acquire()
        alone_since: float | None = None
        while not waiter.wake.acquire(timeout=LONG_WAIT):
            with guard:
                hold = self.hold
                alone = hold is not None and not hold.sections and all(call.session is session for call in hold.calls)
            now = time.monotonic()
            if not alone:
                alone_since = None
            elif alone_since is None:
                alone_since = now
            elif now - alone_since > timeout:
                return False
        return True

    def close_section(self, section: Section) -> None:
        """Close a section whose client does not know whether it is open, because it was interrupted."""
        with guard:
            for key, (_, sections) in list(self._fences.items()):
                if sections.pop(section, None) is not None and not sections:
                    del self._fences[key]
            hold = self.hold
            if hold is not None and section in hold.sections:
                del hold.sections[section]
                self.settle()

    def forget_parent(self) -> None:
        """Free the lock in a forked child: the parent's threads are not in the child, and cannot release it."""
        self.hold = None
        self.guests.clear()
        self._queue.clear()
        self._fences.clear()

    # --- who holds it and who waits ---------------------------------------------------------------------------------

    def holder(self) -> Holder | None:
        """Return who holds it; None if nobody does."""
        with guard:
            return self.hold.described() if self.hold is not None else None

    def waiters(self) -> list[Holder]:
        """Return who waits for it, in the order in which they asked."""
        with guard:
            return [Holder.of(waiter.call.owner, waiter.since, 1, waiter.site) for waiter in self._queue]

    def held_by(self, call: Call) -> bool:
        """Whether the owner of ``call`` holds it; with ``by_chain``, whether the chain of ``call`` does."""
        # Without the guard: only this owner itself can begin or end its own hold.
        hold = self.hold if not self.guests else self.hold_of(call)
        return hold is not None and hold.key == self._key(call) and hold.broken is None

    def has_guest(self) -> bool:
        """Whether a shared operation is inside, as a guest of one that waits."""
        return bool(self.guests)

    def section(self, begun_before: float = math.inf) -> object:
        """Return an object that represents the present section, the same until it ends; None if there is none.

        A section that began after ``begun_before``, on the monotonic clock, does not count.
        """
        hold = self.hold
        return hold if hold is not None and hold.sections and hold.since <= begun_before else None

    def in_use_by(self, session: Session) -> bool:
        """Whether a session has sections, or an operation that may change something, under the lock."""
        with guard:
            hold = self.hold
            return hold is not None and (
                session.id in hold.sections.values()
                or any(call.session is session and call.changes for call in hold.calls)
            )

    def running(self) -> list[Call]:
        """Return the operations that run under the lock now."""
        with guard:
            hold = self.hold
            return list(hold.calls) if hold is not None else []

    def opened(self, call: Call) -> list[Section]:
        """Return the sections of ``call``'s owner in its session, the oldest first; broken ones too."""
        with guard:
            return self._opened(call)

    def sections(self, call: Call) -> int:
        """Return the number of sections of the owner of ``call``."""
        with guard:
            hold = self.hold
            return len(hold.sections) if hold is not None and hold.key == self._key(call) else 0

    # --- internal: the caller holds the guard from here on ----------------------------------------------------------

    def _opened(self, call: Call) -> list[Section]:
        if self._fences and (fence := self._fences.get(call.owner.key)) is not None:
            sections = fence[1]
        elif (hold := self.hold) is not None and hold.key == self._key(call):
            sections = hold.sections
        else:
            return []
        mine = call.session.id
        return [section for section, session in sections.items() if session == mine]

    def _key(self, call: Call) -> object:
        return call.chain if self.by_chain else call.owner.key

    def innermost(self) -> Hold | None:
        """Return the hold whose operation runs: the last guest, or the holder."""
        return self.guests[-1] if self.guests else self.hold

    def hold_of(self, call: Call) -> Hold | None:
        """Return the hold to which a call belongs; without guests there is only one hold."""
        if self.guests:
            key = self._key(call)
            return next((hold for hold in [*self.guests, self.hold] if hold is not None and hold.key == key), None)
        return self.hold

    def _take(self, call: Call, timeout: float, section: Section | None, site: str | None, shared: bool) -> None:
        key = self._key(call)
        taken: Hold | None = None
        waiter: Waiter | None = None
        before = False
        try:
            with guard:
                self._refuse_cancelled(call)
                hold = self.hold if not self.guests else self.hold_of(call) or self.hold
                if hold is not None and hold.key == key and hold.broken is None:
                    before = section in hold.sections
                    hold.begin(call, section)
                    taken = hold
                    return
                self._refuse_newcomer(call)
                if hold is None and not self._queue:
                    hold = Hold(key, call.owner, site)
                    hold.begin(call, section)
                    self.hold = taken = hold
                    return
                if shared and (inside := self.innermost()) is not None and inside.gives_way:
                    guest = Hold(key, call.owner, site)
                    guest.begin(call, None)
                    self.guests = [*self.guests, guest]
                    taken = guest
                    return
                waiter = Waiter(self, key, call, section, site, shared)
                self._line_up(waiter, timeout)
            self._await(waiter, timeout)
        except BaseException:
            # Ctrl-C, if the owner is a thread of this process: afterwards it is neither in the queue nor the holder.
            if taken is not None or waiter is not None:
                self._undo(call, section, taken, before, waiter)
            raise

    def _refuse_cancelled(self, call: Call) -> None:
        if call.reason is not None:
            raise call.reason
        if call.session.ended:
            raise call.session.end_error()

    def _refuse_newcomer(self, call: Call) -> None:
        if self._fences and call.owner.key in self._fences:
            raise MutexBrokenError(self.name, self._fences[call.owner.key][0])
        refusal = self.refusal() if self.refusal is not None else None
        if refusal is not None:
            raise refusal

    def _line_up(self, waiter: Waiter, timeout: float) -> None:
        if timeout <= 0:
            raise self._timed_out(waiter.call, 0.0)
        cycle = find_cycle_here(self, waiter.call)
        if cycle is not None:
            raise DeadlockError(self.name, cycle)
        self._queue.append(waiter)
        waiter.begin()

    def _undo(
        self, call: Call, section: Section | None, taken: Hold | None, before: bool, waiter: Waiter | None
    ) -> None:
        """Undo what an interrupted call has acquired or asked for. The caller does not hold the guard."""
        with guard:
            call.waiter = None
            if taken is not None:
                if section is None:
                    taken.end(call)
                elif not before:
                    taken.sections.pop(section, None)
                self.settle()
            elif waiter is not None and waiter.granted:
                self.give_back(waiter)
            elif waiter is not None and waiter in self._queue:
                self.withdraw(waiter, OperationCancelled("interrupted"))

    def _await(self, waiter: Waiter, timeout: float) -> None:
        """Wait until the lock is granted. The caller does not hold the guard."""
        waiter.wait(timeout)
        with guard:
            waiter.call.waiter = None
            failure = waiter.failure
            if waiter.granted:
                failure = waiter.call.reason
                if failure is None and waiter.call.session.ended:
                    failure = waiter.call.session.end_error()
                if failure is None:
                    return
                waiter.granted, waiter.failure = False, failure
                self.give_back(waiter)
            elif failure is None:
                failure = self._timed_out(waiter.call, timeout)
                self.withdraw(waiter, failure)
        if self.on_timeout is not None and isinstance(failure, MutexTimeoutError):
            self.on_timeout(failure)
        raise failure

    def give_back(self, waiter: Waiter) -> None:
        """Take back what a waiter was granted, if it still has it."""
        hold = waiter.hold
        if hold is None or (hold is not self.hold and hold not in self.guests):
            return
        if waiter.section is None:
            hold.end(waiter.call)
        else:
            hold.sections.pop(waiter.section, None)
        self.settle()

    def settle(self) -> None:
        """If the present hold has ended, grant the lock to the next one; if it gives way, let a guest in.

        Several threads may have waited for the same owner: they all enter then, since their owner has the lock.
        """
        hold = self.hold
        if self.guests:
            self.guests = [guest for guest in self.guests if guest.calls]
            if hold is not None and not (hold.sections or hold.calls):
                # The operation has ended while its guest is still inside: the guest becomes the holder.
                hold = self.hold = self.guests.pop(0) if self.guests else None
        if hold is not None and (hold.sections or hold.calls):
            self._admit(hold)
            self._settle_guests(self.guests[-1] if self.guests else hold)
            return
        self.hold = None
        while self._queue and (gone := self._queue[0].call.session.gone) is not None and gone():
            self.fail(self._queue[0], OperationCancelled("the waiting process has ended"))
        if not self._queue:
            return
        waiter = self._queue[0]
        hold = Hold(waiter.key, waiter.call.owner, waiter.site)
        hold.begin(waiter.call, waiter.section)
        self._grant(waiter, hold)
        self._admit(hold)

    def _admit(self, hold: Hold) -> None:
        """Let in the other threads that wait for the owner who has the lock."""
        if hold.broken is None:
            for waiter in [waiter for waiter in self._queue if waiter.key == hold.key]:
                if waiter.section is not None or waiter.call not in hold.calls:  # it may be after an interrupt
                    hold.begin(waiter.call, waiter.section)
                self._grant(waiter, hold)

    def _grant(self, waiter: Waiter, hold: Hold, *, guest: bool = False) -> None:
        """Give a waiter the lock, or let it in as a guest."""
        place = self._queue.index(waiter)
        owner, others = waiter.others()
        # No function is called from here to the last line, so that Ctrl-C cannot come in between: see the module.
        if guest:
            self.guests = [*self.guests, hold]
        else:
            self.hold = hold
        del self._queue[place]
        waiter.hold = hold
        waiter.granted = True
        if others:
            _waiting[owner] = others
        elif owner in _waiting:
            del _waiting[owner]
        waiter.wake.release()

    def withdraw(self, waiter: Waiter, failure: BaseException) -> None:
        """Remove a waiter from its queue; its wait ends with ``failure``."""
        waiter.failure = failure
        for hold in [*self.guests, self.hold]:
            if hold is not None and hold.returning is waiter:
                hold.returning = None
                break
        else:
            self._queue.remove(waiter)
        waiter.leave_graph()

    def fail(self, waiter: Waiter, failure: BaseException) -> None:
        """Withdraw a waiter, and wake it up."""
        self.withdraw(waiter, failure)
        waiter.wake.release()

    def _settle_guests(self, inside: Hold) -> None:
        """Let the operation inside continue if it waits for its guest; if it gives way, let the next guest in."""
        if inside.returning is not None:
            inside.returning.go_on(inside)
        elif inside.gives_way:
            waiting = next((waiter for waiter in self._queue if waiter.shared), None)
            if waiting is not None:
                guest = Hold(waiting.key, waiting.call.owner, waiting.site)
                guest.begin(waiting.call, None)
                self._grant(waiting, guest, guest=True)

    def _timed_out(self, call: Call, waited: float) -> MutexTimeoutError:
        hold = self.innermost()
        text = None
        if hold is not None:
            text = str(hold.described())
            if hold.owner.key[0] == call.owner.key[0]:
                text += " (this same process)"
        return MutexTimeoutError(self.name, waited, text, sum(waiter.call is not call for waiter in self._queue))


def find_cycle_here(lock: OwnedLock, call: Call) -> list[str] | None:
    """Return the parties of the cycle that ``call`` would close by waiting for ``lock``, or None.

    An owner in a section counts as waiting if any of the threads that act for it waits. An owner that only has
    operations under a lock counts as waiting if one of these operations waits.

    The caller holds the guard.
    """
    # Follow the holder to the locks for which it waits, and so on, until that leads back to this owner.
    paths: list[tuple[OwnedLock, list[str]]] = [(lock, [])]
    seen: set[int] = set()
    while paths:
        lock_there, parties = paths.pop()
        hold = lock_there.innermost()
        if hold is None:
            continue
        own = hold.owner.key == call.owner.key
        if own and hold.broken is not None:
            continue  # this owner has abandoned that operation, which ends by itself
        chains = hold.chains()
        if own and (chains is None or call.chain in chains):
            return [*parties, f"{call.owner} holds {lock_there.name!r} and waits for {lock.name!r}"]
        if not own and not call.apart and _share_thread(hold.owner.key, call.owner.key):
            text = f"{hold.owner} holds {lock_there.name!r} and needs this thread: wait with 'async with'"
            return [*parties, text]
        for waiter in _waiting.get(hold.owner.key, ()):
            if id(waiter) not in seen and (chains is None or waiter.call.chain in chains):
                seen.add(id(waiter))
                text = f"{hold.owner} holds {lock_there.name!r} and waits for {waiter.lock.name!r}"
                paths.append((waiter.lock, [*parties, text]))
    return None


def _share_thread(holder: OwnerKey, waiter: OwnerKey) -> bool:
    """Whether two owners are tasks of the same thread, so that one cannot go on while the other blocks the thread."""
    same = process_of(holder[0]) == process_of(waiter[0]) and holder[1] == waiter[1]
    # A thread that acted for another session before may have lent that owner to another thread.
    return same and (holder[0] == waiter[0] or (holder[2] != 0 and waiter[2] != 0))


def is_waited_for(owner: OwnerKey) -> bool:
    """Whether somebody in this process waits for a lock that the owner holds."""
    with guard:
        return any(
            (hold := waiter.lock.innermost()) is not None and hold.owner.key == owner for waiter in _all_waiting()
        )


def _all_waiting() -> list[Waiter]:
    """Return all waits of this process; the caller holds the guard."""
    return [waiter for waiters in _waiting.values() for waiter in waiters]


def waits() -> list[Wait]:
    """Return the wait graph of this process."""
    with guard:
        edges = [
            (waiter, hold, hold.chains()) for waiter in _all_waiting() if (hold := waiter.lock.innermost()) is not None
        ]
    return [  # without the guard, because with hundreds of waiters the texts take milliseconds
        Wait(
            waiter.call.owner.key,
            hold.owner.key,
            f"{hold.owner} holds {waiter.lock.name!r}, for which {waiter.call.owner} waits",
            waiter.sequence,
            waiter.asked,
            waiter.call.chain,
            chains,
        )
        for waiter, hold, chains in edges
    ]


def cancel(call: Call, reason: BaseException) -> None:
    """Cancel an operation, whether it runs or waits for a lock."""
    call.cancel(reason)
    with guard:
        waiter = call.waiter
        if waiter is None or waiter.failure is not None:
            return
        if not waiter.granted:
            waiter.lock.fail(waiter, reason)
        elif waiter.hold is not None:
            # It has not woken up yet. The lock is taken back now: later it could be held by another owner.
            waiter.failure, waiter.granted = reason, False
            waiter.lock.give_back(waiter)


def end_session(session: Session) -> None:
    """Mark a session as ended, and withdraw all its waits: none of them is granted from now on."""
    with guard:
        session.ended = True
        for waiter in [waiter for waiter in _all_waiting() if waiter.call.session is session]:
            waiter.lock.fail(waiter, session.end_error())


def end_session_here(session: Session, goodbye: bool) -> None:
    """Release everything that a session of this process holds in this process; ``end_session`` was called before.

    Args:
        session: the session.
        goodbye: whether it ended in good order.
    """
    with guard:
        locks = list(_locks)
    for lock in locks:
        if lock.session_ended is not None:
            try:
                lock.session_ended(session, goodbye)
            except Exception:  # whatever is wrong with one, the others are given back
                import logging

                logging.getLogger(__name__).exception("mutex %r: the end of %s was not carried out", lock.name, session)
    for lock in locks:
        for call in lock.running():
            if call.session is session:
                cancel(call, session.end_error())
    for lock in locks:
        lock.end_session(session)


def end_deadlock(owner: OwnerKey, sequence: int, parties: list[str]) -> None:
    """End an owner's wait with a DeadlockError, if it is still the wait with this sequence number."""
    with guard:
        for waiter in _waiting.get(owner, ()):
            if waiter.sequence == sequence:
                waiter.lock.fail(waiter, DeadlockError(waiter.lock.name, parties))


def sequence_of(call: Call) -> int | None:
    """Return the sequence number of a call's present wait; None if it does not wait."""
    with guard:
        return next((waiter.sequence for waiter in _waiting.get(call.owner.key, ()) if waiter.call is call), None)


def _forget_parent() -> None:
    _waiting.clear()
    for lock in _locks:
        lock.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


@contextlib.contextmanager
def giving_way(call: Call) -> Iterator[None]:
    """During the block, let shared reads run of all devices whose operations wait together with ``call``.

    These are the devices of this process to whose operations the chain of ``call`` belongs.

    Raises:
        MutexTimeoutError: a shared read, which the error names, has not ended within the timeout after the block.
        DeadlockError: a shared read waits for something that the owner of ``call`` holds.
    """
    give_way(call)
    try:
        yield
    finally:
        take_back(call)


def give_way(call: Call, still: Callable[[], bool] | None = None) -> None:
    """Let shared reads in until ``take_back``; do nothing if ``still()`` is false, because the wait is over."""
    with guard:
        if still is not None and not still():
            return
        for lock in _locks_of(call):
            if lock.may_give_way is None or lock.may_give_way(call.chain):
                hold = lock.hold_of(call)
                if hold is not None and lock.innermost() is hold:
                    hold.gives_way = True
                    lock.settle()


def take_back(call: Call) -> None:
    """Let no more shared reads in, and wait until they have ended; raises as ``giving_way`` does."""
    with guard:
        locks = _locks_of(call)
    for lock in locks:
        lock.take_back(call)


def _locks_of(call: Call) -> list[OwnedLock]:
    """Return the operation locks that the chain of a call holds; the caller holds the guard."""
    chain = call.chain
    return [
        lock
        for lock in _locks
        if lock.by_chain and (hold := lock.hold_of(call)) is not None and hold.key == chain and hold.broken is None
    ]
