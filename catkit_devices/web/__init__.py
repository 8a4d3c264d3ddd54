"""The web service of a testbed: a page, a REST interface, metrics for Prometheus, and tools for agents (MCP).

It needs the extra ``web``: ``pip install 'catkit-devices[web]'``; agents need the extra ``mcp`` as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.web.agent_server import serve_agent as serve_agent
    from catkit_devices.web.server import WebServer as WebServer

__all__ = ["WebServer", "serve_agent"]

__getattr__ = importing(__name__, {"agent_server": ("serve_agent",), "server": ("WebServer",)})
