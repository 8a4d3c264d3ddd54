"""Connections to a server: how they are made and authenticated. Every wait has a limit."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ServerError, ServerNotFoundError, ServerUnresponsiveError
from catkit_devices.multiprocessing.wire.forking import making, private

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catkit_devices.multiprocessing.wire.endpoint import Endpoint

__all__ = [
    "SILENCE",
    "ask",
    "borrowed_socket",
    "bound_silence",
    "connect",
    "keep_alive",
    "receive_descriptor",
    "request",
    "set_receive_timeout",
]

SILENCE = 5.0
"""Seconds of silence after which a server counts as unresponsive."""


def connect(server: Endpoint, timeout: float) -> connection.Connection:
    """Return an authenticated connection.

    Raises:
        ServerNotFoundError: there is no server at this address.
        ServerUnresponsiveError: the server does not answer within ``timeout`` seconds.
        AuthenticationError: the server has another key.
    """
    deadline = time.monotonic() + timeout
    suspended = False
    while True:
        began = time.monotonic()
        try:
            return _connect_once(server, timeout)
        except _CrowdedError as crowded:
            # Too many connect at once: the queue of the Unix socket is full, or the server has dropped the oldest one.
            now = time.monotonic()
            if now - began > timeout and not suspended:
                # The server gave up this connection while this process was suspended; that says nothing about it.
                deadline, suspended = now + timeout, True
            if now > deadline:
                raise ServerUnresponsiveError(str(crowded), server=server.name, pid=server.pid) from crowded
            time.sleep(0.005)


class _CrowdedError(Exception):
    pass


class _SocketConnection(connection.Connection):
    """A connection that closes its socket object, and not a number: after Ctrl-C the number may be in use again."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        super().__init__(sock.fileno())

    def _close(self) -> None:
        self.socket.close()


def _connect_once(server: Endpoint, timeout: float) -> connection.Connection:
    label = f"server {server.name!r} (pid {server.pid or 'not known'} at {server.address})"
    facts: dict[str, Any] = {"server": server.name, "pid": server.pid}
    family = socket.AF_UNIX if isinstance(server.address, str) else socket.AF_INET
    with making:
        sock = socket.socket(family, socket.SOCK_STREAM)
        private(sock.fileno())
    try:
        sock.settimeout(timeout)
        sock.connect(server.address)
        sock.settimeout(None)
        if sock.family == socket.AF_INET:
            keep_alive(sock)
        set_receive_timeout(sock, timeout)
    except BlockingIOError as error:
        sock.close()
        raise _CrowdedError(f"{label} has not accepted a connection within {timeout:g} s") from error
    except TimeoutError as error:
        sock.close()
        raise ServerUnresponsiveError(f"{label} has not accepted a connection within {timeout:g} s", **facts) from error
    except OSError as error:
        sock.close()
        raise ServerNotFoundError(f"{label} is not running ({error})", **facts) from error
    conn = _SocketConnection(sock)
    try:
        connection.answer_challenge(conn, server.authkey)
        connection.deliver_challenge(conn, server.authkey)
    except BlockingIOError as error:
        conn.close()
        raise ServerUnresponsiveError(f"{label} has sent nothing for {timeout:g} s", **facts) from error
    except (EOFError, ConnectionError) as error:
        conn.close()
        raise _CrowdedError(f"{label} closed the connection") from error
    except BaseException:
        conn.close()
        raise
    return conn


def set_receive_timeout(sock: socket.socket, timeout: float) -> None:
    """Give every blocking read of the socket a timeout in seconds, in the kernel; 0 for none."""
    if os.name == "posix":
        import struct

        seconds = int(timeout)
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, int((timeout - seconds) * 1e6))
        )
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, int(timeout * 1000))


@contextlib.contextmanager
def borrowed_socket(conn: connection.Connection) -> Iterator[socket.socket]:
    """Lend the socket under a connection, for its options."""
    if isinstance(conn, _SocketConnection):
        yield conn.socket
        return
    sock = socket.socket(fileno=conn.fileno())
    try:
        yield sock
    finally:
        sock.detach()


def keep_alive(sock: socket.socket) -> None:
    """Make the kernel notice within seconds that the other host is gone; for a stopped process its kernel answers."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4), ("TCP_NODELAY", 1)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def bound_silence(sock: socket.socket) -> None:
    """Make the kernel end a TCP connection if what was sent is not acknowledged within seconds.

    Keepalive does not work while there is unacknowledged data (tcp(7), TCP_USER_TIMEOUT).
    """
    if sock.family == socket.AF_INET and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(SILENCE * 1000))


def ask(server: Endpoint, verb: str, *args: Any, timeout: float = SILENCE) -> Any:
    """Send one request to a server, over a new connection, and return the answer."""
    conn = connect(server, timeout)
    with conn:
        return request(conn, verb, args, server)


def receive_descriptor(server: Endpoint, target: int) -> tuple[int, int]:
    """Return the descriptor and the size of the shared memory that an object of the server has.

    Raises:
        ServerError: the server is on another host, or the object has none.
    """
    if not isinstance(server.address, str):
        raise ServerError(f"server {server.name!r} is reached over TCP: memory is shared on one host only")
    conn = connect(server, SILENCE)
    with conn:
        size: int = request(conn, "share_memory", (target,), server)
        with borrowed_socket(conn) as sock:
            _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    return descriptors[0], size


def request(conn: connection.Connection, verb: str, args: tuple[Any, ...], server: Endpoint) -> Any:
    """Ask on an authenticated connection and return the answer.

    Raises:
        ServerResourceError: the server has not enough memory, threads or descriptors for it.
        ServerUnresponsiveError: the server refused the request, or has ended.
    """
    try:
        conn.send((None, verb, args, {}))
        kind, result = conn.recv()
    except (EOFError, OSError) as error:
        raise ServerUnresponsiveError(
            f"server {server.name!r} did not answer {verb!r} ({error or 'connection closed'})", server=server.name
        ) from error
    if kind == "#ERROR":
        raise result
    if kind != "#RETURN":
        raise ServerUnresponsiveError(f"server {server.name!r} refused {verb!r}: {result}", server=server.name)
    return result
