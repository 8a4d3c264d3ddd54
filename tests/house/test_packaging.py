"""What each extra brings, as pyproject.toml says it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def names(extra):
    """Return the packages of an extra, those of the extras that it includes among them."""
    found = set()
    for requirement in EXTRAS[extra]:
        included = re.match(r"catkit-devices\[(\w+)\]", requirement)
        found |= names(included[1]) if included else {re.match(r"[\w.-]+", requirement)[0]}
    return found


def test_the_extra_for_tests_of_drivers_installs_three_packages():
    assert names("pytest") == {"hypothesis", "psutil", "pytest"}


def test_the_extra_for_the_documentation_has_all_packages_that_the_pages_about_testing_import():
    assert names("pytest") < names("docs")


def test_the_extra_for_development_contains_every_extra_but_those_for_programs_of_others():
    others = {"bench", "browser", "peers", "qcodes", "tango"}
    assert set().union(*(names(extra) for extra in EXTRAS if extra not in others)) == names("dev")
