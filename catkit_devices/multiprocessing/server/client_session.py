"""A client as its server knows it: its session, which lasts as long as its lifeline, and the calls on its connections.

The *lifeline* is a connection over which short messages are sent while calls run on others. A thread of the server
reads from it, so the end of the client is noticed at once, even while its calls still run.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import OperationCancelled, SessionEndedError
from catkit_devices.multiprocessing.client.session import open_sessions
from catkit_devices.multiprocessing.locks.lock import cancel, end_deadlock, end_session, is_waited_for, sequence_of
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session, process_of, set_call
from catkit_devices.multiprocessing.protocol import LOCK, RAISED, REFUSED, RETURNED
from catkit_devices.multiprocessing.wire.channel import Channel, dumps
from catkit_devices.multiprocessing.wire.exceptions import encode
from catkit_devices.multiprocessing.wire.shortage import shortage

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from catkit_devices.multiprocessing.locks.lock import Section
    from catkit_devices.multiprocessing.server.objects import Host

__all__ = ["ServedSession"]

_HEARD = 5.0
"""Seconds that a call waits at most for messages on its client's lifeline that were sent before the call."""

_log = logging.getLogger(__name__)


class ServedSession(Session):
    """One client of a server.

    Args:
        identity, process, pid, host: as the client has sent them.
        lifeline: its connection.
        objects: the objects of the server.
        perform: carries out a request for the server itself, or for a lock.
    """

    __slots__ = (
        "_cancelled",
        "_lifeline",
        "_named",
        "_newest",
        "_objects",
        "_perform",
        "_process_id",
        "_represented",
        "_representing",
        "_said_goodbye",
        "_sending",
        "_void",
        "_voiding",
        "_words",
        "calls",
        "heard",
    )

    def __init__(
        self,
        identity: str,
        process: str,
        pid: int,
        host: str,
        lifeline: Connection,
        objects: Host,
        perform: Callable[[Call, int, str, Any, Any], Any],
    ) -> None:
        super().__init__(identity, process, pid, host)
        self._lifeline = lifeline
        self._objects = objects
        self._perform = perform
        self._process_id = identity.partition(".")[0]
        self._represented: dict[str, Session] = {}
        """If this client is a server itself: the sessions of its own clients, by their ids."""
        self._named: dict[str, Session] = {}
        """The sessions that this client has opened beside its own, to act for others, by their ids."""
        self._representing = threading.Condition(threading.Lock())
        self._words = 0
        """How many messages have come on the lifeline and were handled."""
        self._sending = threading.Lock()
        self._voiding = threading.Lock()
        self._said_goodbye = False
        self.heard = time.monotonic()
        """When its last message came, on the monotonic clock; a client sends one about every second."""
        self.calls: dict[int, Call] = {}
        """The present call of each thread."""
        self._newest: dict[int, int] = {}
        self._void: dict[int, int] = {}
        self._cancelled: dict[int, int] = {}
        """The last call of each thread that was cancelled: this message may come before the call itself."""
        self.long_wait = self._tell_waiter
        self.gives_way = self._tell_that_it_waits
        if hasattr(select, "POLLRDHUP"):
            poller = select.poll()
            poller.register(lifeline, select.POLLRDHUP)
            self.gone = lambda: bool(poller.poll(0))

    # --- the lifeline -----------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Handle the messages on the lifeline until the client says goodbye or has died."""
        try:
            while True:
                if self._said_goodbye:
                    break
                word = self._lifeline.recv()
                try:
                    self._hear(word)
                except Exception:  # noqa: BLE001 - a message that fails must not end the session, and release its locks
                    _log.exception("the message %r of client %s could not be handled", word, self.process)
                with self._representing:
                    self._words += 1
                    self._representing.notify_all()
        except (EOFError, OSError):
            return  # the client has died

    def tell(self, word: tuple[Any, ...]) -> None:
        """Send a message on the lifeline; if it is closed, do nothing: its end is noticed by ``listen``."""
        try:
            with self._sending:
                self._lifeline.send(word)
        except OSError:
            return

    def _tell_waiter(self, call: Call, attempt: int) -> None:
        sequence = sequence_of(call)
        if sequence is not None:
            self.tell(("waits long", call.owner.key, sequence, attempt))

    def _tell_that_it_waits(self, call: Call) -> None:
        if call.nested:
            thread = next((thread for thread, running in list(self.calls.items()) if running is call), None)
            self.tell(("waits", thread, call.number))

    def _hear(self, word: tuple[Any, ...]) -> None:
        self.heard = time.monotonic()
        match word:
            case ("ping",):
                self.tell(("pong",))
            case ("void", *void):
                self.void(*void)
            case ("cancel", thread, number):
                self._cancelled[thread] = number
                call = self.calls.get(thread)
                if call is not None and call.number == number:
                    cancel(call, OperationCancelled("the caller interrupted the operation"))
            case ("waited for?", owner, *wait):
                if is_waited_for(owner):
                    self.tell(("waited for", owner, *wait))
            case ("deadlock", owner, sequence, parties):
                end_deadlock(owner, sequence, parties)
            case ("arrived", thread, number):
                self._objects.deliveries.arrived(self, number)
                call = self.calls.get(thread)
                if call is None:
                    self._objects.deliveries.connection_ended(self, number)
                elif call.number != number:
                    self._objects.deliveries.forget(self, number)
            case ("session", identity, name, origin):
                self._begin_named(identity, name, origin)
            case ("client ended", identity, goodbye):
                self._end_represented(identity, goodbye)
            case ("withdraw", target, entry):
                hosted = self._objects.objects.get(target)
                if hosted is not None:
                    hosted.object._withdraw_entry_(entry)
            case ("goodbye",):
                self._said_goodbye = True

    def void(self, thread: int, number: int, given_up: int, sections: tuple[tuple[int, Section], ...]) -> None:
        """Handle a call that the client has abandoned: cancel it or do not begin it, and close its sections.

        Args:
            thread: the number of the client's thread.
            number: higher than the numbers of all calls that the thread has sent.
            given_up: number of the abandoned call.
            sections: those of which the client does not know whether they are open, with the number of the lock.
        """
        # The message comes twice, on the lifeline and with the next connection. The second must wait until the first is
        # handled, so that the calls of the next connection find the locks as the client believes them to be.
        with self._voiding:
            if number < self._newest.get(thread, 0) or self._void.get(thread, 0) >= number:
                return
            self._void[thread] = number
            call = self.calls.get(thread)
            if call is not None and call.number <= number:
                cancel(call, OperationCancelled("the caller interrupted the operation"))
            self._objects.deliveries.give_back(self, given_up)
            for target, section in sections:
                hosted = self._objects.objects.get(target)
                if hosted is not None and hosted.lock is not None:
                    hosted.lock.close_section(section)

    def end(self) -> None:
        """Release everything that the session held; devices that it left unsafe are made safe first."""
        with self._representing:
            represented = list(self._represented.values())
            named = list(self._named.values())
            self._represented.clear()
            self._named.clear()
            end_session(self)  # from here on no session of a client of this client is added
        _tell_of_end(self._process_id, self._said_goodbye)
        self._objects.deliveries.end_session(self)
        for session in named:  # they were not closed, so they have not ended in good order
            _tell_of_end(session.id, False)
            self._end(session, False)
        for session in (*represented, self):
            self._end(session, self._said_goodbye)

    def _end(self, session: Session, goodbye: bool) -> None:
        """Release everything that this session, or a session that is a part of it, held."""
        end_session(session)
        everything = self._objects.everything()
        for hosted in everything:
            try:
                hosted.object._session_ended_(session, goodbye)
            except Exception:  # noqa: BLE001 - one object that fails must not prevent the release of the locks
                kind, name = hosted.reference.kind, hosted.reference.name
                _log.exception("%s %r failed when client %s ended", kind, name, session.process)
        for call in list(self.calls.values()):
            if call.session is session:
                # Only now: in the queue of its mutex, a device that is to be made safe comes before others.
                cancel(call, session.end_error())
        for hosted in everything:  # only now: a lock shared with a device is granted only when the device is safe
            if hosted.lock is not None:
                hosted.lock.end_session(session)

    # --- clients of this client -------------------------------------------------------------------------------------

    def sessions(self) -> list[Session]:
        """Return this session, and those that its process has opened to act for others."""
        with self._representing:
            return [self, *self._named.values()]

    def _begin_named(self, identity: str, name: str, origin: str) -> None:
        session = self._part(identity, name, self.pid, self.host, origin)
        with self._representing:
            if not self.ended:
                self._named.setdefault(identity, session)

    def _part(self, identity: str, process: str, pid: int, host: str, origin: str = "") -> Session:
        session = Session(identity, process, pid, host, origin)
        session.carrier = self
        if pid == self.pid:
            session.user, session.terminal = self.user, self.terminal
        session.gone, session.long_wait, session.gives_way = self.gone, self.long_wait, self.gives_way
        return session

    def _further(self, identity: str) -> Session | None:
        """Return a session beside this one, which its process has opened or represents."""
        with self._representing:
            return self._named.get(identity) or self._represented.get(identity)

    def _session_for(self, owner: Owner) -> Session:
        """Return the session of an owner: this one, one that its process has opened, or one of a client of this client.

        Raises:
            SessionEndedError: it was opened by this client and has ended.
        """
        process = owner.key[0]
        if process == self._process_id:
            return self
        if process_of(process) == self._process_id:
            named = self._further(process)
            if named is None:
                raise SessionEndedError(owner.process)
            return named
        with self._representing:
            session = self._represented.get(process)
            if session is None and not self.ended:
                session = self._part(f"{self.id}/{process}", owner.process, owner.pid, owner.host, owner.origin)
                self._represented[process] = session
        return session or self

    def _end_represented(self, identity: str, goodbye: bool) -> None:
        with self._representing:
            session = self._named.pop(identity, None) or self._represented.pop(identity, None)
        if session is not None:
            _tell_of_end(identity, goodbye)
            self._end(session, goodbye)

    def _wait_for_words(self, told: int) -> None:
        """Wait until all messages were handled that the client had sent on the lifeline before it sent a call.

        A call may arrive before messages that were sent earlier on the lifeline: that a session has begun or ended, or
        that another thread of the same owner has abandoned a call.
        """
        if self._words < told:
            with self._representing:
                self._representing.wait_for(lambda: self._words >= told, _HEARD)

    # --- its connections --------------------------------------------------------------------------------------------

    def serve(self, channel: Channel, thread: int, owner: Owner) -> None:
        """Carry out the calls of one thread until it closes the connection."""
        try:
            channel.offer_pipes()
            while True:
                self._serve_one(channel, thread, owner)
        except (EOFError, OSError):
            owner.ended = self._void.get(thread, -1) < self._newest.get(thread, 0)
        except Exception:  # noqa: BLE001 - whatever it is, the connection is closed, which the client notices at once
            _log.exception("a connection of client %s was closed because of an error", self.process)
        finally:
            last = self.calls.pop(thread, None)
            if last is not None and last.hands_over:
                self._objects.deliveries.connection_ended(self, last.number)
            channel.close()

    def _serve_one(self, channel: Channel, thread: int, owner: Owner) -> None:
        request = channel.receive()
        try:
            number, target, operation, name, args, kwargs, origin = channel.unpack(request)
        except BaseException as error:  # noqa: BLE001 - an argument that cannot be loaded is an error of the caller
            channel.send(_refusal(error))
            return
        call = Call(owner, (owner.key, number), self, number)
        refusal: BaseException | None = None
        if origin is not None:
            try:
                call = self._call_of(number, *origin)
            except SessionEndedError as error:
                refusal = error
        self._newest[thread] = number
        last = self.calls.get(thread)
        self.calls[thread] = call
        if self._cancelled.get(thread) == number:
            call.cancel(OperationCancelled("the caller interrupted the operation"))
        if last is not None and last.hands_over:
            self._objects.deliveries.forget(self, last.number)
        if number <= self._void.get(thread, 0):
            raise EOFError  # the client has abandoned this call before it was begun, and this connection too
        if refusal is not None:
            channel.send(_failure(refusal))
            return
        try:
            set_call(call)
            hosted = self._objects.objects.get(target)
            if operation != LOCK and hosted is not None:
                reply = hosted.answer(channel, operation, name, args, kwargs)
            else:
                reply = channel.pack((RETURNED, self._perform(call, target, name, args, kwargs)), 1)
        except BaseException as error:  # noqa: BLE001 - every error of a shared object is sent to the caller
            reply = _failure(error)
        if call.session.ended:  # the call may have used other servers since they were told
            _tell_of_end(call.owner.key[0], False)
        channel.send(reply)

    def _call_of(self, number: int, owner: Owner, chain: object, apart: bool, told: int, emergency: str | None) -> Call:
        """Return the call that was sent with its owner: as part of a chain of calls, or as the first one of it."""
        self._wait_for_words(told)
        call = Call(owner, chain or (owner.key, number), self._session_for(owner), number)
        call.apart, call.nested = apart, chain is not None
        call.emergency = emergency is not None and self._objects.is_emergency(emergency)
        return call


def _tell_of_end(process: str, goodbye: bool) -> None:
    """Tell all servers that this one uses that a client has ended: it may have used them for this client."""
    for session in open_sessions():
        session.tell_of_end(process, goodbye)


def _failure(error: BaseException) -> bytes:
    """Return the answer to a call that has raised ``error``."""
    try:
        lacking = shortage(error)
        if lacking is not None:
            error.add_note(f"(raised in the process of the server, pid {os.getpid()}: it is {lacking})")
        return dumps((RAISED, encode(error)))
    except BaseException:  # noqa: BLE001 - the caller waits for an answer: it gets one that was made in advance
        return _NO_MEMORY


def _refusal(error: BaseException) -> bytes:
    """Return the answer to a call whose arguments could not be loaded."""
    try:
        lacking = shortage(error)
        if lacking is not None:
            return dumps((REFUSED, f"refused, nothing was done: the server is {lacking}"))
        error.add_note("an argument of the call could not be loaded in the process of the server")
        return dumps((REFUSED, encode(error)))
    except BaseException:  # noqa: BLE001 - see above
        return _NO_MEMORY


_NO_MEMORY = dumps((REFUSED, "the server has no memory left to send how the call ended"))
"""Made in advance: there is no memory left to make it when it is needed."""
