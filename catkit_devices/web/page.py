"""The page: what a testbed does, live, and how a person acts on it. It works without JavaScript too."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from catkit_devices._base.paths import get_at
from catkit_devices.plain import converted, plain, property_value, text_of
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.processes.finding import LAYOUT
from catkit_devices.testbed.status import NOT_KNOWN
from catkit_devices.web.access import Access
from catkit_devices.web.actions import CLOSED, SAFE
from catkit_devices.web.guard import cookie_name, visitor_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import PREFIX, allow, answer_json, gone
from catkit_devices.web.problems import Problem, problem_of, problem_response
from catkit_devices.web.rest import description_of_run, run_path, runs_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.web.access import Keys, Visitor
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = ["Page", "verdict_of"]

# What is served as it is, and its type.
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_WAIT = 5.0
"""Seconds that a form waits for somebody else who has the device."""
_READING = 2.0
"""Seconds for reading the shared properties of a device when its page is opened."""
_CURVE = 600.0
"""Seconds that the curve of a quantity shows."""
_RUNS = 200
"""How many runs are listed."""
_MOST_FIELDS = 50
"""Fields that a form may have."""
_HIDDEN = re.compile(r"pass|secret|token|community|credential|private|key$", re.IGNORECASE)
"""Options of devices whose values are not shown."""
_SHOWN_MESSAGES = 8
"""How many messages the overview shows, the newest first."""
_OPEN = 6
"""How many commands of a device are shown without a click: base classes of instruments have a dozen of raw ones."""


class Page:
    """The pages of one testbed.

    Args:
        client: of the testbed.
        actions: carries out what visitors ask for.
        lookout: knows what is going on.
        keys: the tokens.
        port: returns the port of the service.
    """

    def __init__(
        self, client: TestbedClient, actions: Actions, lookout: Lookout, keys: Keys, port: Callable[[], int]
    ) -> None:
        self._client = client
        self._actions = actions
        self._lookout = lookout
        self._keys = keys
        self._port = port
        self.routes = [
            Route("/", self._shown(self._overview), methods=["GET"]),
            Route("/devices/{device}", self._shown(self._device), methods=["GET"]),
            Route("/devices/{device}/set", self._done(self._set), methods=["POST"]),
            Route("/devices/{device}/read", self._done(self._read), methods=["POST"]),
            Route("/devices/{device}/call", self._done(self._call), methods=["POST"]),
            Route("/devices/{device}/make-safe", self._done(self._make_safe), methods=["POST"]),
            Route("/runs", self._shown(self._runs), methods=["GET"]),
            Route("/runs/{run}", self._shown(self._run), methods=["GET"]),
            Route("/locks", self._shown(self._locks), methods=["GET"]),
            Route("/locks/break", self._done(self._break), methods=["POST"]),
            Route("/configuration", self._shown(self._configuration), methods=["GET"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/safety/reset", self._done(self._reset), methods=["POST"]),
            Route("/experiments/start", self._done(self._start), methods=["POST"]),
            Route("/experiments/stop", self._done(self._stop_experiment), methods=["POST"]),
            Route("/login", self._shown(self._sign_in), methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/static/{name}", _static, methods=["GET"]),
        ]

    # --- showing

    def _shown(self, make: Callable[[Request], Awaitable[tuple[str, Markup]]]) -> Callable[[Request], Any]:
        async def show(request: Request) -> Response:
            try:
                title, main = await make(request)
            except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
                return self._problem(request, error)
            if request.headers.get("x-part") == "main":
                return Response(main, media_type="text/html")
            return self._whole(request, title, main)

        return show

    def _done(self, act: Callable[[Request, dict[str, str]], Awaitable[tuple[str, Any]]]) -> Callable[[Request], Any]:
        """Return what answers a form: the page again; or JSON, which our script shows beside the field."""

        async def do(request: Request) -> Response:
            inline = "application/json" in request.headers.get("accept", "")
            try:
                allow(visitor_of(request.scope), Access.CONTROL)
                where, result = await act(request, await _form(request))
            except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
                return problem_response(error) if inline else self._problem(request, error)
            return answer_json({"done": result}) if inline else RedirectResponse(where, 303)

        return do

    def _problem(self, request: Request, error: BaseException) -> Response:
        problem = problem_of(error)
        main = tag(
            "section",
            tag("h1", "This was not done" if request.method == "POST" else "This cannot be shown"),
            tag("p", problem["detail"], class_="refusal"),
            [tag("p", note) for note in problem.get("notes", ())],
            tag("p", tag("a", "Sign in", href="/login")) if problem["status"] == 401 else None,
            tag("p", tag("a", "Back to the overview", href="/")),
            class_="card",
        )
        return self._whole(request, "Refused", main, problem["status"])

    def _whole(self, request: Request, title: str, main: Markup, status: int = 200) -> Response:
        visitor: Visitor = visitor_of(request.scope)
        may = visitor.access is Access.CONTROL
        here = request.url.path
        entries = (("/", "Overview"), ("/runs", "Runs"), ("/locks", "Locks"), ("/configuration", "Configuration"))
        menu = tag(
            "nav",
            [tag("a", text, href=to, aria_current="page" if here == to else None) for to, text in entries],
            tag("form", tag("button", "Sign out", class_="quiet"), method="post", action="/logout")
            if may
            else tag("a", "Sign in", href="/login"),
            aria_label="Pages",
        )
        stop = tag(
            "form",
            tag("button", "STOP", class_="stop", title="Stop all experiments and make all devices safe"),
            method="post", action="/stop", class_="stopping",
        )  # fmt: skip
        live = request.method == "GET" and here in ("/", "/locks")
        page = tag(
            "html",
            tag(
                "head",
                tag("meta", charset="utf-8"),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("meta", name="color-scheme", content="light dark"),
                tag("title", f"{title} · {self._client.name}"),
                tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
                tag("link", rel="stylesheet", href="/static/page.css"),
                tag("script", "", src="/static/page.js", defer=True),
                tag("noscript", tag("meta", http_equiv="refresh", content="5")) if live else None,
            ),
            tag(
                "body",
                tag("a", "To the content", href="#main", class_="skip"),
                tag(
                    "header",
                    tag("div", tag("strong", self._client.name), tag("span", _mode(self._client), class_="mode"),
                        class_="name"),
                    menu, stop,
                ),
                tag("p", "", id="news", role="status", hidden=True),
                tag("main", main, id="main", data_live=live),
                tag(
                    "footer",
                    tag("span", f"as of {_clock(time.time())}", id="asof"), " · ",
                    "you may look and act" if may else "you may look; to act, sign in", " · ",
                    tag("a", "REST", href=f"{PREFIX}/openapi.json"), " · ", tag("a", "metrics", href="/metrics"),
                ),
            ),
            lang="en",
        )  # fmt: skip
        return Response(f"<!doctype html>\n{page}", status, media_type="text/html")

    # --- the overview

    async def _overview(self, request: Request) -> tuple[str, Markup]:
        status = await self._lookout.status()
        may = visitor_of(request.scope).access is Access.CONTROL
        return "Overview", Markup(
            _verdict(status, may)
            + tag("section", tag("h2", "Devices"), _devices(status), class_="card")
            + _safety(status)
            + self._experiments(status, may)
            + _telemetry(status)
            + _messages(status)
        )

    def _experiments(self, status: Mapping[str, Any], may: bool) -> Markup:
        shown = [_experiment(one, may) for one in reversed(list(status["experiments"].values()))][:12]
        offered = [
            tag(
                "form", tag("input", type="hidden", name="experiment", value=name), _parameters(kind),
                tag("button", f"Start {name}"), tag("output", ""),
                method="post", action="/experiments/start", class_="line", data_inline=True,
            )
            for name, kind in (self._actions.experiments.items() if may else ())
        ]  # fmt: skip
        return tag(
            "section", tag("h2", "Experiments"), tag("ul", shown, class_="experiments") if shown else _none("none yet"),
            offered, class_="card",
        )  # fmt: skip

    # --- a device

    async def _device(self, request: Request) -> tuple[str, Markup]:
        name = self._client.layout.device(request.path_params["device"]).name
        status = await self._lookout.status()
        description = await self._actions.describe(name)
        values = await self._actions.look(partial(self._glances, name, description["properties"]))
        may = visitor_of(request.scope).access is Access.CONTROL
        device = status["devices"].get(name, {"state": NOT_KNOWN, "holder": None, "waiters": []})
        curves = await self._actions.look(partial(self._curves, name))
        properties = [
            self._property(name, path, facts, values.get(path), may)
            for path, facts in description["properties"].items()
        ]  # fmt: skip
        commands = [_command(name, path, facts, may) for path, facts in description["commands"].items()]
        return name, Markup(
            tag(
                "section", tag("h1", name),
                tag("p", f"{description['driver']}, {description['address'] or 'no address'}"),
                tag("p", _state(device["state"]), " ", _holder(device)),
                tag("p", f"shared values read at {_clock(time.time())} · ",
                    tag("a", "read again", href=f"/devices/{name}")),
                tag("form", tag("button", "Make it safe"), tag("output", ""), method="post", data_inline=True,
                    action=f"/devices/{name}/make-safe", class_="line") if may else None,
                class_="card",
            )
            + (tag("section", tag("h2", "Telemetry, last 10 minutes"), curves, class_="card") if curves else "")
            + tag("section", tag("h2", "Properties"), properties or _none("none"), class_="card")
            + tag(
                "section",
                tag("details", tag("summary", f"Commands ({len(commands)})"), commands, open=len(commands) <= _OPEN)
                if commands else _none("no commands"),
                class_="card",
            )
        )  # fmt: skip

    def _glances(self, name: str, properties: Mapping[str, Any]) -> dict[str, str]:
        """Return what the shared properties of an open device are, as far as they are read in time."""
        device = self._client.devices.made(name)
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

    def _curves(self, name: str) -> list[Markup]:
        from catkit_devices.errors import CatkitDevicesError
        from catkit_devices.testbed.telemetry.history import History

        made: list[Markup] = []
        for quantity in self._client.telemetry:
            if not quantity.startswith(f"{name}."):
                continue
            reading = self._client.telemetry[quantity]
            value = reading.problem or text_of(reading.value, reading.unit)
            points: Sequence[Any] = ()
            try:
                with History(self._client.layout.history) as history:
                    points = history.points(quantity, time.time() - _CURVE)
            except CatkitDevicesError:
                pass  # nothing was kept yet
            made.append(tag("figure", tag("figcaption", f"{quantity}: ", tag("b", value)), _curve(points)))
        return made

    def _property(self, device: str, path: str, facts: Mapping[str, Any], value: str | None, may: bool) -> Markup:
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
            tag("p", _about(facts), " ", tag("span", _limits(facts), class_="limits")),
            setting if may and facts["writable"] and "arguments" not in facts else None,
            reading if may and facts["readable"] and "arguments" not in facts and value is None else None,
            class_="member",
        )  # fmt: skip

    # --- runs, locks, configuration

    async def _runs(self, _: Request) -> tuple[str, Markup]:
        runs = await self._actions.look(partial(runs_of, self._client, _RUNS))
        rows = [
            tag(
                "tr", tag("td", tag("a", one["run"], href=f"/runs/{quote(one['run'], safe='')}")),
                tag("td", one["name"]),
                tag("td", (one["started"] or "")[:19].replace("T", " ")), tag("td", _state(one["outcome"])),
                tag("td", one["detail"]),
            )
            for one in runs
        ]  # fmt: skip
        head = tag("tr", [tag("th", text, scope="col") for text in ("run", "what", "started (UTC)", "outcome", "why")])
        table = tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="wide", tabindex="0",
                    role="region", aria_label="Runs")  # fmt: skip
        return "Runs", tag("section", tag("h1", "Runs"), table if rows else _none("none yet"), class_="card")

    async def _run(self, request: Request) -> tuple[str, Markup]:
        path = run_path(self._client, request.path_params["run"])
        run = await self._actions.look(partial(description_of_run, path))
        base = f"{PREFIX}/runs/{quote(run['run'], safe='')}"
        parameters = [(name, text_of(value)) for name, value in run.get("parameters", {}).items()]
        tags = [
            tag("tr", tag("td", one["kind"]), tag("td", one["tag"]), tag("td", one["unit"]), tag("td", one["count"]))
            for one in run.get("tags", ())
        ]  # fmt: skip
        return run["run"], Markup(
            tag("section", tag("h1", run["run"]), tag("p", run["name"], " ", _state(run["outcome"])),
                tag("p", run["detail"]), _pairs(parameters), class_="card")
            + tag("section", tag("h2", "Records"), tag("table", tags) if tags else _none("none"), class_="card")
            + tag("section", tag("h2", "Events"),
                  tag("ul", [tag("li", f"{_clock(one['time'])} {one['kind']}: {one['text']}")
                             for one in run.get("events", ())]), class_="card")
            + tag("section", tag("h2", "Files"),
                  tag("ul", [tag("li", tag("a", one, href=f"{base}/files/{quote(one)}")) for one in run["files"]]),
                  class_="card")
        )  # fmt: skip

    async def _locks(self, request: Request) -> tuple[str, Markup]:
        locks = await self._actions.look(self._client.locks)
        may = visitor_of(request.scope).access is Access.CONTROL
        return "Locks", tag(
            "section", tag("h1", "Locks"), [_lock(one, may) for one in locks] or _none("none"), class_="card"
        )

    async def _configuration(self, request: Request) -> tuple[str, Markup]:
        allow(visitor_of(request.scope), Access.CONTROL)
        about = await self._actions.look(lambda: self._client.manager.get_dict(LAYOUT).copy())
        left_alone = [entry.name for entry in self._client.layout.devices if not entry.says_how_safe]
        shown = json.dumps(_without_secrets(about["configuration"]), indent=2, ensure_ascii=False)
        warning = f"Making safe does nothing to {', '.join(left_alone)}: neither driver nor configuration says how."
        return "Configuration", Markup(
            tag(
                "section", tag("h1", "Configuration"),
                tag("p", "It was checked when the testbed was started, and does not change while it runs."),
                tag("p", warning, class_="refusal") if left_alone else None,
                tag("pre", shown, tabindex="0"), class_="card",
            )
        )  # fmt: skip

    # --- acting

    async def _set(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        device, path = request.path_params["device"], _field(form, "property")
        done = await self._actions.write(
            visitor_of(request.scope), device, path, partial(property_value, _field(form, "value", empty=True)), _WAIT,
            gone(request),
        )  # fmt: skip
        return f"/devices/{quote(device)}", _shown_value(done)

    async def _read(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        device = request.path_params["device"]
        done = await self._actions.read(
            visitor_of(request.scope), device, _field(form, "property"), _WAIT, gone(request)
        )
        return f"/devices/{quote(device)}", _shown_value(done)

    async def _call(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        device = request.path_params["device"]

        def arguments(facts: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
            given = {
                name: converted(form[f"argument-{name}"], one["type"])
                for name, one in facts["parameters"].items()
                if form.get(f"argument-{name}", "")
            }
            return [], given

        done = await self._actions.call(
            visitor_of(request.scope), device, _field(form, "command"), arguments, {}, _WAIT, gone(request)
        )
        result = done["result"]
        return f"/devices/{quote(device)}", "done" if result is None else str(result)[:500]

    async def _make_safe(self, request: Request, _: dict[str, str]) -> tuple[str, Any]:
        device = request.path_params["device"]
        done = await self._actions.make_safe(visitor_of(request.scope), device)
        return f"/devices/{quote(device)}", done["is"]

    async def _break(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        reason = _field(form, "reason")
        done = await self._actions.break_lock(visitor_of(request.scope), _field(form, "mutex"), reason)
        return "/locks", "released" if done["holder"] else "nobody held it"

    async def _reset(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        await self._actions.reset_safety(visitor_of(request.scope), _field(form, "reason"))
        return "/", "every check passes; changes are allowed again"

    async def _start(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        name = _field(form, "experiment")
        kind = self._actions.experiments.get(name)
        parameters = {} if kind is None else {
            parameter: converted(form[f"argument-{parameter}"], getattr(one.annotation, "__name__", None))
            for parameter, one in kind.parameters().items()
            if form.get(f"argument-{parameter}", "")
        }  # fmt: skip
        done = await self._actions.start_experiment(visitor_of(request.scope), name, parameters)
        return "/", f"started: {done['run']}"

    async def _stop_experiment(self, request: Request, form: dict[str, str]) -> tuple[str, Any]:
        await self._actions.stop_experiment(
            visitor_of(request.scope), _field(form, "experiment"), finish=form.get("finish") == "yes"
        )
        return "/", "told to stop"

    async def _stop(self, request: Request) -> Response:
        """STOP. Who has not signed in is asked for the token, and stops with it in one step."""
        visitor = visitor_of(request.scope)
        try:
            form = await _form(request)
            if visitor.access < Access.CONTROL:
                if form.get("token") is None:
                    return self._whole(request, "STOP", _ask_token("/stop", "STOP", visitor.why_not), 401)
                self._admit(visitor, form)
            done = await self._actions.stop(visitor)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
            return self._problem(request, error)
        unsafe = [name for name, state in done["devices"].items() if state not in (SAFE, CLOSED)]
        main = tag(
            "section",
            tag("h1", "Stopped" if not unsafe else "Stopped, but look at the devices"),
            tag("p", f"Told to stop: {', '.join(done['experiments']) or 'no experiment was running'}."),
            _pairs(sorted(done["devices"].items(), key=lambda one: one[1] in (SAFE, CLOSED))),
            tag("p", tag("a", "Back to the overview", href="/")),
            class_="card",
        )  # fmt: skip
        return self._whole(request, "Stopped", main)

    # --- signing in

    async def _sign_in(self, request: Request) -> tuple[str, Markup]:
        return "Sign in", _ask_token("/login", "Sign in", visitor_of(request.scope).why_not)

    async def _login(self, request: Request) -> Response:
        visitor = visitor_of(request.scope)
        try:
            access = self._admit(visitor, await _form(request))
        except Problem as problem:
            if problem.facts.get("wait"):
                await asyncio.sleep(problem.facts.pop("wait"))
            return self._problem(request, problem)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            cookie_name(self._port()), self._keys.new_cookie(access), httponly=True, samesite="strict",
            secure=request.url.scheme == "https", path="/",
        )  # fmt: skip
        return response

    def _admit(self, visitor: Visitor, form: Mapping[str, str]) -> Access:
        if not visitor.secure:
            raise Problem(
                403, visitor.why_not or "signing in over plain HTTP from another computer is refused: use TLS"
            )
        access = self._keys.of_token(form.get("token", "").strip())
        if access is Access.NONE:
            raise Problem(401, "this is not the token that the terminal shows", wait=self._keys.delay_of_wrong_token())
        return access

    async def _logout(self, request: Request) -> Response:
        name = cookie_name(self._port())
        self._keys.forget_cookie(request.cookies.get(name, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(name, path="/", httponly=True, samesite="strict")
        return response


# --- parts of pages


def _mode(client: TestbedClient) -> str:
    return "simulated" if client.layout.simulation is not None else "real instruments"


def verdict_of(status: Mapping[str, Any]) -> tuple[str, str]:
    """Say in one sentence how it stands: ``good``, ``plain``, ``warn``, ``bad`` or ``unknown``, and the sentence.

    It is good only if everything is known, and passes.
    """
    safety, checks = status["safety"], status["safety"]["checks"]
    failing = [name for name, check in checks.items() if check["problem"] is not None or check["silent"]]
    unknown = [name for name, one in status["devices"].items() if one["state"].startswith(NOT_KNOWN)]
    if safety["tripped"]:
        kind = "unknown" if safety["tripped"].startswith(NOT_KNOWN) else "bad"
        return kind, f"Safety: {safety['tripped']}"
    if status["silent"] or unknown:
        silent = [one["what"] for one in status["silent"]] or unknown
        return "unknown", f"Not known whether all is well: no answer from {', '.join(silent)}"
    if status["state"] == "ending":
        return "unknown", "The testbed is ending"
    if safety["not_safe"]:
        return "bad", f"Not known to be safe: {', '.join(safety['not_safe'])}"
    if failing:
        return "warn", f"Safety check not passing: {', '.join(failing)}"
    if not checks:
        return "plain", "Running; this testbed has no safety checks"
    passing = "the safety check passes" if len(checks) == 1 else f"all {len(checks)} safety checks pass"
    return "good", f"Running; {passing}"


def _verdict(status: Mapping[str, Any], may: bool) -> Markup:
    kind, text = verdict_of(status)
    safety = status["safety"]
    reset = None
    if may and safety["tripped"] and kind == "bad":
        reset = tag(
            "form", tag("label", "What was done ", tag("input", name="reason", required=True, maxlength=400)),
            tag("button", "Reset the safety"), tag("output", ""), method="post", action="/safety/reset",
            class_="line", data_inline=True,
        )  # fmt: skip
    not_safe = [tag("p", f"{name} is not known to be safe: {why}") for name, why in safety["not_safe"].items()]
    return tag("section", tag("h1", text, class_="verdict"), not_safe, reset, class_=f"card verdict-{kind}")


def _state(text: str) -> Markup:
    word = text.partition(":")[0]
    kind = {
        "open": "good", "lost": "warn", "finished": "good", "running": "good", "fault": "bad", "failed": "bad",
        "killed": "bad", "unreadable": "bad", NOT_KNOWN: "unknown", "unknown": "unknown",
    }.get(word, "plain")  # fmt: skip
    return tag("span", text, class_=f"state {kind}")


def _devices(status: Mapping[str, Any]) -> Markup:
    return tag(
        "ul",
        [
            tag(
                "li", tag("a", name, href=f"/devices/{quote(name)}", class_="title"), _state(device["state"]),
                _holder(device),
                tag("span", device["driver"], class_="dim"),
            )
            for name, device in status["devices"].items()
        ],
        class_="devices",
    )  # fmt: skip


def _holder(device: Mapping[str, Any]) -> Markup:
    if device["state"].startswith(NOT_KNOWN):
        return tag("span", "who has it is not known", class_="dim")
    holder = device["holder"]
    if holder is None:
        return tag("span", "free", class_="dim")
    site = f" at {holder['site']}" if holder.get("site") else ""
    waiting = ", ".join(f"{one['owner']} for {_took(one['since'])}" for one in device["waiters"])
    return tag(
        "span", f"held for {_took(holder['since'])} by {holder['owner']}{site}",
        tag("span", f"; waiting: {waiting}") if waiting else None, class_="held",
    )  # fmt: skip


def _safety(status: Mapping[str, Any]) -> Markup:
    checks = status["safety"]["checks"]
    if not checks:
        return Markup("")
    return tag(
        "section", tag("h2", "Safety"), tag("ul", [_check(name, one) for name, one in checks.items()], class_="checks"),
        class_="card",
    )  # fmt: skip


def _check(name: str, check: Mapping[str, Any]) -> Markup:
    test = check["test"]
    known = not check["silent"] and check["value"] is not None
    value = text_of(check["value"], test.get("unit")) if known else NOT_KNOWN
    passing = check["problem"] is None and known
    lowest, highest = test.get("minimum"), test.get("maximum")
    return tag(
        "li",
        tag("span", name, class_="title"),
        tag("span", value, class_=f"value state {'good' if passing else 'bad' if known else 'unknown'}"),
        _bar(check["value"] if known else None, lowest, highest),
        tag("span", f"expected {test['expected']}", class_="dim"),
        tag("span", check["problem"], class_="refusal") if check["problem"] else None,
    )


def _bar(value: Any, lowest: Any, highest: Any) -> Markup | None:
    """Draw a value between its limits, if there is a limit and the value is a number."""
    limits = [one for one in (lowest, highest) if isinstance(one, int | float)]
    if not limits or isinstance(value, bool):
        return None
    low, high = min(limits), max(limits)
    if low == high:
        low, high = (min(0.0, high), max(0.0, high)) if high else (-1.0, 1.0)
    margin = 0.2 * (high - low)
    begin = low - margin if isinstance(lowest, int | float) else low
    end = high + margin if isinstance(highest, int | float) else high

    def at(number: float) -> float:
        return max(0.0, min(100.0, 100.0 * (number - begin) / (end - begin)))

    left = at(lowest) if isinstance(lowest, int | float) else 0.0
    right = at(highest) if isinstance(highest, int | float) else 100.0
    marker = None
    if isinstance(value, int | float):
        marker = tag(
            "rect", x=f"{max(0.0, min(98.5, at(value) - 0.75)):.2f}", y=0, width=1.5, height=8, class_="marker"
        )
    return tag(
        "svg",
        tag("rect", x=0, y=2, width=100, height=4, class_="outside"),
        tag("rect", x=f"{left:.2f}", y=2, width=f"{right - left:.2f}", height=4, class_="inside"),
        marker, viewBox="0 0 100 8", preserveAspectRatio="none", class_="bar", aria_hidden="true",
    )  # fmt: skip


def _experiment(one: Mapping[str, Any], may: bool) -> Markup:
    ended = one["state"] in ENDED
    total = one["total"]
    steps = f"{one['done']} of {total}" if total else f"{one['done']}" if one["done"] else ""
    progress = None
    if not ended and total:
        progress = tag("progress", steps, max=total, value=one["done"], aria_label=f"Progress of {one['name']}")
    stop = tag(
        "form", tag("input", type="hidden", name="experiment", value=one["name"]),
        tag("button", "Stop", class_="quiet"), tag("output", ""),
        method="post", action="/experiments/stop", class_="line", data_inline=True,
    )  # fmt: skip
    run = None
    if one["run"]:
        name = re.split(r"[\\/]", one["run"])[-1]
        run = tag("a", "run", href=f"/runs/{quote(name, safe='')}")
    return tag(
        "li", tag("span", one["name"], class_="title"), _state(one["state"]), progress,
        tag("span", f"{one['description']} {steps}".strip(), class_="dim"), tag("span", one["message"]),
        tag("span", f"no news for {_took(one['silent'])}", class_="refusal") if one["silent"] else None, run,
        stop if may and not ended else None,
    )  # fmt: skip


def _parameters(kind: Any) -> list[Markup]:
    return [
        tag("label", f"{name} ", tag("input", name=f"argument-{name}", autocomplete="off", required=one.required,
                                     placeholder="" if one.required else text_of(one.default)))
        for name, one in kind.parameters().items()
    ]  # fmt: skip


def _telemetry(status: Mapping[str, Any]) -> Markup:
    if not status["telemetry"]:
        return Markup("")
    rows = [
        (name, one["problem"] or text_of(one["value"], one["unit"])) for name, one in status["telemetry"].items()
    ]  # fmt: skip
    return tag("section", tag("h2", "Telemetry"), _pairs(rows), class_="card")


def _messages(status: Mapping[str, Any]) -> Markup:
    newest = status["messages"][-_SHOWN_MESSAGES:]
    if not newest:
        return Markup("")
    rows = [
        tag(
            "li",
            tag("time", _clock(one["time"])),
            " ",
            tag("span", one["text"]),
            class_=f"level-{one['level'].lower()}",
        )
        for one in reversed(newest)
    ]
    return tag("section", tag("h2", "Messages"), tag("ul", rows, class_="messages"), class_="card")


def _lock(one: Mapping[str, Any], may: bool) -> Markup:
    device = {**one, "state": NOT_KNOWN if one["unknown"] else ""}
    form = tag(
        "form", tag("input", type="hidden", name="mutex", value=one["name"]),
        tag("label", "Why ", tag("input", name="reason", required=True, maxlength=400)),
        tag("button", "Take it away"), tag("output", ""),
        method="post", action="/locks/break", class_="line", data_inline=True,
    )  # fmt: skip
    return tag(
        "article", tag("h3", one["name"]), tag("p", _holder(device)),
        tag("p", one["unknown"], class_="refusal") if one["unknown"] else None,
        form if may and one["holder"] else None, class_="member",
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
        "article", tag("h3", f"{path}({given})"), tag("p", _about(facts)), form if may else None, class_="member"
    )  # fmt: skip


def _about(facts: Mapping[str, Any]) -> str:
    """Return the first paragraph of the doc of a member, as one line."""
    return (facts["doc"] or "").partition("\n\n")[0].replace("\n", " ").replace("``", "")


def _limits(facts: Mapping[str, Any]) -> str:
    unit = f" {facts['unit']}" if facts["unit"] else ""
    if facts.get("limits"):
        low, high = facts["limits"]
        return f"from {low} to {high}{unit}"
    if facts["choices"]:
        return "one of " + ", ".join(str(plain(one)) for one in facts["choices"])
    return f"in{unit}" if unit else ""


def _curve(points: Sequence[Any]) -> Markup:
    """Draw the values of a quantity over time; a gap where nothing was measured."""
    numbers = [one for one in points if isinstance(one.value, int | float) and not isinstance(one.value, bool)]
    if len(numbers) < 2:
        return _none("no curve yet")
    step = -(-len(numbers) // 600)
    low, high = min(one.value for one in numbers), max(one.value for one in numbers)
    span = (high - low) or 1.0
    end = time.time()
    path, last = "", 0.0
    for one in numbers[::step]:
        x, y = 600 * (1 - (end - one.time) / _CURVE), 95 - 90 * (one.value - low) / span
        path += f"{'L' if path and one.time - last < 30 * step else 'M'}{x:.1f},{y:.1f}"
        last = one.time
    return Markup(
        tag("svg", tag("path", d=path), viewBox="0 0 600 100", preserveAspectRatio="none", class_="curve",
            role="img", aria_label=f"from {low:g} to {high:g} in the last 10 minutes")
        + tag("span", f"{low:.6g} to {high:.6g}", class_="dim")
    )  # fmt: skip


def _pairs(rows: Sequence[tuple[str, Any]]) -> Markup:
    return tag("dl", [(tag("dt", name), tag("dd", value)) for name, value in rows])


def _none(text: str) -> Markup:
    return tag("p", text, class_="dim")


def _ask_token(action: str, word: str, why_not: str) -> Markup:
    return tag(
        "section", tag("h1", word),
        tag("p", why_not, class_="refusal") if why_not else None,
        tag("p", "The token is shown on the terminal in which the service was started."),
        tag(
            "form", tag("label", "Token ", tag("input", type="password", name="token", required=True, autofocus=True,
                                               autocomplete="current-password")),
            tag("button", word), method="post", action=action, class_="line",
        ),
        class_="card",
    )  # fmt: skip


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(dt.timedelta(seconds=round(seconds)))


def _clock(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment).astimezone().strftime("%H:%M:%S")


def _shown_value(done: Mapping[str, Any]) -> str:
    return str(done["reason"] if "reason" in done else text_of(done["value"], done["unit"]))[:500]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "(not shown)" if _HIDDEN.search(str(key)) and not isinstance(one, dict) else _without_secrets(one)
            for key, one in value.items()
        }
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


def _field(form: Mapping[str, str], name: str, *, empty: bool = False) -> str:
    value = form.get(name, "").strip()
    if not value and not empty:
        raise Problem(422, f"the field {name!r} is empty")
    return value


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await request.body()
    if raw and kind != "application/x-www-form-urlencoded":
        raise Problem(415, f"expected a form, got {kind or 'no type'}")
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise Problem(400, f"the form cannot be read: {error}") from None


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    kind = _STATIC.get(name)
    if kind is None:
        return problem_response(Problem(404, f"there is no file {name!r}"))
    return Response((files("catkit_devices.web") / "static" / name).read_bytes(), media_type=kind)
