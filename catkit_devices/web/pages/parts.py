"""What many pages have: states, holders, times, pairs of a name and a value."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catkit_devices.plain import plain
from catkit_devices.testbed.status import NOT_KNOWN
from catkit_devices.web.access import Access
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = ["Served", "about", "clock", "holder", "limits_of", "may_act", "nothing", "pairs", "state", "took"]


@dataclass(frozen=True)
class Served:
    """What every page needs.

    Attributes:
        client: of the testbed that is shown.
        actions: carries out what visitors ask for.
        lookout: knows what is going on.
        saturation: the value at which a pixel of a camera saturates, of those that have said it.
    """

    client: TestbedClient
    actions: Actions
    lookout: Lookout
    saturation: dict[str, float] = field(default_factory=dict)


def may_act(request: Request) -> bool:
    """Return whether the visitor has signed in for control."""
    return visitor_of(request.scope).access is Access.CONTROL


def state(text: str) -> Markup:
    """Return a state, in the colour of what it means."""
    word = text.partition(":")[0]
    kind = {
        "open": "good", "lost": "warn", "finished": "good", "running": "good", "fault": "bad", "failed": "bad",
        "killed": "bad", "unreadable": "bad", NOT_KNOWN: "unknown", "unknown": "unknown",
    }.get(word, "plain")  # fmt: skip
    return tag("span", text, class_=f"state {kind}")


def holder(device: Mapping[str, Any]) -> Markup:
    """Say who has a device, since when and from which line, and who waits for it."""
    if device["state"].startswith(NOT_KNOWN):
        return tag("span", "who has it is not known", class_="dim")
    has = device["holder"]
    if has is None:
        return tag("span", "free", class_="dim")
    site = f" at {has['site']}" if has.get("site") else ""
    waiting = ", ".join(f"{one['owner']} for {took(one['since'])}" for one in device["waiters"])
    return tag(
        "span", f"held for {took(has['since'])} by {has['owner']}{site}",
        tag("span", f"; waiting: {waiting}") if waiting else None, class_="held",
    )  # fmt: skip


def about(facts: Mapping[str, Any]) -> str:
    """Return the first paragraph of the doc of a member, as one line."""
    return (facts["doc"] or "").partition("\n\n")[0].replace("\n", " ").replace("``", "")


def limits_of(facts: Mapping[str, Any]) -> str:
    """Say which values a property takes, and its unit."""
    unit = f" {facts['unit']}" if facts["unit"] else ""
    if facts.get("limits"):
        low, high = facts["limits"]
        return f"from {low} to {high}{unit}"
    if facts["choices"]:
        return "one of " + ", ".join(str(plain(one)) for one in facts["choices"])
    return f"in{unit}" if unit else ""


def pairs(rows: Sequence[tuple[str, Any]]) -> Markup:
    """Return a list of names and values."""
    return tag("dl", [(tag("dt", name), tag("dd", value)) for name, value in rows])


def nothing(text: str) -> Markup:
    """Say that there is nothing to be shown."""
    return tag("p", text, class_="dim")


def took(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds:.1f} s" if seconds < 100 else str(dt.timedelta(seconds=round(seconds)))


def clock(moment: float) -> str:
    """Return the time of day of a moment in seconds since 1970 UTC."""
    return dt.datetime.fromtimestamp(moment).astimezone().strftime("%H:%M:%S")
