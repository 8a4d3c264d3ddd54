"""The lock that everything here is built on: fair, reentrant, owned, breakable, and aware of deadlocks.

All lock state of a process and its wait graph live under one guard, so that a death, a break or a search for a cycle
sees one consistent picture. The guard is held for microseconds and never across a wait.

Ctrl-C may come while the main thread has the guard. CPython raises it on entry to a function, after a call of one that
is written in C, and at the end of each round of a loop. So changes that belong together are written without any of
these, and a change is the last thing that a function does. An interrupted function looks at what was changed, and then
undoes or finishes it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections import deque
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
from catkit_devices.multiprocessing.wire.forking import renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.locks.owner import Call, Owner, OwnerKey, Session

__all__ = [
    "Hold",
    "Holder",
    "OwnedLock",
    "Wait",
    "Waiter",
    "cancel",
    "end_deadlock",
    "end_session",
    "give_way",
    "giving_way",
    "guard",
    "is_waited_for",
    "sequence_of",
    "take_back",
    "waits",
]

LONG_WAIT = 0.1
"""Seconds after which a waiter looks for a deadlock that involves other servers; then after twice as long, ..."""
LONGEST_PAUSE = 5.0
"""... and at least every so many seconds."""

guard = renewed(threading.Lock())
_waiting: dict[OwnerKey, Waiter] = {}
_sequence = itertools.count(1)
_LAST_READ = 1.0
"""Seconds that an operation whose wait was cancelled leaves to the shared read in the middle of it: most take less."""

_locks: WeakSet[OwnedLock] = WeakSet()
"""Those of this process; used under the guard."""


class Holder(NamedTuple):
    """Who holds a lock, or waits for it, as shown to people."""

    owner: str
    """All of it in words: process, pid, thread, and the host where that is another one."""
    process: str
    pid: int
    thread: str
    host: str
    since: float
    """Seconds ago."""
    depth: int
    site: str | None
    """Where it asked, as file:line, or the operation that it runs."""
    key: OwnerKey
    """Which owner it is: two threads of one name, in one process, differ in nothing else."""

    @classmethod
    def of(cls, owner: Owner, since: float, depth: int, site: str | None, remark: str = "") -> Holder:
        """Describe an owner.

        Args:
            owner: who holds, or waits.
            since: when that began, on the monotonic clock.
            depth: how many sections and operations.
            site: where it asked.
            remark: what else there is to say of it.
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
    """Changes whenever the waiter waits anew."""
    since: float
    """Wall-clock time at which the wait began."""


class Hold:
    """One owner's hold of a lock: its sections, counted per session, and the operations that run under it."""

    __slots__ = ("broken", "calls", "gives_way", "key", "owner", "returning", "sections", "since", "site")

    def __init__(self, key: object, owner: Owner, site: str | None) -> None:
        self.key = key
        self.owner = owner
        self.sections: dict[str, int] = {}
        self.calls: list[Call] = []
        """Of the operations that run; never changed, but replaced by another one."""
        self.since = time.monotonic()
        self.site = site
        self.broken: str | None = None
        self.gives_way = False
        """Whether its operation waits, and shared reads may run meanwhile."""
        self.returning: Waiter | None = None
        """Its operation, where that has waited and goes on when the shared read in the middle of it has left."""

    def begin(self, call: Call, body: bool, depth: int | None) -> None:
        """Count an operation, or a section (``depth`` says how many there are then), in; the guard is held."""
        if body:
            self.calls = [*self.calls, call]
        else:
            session = call.session.id
            self.sections[session] = self.sections.get(session, 0) + 1 if depth is None else depth

    def end(self, call: Call) -> None:
        """Count an operation out; the guard is held."""
        calls = list(self.calls)
        calls.remove(call)
        self.calls = calls

    def described(self) -> Holder:
        """Return it as shown to people."""
        remark = ", broken, still in its operation" if self.broken is not None else ""
        return Holder.of(self.owner, self.since, len(self.calls) + sum(self.sections.values()), self.site, remark)


def count_sections(sections: dict[str, int], session: str, depth: int) -> None:
    """Make ``depth`` the number of sections of a session."""
    if depth > 0:
        sections[session] = depth
    else:
        sections.pop(session, None)


class Waiter:
    """One call in the queue of a lock: granted, or withdrawn with a failure."""

    __slots__ = (
        "asked",
        "body",
        "call",
        "depth",
        "failure",
        "granted",
        "hold",
        "key",
        "lock",
        "sequence",
        "shared",
        "since",
        "site",
        "wake",
    )

    def __init__(
        self, lock: OwnedLock, key: object, call: Call, body: bool, depth: int, site: str | None, shared: bool = False
    ) -> None:
        self.lock = lock
        self.key = key
        self.call = call
        self.body = body
        self.depth = depth
        self.shared = shared
        self.site = site
        self.since = time.monotonic()
        self.asked = time.time()
        self.granted = False
        self.hold: Hold | None = None
        """What it was granted; None for an operation that goes on where its guest has left."""
        self.failure: BaseException | None = None
        self.sequence = 0
        self.wake = threading.Lock()
        self.wake.acquire()

    def begin(self) -> None:
        """Become a part of the wait graph, now that it is in the queue; the guard is held."""
        self.sequence = next(_sequence)
        _waiting[self.call.owner.key] = self
        self.call.waiter = self

    def wait(self, timeout: float) -> None:
        """Wait until granted, withdrawn or ``timeout`` seconds are over; the guard is not held."""
        deadline = time.monotonic() + timeout
        pause = LONG_WAIT
        attempt = 0
        while not self.wake.acquire(timeout=min(pause, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break
            # Again and again, because what a look at other servers found may have changed since.
            attempt += 1
            if self.call.session.long_wait is not None:
                self.call.session.long_wait(self.call, attempt)
            pause = min(2 * pause, LONGEST_PAUSE)

    def go_on(self, inside: Hold) -> None:
        """Let an operation that gave way go on, now that its guest has left; the guard is held."""
        owner = self.call.owner.key
        inside.returning = None
        self.granted = True
        if owner in _waiting and _waiting[owner] is self:
            del _waiting[owner]
        self.wake.release()

    def leave_graph(self) -> None:
        """Wait no more; the guard is held."""
        if _waiting.get(self.call.owner.key) is self:
            del _waiting[self.call.owner.key]


class OwnedLock:
    """A fair, reentrant lock whose holds belong to owners and whose sections are counted per session.

    A *section* is opened and closed by its owner (``acquire``, ``release``); a *body* is an operation that runs under
    the lock (``enter``, ``leave``). A hold ends when it has neither. Ending or breaking a hold takes its sections
    away at once and its bodies when they have left, so the next owner never meets a body that is still running.

    An operation that waits may *give way*: until it goes on, shared operations enter as its *guests*, one at a time.
    A guest that waits gives way in the same manner.

    Args:
        name: shown in messages.
        by_chain: re-entered by the same chain of calls only, not by every call of the same owner.
        timeout: seconds that an operation which gave way waits for its guest to leave.

    Attributes:
        may_give_way: asked, under the guard, with the chain that waits whether guests may enter now; None for yes.
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
        "timeout",
    )

    def __init__(self, name: str, *, by_chain: bool = False, timeout: float = 60.0) -> None:
        self.name = name
        self.timeout = timeout
        self.may_give_way: Callable[[object], bool] | None = None
        self.refusal: Callable[[], BaseException | None] | None = None
        self.on_timeout: Callable[[MutexTimeoutError], None] | None = None
        self.found_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        """A function that other processes find it by, and its first arguments; None where they cannot."""
        self.by_chain = by_chain
        self.hold: Hold | None = None
        self.guests: list[Hold] = []
        """Who is inside beside the hold, each since the one before gave way; the last one runs."""
        self._queue: deque[Waiter] = deque()
        self._fences: dict[OwnerKey, tuple[str, dict[str, int]]] = {}
        with guard:
            _locks.add(self)

    @property
    def order(self) -> tuple[str, int]:
        """Where it stands in the one order in which several are acquired: before those of servers."""
        return ("", id(self))

    # --- sections ---------------------------------------------------------------------------------------------------

    def acquire(self, call: Call, timeout: float, depth: int | None = None, site: str | None = None) -> None:
        """Open a section, nested if this owner has one already.

        Args:
            call: on whose behalf.
            timeout: seconds; 0 tries once.
            depth: how many sections the session has then (so that a repeat is harmless); None for one more.
            site: where, as file:line.

        Raises:
            MutexTimeoutError: not acquired in time.
            DeadlockError: waiting would close a cycle.
            MutexBrokenError: this owner was broken and has not left its outermost section.
        """
        self._take(call, timeout, False, depth, site, False)

    def release(self, call: Call, depth: int | None = None) -> None:
        """Close a section; ``depth`` says how many the session has then.

        Raises:
            MutexBrokenError: the section had been taken away by force.
            MutexNotHeldError: there is none.
        """
        try:
            self._release(call, depth)
        except MutexError:
            raise
        except BaseException:  # Ctrl-C
            with guard:
                self.settle()
            raise

    def _release(self, call: Call, depth: int | None) -> None:
        with guard:
            session = call.session.id
            fence = self._fences.get(call.owner.key)
            if fence is not None:
                reason, sections = fence
                count_sections(sections, session, sections.get(session, 1) - 1 if depth is None else depth)
                if not sections:
                    del self._fences[call.owner.key]
                raise MutexBrokenError(self.name, reason)
            hold = self.hold
            if hold is None or hold.key != self._key(call) or session not in hold.sections:
                raise MutexNotHeldError(self.name, str(hold.described()) if hold else None)
            count_sections(hold.sections, session, hold.sections[session] - 1 if depth is None else depth)
            self.settle()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def enter(self, call: Call, timeout: float, site: str | None = None, *, shared: bool = False) -> None:
        """Begin an operation under the lock; raises as ``acquire`` does.

        Args:
            call: on whose behalf.
            timeout: seconds; 0 tries once.
            site: which operation.
            shared: whether it may enter where whoever has the lock gives way.
        """
        if self.guests or ((hold := self.hold) is not None and hold.gives_way):
            self.take_back(call)  # what is part of an operation that gives way is not done beside its guests
        self._take(call, timeout, True, None, site, shared)

    def leave(self, call: Call) -> None:
        """End an operation begun by ``enter``."""
        with guard:
            hold = self.hold_of(call)
            if hold is not None:
                hold.end(call)
                self.settle()

    def end(self, call: Call) -> None:
        """End all that ``call`` has begun by ``enter`` and not ended; nothing where there is nothing."""
        with guard:
            hold = self.hold_of(call)
            while hold is not None and call in hold.calls:
                hold.end(call)
            self.settle()

    # The path of every operation of a device: what Hold.begin and Hold.end do is written out here.

    def enter_both(self, exclusive: OwnedLock, call: Call, timeout: float, site: str) -> None:
        """Begin an operation under this lock (a mutex) and then ``exclusive``; at once where both are free."""
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
        """Go on with an operation that gave way, when its guest has left; nothing where it has no guest.

        One that was cancelled gives its guest a second, and then goes on beside it, to its end.

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
                    call.reason.add_note(f"it went on to its end beside a shared read: {waiter.failure}")
                return
            if call.reason is None and not call.session.ended:
                raise waiter.failure

    def _return(self, call: Call) -> tuple[Waiter, bool] | None:
        """Let no more guests in. Return the wait for the present one to end, and whether the call was cancelled.

        None where there is no guest.
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
            hold.returning = waiter = Waiter(self, hold.key, call, True, 0, hold.site)
            if not cancelled:  # which would end this wait at once
                waiter.begin()
            return waiter, cancelled

    # --- force ------------------------------------------------------------------------------------------------------

    def break_(self, reason: str) -> str | None:
        """Take the lock from its holder; return who that was, or None when nobody held it.

        Every later operation of that owner raises MutexBrokenError until it has left its outermost section; its
        operation in flight is cancelled with the same error, and the next grant waits until its body has left.
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
        """Give back the sections that came over ``session``; return whether there were any.

        With ``guardian`` given, that call goes to the head of the queue before anything is given back: it is granted
        next; the caller must then ``claim`` the lock and ``leave`` it on its behalf.
        """
        with guard:
            for key in [key for key, (_, sections) in self._fences.items() if sections.pop(session.id, 0)]:
                if not self._fences[key][1]:
                    del self._fences[key]
            hold = self.hold
            held = hold is not None and session.id in hold.sections
            if guardian is not None:
                self._queue.appendleft(Waiter(self, self._key(guardian), guardian, True, 0, "make_safe"))
            if hold is not None:
                hold.sections.pop(session.id, None)
            self.settle()
            return held

    def claim(self, guardian: Call, session: Session, timeout: float) -> bool:
        """Wait until the guardian of ``end_session`` has the lock; return whether it has.

        A holder in a section, or of another session, is waited for without limit: it is alive, or the end of its
        session is being handled. An operation that the ended ``session`` left running is not: when nothing else has
        kept the lock for ``timeout`` seconds, this returns False. The guardian stays in the queue, to be claimed again.
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

    def set_depth(self, owner: OwnerKey, session: Session, depth: int) -> None:
        """Make ``depth`` the number of sections that the owner has over the session (what its client says)."""
        with guard:
            hold = self.hold
            if hold is not None and hold.owner.key == owner and session.id in hold.sections:
                count_sections(hold.sections, session.id, depth)
                self.settle()

    def forget_parent(self) -> None:
        """Be free, in a forked child: no thread of the parent is in the child, or can release it."""
        self.hold = None
        self.guests.clear()
        self._queue.clear()
        self._fences.clear()

    # --- looking ----------------------------------------------------------------------------------------------------

    def holder(self) -> Holder | None:
        """Return who holds it."""
        with guard:
            return self.hold.described() if self.hold is not None else None

    def waiters(self) -> list[Holder]:
        """Return who waits for it, first come first."""
        with guard:
            return [
                Holder.of(waiter.call.owner, waiter.since, max(waiter.depth, 1), waiter.site) for waiter in self._queue
            ]

    def held_by(self, call: Call) -> bool:
        """Whether the owner of ``call`` has it; where it is re-entered by chain, whether that chain has."""
        # Without the guard: nobody else can make it, or end it, being this owner's.
        hold = self.hold if not self.guests else self.hold_of(call)
        return hold is not None and hold.key == self._key(call) and hold.broken is None

    def has_guest(self) -> bool:
        """Whether a shared operation is inside in the middle of one that waits."""
        return bool(self.guests)

    def section(self, begun_before: float = math.inf) -> object:
        """Return what stands for the section that is held now, the same object until it ends; None without one.

        One that began after ``begun_before``, on the monotonic clock, does not count.
        """
        hold = self.hold
        return hold if hold is not None and hold.sections and hold.since <= begun_before else None

    def in_use_by(self, session: Session) -> bool:
        """Whether a session has sections, or an operation that may change something, under the lock."""
        with guard:
            hold = self.hold
            return hold is not None and (
                session.id in hold.sections or any(call.session is session and call.changes for call in hold.calls)
            )

    def running(self) -> list[Call]:
        """Return the operations that run under the lock now."""
        with guard:
            hold = self.hold
            return list(hold.calls) if hold is not None else []

    def depth(self, call: Call) -> int:
        """Return how many sections the owner of ``call`` has over its session and has not left, broken ones too."""
        with guard:
            fence = self._fences.get(call.owner.key)
            hold = self.hold
            if fence is not None:
                sections = fence[1]
            elif hold is not None and hold.key == self._key(call):
                sections = hold.sections
            else:
                return 0
            return sections.get(call.session.id, 0)

    def sections(self, call: Call) -> int:
        """Return how many sections the owner of ``call`` has."""
        with guard:
            hold = self.hold
            return sum(hold.sections.values()) if hold is not None and hold.key == self._key(call) else 0

    # --- inside; the guard is held from here on ---------------------------------------------------------------------

    def _key(self, call: Call) -> object:
        return call.chain if self.by_chain else call.owner.key

    def innermost(self) -> Hold | None:
        """Return the hold that runs."""
        return self.guests[-1] if self.guests else self.hold

    def hold_of(self, call: Call) -> Hold | None:
        """Return the hold of a call that is inside; without guests there is only one."""
        if self.guests:
            key = self._key(call)
            return next((hold for hold in [*self.guests, self.hold] if hold is not None and hold.key == key), None)
        return self.hold

    def _take(self, call: Call, timeout: float, body: bool, depth: int | None, site: str | None, shared: bool) -> None:
        key = self._key(call)
        taken: Hold | None = None
        waiter: Waiter | None = None
        before = 0
        try:
            with guard:
                self._refuse_cancelled(call)
                hold = self.hold if not self.guests else self.hold_of(call) or self.hold
                if hold is not None and hold.key == key and hold.broken is None:
                    before = hold.sections.get(call.session.id, 0)
                    hold.begin(call, body, depth)
                    taken = hold
                    return
                self._refuse_newcomer(call)
                if hold is None and not self._queue:
                    hold = Hold(key, call.owner, site)
                    hold.begin(call, body, depth)
                    self.hold = taken = hold
                    return
                if shared and (inside := self.innermost()) is not None and inside.gives_way:
                    guest = Hold(key, call.owner, site)
                    guest.begin(call, True, None)
                    self.guests = [*self.guests, guest]
                    taken = guest
                    return
                waiter = Waiter(self, key, call, body, depth or 1, site, shared)
                self._line_up(waiter, timeout)
            self._await(waiter, timeout)
        except BaseException:
            # Ctrl-C where the owner is a thread of this process: neither queued nor holding afterwards.
            if taken is not None or waiter is not None:
                self._undo(call, body, taken, before, waiter)
            raise

    def _refuse_cancelled(self, call: Call) -> None:
        if call.reason is not None:
            raise call.reason
        if call.session.ended:
            raise OperationCancelled("the calling process has ended")

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

    def _undo(self, call: Call, body: bool, taken: Hold | None, before: int, waiter: Waiter | None) -> None:
        """Undo what an interrupted call has taken, or asked for. The guard is not held."""
        with guard:
            call.waiter = None
            if taken is not None:
                if body:
                    taken.end(call)
                else:
                    count_sections(taken.sections, call.session.id, before)
                self.settle()
            elif waiter is not None and waiter.granted:
                self.give_back(waiter)
            elif waiter is not None and waiter in self._queue:
                self.withdraw(waiter, OperationCancelled("interrupted"))

    def _await(self, waiter: Waiter, timeout: float) -> None:
        """Wait for the grant. The guard is not held."""
        waiter.wait(timeout)
        with guard:
            waiter.call.waiter = None
            failure = waiter.failure
            if waiter.granted:
                failure = waiter.call.reason
                if failure is None and waiter.call.session.ended:
                    failure = OperationCancelled("the calling process has ended")
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
        """Take back what a waiter was granted, where it still has it."""
        hold = waiter.hold
        if hold is None or (hold is not self.hold and hold not in self.guests):
            return
        if waiter.body:
            hold.end(waiter.call)
        else:
            hold.sections.pop(waiter.call.session.id, None)
        self.settle()

    def settle(self) -> None:
        """Grant on when the present hold has ended, or gives way."""
        hold = self.hold
        if self.guests:
            self.guests = [guest for guest in self.guests if guest.calls]
            if hold is not None and not (hold.sections or hold.calls):
                # An operation that ended beside its guest, which now has the lock alone.
                hold = self.hold = self.guests.pop(0) if self.guests else None
        if hold is not None and (hold.sections or hold.calls):
            self._settle_guests(self.guests[-1] if self.guests else hold)
            return
        self.hold = None
        while self._queue and (gone := self._queue[0].call.session.gone) is not None and gone():
            self.fail(self._queue[0], OperationCancelled("the waiting process has ended"))
        if not self._queue:
            return
        waiter = self._queue[0]
        hold = Hold(waiter.key, waiter.call.owner, waiter.site)
        hold.begin(waiter.call, waiter.body, None if waiter.body else waiter.depth)
        self._grant(waiter, hold)

    def _grant(self, waiter: Waiter, hold: Hold, *, guest: bool = False) -> None:
        """Give a waiter the lock, or let it in as a guest."""
        owner, place = waiter.call.owner.key, self._queue.index(waiter)
        # Nothing is called from here to the last line, so that Ctrl-C cannot come between: see above.
        if guest:
            self.guests = [*self.guests, hold]
        else:
            self.hold = hold
        del self._queue[place]
        waiter.hold = hold
        waiter.granted = True
        if owner in _waiting and _waiting[owner] is waiter:
            del _waiting[owner]
        waiter.wake.release()

    def withdraw(self, waiter: Waiter, failure: BaseException) -> None:
        """Take a waiter out, from wherever it waits, to end with ``failure``."""
        waiter.failure = failure
        for hold in [*self.guests, self.hold]:
            if hold is not None and hold.returning is waiter:
                hold.returning = None
                break
        else:
            self._queue.remove(waiter)
        waiter.leave_graph()

    def fail(self, waiter: Waiter, failure: BaseException) -> None:
        """Withdraw a waiter and wake it."""
        self.withdraw(waiter, failure)
        waiter.wake.release()

    def _settle_guests(self, inside: Hold) -> None:
        """Let the operation inside go on if it waits for its guest, or let its next guest in if it gives way."""
        if inside.returning is not None:
            inside.returning.go_on(inside)
        elif inside.gives_way:
            waiting = next((waiter for waiter in self._queue if waiter.shared), None)
            if waiting is not None:
                guest = Hold(waiting.key, waiting.call.owner, waiting.site)
                guest.begin(waiting.call, True, None)
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
    """Return the parties of the cycle that ``call`` would close by waiting for ``lock``, or None; the guard is held."""
    # Holder -> what it waits for -> its holder, until that leads back.
    wanted = lock.name
    parties = []
    seen: set[int] = set()
    while True:
        hold = lock.innermost()
        if hold is None:
            return None
        if hold.owner.key == call.owner.key:
            if hold.broken is not None or (lock.by_chain and hold.key != call.chain):
                return None  # this owner has abandoned that operation, which ends without it
            parties.append(f"{call.owner} holds {lock.name!r} and waits for {wanted!r}")
            return parties
        if not call.apart and hold.owner.key[:2] == call.owner.key[:2]:
            parties.append(f"{hold.owner} holds {lock.name!r} and needs this thread: wait with 'async with'")
            return parties
        waiter = _waiting.get(hold.owner.key)
        if waiter is None or id(waiter) in seen:
            return None
        seen.add(id(waiter))
        parties.append(f"{hold.owner} holds {lock.name!r} and waits for {waiter.lock.name!r}")
        lock = waiter.lock


def is_waited_for(owner: OwnerKey) -> bool:
    """Whether somebody in this process waits for what an owner has."""
    with guard:
        return any(
            (hold := waiter.lock.innermost()) is not None and hold.owner.key == owner for waiter in _waiting.values()
        )


def waits() -> list[Wait]:
    """Return the wait graph of this process."""
    with guard:
        edges = [(waiter, hold) for waiter in _waiting.values() if (hold := waiter.lock.innermost()) is not None]
    return [  # the words without the guard: with hundreds of waiters they take milliseconds
        Wait(
            waiter.call.owner.key,
            hold.owner.key,
            f"{hold.owner} holds {waiter.lock.name!r}, for which {waiter.call.owner} waits",
            waiter.sequence,
            waiter.asked,
        )
        for waiter, hold in edges
    ]


def cancel(call: Call, reason: BaseException) -> None:
    """Cancel an operation in flight, whether it runs or waits for a lock."""
    call.cancel(reason)
    with guard:
        waiter = call.waiter
        if waiter is None or waiter.failure is not None:
            return
        if not waiter.granted:
            waiter.lock.fail(waiter, reason)
        elif waiter.hold is not None:
            # It has not woken up yet. What it was granted goes back now: later that could be another's.
            waiter.failure, waiter.granted = reason, False
            waiter.lock.give_back(waiter)


def end_session(session: Session) -> None:
    """Mark a session as ended and withdraw every wait that came over it: none of them is granted from now on."""
    with guard:
        session.ended = True
        for waiter in [waiter for waiter in _waiting.values() if waiter.call.session is session]:
            waiter.lock.fail(waiter, OperationCancelled("the waiting process has ended"))


def end_deadlock(owner: OwnerKey, sequence: int, parties: list[str]) -> None:
    """Have an owner's wait, if it is still the one with this sequence number, end with a DeadlockError."""
    with guard:
        waiter = _waiting.get(owner)
        if waiter is not None and waiter.sequence == sequence:
            waiter.lock.fail(waiter, DeadlockError(waiter.lock.name, parties))


def sequence_of(call: Call) -> int | None:
    """Return the sequence number of the wait that a call is in."""
    with guard:
        waiter = _waiting.get(call.owner.key)
        return waiter.sequence if waiter is not None and waiter.call is call else None


def _forget_parent() -> None:
    _waiting.clear()
    for lock in _locks:
        lock.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


@contextlib.contextmanager
def giving_way(call: Call) -> Iterator[None]:
    """Let shared reads of the devices whose operations wait with ``call`` run during the block.

    These are all in whose operations, in this process, its chain of calls is.

    Raises:
        MutexTimeoutError: a shared read, which the error names, is still inside long after the block.
        DeadlockError: a shared read waits for what the owner of ``call`` has.
    """
    give_way(call)
    try:
        yield
    finally:
        take_back(call)


def give_way(call: Call, still: Callable[[], bool] | None = None) -> None:
    """Let shared reads in until ``take_back``, unless ``still`` says that it is too late for that."""
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
    """Go on; raises as ``giving_way`` does."""
    with guard:
        locks = _locks_of(call)
    for lock in locks:
        lock.take_back(call)


def _locks_of(call: Call) -> list[OwnedLock]:
    """Return the operation locks that the chain of a call has; the guard is held."""
    chain = call.chain
    return [
        lock
        for lock in _locks
        if lock.by_chain and (hold := lock.hold_of(call)) is not None and hold.key == chain and hold.broken is None
    ]
