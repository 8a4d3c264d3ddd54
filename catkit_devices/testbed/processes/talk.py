"""Asks a process that may not answer, in a separate thread, so that the caller does not wait long."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from catkit_devices.errors import ServerUnresponsiveError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["News", "NoNewsError", "for_seconds"]

T = TypeVar("T")

_IDLE = 5.0
"""Seconds without a question after which the thread ends, and with it its connection."""
_LATE = 1.0
"""Seconds after which a question counts as unanswered: the next caller then waits only briefly."""
_SHORT = 0.05
"""Seconds that the next caller waits while a question is unanswered."""
_FRESH = 1.5
"""Seconds: so old may an answer be that stands for one that has not come in time. On a busy computer a process may need
longer for its answer than a display waits, and is not silent."""


class NoNewsError(ServerUnresponsiveError):
    """There is no answer yet; ``seconds`` says for how long none has come."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


def for_seconds(seconds: float) -> str:
    """Return a time without news as text."""
    return f"{seconds:.1f} s" if seconds < 1 else f"{seconds:.0f} s"


class News(Generic[T]):
    """The answers of a process that is asked again and again.

    There is one question at a time, for all callers together. A question that stays unanswered blocks one thread only,
    and tells since when there has been no news: since somebody first wanted to know what is not answered yet.

    Args:
        ask: asks and returns the answer; may take for ever.
        name: of the process that is asked, for messages.
    """

    def __init__(self, ask: Callable[[], T], name: str) -> None:
        self._ask = ask
        self.name = name
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._wanted = 0
        """Number of the newest question that is to be asked."""
        self._asked = 0
        """Number of the question that was asked last."""
        self._wanted_since = 0.0
        """When somebody first wanted the newest question to be asked, on the monotonic clock, as all times here."""
        self._since: float | None = None
        """Since when an answer has been waited for; None if none is."""
        self._known: tuple[T, float] | None = None
        """The newest answer that was no error, and when it was asked for."""
        self._answered = 0
        self._answer: T | BaseException | None = None
        self._running = False

    def want(self) -> int:
        """Ask soon, without waiting; return the number of the question."""
        with self._guard:
            if self._wanted <= self._asked:
                self._wanted_since = time.monotonic()
                self._since = self._wanted_since if self._since is None else self._since
            self._wanted = self._asked + 1
            if not self._running:
                threading.Thread(target=self._go_on_asking, name=f"news of {self.name}", daemon=True).start()
                self._running = True
            self._changed.notify_all()
            return self._wanted

    def get(self, timeout: float, number: int | None = None) -> T:
        """Return its newest answer; if there is none in time, the last one, unless that is too old.

        Args:
            timeout: seconds; if there has been no answer for long already, it waits only briefly.
            number: of the question, if it was asked by :meth:`want`.

        Raises:
            NoNewsError: there is no answer in that time; says for how long there has been none.
            Exception: whatever asking raised.
        """
        number = self.want() if number is None else number
        with self._guard:
            if self.silence > _LATE:
                timeout = min(timeout, _SHORT)
            if self._changed.wait_for(lambda: self._answered >= number, timeout):
                answer = self._answer
                if not isinstance(answer, BaseException):
                    return answer  # type: ignore[return-value]  # no error: it is a T
                if not isinstance(answer, ServerUnresponsiveError):
                    raise answer
            elif self._known is not None and self.age < _FRESH:
                return self._known[0]
            silence = self.silence
        raise NoNewsError(f"no news of {self.name} for {for_seconds(silence)}", silence)

    @property
    def age(self) -> float:
        """For how many seconds the newest answer may have been out of date; 0 if there is none."""
        known = self._known
        return 0.0 if known is None else time.monotonic() - known[1]

    @property
    def silence(self) -> float:
        """For how many seconds there has been no answer; 0 if no answer is awaited."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def _go_on_asking(self) -> None:
        while True:
            with self._guard:
                if not self._changed.wait_for(lambda: self._wanted > self._asked, _IDLE):
                    self._running, self._since = False, None
                    return
                self._asked = self._wanted
                asked = time.monotonic()
            answer: T | BaseException
            try:
                answer = self._ask()
            except Exception as error:  # noqa: BLE001 - it is raised in the caller of `get`
                answer = error
            with self._guard:
                if not isinstance(answer, ServerUnresponsiveError):
                    self._since = self._wanted_since if self._wanted > self._asked else None
                if not isinstance(answer, Exception):
                    self._known = answer, asked
                self._answer, self._answered = answer, self._asked
                self._changed.notify_all()
