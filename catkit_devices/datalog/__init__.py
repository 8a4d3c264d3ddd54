"""What a run of an experiment records, and reading it back.

A run is a directory: what was configured, what ran where, the log of every process, and the data. :class:`Run` writes
one, :class:`RunReader` reads one, even while another process is still writing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.datalog.exporting import export
    from catkit_devices.datalog.finding import find_run, find_runs, select_runs, summarise
    from catkit_devices.datalog.logfile import LogFileHandler
    from catkit_devices.datalog.notes import Note, Notes, add_note, read_notes, set_star
    from catkit_devices.datalog.plotting import plot
    from catkit_devices.datalog.reader import RunReader
    from catkit_devices.datalog.records import Arrays, Curve, Event, Figure, Fits, Scalars, Tag, Value
    from catkit_devices.datalog.run import Run
    from catkit_devices.datalog.summaries import RunSummary

__all__ = [
    "Arrays",
    "Curve",
    "Event",
    "Figure",
    "Fits",
    "LogFileHandler",
    "Note",
    "Notes",
    "Run",
    "RunReader",
    "RunSummary",
    "Scalars",
    "Tag",
    "Value",
    "add_note",
    "export",
    "find_run",
    "find_runs",
    "plot",
    "read_notes",
    "select_runs",
    "set_star",
    "summarise",
]

__getattr__ = importing(
    __name__,
    {
        "exporting": ("export",),
        "finding": ("find_run", "find_runs", "select_runs", "summarise"),
        "logfile": ("LogFileHandler",),
        "notes": ("Note", "Notes", "add_note", "read_notes", "set_star"),
        "plotting": ("plot",),
        "reader": ("RunReader",),
        "records": ("Arrays", "Curve", "Event", "Figure", "Fits", "Scalars", "Tag", "Value"),
        "run": ("Run",),
        "summaries": ("RunSummary",),
    },
)
