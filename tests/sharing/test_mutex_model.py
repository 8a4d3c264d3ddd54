"""The lock against a model of a page: owners, nesting, sessions that end, breaks, timeouts, all in random order."""

import threading
import time

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catkit_devices.errors import (
    DeadlockError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    OperationCancelled,
)
from catkit_devices.multiprocessing.locks import lock as locks
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import Mutex, lock_all
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session, calling

OWNERS = 4
LOCKS = 3


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


class Model(RuleBasedStateMachine):
    """For each lock: who holds it how deep, who waits in which order, who is fenced how deep."""

    def __init__(self):
        super().__init__()
        self.locks = [OwnedLock(f"lock {number}") for number in range(LOCKS)]
        self.sessions = [Session(f"session {number}", f"process {number}", number, "host") for number in range(OWNERS)]
        self.owners = [
            Owner((f"process {number}", number, 0), f"process {number}", number, "host", "t")
            for number in range(OWNERS)
        ]
        self.holder = [None] * LOCKS
        self.depth = [0] * LOCKS
        self.queue = [[] for _ in range(LOCKS)]
        self.fence = [{} for _ in range(LOCKS)]
        self.waits = {}

    def call(self, owner):
        return Call(self.owners[owner], object(), self.sessions[owner])

    def closes_cycle(self, owner, lock):
        seen = set()
        while (holder := self.holder[lock]) is not None and lock not in seen:
            if holder == owner:
                return True
            seen.add(lock)
            if holder not in self.waits:
                return False
            lock = self.waits[holder][0]
        return False

    def grant_on(self, lock):
        if self.holder[lock] is None and self.queue[lock]:
            owner = self.queue[lock].pop(0)
            _, waiting = self.waits.pop(owner)
            assert waiting.result() == "granted"
            self.holder[lock], self.depth[lock] = owner, 1

    free_owner = st.integers(0, OWNERS - 1)
    any_lock = st.integers(0, LOCKS - 1)

    @rule(owner=free_owner, lock=any_lock)
    def acquire(self, owner, lock):
        if owner in self.waits:
            return
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
        else:
            self.queue[lock].append(owner)
            before = len(self.locks[lock].waiters())
            self.waits[owner] = (lock, Waiting(self.locks[lock], call))
            deadline = time.monotonic() + 5
            while len(self.locks[lock].waiters()) == before:
                assert time.monotonic() < deadline, "it should have waited"

    @rule(owner=free_owner, lock=any_lock)
    def try_once(self, owner, lock):
        if owner in self.waits or self.holder[lock] in (None, owner) or owner in self.fence[lock]:
            return
        assert self.error(lambda: self.locks[lock].acquire(self.call(owner), 0)) is MutexTimeoutError

    @rule(owner=free_owner, numbers=st.sets(any_lock, min_size=1))
    def take_all_or_none(self, owner, numbers):
        if owner in self.waits:
            return
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

    @rule(owner=free_owner, lock=any_lock)
    def release(self, owner, lock):
        if owner in self.waits:
            return
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

    @rule(owner=free_owner)
    def die(self, owner):
        session = self.sessions[owner]
        waited = self.waits.pop(owner, None)
        if waited is not None:
            self.queue[waited[0]].remove(owner)
        locks.end_session(session)
        for lock in self.locks:
            lock.end_session(session)
        if waited is not None:
            assert waited[1].result() is OperationCancelled
        for number in range(LOCKS):
            self.fence[number].pop(owner, None)
            if self.holder[number] == owner:
                self.holder[number], self.depth[number] = None, 0
                self.grant_on(number)
        # Its dead session is never granted anything again; the owner comes back as a new process.
        assert self.error(lambda: self.locks[0].acquire(Call(self.owners[owner], object(), session), 0)) is (
            OperationCancelled
        )
        self.sessions[owner] = Session(f"{session.id}'", session.process, session.pid, "host")

    @rule(owner=free_owner)
    @precondition(lambda self: self.waits)
    def interrupt_a_wait(self, owner):
        if owner not in self.waits:
            return
        lock, waiting = self.waits.pop(owner)
        self.queue[lock].remove(owner)
        locks.cancel(waiting.call, KeyboardInterrupt())
        assert waiting.result() is KeyboardInterrupt

    @invariant()
    def who_holds_and_who_waits_is_as_the_model_says(self):
        for number, lock in enumerate(self.locks):
            holder = lock.holder()
            assert (holder is None) == (self.holder[number] is None)
            if holder is not None:
                assert holder.depth == self.depth[number]
                assert f"'process {self.holder[number]}'" in holder.owner
            assert [
                f"'process {owner}'" in waiter.owner
                for owner, waiter in zip(self.queue[number], lock.waiters(), strict=True)
            ] == [True] * len(self.queue[number])

    def teardown(self):
        for owner in range(OWNERS):
            locks.end_session(self.sessions[owner])
            for lock in self.locks:
                lock.end_session(self.sessions[owner])
        for _, waiting in self.waits.values():
            waiting.result()
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
