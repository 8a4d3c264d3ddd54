"""``catkit-devices audit``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Follow, Json, Overrides, Since, TestbedName
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "audit"]

EXAMPLES = (
    "catkit-devices audit",
    "catkit-devices audit laser.current --since 2d",
    "catkit-devices audit --user ada --config bench.toml --json",
)


def audit(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEVICE[.PROPERTY]|MUTEX|EXPERIMENT]", show_default=False, autocompletion=devices_of_testbed,
            help="Only what was done to it; left out: everything. 'safety': the resets.",
        ),
    ] = None,
    follow: Follow = False,
    count: Annotated[
        int | None, typer.Option("--last", "-n", metavar="N", min=1, help="How many entries; by default 50.")
    ] = None,
    since: Since = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", show_default=False, help="Only what this user has done.")
    ] = None,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", show_default=False, help="An audit trail, audit.jsonl.")
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show who has set, called, broken, reset or stopped what on a testbed, and when. Reads are not in it.

    The value before is shown where it is known without asking the instrument: it is the one that was set last, since
    the device was opened or made safe. A loop that sets the same again and again has one entry for ten seconds.
    """
    from catkit_devices._base.paths import words
    from catkit_devices.cli.log_reading import audit_entries, following, newest, place_of
    from catkit_devices.cli.moments import moment
    from catkit_devices.testbed.processes.log_files import AUDIT

    begin = -math.inf if since is None else moment(since, "--since")
    names: frozenset[str] = frozenset()
    target, _, member = (what or "").partition(".")
    if file is None:
        place = place_of(testbed, configs, overrides)
        file = place.directory / AUDIT
        names = place.devices.get(target, names)

    def wanted(one: dict[str, Any]) -> bool:
        if what is not None and one.get("target") not in {*names, target, what}:
            return False
        if member and one.get("target") != what and words(one.get("name", "")) != words(member):
            return False
        return user is None or one.get("user") == user

    if count is None and since is None:
        count = 50
    found = newest(file, audit_entries, wanted, count, begin)
    if as_json and not follow:
        print_json([_plain(one) for one in found])
        return
    for one in found:
        _show(one, as_json=as_json)
    if follow:
        for one in following(file, audit_entries):
            if wanted(one):
                _show(one, as_json=as_json)


def _show(one: dict[str, Any], *, as_json: bool) -> None:
    from rich.text import Text

    from catkit_devices.cli.moments import local
    from catkit_devices.testbed.processes.audit import sentence

    if as_json:
        print_json(_plain(one), one_line=True)
        return
    when = local(one["moment"], milliseconds=True)
    console().print(Text.assemble((when, "dim"), " ", (sentence(one), "red" if "error" in one else "")))


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "moment"}
