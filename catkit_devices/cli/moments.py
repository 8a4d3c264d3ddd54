"""Times, as people write them on the command line and read them on the screen: local time, with its offset from UTC."""

from __future__ import annotations

import datetime as dt
import re
import time

__all__ = ["clock", "local", "moment"]

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of each unit of time."""


def moment(text: str, option: str) -> float:
    """Return a time in seconds since 1970 UTC.

    Args:
        text: how long ago (``2d``), or a date and time in local time (ISO 8601).
        option: that it was given with, for the message.

    Raises:
        ConfigurationError: it is neither.
    """
    from catkit_devices.errors import ConfigurationError

    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if ago is not None and ago[2] in _UNITS:
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        return dt.datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(
            f"{option}: expected how long ago, such as 90s, 10m, 6h, 2d or 3w, or a date such as 2026-11-27 or "
            f"2026-11-27T14:30, got {text!r}"
        ) from None


def local(moment: float | dt.datetime, *, milliseconds: bool = False) -> str:
    """Return a time as text for the screen.

    Args:
        moment: in seconds since 1970 UTC, or with its time zone.
        milliseconds: whether they are shown too.
    """
    moment = moment if isinstance(moment, dt.datetime) else dt.datetime.fromtimestamp(moment, dt.UTC)
    fraction = f".{moment.microsecond // 1000:03d}" if milliseconds else ""
    return moment.astimezone().strftime(f"%Y-%m-%d %H:%M:%S{fraction} %z")


def clock(moment: float) -> str:
    """Return the time of the day for the screen, where the date is known.

    Args:
        moment: in seconds since 1970 UTC.
    """
    return dt.datetime.fromtimestamp(moment, dt.UTC).astimezone().strftime("%H:%M:%S %z")
