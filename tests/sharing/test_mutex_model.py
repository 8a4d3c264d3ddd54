"""The lock against a short model: owners, lent ones, nesting, sessions that end, breaks, timeouts, in random order."""

import threading
import time
from functools import partial

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catkit_devices.errors import (
    DeadlockError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    OperationCancelled,
    SessionEndedError,
)
from catkit_devices.multiprocessing.locks import lock as locks
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import Mutex, lock_all
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session, calling

SESSION_OF = (0, 0, 1, 2)
"""The session of each owner: sessions 0 and 1 are of one process, 2 is of another one."""
OWNERS = len(SESSION_OF)
SESSIONS = 3
LOCKS = 3
THREADS = 2
"""How many threads may wait for one owner at the same time: an owner can be lent."""


class Waiting:
    """One acquire in a thread of its own, so that it can wait."""

    def __init__(self, lock, call):
        self.outcome = None
        self.call = call
        self._thread = threading.Thread(target=self._acquire, args=(lock, call), daemon=True)
        self._thread.start()

    def _acquire(self, lock, call):
        try:
            lock.acquire(call, 60.0)
            self.outcome = "granted"
        except BaseException as error:
            self.outcome = type(error)

    def result(self):
        self._thread.join(5)
        assert not self._thread.is_alive(), "neither granted nor withdrawn"
        return self.outcome


class Wait:
    """One thread that waits for an owner."""

    def __init__(self, owner, lock, waiting):
        self.owner = owner
        self.lock = lock
        self.waiting = waiting


class Model(RuleBasedStateMachine):
    """For each lock: who holds it how deep, who waits in which order, who is fenced how deep."""

    def __init__(self):
        super().__init__()
        self.locks = [OwnedLock(f"lock {number}") for number in range(LOCKS)]
        self.sessions = [self.new_session(number, 0) for number in range(SESSIONS)]
        self.owners = [
            Owner((f"session {session}", number, 0), f"owner {number}", number, "host", "t")
            for number, session in enumerate(SESSION_OF)
        ]
        self.holder = [None] * LOCKS
        self.depth = [0] * LOCKS
        self.queue = [[] for _ in range(LOCKS)]
        self.fence = [{} for _ in range(LOCKS)]

    @staticmethod
    def new_session(number, life):
        process = number // 2
        return Session(
            f"session {number}.{life}", f"session {number}", process, "host", f"session of process {process}"
        )

    def call(self, owner):
        return Call(self.owners[owner], object(), self.sessions[SESSION_OF[owner]])

    def waits_of(self, owner):
        return [wait for queue in self.queue for wait in queue if wait.owner == owner]

    def closes_cycle(self, owner, lock):
        locks_to_see, seen = [lock], set()
        while locks_to_see:
            one = locks_to_see.pop()
            if self.holder[one] is None or one in seen:
                continue
            seen.add(one)
            if self.holder[one] == owner:
                return True
            locks_to_see += [wait.lock for wait in self.waits_of(self.holder[one])]
        return False

    def grant_on(self, lock):
        if self.holder[lock] is None and self.queue[lock]:
            owner = self.queue[lock][0].owner
            granted = [wait for wait in self.queue[lock] if wait.owner == owner]  # all threads that wait for it
            self.queue[lock] = [wait for wait in self.queue[lock] if wait.owner != owner]
            for wait in granted:
                assert wait.waiting.result() == "granted"
            self.holder[lock], self.depth[lock] = owner, len(granted)

    any_owner = st.integers(0, OWNERS - 1)
    any_lock = st.integers(0, LOCKS - 1)

    @rule(owner=any_owner, lock=any_lock)
    def acquire(self, owner, lock):
        call = self.call(owner)
        if self.holder[lock] == owner:
            self.locks[lock].acquire(call, 0)
            self.depth[lock] += 1
        elif owner in self.fence[lock]:
            assert self.error(lambda: self.locks[lock].acquire(call, 60)) is MutexBrokenError
        elif self.holder[lock] is None:
            self.locks[lock].acquire(call, 0)
            self.holder[lock], self.depth[lock] = owner, 1
        elif self.closes_cycle(owner, lock):
            assert self.error(lambda: self.locks[lock].acquire(call, 60)) is DeadlockError
        elif len(self.waits_of(owner)) < THREADS:
            before = len(self.locks[lock].waiters())
            self.queue[lock].append(Wait(owner, lock, Waiting(self.locks[lock], call)))
            deadline = time.monotonic() + 5
            while len(self.locks[lock].waiters()) == before:
                assert time.monotonic() < deadline, "it should have waited"

    @rule(owner=any_owner, lock=any_lock)
    def try_once(self, owner, lock):
        if self.holder[lock] in (None, owner) or owner in self.fence[lock]:
            return
        assert self.error(lambda: self.locks[lock].acquire(self.call(owner), 0)) is MutexTimeoutError

    @rule(owner=any_owner, numbers=st.sets(any_lock, min_size=1))
    def take_all_or_none(self, owner, numbers):
        several = lock_all(*(Mutex.over(self.locks[number], 60.0) for number in numbers), timeout=0)
        expected = None
        for number in (self.locks.index(mutex.underlying) for mutex in several):  # in the order in which it takes them
            if self.holder[number] == owner:
                continue
            if owner in self.fence[number]:
                expected = MutexBrokenError
            elif self.holder[number] is not None:
                expected = MutexTimeoutError
            if expected is not None:
                break
        with calling(self.call(owner)):
            assert self.error(several.__enter__) is expected
        if expected is None:
            for number in numbers:
                self.holder[number] = owner
                self.depth[number] += 1

    @rule(owner=any_owner, lock=any_lock)
    def release(self, owner, lock):
        call = self.call(owner)
        if owner in self.fence[lock]:
            assert self.error(lambda: self.locks[lock].release(call)) is MutexBrokenError
            self.fence[lock][owner] -= 1
            if not self.fence[lock][owner]:
                del self.fence[lock][owner]
        elif self.holder[lock] != owner:
            assert self.error(lambda: self.locks[lock].release(call)) is MutexNotHeldError
        else:
            self.locks[lock].release(call)
            self.depth[lock] -= 1
            if not self.depth[lock]:
                self.holder[lock] = None
                self.grant_on(lock)

    @rule(lock=any_lock)
    def break_by_force(self, lock):
        whose = self.locks[lock].break_("the model said so")
        assert (whose is None) == (self.holder[lock] is None)
        if self.holder[lock] is not None:
            self.fence[lock][self.holder[lock]] = self.depth[lock]
            self.holder[lock], self.depth[lock] = None, 0
            self.grant_on(lock)

    @rule(number=st.integers(0, SESSIONS - 1))
    def die(self, number):
        session = self.sessions[number]
        dead = [owner for owner in range(OWNERS) if SESSION_OF[owner] == number]
        waited = [wait for owner in dead for wait in self.waits_of(owner)]
        for wait in waited:
            self.queue[wait.lock].remove(wait)
        locks.end_session(session)
        for lock in self.locks:
            lock.end_session(session)
        for wait in waited:
            assert wait.waiting.result() is SessionEndedError
        for lock in range(LOCKS):
            for owner in dead:
                self.fence[lock].pop(owner, None)
            if self.holder[lock] in dead:
                self.holder[lock], self.depth[lock] = None, 0
                self.grant_on(lock)
        # A session that has ended is never granted anything again; its owners come back in a new one.
        for owner in dead:
            assert self.error(partial(self.locks[0].acquire, self.call(owner), 0)) is SessionEndedError
        life = int(session.id.partition(".")[2]) + 1
        self.sessions[number] = self.new_session(number, life)

    @rule(owner=any_owner, thread=st.integers(0, THREADS - 1))
    @precondition(lambda self: any(self.queue))
    def interrupt_a_wait(self, owner, thread):
        waits = self.waits_of(owner)
        if thread >= len(waits):
            return
        wait = waits[thread]
        self.queue[wait.lock].remove(wait)
        locks.cancel(wait.waiting.call, KeyboardInterrupt())
        assert wait.waiting.result() is KeyboardInterrupt

    @rule(owner=any_owner, lock=any_lock)
    def give_up_a_section(self, owner, lock):
        """The client does not know whether it has opened it."""
        sections = self.locks[lock].opened(self.call(owner))
        for _ in range(2):  # it may be told twice
            for section in sections[:1]:
                self.locks[lock].close_section(section)
        if owner in self.fence[lock]:
            self.fence[lock][owner] -= 1
            if not self.fence[lock][owner]:
                del self.fence[lock][owner]
        elif self.holder[lock] == owner:
            self.depth[lock] -= 1
            if not self.depth[lock]:
                self.holder[lock] = None
                self.grant_on(lock)
        else:
            assert not sections

    @invariant()
    def who_holds_and_who_waits_is_as_the_model_says(self):
        for number, lock in enumerate(self.locks):
            holder = lock.holder()
            assert (holder is None) == (self.holder[number] is None)
            if holder is not None:
                assert holder.depth == self.depth[number]
                assert holder.process == f"owner {self.holder[number]}"
            assert [f"owner {wait.owner}" for wait in self.queue[number]] == [
                waiter.process for waiter in lock.waiters()
            ]

    def teardown(self):
        for session in self.sessions:
            locks.end_session(session)
            for lock in self.locks:
                lock.end_session(session)
        for queue in self.queue:
            for wait in queue:
                wait.waiting.result()
        assert locks.waits() == []

    @staticmethod
    def error(attempt):
        try:
            attempt()
        except BaseException as error:
            return type(error)
        return None


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_lock_behaves_as_its_model = Model.TestCase


def test_a_waiter_whose_process_has_ended_is_skipped_even_before_the_end_of_its_session_is_handled():
    lock = OwnedLock("m")
    sessions = [Session(f"s{number}", f"process {number}", number, "host") for number in range(3)]
    calls = [Call(Owner((s.id, 1, 0), s.process, s.pid, s.host, "t"), object(), s) for s in sessions]
    lock.acquire(calls[0], 0)
    waiting = []
    for call in calls[1:]:
        waiting.append(Waiting(lock, call))
        while len(lock.waiters()) < len(waiting):
            time.sleep(0.001)
    sessions[1].gone = lambda: True
    lock.release(calls[0])
    assert [one.result() for one in waiting] == [OperationCancelled, "granted"]
    assert lock.holder().process == "process 2"
