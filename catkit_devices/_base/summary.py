"""The first line of a docstring, as a person reads it."""

from __future__ import annotations

__all__ = ["summary"]


def summary(doc: str | None) -> str:
    """Return the first line of ``doc`` without its markup; empty if there is none."""
    return (doc or "").partition("\n")[0].replace("``", "")
