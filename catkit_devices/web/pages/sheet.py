"""What is around every page, and how pages, forms and refusals become answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse, Response

from catkit_devices.web.access import Access
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import PREFIX, allow, answer_json
from catkit_devices.web.pages.forms import read_form
from catkit_devices.web.pages.parts import Served, clock, may_act
from catkit_devices.web.problems import problem_of, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

__all__ = ["done", "given", "refused", "shown", "whole"]


def shown(served: Served, make: Callable[[Served, Request], Awaitable[tuple[str, Markup]]]) -> Callable[[Request], Any]:
    """Return what answers with a page; our script asks for its main part only."""

    async def show(request: Request) -> Response:
        try:
            title, main = await make(served, request)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
            return refused(served, request, error)
        if request.headers.get("x-part") == "main":
            return Response(main, media_type="text/html")
        return whole(served, request, title, main)

    return show


def given(served: Served, make: Callable[[Served, Request], Awaitable[Response]]) -> Callable[[Request], Any]:
    """Return what answers with something else than a page: a picture, a file."""

    async def give(request: Request) -> Response:
        try:
            return await make(served, request)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
            return refused(served, request, error)

    return give


def done(
    served: Served, act: Callable[[Served, Request, dict[str, str]], Awaitable[tuple[str, Any]]]
) -> Callable[[Request], Any]:
    """Return what answers a form: the page again; or JSON, which our script shows beside the field."""

    async def do(request: Request) -> Response:
        inline = "application/json" in request.headers.get("accept", "")
        try:
            allow(visitor_of(request.scope), Access.CONTROL)
            where, result = await act(served, request, await read_form(request))
        except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
            return problem_response(error) if inline else refused(served, request, error)
        return answer_json({"done": result}) if inline else RedirectResponse(where, 303)

    return do


def refused(served: Served, request: Request, error: BaseException) -> Response:
    """Return the page that says why something was not done."""
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
    return whole(served, request, "Refused", main, problem["status"])


def whole(served: Served, request: Request, title: str, main: Markup, status: int = 200) -> Response:
    """Return a page with what is around it: menu, STOP, and what the visitor may do."""
    may = may_act(request)
    here = request.url.path
    mode = "simulated" if served.client.layout.simulation is not None else "real instruments"
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
            tag("title", f"{title} · {served.client.name}"),
            tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            tag("link", rel="stylesheet", href="/static/page.css"),
            [tag("link", rel="stylesheet", href="/static/uplot.css"),
             tag("script", "", src="/static/uplot.js", defer=True),
             tag("script", "", src="/static/plots.js", defer=True)] if "data-plot" in main else None,
            tag("script", "", src="/static/page.js", defer=True),
            tag("noscript", tag("meta", http_equiv="refresh", content="5")) if live else None,
        ),
        tag(
            "body",
            tag("a", "To the content", href="#main", class_="skip"),
            tag(
                "header",
                tag("div", tag("strong", served.client.name), tag("span", mode, class_="mode"),
                    class_="name"),
                menu, stop,
            ),
            tag("p", "", id="news", role="status", hidden=True),
            tag("main", main, id="main", data_live=here if live else None),
            tag(
                "footer",
                tag("span", f"as of {clock(time.time())}", id="asof"), " · ",
                "you may look and act" if may else "you may look; to act, sign in", " · ",
                tag("a", "REST", href=f"{PREFIX}/openapi.json"), " · ", tag("a", "metrics", href="/metrics"),
            ),
        ),
        lang="en",
    )  # fmt: skip
    return Response(f"<!doctype html>\n{page}", status, media_type="text/html")
