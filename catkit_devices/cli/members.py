"""How commands show what a device or a driver has: what may be set, how, and what a call looks like."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["allowed", "call", "keys", "use"]


def allowed(facts: dict[str, Any], unit: str | None = None) -> str:
    """Return which values a property may have: its choices, its limits in ``unit``, or its type."""
    from catkit_devices._device.values import range_text
    from catkit_devices.plain import text_of

    if facts["choices"]:
        return ", ".join(text_of(choice) for choice in facts["choices"])
    return range_text(facts["limits"], unit) if facts["limits"] else facts["type"] or ""


def use(facts: dict[str, Any]) -> str:
    """Return what can be done with a property: ``read, set, shared``."""
    words = ("readable", "read"), ("writable", "set"), ("shared", "shared")
    return ", ".join(word for fact, word in words if facts[fact])


def call(name: str, facts: dict[str, Any]) -> str:
    """Return a command with its parameters, as it is called."""
    inner = facts["signature"].removeprefix("(self").removeprefix(", ")
    inner = re.sub(r"(: |-> )'([^']*)'", r"\1\2", inner)  # annotations that are text are in quotes
    return name + (inner if inner.startswith("(") else f"({inner}")


def keys(facts: dict[str, Any]) -> str:
    """Return the keys of components."""
    return "known while it is open" if facts["keys"] is None else ", ".join(map(str, facts["keys"])) or "none"
