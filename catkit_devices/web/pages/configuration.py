"""The page of the configuration."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError
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
    result = await served.actions.look(partial(_checked, about["configuration"]))
    shown = json.dumps(_without_secrets(about["configuration"]), indent=2, ensure_ascii=False)
    return "Configuration", Markup(
        tag(
            "section", tag("h1", "Configuration"),
            tag("p", "It was checked when the testbed was started, and does not change while it runs."),
            tag("h2", "What check-config says of it"), tag("ul", [tag("li", one) for one in result]), class_="card",
        )
        + tag("section", tag("h2", "The whole of it"),
              tag("pre", shown, tabindex="0", role="region", aria_label="Configuration"), class_="card broad")
    )  # fmt: skip


def _checked(running: dict[str, Any]) -> list[Markup]:
    """Return what `check-config` says of the configuration: what is doubtful in it, though it is valid."""
    from pydantic import ValidationError

    from catkit_devices.testbed.configuration.device_checks import not_made_safe, not_simulated
    from catkit_devices.testbed.configuration.model import Configuration

    try:
        found = Configuration.model_validate(running)
        plugins = found.plugins()
        left_alone, real_only = not_made_safe(found, plugins), not_simulated(found, plugins)
    except (CatkitDevicesError, ValidationError, OSError) as error:
        return [tag("span", f"it cannot be checked here: {error}", class_="refusal")]
    counts = f"valid: {len(found.devices)} devices, {len(found.safety)} safety checks"
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
