"""How PyMeasure's drivers do as devices: its classes, its own tests, and the time that a hosted property takes.

    python benchmarks/foreign_drivers.py [--write]

PyMeasure's tests are in its source distribution, which is downloaded. ``--write`` makes the page
docs/reference/foreign-drivers.md of what is found. It takes ten minutes.
"""

import argparse
import json
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

from catkit_devices import Measurement, VisaDevice
from catkit_devices.drivers import share
from catkit_devices.simulation import Instrument, build_library

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "foreign"))
hosted = import_module("hosted_pymeasure")

PAGE = ROOT / "docs" / "reference" / "foreign-drivers.md"


def classes():
    """Open a device for each instrument class on a scripted line; return what they have, and the failures."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found, unimportable = hosted.instrument_classes()
    totals, failures, opened = Counter(), {}, 0
    for cls in found:
        try:
            described = hosted.opened_on_a_script(cls)
        except Exception as error:  # noqa: BLE001 - of whatever instrument
            failures[f"{cls.__module__.removeprefix('pymeasure.instruments.')}.{cls.__name__}"] = str(error)
            continue
        opened += 1
        totals.update({key: len(described[key]) for key in ("properties", "commands", "components")})
    return {
        "classes": len(found), "opened": opened, "totals": dict(totals), "failures": failures,
        "unimportable": unimportable,
    }  # fmt: skip


def tests(directory):
    """Run PyMeasure's own instrument tests with a device in the place of the instrument."""
    wanted = f"pymeasure=={version('pymeasure')}"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-binary", "pymeasure", "--no-deps", wanted]
    subprocess.run(download, cwd=directory, check=True)
    with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
        archive.extractall(directory, filter="data")
    source = next(path for path in directory.iterdir() if path.is_dir())
    reached, report = directory / "reached.txt", directory / "report.xml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "foreign"), hosted.REACHED: str(reached)}
    command = [
        sys.executable, "-m", "pytest", "-q", "-n0", "-p", "hosted_pymeasure", "-p", "no:cacheprovider", "-W", "ignore",
        "--ignore=tests/instruments/test_all_instruments.py", f"--junitxml={report}", "tests/instruments",
    ]  # fmt: skip
    subprocess.run(command, cwd=source, env=environment, check=False, stdout=subprocess.DEVNULL)
    counts, failures = Counter(), {}
    for case in ET.parse(report).iter("testcase"):
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        outcome = "failed" if failed is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[outcome] += 1
        if failed is not None:
            name = f"{case.get('classname', '').removeprefix('tests.instruments.')}::{case.get('name')}"
            failures[name] = failed.get("message", "").partition("\n")[0]
    lines = reached.read_text(encoding="utf-8").splitlines() if reached.exists() else []
    return {"counts": dict(counts), "failures": failures, "reached": len({json.loads(line)[0] for line in lines})}


class Meter:
    """A simulated instrument that answers at once."""

    message_end = b"\n"

    def __init__(self, bench):
        pass

    def feed(self, data):
        return b"1.5\n" if data.endswith(b"?\n") else b""


class Ours(VisaDevice):
    level = Measurement("LEV?", doc="Level.")

    def _identify(self):
        pass


def their_class():
    from pymeasure.instruments import Instrument as Base

    class Theirs(Base):
        level = Base.measurement("LEV?", "Level.")

        def __init__(self, adapter, name="meter", **kwargs):
            super().__init__(adapter, name, includeSCPI=False, read_termination="\n", write_termination="\n", **kwargs)

    return Theirs


def cost(address, rounds=300, calls=10):
    """Return the microseconds of one property read: ours, hosted, and PyMeasure's alone."""
    cls = their_class()

    def line():
        return build_library([Instrument(address, Meter)])

    ours, theirs = Ours("ours", address=address, visa_library=line()), share(cls, address, visa_library=line())
    ours.open()
    theirs.open()
    readers = {"ours": ours, "hosted": theirs, "alone": cls(address, visa_library=line())}
    times = {name: [] for name in readers}
    for _ in range(rounds):
        for name in random.sample(list(readers), len(readers)):
            start = time.perf_counter()
            for _ in range(calls):
                _ = readers[name].level
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    ours.close()
    theirs.close()
    return {name: statistics.median(values) for name, values in times.items()}


def page(found, run, times):
    """Return the page of the reference."""
    counts, totals = run["counts"], found["totals"]
    ran = counts.get("passed", 0) + counts.get("failed", 0)
    rows = [
        f"| {name} | {one['alone']:.0f} | {one['ours']:.0f} | {one['hosted']:.0f} | {one['hosted'] / one['ours']:.2f} |"
        for name, one in times.items()
    ]
    unimportable = ["These modules cannot be imported here:", "", *_table("module", found["unimportable"])]
    failures = "\n".join(_table("class", found["failures"]) + (unimportable if found["unimportable"] else []))
    failing_tests = "\n".join(_table("test that fails", run["failures"]))
    return f"""# Drivers of other frameworks: figures

Made by `python benchmarks/foreign_drivers.py --write`, with PyMeasure {version("pymeasure")}.

## PyMeasure's classes

Of {found["classes"]} instrument classes, {found["opened"]} are opened, described and closed as devices on a scripted
line, which gives the same answer to every question. They have {totals["properties"]} properties,
{totals["commands"]} commands and {totals["components"]} components.

{failures}
## PyMeasure's own tests

They run with a device in the place of the instrument. Each property and method that a test uses is an operation under
the mutex of the device; its table of expected commands is served by a simulated line.

{counts.get("passed", 0)} of the {ran} that run pass. {counts.get("skipped", 0)} need real instruments, or are
skipped by PyMeasure itself. {run["reached"]} of those that run also use something that is no operation, such as the
adapter.

Those that fail are of these kinds:

* `TypeError: ... 'address'`: the class of the test is no instrument (it derives from `CommonBase` alone), so it has no
  line.
* `VI_ERROR_TMO`: the driver asks for more bytes than the table answers. PyMeasure's own stand-in for a line then gives
  fewer; a line waits for them.
* `a test with a connection of its own`: the test replaces pyvisa's resource by something else.
* `'baudrate' is not a valid attribute`: the driver fails on pyvisa without us too.
* Others look at the number of bytes or elements that a reply has without its termination, which it has on a line.

{failing_tests}
## What it costs

One read of a property on the same simulated line, median, in microseconds:

| line | PyMeasure alone | our driver | PyMeasure's driver, hosted | hosted / ours |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _table(what, rows):
    if not rows:
        return []
    return [f"| {what} | why |", "|---|---|", *(f"| `{name}` | {_cell(why)} |" for name, why in rows.items()), ""]


def _cell(text):
    text = re.sub(r"0x[0-9a-f]{6,}", "0x...", " ".join(text.split()))
    text = text if len(text) <= 160 else f"{text[:160]}..."
    return f"`{text.replace('|', ' ').replace('`', ' ')}`"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = tests(Path(directory))
    times = {
        "USB (messages)": cost("USB0::1::2::3::INSTR"),
        "TCP socket (stream)": cost("TCPIP0::192.0.2.1::5::SOCKET"),
    }
    text = page(classes(), run, times)
    if wanted.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
