"""The connections for calls: one for each thread and server.

If a call is interrupted, its connection is closed, and the next call makes a new one. The server is told, on the
session's lifeline and again by the next connection, that the call is void, and so is the section that it was to open
or to close.

Ctrl-C may come again while the first one is handled. So a connection remembers a call whose end it has not seen; the
next call abandons that one first.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import (
    OperationCancelled,
    ServerResourceError,
    ServerUnresponsiveError,
    TransferError,
)
from catkit_devices.multiprocessing.client.session import Nested, open_sessions, session_with
from catkit_devices.multiprocessing.locks.lock import take_back
from catkit_devices.multiprocessing.locks.owner import (
    announced_owner,
    forwarded_call,
    local_session,
    thread_owner,
)
from catkit_devices.multiprocessing.protocol import CALL, HANDED_OVER, LOCK, REFUSED, RETURNED, ROOT, emergency_token
from catkit_devices.multiprocessing.wire.channel import last_class
from catkit_devices.multiprocessing.wire.shortage import shortage

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.client.session import ClientSession
    from catkit_devices.multiprocessing.locks.lock import Section
    from catkit_devices.multiprocessing.locks.owner import Call, Session
    from catkit_devices.multiprocessing.wire.channel import Arrived, Channel
    from catkit_devices.multiprocessing.wire.endpoint import Endpoint

__all__ = ["CallConnection", "connection_to", "post_exception"]

_DOES_NOT_LOAD = -1
"""Status of an answer that this process cannot load; servers send none that is negative."""

_ARGUMENTS = 4
"""The place of the arguments in the message of a call."""
_ABOUT_SECTIONS = frozenset({"acquire", "release"})
"""The requests to a lock that open or close a section, which is their first argument."""
_numbers = itertools.count(1)
_local = threading.local()


def _forget_parent() -> None:
    global _local  # noqa: PLW0603 - a forked child must not use the connections of its parent's thread
    _local = threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class CallConnection:
    """The calls of one thread to one server, one after the other."""

    __slots__ = ("channel", "doubtful", "session", "thread", "unfinished", "void")

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.thread = next(_numbers)
        self.unfinished = 0
        """Number of the call that was sent and whose answer was not read yet; 0 for none."""
        self.doubtful: tuple[tuple[int, Section], ...] = ()
        """The sections that the unfinished call was to open or to close, with the numbers of their locks."""
        self.void: tuple[Any, ...] | None = None
        self.channel: Channel | None = None

    def call(self, target: int, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Let the server carry out an operation; return its result, or raise its error.

        Raises:
            ServerUnresponsiveError: the server has ended or does not answer; it is not known whether the operation was
                carried out.
            ServerResourceError: the server has not enough memory, threads or descriptors; the connection stays usable.
        """
        from_call = forwarded_call()
        origin = None
        if from_call is not None:
            self._introduce(from_call.session)
            emergency = "".join(emergency_token) if from_call.emergency else None
            origin = (from_call.owner, from_call.chain, from_call.apart, self.session.told, emergency)
        elif (announced := announced_owner()) is not None:
            self._introduce(local_session())
            origin = (announced[0], None, announced[1], self.session.told, None)
        if self.unfinished:
            self.abandon()
        if operation == LOCK and name in _ABOUT_SECTIONS:
            self.doubtful = (*self.doubtful, (target, args[0]))
        number = next(_numbers)
        where = _ARGUMENTS if kwargs is None else None  # among keywords there may be the same array once more
        message = self._open().pack((number, target, operation, name, args, kwargs, origin), where)
        try:
            if from_call is not None:
                self.session.nested[self.thread] = nested = Nested(number, from_call)
                from_call.on_cancel(lambda: self.session.say(("cancel", self.thread, number)))
            channel = self._open()
            self.unfinished = number
            channel.send(message)
            answer = channel.receive()
            self.unfinished = 0  # an object that is being loaded may use this same connection
            try:
                status, value = channel.unpack(answer)
            except Exception as error:  # noqa: BLE001 - loading may raise anything
                self.unfinished = number
                self.abandon()
                status, value = _DOES_NOT_LOAD, _does_not_load(name, answer, error)
            if status == REFUSED:
                channel.forget_sent()
        except (EOFError, OSError) as error:
            self.unfinished = number
            self.abandon()
            lost = self.session.ending()
            if lost is not None:
                raise lost from None
            server, pid = self.session.endpoint.name, self.session.pid
            raise ServerUnresponsiveError(
                f"server {server!r} (pid {pid}): the connection was lost during {name!r} ({error or 'it was closed'})",
                server=server,
                pid=pid,
            ) from error
        except BaseException:
            self.unfinished = number
            self.abandon()
            raise
        finally:
            if from_call is not None:
                from_call.on_cancel(None)
                self.session.nested.pop(self.thread, None)
                if nested.gave_way:
                    self._take_back(from_call, number)
        # From here to the caller no function is called, so that Ctrl-C, which comes at calls, cannot lose the value.
        self.doubtful = ()
        if status == RETURNED:
            return value
        if status == HANDED_OVER:
            try:
                self._acknowledge(local_session() if from_call is None else from_call.session, number)
            except BaseException:
                self.unfinished = number
                self.abandon()
                raise
            return value
        if status == _DOES_NOT_LOAD:
            raise value
        if isinstance(value, str):
            server, pid = self.session.endpoint.name, self.session.pid
            raise ServerResourceError(f"server {server!r} (pid {pid}), {name!r}: {value}", server=server, pid=pid)
        from catkit_devices.multiprocessing.wire.exceptions import decode

        raised = decode(value)
        if from_call is not None and from_call.reason is not None and isinstance(raised, OperationCancelled):
            raise from_call.reason from raised  # the other server does not know why the call was cancelled
        raise raised

    def _introduce(self, session: Session) -> None:
        if session.introduce is not None:
            session.introduce(self.session)

    def _acknowledge(self, session: Session, number: int) -> None:
        """Tell the server that a value has arrived."""
        session.require_open()  # if it has ended, the server takes the value back
        self.session.say(("arrived", self.thread, number))

    def _take_back(self, from_call: Call, number: int) -> None:
        try:
            take_back(from_call)
        except BaseException:
            self.unfinished = number  # its result is not passed on
            self.abandon()
            raise

    def _open(self) -> Channel:
        if self.channel is None:
            self.channel = self.session.open_channel((self.thread, thread_owner(), self.void))
            self.void = None
        return self.channel

    def abandon(self) -> None:
        """Abandon the unfinished call and the connection; tell the server which sections are not open from now on.

        May be repeated.
        """
        number = next(_numbers)  # higher than the numbers of all calls so far, and valid even if there was no call
        self.unfinished = self.unfinished or number
        self.void = (self.thread, number, self.unfinished, self.doubtful)
        if self.channel is not None:
            self.session.say(("void", *self.void))
            self.channel.close()
            self.channel = None
        self.unfinished = 0
        self.doubtful = ()


def _does_not_load(name: str, answer: bytes | Arrived, error: Exception) -> Exception:
    """Return the error to raise for an answer that has arrived but cannot be loaded."""
    if shortage(error) is not None:  # a shortage in this process; the answer itself is correct
        return error
    problem = f"cannot be loaded in this process ({type(error).__name__}: {error})"
    raised = TransferError(name, last_class(answer), problem)
    raised.__cause__ = error
    return raised


def connection_to(server: Endpoint) -> CallConnection:
    """Return this thread's connection to the server; with a new session if the last one is lost.

    Raises:
        ServerNotFoundError, ServerUnresponsiveError: it cannot be reached.
    """
    try:
        connection: CallConnection | None = _local.connections.get(server.address)
    except AttributeError:
        _local.connections, connection = {}, None
    if connection is not None and connection.session.lost is None:
        return connection
    for address, other in list(_local.connections.items()):
        if other.session.lost is not None:
            del _local.connections[address]  # else a program that uses many servers would collect sockets and segments
    connection = CallConnection(session_with(server))
    _local.connections[server.address] = connection
    return connection


def post_exception(pid: int, encoded: bytes) -> None:
    """Store an exception on every server that this process uses."""
    for session in open_sessions():
        if session.lost is None:
            connection_to(session.endpoint).call(ROOT, CALL, "post_exception", (pid, encoded), None)
