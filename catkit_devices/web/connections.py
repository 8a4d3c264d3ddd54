"""Connections to the web service: how many there may be, and for how long one may take to say what it wants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["BoundedConnection"]

MOST = 256
"""Connections at the same time. A page needs two; each costs some kilobytes."""
_HEAD_TIMEOUT = 10.0
"""Seconds until the head of a request has come. A slow line needs one."""


class BoundedConnection(H11Protocol):
    """A connection that is closed when it does not say in time what it wants.

    When there are too many, the one that has been saying nothing for longest is closed: so programs that only open
    connections keep nobody out.
    """

    _asking: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's does
        """Begin; close another one if there are too many."""
        super().connection_made(transport)
        waiting: dict[BoundedConnection, None] = self.app_state.setdefault("asking", {})
        if len(self.connections) > MOST:
            oldest = next(iter(waiting), None)
            (self if oldest is None else oldest).drop()
            if oldest is None:
                return
        waiting[self] = None
        self._asking = self.loop.call_later(_HEAD_TIMEOUT, self.drop)

    def handle_events(self) -> None:
        """Take what has come."""
        before = self.scope
        super().handle_events()
        if self.scope is not before:
            self._has_asked()

    def on_response_complete(self) -> None:
        """Wait for the next request on this connection, as long as for the first one."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle is not None and self.cycle.response_complete:
            self.app_state.setdefault("asking", {})[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._has_asked()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it without an answer."""
        self._has_asked()
        self.connections.discard(self)
        self.transport.abort()

    def _has_asked(self) -> None:
        self.app_state.setdefault("asking", {}).pop(self, None)
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
