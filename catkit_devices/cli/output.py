"""What commands print: tables and errors for people, JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer

from catkit_devices.errors import (
    ConfigurationError,
    MutexTimeoutError,
    SafetyError,
    ServerNotFoundError,
    ServerUnresponsiveError,
)
from catkit_devices.plain import plain, plain_json, reason_for_null

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from catkit_devices.testbed.layout import Layout

__all__ = [
    "code_of",
    "console",
    "end_of_testbed",
    "exit_code",
    "json_printed",
    "keep_stdout_for_json",
    "plain_json",
    "print_failure",
    "print_json",
    "print_long_table",
    "print_table",
    "reason_for_null",
    "report",
    "short",
    "silent",
    "table",
    "warn",
]

# Exit codes.
FAILED = 1  # a run or an operation
USAGE = 2  # the command line or the configuration is wrong
NOT_RUNNING = 3  # there is no such testbed
TRIPPED = 4  # safety
BUSY = 5  # somebody else had the device for too long
SILENT = 6  # a part of the testbed does not answer
INTERRUPTED = 130  # Ctrl-C, as shells have it: 128 plus the number of SIGINT

_CODES = (
    (ConfigurationError, USAGE),
    (ServerNotFoundError, NOT_RUNNING),
    (MutexTimeoutError, BUSY),
    (ServerUnresponsiveError, SILENT),
)
"""The exit code of each error; the first that fits counts."""


def console(*, stderr: bool = False) -> Console:
    """Return where to print for people; colours only on a terminal, and no lines cut or broken elsewhere."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=10_000, soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the style of all our tables; a column whose name begins with ``#`` holds numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith("#") else "left"
        made.add_column(column.removeprefix("#"), justify=justify, overflow="fold")
    return made


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table; None shows as an empty cell."""
    from rich.text import Text

    made = table(title, *columns)
    for row in rows:
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console().print(made)


def print_long_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table of many rows, each in one line: fast, and not fitted to the width of the terminal."""
    numbers = [column.startswith("#") for column in columns]
    heading = [column.removeprefix("#") for column in columns]
    lines = [["" if cell is None else _printable(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heading, *lines, strict=True)]
    sys.stdout.write(f"{_printable(title)}\n")
    for line in (heading, ["-" * width for width in widths], *lines):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numbers, strict=True)
        )
        sys.stdout.write("   ".join(cells).rstrip() + "\n")


def end_of_testbed(name: str, layout: Layout) -> None:
    """Say on a terminal what became of the devices of a testbed that has ended in good order, and where its data is."""
    out = console(stderr=True)
    if out.is_terminal:
        silent = [entry.name for entry in layout.devices if not entry.says_how_safe]
        text = f"testbed {name!r} has ended: every device that was used was made safe and closed"
        if silent:
            text += f" (closed only, nothing says how they are made safe: {', '.join(silent)})"
        out.print(f"{text}; its runs and logs are in {short(layout.runs)}", markup=False)


def short(path: str | Path) -> str:
    """Return a path as one would type it here: relative to the current directory if it is inside of it."""
    absolute = Path(path).absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON on stdout; arrays as lists, and values that JSON does not have as text.

    A number that is no measurement (NaN, infinity, and what stands for them) is ``null``: JSON knows none of them, and
    a script that reads one must not take it for measured.

    Args:
        value: what to print.
        one_line: whether on one line, for those who read line by line.
    """
    made, indent = plain(value), None if one_line else 2
    text = json.dumps(made, indent=indent, ensure_ascii=False, allow_nan=False)
    out = _for_json.get() or sys.stdout
    try:
        text.encode(out.encoding or "utf-8")
    except UnicodeEncodeError:  # half of a pair of surrogates, or a terminal that has only ASCII
        text = json.dumps(made, indent=indent, allow_nan=False)
    out.write(text + "\n")
    out.flush()
    if not one_line:
        json_printed.set(True)


def print_failure(error: BaseException, **facts: Any) -> None:
    """Print as JSON, on one line, that the command has failed; nothing if its own JSON, which says so, is printed.

    Args:
        error: why it has failed.
        **facts: what else is known.
    """
    if json_printed.get():
        return
    own = getattr(error, "exit_code", None)  # of a wrong command line, or of a command that has said why itself
    if isinstance(error, KeyboardInterrupt):
        text, code = "interrupted", INTERRUPTED
    elif isinstance(own, int):
        message = getattr(error, "format_message", None)
        text, code = message() if message is not None else f"exit code {own}: stderr says why", own
    else:
        text, code = "\n".join(dict.fromkeys(_texts(error))), exit_code(list(_failures(error)))
    with contextlib.suppress(OSError):  # nobody reads it any more
        print_json({**facts, "error": text, "exit_code": code}, one_line=True)
    json_printed.set(True)


def keep_stdout_for_json(context: typer.Context, wanted: bool) -> bool:
    """Have nothing but JSON on stdout, if that is wanted, until the command has ended.

    What this process and its children (experiments, device servers) write to stdout meanwhile goes to stderr, from
    Python or from a vendor's library: otherwise a script could not parse the JSON between other output.
    """
    if wanted and not context.resilient_parsing:
        out = sys.stdout
        if _is_descriptor(out, 1) and _is_descriptor(sys.stderr, 2):
            out.flush()
            out = context.with_resource(os.fdopen(os.dup(1), "w", encoding=out.encoding, errors=out.errors))
            os.dup2(2, 1)
            context.call_on_close(partial(_give_back, out))
        else:  # a test or a notebook has put something else in its place
            context.with_resource(contextlib.redirect_stdout(sys.stderr))
        before = _for_json.set(out)
        context.call_on_close(partial(_for_json.reset, before))
    return wanted


_for_json: ContextVar[TextIO | None] = ContextVar("_for_json", default=None)
"""Where JSON is printed while stdout is kept for it."""
json_printed: ContextVar[bool] = ContextVar("json_printed", default=False)
"""Whether the command has printed its JSON document; lines of a command that prints line by line do not count."""


def _is_descriptor(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):  # there is none, or none of the system's, or it is closed
        return False


def _give_back(out: TextIO) -> None:
    sys.stdout.flush()
    os.dup2(out.fileno(), 1)


def code_of(status: dict[str, Any]) -> int:
    """Return the exit code for a testbed's status: whether it has tripped, or a part of it does not answer.

    A device that is not known to be safe counts as a trip.
    """
    if status["safety"]["tripped"]:
        return SILENT if status["state"] == "silent" else TRIPPED
    if status["silent"]:
        return SILENT
    return TRIPPED if status["safety"]["not_safe"] else 0


def silent(status: dict[str, Any]) -> list[str]:
    """Return a sentence about each process of a testbed that does not answer."""
    from catkit_devices.testbed.processes.talk import for_seconds

    found = []
    for one in status["silent"]:
        pid = f" (pid {one['pid']})" if one["pid"] else ""
        since = "it is gone" if one["seconds"] is None else f"no news for {for_seconds(one['seconds'])}"
        found.append(f"{one['what']}{pid} does not answer: {since}")
    return found


def warn(text: str) -> None:
    """Print one line on stderr that begins with ``warning:``."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("warning: ", "yellow"), text))


def report(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what failed, and return the exit code for it.

    One panel on a terminal, plain lines elsewhere; tracebacks only with ``debug``.
    """
    from rich.text import Text

    if debug:
        traceback.print_exception(error)
    failures = list(_failures(error))
    texts = list(dict.fromkeys(_texts(error)))
    out = console(stderr=True)
    if out.is_terminal:
        from rich.panel import Panel

        out.print(Panel(Text("\n".join(texts)), title="error", title_align="left", border_style="red", padding=(0, 1)))
    else:
        for text in texts:
            out.print(Text(f"error: {text}"))
    return exit_code(failures)


def exit_code(failures: Sequence[BaseException]) -> int:
    """Return the exit code for what failed."""
    if any(isinstance(failure, SafetyError) for failure in failures):
        return TRIPPED
    for kind, code in _CODES:
        if all(isinstance(failure, kind) for failure in failures):
            return code
    return FAILED


def _failures(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _failures(inner)
    else:
        yield error


def _texts(error: BaseException) -> Iterator[str]:
    """Return the text of an error: of a group its own message first, and then that of each of its errors."""
    if not isinstance(error, BaseExceptionGroup):
        yield _text(error)
        return
    yield _with_notes(error.message, error)
    for inner in error.exceptions:
        yield from _texts(inner)


def _text(error: BaseException) -> str:
    from catkit_devices.errors import CatkitDevicesError

    text = str(error)
    if not isinstance(error, CatkitDevicesError):
        # An exception of a user's own class: the name of the class and the place are part of the message.
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text += _place(error)
    return _with_notes(text, error)


def _with_notes(text: str, error: BaseException) -> str:
    # Notes that repeat the message are left out.
    return _printable("\n".join([text, *(note for note in getattr(error, "__notes__", []) if text not in note)]))


def _printable(text: str) -> str:
    """Return a text with the control sequences of terminals escaped, so that they are shown and not carried out."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


def _place(error: BaseException) -> str:
    """Return where it was raised, in the innermost code that is neither Python's nor an installed library's."""
    import sysconfig

    libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))] or frames
    return f" (at {own[-1].filename}:{own[-1].lineno} in {own[-1].name}; --debug shows more)" if own else ""
