"""``catkit-devices simulate``."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides
from catkit_devices.cli.output import console, print_json, print_table, warn
from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.gateway import HislipServer, InstrumentDoor
    from catkit_devices.simulation import Served, SimulatedVisaLibrary
    from catkit_devices.testbed.configuration.model import Configuration

__all__ = ["EXAMPLES", "simulate"]

EXAMPLES = (
    "catkit-devices simulate --config bench.toml",
    "catkit-devices simulate --config bench.toml --port-base 5000 --json",
    "catkit-devices simulate --config bench.toml --write-config served.toml",
)


def simulate(
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    host: Annotated[
        str, typer.Option("--host", help="Address of this machine to serve on; there is no password.")
    ] = "127.0.0.1",
    port_base: Annotated[
        int | None,
        typer.Option("--port-base", metavar="PORT", show_default=False, help="First port; else free ones are chosen."),
    ] = None,
    hislip_port: Annotated[
        int | None,
        typer.Option(
            "--hislip-port", metavar="PORT", show_default=False,
            help="Port of HiSLIP, for all instruments; else a free one is chosen. 4880 is what programs expect.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--write-config", metavar="FILE", show_default=False,
            help="Write a configuration for a testbed that uses what is served; give it after the other one.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Serve the simulated instruments of a configuration over TCP until Ctrl-C.

    Any VISA or pyserial program can use them, several at once: each instrument on a port of its own, and those with
    TCPIP INSTR, USB or GPIB addresses also over HiSLIP. With --write-config, so can another testbed:
    `run FILE --config bench.toml --config served.toml --hardware`.
    """
    from catkit_devices.gateway import HislipServer
    from catkit_devices.simulation import InstrumentServer
    from catkit_devices.testbed.configuration.layout_factory import lay_out
    from catkit_devices.testbed.configuration.loader import load_configuration
    from catkit_devices.testbed.devices.factory import build_simulation

    if not configs:
        raise ConfigurationError("say which testbed, with --config FILE")
    configuration = load_configuration(configs, overrides)
    library = build_simulation(lay_out(configuration, "simulate", simulate=True))
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()  # no Event: the signal handler may run while its lock is held
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.put(None))
    with (
        InstrumentServer(library, host=host, port_base=port_base) as server,
        HislipServer(_doors(configuration, library), host=host, port=hislip_port or 0) as hislip,
    ):
        rows = _rows(configuration, server.served, hislip)
        if overlay is not None:
            overlay.write_text(_overlay(rows), encoding="utf-8")
        if as_json:
            print_json({"testbed": configuration.testbed.name, "instruments": rows})
        else:
            _print(configuration, rows)
        sys.stdout.flush()
        while True:
            with contextlib.suppress(queue.Empty):
                stop.get(timeout=0.5)  # in short waits, because some systems cannot interrupt a long one
                break


def _doors(configuration: Configuration, library: SimulatedVisaLibrary) -> dict[str, InstrumentDoor]:
    """Return the instruments that can be served over HiSLIP, by device; devices at one address share one."""
    from catkit_devices.gateway.simulated import SimulatedInstrument

    doors: dict[str, InstrumentDoor] = {}
    at: dict[str, InstrumentDoor] = {}
    for name, address in _addresses(configuration).items():
        resource = library.resource(address)
        if resource.has_end:
            doors[name] = at.setdefault(resource.address, SimulatedInstrument(resource))
    return doors


def _addresses(configuration: Configuration) -> dict[str, str]:
    from catkit_devices.testbed.configuration.device_checks import simulated_addresses

    return dict(simulated_addresses(configuration, configuration.plugins()))


def _rows(configuration: Configuration, served: Mapping[str, Served], hislip: HislipServer) -> list[dict[str, Any]]:
    from catkit_devices.simulation.resource import parse_address

    rows = []
    addresses = _addresses(configuration)
    for name, table in configuration.devices.items():
        if name not in addresses:
            warn(f"device {name!r} has no simulator and is not served")
            continue
        where = served[str(parse_address(addresses[name]))]
        rows.append(
            {
                "device": name,
                "driver": table.driver,
                "simulates": where.address,
                "host": where.host,
                "port": where.port,
                "address": where.visa,
                "serial_address": where.serial,
                "url": where.url,
                "hislip_address": hislip.address(name),
            }
        )
    return rows


def _print(configuration: Configuration, rows: list[dict[str, Any]]) -> None:
    print_table(
        f"simulated instruments of {configuration.testbed.name!r}",
        ["device", "simulates", "VISA address", "over HiSLIP", "pyserial URL"],
        [(row["device"], row["simulates"], row["address"], row["hislip_address"] or "", row["url"]) for row in rows],
    )
    console(stderr=True).print("Ctrl-C ends it")


def _overlay(rows: list[dict[str, Any]]) -> str:
    lines = ["# Written by `catkit-devices simulate`: the addresses of its simulated instruments."]
    for row in rows:
        lines += ["", f"[devices.{row['device']}]", f'address = "{row["address"]}"']
    return "\n".join(lines) + "\n"
