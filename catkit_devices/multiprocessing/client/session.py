"""The client's sessions, one for each server. A session lasts as long as its *lifeline*, a connection for messages."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import socket
import threading
import time
from multiprocessing import util
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import ServerNotFoundError, ServerUnresponsiveError
from catkit_devices.multiprocessing.locks.lock import give_way, sequence_of
from catkit_devices.multiprocessing.locks.owner import own_session, process_id, process_name
from catkit_devices.multiprocessing.wire.channel import Channel, take_over
from catkit_devices.multiprocessing.wire.connecting import (
    SILENCE,
    borrowed_socket,
    connect,
    request,
    set_receive_timeout,
)
from catkit_devices.multiprocessing.wire.endpoint import Endpoint, endpoint
from catkit_devices.multiprocessing.wire.forking import renewed
from catkit_devices.multiprocessing.wire.shortage import shortage

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.entries import OpenEntry
    from catkit_devices.multiprocessing.locks.lock import Section
    from catkit_devices.multiprocessing.locks.owner import Call, OwnerKey, Session
    from catkit_devices.multiprocessing.wire.endpoint import Address

__all__ = ["ClientSession", "open_sessions", "session_with", "silence", "waits_here"]

_BEAT = 1.0
"""Seconds between two messages on the lifeline."""
_NOTICE = 0.5
"""Seconds within which the end of a dead server is noticed on the lifeline."""

_ATTEMPT = 6 * SILENCE
"""Seconds that a thread waits for another one's attempt to connect: each of its steps takes ``SILENCE`` at most."""

_sessions: dict[Address, ClientSession] = {}
_attempts: dict[Address, _Attempt] = {}
_silent: dict[Address, float] = {}
"""Servers that were lost because they did not answer, and since when, on the monotonic clock."""
_leaves: list[util.Finalize[Any]] = []
"""What takes leave at the end of this process; made with its first session: a forked child ignores its parent's."""
_sessions_lock = renewed(threading.Lock())
"""Protects these. It is never held during a wait for a server, which would delay the use of other servers."""
_numbers = itertools.count(1)


def _forget_parent() -> None:
    """Close the forked child's copies of its parent's connections."""
    for session in _sessions.values():
        session.abandon_copies()
    _sessions.clear()
    _attempts.clear()
    _silent.clear()
    _leaves.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class Nested:
    """A call to a server that is part of ``call``, an operation in this process."""

    __slots__ = ("call", "gave_way", "number")

    def __init__(self, number: int, call: Call) -> None:
        self.number = number
        self.call = call
        self.gave_way = False
        """Whether shared reads may have been let in meanwhile."""


class ClientSession:
    """This process's session with one server. Its end is final; the next use of the server makes a new one."""

    def __init__(self, server: Endpoint) -> None:
        self.endpoint = server
        self.pid = server.pid  # over TCP it is not known before the server has answered
        self.id = f"{process_id()}.{next(_numbers)}"
        self.lost: ServerUnresponsiveError | None = None
        self.silence = 0.0
        """Seconds since the last message of the server; it sends one about every second."""
        self._gone = InterruptSafeEvent()
        self.sections: dict[Section, tuple[OwnerKey, int]] = {}
        """The open sections, each with its owner and the number of the lock on the server; the oldest first."""
        self.names: dict[int, str] = {}
        """The names of these locks, for messages."""
        self.opened: dict[tuple[str, int], list[OpenEntry]] = {}
        """The ``open()``s that keep an object of the server open, by the id of the session of this process."""
        self.nested: dict[int, Nested] = {}
        """The call of each connection that is part of an operation in this process."""
        self.told = 0
        """How many messages were sent on the lifeline. Calls on other connections may arrive before them."""
        self.introduced: set[str] = set()
        """The sessions of this process that the server has been told of, by their ids."""
        self._channels: WeakSet[Channel] = WeakSet()
        self._sending = threading.Lock()
        self._lifeline = connect(server, SILENCE)
        own = own_session()
        facts = (self.id, process_name(), os.getpid(), socket.gethostname(), own.user, own.terminal)
        self.pid = request(self._lifeline, "open_session", facts, server)
        with borrowed_socket(self._lifeline) as sock:
            set_receive_timeout(sock, 0)
        threading.Thread(target=self._watch, name=f"catkit-lifeline-{server.name}", daemon=True).start()
        own_session().long_wait = waits_here

    @property
    def descriptor(self) -> int | None:
        """File descriptor of the lifeline, for the search for leaks; None when it is closed."""
        return None if self._lifeline.closed else self._lifeline.fileno()

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
            if shortage(error) is not None:
                raise  # a shortage in this process
            name = self.endpoint.name
            raise ServerUnresponsiveError(
                f"server {name!r} has not completed a connection ({error or 'it closed the connection'})", server=name
            ) from error
        set_receive_timeout(sock, 0)
        self._channels.add(channel)
        if self.lost is not None:
            channel.close()
            raise self.lost
        return channel

    def say(self, word: tuple[Any, ...]) -> None:
        """Send a message on the lifeline. Does nothing if the session is lost: the server knows that already."""
        if self.lost is None:
            try:
                with self._sending:
                    if not self._lifeline.closed:
                        self.told += 1
                        self._lifeline.send(word)
            except OSError as error:
                self._lose(f"its connection was lost ({error})")

    def introduce(self, session: Session) -> None:
        """Tell the server of a session of this process, unless it knows it already. May be repeated."""
        if session.id not in self.introduced:
            self.say(("session", session.id, session.process, session.origin))
            self.introduced.add(session.id)

    def tell_of_end(self, process: str, goodbye: bool) -> None:
        """Tell the server that a session of this process has ended, or, if it is a server, one of its clients.

        This process may have used the server for it.

        Args:
            process: id of the session, or of the client's process.
            goodbye: whether it ended in order.
        """
        for section, (owner, _) in list(self.sections.items()):
            if owner[0] == process:
                self.sections.pop(section, None)
        for key in [key for key in list(self.opened) if key[0] == process]:
            self.opened.pop(key, None)
        self.introduced.discard(process)
        self.say(("client ended", process, goodbye))

    def sections_of(self, owner: OwnerKey, lock: int | None = None) -> list[Section]:
        """Return the sections of an owner, the oldest first: of the lock with this number, or of all locks."""
        return [
            section for section, what in list(self.sections.items()) if what[0] == owner and lock in (None, what[1])
        ]

    def ending(self) -> ServerUnresponsiveError | None:
        """Return the error if the session is lost; waits a moment, so that a server that has just died is noticed."""
        self._gone.wait(_NOTICE)
        return copy.copy(self.lost)

    def goodbye(self) -> None:
        """End the session in order."""
        self.say(("goodbye",))
        self._lose("this process has ended the session")

    def abandon_copies(self) -> None:
        """Close what a forked child has inherited, without a message to the server."""
        self.lost = ServerUnresponsiveError("the session belongs to the parent process", server=self.endpoint.name)
        self._lifeline.close()
        for channel in list(self._channels):
            channel.close_copy()

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

    def _give_way(self, thread: int, number: int) -> None:
        """Let the operation to which a call belongs give way, because the call waits on the server."""
        nested = self.nested.get(thread)
        if nested is None or nested.number != number:
            return  # its answer has come already
        nested.gave_way = True
        call = nested.call
        give_way(call, still=lambda: self.nested.get(thread) is nested)
        if call.session.gives_way is not None:
            call.session.gives_way(call)

    def _watch(self) -> None:
        try:
            while self.lost is None:
                if self._lifeline.poll(_BEAT):
                    word = self._lifeline.recv()
                    self.silence = 0.0
                    if word[0] == "waits long":
                        _look_for_deadlock(*word[1:], self.endpoint.address, False)
                    elif word[0] == "waited for":
                        _look_for_deadlock(*word[1:-1], True)
                    elif word[0] == "waits":
                        self._give_way(*word[1:])
                else:
                    # Polls are counted, not seconds: while this process itself is stopped, no poll is made.
                    self.silence += _BEAT
                    if self.silence > SILENCE:
                        with _sessions_lock:
                            _silent[self.endpoint.address] = time.monotonic() - self.silence
                        self._lose(f"it has not answered for {SILENCE:g} s")
                    self.say(("ping",))
        except (EOFError, OSError) as error:
            self._lose(f"it has ended ({error})" if str(error) else "it has ended")
        except Exception as error:  # noqa: BLE001 - messages would not be read any more, so the session ends
            self._lose(f"this process could not read its messages any more ({type(error).__name__}: {error})")
        finally:
            with self._sending:  # else another thread could send to a new connection with the same number
                self._lifeline.close()


class _Attempt:
    """One thread connects to a server; other threads that need this server wait for the result."""

    __slots__ = ("done", "silent")

    def __init__(self) -> None:
        self.done = InterruptSafeEvent()
        self.silent: ServerUnresponsiveError | None = None
        """Set if the server did not answer: then it would not answer the waiting threads either."""


def session_with(known: Endpoint) -> ClientSession:
    """Return this process's session with the server; a new one if the last one is lost.

    Raises:
        ServerNotFoundError, ServerUnresponsiveError: it cannot be reached.
    """
    while True:
        with _sessions_lock:
            session = _sessions.get(known.address)
            if session is not None and session.lost is None:
                return session
            others = _attempts.get(known.address)
            if others is None:
                attempt = _attempts[known.address] = _Attempt()
                break
        if not others.done.wait(_ATTEMPT):
            _end_attempt(known, others)
        if others.silent is not None:
            raise copy.copy(others.silent) from None
    try:
        session = ClientSession(_newest(known))
        with _sessions_lock:
            if not _leaves:
                _leaves.append(util.Finalize(None, _take_leave, exitpriority=5))
            _sessions[known.address] = session
            _silent.pop(known.address, None)
    except ServerUnresponsiveError as error:
        attempt.silent = error
        raise
    else:
        return session
    finally:
        _end_attempt(known, attempt)


def _end_attempt(server: Endpoint, attempt: _Attempt) -> None:
    with _sessions_lock:
        if _attempts.get(server.address) is attempt:
            del _attempts[server.address]
    attempt.done.set()


def _newest(known: Endpoint) -> Endpoint:
    """Return how the server is reached now: if it was started again under the same name, it has a new key."""
    if isinstance(known.address, str):
        with contextlib.suppress(ServerNotFoundError):
            return endpoint(known.name)
    return known


def silence(server: Endpoint) -> float:
    """Return the seconds since the last message of a server; 0 if this process has no session with it."""
    with _sessions_lock:
        session = _sessions.get(server.address)
        if session is not None and session.lost is None:
            return session.silence
        since = _silent.get(server.address)
        return 0.0 if since is None else time.monotonic() - since


def open_sessions() -> list[ClientSession]:
    """Return this process's sessions."""
    with _sessions_lock:
        return list(_sessions.values())


def _look_for_deadlock(*wait: Any) -> None:
    from catkit_devices.multiprocessing.client.wait_graph import LongWait, look_for

    look_for(LongWait(*wait), open_sessions)


def waits_here(call: Call, attempt: int) -> None:
    """Look for a deadlock because a thread of this process waits for long for a mutex of this process."""
    sequence = sequence_of(call)
    if sequence is not None:
        _look_for_deadlock(call.owner.key, sequence, attempt, None, False)


def _take_leave() -> None:
    for session in open_sessions():
        session.goodbye()
