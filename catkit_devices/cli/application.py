"""The commands, and what happens when one fails.

Exit codes: 0 when all went well, 1 for a run or an operation that failed, 2 for a usage or configuration error, 3 when
no such testbed is running, 4 when safety has tripped, 5 when somebody else had the device for too long, 6 when a
testbed, or a part of it, does not answer, 130 after Ctrl-C.

With ``--json``, a command that fails prints JSON too: one line with ``error`` (a text) and ``exit_code``; `run` adds
``experiment``, ``state`` and ``run``, the run directory. A command that could do a part of its work, such as `get`,
prints its own document instead, which says what failed. So there is always one document, and after the lines of a
command that prints line by line, one more line. Ctrl-C is no failure: after it only `run` prints one.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from catkit_devices._base.deferred import refuse_deferred
from catkit_devices.cli.output import FAILED, INTERRUPTED, json_printed, print_failure, report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["COMMANDS", "main", "make_application"]

COMMANDS = {
    "demo": "catkit_devices.cli.demo:demo",
    "run": "catkit_devices.cli.run:run",
    "queue": "catkit_devices.cli.queue:queue",
    "start": "catkit_devices.cli.start:start",
    "stop": "catkit_devices.cli.stop:stop",
    "status": "catkit_devices.cli.status:status",
    "devices": "catkit_devices.cli.devices:devices",
    "describe": "catkit_devices.cli.describe:describe",
    "get": "catkit_devices.cli.get:get",
    "set": "catkit_devices.cli.set:set_",
    "snapshot": "catkit_devices.cli.snapshot:snapshot",
    "restore": "catkit_devices.cli.restore:restore",
    "call": "catkit_devices.cli.call:call",
    "shell": "catkit_devices.cli.shell:shell",
    "history": "catkit_devices.cli.history:history",
    "logs": "catkit_devices.cli.logs:logs",
    "audit": "catkit_devices.cli.audit:audit",
    "locks": "catkit_devices.cli.locks:locks",
    "break-lock": "catkit_devices.cli.break_lock:break_lock",
    "reset-safety": "catkit_devices.cli.reset_safety:reset_safety",
    "check-config": "catkit_devices.cli.check_config:check_config",
    "drivers": "catkit_devices.cli.drivers:drivers",
    "new-driver": "catkit_devices.cli.new_driver:new_driver",
    "discover": "catkit_devices.cli.discover:discover",
    "runs": "catkit_devices.cli.runs:runs",
    "note": "catkit_devices.cli.note:note",
    "star": "catkit_devices.cli.star:star",
    "plot": "catkit_devices.cli.plot:plot",
    "export": "catkit_devices.cli.export:export",
    "serve": "catkit_devices.cli.serve:serve",
    "mcp": "catkit_devices.cli.mcp:mcp",
    "gateway": "catkit_devices.cli.gateway:gateway",
    "bench": "catkit_devices.cli.bench:bench",
    "simulate": "catkit_devices.cli.simulate:simulate",
    "record": "catkit_devices.cli.record:record",
}
"""Every command, and the function that it is. What only one command needs is imported inside that function."""

_EXIT_CODES = (
    "Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 no such testbed is running, 4 safety has "
    "tripped, 5 the device is in use by somebody else, 6 no answer from the testbed, 130 Ctrl-C."
)
"""The last lines of every help text."""
_DEBUG = "--debug"
"""The option that shows tracebacks; it may stand anywhere on the command line."""
_JSON = "--json"
"""The option of most commands by which they print JSON, also when they fail."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: of the command line; this process's by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in given
    # Users add --debug at the end of a command that has just failed, so it is accepted anywhere on the line.
    given = [argument for argument in given if argument != _DEBUG]
    _log(everything=debug)
    try:
        # Only the built-in command that is named is created: creating all of them takes longer than many commands need.
        named = [name for name in given[:1] if name in COMMANDS]
        make_application(named or COMMANDS)(args=given, prog_name="catkit-devices")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - an experiment may raise anything, a group with Ctrl-C in it too
        return report(error, debug=debug)
    return 0


def _log(*, everything: bool) -> None:
    """Keep the framework's log off the terminal, where commands print what matters; with ``--debug`` show it."""
    logger = logging.getLogger("catkit_devices")
    if everything:
        logging.basicConfig(level=logging.INFO)
    elif not logger.handlers:
        logger.addHandler(logging.NullHandler())


def make_application(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """Return the application with the commands of these names."""
    application = typer.Typer(
        cls=_Commands,
        name="catkit-devices",
        help="Laboratory instruments shared by many programs.",
        epilog=_EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    application.callback()(_general)
    for name in names:
        module_name, _, function_name = COMMANDS[name].partition(":")
        module = importlib.import_module(module_name)
        function = getattr(module, function_name)
        command = application.command(
            name,
            help=_flowing(inspect.getdoc(function) or ""),
            epilog=_examples(getattr(module, "EXAMPLES", ())),
            context_settings=getattr(module, "SETTINGS", None),
        )
        command(function)
    return application


def _flowing(text: str) -> str:
    # Line breaks of the source are removed, so that the text is wrapped to the width of the screen.
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))


def _examples(lines: Sequence[str]) -> str | None:
    # Square brackets would be taken for styles.
    return "\n\n".join(["Examples:", *(line.replace("[", "\\[") for line in lines)]) if lines else None


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"catkit-devices {version('catkit-devices')}")
        raise typer.Exit


def _general(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show tracebacks; may be anywhere on the command line.")] = False,
) -> None:
    """Laboratory instruments shared by many programs."""


class _Commands(TyperGroup):
    """The built-in commands, and those of plugins.

    Plugins are loaded only for a command that is not built in, and for the list of all.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(self._from_plugins().commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        return command if command is not None else self._from_plugins().commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        # A command line that is wrong fails before the option is parsed.
        ctx.meta[_JSON] = _JSON in args[: args.index("--") if "--" in args else None]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        json_printed.set(False)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # some versions of click, on which typer builds, turn it into code 1
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BaseException as error:
            if ctx.meta[_JSON] and getattr(error, "exit_code", FAILED):
                print_failure(error)
            raise

    def _from_plugins(self) -> Any:
        from catkit_devices.drivers import Plugins

        application = typer.Typer()
        application.callback()(_general)
        Plugins().hook.catkit_devices_commands(cli=application)
        for command in application.registered_commands:
            name = command.name or getattr(command.callback, "__name__", "?")
            refuse_deferred(command.callback, f"the command {name!r} of a plugin")
        return typer.main.get_group(application)
