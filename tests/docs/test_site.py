"""The reference of the site leaves nothing out. That it is built is in test_whole_site.py."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from doc_pages import DOCS, ROOT

from catkit_devices import errors, hookspecs
from catkit_devices.cli.application import COMMANDS
from catkit_devices.drivers import Plugins
from catkit_devices.testbed import Configuration


@pytest.fixture(scope="module")
def reference():
    """The generated pages, made in a process of its own: that they can be imported there is part of the claim."""
    program = "import sys, json; sys.path.insert(0, 'docs'); import generate; print(json.dumps(generate.reference()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def headings(page, level=2):
    return re.findall(rf"^{'#' * level} `?([^`\n]+)`?$", page, re.MULTILINE)


@pytest.mark.parametrize("package", ["catkit_devices", "catkit_devices.multiprocessing", "catkit_devices.testbed"])
def test_the_architecture_page_tells_what_every_room_is_for(package):
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [one["layers"] for one in contracts if one.get("containers") == [package]]
    rooms = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "explanation" / "architecture.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(?:\w+/)?(\w+)(?:/|\.py)`", row)}
    assert rooms <= told


def test_every_error_is_explained_with_what_to_do_about_it(reference):
    every = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert set(headings(reference["reference/errors.md"])) == every
    assert reference["reference/errors.md"].count("**What to do.** ") == len(every)
    with (DOCS / "reference" / "what-to-do.toml").open("rb") as file:
        assert set(tomllib.load(file)) == {*every, "introduction"}


def test_every_hook_has_its_entry(reference):
    hooks = {name for name, member in vars(hookspecs).items() if hasattr(member, "catkit_devices_spec")}
    assert len(hooks) > 5
    assert (
        set(re.findall(r"^::: catkit_devices\.hookspecs\.(\w+)$", reference["reference/hooks.md"], re.MULTILINE))
        == hooks
    )


def test_every_command_has_its_entry(reference):
    assert set(headings(reference["reference/commands.md"])) == set(COMMANDS)


def test_every_bundled_driver_has_its_entry_with_all_its_properties(reference):
    page = reference["reference/drivers.md"]
    assert set(headings(page)) == set(Plugins().drivers)
    wheel = page.partition("## thorlabs_fw102c\n")[2].partition("\n## ")[0]
    assert re.search(r"^\| `position` \| read, set \|  \| 1 to 6 \| Filter slot", wheel, re.MULTILINE)


def test_every_configuration_key_has_its_entry(reference):
    page = reference["reference/configuration.md"]
    for table in ("testbed", "simulation", "devices", "safety"):
        annotation = Configuration.model_fields[table].annotation
        model = getattr(annotation, "__args__", (None, annotation))[1]
        section = next(part for part in page.split("\n## ") if part.startswith(f"`[{table}"))
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(model.model_fields)


def test_the_schema_for_editors_is_that_of_the_configuration(reference):
    schema = json.loads(reference["reference/configuration.schema.json"])
    assert schema.pop("$schema")
    assert schema == Configuration.model_json_schema()


def test_every_environment_variable_is_documented():
    used = set()
    for folder in ("catkit_devices", "plugins", "sim"):
        for file in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"\bCATKIT_DEVICES_[A-Z]+\b", file.read_text(encoding="utf-8")))
    documented = set(
        re.findall(r"^\| `(CATKIT_DEVICES_[A-Z]+)`", (DOCS / "reference" / "environment.md").read_text(), re.MULTILINE)
    )
    assert documented == used
