"""``FILE[:CLASS]`` and the words behind it become an experiment, or one clear error."""

import collections
import dataclasses
import enum
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from catkit_devices.cli.loading import load_experiment
from catkit_devices.cli.parameters import parse_parameters
from catkit_devices.errors import ConfigurationError
from catkit_devices.testbed import Experiment

ONE = """
from catkit_devices.testbed import Experiment

class Scan(Experiment):
    def experiment(self): ...
"""

TWO = """
from catkit_devices.testbed import Experiment

class FilterScan(Experiment):
    repeats: int = 3
    settle_time: float = 0.1
    verbose: bool = False

    def experiment(self): ...

class ClosedLoop(Experiment):
    def experiment(self): ...

class Common(Experiment):
    pass

class _Own(Experiment):
    def experiment(self): ...
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def write(name, text):
        file = tmp_path / name
        file.write_text(text)
        return file

    yield write
    for module in set(sys.modules) - known:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in sys.modules[module].__file__:
            del sys.modules[module]


def test_the_only_experiment_of_a_file_needs_no_name(write):
    file = write("one_scan.py", ONE)
    assert load_experiment(str(file)).__name__ == "Scan"


def test_one_of_several_experiments_is_named_after_a_colon(write):
    file = write("two_scans.py", TWO)
    assert load_experiment(f"{file}:ClosedLoop").__name__ == "ClosedLoop"


def test_several_experiments_without_a_name_are_an_error_that_lists_them(write):
    file = write("ambiguous_scans.py", TWO)
    with pytest.raises(ConfigurationError, match=r"found 2 \(FilterScan, ClosedLoop\): say which, as .*:FilterScan"):
        load_experiment(str(file))


def test_a_misspelt_experiment_is_answered_with_the_nearest(write):
    file = write("misspelt_scans.py", TWO)
    with pytest.raises(ConfigurationError, match="did you mean 'FilterScan'"):
        load_experiment(f"{file}:FilterSkan")


def test_an_experiment_that_does_nothing_is_an_error_that_says_what_is_missing(write):
    file = write("idle_scan.py", "from catkit_devices.testbed import Experiment\nclass Scan(Experiment): pass\n")
    with pytest.raises(ConfigurationError, match="Scan has no method experiment"):
        load_experiment(str(file))


def test_a_file_that_is_missing_or_cannot_be_imported_is_an_error(write, tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.py: no such file"):
        load_experiment(str(tmp_path / "absent.py"))
    file = write("broken_scan.py", "x = 1\nimport no_such_module\n")
    with pytest.raises(ConfigurationError, match=r"cannot be imported: ModuleNotFoundError: .* \(line 2\)"):
        load_experiment(str(file))
    file = write("empty_scan.py", "x = 1\n")
    with pytest.raises(ConfigurationError, match="expected one experiment, found none"):
        load_experiment(str(file))


def test_a_file_with_the_name_of_a_standard_module_is_an_error(write):
    file = write("json.py", TWO)
    with pytest.raises(ConfigurationError, match="has the name of another module"):
        load_experiment(str(file))


def test_a_file_can_import_modules_beside_it(write):
    write("beside_it.py", "value = 4\n")
    file = write(
        "needs_beside_it.py",
        "from beside_it import value\nfrom catkit_devices.testbed import Experiment\n"
        "class Scan(Experiment):\n    repeats: int = value\n    def experiment(self): ...\n",
    )
    assert load_experiment(str(file))().repeats == 4


def test_words_become_parameters_of_the_declared_types(write):
    scan = load_experiment(f"{write('typed_scans.py', TWO)}:FilterScan")
    experiment = scan(**parse_parameters(scan, ["--repeats", "5", "--settle-time=0.5", "--verbose"]))
    assert (experiment.repeats, experiment.settle_time, experiment.verbose) == (5, 0.5, True)
    assert scan(**parse_parameters(scan, ["--no-verbose"])).verbose is False


class Way(enum.IntFlag):
    UP = 1
    DOWN = 2


@dataclasses.dataclass
class Spot:
    x: float
    name: str = "here"


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (Spot, ['{"x": 1}'], Spot(1.0)),
        (Spot | None, ['{"x": 1, "name": "there"}'], Spot(1.0, "there")),
        (float | None, ["null"], None),
        (list[Spot], ['[{"x": 1}]', '{"x": 2}'], [Spot(1.0), Spot(2.0)]),
        (collections.deque[int], ["[1]", "2"], collections.deque([1, 2])),
        (Sequence[int], ["1", "2"], [1, 2]),
        (Mapping[str, int], ['{"a": 1}'], {"a": 1}),
        (collections.Counter[str], ['{"a": 1}'], collections.Counter("a")),
        (list[int] | int, ["[1]"], [1]),
        (list[int] | int, ["1"], 1),
        (dict[str, int] | list[int], ["[1]"], [1]),
        (int | float, ["1.0"], 1.0),
        (float | int, ["1"], 1),
        (bool | int, ["1"], 1),
        (str | int, ["5"], "5"),
        (list[str], ["null", "5"], ["null", "5"]),
        (Literal[1, "a", True] | None, ["true"], True),
        (Literal[1] | None, ["null"], None),
        (Way, ["3"], Way.UP | Way.DOWN),
        (Way, ["UP|DOWN"], Way.UP | Way.DOWN),
    ],
)
def test_values_that_cannot_be_written_as_text_are_given_as_json(annotation, words, value):
    class Takes(Experiment):
        it: annotation

        def experiment(self):
            pass

    given = parse_parameters(Takes, [part for word in words for part in ("--it", word)])
    found = Takes(**given).it
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--repeat", "5"], r"--repeat: FilterScan has no such parameter.*did you mean '--repeats'"),
        (["extra"], "extra: FilterScan has no such parameter"),
        (["--repeats"], "--repeats: expected a value after it"),
        (["--repeats", "many"], r"repeats: expected a valid integer.*got 'many'"),
    ],
)
def test_words_that_are_not_parameters_are_errors(write, words, text):
    scan = load_experiment(f"{write('strict_scans.py', TWO)}:FilterScan")
    with pytest.raises(ConfigurationError, match=text):
        scan(**parse_parameters(scan, words))
