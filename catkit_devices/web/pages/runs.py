"""The pages of the recorded runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from catkit_devices.plain import text_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import PREFIX
from catkit_devices.web.pages.parts import Served, clock, nothing, pairs, state
from catkit_devices.web.rest import description_of_run, run_path, runs_of

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["run", "runs"]

_RUNS = 200
"""How many runs are listed."""


async def runs(served: Served, _: Request) -> tuple[str, Markup]:
    """Return the list of runs."""
    found = await served.actions.look(partial(runs_of, served.client, _RUNS))
    rows = [
        tag(
            "tr", tag("td", tag("a", one["run"], href=f"/runs/{quote(one['run'], safe='')}")),
            tag("td", one["name"]),
            tag("td", (one["started"] or "")[:19].replace("T", " ")), tag("td", state(one["outcome"])),
            tag("td", one["detail"]),
        )
        for one in found
    ]  # fmt: skip
    head = tag("tr", [tag("th", text, scope="col") for text in ("run", "what", "started (UTC)", "outcome", "why")])
    table = tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="wide", tabindex="0",
                role="region", aria_label="Runs")  # fmt: skip
    return "Runs", tag("section", tag("h1", "Runs"), table if rows else nothing("none yet"), class_="card")


async def run(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the page of a run."""
    path = run_path(served.client, request.path_params["run"])
    about = await served.actions.look(partial(description_of_run, path))
    base = f"{PREFIX}/runs/{quote(about['run'], safe='')}"
    parameters = [(name, text_of(value)) for name, value in about.get("parameters", {}).items()]
    tags = [
        tag("tr", tag("td", one["kind"]), tag("td", one["tag"]), tag("td", one["unit"]), tag("td", one["count"]))
        for one in about.get("tags", ())
    ]  # fmt: skip
    return about["run"], Markup(
        tag("section", tag("h1", about["run"]), tag("p", about["name"], " ", state(about["outcome"])),
            tag("p", about["detail"]), pairs(parameters), class_="card")
        + tag("section", tag("h2", "Records"), tag("table", tags) if tags else nothing("none"), class_="card")
        + tag("section", tag("h2", "Events"),
              tag("ul", [tag("li", f"{clock(one['time'])} {one['kind']}: {one['text']}")
                         for one in about.get("events", ())]), class_="card")
        + tag("section", tag("h2", "Files"),
              tag("ul", [tag("li", tag("a", one, href=f"{base}/files/{quote(one)}")) for one in about["files"]]),
              class_="card")
    )  # fmt: skip
