"""What a run of an experiment records, and reading it back.

A run is a directory: what was configured, what ran where, the log of every process, and the data. :class:`Run` writes
one, :class:`RunReader` reads one, also while it is being written by another process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.datalog.exporting import export
    from catkit_devices.datalog.finding import RunSummary, find_run, find_runs, summarise
    from catkit_devices.datalog.logfile import LogFileHandler
    from catkit_devices.datalog.plotting import plot
    from catkit_devices.datalog.reader import RunReader
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
    "RunSummary",
    "Scalars",
    "Tag",
    "Value",
    "export",
    "find_run",
    "find_runs",
    "plot",
    "summarise",
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
    "RunSummary": "finding",
    "Value": "records",
    "export": "exporting",
    "find_run": "finding",
    "find_runs": "finding",
    "plot": "plotting",
    "summarise": "finding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
