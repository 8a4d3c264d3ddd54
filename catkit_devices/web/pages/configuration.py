"""The page of the configuration."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.processes.finding import LAYOUT
from catkit_devices.web.access import Access
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import allow
from catkit_devices.web.pages.parts import Served

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["configuration"]

_HIDDEN = re.compile(r"pass|secret|token|community|credential|private|key$", re.IGNORECASE)
"""Options of devices whose values are not shown."""


async def configuration(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the configuration that the testbed runs with."""
    allow(visitor_of(request.scope), Access.CONTROL)
    about = await served.actions.look(lambda: served.client.manager.get_dict(LAYOUT).copy())
    left_alone = [entry.name for entry in served.client.layout.devices if not entry.says_how_safe]
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


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "(not shown)" if _HIDDEN.search(str(key)) and not isinstance(one, dict) else _without_secrets(one)
            for key, one in value.items()
        }
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value
