"""``catkit-devices reset-safety``."""

from __future__ import annotations

from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "reset_safety"]

EXAMPLES = ('catkit-devices reset-safety bench --reason "the dehumidifier runs again"',)


def reset_safety(
    testbed: RunningTestbed = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", show_default=False, help="What was done, for the log.")
    ] = "",
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """Allow a testbed to change the state of its devices again, after a safety check tripped.

    Every check is read anew. If one fails, the reset is refused, and the error names the check with its value. Nothing
    that was stopped is started again.
    """
    from catkit_devices.cli.attaching import attach

    client = attach(testbed, configs, overrides)
    tripped = client.trip
    client.reset_safety(reason)
    if as_json:
        print_json({"testbed": client.name, "tripped": None if tripped is None else str(tripped), "reset": True})
    else:
        text = f"testbed {client.name!r}: safety is reset, every check passes now; it had tripped by: {tripped}"
        console().print(text, markup=False)
