"""The addresses of the pages, and what answers at each."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from catkit_devices.web.pages import forms
from catkit_devices.web.pages.configuration import configuration
from catkit_devices.web.pages.device import device, device_state
from catkit_devices.web.pages.entrance import Entrance, sign_in
from catkit_devices.web.pages.frames import frame, frame_picture
from catkit_devices.web.pages.locks import locks
from catkit_devices.web.pages.overview import overview
from catkit_devices.web.pages.parts import Served
from catkit_devices.web.pages.runs import log, run, run_picture, run_series, runs
from catkit_devices.web.pages.sheet import done, given, shown
from catkit_devices.web.problems import Problem, problem_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.web.access import Keys
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = ["Pages"]

# What is served as it is, and its type.
_STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "plots.js": "text/javascript",
    "uplot.js": "text/javascript",
    "uplot.css": "text/css",
    "uplot-license.txt": "text/plain",
    "icon.svg": "image/svg+xml",
}


class Pages:
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
        served = Served(client, actions, lookout)
        entrance = Entrance(served, keys, port)
        looking = {
            "/": overview,
            "/devices/{device}": device,
            "/devices/{device}/state": device_state,
            "/devices/{device}/frame": frame,
            "/runs": runs,
            "/runs/{run}": run,
            "/runs/{run}/log": log,
            "/locks": locks,
            "/configuration": configuration,
            "/login": sign_in,
        }
        other = {
            "/devices/{device}/frame.png": frame_picture,
            "/runs/{run}/series/{kind}/{tag:path}": run_series,
            "/runs/{run}/picture/{kind}/{tag:path}": run_picture,
        }
        acting = {
            "/devices/{device}/set": forms.set_property,
            "/devices/{device}/read": forms.read_property,
            "/devices/{device}/call": forms.call_command,
            "/devices/{device}/make-safe": forms.make_safe,
            "/runs/{run}/note": forms.add_note,
            "/runs/{run}/star": forms.set_star,
            "/locks/break": forms.break_lock,
            "/safety/reset": forms.reset_safety,
            "/experiments/start": forms.start_experiment,
            "/experiments/stop": forms.stop_experiment,
        }
        self.routes = [
            *(Route(path, shown(served, make), methods=["GET"]) for path, make in looking.items()),
            *(Route(path, given(served, make), methods=["GET"]) for path, make in other.items()),
            *(Route(path, done(served, act), methods=["POST"]) for path, act in acting.items()),
            Route("/stop", entrance.stop, methods=["POST"]),
            Route("/login", entrance.login, methods=["POST"]),
            Route("/logout", entrance.logout, methods=["POST"]),
            Route("/static/{name}", _static, methods=["GET"]),
        ]


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    kind = _STATIC.get(name)
    if kind is None:
        return problem_response(Problem(404, f"there is no file {name!r}"))
    return Response((files("catkit_devices.web") / "static" / name).read_bytes(), media_type=kind)
