"""``catkit-devices queue``."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.moments import local
from catkit_devices.cli.options import ConfigFiles, Json, Overrides, TestbedName
from catkit_devices.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "queue"]

EXAMPLES = (
    "catkit-devices run scan.py --queue --repeats 5",
    "catkit-devices queue",
    "catkit-devices queue move 7 --to 1",
    "catkit-devices queue cancel 5 6",
    'catkit-devices queue pause --reason "lamp warms up"',
    "catkit-devices queue resume",
)


class Action(Enum):
    """What can be done to a queue."""

    LIST = "list"
    MOVE = "move"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


def queue(
    action: Annotated[
        Action, typer.Argument(metavar="ACTION", show_default=False, help="list, move, cancel, pause or resume.")
    ] = Action.LIST,
    numbers: Annotated[
        list[int] | None,
        typer.Argument(metavar="NUMBER", show_default=False, help="Which of the queue to move or cancel."),
    ] = None,
    to: Annotated[
        int, typer.Option("--to", metavar="PLACE", min=1, help="Where to move them: 1 is run next.")
    ] = 1,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it is paused.")] = "by request",
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show the queue of experiments of a running testbed, or change it.

    The testbed runs them one after the other, whatever becomes of the terminal. If one does not finish, at a trip of
    the safety checks, and when the testbed is started again, the queue pauses until `queue resume`.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.errors import ConfigurationError

    given = list(numbers or [])
    if action in {Action.MOVE, Action.CANCEL} and not given:
        raise ConfigurationError(f"queue {action.value}: say which, by the number that `catkit-devices queue` shows")
    if action not in {Action.MOVE, Action.CANCEL} and given:
        raise ConfigurationError(f"queue {action.value} takes no number, got {given[0]}")
    client = attach(testbed, configs, overrides)
    shown = _change(client, action, given, to, reason)
    if as_json:
        print_json({"testbed": client.name, "paused": shown["paused"], "entries": shown["entries"]})
    else:
        _show(client.name, shown)


def _change(client: TestbedClient, action: Action, numbers: list[int], to: int, reason: str) -> dict[str, Any]:
    if action is Action.LIST:
        return client.queue()
    if action is Action.MOVE:
        return client.change_queue("move", numbers=numbers, to=to)
    if action is Action.CANCEL:
        return client.change_queue("cancel", numbers=numbers)
    if action is Action.PAUSE:
        return client.change_queue("pause", reason=reason)
    return client.change_queue("resume")


def _show(name: str, shown: dict[str, Any]) -> None:
    out = console()
    if shown["paused"] is not None:
        text = (
            f"the queue of testbed {name!r} is paused: {shown['paused']}; `catkit-devices queue resume` lets it go on"
        )
        out.print(text, markup=False)
    if not shown["entries"]:
        out.print(f"the queue of testbed {name!r} is empty", markup=False)
        return
    print_table(
        f"queue of testbed {name!r}",
        ["#no.", "experiment", "state", "since", "by", ""],
        [
            (
                one["number"], " ".join([one["what"], *one["parameters"]]), one["state"],
                local(one["ended"] or one["started"] or one["added"]), one["user"], one["message"],
            )
            for one in shown["entries"]
        ],
    )  # fmt: skip
