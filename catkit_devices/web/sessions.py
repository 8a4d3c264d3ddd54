"""The sessions and the threads in which the web service does what visitors ask for.

What could wait for a mutex runs in other threads than STOP, breaking a lock and resetting the safety: so these always
find a free thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError, ConfigurationError
from catkit_devices.multiprocessing import acting_as, current_owner
from catkit_devices.testbed.processes.logs import report
from catkit_devices.testbed.trip import UNREACHABLE
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from catkit_devices.multiprocessing import NamedSession
    from catkit_devices.multiprocessing.locks.owner import Owner
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.layout import DeviceEntry
    from catkit_devices.web.access import Visitor

__all__ = ["Acting", "VisitorSessions", "require_grant"]

_THREADS, _LOOKS, _URGENT_THREADS = 64, 8, 16
"""Threads for what may wait for a mutex or an instrument, for looking, and for what must never wait for either."""


class Acting:
    """A session of one visitor, for which threads act."""

    def __init__(self, visitor: Visitor, session: NamedSession, owner: Owner) -> None:
        self.visitor = visitor
        self.session = session
        self._owner = owner

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function for the visitor, in this thread."""
        try:
            with acting_as(self._owner):
                return function()
        except SystemExit as end:  # it would end this service
            raise CatkitDevicesError(
                f"a driver tried to end the program (SystemExit: {end.code}); it must raise an error that says what is "
                "wrong"
            ) from end


class VisitorSessions:
    """Does things in sessions of visitors, and in threads of the kind that each needs. For one event loop.

    Args:
        client: of the testbed.
    """

    def __init__(self, client: TestbedClient) -> None:
        self.client = client
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="web")
        self._looks = ThreadPoolExecutor(_LOOKS, thread_name_prefix="web, look")
        self._urgent = ThreadPoolExecutor(_URGENT_THREADS, thread_name_prefix="web, urgent")

    def close(self) -> None:
        """Begin nothing any more."""
        for threads in (self._threads, self._looks, self._urgent):
            threads.shutdown(wait=False, cancel_futures=True)

    def device(self, name: str) -> DeviceEntry:
        """Return a device, which may be named by an alias.

        Raises:
            Problem: there is none.
        """
        try:
            return self.client.layout.device(name)
        except ConfigurationError as error:
            raise Problem(404, str(error)) from None

    def look(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function that reads files or asks servers, and waits for no mutex."""
        return asyncio.get_running_loop().run_in_executor(self._looks, function)

    def patiently(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function that may wait for an instrument."""
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    def urgently(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function in a thread that is free for it."""
        return asyncio.get_running_loop().run_in_executor(self._urgent, function)

    def say(self, text: str) -> None:
        """Have the testbed write down what a visitor did, in its log and in that of every run."""

        def tell() -> None:
            with contextlib.suppress(*UNREACHABLE):
                report(self.client.manager, text, "web", {})

        self.look(tell)

    def note(self, visitor: Visitor, what: str, target: str, reason: str = "") -> None:
        """Have the testbed write down in its audit trail what a visitor did, where no server does that by itself."""
        self.look(self.as_visitor(visitor, partial(self.client.note_in_audit_trail, what, target, reason)))

    def as_visitor(self, visitor: Visitor, function: Callable[[], Any]) -> Callable[[], Any]:
        """Return what runs a function in a session of the visitor's, so that the audit trail names the visitor."""

        def run() -> Any:
            acting = self._begin(visitor)
            try:
                return acting.run(function)
            finally:
                acting.session.close()

        return run

    async def begin(self, visitor: Visitor) -> Acting:
        """Begin a session of a visitor."""
        acting: Acting = await self.look(partial(self._begin, visitor))
        return acting

    def _begin(self, visitor: Visitor) -> Acting:
        session = self.client.manager.session(visitor.name, None if visitor.local else visitor.host)
        with session:
            return Acting(visitor, session, current_owner())

    async def until_gone(
        self, acting: Acting, work: Callable[[], Any], left: Awaitable[Any], bury: Callable[[], object]
    ) -> Any:
        """Do something. If the visitor goes away or its grant ends before, its session ends as that of a dying process.

        Args:
            acting: for whom.
            work: what is to be done.
            left: done when the visitor has gone.
            bury: ends the session.

        Raises:
            Problem: the grant has ended. It does not wait for a driver that is busy.
        """
        grant = acting.visitor.grant
        working = self.patiently(partial(acting.run, work))
        ends = [asyncio.ensure_future(left), *([] if grant is None else [asyncio.ensure_future(grant.end())])]
        try:
            await asyncio.wait({working, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await self.urgently(bury)
                require_grant(acting.visitor)
            return await working
        except asyncio.CancelledError:  # whoever asked for this has gone, or the service ends
            if not working.done():
                self.urgently(bury)
            raise
        finally:
            for end in ends:
                end.cancel()
            if not working.done():
                working.add_done_callback(_ignore)


def require_grant(visitor: Visitor) -> None:
    """Check that an agent still has the grant with which it came.

    Raises:
        Problem: it has ended.
    """
    if visitor.grant is not None and visitor.grant.over:
        raise Problem(
            403, f"the grant of {visitor} has ended: a person has withdrawn it, or its time is over. Nothing more is "
            "done for it, and what it held is made safe and given on"
        )  # fmt: skip


def _ignore(done: asyncio.Future[Any]) -> None:
    """Take what came of something that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
