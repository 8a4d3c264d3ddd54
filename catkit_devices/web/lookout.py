"""What visitors see of a testbed, live: its status, and what happens, in an order that can be resumed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ServerError
from catkit_devices.plain import plain
from catkit_devices.testbed.status import unheard
from catkit_devices.testbed.trip import UNREACHABLE, trip_of_servers
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["MOST_LISTENERS", "Event", "Lookout"]

INTERVAL = 1.0
"""Seconds between two looks at the testbed while somebody listens."""
_ANSWER_TIMEOUT = 2.0
"""Seconds for the answers of the testbed's servers."""
_KEPT = 500
"""How many events can be read again by those who had lost the connection."""
_LISTENING_ON = 300.0
"""Seconds for which events are collected after the last one who listened has gone: it may come back."""
MOST_LISTENERS = 64
"""How many may listen at the same time."""
_WAITING = 100
"""How many events may wait for one who reads slowly; with more the connection is closed, and it comes back."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        number: of the event; with the service's own mark before it, it is the id.
        kind: ``status``, ``message``, ``experiment``, ``safety``, ``lock`` or ``gap``.
        data: of the event, as JSON has it.
    """

    number: int
    kind: str
    data: Any


class Lookout:
    """Looks at a testbed for all visitors together: many pages ask its servers no more often than one.

    Args:
        client: of the testbed.
    """

    def __init__(self, client: TestbedClient) -> None:
        self._client = client
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="web, status")
        self._mark = secrets.token_hex(4)
        self._last: dict[str, Any] | None = None
        self._heard = 0.0
        self._asked = float("-inf")
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._shown: dict[str, Any] | None = None
        self._shown_before: dict[str, Any] | None = None
        """The status of which those who listen know."""
        self._number = 0
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._left = float("-inf")
        self._wanted = asyncio.Event()
        self._seen_messages: deque[tuple[float, str]] = deque(maxlen=_KEPT)

    def close(self) -> None:
        """End."""
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def status(self, age: float = 0.5) -> dict[str, Any]:
        """Return the status of the testbed, at most ``age`` seconds old; what is not known says so.

        Raises:
            Problem: nothing is known of it, and never was.
        """
        if self._shown is not None and time.monotonic() - self._asked < age:
            return self._shown
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        try:
            self._last = await loop.run_in_executor(self._thread, self._client.status, _ANSWER_TIMEOUT)
            self._heard = time.monotonic()
            self._shown = self._last
        except UNREACHABLE as error:
            if self._last is None:
                raise Problem(503, f"nothing is known of testbed {self._client.name!r}: {error}") from error
            trip = None
            with contextlib.suppress(*UNREACHABLE):
                trip = await loop.run_in_executor(self._thread, trip_of_servers, self._client.layout)
            self._shown = unheard(self._last, time.monotonic() - self._heard, trip)
            if isinstance(error, ServerError) and not self._shown["silent"]:
                self._shown["silent"] = [{"what": str(error), "pid": None, "seconds": None}]
        self._asked = time.monotonic()
        return self._shown

    # --- events

    async def look_on(self) -> None:
        """Look again and again while somebody listens, or has listened just now; to be run as a task."""
        while True:
            if not self._listeners and time.monotonic() - self._left > _LISTENING_ON:
                self._shown_before = None
                self._wanted.clear()
                await self._wanted.wait()
            before = self._shown_before
            try:
                now = await self.status(INTERVAL / 2)
            except Problem as problem:
                self._publish("gap", {"text": str(problem)})
            else:
                if now is not before:
                    self._tell_changes(before, now)
                    self._shown_before = now
                    self._publish("status", plain(now))
            await asyncio.sleep(INTERVAL)

    def _tell_changes(self, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
        for message in now["messages"]:
            key = (message["time"], message["text"])
            if key not in self._seen_messages:
                self._seen_messages.append(key)
                if before is not None:
                    self._publish("message", plain(message))
        if before is None:
            return
        if now["safety"]["tripped"] != before["safety"]["tripped"]:
            self._publish("safety", {"tripped": now["safety"]["tripped"]})
        for name, one in now["experiments"].items():
            was = before["experiments"].get(name)
            if was is None or was["state"] != one["state"] or was["started"] != one["started"]:
                self._publish("experiment", plain(one))
        for name, device in now["devices"].items():
            was = before["devices"].get(name, {})
            holders = [None if one is None else one["owner"] for one in (device["holder"], was.get("holder"))]
            if holders[0] != holders[1]:
                self._publish("lock", {"device": name, "holder": plain(device["holder"])})

    def _publish(self, kind: str, data: Any) -> None:
        self._number += 1
        event = Event(self._number, kind, data)
        if kind == "status":  # of these only the newest is of use later
            self._events = deque((one for one in self._events if one.kind != "status"), maxlen=_KEPT)
        self._events.append(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:  # it reads too slowly
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    def id_of(self, event: Event) -> str:
        """Return the id of an event, with which a listener can go on behind it."""
        return f"{self._mark}-{event.number}"

    async def listen(self, after: str | None = None) -> AsyncIterator[Event]:
        """Return an iterator over what happens, from now on.

        Args:
            after: the id of the last event that was received; what happened since comes first.

        Raises:
            Problem: too many listen already.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Problem(503, f"{MOST_LISTENERS} pages and programs listen already, which is as many as there may be")
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_WAITING)
        missed = self._missed(after)
        self._listeners.add(queue)
        self._wanted.set()
        return self._events_of(queue, missed)

    async def _events_of(self, queue: asyncio.Queue[Event | None], missed: list[Event]) -> AsyncIterator[Event]:
        try:
            for event in missed:
                yield event
            while True:
                newest = await queue.get()
                if newest is None:
                    return
                yield newest
        finally:
            self._listeners.discard(queue)
            self._left = time.monotonic()

    def _missed(self, after: str | None) -> list[Event]:
        known = [event for event in self._events if event.kind == "status"][-1:] if self._wanted.is_set() else []
        if after is None:
            return known
        mark, _, number = after.rpartition("-")
        oldest = self._events[0].number if self._events else self._number + 1
        if mark != self._mark or not number.isdecimal() or int(number) + 1 < oldest or not self._wanted.is_set():
            text = "events may be missing: the service was started again, or was left alone for too long"
            return [Event(self._number, "gap", {"text": text}), *known]
        return [event for event in self._events if event.number > int(number)]
