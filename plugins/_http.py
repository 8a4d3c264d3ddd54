"""Instruments with an API over HTTP: the base of their drivers, with digest authentication (RFC 7616)."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.device import Device
from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceProtocolError,
    DeviceTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpDevice"]

_PATIENCE = 3.0
"""Seconds that an instrument may take to answer: small ones are slow when they have many clients."""


class _Client:
    """Asks over HTTP; a stand-in has the same two methods."""

    def __init__(self, url: str, user: str, password: str, headers: Mapping[str, str]) -> None:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, url, user, password)
        # No proxy: the instrument is in the laboratory's own network.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPDigestAuthHandler(passwords)
        )
        self._url = url
        self._headers = dict(headers)

    def get(self, path: str) -> str:
        """Return the value at a path, as JSON."""
        return self._ask(path, "GET", None, {"Accept": "application/json"})

    def put(self, path: str, value: str) -> None:
        """Set the value at a path."""
        self._ask(path, "PUT", f"value={value}".encode(), self._headers)

    def _ask(self, path: str, method: str, data: bytes | None, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._url}/{path}", data, headers, method=method)  # noqa: S310 - the device has checked it
        with self._opener.open(request, timeout=_PATIENCE) as answer:
            return str(answer.read().decode())


class HttpDevice(Device):
    """An instrument with an API over HTTP. The commands of its properties are paths, and what it answers is JSON.

    Args:
        address: of the instrument, such as ``http://192.168.0.100``.
        user: the user on the instrument. The password is in the configuration, so choose a user who may do no
            more than needed.
        password: of that user.
    """

    root: ClassVar[str]
    """What all paths begin with."""
    headers: ClassVar[Mapping[str, str]] = {}
    """What the instrument wants in a request that changes something."""

    def __init__(self, name: str, *, address: str, user: str = "admin", password: str, **options: Any) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigurationError(f"the address must begin with http:// or https://, got {address!r}")
        super().__init__(name, **options)
        self._url = address.rstrip("/")
        self._user = user, password

    def _open(self) -> _Client:
        return _Client(f"{self._url}/{self.root}", *self._user, self.headers)

    def _close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def _query(self, path: str, timeout: float | None = None) -> str:  # noqa: ARG002 - as a VisaDevice has it
        return str(self._told("get", path))

    def _put(self, path: str, value: str) -> None:
        self._told("put", path, value)

    def _read_json(self, path: str, kind: type) -> Any:
        """Return the value at a path, which must be of that kind (str, bool, list)."""
        reply = self._query(path)
        try:
            value = json.loads(reply)
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise DeviceProtocolError(
                f"{self._url}: a {kind.__name__} in JSON was expected, got {reply[:80]!r}", **self._facts(path)
            )
        return value

    def _told(self, what: str, path: str, *value: str) -> Any:
        """Call a method of the client, with the errors of a device."""
        facts = self._facts(f"{what.upper()} {path}")
        self._checkpoint()
        try:
            return getattr(self._connection, what)(path, *value)
        except urllib.error.HTTPError as error:
            with error:
                why = "refuses the user or the password" if error.code == http.HTTPStatus.UNAUTHORIZED else "refuses"
                raise DeviceProtocolError(f"{self._url} {why}: {error}", **facts) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            kind = DeviceTimeoutError if isinstance(reason, TimeoutError) else DeviceDisconnectedError
            raise kind(f"{self._url}: {reason}", **facts) from error
        except (http.client.HTTPException, UnicodeError) as error:
            raise DeviceProtocolError(f"{self._url}: {type(error).__name__}: {error}", **facts) from error
