"""Who may do what: tokens, and the cookies of those who have shown one."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
import time
from collections import deque
from dataclasses import dataclass

__all__ = ["Access", "Keys", "Visitor", "is_local"]

_COOKIE_LASTS = 12 * 3600.0
"""Seconds without a request after which a cookie is not accepted any more: one night."""
_MOST_COOKIES = 256
"""How many cookies are remembered; the one that was not used for longest is forgotten first."""
_REMEMBERED = 60.0
"""Seconds for which a wrong token makes the answer to the next wrong one slower."""
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
"""Seconds until the answer to a wrong token: doubled with each one, up to the longest."""


class Access(enum.IntEnum):
    """What a visitor may do; each includes those before it."""

    NONE = 0
    VIEW = 1
    """Look: telemetry, shared reads of open devices, runs, locks."""
    CONTROL = 2
    """Also set, call, lock, run and stop experiments, break locks, reset the safety."""


@dataclass(frozen=True)
class Visitor:
    """Who sent a request.

    Attributes:
        host: the address from which it came.
        access: what it may do.
        why_not: why it may not do more, if it asked for that; for the answer.
        secure: whether nobody on the way can read it (TLS, or on this computer), or that was said not to matter.
    """

    host: str
    access: Access
    why_not: str = ""
    secure: bool = True

    @property
    def local(self) -> bool:
        """Whether it came from this computer."""
        return is_local(self.host)


def is_local(host: str) -> bool:
    """Return whether an address is of this computer alone."""
    return host == "::1" or host.startswith(("127.", "::ffff:127."))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Keys:
    """The two tokens of a web service, and the cookies that were given for them. For one event loop.

    Attributes:
        control: the token that allows everything.
        view: the token that allows to look.
    """

    def __init__(self) -> None:
        self.control = secrets.token_urlsafe(24)
        self.view = secrets.token_urlsafe(24)
        self._known = ((_digest(self.control), Access.CONTROL), (_digest(self.view), Access.VIEW))
        self._cookies: dict[bytes, tuple[Access, float]] = {}
        self._wrong: deque[float] = deque(maxlen=16)

    def of_token(self, token: str) -> Access:
        """Return what a token allows; takes equally long for every wrong one."""
        given, access = _digest(token), Access.NONE
        for known, allowed in self._known:
            if hmac.compare_digest(given, known):
                access = allowed
        return access

    def of_cookie(self, value: str) -> Access:
        """Return what a cookie allows."""
        key, now = _digest(value), time.monotonic()
        access, used = self._cookies.pop(key, (Access.NONE, 0.0))
        if access is Access.NONE or now - used > _COOKIE_LASTS:
            return Access.NONE
        self._cookies[key] = access, now  # at the end: those before it were not used for longer
        return access

    def new_cookie(self, access: Access) -> str:
        """Return a new cookie for somebody who has shown a token."""
        value = secrets.token_urlsafe(24)
        self._cookies[_digest(value)] = access, time.monotonic()
        while len(self._cookies) > _MOST_COOKIES:
            del self._cookies[next(iter(self._cookies))]
        return value

    def forget_cookie(self, value: str) -> None:
        """Do not accept a cookie any more."""
        self._cookies.pop(_digest(value), None)

    def delay_of_wrong_token(self) -> float:
        """Note that somebody has shown a wrong token; return for how many seconds the answer waits.

        The right token is never made to wait: who guesses must not keep the operator from the STOP.
        """
        now = time.monotonic()
        while self._wrong and now - self._wrong[0] > _REMEMBERED:
            self._wrong.popleft()
        self._wrong.append(now)
        return float(min(_FIRST_DELAY * 2 ** (len(self._wrong) - 1), _LONGEST_DELAY))
