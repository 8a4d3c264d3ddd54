"""``catkit-devices runs``."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli import completion
from catkit_devices.cli.moments import local, moment
from catkit_devices.cli.options import Json, RunsKept
from catkit_devices.cli.output import console, print_json, print_long_table, print_table
from catkit_devices.datalog.finding import OUTCOMES

if TYPE_CHECKING:
    from catkit_devices.datalog import RunSummary

__all__ = ["EXAMPLES", "runs"]

EXAMPLES = (
    "catkit-devices runs --last 20",
    "catkit-devices runs --name FilterScan --outcome failed --since 2d",
    "catkit-devices runs --starred --json",
    "catkit-devices runs last",
)

_MANY = 200
"""Rows of a table whose columns are fitted to the terminal; that takes too long for more."""


def runs(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", show_default=False, autocompletion=completion.runs_kept,
            help="One run, to see what is in it: its path, its name, or 'last'. Left out: all runs, oldest first.",
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "-n", metavar="N", min=1, show_default=False, help="The newest N only.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", show_default=False, help="What ran; * stands for anything."),
    ] = None,
    outcome: Annotated[
        list[str],
        typer.Option(
            "--outcome", metavar="OUTCOME", show_default=False,
            help="How it ended: finished, failed, stopped, running, killed, unknown or unreadable; may be repeated.",
        ),
    ] = [],
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", show_default=False,
            help="Started since then: 90s, 10m, 6h, 2d, 3w ago, or a date and time, local time.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", show_default=False, help="Started until then.")
    ] = None,
    starred: Annotated[bool, typer.Option("--starred", help="With a star only; see the command star.")] = False,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the runs that were recorded, or what is in one of them.

    Times are local time. A star stands before the runs that were given one.
    """
    from catkit_devices.datalog import find_run, select_runs, summarise
    from catkit_devices.errors import ConfigurationError, nearest

    if run is not None:
        _show(summarise(find_run(run, kept)), as_json=as_json)
        return
    for one in outcome:
        if one not in OUTCOMES:
            expected = f"expected one of {', '.join(OUTCOMES)}"
            raise ConfigurationError(f"--outcome: {expected}, got {one!r}", suggestion=nearest(one, OUTCOMES))
    summaries = select_runs(
        kept, name=name, outcomes=outcome, since=_when(since, "--since"), until=_when(until, "--until"),
        starred=starred, last=last,
    )  # fmt: skip
    if as_json:
        print_json([_plain(summary) for summary in summaries])
        return
    if not summaries:
        chosen = any((name, outcome, since, until, starred))
        console().print(f"no recorded runs {'of this kind ' if chosen else ''}in directory {str(kept)!r}", markup=False)
        return
    columns = ["", "run", "what", "started", "#took", "outcome", "#records", "why", "note"]
    rows = [
        (
            "*" if summary.notes.starred else "", summary.path.name, summary.name,
            local(summary.started) if summary.started else "", _took(summary), summary.outcome, summary.records,
            summary.detail, summary.notes.notes[-1].text if summary.notes.notes else "",
        )
        for summary in summaries
    ]  # fmt: skip
    (print_table if len(rows) <= _MANY else print_long_table)(f"recorded runs (directory {str(kept)!r})", columns, rows)


def _when(text: str | None, option: str) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromtimestamp(moment(text, option), dt.UTC)


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
    started = f", started {local(summary.started)}" if summary.started else ""
    star = "* " if summary.notes.starred else ""
    out.print(f"{star}{summary.path}: {summary.name} {summary.outcome}{started}, took {_took(summary)}", markup=False)
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
    for note in summary.notes.notes:
        signed = f"{local(note.time) if note.time else '?'}, {note.user or '?'}"
        out.print(f"note ({signed}): {note.text}", markup=False)


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
        "starred": summary.notes.starred,
        "notes": [
            {"text": note.text, "user": note.user, "time": note.time and note.time.isoformat()}
            for note in summary.notes.notes
        ],
    }
