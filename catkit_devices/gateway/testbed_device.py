"""The devices of a testbed behind a server of HiSLIP: each connection is a session that takes its turn like any other.

A message and its reply are one operation of the device, under its mutex, as :meth:`VisaDevice.relay` does it. VISA's
exclusive lock *is* the mutex: whoever waits for it waits in the queue of all programs, with its timeout. A shared lock
is the mutex too, held by a session of all who gave the same key.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.timeouts import LONGEST_TIMEOUT
from catkit_devices.errors import CatkitDevicesError
from catkit_devices.gateway.doors import LockAnswer, LockState, RefusedError
from catkit_devices.gateway.turns import Turns
from catkit_devices.multiprocessing import acting_as, current_owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.gateway.doors import InstrumentDoor
    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.multiprocessing.client.named_session import NamedSession
    from catkit_devices.multiprocessing.locks.owner import Owner
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["TestbedDevice", "doors_of", "sockets_of"]

_MOST_WAITING = 256
"""Threads, each of which carries out, or waits for, one thing that a program asks for; they exist while needed."""
_VISA_DEVICE = "catkit_devices.visa.VisaDevice"
"""The class of devices that speak VISA; classes of drivers are not imported here."""
_MOMENT = 0.05
"""Seconds that a question of a program that is gone may still take: most replies come much sooner. What is not over by
then ends as everything that is cancelled: the line still takes a reply that comes at once, and a device that may have
been changed is made safe."""
_LOCAL = ("127.0.0.1", "::1")
"""Hosts that are not named in messages: the program is on this computer."""


def doors_of(testbed: TestbedClient) -> dict[str, InstrumentDoor]:
    """Return the VISA devices of a testbed by name, as far as the configuration opens them to other programs."""
    return {
        entry.name: TestbedDevice(
            entry.name, partial(testbed.devices.__getitem__, entry.name), testbed.manager,
            read_only=entry.gateway != "write",
        )
        for entry in testbed.layout.devices
        if entry.gateway != "off" and _VISA_DEVICE in entry.interfaces
    }  # fmt: skip


def sockets_of(testbed: TestbedClient) -> dict[str, int]:
    """Return the devices that the configuration also wants as plain sockets, and their ports."""
    return {
        entry.name: entry.gateway_port
        for entry in testbed.layout.devices
        if entry.gateway_port is not None and entry.name in doors_of(testbed)
    }


class TestbedDevice:
    """One device of a testbed, for programs that speak VISA.

    Args:
        name: of the device.
        find: returns the device; called when the first program comes.
        manager: connected to the testbed's server, where sessions are opened.
        read_only: whether programs may only read what the driver declares.
    """

    __test__ = False  # the name is no test class of pytest's

    def __init__(
        self, name: str, find: Callable[[], Any], manager: SharedMemoryManager, *, read_only: bool = True
    ) -> None:
        self.name = name
        self.read_only = read_only
        self.groups: dict[bytes, _Group] = {}
        self._find = find
        self._manager = manager
        self._threads = ThreadPoolExecutor(_MOST_WAITING, thread_name_prefix=f"gateway to {name}")

    async def visit(self, peer: str, request_service: Callable[[int], None]) -> _Visit:  # noqa: ARG002 - none is known
        """Begin a visit."""
        device = await self.do(self._find)
        return _Visit(self, device, await self.open_session(f"VISA program at {peer}", peer), peer)

    async def open_session(self, title: str, peer: str) -> _Acting:
        """Open a session for a program, or for several. If this is cancelled, none stays open."""
        opening = asyncio.ensure_future(self.do(self._open_session, title, peer))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise

    def _close_unused(self, opening: asyncio.Future[_Acting]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._threads.submit(opening.result().session.close)

    def _open_session(self, title: str, peer: str) -> _Acting:
        host = peer.rpartition(":")[0]
        session = self._manager.session(title, None if host in _LOCAL else host)
        with session:
            return _Acting(session, current_owner())

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that blocks in a thread; its error becomes one for the program.

        If this is cancelled, the thread still ends by itself.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, function, *arguments)
        except CatkitDevicesError as error:
            raise RefusedError(str(error)) from error

    def close(self) -> None:
        """End the threads that wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ignore(done: asyncio.Future[Any]) -> None:
    """Take what came of something that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


class _Acting:
    """A session, and the owner in it, for which threads act."""

    def __init__(self, session: NamedSession, owner: Owner) -> None:
        self.session = session
        self._owner = owner

    def holds(self, device: Any) -> bool:
        """Whether it has the mutex of a device, for an exchange or for longer."""
        holder = device.mutex.holder
        return holder is not None and holder.key == self._owner.key

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with acting_as(self._owner):
            return function(*arguments)


class _Group:
    """Those who share a lock: a session of its own has the mutex for all of them.

    Among them they take turns, and one of them may have the exclusive lock.
    """

    def __init__(self) -> None:
        self.acting: _Acting | None = None
        self.turns = Turns()
        self.members: set[_Visit] = set()
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def granted_within(self, timeout: float) -> bool:
        """Wait until the first of them has the mutex; False if it has it not in time, or never."""
        try:
            async with asyncio.timeout(max(timeout, 0.001)):
                return await asyncio.shield(self.granted)
        except TimeoutError:
            return False


class _Visit:
    def __init__(self, door: TestbedDevice, device: Any, acting: _Acting, peer: str) -> None:
        self._door = door
        self._device = device
        self._acting = acting
        self._peer = peer
        self._group: _Group | None = None
        self._has_mutex = False
        self._gone = False
        self._beginning_anew: asyncio.Task[None] | None = None

    async def exchange(self, message: bytes) -> list[bytes] | None:
        return await self._relay(message)

    async def trigger(self) -> list[bytes] | None:
        return await self._relay(b"*TRG")  # the same as a trigger of the interface (IEEE 488.2, 10.37)

    def interrupt(self) -> None:
        """Do nothing: the reply, or the end of its timeout, is waited for, so that the line stays in step."""

    async def clear(self) -> None:
        """Do nothing more than was done: an exchange leaves nothing behind that could be cleared."""

    async def status_byte(self) -> int:
        byte: int = await self._door.do(self._acting.run, self._device.serial_poll)
        return byte

    async def remote_local(self, request: int) -> None:
        """Do nothing: the instrument is under remote control while the testbed has it open."""

    async def lock(self, key: bytes, timeout: float) -> LockAnswer:
        if key:
            return LockAnswer.ERROR if self._group is not None else await self._share(key, timeout)
        if self._group is not None:
            return await self._group.turns.lock(self, b"", timeout)
        if self._has_mutex:
            return LockAnswer.ERROR
        self._has_mutex = await self._acquired(self._acting, timeout)
        return LockAnswer.SUCCESS if self._has_mutex else LockAnswer.FAILURE

    async def unlock(self) -> LockAnswer:
        group = self._group
        if group is not None and group.turns.unlock(self) is LockAnswer.SUCCESS:
            return LockAnswer.SUCCESS
        if self._has_mutex:
            self._has_mutex = False
            await self._door.do(self._acting.run, self._device.release)
            return LockAnswer.SUCCESS
        if group is None:
            return LockAnswer.ERROR
        await self._leave_group(group, orderly=True)
        return LockAnswer.SUCCESS_SHARED

    def hang_up(self) -> None:
        self._gone = True

    async def lock_state(self) -> LockState:
        holder = await self._door.do(lambda: self._device.mutex.holder)
        sharing = next((group for group in self._door.groups.values() if group.granted.done()), None)
        if sharing is not None and sharing.members:
            return LockState(sharing.turns.state().exclusive, len(sharing.members))
        return LockState(holder is not None, int(holder is not None))

    async def leave(self, *, orderly: bool) -> None:
        if self._group is not None:
            await self._leave_group(self._group, orderly=False)
        if self._beginning_anew is not None:
            await asyncio.wait({self._beginning_anew})
        session = self._acting.session
        dies = self._has_mutex or not orderly
        await self._door.do(session.abandon if dies else session.close)

    # --- an exchange

    async def _relay(self, message: bytes) -> list[bytes]:
        group = self._group
        if group is None or group.acting is None:
            return await self._done(self._acting, message)
        await group.turns.begin(self)
        try:
            return await self._done(group.acting, message)
        finally:
            group.turns.end()

    async def _done(self, acting: _Acting, message: bytes) -> list[bytes]:
        working = asyncio.ensure_future(
            self._door.do(acting.run, lambda: self._device.relay(message, read_only=self._door.read_only))
        )
        try:
            reply: bytes = await asyncio.shield(working)
        except asyncio.CancelledError:
            await self._stop(working, acting)
            raise
        return [reply] if reply else []

    async def _stop(self, working: asyncio.Future[Any], acting: _Acting) -> None:
        """End what a thread does or waits for, because of a device clear or the end of the program.

        Who has the lock waits for nobody, so its exchange ends within the timeout of the instrument. Otherwise another
        session takes the place of this one, which ends what this one was waiting for.
        """
        working.add_done_callback(_ignore)
        if self._gone:  # the end of the session ends it
            if await self._door.do(acting.holds, self._device):
                await asyncio.wait({working}, timeout=_MOMENT)
            return
        if not self._has_mutex and self._group is None:
            await self._begin_anew()
        await asyncio.wait({working})

    async def _begin_anew(self) -> None:
        """Give the program another session, and end the one that it had.

        If this is cancelled, it goes on all the same: a session that did not end would keep its place in the queue, and
        then the mutex, for a program that is gone.
        """
        if self._beginning_anew is None or self._beginning_anew.done():
            self._beginning_anew = asyncio.create_task(self._change_session())
            self._beginning_anew.add_done_callback(_ignore)
        await asyncio.shield(self._beginning_anew)

    async def _change_session(self) -> None:
        ended = self._acting
        try:
            self._acting = await self._door.open_session(ended.session.name, self._peer)
        finally:
            await self._door.do(ended.session.close)

    # --- locks

    async def _acquired(self, acting: _Acting, timeout: float) -> bool:
        """Wait for the mutex in the queue of all programs."""
        waiting = asyncio.ensure_future(
            self._door.do(acting.run, lambda: self._device.acquire(min(timeout, LONGEST_TIMEOUT), raise_on_fail=False))
        )
        try:
            return bool(await asyncio.shield(waiting))
        except asyncio.CancelledError:  # the program no longer waits
            waiting.add_done_callback(_ignore)
            if self._gone:
                raise  # the end of the session ends it
            if acting is self._acting:
                await self._begin_anew()
            else:
                await self._door.do(acting.session.close)
            await asyncio.wait({waiting})
            raise

    async def _share(self, key: bytes, timeout: float) -> LockAnswer:
        if self._has_mutex:  # it would wait for itself
            return LockAnswer.ERROR
        group = self._door.groups.get(key)
        is_first = group is None
        if group is None:
            group = self._door.groups[key] = _Group()
        group.members.add(self)  # so that it lasts when the others leave meanwhile
        try:
            granted = await (self._granted_first(group, key, timeout) if is_first else group.granted_within(timeout))
        except BaseException:
            await self._leave_group(group, orderly=True)
            raise
        if not granted:
            await self._leave_group(group, orderly=True)
            return LockAnswer.FAILURE
        self._group = group
        return LockAnswer.SUCCESS

    async def _granted_first(self, group: _Group, key: bytes, timeout: float) -> bool:
        """Acquire the mutex for a group; False if it was not to be had in time."""
        title = f"shared lock {key.decode('utf-8', 'replace')!r}"
        granted = False
        try:
            group.acting = await self._door.open_session(title, self._peer)
            granted = await self._acquired(group.acting, timeout)
        finally:
            if not granted:  # those who wait with this one were not granted either; others may try anew
                self._door.groups = {known: one for known, one in self._door.groups.items() if one is not group}
            group.granted.set_result(granted)
        return granted

    async def _leave_group(self, group: _Group, *, orderly: bool) -> None:
        self._group = None
        group.turns.leave(self)
        group.members.discard(self)
        if group.members:
            return
        self._door.groups = {known: one for known, one in self._door.groups.items() if one is not group}
        if group.acting is not None:
            session = group.acting.session
            await self._door.do(session.close if orderly else session.abandon)
