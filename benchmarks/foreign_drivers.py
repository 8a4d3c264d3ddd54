"""How PyMeasure's drivers do as devices: its classes, its own tests, and the time that a hosted property takes.

    python benchmarks/foreign_drivers.py [--cost] [--write]

PyMeasure's tests are in its source distribution, which is downloaded. ``--write`` makes the page
docs/reference/foreign-drivers.md of what is found. It takes ten minutes.
"""

import argparse
import contextlib
import logging
import os
import random
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from catkit_devices import Measurement, VisaDevice
from catkit_devices.drivers import share
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.simulation import Instrument, build_library

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "foreign"))
hosted = import_module("hosted_pymeasure")
own_tests = import_module("pymeasures_own_tests")

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


LINES = {
    "USB (messages)": "USB0::1::2::3::INSTR",
    "TCP socket (stream)": "TCPIP0::192.0.2.1::5::SOCKET",
}
ROUNDS, CALLS = 300, 10
"""Rounds are interleaved: what slows the computer down for a while slows all readers down."""


def make_ours(address):
    return Ours("ours", address=address, visa_library=build_library([Instrument(address, Meter)]))


def make_theirs(address):
    return share(their_class(), address, visa_library=build_library([Instrument(address, Meter)]))


def compared(readers):
    """Return the median time of one read for each reader in us, and the median over the rounds of hosted / ours."""
    times = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name in random.sample(list(readers), len(readers)):
            start = time.perf_counter()
            for _ in range(CALLS):
                _ = readers[name].level
            times[name].append((time.perf_counter() - start) / CALLS * 1e6)
    ratio = statistics.median(hosted / ours for hosted, ours in zip(times["hosted"], times["ours"], strict=True))
    return {name: statistics.median(values) for name, values in times.items()}, ratio


def cost_here(address):
    """Compare what a read costs in the process that has the devices."""
    with make_ours(address) as ours, make_theirs(address) as theirs:
        alone = their_class()(address, visa_library=build_library([Instrument(address, Meter)]))
        return compared({"alone": alone, "ours": ours, "hosted": theirs})


def cost_through_proxies(address):
    """Compare what a read costs through proxies, from another process than that which has the devices."""
    os.environ["CATKIT_DEVICES_RUNTIME"] = tempfile.mkdtemp()
    with SharedMemoryManager("cost") as manager, contextlib.ExitStack() as opened:
        ours, theirs = (
            manager.get_object("ours", make_ours, address),
            manager.get_object("theirs", make_theirs, address),
        )
        return compared({"ours": opened.enter_context(ours), "hosted": opened.enter_context(theirs)})


def page(found, run, times):
    """Return the page of the reference."""
    (outcomes, failed, reached), totals = run, found["totals"]
    unimportable = ["These modules cannot be imported here:", "", *_table("module", found["unimportable"])]
    failures = "\n".join(_table("class", found["failures"]) + (unimportable if found["unimportable"] else []))
    failing_tests = "\n".join(
        [
            "| test that fails | why |",
            "|---|---|",
            *(f"| `{name}` | {own_tests.WHY.get(name, _cell(message))} |" for name, message in sorted(failed.items())),
            "",
        ]
    )
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

{outcomes["passed"]} of the {outcomes["passed"] + outcomes["failed"]} that run pass. {outcomes["skipped"]} need real
instruments, or are skipped by PyMeasure itself. {reached} of those that run also use something that is no operation,
such as the adapter. `.ci/run` runs them too (tests/foreign/test_pymeasures_own_tests.py), and fails if another one than
these fails:

{failing_tests}
{_section_of_qcodes()}## What it costs

One read of a property on the same simulated line, median, in microseconds; the ratio is the median over interleaved
rounds. *Through a proxy* means that the device lives on a server, and another process reads it.

| line | | PyMeasure alone | our driver | PyMeasure's driver, hosted | hosted / ours |
|---|---|---|---|---|---|
{chr(10).join(_rows(times))}
"""


def _section_of_qcodes():
    """Return the part of the page that benchmarks/qcodes_hosted.py makes, as it is there now."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.find("## QCoDeS's drivers, hosted\n")
    return "" if start < 0 else text[start : text.index("## What it costs\n", start)]


def costs():
    """Compare on both kinds of line, here and through proxies."""
    places = {"in one process": cost_here, "through a proxy": cost_through_proxies}
    return {(line, where): cost(address) for line, address in LINES.items() for where, cost in places.items()}


def _rows(times):
    rows = []
    for (line, where), (one, ratio) in times.items():
        alone = f"{one['alone']:.0f}" if "alone" in one else ""
        rows.append(f"| {line} | {where} | {alone} | {one['ours']:.0f} | {one['hosted']:.0f} | {ratio:.2f} |")
    return rows


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
    parser.add_argument("--cost", action="store_true", help="print the table of what a read costs, only")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    wanted = parser.parse_args()
    if wanted.cost:
        print("\n".join(_rows(costs())))
        return
    with tempfile.TemporaryDirectory() as directory:
        run = own_tests.run(Path(directory))
    text = page(classes(), run, costs())
    if wanted.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
