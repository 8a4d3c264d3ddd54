"""Checks timeouts where they are given, before anything waits."""

from __future__ import annotations

import math

__all__ = ["LONGEST_TIMEOUT", "default_timeout", "seconds"]

LONGEST_TIMEOUT = 1e6
"""Seconds, over eleven days. Operating systems count the time of a wait in milliseconds of 31 bits (24 days), and raise
OverflowError for more."""


def seconds(timeout: float, what: str) -> float:
    """Return the timeout of ``what``, in seconds; less than 0 means 0, infinity means no limit.

    Raises:
        ValueError: it is not a number; with NaN, the wait would otherwise never end.
    """
    try:
        if not math.isnan(timeout):
            return timeout
    except (TypeError, OverflowError):
        pass
    raise ValueError(f"{what}: a timeout is a number of seconds, got {timeout!r}")


def default_timeout(timeout: float, what: str, *, above_zero: bool = False) -> float:
    """Return the default timeout of ``what``, in seconds.

    Raises:
        ValueError: it is not a number, less than 0, or more than ``LONGEST_TIMEOUT``; or 0 if it must be above that.
    """
    number = seconds(timeout, what)
    if isinstance(timeout, bool) or not 0 <= number <= LONGEST_TIMEOUT or (above_zero and number == 0):
        allowed = "above 0, at most" if above_zero else "0 to"
        raise ValueError(f"{what}: timeout must be {allowed} {LONGEST_TIMEOUT:.0f} s, got {timeout!r}")
    return timeout
