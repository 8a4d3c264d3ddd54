"""Telling plugins what happened on a testbed: queued, delivered once each, in the testbed's process."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import Watched, done

if TYPE_CHECKING:
    from catkit_devices.drivers import Plugins

__all__ = ["Notifier"]

_LAST_TIMEOUT = 5.0
"""Seconds for delivering what is still queued at the end."""

_log = logging.getLogger(__name__)


class Notifier:
    """Calls the notification hooks of every plugin in a thread of its own, so that a slow plugin delays nothing else.

    What a plugin raises is logged; the others are told all the same.

    Args:
        plugins: whom to tell.
        testbed: the testbed's name, the first argument of every notification.
    """

    def __init__(self, plugins: Plugins, testbed: str) -> None:
        self._plugins = plugins
        self._testbed = testbed
        self._queue: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, name="notifications", daemon=True)
        self._thread.start()

    def tell(self, hook: str, **facts: Any) -> None:
        """Queue one notification; returns at once."""
        self._queue.put((hook, {"testbed": self._testbed, **facts}))

    def tell_if_it_is_one(self, event: str, facts: dict[str, Any]) -> None:
        """Queue an event, if plugins are told of events of this kind."""
        if hasattr(self._plugins.hook, event):
            self.tell(event, **facts)

    def end(self) -> None:
        """Deliver what is queued, within a bounded time, and end."""
        self._queue.put(None)
        self._thread.join(_LAST_TIMEOUT)

    def _deliver(self) -> None:
        while (notification := self._queue.get()) is not None:
            hook, facts = notification
            for implementation in getattr(self._plugins.hook, hook).get_hookimpls():
                try:
                    arguments = (facts[name] for name in implementation.argnames)
                    with Watched(hook):
                        done(implementation.function(*arguments), hook)
                except Exception:  # noqa: BLE001 - a plugin may raise anything, and it is logged
                    _log.exception("plugin %r failed in %s", implementation.plugin_name, hook)
