"""Sessions that a process opens to act for others: each can end by itself, and what it held is then given back."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from catkit_devices.errors import SessionEndedError
from catkit_devices.multiprocessing.client.session import open_sessions, waits_here
from catkit_devices.multiprocessing.locks.lock import end_session, end_session_here
from catkit_devices.multiprocessing.locks.owner import (
    Session,
    begin_acting,
    end_acting,
    new_session_id,
    own_session,
)

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.client.session import ClientSession

__all__ = ["NamedSession"]


class NamedSession(Session):
    """A session of this process beside its own: the process acts in it for somebody else (a page, a connection).

    ``with session:`` makes a thread or an asyncio task act for it during the block, in several threads at the same time
    too. They are then other owners than outside of the block; mutexes, openings and the rule of making safe are those
    of the session. The tasks that are started and the functions that are passed to ``asyncio.to_thread`` in the block
    act for it too.

    It lasts until ``close()``, ``abandon()`` or the end of the process. Calls of it that are running or waiting then
    end at once, and later ones are refused, with ``SessionEndedError``.

    Args:
        name: shown in messages and in ``status()``.
        origin: from where it comes, and who has opened it, as a text.
    """

    __slots__ = ("_guard",)

    def __init__(self, name: str, host: str | None = None) -> None:
        if not name or not isinstance(name, str):
            raise ValueError(f"the name of a session must be a text that is not empty, got {name!r}")
        here = own_session()
        origin = f"session of {here.process!r}"
        if host is not None:
            origin = f"from {host}, {origin}"
        super().__init__(new_session_id(), name, here.pid, here.host, origin)
        self._guard = threading.Lock()
        self.introduce = self._introduce
        self.long_wait = waits_here

    @property
    def name(self) -> str:
        """Its name, as shown in messages."""
        return self.process

    def close(self) -> None:
        """End it in good order, as a process that ends: devices stay as they are, unless it holds or changes one now.

        What it holds is given back. The servers are told, and not waited for: a moment later what it held may still be
        shown as its own. Does nothing if it has ended.
        """
        self._end(goodbye=True)

    def abandon(self) -> None:
        """End it as a process that dies: its devices are made safe, before anybody else gets what it held.

        Its waits end at once. The servers are told, and not waited for: to know that a device has been made safe,
        acquire its mutex. Does nothing if it has ended.
        """
        self._end(goodbye=False)

    def __enter__(self) -> Self:
        self._require_own_process()
        begin_acting(self)
        return self

    def __exit__(self, *_: object) -> None:
        end_acting()

    def __repr__(self) -> str:
        return f"<session {self.name!r} ({self.origin}){', ended' if self.ended else ''}>"

    def _introduce(self, server: ClientSession) -> None:
        if self.id in server.introduced and not self.ended:
            return
        self._require_own_process()
        with self._guard:  # the server hears of the beginning before the end, and never after it
            self.require_open()
            server.introduce(self)

    def _require_own_process(self) -> None:
        if self.pid != os.getpid():
            raise SessionEndedError(self.name)

    def _end(self, *, goodbye: bool) -> None:
        if self.pid != os.getpid():
            return  # a forked child ends nothing of its parent
        with self._guard:
            if self.ended:
                return
            try:
                end_session(self)
            finally:
                for server in open_sessions():
                    server.tell_of_end(self.id, goodbye)
        end_session_here(self, goodbye)
