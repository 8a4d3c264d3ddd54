"""Simulated instruments on TCP ports, for several programs at once and for programs that do not use this project.

Each instrument has its own port, over which its bytes go unchanged. What some interfaces have in addition to bytes
(ends of messages, device clear, status bytes) cannot be sent over a plain socket. So an instrument with a USB address
must be used here like one with an Ethernet port: every command with its terminator.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import ConfigurationError
from catkit_devices.simulation.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from catkit_devices.simulation.resource import SimulatedResource
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary

__all__ = ["InstrumentServer", "Served"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16
"""Most bytes that are received or sent at once, so that no client makes the others wait."""
_BACKLOG = 1 << 20
"""Bytes that a client may leave unread; with more, no more commands are read from it."""
_STOPPING = 5.0
"""Seconds that stopping may take."""
_SHORTEST, _LONGEST = 0.0005, 0.01
"""Seconds between two checks what the instruments have sent: at first, and when nothing has happened for a while."""


@dataclass(frozen=True)
class Served:
    """Where one simulated instrument is served.

    Attributes:
        address: the VISA address at which the configuration has it.
        host: to connect to.
        port: to connect to.
    """

    address: str
    host: str
    port: int

    @property
    def visa(self) -> str:
        """The VISA address to use instead."""
        return f"TCPIP0::{self.host}::{self.port}::SOCKET"

    @property
    def serial(self) -> str:
        """The VISA address as a serial line, which pyvisa-py understands."""
        return f"ASRL{self.url}::INSTR"

    @property
    def url(self) -> str:
        """What ``serial.serial_for_url()`` takes."""
        return f"socket://{self.host}:{self.port}"


class InstrumentServer:
    """Serves the simulated instruments of one bench, each on a TCP port; a context manager.

    Any number of clients may be connected to one instrument. They all use the same instrument: what one sets another
    reads, and an answer goes to the client that wrote last. An instrument with a method ``connect`` answers each client
    by itself. Each client has its own buffers. When a client disconnects, answers to it are lost. If the instrument
    says how a command ends (``message_end``), commands reach it whole, one after the other, and an incomplete command
    of a client that disconnects is discarded. An instrument that does not say it, such as one with a prompt on a serial
    line, gets the bytes of all clients in the order in which they come. If a cable is pulled or a fault drops the line,
    its clients are disconnected.

    Everything happens in one thread. From a client that does not read its answers, no more commands are read meanwhile.

    Args:
        library: of the bench, whose clock must be the real one.
        host: address of this machine to serve on. Everybody who can reach it can use the instruments: there is no
            password.
        port_base: the first instrument's port; the others follow in order. None takes free ports.

    Raises:
        ConfigurationError: the bench runs on a virtual clock, or a port is not free.
    """

    def __init__(self, library: SimulatedVisaLibrary, *, host: str = "127.0.0.1", port_base: int | None = None) -> None:
        if isinstance(library.bench.clock, VirtualClock):
            raise ConfigurationError("a bench whose clock is virtual cannot be served: its clients run in real time")
        self._selector = selectors.DefaultSelector()
        self._clients: list[_Client] = []
        self._stopped = InterruptSafeEvent()
        self._active = time.monotonic()
        served: dict[str, Served] = {}
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self._selector.close)
            for index, address in enumerate(library.addresses):
                listener = _listen(host, 0 if port_base is None else port_base + index)
                cleanup.callback(listener.close)
                self._selector.register(listener, selectors.EVENT_READ, library.resource(address))
                served[address] = Served(address, _reachable(host), listener.getsockname()[1])
            waker, self._wake = socket.socketpair()
            cleanup.callback(waker.close)
            cleanup.callback(self._wake.close)
            self._selector.register(waker, selectors.EVENT_READ)
            self._cleanup = cleanup.pop_all()
        self.served: Mapping[str, Served] = served
        self._thread = threading.Thread(target=self._run, name="simulated instruments", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect every client and free the ports, within 5 s; a second call does nothing."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        self._thread.join(_STOPPING)
        if self._thread.is_alive():
            _log.error(
                "the server of the simulated instruments has not ended in %g s: one of the instruments hangs", _STOPPING
            )
            return
        self._cleanup.close()

    # --- the thread

    def _run(self) -> None:
        try:
            while True:
                if self._stopped.is_set():
                    break
                for key, events in self._selector.select(self._until_next()):
                    self._attend_to(key, events)
                for client in list(self._clients):
                    self._poll(client)
        finally:
            for client in list(self._clients):
                self._drop(client)

    def _until_next(self) -> float | None:
        if not self._clients:
            return None
        return min(_SHORTEST + 0.05 * (time.monotonic() - self._active), _LONGEST)

    def _attend_to(self, key: selectors.SelectorKey, events: int) -> None:
        if isinstance(key.data, _Client):
            with self._dropping(key.data):
                if events & selectors.EVENT_READ and key.data in self._clients:
                    self._receive(key.data)
                if events & selectors.EVENT_WRITE and key.data in self._clients:
                    self._send(key.data)
        elif key.data is not None:
            self._accept(key.fileobj, key.data)

    def _accept(self, listener: Any, resource: SimulatedResource) -> None:
        try:
            connection, peer = listener.accept()
        except OSError:  # the client has disconnected already
            return
        with resource.lock:
            if not resource.connected:
                connection.close()
                return
            client = _Client(connection, resource)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._clients.append(client)
        self._active = time.monotonic()
        _log.info("%s: %s:%d has connected", resource.address, *peer[:2])

    def _receive(self, client: _Client) -> None:
        data = client.socket.recv(_CHUNK)
        if not data:
            self._send(client)
            self._drop(client)
            return
        self._active = time.monotonic()
        for part in client.complete(data):
            with client.resource.lock:
                if not client.lost:
                    client.resource.write(part, client.receiver, end=False)
        self._forward(client.resource)

    def _poll(self, client: _Client) -> None:
        with self._dropping(client):
            with client.resource.lock:
                client.resource.poll(client.receiver)
            self._forward(client.resource)

    def _forward(self, resource: SimulatedResource) -> None:
        """Send what has arrived to the clients; disconnect those whose line was dropped."""
        for client in [client for client in self._clients if client.resource is resource]:
            with self._dropping(client):
                with resource.lock:
                    client.outgoing += client.receiver.take(len(client.receiver))
                    lost = client.lost
                if client.outgoing:
                    self._active = time.monotonic()
                    self._send(client)
                if lost:
                    self._drop(client)

    def _send(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if not client.outgoing:
                    break
                sent = client.socket.send(memoryview(client.outgoing)[:_CHUNK])
                del client.outgoing[:sent]
        wanted = selectors.EVENT_READ if len(client.outgoing) < _BACKLOG else 0
        wanted |= selectors.EVENT_WRITE if client.outgoing else 0
        self._selector.modify(client.socket, wanted, client)

    @contextlib.contextmanager
    def _dropping(self, client: _Client) -> Iterator[None]:
        """Disconnect the client if something goes wrong; the others continue."""
        try:
            yield
        except OSError:
            self._drop(client)
        except Exception:  # noqa: BLE001 - an error in the simulator's code
            _log.exception("%s: the simulated instrument failed; its client is disconnected", client.resource.address)
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.socket)
            with client.resource.lock:
                client.resource.detach(client.receiver)
        client.socket.close()


class _Client:
    """One connection to one instrument."""

    def __init__(self, connection: socket.socket, resource: SimulatedResource) -> None:
        self.socket = connection
        self.resource = resource
        self.receiver = resource.attach(connection=True)
        self.outgoing = bytearray()
        self._generation = resource.generation
        self._begun = b""

    @property
    def lost(self) -> bool:
        """Whether the line to the instrument was dropped since this client connected."""
        return self._generation != self.resource.generation

    def complete(self, data: bytes) -> list[bytes]:
        """Return what can go to the instrument now: complete commands, if the instrument says how they end."""
        end: bytes = getattr(self.resource.instrument, "message_end", b"")
        if not end:
            return [data]
        *commands, self._begun = (self._begun + data).split(end)
        return [command + end for command in commands]


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"a port must be 0 to 65535, got {port}")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ConfigurationError(f"simulated instruments cannot be served on {host}:{port}: {error}") from error


def _reachable(host: str) -> str:
    return socket.gethostname() if host in ("", "0.0.0.0") else host  # noqa: S104 - compared, not bound
