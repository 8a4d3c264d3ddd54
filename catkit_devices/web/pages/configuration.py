"""The page of the configuration."""

from __future__ import annotations

import copy
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.processes.finding import LAYOUT
from catkit_devices.web.access import Access
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import allow
from catkit_devices.web.pages.parts import Served

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["configuration", "findings"]

_HIDDEN = re.compile(r"pass|secret|token|community|credential|private|key$", re.IGNORECASE)
"""Options of devices whose values are not shown."""


async def configuration(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the configuration that the testbed runs with."""
    allow(visitor_of(request.scope), Access.CONTROL)
    about = await served.actions.look(lambda: served.client.manager.get_dict(LAYOUT).copy())
    result = await served.actions.look(partial(findings, about["configuration"]))
    shown = json.dumps(_without_secrets(about["configuration"]), indent=2, ensure_ascii=False)
    return "Configuration", Markup(
        tag(
            "section", tag("h1", "Configuration"),
            tag("p", "It does not change while the testbed runs. It is checked again here: plugins may have changed."),
            tag("h2", "What check-config says of it"), tag("ul", [tag("li", one) for one in result]), class_="card",
        )
        + tag("section", tag("h2", "The whole of it"),
              tag("pre", shown, tabindex="0", role="region", aria_label="Configuration"), class_="card broad")
    )  # fmt: skip


def findings(running: dict[str, Any]) -> list[Markup]:
    """Return what `check-config` says of a configuration: what is wrong, or else what is doubtful in it."""
    from catkit_devices.testbed.configuration.device_checks import not_made_safe, not_simulated
    from catkit_devices.testbed.configuration.loader import examine
    from catkit_devices.testbed.configuration.overlay import Overlay

    found, problems = examine(Overlay(copy.deepcopy(running)))
    if found is None or problems:
        return [tag("span", str(problem), class_="refusal") for problem in problems]
    plugins = found.plugins()
    left_alone, real_only = not_made_safe(found, plugins), not_simulated(found, plugins)
    counts = f"valid; devices: {len(found.devices)}, safety checks: {len(found.safety)}"
    doubtful = [f"making safe does nothing to {name}: {why}" for name, why in left_alone.items()]
    doubtful += [str(problem) for problem in plugins.problems]
    doubtful += [f"device {name!r} cannot be simulated: {why}" for name, why in real_only.items()]
    return [tag("span", counts), *(tag("span", text, class_="held") for text in doubtful)]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "(not shown)" if _HIDDEN.search(str(key)) and not isinstance(one, dict) else _without_secrets(one)
            for key, one in value.items()
        }
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value
