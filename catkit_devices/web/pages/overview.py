"""The overview: what is made of the status of a testbed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from catkit_devices.plain import text_of
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.status import NOT_KNOWN
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.drawing import bar
from catkit_devices.web.pages.parts import Served, clock, holder, may_act, nothing, pairs, state, took

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["overview", "verdict_of"]

_SHOWN_MESSAGES = 8
"""How many messages are shown, the newest first."""
_SHOWN_EXPERIMENTS = 12
"""How many experiments are shown, the newest first."""


async def overview(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the overview."""
    status = await served.lookout.status()
    may = may_act(request)
    return "Overview", Markup(
        _verdict(status, may)
        + tag("section", tag("h2", "Devices"), _devices(status), class_="card")
        + _safety(status)
        + _experiments(served, status, may)
        + _telemetry(status)
        + _messages(status)
    )


def verdict_of(status: Mapping[str, Any]) -> tuple[str, str]:
    """Say in one sentence how it stands: ``good``, ``plain``, ``warn``, ``bad`` or ``unknown``, and the sentence.

    It is good only if everything is known, and passes.
    """
    safety, checks = status["safety"], status["safety"]["checks"]
    failing = [name for name, check in checks.items() if check["problem"] is not None or check["silent"]]
    unknown = [name for name, one in status["devices"].items() if one["state"].startswith(NOT_KNOWN)]
    if safety["tripped"]:
        kind = "unknown" if safety["tripped"].startswith(NOT_KNOWN) else "bad"
        return kind, f"Safety: {safety['tripped']}"
    if status["silent"] or unknown:
        silent = [one["what"] for one in status["silent"]] or unknown
        return "unknown", f"Not known whether all is well: no answer from {', '.join(silent)}"
    if status["state"] == "ending":
        return "unknown", "The testbed is ending"
    if safety["not_safe"]:
        return "bad", f"Not known to be safe: {', '.join(safety['not_safe'])}"
    if failing:
        return "warn", f"Safety check not passing: {', '.join(failing)}"
    if not checks:
        return "plain", "Running; this testbed has no safety checks"
    passing = "the safety check passes" if len(checks) == 1 else f"all {len(checks)} safety checks pass"
    return "good", f"Running; {passing}"


def _verdict(status: Mapping[str, Any], may: bool) -> Markup:
    kind, text = verdict_of(status)
    safety = status["safety"]
    reset = None
    if may and safety["tripped"] and kind == "bad":
        reset = tag(
            "form", tag("label", "What was done ", tag("input", name="reason", required=True, maxlength=400)),
            tag("button", "Reset the safety"), tag("output", ""), method="post", action="/safety/reset",
            class_="line", data_inline=True,
        )  # fmt: skip
    not_safe = [tag("p", f"{name} is not known to be safe: {why}") for name, why in safety["not_safe"].items()]
    return tag("section", tag("h1", text, class_="verdict"), not_safe, reset, class_=f"card verdict-{kind}")


def _devices(status: Mapping[str, Any]) -> Markup:
    return tag(
        "ul",
        [
            tag(
                "li", tag("a", name, href=f"/devices/{quote(name)}", class_="title"), state(device["state"]),
                holder(device),
                tag("span", device["driver"], class_="dim"),
            )
            for name, device in status["devices"].items()
        ],
        class_="devices",
    )  # fmt: skip


def _safety(status: Mapping[str, Any]) -> Markup:
    checks = status["safety"]["checks"]
    if not checks:
        return Markup("")
    return tag(
        "section", tag("h2", "Safety"), tag("ul", [_check(name, one) for name, one in checks.items()], class_="checks"),
        class_="card",
    )  # fmt: skip


def _check(name: str, check: Mapping[str, Any]) -> Markup:
    test = check["test"]
    known = not check["silent"] and check["value"] is not None
    value = text_of(check["value"], test.get("unit")) if known else NOT_KNOWN
    passing = check["problem"] is None and known
    lowest, highest = test.get("minimum"), test.get("maximum")
    return tag(
        "li",
        tag("span", name, class_="title"),
        tag("span", value, class_=f"value state {'good' if passing else 'bad' if known else 'unknown'}"),
        bar(check["value"] if known else None, lowest, highest),
        tag("span", f"expected {test['expected']}", class_="dim"),
        tag("span", check["problem"], class_="refusal") if check["problem"] else None,
    )


def _experiments(served: Served, status: Mapping[str, Any], may: bool) -> Markup:
    shown = [_experiment(one, may) for one in reversed(list(status["experiments"].values()))][:_SHOWN_EXPERIMENTS]
    offered = [
        tag(
            "form", tag("input", type="hidden", name="experiment", value=name), _parameters(kind),
            tag("button", f"Start {name}"), tag("output", ""),
            method="post", action="/experiments/start", class_="line", data_inline=True,
        )
        for name, kind in (served.actions.experiments.kinds.items() if may else ())
    ]  # fmt: skip
    return tag(
        "section", tag("h2", "Experiments"), tag("ul", shown, class_="experiments") if shown else nothing("none yet"),
        offered, class_="card",
    )  # fmt: skip


def _experiment(one: Mapping[str, Any], may: bool) -> Markup:
    ended = one["state"] in ENDED
    total = one["total"]
    steps = f"{one['done']} of {total}" if total else f"{one['done']}" if one["done"] else ""
    progress = None
    if not ended and total:
        progress = tag("progress", steps, max=total, value=one["done"], aria_label=f"Progress of {one['name']}")
    stop = tag(
        "form", tag("input", type="hidden", name="experiment", value=one["name"]),
        tag("button", "Stop", class_="quiet"), tag("output", ""),
        method="post", action="/experiments/stop", class_="line", data_inline=True,
    )  # fmt: skip
    run = None
    if one["run"]:
        name = re.split(r"[\\/]", one["run"])[-1]
        run = tag("a", "run and log", href=f"/runs/{quote(name, safe='')}")
    return tag(
        "li", tag("span", one["name"], class_="title"), state(one["state"]), progress,
        tag("span", f"{one['description']} {steps}".strip(), class_="dim"), tag("span", one["message"]),
        tag("span", f"no news for {took(one['silent'])}", class_="refusal") if one["silent"] else None, run,
        stop if may and not ended else None,
    )  # fmt: skip


def _parameters(kind: Any) -> list[Markup]:
    return [
        tag("label", f"{name} ", tag("input", name=f"argument-{name}", autocomplete="off", required=one.required,
                                     placeholder="" if one.required else text_of(one.default)))
        for name, one in kind.parameters().items()
    ]  # fmt: skip


def _telemetry(status: Mapping[str, Any]) -> Markup:
    if not status["telemetry"]:
        return Markup("")
    rows = [
        (name, one["problem"] or text_of(one["value"], one["unit"])) for name, one in status["telemetry"].items()
    ]  # fmt: skip
    return tag("section", tag("h2", "Telemetry"), pairs(rows), class_="card")


def _messages(status: Mapping[str, Any]) -> Markup:
    newest = status["messages"][-_SHOWN_MESSAGES:]
    if not newest:
        return Markup("")
    rows = [
        tag(
            "li",
            tag("time", clock(one["time"])),
            " ",
            tag("span", one["text"]),
            class_=f"level-{one['level'].lower()}",
        )
        for one in reversed(newest)
    ]
    return tag("section", tag("h2", "Messages"), tag("ul", rows, class_="messages"), class_="card")
