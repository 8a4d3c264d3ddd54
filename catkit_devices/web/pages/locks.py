"""The page of the locks: who has what, and taking it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.status import NOT_KNOWN
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.parts import Served, holder, may_act, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["locks"]


async def locks(served: Served, request: Request) -> tuple[str, Markup]:
    """Return every mutex, who has it and who waits."""
    found = await served.actions.look(served.client.locks)
    may = may_act(request)
    return "Locks", tag(
        "section", tag("h1", "Locks"), [_lock(one, may) for one in found] or nothing("none"), class_="card"
    )


def _lock(one: Mapping[str, Any], may: bool) -> Markup:
    device = {**one, "state": NOT_KNOWN if one["unknown"] else ""}
    form = tag(
        "form", tag("input", type="hidden", name="mutex", value=one["name"]),
        tag("label", "Why ", tag("input", name="reason", required=True, maxlength=400)),
        tag("button", "Take it away"), tag("output", ""),
        method="post", action="/locks/break", class_="line", data_inline=True,
    )  # fmt: skip
    return tag(
        "article", tag("h2", one["name"]), tag("p", holder(device)),
        tag("p", one["unknown"], class_="refusal") if one["unknown"] else None,
        form if may and one["holder"] else None, class_="member",
    )  # fmt: skip
