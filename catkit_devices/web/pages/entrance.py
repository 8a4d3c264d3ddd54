"""Signing in and out; and STOP, which asks for the token who has not signed in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from catkit_devices.web.access import Access
from catkit_devices.web.emergency import CLOSED, SAFE
from catkit_devices.web.guard import cookie_name, visitor_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.forms import read_form
from catkit_devices.web.pages.parts import Served, pairs
from catkit_devices.web.pages.sheet import refused, whole
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from catkit_devices.web.access import Keys, Visitor

__all__ = ["Entrance", "sign_in"]


async def sign_in(_: Served, request: Request) -> tuple[str, Markup]:
    """Return the page that asks for the token."""
    return "Sign in", _ask_token("/login", "Sign in", visitor_of(request.scope).why_not)


class Entrance:
    """Lets visitors in, out, and to STOP.

    Args:
        served: what every page needs.
        keys: the tokens.
        port: returns the port of the service.
    """

    def __init__(self, served: Served, keys: Keys, port: Callable[[], int]) -> None:
        self._served = served
        self._keys = keys
        self._port = port

    async def stop(self, request: Request) -> Response:
        """STOP. Who has not signed in is asked for the token, and stops with it in one step."""
        visitor = visitor_of(request.scope)
        try:
            form = await read_form(request)
            if visitor.access < Access.CONTROL:
                if form.get("token") is None:
                    return whole(self._served, request, "STOP", _ask_token("/stop", "STOP", visitor.why_not), 401)
                self._admit(visitor, form)
            done = await self._served.actions.emergency.stop(visitor)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is shown
            return refused(self._served, request, error)
        unsafe = [name for name, state in done["devices"].items() if state not in (SAFE, CLOSED)]
        main = tag(
            "section",
            tag("h1", "Stopped" if not unsafe else "Stopped, but look at the devices"),
            tag("p", f"Told to stop: {', '.join(done['experiments']) or 'no experiment was running'}."),
            pairs(sorted(done["devices"].items(), key=lambda one: one[1] in (SAFE, CLOSED))),
            tag("p", tag("a", "Back to the overview", href="/")),
            class_="card",
        )  # fmt: skip
        return whole(self._served, request, "Stopped", main)

    async def login(self, request: Request) -> Response:
        """Sign in with the token."""
        visitor = visitor_of(request.scope)
        try:
            access = self._admit(visitor, await read_form(request))
        except Problem as problem:
            if problem.facts.get("wait"):
                await asyncio.sleep(problem.facts.pop("wait"))
            return refused(self._served, request, problem)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            cookie_name(self._port()), self._keys.new_cookie(access), httponly=True, samesite="strict",
            secure=request.url.scheme == "https", path="/",
        )  # fmt: skip
        return response

    async def logout(self, request: Request) -> Response:
        """Sign out."""
        name = cookie_name(self._port())
        self._keys.forget_cookie(request.cookies.get(name, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(name, path="/", httponly=True, samesite="strict")
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
