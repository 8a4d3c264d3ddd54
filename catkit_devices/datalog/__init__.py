"""What a run of an experiment records, and reading it back.

A run is a directory: what was configured, what ran where, the log of every process, and the data. :class:`Run` writes
one, :class:`RunReader` reads one, also while it is being written by another process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.datalog.logfile import LogFileHandler
    from catkit_devices.datalog.reader import RunReader, find_runs
    from catkit_devices.datalog.records import Arrays, Curve, Event, Figure, Fits, Scalars, Tag, Value
    from catkit_devices.datalog.run import Run

__all__ = [
    "Arrays",
    "Curve",
    "Event",
    "Figure",
    "Fits",
    "LogFileHandler",
    "Run",
    "RunReader",
    "Scalars",
    "Tag",
    "Value",
    "find_runs",
]

_HOME = {
    "Arrays": "records",
    "Curve": "records",
    "Event": "records",
    "Figure": "records",
    "Fits": "records",
    "LogFileHandler": "logfile",
    "Run": "run",
    "RunReader": "reader",
    "Scalars": "records",
    "Tag": "records",
    "Value": "records",
    "find_runs": "reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
