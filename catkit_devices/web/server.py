"""The web service: a small server in a thread of a program that is attached to a testbed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing import runtime_directory
from catkit_devices.web.access import Keys, is_local

try:
    import uvicorn

    from catkit_devices.web.actions import Actions
    from catkit_devices.web.application import make_application
    from catkit_devices.web.connections import BoundedConnection
    from catkit_devices.web.lookout import Lookout
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
        raise
    raise ConfigurationError(
        f"the web service needs {error.name!r}, which is not installed: pip install 'catkit-devices[web]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment

__all__ = ["DEFAULT_PORT", "WebServer"]

DEFAULT_PORT = 8870
"""Not registered for anything else, and free on most computers."""
_KEEP_ALIVE = 20
"""Seconds for which a browser's connection is kept between two requests."""
_GRACE = 2
"""Seconds that requests have to end when the service ends."""
_END_TIMEOUT = 10.0
"""Seconds until the thread of the server has ended."""
_BACKLOG = 512
"""Connections that wait to be accepted."""
_LARGEST_HEAD = 32 * 1024
"""Bytes that the head of a request may have."""

_log = logging.getLogger(__name__)


class WebServer:
    """Serves a testbed to browsers and programs; a context manager.

    Args:
        client: of the testbed.
        host: address of this computer to serve on.
        port: 0 for a free one.
        names: further names by which browsers may call it.
        certificate: file of the TLS certificate; without it, plain HTTP is spoken.
        key: file of its key.
        plain_control: whether control over plain HTTP from another computer is allowed.
        experiments: those that visitors may start, by name.

    Raises:
        ConfigurationError: it cannot serve there, or the certificate cannot be read.
    """

    def __init__(
        self,
        client: TestbedClient,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        names: Sequence[str] = (),
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        plain_control: bool = False,
        experiments: Mapping[str, type[Experiment]] | None = None,
    ) -> None:
        if (certificate is None) != (key is None):
            raise ConfigurationError("TLS needs both a certificate and its key, got one of them")
        self.keys = Keys()
        self.secure = certificate is not None
        self._lookout = Lookout(client)
        self._actions = Actions(client, experiments)
        self._host = host
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.token_file: Path = runtime_directory() / f"{client.name}-{self.port}.web.token"
        known = {"localhost", "127.0.0.1", "::1", *(name.lower() for name in names)}
        if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - it is compared
            known.add(host.lower())
        else:
            known |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        application = make_application(
            client, self._actions, self._lookout, self.keys, known, lambda: self.port, plain_control=plain_control
        )
        config = uvicorn.Config(
            application, http=BoundedConnection, ws="none", loop="asyncio", lifespan="on", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE, h11_max_incomplete_event_size=_LARGEST_HEAD,
            ssl_certfile=certificate, ssl_keyfile=key,
        )  # fmt: skip
        try:
            config.load()
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(f"the certificate or its key cannot be used: {error}") from error
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="web service", daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        host = "localhost" if self._host in ("0.0.0.0", "::", "") else self._host  # noqa: S104 - it is compared
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{shown}:{self.port}/"

    @property
    def local(self) -> bool:
        """Whether only this computer can reach it."""
        return is_local(self._host) or self._host == "localhost"

    def start(self) -> Self:
        """Begin to serve: whoever connects from now on is answered."""
        self._write_token()
        self._thread.start()
        return self

    def close(self) -> None:
        """End: visitors that have locks count as dead, because nobody can give them back any more."""
        self._server.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._lookout.close)
        if self._thread.ident is not None:
            self._thread.join(_END_TIMEOUT)
        self._actions.close()
        self._socket.close()
        self.token_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 - it is logged: the thread has nobody to tell
            _log.exception("the web service has ended")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def _write_token(self) -> None:
        """Write the token for control where only this user can read it, for programs on this computer."""
        self.token_file.unlink(missing_ok=True)
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.keys.control + "\n")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the web service cannot listen at {host}, port {port}: {error}; --port PORT takes another, 0 a free one"
        ) from error
