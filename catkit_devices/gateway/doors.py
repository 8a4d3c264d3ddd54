"""What a server of HiSLIP needs of an instrument, whatever the instrument is.

A :class:`InstrumentDoor` is one instrument. For each connection the server asks it for a :class:`Visit`, through which
everything of that connection goes. So an implementation always knows for whom it does something.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from catkit_devices.errors import CatkitDevicesError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InstrumentDoor", "LockAnswer", "LockState", "RefusedError", "Visit"]


class RefusedError(CatkitDevicesError):
    """An instrument was not given, or did not do, what a connection has asked for; the text goes to the program."""


class LockAnswer(enum.IntEnum):
    """What a request for a lock, or its return, came to (IVI-6.1, table 20)."""

    FAILURE = 0
    """Not in time."""
    SUCCESS = 1
    """It has the lock; or an exclusive lock was given back."""
    SUCCESS_SHARED = 2
    """A shared lock was given back."""
    ERROR = 3
    """It has that lock already; or it had none to give back."""


@dataclass(frozen=True)
class LockState:
    """Who has the locks of an instrument.

    Attributes:
        exclusive: whether somebody has it for itself alone.
        holders: how many connections have a lock.
    """

    exclusive: bool
    holders: int


class Visit(Protocol):
    """One connection's use of one instrument. At most one exchange or trigger runs at a time.

    Each coroutine may be cancelled at any time, and then leaves nothing half done for the next connection. An error
    other than :class:`RefusedError` is a fault of the implementation; the server reports it and ends the connection.
    """

    async def exchange(self, message: bytes) -> list[bytes] | None:
        """Send one whole message to the instrument, and return what it replies: usually one message or none.

        None says that a reply was due and was given up, because of :meth:`interrupt`.

        Raises:
            RefusedError: it was not sent, or failed.
        """
        ...

    async def trigger(self) -> list[bytes] | None:
        """Trigger the instrument; otherwise as :meth:`exchange`."""
        ...

    def interrupt(self) -> None:
        """Learn that the program has sent another message: the reply of the present exchange is no longer wanted."""
        ...

    async def clear(self) -> None:
        """Clear the instrument's input and output (device clear), unless another connection has locked it."""
        ...

    async def status_byte(self) -> int:
        """Return the status byte (IEEE 488.2, 11.2) without *message available*, which the server knows itself.

        Raises:
            RefusedError: it cannot be read.
        """
        ...

    async def remote_local(self, request: int) -> None:
        """Switch between remote and local control; ``request`` is the control code of IVI-6.1, table 19."""
        ...

    async def lock(self, key: bytes, timeout: float) -> LockAnswer:
        """Wait for a lock, at most ``timeout`` seconds.

        Args:
            key: of a lock that is shared with all who give the same key; empty for an exclusive one.
            timeout: seconds; 0 tries once.
        """
        ...

    async def unlock(self) -> LockAnswer:
        """Give back the exclusive lock; if it has none, the shared one."""
        ...

    async def lock_state(self) -> LockState:
        """Return who has the locks of the instrument."""
        ...

    def hang_up(self) -> None:
        """Learn that the program is gone: what is cancelled now need not end in order. :meth:`leave` follows."""
        ...

    async def leave(self, *, orderly: bool) -> None:
        """End the visit: everything that it holds is given back, and nothing more is sent for it.

        Args:
            orderly: whether the program has closed its connections; if not, one of them broke.
        """
        ...


class InstrumentDoor(Protocol):
    """One instrument, as the server sees it."""

    async def visit(self, peer: str, request_service: Callable[[int], None]) -> Visit:
        """Begin a visit.

        Args:
            peer: the address and port of the program, for messages.
            request_service: to be called, in the loop's thread, with the status byte when the instrument requests
                service.

        Raises:
            RefusedError: the instrument cannot be used now.
        """
        ...
