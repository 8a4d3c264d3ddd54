"""``catkit-devices run``."""

from __future__ import annotations

import contextlib
import os
import time
from multiprocessing import active_children
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Runs, Simulate, TestbedName
from catkit_devices.cli.output import FAILED, console, print_json, reason_for_null, short, warn

if TYPE_CHECKING:
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment

__all__ = ["EXAMPLES", "SETTINGS", "run"]

EXAMPLES = (
    "catkit-devices run scan.py --config bench.toml --simulate",
    "catkit-devices run scan.py:FilterScan --repeats 5",
    "catkit-devices run scan.py --help",
)
# Options that this command does not know are parameters of the experiment, which its help lists too.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

_PAUSE = 0.1
"""Seconds between two looks at the experiments, and at who still uses the testbed."""
_LEAVING = 3.0
"""Seconds for programs that joined to leave; after that the testbed ends, even if a program still watches it."""


def run(
    context: typer.Context,
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE[:CLASS]", show_default=False, help="Python file, and which of its experiments to run."
        ),
    ] = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    runs: Runs = None,
    as_json: Json = False,
    testbed: TestbedName = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start a second testbed from --config even if one is running already.")
    ] = False,
    wants_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message, and the parameters of the experiment.")
    ] = False,
) -> None:
    """Run an experiment on a testbed: on one that is running, else on one that is started for it.

    The experiment's parameters follow as options: --repeats 5 sets its parameter `repeats`.
    """
    from catkit_devices.errors import ConfigurationError

    if wants_help or experiment is None:
        typer.echo(context.get_help(), nl=False)
        if experiment is None:
            if wants_help:
                return
            raise ConfigurationError("say which experiment: FILE, or FILE:CLASS")
    from catkit_devices.cli.loading import load_experiment
    from catkit_devices.cli.parameters import parse_parameters, print_parameters

    kind = load_experiment(experiment)
    if wants_help:
        print_parameters(kind)
        return
    instance = kind(**parse_parameters(kind, context.args))
    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.live import LiveView
    from catkit_devices.cli.screen import Screen

    with (
        Screen() as screen,
        attach_or_start(testbed, configs, overrides, simulate=simulate, runs=runs, join=not new) as client,
    ):
        joined = not hasattr(client, "configuration")
        if joined and runs is not None and not _from_environment(context, "runs"):
            warn(f"--runs changes nothing: testbed {client.name!r} is running already, and keeps its runs in one place")
        with LiveView(client, screen):
            result = _run(client, instance)
            progress = next(entry for entry in client.progress() if entry.run == str(instance.run_path))
            if not joined:
                _let_others_end(client)
    if as_json:
        print_json({
            "experiment": progress.name, "state": progress.state, "run": progress.run, "result": result,
            **reason_for_null(result),
        })  # fmt: skip
    else:
        if result is not None:
            console().print(result, markup=False)
        why = f" ({progress.message})" if progress.message else ""
        console().print(
            f"{progress.name} {progress.state}{why}; run directory: {short(str(progress.run))}", markup=False
        )
    if progress.state != "finished":
        raise typer.Exit(FAILED)


def _run(client: TestbedClient, instance: Experiment) -> Any:
    try:
        (result,) = client.run(instance)
    except BaseException as error:
        if instance.run_path is not None:
            error.add_note(f"run directory: {short(instance.run_path)}")
        raise
    return result


def _let_others_end(client: TestbedClient) -> None:
    """Wait for the experiments of other programs that have joined: their testbed ends with this process."""
    from catkit_devices.cli.picture import ENDED
    from catkit_devices.errors import CatkitDevicesError

    told = False
    with contextlib.suppress(CatkitDevicesError):
        while True:
            others = [progress.name for progress in client.progress() if progress.state not in ENDED]
            if not others:
                break
            if not told:
                warn(f"waiting for {', '.join(others)}, which joined this testbed; Ctrl-C ends them")
                told = True
            time.sleep(_PAUSE)
        if len(client.progress()) > 1:
            _let_others_leave(client)


def _let_others_leave(client: TestbedClient) -> None:
    """Give the programs whose experiments have ended the time to take their results."""
    family = {os.getpid(), *(process.pid for process in active_children())}
    deadline = time.monotonic() + _LEAVING
    while time.monotonic() < deadline:
        if all(session["pid"] in family for session in client.manager.status()["sessions"]):
            return
        time.sleep(_PAUSE)


def _from_environment(context: typer.Context, parameter: str) -> bool:
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "ENVIRONMENT"
