"""``catkit-devices run``."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Runs
from catkit_devices.cli.output import console, print_json

__all__ = ["SETTINGS", "run"]

# What this command does not know is for the experiment.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def run(
    context: typer.Context,
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:CLASS]", show_default=False, help="Python file, and which of its experiments to run."
        ),
    ],
    configs: ConfigFiles = [],  # noqa: B006 - typer wants a list and copies it
    overrides: Overrides = [],  # noqa: B006
    simulate: Annotated[
        bool | None,
        typer.Option("--simulate/--hardware", show_default=False, help="Use simulated instruments, or real ones."),
    ] = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Run an experiment on a testbed.

    The experiment's parameters follow as options: --repeats 5 sets its parameter `repeats`.
    """
    from catkit_devices.cli.live import LiveView
    from catkit_devices.cli.loading import load_experiment, parse_parameters
    from catkit_devices.errors import CatkitDevicesError, ConfigurationError
    from catkit_devices.testbed.configuration import load_configuration

    kind = load_experiment(experiment)
    if not configs:
        raise ConfigurationError("say which testbed, with --config FILE")
    configuration = load_configuration(configs, overrides)
    instance = kind(**parse_parameters(kind, context.args))
    from catkit_devices.testbed.testbed import Testbed

    with Testbed(configuration, simulate=simulate, runs=runs) as testbed, LiveView(testbed) as view:
        try:
            (result,) = testbed.run(instance, on_tick=view.tick)
        except Exception as error:
            with contextlib.suppress(CatkitDevicesError, OSError, EOFError):  # its server may be what failed
                for progress in testbed.progress():
                    error.add_note(f"run directory: {progress.run}")
            raise
        finally:
            view.draw()
        (progress,) = testbed.progress()
    if as_json:
        print_json({"experiment": progress.name, "state": progress.state, "run": progress.run, "result": result})
        return
    if result is not None:
        console().print(result)
    console().print(f"{progress.name} {progress.state}; run directory: {progress.run}")
