"""Who holds a lock and who waits for one: the records of this process, and its wait graph.

All lock state of a process and its wait graph live under one guard, so that a death, a break or a search for a cycle
sees one consistent picture. The guard is held for microseconds and never across a wait.

Ctrl-C may come while the main thread has the guard. CPython raises it on entry to a function, after a call of one that
is written in C, and at the end of a loop's round. So what belongs together is written without any of these, a change is
the last thing that a function does, and whoever was interrupted undoes, or finishes, by what was changed.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.errors import DeadlockError, OperationCancelled
from catkit_devices.multiprocessing.wire.forking import renewed

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.lock import OwnedLock
    from catkit_devices.multiprocessing.locks.owner import Call, Owner, OwnerKey, Session

__all__ = [
    "Hold",
    "Holder",
    "Wait",
    "Waiter",
    "cancel",
    "count_sections",
    "end_deadlock",
    "end_session",
    "find_cycle_here",
    "guard",
    "is_waited_for",
    "sequence_of",
    "waits",
]

LONG_WAIT = 0.1
"""Seconds after which a waiter looks for a deadlock that involves other servers; then after twice as long, ..."""
LONGEST_PAUSE = 5.0
"""... and at least every so many seconds."""

guard = renewed(threading.Lock())
_waiting: dict[OwnerKey, Waiter] = {}
_sequence = itertools.count(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)


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

    def grant(self, hold: Hold, *, guest: bool = False) -> None:
        """Give it the lock, or let it in as a guest; the guard is held."""
        lock, owner, place = self.lock, self.call.owner.key, self.lock._queue.index(self)
        # Nothing is called from here to the last line: see above.
        if guest:
            lock._guests = [*lock._guests, hold]
        else:
            lock._hold = hold
        del lock._queue[place]
        self.hold = hold
        self.granted = True
        if owner in _waiting and _waiting[owner] is self:
            del _waiting[owner]
        self.wake.release()

    def go_on(self, inside: Hold) -> None:
        """Let an operation that gave way go on, now that its guest has left; the guard is held."""
        owner = self.call.owner.key
        inside.returning = None
        self.granted = True
        if owner in _waiting and _waiting[owner] is self:
            del _waiting[owner]
        self.wake.release()

    def withdraw(self, failure: BaseException) -> None:
        """Take it out of the queue, to end with ``failure``; the guard is held."""
        self.failure = failure
        self.lock._forget(self)
        self._leave_graph()

    def fail(self, failure: BaseException) -> None:
        """Withdraw it and wake it; the guard is held."""
        self.withdraw(failure)
        self.wake.release()

    def _leave_graph(self) -> None:
        if _waiting.get(self.call.owner.key) is self:
            del _waiting[self.call.owner.key]


def find_cycle_here(lock: OwnedLock, call: Call) -> list[str] | None:
    """Return the parties of the cycle that ``call`` would close by waiting for ``lock``, or None; the guard is held."""
    # Holder -> what it waits for -> its holder, until that leads back.
    wanted = lock.name
    parties = []
    seen: set[int] = set()
    while True:
        hold = lock._innermost()
        if hold is None:
            return None
        if hold.owner.key == call.owner.key:
            if hold.broken is not None or (lock._by_chain and hold.key != call.chain):
                return None  # a body that this owner abandoned: it ends by itself
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
            (hold := waiter.lock._innermost()) is not None and hold.owner.key == owner for waiter in _waiting.values()
        )


def waits() -> list[Wait]:
    """Return the wait graph of this process."""
    with guard:
        edges = [(waiter, hold) for waiter in _waiting.values() if (hold := waiter.lock._innermost()) is not None]
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
            waiter.fail(reason)
        elif waiter.hold is not None:
            # It has not woken up yet. What it was granted goes back now: later that could be another's.
            waiter.failure, waiter.granted = reason, False
            waiter.lock._give_back(waiter)


def end_session(session: Session) -> None:
    """Mark a session as ended and withdraw every wait that came over it: none of them is granted from now on."""
    with guard:
        session.ended = True
        for waiter in [waiter for waiter in _waiting.values() if waiter.call.session is session]:
            waiter.fail(OperationCancelled("the waiting process has ended"))


def end_deadlock(owner: OwnerKey, sequence: int, parties: list[str]) -> None:
    """Have an owner's wait, if it is still the one with this sequence number, end with a DeadlockError."""
    with guard:
        waiter = _waiting.get(owner)
        if waiter is not None and waiter.sequence == sequence:
            waiter.fail(DeadlockError(waiter.lock.name, parties))


def sequence_of(call: Call) -> int | None:
    """Return the sequence number of the wait that a call is in."""
    with guard:
        waiter = _waiting.get(call.owner.key)
        return waiter.sequence if waiter is not None and waiter.call is call else None
