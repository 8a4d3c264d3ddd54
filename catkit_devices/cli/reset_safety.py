"""``catkit-devices reset-safety``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed
from catkit_devices.cli.output import console, print_json

if TYPE_CHECKING:
    from catkit_devices.testbed.safety.check import CheckState

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
    that was stopped is started again. It says what had tripped, and what every check reads now.
    """
    from catkit_devices.cli.attaching import attach

    client = attach(testbed, configs, overrides)
    tripped = client.trip
    client.reset_safety(reason)
    checks = {name: _plain(state) for name, state in client.checks().items()}
    if as_json:
        print_json({
            "testbed": client.name, "tripped": None if tripped is None else str(tripped), "reset": True,
            "checks": checks,
        })  # fmt: skip
        return
    text = f"testbed {client.name!r}: safety is reset, every check passes now; it had tripped by: {tripped}"
    console().print(text, markup=False)
    for name, state in checks.items():
        console().print(f"  {name}: {state['value']}, expected {state['expected']}", markup=False)


def _plain(state: CheckState) -> dict[str, Any]:
    return {"value": state.value, "expected": state.test.expected(), "time": state.time}
