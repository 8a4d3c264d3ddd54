"""What the testbed's own process is asked to do by others: to end, to forget a trip."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.testbed.alarm import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.multiprocessing import SharedMemoryManager

__all__ = ["RESET", "SHUTDOWN", "Requests", "ask_testbed"]

SHUTDOWN = "shutdown"
RESET = "reset safety"
_QUEUE = "requests"
"""Name of the queue of requests on the testbed's server."""


class Requests:
    """Does what is asked for, one after the other, in a thread of its own.

    Args:
        manager: of the testbed's server.
        handlers: for each kind of request what is called with its text; what that raises reaches whoever asked.
    """

    def __init__(self, manager: SharedMemoryManager, handlers: Mapping[str, Callable[[str], Any]]) -> None:
        self._manager = manager
        self._queue = manager.get_queue(_QUEUE)
        self._handlers = handlers
        threading.Thread(target=self._serve, name="requests", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                kind, text, reply = self._queue.get()
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
        TimeoutError: it does not answer.
    """
    reply = f"reply {os.urandom(8).hex()}"
    manager.get_queue(_QUEUE).put((kind, text, reply))
    try:
        done, answer = manager.get_queue(reply).get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"the testbed's process did not answer to {kind!r} in {timeout:g} s") from None
    if not done:
        raise answer if isinstance(answer, BaseException) else CatkitDevicesError(str(answer))
    return answer
