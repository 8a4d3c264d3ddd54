"""The scalars of a run as CSV: one line for each, which spreadsheets and most other programs can read."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from catkit_devices.datalog.reader import RunReader
    from catkit_devices.datalog.records import Tag

__all__ = ["write"]


def write(reader: RunReader, tags: list[Tag], file: Path) -> list[str]:
    """Write time (ISO 8601, UTC), tag, value and unit of every scalar; return what was left out, as sentences.

    The lines of a tag are together, in the order in which they were recorded. Numbers are written so that reading
    them gives the same number again.
    """
    scalars = [tag for tag in tags if tag.kind == "scalar"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["time", "tag", "value", "unit"])
        for tag in scalars:
            column = reader.scalars(tag.tag)
            moments = (f"{moment}Z" for moment in column.times.astype(str))
            table.writerows(
                (moment, tag.tag, value, column.unit or "")
                for moment, value in zip(moments, column.values.tolist(), strict=True)
            )
    others = Counter(tag.kind for tag in tags if tag.kind not in ("scalar", "event"))
    if not others:
        return []
    counted = ", ".join(f"{kind} ({count} tag{'' if count == 1 else 's'})" for kind, count in others.items())
    return [f"{counted}: CSV holds scalars only; HDF5 and FITS hold everything"]
