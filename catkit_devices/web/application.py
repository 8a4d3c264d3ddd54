"""The web service as an ASGI application: REST interface, metrics and page behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from catkit_devices.web.access import Access
from catkit_devices.web.agent_server import AgentDoor
from catkit_devices.web.guard import AGENTS, Guard, visitor_of
from catkit_devices.web.metrics import CONTENT_TYPE, metrics_of
from catkit_devices.web.operations import PREFIX, allow, endpoint
from catkit_devices.web.pages import Pages
from catkit_devices.web.problems import Problem, problem_response
from catkit_devices.web.rest import Rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from starlette.requests import Request

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.web.access import Keys
    from catkit_devices.web.actions import Actions
    from catkit_devices.web.lookout import Lookout

__all__ = ["make_application"]

_log = logging.getLogger(__name__)


def make_application(
    client: TestbedClient,
    actions: Actions,
    lookout: Lookout,
    keys: Keys,
    names: Collection[str],
    port: Callable[[], int],
    *,
    plain_control: bool = False,
) -> Guard:
    """Return the web service of a testbed.

    Args:
        client: of the testbed.
        actions: carries out what visitors ask for.
        lookout: knows what is going on.
        keys: the tokens.
        names: by which names browsers may call it.
        port: returns its port.
        plain_control: whether control over plain HTTP from another computer is allowed.
    """
    rest = Rest(client, actions, lookout, keys)
    agents = AgentDoor(actions, lookout)
    pages = Pages(client, actions, lookout, keys, port)

    async def metrics(request: Request) -> Response:
        try:
            allow(visitor_of(request.scope), Access.VIEW)
            return Response(metrics_of(await lookout.status(1.0)), media_type=CONTENT_TYPE)
        except Problem as problem:
            return problem_response(problem)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(actions.locks.watch()), asyncio.create_task(lookout.look_on())]
        try:
            yield
        finally:
            await agents.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    routes = [
        Route(PREFIX + operation.path, endpoint(operation), methods=[operation.method])
        for operation in rest.operations
    ]  # fmt: skip
    application = Starlette(
        routes=[
            *routes,
            Route("/metrics", metrics, methods=["GET"]),
            Route(AGENTS, agents, methods=["POST"]),
            *pages.routes,
        ],
        exception_handlers={HTTPException: _not_found, Exception: _failed},
        lifespan=lifespan,
    )
    return Guard(application, keys, names, port, plain_control=plain_control)


async def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not possible here"}
    headers = getattr(error, "headers", None)
    return problem_response(Problem(status, text.get(status, str(error))), headers)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("the web service failed at %s", request.url.path, exc_info=error)
    return problem_response(error)
