"""What a running testbed looks like, redrawn while it runs.

On a terminal a picture that stays in place. Otherwise plain lines: one for each experiment that enters another state,
one from time to time with its progress, one for each safety check that begins or ceases to fail, and warnings.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.cli.output import console, silent
from catkit_devices.cli.picture import ENDED, count, limits, picture, reading, source
from catkit_devices.errors import ServerUnresponsiveError
from catkit_devices.testbed.status import NOT_KNOWN, unheard
from catkit_devices.testbed.trip import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from catkit_devices.cli.screen import Screen
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["LiveView"]

_REDRAW = 0.2
"""Seconds between two pictures on a terminal."""
_REPEAT = 2.0
"""Seconds between two lines about the same experiment off a terminal."""
_REMIND = 10.0
"""Seconds between two lines about the same process that does not answer, off a terminal."""
_ANSWER_TIMEOUT = 0.3
"""Seconds for the answers to one look."""
_LAST = 1.0
"""Seconds for the answers to the last look, and for the drawing thread to end."""
_QUIET = 2.0
"""Seconds without news after which the picture is that of a testbed of which nothing is known."""


class LiveView:
    """Draws a testbed while it runs, in a thread of its own; a context manager.

    The program never waits for the display, and the display never waits for the program: it shows that there is no news
    if the rest of the program hangs. On leaving it draws once more.

    Args:
        testbed: what to draw.
        screen: where to draw it; by default on stdout, if nothing else is printed there.
        everything: whether the lines off a terminal also tell which program holds each device.
        own: returns the run directory of the only experiment that the lines off a terminal tell of, as soon as it is
            known; by default they tell of all.
    """

    def __init__(
        self,
        testbed: TestbedClient,
        screen: Screen | None = None,
        *,
        everything: bool = False,
        own: Callable[[], Path | None] | None = None,
    ) -> None:
        self.gone = InterruptSafeEvent()
        """Set when the testbed is not there any more."""
        self.last: dict[str, Any] | None = None
        """Its last status."""
        self._testbed = testbed
        self._console = console() if screen is None else screen.console
        self._drawing = threading.Lock() if screen is None else screen.lock
        self._live: Any = None
        self._heard = time.monotonic()
        self._lines = _Lines(lambda line: self._console.print(line, markup=False), everything=everything, own=own)
        self._ending = InterruptSafeEvent()
        self._thread = threading.Thread(target=self._go_on_drawing, name="view", daemon=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            with self._drawing:
                self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        try:
            self._thread.join(_LAST)
            if not self._thread.is_alive():
                self._draw(_LAST)
        finally:
            if self._live is not None:
                with self._drawing:
                    self._live.stop()

    def _go_on_drawing(self) -> None:
        while not self._ending.is_set():
            self._draw(_ANSWER_TIMEOUT)
            self._ending.wait(_REDRAW)

    def _draw(self, timeout: float) -> None:
        """Draw what is known now."""
        try:
            status = self.last = self._testbed.status(timeout)
            self._heard = time.monotonic()
        except UNREACHABLE as error:
            if not isinstance(error, ServerUnresponsiveError):
                self.gone.set()
            seconds = time.monotonic() - self._heard
            if self.last is None or seconds < _QUIET:
                return
            status = unheard(self.last, seconds, self._testbed.known_trip())
        if self._live is not None:
            shown = picture(status, size=(self._console.width, self._console.height - 1))
            with self._drawing:
                self._live.update(shown, refresh=True)
        else:
            self._lines.tell(status)


class _Lines:
    """Tells what has changed, a line for each change."""

    def __init__(self, say: Callable[[str], None], *, everything: bool, own: Callable[[], Path | None] | None) -> None:
        self._say = say
        self._own = own
        self._everything = everything
        self._experiments: dict[str, tuple[str, float]] = {}
        self._problems: dict[str, str | None] = {}
        self._holders: dict[str, tuple[str, str]] = {}
        self._since = time.time()
        self._tripped: str | None = None
        self._silent: dict[str, float] = {}
        """When each process that does not answer was told of last."""
        self._told = time.time()

    def tell(self, status: dict[str, Any]) -> None:
        self._tell_silent(status)
        for name, experiment in status["experiments"].items():
            if self._own is None or experiment["run"] == str(self._own()):
                self._experiment(name, experiment, status["devices"])
        if self._everything:
            for name, device in status["devices"].items():
                self._device(name, device)
        for name, check in status["safety"]["checks"].items():
            self._check(name, check)
        tripped = status["safety"]["tripped"]
        if tripped != self._tripped and (status["state"] != "silent" or not str(tripped).startswith(NOT_KNOWN)):
            self._say(f"SAFETY TRIPPED: {tripped}" if tripped else "safety was reset")
            self._tripped = tripped
        for message in status.get("messages", []):
            if message["time"] > self._told and message["level"] in ("WARNING", "ERROR"):
                self._say(f"{message['level'].lower()}: {source(message, status['name'])}: {message['text']}")
        self._told = max([self._told, *(message["time"] for message in status.get("messages", []))])

    def _tell_silent(self, status: dict[str, Any]) -> None:
        now = time.monotonic()
        known = {one["what"]: text for one, text in zip(status["silent"], silent(status), strict=True)}
        for what in [what for what in self._silent if what not in known]:
            del self._silent[what]
            self._say(f"{what} answers again")
        for what, text in known.items():
            if now - self._silent.get(what, float("-inf")) >= _REMIND:
                self._silent[what] = now
                self._say(text)

    def _experiment(self, name: str, experiment: dict[str, Any], devices: dict[str, Any]) -> None:
        state, now = experiment["state"], time.monotonic()
        said, when = self._experiments.get(name, ("", 0.0))
        if said == state and (state in ENDED or now - when < _REPEAT):
            return
        if not said and state in ENDED and experiment["updated"] < self._since and not self._everything:
            return  # experiments that ended long ago are not reported again
        self._experiments[name] = (state, now)
        line = f"{name}: {state}"
        if state == "running" and experiment["description"]:
            line += f", {experiment['description']} {count(experiment)}"
        held = [device for device, entry in devices.items() if (entry["holder"] or {}).get("process") == name]
        if held:
            line += f", holds {', '.join(held)}"
        if experiment["silent"] is not None:
            line += f", no news for {experiment['silent']:.0f} s"
        if experiment["message"]:
            line += f" ({experiment['message']})"
        self._say(line)

    def _device(self, name: str, device: dict[str, Any]) -> None:
        holder = (device["holder"] or {}).get("process", "")
        now = (device["state"].partition(":")[0], holder)
        if self._holders.get(name) != now:
            self._holders[name] = now
            self._say(f"{name}: {device['state']}{f', held by {holder}' if holder else ''}")

    def _check(self, name: str, check: dict[str, Any]) -> None:
        problem = check["problem"]
        if name not in self._problems and self._everything:
            allowed = limits(check["test"])
            self._say(f"safety check {name}: {reading(check)}{f' ({allowed})' if allowed else ''}")
        what = problem if check["silent"] is None else NOT_KNOWN  # for how long is not told again and again
        if what != self._problems.get(name):
            self._say(f"safety check {name}: {problem or f'passes again, {reading(check)}'}")
        self._problems[name] = what
