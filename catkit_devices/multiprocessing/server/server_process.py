"""The process of a server: what runs in it, and how the process that started it ends it."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import connection, current_process, managers
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import done
from catkit_devices.multiprocessing.wire.connecting import ask
from catkit_devices.multiprocessing.wire.endpoint import Endpoint, Registration
from catkit_devices.multiprocessing.wire.system import has_unix_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.wire.endpoint import Address

__all__ = ["TERMINAL", "serve", "stop"]

TERMINAL = tuple(getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGHUP") if hasattr(signal, name))
"""The signals that a terminal sends to all its processes: at Ctrl-C, Ctrl-backslash, Ctrl-Z, and when it is closed."""


def serve(
    registry: Any,
    name: str,
    address: tuple[str, int] | None,
    authkey: bytes,
    serializer: str,
    group: str | None,
    ready: connection.Connection,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Run the server, in its process; send its address on ``ready``."""
    from catkit_devices.multiprocessing.server.server import Server

    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)  # the parent handles these; the server ends when the parent does
    os.environ["CATKIT_DEVICES_SERVER"] = name
    registration = Registration(name, group) if address is None else None
    current_process().authkey = authkey
    if initializer is not None:
        done(initializer(*initargs), "the initializer of the server")
    where: Address = (
        registration.socket_path() if registration is not None and has_unix_sockets() else (address or ("127.0.0.1", 0))
    )
    server = Server(registry, where, authkey, serializer, registration=registration, name=name)
    if registration is not None:
        registration.publish(server.address, authkey)
    ready.send(Endpoint(name, server.address, authkey, os.getpid()))
    ready.close()
    server.serve_forever()


def stop(process: Any, server: Endpoint, state: Any, timeout: float) -> None:
    """Tell the server to close its devices and end; if it has not ended within ``timeout`` seconds, kill it."""
    state.value = managers.State.SHUTDOWN  # type: ignore[attr-defined]  # not in the library's stubs
    process.expect_end()
    if process.is_alive():
        try:
            ask(server, "shutdown", timeout=timeout)
        except ConnectionError:
            process.terminate()
    deadline = time.monotonic() + min(timeout, 5.0)
    while process.is_alive() and time.monotonic() < deadline:
        connection.wait([process.sentinel], max(0.0, deadline - time.monotonic()))
    if process.is_alive():
        process.kill()
    connection.wait([process.sentinel], 5.0)
    BaseProcess.join(process, 5.0)
