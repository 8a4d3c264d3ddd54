"""Who may do what: tokens, and the cookies of those who have shown one."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import hmac
import secrets
import time
from collections import deque
from dataclasses import dataclass, field

from catkit_devices.errors import ConfigurationError

__all__ = ["Access", "Grant", "Keys", "Visitor", "is_local"]

_COOKIE_LASTS = 12 * 3600.0
"""Seconds without a request after which a cookie is not accepted any more: one night."""
_MOST_COOKIES = 256
"""How many cookies are remembered; the one that was not used for longest is forgotten first."""
_REMEMBERED = 60.0
"""Seconds for which a wrong token makes the answer to the next wrong one slower."""
_MOST_GRANTS = 64
"""How many agents may have a grant at the same time."""
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
        grant: what a person has granted, if it is an agent.
    """

    host: str
    access: Access
    why_not: str = ""
    secure: bool = True
    grant: Grant | None = None

    @property
    def agent(self) -> str:
        """The name under which a person has granted an agent what it does; empty for everybody else."""
        return "" if self.grant is None else self.grant.agent

    @property
    def local(self) -> bool:
        """Whether it came from this computer."""
        return is_local(self.host)

    @property
    def name(self) -> str:
        """What messages and the audit trail call it."""
        return f"agent {self.agent!r}" if self.agent else f"visitor of the web service at {self.host}"

    def __str__(self) -> str:
        return self.name if self.agent else f"a {self.name}"


def is_local(host: str) -> bool:
    """Return whether an address is of this computer alone."""
    return host == "::1" or host.startswith(("127.", "::ffff:127."))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, eq=False)
class Grant:
    """What a person has allowed an agent: to control the testbed under a name.

    Attributes:
        agent: its name.
        until: when the grant ends, in seconds since 1970 UTC.
        withdrawn: set if it has been withdrawn before that.
    """

    agent: str
    until: float
    withdrawn: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.withdrawn.is_set() or self.until <= time.time()

    async def end(self) -> None:
        """Return when it has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.until - time.time()):
                await self.withdrawn.wait()


class Keys:
    """The two tokens of a web service, the cookies that were given for them, and agents' grants. For one event loop.

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
        self._grants: dict[bytes, Grant] = {}

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

    def grant(self, agent: str, lasts: float) -> str:
        """Return a new token for an agent. The one that it had is not accepted any more.

        Args:
            agent: its name.
            lasts: seconds.

        Raises:
            ConfigurationError: too many agents have a grant already.
        """
        self.revoke(agent)
        if len(self.grants()) >= _MOST_GRANTS:
            raise ConfigurationError(f"{_MOST_GRANTS} agents have a grant already, which is as many as there may be")
        token = secrets.token_urlsafe(24)
        self._grants[_digest(token)] = Grant(agent, time.time() + lasts)
        return token

    def grants(self) -> list[Grant]:
        """Return the grants that have not ended."""
        self._grants = {key: grant for key, grant in self._grants.items() if not grant.over}
        return list(self._grants.values())

    def grant_of_token(self, token: str) -> Grant | None:
        """Return the grant that this token stands for; None if there is none, or none any more."""
        grant = self._grants.get(_digest(token))
        return None if grant is None or grant.over else grant

    def revoke(self, agent: str) -> bool:
        """Accept the token of an agent no more, and tell all that is done for it; return whether it had one."""
        ended = [grant for grant in self._grants.values() if grant.agent == agent]
        for grant in ended:
            grant.withdrawn.set()
        self._grants = {key: grant for key, grant in self._grants.items() if grant not in ended}
        return bool(ended)

    def delay_of_wrong_token(self) -> float:
        """Note that somebody has shown a wrong token; return for how many seconds the answer waits.

        The right token is never made to wait: who guesses must not keep the operator from the STOP.
        """
        now = time.monotonic()
        while self._wrong and now - self._wrong[0] > _REMEMBERED:
            self._wrong.popleft()
        self._wrong.append(now)
        return float(min(_FIRST_DELAY * 2 ** (len(self._wrong) - 1), _LONGEST_DELAY))
