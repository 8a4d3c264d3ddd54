"""Simulated instruments behind a server of HiSLIP, whatever interface they have in the configuration."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from catkit_devices._wire.program_message import is_question
from catkit_devices.errors import ConfigurationError, SimulationError
from catkit_devices.gateway.doors import LockAnswer, LockState, RefusedError
from catkit_devices.gateway.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from catkit_devices.simulation.resource import Receiver, SimulatedResource

__all__ = ["SimulatedInstrument"]

_LONGEST_REPLY = 60.0
"""Seconds that an instrument may take for a reply. Then it is given up, and other programs have their turn."""
_SHORTEST, _LONGEST = 0.0005, 0.01
"""Seconds between two checks whether a reply has come: at first, and when it takes long."""
_REQUEST_SERVICE = 64
"""The bit of the status byte with which an instrument requests service (IEEE 488.2, 11.2.2.1)."""


class SimulatedInstrument:
    """One simulated instrument, for any number of programs at once.

    A message and its reply are one exchange that nothing of another program can enter. A reply is waited for if one has
    come at once, or if a header in the message has a question mark. If the program gives it up (a new message, a device
    clear, the end of its connection), what is still to come from the instrument is lost.

    Args:
        resource: the instrument at its address, which must be one of an interface that marks the ends of messages (USB,
            GPIB, TCPIP INSTR). Its clock must be the real one.
    """

    def __init__(self, resource: SimulatedResource) -> None:
        if not resource.has_end:
            raise ConfigurationError(f"{resource.address} marks no ends of messages, so HiSLIP cannot serve it")
        self.resource = resource
        self.turns = Turns()
        self.visits: set[_Visit] = set()
        self._requested = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def visit(self, peer: str, request_service: Callable[[int], None]) -> _Visit:  # noqa: ARG002 - nobody asks
        """Begin a visit."""
        with self.resource.lock:
            if not self.resource.connected:
                raise RefusedError(f"the cable of the simulated instrument at {self.resource.address} is pulled")
            visit = _Visit(self, request_service)
        self.visits.add(visit)
        return visit

    def let_pass(self, late: Coroutine[None, None, None]) -> None:
        """Wait in the background for a reply that nobody wants any more."""
        task = asyncio.get_running_loop().create_task(late)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    def service_byte(self) -> int | None:
        """Return the status byte if the instrument requests service now and did not before; else None."""
        read_stb: Any = getattr(self.resource.instrument, "read_stb", None)
        if read_stb is None:
            return None
        with self.resource.lock:
            byte = int(read_stb())
        before, self._requested = self._requested, byte & _REQUEST_SERVICE
        return byte if self._requested and not before else None


class _Visit:
    def __init__(self, door: SimulatedInstrument, request_service: Callable[[int], None]) -> None:
        self._door = door
        self._resource = door.resource
        self._receiver: Receiver = self._resource.attach(connection=True)
        self._generation = self._resource.generation
        self._interrupted = asyncio.Event()
        self._gone = False
        self.request_service = request_service

    async def exchange(self, message: bytes) -> list[bytes] | None:
        return await self._exchange(
            lambda: self._resource.write(message, self._receiver, end=True), is_question=is_question(message)
        )

    async def trigger(self) -> list[bytes] | None:
        return await self._exchange(self._trigger, is_question=False)

    def interrupt(self) -> None:
        self._interrupted.set()

    async def clear(self) -> None:
        if not self._door.turns.may_clear(self):
            return
        with self._using():
            self._resource.clear(self._receiver)

    async def status_byte(self) -> int:
        with self._using():
            return self._resource.status_byte(self._receiver)

    async def remote_local(self, request: int) -> None:
        """Do nothing: a simulated instrument has no front panel."""

    async def lock(self, key: bytes, timeout: float) -> LockAnswer:
        return await self._door.turns.lock(self, key, timeout)

    async def unlock(self) -> LockAnswer:
        return self._door.turns.unlock(self)

    def hang_up(self) -> None:
        """Do nothing: whatever is cancelled ends at once."""

    async def lock_state(self) -> LockState:
        return self._door.turns.state()

    async def leave(self, *, orderly: bool) -> None:  # noqa: ARG002 - a simulated instrument is not made safe
        self._door.visits.discard(self)
        self._door.turns.leave(self)
        self._gone = True
        self._detach()

    # --- an exchange

    async def _exchange(self, begin: Callable[[], None], *, is_question: bool) -> list[bytes] | None:
        self._interrupted.clear()
        await self._door.turns.begin(self)
        ends_here = True
        try:
            with self._using():
                self._receiver.clear()
                begin()
                replies: list[bytes] | None = self._come()
            if is_question and not replies:
                replies = await self._awaited()
            ends_here = replies is not None or self._forget_reply()
        except asyncio.CancelledError:
            ends_here = self._forget_reply()
            raise
        finally:
            if ends_here:
                self._door.turns.end()
            else:
                self._door.let_pass(self._late_reply())
        self._tell_service()
        return replies

    async def _awaited(self) -> list[bytes] | None:
        """Wait for the reply; None where it is given up."""
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + _LONGEST_REPLY, _SHORTEST
        while not self._interrupted.is_set() and clock() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # wait_for can lose a cancellation (Python 3.11)
                    await self._interrupted.wait()
            with self._using():
                self._resource.poll(self._receiver)
                if replies := self._come():
                    return replies
            pause = min(pause * 1.2, _LONGEST)
        return None

    def _forget_reply(self) -> bool:
        """Lose what is still to come from the instrument; return whether it is certain that nothing comes any more."""
        with self._resource.lock:
            self._resource.line.abort()
            self._resource.line.lose()
            self._receiver.clear()
            clear: Callable[[], None] | None = getattr(self._resource.instrument, "clear", None)
            if clear is not None:
                clear()
            return clear is not None

    async def _late_reply(self) -> None:
        """Keep the turn until the reply that nobody wants any more has come: nobody else must get it."""
        self._interrupted.clear()
        try:
            with contextlib.suppress(RefusedError, ConnectionError):
                await self._awaited()
        finally:
            self._door.turns.end()
            self._detach()

    def _trigger(self) -> None:
        if not self._resource.trigger(self._receiver):
            raise RefusedError(f"the simulated instrument at {self._resource.address} has no trigger")

    def _come(self) -> list[bytes]:
        """Return the messages that have come."""
        replies = []
        while (end := self._receiver.end()) is not None:
            replies.append(self._receiver.take(end))
        return replies

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Use the instrument; a failure of the simulation ends the exchange, a pulled cable ends the visit."""
        with self._resource.lock:
            self._check_line()
            try:
                yield
            except SimulationError as error:
                raise RefusedError(str(error)) from error
            self._check_line()

    def _check_line(self) -> None:
        if self._generation != self._resource.generation:
            raise ConnectionResetError(f"the line to {self._resource.address} was dropped")

    def _detach(self) -> None:
        """Leave the instrument, unless the turn is kept for a late reply."""
        if self._gone and self._door.turns.user is not self:
            with self._resource.lock:
                self._resource.detach(self._receiver)

    def _tell_service(self) -> None:
        byte = self._door.service_byte()
        if byte is not None:
            for visit in self._door.visits:
                visit.request_service(byte)
