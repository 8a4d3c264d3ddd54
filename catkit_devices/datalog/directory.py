"""The directory of a run: its name, and the files that describe the run."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog import database
from catkit_devices.datalog.filesystem import refuse_network
from catkit_devices.datalog.values import from_json, to_json
from catkit_devices.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONFIGURATION",
    "INFORMATION",
    "SETTINGS",
    "make_directory",
    "read_description",
    "write_description",
    "write_settings",
]

INFORMATION = "run.json"
"""The file that says what ran, in the directory of a run."""
CONFIGURATION = "configuration.json"
"""The file with the configuration of the testbed."""
SETTINGS = {"start": "settings-start.json", "end": "settings-end.json"}
"""The files with the settings of the devices, as they were at the start and at the end of a run."""

_TEXTS = ("name", "started")
"""What every run has in ``run.json``, as text."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""Names of directories that every file system takes, and that no shell has to quote."""


def make_directory(root: Path, name: str, directory: str | None) -> tuple[Path, dt.datetime]:
    """Make the directory of a new run; no two runs get the same one.

    Args:
        root: where runs are kept; made when it is not there.
        name: what ran: letters, digits and ``._+-``.
        directory: the directory's exact name, of the same characters; by default time (UTC) and name.

    Returns:
        The directory and when the run started.

    Raises:
        DataError: it exists, cannot be made, or would be on a network file system.
    """
    for what, one in (("name", name), ("directory", name if directory is None else directory)):
        if not isinstance(one, str) or not _NAME.fullmatch(one):
            raise DataError(
                f"a run's {what} must be letters, digits and ._+-, the first a letter or a digit, got {one!r}"
            )
    try:
        refuse_network(root)
        root.mkdir(parents=True, exist_ok=True)
        while True:
            started = dt.datetime.now(dt.UTC)
            stamp = f"{started:%Y%m%dT%H%M%S}.{started.microsecond // 1000:03d}Z"
            path = root / (f"{stamp}_{name}" if directory is None else directory)
            try:
                path.mkdir()
            except FileExistsError as error:
                if directory is None:
                    continue  # another run began in this millisecond: the next millisecond gives another name
                raise DataError(
                    f"run directory {path} exists already: a run never writes into the directory of another run"
                ) from error
            return path, started
    except (OSError, ValueError) as error:  # no name that a directory can have
        raise DataError(f"run {name!r}: no directory can be made in {str(root)!r}: {error}") from error


def write_description(path: Path, information: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
    """Write what the run is and what it was configured with.

    Raises:
        DataError: they cannot be written, or hold something that JSON cannot express.
    """
    for file_name, content in ((INFORMATION, information), (CONFIGURATION, configuration)):
        text = to_json(content, f"run {path}: {file_name}", anything=file_name == INFORMATION)
        try:
            (path / file_name).write_text(_indented(text), encoding="utf-8")
        except OSError as error:
            raise database.explain(error, path, f"{file_name} cannot be written") from error


def write_settings(path: Path, when: str, settings: Mapping[str, Any]) -> None:
    """Write the settings of the devices, as they are now.

    Args:
        path: the directory of the run.
        when: ``start`` or ``end``.
        settings: of the devices.

    Raises:
        DataError: they cannot be written.
    """
    if when not in SETTINGS:
        raise DataError(f"run {path}: settings are kept at the {' or '.join(SETTINGS)} of a run, got {when!r}")
    file = path / SETTINGS[when]
    text = to_json(settings, f"run {path}: {file.name}", anything=True)
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_text(_indented(text), encoding="utf-8")
        partial.replace(file)  # a reader sees the whole file or none
    except OSError as error:
        raise database.explain(error, path, f"{file.name} cannot be written") from error


def read_description(path: Path, file_name: str) -> dict[str, Any]:
    """Read one of the files that :func:`write_description` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        content = from_json((path / file_name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a run: it has no {file_name}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"run {path}: {file_name} cannot be read: {error}") from error
    texts = _TEXTS if file_name == INFORMATION else ()
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in texts):
        expected = f" with the texts {' and '.join(texts)}" if texts else ""
        raise DataError(f"run {path}: {file_name} is damaged: expected a JSON object{expected}")
    return content


def _indented(text: str) -> str:
    import json

    return json.dumps(json.loads(text), indent=2, ensure_ascii=text.isascii()) + "\n"
