"""What every request must pass before anything is done for it; and what every answer tells the browser."""

from __future__ import annotations

import asyncio
import json
import time
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from catkit_devices.web.access import Access, Grant, Keys, Visitor, is_local
from catkit_devices.web.problems import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AGENTS", "Guard", "cookie_name", "visitor_of"]

AGENTS = "/mcp"
"""Where agents come in. A token that was granted to an agent is accepted only here, and no other gives control here."""

_LARGEST_BODY = 1 << 20
"""Bytes (1 MiB) of the body of a request: more than any form, less than what fills the memory."""
_BODY_TIMEOUT = 20.0
"""Seconds until the body of a request has come."""
_LONGEST_QUERY = 4096
"""Characters of what follows the question mark of an address."""
_RATE, _BURST = 50.0, 200.0
"""Requests in a second that one address may send in the long run, and at once."""
_SECRETS = frozenset({"token", "access_token", "key", "password", "lock", "secret"})
"""Names that no part of an address may have: addresses are written to logs and kept in histories."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers say of our own forms that their origin is null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""Of every answer: the browser runs no script but ours, and shows our pages in no other page."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""


def cookie_name(port: int) -> str:
    """Return the name of our cookie: several services on one computer do not overwrite each other's."""
    return f"catkit_devices_{port}"


def visitor_of(scope: Scope) -> Visitor:
    """Return who has sent a request that has passed."""
    visitor: Visitor = scope["visitor"]
    return visitor


class Guard:
    """Lets requests pass, and says who sent them.

    Args:
        application: what is behind it.
        keys: tokens and cookies.
        names: the names by which browsers may call this service, in lower case, without the port.
        port: returns the port, which is not known before the service runs.
        plain_control: whether control over plain HTTP from another computer is allowed.
    """

    def __init__(
        self,
        application: ASGIApp,
        keys: Keys,
        names: Collection[str],
        port: Callable[[], int],
        *,
        plain_control: bool = False,
    ) -> None:
        self._application = application
        self._keys = keys
        self._names = frozenset(names)
        self._port = port
        self._plain_control = plain_control
        self._rates: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            headers = _headers_of(scope)
            await self._pass(scope, headers)
            receive = await self._with_body(headers, receive)
        except Problem as problem:
            if problem.facts.get("wait"):
                await asyncio.sleep(problem.facts.pop("wait"))
            await _answer(problem, _with_headers(send, scope))
            return
        await self._application(scope, receive, _with_headers(send, scope))

    async def _pass(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = scope["client"][0] if scope.get("client") else "?"
        secure = scope["scheme"] == "https" or is_local(host) or self._plain_control
        self._check_host(headers, scope["scheme"])
        self._check_origin(scope, headers)
        self._check_query(scope)
        access, grant = self._access(headers, scope["path"])
        why_not = ""
        if access is Access.NONE and is_local(host):
            access = Access.VIEW
        if access is Access.CONTROL and not secure:
            access = Access.VIEW
            why_not = (
                "control over plain HTTP from another computer is refused, because everybody on the way can read the "
                "token: serve with TLS, or through an SSH tunnel"
            )
        if access < Access.CONTROL:
            self._check_rate(host)
        if access is Access.NONE and not scope["path"].startswith(("/login", "/static/")):
            raise Problem(401, why_not or "from another computer a token is needed to look: the terminal shows it")
        scope["visitor"] = Visitor(host, access, why_not, secure, grant)

    def _check_host(self, headers: Mapping[str, str], scheme: str) -> None:
        given = headers.get("host", "").lower()
        name, colon, port = given.rpartition(":")
        if not colon or "]" in port:
            name, port = given, "443" if scheme == "https" else "80"
        if name.strip("[]") not in self._names or port != str(self._port()):
            raise Problem(
                421, f"this service is not called {given!r} (--name NAME adds a name): a page of another name may be "
                "an attack"
            )  # fmt: skip

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        own = f"{scope['scheme']}://{headers['host'].lower()}"
        if origin is not None and origin.lower() != own:
            raise Problem(403, f"a page of {origin} has sent this; only pages of {own} may")
        if scope["method"] in _SAFE_METHODS:
            return
        if site not in (None, "same-origin", "none"):
            raise Problem(403, "another page has sent this; only pages of this service may")
        if origin is None and site is None and "cookie" in headers and "authorization" not in headers:
            raise Problem(403, "a request with a cookie must say from which page it comes (Origin)")

    def _check_query(self, scope: Scope) -> None:
        query = scope["query_string"].decode("latin-1")
        if len(query) > _LONGEST_QUERY:
            raise Problem(414, f"what follows the question mark may have {_LONGEST_QUERY} characters, got {len(query)}")
        for name, _ in parse_qsl(query, keep_blank_values=True):
            if name.lower() in _SECRETS:
                raise Problem(
                    400, f"{name!r} must not be in an address, which is written to logs: send it as a header, "
                    "`Authorization: Bearer TOKEN`"
                )  # fmt: skip

    def _access(self, headers: Mapping[str, str], path: str) -> tuple[Access, Grant | None]:
        """Return what somebody may do, and the grant to an agent that says so, if it is one."""
        authorization = headers.get("authorization")
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            token = token.strip() if kind.lower() == "bearer" else ""
            grant = self._keys.grant_of_token(token)
            if grant is not None:
                if path == AGENTS:
                    return Access.CONTROL, grant
                raise Problem(403, f"this token was granted to an agent, {grant.agent!r}: it is for {AGENTS} only")
            access = self._keys.of_token(token)
            if access is Access.NONE:
                raise Problem(
                    401, "expected `Authorization: Bearer TOKEN` with the token that the terminal shows; got another",
                    wait=self._keys.delay_of_wrong_token(),
                )  # fmt: skip
            return access if path != AGENTS else min(access, Access.VIEW), None
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return Access.NONE, None
        own = cookies.get(cookie_name(self._port()))
        if own is None or path == AGENTS:  # agents are no browsers
            return Access.NONE, None
        return self._keys.of_cookie(own.value), None

    def _check_rate(self, host: str) -> None:
        now = time.monotonic()
        left, then = self._rates.pop(host, (_BURST, now))
        left = min(_BURST, left + (now - then) * _RATE)
        if left < 1:
            self._rates[host] = left, now
            raise Problem(429, f"more than {_RATE:g} requests in a second come from {host}")
        self._rates[host] = left - 1, now
        if len(self._rates) > 1024:
            del self._rates[next(iter(self._rates))]

    async def _with_body(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """Read the whole body; return what gives it to the application, and then tells it when the visitor goes."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 12 or int(length) > _LARGEST_BODY:
            raise Problem(413, f"a request may have {_LARGEST_BODY} bytes, got {length[:20]}")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the connection was closed before the request had come")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > _LARGEST_BODY:
                        raise Problem(413, f"a request may have {_LARGEST_BODY} bytes, got more")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Problem(408, f"the request has not come in {_BODY_TIMEOUT:g} s") from None
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}

        return replay


def _headers_of(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ("host", "origin", "authorization", "content-length"):
            raise Problem(400, f"the header {name!r} came twice")
        found[name] = f"{found[name]}; {value.decode('latin-1')}" if name in found else value.decode("latin-1")
    return found


def _with_headers(send: Send, scope: Scope) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = dict(_HEADERS)
            more["cache-control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            if scope["scheme"] == "https":
                more["strict-transport-security"] = "max-age=31536000"
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in more.items() if name.encode() not in there),
            ]
        await send(message)

    return sending


async def _answer(problem: Problem, send: Send) -> None:
    members: dict[str, Any] = problem_of(problem)
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(members).encode()})
