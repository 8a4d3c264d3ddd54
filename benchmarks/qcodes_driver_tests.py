"""QCoDeS's own tests of its drivers, with a simulated VISA library of catkit_devices in place of pyvisa-sim.

    git clone --branch v0.58.0 https://github.com/microsoft/Qcodes
    pip install 'catkit-devices[qcodes]' pytest-mock lxml
    python benchmarks/qcodes_driver_tests.py Qcodes [pytest options]

The tests are not in the package that pip installs, so they come from the source, at the version that is installed
(``pip show qcodes``). They run twice, unchanged: with pyvisa-sim, and with this file as a plugin of pytest that makes
``pyvisa.ResourceManager("file.yaml@sim")`` open a library of catkit_devices with the same simulation file.

docs/reference/pyvisa-sim-files.md has what this prints.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from pyvisa import highlevel
from pyvisa_sim.parser import Loader

from catkit_devices.simulation import Instrument, SimulatedVisaLibrary, build_library

OPTIONS = (
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    os.devnull,
    "--rootdir",
    ".",
    "-W",
    "ignore",
    "--hypothesis-profile=ci",
)


class SimVisaLibrary(SimulatedVisaLibrary):
    """A library of one file. QCoDeS knows a simulated library by this name, and does not clear its instruments."""

    @property
    def sessions(self):
        """What is open: QCoDeS looks here whether it closes the last instrument, and then calls :meth:`_init`."""
        return {*self._managers, *self._sessions}

    def _init(self):
        for address in vars(self).get("_resources", ()):  # pyvisa calls this too, before there are any
            self.instrument(address).reset()


@functools.cache  # as in pyvisa, which keeps one library for each file
def library(path):
    addresses = list(Loader(path, bundled=False).data["resources"])
    built = build_library([Instrument(address, Path(path)) for address in addresses])
    return SimVisaLibrary(built.bench, [built.resource(address) for address in addresses])


def pytest_configure(config):
    """Make ``"file.yaml@sim"`` open the library above; pyvisa asks this table first."""
    highlevel._WRAPPERS["sim"] = lambda path: library(str(path))  # noqa: SLF001 - pyvisa has no public way


def run(checkout, name, *more):
    """Run the tests; return what became of each, by its name."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junit-xml={report}", *more, "tests/drivers"]
        subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=False)
        found = {}
        for case in ET.parse(report).iter("testcase"):
            outcome = next((child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed")
            found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    total = {outcome: list(found.values()).count(outcome) for outcome in ("passed", "failure", "error", "skipped")}
    print(f"| {name} | " + " | ".join(str(count) for count in total.values()) + " |", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="the source of QCoDeS")
    parser.add_argument("options", nargs="*", help="options of pytest, after --")
    options = parser.parse_args()
    print("| with | passed | failed | errors | skipped |\n| :- | -: | -: | -: | -: |")
    theirs = run(options.checkout, "pyvisa-sim", *options.options)
    ours = run(options.checkout, "catkit_devices", "-p", "qcodes_driver_tests", *options.options)
    for test, outcome in theirs.items():
        if ours.get(test) != outcome:
            print(f"{re.sub('^tests.drivers.', '', test)}: {outcome} with pyvisa-sim, {ours.get(test)} here")


if __name__ == "__main__":
    main()
