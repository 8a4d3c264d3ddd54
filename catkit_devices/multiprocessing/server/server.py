"""The server: the standard library's manager server, with sessions, connections for calls, and hosted objects.

Every connection begins with the standard library's mutual authentication; nothing is unpickled before it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from multiprocessing import AuthenticationError, connection, current_process, managers, parent_process, util
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import ServerError, ServerResourceError
from catkit_devices.multiprocessing.client import wait_graph
from catkit_devices.multiprocessing.locks import lock as locks
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.protocol import ROOT, audit_trail, running_server
from catkit_devices.multiprocessing.server.client_session import ServedSession
from catkit_devices.multiprocessing.server.objects import Host, unknown_target
from catkit_devices.multiprocessing.wire.channel import Channel, take_over
from catkit_devices.multiprocessing.wire.connecting import (
    borrowed_socket,
    bound_silence,
    keep_alive,
    set_receive_timeout,
)
from catkit_devices.multiprocessing.wire.forking import accept, private, socket_of
from catkit_devices.multiprocessing.wire.shortage import Reserve, shortage

if TYPE_CHECKING:
    from catkit_devices.errors import MutexTimeoutError
    from catkit_devices.multiprocessing.locks.lock import OwnedLock
    from catkit_devices.multiprocessing.locks.owner import Call, Owner
    from catkit_devices.multiprocessing.wire.endpoint import Address, Registration

__all__ = ["Server", "break_lock"]

_WORDS_APART = 10.0
"""Seconds between two messages about wrong keys, so that many attempts do not fill the log."""
_ROUND = 1.0
"""Seconds of one wait of the main thread: on some systems a signal does not interrupt a longer wait."""
_HANDSHAKE = 5.0
"""Seconds within which a connection must authenticate and send its request."""
_REFUSAL = 1.0
"""Seconds for the same if it will be refused: only one thread does that, and others may wait for it."""
_PAUSE = 0.05
"""Seconds until the next attempt to accept a connection, if one has failed."""
_LASTING = frozenset({"open_session", "open_calls", "accept_connection"})
"""The requests that keep their thread and descriptors."""
_EXCEPTIONS = 1000
"""How many exceptions of processes are kept; older ones are removed."""
_HANDSHAKES = 64
"""How many connections may be authenticating at once; if there are more, the oldest is closed."""

_log = logging.getLogger(__name__)


class Server(managers.Server):
    """Runs in its own process until it is shut down or its parent ends."""

    public = [*managers.Server.public, "open_session", "open_calls", "share_memory", "waits"]  # noqa: RUF012 - as the base declares it
    address: Address
    authkey: bytes
    listener: connection.Listener

    def __init__(
        self,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        *,
        registration: Registration | None,
        name: str,
    ) -> None:
        super().__init__(registry, address, authkey, serializer)
        private(socket_of(self.listener).fileno())
        self.name = name
        self.host = Host()
        self.host.on_timeout = _tell_timeout
        self._registration = registration
        self._sessions: dict[str, ServedSession] = {}
        self._sessions_guard = threading.Lock()
        self._pending: OrderedDict[int, connection.Connection] = OrderedDict()
        self._pending_guard = threading.Lock()
        self._wrong_keys = 0
        """How many connections had a wrong key since the last log message about that."""
        self._next_word = 0.0
        """When the next such message may be logged, on the monotonic clock."""
        self.exceptions: OrderedDict[int, bytes] = OrderedDict()
        self._closing = threading.Lock()

    # --- life -------------------------------------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until told to stop; then close all objects, the newest first."""
        sys.setswitchinterval(1e-4)  # seconds; with the default of 5 ms, a busy object would delay calls of others
        running_server.append(self)
        current_process()._manager_server = self  # type: ignore[attr-defined]  # noqa: SLF001 - as the base does
        wait_graph.own_address.append(self.address)
        self.stop_event = InterruptSafeEvent()
        # A signal handler interrupts this thread at any place, and must not wait for the lock of an event that this
        # thread may hold at that moment. SimpleQueue.put() may be called in a signal handler.
        told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._told = told
        signal.signal(signal.SIGTERM, lambda *_: told.put(None))
        self._reserve = Reserve(self.listener, self.handle_request)
        threading.Thread(target=self._watch_parent, daemon=True).start()
        threading.Thread(target=self.accepter, daemon=True).start()
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    told.get(timeout=_ROUND)
                    break
            self.stop_event.set()
        finally:
            self._close_everything()
            util._exit_function()  # type: ignore[attr-defined]  # noqa: SLF001 - os._exit calls no finalizers
            if self._registration is not None:
                # For example out of descriptors; the next program that looks for it cleans up.
                with contextlib.suppress(OSError):
                    self._registration.withdraw()
            os._exit(0)  # threads that serve clients are still there and must not delay the end

    def shutdown(self, c: connection.Connection) -> None:
        """Close all objects, then answer, then end."""
        self._close_everything()
        try:
            c.send(("#RETURN", None))
        finally:
            self._told.put(None)

    def _watch_parent(self) -> None:
        parent = parent_process()
        if parent is not None:
            connection.wait([parent.sentinel])
            self._told.put(None)

    def _close_everything(self) -> None:
        with self._closing:
            for hosted in reversed(self.host.everything()):
                try:
                    hosted.object._server_stops_()
                except Exception:  # noqa: BLE001 - an object that fails must not prevent that others are closed
                    _log.exception("%s %r could not be closed", hosted.reference.kind, hosted.reference.name)

    # --- connections ------------------------------------------------------------------------------------------------

    def accepter(self) -> None:
        """Accept connections, each with its own thread, until the process ends, even if threads or memory run out.

        The number of connections that have not authenticated yet is limited. Connections are accepted even while the
        server is ending: other servers may need it to make their devices safe.
        """
        while True:
            try:
                self._accept_one()
            except Exception:  # noqa: BLE001 - this is the only thread that accepts connections, so it must continue
                if not self.stop_event.is_set():
                    _log.exception("a connection could not be accepted")
                time.sleep(_PAUSE)

    def _accept_one(self) -> None:
        lacking = None
        try:
            conn = accept(self.listener)
        except OSError as error:
            lacking = shortage(error)
            found = self._reserve.accept() if lacking is not None else None
            if found is None:
                time.sleep(_PAUSE)  # a descriptor may become free in the meantime
                return
            conn = found
        with self._pending_guard:
            self._pending[id(conn)] = conn
            if len(self._pending) > _HANDSHAKES:
                _, oldest = self._pending.popitem(last=False)
                _hang_up(oldest)  # under the guard, so that its thread does not close it meanwhile
        if lacking is None:
            try:
                threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
            except RuntimeError as error:
                lacking = shortage(error) or str(error)
        if lacking is not None:
            self._reserve.take(conn, lacking)

    def handle_request(self, conn: connection.Connection, lacking: str | None = None) -> None:
        """Authenticate a connection, and carry out its request. Whatever an unknown client sends, the server goes on.

        Args:
            conn: the connection.
            lacking: what the server has run out of, if anything; then requests that keep their thread are refused.
        """
        with contextlib.suppress(OSError), conn:
            reply: tuple[str, Any]
            try:
                verb, args, kwargs = self._greet(conn, _HANDSHAKE if lacking is None else _REFUSAL)
                if lacking is not None and verb in _LASTING:
                    reply = self._refusal(lacking)
                else:
                    reply = ("#RETURN", getattr(self, verb)(conn, *args, **kwargs))
            except SystemExit:
                return
            except Exception as error:  # noqa: BLE001 - see above
                lacking = shortage(error)
                text = f"{type(error).__name__}: {error}"
                reply = ("#TRACEBACK", text) if lacking is None else self._refusal(lacking)
            conn.send(reply)

    def _refusal(self, lacking: str) -> tuple[str, ServerResourceError]:
        text = f"server {self.name!r} (pid {os.getpid()}) has refused a connection: it is {lacking}"
        return "#ERROR", ServerResourceError(text, server=self.name, pid=os.getpid())

    def _greet(self, conn: connection.Connection, timeout: float) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        try:
            with borrowed_socket(conn) as sock:
                set_receive_timeout(sock, timeout)
                if self.address_family == "AF_INET":
                    keep_alive(sock)
            try:
                connection.deliver_challenge(conn, self.authkey)
                connection.answer_challenge(conn, self.authkey)
            except AuthenticationError:
                self._tell_of_wrong_key()
                raise
            _, verb, args, kwargs = conn.recv()
            if verb not in self.public:
                raise ServerError(f"{verb!r} is not a request that this server knows", server=self.name)
            with borrowed_socket(conn) as sock:
                set_receive_timeout(sock, 0)
        finally:
            with self._pending_guard:
                self._pending.pop(id(conn), None)
        return verb, args, kwargs

    def _tell_of_wrong_key(self) -> None:
        """Log that a connection had a wrong key, but not more often than every ``_WORDS_APART`` seconds."""
        with self._pending_guard:
            self._wrong_keys += 1
            now = time.monotonic()
            if now < self._next_word:
                return
            count, self._wrong_keys, self._next_word = self._wrong_keys, 0, now + _WORDS_APART
        _log.warning("server %r refused %d connection(s) that had a wrong key", self.name, count)

    @property
    def address_family(self) -> str:
        """``AF_UNIX`` or ``AF_INET``."""
        return "AF_UNIX" if isinstance(self.address, str) else "AF_INET"

    def share_memory(self, c: connection.Connection, target: int) -> None:
        """Send the descriptor of an object's shared memory (of a frame stream)."""
        hosted = self.host.objects.get(target)
        memory = None if hosted is None else hosted.object._shared_memory_()
        if memory is None:
            raise unknown_target(target)
        descriptor, size = memory
        try:
            c.send(("#RETURN", size))
            with borrowed_socket(c) as sock:
                socket.send_fds(sock, [b"\0"], [descriptor])
        finally:
            os.close(descriptor)
        raise SystemExit

    def waits(self, c: connection.Connection) -> list[locks.Wait]:  # noqa: ARG002 - the verb's signature
        """Return this server's wait graph, for a client that looks for a deadlock over several servers."""
        return locks.waits()

    # --- clients ----------------------------------------------------------------------------------------------------

    def open_session(
        self,
        c: connection.Connection,
        identity: str,
        process: str,
        pid: int,
        host: str,
        user: str = "",
        terminal: str = "",
    ) -> None:
        """Begin a session; this connection is its lifeline until it ends."""
        session = ServedSession(identity, process, pid, host, c, self.host, self._perform)
        session.user, session.terminal = user, terminal
        with self._sessions_guard:
            self._sessions[identity] = session
        with borrowed_socket(c) as sock:
            bound_silence(sock)
        c.send(("#RETURN", os.getpid()))
        try:
            session.listen()
        finally:
            with self._sessions_guard:
                if self._sessions.get(identity) is session:
                    del self._sessions[identity]
            session.end()
        raise SystemExit

    def open_calls(
        self, c: connection.Connection, identity: str, thread: int, owner: Owner, void: tuple[Any, ...] | None
    ) -> None:
        """Carry out the calls of one thread of a client until it closes the connection."""
        session = self._sessions.get(identity)
        if session is None or session.ended:
            raise ServerError("this session has ended", server=self.name)
        if void is not None:
            session.void(*void)
        c.send(("#RETURN", None))
        owner.ended = False
        session.serve(Channel(take_over(c)), thread, owner)
        raise SystemExit

    def _perform(self, call: Call, target: int, name: str, args: Any, kwargs: Any) -> Any:
        """Carry out a request for the server itself or for a lock."""
        if target == ROOT:
            if name not in _ROOT_VERBS:
                raise ServerError(f"{name!r} is not a request that this server knows", server=self.name)
            return getattr(self, f"_root_{name}")(*args, **(kwargs or {}))
        hosted = self.host.objects.get(target)
        if hosted is None:
            raise unknown_target(target)
        lock = hosted.lock
        if lock is None or name not in _LOCK_VERBS:
            raise unknown_target(target)
        if name == "acquire":
            section, timeout, site = args
            return lock.acquire(call, timeout, section, site)
        if name == "release":
            return lock.release(call, *args)
        if name == "break_":
            return break_lock(lock, *args)
        return getattr(lock, name)(*args)

    # --- requests for the server itself -----------------------------------------------------------------------------

    def _root_obtain(self, kind: str, name: str, parameters: dict[str, Any], factory: Any, args: Any) -> Any:
        return self.host.obtain(kind, name, parameters, factory, args)

    def _root_forget(self, kind: str, name: str, target: int) -> bool:
        return self.host.forget(kind, name, target)

    def _root_status(self) -> dict[str, Any]:
        objects = []
        for hosted in self.host.everything():
            entry: dict[str, Any] = {"kind": hosted.reference.kind, "name": hosted.reference.name}
            if hosted.lock is not None:
                holder = hosted.lock.holder()
                entry["holder"] = holder._asdict() if holder is not None else None
                entry["waiters"] = [waiter._asdict() for waiter in hosted.lock.waiters()]
            objects.append(entry | hosted.object._status_())
        with self._sessions_guard:
            clients = list(self._sessions.values())
        sessions = [
            {
                "process": one.process,
                "pid": one.pid,
                "host": one.host,
                "origin": one.origin,
                "silent": time.monotonic() - client.heard,
            }
            for client in clients
            for one in client.sessions()
        ]
        return {"server": self.name, "pid": os.getpid(), "time": time.time(), "sessions": sessions, "objects": objects}

    def _root_hear_of_session(self) -> None:
        """Do nothing: by calling this in a new session, a client knows that the server has heard of it."""

    def _root_break_mutex(self, name: str, reason: str) -> str | None:
        locks = {
            (one.reference.kind, one.reference.name): one.lock for one in self.host.everything() if one.lock is not None
        }
        kinds = ("mutex", "object", *sorted(kind for kind, _ in locks))
        lock = next((locks[kind, name] for kind in kinds if (kind, name) in locks), None)
        if lock is None:
            known = ", ".join(sorted({known for _, known in locks})) or "none"
            raise LookupError(f"nothing that has a mutex is named {name!r} (there are: {known})")
        return break_lock(lock, reason)

    def _root_post_exception(self, pid: int, encoded: bytes) -> None:
        self.exceptions.pop(pid, None)
        self.exceptions[pid] = encoded
        while len(self.exceptions) > _EXCEPTIONS:
            self.exceptions.popitem(last=False)

    def _root_get_exception(self, pid: int) -> bytes | None:
        return self.exceptions.get(pid)


_ROOT_VERBS = frozenset(
    {"break_mutex", "forget", "get_exception", "hear_of_session", "obtain", "post_exception", "status"}
)
"""What clients may ask of the server itself."""
_LOCK_VERBS = frozenset({"acquire", "release", "holder", "waiters", "break_"})
"""What clients may do with a lock."""


def break_lock(lock: OwnedLock, reason: str) -> str | None:
    """Take a lock from its holder by force, and log it; return who that was, or None."""
    whose = lock.break_(reason)
    if whose is not None:
        for told in audit_trail:
            told(current_call(), "broke", lock.name, "", (whose,), {"reason": reason}, None)
        facts = {"mutex": lock.name, "holder": whose, "reason": reason}
        _log.warning(
            "mutex %r was taken from %s: %s", lock.name, whose, reason, extra={"event": "mutex_broken", "facts": facts}
        )
    return whose


def _tell_timeout(error: MutexTimeoutError) -> None:
    facts = {name: getattr(error, name) for name in ("mutex", "waited", "holder", "waiting")}
    _log.info("%s", error, extra={"event": "mutex_timeout", "facts": facts})


def _hang_up(conn: connection.Connection) -> None:
    try:
        with borrowed_socket(conn) as sock:
            sock.shutdown(2)
    except OSError:
        pass  # it is closed already
