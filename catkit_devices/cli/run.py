"""``catkit-devices run``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.attaching import attach, attach_or_start
from catkit_devices.cli.detaching import tell
from catkit_devices.cli.options import (
    ConfigFiles,
    Json,
    Overrides,
    Runs,
    Simulate,
    TestbedName,
    check_file,
    words_again,
)
from catkit_devices.cli.output import (
    FAILED,
    console,
    end_of_testbed,
    print_failure,
    print_json,
    reason_for_null,
    short,
    warn,
)
from catkit_devices.errors import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.experiments.experiment import Experiment

__all__ = ["EXAMPLES", "SETTINGS", "run"]

EXAMPLES = (
    "catkit-devices run scan.py --config bench.toml --simulate",
    "catkit-devices run scan.py:FilterScan --repeats 5",
    "catkit-devices run scan.py --queue --repeats 5",
    "catkit-devices run scan.py --detach",
    "catkit-devices run scan.py --plot",
    "catkit-devices run scan.py --help",
)
# Options that this command does not know are parameters of the experiment, which its help lists too.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

_PAUSE = 0.1
"""Seconds between two looks at the experiments, and at who still uses the testbed."""
_DETACHED = 180.0
"""Seconds for a run without a terminal to begin; its testbed may have to be started first."""
_LAST_PICTURE = 20.0
"""Seconds for drawing the last picture when the run has ended."""
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
    wants_queue: Annotated[
        bool, typer.Option("--queue", help="Add it to the queue of a running testbed, and return; see `queue`.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return as soon as it runs; it goes on without this terminal.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw its scalars in a window while it runs; see `plot --follow`.")
    ] = False,
    plot_to: Annotated[
        Path | None,
        typer.Option("--plot-to", metavar="FILE", show_default=False, help="The same in a file: .png, .pdf or .svg."),
    ] = None,
    announce: Annotated[Path | None, typer.Option("--announce", hidden=True)] = None,
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
    if wants_queue and detach:
        raise ConfigurationError("expected one of --queue and --detach, got both")
    if plot or plot_to is not None:
        _check_plot(plot_to, without_terminal=wants_queue or detach)
    if wants_queue:
        _add_to_queue(attach(testbed, configs, overrides), experiment, context.args, as_json=as_json)
        return
    if detach:
        words = ["run", experiment, *words_again(configs, overrides, simulate, runs)]
        words += ["--testbed", testbed] if testbed is not None else []
        words += ["--new"] if new else []
        place = _runs_of(testbed, configs, overrides, runs) / f"{instance.name or kind.__name__}.detached.log"
        _detach([*words, *context.args], place, as_json=as_json)
        return
    if announce is not None:
        # It was started without a terminal: SIGINT, which may be ignored then, is how it is told to stop.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from catkit_devices.cli.live import LiveView
    from catkit_devices.cli.screen import Screen

    try:
        with (
            contextlib.ExitStack() as pictures,
            Screen() as screen,
            attach_or_start(testbed, configs, overrides, simulate=simulate, runs=runs, join=not new) as client,
        ):
            joined = not hasattr(client, "configuration")
            if joined and runs is not None and not _from_environment(context, "runs"):
                warn(
                    f"--runs changes nothing: testbed {client.name!r} is running already, and keeps its runs elsewhere"
                )
            with LiveView(client, screen, own=lambda: instance.run_path):
                tellers = [_announcing(client, instance, announce)] if announce is not None else []
                tellers += [_plotting(instance, plot_to, pictures)] if plot or plot_to is not None else []
                result = _run(client, instance, announce, tellers)
                progress = next(entry for entry in client.progress() if entry.run == str(instance.run_path))
                if not joined:
                    _let_others_end(client)
    except BaseException as error:
        if as_json:
            print_failure(
                error,
                experiment=instance.name or kind.__name__,
                state=_end_of(error),
                run=instance.run_path,
                result=None,
            )
        raise
    if not joined:
        end_of_testbed(client.name, client.layout)
    if as_json:
        print_json({
            "experiment": progress.name, "state": progress.state, "run": progress.run, "result": result,
            **reason_for_null(result),
            **({} if progress.state == "finished" else {"error": progress.message, "exit_code": FAILED}),
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


def _run(client: TestbedClient, instance: Experiment, announce: Path | None, tellers: list[Callable[[], None]]) -> Any:
    state, message = "failed", ""

    def begun() -> None:
        if instance.run_path is not None:
            while tellers:
                tellers.pop()()

    try:
        (result,) = client.run(instance, on_tick=begun)
        begun()
        ended = next(one for one in client.progress() if one.run == str(instance.run_path))
        state, message = ended.state, ended.message
    except BaseException as error:
        state, message = _end_of(error), in_one_line(error)
        if instance.run_path is not None:
            error.add_note(f"run directory: {short(instance.run_path)}")
        raise
    finally:
        if announce is not None and instance.run_path is not None:
            with contextlib.suppress(OSError):  # a program that waited for the beginning only has taken the file away
                tell(announce, {**_running(client, instance), "state": state, "message": message})
    return result


def _end_of(error: BaseException) -> str:
    return "stopped" if isinstance(error, KeyboardInterrupt) else "failed"


def _announcing(client: TestbedClient, instance: Experiment, file: Path) -> Callable[[], None]:
    return lambda: tell(file, _running(client, instance))


_PICTURES = (".png", ".pdf", ".svg")
"""What a run can be drawn into."""


def _check_plot(file: Path | None, *, without_terminal: bool) -> None:
    from catkit_devices.cli.following import has_display
    from catkit_devices.errors import ConfigurationError

    if without_terminal:
        raise ConfigurationError(
            "--plot is for a run in this terminal: `catkit-devices plot last --follow` draws one that is queued or "
            "detached"
        )
    if file is not None:
        check_file("--plot-to", file, _PICTURES)
    elif not has_display():
        raise ConfigurationError(
            "--plot: there is no display for a window: say --plot-to FILE, or draw in a second terminal with "
            "`catkit-devices plot last --follow`"
        )


def _plotting(instance: Experiment, file: Path | None, pictures: contextlib.ExitStack) -> Callable[[], None]:
    """Return what starts the drawing, in a process of its own: it neither delays the run nor ends it."""

    def start() -> None:
        words = ["plot", str(instance.run_path), "--follow", *(["--out", str(file)] if file is not None else [])]
        process = subprocess.Popen(
            [sys.executable, "-m", "catkit_devices", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=os.name == "posix",
        )  # fmt: skip
        if file is None:
            process.returncode = 0  # its window stays until it is closed; no warning about that is wanted
        else:
            pictures.callback(_finish, process)

    return start


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the last picture in the file."""
    try:
        process.wait(_LAST_PICTURE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _running(client: TestbedClient, instance: Experiment) -> dict[str, Any]:
    return {"testbed": client.name, "run": str(Path(instance.run_path or "").absolute()), "pid": os.getpid()}


def _add_to_queue(client: TestbedClient, experiment: str, parameters: list[str], *, as_json: bool) -> None:
    import getpass

    try:
        user: str | None = getpass.getuser()
    except (KeyError, OSError):
        user = None  # a user number without a name, as there is in containers
    entry = {
        "what": experiment, "parameters": parameters, "directory": str(Path.cwd()), "python": sys.executable,
        "search_path": os.environ.get("PYTHONPATH"), "user": user,
    }  # fmt: skip
    queue = client.change_queue("add", entry=entry)
    before = sum(one["state"] in {"waiting", "running"} for one in queue["entries"]) - 1
    if as_json:
        print_json({"number": queue["number"], "before": before, "paused": queue["paused"]})
        return
    text = f"{experiment} is number {queue['number']} of the queue of testbed {client.name!r}, {before} before it"
    console().print(text, markup=False)
    if queue["paused"] is not None:
        warn(f"the queue is paused: {queue['paused']}; `catkit-devices queue resume` lets it go on")


def _detach(words: list[str], log: Path, *, as_json: bool) -> None:
    from catkit_devices.cli.detaching import start_in_background

    facts = start_in_background(words, log, _DETACHED, "the experiment")
    if as_json:
        print_json({**facts, "log": str(log)})
        return
    console().print(
        f"running on testbed {facts['testbed']!r} without this terminal (pid {facts['pid']}), log: {short(log)}; "
        f"run directory: {short(facts['run'])}",
        markup=False,
    )


def _runs_of(testbed: str | None, configs: list[Path], overrides: list[str], runs: Path | None) -> Path:
    """Return where the testbed keeps its runs, whether it runs already or not."""
    from catkit_devices.errors import ServerNotFoundError

    try:
        return Path(attach(testbed, configs, overrides).layout.runs)
    except ServerNotFoundError:
        if not configs:
            raise
    from catkit_devices.testbed import load_configuration

    return runs if runs is not None else Path(load_configuration(configs, overrides).testbed.runs)


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
