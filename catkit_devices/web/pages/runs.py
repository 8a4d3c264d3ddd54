"""The pages of the recorded runs: a list, and one run with its plots, notes, log and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.plain import text_of
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.operations import PREFIX, answer_json
from catkit_devices.web.pages.drawing import lines
from catkit_devices.web.pages.parts import Served, clock, may_act, nothing, pairs, state
from catkit_devices.web.pages.series import picture_of, series_of
from catkit_devices.web.problems import Problem
from catkit_devices.web.rest import description_of_run, run_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from catkit_devices.datalog.summaries import RunSummary

__all__ = ["log", "run", "run_picture", "run_series", "runs"]

_RUNS = 200
"""How many runs are listed."""
_LINES = 200
"""Lines of a log that are shown, the newest."""
_PLOTS = 24
"""Tags of a run that are drawn on its page; the others can be exported."""
_FORMATS = {"HDF5": "h5", "FITS": "fits", "CSV (scalars)": "csv"}
"""The files that a run can be downloaded as, and their endings."""


async def runs(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the list of runs, of those that were asked for."""
    asked = request.query_params
    found = await served.actions.look(partial(_selected, served, asked))
    rows = [
        tag(
            "tr", tag("td", tag("a", one.path.name, href=f"/runs/{quote(one.path.name, safe='')}")),
            tag("td", one.name, " ", tag("span", "★", title="has a star") if one.notes.starred else None),
            tag("td", one.started.strftime("%Y-%m-%d %H:%M:%S") if one.started else ""), tag("td", state(one.outcome)),
            tag("td", one.detail, [tag("div", f"Note: {note.text}", class_="dim") for note in one.notes.notes[-1:]]),
        )
        for one in found
    ]  # fmt: skip
    head = tag("tr", [tag("th", text, scope="col") for text in ("run", "what", "started (UTC)", "outcome", "why")])
    table = tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="wide", tabindex="0",
                role="region", aria_label="Runs")  # fmt: skip
    return "Runs", tag(
        "section", tag("h1", "Runs"), _filter(asked), table if rows else nothing("no such run"), class_="card"
    )


def _filter(asked: Mapping[str, str]) -> Markup:
    from catkit_devices.datalog.finding import OUTCOMES

    outcome = asked.get("outcome", "")
    choices = [tag("option", "any", value="", selected=not outcome)]
    choices += [tag("option", one, selected=one == outcome) for one in OUTCOMES]
    return tag(
        "form",
        tag("label", "What ", tag("input", name="name", value=asked.get("name", ""), autocomplete="off")),
        tag("label", "Outcome ", tag("select", choices, name="outcome")),
        tag("label", tag("input", type="checkbox", name="starred", value="yes", checked=bool(asked.get("starred"))),
            " with a star"),
        tag("button", "Show"), method="get", action="/runs", class_="line", role="search",
    )  # fmt: skip


def _selected(served: Served, asked: Mapping[str, str]) -> list[RunSummary]:
    from catkit_devices.datalog import select_runs
    from catkit_devices.datalog.finding import OUTCOMES

    name, outcome = asked.get("name", "").strip(), asked.get("outcome", "")
    if outcome and outcome not in OUTCOMES:
        raise Problem(400, f"expected one of the outcomes {', '.join(OUTCOMES)}, got {outcome!r}")
    found = select_runs(
        served.client.layout.runs, name=f"*{name}*" if name else None, outcomes=[outcome] if outcome else (),
        starred=bool(asked.get("starred")), last=_RUNS,
    )  # fmt: skip
    return found[::-1]


async def run(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the page of a run."""
    path = run_path(served.client, request.path_params["run"])
    about, drawn = await served.actions.look(partial(_told, path))
    here, name = f"/runs/{quote(path.name, safe='')}", about["run"]
    going_on = about["outcome"] == "running"
    parameters = [(one, text_of(value)) for one, value in about.get("parameters", {}).items()]
    records = [
        tag("tr", tag("td", one["kind"]), tag("td", one["tag"]), tag("td", one["unit"]), tag("td", one["count"]))
        for one in about.get("tags", ())
    ]  # fmt: skip
    head = tag("tr", [tag("th", text, scope="col") for text in ("kind", "tag", "unit", "records")])
    events = [tag("li", f"{clock(one['time'])} {one['kind']}: {one['text']}") for one in about.get("events", ())]
    downloads = [
        tag("a", text, href=f"{PREFIX}{here}/export/{ending}", download=True, class_="button")
        for text, ending in _FORMATS.items()
    ]  # fmt: skip
    files = f"{PREFIX}{here}/files/"
    return name, Markup(
        tag("section", tag("h1", name), tag("p", about["name"], " ", state(about["outcome"])),
            tag("p", about["detail"]), pairs(parameters),
            tag("p", "Download as ", [(one, " ") for one in downloads], class_="line") if records else None,
            class_="card")
        + _notes(about["notes"], here, may_act(request))
        + (tag("section", tag("h2", "Plots"), tag("div", drawn, class_="plots"), class_="card broad") if drawn else "")
        + tag("section", tag("h2", "Records"),
              tag("table", tag("thead", head), tag("tbody", records)) if records else nothing("none"), class_="card")
        + tag("section", tag("h2", "Events"), tag("ul", events) if events else nothing("none"), class_="card")
        + tag("section", tag("h2", "Log"),
              tag("div", await served.actions.look(partial(_log_of, path)),
                  data_live=f"{here}/log" if going_on else None), class_="card broad")
        + tag("section", tag("h2", "Files"),
              tag("ul", [tag("li", tag("a", one, href=files + quote(one))) for one in about["files"]]), class_="card")
    )  # fmt: skip


def _told(path: Path) -> tuple[dict[str, Any], list[Markup]]:
    from catkit_devices.datalog import read_notes

    about = description_of_run(path)
    about["notes"] = read_notes(path)
    return about, [_figure(path, one["kind"], one["tag"]) for one in _drawable(about)[:_PLOTS]]


def _drawable(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for one in about.get("tags", ()) if one["kind"] in ("scalar", "curve", "array", "figure")]


def _figure(path: Path, kind: str, name: str) -> Markup:
    """Draw one tag of a run; if that is not possible, say why."""
    place = f"/runs/{quote(path.name, safe='')}"
    where = f"{kind}/{quote(name, safe='')}"
    caption = tag("figcaption", tag("b", name), f" ({kind})")
    try:
        shown = series_of(path, kind, name) if kind in ("scalar", "curve") or _is_line(path, kind, name) else None
        if shown is None:
            picture = tag("img", src=f"{place}/picture/{where}", alt=f"The newest {kind} {name}", class_="frame")
            return tag("figure", caption, picture)
    except (CatkitDevicesError, Problem, ValueError) as error:
        return tag("figure", caption, tag("p", str(error), class_="refusal"))
    return tag("figure", caption, tag("div", lines(shown), data_plot=f"{place}/series/{where}"))


def _is_line(path: Path, kind: str, name: str) -> bool:
    from catkit_devices.datalog import RunReader

    if kind != "array":
        return False
    with RunReader(path) as reader:
        return len(reader.arrays(name).shapes[-1]) == 1


def _notes(notes: Any, here: str, may: bool) -> Markup:
    written = [
        tag("li", one.text, " ", tag("span", ", ".join(
            filter(None, (one.user, one.time and one.time.strftime("%Y-%m-%d %H:%M UTC")))), class_="dim"))
        for one in notes.notes
    ]  # fmt: skip
    forms = (
        tag("form", tag("label", "Note ", tag("input", name="text", required=True, maxlength=2000)),
            tag("button", "Add the note"), method="post", action=f"{here}/note", class_="line"),
        tag("form", tag("input", type="hidden", name="star", value="no" if notes.starred else "yes"),
            tag("button", "Take the star away" if notes.starred else "Give it a star"),
            method="post", action=f"{here}/star", class_="line"),
    )  # fmt: skip
    return tag(
        "section", tag("h2", "Notes", " ★" if notes.starred else None), tag("ul", written) if written else
        nothing("none"), forms if may else None, class_="card",
    )  # fmt: skip


def _log_of(path: Path) -> Markup:
    from catkit_devices.datalog import RunReader
    from catkit_devices.errors import DataError

    try:
        with RunReader(path) as reader:
            found = reader.log_text().splitlines()
    except DataError as error:
        return tag("p", str(error), class_="refusal")
    if not found:
        return nothing("nothing was logged")
    first = tag("p", f"The newest {_LINES} of {len(found)} lines.") if len(found) > _LINES else None
    return Markup((first or "") + tag("pre", "\n".join(found[-_LINES:]), tabindex="0", role="region", aria_label="Log"))


async def log(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the newest lines of the log of a run: a part of its page."""
    path = run_path(served.client, request.path_params["run"])
    return path.name, await served.actions.look(partial(_log_of, path))


async def run_series(served: Served, request: Request) -> Response:
    """Return what was logged under a tag, for a plot."""
    place = request.path_params
    path = run_path(served.client, place["run"])
    return answer_json(await served.actions.look(partial(series_of, path, place["kind"], place["tag"])))


async def run_picture(served: Served, request: Request) -> Response:
    """Return the newest picture that was logged under a tag."""
    place = request.path_params
    path = run_path(served.client, place["run"])
    png = await served.actions.look(partial(picture_of, path, place["kind"], place["tag"]))
    return Response(png, media_type="image/png")
