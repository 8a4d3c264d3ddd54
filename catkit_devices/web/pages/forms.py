"""What the forms of the pages do: each returns which page is shown next, and what came of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from catkit_devices.plain import converted, property_value, text_of
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.operations import gone
from catkit_devices.web.problems import Problem
from catkit_devices.web.rest import run_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from catkit_devices.web.pages.parts import Served

__all__ = [
    "add_note",
    "break_lock",
    "call_command",
    "make_safe",
    "read_form",
    "read_property",
    "reset_safety",
    "set_property",
    "set_star",
    "start_experiment",
    "stop_experiment",
]

_WAIT = 5.0
"""Seconds that a form waits for somebody else who has the device."""
_MOST_FIELDS = 50
"""Fields that a form may have."""


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of the form that was sent.

    Raises:
        Problem: it is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await request.body()
    if raw and kind != "application/x-www-form-urlencoded":
        raise Problem(415, f"expected a form, got {kind or 'no type'}")
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise Problem(400, f"the form cannot be read: {error}") from None


async def set_property(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Set a property of a device."""
    device, path = request.path_params["device"], _field(form, "property")
    done = await served.actions.devices.write(
        visitor_of(request.scope), device, path, partial(property_value, _field(form, "value", empty=True)), _WAIT,
        gone(request),
    )  # fmt: skip
    return f"/devices/{quote(device)}", _shown_value(done)


async def read_property(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Read a property of a device."""
    device = request.path_params["device"]
    done = await served.actions.devices.read(
        visitor_of(request.scope), device, _field(form, "property"), _WAIT, gone(request)
    )
    return f"/devices/{quote(device)}", _shown_value(done)


async def call_command(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Run a command of a device."""
    device = request.path_params["device"]

    def arguments(facts: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        given = {
            name: converted(form[f"argument-{name}"], one["type"])
            for name, one in facts["parameters"].items()
            if form.get(f"argument-{name}", "")
        }
        return [], given

    done = await served.actions.devices.call(
        visitor_of(request.scope), device, _field(form, "command"), arguments, {}, _WAIT, gone(request)
    )
    result = done["result"]
    return f"/devices/{quote(device)}", "done" if result is None else str(result)[:500]


async def make_safe(served: Served, request: Request, _: dict[str, str]) -> tuple[str, Any]:
    """Make a device safe, whoever has it."""
    device = request.path_params["device"]
    done = await served.actions.emergency.make_safe(visitor_of(request.scope), device)
    return f"/devices/{quote(device)}", done["is"]


async def break_lock(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Take a mutex from whoever has it."""
    reason = _field(form, "reason")
    done = await served.actions.emergency.break_lock(visitor_of(request.scope), _field(form, "mutex"), reason)
    return "/locks", "released" if done["holder"] else "nobody held it"


async def reset_safety(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Allow changes again after a trip."""
    await served.actions.emergency.reset_safety(visitor_of(request.scope), _field(form, "reason"))
    return "/", "every check passes; changes are allowed again"


async def start_experiment(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Start an experiment."""
    name = _field(form, "experiment")
    kind = served.actions.experiments.kinds.get(name)
    parameters = {} if kind is None else {
        parameter: converted(form[f"argument-{parameter}"], getattr(one.annotation, "__name__", None))
        for parameter, one in kind.parameters().items()
        if form.get(f"argument-{parameter}", "")
    }  # fmt: skip
    done = await served.actions.experiments.start(visitor_of(request.scope), name, parameters)
    return "/", f"started: {done['run']}"


async def stop_experiment(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Stop an experiment."""
    await served.actions.experiments.stop(
        visitor_of(request.scope), _field(form, "experiment"), finish=form.get("finish") == "yes"
    )
    return "/", "told to stop"


async def add_note(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Add a note to a run."""
    from catkit_devices.datalog import add_note as add

    path = run_path(served.client, request.path_params["run"])
    note = await served.actions.look(partial(add, path, _field(form, "text")))
    return f"/runs/{quote(path.name, safe='')}", note.text


async def set_star(served: Served, request: Request, form: dict[str, str]) -> tuple[str, Any]:
    """Give a run a star, or take it away."""
    from catkit_devices.datalog import set_star as mark

    path, starred = run_path(served.client, request.path_params["run"]), _field(form, "star") == "yes"
    await served.actions.look(partial(mark, path, starred))
    return f"/runs/{quote(path.name, safe='')}", "it has a star" if starred else "it has none"


def _shown_value(done: Mapping[str, Any]) -> str:
    return str(done["reason"] if "reason" in done else text_of(done["value"], done["unit"]))[:500]


def _field(form: Mapping[str, str], name: str, *, empty: bool = False) -> str:
    value = form.get(name, "").strip()
    if not value and not empty:
        raise Problem(422, f"the field {name!r} is empty")
    return value
