"""The client's side: one session per server, one line of calls per thread.

A session is kept alive by its *lifeline*; calls travel on *lines*, one connection per thread, which are disposable: an
interrupted call costs its line, and the server is told on the lifeline (and again by the next line) that the call is
void and which sections its owner still has.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import socket
import sys
import threading
from multiprocessing import util
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from catkit_devices.errors import (
    MutexBrokenError,
    ServerNotFoundError,
    ServerUnresponsiveError,
)
from catkit_devices.multiprocessing import deadlocks, holds
from catkit_devices.multiprocessing.channel import Channel, take_over
from catkit_devices.multiprocessing.connecting import (
    SILENCE,
    ask,
    borrowed_socket,
    connect,
    request,
    set_receive_timeout,
)
from catkit_devices.multiprocessing.endpoint import Endpoint, endpoint
from catkit_devices.multiprocessing.interface import HANDED_OVER, RETURNED
from catkit_devices.multiprocessing.owner import (
    current_owner,
    forwarded_call,
    local_session,
    process_id,
    process_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.endpoint import Address
    from catkit_devices.multiprocessing.owner import Call, Owner, OwnerKey

__all__ = ["ClientSession", "Line", "ask", "line_to"]

_BEAT = 1.0
_NOTICE = 0.5
"""Seconds within which the lifeline of a dead server is seen to have ended."""

_sessions: dict[Address, ClientSession] = {}
_sessions_lock = threading.Lock()
_numbers = itertools.count(1)
_local = threading.local()


def _forget_parent() -> None:
    """Close the forked child's copies of what belongs to its parent."""
    global _sessions_lock, _local
    _sessions_lock, _local = threading.Lock(), threading.local()
    for session in _sessions.values():
        session.abandon_copies()
    _sessions.clear()
    deadlocks.own_address.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class ClientSession:
    """This process's session with one server. Its end is final; the next use of the server makes a new one."""

    def __init__(self, server: Endpoint) -> None:
        self.endpoint = server
        self.pid = server.pid  # over TCP not known before it has answered
        self.id = f"{process_id()}.{next(_numbers)}"
        self.lost: ServerUnresponsiveError | None = None
        self._gone = threading.Event()
        self.sections: dict[OwnerKey, dict[int, int]] = {}
        """For every owner of this process, how many sections it has on which lock of the server."""
        self.names: dict[int, str] = {}
        self._channels: WeakSet[Channel] = WeakSet()
        self._sending = threading.Lock()
        self._lifeline = connect(server, SILENCE)
        facts = (self.id, process_name(), os.getpid(), socket.gethostname())
        self.pid = request(self._lifeline, "open_session", facts, server)
        with borrowed_socket(self._lifeline) as sock:
            set_receive_timeout(sock, 0)
        threading.Thread(target=self._watch, name=f"catkit-lifeline-{server.name}", daemon=True).start()
        local_session().long_wait = _waits_here

    def open_channel(self, arguments: tuple[Any, ...]) -> Channel:
        """Return a new connection for calls."""
        conn = connect(self.endpoint, SILENCE)
        try:
            request(conn, "open_calls", (self.id, *arguments), self.endpoint)
            sock = take_over(conn)
        except BaseException:
            conn.close()
            raise
        channel = Channel(sock)
        try:
            channel.accept_pipes()
        except (EOFError, OSError) as error:
            channel.close()
            name = self.endpoint.name
            raise ServerUnresponsiveError(
                f"server {name!r} did not go on ({error or 'it closed'})", server=name
            ) from error
        set_receive_timeout(sock, 0)
        self._channels.add(channel)
        if self.lost is not None:
            channel.close()
            raise self.lost
        return channel

    def say(self, word: tuple[Any, ...]) -> None:
        """Put a word on the lifeline; silently nothing where the session is lost (the server knows)."""
        if self.lost is None:
            try:
                with self._sending:
                    self._lifeline.send(word)
            except OSError as error:
                self._lose(f"its connection broke ({error})")

    def ending(self) -> ServerUnresponsiveError | None:
        """Return why the session is lost, if it is; that a server has just died is noticed within this call."""
        self._gone.wait(_NOTICE)
        return copy.copy(self.lost)

    def goodbye(self) -> None:
        """End the session in good order."""
        self.say(("goodbye",))
        self._lose("this process has taken its leave")

    def abandon_copies(self) -> None:
        """Close what a forked child inherited, without a word to the server."""
        self.lost = ServerUnresponsiveError("the session belongs to the parent process", server=self.endpoint.name)
        self._lifeline.close()
        for channel in list(self._channels):
            channel.close()

    def _lose(self, why: str) -> None:
        if self.lost is None:
            name = self.endpoint.name
            self.lost = ServerUnresponsiveError(
                f"server {name!r} (pid {self.pid}) is lost: {why}", server=name, pid=self.pid
            )
        self._gone.set()
        with _sessions_lock:
            if _sessions.get(self.endpoint.address) is self:
                del _sessions[self.endpoint.address]
        for channel in list(self._channels):
            channel.wake()

    def _watch(self) -> None:
        misses = 0
        try:
            while self.lost is None:
                if self._lifeline.poll(_BEAT):
                    word = self._lifeline.recv()
                    misses = 0
                    if word[0] == "waiting":
                        owner, sequence, attempt = word[1:]
                        _look_for_deadlock(owner, sequence, attempt, self.say)
                else:
                    # Beats are counted, not seconds: a process that was stopped itself must not blame the server.
                    misses += 1
                    if misses * _BEAT > SILENCE:
                        self._lose(f"silent for {SILENCE:g} s")
                    self.say(("ping",))
        except (EOFError, OSError) as error:
            self._lose(f"it has ended ({error})" if str(error) else "it has ended")
        finally:
            self._lifeline.close()


def _look_for_deadlock(owner: OwnerKey, sequence: int, attempt: int, say: Callable[[tuple[Any, ...]], None]) -> None:
    with _sessions_lock:
        known = [session.endpoint for session in _sessions.values()]
    search = threading.Thread(target=deadlocks.search, args=(known, owner, sequence, attempt, say), daemon=True)
    search.start()


def _waits_here(call: Call, attempt: int) -> None:
    """Look for a deadlock because a thread of this process waits for long for a mutex of this process."""
    sequence = holds.sequence_of(call)
    if sequence is not None:
        _look_for_deadlock(call.owner.key, sequence, attempt, lambda _: None)


_DOES_NOT_LOAD = -1


class Line:
    """The calls of one thread to one server, one after the other."""

    __slots__ = ("channel", "number", "session", "thread", "void")

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.thread = next(_numbers)
        self.number = 0
        self.void: tuple[Any, ...] | None = None
        self.channel: Channel | None = None

    def call(self, target: int, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Have the server do something; return or raise what it did.

        Raises:
            ServerUnresponsiveError: the server is gone or silent; whether the operation was done is not known.
        """
        from_call = forwarded_call()
        origin = None
        if from_call is not None:
            origin = (from_call.owner, from_call.chain, from_call.apart)
        elif (asyncio := sys.modules.get("asyncio")) is not None and asyncio._get_running_loop() is not None:
            origin = (current_owner(), None, False)
        self.number = number = next(_numbers)
        message = self._open().pack((number, target, operation, name, args, kwargs, origin))
        try:
            if from_call is not None:
                from_call.on_cancel(lambda: self.session.say(("cancel", self.thread, number)))
            channel = self._open()
            channel.send(message)
            answer = channel.receive()
            try:
                status, value = channel.unpack(answer)
            except Exception as error:  # noqa: BLE001 - a class may do anything on loading
                error.add_note(f"the answer of {name!r} does not load in this process")
                self.abandon(number)
                status, value = _DOES_NOT_LOAD, error
            if status == HANDED_OVER:
                self.session.say(("arrived", number))
        except (EOFError, OSError) as error:
            self.abandon(number)
            lost = self.session.ending()
            if lost is not None:
                raise lost from None
            server, pid = self.session.endpoint.name, self.session.pid
            raise ServerUnresponsiveError(
                f"server {server!r} (pid {pid}) dropped the connection during {name!r}", server=server, pid=pid
            ) from error
        except BaseException:
            self.abandon(number)
            raise
        finally:
            if from_call is not None:
                from_call.on_cancel(None)
        if status in (RETURNED, HANDED_OVER):
            return value
        if status == _DOES_NOT_LOAD:
            raise value
        from catkit_devices.multiprocessing.relay import decode

        raise decode(value)

    def _open(self) -> Channel:
        if self.channel is None:
            self.channel = self.session.open_channel((self.thread, current_owner(), self.void))
            self.void = None
        return self.channel

    def abandon(self, number: int) -> None:
        """Give up the call and its connection, and tell the server what its owner still has."""
        channel, self.channel = self.channel, None
        owner = current_owner().key
        self.void = (self.thread, number, owner, dict(self.session.sections.get(owner, {})))
        if channel is not None:
            self.session.say(("void", *self.void))
            channel.close()


def line_to(server: Endpoint) -> Line:
    """Return this thread's line to the server, over a new session where the last one is lost.

    Raises:
        MutexBrokenError: the last one was lost while this owner was in sections that it has not left.
        ServerNotFoundError, ServerUnresponsiveError: it cannot be reached.
    """
    try:
        line: Line | None = _local.lines.get(server.address)
    except AttributeError:
        _local.lines, line = {}, None
    if line is not None:
        if line.session.lost is None:
            return line
        held = line.session.sections.get(current_owner().key)
        if held:
            name = line.session.names.get(next(iter(held)), "mutex")
            raise MutexBrokenError(name, f"the server that kept it is lost ({line.session.lost})")
    for address, other in list(_local.lines.items()):
        if other.session.lost is not None and not other.session.sections:
            del _local.lines[address]  # or a long life with many servers would collect their sockets and segments
    line = Line(_session_with(server))
    _local.lines[server.address] = line
    return line


def lost_sections(server: Endpoint, owner: Owner) -> tuple[dict[int, int], ClientSession] | None:
    """Return the sections that an owner has not left, of a session that was lost."""
    line: Line | None = getattr(_local, "lines", {}).get(server.address)
    if line is None or line.session.lost is None:
        return None
    held = line.session.sections.get(owner.key)
    return (held, line.session) if held else None


def _session_with(known: Endpoint) -> ClientSession:
    with _sessions_lock:
        session = _sessions.get(known.address)
        if session is None or session.lost is not None:
            session = _sessions[known.address] = ClientSession(_newest(known))
        return session


def _newest(known: Endpoint) -> Endpoint:
    """Return how the server is reached now: one that was started anew on the same name has a new key."""
    if isinstance(known.address, str):
        with contextlib.suppress(ServerNotFoundError):
            return endpoint(known.name)
    return known


def _take_leave() -> None:
    with _sessions_lock:
        sessions = list(_sessions.values())
    for session in sessions:
        session.goodbye()


util.Finalize(None, _take_leave, exitpriority=5)


def post_exception(pid: int, encoded: bytes) -> None:
    """Leave an exception on every server that this process uses."""
    with _sessions_lock:
        sessions = list(_sessions.values())
    for session in sessions:
        if session.lost is None:
            line_to(session.endpoint).call(-1, 0, "post_exception", (pid, encoded), None)
