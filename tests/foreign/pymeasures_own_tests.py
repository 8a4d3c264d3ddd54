"""Runs PyMeasure's own instrument tests with a device in the place of the instrument."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import hosted_pymeasure

HERE = Path(__file__).parent
LISTED = tomllib.loads((HERE / "pymeasure_tests_that_fail.toml").read_text(encoding="utf-8"))
VERSION = LISTED["pymeasure"]
"""The version of PyMeasure for which the tests that fail are listed."""
WHY = LISTED["why"]
"""The reason for each test that fails."""


def run(directory):
    """Run them all; return how many had each outcome, those that failed, and how many used what is no operation.

    They are in PyMeasure's source distribution, which is downloaded.

    Args:
        directory: for the source distribution.
    """
    wanted = f"pymeasure=={version('pymeasure')}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-binary", "pymeasure", "--no-deps", wanted],
        cwd=directory, check=True,
    )  # fmt: skip
    packed = next(directory.glob("*.tar.gz"))
    with tarfile.open(packed) as archive:
        archive.extractall(directory, filter="data")
    source = directory / packed.name.removesuffix(".tar.gz")
    reached, report = directory / "reached.txt", directory / "report.xml"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(HERE), hosted_pymeasure.REACHED: str(reached)}
    command = [
        sys.executable, "-m", "pytest", "-q", "-n2", "-p", "hosted_pymeasure", "-p", "no:cacheprovider", "-W", "ignore",
        "--ignore=tests/instruments/test_all_instruments.py", f"--junitxml={report}", "tests/instruments",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"PyMeasure's tests did not run: {done.stdout[-4000:]}{done.stderr[-4000:]}")
    outcomes, failed = Counter(), {}
    for case in ET.parse(report).iter("testcase"):
        failure = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
        outcome = "failed" if failure is not None else "skipped" if case.find("skipped") is not None else "passed"
        outcomes[outcome] += 1
        if failure is not None:
            name = f"{case.get('classname', '').removeprefix('tests.instruments.')}::{case.get('name')}"
            failed[name] = failure.get("message", "").partition("\n")[0]
    lines = reached.read_text(encoding="utf-8").splitlines() if reached.exists() else []
    return outcomes, failed, len({json.loads(line)[0] for line in lines})
