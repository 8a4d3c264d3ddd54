"""``catkit-devices discover``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import Json, seconds_option
from catkit_devices.cli.output import print_json, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXAMPLES", "discover"]

EXAMPLES = (
    "catkit-devices discover",
    "catkit-devices discover --identify --baud-rate 115200",
    "catkit-devices discover --visa-library @ivi --json",
    "catkit-devices discover --network",
)


def discover(
    identify: Annotated[
        bool,
        typer.Option(
            "--identify",
            help="Ask each for its identity. This writes to every port that no program of ours has open: *IDN? and, "
            "if that gets no answer, *idn?",
        ),
    ] = False,
    baud_rate: Annotated[
        int, typer.Option("--baud-rate", metavar="BAUD", min=1, help="Baud rate of serial ports, for --identify.")
    ] = 115200,
    timeout: Annotated[
        float, seconds_option("--timeout", 0.01, "How long to wait for each answer.")
    ] = 0.5,
    network: Annotated[
        bool,
        typer.Option(
            "--network",
            help="Also look on the local network for instruments that announce themselves (mDNS), for 2 s.",
        ),
    ] = False,
    interface: Annotated[
        str | None,
        typer.Option(
            "--interface", metavar="ADDRESS", show_default=False,
            help="Address of this computer in the network where --network looks; else in all of them.",
        ),
    ] = None,
    visa_library: Annotated[
        str, typer.Option("--visa-library", metavar="LIBRARY", help="The VISA library that is asked: @py or @ivi.")
    ] = "@py",
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the VISA resources and serial ports of this computer.

    Nothing is ever written to a port, unless --identify asks for that.
    """
    from catkit_devices.cli.discovering import Resource, ask_identity, find_resources

    rows, notes = find_resources(visa_library)
    if network:
        from catkit_devices.gateway.announcement import find_announced

        announced = {one.address: one.what for one in find_announced(interface)}
        rows = [
            *(row for row in rows if row.address not in announced),
            *(Resource(address, None, what) for address, what in announced.items()),
        ]
    ask: Callable[[str], tuple[str | None, str | None]] | None = None
    if identify:
        ask = ask_identity(visa_library, baud_rate, timeout)
    answers: list[dict[str, Any]] = []
    for row in rows:
        identity, problem = ask(row.address) if ask is not None else (None, None)
        answers.append({
            "address": row.address, "port": row.port, "what": row.what, "identity": identity, "problem": problem,
        })  # fmt: skip
    if as_json:
        print_json({"resources": answers, "notes": notes})
        return
    for note in notes:
        warn(note)
    columns = ["address", "port", "what it is"]
    print_table(
        f"{len(answers)} found", [*columns, "identity"] if identify else columns,
        [
            (row["address"], row["port"], row["what"], *((row["identity"] or row["problem"],) if identify else ()))
            for row in answers
        ],
    )  # fmt: skip
