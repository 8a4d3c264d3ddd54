"""``catkit-devices runs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import Json, RunsKept
from catkit_devices.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from catkit_devices.datalog import RunSummary

__all__ = ["EXAMPLES", "runs"]

EXAMPLES = ("catkit-devices runs", "catkit-devices runs last", "catkit-devices runs --json")


def runs(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", show_default=False,
            help="One run, to see what is in it: its path, its name, or 'last'. Left out: all runs, oldest first.",
        ),
    ] = None,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the runs that were recorded, or what is in one of them."""
    from catkit_devices.datalog import find_run, find_runs, summarise

    if run is not None:
        _show(summarise(find_run(run, kept)), as_json=as_json)
        return
    summaries = [summarise(path) for path in find_runs(kept)]
    if as_json:
        print_json([_plain(summary) for summary in summaries])
        return
    if not summaries:
        console().print(f"no recorded runs in directory {str(kept)!r}", markup=False)
        return
    print_table(
        f"recorded runs (directory {str(kept)!r})",
        ["run", "what", "started (UTC)", "#took", "outcome", "#records", "why"],
        [
            (
                summary.path.name, summary.name, f"{summary.started:%Y-%m-%d %H:%M:%S}" if summary.started else "",
                _took(summary), summary.outcome, summary.records, summary.detail,
            )
            for summary in summaries
        ],
    )  # fmt: skip


def _show(summary: RunSummary, *, as_json: bool) -> None:
    from dataclasses import asdict

    from catkit_devices.datalog import RunReader

    with RunReader(summary.path) as reader:
        information, tags, events = reader.information, reader.tags(), reader.events()
    if as_json:
        print_json({
            **_plain(summary),
            "information": information,
            "tags": [asdict(tag) for tag in tags],
            "events": [asdict(event) for event in events],
        })  # fmt: skip
        return
    out = console()
    started = f", started {summary.started:%Y-%m-%d %H:%M:%S} UTC" if summary.started else ""
    out.print(f"{summary.path}: {summary.name} {summary.outcome}{started}, took {_took(summary)}", markup=False)
    if summary.detail:
        out.print(summary.detail, markup=False)
    for name, value in information["parameters"].items():
        out.print(f"  {name} = {value}", markup=False)
    print_table(
        "records", ["kind", "tag", "unit", "#count"],
        [(tag.kind, tag.tag, tag.unit, tag.count) for tag in tags if tag.kind != "event"],
    )  # fmt: skip
    for event in events:
        out.print(f"{event.kind}: {event.text}", markup=False)


def _took(summary: RunSummary) -> str:
    if summary.started is None or summary.ended is None:
        return "?"
    seconds = (summary.ended - summary.started).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} h" if minutes >= 60 else f"{minutes}:{seconds:02d} min"


def _plain(summary: RunSummary) -> dict[str, Any]:
    return {
        "run": str(summary.path),
        "name": summary.name,
        "started": summary.started and summary.started.isoformat(),
        "ended": summary.ended and summary.ended.isoformat(),
        "outcome": summary.outcome,
        "detail": summary.detail,
        "records": summary.records,
    }
