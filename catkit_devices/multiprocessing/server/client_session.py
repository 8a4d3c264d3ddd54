"""A client as its server knows it: the session, kept by a lifeline, and the calls on its connections.

A session's lifeline has a thread that blocks in ``recv`` on it, so its end is noticed while its calls still run.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import OperationCancelled
from catkit_devices.multiprocessing.client.session import open_sessions
from catkit_devices.multiprocessing.locks.lock import cancel, end_deadlock, end_session, is_waited_for, sequence_of
from catkit_devices.multiprocessing.locks.owner import Call, Owner, Session, set_call
from catkit_devices.multiprocessing.protocol import LOCK, RAISED, REFUSED, RETURNED
from catkit_devices.multiprocessing.wire.channel import Channel, dumps
from catkit_devices.multiprocessing.wire.exceptions import encode
from catkit_devices.multiprocessing.wire.shortage import shortage

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from catkit_devices.multiprocessing.server.objects import Host

__all__ = ["ServedSession"]

_HEARD = 5.0
"""Seconds that a call waits at most for its client's lifeline; it is one word behind, if that."""

_log = logging.getLogger(__name__)


class ServedSession(Session):
    """One client of a server.

    Args:
        identity, process, pid, host: as the client announced itself.
        lifeline: its connection.
        objects: what the server keeps.
        perform: does what is asked of the server itself, or of a lock.
    """

    __slots__ = (
        "_cancelled",
        "_ends_heard",
        "_lifeline",
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
        """Clients of this client, which is a server itself, by the ids of their processes; each is a session."""
        self._representing = threading.Condition(threading.Lock())
        self._ends_heard = 0
        """How many ends of these the client has told of, as far as they have been seen to."""
        self._sending = threading.Lock()
        self._voiding = threading.Lock()
        self._said_goodbye = False
        self.heard = time.monotonic()
        """When something came from it last; a client says something about once a second."""
        self.calls: dict[int, Call] = {}
        """The call in flight of each thread."""
        self._newest: dict[int, int] = {}
        self._void: dict[int, int] = {}
        self._cancelled: dict[int, int] = {}
        """The last call of each thread that was cancelled: the word of it may come before the call itself."""
        self.long_wait = self._tell_waiter
        self.gives_way = self._tell_that_it_waits
        if hasattr(select, "POLLRDHUP"):
            poller = select.poll()
            poller.register(lifeline, select.POLLRDHUP)
            self.gone = lambda: bool(poller.poll(0))

    # --- the lifeline -----------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear what comes on the lifeline until the client takes its leave, or is gone."""
        try:
            while not self._said_goodbye:
                word = self._lifeline.recv()
                try:
                    self._hear(word)
                except Exception:  # noqa: BLE001 - one word that fails must not end the session, and free what it holds
                    _log.exception("%s: %r was not done", self.process, word)
        except (EOFError, OSError):
            return  # it has died

    def tell(self, word: tuple[Any, ...]) -> None:
        """Put a word on the lifeline, unless its end is noticed just now."""
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
            case ("client ended", process, goodbye):
                self._end_represented(process, goodbye)
            case ("withdraw", target, entry):
                hosted = self._objects.objects.get(target)
                if hosted is not None:
                    hosted.object._withdraw_entry_(self, entry)
            case ("goodbye",):
                self._said_goodbye = True

    def void(self, thread: int, number: int, given_up: int, owner: Any, sections: dict[int, int]) -> None:
        """The client gave up a call: it is not begun any more, or cancelled; its sections are what the client says.

        Args:
            thread: whose.
            number: newer than all that the thread has asked for.
            given_up: number of the call.
            owner: who has sections.
            sections: how many, by the lock.
        """
        # The message comes twice, on the lifeline and with the next connection. The second must wait until the first is
        # done, or what the next connection acquires would be taken away again.
        with self._voiding:
            if number < self._newest.get(thread, 0) or self._void.get(thread, 0) >= number:
                return
            self._void[thread] = number
            call = self.calls.get(thread)
            if call is not None and call.number <= number:
                cancel(call, OperationCancelled("the caller interrupted the operation"))
            self._objects.deliveries.give_back(self, given_up)
            session = self._represented.get(owner[0], self)
            for hosted in self._objects.everything():
                if hosted.lock is not None and hosted.reference.lock is not None:
                    hosted.lock.set_depth(owner, session, sections.get(hosted.reference.lock, 0))

    def end(self) -> None:
        """Give back what the session had; what it left unsafe is made safe first."""
        with self._representing:
            represented = list(self._represented.values())
            self._represented.clear()
            end_session(self)  # from here on nobody is represented any more
        _tell_of_end(self._process_id, self._said_goodbye)
        self._objects.deliveries.end_session(self)
        for session in (*represented, self):
            self._end(session, self._said_goodbye)

    def _end(self, session: Session, goodbye: bool) -> None:
        """Give back what this session, or one that is a part of it, had."""
        end_session(session)
        for call in list(self.calls.values()):
            if call.session is session:
                cancel(call, OperationCancelled("the calling process has ended"))
        everything = self._objects.everything()
        for hosted in everything:
            try:
                hosted.object._session_ended_(session, goodbye)
            except Exception:  # noqa: BLE001 - one that fails must keep no lock from the others
                kind, name = hosted.reference.kind, hosted.reference.name
                _log.exception("%s %r was not told that %s has ended", kind, name, session.process)
        for hosted in everything:  # only now: a lock that is shared with a device must not be granted before it is safe
            if hosted.lock is not None:
                hosted.lock.end_session(session)

    # --- clients of this client -------------------------------------------------------------------------------------

    def _session_for(self, owner: Owner) -> Session:
        """Return the session of an owner: this one, or the part of it that is for another process, which it serves."""
        process = owner.key[0]
        if process == self._process_id:
            return self
        with self._representing:
            session = self._represented.get(process)
            if session is None and not self.ended:
                session = Session(f"{self.id}/{process}", owner.process, owner.pid, owner.host)
                session.carrier = self
                session.gone, session.long_wait, session.gives_way = self.gone, self.long_wait, self.gives_way
                self._represented[process] = session
        return session or self

    def _end_represented(self, process: str, goodbye: bool) -> None:
        with self._representing:
            session = self._represented.pop(process, None)
        try:
            if session is not None:
                _tell_of_end(process, goodbye)
                self._end(session, goodbye)
        finally:
            with self._representing:
                self._ends_heard += 1
                self._representing.notify_all()

    def _hear_ends(self, told: int) -> None:
        """Wait until all is seen to that the client has told of before it sent a call: the lifeline may be slower."""
        if self._ends_heard < told:
            with self._representing:
                self._representing.wait_for(lambda: self._ends_heard >= told, _HEARD)

    # --- its connections --------------------------------------------------------------------------------------------

    def serve(self, channel: Channel, thread: int, owner: Owner) -> None:
        """Serve one thread's calls until it closes the connection."""
        try:
            channel.offer_pipes()
            while True:
                self._serve_one(channel, thread, owner)
        except (EOFError, OSError):
            owner.ended = self._void.get(thread, -1) < self._newest.get(thread, 0)
        except Exception:  # noqa: BLE001 - whatever it is, the client hears at once that its connection is gone
            _log.exception("a connection of %s was dropped", self.process)
        finally:
            last = self.calls.pop(thread, None)
            if last is not None and last.hands_over:
                self._objects.deliveries.connection_ended(self, last.number)
            channel.close()

    def _serve_one(self, channel: Channel, thread: int, owner: Owner) -> None:
        request = channel.receive()
        try:
            number, target, operation, name, args, kwargs, origin = channel.unpack(request)
        except BaseException as error:  # noqa: BLE001 - an argument that does not load here is the caller's error
            channel.send(_refusal(error))
            return
        if origin is None:
            call = Call(owner, (owner.key, number), self, number)
        else:
            first, chain, apart, told, emergency = origin
            self._hear_ends(told)
            call = Call(first, chain or (first.key, number), self._session_for(first), number)
            call.apart, call.nested = apart, chain is not None
            call.emergency = emergency is not None and self._objects.is_emergency(emergency)
        self._newest[thread] = number
        last = self.calls.get(thread)
        self.calls[thread] = call
        if self._cancelled.get(thread) == number:
            call.cancel(OperationCancelled("the caller interrupted the operation"))
        if last is not None and last.hands_over:
            self._objects.deliveries.forget(self, last.number)
        if number <= self._void.get(thread, 0):
            raise EOFError  # the client gave this call up before it was begun, and this connection with it
        try:
            set_call(call)
            hosted = self._objects.objects.get(target)
            if operation != LOCK and hosted is not None:
                reply = hosted.answer(channel, operation, name, args, kwargs)
            else:
                reply = channel.pack((RETURNED, self._perform(call, target, name, args, kwargs)))
        except BaseException as error:  # noqa: BLE001 - everything that a shared object raises belongs to the caller
            reply = _failure(error)
        if call.session.ended:  # it may have used other servers since they were told
            _tell_of_end(call.owner.key[0], False)
        channel.send(reply)


def _tell_of_end(process: str, goodbye: bool) -> None:
    """Tell the servers that this one uses, perhaps on behalf of a client, that the client has ended."""
    for session in open_sessions():
        session.tell_of_end(process, goodbye)


def _failure(error: BaseException) -> bytes:
    """Return the answer to a call that has raised ``error``."""
    try:
        lacking = shortage(error)
        if lacking is not None:
            error.add_note(f"(raised in the process of the server, pid {os.getpid()}: it is {lacking})")
        return dumps((RAISED, encode(error)))
    except BaseException:  # noqa: BLE001 - the caller waits for an answer: it gets the one that was made beforehand
        return _NO_MEMORY


def _refusal(error: BaseException) -> bytes:
    """Return the answer to a call whose arguments could not be taken."""
    try:
        lacking = shortage(error)
        if lacking is not None:
            return dumps((REFUSED, f"refused, nothing was done: the server is {lacking}"))
        error.add_note("an argument of the call does not load in the process of the server")
        return dumps((REFUSED, encode(error)))
    except BaseException:  # noqa: BLE001 - see above
        return _NO_MEMORY


_NO_MEMORY = dumps((REFUSED, "the server has no memory left to tell how the call ended"))
