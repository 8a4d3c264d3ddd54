"""The audit trail: who has set, called, broken, reset or stopped what, and when.

Each server of a testbed notes what changes a device, or takes a mutex away, after it was done. Noting takes about a
microsecond and waits for nothing; a thread sends what was noted to the testbed's process, which writes it down. Reads
are not noted. What a server has noted in the last fraction of a second is lost when it is killed.
"""

from __future__ import annotations

import datetime as dt
import enum
import logging
import math
import threading
import time
from collections import deque
from multiprocessing import util
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["Trail", "entry", "sentence"]

_PAUSE = 0.2
"""Seconds between two looks at what was noted."""
_WINDOW = 10.0
"""Seconds in which equal operations of one owner are counted."""
_SINGLY = 20
"""How many of these are written one by one; the others of this time become one entry. While they go on like that, as in
a control loop, there is one entry for each ``_WINDOW``."""
_KEPT = 10_000
"""Entries that are kept while they cannot be sent; when there are more, the oldest are lost, and this is told."""
_LONGEST = 200
"""Characters of a text that are written."""
_FEW = 8
"""Items of a list that are written; of a longer one only how many there are."""
_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
"""Types of values that are noted as they are."""

_log = logging.getLogger(__name__)


_Noted = tuple[float, Any, str, str, str, tuple[Any, ...], dict[str, Any], str | None, int]
"""What is noted of a change: when, and the arguments of ``Trail.__call__``; an error as text."""


class _Array(NamedTuple):
    """What is noted of an array, whose values may be another program's soon."""

    dtype: Any
    shape: Any


class _Window:
    """What one owner has done again and again with one operation, in the last ``_WINDOW`` seconds."""

    def __init__(self, begun: float, singly: int) -> None:
        self.begun = begun
        self.singly = singly
        """How many more may be written one by one."""
        self.first: dict[str, Any] | None = None
        """The entry for the first of the others, and how many there are."""
        self.last: _Noted | None = None
        self.count = 0


class Trail:
    """Notes changes in the process of a server, and sends them on.

    Args:
        send: sends entries to the testbed's process; raises an error if that is not possible now.
    """

    def __init__(self, send: Callable[[list[dict[str, Any]]], object]) -> None:
        self._send = send
        self.noted: deque[tuple[Any, ...]] = deque()
        self._entries: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._windows: dict[tuple[Any, ...], _Window] = {}
        self._last: dict[tuple[str, str], tuple[int, Any]] = {}
        """What was set last, by device and property, with the epoch of the device."""
        self._guard = threading.Lock()
        util.Finalize(self, self._end, exitpriority=20)
        threading.Thread(target=self._go_on, name="audit trail", daemon=True).start()

    def __call__(
        self,
        call: Call,
        what: str,
        target: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException | None,
        epoch: int = 0,
    ) -> None:
        """Note one change; see :class:`catkit_devices.multiprocessing.protocol.AuditTrail`."""
        try:
            values = args if len(args) == 1 and type(args[0]) in _PLAIN else tuple(map(_brief, args))
            named = {key: _brief(value) for key, value in kwargs.items()} if kwargs else kwargs
            failure = None if error is None else in_one_line(error)
            self.noted.append((time.time(), call, what, target, name, values, named, failure, epoch))
        except Exception:  # noqa: BLE001 - values of a driver's own classes may raise anything when they are looked at
            _log.exception("%s.%s could not be noted in the audit trail", target, name)

    def _go_on(self) -> None:
        while True:
            time.sleep(_PAUSE)
            try:
                self.flush(time.time())
            except Exception:  # noqa: BLE001 - the thread must go on: it is the only one that writes the trail
                _log.exception("the audit trail could not be written; trying again")

    def flush(self, now: float) -> None:
        """Send what was noted.

        Args:
            now: in seconds since 1970 UTC: what has been going on for longer than ``_WINDOW`` is told.
        """
        with self._guard:
            while True:
                if not self.noted:
                    break
                self._take(self.noted.popleft())
            for key, window in list(self._windows.items()):
                if window.begun + _WINDOW <= now:
                    self._close(key, window)
            if not self._entries and not self._lost:
                return
            entries = list(self._entries)
            if self._lost:
                entries.insert(0, _gap(self._lost, now))
            try:
                self._send(entries)
            except Exception:  # noqa: BLE001 - the testbed's server may be stopped, or have ended
                while len(self._entries) > _KEPT:
                    self._entries.popleft()
                    self._lost += 1
                return
            self._entries.clear()
            self._lost = 0

    def _end(self) -> None:
        self.flush(math.inf)

    def _take(self, noted: _Noted) -> None:
        moment, call, what, target, name, _, _, error, _ = noted
        key = (call.owner.key, what, target, name, error)
        window = self._windows.get(key)
        if window is not None and window.begun + _WINDOW <= moment:
            window = self._close(key, window)
        if window is None:
            window = self._windows[key] = _Window(moment, _SINGLY)
        if window.singly > 0:
            window.singly -= 1
            self._entries.append(self._entry(noted))
            return
        if window.first is None:
            window.first = self._entry(noted)
        else:
            self._remember(noted)  # an entry for each would take longer than what a control loop does
        window.last = noted
        window.count += 1

    def _entry(self, noted: _Noted) -> dict[str, Any]:
        moment, call, what, target, name, args, kwargs, error, epoch = noted
        made = entry(call, what, target, name, args, kwargs, error=error, at=moment)
        before = self._last.get((target, name))
        if what == "set" and before is not None and before[0] == epoch:
            made["old"] = _plain(before[1])
        self._remember(noted)
        return made

    def _remember(self, noted: _Noted) -> None:
        _, _, what, target, name, args, _, error, epoch = noted
        if what == "set" and error is None:
            self._last[target, name] = (epoch, args[0])

    def _close(self, key: tuple[Any, ...], window: _Window) -> _Window | None:
        """End a window; return the next one, if the operation goes on in the same way."""
        del self._windows[key]
        if window.first is None or window.last is None:
            return None
        moment, call, what, target, name, args, kwargs, error, _ = window.last
        last = entry(call, what, target, name, args, kwargs, error=error, at=moment)
        told: dict[str, Any] = {key: last[key] for key in ("value", "arguments") if key in last}
        self._entries.append({**window.first, **told, "count": window.count, "until": last["time"]})
        following = self._windows[key] = _Window(window.begun + _WINDOW, 0)
        return following


def entry(
    call: Call,
    what: str,
    target: str,
    name: str = "",
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    reason: str = "",
    error: BaseException | str | None = None,
    at: float | None = None,
) -> dict[str, Any]:
    """Return one entry of the audit trail, as it is written; what is not known or empty is left out.

    Args:
        call: on whose behalf.
        what: was done: a participle.
        target: a device, a mutex, an experiment, ``safety``, ``the testbed``.
        name: of the operation.
        args: of the operation.
        kwargs: the same, by name.
        reason: that was given for it.
        error: why it failed.
        at: when, in seconds since 1970 UTC; None for now.
    """
    owner, session = call.owner, call.session
    made: dict[str, Any] = {
        "time": _utc(time.time() if at is None else at),
        "what": what,
        "target": target,
        "name": name,
    }
    kwargs = dict(kwargs or {})
    reason = reason or str(kwargs.pop("reason", "") or "")
    if what == "set" and len(args) == 1:
        made["value"] = _plain(args[0])
    elif what == "broke":
        made["holder"] = args[0]
    elif args or kwargs:
        made["arguments"] = [*map(_plain, args), *(f"{key}={_plain(value)}" for key, value in kwargs.items())]
    about = {
        "reason": reason,
        "error": error if error is None or isinstance(error, str) else in_one_line(error),
        "user": session.user,
        "terminal": session.terminal.removeprefix("/dev/"),
        "process": owner.process,
        "pid": owner.pid,
        "host": owner.host,
        "thread": owner.thread,
        "origin": owner.origin,
    }
    return {key: value for key, value in {**made, **about}.items() if key == "value" or value not in ("", None)}


def sentence(one: dict[str, Any]) -> str:
    """Return an entry of the audit trail as a sentence, for people."""
    if "missing" in one:
        return f"{one['missing']} entries are missing here: they could not be sent"
    name = f".{one['name']}" if one.get("name") else ""
    text = f"{one['target']}{name} "
    if one["what"] == "set":
        text += f"set to {one.get('value')!r}"
        if "old" in one:
            text += f" (it was set to {one['old']!r} before)"
    elif one["what"] == "broke":
        text = f"mutex {one['target']!r} taken from {one.get('holder')}"
    elif one["what"] == "called":
        text = f"{one['target']}{name}({', '.join(map(str, one.get('arguments', ())))}) called"
    else:
        text += one["what"]
    if "count" in one:
        text += f", {one['count']} times until {one['until']}"
    origin = f"{one['origin']}, " if one.get("origin") else ""
    where = f" on {one['terminal']}" if one.get("terminal") else ""
    user = f"{one['user']}{where}, " if one.get("user") else ""
    text += f" by {user}{one['process']!r} ({origin}pid {one['pid']}, {one['thread']})"
    if one.get("reason"):
        text += f": {one['reason']}"
    if one.get("error"):
        text += f"; it failed: {one['error']}"
    return text


def _gap(lost: int, now: float) -> dict[str, Any]:
    return {"time": _utc(min(now, time.time())), "what": "missing", "missing": lost}


def _utc(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _brief(value: Any) -> Any:
    """Return what is noted of a value: nothing that could change afterwards, and nothing large."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _Array(value.dtype, value.shape) if value.shape else value.item()
    if kind in (list, tuple) and len(value) <= _FEW:
        return tuple(map(_brief, value))
    if hasattr(value, "magnitude") and hasattr(value, "units"):
        return f"{_plain(_brief(value.magnitude))} {value.units}"
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"<{kind.__name__}{size}>"


def _plain(value: Any) -> Any:
    """Return what was noted of a value as JSON has it."""
    if isinstance(value, _Array):
        return f"<{value.dtype} array of shape {tuple(value.shape)}>"
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        value = value.decode("ascii", "backslashreplace")
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}... ({len(value)} characters)"
    if isinstance(value, bool | int | float) or value is None:
        return value
    return str(value)
