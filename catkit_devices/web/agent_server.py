"""The Model Context Protocol, by its official SDK: agents come in over HTTP, or over standard input and output.

It needs the extra ``mcp``: ``pip install 'catkit-devices[mcp]'``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError
from catkit_devices.plain import plain
from catkit_devices.web.access import Access, Grant, Visitor
from catkit_devices.web.actions import Actions
from catkit_devices.web.agent import INSTRUCTIONS, Agent, Image
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.lookout import Lookout
from catkit_devices.web.operations import allow
from catkit_devices.web.problems import Problem, problem_of, problem_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server.lowlevel import Server
    from starlette.types import Message, Receive, Scope, Send

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment

__all__ = ["AgentDoor", "serve_agent"]

_MOST_AGENTS = 64
"""Agents that are remembered, beside those that hold something: as many as may have a grant."""


class AgentDoor:
    """Lets agents in over HTTP (*streamable HTTP*, without sessions: an agent is its token). For one event loop.

    The SDK is imported when the first one comes: the service needs it for nothing else, and begins sooner without.

    Args:
        actions: carries out what agents ask for.
        lookout: knows what is going on.
    """

    def __init__(self, actions: Actions, lookout: Lookout) -> None:
        self._actions = actions
        self._lookout = lookout
        self._agents: dict[Grant, Agent] = {}
        self._handle: Callable[[Scope, Receive, Send], Any] | None = None
        self._running: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        try:
            allow(visitor_of(scope), Access.VIEW)
            handle = await self._started()
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
            return
        left = asyncio.Event()
        scope["left"] = left
        body = await receive()  # the guard has read all of it

        async def watch() -> None:
            while True:
                if (await receive())["type"] == "http.disconnect":
                    break
            left.set()

        watching = asyncio.create_task(watch())
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return body
            await left.wait()
            return {"type": "http.disconnect"}

        try:
            await handle(scope, replay, send)
        finally:
            watching.cancel()

    async def close(self) -> None:
        """End."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _started(self) -> Callable[[Scope, Receive, Send], Any]:
        async with self._starting:
            if self._handle is None:
                loop = asyncio.get_running_loop()
                try:
                    await loop.run_in_executor(None, _require_sdk)
                except ConfigurationError as error:
                    raise Problem(501, str(error)) from error
                from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

                server = make_server(lambda context: self._agent_of(visitor_of(context.request.scope)), self._actions)
                manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
                ready = asyncio.Event()

                async def run() -> None:
                    async with manager.run():
                        ready.set()
                        await asyncio.Event().wait()

                self._running = asyncio.create_task(run())
                await ready.wait()
                self._handle = manager.handle_request
            return self._handle

    def _agent_of(self, visitor: Visitor) -> Agent:
        if visitor.grant is None or visitor.access < Access.CONTROL:
            return Agent(visitor, self._actions, self._lookout)
        known = self._agents.get(visitor.grant)  # a new grant is a new agent
        if known is None:
            if len(self._agents) >= _MOST_AGENTS:
                del self._agents[next(iter(self._agents))]
            known = self._agents[visitor.grant] = Agent(visitor, self._actions, self._lookout)
        return known


async def serve_agent(client: TestbedClient, experiments: Mapping[str, type[Experiment]], granted: str | None) -> None:
    """Serve one agent over standard input and output, until it closes them; then what it holds is made safe.

    Args:
        client: of the testbed.
        experiments: those that the agent may start, by name.
        granted: the name under which a person has granted it control; None if nobody has.

    Raises:
        ConfigurationError: the SDK is not installed.
    """
    _require_sdk()
    from mcp.server.stdio import stdio_server

    actions, lookout = Actions(client, experiments), Lookout(client)
    visitor = Visitor("127.0.0.1", Access.VIEW)
    if granted is not None:
        visitor = Visitor("127.0.0.1", Access.CONTROL, grant=Grant(granted, math.inf))
    agent = Agent(visitor, actions, lookout)
    server = make_server(lambda _: agent, actions)
    watching = asyncio.create_task(actions.locks.watch())
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        watching.cancel()
        lookout.close()
        actions.close()


def make_server(agent_of: Callable[[Any], Agent], actions: Actions) -> Server[Any]:
    """Return the server of the SDK.

    Args:
        agent_of: returns the agent of a request.
        actions: for the name of the testbed.
    """
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def list_tools(context: Any, _: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name, description=tool.text, input_schema=tool.schema,
                    annotations=types.ToolAnnotations(read_only_hint=not tool.changes),
                )
                for tool in agent_of(context).usable
            ]
        )  # fmt: skip

    async def call_tool(context: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        left = asyncio.Event() if context.request is None else context.request.scope["left"]
        try:
            made = await agent_of(context).use(asked.name, dict(asked.arguments or {}), left)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the agent is told
            problem = problem_of(error)
            text = "\n".join([f"{problem['title']}: {problem['detail']}", *problem.get("notes", ())])
            return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
        facts = made.facts if isinstance(made, Image) else plain(made)
        content: list[Any] = [types.TextContent(text=json.dumps(facts, allow_nan=False))]
        if isinstance(made, Image):
            picture = base64.b64encode(made.png).decode()
            content.append(types.ImageContent(data=picture, mime_type="image/png"))
        return types.CallToolResult(content=content)

    return Server(
        "catkit-devices", version=version("catkit-devices"), title=f"testbed {actions.client.name!r}",
        instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool,
    )  # fmt: skip


def _require_sdk() -> None:
    try:
        for name in ("mcp.server.lowlevel", "mcp.server.stdio", "mcp.server.streamable_http_manager"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigurationError(
            "agents come in by the package 'mcp', which is not installed: pip install 'catkit-devices[mcp]'"
        ) from error
