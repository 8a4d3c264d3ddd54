"""The newest entries of the audit trail about one device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.processes.audit import sentence
from catkit_devices.testbed.processes.log_files import AUDIT
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.parts import Served, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["trail"]

_READ = 1 << 18
"""Bytes (256 KiB) that are read of the end of the file: about a thousand entries."""
_SHOWN = 15
"""Entries that are shown."""


def trail(served: Served, device: str) -> Markup:
    """Return who has set, called or broken what of a device, the newest first; `audit` shows all of it."""
    directory = Path(served.client.layout.logs)
    try:
        with (directory / AUDIT).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _READ))
            lines = file.read().decode("utf-8", "backslashreplace").splitlines()
    except FileNotFoundError:
        return nothing("nothing was changed yet")
    except OSError as error:
        return tag("p", f"{directory / AUDIT} cannot be read: {error.strerror}", class_="refusal")
    found = [one for one in _entries(lines) if one.get("target") == device][-_SHOWN:]
    rows = [
        tag(
            "li", tag("time", one["time"].replace("T", " ")[:19] + " UTC"), " ",
            tag("span", sentence(one), class_="refusal" if "error" in one else None),
        )
        for one in reversed(found)
    ]  # fmt: skip
    return tag("ul", rows, class_="messages") if rows else nothing("nothing of it was changed lately")


def _entries(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            one = json.loads(line)
            sentence(one)
        except (ValueError, KeyError, TypeError):  # the first line may be cut, or one torn by a full disk
            continue
        if isinstance(one.get("time"), str):
            yield one
