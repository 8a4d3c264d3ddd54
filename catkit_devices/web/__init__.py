"""The web service of a testbed: a page to watch and to act, a REST interface, and metrics for Prometheus.

It needs the extra ``web``: ``pip install 'catkit-devices[web]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.web.server import WebServer as WebServer

__all__ = ["WebServer"]

__getattr__ = importing(__name__, {"server": ("WebServer",)})
