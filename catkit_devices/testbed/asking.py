"""What the testbed's own process is asked to do by others: to end, to forget a trip."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError, WaitTimeoutError
from catkit_devices.testbed.alarm import UNREACHABLE, at_once
from catkit_devices.testbed.finding import QUIET, process_of, silence_of, silent_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.multiprocessing import SharedMemoryManager

__all__ = ["RESET", "SHUTDOWN", "Requests", "ask_testbed"]

SHUTDOWN = "shutdown"
RESET = "reset safety"
_QUEUE = "requests"
"""Name of the queue of requests on the testbed's server."""
_WAITING = "requests.waiting"
"""Name of the shared dictionary of requests that nobody has begun with: until when whoever asked surely waits, on the
clock of this computer."""
_LEASE = 5.0
"""Seconds for which a request stays good after whoever asked was killed."""
_LOOK = 1.0
"""Seconds between two looks whether the testbed's process is silent."""
_LEAVING = 1.0
"""Seconds for saying that nobody waits any more."""


class Requests:
    """Does what is asked for, one after the other, in a thread of its own; nothing that nobody waits for any more.

    Args:
        manager: of the testbed's server.
        handlers: for each kind of request what is called with its text; what that raises reaches whoever asked.
    """

    def __init__(self, manager: SharedMemoryManager, handlers: Mapping[str, Callable[[str], Any]]) -> None:
        self._manager = manager
        self._queue = manager.get_queue(_QUEUE)
        self._waiting = manager.get_dict(_WAITING)
        self._handlers = handlers
        threading.Thread(target=self._serve, name="requests", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                kind, text, reply = self._queue.get()
                if self._waiting.pop(reply, 0.0) < time.monotonic():
                    continue  # this process did not run, and whoever asked has given up
                try:
                    answer = (True, self._handlers[kind](text))
                except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                    answer = (False, error)
                self._manager.get_queue(reply).put(answer)
            except UNREACHABLE:
                return  # the testbed ends


def ask_testbed(manager: SharedMemoryManager, kind: str, text: str, timeout: float) -> Any:
    """Ask the testbed's process for something; return or raise what came of it.

    Raises:
        WaitTimeoutError: it has not done so in ``timeout`` seconds.
        ServerUnresponsiveError: it is silent; it will not do later what was asked for.
    """
    reply = f"reply {os.urandom(8).hex()}"
    waiting = manager.get_dict(_WAITING)
    try:
        waiting[reply] = time.monotonic() + _LEASE
        manager.get_queue(_QUEUE).put((kind, text, reply))
        done, answer = _answer(manager, reply, timeout, f"to {kind!r} in {timeout:g} s")
    except Exception:
        with contextlib.suppress(*UNREACHABLE):
            waiting.pop(reply, None)
        raise
    except BaseException:  # Ctrl-C, which must not wait for a server that may be silent
        at_once({"give up": partial(waiting.pop, reply, None)}, _LEAVING)
        raise
    if not done:
        raise answer if isinstance(answer, BaseException) else CatkitDevicesError(str(answer))
    return answer


def _answer(manager: SharedMemoryManager, reply: str, timeout: float, what: str) -> tuple[bool, Any]:
    answers, waiting = manager.get_queue(reply), manager.get_dict(_WAITING)
    deadline = time.monotonic() + timeout
    looks = 0  # that found it silent; after the first, the server may just have gone on itself
    while (left := deadline - time.monotonic()) > 0:
        try:
            answer: tuple[bool, Any] = answers.get(timeout=min(_LOOK, left))
        except queue.Empty:
            with waiting:
                if reply in waiting:
                    waiting[reply] = time.monotonic() + _LEASE
            own = process_of(manager.name)
            silence = silence_of(manager.status()["sessions"], own) or 0.0
            looks = looks + 1 if silence > QUIET else 0
            if looks > 1:
                raise silent_process(manager.name, silence) from None
        else:
            return answer
    raise WaitTimeoutError(f"the testbed's process (pid {process_of(manager.name)}) did not answer {what}")
