"""A simulated Digital Loggers web power switch: a stand-in, and a real HTTP server.

``stand_in = "catkit_devices.sim.dli_power_switch:PowerSwitch"`` stands in for the REST-style API of the driver, without
a network. :class:`Server` serves the same over HTTP with digest authentication, for tests and for other programs.
Sources: those of :mod:`catkit_devices.plugins.dli_power_switch`; digest authentication: RFC 7616 with MD5.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs
from urllib.request import parse_http_list, parse_keqv_list

from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from catkit_devices.simulation import Clock

__all__ = ["PowerSwitch", "Server"]

_OUTLETS = "relay/outlets/"
"""Path of the outlets in the API."""


class PowerSwitch:
    """A switch with all outlets off.

    Args:
        clock: of the simulation.
        outlets: how many.
        delay: seconds from an order until the relay has switched.
    """

    def __init__(self, clock: Clock, *, outlets: int = 8, delay: float = 0.2) -> None:
        if not 1 <= outlets <= 16:
            raise ConfigurationError(f"outlets must be 1 to 16, got {outlets!r}")
        self._clock = clock
        self._delay = delay
        self._lock = threading.Lock()
        self._ordered = [False] * outlets
        self._before = [False] * outlets
        self._at = [0.0] * outlets

    @property
    def outlets(self) -> list[bool]:
        """Whether each relay is on."""
        return [self._physical(number) for number in range(len(self._ordered))]

    def get(self, path: str) -> str:
        """Return the value at a path, as JSON.

        Raises:
            LookupError: there is no such path.
        """
        with self._lock:
            if path == _OUTLETS:
                return json.dumps([self._facts(number) for number in range(len(self._ordered))])
            number, name = self._place(path)
            return json.dumps(self._facts(number)[name])

    def put(self, path: str, value: str) -> None:
        """Set the value at a path.

        Raises:
            LookupError: there is no such path that can be set.
        """
        with self._lock:
            number, name = self._place(path)
            if name != "state" or value not in ("true", "false"):
                raise LookupError(path)
            self._before[number] = self._physical(number)
            self._ordered[number], self._at[number] = value == "true", self._clock.time() + self._delay

    def _place(self, path: str) -> tuple[int, str]:
        number, _slash, name = path.removeprefix(_OUTLETS).rstrip("/").partition("/")
        if not path.startswith(_OUTLETS) or not number.isdecimal() or int(number) >= len(self._ordered):
            raise LookupError(path)
        return int(number), name

    def _facts(self, number: int) -> dict[str, Any]:
        return {
            "name": f"Outlet {number + 1}",
            "state": self._ordered[number],
            "physical_state": self._physical(number),
            "locked": False,
        }

    def _physical(self, number: int) -> bool:
        switched = self._clock.time() >= self._at[number]
        return self._ordered[number] if switched else self._before[number]


class Server:
    """Serves a switch over HTTP on this computer, in a thread: ``with Server(switch) as server: server.url``.

    Args:
        switch: what is served.
        user: who may use it.
        password: of the user.
    """

    def __init__(self, switch: PowerSwitch, *, user: str = "admin", password: str = "1234") -> None:  # noqa: S107 - the factory's
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(switch, user, password))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="power switch")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handler(switch: PowerSwitch, user: str, password: str) -> type[BaseHTTPRequestHandler]:
    nonce = secrets.token_hex(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve(switch.get)

        def do_PUT(self) -> None:
            body = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("latin-1"))
            if "X-CSRF" not in self.headers:
                self.send_error(403)
            else:
                self._serve(lambda path: switch.put(path, body.get("value", [""])[0]))

        def _serve(self, answer: Any) -> None:
            if not self._is_known():
                self._reply(401, None)
                return
            try:
                self._reply(200, answer(self.path.removeprefix("/restapi/")))
            except LookupError:
                self.send_error(404)

        def _reply(self, status: int, body: str | None) -> None:
            self.send_response(204 if body is None and status == 200 else status)
            if status == 401:
                self.send_header("WWW-Authenticate", f'Digest realm="switch", nonce="{nonce}", qop="auth"')
            self.send_header("Content-Length", str(len(body or "")))
            self.end_headers()
            self.wfile.write((body or "").encode())

        def _is_known(self) -> bool:
            given = self.headers.get("Authorization", "")
            if not given.startswith("Digest "):
                return False
            said = parse_keqv_list(parse_http_list(given.removeprefix("Digest ")))
            one, two = _md5(f"{user}:switch:{password}"), _md5(f"{self.command}:{self.path}")
            parts = (one, nonce, said.get("nc", ""), said.get("cnonce", ""), "auth", two)
            return said.get("uri") == self.path and said.get("response") == _md5(":".join(parts))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
            """Say nothing."""

    return Handler


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
