"""The mutex that users hold: the same words for one in this process and for one that lives on a server."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from catkit_devices._base.timeouts import default_timeout, seconds
from catkit_devices.errors import CatkitDevicesError, MutexNotHeldError, MutexTimeoutError
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.owner import Call, calling, current_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from catkit_devices.multiprocessing.locks.lock import Holder

__all__ = [
    "DEFAULT_TIMEOUT",
    "Mutex",
    "acquire_again",
    "exit_section",
    "leave",
    "lock_all",
]

DEFAULT_TIMEOUT = 60.0
"""Seconds that a mutex is waited for unless told otherwise."""


class Lockable(Protocol):
    """What a mutex acts on: an ``OwnedLock`` here, or its counterpart on a server."""

    name: str

    @property
    def order(self) -> tuple[str | int, ...]: ...
    @property
    def found_by(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None: ...
    def acquire(self, call: Call, timeout: float, depth: int | None = None, site: str | None = None) -> None: ...
    def release(self, call: Call, depth: int | None = None) -> None: ...
    def depth(self, call: Call) -> int: ...
    def holder(self) -> Holder | None: ...
    def waiters(self) -> list[Holder]: ...
    def break_(self, reason: str) -> str | None: ...


_ONCE = (None,)
"""For a loop: at the end of each of its rounds CPython sees to the signals that have come."""


def leave(due: list[Any], *, again: bool = False) -> None:
    """Release mutexes, the last one first, each once.

    Args:
        due: mutexes, what has one as ``.mutex``, ``lock_all``; when this is interrupted, what is still to be done.
        again: whether it was interrupted.

    Raises:
        MutexError: the last one that a mutex raised; the others are released all the same.
    """
    while due:
        one = due[-1]
        if isinstance(one, lock_all):
            due[-1:] = one.mutexes
            continue
        if not isinstance(one, tuple):
            lock = one.underlying if isinstance(one, Mutex) else one.mutex.underlying
            call = current_call()
            one = due[-1] = (lock, call, lock.depth(call) - 1)
        lock, call, depth = one
        try:
            lock.release(call, depth)
        except CatkitDevicesError as error:
            del due[-1]
            leave(due)
            if again and isinstance(error, MutexNotHeldError):
                return  # done before the interrupt
            raise
        del due[-1]


def exit_section(
    self: Any,
    kind: type[BaseException] | None,  # noqa: ARG001 - as every __exit__
    error: BaseException | None,
    traceback: TracebackType | None,  # noqa: ARG001 - as every __exit__
) -> None:
    """``__exit__`` of what holds one mutex or several during a block.

    Whatever Ctrl-C interrupts from its first line on, the block is left without them.
    """
    due = [self]
    try:
        leave(due)
    except MutexNotHeldError:
        if error is None:
            raise  # else what ended the block says more
    except BaseException:
        leave(due, again=True)
        raise


class Mutex:
    """A fair, reentrant lock that belongs to one owner: a thread of a process, or an asyncio task.

    Guarantees: at most one owner is inside; waiters enter in the order in which they asked; a session that ends (a
    process that is killed, say) gives back what it held; a live owner keeps its mutex for as long as it likes; waiting
    that could never end raises at once instead. Two that are the same lock are equal.

    Args:
        name: shown in messages; on a server, what others find it by.
        timeout: seconds that ``acquire`` waits unless told otherwise.
        lock: another mutex whose lock this one shares, with a name and timeout of its own.
    """

    __slots__ = ("name", "timeout", "underlying")

    def __init__(self, name: str | None = None, timeout: float = DEFAULT_TIMEOUT, lock: Mutex | None = None) -> None:
        self.timeout = default_timeout(timeout, f"mutex {name!r}")
        self.underlying: Lockable = lock.underlying if lock is not None else OwnedLock(name or "mutex")
        self.name = name if name is not None else self.underlying.name

    @classmethod
    def over(cls, lock: Lockable, timeout: float) -> Mutex:
        """Return a mutex that is the lock, under the lock's name."""
        mutex = cls.__new__(cls)
        mutex.underlying, mutex.name, mutex.timeout = lock, lock.name, timeout
        return mutex

    def acquire(self, timeout: float | None = None, raise_on_fail: bool = True) -> bool:
        """Enter, or nest one deeper.

        Args:
            timeout: seconds to wait; None for the mutex's own default (never for ever), 0 to try once.
            raise_on_fail: return False instead of raising when the time is over.

        Raises:
            ValueError: ``timeout`` is no number.
            MutexTimeoutError: not acquired in time; says who has it, since when, from where.
            DeadlockError: waiting would never have ended; names every party.
            MutexBrokenError: this owner's section was broken by force and it has not left it yet.
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
        """Leave, or come back one level.

        Raises:
            MutexBrokenError: it was taken away by force meanwhile.
            MutexNotHeldError: this owner does not hold it.
        """
        self.__exit__(None, None, None)

    def break_(self, reason: str) -> str | None:
        """Take it from whoever holds it, by force; return who that was. See ``MutexBrokenError``."""
        return self.underlying.break_(reason)

    @property
    def holder(self) -> Holder | None:
        """Who holds it, for how long, how deep and from where; None when nobody does."""
        return self.underlying.holder()

    @property
    def waiters(self) -> list[Holder]:
        """Who waits for it, first come first."""
        return self.underlying.waiters()

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self.underlying.holder() is not None

    def __enter__(self) -> Self:
        self.acquire()
        try:
            for _ in _ONCE:  # Ctrl-C that has come by now is raised here, and not on entry to __exit__
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
                f"mutex {self.name!r} lives in this process only and cannot be sent to another; "
                "get one by name from a SharedMemoryManager: manager.get_mutex(name)"
            )
        find, place = way
        return find, (*place, self.name, self.timeout)


def acquire_again(mutex: Mutex, depth: int) -> None:
    """Acquire a mutex as deep as it was held before; what cancels the caller's operation does not cancel this."""
    call = current_call()
    again = Call(call.owner, call.chain, call.session, call.number)
    with calling(again):
        mutex.underlying.acquire(again, mutex.timeout, depth, call_site())


async def _acquire_while_others_run(mutex: Mutex, timeout: float) -> None:
    """As ``Mutex.acquire``, but the other tasks of this thread go on meanwhile."""
    import asyncio

    call = current_call()
    call.apart = True
    site = call_site()

    def acquire() -> None:
        with calling(call):
            mutex.underlying.acquire(call, timeout, site=site)

    waiting = asyncio.ensure_future(asyncio.to_thread(acquire))
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        # The thread may win the mutex after its task was cancelled: then nobody else would ever give it back.
        call.cancel(asyncio.CancelledError())
        with contextlib.suppress(BaseException):
            await waiting
            mutex.underlying.release(call)
        raise


def call_site() -> str:
    """Return file:line of the nearest caller outside this framework and contextlib."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect has it too, and would cost every child its import
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


class lock_all:  # noqa: N801 - reads as a statement: with lock_all(a, b):
    """Hold several mutexes (or devices) during a block, ``with`` or ``async with``: all of them or none.

    They are acquired in one order that is the same in every process, so two that ask for the same ones in different
    orders never block each other.

    Args:
        *lockables: mutexes, or anything that has one as ``.mutex``.
        timeout: seconds for all of them together; None for the longest of their own defaults.

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
                held += 1  # nothing is called between the two lines, and Ctrl-C comes on calls
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
