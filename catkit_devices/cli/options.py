"""Options that several commands have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices._base.timeouts import LONGEST_TIMEOUT
from catkit_devices.cli import completion
from catkit_devices.cli.output import keep_stdout_for_json

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "ConfigFiles",
    "Follow",
    "Json",
    "MutexTimeout",
    "OneRun",
    "Overrides",
    "RunningTestbed",
    "Runs",
    "RunsKept",
    "Simulate",
    "Since",
    "TestbedName",
    "check_file",
    "seconds_option",
    "words_again",
]


def seconds_option(name: str, least: float, description: str) -> Any:
    """Return an option that takes a number of seconds, from ``least`` to as many as the system can wait."""
    return typer.Option(
        name, metavar="SECONDS", min=least, max=LONGEST_TIMEOUT, callback=_a_number, help=description
    )  # fmt: skip


def _a_number(given: float) -> float:
    if math.isnan(given):  # NaN is neither above nor below any limit
        raise typer.BadParameter("nan is not a number of seconds.")
    return given


ConfigFiles = Annotated[
    list[Path],
    typer.Option(
        "--config", "-c", metavar="FILE", envvar="CATKIT_DEVICES_CONFIG", show_default=False,
        help="Configuration of the testbed (TOML); may be repeated, later files override earlier ones.",
    ),
]  # fmt: skip
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", show_default=False,
        help='Override one key of the configuration, such as devices.wheel.server="slow"; may be repeated.',
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", callback=keep_stdout_for_json, help="Print JSON, and nothing else, on stdout.")
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", show_default=False,
        help="All from then on: 90s, 10m, 6h, 2d, 3w ago, or a date and time, local time.",
    ),
]  # fmt: skip
Runs = Annotated[
    Path | None,
    typer.Option(
        "--runs", metavar="DIR", envvar="CATKIT_DEVICES_RUNS", show_default=False,
        help="Where to keep the run directories.",
    ),
]  # fmt: skip
RunsKept = Annotated[
    Path,
    typer.Option("--runs", metavar="DIR", envvar="CATKIT_DEVICES_RUNS", help="Where the run directories are kept."),
]
TestbedName = Annotated[
    str | None,
    typer.Option(
        "--testbed", "-t", metavar="NAME", envvar="CATKIT_DEVICES_TESTBED", show_default=False,
        autocompletion=completion.running,
        help="A running testbed; by default the one of --config, else the only one that runs.",
    ),
]  # fmt: skip
RunningTestbed = Annotated[
    str | None,
    typer.Argument(
        metavar="TESTBED", envvar="CATKIT_DEVICES_TESTBED", show_default=False, autocompletion=completion.running,
        help="A running testbed; by default the one of --config, else the only one that runs.",
    ),
]  # fmt: skip
Simulate = Annotated[
    bool | None,
    typer.Option("--simulate/--hardware", show_default=False, help="Use simulated instruments, or real ones."),
]
MutexTimeout = Annotated[float, seconds_option("--timeout", 0.0, "How long to wait for the device to be free.")]
OneRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, autocompletion=completion.runs_kept,
        help="A run: its path, its name, or 'last' for the newest.",
    ),
]  # fmt: skip


def check_file(option: str, file: Path, endings: Collection[str]) -> None:
    """Raise ConfigurationError if a file cannot be written later, when what is to be in it cannot be got again."""
    from catkit_devices.errors import ConfigurationError

    if file.suffix.lower() not in endings:
        raise ConfigurationError(
            f"{option}: expected a file name that ends in {' or '.join(endings)}, got {str(file)!r}"
        )
    if not file.parent.is_dir():
        raise ConfigurationError(f"{option} {file}: there is no directory {str(file.parent)!r}")


def words_again(configs: list[Path], overrides: list[str], simulate: bool | None, runs: Path | None) -> list[str]:
    """Return the words of a command line with these options, for another process of this program."""
    words = [word for config in configs for word in ("--config", str(config))]
    words += [word for override in overrides for word in ("--set", override)]
    if simulate is not None:
        words.append("--simulate" if simulate else "--hardware")
    if runs is not None:
        words += ["--runs", str(runs)]
    return words
