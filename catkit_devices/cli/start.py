"""``catkit-devices start``."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices._base.process_title import set_title
from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Runs, Simulate, seconds_option, words_again
from catkit_devices.cli.output import console, end_of_testbed, print_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from catkit_devices.cli.screen import Screen
    from catkit_devices.testbed.configuration.model import Configuration
    from catkit_devices.testbed.testbed import Testbed

__all__ = ["EXAMPLES", "start"]

EXAMPLES = (
    "catkit-devices start --config bench.toml",
    "catkit-devices start --config bench.toml --simulate --background",
)


def start(
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    runs: Runs = None,
    background: Annotated[
        bool, typer.Option("--background", "-b", help="Return as soon as it runs, and leave it running.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", metavar="FILE", show_default=False,
            help="Log file with --background; by default NAME.log in the directory of the runs.",
        ),
    ] = None,
    timeout: Annotated[
        float, seconds_option("--timeout", 1.0, "How long to wait for it with --background.")
    ] = 120.0,
    announce: Annotated[Path | None, typer.Option("--announce", hidden=True)] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Start a testbed and keep it running until `catkit-devices stop`, or Ctrl-C.

    Other commands, experiments, scripts and notebooks join it by its name. When a safety check trips, the testbed keeps
    running but refuses all changes, until it is stopped or `catkit-devices reset-safety` allows it.
    """
    from catkit_devices.cli.detaching import keep_short, start_in_background
    from catkit_devices.cli.screen import Screen
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed import Testbed, load_configuration

    if not configs:
        raise ConfigurationError("say which testbed, with --config FILE")
    configuration = load_configuration(configs, overrides)
    _refuse_second(configuration)
    if background:
        place = log or Path(runs or configuration.testbed.runs) / f"{configuration.testbed.name}.log"
        started = start_in_background(
            ["start", *words_again(configs, overrides, simulate, runs), "--log", str(place)],
            place,
            timeout,
            "the testbed",
        )
        if as_json:
            print_json({**started, "log": str(place)})
        else:
            text = f"testbed {started['testbed']!r} is running (pid {started['pid']}), log: {place}"
            console().print(f"{text}; stop it with `catkit-devices stop {started['testbed']}`", markup=False)
        return
    set_title(f"testbed {configuration.testbed.name}")
    if announce is not None:
        _log_to_stderr()
        if log is not None:
            keep_short(log)
    made = Testbed(configuration, simulate=simulate, runs=runs)
    with (
        Screen() as screen,
        made as testbed,
        _gateway(configuration, testbed),
        _web_service(configuration, testbed, quiet=as_json or announce is not None),
    ):
        _serve(testbed, screen, announce, as_json=as_json)
    end_of_testbed(testbed.name, testbed.layout)


def _log_to_stderr() -> None:
    """Write warnings to stderr, which is a file here; all that the testbed logs is in its own log."""
    from catkit_devices.datalog.logfile import formatter

    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _gateway(configuration: Configuration, testbed: Testbed) -> AbstractContextManager[Any]:
    """Let programs that speak VISA use the devices, if the configuration says so."""
    from catkit_devices.cli.gateway import serving

    if not configuration.testbed.gateway:
        return contextlib.nullcontext()
    table = configuration.testbed
    return serving(testbed, table.gateway_host, table.gateway_port, announce=table.gateway_announce)


def _web_service(configuration: Configuration, testbed: Testbed, *, quiet: bool) -> AbstractContextManager[Any]:
    """Serve the page, if the configuration says so, by a process of its own: visitors keep this one from nothing."""
    from catkit_devices.cli.serve import serving

    if not configuration.testbed.serve:
        return contextlib.nullcontext()
    return serving(testbed, configuration.testbed.serve_port, quiet=quiet)


def _serve(testbed: Testbed, screen: Screen, announce: Path | None, *, as_json: bool) -> None:
    import os

    from catkit_devices.cli.detaching import tell
    from catkit_devices.cli.live import LiveView

    facts = {"testbed": testbed.name, "server": testbed.layout.server, "pid": os.getpid()}
    if announce is not None:
        tell(announce, facts)
    if as_json:
        print_json(facts)
    else:
        text = f"testbed {testbed.name!r} is running (pid {os.getpid()})"
        console().print(f"{text}; stop it with Ctrl-C or `catkit-devices stop {testbed.name}`", markup=False)
    if announce is not None:
        testbed.serve()  # its log tells all that happens
        return
    with LiveView(testbed, screen, everything=True):
        testbed.serve()


def _refuse_second(configuration: Configuration) -> None:
    from catkit_devices.cli.attaching import find
    from catkit_devices.errors import ServerNotFoundError, ServerRunningError

    name, pid = configuration.testbed.name, None
    try:
        running = find(None, configuration)
        if running is None:
            return
        status = running.status()
        pid = status["pid"]
        _refuse_beside_silent(name, status)
    except ServerNotFoundError:
        pass  # there are several of that name
    raise ServerRunningError(
        f"a testbed {name!r} is running already{f' (pid {pid})' if pid else ''}: stop it with `catkit-devices stop "
        f"{name}`, or give this one another name with --set testbed.name='\"{name}2\"'",
        server=name,
        pid=pid,
    )


def _refuse_beside_silent(name: str, status: dict[str, Any]) -> None:
    """Say which process of a testbed that runs already does not answer: it could not be stopped by a command."""
    from catkit_devices.cli.output import silent
    from catkit_devices.errors import ServerUnresponsiveError
    from catkit_devices.testbed.processes.finding import suspended

    pids, whats = [one["pid"] for one in status["silent"] if one["pid"]], silent(status)
    if not pids and status["pid"] and suspended(status["pid"]):  # just now: its silence is too short to be noticed
        pids, whats = [status["pid"]], [f"its process (pid {status['pid']}) is suspended"]
    if pids:
        raise ServerUnresponsiveError(
            f"a testbed {name!r} is running already, and does not answer: {'; '.join(whats)}; "
            f"`kill -CONT {pids[0]}` resumes it, `kill -KILL {pids[0]}` ends it",
            server=name,
        )
