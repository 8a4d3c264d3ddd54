"""Whose turn it is at one instrument: exchanges one at a time, and the locks of VISA.

The rules are those of VISA (VPP-4.3, 3.6) and of HiSLIP (IVI-6.1, 2.5). While somebody has the exclusive lock, nobody
else uses the instrument. While some share a lock, only they do; one of them may take the exclusive lock in addition.
Programs that must wait are in a queue. None overtakes another, except for holders of a lock: the others wait until
these are done.
"""

from __future__ import annotations

import asyncio

from catkit_devices.gateway.doors import LockAnswer, LockState

__all__ = ["Turns"]


class Turns:
    """Who uses one instrument, and who waits for it. To be used in one event loop."""

    def __init__(self) -> None:
        self._user: object | None = None
        self._exclusive: object | None = None
        self._sharing: set[object] = set()
        self._key = b""
        self._queue: list[_Request] = []

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def state(self) -> LockState:
        """Return who has locks."""
        holders = self._sharing | ({self._exclusive} - {None})
        return LockState(self._exclusive is not None, len(holders))

    def may_clear(self, who: object) -> bool:
        """Whether ``who`` may clear the instrument: nobody else is using it, or has a lock that excludes it."""
        return self._user in (None, who) and self._has_access(who)

    @property
    def user(self) -> object | None:
        """Who uses the instrument now."""
        return self._user

    async def begin(self, who: object) -> None:
        """Wait until ``who`` may use the instrument; :meth:`end` must follow."""
        if not self._queue and self._user is None and self._has_access(who):
            self._user = who
            return
        await self._granted(_Request(who))

    def end(self) -> None:
        """End the use of the instrument that was begun."""
        self._user = None
        self._grant()

    async def lock(self, who: object, key: bytes, timeout: float) -> LockAnswer:
        """Wait for a lock at most ``timeout`` seconds: with an empty ``key`` the exclusive one, else a shared one."""
        if who in self._sharing if key else who is self._exclusive:
            return LockAnswer.ERROR
        request = _Request(who, key)
        try:
            if timeout > 0:
                async with asyncio.timeout(timeout):
                    await self._granted(request)
            else:
                self._tried(request)
        except TimeoutError:
            return LockAnswer.FAILURE
        return LockAnswer.SUCCESS

    def unlock(self, who: object) -> LockAnswer:
        """Give back the exclusive lock of ``who``, or else its shared one."""
        if who is self._exclusive:
            self._exclusive = None
            answer = LockAnswer.SUCCESS
        elif who in self._sharing:
            self._sharing.discard(who)
            answer = LockAnswer.SUCCESS_SHARED
        else:
            return LockAnswer.ERROR
        self._grant()
        return answer

    def leave(self, who: object) -> None:
        """Give back all locks of ``who``."""
        while self.unlock(who) is not LockAnswer.ERROR:
            pass

    # --- the queue

    async def _granted(self, request: _Request) -> None:
        self._queue.append(request)
        self._grant()
        try:
            await request.granted
        except BaseException:
            if request in self._queue:
                self._queue.remove(request)
            else:  # it was granted in the moment in which its wait ended
                self._take_back(request)
            self._grant()
            raise

    def _tried(self, request: _Request) -> None:
        self._queue.append(request)
        self._grant()
        if request in self._queue:
            self._queue.remove(request)
            raise TimeoutError

    def _grant(self) -> None:
        """Grant what can be granted, in the order in which it was asked for."""
        granted = True
        while granted:
            granted = False
            for index, request in enumerate(self._queue):
                if (index == 0 or self._holds(request.who)) and self._is_possible(request):
                    del self._queue[index]
                    self._give(request)
                    granted = True
                    break

    def _give(self, request: _Request) -> None:
        if request.key is None:
            self._user = request.who
        elif request.key:
            self._sharing.add(request.who)
            self._key = request.key
        else:
            self._exclusive = request.who
        if not request.granted.done():
            request.granted.set_result(None)

    def _take_back(self, request: _Request) -> None:
        if request.key is None:
            self._user = None
        elif request.key:
            self._sharing.discard(request.who)
        else:
            self._exclusive = None

    def _is_possible(self, request: _Request) -> bool:
        if self._user is not None:
            return False
        if request.key:
            return self._exclusive in (None, request.who) and (not self._sharing or request.key == self._key)
        return self._has_access(request.who)

    def _has_access(self, who: object) -> bool:
        if self._exclusive is not None:
            return who is self._exclusive
        return not self._sharing or who in self._sharing

    def _holds(self, who: object) -> bool:
        return who is self._exclusive or who in self._sharing


class _Request:
    """Somebody who waits: for the use of the instrument, or for a lock.

    Args:
        who: it is.
        key: of a shared lock; empty for an exclusive lock; None for the use of the instrument.
    """

    def __init__(self, who: object, key: bytes | None = None) -> None:
        self.who = who
        self.key = key
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
