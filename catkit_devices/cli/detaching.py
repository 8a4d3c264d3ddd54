"""Starting a testbed, or a run, that outlives the terminal it was started from."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from catkit_devices.errors import DataError, ServerUnresponsiveError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["keep_short", "shorten", "start_in_background", "tell"]

_PAUSE = 0.05
"""Seconds between two looks at what the process says, and whether it has ended."""
_END_TIMEOUT = 30.0
"""Seconds for the process to end after SIGTERM; then it is killed."""
_SIZE = 10_000_000
"""Bytes of the file with what such a process and its children print; more goes to old files, ``.1``, ``.2`` ..."""
_OLD = 9
"""How many old files are kept."""
_LOOK = 30.0
"""Seconds between two looks how long the file is."""


def tell(file: Path, facts: Mapping[str, Any]) -> None:
    """Write the file that tells the waiting parent that this process is ready; it never appears in part."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(dict(facts)), encoding="utf-8")
    partial.replace(file)


def keep_short(log: Path) -> None:
    """Keep the file that this process and its children print to from growing for ever, in a thread of its own."""

    def go_on() -> None:
        while True:
            time.sleep(_LOOK)
            shorten(log)

    threading.Thread(target=go_on, name="log size", daemon=True).start()


def shorten(log: Path) -> None:
    """Move what is in a file to an old one, if it has become too long.

    Several processes have the file open, so it is copied and emptied, and not renamed. A line that is printed just
    between may be lost. If that is not possible (the disk is full), the file goes on growing.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= _SIZE:
            return
        old = [log.with_name(f"{log.name}.{number}") for number in range(1, _OLD + 1)]
        for newer, older in zip(reversed(old[:-1]), reversed(old[1:]), strict=True):
            if newer.exists():
                newer.replace(older)
        shutil.copyfile(log, old[0])
        os.truncate(log, 0)


def start_in_background(arguments: Sequence[str], log: Path, timeout: float, what: str) -> dict[str, Any]:
    """Run ``catkit-devices`` in a process of its own that no terminal ends, and return when it is ready.

    Args:
        arguments: of the command line; with ``--announce FILE`` behind them it tells when it is ready.
        log: the file to which it appends its output.
        timeout: seconds that it has to be ready; it is ended if it is not.
        what: is started, for messages.

    Returns:
        What it tells.

    Raises:
        DataError: the log cannot be written.
        ServerUnresponsiveError: it was not ready in time.
        typer.Exit: it failed, with its exit code; its output is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="catkit-devices-") as directory:
        ready = Path(directory) / "ready.json"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            shorten(log)
            with log.open("ab") as output:
                before = output.tell()
                process = _spawn([*arguments, "--announce", str(ready)], output)
        except OSError as error:
            raise DataError(f"{log} cannot be written: {error}") from error
        try:
            facts = _wait(process, ready, log, before, timeout, what)
        except BaseException:
            _end(process)
            raise
    process.returncode = 0  # the child continues after this process has ended; no warning about that is wanted
    return facts


def _wait(
    process: subprocess.Popen[bytes], ready: Path, log: Path, before: int, timeout: float, what: str
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while not ready.exists():
        if process.poll() is not None:
            with log.open("rb") as said:
                said.seek(before)
                sys.stderr.write(said.read().decode("utf-8", "replace"))
            raise typer.Exit(process.returncode or 1)
        if time.monotonic() > deadline:
            raise ServerUnresponsiveError(f"{what} was not ready in {timeout:g} s; see {log}", pid=process.pid)
        time.sleep(_PAUSE)
    facts: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
    return facts


def _spawn(arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "catkit_devices", *arguments]
    if os.name == "posix":
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, creationflags=flags)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
