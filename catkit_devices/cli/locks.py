"""``catkit-devices locks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed
from catkit_devices.cli.output import SILENT, print_json, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EXAMPLES", "locks", "who"]

EXAMPLES = ("catkit-devices locks", "catkit-devices locks bench --held", "catkit-devices locks --json")


def locks(
    testbed: RunningTestbed = None,
    held: Annotated[bool, typer.Option("--held", help="Only those that somebody holds or waits for.")] = False,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """List the mutexes of a running testbed: who holds each, since when and from where, and who waits for it.

    The exit code is 6 if the testbed, or a server whose mutexes are listed, does not answer.
    """
    from catkit_devices.cli.attaching import attach

    client = attach(testbed, configs, overrides)
    rows = [row for row in client.locks() if not held or row["holder"] or row["waiters"] or row["unknown"]]
    unknown = dict.fromkeys(row["unknown"] for row in rows if row["unknown"])
    if as_json:
        print_json({"testbed": client.name, "locks": rows})
    else:
        _print(client.name, rows)
    for text in unknown:
        warn(text)
    if unknown:
        raise typer.Exit(SILENT)


def _print(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from catkit_devices.testbed.status import NOT_KNOWN

    print_table(
        f"mutexes of {name!r}", ["mutex", "of", "held by", "#for", "at", "waiting"],
        [
            (
                row["name"], "a device" if row["device"] else "the testbed",
                NOT_KNOWN if row["unknown"] else row["holder"] and row["holder"]["owner"],
                row["holder"] and f"{row['holder']['since']:.1f} s",
                row["holder"] and row["holder"]["site"],
                ", ".join(f"{waiter['owner']} for {waiter['since']:.1f} s" for waiter in row["waiters"]),
            )
            for row in rows
        ],
    )  # fmt: skip


def who(holder: Mapping[str, Any] | None) -> str:
    """Return who holds a mutex, since when and from where, in words."""
    if holder is None:
        return "nobody held it"
    site = f" at {holder['site']}" if holder.get("site") else ""
    return f"it was held for {holder['since']:.1f} s by {holder['owner']}{site}"
