"""What a running testbed looks like, redrawn while it runs.

On a terminal a picture that stays in place. Elsewhere plain lines: one for each experiment that enters another state,
now and then one for how far it has come, one for each safety check that begins or ceases to fail, and warnings.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from catkit_devices.cli.output import console
from catkit_devices.cli.picture import ENDED, count, limits, picture, reading, source
from catkit_devices.errors import CatkitDevicesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["LiveView"]

_REDRAW = 0.2
"""Seconds between two pictures on a terminal."""
_REPEAT = 2.0
"""Seconds between two lines about the same experiment off a terminal."""


class LiveView:
    """Draws a testbed while it runs; a context manager, with :meth:`tick` called in between.

    Args:
        testbed: what to draw.
        stdout: whether to draw on stdout; stderr by default, which leaves stdout to the result.
        everything: whether the lines off a terminal also tell of devices that change hands.
    """

    def __init__(self, testbed: TestbedClient, *, stdout: bool = False, everything: bool = False) -> None:
        self._testbed = testbed
        self._console = console(stderr=not stdout)
        self._live: Any = None
        self._drawn = float("-inf")
        self.tripped = False
        """Whether safety had tripped when the testbed was last seen."""
        self._lines = _Lines(lambda line: self._console.print(line, markup=False), everything=everything)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Draw anew if that is due."""
        now = time.monotonic()
        if now - self._drawn >= _REDRAW:
            self._drawn = now
            self.draw()

    def draw(self) -> bool:
        """Draw anew, and return whether the testbed answers.

        One that does not is left as it was last seen: drawing never fails a run.
        """
        try:
            status = self._testbed.status()
        except (CatkitDevicesError, OSError, EOFError):
            return False
        self.tripped = bool(status["safety"]["tripped"])
        if self._live is not None:
            self._live.update(picture(status), refresh=True)
        else:
            self._lines.tell(status)
        return True


class _Lines:
    """Tells what has changed, a line for each change."""

    def __init__(self, say: Callable[[str], None], *, everything: bool) -> None:
        self._say = say
        self._everything = everything
        self._experiments: dict[str, tuple[str, float]] = {}
        self._problems: dict[str, str | None] = {}
        self._holders: dict[str, tuple[str, str]] = {}
        self._tripped: str | None = None
        self._told = time.time()

    def tell(self, status: dict[str, Any]) -> None:
        for name, experiment in status["experiments"].items():
            self._experiment(name, experiment, status["devices"])
        if self._everything:
            for name, device in status["devices"].items():
                self._device(name, device)
        for name, check in status["safety"]["checks"].items():
            self._check(name, check)
        tripped = status["safety"]["tripped"]
        if tripped != self._tripped:
            self._say(f"SAFETY TRIPPED: {tripped}" if tripped else "safety was reset")
            self._tripped = tripped
        for message in status.get("messages", []):
            if message["time"] > self._told and message["level"] in ("WARNING", "ERROR"):
                self._say(f"{message['level'].lower()}: {source(message, status['name'])}: {message['text']}")
        self._told = max([self._told, *(message["time"] for message in status.get("messages", []))])

    def _experiment(self, name: str, experiment: dict[str, Any], devices: dict[str, Any]) -> None:
        state, now = experiment["state"], time.monotonic()
        said, when = self._experiments.get(name, ("", 0.0))
        if said == state and (state in ENDED or now - when < _REPEAT):
            return
        self._experiments[name] = (state, now)
        line = f"{name}: {state}"
        if state == "running" and experiment["description"]:
            line += f", {experiment['description']} {count(experiment)}"
        held = [device for device, entry in devices.items() if (entry["holder"] or {}).get("process") == name]
        if held:
            line += f", holds {', '.join(held)}"
        if experiment["message"]:
            line += f" ({experiment['message']})"
        self._say(line)

    def _device(self, name: str, device: dict[str, Any]) -> None:
        holder = (device["holder"] or {}).get("process", "")
        now = (device["state"], holder)
        if self._holders.get(name) != now:
            self._holders[name] = now
            self._say(f"{name}: {device['state']}{f', held by {holder}' if holder else ''}")

    def _check(self, name: str, check: dict[str, Any]) -> None:
        problem = check["problem"]
        if name not in self._problems and self._everything:
            allowed = limits(check["test"])
            self._say(f"safety check {name}: {reading(check)}{f' ({allowed})' if allowed else ''}")
        if problem != self._problems.get(name):
            self._say(f"safety check {name}: {problem or f'well again, {reading(check)}'}")
        self._problems[name] = problem
