"""What a running testbed looks like, redrawn while it runs: experiments, devices and who holds them, safety checks.

Off a terminal: a line for each experiment that enters another state, and now and then one for how far it has come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from catkit_devices.cli.output import console
from catkit_devices.errors import CatkitDevicesError

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
    from rich.table import Table

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["LiveView"]

_REDRAW = 0.2
"""Seconds between two pictures on a terminal."""
_REPEAT = 2.0
"""Seconds between two lines about the same experiment off a terminal."""

_ENDED = {"finished": "green", "failed": "red", "stopped": "yellow"}


class LiveView:
    """Draws a testbed while experiments run on it; a context manager, with :meth:`tick` called in between.

    Args:
        testbed: what to draw.
    """

    def __init__(self, testbed: TestbedClient) -> None:
        self._testbed = testbed
        self._console = console(stderr=True)
        self._live: Any = None
        self._drawn = float("-inf")
        self._said: dict[str, tuple[str, float]] = {}

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

    def draw(self) -> None:
        """Draw anew; a testbed that does not answer is left as it was last seen: drawing never fails a run."""
        try:
            status = self._testbed.status()
        except (CatkitDevicesError, OSError, EOFError):
            return
        if self._live is not None:
            self._live.update(_picture(status), refresh=True)
            return
        for name, experiment in status["experiments"].items():
            self._say(name, experiment, status["devices"])

    def _say(self, name: str, experiment: dict[str, Any], devices: dict[str, Any]) -> None:
        state, now = experiment["state"], time.monotonic()
        said, when = self._said.get(name, ("", 0.0))
        if said == state and (state in _ENDED or now - when < _REPEAT):
            return
        self._said[name] = (state, now)
        line = f"{name}: {state}"
        if state == "running" and experiment["description"]:
            line += f", {experiment['description']} {_count(experiment)}"
        held = [device for device, entry in devices.items() if (entry["holder"] or {}).get("process") == name]
        if held:
            line += f", holds {', '.join(held)}"
        if experiment["message"]:
            line += f" ({experiment['message']})"
        self._console.print(line, markup=False)


def _picture(status: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = [_experiments(status["experiments"]), _devices(status["devices"])]
    checks = _checks(status["safety"])
    return Group(*parts, checks, "") if checks is not None else Group(*parts)


def _experiments(experiments: dict[str, Any]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, experiment in experiments.items():
        state, total = experiment["state"], experiment["total"]
        ended = state in _ENDED
        bar = ProgressBar(
            total=total or 1,
            completed=(total or 1) if ended else experiment["done"],
            pulse=total is None and not ended,
            width=30,
            animation_time=time.monotonic(),
            complete_style="bar.complete",
            finished_style=_ENDED.get(state, "bar.finished"),
        )
        seconds = (experiment["updated"] if ended else time.time()) - experiment["started"]
        grid.add_row(
            Text(name, style="bold"), bar, Text(_count(experiment), justify="right"), f"{max(seconds, 0.0):.1f} s",
            Text(state, style=_ENDED.get(state, "")), Text(experiment["message"] or experiment["description"]),
        )  # fmt: skip
    return grid


def _devices(devices: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in ("device", "state", "held by", "for", "waiting"):
        table.add_column(column, justify="right" if column == "for" else "left", min_width=6 if column == "for" else 12)
    for name, entry in devices.items():
        holder = entry["holder"]
        table.add_row(
            name,
            Text(entry["state"], style={"open": "green", "fault": "red"}.get(entry["state"], "dim")),
            Text(holder["process"], style="cyan") if holder else "",
            f"{holder['since']:.1f} s" if holder else "",
            Text(", ".join(waiter["process"] for waiter in entry["waiters"]), style="yellow"),
        )
    return table


def _checks(safety: dict[str, Any]) -> RenderableType | None:
    from rich.text import Text

    if safety["tripped"]:
        return Text(safety["tripped"], style="bold red")
    if not safety["checks"]:
        return None
    line = Text("safety  ", style="dim")
    for name, check in safety["checks"].items():
        value = "no reading yet" if check["value"] is None else f"{check['value']:.4g}"
        line.append(f"{name} {value} ({limits(check['test'])})   ", style="red" if check["problem"] else "green")
    return line


def limits(test: dict[str, Any]) -> str:
    """Return what a safety check allows, in words."""
    low, high = test["minimum"], test["maximum"]
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def _count(experiment: dict[str, Any]) -> str:
    total = experiment["total"]
    return f"{experiment['done']}" if total is None else f"{experiment['done']} of {total}"
