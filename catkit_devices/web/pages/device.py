"""The page of a device: its properties and commands, and its telemetry."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from catkit_devices._base.paths import get_at
from catkit_devices.plain import text_of
from catkit_devices.testbed.status import NOT_KNOWN
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.drawing import CURVE, curve
from catkit_devices.web.pages.frames import figure
from catkit_devices.web.pages.parts import Served, about, clock, holder, limits_of, may_act, nothing, pairs, state
from catkit_devices.web.pages.trail import trail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

__all__ = ["device", "device_state"]

_READING = 2.0
"""Seconds for reading the shared properties of a device when its page is opened."""
_OPEN = 6
"""How many commands are shown without a click: base classes of instruments have a dozen of raw ones."""


async def device(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the page of a device."""
    name = served.client.layout.device(request.path_params["device"]).name
    status = await served.lookout.status()
    description = await served.actions.devices.describe(name)
    values = await served.actions.look(partial(_glances, served, name, description["properties"]))
    may = may_act(request)
    here = f"/devices/{quote(name)}"
    if "saturation" in values:
        _remember_saturation(served, name, values["saturation"])
    curves = await served.actions.look(partial(_curves, served, name))
    frames = await served.actions.look(partial(figure, served, name)) if name in served.client.frames else None
    properties = [
        _property(name, path, facts, values.get(path), may)
        for path, facts in description["properties"].items()
    ]  # fmt: skip
    commands = [_command(name, path, facts, may) for path, facts in description["commands"].items()]
    return name, Markup(
        tag(
            "section", tag("h1", name),
            tag("p", f"{description['driver']}, {description['address'] or 'no address'}"),
            tag("div", _state(status, name), data_live=f"{here}/state"),
            tag("p", f"shared values read at {clock(time.time())} · ", tag("a", "read again", href=here)),
            tag("form", tag("button", "Make it safe"), tag("output", ""), method="post", data_inline=True,
                action=f"{here}/make-safe", class_="line") if may else None,
            class_="card",
        )
        + (tag("section", tag("h2", "Frames"), tag("div", frames, data_live=f"{here}/frame"), class_="card")
           if frames else "")
        + (tag("section", tag("h2", "Telemetry, last 10 minutes"), curves, class_="card") if curves else "")
        + tag("section", tag("h2", "Properties"), properties or nothing("none"), class_="card")
        + tag(
            "section",
            tag("details", tag("summary", f"Commands ({len(commands)})"), commands, open=len(commands) <= _OPEN)
            if commands else nothing("no commands"),
            class_="card",
        )
        + tag("section", tag("h2", "Who has changed it"), await served.actions.look(partial(trail, served, name)),
              class_="card")
    )  # fmt: skip


async def device_state(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the state of a device, and who has it: a part of its page."""
    name = request.path_params["device"]
    return name, _state(await served.lookout.status(), name)


def _state(status: Mapping[str, Any], name: str) -> Markup:
    known = status["devices"].get(name, {"state": NOT_KNOWN, "holder": None, "waiters": []})
    rows = [
        (quantity, one["problem"] or text_of(one["value"], one["unit"]))
        for quantity, one in status["telemetry"].items()
        if quantity.startswith(f"{name}.")
    ]
    return Markup(tag("p", state(known["state"]), " ", holder(known)) + (pairs(rows) if rows else ""))


def _glances(served: Served, name: str, properties: Mapping[str, Any]) -> dict[str, str]:
    """Return what the shared properties of an open device are, as far as they are read in time."""
    device = served.client.devices.made(name)
    if device is None or device.state != "open":
        return {}
    deadline = time.monotonic() + _READING
    found: dict[str, str] = {}
    for path, facts in properties.items():
        if not facts["shared"] or "arguments" in facts:
            continue
        if time.monotonic() > deadline:
            break
        try:
            found[path] = text_of(get_at(device, path), facts["unit"])
        except Exception as error:  # noqa: BLE001 - of this property; the others are shown
            found[path] = f"{NOT_KNOWN}: {error}"
    return found


def _remember_saturation(served: Served, name: str, shown: str) -> None:
    try:
        served.saturation[name] = float(shown.partition(" ")[0])
    except ValueError:  # it could not be read
        served.saturation.pop(name, None)


def _curves(served: Served, name: str) -> list[Markup]:
    from catkit_devices.errors import CatkitDevicesError
    from catkit_devices.testbed.telemetry.history import History

    made: list[Markup] = []
    for quantity in served.client.telemetry:
        if not quantity.startswith(f"{name}."):
            continue
        reading = served.client.telemetry[quantity]
        value = reading.problem or text_of(reading.value, reading.unit)
        points: Sequence[Any] = ()
        try:
            with History(served.client.layout.history) as history:
                points = history.points(quantity, time.time() - CURVE)
        except CatkitDevicesError:
            pass  # nothing was kept yet
        drawn = tag("div", curve(points), data_plot=True, data_quantity=quantity)
        made.append(tag("figure", tag("figcaption", f"{quantity}: ", tag("b", value)), drawn))
    return made


def _property(device: str, path: str, facts: Mapping[str, Any], value: str | None, may: bool) -> Markup:
    field = f"value-{path}"
    shown = tag("b", value if value is not None else "not read", class_="value", data_value=True)
    choices = facts["choices"] or ((True, False) if facts["type"] == "bool" else None)
    if choices is None:
        entry = tag("input", id=field, name="value", autocomplete="off", required=True)
    else:
        entry = tag("select", [tag("option", text_of(one).strip("'")) for one in choices], id=field, name="value")
    setting = tag(
        "form", tag("input", type="hidden", name="property", value=path),
        tag("label", f"Set {path}", for_=field, class_="unseen"), entry, tag("span", facts["unit"] or ""),
        tag("button", "Set"), tag("output", ""),
        method="post", action=f"/devices/{device}/set", class_="line", data_inline=True,
    )  # fmt: skip
    reading = tag(
        "form", tag("input", type="hidden", name="property", value=path), tag("button", "Read"), tag("output", ""),
        method="post", action=f"/devices/{device}/read", class_="line", data_inline=True,
    )  # fmt: skip
    return tag(
        "article",
        tag("h3", path), tag("p", shown),
        tag("p", about(facts), " ", tag("span", limits_of(facts), class_="limits")),
        setting if may and facts["writable"] and "arguments" not in facts else None,
        reading if may and facts["readable"] and "arguments" not in facts and value is None else None,
        class_="member",
    )  # fmt: skip


def _command(device: str, path: str, facts: Mapping[str, Any], may: bool) -> Markup:
    arguments = [
        tag("label", f"{name} ", tag("input", name=f"argument-{name}", autocomplete="off"))
        for name, one in facts["parameters"].items()
        if one["kind"] in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")
    ]
    form = tag(
        "form", tag("input", type="hidden", name="command", value=path), arguments, tag("button", "Run"),
        tag("output", ""), method="post", action=f"/devices/{device}/call", class_="line", data_inline=True,
    )  # fmt: skip
    given = ", ".join(name for name in facts["parameters"])
    return tag(
        "article", tag("h3", f"{path}({given})"), tag("p", about(facts)), form if may else None, class_="member"
    )  # fmt: skip
