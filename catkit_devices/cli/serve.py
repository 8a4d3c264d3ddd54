"""``catkit-devices serve``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Runs, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, short, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.web import WebServer

__all__ = ["EXAMPLES", "offered", "serve", "serving", "tell"]

EXAMPLES = (
    "catkit-devices serve",
    "catkit-devices serve --config bench.toml --simulate",
    "catkit-devices serve --experiment scan.py --port 0 --json",
    "catkit-devices serve --grant assistant",
    "catkit-devices serve --host 0.0.0.0 --name bench.lab.org --certificate bench.pem --key bench.key",
)

_GRANT_LASTS = 7 * 86400.0
"""Seconds until a grant ends, if the service does not end before: a week."""
_END_TIMEOUT = 10.0
"""Seconds that the service of a testbed has to end."""


def serve(
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    runs: Runs = None,
    host: Annotated[str, typer.Option("--host", help="Address of this computer to serve on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65535, show_default=False, help="Port, 0 for a free one; else 8870."
        ),
    ] = None,
    names: Annotated[
        list[str],
        typer.Option("--name", metavar="NAME", help="A further name by which browsers call it; may be repeated."),
    ] = [],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", show_default=False, help="TLS certificate (PEM).")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", show_default=False, help="Key of the certificate (PEM).")
    ] = None,
    plain_control: Annotated[
        bool,
        typer.Option("--plain-control", help="Allow control from other computers without TLS: anybody may read it."),
    ] = False,
    experiments: Annotated[
        list[str],
        typer.Option(
            "--experiment", "-e", metavar="FILE[:CLASS]", show_default=False,
            help="An experiment that visitors may start; may be repeated.",
        ),
    ] = [],
    grants: Annotated[
        list[str],
        typer.Option(
            "--grant", metavar="NAME", show_default=False,
            help="Print a token that lets an agent of this name control the testbed (/mcp); may be repeated.",
        ),
    ] = [],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Serve a page, a REST interface, metrics and tools for agents (MCP), until Ctrl-C or the end of the testbed.

    Everybody on this computer may look; to act, a visitor needs the token that is printed here. Nothing is served to
    other computers unless --host says so; these need a token to look, too.
    """
    from catkit_devices.cli.attaching import attach_or_start, wait_for_end
    from catkit_devices.web.server import DEFAULT_PORT, WebServer

    kinds = offered(experiments)
    with (
        attach_or_start(testbed, configs, overrides, simulate=simulate, runs=runs) as client,
        WebServer(
            client, host, DEFAULT_PORT if port is None else port, names=names, certificate=certificate, key=key,
            plain_control=plain_control, experiments=kinds,
        ) as server,
    ):  # fmt: skip
        tell(client, server, {name: server.keys.grant(name, _GRANT_LASTS) for name in grants}, as_json=as_json)
        run: Callable[[], None] | None = getattr(client, "serve", None)
        if run is not None:  # it was started for this
            run()
            return
        wait_for_end(client)


@contextlib.contextmanager
def serving(testbed: TestbedClient, port: int, *, quiet: bool, experiments: Sequence[str] = ()) -> Iterator[None]:
    """Serve a testbed by a process of its own during a block; what that says goes to stderr.

    Args:
        testbed: that runs.
        port: 0 for a free one.
        quiet: whether not to print where it is, and the token; a log could be read by others.
        experiments: those that visitors may start, as ``FILE[:CLASS]``.

    Raises:
        ConfigurationError: it does not begin to serve; it has said why.
    """
    from catkit_devices.errors import ConfigurationError

    command = [sys.executable, "-m", "catkit_devices", "serve", "--json", "-t", testbed.layout.server]
    process = subprocess.Popen(
        [*command, "--port", str(port), *(f"--experiment={one}" for one in experiments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        start_new_session=True,  # Ctrl-C is for the testbed, which then ends this one
    )  # fmt: skip
    try:
        told = ""
        for line in process.stdout or ():
            told += line
            if line == "}\n":
                break
        else:
            raise ConfigurationError(f"the web service of testbed {testbed.name!r} did not start", key="testbed.serve")
        if not quiet:
            _print(testbed.name, json.loads(told))
        yield
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def offered(places: list[str]) -> dict[str, type[Experiment]]:
    """Return the experiments of ``FILE[:CLASS]``, by the names of their classes."""
    from catkit_devices.cli.loading import load_experiment

    kinds = [load_experiment(place) for place in places]
    return {kind.__name__: kind for kind in kinds}


def tell(client: TestbedClient, server: WebServer, grants: dict[str, str], *, as_json: bool) -> None:
    """Print where it is, and the tokens: those of the service, and those of agents by their names."""
    facts: dict[str, Any] = {"testbed": client.name, "url": server.url, "token": server.keys.control}
    if not server.local:
        facts["view_token"] = server.keys.view
    facts["token_file"] = str(server.token_file)
    if grants:
        facts["grants"] = grants
    if as_json:
        print_json(facts)
    else:
        _print(client.name, facts)
        console(stderr=True).print("Ctrl-C ends it")
    if not server.local and not server.secure:
        warn("without TLS everybody on the way can read along; from other computers nothing can be changed")
    sys.stdout.flush()


def _print(name: str, facts: dict[str, Any]) -> None:
    out = console()
    out.print(f"testbed {name!r}: {facts['url']}", markup=False)
    out.print(f"token for control:  {facts['token']}", markup=False)
    if "view_token" in facts:
        out.print(f"token for looking:  {facts['view_token']}", markup=False)
    for name, token in facts.get("grants", {}).items():
        out.print(f"token for agent {name!r}, at {facts['url']}mcp: {token}", markup=False)
    out.print(f"for programs of this user on this computer, it is in {short(facts['token_file'])}", markup=False)
