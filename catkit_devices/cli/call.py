"""``catkit-devices call``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from catkit_devices._base.paths import get_at
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName, check_file
from catkit_devices.cli.output import FAILED, console, print_json, reason_for_null
from catkit_devices.errors import DataError
from catkit_devices.readings import carried_unit, elements, is_masked

__all__ = ["EXAMPLES", "SETTINGS", "call"]

EXAMPLES = (
    "catkit-devices call wheel.home",
    "catkit-devices call tiptilt.move -3.5 2 --testbed bench",
    "catkit-devices call camera.frame --out frame.npy",
)
# A negative number is a value, not an option.
SETTINGS = {"ignore_unknown_options": True}

# These commands do not wait for the program that holds the device.
_OF_EVERY_DEVICE = ("make_safe", "reset")


def call(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE.COMMAND [ARGUMENT...]", show_default=False,
            autocompletion=devices_of_testbed, help="What to run, and its arguments: values, or name=value.",
        ),
    ],
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", show_default=False,
            help="Save what it returns: an array (.npy), or several (.npz).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a command of a device, and print what it returns.

    Besides its own commands every device has make_safe and, for a device in FAULT, reset. make_safe opens the device
    if it is closed; if it cannot be opened, that is an error.

    The device belongs to a running testbed, or to one that is started from --config for this alone; that one makes
    its devices safe and closes them when it is done.
    """
    from catkit_devices.cli.attaching import attach_or_start, without_exit
    from catkit_devices.cli.words import arguments, description_of, member_of, split, text_of

    target = split(words)
    if out is not None:
        check_file("--out", out, _FILES)
    failure: DataError | None = None
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        device = client.devices[target.device]
        description = description_of(device, target.member)
        command = str(target.member)
        result: Any = None
        if command in _OF_EVERY_DEVICE:
            arguments(target.rest, command, {"signature": "()", "parameters": {}})
            if command == "make_safe" and device.state == "closed":
                # make_safe sends nothing to a closed device; but the caller believes that the instrument may be on, so
                # open it first.
                with device.lock(timeout=timeout):
                    device.open()
            getattr(device, command)()
        else:
            command, facts = member_of(description, "commands", target.member)
            positional, named = arguments(target.rest, command, facts)
            with device.lock(timeout=timeout), without_exit(f"device {description['name']!r}: {command}"):
                result = get_at(device, command)(*positional, **named)
    if out is not None:
        try:
            _save(result, out)
        except DataError as error:  # raised when the result has been printed, which may be lost otherwise
            failure = error
    if as_json:
        told = {} if failure is None else {"error": str(failure), "exit_code": FAILED}
        facts = {"device": description["name"], "command": command}
        print_json({**facts, "result": result, **reason_for_null(result), **told})
    elif result is not None:
        console().print(text_of(result), markup=False)
    if failure is not None:
        raise failure


_FILES = (".npy", ".npz")
"""What the result of a command can be saved as: one array, or several."""


def _save(result: Any, file: Path) -> None:
    """Write an array as .npy, or one or several as .npz."""
    import numpy as np

    problem = f"{file} is not written"
    single = _array(result, f"{problem}: what the command returned") if hasattr(result, "dtype") else None
    arrays = {}
    if single is None:
        parts = _parts(result)
        if parts is None:
            raise DataError(f"{problem}: the command returned no array but {type(result).__name__}")
        names = [name for name, _ in parts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{problem}: two of the arrays that the command returned are called {twice!r}")
        arrays = {name: _array(part, f"{problem}: {name!r}") for name, part in parts}
        if file.suffix.lower() == ".npy":
            raise DataError(f"{problem}: the command returned {len(arrays)} arrays: an .npz file can hold them")
    elif file.suffix.lower() == ".npz":
        arrays, single = {"arr_0": single}, None
    try:
        with file.open("wb") as stream:
            _save_several(stream, arrays) if single is None else np.save(stream, single)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error}") from error


def _save_several(stream: IO[bytes], arrays: Mapping[str, Any]) -> None:
    """Write arrays as ``numpy.savez`` does, which cannot take an array that has the name of one of its parameters."""
    import zipfile

    import numpy as np

    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _parts(result: Any) -> list[tuple[str, Any]] | None:
    """Return several arrays, and values that belong to them, by name; None if there is no array."""
    if isinstance(result, Mapping):
        parts = [(str(name), part) for name, part in result.items()]
    elif isinstance(result, tuple | list):
        names = getattr(result, "_fields", None) or [f"arr_{number}" for number in range(len(result))]
        parts = list(zip(names, result, strict=True))
    else:
        return None
    return parts if any(hasattr(part, "dtype") for _, part in parts) else None


def _array(value: Any, problem: str) -> Any:
    """Return a value as an array that a file can hold as it is."""
    import numpy as np

    if any(carried_unit(one) is not None for one in elements(value)):
        raise DataError(f"{problem} has a unit, which a file of arrays cannot hold")
    if is_masked(value):
        raise DataError(f"{problem} has masked elements, which a file of arrays cannot hold")
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = None
    if array is None or array.dtype.hasobject:
        raise DataError(f"{problem} is of class {type(value).__name__}, which a file of arrays cannot hold")
    return array
