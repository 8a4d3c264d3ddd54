"""The mutex for users: with the same methods in this process and on a server."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from catkit_devices._base.timeouts import default_timeout, seconds
from catkit_devices.errors import CatkitDevicesError, MutexNotHeldError, MutexTimeoutError
from catkit_devices.multiprocessing.locks.lock import OwnedLock, new_section, newest
from catkit_devices.multiprocessing.locks.owner import Call, calling, current_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from catkit_devices.multiprocessing.locks.lock import Holder, Section

__all__ = [
    "DEFAULT_TIMEOUT",
    "Mutex",
    "acquire_again",
    "exit_section",
    "leave",
    "lock_all",
]

DEFAULT_TIMEOUT = 60.0
"""Seconds that acquiring a mutex waits by default: longer than almost every operation of an instrument."""


class Lockable(Protocol):
    """The lock of a mutex: an ``OwnedLock`` of this process, or one on a server."""

    name: str

    @property
    def order(self) -> tuple[str | int, ...]: ...
    @property
    def found_by(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None: ...
    def acquire(self, call: Call, timeout: float, section: Section | None = None, site: str | None = None) -> None: ...
    def release(self, call: Call, section: Section | None = None) -> None: ...
    def opened(self, call: Call) -> list[Section]: ...
    def holder(self) -> Holder | None: ...
    def waiters(self) -> list[Holder]: ...
    def break_(self, reason: str) -> str | None: ...


_ONCE = (None,)
"""For a loop with one round: at its end, CPython handles the signals that have come."""


def leave(due: list[Any], *, again: bool = False) -> None:
    """Release mutexes, the last one first, each once.

    Args:
        due: mutexes, objects that have one as ``.mutex``, or ``lock_all``. If this is interrupted, the list contains
            what must still be released.
        again: whether it was interrupted before.

    Raises:
        MutexError: one could not be released; the others are released nevertheless.
    """
    while due:
        one = due[-1]
        if isinstance(one, lock_all):
            due[-1:] = one.mutexes
            continue
        if not isinstance(one, tuple):
            lock = one.underlying if isinstance(one, Mutex) else one.mutex.underlying
            call = current_call()
            one = due[-1] = (lock, call, newest(lock.opened(call)))
        lock, call, section = one
        try:
            lock.release(call, section)
        except CatkitDevicesError as error:
            if isinstance(error, MutexNotHeldError) and not again and (others := lock.opened(call)):
                due[-1] = (lock, call, newest(others))  # another thread that acts for the owner has closed that one
                continue
            del due[-1]
            leave(due)
            if again and isinstance(error, MutexNotHeldError):
                return  # it was released before the interrupt
            raise
        del due[-1]


def exit_section(
    self: Any,
    kind: type[BaseException] | None,  # noqa: ARG001 - as every __exit__
    error: BaseException | None,
    traceback: TracebackType | None,  # noqa: ARG001 - as every __exit__
) -> None:
    """``__exit__`` of everything that holds one or several mutexes during a block.

    Wherever Ctrl-C interrupts it, the mutexes are released.
    """
    due = [self]
    try:
        leave(due)
    except MutexNotHeldError:
        if error is None:
            raise  # if the block has raised an error, that one is more useful
    except BaseException:
        leave(due, again=True)
        raise


class Mutex:
    """A fair, reentrant lock that belongs to one owner: a thread of a process, or an asyncio task.

    Guarantees: at most one owner is inside. Waiters enter in the order in which they asked. When a process ends, even
    if it is killed, its mutexes are released. A live owner keeps its mutex as long as it does not release it. A wait
    that could never end raises an error at once. Two mutexes with the same lock are equal.

    Args:
        name: shown in messages; on a server, the name by which others find it.
        timeout: default of ``acquire``, in seconds.
        lock: another mutex whose lock this one uses, with its own name and timeout.
    """

    __slots__ = ("name", "timeout", "underlying")

    def __init__(self, name: str | None = None, timeout: float = DEFAULT_TIMEOUT, lock: Mutex | None = None) -> None:
        self.timeout = default_timeout(timeout, f"mutex {name!r}")
        self.underlying: Lockable = lock.underlying if lock is not None else OwnedLock(name or "mutex")
        self.name = name if name is not None else self.underlying.name

    @classmethod
    def over(cls, lock: Lockable, timeout: float) -> Mutex:
        """Return a mutex for the lock, with the name of the lock."""
        mutex = cls.__new__(cls)
        mutex.underlying, mutex.name, mutex.timeout = lock, lock.name, timeout
        return mutex

    def acquire(self, timeout: float | None = None, raise_on_fail: bool = True) -> bool:
        """Acquire it; an owner that has it already holds it one level deeper.

        Args:
            timeout: seconds to wait; None for the mutex's own default, 0 to try once.
            raise_on_fail: whether to raise when the time is over; if not, return False then.

        Raises:
            ValueError: ``timeout`` is not a number of seconds.
            MutexTimeoutError: not acquired in time; the message says who has it, since when, from where.
            DeadlockError: the wait would never have ended; the message names every party.
            MutexBrokenError: the mutex was broken while this owner held it, and it has not left its section yet.
        """
        timeout = self.timeout if timeout is None else seconds(timeout, f"mutex {self.name!r}")
        try:
            self.underlying.acquire(current_call(), timeout, site=call_site())
        except MutexTimeoutError:
            if raise_on_fail:
                raise
            return False
        return True

    def release(self) -> None:
        """Release it, or one level of it.

        Raises:
            MutexBrokenError: it was taken from this owner by force meanwhile.
            MutexNotHeldError: this owner does not hold it.
        """
        self.__exit__(None, None, None)

    def break_(self, reason: str) -> str | None:
        """Take it from its holder by force; return who that was, or None. See ``MutexBrokenError``."""
        return self.underlying.break_(reason)

    @property
    def holder(self) -> Holder | None:
        """Who holds it, for how long, how deep and from where; None if nobody does."""
        return self.underlying.holder()

    @property
    def waiters(self) -> list[Holder]:
        """Who waits for it, in the order in which they asked."""
        return self.underlying.waiters()

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self.underlying.holder() is not None

    def __enter__(self) -> Self:
        self.acquire()
        try:
            for _ in _ONCE:  # a Ctrl-C that has come by now is raised here, and not when __exit__ is entered
                continue
        except BaseException:
            leave([self])
            raise
        return self

    __exit__ = exit_section

    async def __aenter__(self) -> Self:
        await _acquire_while_others_run(self, self.timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<Mutex {self.name!r}: {self.holder or 'free'}>"

    def __eq__(self, other: object) -> bool:
        return self.underlying == other.underlying if isinstance(other, Mutex) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.underlying)

    def __reduce__(self) -> Any:
        way = self.underlying.found_by
        if way is None:
            raise TypeError(
                f"mutex {self.name!r} is in this process only and cannot be sent to another; "
                "get one by name from a SharedMemoryManager: manager.get_mutex(name)"
            )
        find, place = way
        return find, (*place, self.name, self.timeout)


def acquire_again(mutex: Mutex, sections: list[Section]) -> None:
    """Open sections of a mutex that were open before, even if the caller's operation is cancelled meanwhile."""
    call = current_call()
    again = Call(call.owner, call.chain, call.session, call.number)
    with calling(again):
        for section in sections:
            mutex.underlying.acquire(again, mutex.timeout, section, call_site())


async def _acquire_while_others_run(mutex: Mutex, timeout: float) -> None:
    """Acquire it as ``Mutex.acquire`` does, while the other tasks of this thread continue."""
    import asyncio

    call = current_call()
    call.apart = True
    section, site = new_section(), call_site()

    def acquire() -> None:
        with calling(call):
            mutex.underlying.acquire(call, timeout, section, site)

    waiting = asyncio.ensure_future(asyncio.to_thread(acquire))
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        # The thread may get the mutex after its task was cancelled: then it must be released here.
        call.cancel(asyncio.CancelledError())
        with contextlib.suppress(BaseException):
            await waiting
            mutex.underlying.release(call, section)
        raise


def call_site() -> str:
    """Return file:line of the nearest caller outside this framework and contextlib, for a method of the framework."""
    frame = sys._getframe(2)  # noqa: SLF001 - the public way is in inspect, whose import would slow down every child
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    path = frame.f_code.co_filename
    return f"{path[path.rfind('/') + 1 :]}:{frame.f_lineno}"


_OURS = (
    "catkit_devices.multiprocessing",
    "catkit_devices._",
    "catkit_devices.device",
    "catkit_devices.testbed",
    "contextlib",
)
"""Modules that are not the caller who is to be named."""


class lock_all:  # noqa: N801 - reads as a statement: with lock_all(a, b):
    """Hold several mutexes (or devices) during a block, ``with`` or ``async with``: all of them or none.

    They are acquired in an order that is the same in every process. So two processes that name the same mutexes in
    different orders never block each other.

    Args:
        *lockables: mutexes, or objects that have one as ``.mutex``.
        timeout: seconds for all of them together; None for the longest of their own timeouts.

    Raises:
        MutexTimeoutError: not all were acquired in time; none is held.
        DeadlockError: as ``Mutex.acquire``; none is held.
    """

    def __init__(self, *lockables: Any, timeout: float | None = None) -> None:
        mutexes = [lockable if isinstance(lockable, Mutex) else lockable.mutex for lockable in lockables]
        self.mutexes = sorted(mutexes, key=lambda mutex: mutex.underlying.order)
        longest = max((mutex.timeout for mutex in mutexes), default=0.0)
        self._timeout = longest if timeout is None else seconds(timeout, "lock_all")

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        held = 0
        try:
            for mutex in self.mutexes:
                mutex.acquire(max(0.0, deadline - time.monotonic()))
                held += 1  # no function is called between the two lines, so Ctrl-C cannot come there
        except BaseException:
            leave(self.mutexes[:held])
            raise

    __exit__ = exit_section

    async def __aenter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        held = 0
        try:
            for mutex in self.mutexes:
                await _acquire_while_others_run(mutex, max(0.0, deadline - time.monotonic()))
                held += 1
        except BaseException:
            leave(self.mutexes[:held])
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Mutex]:
        return iter(self.mutexes)
