"""A testbed as people see it on a terminal: experiments, devices and who has them, safety checks, messages."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.cli.moments import clock
from catkit_devices.cli.output import silent
from catkit_devices.testbed.status import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["ENDED", "count", "duration", "limits", "picture", "reading", "source"]

ENDED = {"finished": "green", "failed": "red", "stopped": "yellow"}
"""The states in which an experiment has ended, and the colours of them."""

_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
"""Colours of the lines of the log."""
_STATES = {"open": "green", "lost": "yellow", "fault": "red"}
"""Colours of the states of devices."""
_SILENT = "bold red"
"""An unknown state is never shown in green."""
_BAR, _SHORT_BAR = 30, 8
"""Characters; the width of a progress bar, and that on a narrow terminal."""
_NARROW = 100
"""Columns up to which a terminal is narrow."""
_ALWAYS = 9
"""Importance of what is never folded."""


class _Part(NamedTuple):
    """A part of the picture: what it looks like, from the longest form to the shortest."""

    importance: int
    """Of the parts that are too long together, that of the least importance is shortened first."""
    forms: Sequence[RenderableType | None]


def picture(status: dict[str, Any], *, messages: int = 6, size: tuple[int, int] | None = None) -> RenderableType:
    """Return a testbed's status, as its ``status()`` returns it, as something that Rich prints.

    Safety comes first, then what runs. Experiments that have ended share one line.

    Args:
        status: of the testbed.
        messages: how many of the last messages are shown.
        size: columns and lines that there are. What does not fit is folded, from the messages up to the devices; what
            concerns safety never is. None: everything is shown.
    """
    from rich.console import Group

    width = 200 if size is None else size[0]
    parts = [_Part(_ALWAYS, [one]) for one in (_heading(status), *_alarms(status))]
    running = {name: one for name, one in status["experiments"].items() if one["state"] not in ENDED}
    ended = {name: one for name, one in status["experiments"].items() if one["state"] in ENDED}
    if running:
        parts += [_Part(_ALWAYS, [_experiments(running, width)])]
    if status["safety"]["checks"]:
        checks = status["safety"]["checks"]
        parts += [_Part(4, [_checks(checks), _checks_folded(checks)])]
    parts += [_Part(5, [line, None]) for line in _queue(status.get("queue") or {"paused": None, "entries": []})]
    if status["devices"]:
        parts += [_Part(3, [_devices(status["devices"]), _devices_in_use(status["devices"])])]
    if status.get("telemetry"):
        parts += [_Part(1, [_telemetry(status["telemetry"]), _telemetry_folded(status["telemetry"]), None])]
    if status.get("frames"):
        parts += [_Part(1, [_frames(status["frames"]), _frames_folded(status["frames"]), None])]
    if ended:
        parts += [_Part(2, [_ended(ended), None])]
    last = status.get("messages", [])[-messages:]
    if last:
        lines = [_message(message, status["name"]) for message in last]
        shorter = [Group(*lines[-number:]) for number in range(len(lines), 0, -1)]
        parts += [_Part(0, [*shorter, None])]
    if size is None:
        return Group(*(part.forms[0] for part in parts if part.forms[0] is not None))
    return Group(*_fitted(parts, size))


def _fitted(parts: list[_Part], size: tuple[int, int]) -> list[RenderableType]:
    """Return a form of each part, such that all fit into a number of lines."""
    from rich.console import Console

    console = Console(width=size[0], height=size[1], file=io.StringIO(), color_system=None)

    def lines(form: RenderableType | None) -> int:
        return 0 if form is None else len(console.render_lines(form))

    chosen = [0] * len(parts)
    heights = [lines(part.forms[0]) for part in parts]
    while sum(heights) > size[1]:
        longer = [number for number, part in enumerate(parts) if chosen[number] + 1 < len(part.forms)]
        if not longer:
            break
        number = min(longer, key=lambda one: parts[one].importance)
        chosen[number] += 1
        heights[number] = lines(parts[number].forms[chosen[number]])
    forms = [part.forms[which] for part, which in zip(parts, chosen, strict=True)]
    return [form for form in forms if form is not None]


def _alarms(status: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    found = [Text(text, style="bold red") for text in silent(status)]
    tripped = status["safety"]["tripped"]
    if tripped and tripped.startswith(NOT_KNOWN):
        found += [_alarm("NO NEWS", f"whether it is safe is {tripped}")]
    elif tripped:
        found += [_alarm("SAFETY TRIPPED", tripped)]
    unsafe = status["safety"].get("not_safe", {})
    return found + [_alarm("NOT KNOWN TO BE SAFE", f"{name}: {why}") for name, why in unsafe.items()]


def _ended(experiments: dict[str, Any]) -> Text:
    """Return one line about the experiments that have ended: how many, and how the last one did."""
    from rich.text import Text

    states = [one["state"] for one in experiments.values()]
    line = Text("ended: ", style="dim")
    counts = [(state, states.count(state)) for state in ENDED if state in states]
    for number, (state, many) in enumerate(counts):
        line.append(f"{', ' if number else ''}{many} {state}", style=ENDED[state])
    name, last = max(experiments.items(), key=lambda one: one[1]["updated"])
    told = f" ({last['message']})" if last["message"] else ""
    ago = duration(max(0.0, time.time() - last["updated"]))
    line.append(f"; last {name} {last['state']} {ago} ago{told}", style="dim")
    return line


def _checks_folded(checks: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    failing = {name: check for name, check in checks.items() if check["problem"] or not check.get("time")}
    passing = len(checks) - len(failing)
    line = Text(f"{passing} of {len(checks)} safety checks pass", style="red" if failing else "green")
    return Group(_checks(failing), line) if failing else line


def _devices_in_use(devices: dict[str, Any]) -> RenderableType:
    """Return the devices that somebody has or waits for, or that are not as they should be; the others as a number."""
    from rich.console import Group
    from rich.text import Text

    shown = {
        name: one
        for name, one in devices.items()
        if one["holder"] or one["waiters"] or one["state"] not in {"open", "closed", "safe"}
    }
    line = Text(f"{len(devices) - len(shown)} devices that nobody uses", style="dim")
    return Group(_devices(shown), line) if shown else line


def _telemetry_folded(telemetry: dict[str, Any]) -> Text:
    from rich.text import Text

    unknown = [name for name, one in telemetry.items() if one["problem"]]
    line = Text(f"{len(telemetry)} telemetry quantities", style="dim")
    line.append(f", {len(unknown)} not known" if unknown else "", style="red")
    return line


def _frames_folded(cameras: dict[str, Any]) -> Text:
    from rich.text import Text

    without = [name for name, one in cameras.items() if one["problem"]]
    line = Text(f"frames of {', '.join(cameras)}", style="dim")
    line.append(f", none of {', '.join(without)}" if without else "", style="red")
    return line


def limits(test: dict[str, Any]) -> str:
    """Return what a safety check allows, in words."""
    return str(test.get("expected") or "").removeprefix("a value ")


def reading(check: dict[str, Any]) -> str:
    """Return the last value of a safety check; in words if it is not one number."""
    value = check["value"]
    if value is not None:
        return f"{value:.4g}" if isinstance(value, int | float) else str(value)
    if not check.get("time"):
        return "no reading yet"
    return "no value" if check["problem"] else "in order"


def count(experiment: dict[str, Any]) -> str:
    """Return how many of its steps an experiment has done."""
    total = experiment["total"]
    if total is None:
        return f"{experiment['done']}" if experiment["done"] or experiment["description"] else ""
    return f"{experiment['done']} of {total}"


def _heading(status: dict[str, Any]) -> Text:
    from rich.text import Text

    line = Text(status["name"], style="bold")
    line.append(", simulated" if status.get("simulated") else "", style="cyan")
    facts = []
    if status.get("started"):
        facts.append(f"up for {duration(status['time'] - status['started'])}")
    if status.get("pid"):
        facts.append(f"pid {status['pid']}{' on ' + status['host'] if status.get('host') else ''}")
    line.append(f", {', '.join(facts)}" if facts else "", style="dim")
    permit = status["safety"].get("permit")
    if permit is not None:
        text = f", changes permitted for {permit:.1f} s" if permit > 0 else ", no change is permitted"
        line.append(text, style="dim" if permit > 0 else "red")
    state = status.get("state", "running")
    if state != "running":
        line.append(f", {state}", style="bold red")
    if status.get("stale_since"):
        line.append(f", stale since {clock(status['stale_since'])}", style=_SILENT)
    return line


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d} h"
    return f"{days} d {clock}" if days else clock


def _experiments(experiments: dict[str, Any], width: int) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for _ in range(5):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold" if width > _NARROW else "ellipsis", no_wrap=width <= _NARROW)
    for name, experiment in experiments.items():
        state, total = experiment["state"], experiment["total"]
        ended = state in ENDED
        silence = experiment["silent"]
        style = _SILENT if silence is not None else ENDED.get(state, "")
        told = experiment["message"] or experiment["description"]
        bar = ProgressBar(
            total=total or 1,
            completed=(total or 1) if state == "finished" else min(experiment["done"], total or 0),
            pulse=total is None and not ended and silence is None,
            width=_BAR if width > _NARROW else _SHORT_BAR,
            animation_time=time.monotonic(),
            complete_style=style or "bar.complete",
            finished_style=style or "bar.finished",
        )
        seconds = (experiment["updated"] if ended else time.time()) - experiment["started"]
        grid.add_row(
            Text(name, style="bold"), bar, Text(count(experiment), justify="right"), duration(seconds),
            Text(state, style=style), Text(told if silence is None else f"no news for {silence:.0f} s"),
        )  # fmt: skip
    return grid


def _queue(queue: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    waiting = [entry["what"] for entry in queue["entries"] if entry["state"] == "waiting"]
    if not waiting and queue["paused"] is None:
        return []
    told = f"queue: {len(waiting)} waiting"
    if waiting:
        told += f", {waiting[0]} is next"
    paused = f", paused: {queue['paused']}" if queue["paused"] is not None else ""
    return [Text.assemble(told, (paused, "yellow"))]


def _devices(devices: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table("device", "state", "held by", "#for", "waiting")
    for name, entry in devices.items():
        holder = entry["holder"]
        style = _SILENT if entry["state"].startswith(NOT_KNOWN) else _STATES.get(entry["state"], "dim")
        told = Text(entry["state"], style=style)
        if not entry.get("says_how_safe", True):
            told.append(", 'safe' is not said", style="yellow")
        table.add_row(
            Text(name),
            told,
            Text(holder["process"], style="cyan") if holder else "",
            duration(holder["since"]) if holder else "",
            Text(", ".join(waiter["process"] for waiter in entry["waiters"]), style="yellow"),
        )
    return table


def _checks(checks: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table("safety check", "#value", "allowed", "#read", "problem")
    for name, check in sorted(checks.items()):
        style = "red" if check["problem"] else "green" if check.get("time") else "dim"
        age = f"{duration(time.time() - check['time'])} ago" if check.get("time") else ""
        failures = f" ({check['failures']} in a row)" if check["failures"] > 1 else ""
        table.add_row(
            Text(name), Text(reading(check), style=style), limits(check["test"]), age,
            Text(f"{check['problem']}{failures}" if check["problem"] else "", style="red"),
        )  # fmt: skip
    return table


def _telemetry(telemetry: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table("telemetry", "#value", "unit", "#read", "problem")
    for name, one in telemetry.items():
        value = one["value"]
        shown = f"{value:.4g}" if type(value) is float else "" if value is None else str(value)
        age = f"{duration(time.time() - one['time'])} ago" if one["time"] else ""
        table.add_row(Text(name), Text(shown), Text(one["unit"] or ""), age, Text(one["problem"] or "", style="red"))
    return table


def _frames(cameras: dict[str, Any]) -> Table:
    from rich.text import Text

    table = _table("frames of", "#per second", "#last", "#published", "problem")
    for name, one in cameras.items():
        problem, rate = one["problem"], one["rate"]
        age = f"{duration(time.time() - one['time'])} ago" if one["time"] else ""
        told = ""
        if problem:
            since = time.strftime("%H:%M:%S", time.localtime(one["time"])) if one["time"] else ""
            told = f"no frame since {since}: {problem}" if since else f"no frame yet: {problem}"
        table.add_row(
            Text(name),
            "" if problem or rate is None else f"{rate:.1f}",
            "" if one["number"] is None else str(one["number"]),
            age,
            Text(told, style="red"),
        )
    return table


def _alarm(headline: str, text: str) -> Text:
    from rich.text import Text

    return Text.assemble((f"{headline} ", "bold white on red"), (f" {text}", "bold red"))


def source(message: dict[str, Any], testbed: str) -> str:
    """Return which process a message is from; the testbed's own goes by the testbed's name."""
    return testbed if message["source"] == "MainProcess" else str(message["source"])


def _message(message: dict[str, Any], testbed: str) -> Text:
    from rich.text import Text

    who = f"{clock(message['time'])} {source(message, testbed)}: "
    return Text.assemble((who, "dim"), (message["text"], _LEVELS.get(message["level"], "")))


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        number = column.startswith("#")
        table.add_column(column.removeprefix("#"), justify="right" if number else "left", min_width=6)
    return table
