"""Requests of other programs to the testbed's process: to end, or to reset the safety."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import (
    ConfigurationError,
    ServerResourceError,
    ServerUnresponsiveError,
    WaitTimeoutError,
    in_one_line,
)
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.wire.channel import dumps, loads
from catkit_devices.multiprocessing.wire.exceptions import decode, encode
from catkit_devices.testbed.processes.audit import entry
from catkit_devices.testbed.processes.finding import QUIET, silent_process
from catkit_devices.testbed.trip import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["RESET", "SHUTDOWN", "Desk", "Requests", "ask_testbed"]

SHUTDOWN = "shutdown"
"""Request: end the testbed."""
RESET = "reset safety"
"""Request: allow changes again after a trip."""
_WORDS = {SHUTDOWN: ("stopped", "the testbed"), RESET: ("reset", "safety")}
"""How the audit trail tells each request: what was done, and to what."""
_DESK = "requests"
"""Name of the desk on the testbed's server."""
_LOOK = 1.0
"""Seconds between two looks whether the testbed's process is silent."""
_PAUSE = 1.0
"""Seconds until the next request is taken, if the server was short of memory, threads or files."""


class _Request:
    """One request, for whose answer a program waits."""

    def __init__(self, kind: str, text: str, told: dict[str, Any]) -> None:
        self.kind = kind
        self.text = text
        self.told = told
        """Its entry in the audit trail."""
        self.begun = False
        self.done = InterruptSafeEvent()
        """Set when it is answered, or when the caller no longer waits."""
        self.answer: tuple[bool, bytes] | None = None


class Desk(HostedObject):
    """Where requests wait for the testbed's process, and their answers for the callers.

    A request exists as long as its caller waits for it. If the caller dies or gives up before the request is begun, it
    is removed.

    Args:
        server: full name of the testbed's server.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._process = current_call().session
        """The session of the testbed's process, which makes the desk."""
        self._guard = threading.RLock()
        self._come = threading.Condition(self._guard)
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count(1)

    def ask(self, kind: str, text: str, timeout: float) -> tuple[bool, bytes]:
        """Have the testbed's process do something; return whether it could, and its answer or its error, as bytes.

        Raises:
            WaitTimeoutError: it has not done so in ``timeout`` seconds.
            ServerUnresponsiveError: it is silent, or has ended. It will not do later what was asked for, unless a note
                says that it had begun.
            TypeError: the request is no text.
        """
        for what, value in (("kind", kind), ("text", text)):
            if not isinstance(value, str):
                raise TypeError(f"the {what} of a request must be text, got {value!r}")
        call = current_call()
        request = _Request(kind, text, entry(call, *_WORDS.get(kind, ("changed", kind)), reason=text))
        number = next(self._numbers)
        with self._guard:
            self._requests[number] = request
            self._come.notify()
        call.on_cancel(request.done.set)
        try:
            self._await(request, timeout)
        finally:
            call.on_cancel(None)
            with self._guard:
                del self._requests[number]
        call.check()
        if request.answer is None:
            raise WaitTimeoutError(
                f"the testbed's process (pid {self._process.pid}) did not answer to {kind!r} in {timeout:g} s"
            )
        return request.answer

    def _await(self, request: _Request, timeout: float) -> None:
        deadline = time.monotonic() + seconds(timeout, f"the request {request.kind!r}")
        # How often it was found silent; once is not enough, because this server itself may have been stopped until just
        # now.
        looks = 0
        while (left := deadline - time.monotonic()) > 0 and not request.done.wait(min(_LOOK, left)):
            if self._process.ended:
                raise ServerUnresponsiveError(
                    f"the testbed's process (pid {self._process.pid}) has ended", server=self._server
                )
            silence = time.monotonic() - getattr(self._process, "heard", time.monotonic())
            looks = looks + 1 if silence > QUIET else 0
            if looks > 1:
                silent = silent_process(self._server, silence)
                if request.begun:
                    silent.add_note(f"it has begun {request.kind!r} and may still complete it")
                raise silent

    def waiting(self) -> int:
        """Return how many wait for an answer."""
        with self._guard:
            return len(self._requests)

    def take(self) -> tuple[int, str, str, dict[str, Any]]:
        """Return number, kind, text and audit entry of the next request; for the testbed's process."""
        call = self._of_the_testbed()
        call.on_cancel(self._look_again)
        try:
            with self._guard:
                while True:
                    call.check()
                    for number, request in self._requests.items():
                        if not request.begun:
                            return number, request.kind, request.text, request.told
                    self._come.wait()
        finally:
            call.on_cancel(None)

    def begin(self, number: int) -> bool:
        """Return whether a request is to be done: somebody still waits for it; for the testbed's process.

        Asked just before, for the process may have been stopped since it took it.
        """
        self._of_the_testbed()
        with self._guard:
            request = self._requests.get(number)
            if request is not None:
                request.begun = True
            return request is not None

    def answer(self, number: int, done: bool, answer: bytes) -> None:
        """Answer a request; for the testbed's process."""
        self._of_the_testbed()
        with self._guard:
            request = self._requests.get(number)
        if request is not None:  # else nobody waits any more
            request.answer = (done, answer)
            request.done.set()

    def _look_again(self) -> None:
        with self._guard:
            self._come.notify_all()

    def _of_the_testbed(self) -> Call:
        call = current_call()
        if call.session is not self._process:
            raise PermissionError(f"only the testbed's process (pid {self._process.pid}) takes and answers requests")
        return call


class Requests:
    """Carries out the requests, one after the other, in a separate thread.

    A request for which nobody waits any more is left out.

    Args:
        manager: of the testbed's server.
        handlers: for each kind of request, the function that is called with its text; an error that it raises is raised
            in the caller.
        audit: writes down in the audit trail what was done.
    """

    def __init__(
        self,
        manager: SharedMemoryManager,
        handlers: Mapping[str, Callable[[str], Any]],
        audit: Callable[[list[dict[str, Any]]], object],
    ) -> None:
        self._audit = audit
        self._desk: Desk = manager.get_object(_DESK, Desk, manager.name)
        self._handlers = handlers
        threading.Thread(target=self._serve, name="requests", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                number, kind, text, told = self._desk.take()
                if self._desk.begin(number):
                    done, answer = self._do(kind, text)
                    self._audit([told if done else {**told, "error": in_one_line(decode(answer))}])
                    self._desk.answer(number, done, answer)
            except ServerResourceError:
                time.sleep(_PAUSE)
            except UNREACHABLE:
                return  # the testbed ends

    def _do(self, kind: str, text: str) -> tuple[bool, bytes]:
        handle = self._handlers.get(kind)
        if handle is None:
            known = ", ".join(repr(known) for known in self._handlers)
            return False, encode(ConfigurationError(f"a testbed's process can be asked for {known}; got {kind!r}"))
        try:
            return True, dumps(handle(text))
        except Exception as error:  # noqa: BLE001 - it is raised in the caller
            return False, encode(error)


def ask_testbed(manager: SharedMemoryManager, kind: str, text: str, timeout: float) -> Any:
    """Ask the testbed's process for something; return or raise what came of it.

    Raises:
        WaitTimeoutError: it has not done so in ``timeout`` seconds.
        ServerUnresponsiveError: it is silent. It will not do later what was asked for, unless a note says that it had
            begun.
    """
    done, answer = manager.get_object(_DESK).ask(kind, text, timeout)
    if not done:
        raise decode(answer)
    return loads(answer)
