"""A server of HiSLIP: one port for any number of instruments, told apart by sub-address (IVI-6.1, 3.1).

It runs in an event loop in a thread of its own. What a program sends is never trusted: everything that is kept for it
has a limit, whatever it does ends its own connections only, and its two connections belong together only if they come
from the same host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Self

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.gateway.doors import LockAnswer, RefusedError
from catkit_devices.gateway.hislip import (
    LONGEST_PAYLOAD,
    PROTOCOL_VERSION,
    VENDOR,
    AskLocks,
    Clear,
    Interrupt,
    Lock,
    Pair,
    ReadStatus,
    RemoteLocal,
    Send,
    Unlock,
)
from catkit_devices.gateway.messages import HEADER, FatalCode, FatalProblem, Message, MessageParser, MessageType
from catkit_devices.gateway.sockets import LONGEST_LINE, keep_alive, talk

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from catkit_devices.gateway.doors import InstrumentDoor, Visit
    from catkit_devices.gateway.hislip import Action, Work
    from catkit_devices.gateway.messages import Oversized

__all__ = ["HISLIP_PORT", "HislipServer", "sub_address"]

_log = logging.getLogger(__name__)

HISLIP_PORT = 4880
"""The port that is registered for HiSLIP, which programs use if none is given."""
_CHUNK = 1 << 16
"""Most bytes that are received at once."""
_BUFFERED = 1 << 17
"""Bytes of replies that wait in this process for a program to read them; then the connection's task waits."""
_INTRODUCTION = 10.0
"""Seconds that a new connection may take to say what it is, and a program to open its second one."""
_LONGEST_INTRODUCTION = 256
"""Bytes of a sub-address (VISA's limit for a resource name)."""
_MOST_PROGRAMS = 64
"""Pairs of connections at a time. Programs that are connected are not harmed by one that opens them without end."""
_MOST_STRANGERS = 32
"""Connections at a time that have not said yet what they are."""
_IN_FLIGHT = 0.25
"""Seconds that a lock waits to be given back for a message that the program has sent, and that has not come yet."""
_LAST_MESSAGES = 1.0
"""Seconds for carrying out what a program sent just before it closed its connections. What must wait longer for its
turn is not carried out: perhaps the program was killed."""
_STOPPING = 5.0
"""Seconds that stopping may take."""


def sub_address(name: str) -> str:
    """Return the sub-address of the instrument ``name``: they must begin with ``hislip`` (IVI-6.1, 3.1)."""
    return f"hislip_{name}"


class HislipServer:
    """Serves instruments to programs that speak HiSLIP; a context manager.

    An instrument ``meter`` is at ``TCPIP::host::hislip_meter,port::INSTR``, or without ``,port`` at the port 4880. If
    there is only one instrument, it is at ``hislip0`` too, the sub-address that programs use if none is given.

    Args:
        doors: the instruments by name.
        host: address of this machine to serve on. HiSLIP 1.0 has no password: every program that can reach it can use
            the instruments.
        port: 0 takes a free one.
        sockets: instruments that are also served as plain sockets, and their ports; see :mod:`~.sockets`.
        longest_message: bytes that one message to an instrument may have; 32 MiB by default.

    Attributes:
        port: where it serves.

    Raises:
        ConfigurationError: the port is not free.
    """

    def __init__(
        self,
        doors: Mapping[str, InstrumentDoor],
        *,
        host: str = "127.0.0.1",
        port: int = HISLIP_PORT,
        sockets: Mapping[str, int] | None = None,
        longest_message: int | None = None,
    ) -> None:
        self._doors = {sub_address(name).casefold(): door for name, door in doors.items()}
        if len(self._doors) < len(doors):
            raise ConfigurationError("two instruments have names that differ only in capital letters, expected others")
        if len(doors) == 1:
            self._doors["hislip0"] = next(iter(doors.values()))
        self._longest = {} if longest_message is None else {"longest_message": longest_message}
        with contextlib.ExitStack() as cleanup:
            self._listener = cleanup.enter_context(_listen(host, port))
            self._plain = [
                (cleanup.enter_context(_listen(host, number)), doors[name]) for name, number in (sockets or {}).items()
            ]
            cleanup.pop_all()
        self._talks: set[asyncio.Task[None]] = set()
        self._host = socket.gethostname() if host in ("", "0.0.0.0") else host  # noqa: S104 - compared, not bound
        self.port: int = self._listener.getsockname()[1]
        self._programs: dict[int, _Program] = {}
        self._strangers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="HiSLIP server", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, name: str) -> str | None:
        """Return the VISA address of the instrument ``name`` for pyvisa-py; None if it is not served here."""
        sub = sub_address(name)
        return f"TCPIP0::{self._host}::{sub},{self.port}::INSTR" if sub.casefold() in self._doors else None

    def close(self) -> None:
        """Disconnect every program and free the port, within 5 s; a second call does nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STOPPING)
        if self._thread.is_alive():
            _log.error("the HiSLIP server has not ended in %g s: one of the instruments hangs", _STOPPING)

    # --- the thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener, limit=_CHUNK)
        servers = [server]
        for listener, door in self._plain:
            accept = partial(self._accept_plain, door)
            servers.append(await asyncio.start_server(accept, sock=listener, limit=LONGEST_LINE))
        try:
            await self._end.wait()
        finally:
            for one in servers:
                one.close()
            for program in list(self._programs.values()):
                program.end()
            tasks = [*self._strangers, *self._talks, *(program.task for program in self._programs.values())]
            for task in (*self._strangers, *self._talks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        if len(self._strangers) >= _MOST_STRANGERS:
            connection.abort()
            return
        task = self._loop.create_task(self._meet(connection))
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

    def _accept_plain(self, door: InstrumentDoor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= _MOST_PROGRAMS:
            writer.transport.abort()
            return
        task = self._loop.create_task(talk(reader, writer, door))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _meet(self, connection: _Connection) -> None:
        try:
            await self._introduced(connection)
        except FatalProblem as problem:
            _log.info("%s: %s; disconnected", connection.peer, problem.text)
            await connection.refuse(problem)
        except (OSError, EOFError, asyncio.CancelledError):
            connection.abort()
        except Exception:  # noqa: BLE001 - an error in the code of an instrument
            _log.exception("%s: the instrument failed; disconnected", connection.peer)
            connection.abort()

    async def _introduced(self, connection: _Connection) -> None:
        """Let a connection say what it is."""
        async with asyncio.timeout(_INTRODUCTION):  # for its words only: to begin at a device may take longer
            message = await _first_message(connection.reader)
        if not isinstance(message, Message):
            raise FatalProblem(FatalCode.INVALID_INITIALIZATION, "a sub-address has at most 256 bytes")
        if message.kind is MessageType.INITIALIZE:
            await self._first_connection(connection, message)
            return
        if message.kind is MessageType.ASYNC_INITIALIZE:
            program = self._programs.get(message.parameter)
            # A session's number is no secret. So the host must be the same.
            if program is None or not program.join(connection):
                raise FatalProblem(FatalCode.INVALID_INITIALIZATION, f"no session {message.parameter} waits for you")
            return
        raise FatalProblem(
            FatalCode.INVALID_INITIALIZATION,
            f"a connection must begin with Initialize or AsyncInitialize, got type {int(message.kind)}",
        )

    async def _first_connection(self, connection: _Connection, message: Message) -> None:
        wanted = message.payload.decode("ascii", "replace").casefold() or "hislip0"
        door = self._doors.get(wanted)
        if door is None:
            raise FatalProblem(FatalCode.INVALID_INITIALIZATION, _unknown(wanted, self._doors))
        if len(self._programs) >= _MOST_PROGRAMS:
            raise FatalProblem(FatalCode.TOO_MANY_CLIENTS, f"at most {_MOST_PROGRAMS} programs can be connected")
        number = self._free_number()
        program = _Program(number, connection, Pair(**self._longest), wanted)
        self._programs[number] = program
        try:
            program.use(await door.visit(connection.peer, program.request_service))
        except BaseException as error:
            del self._programs[number]
            if isinstance(error, RefusedError):
                raise FatalProblem(FatalCode.UNIDENTIFIED, str(error)) from error
            raise
        program.task.add_done_callback(lambda _: self._programs.pop(number, None))
        version = min(PROTOCOL_VERSION, message.parameter >> 16)
        connection.send(Message(MessageType.INITIALIZE_RESPONSE, 0, version << 16 | number))

    def _free_number(self) -> int:
        while True:
            number = secrets.randbelow(1 << 16)  # the parameter has 16 bits for it
            if number not in self._programs:
                return number


class _Connection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=_BUFFERED)
        self.host, port = writer.get_extra_info("peername")[:2]
        self.peer = f"{self.host}:{port}"
        keep_alive(writer.get_extra_info("socket"))

    def send(self, message: Message) -> None:
        self._writer.write(message.encode())

    async def drain(self) -> None:
        await self._writer.drain()

    async def refuse(self, problem: FatalProblem) -> None:
        """Say why, and disconnect."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_STOPPING):
                self.send(Message(MessageType.FATAL_ERROR, problem.code, payload=problem.text.encode("utf-8")))
                self._writer.close()
                await self._writer.wait_closed()
        self.abort()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class _Progress:
    """Wakes those who wait until something is true that others in the same event loop make true."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition()`` is true. It is asked again whenever progress was made."""
        while not condition():
            woken = asyncio.get_running_loop().create_future()
            self._waiting.append(woken)
            await woken

    def made(self) -> None:
        """Let everybody who waits ask again."""
        waiting, self._waiting = self._waiting, []
        for woken in waiting:
            if not woken.done():
                woken.set_result(None)


class _Program:
    """One program: its two connections, and its visit to an instrument."""

    def __init__(self, number: int, connection: _Connection, pair: Pair, title: str) -> None:
        self._number = number
        self._synchronous = connection
        self._asynchronous: _Connection | None = None
        self._pair = pair
        self._title = f"{connection.peer} at {title}"
        self._joined = asyncio.Event()
        self._progress = _Progress()
        self._worker: asyncio.Task[None] | None = None
        self._lock: asyncio.Task[None] | None = None
        self._unlocking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._visit: Visit
        self.task: asyncio.Task[None]

    def use(self, visit: Visit) -> None:
        """Begin, with this visit."""
        self._visit = visit
        self.task = asyncio.get_running_loop().create_task(self._run())

    def join(self, connection: _Connection) -> bool:
        """Take the second connection; False if it is not from the same host, or there is one already."""
        if self._asynchronous is not None or connection.host != self._synchronous.host or self._ended.done():
            return False
        self._asynchronous = connection
        connection.send(Message(MessageType.ASYNC_INITIALIZE_RESPONSE, 0, VENDOR))
        self._joined.set()
        return True

    def request_service(self, byte: int) -> None:
        """Tell the program that its instrument requests service."""
        if self._asynchronous is not None and not self._ended.done():
            for action in self._pair.service_requested(byte):
                self._send(action)

    def end(self, reason: BaseException | None = None) -> None:
        """End the connections; a second reason is not kept."""
        if not self._ended.done():
            self._ended.set_result(reason)

    # --- its tasks

    async def _run(self) -> None:
        listener = self._begin(self._listen(self._synchronous, asynchronous=False))
        self._begin(self._listen_to_second())
        self._worker = self._begin(self._work())
        _log.info("%s: connected", self._title)
        reason = await self._ended
        if isinstance(reason, EOFError):
            await self._finish(listener)
        self._visit.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if isinstance(reason, FatalProblem):
            _log.info("%s: %s; disconnected", self._title, reason.text)
            for connection in self._connections():
                await connection.refuse(reason)
        elif reason is not None and not isinstance(reason, OSError | EOFError):
            _log.error("%s: the instrument failed; disconnected", self._title, exc_info=reason)
        for connection in self._connections():
            connection.abort()
        try:
            await self._visit.leave(orderly=isinstance(reason, EOFError))
        except Exception:  # noqa: BLE001 - an error in the code of an instrument
            _log.exception("%s: the end of the visit failed", self._title)
        _log.info("%s: disconnected", self._title)

    async def _finish(self, listener: asyncio.Task[None]) -> None:
        """Carry out what the program had sent before it closed its connections. What are questions nobody needs now."""
        self._pair.hang_up()
        if self._lock is not None:
            self._lock.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_MESSAGES):
                await asyncio.wait({listener})
                await self._progress.until(lambda: not self._pair.has_last_words)

    def _connections(self) -> list[_Connection]:
        return [self._synchronous] if self._asynchronous is None else [self._synchronous, self._asynchronous]

    def _begin(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run ``coroutine``; if it fails, the connections end."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    async def _listen(self, connection: _Connection, *, asynchronous: bool) -> None:
        parser = MessageParser(LONGEST_PAYLOAD + HEADER.size)
        while True:
            if not asynchronous:
                await self._progress.until(lambda: not self._pair.is_full)
            data = await connection.reader.read(_CHUNK)
            if not data:
                if parser.kept:
                    raise ConnectionResetError("the connection ended in the middle of a message")
                raise EOFError("the connection was closed")
            for message in parser.feed(data):
                await self._receive(message, asynchronous=asynchronous)

    async def _listen_to_second(self) -> None:
        try:
            async with asyncio.timeout(_INTRODUCTION):
                await self._joined.wait()
        except TimeoutError:
            text = f"the asynchronous connection was not opened in {_INTRODUCTION:g} s"
            raise FatalProblem(FatalCode.NOT_BOTH_CHANNELS, text) from None
        await self._listen(self._second(), asynchronous=True)

    async def _receive(self, message: Message | Oversized, *, asynchronous: bool) -> None:
        if self._asynchronous is None:
            raise FatalProblem(FatalCode.NOT_BOTH_CHANNELS, "the asynchronous connection is not open yet")
        await self._perform(self._pair.receive(message, asynchronous=asynchronous))
        self._progress.made()

    async def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._send(action)
                    await (self._second() if action.asynchronous else self._synchronous).drain()
                case Interrupt():
                    self._visit.interrupt()
                case Clear():
                    await self._clear()
                case Lock():
                    await self._begin_lock(action)
                case Unlock():
                    await self._unlock(action)
                case AskLocks():
                    await self._perform(self._pair.locks(await self._visit.lock_state()))
                case ReadStatus():
                    await self._read_status()
                case RemoteLocal():
                    await self._remote_local(action.request)

    def _send(self, action: Action) -> None:
        if isinstance(action, Send):
            (self._second() if action.asynchronous else self._synchronous).send(action.message)

    # --- the synchronous connection

    async def _work(self) -> None:
        """Carry out the messages for the instrument, one after the other, until a device clear cancels it."""
        while True:
            await self._progress.until(lambda: self._pair.has_work)
            work = self._pair.next_work()
            if work is not None:
                try:
                    await self._do(work)
                finally:
                    self._pair.done(work)
                    self._progress.made()

    async def _do(self, work: Work) -> None:
        try:
            if work.data is None:
                replies = await self._visit.trigger()
            else:
                replies = await self._visit.exchange(work.data)
        except RefusedError as error:
            _log.warning("%s: refused: %s", self._title, error)
            await self._perform(self._pair.refused(work, str(error)))
            return
        await self._perform(self._pair.interruption(work, replies))
        for message in self._pair.replies(work, replies):
            self._synchronous.send(message)
            await self._synchronous.drain()

    # --- the asynchronous connection

    async def _clear(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        try:
            await self._visit.clear()
        except RefusedError as error:
            _log.warning("%s: the instrument was not cleared: %s", self._title, error)
        await self._perform(self._pair.cleared())
        self._worker = self._begin(self._work())

    async def _begin_lock(self, action: Lock) -> None:
        if self._lock is not None and not self._lock.done():
            await self._perform(self._pair.lock_answered(LockAnswer.ERROR))
            return
        self._lock = self._begin(self._wait_for_lock(action))

    async def _wait_for_lock(self, action: Lock) -> None:
        try:
            answer = await self._visit.lock(action.key, action.timeout)
        except RefusedError as error:
            await self._perform(self._pair.refused_asynchronously(str(error)))
            return
        await self._perform(self._pair.lock_answered(answer))

    async def _unlock(self, action: Unlock) -> None:
        if self._lock is not None and not self._lock.done():
            # The program does not wait for it any more. What was asked for is answered first.
            self._lock.cancel()
            await asyncio.gather(self._lock, return_exceptions=True)
            await self._perform(self._pair.lock_answered(LockAnswer.FAILURE))
        if self._unlocking is not None and not self._unlocking.done():
            await self._perform(self._pair.lock_answered(LockAnswer.ERROR))
            return
        self._unlocking = self._begin(self._unlock_later(action.message_id))

    async def _unlock_later(self, message_id: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IN_FLIGHT):
                await self._progress.until(lambda: self._pair.has_come(message_id))
        await self._progress.until(lambda: self._pair.has_done(message_id))
        try:
            answer = await self._visit.unlock()
        except RefusedError as error:
            await self._perform(self._pair.refused_asynchronously(str(error)))
            return
        await self._perform(self._pair.lock_answered(answer))

    async def _read_status(self) -> None:
        try:
            byte = await self._visit.status_byte()
        except RefusedError as error:
            await self._perform(self._pair.refused_asynchronously(str(error)))
            return
        await self._perform(self._pair.status(byte))

    async def _remote_local(self, request: int) -> None:
        try:
            await self._visit.remote_local(request)
        except RefusedError as error:
            await self._perform(self._pair.refused_asynchronously(str(error)))
            return
        await self._perform(self._pair.remote_local_done())

    def _second(self) -> _Connection:
        if self._asynchronous is None:
            raise FatalProblem(FatalCode.NOT_BOTH_CHANNELS, "the asynchronous connection is not open yet")
        return self._asynchronous


async def _first_message(reader: asyncio.StreamReader) -> Message | Oversized | None:
    parser = MessageParser(_LONGEST_INTRODUCTION)
    header = await reader.readexactly(HEADER.size)
    message = next(parser.feed(header), None)
    if message is None:
        message = next(parser.feed(await reader.readexactly(HEADER.unpack(header)[-1])), None)
    return message


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"a port must be 0 to 65535, got {port}")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigurationError(f"HiSLIP cannot be served on {host}:{port}: {error}") from error


def _unknown(wanted: str, known: Iterable[str]) -> str:
    known = list(known)
    closest = nearest(wanted, known)
    hint = f"; the nearest is {closest!r}" if closest else ""
    return f"there is no instrument at sub-address {wanted!r}{hint}. There are: {', '.join(known) or 'none'}"
