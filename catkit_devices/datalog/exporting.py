"""Writing a run into one file that other programs read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.datalog.reader import RunReader
from catkit_devices.errors import ConfigurationError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from catkit_devices.datalog.records import Tag

__all__ = ["FORMATS", "export"]

FORMATS = {
    ".h5": "to_hdf5", ".hdf5": "to_hdf5", ".fits": "to_fits", ".fit": "to_fits", ".csv": "to_csv",
}  # fmt: skip
"""The format of a file, by the ending of its name: the module that writes it."""


def export(
    run: str | os.PathLike[str] | RunReader,
    file: str | os.PathLike[str],
    *,
    tags: Sequence[str] = (),
    replace: bool = False,
) -> list[str]:
    """Write the records of a run, finished or not, into an HDF5, FITS or CSV file; the file's ending decides.

    HDF5 (needs h5py) and FITS (needs astropy) hold everything, with units, times, configuration and log; CSV holds the
    scalars, a line for each: time, tag, value, unit. The file appears complete or not at all.

    Args:
        run: the run's directory, or a reader of it.
        file: the file to write: ``.h5``, ``.hdf5``, ``.fits``, ``.fit`` or ``.csv``.
        tags: the tags to write; all by default.
        replace: whether a file that exists is replaced.

    Returns:
        What this format cannot hold and was left out, as sentences; mostly empty.

    Raises:
        ConfigurationError: for another ending, a tag that nothing was logged under, or a library that is missing.
        DataError: the file exists or cannot be written, or the run cannot be read.
    """
    target = Path(file)
    module = FORMATS.get(target.suffix.lower())
    if module is None:
        raise ConfigurationError(f"{target}: expected a file name that ends in {', '.join(FORMATS)}")
    try:
        exists = bool(target.lstat())
    except OSError:
        exists = False
    except ValueError as error:
        raise DataError(f"{str(target)!r} cannot be the name of a file: {error}") from error
    if exists and not replace:
        raise DataError(f"{target} exists already: to replace it, say replace=True or --replace")
    write = _writer(module)
    with contextlib.ExitStack() as stack:
        reader = run if isinstance(run, RunReader) else stack.enter_context(RunReader(run))
        selected = _selected(reader, tags)
        temporary = stack.enter_context(_beside(target))
        try:
            left_out = write(reader, selected, temporary)
            temporary.replace(target)
        except OSError as error:
            # Not str(error), which would name the temporary file.
            raise DataError(f"{target} cannot be written: {error.strerror or error}") from error
    return left_out


def _writer(module: str) -> Callable[[RunReader, list[Tag], Path], list[str]]:
    if module == "to_hdf5":
        from catkit_devices.datalog.to_hdf5 import write
    elif module == "to_fits":
        from catkit_devices.datalog.to_fits import write
    else:
        from catkit_devices.datalog.to_csv import write
    return write


def _selected(reader: RunReader, tags: Sequence[str]) -> list[Tag]:
    known = reader.tags()
    if not tags:
        return known
    names = {tag.tag for tag in known}
    for tag in tags:
        if tag not in names:
            raise ConfigurationError(
                f"run {reader.path}: nothing was logged as {tag!r}", suggestion=nearest(tag, names)
            )
    return [tag for tag in known if tag.tag in tags]


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a name for a temporary file in the same directory, and remove that file afterwards."""
    temporary = target.with_name(f".{target.stem}-{os.getpid()}{target.suffix}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # it has its final name by now, or was never made
            temporary.unlink()
