"""Messages of the servers and of the safety monitor: brought to the testbed's process, and into the log of every run.

They must not write to the terminal, and each of their messages belongs in the log of every run that is going on at that
time. A record with an ``event`` (and ``facts``) tells of something that happened, such as a device that was opened: it
is kept with the runs as an event, and plugins are told.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.processes.audit import sentence
from catkit_devices.testbed.trip import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from catkit_devices.testbed.processes.log_files import LogFiles

__all__ = ["AUDIT", "MESSAGES", "LogCollector", "Say", "forward_logs", "report", "send_entries"]

MESSAGES = "messages"
"""Name of the shared dictionary with the newest messages, under the key ``newest``."""

Say = Callable[[int, str, str | None, dict[str, Any], float | None], None]
"""Writes down what happened: level, text, kind of event (None: just a message), facts, when (None: now)."""

AUDIT = "audit"
"""What the lines of the audit trail have in the log in the place of the name of a logger."""
_QUEUE = "log"
"""Name of the queue of log records on the testbed's server."""
_LAST_TIMEOUT = 10.0
"""Seconds for the last records to be written when the testbed ends."""
_KEPT = 20
"""How many messages are shown."""
_NO_EVENT_OF_A_RUN = frozenset({"device_closed", "device_opened", "experiment_finished", "experiment_started"})
"""Events that are in the log of a run, but not in its data."""


class _Forwarder(logging.Handler):
    """Passes records to a thread, because the thread that logs may hold locks that a call to a server needs."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        threading.Thread(target=self._forward, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put(_as_text(record, self))

    def _forward(self) -> None:
        records = None
        while True:
            record = self._records.get()
            try:
                if records is None:
                    manager = SharedMemoryManager(self._server)
                    manager.connect()
                    records = manager.get_queue(_QUEUE)
                records.put(record)
            except UNREACHABLE:
                if logging.lastResort is not None and record.levelno >= logging.WARNING:
                    # The testbed's process has ended, so it is written to the terminal.
                    logging.lastResort.handle(record)


def _as_text(record: logging.LogRecord, handler: logging.Handler) -> logging.LogRecord:
    """Return the record with its final text, because its arguments may not be picklable."""
    record.msg = handler.format(record)
    record.args = record.exc_info = record.exc_text = record.stack_info = None
    return record


def forward_logs(server: str) -> None:
    """Send what this process logs, by whatever logger, to the testbed's process from now on.

    Args:
        server: name of the testbed's server.
    """
    # The root logger: drivers of installed packages and the vendors' libraries have loggers of their own names.
    logger = logging.getLogger()
    logger.addHandler(_Forwarder(server))
    logger.setLevel(logging.INFO)


def report(manager: SharedMemoryManager, text: str, event: str, facts: dict[str, Any]) -> None:
    """Tell the testbed's process of something that happened; for processes that do not forward their logs."""
    manager.get_queue(_QUEUE).put(_record(logging.INFO, text, event, facts))


def send_entries(server: str, entries: list[dict[str, Any]]) -> None:
    """Send entries of the audit trail to the testbed's process.

    Args:
        server: name of the testbed's server.
        entries: as :func:`catkit_devices.testbed.processes.audit.entry` makes them.
    """
    manager = SharedMemoryManager(server)
    manager.connect()
    manager.get_queue(_QUEUE).put(entries)


class LogCollector:
    """Takes the log records of the other processes of a testbed, for the log of each run and for this process's log.

    Args:
        manager: of the testbed's server.
        files: the testbed's log and audit trail; None for none.
        runs: tells the directories of the runs that went on at a time, in seconds since 1970 UTC.
        on_event: called with the kind and the facts of everything that happened.
    """

    def __init__(
        self,
        manager: SharedMemoryManager,
        runs: Callable[[float], Iterable[Path]],
        on_event: Callable[[str, dict[str, Any]], None],
        files: LogFiles | None = None,
    ) -> None:
        self._files = files
        self._queue = manager.get_queue(_QUEUE)
        self._messages = manager.get_dict(MESSAGES)
        self._newest: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._runs = runs
        self._on_event = on_event
        self._guard = threading.Lock()
        self._incomplete: set[Path] = set()
        """The runs whose log has lost records."""
        self._thread = threading.Thread(target=self._collect, name="log", daemon=True)
        self._thread.start()

    def say(
        self,
        level: int,
        text: str,
        event: str | None = None,
        facts: dict[str, Any] | None = None,
        at: float | None = None,
    ) -> None:
        """Write down what happened in this process as well."""
        record = _record(level, text, event, facts or {})
        if at is not None:
            record.created, record.msecs = at, at % 1 * 1000
        self._keep(record)

    def end(self) -> None:
        """Take the records that have arrived, within a limited time, and end."""
        try:
            self._queue.put(None)
        except UNREACHABLE:
            return  # the server is gone, and the thread with it
        self._thread.join(_LAST_TIMEOUT)

    def _collect(self) -> None:
        while True:
            try:
                record = self._queue.get()
            except UNREACHABLE:
                return
            if record is None:
                return
            if isinstance(record, list):
                self.audit(record)
            else:
                self._keep(record)

    def audit(self, entries: list[dict[str, Any]]) -> None:
        """Write entries of the audit trail, and the same in words into the log."""
        if self._files is not None:
            self._files.audit(entries)
            for one in entries:
                self._files.log(_record(logging.INFO, sentence(one), None, {}, AUDIT))

    def _keep(self, record: logging.LogRecord) -> None:
        if self._files is not None:
            self._files.log(record)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
        event: str | None = getattr(record, "event", None)
        facts: dict[str, Any] = getattr(record, "facts", {})
        _write(record, event, facts, self._runs(record.created), self._tell_once)
        if event is not None:
            self._on_event(event, facts)
        if record.levelno >= logging.WARNING or record.name == __name__:
            self._show(record)

    def _tell_once(self, run: Path, text: str) -> None:
        """Tell that the log of a run is incomplete, once for each run."""
        if run not in self._incomplete:
            self._incomplete.add(run)
            record = _record(logging.WARNING, text, None, {})
            logging.getLogger(record.name).handle(record)
            self._show(record)

    def _show(self, record: logging.LogRecord) -> None:
        message = {
            "time": record.created, "level": record.levelname, "source": record.processName, "text": record.getMessage()
        }  # fmt: skip
        with self._guard:
            self._newest.append(message)
            try:
                self._messages["newest"] = list(self._newest)
            except UNREACHABLE:
                return  # the testbed's server has ended, and with it all displays


def _record(level: int, text: str, event: str | None, facts: dict[str, Any], name: str = __name__) -> logging.LogRecord:
    logger = logging.getLogger(__name__)
    extra = {"event": event, "facts": facts} if event is not None else {}
    return logger.makeRecord(name, level, __file__, 0, text, (), None, extra=extra)


def _write(
    record: logging.LogRecord,
    event: str | None,
    facts: dict[str, Any],
    runs: Iterable[Path],
    tell: Callable[[Path, str], None],
) -> None:
    """Add a record to the log of each run, and to its events.

    Args:
        record: what was logged.
        event: its kind, if it is one.
        facts: of the event.
        runs: the directories of the runs.
        tell: called with a run and a text, each time a record cannot be written into the log of the run.
    """
    from catkit_devices.datalog import Run
    from catkit_devices.datalog.logfile import FILE_NAME, LogFileHandler
    from catkit_devices.errors import DataError

    for run in runs:
        try:
            handler = LogFileHandler(run / FILE_NAME, tell=partial(tell, run))
        except OSError:
            continue  # a run whose directory is gone has no log to keep
        handler.handle(record)
        handler.close()
        if event is None or event in _NO_EVENT_OF_A_RUN:
            continue
        try:
            with Run.open(run) as opened:
                opened.log_event(event, record.getMessage(), at=record.created, **_plain(facts))
        except DataError as error:
            logging.getLogger(__name__).warning("%s of run %s was not recorded: %s", event, run, error)


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts as values that JSON can hold; the names ``kind``, ``text`` and ``at`` are used by the run itself."""
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)
        for name, value in facts.items()
        if name not in {"at", "kind", "text"}
    }
