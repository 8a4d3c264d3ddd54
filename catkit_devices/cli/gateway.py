"""``catkit-devices gateway``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.gateway import HislipServer
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "gateway", "serving"]

EXAMPLES = (
    "catkit-devices gateway",
    "catkit-devices gateway --config bench.toml --simulate",
    "catkit-devices gateway --config bench.toml --port 4881 --json",
    "catkit-devices gateway --host 192.168.1.20 --announce",
)


def gateway(
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    host: Annotated[
        str, typer.Option("--host", help="Address of this machine to serve on; there is no password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", show_default=False, help="Port of HiSLIP, 0 for a free one; else 4880."),
    ] = None,
    announce: Annotated[
        bool,
        typer.Option("--announce", help="Announce the devices on the network of --host (mDNS); discover finds them."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Let programs that speak VISA use the devices of a testbed, until Ctrl-C or the end of the testbed.

    Each device is at TCPIP::HOST::hislip_NAME::INSTR. A program takes its turn like any other: viLock is the mutex. It
    may read what the driver declares; with gateway = "write" in the device's table it may send anything.
    """
    from catkit_devices.cli.attaching import attach_or_start, wait_for_end

    with (
        attach_or_start(testbed, configs, overrides, simulate=simulate) as client,
        serving(client, host, port, announce=announce) as server,
    ):
        _tell(client, server, as_json=as_json)
        serve: Callable[[], None] | None = getattr(client, "serve", None)
        if serve is not None:  # it was started for this
            serve()
            return
        wait_for_end(client)


@contextlib.contextmanager
def serving(
    client: TestbedClient, host: str = "127.0.0.1", port: int | None = None, *, announce: bool = False
) -> Iterator[HislipServer]:
    """Serve the devices of a testbed to programs that speak VISA, and announce them if told to."""
    from catkit_devices.gateway import HislipServer
    from catkit_devices.gateway.server import HISLIP_PORT
    from catkit_devices.gateway.testbed_device import doors_of, sockets_of

    doors = doors_of(client)
    for entry in client.layout.devices:
        if entry.name not in doors:
            warn(f"device {entry.name!r} is not served: {'gateway = off' if entry.visa else 'its driver has no VISA'}")
    if not host.startswith("127."):
        may_write = [entry.name for entry in client.layout.devices if entry.name in doors and entry.gateway == "write"]
        warn(
            f"there is no password: whoever reaches {host} can read the devices, and take their locks"
            + (f", and send anything to {', '.join(may_write)}" if may_write else "")
        )
    sockets = sockets_of(client)
    with HislipServer(doors, host=host, port=HISLIP_PORT if port is None else port, sockets=sockets) as server:
        if not announce:
            yield server
            return
        from catkit_devices.gateway.announcement import announcing

        drivers = {entry.name: entry.driver for entry in client.layout.devices if entry.name in doors}
        with announcing(drivers, testbed=client.name, host=host, port=server.port):
            yield server


def _tell(client: TestbedClient, server: HislipServer, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"device": entry.name, "driver": entry.driver, "access": entry.gateway, "hislip_address": address}
        for entry in client.layout.devices
        if (address := server.address(entry.name)) is not None
    ]
    if as_json:
        print_json({"testbed": client.name, "instruments": rows})
    else:
        print_table(
            f"devices of {client.name!r}",
            ["device", "driver", "programs may", "VISA address"],
            [(row["device"], row["driver"], row["access"], row["hislip_address"]) for row in rows],
        )
        console(stderr=True).print("Ctrl-C ends it")
    sys.stdout.flush()
