"""The locks of visitors: held until they are given back, or until the visitor is silent for too long."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.web.problems import Problem
from catkit_devices.web.sessions import require_grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from catkit_devices.web.access import Visitor
    from catkit_devices.web.sessions import Acting, VisitorSessions

__all__ = ["LONGEST_LOCK", "SHORTEST_LOCK", "VisitorLocks"]

SHORTEST_LOCK, LONGEST_LOCK = 2.0, 300.0
"""Seconds within which a lock must be renewed: a visitor that says nothing for longer counts as dead."""
_MOST_LOCKS = 64
"""Locks that visitors may have at the same time."""
_WATCH = 0.5
"""Seconds between two looks whether somebody who has a lock is silent."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Held:
    """The lock of a visitor.

    Attributes:
        devices: which it has.
        acting: the session that holds it.
        section: what is left to give it back.
        lasts: seconds for which it lasts without a sign of the visitor.
        until: when that time is over, on the clock of this computer.
        busy: how many requests of the visitor are being carried out: meanwhile it is not silent.
    """

    devices: tuple[str, ...]
    acting: Acting
    section: Any
    lasts: float
    until: float = 0.0
    busy: int = 0

    def renew(self) -> None:
        self.until = time.monotonic() + self.lasts


class VisitorLocks:
    """The locks that visitors have. For one event loop.

    Args:
        sessions: in which they are held.
    """

    def __init__(self, sessions: VisitorSessions) -> None:
        self._sessions = sessions
        self._client = sessions.client
        self._held: dict[str, _Held] = {}

    def close(self) -> None:
        """End every lock as if its visitor had died, because nobody can give it back any more."""
        for held in list(self._held.values()):
            held.acting.session.abandon()
        self._held.clear()

    async def lock(
        self, visitor: Visitor, names: Sequence[str], wait: float, lasts: float, left: Awaitable[Any]
    ) -> dict[str, Any]:
        """Lock devices for a visitor until it gives them back, or says nothing for ``lasts`` seconds.

        Raises:
            Problem: visitors have too many locks already, or the grant of the agent has ended.
            MutexTimeoutError: somebody else had a device for too long.
        """
        devices = tuple(dict.fromkeys(self._sessions.device(name).name for name in names))
        if len(self._held) >= _MOST_LOCKS:
            raise Problem(429, f"visitors have {_MOST_LOCKS} locks already, which is as many as there may be")
        acting = await self._sessions.begin(visitor)

        def work() -> Any:
            section = self._client.lock(*devices, timeout=wait)
            section.__enter__()  # left by `unlock`, in another request
            return section

        try:
            section = await self._sessions.until_gone(acting, work, left, acting.session.abandon)
            require_grant(visitor)  # it may have ended at the same moment
            token = secrets.token_urlsafe(24)
            held = self._held[token] = _Held(devices, acting, section, lasts)
            held.renew()
        except BaseException:
            await asyncio.shield(self._sessions.urgently(acting.session.abandon))
            raise
        self._sessions.say(f"{visitor} has locked {', '.join(devices)}")
        return {"lock": token, "devices": list(devices), "renew_within": lasts}

    async def renew(self, token: str) -> dict[str, Any]:
        """Keep a lock for as long again."""
        held = self._lock_of(token)
        held.renew()
        return {"devices": list(held.devices), "renew_within": held.lasts}

    def holds(self, token: str) -> bool:
        """Return whether a lock still lasts."""
        return token in self._held

    async def unlock(self, token: str) -> dict[str, Any]:
        """Give a lock back."""
        held = self._lock_of(token)
        if held.busy:
            raise Problem(409, "another request with this lock is still being carried out")
        del self._held[token]

        def leave() -> None:
            try:
                held.acting.run(lambda: held.section.__exit__(None, None, None))
            finally:
                held.acting.session.close()

        await asyncio.shield(self._sessions.urgently(leave))
        return {"devices": list(held.devices)}

    async def act_for(self, visitor: Visitor, lock: str | None, work: Callable[[], Any], left: Awaitable[Any]) -> Any:
        """Do something for a visitor, in the session of its lock or in one of its own."""
        if lock is not None:
            held = self._lock_of(lock)
            held.busy += 1
            try:
                return await self._sessions.until_gone(held.acting, work, left, lambda: self._bury(lock))
            finally:
                held.busy -= 1
                held.renew()
        acting = await self._sessions.begin(visitor)
        end = acting.session.close
        try:
            return await self._sessions.until_gone(acting, work, left, acting.session.abandon)
        except asyncio.CancelledError:  # the service ends before this is done
            end = acting.session.abandon
            raise
        finally:
            await asyncio.shield(self._sessions.urgently(end))

    def end_agent(self, agent: str) -> None:
        """End the locks of an agent as if it had died: their devices are made safe, and given on. It waits for nothing.

        Args:
            agent: its name.
        """
        for token in [token for token, held in self._held.items() if held.acting.visitor.agent == agent]:
            self._sessions.urgently(partial(self._bury, token))

    async def watch(self) -> None:
        """End the locks of those that say nothing for too long or whose grant is over; to be run as a task."""
        while True:
            try:
                await self._bury_the_silent()
            except Exception:  # noqa: BLE001 - it must go on after any error: else a dead visitor kept a device
                _log.exception("the web service could not end the locks of silent visitors; trying again")
            await asyncio.sleep(_WATCH)

    async def _bury_the_silent(self) -> None:
        now = time.monotonic()
        for token, held in list(self._held.items()):
            grant = held.acting.visitor.grant
            had = f"{held.acting.session.name}, which had {', '.join(held.devices)}, has"
            if grant is not None and grant.over:
                self._sessions.say(f"{had} no grant any more: what it had is made safe")
            elif not held.busy and held.until < now:
                self._sessions.say(f"{had} said nothing for {held.lasts:g} s: it counts as dead")
            else:
                continue
            await self._sessions.urgently(partial(self._bury, token))

    def _bury(self, token: str) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            held.acting.session.abandon()

    def _lock_of(self, token: str) -> _Held:
        held = self._held.get(token)
        if held is None:
            raise Problem(410, "there is no such lock: it was given back, was broken, or was not renewed in time")
        return held
