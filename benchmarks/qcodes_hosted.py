"""QCoDeS's drivers as devices: every parameter read and set through a proxy, beside QCoDeS alone.

    pip install 'catkit-devices[qcodes]'
    python benchmarks/qcodes_hosted.py [--write]

Prints a table in Markdown, and every difference. ``--write`` puts them into docs/reference/foreign-drivers.md. It takes
two minutes.
"""

import argparse
import contextlib
import logging
import re
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from catkit_devices.multiprocessing import SharedMemoryManager

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "foreign"))
hosted = import_module("hosted_qcodes")

PAGE = ROOT / "docs" / "reference" / "foreign-drivers.md"
HEADING = "## QCoDeS's drivers, hosted\n"
SECTION = re.compile(re.escape(HEADING) + r".*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
"""This program's part of the page."""


def compared():
    """Use every driver alone and hosted; return the lines of the table, both counts, and the differences."""
    worked = kept = 0
    rows, differences = [], {}
    with SharedMemoryManager("qcodes") as manager:
        for driver in hosted.DRIVERS:
            with manager.get_object(driver, hosted.make_device, driver) as device:
                one = hosted.compared(driver, device)
            worked += one.read + one.set
            kept += one.read_hosted + one.set_hosted
            differences |= {f"{driver} {name}": why for name, why in one.differences.items()}
            counts = (one.read, one.read_hosted, one.set, one.set_hosted, one.refused, one.refused_hosted)
            rows.append(f"| `{driver}` | {one.parameters} | " + " | ".join(map(str, counts)) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows, worked, kept, differences


def section(rows, worked, kept, differences):
    """Return the part of the page."""
    return f"""{HEADING}
Made by `python benchmarks/qcodes_hosted.py --write`, with QCoDeS {version("qcodes")}.

Every parameter of the drivers for which QCoDeS brings a simulated instrument is read, and set to what was read (or to a
value that its validator names), by QCoDeS alone; then in the same order from another process, through a proxy of the
device. {kept} of the {worked} reads and settings that work with QCoDeS alone work hosted ({100 * kept / worked:.2f} %),
with the same value. *Refused* are those that fail with QCoDeS alone: its simulated instruments do not know them.

| driver | parameters | read | hosted | set | hosted | refused | hosted |
|---|--:|--:|--:|--:|--:|--:|--:|
{chr(10).join(rows)}

Every difference:

| parameter | what differs |
|---|---|
{chr(10).join(f"| `{name}` | {cell(why)} |" for name, why in differences.items())}

"""


def cell(text):
    text = " ".join(text.split()).replace("|", " ").replace("`", " ")
    return f"`{text if len(text) <= 200 else text[:200] + '...'}`"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.relative_to(ROOT)}")
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(sys.stderr):  # QCoDeS says there to what it has connected
        made = section(*compared())
    print(made)
    if wanted.write:
        page = PAGE.read_text(encoding="utf-8")
        before = SECTION.sub("", page)
        PAGE.write_text(before.replace("## What it costs\n", made + "## What it costs\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
